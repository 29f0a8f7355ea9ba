// SPDX-License-Identifier: MIT
// The copy-on-write B+tree (docs/FORMAT.md, "Tree"): search and change in memory. All calls run
// under the store lock; none does I/O: what is missing is noted as a fault (fault.h).
//
// Change in three steps, as the contract asks (prepare, append, apply): tree_touch() each key that
// will be put or deleted, then ask tree_prepare() for memory and space; then tree_put() and
// tree_delete() cannot fail. All of it under one hold of the lock.
//
// Reads between the changes: a key whose leaf was in memory at the last touch stays so, whatever
// was deleted: leaves that become empty are taken out only at the next tree_touch(). So a range
// query of an apply step does not fault when its whole range was read in the prepare step, to the
// end of the range and not only to the first item found.
//
// Invariants: S1 no block that a published root reaches is changed or overwritten: nodes of an
// older generation are copied to a new address first, the old address goes to space_free(). S3 a
// parent's checksum of a child is right before the parent is written. A reference with checksum 0
// leads to a block that is dirty or frozen, so it is in memory.
#ifndef AF_STORE_BTREE_H
#define AF_STORE_BTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "store/cache.h"
#include "store/fault.h"
#include "store/key.h"

struct space;

struct tree {
    struct cache *cache;
    struct space *space;
    uint8_t uuid[16];
    struct tree_root root; // the live one
    uint64_t generation;   // the current one; above that of every node on disk
    uint64_t alloc_hint;   // behind the node allocated last, so that nodes lie in runs
    // Whether something else has a node that the live tree lets go of: then it is not freed. NULL:
    // nothing ever has.
    bool (*keeps)(void *arg, uint64_t generation, uint64_t address);
    void *keeps_arg;
    // What tree_touch() has counted since the last change: nodes that a change of the touched keys
    // may give birth to by copying and splitting what is there.
    uint64_t touch_round; // blocks counted carry it; 0 when zeroed is fine
    size_t touched;
    struct block *emptied; // leaves, by chain_next: to be taken out by tree_sweep()
    // The checkpoint under way, so that checksums of frozen children reach both trees.
    bool frozen;
    struct tree_root frozen_root;
    bool single_writes; // a call of its own for each block of it
};

// Reads. `root` is &t->root or a view's. Values point into the block and hold until the lock is
// released or the tree is changed. 0, -ENOENT, -AF_E_FAULT, or a corruption code.
int tree_get(struct tree *t, const struct tree_root *root, struct fault *f, struct key key,
             const void **ret_value, size_t *ret_len) AF_NODISCARD;
// The first item with first <= key <= last.
int tree_next(struct tree *t, const struct tree_root *root, struct fault *f, struct key first,
              struct key last, struct key *ret_key, const void **ret_value,
              size_t *ret_len) AF_NODISCARD;
// The last item with first <= key <= last.
int tree_prev(struct tree *t, const struct tree_root *root, struct fault *f, struct key first,
              struct key last, struct key *ret_key, const void **ret_value,
              size_t *ret_len) AF_NODISCARD;

// The way from the root to the leaf whose range holds a key, for walks over everything, which go on
// behind what is damaged.
#define TREE_LEVELS 16u // NODE_LEVEL_MAX + 1
struct tree_way {
    unsigned root_level;
    unsigned level; // the lowest one that was come to: 0, or that of the node that failed
    struct blkref ref[TREE_LEVELS];  // by level, from `root_level` down to `level`
    struct key low, next;            // range of ref[level]: low <= keys < next
    bool last;                       // it has no end
    struct key next_at[TREE_LEVELS]; // the same ends of the nodes above it, by level
    bool last_at[TREE_LEVELS];
};
// *ret_leaf: the leaf, when it is in memory; else NULL, and ref[0] says where it lies. 0,
// -AF_E_FAULT, or a corruption code of the inner node at ret->level.
int tree_way(struct tree *t, const struct tree_root *root, struct fault *f, struct key key,
             struct tree_way *ret, struct block **ret_leaf) AF_NODISCARD;

// Begins the count that tree_touch() keeps: what an earlier preparation has touched is forgotten.
void tree_touch_begin(struct tree *t);
// Brings the path to `key` into memory, so that it can be put or deleted, and counts it for
// tree_prepare(). 0, -AF_E_FAULT, or a corruption code; a missing key is no failure.
int tree_touch(struct tree *t, struct fault *f, struct key key) AF_NODISCARD;
// Upper bound of the nodes that are born by `regions` puts or deletes at unrelated places, plus
// `items` further ones next to them with `bytes` of values in all. (In a tree with thin nodes, left
// by deletes, neighbouring items can lie on different paths: what that adds is counted by
// tree_touch() and added by tree_prepare().)
size_t tree_need(const struct tree *t, size_t regions, size_t items, size_t bytes);
// Space for `nodes` nodes (and the touched ones), memory for these and `data` data blocks, whose
// space the caller has reserved itself. After the touches, before the first change. 0, -AF_E_FAULT,
// -ENOSPC, -ENOMEM. `urgent`: may use the reserve kept for deletes and completions.
int tree_prepare(struct tree *t, struct fault *f, size_t nodes, size_t data,
                 bool urgent) AF_NODISCARD;
// Inserts, or replaces the value of, `key`. len <= ITEM_BYTES_MAX; `value` lies outside the tree.
// The path was touched under this lock hold.
void tree_put(struct tree *t, struct key key, const void *value, size_t len);
// Deletes `key`, which exists. A thin node is merged with a neighbour that is in memory (which
// gives birth to none: the neighbour's items move); an empty one goes at the next tree_sweep().
void tree_delete(struct tree *t, struct key key);
// Takes out leaves that deletes have emptied, and what becomes empty above them. tree_touch() does
// it; who freezes must call it.
void tree_sweep(struct tree *t);

// An empty tree (one empty leaf) for a new store; only with memory and space prepared.
void tree_create(struct tree *t);

// For tests: walks what is in memory of the tree and compares each node with its parent: bounds,
// order, level, address, generation, checksum. 0 or a code; *ret_items counts what is in the
// leaves.
int tree_check(struct tree *t, const struct tree_root *root, uint64_t *ret_items) AF_NODISCARD;

// ---- checkpoint (freeze.c) ----

// t0. Under the lock, O(1): the live root becomes the frozen one, the generation rises, dirty
// blocks freeze. Not before the last freeze is thawed. A tree_sweep() goes before it, and before
// space_freeze() too, because what it frees belongs to the interval that ends.
void tree_freeze(struct tree *t);

struct io_file;
struct af_mutex;
struct tree_write_stats {
    uint64_t nodes, data_blocks, writes;
};
// t2. Without the lock (taken shortly inside, `lock`): writes all frozen blocks to `data`, data
// first, then nodes level by level, runs of neighbouring addresses in one call, patches each node's
// checksum into its parent in the frozen and, where it is still the same child, in the live tree;
// hands the addresses of written nodes to `each` without the lock (for the space map; data blocks
// were logged when their record was). The frozen root's reference is complete afterwards. Returns
// 0, -ENOMEM or an I/O error; after that the checkpoint cannot be published, blocks stay frozen. It
// may be called again: everything is written again.
int tree_write_frozen(struct tree *t, struct af_mutex *lock, struct io_file *data,
                      void (*each)(void *arg, uint64_t address, uint64_t count), void *arg,
                      struct tree_write_stats *ret_stats) AF_NODISCARD;
// t7. After the publication, under the lock: frees what the live tree has let go of meanwhile, at
// most `limit` blocks, and returns false when there is more: release the lock, call again. Then all
// frozen blocks become clean in one step, t->frozen ends, and true is returned.
bool tree_thaw(struct tree *t, size_t limit) AF_NODISCARD;

// ---- blocks from disk ----

// Validates a node block against what its parent says: magic, type, version, uuid, address,
// generation, level, checksum, then the layout: slots inside, values inside and apart, keys rising,
// kinds known; inner values are references. (An empty leaf passes: only who knows the root can say
// whether it may be one.) Pure.
int node_validate(const uint8_t *bytes, const struct blkref *ref, unsigned level,
                  const uint8_t uuid[16]) AF_NODISCARD;

// Node access for whole-image verification and dumps; `bytes` validated before.
unsigned node_count(const uint8_t *bytes);
unsigned node_level(const uint8_t *bytes);
struct key node_key(const uint8_t *bytes, unsigned index);
const void *node_value(const uint8_t *bytes, unsigned index, size_t *ret_len);
struct blkref node_child(const uint8_t *bytes, unsigned index);

#endif
