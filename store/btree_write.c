// SPDX-License-Identifier: MIT
// Changes of the tree (btree.h): copy the path, change the leaf, then split or merge upwards.
//
// A node born in the current generation is changed in place; an older one is copied first (S1).
// Everything needed was prepared, so nothing here fails.
//
// A leaf that a delete empties stays where it is until the operation is over (tree_sweep()). Were
// it taken out at once, its range would fall to a neighbour, which may not be in memory; and the
// operation may still have keys to put there, which it touched and which cannot fail any more.
//
// Keys of inner nodes: slot i > 0 bounds its child from below. Slot 0 bounds nothing, but its key
// always lies in the node's own range: a descent by it (freeze.c finds the parent of a node that
// way) ends in the node. Two places see to that: tree_bound_first() and the inner case of merges.
#include <string.h>

#include "base/check.h"
#include "store/btree.h"
#include "store/node.h"
#include "store/space.h"

// Merge when below a quarter, into at most four fifths, so that merges and splits do not alternate.
#define NODE_THIN           (NODE_ROOM / 4)
#define NODE_MERGED_MAX     (NODE_ROOM * 4 / 5)
// Both halves of a split by bytes have at least so much room (the split point is at most half an
// item off the middle), so that a node born by one splits again only after so many bytes were put.
#define SPLIT_ROOM_BYTES    (NODE_ROOM - (NODE_ROOM + 2 * NODE_ITEM_BYTES(ITEM_BYTES_MAX)) / 2)
// Likewise in inner nodes: slots of 48 bytes, 84 of them fit.
#define SPLIT_ROOM_CHILDREN 40u

// One item on its way into a node.
struct tree_item {
    struct key key;
    const void *value;
    size_t len;
};

static struct blkref block_ref(const struct block *b)
{
    return (struct blkref){
        .address = b->address, .checksum = b->checksum, .generation = b->generation};
}

// A new node with undefined bytes.
static struct block *tree_new_block(struct tree *t, uint64_t near, unsigned level)
{
    uint64_t count = 0;
    uint64_t hint = t->alloc_hint != 0 ? t->alloc_hint : near;
    uint64_t address = space_alloc(t->space, 1, hint, &count);
    AF_ASSERT(count == 1);
    t->alloc_hint = address + 1;
    return cache_new(t->cache, address, t->generation, BLOCK_NODE, level);
}

static struct block *tree_new_node(struct tree *t, uint64_t near, unsigned level)
{
    struct block *b = tree_new_block(t, near, level);
    node_init(b->bytes, t->uuid, b->address, b->generation, level);
    return b;
}

// The live tree lets go of a node. One that no disk and no log has ever named is free at once.
static void tree_drop(struct tree *t, struct block *b)
{
    uint64_t address = b->address, generation = b->generation;
    bool own = generation == t->generation;
    cache_drop(t->cache, b);
    if (own)
        space_release(t->space, address, 1);
    else if (!t->keeps || !t->keeps(t->keeps_arg, generation, address))
        space_free(t->space, address, 1);
}

static struct block *tree_copy(struct tree *t, struct block *old)
{
    AF_ASSERT(old->generation < t->generation);
    struct block *b = tree_new_block(t, old->address, old->level);
    memcpy(b->bytes, old->bytes, BLOCK_BYTES);
    node_set_identity(b->bytes, b->address, b->generation);
    tree_drop(t, old);
    return b;
}

// The path to `key`, all of it of the current generation.
static void tree_own_path(struct tree *t, const struct key *key, struct tree_path *p)
{
    struct blkref ref = t->root.ref;
    for (unsigned level = t->root.level;; level--) {
        struct block *b = cache_lookup(t->cache, ref.address);
        AF_ASSERT(b && cache_block_is(b, &ref, BLOCK_NODE, level));
        if (b->generation != t->generation) {
            b = tree_copy(t, b);
            ref = block_ref(b);
            if (level == t->root.level)
                t->root.ref = ref;
            else
                node_set_child(p->block[level + 1]->bytes, p->index[level + 1], &ref);
        }
        AF_ASSERT(cache_state(t->cache, b) == BLOCK_DIRTY);
        p->block[level] = b;
        if (level == 0)
            break;
        p->index[level] = node_search_child(b->bytes, key);
        ref = node_child(b->bytes, p->index[level]);
    }
    t->touch_round++;
    t->touched = 0;
}

// The lowest key that can follow `last`, where that is easily said; else `next`, which does.
static struct key key_after(struct key last, const struct key *next)
{
    if (last.off == UINT64_MAX)
        return *next;
    last.off++;
    return last;
}

// True when `key` goes to the end of the items of one content, directory or inode in a leaf that
// they fill for the greater part: more of them are likely to come, so that no room should be left
// before.
static bool tree_ends_run(const struct block *leaf, unsigned index, const struct key *key)
{
    if (leaf->level > 0 || index == 0)
        return false;
    struct key before = node_key(leaf->bytes, index - 1), after = node_key(leaf->bytes, index);
    return before.ino == key->ino && before.kind == key->kind &&
           (after.ino != key->ino || after.kind != key->kind) &&
           node_used_by(leaf->bytes, index) >= NODE_ROOM / 2;
}

// Puts `item` at `index` of a node that cannot take it, with half of the node or what is behind
// the item in a new one. Returns the new node, right of the old one, and the key between them.
static struct block *tree_split(struct tree *t, struct block *left, unsigned index,
                                const struct tree_item *item, struct key *ret_bound)
{
    struct block *right = tree_new_node(t, left->address, left->level);
    unsigned count = node_count(left->bytes);
    if (index < count && !tree_ends_run(left, index, &item->key)) {
        bool to_right = node_split(left->bytes, right->bytes, index, item->len, &index);
        node_insert((to_right ? right : left)->bytes, index, &item->key, item->value, item->len);
        *ret_bound = node_key(right->bytes, 0);
        return right;
    }
    // Rising keys, as a growing file makes them, leave full nodes behind. Of leaves the new node
    // takes the whole range behind what stays in the old one: else each of a falling series of keys
    // in between would get a node of its own.
    node_move_tail(left->bytes, right->bytes, index);
    node_insert(right->bytes, 0, &item->key, item->value, item->len);
    *ret_bound = item->key;
    if (left->level == 0)
        *ret_bound = key_after(node_key(left->bytes, index - 1), &item->key);
    return right;
}

static void tree_grow_root(struct tree *t, const struct block *left, const struct block *right,
                           const struct key *bound)
{
    AF_ASSERT(t->root.level < NODE_LEVEL_MAX);
    struct block *root = tree_new_node(t, left->address, t->root.level + 1);
    struct blkref left_ref = block_ref(left), right_ref = block_ref(right);
    struct key first = node_key(left->bytes, 0);
    node_insert_child(root->bytes, 0, &first, &left_ref);
    node_insert_child(root->bytes, 1, bound, &right_ref);
    t->root.ref = block_ref(root);
    t->root.level++;
}

// A slot with key `bound` is to follow slot 0, whose own key may be anything in the node's range,
// even above `bound`: then it becomes that of its child, which is below.
static void tree_bound_first(struct block *parent, const struct block *child,
                             const struct key *bound)
{
    struct key first = node_key(parent->bytes, 0);
    if (key_compare(&first, bound) < 0)
        return;
    first = node_key(child->bytes, 0);
    node_set_key(parent->bytes, 0, &first);
}

static void tree_insert(struct tree *t, const struct tree_path *p, unsigned index,
                        struct tree_item item)
{
    struct blkref_disk child;
    for (unsigned level = 0;; level++) {
        struct block *b = p->block[level];
        if (node_fits(b->bytes, item.len)) {
            node_insert(b->bytes, index, &item.key, item.value, item.len);
            return;
        }
        struct key bound;
        struct block *right = tree_split(t, b, index, &item, &bound);
        if (level == t->root.level) {
            tree_grow_root(t, b, right, &bound);
            return;
        }
        if (p->index[level + 1] == 0)
            tree_bound_first(p->block[level + 1], b, &bound);
        child = (struct blkref_disk){.address = le64_put(right->address),
                                     .generation = le64_put(right->generation)};
        item = (struct tree_item){.key = bound, .value = &child, .len = sizeof(child)};
        index = p->index[level + 1] + 1;
    }
}

void tree_put(struct tree *t, struct key key, const void *value, size_t len)
{
    AF_ASSERT(len <= ITEM_BYTES_MAX);
    struct tree_path p;
    bool found;
    tree_own_path(t, &key, &p);
    uint8_t *leaf = p.block[0]->bytes;
    unsigned index = node_search(leaf, &key, &found);
    if (found && node_fits_replaced(leaf, index, len)) {
        node_replace(leaf, index, value, len);
        return;
    }
    if (found)
        node_delete(leaf, index);
    tree_insert(t, &p, index, (struct tree_item){.key = key, .value = value, .len = len});
}

// The child in slot `index` of `parent` if it can be merged: it is in memory (it may never have
// been read), and not on the list of tree_sweep().
static struct block *tree_peek(struct tree *t, const struct block *parent, unsigned index)
{
    struct blkref ref = node_child(parent->bytes, index);
    struct block *b = cache_lookup(t->cache, ref.address);
    bool is = b && cache_block_is(b, &ref, BLOCK_NODE, parent->level - 1u);
    return is && !b->emptied ? b : NULL;
}

// All items of the right neighbour move into the node in slot `i`. Where they are children, the
// neighbour's slot 0 gets its true lower bound, the key it had in the parent.
static bool tree_merge_right(struct tree *t, struct block *parent, unsigned i, struct block *node)
{
    if (i + 1 >= node_count(parent->bytes))
        return false;
    struct block *right = tree_peek(t, parent, i + 1);
    if (!right || node_used(node->bytes) + node_used(right->bytes) > NODE_MERGED_MAX)
        return false;
    unsigned at = node_count(node->bytes);
    struct key bound = node_key(parent->bytes, i + 1);
    node_insert_all(node->bytes, at, right->bytes);
    if (node->level > 0)
        node_set_key(node->bytes, at, &bound);
    node_delete(parent->bytes, i + 1);
    tree_drop(t, right);
    return true;
}

// Likewise of the left neighbour, whose place in the parent the node takes.
static bool tree_merge_left(struct tree *t, struct block *parent, unsigned i, struct block *node)
{
    if (i == 0)
        return false;
    struct block *left = tree_peek(t, parent, i - 1);
    if (!left || node_used(node->bytes) + node_used(left->bytes) > NODE_MERGED_MAX)
        return false;
    struct key bound = node_key(parent->bytes, i);
    struct blkref ref = block_ref(node);
    if (node->level > 0)
        node_set_key(node->bytes, 0, &bound);
    node_insert_all(node->bytes, 0, left->bytes);
    node_set_child(parent->bytes, i - 1, &ref);
    node_delete(parent->bytes, i);
    tree_drop(t, left);
    return true;
}

// A root with one child gives way to it; one without any becomes the empty leaf.
static void tree_shrink_root(struct tree *t, struct block *root)
{
    while (root && t->root.level > 0 && node_count(root->bytes) <= 1) {
        if (node_count(root->bytes) == 0) {
            AF_ASSERT(cache_state(t->cache, root) == BLOCK_DIRTY);
            node_init(root->bytes, t->uuid, root->address, root->generation, 0);
            root->level = 0;
            t->root.level = 0;
            return;
        }
        struct block *child = tree_peek(t, root, 0);
        t->root.ref = node_child(root->bytes, 0);
        t->root.level--;
        tree_drop(t, root);
        root = child;
    }
}

// Upwards from a leaf that has lost items: nodes without any go, thin ones are merged.
static void tree_fix_up(struct tree *t, const struct tree_path *p)
{
    struct block *root = p->block[t->root.level];
    for (unsigned level = 0; level < t->root.level; level++) {
        struct block *b = p->block[level], *parent = p->block[level + 1];
        unsigned i = p->index[level + 1];
        if (node_count(b->bytes) == 0) {
            node_delete(parent->bytes, i);
            tree_drop(t, b);
            continue;
        }
        if (node_used(b->bytes) >= NODE_THIN ||
            !(tree_merge_right(t, parent, i, b) || tree_merge_left(t, parent, i, b)))
            break;
    }
    tree_shrink_root(t, root);
}

void tree_delete(struct tree *t, struct key key)
{
    struct tree_path p;
    bool found;
    tree_own_path(t, &key, &p);
    struct block *leaf = p.block[0];
    unsigned index = node_search(leaf->bytes, &key, &found);
    AF_ASSERT(found);
    node_delete(leaf->bytes, index);
    if (node_count(leaf->bytes) > 0 || t->root.level == 0) {
        tree_fix_up(t, &p);
        return;
    }
    // Slot 0, which is free room now, keeps a key by which the sweep finds the leaf again.
    node_set_key(leaf->bytes, 0, &key);
    if (leaf->emptied)
        return;
    leaf->emptied = 1;
    leaf->chain_next = t->emptied;
    t->emptied = leaf;
}

void tree_sweep(struct tree *t)
{
    while (t->emptied) {
        struct tree_path p;
        struct block *leaf = t->emptied;
        t->emptied = leaf->chain_next;
        leaf->chain_next = NULL;
        leaf->emptied = 0;
        // The way there was made the tree's own when the leaf was emptied, so it is in memory and
        // nothing is born. The leaf may hold items again.
        struct key key = node_key(leaf->bytes, 0);
        tree_own_path(t, &key, &p);
        AF_ASSERT(p.block[0] == leaf);
        tree_fix_up(t, &p);
    }
}

// How many levels that many puts can add: the first may find a full root, each further one takes
// as many splits below as a new root has room.
static size_t tree_growth(size_t puts)
{
    size_t levels = 1;
    for (size_t n = puts / SPLIT_ROOM_CHILDREN; n > 0; n /= SPLIT_ROOM_CHILDREN)
        levels++;
    return levels;
}

size_t tree_need(const struct tree *t, size_t regions, size_t items, size_t bytes)
{
    size_t growth = tree_growth(regions + items);
    size_t height = t->root.level + 1u;
    // A region: copy the path, split each node of it.
    size_t need = regions * (2 * height + growth) + growth;
    if (items == 0)
        return need;
    // Further leaves: each put splits at most one; and beyond the first splits of what is there,
    // they must fill the room that splits make. Twice, for the full nodes that rising keys leave.
    size_t fill = (bytes + items * sizeof(struct slot_disk)) / SPLIT_ROOM_BYTES;
    size_t born = AF_MIN(items, 3 * AF_MAX(regions, 1u) + 2 * fill);
    for (size_t level = 0; level < height + growth; level++) {
        need += born;
        born = born / SPLIT_ROOM_CHILDREN + 1;
    }
    return need;
}

int tree_prepare(struct tree *t, struct fault *f, size_t nodes, size_t data, bool urgent)
{
    nodes += t->touched;
    int r = space_prepare(t->space, f, nodes, 0, urgent);
    if (r < 0)
        return r;
    return cache_prepare(t->cache, nodes + data);
}

void tree_create(struct tree *t)
{
    struct block *root = tree_new_node(t, 0, 0);
    t->root = (struct tree_root){.ref = block_ref(root), .level = 0};
}
