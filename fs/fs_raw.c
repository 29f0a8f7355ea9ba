// SPDX-License-Identifier: MIT
// Requests that libfuse learnt late (O_TMPFILE with 3.17, statx with 3.18) and that the kernel
// sends whatever was agreed on: decoded and answered here, so that they work with every libfuse.
// The only file beside fs_request.c that knows the kernel's protocol; linux/fuse.h of older systems
// does not have all of it.

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/fuse.h>

#include "base/check.h"
#include "base/err.h"
#include "fs/fs_reply.h"

#define FOPEN_NOFLUSH_BIT (1u << 5)

struct raw_time {
    int64_t sec;
    uint32_t nsec;
    int32_t reserved;
};

struct raw_statx { // struct fuse_statx
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, spare0;
    uint64_t ino, size, blocks, attributes_mask;
    struct raw_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t spare2[14];
};
_Static_assert(sizeof(struct raw_statx) == 256, "as in the kernel");

struct raw_statx_out { // struct fuse_statx_out
    uint64_t attr_valid;
    uint32_t attr_valid_nsec, flags;
    uint64_t spare[2];
    struct raw_statx stat;
};
_Static_assert(sizeof(struct raw_statx_out) == 288, "as in the kernel");

// False when the kernel did not take it: the request is gone, and with it who asked.
static bool reply(struct fs *fs, const struct fuse_in_header *in, int r, const void *bytes,
                  size_t size)
{
    struct fuse_out_header out = {
        .len = (uint32_t)(sizeof(out) + size), .error = -err_to_errno(r), .unique = in->unique};
    struct iovec iov[2] = {{.iov_base = &out, .iov_len = sizeof(out)}, {.iov_len = size}};

    memcpy(&iov[1].iov_base, &bytes, sizeof(bytes)); // writev(2) only reads it
    if (!fs_answer_raw(fs, in->nodeid, r))
        return false;
    return writev(fs->device_fd, iov, size > 0 ? 2 : 1) == (ssize_t)out.len;
}

static struct raw_time time_of(const struct timespec *t)
{
    return (struct raw_time){.sec = t->tv_sec, .nsec = (uint32_t)t->tv_nsec};
}

// ---- statx ----

static void raw_statx(struct fs *fs, const struct fuse_in_header *in)
{
    struct store_attr attr;
    struct stat st;
    int r = fs_attr_of(fs, in->nodeid, &attr);

    if (r) {
        reply(fs, in, r, NULL, 0);
        return;
    }
    fs_attr_to_stat(fs, &attr, &st);
    struct raw_statx_out out = {
        .attr_valid = fs_cache_seconds(fs),
        .stat =
            {
                .mask = STATX_BASIC_STATS | STATX_BTIME,
                .blksize = (uint32_t)st.st_blksize,
                .nlink = (uint32_t)st.st_nlink,
                .uid = st.st_uid,
                .gid = st.st_gid,
                .mode = (uint16_t)st.st_mode,
                .ino = st.st_ino,
                .size = (uint64_t)st.st_size,
                .blocks = (uint64_t)st.st_blocks,
                .atime = time_of(&st.st_atim),
                .btime = time_of(&attr.btime),
                .ctime = time_of(&st.st_ctim),
                .mtime = time_of(&st.st_mtim),
                .rdev_major = major(st.st_rdev),
                .rdev_minor = minor(st.st_rdev),
            },
    };
    reply(fs, in, 0, &out, sizeof(out));
}

// ---- O_TMPFILE ----

static struct fuse_attr attr_out(const struct stat *st)
{
    return (struct fuse_attr){
        .ino = st->st_ino,
        .size = (uint64_t)st->st_size,
        .blocks = (uint64_t)st->st_blocks,
        .atime = (uint64_t)st->st_atim.tv_sec,
        .mtime = (uint64_t)st->st_mtim.tv_sec,
        .ctime = (uint64_t)st->st_ctim.tv_sec,
        .atimensec = (uint32_t)st->st_atim.tv_nsec,
        .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
        .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
        .mode = st->st_mode,
        .nlink = (uint32_t)st->st_nlink,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .blksize = (uint32_t)st->st_blksize,
    };
}

static void raw_tmpfile(struct fs *fs, const struct fuse_in_header *in, const void *arg,
                        size_t arg_len)
{
    const struct fuse_create_in *create = arg;
    struct store_file *file;
    struct store_attr attr;
    struct stat st;
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out = {.open.open_flags = FOPEN_NOFLUSH_BIT | (fs->kernel_cache ? FOPEN_KEEP_CACHE : 0u)};
    int r = arg_len < sizeof(*create) ? -EINVAL : fs_refuse(in->nodeid);

    if (r == 0) {
        struct store_cred cred = {.uid = in->uid, .gid = in->gid, .umask = create->umask};

        r = store_tmpfile(fs->store, fs_how(), in->nodeid, create->mode, (int)create->flags, &cred,
                          &attr, &file);
    }
    if (r) {
        reply(fs, in, r, NULL, 0);
        return;
    }
    fs_attr_to_stat(fs, &attr, &st);
    out.entry = (struct fuse_entry_out){.nodeid = attr.ino,
                                        .entry_valid = fs_cache_seconds(fs),
                                        .attr_valid = fs_cache_seconds(fs),
                                        .attr = attr_out(&st)};
    out.open.fh = (uint64_t)(uintptr_t)file;
    if (!reply(fs, in, 0, &out, sizeof(out)))
        fs_drop_unused(fs, file);
}

void fs_raw_request(struct fs *fs, const struct fs_request *rq)
{
    const struct fuse_in_header *in = (const struct fuse_in_header *)(const void *)rq->bytes;

    fs_enter_raw();
    if (rq->peek.raw == FS_RAW_STATX)
        raw_statx(fs, in);
    else
        raw_tmpfile(fs, in, in + 1, rq->size - sizeof(*in));
}
