// SPDX-License-Identifier: MIT
// Answers. F1: each request is answered exactly once. A thread has one call at a time; what it has
// done to its request is noted here and asserted when its handler has returned.
#ifndef AF_FS_FS_REPLY_H
#define AF_FS_FS_REPLY_H

#include "fs/fs_internal.h"

// ---- around a handler: fs_run_request() ----

void fs_call_begin(enum store_how how, const struct fs_peek *peek);
// False: the handler would have blocked and is to be run again.
bool fs_call_end(void);

// ---- in a handler ----

// The first thing in each handler: notes that the request is ours to answer.
struct fs *fs_enter(fuse_req_t req);
// The same for a request that libfuse has not decoded.
void fs_enter_raw(void);
// Its answer: notes and reports it. False: nothing is to be sent, it will be run again.
bool fs_answer_raw(struct fs *fs, fuse_ino_t ino, int r) AF_NODISCARD;
// Whether this thread may wait.
enum store_how fs_how(void);
const struct fs_peek *fs_call_peek(void);
// FS_PAYLOAD_MAX bytes of the thread's own, for answers. NULL: out of memory.
void *fs_call_buffer(void);
// At the end of a thread that ran handlers.
void fs_call_free(void);

// `r`: 0, or the error of the store. -AF_E_WOULD_BLOCK answers nothing and has the request run
// again.
void fs_reply_result(fuse_req_t req, fuse_ino_t ino, int r);
void fs_reply_entry(fuse_req_t req, const struct store_attr *attr);
void fs_reply_missing(fuse_req_t req); // a name that is not there, which the kernel may remember
void fs_reply_attr(fuse_req_t req, const struct store_attr *attr);
void fs_reply_bytes(fuse_req_t req, const void *bytes, size_t size);
void fs_reply_written(fuse_req_t req, size_t size);
void fs_reply_size(fuse_req_t req, size_t size); // of an xattr or a list of them
void fs_reply_target(fuse_req_t req, const char *target);
void fs_reply_statfs(fuse_req_t req, const struct statvfs *st);
void fs_reply_offset(fuse_req_t req, off_t off);
// False when the kernel will not use the handle, so that no release will come.
bool fs_reply_open(fuse_req_t req, const struct fuse_file_info *fi) AF_NODISCARD;
bool fs_reply_create(fuse_req_t req, const struct store_attr *attr,
                     const struct fuse_file_info *fi) AF_NODISCARD;

// The answer comes later, from anywhere, by fs_reply_later().
void fs_defer(void);
void fs_reply_later(struct fs *fs, fuse_req_t req, fuse_ino_t ino, int r);

// How long the kernel may keep names and attributes.
unsigned fs_cache_seconds(const struct fs *fs);
// The entry for a lookup, a listing or a new object.
void fs_entry(const struct fs *fs, const struct store_attr *attr,
              struct fuse_entry_param *ret_entry);
// Tells the operator, once for each inode and cause, of what is no ordinary answer to a file
// operation.
void fs_report(struct fs *fs, fuse_ino_t ino, int r);

#endif
