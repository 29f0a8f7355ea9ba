// SPDX-License-Identifier: MIT
// Contents of files: open, read, write, the last close.

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/err.h"
#include "fs/fs_reply.h"

struct store_file *fs_file(const struct fuse_file_info *fi)
{
    return (struct store_file *)(uintptr_t)fi->fh;
}

// What the kernel is told of an opened file. keep_cache: only this mount changes the file, so the
// pages that the kernel has of it are right. noflush: close(2) completes nothing (the last one
// does, with RELEASE), so a FLUSH for each would be a round trip for nothing.
static void fill_open(const struct fs *fs, struct fuse_file_info *fi, struct store_file *file)
{
    fi->fh = (uint64_t)(uintptr_t)file;
    fi->keep_cache = fs->kernel_cache;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 11)
    fi->noflush = fs->kernel_cache;
#endif
}

// If the store would have to wait now, closing the engine does it.
void fs_drop_unused(struct fs *fs, struct store_file *file)
{
    int r = store_release(fs->store, STORE_NONBLOCK, file);

    (void)r;
}

void fs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                  struct fuse_file_info *fi)
{
    struct fs *fs = fs_enter(req);
    struct store_cred cred = fs_cred(req);
    struct store_file *file;
    struct store_attr attr;

    if (fs_refuse_name(parent, name)) {
        fs_reply_result(req, parent, fs_refuse_name(parent, name));
        return;
    }
    int r = store_create(fs->store, fs_how(), parent, name, mode, fi->flags, &cred, &attr, &file);
    if (r == -EEXIST && !(fi->flags & O_EXCL)) {
        // The kernel thought that the name is free; without O_EXCL this is an open.
        r = store_lookup(fs->store, fs_how(), parent, name, &attr);
        if (r == 0)
            r = store_open(fs->store, fs_how(), attr.ino, fi->flags, &file);
    }
    if (r) {
        fs_reply_result(req, parent, r);
        return;
    }
    fill_open(fs, fi, file);
    if (!fs_reply_create(req, &attr, fi))
        fs_drop_unused(fs, file);
}

// Truncation by someone unprivileged clears set-id bits, as open(2) does elsewhere; with
// ATOMIC_O_TRUNC the kernel leaves that to us. Before the open, which may not be half done when
// something fails.
static int clear_set_id(struct fs *fs, fuse_req_t req, fuse_ino_t ino)
{
    struct store_attr attr;

    if (fuse_req_ctx(req)->uid == 0)
        return 0;
    int r = store_getattr(fs->store, fs_how(), ino, &attr);
    if (r || !(attr.mode & (S_ISUID | S_ISGID)))
        return r;
    r = store_setattr(fs->store, fs_how(), ino, NULL, &attr, STORE_KILL_SUIDGID, &attr);
    // The kernel has to ask for the mode again. Attributes alone: that waits for nothing, so it may
    // be told from a handler.
    if (r == 0)
        (void)fuse_lowlevel_notify_inval_inode(fs->session, ino, -1, 0);
    return r;
}

void fs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_enter(req);
    struct store_file *file;
    int r = 0;

    if (fs_is_control(ino)) {
        fs_control_open(req, ino, fi);
        return;
    }
    if (fi->flags & O_TRUNC)
        r = clear_set_id(fs, req, ino);
    if (r == 0)
        r = store_open(fs->store, fs_how(), ino, fi->flags, &file);
    if (r) {
        fs_reply_result(req, ino, r);
        return;
    }
    fill_open(fs, fi, file);
    if (!fs_reply_open(req, fi))
        fs_drop_unused(fs, file);
}

void fs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct fs *fs = fs_enter(req);
    void *bytes = fs_call_buffer();
    size_t got = 0;

    if (fs_is_control(ino)) {
        fs_control_read(req, size, off, fi);
        return;
    }
    int r = !bytes ? -ENOMEM : off < 0 ? -EINVAL : 0;
    if (r == 0 && store_file_stale(fs->store, fs_file(fi)))
        r = -ESTALE;
    if (r == 0)
        r = store_read(fs->store, fs_how(), ino, (uint64_t)off, bytes,
                       AF_MIN(size, (size_t)FS_PAYLOAD_MAX), &got);
    if (r)
        fs_reply_result(req, ino, r);
    else
        fs_reply_bytes(req, bytes, got);
}

void fs_op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t off,
                 struct fuse_file_info *fi)
{
    struct fs *fs = fs_enter(req);
    bool kill_suidgid = fs_call_peek()->kill_suidgid;
    int r = fs_is_snapshot(ino) ? -EROFS : off < 0 ? -EINVAL : 0;

    if (fs_is_control(ino)) {
        fs_control_write(req, ino, bytes, size, fi);
        return;
    }
    if (r == 0)
        r = store_write(fs->store, fs_how(), fs_file(fi), (uint64_t)off, bytes, size, kill_suidgid);
    if (r)
        fs_reply_result(req, ino, r);
    else
        fs_reply_written(req, size);
}

void fs_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    // One for each close(2), of duplicates and of children that exit too: no sign that the content
    // is complete. Not ENOSYS either, which older kernels take for more than it says.
    (void)fs_enter(req);
    (void)fi;
    fs_reply_result(req, ino, 0);
}

void fs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_enter(req);

    if (fs_is_control(ino)) {
        fs_control_release(req, fi);
        return;
    }
    // Nobody sees this answer: close(2) has returned. The store tells the operator what it could
    // not complete.
    int r = store_release(fs->store, fs_how(), fs_file(fi));
    fs_reply_result(req, ino, r);
}

void fs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                     struct fuse_file_info *fi)
{
    struct fs *fs = fs_enter(req);
    int r = fs_refuse(ino) ? fs_refuse(ino) : off < 0 || len <= 0 ? -EINVAL : 0;

    if (r == 0)
        r = store_fallocate(fs->store, fs_how(), fs_file(fi), mode, (uint64_t)off, (uint64_t)len);
    fs_reply_result(req, ino, r);
}

// So much is copied by one request; the caller asks for the rest.
#define COPY_BYTES_MAX (16u * 1024u * 1024u)

// Bytes are read and written here, so that they need not travel twice; nothing is shared between
// the files. A worker's job: what was written before a wait would be written again.
void fs_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
                           struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                           struct fuse_file_info *fi_out, size_t len, int flags)
{
    struct fs *fs = fs_enter(req);
    void *bytes = fs_call_buffer();
    size_t done = 0, want = AF_MIN(len, (size_t)COPY_BYTES_MAX), got = 1;
    int r = fs_is_control(ino_in) || fs_is_control(ino_out) ? -EOPNOTSUPP : 0;

    (void)fi_in, (void)flags;
    if (r == 0 && (off_in < 0 || off_out < 0))
        r = -EINVAL;
    if (r == 0 && fs_how() == STORE_NONBLOCK)
        r = -AF_E_WOULD_BLOCK;
    if (r == 0 && !bytes)
        r = -ENOMEM;
    while (r == 0 && done < want && got > 0) {
        r = store_read(fs->store, STORE_BLOCK, ino_in, (uint64_t)off_in + done, bytes,
                       AF_MIN(want - done, (size_t)FS_PAYLOAD_MAX), &got);
        if (r == 0 && got > 0)
            r = store_write(fs->store, STORE_BLOCK, fs_file(fi_out), (uint64_t)off_out + done,
                            bytes, got, false);
        if (r == 0)
            done += got;
    }
    // What has been copied counts; the error comes again with the next call.
    if (r < 0 && done == 0)
        fs_reply_result(req, ino_out, r);
    else
        fs_reply_written(req, done);
}

void fs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    struct fs *fs = fs_enter(req);
    uint64_t found = 0;
    int r = 0;

    (void)fi;
    if (fs_is_control(ino) || (whence != SEEK_DATA && whence != SEEK_HOLE))
        r = -EINVAL;
    else if (off < 0)
        r = -ENXIO;
    else
        r = store_seek(fs->store, fs_how(), ino, (uint64_t)off, whence, &found);
    if (r)
        fs_reply_result(req, ino, r);
    else
        fs_reply_offset(req, (off_t)found);
}

void fs_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
                 unsigned flags, const void *in, size_t in_size, size_t out_size)
{
    (void)fs_enter(req);
    (void)cmd, (void)arg, (void)fi, (void)flags, (void)in, (void)in_size, (void)out_size;
    fs_reply_result(req, ino, -ENOTTY);
}
