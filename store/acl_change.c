// SPDX-License-Identifier: MIT
// POSIX ACLs of inodes: an ACL and the mode that it stands for change by one operation, and new
// objects inherit from their directory by the operation that makes them.

#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "store/acl.h"
#include "store/store_internal.h"

int acl_get(struct store *s, struct fault *f, uint64_t ino, const char *name,
            uint8_t acl[ACL_BYTES_MAX], size_t *ret_size)
{
    size_t size = 0;
    int err = xattr_get_locked(s, f, ino, name, acl, ACL_BYTES_MAX, &size);

    if (err == -ENODATA) {
        *ret_size = 0;
        return 0;
    }
    if (err == -ERANGE || (err == 0 && !acl_valid(acl, size)))
        err = -AF_E_ITEM;
    if (err == 0)
        *ret_size = size;
    return err;
}

static struct op_xattr as_xattr(const char *name, const uint8_t *acl, size_t size)
{
    return (struct op_xattr){
        .name = name, .name_len = (uint8_t)strlen(name), .value = acl, .value_len = (uint32_t)size};
}

// ---- inheritance ----

static void inherit(struct acl_inherited *a, const char *name, const uint8_t *acl, size_t size)
{
    memcpy(a->bytes[a->count], acl, size);
    a->x[a->count] = as_xattr(name, a->bytes[a->count], size);
    a->count++;
}

int acl_inherit(struct store *s, struct fault *f, uint64_t dir, uint32_t umask, uint32_t *mode,
                struct acl_inherited *ret)
{
    uint8_t acl[ACL_BYTES_MAX];
    size_t size;

    ret->count = 0;
    if (S_ISLNK(*mode))
        return 0;
    int err = acl_get(s, f, dir, ACL_DEFAULT, acl, &size);

    if (err < 0)
        return err;
    if (size == 0) {
        *mode &= ~(umask & 0777);
        return 0;
    }
    if (S_ISDIR(*mode))
        inherit(ret, ACL_DEFAULT, acl, size);
    if (!acl_create(acl, size, mode))
        inherit(ret, ACL_ACCESS, acl, size);
    return 0;
}

// ---- chmod ----

int acl_follow_mode(struct store *s, struct fault *f, uint64_t ino, uint32_t mode,
                    uint8_t acl[ACL_BYTES_MAX], struct op *op)
{
    size_t size;
    int err = acl_get(s, f, ino, ACL_ACCESS, acl, &size);

    if (err < 0 || size == 0)
        return err;
    acl_chmod(acl, size, mode);
    op->flags |= OP_AND_XATTR;
    op->xattr = as_xattr(ACL_ACCESS, acl, size);
    return 0;
}

// ---- setting ----

struct acl_change {
    uint64_t ino;
    const char *name;
    const uint8_t *acl;
    size_t size; // 0: it goes
    bool keep_setgid;
    bool access; // which of the two it is
    bool chmods; // the mode changes with it
    struct inode in;
};

// What is to become of ACL and mode.
static int change_check(struct acl_change *c)
{
    uint32_t mode;

    c->access = strcmp(c->name, ACL_ACCESS) == 0;
    c->chmods = false;
    if (S_ISLNK(c->in.mode))
        return -EOPNOTSUPP;
    if (!c->access && !S_ISDIR(c->in.mode))
        return c->size > 0 ? -EACCES : 0;
    if (!c->access || c->size == 0)
        return 0;
    if (acl_to_mode(c->acl, c->size, &mode))
        c->size = 0; // the mode says it all
    mode |= c->in.mode & ~UINT32_C(0777);
    if (!c->keep_setgid)
        mode &= ~(uint32_t)S_ISGID;
    c->chmods = mode != c->in.mode;
    c->in.mode = mode;
    return 0;
}

// A new file has all of it beside the tree.
static int change_pending(struct store *s, struct fault *f, struct oinode *oi,
                          const struct acl_change *c, bool have)
{
    int err = 0;

    if (c->size > 0)
        err = xattr_set_pending(s, f, oi, c->name, c->acl, c->size);
    else if (have)
        xattr_remove_pending(s, oi, c->name);
    if (err < 0)
        return err;
    oi->p->fresh.mode = c->in.mode;
    oi->p->fresh.ctime = oi->p->ctime = store_now(s);
    return 0;
}

static int change_commit(struct store *s, struct fault *f, struct oinode *oi, struct acl_change *c,
                         bool have)
{
    struct op op;
    int err;

    if (c->size > 0)
        op_begin(s, &op, OP_SET_XATTR);
    else if (have)
        op_begin(s, &op, OP_REMOVE_XATTR);
    else
        op_begin(s, &op, OP_ATTRIBUTES);
    c->in.ctime = op.time;
    err = attributes_draft(s, f, c->ino, oi, &c->in, 0, &op);
    if (err < 0)
        return err;
    op.xattr = as_xattr(c->name, c->acl, c->size);
    op.name = c->name;
    op.name_len = op.xattr.name_len;
    if (c->chmods && op.kind != OP_ATTRIBUTES)
        op.flags = OP_AND_INODE;
    err = op_commit(s, f, &op, 0);
    if (err == 0 && oi && oi->p) {
        if (c->chmods)
            oi->p->kill_suidgid = false; // the mode of the tree is the one that was seen
        if (oi->p->times)
            oi->p->ctime = op.time;
    }
    return err;
}

static int set_acl_locked(struct store *s, struct fault *f, struct acl_change *c)
{
    uint8_t old[ACL_BYTES_MAX];
    struct oinode *oi;
    size_t have;
    int err = store_writable(s);

    if (err == 0)
        err = inode_current(s, f, c->ino, &c->in, &oi);
    if (err == 0)
        err = change_check(c);
    if (err == 0)
        err = acl_get(s, f, c->ino, c->name, old, &have);
    if (err < 0)
        return err;
    if (oi && oi->p && oi->p->is_new)
        return change_pending(s, f, oi, c, have > 0);
    if (c->size == 0 && have == 0 && !c->chmods)
        return 0;
    return change_commit(s, f, oi, c, have > 0);
}

int store_set_acl(struct store *s, enum store_how how, uint64_t ino, const char *name,
                  const void *acl, size_t size, bool keep_setgid)
{
    struct fault f;
    int err;

    if (!acl_is_name(name))
        return -EOPNOTSUPP;
    if (size > ACL_BYTES_MAX)
        return -E2BIG;
    if (size > 0 && !acl_valid(acl, size))
        return -EINVAL;
    fault_begin(&f);
    do {
        struct acl_change c = {
            .ino = ino, .name = name, .acl = acl, .size = size, .keep_setgid = keep_setgid};

        store_lock(s);
        err = set_acl_locked(s, &f, &c);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}
