// SPDX-License-Identifier: MIT
// Finding nodes without a way to them (node_search.h).

#include "checkpoint/node_search.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "store/node.h"
#include "store/store_format.h"

#define READ_BLOCKS  256u
#define CHILDREN_MAX (NODE_ROOM / NODE_ITEM_BYTES(sizeof(struct blkref_disk)))
#define ROOT_TRIES   4096u // candidates that are looked at

static int compare(const void *x, const void *y)
{
    const struct node_found *a = x, *b = y;
    int order = key_compare(&a->first, &b->first);

    if (a->level != b->level)
        return a->level < b->level ? -1 : 1;
    if (order != 0)
        return order;
    return a->ref.generation > b->ref.generation ? -1 : a->ref.generation < b->ref.generation;
}

static int look_at(struct node_search *ns, const uint8_t *bytes, uint64_t address,
                   const uint8_t uuid[16])
{
    struct block_header_disk h;
    struct node_found n = {.ref.address = address};

    memcpy(&h, bytes, sizeof(h));
    if (le32_get(h.magic) != BLOCK_MAGIC || h.type != BLOCK_TYPE_NODE)
        return 0;
    n.level = h.level;
    n.ref.generation = le64_get(h.generation);
    n.ref.checksum = checksum(CSUM_NODE, 0, bytes, BLOCK_BYTES);
    if (node_validate(bytes, &n.ref, n.level, uuid) < 0 || node_count(bytes) == 0)
        return 0;
    n.first = node_key(bytes, 0);
    n.last = node_key(bytes, node_count(bytes) - 1);
    if (ns->count == ns->cap) {
        size_t cap = ns->cap ? ns->cap + ns->cap / 2 : 1024;
        struct node_found *list = realloc(ns->list, cap * sizeof(list[0]));

        if (!list)
            return -ENOMEM;
        ns->list = list;
        ns->cap = cap;
    }
    ns->list[ns->count++] = n;
    return 0;
}

static int search_run(struct node_search *ns, struct io_file *data, uint8_t *bytes, uint64_t first,
                      uint64_t count, const uint8_t uuid[16])
{
    int whole = io_pread(data, bytes, (size_t)count * BLOCK_BYTES, first * BLOCK_BYTES);
    int err = 0;

    for (uint64_t i = 0; i < count && err == 0; i++) {
        uint8_t *at = bytes + i * BLOCK_BYTES;

        if (whole == 0 || io_pread(data, at, BLOCK_BYTES, (first + i) * BLOCK_BYTES) == 0)
            err = look_at(ns, at, first + i, uuid);
    }
    return err;
}

int node_search_run(struct node_search *ns, struct io_file *data, const uint8_t uuid[16],
                    void (*progress)(void *arg, uint64_t done, uint64_t total), void *arg)
{
    uint8_t *bytes = aligned_alloc(BLOCK_BYTES, (size_t)READ_BLOCKS * BLOCK_BYTES);
    uint64_t size, blocks;
    int err = bytes ? io_size(data, &size) : -ENOMEM;

    *ns = (struct node_search){0};
    blocks = err == 0 ? size / BLOCK_BYTES : 0;
    for (uint64_t at = 0; at < blocks && err == 0; at += READ_BLOCKS) {
        err = search_run(ns, data, bytes, at, AF_MIN(blocks - at, (uint64_t)READ_BLOCKS), uuid);
        if (progress)
            progress(arg, at, blocks);
    }
    if (err == 0 && ns->count > 0)
        qsort(ns->list, ns->count, sizeof(ns->list[0]), compare);
    free(bytes);
    return err;
}

void node_search_free(struct node_search *ns)
{
    free(ns->list);
    *ns = (struct node_search){0};
}

// ---- children of a node that is lost ----

static bool fits(const struct node_found *n, const struct tree_way *way)
{
    return n->level + 1 == way->level && n->ref.generation <= way->ref[way->level].generation &&
           key_compare(&n->first, &way->low) >= 0 &&
           (way->last || key_compare(&n->last, &way->next) < 0);
}

static bool overlaps(const struct node_found *a, const struct node_found *b)
{
    return key_compare(&a->first, &b->last) <= 0 && key_compare(&b->first, &a->last) <= 0;
}

// Takes `n` into the chosen ones, which are in the order of their keys; an older one makes room for
// a newer.
static void choose(const struct node_found **chosen, unsigned *count, const struct node_found *n)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < *count; i++)
        if (overlaps(chosen[i], n) && chosen[i]->ref.generation >= n->ref.generation)
            return;
    for (unsigned i = 0; i < *count; i++)
        if (!overlaps(chosen[i], n))
            chosen[kept++] = chosen[i];
    if (kept == CHILDREN_MAX)
        return;
    unsigned at = kept;
    while (at > 0 && key_compare(&chosen[at - 1]->first, &n->first) > 0) {
        chosen[at] = chosen[at - 1];
        at--;
    }
    chosen[at] = n;
    *count = kept + 1;
}

unsigned node_search_children(const struct node_search *ns, const struct tree_way *way,
                              const uint8_t uuid[16], bool (*in_use)(void *arg, uint64_t address),
                              void *arg, uint8_t *bytes)
{
    const struct blkref *ref = &way->ref[way->level];
    const struct node_found *chosen[CHILDREN_MAX + 1];
    unsigned count = 0;

    if (way->level == 0)
        return 0;
    for (size_t i = 0; i < ns->count; i++)
        if (fits(&ns->list[i], way) && (!in_use || in_use(arg, ns->list[i].ref.address)))
            choose(chosen, &count, &ns->list[i]);
    if (count == 0)
        return 0;
    node_init(bytes, uuid, ref->address, ref->generation, way->level);
    for (unsigned i = 0; i < count; i++)
        node_insert_child(bytes, i, i == 0 ? &way->low : &chosen[i]->first, &chosen[i]->ref);
    return count;
}

// ---- a root ----

// Its leftmost path can be read, and ends in the leaf that has the root directory.
static bool is_root(const struct node_found *n, struct io_file *data, const uint8_t uuid[16])
{
    struct blkref ref = n->ref;
    uint8_t *bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
    bool right = bytes != NULL;

    for (unsigned level = n->level; right; level--) {
        right = io_pread(data, bytes, BLOCK_BYTES, ref.address * BLOCK_BYTES) == 0 &&
                node_validate(bytes, &ref, level, uuid) == 0;
        if (!right || level == 0)
            break;
        ref = node_child(bytes, 0);
    }
    if (right) {
        bool found = false;
        struct key key = key_make(INO_ROOT, KIND_INODE, 0);

        (void)node_search(bytes, &key, &found);
        // What is below number 1, the orphans, may fill the first leaf.
        right = found || node_key(bytes, 0).ino < INO_ROOT;
    }
    free(bytes);
    return right;
}

// Of a checkpoint the root is the node with the highest level, and every checkpoint has a new one.
bool node_search_root(const struct node_search *ns, struct io_file *data, const uint8_t uuid[16],
                      uint64_t above, struct tree_root *ret_root)
{
    uint64_t below = UINT64_MAX;

    for (unsigned tries = 0; tries < ROOT_TRIES; tries++) {
        const struct node_found *best = NULL;

        for (size_t i = 0; i < ns->count; i++) {
            const struct node_found *n = &ns->list[i];

            if (n->ref.generation >= below || n->ref.generation <= above)
                continue;
            if (!best || n->ref.generation > best->ref.generation ||
                (n->ref.generation == best->ref.generation && n->level > best->level))
                best = n;
        }
        if (!best)
            return false;
        if (is_root(best, data, uuid)) {
            *ret_root = (struct tree_root){.ref = best->ref, .level = best->level};
            return true;
        }
        below = best->ref.generation;
    }
    return false;
}
