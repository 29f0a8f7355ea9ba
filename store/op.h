// SPDX-License-Identifier: MIT
// Logical operations: what a log record says (docs/FORMAT.md, "Operation bodies"). Encoding and
// decoding are pure; a decoded operation borrows from the body.
#ifndef AF_STORE_OP_H
#define AF_STORE_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/attr.h"

struct buf;

// An inode in memory.
struct inode {
    uint32_t mode, nlink, uid, gid;
    uint64_t rdev, size, blocks;
    struct timespec atime, mtime, ctime, btime;
    uint64_t content_id, parent;
    uint64_t content_lsn, attr_lsn, listing_lsn;
};

enum op_kind {
    OP_MAKE = 1,
    OP_COMPLETE = 2,
    OP_LINK = 3,
    OP_UNLINK = 4,
    OP_RMDIR = 5,
    OP_RENAME = 6,
    OP_ATTRIBUTES = 7,
    OP_SET_XATTR = 8,
    OP_REMOVE_XATTR = 9,
    OP_STAGE = 10,
    OP_REAP = 11,
    OP_NUMBERS = 12,
};

enum {                     // flags
    OP_NEW = 1,            // complete
    OP_NAME_SEEN = 2,      // complete NEW: readers have seen the directory change, at `time`
    OP_KEEP_ORPHAN = 1,    // unlink, rename: the inode stays, it is open
    OP_CONTENT_ORPHAN = 2, // unlink, rename: its content goes to the orphan list
    OP_EXCHANGE = 4,       // rename
    OP_AND_XATTR = 1,      // attributes: an xattr changes with them
    OP_AND_INODE = 1,      // set xattr, remove xattr: attributes change with it
};

enum content_mode {
    CONTENT_KEEP = 0,
    CONTENT_INLINE = 1,
    CONTENT_PIECES = 2,
    CONTENT_ADOPT = 3,
    CONTENT_MERGE = 4,
};

enum piece_type { PIECE_EXTENT = 1, PIECE_DATA = 2, PIECE_HOLE = 3 };

struct op_piece {
    uint64_t block, count;
    enum piece_type type;
    uint64_t address;
    const uint8_t *checksums;     // EXTENT, decoded: count little-endian 64-bit numbers; unaligned
    const uint8_t *data;          // DATA, decoded: count blocks
    const uint8_t *const *blocks; // DATA, when encoding: count pointers to blocks
};

struct op_xattr {
    const char *name;
    uint8_t name_len;
    const uint8_t *value;
    uint32_t value_len;
    const uint8_t
        *addresses; // one little-endian number for each block when value_len > INLINE_BYTES_MAX
};

#define OP_XATTRS_MAX 64u // of a new file in one record

struct op {
    enum op_kind kind;
    uint8_t flags;
    uint8_t index; // collision index of the name that is added
    uint64_t next_ino;
    struct timespec time;
    uint64_t ino; // also: content id (stage), id (reap)
    uint64_t parent, new_parent, replaced;
    const char *name, *new_name; // not terminated
    uint8_t name_len, new_name_len;
    struct inode inode;
    const uint8_t *target; // symlink
    uint32_t target_len;
    uint64_t target_address;               // when target_len > INLINE_BYTES_MAX
    struct op_xattr xattr;                 // set xattr, attributes with OP_AND_XATTR
    struct op_xattr xattrs[OP_XATTRS_MAX]; // make, complete NEW
    uint16_t xattr_count;
    enum content_mode content;
    const uint8_t *bytes; // CONTENT_INLINE
    uint32_t bytes_len;
    uint64_t staged_id;
    uint64_t keep_blocks;
    struct op_piece *pieces; // malloc'ed by op_decode() and by whoever builds one; op_free()
    uint32_t piece_count;
    uint8_t what; // reap
    uint64_t from_block;
};

void op_encode(const struct op *op, struct buf *out); // appends; out->failed when out of memory
// 0, -AF_E_LOG_RECORD for anything that op_encode() could not have written, -ENOMEM.
int op_decode(const void *body, size_t body_bytes, struct op *ret_op) AF_NODISCARD;
void op_free(struct op *op); // the pieces
// Calls `each` for every run of blocks that the operation names.
int op_addresses(const struct op *op, int (*each)(void *arg, uint64_t address, uint64_t count),
                 void *arg);
static inline uint64_t op_le64(const uint8_t *p, uint64_t i);
const char *op_name(enum op_kind kind);

#include "base/le.h"
static inline uint64_t op_le64(const uint8_t *p, uint64_t i)
{
    le64 v;
    memcpy(&v, p + 8 * i, sizeof(v));
    return le64_get(v);
}

#endif
