// SPDX-License-Identifier: MIT
// Extended attributes: items under (inode, XATTR, name hash + collision index). Values up to
// INLINE_BYTES_MAX lie in the item, larger ones in blocks of data that the record carried. A new
// file's lie in its pending content until the first completion.

#include "store/xattr.h"

#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "store/store_internal.h"

int xattr_decode(const void *bytes, size_t len, struct xattr_item *ret)
{
    const struct xattr_disk *d = bytes;
    struct xattr_item x = {0};
    size_t rest;

    if (len < sizeof(*d))
        return -AF_E_ITEM;
    x.name_len = d->name_len;
    x.value_len = le32_get(d->value_len);
    rest = len - sizeof(*d);
    if (d->name_len == 0 || d->name_len > rest || le16_get(d->reserved) != 0 ||
        d->flags > XATTR_IN_BLOCKS)
        return -AF_E_ITEM;
    x.name = (const char *)d->bytes;
    rest -= d->name_len;
    if (d->flags == 0) {
        x.value = d->bytes + d->name_len;
        if (x.value_len > INLINE_BYTES_MAX || rest != x.value_len)
            return -AF_E_ITEM;
    } else {
        le64 birth;

        if (rest < sizeof(birth))
            return -AF_E_ITEM;
        memcpy(&birth, d->bytes + d->name_len, sizeof(birth));
        x.birth = le64_get(birth);
        x.blocks = d->bytes + d->name_len + sizeof(birth);
        if (x.value_len <= INLINE_BYTES_MAX || x.value_len > XATTR_VALUE_MAX ||
            rest != sizeof(le64) + BLOCKS_OF(x.value_len) * sizeof(struct xattr_block_disk))
            return -AF_E_ITEM;
    }
    *ret = x;
    return 0;
}

static struct xattr_block_disk block_ref(const struct xattr_item *x, size_t i)
{
    struct xattr_block_disk b;

    memcpy(&b, x->blocks + i * sizeof(b), sizeof(b));
    return b;
}

bool xattr_block(const void *bytes, size_t len, size_t i, uint64_t *ret_birth,
                 uint64_t *ret_address)
{
    struct xattr_item x;

    if (xattr_decode(bytes, len, &x) < 0 || !x.blocks || i >= BLOCKS_OF(x.value_len))
        return false;
    *ret_birth = x.birth;
    *ret_address = le64_get(block_ref(&x, i).address);
    return true;
}

// The item of `name`, or -ENOENT and a free index.
static int find(struct store *s, struct fault *f, uint64_t ino, const char *name, size_t len,
                struct xattr_item *ret, uint8_t *ret_index)
{
    uint64_t hash = name_hash(s, name, len);
    struct key last = key_make(ino, KIND_XATTR, hash + DENTRY_INDEX_MAX - 1);
    unsigned next_index = 0, free_index = DENTRY_INDEX_MAX;

    while (next_index < DENTRY_INDEX_MAX) {
        struct key key;
        const void *value;
        size_t value_len;
        int err =
            tree_next(&s->tree, store_root(s, f), f, key_make(ino, KIND_XATTR, hash + next_index),
                      last, &key, &value, &value_len);

        if (err == -ENOENT)
            break;
        if (err == 0)
            err = xattr_decode(value, value_len, ret);
        if (err == -AF_E_ITEM)
            store_note_item(s, err, ino);
        if (err < 0)
            return err;
        *ret_index = (uint8_t)(key.off - hash);
        if (ret->name_len == len && memcmp(ret->name, name, len) == 0)
            return 0;
        if (*ret_index > next_index && free_index == DENTRY_INDEX_MAX)
            free_index = next_index;
        next_index = *ret_index + 1u;
    }
    if (free_index == DENTRY_INDEX_MAX)
        free_index = next_index;
    *ret_index = (uint8_t)free_index;
    return free_index < DENTRY_INDEX_MAX ? -ENOENT : -ENOSPC;
}

// ---- for op_apply() ----

static void free_value(struct store *s, const struct xattr_item *x)
{
    for (size_t i = 0; x->blocks && i < BLOCKS_OF(x->value_len); i++) {
        uint64_t address = le64_get(block_ref(x, i).address);

        data_forget(s, address, 1);
        if (!snapshot_keeps_data(s, x->birth, address, 1))
            space_free(s->space, address, 1);
    }
}

void xattr_put(struct store *s, uint64_t ino, const struct op_xattr *x, uint64_t lsn)
{
    uint8_t item[ITEM_BYTES_MAX];
    struct xattr_disk d = {.name_len = x->name_len, .value_len = le32_put(x->value_len)};
    size_t len = sizeof(d);
    struct xattr_item old;
    struct fault f;
    uint8_t index;

    fault_begin(&f);
    int err = find(s, &f, ino, x->name, x->name_len, &old, &index);

    AF_ASSERT(err == 0 || err == -ENOENT);
    if (err == 0)
        free_value(s, &old);
    d.flags = x->value_len > INLINE_BYTES_MAX ? XATTR_IN_BLOCKS : 0;
    memcpy(item, &d, sizeof(d));
    memcpy(item + len, x->name, x->name_len);
    len += x->name_len;
    if (d.flags == 0) {
        memcpy(item + len, x->value, x->value_len);
        len += x->value_len;
    } else {
        le64 birth = le64_put(lsn);

        memcpy(item + len, &birth, sizeof(birth));
        len += sizeof(birth);
        for (size_t at = 0, i = 0; at < x->value_len; at += BLOCK_BYTES, i++) {
            uint64_t address = op_le64(x->addresses, i);
            uint64_t sum =
                data_put(s, address, x->value + at, AF_MIN(x->value_len - at, (size_t)BLOCK_BYTES));
            struct xattr_block_disk b = {.address = le64_put(address), .checksum = le64_put(sum)};

            space_log_alloc(s->space, address, 1);
            memcpy(item + len, &b, sizeof(b));
            len += sizeof(b);
        }
    }
    tree_put(&s->tree, key_make(ino, KIND_XATTR, name_hash(s, x->name, x->name_len) + index), item,
             len);
}

void xattr_delete(struct store *s, uint64_t ino, const char *name, size_t len)
{
    struct xattr_item x;
    struct fault f;
    uint8_t index;

    fault_begin(&f);
    if (find(s, &f, ino, name, len, &x, &index) != 0)
        return;
    free_value(s, &x);
    tree_delete(&s->tree, key_make(ino, KIND_XATTR, name_hash(s, name, len) + index));
}

void xattr_remove_all(struct store *s, uint64_t ino)
{
    struct fault f;
    struct key key;
    const void *value;
    size_t len;

    fault_begin(&f);
    while (tree_next(&s->tree, store_root(s, &f), &f, key_make(ino, KIND_XATTR, 0),
                     key_make(ino, KIND_XATTR, UINT64_MAX), &key, &value, &len) == 0) {
        struct xattr_item x;

        if (xattr_decode(value, len, &x) == 0)
            free_value(s, &x);
        tree_delete(&s->tree, key);
    }
    AF_ASSERT(f.kind == FAULT_NONE);
}

// ---- reading ----

static struct pend_xattr *pend_xattr_find(const struct pending *p, const char *name, size_t len)
{
    struct pend_xattr *x = p->xattrs;

    while (x && !(x->name_len == len && memcmp(x->name, name, len) == 0))
        x = x->next;
    return x;
}

static int copy_value(struct store *s, struct fault *f, const struct xattr_item *x, void *value)
{
    for (size_t at = 0, i = 0; at < x->value_len; at += BLOCK_BYTES, i++) {
        struct xattr_block_disk b = block_ref(x, i);
        const uint8_t *bytes;
        int err = data_block(s, f, le64_get(b.address), le64_get(b.checksum), &bytes);

        if (err < 0)
            return err;
        memcpy((uint8_t *)value + at, bytes, AF_MIN(x->value_len - at, (size_t)BLOCK_BYTES));
    }
    return 0;
}

int xattr_get_locked(struct store *s, struct fault *f, uint64_t ino, const char *name, void *value,
                     size_t size, size_t *ret_size)
{
    struct oinode *oi = f->in_view ? NULL : oinode_find(s, ino);
    size_t len = strlen(name);
    struct xattr_item x = {0};
    uint8_t index;
    int err;

    if (len == 0 || len > NAME_BYTES_MAX)
        return -ERANGE;
    if (oi && oi->p && oi->p->is_new) {
        struct pend_xattr *px = pend_xattr_find(oi->p, name, len);

        if (!px)
            return -ENODATA;
        x.value_len = px->value_len;
        x.value = px->value;
    } else {
        err = find(s, f, ino, name, len, &x, &index);
        if (err < 0)
            return err == -ENOENT || err == -ENOSPC ? -ENODATA : err;
    }
    *ret_size = x.value_len;
    if (size == 0)
        return 0;
    if (size < x.value_len)
        return -ERANGE;
    if (!x.value)
        return copy_value(s, f, &x, value);
    memcpy(value, x.value, x.value_len);
    return 0;
}

int store_getxattr(struct store *s, enum store_how how, uint64_t ino, const char *name, void *value,
                   size_t size, size_t *ret_size)
{
    uint64_t number;
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = view_enter(s, &f, ino, &number);
        if (err == 0)
            err = xattr_get_locked(s, &f, number, name, value, size, ret_size);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

struct names {
    char *names;
    size_t size, len;
};

static int add_name(struct names *n, const char *name, size_t len)
{
    if (n->size > 0) {
        if (n->len + len + 1 > n->size)
            return -ERANGE;
        memcpy(n->names + n->len, name, len);
        n->names[n->len + len] = 0;
    }
    n->len += len + 1;
    return 0;
}

static int listxattr_locked(struct store *s, struct fault *f, uint64_t ino, struct names *n)
{
    struct oinode *oi = f->in_view ? NULL : oinode_find(s, ino);
    struct key key = key_make(ino, KIND_XATTR, 0);
    int err = 0;

    n->len = 0;
    if (oi && oi->p && oi->p->is_new) {
        for (const struct pend_xattr *x = oi->p->xattrs; err == 0 && x; x = x->next)
            err = add_name(n, x->name, x->name_len);
        return err;
    }
    while (err == 0) {
        const void *value;
        struct xattr_item x;
        size_t len;

        err = tree_next(&s->tree, store_root(s, f), f, key, key_make(ino, KIND_XATTR, UINT64_MAX),
                        &key, &value, &len);
        if (err < 0)
            break;
        err = xattr_decode(value, len, &x);
        if (err == 0)
            err = add_name(n, x.name, x.name_len);
        key.off++;
    }
    return err == -ENOENT ? 0 : err;
}

int store_listxattr(struct store *s, enum store_how how, uint64_t ino, char *names, size_t size,
                    size_t *ret_size)
{
    struct names n = {.names = names, .size = size};
    uint64_t number;
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = view_enter(s, &f, ino, &number);
        if (err == 0)
            err = listxattr_locked(s, &f, number, &n);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    *ret_size = n.len;
    return err;
}

// ---- changing ----

// A new file keeps them in its pending content; they go into the record of its first completion.
// What one record can hold bounds them.
int xattr_set_pending(struct store *s, struct fault *f, struct oinode *oi, const char *name,
                      const void *value, size_t size)
{
    struct pending *p = oi->p;
    size_t len = strlen(name);
    struct pend_xattr **at = &p->xattrs, *old = pend_xattr_find(p, name, len);
    size_t blocks = size > INLINE_BYTES_MAX ? BLOCKS_OF(size) : 0, total = size;

    for (const struct pend_xattr *x = p->xattrs; x; x = x->next)
        total += x == old ? 0 : x->value_len;
    if (total > 2 * record_data_max(s) || (!old && p->xattr_count >= OP_XATTRS_MAX))
        return -ENOSPC;
    int err = space_reserve(s->space, f, blocks);

    if (err < 0)
        return err;
    struct pend_xattr *x = malloc(sizeof(*x) + size);

    if (!x) {
        space_unreserve(s->space, blocks);
        return -ENOMEM;
    }
    x->name_len = (uint8_t)len;
    memcpy(x->name, name, len + 1);
    x->value_len = (uint32_t)size;
    memcpy(x->value, value, size);
    while (old && *at != old)
        at = &(*at)->next;
    x->next = old ? old->next : *at;
    *at = x;
    p->xattr_blocks += blocks;
    p->xattr_count += old ? 0 : 1;
    if (old) {
        size_t freed = old->value_len > INLINE_BYTES_MAX ? BLOCKS_OF(old->value_len) : 0;

        p->xattr_blocks -= freed;
        space_unreserve(s->space, freed);
        free(old);
    }
    p->fresh.ctime = p->ctime = store_now(s);
    return 0;
}

// Allocates a block for each of a large value. Space is prepared here.
static int alloc_value(struct store *s, struct fault *f, size_t size, uint8_t *addresses,
                       size_t *ret_blocks)
{
    size_t blocks = size > INLINE_BYTES_MAX ? BLOCKS_OF(size) : 0;
    int err = blocks > 0 ? space_prepare(s->space, f, blocks, 0, false) : 0;

    for (size_t i = 0; err == 0 && i < blocks; i++) {
        uint64_t got;
        le64 address = le64_put(space_alloc(s->space, 1, 0, &got));

        memcpy(addresses + 8 * i, &address, sizeof(address));
    }
    *ret_blocks = err == 0 ? blocks : 0;
    return err;
}

static int setxattr_locked(struct store *s, struct fault *f, uint64_t ino, const char *name,
                           const void *value, size_t size, int flags)
{
    uint8_t addresses[8 * (XATTR_VALUE_MAX / BLOCK_BYTES)];
    struct oinode *oi = oinode_find(s, ino);
    struct op op;
    size_t blocks = 0, got;
    int err = store_writable(s);
    int have;

    if (err < 0)
        return err;
    have = xattr_get_locked(s, f, ino, name, NULL, 0, &got);
    if (have < 0 && have != -ENODATA)
        return have;
    if (have == 0 && (flags & XATTR_CREATE))
        return -EEXIST;
    if (have == -ENODATA && (flags & XATTR_REPLACE))
        return -ENODATA;
    if (oi && oi->p && oi->p->is_new)
        return xattr_set_pending(s, f, oi, name, value, size);
    op_begin(s, &op, OP_SET_XATTR);
    op.ino = ino;
    op.xattr = (struct op_xattr){
        .name = name,
        .name_len = (uint8_t)strlen(name),
        .value = value,
        .value_len = (uint32_t)size,
        .addresses = addresses,
    };
    err = alloc_value(s, f, size, addresses, &blocks);
    if (err == 0)
        err = op_commit(s, f, &op, 0);
    for (size_t i = 0; err < 0 && i < blocks; i++)
        space_release(s->space, op_le64(addresses, i), 1);
    return err;
}

int store_setxattr(struct store *s, enum store_how how, uint64_t ino, const char *name,
                   const void *value, size_t size, int flags)
{
    struct fault f;
    int err;

    if (size > XATTR_VALUE_MAX)
        return -E2BIG;
    fault_begin(&f);
    do {
        store_lock(s);
        err = setxattr_locked(s, &f, ino, name, value, size, flags);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

void xattr_remove_pending(struct store *s, struct oinode *oi, const char *name)
{
    struct pending *p = oi->p;
    struct pend_xattr *x = pend_xattr_find(p, name, strlen(name)), **at = &p->xattrs;
    size_t blocks = x->value_len > INLINE_BYTES_MAX ? BLOCKS_OF(x->value_len) : 0;

    while (*at != x)
        at = &(*at)->next;
    *at = x->next;
    p->xattr_count--;
    p->xattr_blocks -= blocks;
    space_unreserve(s->space, blocks);
    free(x);
    p->fresh.ctime = p->ctime = store_now(s);
}

static int removexattr_locked(struct store *s, struct fault *f, uint64_t ino, const char *name)
{
    struct oinode *oi = oinode_find(s, ino);
    struct op op;
    size_t got;
    int err = store_writable(s);

    if (err == 0)
        err = xattr_get_locked(s, f, ino, name, NULL, 0, &got);
    if (err < 0)
        return err;
    if (oi && oi->p && oi->p->is_new) {
        xattr_remove_pending(s, oi, name);
        return 0;
    }
    op_begin(s, &op, OP_REMOVE_XATTR);
    op.ino = ino;
    op.name = name;
    op.name_len = (uint8_t)strlen(name);
    return op_commit(s, f, &op, 0);
}

int store_removexattr(struct store *s, enum store_how how, uint64_t ino, const char *name)
{
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = removexattr_locked(s, &f, ino, name);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}
