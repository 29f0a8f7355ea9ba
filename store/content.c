// SPDX-License-Identifier: MIT
// The content of files in the tree: extents, and inline content of small files. A content is known
// by its id, which an inode names; so a content can change hands whole (docs/FORMAT.md, kinds 3 and
// 4).

#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "store/store_internal.h"

int extent_decode(struct key key, const void *value, size_t len, struct extent *ret)
{
    struct extent_disk d;

    if (len < sizeof(d))
        return -AF_E_ITEM;
    memcpy(&d, value, sizeof(d));
    ret->block = key.off;
    ret->count = le32_get(d.count);
    ret->address = le64_get(d.address);
    ret->birth = le64_get(d.birth);
    ret->checksums = (const le64 *)((const uint8_t *)value + sizeof(d));
    if (ret->count == 0 || ret->count > EXTENT_BLOCKS_MAX ||
        len != sizeof(d) + 8 * (size_t)ret->count || le32_get(d.flags) != 0 || ret->address == 0 ||
        ret->address > UINT64_MAX / BLOCK_BYTES - ret->count ||
        ret->block > (uint64_t)FILE_BYTES_MAX / BLOCK_BYTES + 1 - ret->count)
        return -AF_E_ITEM;
    return 0;
}

int extent_at(struct store *s, struct fault *f, uint64_t content, uint64_t block, uint64_t last,
              struct extent *ret)
{
    struct key key;
    const void *value;
    size_t len;
    uint64_t lowest = block < EXTENT_BLOCKS_MAX ? 0 : block - EXTENT_BLOCKS_MAX + 1;
    int err = tree_prev(&s->tree, store_root(s, f), f, key_make(content, KIND_EXTENT, lowest),
                        key_make(content, KIND_EXTENT, block), &key, &value, &len);

    if (err == 0) {
        err = extent_decode(key, value, len, ret);
        if (err == 0 && ret->block + ret->count > block)
            return 0;
    }
    if (err == 0 || err == -ENOENT) {
        if (block >= last)
            return -ENOENT;
        err = tree_next(&s->tree, store_root(s, f), f, key_make(content, KIND_EXTENT, block + 1),
                        key_make(content, KIND_EXTENT, last), &key, &value, &len);
        if (err == 0)
            err = extent_decode(key, value, len, ret);
    }
    if (err == -AF_E_ITEM)
        store_note_item(s, err, content);
    return err;
}

int inline_get(struct store *s, struct fault *f, uint64_t content, const void **ret_bytes,
               size_t *ret_len)
{
    return tree_get(&s->tree, store_root(s, f), f, key_make(content, KIND_INLINE, 0), ret_bytes,
                    ret_len);
}

// Reads the whole range, from where an extent that reaches into it could begin, to its end: so the
// reads of content_clear() between its deletes find everything in memory (btree.h).
int content_touch(struct store *s, struct fault *f, uint64_t content, uint64_t first, uint64_t last,
                  size_t *items, size_t *bytes)
{
    struct key at = key_make(content, KIND_EXTENT,
                             first < EXTENT_BLOCKS_MAX ? 0 : first - EXTENT_BLOCKS_MAX + 1);
    const void *value;
    struct extent e;
    size_t len;
    int err;

    while ((err = tree_next(&s->tree, store_root(s, f), f, at, key_make(content, KIND_EXTENT, last),
                            &at, &value, &len)) == 0) {
        err = extent_decode(at, value, len, &e);
        if (err < 0) {
            store_note_item(s, err, content);
            return err;
        }
        if (e.block + e.count > first) {
            *items += 1;
            *bytes += len;
            err = tree_touch(&s->tree, f, at);
            if (err == 0 && e.block + e.count - 1 >
                                last) { // the rest behind the cut becomes an item of its own
                *items += 1;
                *bytes += len;
                err = tree_touch(&s->tree, f, key_make(content, KIND_EXTENT, last + 1));
            }
            if (err < 0)
                return err;
        }
        if (at.off == last)
            return 0;
        at.off++;
    }
    return err == -ENOENT ? 0 : err;
}

// Replaces or adds one extent item of at most EXTENT_BLOCKS_MAX blocks.
static void put_item(struct store *s, uint64_t content, uint64_t block, uint64_t address,
                     uint64_t birth, uint32_t count, const le64 *checksums)
{
    uint8_t bytes[sizeof(struct extent_disk) + 8 * EXTENT_BLOCKS_MAX];
    struct extent_disk d = {.address = le64_put(address),
                            .birth = le64_put(birth),
                            .count = le32_put(count),
                            .flags = le32_put(0)};

    memcpy(bytes, &d, sizeof(d));
    memcpy(bytes + sizeof(d), checksums, 8 * (size_t)count);
    tree_put(&s->tree, key_make(content, KIND_EXTENT, block), bytes, sizeof(d) + 8 * (size_t)count);
}

// The live tree lets go of data blocks: those that still wait in the cache for a checkpoint go, the
// addresses are freed, unless a snapshot still has them.
static void free_data(struct store *s, uint64_t birth, uint64_t address, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct block *b = cache_lookup(&s->cache, address + i);

        if (b)
            cache_drop(&s->cache, b);
    }
    if (!snapshot_keeps_data(s, birth, address, count))
        space_free(s->space, address, count);
}

uint64_t content_clear(struct store *s, uint64_t content, uint64_t first, uint64_t last)
{
    struct fault f;
    struct extent e;
    uint64_t freed = 0;
    int err;

    fault_begin(&f);
    for (uint64_t at = first; (err = extent_at(s, &f, content, at, last, &e)) == 0;) {
        le64 checksums[EXTENT_BLOCKS_MAX];
        uint64_t from = AF_MAX(e.block, first);
        uint64_t end = e.block + e.count - 1 > last ? last + 1 : e.block + e.count;
        uint32_t left = (uint32_t)(from - e.block);
        uint32_t right = (uint32_t)(e.block + e.count - end);

        memcpy(checksums, e.checksums, 8 * (size_t)e.count);
        if (left > 0)
            put_item(s, content, e.block, e.address, e.birth, left, checksums);
        else
            tree_delete(&s->tree, key_make(content, KIND_EXTENT, e.block));
        if (right > 0)
            put_item(s, content, end, e.address + (end - e.block), e.birth, right,
                     checksums + (end - e.block));
        free_data(s, e.birth, e.address + left, end - from);
        freed += end - from;
        if (end > last)
            break;
        at = end;
    }
    AF_ASSERT(err == 0 ||
              err == -ENOENT); // everything was read by content_touch() under this lock hold
    return freed;
}

void content_put_extent(struct store *s, uint64_t content, uint64_t block, uint64_t address,
                        uint64_t birth, uint64_t count, const uint64_t *checksums)
{
    le64 le[EXTENT_BLOCKS_MAX];

    for (uint64_t done = 0; done < count;) {
        uint32_t n = (uint32_t)AF_MIN(count - done, (uint64_t)EXTENT_BLOCKS_MAX);

        for (uint32_t i = 0; i < n; i++)
            le[i] = le64_put(checksums[done + i]);
        put_item(s, content, block + done, address + done, birth, n, le);
        done += n;
    }
}

int content_count(struct store *s, struct fault *f, uint64_t content, size_t max, size_t *ret_count)
{
    struct extent e;
    size_t count = 0;
    int err;

    for (uint64_t at = 0;
         (err = extent_at(s, f, content, at, NO_BLOCK - 1, &e)) == 0 && count < max;
         at = e.block + e.count)
        count++;
    if (err < 0 && err != -ENOENT)
        return err;
    *ret_count = count;
    return 0;
}
