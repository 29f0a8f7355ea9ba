// SPDX-License-Identifier: MIT
// What the files of fs/ share: the mount, and the handlers of the FUSE operations.
//
// Threads. The loop thread reads the device and runs every handler first, with STORE_NONBLOCK. A
// handler that would block is run again by a worker, with STORE_BLOCK (fs_worker.c). The loop also
// pumps the log, so the answers to fsyncs go out from it. One more thread lives while a signal has
// the mount detached.
//
// A handler therefore has no side effect before the one call of the store that may answer
// -AF_E_WOULD_BLOCK, and reads its thread's mode from fs_how(). Its shape: decode, check, call the
// store, reply.
//
// Invariants: F1 each request is answered exactly once (fs_reply.c). F2 a release that was read
// comes before everything read later that changes or syncs (fs_worker.c, fs_loop.c). F3 the loop
// never waits but in epoll_wait().
#ifndef AF_FS_FS_INTERNAL_H
#define AF_FS_FS_INTERNAL_H

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 314
#endif
#include <fuse_lowlevel.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "fs/fs.h"
#include "fs/fs_request.h"
#include "fs/mountinfo.h"

struct fs_workers;
struct fs_ghosts;

// Failures that were reported to the operator already, so that each is reported once.
#define FS_REPORTED_MAX 64

struct fs {
    struct engine *engine;
    struct store *store;
    struct wal *wal; // NULL: read-only
    struct io *io;
    struct message_sink sink;
    void (*ready)(void *arg);
    void (*ending)(void *arg);
    void *callback_arg;
    char *mountpoint, *store_path;
    struct fs_present present;
    bool read_only;
    // Set at mount (base/switch.h).
    bool
        kernel_cache; // the kernel may keep what it was told, and leave out requests without effect
    bool read_ahead;  // by the kernel

    struct fuse_session *session;
    int device_fd;         // of the session, non-blocking
    bool mounted;          // by us, and not yet detached by us
    struct mountinfo info; // of the mount
    bool initialized;      // the kernel's INIT has been answered
    bool skip_opendir;     // the kernel needs no OPENDIR; set by INIT

    int wake_fd;            // eventfd: a worker or the detaching thread has news for the loop
    atomic_bool want_wake;  // the loop sleeps until a worker finishes something
    atomic_uint unanswered; // fsyncs that wait for the log
    struct fs_workers *workers;
    struct fs_ghosts *ghosts;

    struct af_mutex report_lock;
    // Guarded by report_lock:
    struct {
        uint64_t ino;
        int code;
    } reported[FS_REPORTED_MAX];
    size_t reported_count; // goes on counting; the oldest entry is overwritten
};

// True while our mount is the topmost at its mount point: it may have been unmounted, or mounted
// over.
bool fs_is_on_top(const struct fs *fs);

// ---- fs_loop.c, fs_worker.c ----

// Lets libfuse decode a request and run its handler in this thread. False: it would have blocked,
// nothing has happened, and it is to be run again with STORE_BLOCK.
bool fs_run_request(struct fs *fs, const struct fs_request *rq, enum store_how how);
void fs_wake_loop(struct fs *fs);

// The owned request goes to a thread that may wait.
int fs_workers_create(struct fs *fs, struct fs_workers **ret_workers) AF_NODISCARD;
void fs_workers_submit(struct fs_workers *w, struct fs_request *rq);
// The same, after everything submitted in order before.
void fs_workers_submit_ordered(struct fs_workers *w, struct fs_request *rq);
// Something that was submitted in order has not finished.
bool fs_workers_ordered_busy(const struct fs_workers *w);
// Of the requests with `holds_release`: the number of the last one submitted, and of the oldest
// that has not been answered (0: none); and how many were answered.
uint64_t fs_workers_hold_last(const struct fs_workers *w);
uint64_t fs_workers_hold_oldest(const struct fs_workers *w);
uint64_t fs_workers_hold_done(const struct fs_workers *w);
// The bounds are reached: read nothing more before a request has finished.
bool fs_workers_full(struct fs_workers *w);
bool fs_workers_idle(struct fs_workers *w);
// Ends the threads; they must be idle. NULL ok.
void fs_workers_destroy(struct fs_workers *w);

// ---- fs_control.c: `.aerofs` in the root ----

#define FS_CONTROL_NAME   ".aerofs"
// Node ids are view << 48 | number; the live tree is view 0 and snapshots and transactions come
// from 1 on.
#define FS_CONTROL_VIEW   UINT64_C(0xffff)
#define FS_CONTROL_INO(n) (FS_CONTROL_VIEW << 48 | (uint64_t)(n))

static inline bool fs_is_control(fuse_ino_t ino)
{
    return ino >> 48 == FS_CONTROL_VIEW;
}
// True for the name of the control directory in the root, and for what is in it.
bool fs_is_control_name(fuse_ino_t parent, const char *name);
// A number in a snapshot's view.
static inline bool fs_is_snapshot(fuse_ino_t ino)
{
    return ino >> 48 != 0 && !fs_is_control(ino);
}
// Why nothing may be changed there: -EPERM in the control directory, -EROFS in a snapshot; else 0.
int fs_refuse(fuse_ino_t ino);
int fs_refuse_name(fuse_ino_t parent, const char *name);
void fs_control_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_control_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus);
void fs_control_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_control_read(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi);
void fs_control_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size,
                      struct fuse_file_info *fi);
void fs_control_release(fuse_req_t req, struct fuse_file_info *fi);

// ---- fs_snapshots.c: `.aerofs/snapshots` ----

#define FS_SNAPSHOTS_NAME "snapshots"
#define FS_SNAPSHOTS_INO  FS_CONTROL_INO(16)
void fs_snapshots_lookup(fuse_req_t req, const char *name);
void fs_snapshots_readdir(fuse_req_t req, size_t size, off_t off, bool plus);
void fs_snapshots_mkdir(fuse_req_t req, const char *name);
void fs_snapshots_rmdir(fuse_req_t req, const char *name);
// One line for each: LSN, seconds since 1970, number of inodes, name.
void fs_snapshots_text(struct fs *fs, struct buf *out);
// `.aerofs/rollback`: "NAME\nKEEP" goes back to snapshot NAME, and keeps what was as KEEP.
void fs_rollback_text(struct fs *fs, struct buf *out);
int fs_rollback(struct fs *fs, const char *text, uint64_t *ret_bound);

int fs_control_attr(struct fs *fs, fuse_ino_t ino, struct store_attr *ret_attr) AF_NODISCARD;

// ---- fs_raw.c ----

// Runs a request with `peek.raw`, between fs_call_begin() and fs_call_end().
void fs_raw_request(struct fs *fs, const struct fs_request *rq);

// ---- fs_ghost.c: attributes of what has lost its last name and is still known to the kernel ----

struct fs_ghosts *fs_ghosts_create(void);    // NULL: out of memory
void fs_ghosts_destroy(struct fs_ghosts *g); // NULL ok
// Before the answer to the request that takes the name away: the kernel may forget at once.
void fs_ghost_add(struct fs *fs, const struct store_attr *attr);
bool fs_ghost_find(struct fs *fs, uint64_t ino, struct store_attr *ret_attr);
void fs_ghost_forget(void *fs, uint64_t ino);

// ---- helpers of the handlers ----

// Attributes of whatever the kernel may ask for.
int fs_attr_of(struct fs *fs, fuse_ino_t ino, struct store_attr *ret_attr) AF_NODISCARD;
// The kernel did not take the handle: the connection is gone and no release will come.
void fs_drop_unused(struct fs *fs, struct store_file *file);

// As it is shown (struct fs_present).
void fs_attr_to_stat(const struct fs *fs, const struct store_attr *attr, struct stat *ret_stat);
struct store_file *fs_file(const struct fuse_file_info *fi);
struct store_cred fs_cred(fuse_req_t req);
// One entry of a listing, packed into the answer's buffer as far as it goes.
struct fs_listing {
    fuse_req_t req;
    char *bytes;
    size_t size, used;
    bool plus; // READDIRPLUS
};
// As store_dirent_fn, with a listing for `arg`: 1 when it does not fit any more.
int fs_listing_add(void *listing, const char *name, size_t name_len, uint64_t ino, uint32_t mode,
                   const struct store_attr *attr, uint64_t next_cookie);

// ---- handlers (fuse_lowlevel.h says what each gets) ----

void fs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
                   struct fuse_file_info *fi);
void fs_op_readlink(fuse_req_t req, fuse_ino_t ino);
void fs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void fs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void fs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void fs_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                  const char *new_name, unsigned flags);
void fs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name);
void fs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                  struct fuse_file_info *fi);
void fs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fs_op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t off,
                 struct fuse_file_info *fi);
void fs_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                     struct fuse_file_info *fi);
void fs_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
                           struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                           struct fuse_file_info *fi_out, size_t len, int flags);
void fs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void fs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void fs_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void fs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                   struct fuse_file_info *fi);
void fs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                       struct fuse_file_info *fi);
void fs_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_statfs(fuse_req_t req, fuse_ino_t ino);
void fs_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                    size_t size, int flags);
void fs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void fs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void fs_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
                 unsigned flags, const void *in, size_t in_size, size_t out_size);

#endif
