// SPDX-License-Identifier: MIT
// What each call does to the model: errors in the order in which the store finds them, then both
// layers.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/check.h"
#include "store/op.h"
#include "tests/lib/model_internal.h"

// ---- small parts ----

static int name_error(const char *name)
{
    size_t len = strlen(name);

    if (len > NAME_BYTES_MAX)
        return -ENAMETOOLONG;
    return len == 0 || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0
               ? -EINVAL
               : 0;
}

// The directory, or NULL with the error. (A kernel does not ask for names below a file; a new one
// is not looked for.)
static struct model_inode *directory(const struct model *m, uint64_t ino, int *ret_err)
{
    struct model_inode *dir = model_inode(m, ino);

    *ret_err = !dir || (dir->p.active && dir->p.is_new) ? -ENOENT
               : !S_ISDIR(dir->attr.mode)               ? -ENOTDIR
                                                        : 0;
    return *ret_err < 0 ? NULL : dir;
}

// Where a new name is to go.
static struct model_inode *place(const struct model *m, uint64_t parent, const char *name,
                                 int *ret_err)
{
    struct model_inode *dir;

    *ret_err = name_error(name);
    if (*ret_err < 0)
        return NULL;
    dir = directory(m, parent, ret_err);
    if (dir && model_name_find(dir, name))
        *ret_err = -EEXIST;
    return *ret_err < 0 ? NULL : dir;
}

static void dir_changed(struct model *m, struct model_inode *dir, int subdirs)
{
    dir->attr.nlink += (uint32_t)subdirs;
    dir->attr.mtime = dir->attr.ctime = m->now;
    model_note_inode(m, dir);
}

// ctime moves in history, and for readers of a file that is being changed too.
static void touch_ctime(struct model *m, struct model_inode *in)
{
    in->attr.ctime = m->now;
    if (in->p.active && in->p.times)
        in->p.ctime = m->now;
}

static struct store_attr new_attr(const struct model *m, const struct model_inode *dir,
                                  uint32_t mode, uint64_t rdev, const struct store_cred *cred)
{
    struct store_attr a = {
        .mode = mode & (uint32_t)(S_IFMT | 07777),
        .nlink = S_ISDIR(mode) ? 2 : 1,
        .uid = cred->uid,
        .gid = cred->gid,
        .rdev = rdev,
        .atime = m->now,
        .mtime = m->now,
        .ctime = m->now,
        .btime = m->now,
    };

    if (dir->attr.mode & S_ISGID) {
        a.gid = dir->attr.gid;
        if (S_ISDIR(mode))
            a.mode |= S_ISGID;
    }
    return a;
}

// ---- pending content ----

static void pending_begin(struct model *m, struct model_inode *in)
{
    if (in->p.active)
        return;
    in->p = (struct model_pending){
        .active = true,
        .append_only = true,
        .since_ms = m->ticks_ms,
        .order = ++m->order,
        .size = in->attr.size,
        .mtime = in->attr.mtime,
        .ctime = in->attr.ctime,
    };
}

static void pending_touch(struct model *m, struct model_inode *in)
{
    in->p.mtime = in->p.ctime = m->now;
    in->p.times = true;
}

static void pending_end(struct model_inode *in)
{
    in->p = (struct model_pending){0};
    in->epoch++;
    in->dirty_handles = 0;
}

static void mark_dirty(struct model_inode *in, struct model_file *file)
{
    if (file->dirty_epoch == in->epoch)
        return;
    file->dirty_epoch = in->epoch;
    in->dirty_handles++;
}

static void complete(struct model *m, struct model_inode *in)
{
    struct model_inode *dir = in->p.is_new && in->p.named ? model_inode(m, in->p.parent) : NULL;
    struct store_attr attr;

    if (!in->p.active || in->orphan || (in->p.is_new && !in->p.named))
        return;
    model_attr(in, &attr);
    in->attr = attr;
    in->sum = in->bytes.sum;
    pending_end(in);
    if (dir) {
        in->in_history = true;
        for (size_t i = 0; i < dir->name_count; i++)
            if (dir->names[i].inode == in)
                model_note_name(m, dir, &dir->names[i], true);
        model_names_seen(dir); // readers saw the name come then
        model_note_inode(m, dir);
    }
    model_note_inode(m, in);
    model_push(m);
}

void model_complete(struct model *m, uint64_t ino)
{
    struct model_inode *in = model_inode(m, ino);

    if (in)
        complete(m, in);
}

// The pending inode that has been so for the longest time and fits.
static struct model_inode *oldest(struct model *m, uint64_t after, bool timer)
{
    struct model_inode *best = NULL;

    for (size_t i = 0; i < m->count; i++) {
        struct model_inode *in = m->inodes[i];
        const struct model_pending *p = &in->p;

        if (!p->active || p->order <= after || in->dirty_handles == 0)
            continue;
        if (timer &&
            !(p->append_only && p->content && m->ticks_ms - p->since_ms >= m->commit_open_ms))
            continue;
        if (!best || p->order < best->p.order)
            best = in;
    }
    return best;
}

static void complete_in_order(struct model *m, bool timer)
{
    struct model_inode *in;

    for (uint64_t after = 0; (in = oldest(m, after, timer)) != NULL;) {
        after = in->p.order;
        complete(m, in);
    }
}

void model_tick(struct model *m)
{
    if (m->commit_open_ms != 0)
        complete_in_order(m, true);
}

void model_complete_all(struct model *m)
{
    complete_in_order(m, false);
}

// ---- new names ----

int model_create(struct model *m, uint64_t parent, const char *name, uint32_t mode, int flags,
                 const struct store_cred *cred, uint64_t ino, struct model_file *ret_file)
{
    int err;
    struct model_inode *dir = place(m, parent, name, &err);

    if (!dir)
        return err;
    struct store_attr attr = new_attr(m, dir, (mode & 07777) | S_IFREG, 0, cred);
    struct model_inode *in = model_inode_new(m, ino, &attr);

    pending_begin(m, in);
    in->p.is_new = in->p.named = true;
    in->p.parent = parent;
    in->opens = 1;
    in->dirty_handles = 1;
    model_name_add(dir, name, in);
    dir->names_changed = m->now;
    *ret_file = (struct model_file){.ino = ino, .flags = flags, .dirty_epoch = in->epoch};
    return 0;
}

static void make(struct model *m, struct model_inode *dir, const char *name, struct model_inode *in)
{
    model_name_add(dir, name, in);
    in->in_history = true;
    model_note_inode(m, in);
    model_note_name(m, dir, &dir->names[dir->name_count - 1], true);
    dir_changed(m, dir, S_ISDIR(in->attr.mode) ? 1 : 0);
    model_push(m);
}

int model_mknod(struct model *m, uint64_t parent, const char *name, uint32_t mode, uint64_t rdev,
                const struct store_cred *cred, uint64_t ino)
{
    int err;
    struct model_inode *dir = place(m, parent, name, &err);

    if (!dir)
        return err;
    struct store_attr attr = new_attr(m, dir, mode, rdev, cred);
    struct model_inode *in = model_inode_new(m, ino, &attr);

    in->parent = S_ISDIR(mode) ? parent : 0;
    make(m, dir, name, in);
    return 0;
}

int model_symlink(struct model *m, uint64_t parent, const char *name, const char *target,
                  const struct store_cred *cred, uint64_t ino)
{
    int err;

    if (*target == 0)
        return -ENOENT;
    if (strlen(target) >= 4096)
        return -ENAMETOOLONG;
    struct model_inode *dir = place(m, parent, name, &err);

    if (!dir)
        return err;
    struct store_attr attr = new_attr(m, dir, S_IFLNK | 0777, 0, cred);

    attr.size = strlen(target);
    struct model_inode *in = model_inode_new(m, ino, &attr);

    in->target = strdup(target);
    make(m, dir, name, in);
    return 0;
}

int model_link(struct model *m, uint64_t ino, uint64_t parent, const char *name)
{
    int err;
    struct model_inode *dir = place(m, parent, name, &err), *in = model_inode(m, ino);

    if (!dir)
        return err;
    if (!in)
        return -ENOENT;
    if (S_ISDIR(in->attr.mode))
        return -EPERM;
    if (in->orphan || in->attr.nlink == 0 || (in->p.active && in->p.is_new && !in->p.named))
        return -ENOENT;
    complete(m, in);
    in->attr.nlink++;
    touch_ctime(m, in);
    model_name_add(dir, name, in);
    model_note_name(m, dir, &dir->names[dir->name_count - 1], true);
    model_note_inode(m, in);
    dir_changed(m, dir, 0);
    model_push(m);
    return 0;
}

// ---- names that go ----

// A new file loses its name: nothing of it was ever in history.
static void drop_fresh_name(struct model *m, struct model_inode *dir, const char *name,
                            struct model_inode *in)
{
    model_name_remove(m, dir, name);
    in->p.named = false;
    in->attr.nlink = 0;
    touch_ctime(m, in);
    model_inode_drop(m, in);
}

// After its entry is gone.
static void lose_name(struct model *m, struct model_inode *in)
{
    if (S_ISDIR(in->attr.mode)) {
        in->attr.nlink = 0;
    } else {
        in->attr.nlink--;
        touch_ctime(m, in);
    }
    if (in->attr.nlink == 0) {
        in->in_history = false;
        in->orphan = in->opens > 0;
    }
    model_note_inode(m, in);
    model_inode_drop(m, in);
}

int model_unlink(struct model *m, uint64_t parent, const char *name)
{
    struct model_inode *dir = model_inode(m, parent);
    struct model_name *n = dir ? model_name_find(dir, name) : NULL;
    int err = name_error(name);

    if (err < 0 || !n)
        return err < 0 ? err : -ENOENT;
    struct model_inode *in = n->inode;

    if (in->p.active && in->p.is_new) {
        dir_changed(m, dir, 0); // readers saw it come, and history sees that something has changed
        drop_fresh_name(m, dir, name, in);
        model_push(m);
        return 0;
    }
    if (S_ISDIR(in->attr.mode))
        return -EISDIR;
    model_name_remove(m, dir, name);
    dir_changed(m, dir, 0);
    lose_name(m, in);
    model_push(m);
    return 0;
}

int model_rmdir(struct model *m, uint64_t parent, const char *name)
{
    struct model_inode *dir = model_inode(m, parent);
    struct model_name *n = dir ? model_name_find(dir, name) : NULL;
    int err = name_error(name);

    if (err < 0 || !n)
        return err < 0 ? err : -ENOENT;
    struct model_inode *in = n->inode;

    if (!S_ISDIR(in->attr.mode))
        return -ENOTDIR;
    if (in->name_count > 0)
        return -ENOTEMPTY;
    model_name_remove(m, dir, name);
    dir_changed(m, dir, -1);
    lose_name(m, in);
    model_push(m);
    return 0;
}

// ---- rename ----

static bool is_below(const struct model *m, uint64_t ino, uint64_t into)
{
    while (into != INO_ROOT && into != ino)
        into = model_inode(m, into)->parent;
    return into == ino;
}

static int rename_error(const struct model *m, const struct model_inode *from,
                        const struct model_inode *to, uint64_t parent, uint64_t new_parent,
                        bool exchange)
{
    bool from_dir = S_ISDIR(from->attr.mode), to_dir = to && S_ISDIR(to->attr.mode);

    if (from_dir && is_below(m, from->ino, new_parent))
        return -EINVAL;
    if (!to)
        return 0;
    if (exchange)
        return to_dir && is_below(m, to->ino, parent) ? -EINVAL : 0;
    if (to_dir)
        return !from_dir ? -EISDIR : to->name_count > 0 ? -ENOTEMPTY : 0;
    return from_dir ? -ENOTDIR : 0;
}

static void moved(struct model *m, struct model_inode *in, uint64_t dir)
{
    if (S_ISDIR(in->attr.mode))
        in->parent = dir;
    touch_ctime(m, in);
    model_note_inode(m, in);
}

// Takes the name away and puts another inode under it.
static void set_name(struct model *m, struct model_inode *dir, const char *name,
                     struct model_inode *in)
{
    if (model_name_find(dir, name))
        model_name_remove(m, dir, name);
    model_name_add(dir, name, in);
    model_note_name(m, dir, &dir->names[dir->name_count - 1], true);
}

static void exchange_names(struct model *m, struct model_inode *dir, const char *name,
                           struct model_inode *new_dir, const char *new_name)
{
    struct model_inode *a = model_name_find(dir, name)->inode,
                       *b = model_name_find(new_dir, new_name)->inode;
    int gained = (S_ISDIR(b->attr.mode) ? 1 : 0) - (S_ISDIR(a->attr.mode) ? 1 : 0);

    set_name(m, dir, name, b);
    set_name(m, new_dir, new_name, a);
    dir_changed(m, dir, gained);
    dir_changed(m, new_dir, -gained);
    moved(m, a, new_dir->ino);
    moved(m, b, dir->ino);
    model_push(m);
}

static void move_name(struct model *m, struct model_inode *dir, const char *name,
                      struct model_inode *new_dir, const char *new_name,
                      struct model_inode *replaced)
{
    struct model_inode *in = model_name_find(dir, name)->inode;
    bool fresh = replaced && replaced->p.active && replaced->p.is_new;
    int subdir = S_ISDIR(in->attr.mode) ? 1 : 0;

    if (fresh) {
        drop_fresh_name(m, new_dir, new_name, replaced);
    } else if (replaced) {
        model_name_remove(m, new_dir, new_name);
        dir_changed(m, new_dir, S_ISDIR(replaced->attr.mode) ? -1 : 0);
        lose_name(m, replaced);
    }
    model_name_remove(m, dir, name);
    set_name(m, new_dir, new_name, in);
    dir_changed(m, dir, -subdir);
    dir_changed(m, new_dir, subdir);
    moved(m, in, new_dir->ino);
    model_push(m);
}

int model_rename(struct model *m, uint64_t parent, const char *name, uint64_t new_parent,
                 const char *new_name, unsigned flags)
{
    int err = name_error(name);

    if ((flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) ||
        flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    if (err == 0)
        err = name_error(new_name);
    if (err < 0)
        return err;
    struct model_inode *new_dir = directory(m, new_parent, &err);

    if (!new_dir)
        return err;
    struct model_inode *from = model_child(m, parent, name),
                       *to = model_child(m, new_parent, new_name);

    if (!from)
        return -ENOENT;
    if (to && (flags & RENAME_NOREPLACE))
        return -EEXIST;
    if (!to && (flags & RENAME_EXCHANGE))
        return -ENOENT;
    if (to == from)
        return 0;
    err = rename_error(m, from, to, parent, new_parent, flags & RENAME_EXCHANGE);
    if (err < 0)
        return err;
    complete(m, from);
    if (flags & RENAME_EXCHANGE) {
        complete(m, to);
        exchange_names(m, model_inode(m, parent), name, new_dir, new_name);
    } else {
        move_name(m, model_inode(m, parent), name, new_dir, new_name, to);
    }
    return 0;
}

// ---- files ----

static void truncate_bytes(struct model *m, struct model_inode *in, uint64_t size)
{
    pending_begin(m, in);
    if (size < model_size(in))
        filebytes_zero(&in->bytes, size, UINT64_MAX - FILEBYTES_BLOCK - size);
    in->p.content = true;
    in->p.size = size;
    in->p.append_only = false;
    pending_touch(m, in);
}

int model_open(struct model *m, uint64_t ino, int flags, struct model_file *ret_file)
{
    struct model_inode *in = model_inode(m, ino);

    if (!in)
        return -ENOENT;
    if (S_ISDIR(in->attr.mode))
        return -EISDIR;
    if (!S_ISREG(in->attr.mode))
        return -EINVAL;
    *ret_file = (struct model_file){.ino = ino, .flags = flags};
    in->opens++;
    if (flags & O_TRUNC) {
        truncate_bytes(m, in, 0);
        mark_dirty(in, ret_file);
    }
    return 0;
}

static void changed(struct model *m, struct model_inode *in, struct model_file *file, uint64_t end)
{
    in->p.size = AF_MAX(in->p.size, end);
    if (!(file->flags & O_APPEND))
        in->p.append_only = false;
    pending_touch(m, in);
    mark_dirty(in, file);
}

int model_write(struct model *m, struct model_file *file, uint64_t off, const void *bytes,
                size_t size, bool kill_suidgid)
{
    struct model_inode *in = model_inode(m, file->ino);

    if (size == 0)
        return 0;
    if (off > (uint64_t)FILE_BYTES_MAX - size)
        return -EFBIG;
    pending_begin(m, in);
    in->p.content = true;
    filebytes_write(&in->bytes, off, bytes, size);
    changed(m, in, file, off + size);
    if (kill_suidgid && !in->p.is_new)
        in->p.kill_suidgid = true;
    else if (kill_suidgid)
        in->attr.mode &= ~(uint32_t)(S_ISUID | ((in->attr.mode & S_IXGRP) ? S_ISGID : 0));
    return 0;
}

int model_fallocate(struct model *m, struct model_file *file, int mode, uint64_t off, uint64_t len)
{
    struct model_inode *in = model_inode(m, file->ino);
    bool zero = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);

    if (len == 0)
        return -EINVAL;
    if (off > (uint64_t)FILE_BYTES_MAX - len)
        return -EFBIG;
    if (mode != 0 && mode != FALLOC_FL_KEEP_SIZE &&
        mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) && mode != FALLOC_FL_ZERO_RANGE &&
        mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
        return -EOPNOTSUPP;
    pending_begin(m, in);
    in->p.content = true;
    if (zero) {
        if (off < AF_ROUND_UP(in->p.size, FILEBYTES_BLOCK))
            in->p.append_only = false;
        filebytes_zero(&in->bytes, off, len);
    }
    changed(m, in, file, (mode & FALLOC_FL_KEEP_SIZE) ? 0 : off + len);
    return 0;
}

void model_release(struct model *m, struct model_file *file)
{
    struct model_inode *in = model_inode(m, file->ino);

    if (file->dirty_epoch == in->epoch && in->p.active) {
        if (in->dirty_handles == 1)
            complete(m, in);
        else
            in->dirty_handles--;
    }
    if (--in->opens > 0)
        return;
    if (in->p.active)
        pending_end(in);
    in->orphan = false;
    model_inode_drop(m, in);
}

// ---- attributes ----

static int set_size(struct model *m, struct model_inode *in, struct model_file *file, uint64_t size)
{
    bool alone = !file && in->dirty_handles == 0; // nobody changes it: an operation of its own

    if (S_ISDIR(in->attr.mode))
        return -EISDIR;
    if (!S_ISREG(in->attr.mode))
        return -EINVAL;
    if (size > (uint64_t)FILE_BYTES_MAX)
        return -EFBIG;
    truncate_bytes(m, in, size);
    if (file)
        mark_dirty(in, file);
    if (alone)
        complete(m, in);
    return 0;
}

static void change_attr(const struct model *m, struct store_attr *a, const struct store_attr *attr,
                        unsigned set)
{
    if (set & STORE_SET_MODE)
        a->mode = (a->mode & S_IFMT) | (attr->mode & 07777);
    if (set & STORE_SET_UID)
        a->uid = attr->uid;
    if (set & STORE_SET_GID)
        a->gid = attr->gid;
    if ((set & STORE_KILL_SUIDGID) && S_ISREG(a->mode))
        a->mode &= ~(uint32_t)(S_ISUID | ((a->mode & S_IXGRP) ? S_ISGID : 0));
    if (set & (STORE_SET_ATIME | STORE_SET_ATIME_NOW))
        a->atime = (set & STORE_SET_ATIME_NOW) ? m->now : attr->atime;
    if (set & (STORE_SET_MTIME | STORE_SET_MTIME_NOW))
        a->mtime = (set & STORE_SET_MTIME_NOW) ? m->now : attr->mtime;
    a->ctime = (set & STORE_SET_CTIME) ? attr->ctime : m->now;
}

// The part that is an operation at once; what is being written keeps its times for itself.
static void set_in_history(struct model *m, struct model_inode *in, const struct store_attr *now,
                           unsigned set)
{
    in->attr.mode = now->mode;
    in->attr.uid = now->uid;
    in->attr.gid = now->gid;
    in->attr.ctime = now->ctime;
    if (!in->p.active || (set & (STORE_SET_MTIME | STORE_SET_MTIME_NOW)))
        in->attr.mtime = now->mtime;
    if (!in->p.active || (set & (STORE_SET_ATIME | STORE_SET_ATIME_NOW)))
        in->attr.atime = now->atime;
    model_note_inode(m, in);
    model_push(m);
}

static void set_pending(struct model_inode *in, const struct store_attr *now, unsigned set)
{
    in->p.mtime = now->mtime;
    in->p.ctime = now->ctime;
    in->p.times = true;
    if (set & (STORE_SET_ATIME | STORE_SET_ATIME_NOW)) {
        in->p.atime = now->atime;
        in->p.atime_set = true;
    }
    if (set & STORE_SET_MODE)
        in->p.kill_suidgid = false;
}

int model_setattr(struct model *m, uint64_t ino, struct model_file *file,
                  const struct store_attr *attr, unsigned set)
{
    const unsigned owner = STORE_SET_MODE | STORE_SET_UID | STORE_SET_GID | STORE_KILL_SUIDGID;
    struct model_inode *in = model_inode(m, ino);
    struct store_attr now;
    int err = in ? 0 : -ENOENT;

    if (err == 0 && (set & STORE_SET_SIZE))
        err = set_size(m, in, file, attr->size);
    set &= ~(unsigned)STORE_SET_SIZE;
    if (err < 0 || set == 0)
        return err;
    model_attr(in, &now);
    change_attr(m, &now, attr, set);
    if (in->p.active && in->p.is_new)
        change_attr(m, &in->attr, attr, set);
    else if (!in->p.active || (set & owner))
        set_in_history(m, in, &now, set);
    if (in->p.active)
        set_pending(in, &now, set);
    if (set & (STORE_SET_MTIME | STORE_SET_MTIME_NOW))
        in->names_changed = (struct timespec){0};
    return 0;
}

// ---- xattrs ----

int model_setxattr(struct model *m, uint64_t ino, const char *name, const void *value, size_t size,
                   int flags)
{
    struct model_inode *in = model_inode(m, ino);
    struct model_xattr *old = model_xattr_find(in, name);
    size_t total = size;

    if (size > XATTR_VALUE_MAX)
        return -E2BIG;
    if (*name == 0 || strlen(name) > NAME_BYTES_MAX)
        return -ERANGE;
    if (old && (flags & XATTR_CREATE))
        return -EEXIST;
    if (!old && (flags & XATTR_REPLACE))
        return -ENODATA;
    for (size_t i = 0; i < in->xattr_count; i++)
        total += &in->xattrs[i] == old ? 0 : in->xattrs[i].len;
    if (in->p.active && in->p.is_new &&
        (total > m->xattr_room || (!old && in->xattr_count >= OP_XATTRS_MAX)))
        return -ENOSPC;
    model_xattr_put(in, name, value, size);
    touch_ctime(m, in);
    model_note_inode(m, in);
    model_push(m);
    return 0;
}

int model_removexattr(struct model *m, uint64_t ino, const char *name)
{
    struct model_inode *in = model_inode(m, ino);
    struct model_xattr *x = model_xattr_find(in, name);

    if (*name == 0 || strlen(name) > NAME_BYTES_MAX)
        return -ERANGE;
    if (!x)
        return -ENODATA;
    model_xattr_drop(in, x);
    touch_ctime(m, in);
    model_note_inode(m, in);
    model_push(m);
    return 0;
}
