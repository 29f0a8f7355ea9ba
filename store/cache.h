// SPDX-License-Identifier: MIT
// All blocks in memory: tree nodes, and data blocks that rode in log records and wait for the next
// checkpoint. One hash table by address, one list of the clean ones in order of use.
//
//   CLEAN   as on disk; evicted when over budget and unpinned
//   DIRTY   born in the current interval (since the last freeze), not on disk; nodes are changed in
//           place
//   FROZEN  belongs to a checkpoint under way: immutable but for the checksums of its children
//
//   cache_insert -> CLEAN -> cache_evict, cache_drop
//   cache_new -> DIRTY -> cache_freeze -> FROZEN -> cache_thaw -> CLEAN
//                  `-> cache_drop            `-> cache_drop: doomed, freed by cache_thaw
//
// A freeze and the end of it change the state of any number of blocks at once, so the state is not
// stored: each block carries the number of the interval in which it was born, and cache_state()
// compares. A doomed block (frozen, let go of by the live tree) stays in the table until the thaw,
// because the frozen root still reaches it; its address is not given out again before that (S2).
//
// Everything here runs under the store lock. Nothing here does I/O. Eviction happens only in
// cache_evict(), which is called between operations, so pointers to blocks hold while an operation
// runs. Memory is taken in slabs and recycled, not given back before cache_destroy(): its peak is
// the budget plus what was dirty, prepared and pinned, all of which callers bound.
#ifndef AF_STORE_CACHE_H
#define AF_STORE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/list.h"
#include "store/fault.h"

enum block_kind { BLOCK_NODE, BLOCK_DATA };
enum block_state { BLOCK_CLEAN, BLOCK_DIRTY, BLOCK_FROZEN };

struct block {
    struct list link; // LRU (clean), dirty, frozen, spare or dead list
    struct block *hash_next;
    struct block *chain_next; // of the doomed ones; of btree_write.c's emptied leaves
    uint64_t address;
    uint64_t generation;
    uint64_t checksum; // of a CLEAN block; FROZEN: set once written; else 0
    uint64_t interval; // of birth, see cache_state(); 0: came from disk
    uint64_t touch;    // for btree_read.c: the round in which tree_touch() counted it
    uint32_t pins;
    uint8_t kind;       // enum block_kind
    uint8_t level;      // of a node
    uint8_t detached;   // freed by the live tree; goes at the thaw or at the last unpin
    uint8_t referenced; // used since eviction last came by
    uint8_t emptied;    // for btree_write.c: a leaf that waits for tree_sweep()
    uint8_t *bytes;     // BLOCK_BYTES, aligned to BLOCK_BYTES
};

struct cache_slab;

struct cache {
    struct block **table;
    size_t table_size;  // power of two, fixed: chains grow when dirty blocks exceed the budget
    size_t block_count; // in the table
    struct list lru, dirty, frozen;
    struct list dead;     // dropped while pinned; in no table
    struct block *doomed; // FROZEN and detached, by chain_next
    size_t clean_count, dirty_count, frozen_count;
    size_t budget_blocks; // all of them together; dirty ones may exceed it, clean ones go first
    bool keeps_nothing;   // clean ones go whatever the budget says
    uint64_t interval;    // rises at each freeze
    bool freezing;        // between cache_freeze() and the end of cache_thaw()
    struct list spare;    // prepared blocks
    size_t spare_count;
    struct cache_slab *slabs;
    uint64_t hits, misses, evictions;
};

int cache_init(struct cache *c, uint64_t budget_bytes) AF_NODISCARD;
void cache_destroy(struct cache *c); // frees everything, dirty blocks too

static inline enum block_state cache_state(const struct cache *c, const struct block *b)
{
    if (b->interval == c->interval)
        return BLOCK_DIRTY;
    return c->freezing && b->interval + 1 == c->interval ? BLOCK_FROZEN : BLOCK_CLEAN;
}

// True when `b` is what `ref` means. A checksum of 0 (not yet known) is no difference.
static inline bool cache_block_is(const struct block *b, const struct blkref *ref,
                                  enum block_kind kind, unsigned level)
{
    return b->address == ref->address && b->generation == ref->generation && b->kind == kind &&
           b->level == level &&
           (b->checksum == ref->checksum || b->checksum == 0 || ref->checksum == 0);
}

// NULL when not in memory; notes the use, which keeps a clean one from being evicted soon.
struct block *cache_lookup(struct cache *c, uint64_t address);
// Puts a block that was read and verified. If it is in memory already, that one is returned, unless
// it is a clean one of other content (its address was given out anew): that is replaced. Takes
// ownership of `bytes` (to be free()d). NULL when out of memory.
struct block *cache_insert(struct cache *c, const struct blkref *ref, enum block_kind kind,
                           unsigned level, uint8_t *bytes);
// So that cache_new() cannot fail `blocks` times.
int cache_prepare(struct cache *c, size_t blocks) AF_NODISCARD;
// A new DIRTY block with undefined bytes, from the spares. For a data block the caller may set
// `checksum`; otherwise it is set when the block is written.
struct block *cache_new(struct cache *c, uint64_t address, uint64_t generation,
                        enum block_kind kind, unsigned level);
// The live tree has let go of the block: DIRTY and CLEAN ones are freed (not while pinned: then
// they leave the table and go at the last unpin), FROZEN ones are doomed and go in cache_thaw().
void cache_drop(struct cache *c, struct block *b);
void cache_pin(struct cache *c, struct block *b);
void cache_unpin(struct cache *c, struct block *b);
// Whether cache_evict() has work.
bool cache_is_over(const struct cache *c);
// Down to the budget, longest unused first; at most `limit` blocks a call, so that the lock is held
// shortly.
void cache_evict(struct cache *c, size_t limit);
// All DIRTY blocks become FROZEN. O(1). Not while others are FROZEN.
void cache_freeze(struct cache *c);
// The FROZEN blocks are on disk, published, and their checksums in their parents: they become CLEAN
// at once, after the doomed ones have been freed, at most `limit` a call. True when done.
bool cache_thaw(struct cache *c, size_t limit) AF_NODISCARD;

#endif
