// SPDX-License-Identifier: MIT
// Answers, and the guard that sees to it that there is one for each request (F1).

#include <stdlib.h>

#include "base/check.h"
#include "base/err.h"
#include "fs/fs_reply.h"

// For how long the kernel may keep what it was told: for ever, since nothing changes here but
// through it. (Finite only because the kernel counts it in jiffies.) Not at all with the switch
// off.
#define CACHE_SECONDS 1000000000u

unsigned fs_cache_seconds(const struct fs *fs)
{
    return fs->kernel_cache ? CACHE_SECONDS : 0;
}

// What a thread is at. libfuse hands a handler nothing of our own, so it has to be known by thread.
struct fs_call {
    enum store_how how;
    const struct fs_peek *peek;
    bool entered;     // a handler of ours runs
    bool answered;    // or promised, by fs_defer()
    bool would_block; // to be run again
};

static _Thread_local struct fs_call call;
static _Thread_local void *call_buffer;

void fs_call_begin(enum store_how how, const struct fs_peek *peek)
{
    call = (struct fs_call){.how = how, .peek = peek};
}

bool fs_call_end(void)
{
    AF_ASSERT(!call.entered || call.answered != call.would_block);
    return !call.would_block;
}

struct fs *fs_enter(fuse_req_t req)
{
    AF_ASSERT(!call.entered);
    call.entered = true;
    return fuse_req_userdata(req);
}

void fs_enter_raw(void)
{
    AF_ASSERT(!call.entered);
    call.entered = true;
}

enum store_how fs_how(void)
{
    return call.how;
}

const struct fs_peek *fs_call_peek(void)
{
    return call.peek;
}

void *fs_call_buffer(void)
{
    // Kept for the life of the thread: there are few, and most of them read.
    if (!call_buffer && posix_memalign(&call_buffer, 4096, FS_PAYLOAD_MAX))
        call_buffer = NULL;
    return call_buffer;
}

void fs_call_free(void)
{
    free(call_buffer);
    call_buffer = NULL;
}

static void answer(void)
{
    AF_ASSERT(call.entered && !call.answered && !call.would_block);
    call.answered = true;
}

// A reply fails only when the connection is gone (the kernel waits for the answer to whatever was
// read, even for a process that was killed). There is nobody left to be told, and the loop finds
// out by itself.
static bool sent(int r)
{
    return r == 0;
}

void fs_reply_result(fuse_req_t req, fuse_ino_t ino, int r)
{
    if (r == -AF_E_WOULD_BLOCK) {
        AF_ASSERT(call.entered && !call.answered && call.how == STORE_NONBLOCK);
        call.would_block = true;
        fuse_reply_none(req);
        return;
    }
    fs_report(fuse_req_userdata(req), ino, r);
    answer();
    (void)sent(fuse_reply_err(req, err_to_errno(r)));
}

bool fs_answer_raw(struct fs *fs, fuse_ino_t ino, int r)
{
    if (r == -AF_E_WOULD_BLOCK) {
        AF_ASSERT(call.entered && !call.answered && call.how == STORE_NONBLOCK);
        call.would_block = true;
        return false;
    }
    fs_report(fs, ino, r);
    answer();
    return true;
}

void fs_entry(const struct fs *fs, const struct store_attr *attr,
              struct fuse_entry_param *ret_entry)
{
    // The generation stays 0: numbers are never reused.
    *ret_entry = (struct fuse_entry_param){
        .ino = attr->ino,
        .attr_timeout = fs_cache_seconds(fs),
        .entry_timeout = fs_cache_seconds(fs),
    };
    fs_attr_to_stat(fs, attr, &ret_entry->attr);
}

void fs_reply_entry(fuse_req_t req, const struct store_attr *attr)
{
    struct fuse_entry_param entry;

    fs_entry(fuse_req_userdata(req), attr, &entry);
    answer();
    (void)sent(fuse_reply_entry(req, &entry));
}

void fs_reply_missing(fuse_req_t req)
{
    // ENOENT would be right as well, but would be asked for again and again; number 0 with a
    // timeout is remembered.
    struct fuse_entry_param entry = {.entry_timeout = fs_cache_seconds(fuse_req_userdata(req))};

    answer();
    (void)sent(fuse_reply_entry(req, &entry));
}

void fs_reply_attr(fuse_req_t req, const struct store_attr *attr)
{
    struct stat st;

    fs_attr_to_stat(fuse_req_userdata(req), attr, &st);
    answer();
    (void)sent(fuse_reply_attr(req, &st, fs_cache_seconds(fuse_req_userdata(req))));
}

void fs_reply_bytes(fuse_req_t req, const void *bytes, size_t size)
{
    answer();
    (void)sent(fuse_reply_buf(req, bytes, size));
}

void fs_reply_written(fuse_req_t req, size_t size)
{
    answer();
    (void)sent(fuse_reply_write(req, size));
}

void fs_reply_size(fuse_req_t req, size_t size)
{
    answer();
    (void)sent(fuse_reply_xattr(req, size));
}

void fs_reply_target(fuse_req_t req, const char *target)
{
    answer();
    (void)sent(fuse_reply_readlink(req, target));
}

void fs_reply_statfs(fuse_req_t req, const struct statvfs *st)
{
    answer();
    (void)sent(fuse_reply_statfs(req, st));
}

void fs_reply_offset(fuse_req_t req, off_t off)
{
    answer();
    (void)sent(fuse_reply_lseek(req, off));
}

bool fs_reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
    answer();
    return sent(fuse_reply_open(req, fi));
}

bool fs_reply_create(fuse_req_t req, const struct store_attr *attr, const struct fuse_file_info *fi)
{
    struct fuse_entry_param entry;

    fs_entry(fuse_req_userdata(req), attr, &entry);
    answer();
    return sent(fuse_reply_create(req, &entry, fi));
}

void fs_defer(void)
{
    answer();
}

void fs_reply_later(struct fs *fs, fuse_req_t req, fuse_ino_t ino, int r)
{
    fs_report(fs, ino, r);
    (void)sent(fuse_reply_err(req, err_to_errno(r)));
}

// ---- reports ----

static bool reported_before(struct fs *fs, fuse_ino_t ino, int r)
{
    size_t held = AF_MIN(fs->reported_count, (size_t)FS_REPORTED_MAX);

    for (size_t i = 0; i < held; i++) {
        if (fs->reported[i].ino == ino && fs->reported[i].code == r)
            return true;
    }
    size_t at = fs->reported_count++ % FS_REPORTED_MAX;
    fs->reported[at].ino = ino;
    fs->reported[at].code = r;
    return false;
}

void fs_report(struct fs *fs, fuse_ino_t ino, int r)
{
    // Private codes are damage and failures of the store, but for the one that a mount with -o ro
    // gives.
    if (r == 0 || r == -AF_E_READ_ONLY || (r > -AF_E_FIRST && r != -EIO))
        return;
    // The store has told more of these: the block, and both checksums.
    if (r == -AF_E_DATA_CHECKSUM || r == -AF_E_BLOCK_CHECKSUM)
        return;
    af_lock(&fs->report_lock);
    bool known = reported_before(fs, ino, r);
    af_unlock(&fs->report_lock);
    if (!known)
        message(&fs->sink, MESSAGE_ERROR, "inode %llu: %s (%s)", (unsigned long long)ino,
                err_text(r), err_name(r));
}
