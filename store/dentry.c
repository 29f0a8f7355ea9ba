// SPDX-License-Identifier: MIT
// Directory entries: items keyed by the hash of their name (docs/FORMAT.md), and the names of new
// files, which stand beside the tree until their first completion and count like any other.

#include <dirent.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "store/store_internal.h"

int name_check(const char *name, size_t *ret_len)
{
    size_t len = strlen(name);

    if (len > NAME_BYTES_MAX)
        return -ENAMETOOLONG;
    if (len == 0 || memchr(name, '/', len) || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return -EINVAL;
    *ret_len = len;
    return 0;
}

uint64_t name_hash(const struct store *s, const char *name, size_t len)
{
    uint64_t h = checksum(CSUM_NAME, s->hash_seed, name, len) >> 1;

    h &= ~(uint64_t)(DENTRY_INDEX_MAX - 1);
    return h < DENTRY_INDEX_MAX ? DENTRY_INDEX_MAX : h; // below are the cookies of "." and ".."
}

struct key dentry_key(const struct store *s, uint64_t dir, const char *name, size_t len,
                      uint8_t index)
{
    return key_make(dir, KIND_DENTRY, name_hash(s, name, len) + index);
}

int dentry_decode(const void *bytes, size_t len, uint64_t *ret_ino, uint8_t *ret_type,
                  const char **ret_name, size_t *ret_name_len)
{
    const struct dentry_disk *d = bytes;

    if (len < sizeof(*d) + 1 || d->name_len == 0 || len != sizeof(*d) + d->name_len)
        return -AF_E_ITEM;
    *ret_ino = le64_get(d->ino);
    *ret_type = d->type;
    *ret_name = (const char *)d->name;
    *ret_name_len = d->name_len;
    if (*ret_ino == 0 || *ret_ino > INO_MAX || memchr(d->name, 0, d->name_len) ||
        memchr(d->name, '/', d->name_len))
        return -AF_E_ITEM;
    return 0;
}

int dentry_find_tree(struct store *s, struct fault *f, uint64_t dir, const char *name, size_t len,
                     struct dentry *ret)
{
    struct key first = dentry_key(s, dir, name, len, 0);
    struct key last = key_make(dir, KIND_DENTRY, first.off + DENTRY_INDEX_MAX - 1);

    for (;;) {
        struct key key;
        const void *value;
        const char *found;
        size_t value_len, found_len;
        int err = tree_next(&s->tree, store_root(s, f), f, first, last, &key, &value, &value_len);

        if (err < 0)
            return err;
        err = dentry_decode(value, value_len, &ret->ino, &ret->type, &found, &found_len);
        if (err < 0) {
            store_note_item(s, err, dir);
            return err;
        }
        if (found_len == len && memcmp(found, name, len) == 0) {
            ret->index = (uint8_t)(key.off & (DENTRY_INDEX_MAX - 1));
            ret->cookie = key.off;
            ret->fresh = NULL;
            return 0;
        }
        if (key.off == last.off)
            return -ENOENT;
        first = key_make(dir, KIND_DENTRY, key.off + 1);
    }
}

static struct oinode *pend_find(struct store *s, uint64_t dir, const char *name, size_t len)
{
    struct pend_dir *d = pend_dir_find(s, dir);
    uint64_t hash;

    if (!d)
        return NULL;
    hash = name_hash(s, name, len);
    for (size_t i = pend_dir_position(d, hash);
         i < d->count && d->cookies[i] < hash + DENTRY_INDEX_MAX; i++) {
        const struct pending *p = d->entries[i]->p;

        if (strlen(p->name) == len && memcmp(p->name, name, len) == 0)
            return d->entries[i];
    }
    return NULL;
}

int dentry_find(struct store *s, struct fault *f, uint64_t dir, const char *name, size_t len,
                struct dentry *ret)
{
    struct oinode *oi = f->in_view ? NULL : pend_find(s, dir, name, len);

    if (!oi)
        return dentry_find_tree(s, f, dir, name, len, ret);
    *ret = (struct dentry){
        .ino = oi->ino,
        .type = DT_REG,
        .index = oi->p->index,
        .cookie = name_hash(s, name, len) + oi->p->index,
        .fresh = oi,
    };
    return 0;
}

int dentry_free_index(struct store *s, struct fault *f, uint64_t dir, const char *name, size_t len,
                      uint8_t *ret_index)
{
    bool taken[DENTRY_INDEX_MAX] = {false};
    struct key first = dentry_key(s, dir, name, len, 0);
    uint64_t hash = first.off;
    struct key last = key_make(dir, KIND_DENTRY, hash + DENTRY_INDEX_MAX - 1);
    struct pend_dir *d = pend_dir_find(s, dir);

    for (;;) {
        struct key key;
        const void *value;
        size_t value_len;
        int err = tree_next(&s->tree, store_root(s, f), f, first, last, &key, &value, &value_len);

        if (err == -ENOENT)
            break;
        if (err < 0)
            return err;
        taken[key.off - hash] = true;
        if (key.off == last.off)
            break;
        first.off = key.off + 1;
    }
    for (size_t i = d ? pend_dir_position(d, hash) : 0;
         d && i < d->count && d->cookies[i] <= last.off; i++)
        taken[d->cookies[i] - hash] = true;
    for (unsigned i = 0; i < DENTRY_INDEX_MAX; i++) {
        if (!taken[i]) {
            *ret_index = (uint8_t)i;
            return 0;
        }
    }
    return -ENOSPC;
}

void dentry_put(struct store *s, uint64_t dir, const char *name, size_t len, uint8_t index,
                uint64_t ino, uint8_t type)
{
    uint8_t bytes[sizeof(struct dentry_disk) + NAME_BYTES_MAX];
    struct dentry_disk *d = (struct dentry_disk *)bytes;

    AF_ASSERT(len >= 1 && len <= NAME_BYTES_MAX);
    d->ino = le64_put(ino);
    d->type = type;
    d->name_len = (uint8_t)len;
    memcpy(d->name, name, len);
    tree_put(&s->tree, dentry_key(s, dir, name, len, index), bytes, sizeof(*d) + len);
}

void dentry_delete(struct store *s, uint64_t dir, const char *name, size_t len, uint8_t index)
{
    tree_delete(&s->tree, dentry_key(s, dir, name, len, index));
}
