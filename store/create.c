// SPDX-License-Identifier: MIT
// New files that are open: they are pending as a whole, name, attributes and ACLs included, until
// their first completion; and files without a name (O_TMPFILE), which get theirs by link(2).

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "store/store_internal.h"

// The inode of a new file in `dir`, pending and without a name.
static int fresh_begin(struct store *s, struct fault *f, uint64_t parent, const struct inode *dir,
                       uint32_t mode, const struct store_cred *cred, struct oinode **ret_oi)
{
    struct acl_inherited acls;
    struct oinode *oi;
    int err;

    mode = (mode & 07777) | S_IFREG;
    err = acl_inherit(s, f, parent, cred->umask, &mode, &acls);
    if (err == 0)
        err = numbers_note(s, f);
    if (err == 0 && s->pending_count >= PENDING_COUNT_MAX)
        err = -ENFILE;
    if (err < 0)
        return err;
    uint64_t ino = ino_new(s);
    struct inode in = new_inode(dir, ino, mode, 0, cred, store_now(s));

    oi = oinode_get(s, ino);
    if (!oi)
        return -ENOMEM;
    err = pending_begin(s, oi, &in);
    if (err == 0) {
        oi->p->is_new = true;
        oi->p->fresh = in;
        for (unsigned i = 0; err == 0 && i < acls.count; i++)
            err = xattr_set_pending(s, f, oi, acls.x[i].name, acls.x[i].value, acls.x[i].value_len);
        oi->p->fresh.ctime = oi->p->ctime = in.ctime;
        if (err < 0)
            pending_drop(s, oi);
    }
    if (err < 0)
        oinode_put(s, oi);
    else
        *ret_oi = oi;
    return err;
}

// The pending file gets a name.
static int fresh_name(struct store *s, struct oinode *oi, uint64_t parent, const char *name,
                      uint8_t index)
{
    char *copy = strdup(name);
    int err =
        copy ? pend_dir_add(s, parent, name_hash(s, name, strlen(name)) + index, oi) : -ENOMEM;

    if (err < 0) {
        free(copy);
        return err;
    }
    oi->p->name = copy;
    oi->p->parent = parent;
    oi->p->index = index;
    return 0;
}

static void open_fresh(struct store *s, struct oinode *oi, struct store_file *file, int flags,
                       struct store_attr *ret)
{
    file->oi = oi;
    file->flags = flags;
    file->history = s->history;
    file->dirty_epoch = oi->epoch; // the creation is its first change
    oi->opens = 1;
    oi->dirty_handles = 1;
    s->open_files++;
    list_append(&s->files, &file->link);
    inode_to_attr(oi->ino, &oi->p->fresh, ret);
}

// ---- create ----

static int create_locked(struct store *s, struct fault *f, uint64_t parent, const char *name,
                         uint32_t mode, const struct store_cred *cred, struct oinode **ret_oi)
{
    struct inode dir;
    struct oinode *oi;
    size_t len;
    uint8_t index;
    int err = new_name(s, f, parent, name, &dir, &len, &index);

    if (err == 0)
        err = fresh_begin(s, f, parent, &dir, mode, cred, &oi);
    if (err < 0)
        return err;
    err = fresh_name(s, oi, parent, name, index);
    if (err < 0) {
        pending_drop(s, oi);
        oinode_put(s, oi);
        return err;
    }
    *ret_oi = oi;
    return 0;
}

int store_create(struct store *s, enum store_how how, uint64_t parent, const char *name,
                 uint32_t mode, int flags, const struct store_cred *cred,
                 struct store_attr *ret_attr, struct store_file **ret_file)
{
    struct store_file *file = calloc(1, sizeof(*file));
    struct oinode *oi;
    struct fault f;
    int err;

    if (!file)
        return -ENOMEM;
    fault_begin(&f);
    do {
        store_lock(s);
        err = create_locked(s, &f, parent, name, mode, cred, &oi);
        if (err == 0)
            open_fresh(s, oi, file, flags, ret_attr);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    if (err < 0)
        free(file);
    else
        *ret_file = file;
    return err;
}

// ---- without a name ----

static int tmpfile_locked(struct store *s, struct fault *f, uint64_t parent, uint32_t mode,
                          int flags, const struct store_cred *cred, struct oinode **ret_oi)
{
    struct inode dir;
    int err = store_writable(s);

    if (err == 0)
        err = dir_get(s, f, parent, &dir);
    if (err == 0)
        err = fresh_begin(s, f, parent, &dir, mode, cred, ret_oi);
    if (err < 0)
        return err;
    (*ret_oi)->p->fresh.nlink = 0;
    (*ret_oi)->p->linkable = !(flags & O_EXCL);
    return 0;
}

int store_tmpfile(struct store *s, enum store_how how, uint64_t parent, uint32_t mode, int flags,
                  const struct store_cred *cred, struct store_attr *ret_attr,
                  struct store_file **ret_file)
{
    struct store_file *file = calloc(1, sizeof(*file));
    struct oinode *oi;
    struct fault f;
    int err;

    if (!file)
        return -ENOMEM;
    fault_begin(&f);
    do {
        store_lock(s);
        err = tmpfile_locked(s, &f, parent, mode, flags, cred, &oi);
        if (err == 0)
            open_fresh(s, oi, file, flags, ret_attr);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    if (err < 0)
        free(file);
    else
        *ret_file = file;
    return err;
}

int tmpfile_link(struct store *s, struct fault *f, struct oinode *oi, uint64_t parent,
                 const char *name, uint8_t index)
{
    struct timespec ctime = oi->p->ctime;
    int err = fresh_name(s, oi, parent, name, index);

    if (err < 0)
        return err;
    oi->p->fresh.nlink = 1;
    oi->p->fresh.ctime = oi->p->ctime = store_now(s);
    err = complete(s, f, oi);
    if (err < 0) { // nameless again, until it is tried anew
        pend_dir_remove(s, parent, oi);
        free(oi->p->name);
        oi->p->name = NULL;
        oi->p->parent = 0;
        oi->p->fresh.nlink = 0;
        oi->p->ctime = ctime;
    }
    return err;
}
