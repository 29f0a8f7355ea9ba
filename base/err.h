// SPDX-License-Identifier: MIT
// Error codes. Functions return 0 or a negative number: -errno for failures of the operating
// system and for what a caller of a file operation is told, or a private code below for failures of
// validation and policy, so that tests and messages name the exact cause. err_to_errno() maps a
// private code to what a user of the mount sees.
#ifndef AF_BASE_ERR_H
#define AF_BASE_ERR_H

#include <errno.h>

#define AF_E_FIRST 5000

// clang-format off
//      name                    errno      text
#define AF_ERRORS(X)                                                                               \
    X(AF_E_FAULT,               EIO,       "a block must be read first (internal)")                \
    X(AF_E_WOULD_BLOCK,         EAGAIN,    "the call would wait (internal)")                       \
    X(AF_E_IO_SHORT,            EIO,       "the file ends before the bytes that were asked for")   \
    X(AF_E_IO_UNSUPPORTED,      EOPNOTSUPP,"the requested I/O method is not available here")       \
    X(AF_E_IO_NO_DIRECT,        EOPNOTSUPP,"the file system of the store does not take O_DIRECT")   \
    X(AF_E_BLOCK_MAGIC,         EIO,       "block has a wrong magic number or type")               \
    X(AF_E_BLOCK_CHECKSUM,      EIO,       "block checksum does not match its parent")             \
    X(AF_E_BLOCK_ADDRESS,       EIO,       "block carries the address of another block")           \
    X(AF_E_BLOCK_GENERATION,    EIO,       "block carries another generation than its parent says")\
    X(AF_E_BLOCK_UUID,          EIO,       "block belongs to another store")                       \
    X(AF_E_NODE_LAYOUT,         EIO,       "tree node has an impossible layout")                   \
    X(AF_E_NODE_ORDER,          EIO,       "tree node has items out of order or out of range")     \
    X(AF_E_NODE_LEVEL,          EIO,       "tree node has a level that its parent does not expect")\
    X(AF_E_ITEM,                EIO,       "tree item has an impossible value")                    \
    X(AF_E_DATA_CHECKSUM,       EIO,       "file data does not match its checksum")                \
    X(AF_E_SPACE_CHECKSUM,      EIO,       "space map block does not match its checksum")          \
    X(AF_E_SPACE_LAYOUT,        EIO,       "space map block has an impossible layout")             \
    X(AF_E_SPACE_CLAIM,         EIO,       "the log names blocks that the space map cannot give")  \
    X(AF_E_LOG_DAMAGED,         EIO,       "the acknowledged log is damaged")                      \
    X(AF_E_LOG_MISSING,         EIO,       "a log segment that must exist is missing")             \
    X(AF_E_LOG_FAILED,          EIO,       "the log could not be written; the store is read-only") \
    X(AF_E_LOG_RECORD,          EIO,       "log record cannot be decoded")                         \
    X(AF_E_LOG_FULL,            EAGAIN,    "the log waits for a checkpoint (internal)")            \
    X(AF_E_LOG_TOO_BIG,         EFBIG,     "record is larger than a log segment can hold")         \
    X(AF_E_SB_NONE,             EIO,       "no valid superblock")                                  \
    X(AF_E_SB_STALE,            EIO,       "the log is newer than the superblock: the newer superblock was lost") \
    X(AF_E_SB_FIELD,            EIO,       "superblock has an impossible value")                   \
    X(AF_E_VERSION,             EIO,       "the store has a format that this program does not know") \
    X(AF_E_NOT_A_STORE,         EINVAL,    "not an AeroFS store")                                  \
    X(AF_E_STORE_EXISTS,        EEXIST,    "a store is there already")                             \
    X(AF_E_STORE_LOCKED,        EBUSY,     "the store is in use")                                  \
    X(AF_E_READ_ONLY,           EROFS,     "the store is read-only")                               \
    X(AF_E_REPLAY,              EIO,       "a log record does not fit the tree that it is replayed on") \
    X(AF_E_NEEDS_RECOVERY,      EROFS,     "the store needs recovery and the disk is read-only")

// clang-format on

enum af_error {
    AF_E_BEFORE_FIRST = AF_E_FIRST - 1,
#define X(name, err, text) name,
    AF_ERRORS(X)
#undef X
        AF_E_END
};

// The errno (positive) that stands for `code` (0, -errno or -AF_E_…); 0 for 0.
int err_to_errno(int code);
// The name ("ENOSPC", "AF_E_BLOCK_CHECKSUM") and a sentence; never NULL; static storage.
const char *err_name(int code);
const char *err_text(int code);
// True for codes that mean: bytes on disk are not what was written.
int err_is_corruption(int code);

#endif
