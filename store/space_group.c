// SPDX-License-Identifier: MIT
// Groups come into memory when something is allocated or claimed there and go again, longest unused
// first, while nothing in them differs from what is published.
#include "store/space_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"

int space_read_bitmap(struct space *sp, uint64_t group, const struct space_ref *ref,
                      unsigned blocks, uint64_t *words)
{
    if (ref->slot == SLOT_NEVER) {
        space_fresh_bits(group, words);
        return 0;
    }
    uint8_t *bytes = malloc(BLOCK_BYTES);
    if (bytes == NULL)
        return -ENOMEM;
    uint64_t address = space_bitmap_address(group, ref->slot);
    int r = io_pread(sp->config.data, bytes, BLOCK_BYTES, address * BLOCK_BYTES);
    if (r == 0)
        r = space_validate(bytes, BLOCK_TYPE_BITMAP, address, ref->checksum, sp->config.uuid);
    if (r == 0) {
        space_decode_bitmap(bytes, words);
        unsigned behind = GROUP_BLOCKS - blocks;
        if (!bits_all(words, blocks, behind, false) ||
            bits_count_zeros(words) != ref->free + behind)
            r = -AF_E_SPACE_LAYOUT;
    }
    free(bytes);
    return r;
}

uint64_t space_best_unloaded(struct space *sp, uint32_t least)
{
    uint64_t best = UINT64_MAX;
    uint32_t most = 0;
    for (uint64_t i = 0; i < groups_of(sp->capacity); i++) {
        const struct space_group *g = space_group(sp, i);
        if (g->bits == NULL && g->free >= least && g->free > most) {
            best = i;
            most = g->free;
        }
    }
    return best;
}

void space_unload(struct space *sp, struct space_group *g)
{
    struct space_bits *b = g->bits;
    list_remove(&b->link);
    sp->loaded_count--;
    sp->loaded_free -= g->free;
    if (sp->current == b)
        sp->current = NULL;
    g->bits = NULL;
    free(b);
}

// Full groups first, since nothing will be allocated there, then the longest unused; never so many
// that an operation which loads one after the other would not come to an end.
static struct space_bits *pick_victim(struct space *sp, const struct space_bits *keep)
{
    struct space_bits *victim = NULL;
    list_for_each (l, &sp->loaded) {
        struct space_bits *b = list_entry(l, struct space_bits, link);
        uint32_t in_it = space_group(sp, b->group)->free;
        if (b == keep || b->outstanding > 0)
            continue;
        if (in_it == 0)
            return b;
        if (victim == NULL && sp->loaded_free - in_it >= sp->loaded_want)
            victim = b;
    }
    return victim;
}

static void evict(struct space *sp, const struct space_bits *keep)
{
    while (sp->loaded_count > sp->loaded_max) {
        struct space_bits *b = pick_victim(sp, keep);
        if (b == NULL)
            return;
        space_unload(sp, space_group(sp, b->group));
    }
}

// `b->disk` has been read; the rest follows from it.
static void install(struct space *sp, struct space_group *g, struct space_bits *b)
{
    unsigned blocks = group_blocks(sp->capacity, b->group);
    memcpy(b->used, b->disk, sizeof(b->used));
    bits_fill(b->used, blocks, GROUP_BLOCKS - blocks, true);
    space_held_bits(sp, g, b);
    if (g->bad) { // an error of reading that has passed
        g->bad = false;
        space_count_free(sp, g, bits_count_zeros(b->used));
    }
    AF_ASSERT(bits_count_zeros(b->used) == g->free);
    b->run_max = GROUP_BLOCKS;
    b->rover_small = blocks - blocks / 8;
    g->bits = b;
    list_append(&sp->loaded, &b->link);
    sp->loaded_count++;
    sp->loaded_free += g->free;
    sp->fruitless = UINT64_MAX;
    evict(sp, b);
}

static bool ref_same(const struct space_ref *a, const struct space_ref *b)
{
    return a->checksum == b->checksum && a->free == b->free && a->slot == b->slot;
}

// One attempt. True when it is to be repeated, because a checkpoint published another bitmap while
// this one was being read.
static bool load_once(struct space *sp, struct af_mutex *lock, uint64_t group,
                      struct space_bits **b, int *r)
{
    af_lock(lock);
    struct space_group *g = space_group(sp, group);
    struct space_ref ref = g->ref;
    unsigned blocks = group_blocks(AF_MAX(sp->published_blocks, group * GROUP_BLOCKS), group);
    bool loaded = g->bits != NULL;
    af_unlock(lock);
    *r = 0;
    if (loaded)
        return false;

    *r = space_read_bitmap(sp, group, &ref, blocks, (*b)->disk);

    af_lock(lock);
    bool again = g->bits == NULL && !ref_same(&ref, &g->ref);
    if (g->bits != NULL) {
        *r = 0; // another thread was faster
    } else if (!again && *r == 0) {
        install(sp, g, *b);
        *b = NULL;
    } else if (!again && *r != -ENOMEM) {
        g->bad = true;
        space_count_free(sp, g, -(int64_t)g->free);
    }
    af_unlock(lock);
    return again;
}

int space_load_group(struct space *sp, struct af_mutex *lock, uint64_t group)
{
    af_lock(lock);
    bool exists = group < groups_of(sp->capacity);
    af_unlock(lock);
    if (!exists)
        return -AF_E_SPACE_LAYOUT;
    struct space_bits *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return -ENOMEM;
    b->group = group;
    int r;
    while (load_once(sp, lock, group, &b, &r)) {
    }
    free(b);
    return r;
}
