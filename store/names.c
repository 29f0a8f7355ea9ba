// SPDX-License-Identifier: MIT
// Names: lookup, making, linking, unlinking and renaming. Each changes the tree by one operation;
// those that meet a file with pending content complete it first, in the same order in the log (a
// rename never reaches the disk before the content it carries).

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/err.h"
#include "store/store_internal.h"

int dir_get(struct store *s, struct fault *f, uint64_t dir, struct inode *ret)
{
    int err = inode_get(s, f, dir, ret);

    if (err == 0 && !S_ISDIR(ret->mode))
        return -ENOTDIR;
    return err;
}

static int attr_get(struct store *s, struct fault *f, uint64_t ino, struct store_attr *ret)
{
    struct oinode *oi;
    struct inode in;
    int err = inode_current(s, f, ino, &in, &oi);

    if (err == 0)
        inode_to_attr(ino, &in, ret);
    return err;
}

// ---- lookup ----

static int lookup_locked(struct store *s, struct fault *f, uint64_t parent, const char *name,
                         struct store_attr *ret)
{
    struct dentry d;
    struct inode in;
    size_t len;
    int err = name_check(name, &len);

    if (err == 0)
        err = dentry_find(s, f, parent, name, len, &d);
    if (err == -ENOENT) { // a file as parent is another error
        err = dir_get(s, f, parent, &in);
        return err == 0 ? -ENOENT : err;
    }
    return err < 0 ? err : attr_get(s, f, d.ino, ret);
}

int store_lookup(struct store *s, enum store_how how, uint64_t parent, const char *name,
                 struct store_attr *ret_attr)
{
    struct fault f;
    uint64_t number;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = view_enter(s, &f, parent, &number);
        if (err == 0)
            err = lookup_locked(s, &f, number, name, ret_attr);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    if (err == 0)
        ret_attr->ino |= VIEW_BITS(parent);
    return err;
}

// ---- making ----

int new_name(struct store *s, struct fault *f, uint64_t parent, const char *name,
             struct inode *ret_dir, size_t *ret_len, uint8_t *ret_index)
{
    struct dentry d;
    int err = store_writable(s);

    if (err == 0)
        err = name_check(name, ret_len);
    if (err == 0)
        err = dir_get(s, f, parent, ret_dir);
    if (err == 0 && ret_dir->nlink == 0)
        err = -ENOENT;
    if (err < 0)
        return err;
    err = dentry_find(s, f, parent, name, *ret_len, &d);
    if (err != -ENOENT)
        return err == 0 ? -EEXIST : err;
    return dentry_free_index(s, f, parent, name, *ret_len, ret_index);
}

struct inode new_inode(const struct inode *dir, uint64_t ino, uint32_t mode, uint64_t rdev,
                       const struct store_cred *cred, struct timespec now)
{
    struct inode in = {
        .mode = mode & (uint32_t)(S_IFMT | 07777),
        .nlink = S_ISDIR(mode) ? 2 : 1,
        .uid = cred->uid,
        .gid = cred->gid,
        .rdev = rdev,
        .atime = now,
        .mtime = now,
        .ctime = now,
        .btime = now,
        .content_id = ino,
    };

    if (dir->mode & S_ISGID) {
        in.gid = dir->gid;
        if (S_ISDIR(mode))
            in.mode |= S_ISGID;
    }
    return in;
}

static int make_locked(struct store *s, struct fault *f, uint64_t parent, const char *name,
                       uint32_t mode, uint64_t rdev, const char *target,
                       const struct store_cred *cred, struct store_attr *ret)
{
    struct acl_inherited acls;
    struct inode dir;
    struct op op;
    size_t len;
    uint64_t got;
    uint8_t index;
    int err = new_name(s, f, parent, name, &dir, &len, &index);

    if (err == 0)
        err = acl_inherit(s, f, parent, cred->umask, &mode, &acls);
    if (err < 0)
        return err;
    op_begin(s, &op, OP_MAKE);
    op.xattr_count = (uint16_t)acls.count;
    memcpy(op.xattrs, acls.x, acls.count * sizeof(acls.x[0]));
    op.parent = parent;
    op.ino = ino_new(s);
    op.name = name;
    op.name_len = (uint8_t)len;
    op.index = index;
    op.inode = new_inode(&dir, op.ino, mode, rdev, cred, op.time);
    if (S_ISDIR(mode))
        op.inode.parent = parent;
    if (target) {
        op.target = (const uint8_t *)target;
        op.target_len = (uint32_t)strlen(target);
        op.inode.size = op.target_len;
    }
    if (op.target_len > INLINE_BYTES_MAX) {
        err = space_prepare(s->space, f, 1, 0, false);
        if (err == 0)
            op.target_address = space_alloc(s->space, 1, 0, &got);
    }
    if (err == 0)
        err = op_commit(s, f, &op, 0);
    if (err < 0) {
        if (op.target_address != 0)
            space_release(s->space, op.target_address, 1);
        ino_return(s, op.ino);
        return err;
    }
    inode_to_attr(op.ino, &op.inode, ret);
    return 0;
}

int store_mknod(struct store *s, enum store_how how, uint64_t parent, const char *name,
                uint32_t mode, uint64_t rdev, const struct store_cred *cred,
                struct store_attr *ret_attr)
{
    struct fault f;
    int err;

    if ((mode & S_IFMT) == 0)
        mode |= S_IFREG;
    if (S_ISLNK(mode))
        return -EINVAL;
    fault_begin(&f);
    do {
        store_lock(s);
        err = make_locked(s, &f, parent, name, mode, rdev, NULL, cred, ret_attr);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

int store_symlink(struct store *s, enum store_how how, uint64_t parent, const char *name,
                  const char *target, const struct store_cred *cred, struct store_attr *ret_attr)
{
    size_t len = strlen(target);
    struct fault f;
    int err;

    if (len == 0)
        return -ENOENT;
    if (len >= BLOCK_BYTES)
        return -ENAMETOOLONG;
    fault_begin(&f);
    do {
        store_lock(s);
        err = make_locked(s, &f, parent, name, S_IFLNK | 0777, 0, target, cred, ret_attr);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

static int readlink_locked(struct store *s, struct fault *f, uint64_t ino, char target[4096])
{
    struct inode in;
    const void *bytes;
    const uint8_t *block = NULL;
    uint64_t address, sum;
    size_t len;
    int err = inode_get(s, f, ino, &in);

    if (err < 0)
        return err;
    if (!S_ISLNK(in.mode))
        return -EINVAL;
    if (in.size >= BLOCK_BYTES)
        return -AF_E_ITEM;
    err = inline_get(s, f, in.content_id, &bytes, &len);
    if (err == 0 && len != in.size)
        return -AF_E_ITEM;
    if (err == -ENOENT) {
        err = base_find(s, f, &in, NULL, 0, &address, &sum);
        if (err == 0)
            err = address ? data_block(s, f, address, sum, &block) : -AF_E_ITEM;
        bytes = block;
    }
    if (err < 0)
        return err;
    memcpy(target, bytes, in.size);
    target[in.size] = 0;
    return 0;
}

int store_readlink(struct store *s, enum store_how how, uint64_t ino, char target[4096])
{
    struct fault f;
    uint64_t number;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = view_enter(s, &f, ino, &number);
        if (err == 0)
            err = readlink_locked(s, &f, number, target);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

// ---- links ----

static int complete_ino(struct store *s, struct fault *f, uint64_t ino)
{
    struct oinode *oi = oinode_find(s, ino);
    int err = oi ? complete(s, f, oi) : 0;

    if (err == 0 && oi)
        oinode_put(s, oi);
    return err;
}

static int link_locked(struct store *s, struct fault *f, uint64_t ino, uint64_t parent,
                       const char *name, struct store_attr *ret)
{
    struct inode dir, in;
    struct oinode *oi;
    struct op op;
    size_t len;
    uint8_t index;
    int err = new_name(s, f, parent, name, &dir, &len, &index);

    if (err == 0)
        err = inode_current(s, f, ino, &in, &oi);
    if (err < 0)
        return err;
    if (S_ISDIR(in.mode))
        return -EPERM;
    if (oi && oi->p && oi->p->linkable) {
        err = tmpfile_link(s, f, oi, parent, name, index);
        return err < 0 ? err : attr_get(s, f, ino, ret);
    }
    if (in.nlink == 0 || (oi && (oi->orphan || (oi->p && oi->p->is_new && !oi->p->name))))
        return -ENOENT;
    if (in.nlink >= LINK_COUNT_MAX)
        return -EMLINK;
    err = complete_ino(s, f, ino);
    if (err < 0)
        return err;
    op_begin(s, &op, OP_LINK);
    op.ino = ino;
    op.parent = parent;
    op.name = name;
    op.name_len = (uint8_t)len;
    op.index = index;
    err = op_commit(s, f, &op, 0);
    return err < 0 ? err : attr_get(s, f, ino, ret);
}

int store_link(struct store *s, enum store_how how, uint64_t ino, uint64_t parent, const char *name,
               struct store_attr *ret_attr)
{
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = link_locked(s, &f, ino, parent, name, ret_attr);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

// The name of a new file goes; with it the file, unless it is open: then it lives on without a
// name, in memory only.
static void drop_fresh_name(struct store *s, struct oinode *oi)
{
    struct pending *p = oi->p;

    pend_dir_remove(s, p->parent, oi);
    free(p->name);
    p->name = NULL;
    p->parent = 0;
    p->fresh.nlink = 0;
    p->fresh.ctime = p->ctime = store_now(s);
    if (oi->opens == 0) {
        pending_drop(s, oi);
        oinode_put(s, oi);
    }
}

// Flags of an operation that takes a name of `ino` away.
static int loss_flags(struct store *s, struct fault *f, uint64_t ino, const struct inode *in,
                      uint8_t *ret_flags)
{
    struct oinode *oi = oinode_find(s, ino);
    size_t extents = 0;
    int err = 0;

    *ret_flags = 0;
    if (S_ISDIR(in->mode) || in->nlink > 1)
        return 0;
    if (oi && (oi->opens > 0)) {
        *ret_flags = OP_KEEP_ORPHAN;
        return 0;
    }
    if (in->blocks > CONTENT_EXTENTS_AT_ONCE)
        err = content_count(s, f, in->content_id, CONTENT_EXTENTS_AT_ONCE + 1, &extents);
    if (extents > CONTENT_EXTENTS_AT_ONCE)
        *ret_flags = OP_CONTENT_ORPHAN;
    return err;
}

// After the operation: what the flags promised to somebody later.
static void loss_done(struct store *s, uint64_t ino, const struct inode *in, uint8_t flags)
{
    struct oinode *oi = oinode_find(s, ino);

    if (S_ISDIR(in->mode) || in->nlink > 1)
        return;
    if (flags & OP_KEEP_ORPHAN) {
        oi->orphan = true;
        return;
    }
    if (flags & OP_CONTENT_ORPHAN)
        reap_add(s, in->content_id, ORPHAN_CONTENT);
    if (oi) { // pending without a handle does not outlive its last name
        if (oi->p)
            pending_drop(s, oi);
        oinode_put(s, oi);
    }
}

// A name goes that history has never seen: what it knows of it is that the directory has changed.
static int touch_dir(struct store *s, struct fault *f, uint64_t dir)
{
    struct oinode *oi;
    struct inode in;
    struct op op;
    int err = inode_current(s, f, dir, &in, &oi);

    if (err < 0)
        return err;
    op_begin(s, &op, OP_ATTRIBUTES);
    op.ino = dir;
    op.inode = in;
    op.inode.mtime = op.inode.ctime = op.time;
    return op_commit(s, f, &op, 0);
}

static int unlink_locked(struct store *s, struct fault *f, uint64_t parent, const char *name)
{
    struct dentry d;
    struct inode in;
    struct op op;
    size_t len;
    int err = store_writable(s);

    if (err == 0)
        err = name_check(name, &len);
    if (err == 0)
        err = dentry_find(s, f, parent, name, len, &d);
    if (err < 0)
        return err;
    if (d.fresh) {
        err = touch_dir(s, f, parent);
        if (err == 0)
            drop_fresh_name(s, d.fresh);
        return err;
    }
    err = inode_get(s, f, d.ino, &in);
    if (err < 0)
        return err;
    if (S_ISDIR(in.mode))
        return -EISDIR;
    op_begin(s, &op, OP_UNLINK);
    op.parent = parent;
    op.name = name;
    op.name_len = (uint8_t)len;
    op.ino = d.ino;
    err = loss_flags(s, f, d.ino, &in, &op.flags);
    if (err == 0)
        err = op_commit(s, f, &op, 0);
    if (err == 0)
        loss_done(s, d.ino, &in, op.flags);
    return err;
}

int store_unlink(struct store *s, enum store_how how, uint64_t parent, const char *name)
{
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = unlink_locked(s, &f, parent, name);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

static int rmdir_locked(struct store *s, struct fault *f, uint64_t parent, const char *name)
{
    struct dentry d;
    struct inode in;
    struct op op;
    size_t len;
    int err = store_writable(s);

    if (err == 0)
        err = name_check(name, &len);
    if (err == 0)
        err = dentry_find(s, f, parent, name, len, &d);
    if (err < 0)
        return err;
    if (d.fresh)
        return -ENOTDIR;
    err = inode_get(s, f, d.ino, &in);
    if (err < 0)
        return err;
    if (!S_ISDIR(in.mode))
        return -ENOTDIR;
    if (in.size != 0 || pend_dir_find(s, d.ino))
        return -ENOTEMPTY;
    op_begin(s, &op, OP_RMDIR);
    op.parent = parent;
    op.name = name;
    op.name_len = (uint8_t)len;
    op.ino = d.ino;
    return op_commit(s, f, &op, 0);
}

int store_rmdir(struct store *s, enum store_how how, uint64_t parent, const char *name)
{
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = rmdir_locked(s, &f, parent, name);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

// ---- rename ----

struct rename {
    uint64_t parent, new_parent;
    const char *name, *new_name;
    size_t len, new_len;
    unsigned flags;
    struct dentry from, to;
    bool to_exists;
    struct oinode *fresh_to; // a new file that loses its name to the moved one
    struct inode in, replaced;
};

// A directory may not move into itself or below.
static int check_loop(struct store *s, struct fault *f, uint64_t ino, uint64_t into)
{
    while (into != INO_ROOT) {
        struct inode in;
        int err;

        if (into == ino)
            return -EINVAL;
        err = inode_get(s, f, into, &in);
        if (err < 0)
            return err;
        into = in.parent;
    }
    return ino == INO_ROOT ? -EBUSY : 0;
}

// Finds both ends; everything of them that needs no inode of the moved.
static int rename_find(struct store *s, struct fault *f, struct rename *r)
{
    struct inode dir;
    int err = name_check(r->name, &r->len);

    if (err == 0)
        err = name_check(r->new_name, &r->new_len);
    if (err == 0)
        err = dir_get(s, f, r->new_parent, &dir);
    if (err == 0 && dir.nlink == 0)
        err = -ENOENT;
    if (err == 0)
        err = dentry_find(s, f, r->parent, r->name, r->len, &r->from);
    if (err < 0)
        return err;
    err = dentry_find(s, f, r->new_parent, r->new_name, r->new_len, &r->to);
    r->to_exists = err == 0;
    if (err < 0 && err != -ENOENT)
        return err;
    if (r->to_exists && (r->flags & RENAME_NOREPLACE))
        return -EEXIST;
    if (!r->to_exists && (r->flags & RENAME_EXCHANGE))
        return -ENOENT;
    return 0;
}

static int rename_check(struct store *s, struct fault *f, struct rename *r)
{
    bool exchange = r->flags & RENAME_EXCHANGE;
    struct oinode *oi;
    int err = inode_current(s, f, r->from.ino, &r->in, &oi);

    if (err == 0 && S_ISDIR(r->in.mode))
        err = check_loop(s, f, r->from.ino, r->new_parent);
    if (err < 0 || !r->to_exists)
        return err;
    err = inode_current(s, f, r->to.ino, &r->replaced, &oi);
    if (err == 0 && exchange && S_ISDIR(r->replaced.mode))
        err = check_loop(s, f, r->to.ino, r->parent);
    if (err < 0 || exchange)
        return err;
    if (S_ISDIR(r->replaced.mode)) {
        if (!S_ISDIR(r->in.mode))
            return -EISDIR;
        if (r->replaced.size != 0 || pend_dir_find(s, r->to.ino))
            return -ENOTEMPTY;
    } else if (S_ISDIR(r->in.mode)) {
        return -ENOTDIR;
    }
    return 0;
}

// Pending content takes part: what moves is completed first; a new file that is replaced loses its
// name.
static int rename_complete(struct store *s, struct fault *f, struct rename *r)
{
    int err = complete_ino(s, f, r->from.ino);

    if (err == 0 && r->to_exists && (r->flags & RENAME_EXCHANGE))
        err = complete_ino(s, f, r->to.ino);
    if (err < 0)
        return err;
    r->fresh_to = NULL;
    if (r->to_exists && r->to.fresh && !(r->flags & RENAME_EXCHANGE)) {
        r->fresh_to = r->to.fresh;
        r->to_exists = false; // in the tree, that is
    }
    return 0;
}

static int rename_locked(struct store *s, struct fault *f, struct rename *r)
{
    struct op op;
    int err = store_writable(s);

    if (err == 0)
        err = rename_find(s, f, r);
    if (err < 0)
        return err;
    if (r->to_exists && r->to.ino == r->from.ino)
        return 0; // two names of one file: rename(2) does nothing
    err = rename_check(s, f, r);
    if (err == 0)
        err = rename_complete(s, f, r);
    if (err < 0)
        return err;
    op_begin(s, &op, OP_RENAME);
    op.parent = r->parent;
    op.name = r->name;
    op.name_len = (uint8_t)r->len;
    op.ino = r->from.ino;
    op.new_parent = r->new_parent;
    op.new_name = r->new_name;
    op.new_name_len = (uint8_t)r->new_len;
    if (r->to_exists) {
        op.replaced = r->to.ino;
        if (r->flags & RENAME_EXCHANGE) {
            op.flags = OP_EXCHANGE;
        } else {
            err = inode_get(s, f, r->to.ino, &r->replaced);
            if (err == 0)
                err = loss_flags(s, f, r->to.ino, &r->replaced, &op.flags);
        }
    } else {
        err = dentry_free_index(s, f, r->new_parent, r->new_name, r->new_len, &op.index);
    }
    if (err == 0)
        err = op_commit(s, f, &op, 0);
    if (err == 0 && r->fresh_to)
        drop_fresh_name(s, r->fresh_to);
    if (err == 0 && r->to_exists && !(r->flags & RENAME_EXCHANGE))
        loss_done(s, r->to.ino, &r->replaced, op.flags);
    return err;
}

int store_rename(struct store *s, enum store_how how, uint64_t parent, const char *name,
                 uint64_t new_parent, const char *new_name, unsigned flags)
{
    struct rename r = {.parent = parent,
                       .name = name,
                       .new_parent = new_parent,
                       .new_name = new_name,
                       .flags = flags};
    struct fault f;
    int err;

    if ((flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) ||
        flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    fault_begin(&f);
    do {
        store_lock(s);
        err = rename_locked(s, &f, &r);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}
