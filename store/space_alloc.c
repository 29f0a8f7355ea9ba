// SPDX-License-Identifier: MIT
// Giving out runs of blocks and taking them back, in loaded groups.
//
// Next-fit with two rovers: single blocks (tree nodes, small files) come from the last eighth of a
// group while it has room, long runs from before it, so that nodes do not cut up the runs of files
// and lie in runs themselves. None of that is needed for correctness.
#include "store/space_internal.h"

#include "base/check.h"
#include "base/err.h"

#define SMALL_BLOCKS 8u // fewer than that are taken from the last eighth
#define PICK_TRIES   4

struct place {
    unsigned bit, count;
};

static struct space_bits *bits_at(struct space *sp, uint64_t address)
{
    if (address == 0 || address >= sp->capacity)
        return NULL;
    return space_group(sp, address / GROUP_BLOCKS)->bits;
}

static uint32_t bits_free(struct space *sp, const struct space_bits *b)
{
    return space_group(sp, b->group)->free;
}

static bool bits_fit(struct space *sp, const struct space_bits *b, uint64_t want)
{
    return b != NULL && b->run_max >= want && bits_free(sp, b) > 0;
}

// The loaded group with most free blocks and a run of `want`; or, with `any`, the longest run.
static struct space_bits *pick_loaded(struct space *sp, uint64_t want, bool any)
{
    struct space_bits *best = NULL;
    list_for_each (l, &sp->loaded) {
        struct space_bits *b = list_entry(l, struct space_bits, link);
        if (!bits_fit(sp, b, any ? 1 : want))
            continue;
        if (best == NULL ||
            (any ? b->run_max > best->run_max : bits_free(sp, b) > bits_free(sp, best)))
            best = b;
    }
    return best;
}

static struct space_bits *pick_group(struct space *sp, uint64_t want, uint64_t hint)
{
    struct space_bits *near = bits_at(sp, hint);
    if (bits_fit(sp, near, want))
        return near;
    if (bits_fit(sp, sp->current, want))
        return sp->current;
    if (want < sp->fruitless) {
        struct space_bits *b = pick_loaded(sp, want, false);
        if (b != NULL)
            return b;
        sp->fruitless = want;
    }
    if (bits_fit(sp, sp->current, AF_MAX(want / 4, 1u)))
        return sp->current;
    return pick_loaded(sp, want, true);
}

// What is free right at the hint, if it is a good part of what is wanted.
static bool find_at_hint(const struct space_bits *b, unsigned limit, unsigned want, unsigned hint,
                         struct place *ret)
{
    if (hint == 0 || hint >= limit)
        return false;
    unsigned end = bits_find(b->used, hint, AF_MIN(limit, hint + want), true);
    *ret = (struct place){.bit = hint, .count = end - hint};
    return ret->count > 0 && ret->count >= want / 4;
}

// True with the first run of `want` from the place where it is looked for on; false with the
// longest run of the whole group.
static bool find_place(const struct space_bits *b, unsigned limit, unsigned want, unsigned hint,
                       struct place *ret)
{
    if (find_at_hint(b, limit, want, hint, ret))
        return true;
    bool small = want < SMALL_BLOCKS;
    unsigned zone = limit - limit / 8;
    unsigned start = hint > 0 ? hint : small ? b->rover_small : b->rover_large;
    ret->bit = bits_find_run(b->used, start, small ? limit : zone, want, &ret->count);
    if (ret->count == want)
        return true;
    if (small) {
        ret->bit = bits_find_run(b->used, zone, limit, want, &ret->count);
        if (ret->count == want)
            return true;
    }
    ret->bit = bits_find_run(b->used, 0, limit, want, &ret->count);
    return ret->count == want;
}

static void take(struct space *sp, struct space_bits *b, struct place at, bool small)
{
    AF_ASSERT(at.count > 0);
    bits_fill(b->used, at.bit, at.count, true);
    b->outstanding += at.count;
    space_count_free(sp, space_group(sp, b->group), -(int64_t)at.count);
    if (small)
        b->rover_small = at.bit + at.count;
    else
        b->rover_large = at.bit + at.count;
    sp->current = b;
    list_remove(&b->link);
    list_append(&sp->loaded, &b->link);
}

uint64_t space_alloc(struct space *sp, uint64_t want, uint64_t hint, uint64_t *ret_count)
{
    AF_ASSERT(want > 0);
    unsigned run = (unsigned)AF_MIN(want, (uint64_t)GROUP_BLOCKS);
    struct space_bits *b = NULL;
    struct place at = {0};
    // A group can turn out to have no such run; then it says so, and another may.
    for (int tries = 0; tries < PICK_TRIES; tries++) {
        b = pick_group(sp, run, hint);
        AF_ASSERT(b != NULL);
        unsigned limit = group_blocks(sp->capacity, b->group);
        unsigned near = hint / GROUP_BLOCKS == b->group ? group_bit(hint) : 0;
        unsigned length = AF_MIN(run, b->run_max);
        if (find_place(b, limit, length, near, &at))
            break;
        b->run_max = at.count;
    }
    take(sp, b, at, run < SMALL_BLOCKS);
    *ret_count = at.count;
    return b->group * GROUP_BLOCKS + at.bit;
}

static void break_map(struct space *sp)
{
    if (sp->broken == 0)
        sp->broken = -AF_E_SPACE_LAYOUT;
}

void space_log_alloc(struct space *sp, uint64_t address, uint64_t count)
{
    const struct space_bits *b = space_range_ok(sp, address, count) ? bits_at(sp, address) : NULL;
    unsigned bit = group_bit(address);
    if (b == NULL || !bits_all(b->used, bit, (unsigned)count, true) ||
        !bits_all(b->disk, bit, (unsigned)count, false)) {
        break_map(sp);
        return;
    }
    space_append(sp, &sp->allocs, address, count);
}

void space_free(struct space *sp, uint64_t address, uint64_t count)
{
    if (!space_range_ok(sp, address, count)) {
        break_map(sp);
        return;
    }
    const struct space_bits *b = bits_at(sp, address);
    if (b != NULL && !bits_all(b->used, group_bit(address), (unsigned)count, true)) {
        break_map(sp);
        return;
    }
    space_append(sp, &sp->frees, address, count);
    sp->waiting += count;
}

void space_release(struct space *sp, uint64_t address, uint64_t count)
{
    AF_ASSERT(space_range_ok(sp, address, count));
    struct space_bits *b = bits_at(sp, address);
    unsigned bit = group_bit(address), n = (unsigned)count;
    AF_ASSERT(b != NULL && bits_all(b->used, bit, n, true) && bits_all(b->disk, bit, n, false));
    bits_fill(b->used, bit, n, false);
    b->outstanding -= n;
    b->run_max = AF_MIN(2 * b->run_max + n, GROUP_BLOCKS); // it may join two runs
    sp->fruitless = UINT64_MAX;
    space_count_free(sp, space_group(sp, b->group), n);
}
