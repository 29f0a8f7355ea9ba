// SPDX-License-Identifier: MIT
// The tree's part of a checkpoint (btree.h): freeze, write what is frozen, thaw.
//
// Frozen nodes are immutable but for the checksums of their children, which only this file sets, in
// the checkpoint's thread, under the lock. So that thread reads frozen bytes and the frozen list
// without the lock; live readers, who hold it, never see a half-set checksum. What goes to disk is
// a private copy with zeroed gaps; the copy and the block in memory are the same node.
//
// Who is whose parent is not stored: a node's parent in a tree is found by descending to the level
// above by a key of the node (S3). In the frozen tree it must be there. In the live tree it is
// there as long as that tree has the same node; then the live parent is the frozen one itself or a
// dirty copy of it, because a clean parent would have only clean children.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/io.h"
#include "base/lock.h"
#include "store/btree.h"
#include "store/node.h"

#define BATCH_BLOCKS 256u // of one write, and of private copies in memory: 1 MiB
#define PATCH_NODES  64u  // patched in one hold of the lock

void tree_freeze(struct tree *t)
{
    AF_ASSERT(!t->frozen && !t->emptied);
    t->frozen = true;
    t->frozen_root = t->root;
    t->generation++;
    // Nodes counted as of the current generation must be copied from now on.
    t->touch_round++;
    t->touched = 0;
    cache_freeze(t->cache);
}

bool tree_thaw(struct tree *t, size_t limit)
{
    AF_ASSERT(t->frozen && t->frozen_root.ref.checksum != 0);
    if (!cache_thaw(t->cache, limit))
        return false;
    t->frozen = false;
    return true;
}

struct frozen_item {
    uint64_t class; // 0 data, else 1 + level
    uint64_t address;
    struct block *block;
};

// The state of one tree_write_frozen().
struct frozen_write {
    struct tree *tree;
    struct af_mutex *lock;
    struct io_file *data;
    void (*each)(void *arg, uint64_t address, uint64_t count);
    void *arg;
    struct frozen_item *items;
    size_t count;
    uint8_t *copies; // BATCH_BLOCKS blocks
    uint64_t sums[BATCH_BLOCKS];
    struct tree_write_stats stats;
};

static int frozen_compare(const void *a, const void *b)
{
    const struct frozen_item *x = a, *y = b;
    if (x->class != y->class)
        return x->class < y->class ? -1 : 1;
    return x->address < y->address ? -1 : x->address > y->address;
}

// Lists the frozen blocks in the order in which they are written.
static int frozen_collect(struct frozen_write *w)
{
    const struct list *frozen = &w->tree->cache->frozen;
    size_t count = 0;
    for (const struct list *pos = frozen->next; pos != frozen; pos = pos->next)
        count++;
    w->items = malloc((count + 1) * sizeof(struct frozen_item));
    if (!w->items)
        return -ENOMEM;
    for (struct list *pos = frozen->next; pos != frozen; pos = pos->next) {
        struct block *b = list_entry(pos, struct block, link);
        w->items[w->count++] = (struct frozen_item){
            .class = b->kind == BLOCK_DATA ? 0 : 1u + b->level, .address = b->address, .block = b};
    }
    qsort(w->items, count, sizeof(struct frozen_item), frozen_compare);
    return 0;
}

// Copies and checksums of a batch. All children of these nodes were written before.
static void frozen_copy(struct frozen_write *w, const struct frozen_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct block *b = items[i].block;
        uint8_t *copy = w->copies + i * BLOCK_BYTES;
        if (b->kind == BLOCK_DATA) {
            w->sums[i] = checksum(CSUM_DATA, 0, b->bytes, BLOCK_BYTES);
            continue;
        }
        AF_ASSERT(node_count(b->bytes) > 0 || b->address == w->tree->frozen_root.ref.address);
        for (unsigned slot = 0; b->level > 0 && slot < node_count(b->bytes); slot++)
            AF_ASSERT(node_child(b->bytes, slot).checksum != 0); // S3
        node_copy_clean(copy, b->bytes);
        w->sums[i] = checksum(CSUM_NODE, 0, copy, BLOCK_BYTES);
    }
}

// Writes a batch, each run of neighbouring addresses in one call, or each block.
static int frozen_put(struct frozen_write *w, const struct frozen_item *items, size_t count)
{
    struct iovec iov[BATCH_BLOCKS];
    for (size_t i = 0; i < count;) {
        size_t run = 0;
        do {
            const struct block *b = items[i + run].block;
            void *bytes = b->kind == BLOCK_DATA ? b->bytes : w->copies + (i + run) * BLOCK_BYTES;
            iov[run++] = (struct iovec){.iov_base = bytes, .iov_len = BLOCK_BYTES};
        } while (!w->tree->single_writes && i + run < count &&
                 items[i + run].address == items[i].address + run);
        uint64_t address = items[i].address;
        int r = io_pwritev(w->data, iov, (int)run, address * BLOCK_BYTES);
        if (r < 0)
            return r;
        w->stats.writes++;
        if (items[i].class == 0) {
            w->stats.data_blocks += run;
        } else {
            w->stats.nodes += run;
            w->each(w->arg, address, run);
        }
        i += run;
    }
    return 0;
}

// The node of `level` + 1 in whose range `key` lies, and the slot there; NULL when the tree is
// lower or the way there is not in memory.
static struct block *tree_parent(struct tree *t, const struct tree_root *root, unsigned level,
                                 const struct key *key, unsigned *ret_index)
{
    struct blkref ref = root->ref;
    for (unsigned at = root->level; at > level; at--) {
        struct block *b = cache_lookup(t->cache, ref.address);
        if (!b || !cache_block_is(b, &ref, BLOCK_NODE, at))
            return NULL;
        *ret_index = node_search_child(b->bytes, key);
        if (at == level + 1)
            return b;
        ref = node_child(b->bytes, *ret_index);
    }
    return NULL;
}

// Sets the checksum of a node that was written, wherever the two trees refer to it. Lock held.
static void tree_patch(struct tree *t, struct block *b, uint64_t sum)
{
    b->checksum = sum;
    if (t->root.ref.address == b->address)
        t->root.ref.checksum = sum;
    if (t->frozen_root.ref.address == b->address) {
        t->frozen_root.ref.checksum = sum;
        if (t->root.ref.address == b->address)
            return;
    }
    // Only a tree without items has a node without a key, and that is its root.
    if (node_count(b->bytes) == 0)
        return;
    struct key key = node_key(b->bytes, 0);
    unsigned index = 0;
    struct block *frozen = tree_parent(t, &t->frozen_root, b->level, &key, &index);
    if (t->frozen_root.ref.address != b->address) {
        AF_ASSERT(frozen && node_child(frozen->bytes, index).address == b->address);
        node_set_child_checksum(frozen->bytes, index, sum);
    }
    struct block *live = tree_parent(t, &t->root, b->level, &key, &index);
    if (!live || live == frozen || node_child(live->bytes, index).address != b->address)
        return;
    AF_ASSERT(cache_state(t->cache, live) == BLOCK_DIRTY);
    node_set_child_checksum(live->bytes, index, sum);
}

static void frozen_patch(struct frozen_write *w, const struct frozen_item *items, size_t count)
{
    for (size_t i = 0; i < count;) {
        size_t end = AF_MIN(count, i + PATCH_NODES);
        af_lock(w->lock);
        for (; i < end; i++) {
            if (items[i].class > 0)
                tree_patch(w->tree, items[i].block, w->sums[i]);
            else
                items[i].block->checksum = w->sums[i];
        }
        af_unlock(w->lock);
    }
}

static int frozen_write_all(struct frozen_write *w)
{
    for (size_t i = 0; i < w->count;) {
        size_t count = 1;
        while (count < BATCH_BLOCKS && i + count < w->count &&
               w->items[i + count].class == w->items[i].class)
            count++;
        frozen_copy(w, w->items + i, count);
        int r = frozen_put(w, w->items + i, count);
        if (r < 0)
            return r;
        frozen_patch(w, w->items + i, count);
        i += count;
    }
    return 0;
}

int tree_write_frozen(struct tree *t, struct af_mutex *lock, struct io_file *data,
                      void (*each)(void *arg, uint64_t address, uint64_t count), void *arg,
                      struct tree_write_stats *ret_stats)
{
    AF_ASSERT(t->frozen);
    struct frozen_write *w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    w->tree = t;
    w->lock = lock;
    w->data = data;
    w->each = each;
    w->arg = arg;
    w->copies = aligned_alloc(BLOCK_BYTES, (size_t)BATCH_BLOCKS * BLOCK_BYTES);
    int r = w->copies ? frozen_collect(w) : -ENOMEM;
    if (r == 0)
        r = frozen_write_all(w);
    if (r == 0) {
        AF_ASSERT(t->frozen_root.ref.checksum != 0);
        *ret_stats = w->stats;
    }
    free(w->items);
    free(w->copies);
    free(w);
    return r;
}
