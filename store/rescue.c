// SPDX-License-Identifier: MIT
// Reading out a damaged store (rescue.h).

#include "store/rescue.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "store/store_internal.h"

// A clean block that is never evicted: cached blocks are not validated again.
int store_patch(struct store *s, const struct blkref *ref, unsigned level, const uint8_t *bytes)
{
    uint8_t *copy = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);

    if (!copy)
        return -ENOMEM;
    memcpy(copy, bytes, BLOCK_BYTES);
    store_lock(s);
    struct block *b = cache_insert(&s->cache, ref, BLOCK_NODE, level, copy);
    bool in = b && cache_block_is(b, ref, BLOCK_NODE, level);

    if (in)
        cache_pin(&s->cache, b);
    store_unlock(s);
    // Something else stands at this address already: the reference is no better than what it leads
    // to.
    return in ? 0 : b ? -AF_E_BLOCK_ADDRESS : -ENOMEM;
}

static int content_locked(struct store *s, struct fault *f, uint64_t ino, struct store_content *ret)
{
    const void *bytes;
    struct inode in;
    size_t len;
    int err = inode_get(s, f, ino, &in);

    if (err < 0)
        return err;
    *ret = (struct store_content){
        .id = in.content_id, .blocks = in.blocks, .entries = S_ISDIR(in.mode) ? in.size : 0};
    err = inline_get(s, f, in.content_id, &bytes, &len);
    ret->inlined = err == 0;
    return err == -ENOENT ? 0 : err;
}

static int count_extents(struct store *s, struct store_content *c)
{
    uint64_t at = 0;
    int err = 0;

    while (err == 0) { // one extent for each hold of the lock
        struct extent e;
        struct fault f;

        fault_begin(&f);
        do {
            store_lock(s);
            err = extent_at(s, &f, c->id, at, NO_BLOCK - 1, &e);
            store_unlock(s);
        } while (fault_resolve(s, &f, STORE_BLOCK, &err));
        if (err == 0) {
            c->blocks_found += e.count;
            at = e.block + e.count;
        }
    }
    return err == -ENOENT ? 0 : err;
}

int store_get_content(struct store *s, uint64_t ino, struct store_content *ret)
{
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = content_locked(s, &f, ino, ret);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    return err < 0 ? err : count_extents(s, ret);
}

// Leaves that cannot be read are passed over: they have been reported.
static int each_leaf(struct store *s, int (*each)(void *arg, const uint8_t *leaf), void *arg)
{
    struct store_leaf *leaf = malloc(sizeof(*leaf));
    struct key at = key_make(0, 0, 0);
    int err = leaf ? 0 : -ENOMEM;

    while (err == 0) {
        err = store_walk(s, s->config.data, 0, at, leaf);
        if (err == 0)
            err = each(arg, leaf->bytes);
        else if (err_is_corruption(err) || err == -EIO)
            err = 0;
        if (leaf->way.last)
            break;
        at = leaf->way.next;
    }
    free(leaf);
    return err;
}

struct inodes {
    store_inode_fn each;
    void *arg;
    uint64_t dir; // whose entries pass
};

static int inodes_of(void *arg, const uint8_t *leaf)
{
    struct inodes *w = arg;
    int err = 0;

    for (unsigned i = 0; i < node_count(leaf) && err == 0; i++) {
        struct key key = node_key(leaf, i);
        struct inode in;
        size_t len;
        const void *value = node_value(leaf, i, &len);

        if (key.kind == KIND_INODE && inode_decode(value, len, &in) == 0) {
            err = w->each(w->arg, key.ino, in.nlink, S_ISDIR(in.mode));
        } else if (key.kind == KIND_DENTRY && key.ino != w->dir) {
            w->dir = key.ino;
            err = w->each(w->arg, key.ino, 1, true);
        }
    }
    return err;
}

int store_each_inode(struct store *s, store_inode_fn each, void *arg)
{
    return each_leaf(s, inodes_of, &(struct inodes){.each = each, .arg = arg});
}

// One entry behind *cookie: 1 when there is none, or `each` wants no more.
static int next_entry(struct store *s, struct fault *f, uint64_t dir, uint64_t *cookie,
                      store_dirent_fn each, void *arg, int *ret_bad)
{
    struct key key;
    const void *value;
    const char *name;
    size_t len, name_len;
    uint64_t ino;
    uint8_t type;
    int err = *cookie == UINT64_MAX
                  ? -ENOENT
                  : tree_next(&s->tree, &s->tree.root, f, key_make(dir, KIND_DENTRY, *cookie + 1),
                              key_make(dir, KIND_DENTRY, UINT64_MAX), &key, &value, &len);

    if (err < 0)
        return err == -ENOENT ? 1 : err;
    *cookie = key.off;
    err = dentry_decode(value, len, &ino, &type, &name, &name_len);
    if (err < 0) {
        *ret_bad = *ret_bad ? *ret_bad : err;
        return 0;
    }
    return each(arg, name, name_len, ino, (uint32_t)DTTOIF(type), NULL, key.off) ? 1 : 0;
}

int store_each_entry(struct store *s, uint64_t dir, uint64_t cookie, store_dirent_fn each,
                     void *arg)
{
    int bad = 0, err = 0;

    while (err == 0) {
        struct fault f;

        fault_begin(&f);
        do {
            store_lock(s);
            err = next_entry(s, &f, dir, &cookie, each, arg, &bad);
            store_unlock(s);
        } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    }
    return err < 0 ? err : bad;
}

static int highest_of(void *arg, const uint8_t *leaf)
{
    uint64_t *highest = arg;

    for (unsigned i = 0; i < node_count(leaf); i++) {
        struct key key = node_key(leaf, i);
        struct extent e;
        struct inode in;
        size_t len;
        const void *value = node_value(leaf, i, &len);

        if (key.kind == KIND_INODE && inode_decode(value, len, &in) == 0) {
            *highest = AF_MAX(*highest, in.content_lsn);
            *highest = AF_MAX(*highest, in.attr_lsn);
            *highest = AF_MAX(*highest, in.listing_lsn);
        } else if (key.kind == KIND_EXTENT && extent_decode(key, value, len, &e) == 0) {
            *highest = AF_MAX(*highest, e.birth);
        }
    }
    return 0;
}

int store_highest_lsn(struct store *s, uint64_t *ret_lsn)
{
    *ret_lsn = 0;
    return each_leaf(s, highest_of, ret_lsn);
}
