// SPDX-License-Identifier: MIT
// Attributes of inodes, and of the file system. A change of mode or owner is an operation of its
// own; times of a file that is being written join its pending content, and everything of a new file
// does.

#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "store/store_internal.h"

static int getattr_locked(struct store *s, struct fault *f, uint64_t ino, struct store_attr *ret)
{
    struct oinode *oi;
    struct inode in;
    int err = inode_current(s, f, ino, &in, &oi);

    if (err == 0)
        inode_to_attr(ino, &in, ret);
    return err;
}

int store_getattr(struct store *s, enum store_how how, uint64_t ino, struct store_attr *ret_attr)
{
    struct fault f;
    uint64_t number;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = view_enter(s, &f, ino, &number);
        if (err == 0)
            err = getattr_locked(s, &f, number, ret_attr);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    ret_attr->ino = ino;
    return err;
}

// ---- setattr ----

static void change_attrs(struct inode *in, const struct store_attr *attr, unsigned set,
                         struct timespec now)
{
    if (set & STORE_SET_MODE)
        in->mode = (in->mode & S_IFMT) | (attr->mode & 07777);
    if (set & STORE_SET_UID)
        in->uid = attr->uid;
    if (set & STORE_SET_GID)
        in->gid = attr->gid;
    if ((set & STORE_KILL_SUIDGID) && S_ISREG(in->mode))
        in->mode &= ~(uint32_t)(S_ISUID | ((in->mode & S_IXGRP) ? S_ISGID : 0));
    if (set & STORE_SET_ATIME)
        in->atime = attr->atime;
    if (set & STORE_SET_ATIME_NOW)
        in->atime = now;
    if (set & STORE_SET_MTIME)
        in->mtime = attr->mtime;
    if (set & STORE_SET_MTIME_NOW)
        in->mtime = now;
    in->ctime = (set & STORE_SET_CTIME) ? attr->ctime : now;
}

int attributes_draft(struct store *s, struct fault *f, uint64_t ino, const struct oinode *oi,
                     const struct inode *in, unsigned set, struct op *op)
{
    struct inode tree;
    int err = inode_get(s, f, ino, &tree);

    if (err < 0)
        return err;
    op->ino = ino;
    op->inode = *in;
    op->inode.nlink = AF_MAX(in->nlink, 1u);
    if (oi && oi->p && !(set & (STORE_SET_MTIME | STORE_SET_MTIME_NOW)))
        op->inode.mtime = tree.mtime;
    if (oi && oi->p && !(set & (STORE_SET_ATIME | STORE_SET_ATIME_NOW)))
        op->inode.atime = tree.atime;
    return 0;
}

// A change of mode or owner, an operation at once.
static int attributes_commit(struct store *s, struct fault *f, uint64_t ino,
                             const struct oinode *oi, const struct inode *in, unsigned set,
                             struct op *op)
{
    uint8_t acl[ACL_BYTES_MAX];
    int err = attributes_draft(s, f, ino, oi, in, set, op);

    if (err == 0 && (set & STORE_SET_MODE))
        err = acl_follow_mode(s, f, ino, in->mode, acl, op);
    return err < 0 ? err : op_commit(s, f, op, 0);
}

// The same of a new file, which has everything beside the tree.
static int attributes_pending(struct store *s, struct fault *f, struct oinode *oi,
                              const struct store_attr *attr, unsigned set, struct timespec now)
{
    uint8_t acl[ACL_BYTES_MAX];
    struct op op = {0};
    int err = 0;

    if (set & STORE_SET_MODE)
        err = acl_follow_mode(s, f, oi->ino, attr->mode, acl, &op);
    if (err == 0 && (op.flags & OP_AND_XATTR))
        err = xattr_set_pending(s, f, oi, ACL_ACCESS, acl, op.xattr.value_len);
    if (err == 0)
        change_attrs(&oi->p->fresh, attr, set, now);
    return err;
}

static int setattr_locked(struct store *s, struct fault *f, uint64_t ino,
                          const struct store_attr *attr, unsigned set, struct store_attr *ret)
{
    const unsigned owner = STORE_SET_MODE | STORE_SET_UID | STORE_SET_GID | STORE_KILL_SUIDGID;
    struct oinode *oi;
    struct inode in;
    struct op op;
    int err = store_writable(s);

    if (err == 0)
        err = inode_current(s, f, ino, &in, &oi);
    if (err < 0)
        return err;
    if (set == 0) {
        inode_to_attr(ino, &in, ret);
        return 0;
    }
    op_begin(s, &op, OP_ATTRIBUTES);
    change_attrs(&in, attr, set, op.time);
    if (oi && oi->p && oi->p->is_new) {
        err = attributes_pending(s, f, oi, attr, set, op.time);
    } else if (!(oi && oi->p && oi->dirty_handles > 0) || (set & owner)) {
        err = attributes_commit(s, f, ino, oi, &in, set, &op);
    }
    if (err < 0)
        return err;
    if (S_ISDIR(in.mode) && (set & (STORE_SET_MTIME | STORE_SET_MTIME_NOW)))
        pend_dir_unchanged(s, ino);
    if (oi && oi->p) {
        struct pending *p = oi->p;

        p->mtime = in.mtime;
        p->ctime = in.ctime;
        p->times = true;
        if (set & (STORE_SET_ATIME | STORE_SET_ATIME_NOW)) {
            p->atime = in.atime;
            p->atime_set = true;
        }
        if (set & STORE_SET_MODE)
            p->kill_suidgid = false;
    }
    inode_to_attr(ino, &in, ret);
    return 0;
}

static int setattr_size_locked(struct store *s, struct fault *f, uint64_t ino,
                               struct store_file *file, uint64_t size)
{
    struct oinode *oi;
    struct inode in;
    int err = store_writable(s);

    if (err == 0 && file && file->history != s->history)
        err = -ESTALE;
    if (err == 0)
        err = inode_current(s, f, ino, &in, &oi);
    if (err == 0 && S_ISDIR(in.mode))
        err = -EISDIR;
    if (err == 0 && !S_ISREG(in.mode))
        err = -EINVAL;
    if (err == 0 && size > FILE_BYTES_MAX)
        err = -EFBIG;
    return err < 0 ? err : file_truncate(s, f, ino, file, size);
}

int store_setattr(struct store *s, enum store_how how, uint64_t ino, struct store_file *file,
                  const struct store_attr *attr, unsigned set, struct store_attr *ret_attr)
{
    struct fault f;
    int err = 0;

    if (set & STORE_SET_SIZE) {
        fault_begin(&f);
        do {
            store_lock(s);
            err = setattr_size_locked(s, &f, ino, file, attr->size);
            store_unlock(s);
        } while (fault_resolve(s, &f, how, &err));
        set &= ~(unsigned)STORE_SET_SIZE;
    }
    if (err < 0)
        return err;
    fault_begin(&f);
    do {
        store_lock(s);
        err = setattr_locked(s, &f, ino, attr, set, ret_attr);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

// ---- statfs ----

int store_statfs(struct store *s, struct store_statfs *ret)
{
    struct space_stats sp;
    struct io_space host = {0};
    int err = io_space(s->config.io, &host);

    if (err < 0) {
        message(&s->config.sink, MESSAGE_WARNING,
                "the file system of the store cannot be asked for its space: %s (%s)",
                err_text(err), err_name(err));
        return err;
    }
    store_lock(s);
    space_get_stats(s->space, &sp);
    ret->inodes = s->inodes;
    store_unlock(s);
    // What waits for a checkpoint is as good as free; what is promised is not.
    uint64_t used = sp.used - AF_MIN(sp.used, sp.waiting);
    uint64_t inside = sp.capacity - AF_MIN(sp.capacity, used);
    uint64_t grow =
        AF_MIN(host.avail_bytes / BLOCK_BYTES, sp.max_blocks - AF_MIN(sp.max_blocks, sp.capacity));

    ret->blocks = sp.capacity + grow;
    ret->free_blocks = inside + grow;
    ret->avail_blocks = ret->free_blocks - AF_MIN(ret->free_blocks, sp.reserve + sp.reserved);
    ret->free_inodes = AF_MIN(ret->avail_blocks, INO_MAX - ret->inodes);
    return 0;
}
