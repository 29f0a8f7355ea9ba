// SPDX-License-Identifier: MIT
// Names: what makes, finds, moves and removes them.

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/fs_reply.h"

struct store_cred fs_cred(fuse_req_t req)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);

    return (struct store_cred){.uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask};
}

// The answer of everything that made a name.
static void reply_new(fuse_req_t req, fuse_ino_t parent, int r, const struct store_attr *attr)
{
    if (r)
        fs_reply_result(req, parent, r);
    else
        fs_reply_entry(req, attr);
}

void fs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_enter(req);
    struct store_attr attr;

    if (fs_is_control_name(parent, name)) {
        fs_control_lookup(req, parent, name);
        return;
    }
    int r = store_lookup(fs->store, fs_how(), parent, name, &attr);
    if (r == -ENOENT)
        fs_reply_missing(req);
    else
        reply_new(req, parent, r, &attr);
}

void fs_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct fs *fs = fs_enter(req);
    char target[4096];
    int r = fs_is_control(ino) ? -EINVAL : store_readlink(fs->store, fs_how(), ino, target);

    if (r)
        fs_reply_result(req, ino, r);
    else
        fs_reply_target(req, target);
}

void fs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct fs *fs = fs_enter(req);
    struct store_cred cred = fs_cred(req);
    struct store_attr attr;
    int r = fs_refuse_name(parent, name);

    if (r == 0)
        r = store_mknod(fs->store, fs_how(), parent, name, mode, rdev, &cred, &attr);
    reply_new(req, parent, r, &attr);
}

void fs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct fs *fs = fs_enter(req);
    struct store_cred cred = fs_cred(req);
    struct store_attr attr;

    if (parent == FS_SNAPSHOTS_INO) {
        fs_snapshots_mkdir(req, name);
        return;
    }
    int r = fs_refuse_name(parent, name);
    // The kernel sends permission bits only.
    if (r == 0)
        r = store_mknod(fs->store, fs_how(), parent, name, (mode & 07777u) | S_IFDIR, 0, &cred,
                        &attr);
    reply_new(req, parent, r, &attr);
}

void fs_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_enter(req);
    struct store_cred cred = fs_cred(req);
    struct store_attr attr;
    int r = fs_refuse_name(parent, name);

    if (r == 0)
        r = store_symlink(fs->store, fs_how(), parent, name, target, &cred, &attr);
    reply_new(req, parent, r, &attr);
}

void fs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
    struct fs *fs = fs_enter(req);
    struct store_attr attr;
    int r = fs_refuse_name(new_parent, new_name);

    if (r == 0 && fs_refuse(ino) != 0)
        r = -EXDEV;
    if (r == 0)
        r = store_link(fs->store, fs_how(), ino, new_parent, new_name, &attr);
    reply_new(req, ino, r, &attr);
}

// What stands under a name that is about to go. The kernel holds the directory, so it is the same
// until then.
static int losing(struct fs *fs, fuse_ino_t parent, const char *name, struct store_attr *ret_attr)
{
    return store_lookup(fs->store, fs_how(), parent, name, ret_attr);
}

// It is gone: if that was its last name, its attributes are kept for who still holds it.
static void lost(struct fs *fs, const struct store_attr *attr)
{
    if (S_ISDIR(attr->mode) || attr->nlink == 1)
        fs_ghost_add(fs, attr);
}

void fs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_enter(req);
    struct store_attr attr;
    int r = fs_refuse_name(parent, name);

    if (r == 0)
        r = losing(fs, parent, name, &attr);
    if (r == 0)
        r = store_unlink(fs->store, fs_how(), parent, name);
    if (r == 0)
        lost(fs, &attr);
    fs_reply_result(req, parent, r);
}

void fs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_enter(req);
    struct store_attr attr;

    if (parent == FS_SNAPSHOTS_INO) {
        fs_snapshots_rmdir(req, name);
        return;
    }
    int r = fs_refuse_name(parent, name);
    if (r == 0)
        r = losing(fs, parent, name, &attr);
    if (r == 0)
        r = store_rmdir(fs->store, fs_how(), parent, name);
    if (r == 0)
        lost(fs, &attr);
    fs_reply_result(req, parent, r);
}

void fs_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                  const char *new_name, unsigned flags)
{
    struct fs *fs = fs_enter(req);
    struct store_attr attr;
    bool replaces = false;
    int r = fs_refuse_name(parent, name);

    if (r == 0)
        r = fs_refuse_name(new_parent, new_name);
    if (r == 0) {
        r = losing(fs, new_parent, new_name, &attr);
        replaces = r == 0 && !(flags & RENAME_EXCHANGE);
        if (r == -ENOENT)
            r = 0;
    }
    if (r == 0)
        r = store_rename(fs->store, fs_how(), parent, name, new_parent, new_name, flags);
    if (r == 0 && replaces)
        lost(fs, &attr);
    fs_reply_result(req, parent, r);
}
