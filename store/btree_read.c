// SPDX-License-Identifier: MIT
// Reads of the tree (btree.h): one descent with a path array, no recursion. References that come
// from disk are never trusted further than they were validated: a block in memory that is not what
// a reference says is an error or a miss, not an assertion.
#include <errno.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "store/btree.h"
#include "store/node.h"

static int tree_miss(struct fault *f, const struct blkref *ref, unsigned level)
{
    // Dirty and frozen blocks are in memory, and only they have no checksum yet.
    AF_ASSERT(ref->checksum != 0);
    if (f->bad_error != 0 && f->bad.address == ref->address && f->bad.checksum == ref->checksum &&
        f->bad.generation == ref->generation)
        return f->bad_error;
    f->kind = FAULT_NODE;
    f->ahead_count = 0;
    f->ref = *ref;
    f->level = level;
    return -AF_E_FAULT;
}

// The block at that address is another one than `ref` says.
static int tree_mismatch(struct tree *t, struct fault *f, struct block *b, const struct blkref *ref,
                         unsigned level)
{
    if (ref->checksum != 0 && b->pins == 0 && cache_state(t->cache, b) == BLOCK_CLEAN) {
        // A clean one can be read again; if the reference is wrong, that read tells how.
        cache_drop(t->cache, b);
        return tree_miss(f, ref, level);
    }
    if (b->kind != BLOCK_NODE)
        return -AF_E_BLOCK_MAGIC;
    if (b->generation != ref->generation)
        return -AF_E_BLOCK_GENERATION;
    return b->level != level ? -AF_E_NODE_LEVEL : -AF_E_BLOCK_CHECKSUM;
}

static int tree_fetch(struct tree *t, struct fault *f, const struct blkref *ref, unsigned level,
                      struct block **ret_block)
{
    struct block *b = cache_lookup(t->cache, ref->address);
    if (!b)
        return tree_miss(f, ref, level);
    if (!cache_block_is(b, ref, BLOCK_NODE, level))
        return tree_mismatch(t, f, b, ref, level);
    *ret_block = b;
    return 0;
}

// Follows slots from p->block[from], whose index is set, to the leaf: the child that holds `key`,
// or with `key` NULL the first (`last` false) or last one.
static int tree_follow(struct tree *t, struct fault *f, unsigned from, const struct key *key,
                       bool last, struct tree_path *p)
{
    for (unsigned level = from; level > 0; level--) {
        struct blkref ref = node_child(p->block[level]->bytes, p->index[level]);
        struct block *b;
        int r = tree_fetch(t, f, &ref, level - 1, &b);
        if (r < 0)
            return r;
        p->block[level - 1] = b;
        if (level == 1)
            break;
        unsigned count = node_count(b->bytes);
        p->index[level - 1] = key ? node_search_child(b->bytes, key) : last ? count - 1 : 0;
    }
    return 0;
}

static int tree_descend(struct tree *t, const struct tree_root *root, struct fault *f,
                        const struct key *key, struct tree_path *p)
{
    if (root->level > NODE_LEVEL_MAX)
        return -AF_E_NODE_LEVEL;
    int r = tree_fetch(t, f, &root->ref, root->level, &p->block[root->level]);
    if (r < 0)
        return r;
    if (root->level == 0)
        return 0;
    p->index[root->level] = node_search_child(p->block[root->level]->bytes, key);
    return tree_follow(t, f, root->level, key, false, p);
}

int tree_get(struct tree *t, const struct tree_root *root, struct fault *f, struct key key,
             const void **ret_value, size_t *ret_len)
{
    struct tree_path p;
    int r = tree_descend(t, root, f, &key, &p);
    if (r < 0)
        return r;
    bool found;
    unsigned index = node_search(p.block[0]->bytes, &key, &found);
    if (!found)
        return -ENOENT;
    *ret_value = node_value(p.block[0]->bytes, index, ret_len);
    return 0;
}

// Notes the leaves behind the missing one that still lie in the range of the walk.
static void note_ahead(struct tree *t, struct fault *f, const struct tree_path *p,
                       const struct key *last)
{
    const uint8_t *parent = p->block[1]->bytes;

    f->ahead_count = 0;
    for (unsigned i = p->index[1] + 1; i < node_count(parent) && f->ahead_count < FAULT_AHEAD_MAX;
         i++) {
        struct key bound = node_key(parent, i);
        struct blkref ref = node_child(parent, i);

        if (key_compare(&bound, last) > 0)
            return;
        if (ref.checksum != 0 && !cache_lookup(t->cache, ref.address))
            f->ahead[f->ahead_count++] = ref;
    }
}

int tree_next(struct tree *t, const struct tree_root *root, struct fault *f, struct key first,
              struct key last, struct key *ret_key, const void **ret_value, size_t *ret_len)
{
    struct tree_path p;
    bool found;
    int r = tree_descend(t, root, f, &first, &p);
    if (r < 0)
        return r;
    unsigned index = node_search(p.block[0]->bytes, &first, &found);
    while (index >= node_count(p.block[0]->bytes)) {
        unsigned level = 1;
        while (level <= root->level && p.index[level] + 1 >= node_count(p.block[level]->bytes))
            level++;
        if (level > root->level)
            return -ENOENT;
        p.index[level]++;
        // A slot's key is a lower bound, so that a range's end needs no read of the leaf behind it.
        struct key bound = node_key(p.block[level]->bytes, p.index[level]);
        if (key_compare(&bound, &last) > 0)
            return -ENOENT;
        r = tree_follow(t, f, level, NULL, false, &p);
        if (r == -AF_E_FAULT && f->kind == FAULT_NODE && f->level == 0)
            note_ahead(t, f, &p, &last);
        if (r < 0)
            return r;
        index = 0;
    }
    struct key key = node_key(p.block[0]->bytes, index);
    if (key_compare(&key, &last) > 0)
        return -ENOENT;
    *ret_key = key;
    *ret_value = node_value(p.block[0]->bytes, index, ret_len);
    return 0;
}

int tree_prev(struct tree *t, const struct tree_root *root, struct fault *f, struct key first,
              struct key last, struct key *ret_key, const void **ret_value, size_t *ret_len)
{
    struct tree_path p;
    bool found;
    int r = tree_descend(t, root, f, &last, &p);
    if (r < 0)
        return r;
    // One past the item looked for; 0: it is not in this leaf.
    unsigned end = node_search(p.block[0]->bytes, &last, &found) + (found ? 1 : 0);
    while (end == 0) {
        unsigned level = 1;
        while (level <= root->level && p.index[level] == 0)
            level++;
        if (level > root->level)
            return -ENOENT;
        // All that lies to the left is below this slot's key.
        struct key bound = node_key(p.block[level]->bytes, p.index[level]);
        if (key_compare(&bound, &first) <= 0)
            return -ENOENT;
        p.index[level]--;
        r = tree_follow(t, f, level, NULL, true, &p);
        if (r < 0)
            return r;
        end = node_count(p.block[0]->bytes);
    }
    struct key key = node_key(p.block[0]->bytes, end - 1);
    if (key_compare(&key, &first) < 0)
        return -ENOENT;
    *ret_key = key;
    *ret_value = node_value(p.block[0]->bytes, end - 1, ret_len);
    return 0;
}

// Narrows the range of `w` to that of child `i` of `node`.
static void way_narrow(struct tree_way *w, const uint8_t *node, unsigned i)
{
    if (i > 0)
        w->low = node_key(node, i);
    if (i + 1 < node_count(node)) {
        w->next = node_key(node, i + 1);
        w->last = false;
    }
    w->next_at[w->level - 1] = w->next;
    w->last_at[w->level - 1] = w->last;
}

int tree_way(struct tree *t, const struct tree_root *root, struct fault *f, struct key key,
             struct tree_way *ret, struct block **ret_leaf)
{
    *ret = (struct tree_way){.level = root->level, .root_level = root->level, .last = true};
    *ret_leaf = NULL;
    if (root->level > NODE_LEVEL_MAX)
        return -AF_E_NODE_LEVEL;
    ret->last_at[root->level] = true;
    ret->ref[root->level] = root->ref;
    while (ret->level > 0) {
        struct block *b;
        int r = tree_fetch(t, f, &ret->ref[ret->level], ret->level, &b);
        if (r < 0)
            return r;
        unsigned i = node_search_child(b->bytes, &key);
        way_narrow(ret, b->bytes, i);
        ret->level--;
        ret->ref[ret->level] = node_child(b->bytes, i);
    }
    struct block *b = cache_lookup(t->cache, ret->ref[0].address);
    if (b && cache_block_is(b, &ret->ref[0], BLOCK_NODE, 0))
        *ret_leaf = b;
    // Dirty and frozen blocks are in memory, and only they have no checksum yet.
    AF_ASSERT(*ret_leaf || ret->ref[0].checksum != 0);
    return 0;
}

void tree_touch_begin(struct tree *t)
{
    t->touch_round++;
    t->touched = 0;
}

int tree_touch(struct tree *t, struct fault *f, struct key key)
{
    struct tree_path p;
    // The first touch after changes begins the next operation.
    tree_sweep(t);
    int r = tree_descend(t, &t->root, f, &key, &p);
    if (r < 0)
        return r;
    for (unsigned level = 0; level <= t->root.level; level++) {
        struct block *b = p.block[level];
        // Blocks begin with 0, so the round is one more than the count of changes.
        if (b->touch == t->touch_round + 1)
            continue;
        b->touch = t->touch_round + 1;
        // One birth when it splits, one when it must be copied first.
        t->touched += b->generation == t->generation ? 1 : 2;
    }
    return 0;
}

// ---- tree_check ----

struct check_frame {
    const struct block *block;
    unsigned next; // slot to visit
    struct key low, high;
    bool has_low, has_high; // the range is [low, high)
};

static int check_node(struct tree *t, const struct check_frame *at, unsigned level, bool is_root)
{
    const struct block *b = at->block;
    const struct block_header_disk *h = (const struct block_header_disk *)b->bytes;
    unsigned count = node_count(b->bytes);
    if (le64_get(h->address) != b->address)
        return -AF_E_BLOCK_ADDRESS;
    if (le64_get(h->generation) != b->generation || b->generation > t->generation)
        return -AF_E_BLOCK_GENERATION;
    if (h->level != level)
        return -AF_E_NODE_LEVEL;
    if (count == 0 && !(level == 0 && (is_root || b->emptied)))
        return -AF_E_NODE_LAYOUT;
    if (node_used(b->bytes) > NODE_ROOM ||
        le32_get(h->heap_start) < sizeof(*h) + count * sizeof(struct slot_disk))
        return -AF_E_NODE_LAYOUT;
    for (unsigned i = 0; i < count; i++) {
        struct key key = node_key(b->bytes, i);
        struct key before = node_key(b->bytes, i > 0 ? i - 1 : 0);
        if (i > 0 && key_compare(&before, &key) >= 0)
            return -AF_E_NODE_ORDER;
        if ((at->has_low && key_compare(&key, &at->low) < 0) ||
            (at->has_high && key_compare(&key, &at->high) >= 0))
            return -AF_E_NODE_ORDER;
        if (level > 0 && node_child(b->bytes, i).generation > b->generation)
            return -AF_E_BLOCK_GENERATION;
    }
    return 0;
}

// The block that `ref` means goes into `at`: NULL when it is not in memory and need not be.
static int check_find(struct tree *t, const struct blkref *ref, unsigned level,
                      struct check_frame *at)
{
    at->next = 0;
    at->block = cache_lookup(t->cache, ref->address);
    if (!at->block)
        return ref->checksum == 0 ? -AF_E_FAULT : 0;
    if (!cache_block_is(at->block, ref, BLOCK_NODE, level))
        return -AF_E_BLOCK_GENERATION;
    return at->block->checksum == ref->checksum ? 0 : -AF_E_BLOCK_CHECKSUM;
}

// The frame of the child in slot `i` of `up`, without its block.
static struct check_frame check_range(const struct check_frame *up, unsigned i)
{
    struct check_frame at = {
        .has_low = up->has_low, .low = up->low, .has_high = up->has_high, .high = up->high};
    if (i > 0) {
        at.has_low = true;
        at.low = node_key(up->block->bytes, i);
    }
    if (i + 1 < node_count(up->block->bytes)) {
        at.has_high = true;
        at.high = node_key(up->block->bytes, i + 1);
    }
    return at;
}

int tree_check(struct tree *t, const struct tree_root *root, uint64_t *ret_items)
{
    struct check_frame stack[NODE_LEVEL_MAX + 2] = {0};
    unsigned level = root->level;
    uint64_t items = 0;
    int r = check_find(t, &root->ref, level, &stack[level]);
    if (r == 0 && stack[level].block)
        r = check_node(t, &stack[level], level, true);
    while (r == 0 && level <= root->level && stack[root->level].block) {
        struct check_frame *at = &stack[level];
        unsigned i = at->next++;
        if (level == 0 || i >= node_count(at->block->bytes)) {
            items += level == 0 ? node_count(at->block->bytes) : 0;
            level++;
            continue;
        }
        struct blkref ref = node_child(at->block->bytes, i);
        stack[level - 1] = check_range(at, i);
        r = check_find(t, &ref, level - 1, &stack[level - 1]);
        if (r == 0 && stack[level - 1].block) {
            level--;
            r = check_node(t, &stack[level], level, false);
        }
    }
    if (r == 0)
        *ret_items = items;
    return r;
}
