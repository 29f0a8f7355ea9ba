// SPDX-License-Identifier: MIT
// The store: a tree of files on a log. This is the whole interface that fs/ and the tests use for
// file operations; checkpoint/ uses store_engine.h beside it.
//
// Contract (docs/CONTRACT in the README's table): an operation is all or nothing across a crash;
// written bytes are visible at once but enter history when the content is *completed*: by
// store_fsync(), by store_release() of the last handle that changed it, by rename or link; the log
// keeps the order of operations.
//
// Blocking: every call takes `how`. With STORE_NONBLOCK a call that would have to read a cold
// block, write out pending content, or wait for space or the log returns -AF_E_WOULD_BLOCK and has
// changed nothing; call it again from a thread that may wait, with STORE_BLOCK. No call ever waits
// for a flush of the log: see store_fsync().
//
// Threading: all calls are thread safe; one lock guards the store and is never held during I/O.
// Errors: -errno as the system calls document them; corruption and log failure as private codes
// (base/err.h).
#ifndef AF_STORE_STORE_H
#define AF_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/attr.h"
#include "store/store_format.h"
#include "wal/wal.h"

struct store;
struct store_file; // an open file or a handle on it

enum store_how { STORE_NONBLOCK = 0, STORE_BLOCK = 1 };

struct store_attr {
    uint64_t ino;
    uint32_t mode, nlink, uid, gid;
    uint64_t rdev, size,
        blocks; // size as stat(2): directories report a multiple of 4096; blocks of 4096
    struct timespec atime, mtime, ctime, btime;
};

// Who asks: owner of new objects; umask: bits of the mode that a new object does not get, unless
// its directory has a default ACL.
struct store_cred {
    uint32_t uid, gid;
    uint32_t umask;
};

enum {
    STORE_SET_MODE = 1,
    STORE_SET_UID = 2,
    STORE_SET_GID = 4,
    STORE_SET_SIZE = 8,
    STORE_SET_ATIME = 16,
    STORE_SET_MTIME = 32,
    STORE_SET_ATIME_NOW = 64,
    STORE_SET_MTIME_NOW = 128,
    STORE_SET_CTIME = 256,
    STORE_KILL_SUIDGID =
        512, // a size or owner change by someone without the right to keep set-id bits
};

// ---- names ----

int store_lookup(struct store *s, enum store_how how, uint64_t parent, const char *name,
                 struct store_attr *ret_attr) AF_NODISCARD;
int store_getattr(struct store *s, enum store_how how, uint64_t ino,
                  struct store_attr *ret_attr) AF_NODISCARD;
// `file` may be NULL (by path). STORE_SET_SIZE through a file handle joins its pending content; by
// path on a file without pending content it is an operation of its own.
int store_setattr(struct store *s, enum store_how how, uint64_t ino, struct store_file *file,
                  const struct store_attr *attr, unsigned set,
                  struct store_attr *ret_attr) AF_NODISCARD;
// Directories, devices, fifos, sockets, and plain files that are complete and empty at once. `mode`
// with type. Set-gid directories pass on their group (and their bit to directories).
int store_mknod(struct store *s, enum store_how how, uint64_t parent, const char *name,
                uint32_t mode, uint64_t rdev, const struct store_cred *cred,
                struct store_attr *ret_attr) AF_NODISCARD;
int store_symlink(struct store *s, enum store_how how, uint64_t parent, const char *name,
                  const char *target, const struct store_cred *cred,
                  struct store_attr *ret_attr) AF_NODISCARD;
// `target` gets a string of at most 4095 bytes with its zero.
int store_readlink(struct store *s, enum store_how how, uint64_t ino,
                   char target[4096]) AF_NODISCARD;
// A file made by store_tmpfile() gets its name here, with all its content, in one operation.
int store_link(struct store *s, enum store_how how, uint64_t ino, uint64_t parent, const char *name,
               struct store_attr *ret_attr) AF_NODISCARD;
int store_unlink(struct store *s, enum store_how how, uint64_t parent,
                 const char *name) AF_NODISCARD;
int store_rmdir(struct store *s, enum store_how how, uint64_t parent,
                const char *name) AF_NODISCARD;
// flags as renameat2(2): RENAME_NOREPLACE, RENAME_EXCHANGE; others -EINVAL.
int store_rename(struct store *s, enum store_how how, uint64_t parent, const char *name,
                 uint64_t new_parent, const char *new_name, unsigned flags) AF_NODISCARD;

// Calls `each` for entries from `cookie` on (0: from the start; "." and ".." included) until it
// returns non-zero or the end. `next_cookie` is what continues behind the entry. `attr` only when
// with_attr (for readdirplus), else NULL but for ino and type bits of mode. Entries that exist
// throughout are seen exactly once. `each` runs under the store lock: it only copies.
typedef int (*store_dirent_fn)(void *arg, const char *name, size_t name_len, uint64_t ino,
                               uint32_t mode, const struct store_attr *attr, uint64_t next_cookie);
int store_readdir(struct store *s, enum store_how how, uint64_t ino, uint64_t cookie,
                  bool with_attr, store_dirent_fn each, void *arg) AF_NODISCARD;

// ---- files ----

// Opens a new file; its name is seen by everyone at once and becomes history with the first
// completion. `flags` as open(2): O_EXCL is the caller's lookup plus this call's -EEXIST; O_APPEND,
// O_TRUNC, access mode count.
int store_create(struct store *s, enum store_how how, uint64_t parent, const char *name,
                 uint32_t mode, int flags, const struct store_cred *cred,
                 struct store_attr *ret_attr, struct store_file **ret_file) AF_NODISCARD;
// A new file without a name (O_TMPFILE) in directory `parent`, which gives it group and ACL. With
// O_EXCL it can never be linked. Nothing of it survives a crash before store_link().
int store_tmpfile(struct store *s, enum store_how how, uint64_t parent, uint32_t mode, int flags,
                  const struct store_cred *cred, struct store_attr *ret_attr,
                  struct store_file **ret_file) AF_NODISCARD;
// O_TRUNC truncates (pending, as a write). Plain files only: others -EINVAL.
int store_open(struct store *s, enum store_how how, uint64_t ino, int flags,
               struct store_file **ret_file) AF_NODISCARD;
uint64_t store_file_ino(const struct store_file *file);
// Reads at most `size` bytes; short only at the end of the file. -AF_E_DATA_CHECKSUM for rotten
// bytes.
int store_read(struct store *s, enum store_how how, uint64_t ino, uint64_t off, void *bytes,
               size_t size, size_t *ret_size) AF_NODISCARD;
// Writes all or nothing of `size` bytes (at most 1 MiB + 4096). With `append` (the handle is
// O_APPEND) for the timer of C4; the offset is the kernel's. `kill_suidgid`: clear set-id bits as
// write(2) does for unprivileged writers. -ENOSPC now, never at fsync. -EFBIG beyond the largest
// offset.
int store_write(struct store *s, enum store_how how, struct store_file *file, uint64_t off,
                const void *bytes, size_t size, bool kill_suidgid) AF_NODISCARD;
// fallocate(2): FALLOC_FL_PUNCH_HOLE|KEEP_SIZE, FALLOC_FL_ZERO_RANGE (with or without KEEP_SIZE), 0
// and KEEP_SIZE (reserve: checks that there is room now, extends the size for 0); others
// -EOPNOTSUPP.
int store_fallocate(struct store *s, enum store_how how, struct store_file *file, int mode,
                    uint64_t off, uint64_t len) AF_NODISCARD;
// SEEK_DATA and SEEK_HOLE; -ENXIO.
int store_seek(struct store *s, enum store_how how, uint64_t ino, uint64_t off, int whence,
               uint64_t *ret_off) AF_NODISCARD;
// Completes the content of the inode and asks for durability of everything so far. Returns 1:
// durable already; 0: w->done will be called (by the thread that pumps the log) once durable or
// failed; or an error: nothing is promised, done will not run. Start the flush with store_kick()
// after it (a loop: once for a batch of requests).
int store_fsync(struct store *s, enum store_how how, uint64_t ino,
                struct wal_waiter *w) AF_NODISCARD;
// The same for every operation so far, completing nothing: fsync of a directory.
int store_sync(struct store *s, struct wal_waiter *w) AF_NODISCARD;
void store_kick(struct store *s);
// How safe the inode is now: *ret_lsn is that of its last change in history, *ret_durable whether
// that and all before it is durable, *ret_open whether there is content that is not completed, and
// so not in history.
int store_durability(struct store *s, enum store_how how, uint64_t ino, uint64_t *ret_lsn,
                     bool *ret_durable, bool *ret_open) AF_NODISCARD;
// Closes a handle; the last one that changed the content completes it. On -AF_E_WOULD_BLOCK the
// handle is still open; on any other return it is gone. Errors of the completion are returned (and
// kept for status) although no one may be listening.
int store_release(struct store *s, enum store_how how, struct store_file *file) AF_NODISCARD;

// ---- xattrs (any name; the caller has applied the rules of namespaces) ----

int store_getxattr(struct store *s, enum store_how how, uint64_t ino, const char *name, void *value,
                   size_t size,
                   size_t *ret_size) AF_NODISCARD; // size 0: asks for the size; -ERANGE, -ENODATA
int store_listxattr(struct store *s, enum store_how how, uint64_t ino, char *names, size_t size,
                    size_t *ret_size) AF_NODISCARD;
// flags: XATTR_CREATE, XATTR_REPLACE. -E2BIG above 65536 bytes; -ERANGE for names above 255.
int store_setxattr(struct store *s, enum store_how how, uint64_t ino, const char *name,
                   const void *value, size_t size, int flags) AF_NODISCARD;
int store_removexattr(struct store *s, enum store_how how, uint64_t ino,
                      const char *name) AF_NODISCARD;
// Sets (size 0: removes, also when there is none) the access or default ACL, by the name of its
// xattr, in the kernel's form. The mode follows an access ACL in the same operation; one that says
// no more than a mode is not kept. `keep_setgid`: the caller may keep the set-gid bit. -EINVAL for
// what is no ACL, -E2BIG above 127 entries, -EACCES for a default ACL of what is no directory.
int store_set_acl(struct store *s, enum store_how how, uint64_t ino, const char *name,
                  const void *acl, size_t size, bool keep_setgid) AF_NODISCARD;

// ---- snapshots: the whole tree at a moment, under a name ----
//
// A snapshot holds everything completed before the call, and is durable when the call returns; it
// costs a checkpoint. Its files are read by inode numbers with the view above bit 48, as
// store_snapshot_open() gives them; changes there are refused. All wait, so with STORE_NONBLOCK
// they answer -AF_E_WOULD_BLOCK.

struct store_snapshot {
    uint64_t id, lsn, inodes;
    int64_t created; // seconds since 1970; a label
    char name[256];
};
int store_snapshot_create(struct store *s, enum store_how how,
                          const char *name) AF_NODISCARD; // -EEXIST
// Gone for everybody on return, durably; its space comes back in the background. Whoever has
// something of it open gets -ESTALE.
int store_snapshot_delete(struct store *s, enum store_how how, const char *name) AF_NODISCARD;
// The live tree becomes that of snapshot `name`, in one step that a crash undoes or keeps as a
// whole; the state before is kept as snapshot `keep`. Durable on return. Changes wait meanwhile;
// content that is not completed is dropped, and what is open is stale
// (-ESTALE). Numbers of inodes and LSNs go on. Then `changed` (may be NULL) is told every inode,
// and every name in its directory, that is not what it was; it is called without locks. -ENOENT,
// -EEXIST, -EBUSY (another is under way).
typedef void (*store_changed_fn)(void *arg, uint64_t ino, const char *name, size_t name_len);
int store_snapshot_rollback(struct store *s, enum store_how how, const char *name, const char *keep,
                            store_changed_fn changed, void *arg) AF_NODISCARD;
// True when the tree that `file` was opened in is not the live one any more.
bool store_file_stale(struct store *s, const struct store_file *file);
// The root directory of the snapshot. -ENOENT; -ENFILE when 65534 of them are open.
int store_snapshot_open(struct store *s, const char *name, uint64_t *ret_ino) AF_NODISCARD;
// The first one with an id above `after`, in the order in which they were taken. Does not wait.
bool store_snapshot_next(struct store *s, uint64_t after, struct store_snapshot *ret);

// ---- the whole ----

struct store_statfs {
    uint64_t blocks, free_blocks, avail_blocks; // of 4096 bytes; the smaller of cap and host
    uint64_t inodes, free_inodes;
};
int store_statfs(struct store *s, struct store_statfs *ret) AF_NODISCARD;

// A damaged thing that was met; kept for `aerofs status` and .aerofs/damage (the first
// STORE_DAMAGE_MAX, deduplicated; store/damage.h has the names).
#define STORE_DAMAGE_MAX  256
#define STORE_DAMAGE_LINE 400 // bytes of a line about one name
struct store_damage {
    int code;                 // -AF_E_… or -EIO
    uint64_t ino;             // inode or content; 0: not known
    uint64_t off, bytes;      // range in the file, for data; bytes 0: not data
    uint64_t address;         // block in `data`; 0: not known
    uint64_t expected, found; // checksums; 0: it was not that
    uint64_t count;           // how often met
    bool in_snapshot;         // met in a snapshot: `ino` and `off` are those there
    char file[32];  // "wal/…", "superblock"; "": data. With it, `off` is the offset there
    char text[320]; // what, where, expected, found; filled in unless there is some
};

struct store_status {
    struct wal_stats wal;
    uint64_t applied_lsn, checkpoint_lsn, checkpoint_sequence, generation;
    uint64_t cache_blocks, cache_dirty_blocks, cache_budget_blocks, cache_hits, cache_misses;
    uint64_t pending_files, pending_bytes, open_files;
    uint64_t space_capacity_blocks, space_used_blocks, space_waiting_blocks, space_reserved_blocks,
        space_reserve_blocks, space_max_blocks;
    uint64_t inodes, orphans;
    uint64_t snapshots; // deleted ones that are being reclaimed included
    uint64_t errors;    // operations that failed for I/O or corruption
    int failed;         // 0, or the error that made the store read-only
    char failed_what[200];
    bool read_only;
    size_t damage_count;
    uint64_t damage_unlisted; // met when the list was full
};
void store_get_status(struct store *s, struct store_status *ret);

#endif
