// SPDX-License-Identifier: MIT
// The block cache (cache.h). Memory comes in slabs: single page-aligned allocations from malloc()
// waste a page each, which would double what the budget says.
#include "store/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "store/store_format.h"

#define SLAB_BLOCKS 64u
#define TABLE_MIN   64u
#define TABLE_MAX   (UINT64_C(1) << 26)

// Spare blocks are recycled without free(), which would hide a use after free from the sanitizer.
#if defined(__SANITIZE_ADDRESS__)
#define CACHE_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CACHE_POISON 1
#endif
#endif
#if defined(CACHE_POISON)
#include <sanitizer/asan_interface.h>
#define cache_poison(bytes)   __asan_poison_memory_region(bytes, BLOCK_BYTES)
#define cache_unpoison(bytes) __asan_unpoison_memory_region(bytes, BLOCK_BYTES)
#else
#define cache_poison(bytes)   ((void)(bytes))
#define cache_unpoison(bytes) ((void)(bytes))
#endif

struct cache_slab {
    struct cache_slab *next;
    uint8_t *bytes;
    struct block blocks[SLAB_BLOCKS];
};

int cache_init(struct cache *c, uint64_t budget_bytes)
{
    memset(c, 0, sizeof(*c));
    c->budget_blocks = (size_t)(budget_bytes / BLOCK_BYTES);
    c->table_size = TABLE_MIN;
    while (c->table_size < c->budget_blocks && c->table_size < TABLE_MAX)
        c->table_size *= 2;
    c->table = calloc(c->table_size, sizeof(struct block *));
    if (!c->table)
        return -ENOMEM;
    list_init(&c->lru);
    list_init(&c->dirty);
    list_init(&c->frozen);
    list_init(&c->dead);
    list_init(&c->spare);
    // Blocks from disk carry interval 0; neither the current nor the one before may be that.
    c->interval = 2;
    return 0;
}

void cache_destroy(struct cache *c)
{
    while (c->slabs) {
        struct cache_slab *slab = c->slabs;
        c->slabs = slab->next;
        for (unsigned i = 0; i < SLAB_BLOCKS; i++)
            cache_unpoison(slab->bytes + i * BLOCK_BYTES);
        free(slab->bytes);
        free(slab);
    }
    free(c->table);
    memset(c, 0, sizeof(*c));
}

static struct block **cache_bucket(struct cache *c, uint64_t address)
{
    // Multiplication spreads runs of addresses over the high bits.
    uint64_t h = address * UINT64_C(0x9E3779B97F4A7C15);
    return &c->table[(h >> 32) & (c->table_size - 1)];
}

static struct block *cache_find(struct cache *c, uint64_t address)
{
    struct block *b = *cache_bucket(c, address);
    while (b && b->address != address)
        b = b->hash_next;
    return b;
}

static void cache_hash(struct cache *c, struct block *b)
{
    struct block **bucket = cache_bucket(c, b->address);
    b->hash_next = *bucket;
    *bucket = b;
    c->block_count++;
}

static void cache_unhash(struct cache *c, struct block *b)
{
    struct block **at = cache_bucket(c, b->address);
    while (*at != b) {
        AF_ASSERT(*at);
        at = &(*at)->hash_next;
    }
    *at = b->hash_next;
    c->block_count--;
}

struct block *cache_lookup(struct cache *c, uint64_t address)
{
    struct block *b = cache_find(c, address);
    if (!b) {
        c->misses++;
        return NULL;
    }
    c->hits++;
    b->referenced = 1;
    return b;
}

static void cache_spare(struct cache *c, struct block *b)
{
    cache_poison(b->bytes);
    list_prepend(&c->spare, &b->link);
    c->spare_count++;
}

static int cache_add_slab(struct cache *c)
{
    struct cache_slab *slab = calloc(1, sizeof(*slab));
    if (!slab)
        return -ENOMEM;
    slab->bytes = aligned_alloc(BLOCK_BYTES, (size_t)SLAB_BLOCKS * BLOCK_BYTES);
    if (!slab->bytes) {
        free(slab);
        return -ENOMEM;
    }
    slab->next = c->slabs;
    c->slabs = slab;
    for (unsigned i = SLAB_BLOCKS; i-- > 0;) {
        slab->blocks[i].bytes = slab->bytes + i * BLOCK_BYTES;
        cache_spare(c, &slab->blocks[i]);
    }
    return 0;
}

int cache_prepare(struct cache *c, size_t blocks)
{
    while (c->spare_count < blocks) {
        int r = cache_add_slab(c);
        if (r < 0)
            return r;
    }
    return 0;
}

// Takes a spare, resets all but its bytes and puts it into the table.
static struct block *cache_take(struct cache *c, uint64_t address, uint64_t generation,
                                enum block_kind kind, unsigned level)
{
    AF_ASSERT(c->spare_count > 0);
    struct block *b = list_entry(c->spare.next, struct block, link);
    list_remove(&b->link);
    c->spare_count--;
    cache_unpoison(b->bytes);
    *b = (struct block){.address = address,
                        .generation = generation,
                        .kind = (uint8_t)kind,
                        .level = (uint8_t)level,
                        .bytes = b->bytes};
    list_init(&b->link);
    cache_hash(c, b);
    return b;
}

struct block *cache_insert(struct cache *c, const struct blkref *ref, enum block_kind kind,
                           unsigned level, uint8_t *bytes)
{
    struct block *b = cache_find(c, ref->address);
    if (b &&
        (cache_state(c, b) != BLOCK_CLEAN || b->pins > 0 || cache_block_is(b, ref, kind, level))) {
        free(bytes);
        return b;
    }
    if (b)
        cache_drop(c, b);
    if (cache_prepare(c, 1) < 0) {
        free(bytes);
        return NULL;
    }
    b = cache_take(c, ref->address, ref->generation, kind, level);
    b->checksum = ref->checksum;
    memcpy(b->bytes, bytes, BLOCK_BYTES);
    free(bytes);
    list_prepend(&c->lru, &b->link);
    c->clean_count++;
    return b;
}

struct block *cache_new(struct cache *c, uint64_t address, uint64_t generation,
                        enum block_kind kind, unsigned level)
{
    // What is still cached of an address that was free is a clean block nobody dropped.
    struct block *stale = cache_find(c, address);
    if (stale) {
        AF_ASSERT(cache_state(c, stale) == BLOCK_CLEAN);
        cache_drop(c, stale);
    }
    struct block *b = cache_take(c, address, generation, kind, level);
    b->interval = c->interval;
    list_append(&c->dirty, &b->link);
    c->dirty_count++;
    return b;
}

static size_t *cache_counter(struct cache *c, enum block_state state)
{
    switch (state) {
    case BLOCK_CLEAN:
        return &c->clean_count;
    case BLOCK_DIRTY:
        return &c->dirty_count;
    case BLOCK_FROZEN:
        break;
    }
    return &c->frozen_count;
}

// Out of the table and the list of its state; freed unless someone still holds a pin.
static void cache_discard(struct cache *c, struct block *b)
{
    (*cache_counter(c, cache_state(c, b)))--;
    cache_unhash(c, b);
    list_remove(&b->link);
    if (b->pins == 0) {
        cache_spare(c, b);
        return;
    }
    b->detached = 1;
    b->interval = 0;
    list_append(&c->dead, &b->link);
}

void cache_drop(struct cache *c, struct block *b)
{
    AF_ASSERT(!b->detached);
    if (cache_state(c, b) != BLOCK_FROZEN) {
        cache_discard(c, b);
        return;
    }
    // It stays on the frozen list, which the checkpoint thread walks without the lock.
    b->detached = 1;
    b->chain_next = c->doomed;
    c->doomed = b;
}

void cache_pin(struct cache *c, struct block *b)
{
    (void)c;
    AF_ASSERT(b->pins < UINT32_MAX);
    b->pins++;
}

void cache_unpin(struct cache *c, struct block *b)
{
    AF_ASSERT(b->pins > 0);
    b->pins--;
    if (b->pins > 0 || !b->detached || cache_state(c, b) == BLOCK_FROZEN)
        return;
    list_remove(&b->link);
    cache_spare(c, b);
}

bool cache_is_over(const struct cache *c)
{
    return c->block_count > c->budget_blocks || (c->keeps_nothing && c->clean_count > 0);
}

void cache_evict(struct cache *c, size_t limit)
{
    // Second chance: one that was used or is pinned goes back to the front; looking at few of them
    // a call is enough, since a second look finds them unmarked.
    size_t looks = limit * 4;
    while (cache_is_over(c) && limit > 0 && looks > 0 && !list_empty(&c->lru)) {
        struct block *b = list_entry(c->lru.prev, struct block, link);
        looks--;
        if (b->referenced || b->pins > 0) {
            b->referenced = 0;
            list_remove(&b->link);
            list_prepend(&c->lru, &b->link);
            continue;
        }
        cache_discard(c, b);
        c->evictions++;
        limit--;
    }
}

void cache_freeze(struct cache *c)
{
    AF_ASSERT(!c->freezing && list_empty(&c->frozen) && !c->doomed);
    list_splice(&c->frozen, &c->dirty);
    c->frozen_count = c->dirty_count;
    c->dirty_count = 0;
    c->freezing = true;
    c->interval++;
}

bool cache_thaw(struct cache *c, size_t limit)
{
    AF_ASSERT(c->freezing);
    while (c->doomed) {
        if (limit-- == 0)
            return false;
        struct block *b = c->doomed;
        c->doomed = b->chain_next;
        b->chain_next = NULL;
        b->detached = 0;
        cache_discard(c, b);
    }
    c->freezing = false;
    c->clean_count += c->frozen_count;
    c->frozen_count = 0;
    // To the end that is evicted last: `lru` runs from the latest used to the longest unused.
    list_splice(&c->frozen, &c->lru);
    list_splice(&c->lru, &c->frozen);
    return true;
}
