// SPDX-License-Identifier: MIT
// The space map's part of a checkpoint: the intervals' lists of what was allocated and freed, the
// bitmap and index blocks written from them, and what becomes of them at the publication.
//
// Only the checkpoint thread changes what is published (`ref` of groups, the fields of indexes, the
// `disk` bitmaps), in space_published(), under the lock; so between freeze and publication it reads
// them as they are. Nothing here overwrites a slot that the published superblock refers to.
#include "store/space_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"

#define SPARE_CHUNKS 4u // what one operation may append without asking for memory: 1020 ranges

struct change { // a bitmap written
    uint64_t group;
    struct space_ref ref;
};

struct index_change {
    uint64_t index;
    uint64_t checksum;
    uint32_t free;
    uint8_t slot;
};

struct space_frozen {
    uint64_t interval;
    struct range_list allocs, frees;
    struct range_list added; // nodes written
    // What space_write_frozen() made of them, by address. `sets` are allocs and added ones.
    struct range *sets, *clears;
    size_t set_count, clear_count;
    uint64_t capacity;
    struct change *changes;
    size_t change_count, change_cap;
    struct index_change *indexes;
    size_t index_count;
};

// ---- lists ----

void range_list_free(struct range_list *list)
{
    while (list->first != NULL) {
        struct range_chunk *next = list->first->next;
        free(list->first);
        list->first = next;
    }
    *list = (struct range_list){0};
}

int space_fill_spares(struct space *sp)
{
    while (sp->spare_count < SPARE_CHUNKS) {
        struct range_chunk *chunk = malloc(sizeof(*chunk));
        if (chunk == NULL)
            return -ENOMEM;
        chunk->next = sp->spare;
        sp->spare = chunk;
        sp->spare_count++;
    }
    return 0;
}

// A spare one, or (sp NULL: the checkpoint thread) a new one. NULL: out of memory.
static struct range_chunk *take_chunk(struct space *sp)
{
    struct range_chunk *chunk = sp != NULL ? sp->spare : NULL;
    if (chunk != NULL) {
        sp->spare = chunk->next;
        sp->spare_count--;
    } else {
        chunk = malloc(sizeof(*chunk));
    }
    if (chunk != NULL) {
        chunk->next = NULL;
        chunk->count = 0;
    }
    return chunk;
}

static bool join_last(struct range_list *list, uint64_t address, uint64_t count)
{
    if (list->last == NULL || list->last->count == 0)
        return false;
    struct range *r = &list->last->ranges[list->last->count - 1];
    if (r->address + r->count == address) {
        r->count += count;
        return true;
    }
    if (address + count == r->address) {
        r->address = address;
        r->count += count;
        return true;
    }
    return false;
}

static int append(struct space *sp, struct range_list *list, uint64_t address, uint64_t count)
{
    if (!join_last(list, address, count)) {
        if (list->last == NULL || list->last->count == RANGES_PER_CHUNK) {
            struct range_chunk *chunk = take_chunk(sp);
            if (chunk == NULL)
                return -ENOMEM;
            if (list->last != NULL)
                list->last->next = chunk;
            else
                list->first = chunk;
            list->last = chunk;
        }
        list->last->ranges[list->last->count++] =
            (struct range){.address = address, .count = count};
        list->count++;
    }
    list->blocks += count;
    return 0;
}

void space_append(struct space *sp, struct range_list *list, uint64_t address, uint64_t count)
{
    int r = append(sp, list, address, count);
    if (r < 0 && sp->broken == 0)
        sp->broken = r; // a map without this range would be wrong
}

static size_t copy_ranges(const struct range_list *list, struct range *ret)
{
    size_t n = 0;
    for (const struct range_chunk *c = list->first; c != NULL; c = c->next) {
        memcpy(ret + n, c->ranges, c->count * sizeof(*ret));
        n += c->count;
    }
    return n;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return x->address < y->address ? -1 : x->address > y->address;
}

static void sort_ranges(struct range *ranges, size_t count)
{
    if (count > 1)
        qsort(ranges, count, sizeof(*ranges), compare_ranges);
}

// Makes one of ranges that touch or overlap; returns how many are left.
static size_t merge_ranges(struct range *ranges, size_t count)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        struct range *last = n > 0 ? &ranges[n - 1] : NULL;
        uint64_t end = ranges[i].address + ranges[i].count;
        if (last == NULL || last->address + last->count < ranges[i].address)
            ranges[n++] = ranges[i];
        else if (last->address + last->count < end)
            last->count = end - last->address;
    }
    return n;
}

// ---- freeze ----

int space_freeze_prepare(struct space *sp)
{
    if (sp->next_frozen == NULL)
        sp->next_frozen = calloc(1, sizeof(*sp->next_frozen));
    return sp->next_frozen != NULL ? 0 : -ENOMEM;
}

struct space_frozen *space_freeze(struct space *sp)
{
    AF_ASSERT(!sp->frozen);
    if (space_freeze_prepare(sp) < 0)
        return NULL;
    struct space_frozen *z = sp->next_frozen;
    sp->next_frozen = NULL;
    z->interval = sp->interval++;
    z->allocs = sp->allocs;
    z->frees = sp->frees;
    sp->allocs = sp->frees = (struct range_list){0};
    sp->frozen = true;
    return z;
}

int space_frozen_add(struct space_frozen *z, uint64_t address, uint64_t count)
{
    return append(NULL, &z->added, address, count);
}

static void drop_results(struct space_frozen *z)
{
    free(z->sets);
    free(z->clears);
    free(z->changes);
    free(z->indexes);
    z->sets = z->clears = NULL;
    z->changes = NULL;
    z->indexes = NULL;
    z->set_count = z->clear_count = z->change_count = z->change_cap = z->index_count = 0;
}

void space_frozen_free(struct space_frozen *z)
{
    if (z == NULL)
        return;
    drop_results(z);
    range_list_free(&z->allocs);
    range_list_free(&z->frees);
    range_list_free(&z->added);
    free(z);
}

// ---- bitmaps ----

static int sort_frozen(struct space_frozen *z)
{
    z->sets = malloc((z->allocs.count + z->added.count + 1) * sizeof(*z->sets));
    z->clears = malloc((z->frees.count + 1) * sizeof(*z->clears));
    if (z->sets == NULL || z->clears == NULL)
        return -ENOMEM;
    // Nodes that were written twice are in `added` twice; anything else that is in a list twice, or
    // in both, is found when the bits are set.
    size_t n = copy_ranges(&z->added, z->sets);
    sort_ranges(z->sets, n);
    n = merge_ranges(z->sets, n);
    n += copy_ranges(&z->allocs, z->sets + n);
    sort_ranges(z->sets, n);
    z->set_count = n;
    z->clear_count = copy_ranges(&z->frees, z->clears);
    sort_ranges(z->clears, z->clear_count);
    return 0;
}

// Sets or clears the bits of the ranges of `group`, the first of which is at `*at`. Each must have
// had the other value, or lists and map contradict each other: that is never written.
static int apply_ranges(uint64_t *words, uint64_t group, const struct range *ranges, size_t count,
                        size_t *at, bool value)
{
    for (; *at < count && ranges[*at].address / GROUP_BLOCKS == group; (*at)++) {
        const struct range *r = &ranges[*at];
        unsigned bit = group_bit(r->address);
        if (bit < space_group_reserved(group) || r->count > GROUP_BLOCKS - bit)
            return -AF_E_SPACE_LAYOUT;
        if (!bits_all(words, bit, (unsigned)r->count, !value))
            return -AF_E_SPACE_LAYOUT;
        bits_fill(words, bit, (unsigned)r->count, value);
    }
    return 0;
}

// The published bitmap of `group`. What was allocated there keeps a group in memory.
static int published_words(struct space *sp, struct af_mutex *lock, uint64_t group, bool has_sets,
                           struct space_ref *ret_ref, uint64_t *words)
{
    uint64_t published = AF_MAX(sp->published_blocks, group * GROUP_BLOCKS); // it may be new
    af_lock(lock);
    const struct space_group *g = space_group(sp, group);
    *ret_ref = g->ref;
    bool loaded = g->bits != NULL;
    if (loaded)
        memcpy(words, g->bits->disk, sizeof(g->bits->disk));
    af_unlock(lock);
    if (loaded)
        return 0;
    if (has_sets)
        return -AF_E_SPACE_LAYOUT;
    return space_read_bitmap(sp, group, ret_ref, group_blocks(published, group), words);
}

static int add_change(struct space_frozen *z, uint64_t group, struct space_ref ref)
{
    if (z->change_count == z->change_cap) {
        size_t cap = z->change_cap > 0 ? 2 * z->change_cap : 64;
        struct change *changes = realloc(z->changes, cap * sizeof(*changes));
        if (changes == NULL)
            return -ENOMEM;
        z->changes = changes;
        z->change_cap = cap;
    }
    z->changes[z->change_count++] = (struct change){.group = group, .ref = ref};
    return 0;
}

// The slot that the published superblock does not refer to.
static uint8_t other_slot(uint8_t slot)
{
    return slot == 0 ? 1 : 0;
}

static int write_bitmap(struct space *sp, struct space_frozen *z, uint64_t group,
                        const struct space_ref *published, const uint64_t *words, uint64_t sequence,
                        uint8_t *bytes)
{
    unsigned behind = GROUP_BLOCKS - group_blocks(z->capacity, group);
    struct space_ref ref = {.free = bits_count_zeros(words) - behind,
                            .slot = other_slot(published->slot)};
    ref.checksum = space_encode_bitmap(bytes, sp->config.uuid, group, &ref, sequence, words);
    uint64_t address = space_bitmap_address(group, ref.slot);
    int r = io_pwrite(sp->config.data, bytes, BLOCK_BYTES, address * BLOCK_BYTES);
    return r < 0 ? r : add_change(z, group, ref);
}

// The address of a group that must be written although nothing was allocated or freed in it: the
// last one of the published map, when it has grown, because what is free in it is counted in its
// block.
static uint64_t grown_group(struct space *sp, struct af_mutex *lock, const struct space_frozen *z)
{
    uint64_t last = sp->published_blocks / GROUP_BLOCKS;
    if (sp->published_blocks % GROUP_BLOCKS == 0 || z->capacity == sp->published_blocks)
        return UINT64_MAX;
    af_lock(lock);
    bool written = space_group(sp, last)->ref.slot != SLOT_NEVER;
    af_unlock(lock);
    return written ? last * GROUP_BLOCKS : UINT64_MAX;
}

// Reads the bitmap of `group` once, unless it is in memory. `seen`: a bit for each group.
static int check_group(struct space *sp, struct af_mutex *lock, uint64_t group, uint8_t *seen)
{
    uint64_t words[GROUP_WORDS];
    struct space_ref ref;

    if (seen[group / 8] & (1u << group % 8))
        return 0;
    seen[group / 8] |= (uint8_t)(1u << group % 8);
    return published_words(sp, lock, group, false, &ref, words);
}

int space_check_interval(struct space *sp, struct af_mutex *lock)
{
    struct space_frozen now = {.capacity = sp->capacity};
    uint64_t groups = groups_of(sp->capacity), grown = grown_group(sp, lock, &now);
    uint8_t *seen = calloc(1, groups / 8 + 1);
    int r = 0;

    if (seen == NULL)
        return -ENOMEM;
    if (grown != UINT64_MAX)
        r = check_group(sp, lock, grown / GROUP_BLOCKS, seen);
    for (const struct range_chunk *c = sp->frees.first; c != NULL && r == 0; c = c->next) {
        for (size_t i = 0; i < c->count && r == 0; i++)
            r = c->ranges[i].address < sp->capacity
                    ? check_group(sp, lock, c->ranges[i].address / GROUP_BLOCKS, seen)
                    : -AF_E_SPACE_LAYOUT;
    }
    free(seen);
    return r;
}

// All groups that the interval changed, in order.
static int write_bitmaps(struct space *sp, struct af_mutex *lock, struct space_frozen *z,
                         uint64_t sequence, uint8_t *bytes)
{
    size_t set = 0, clear = 0;
    uint64_t grown = grown_group(sp, lock, z);
    while (set < z->set_count || clear < z->clear_count || grown != UINT64_MAX) {
        uint64_t address = grown;
        if (set < z->set_count)
            address = AF_MIN(address, z->sets[set].address);
        if (clear < z->clear_count)
            address = AF_MIN(address, z->clears[clear].address);
        if (address >= z->capacity)
            return -AF_E_SPACE_LAYOUT;
        uint64_t group = address / GROUP_BLOCKS;
        if (grown / GROUP_BLOCKS == group)
            grown = UINT64_MAX;
        bool has_sets = set < z->set_count && z->sets[set].address / GROUP_BLOCKS == group;

        uint64_t words[GROUP_WORDS];
        struct space_ref ref;
        int r = published_words(sp, lock, group, has_sets, &ref, words);
        if (r == 0)
            r = apply_ranges(words, group, z->sets, z->set_count, &set, true);
        // After the sets: what was allocated and freed in one interval is free at its end.
        if (r == 0)
            r = apply_ranges(words, group, z->clears, z->clear_count, &clear, false);
        if (r == 0)
            r = write_bitmap(sp, z, group, &ref, words, sequence, bytes);
        if (r < 0)
            return r;
    }
    return 0;
}

// ---- index blocks ----

// The entries of one index block in the new map. True when the block must be written. `*at`: first
// change of this index or behind it.
static bool index_refs(struct space *sp, struct af_mutex *lock, const struct space_frozen *z,
                       uint64_t i, size_t *at, struct space_ref *refs)
{
    uint64_t first = i * GROUPS_PER_INDEX;
    unsigned count = index_entries(z->capacity, i);
    bool changed = index_blocks(sp->published_blocks, i) != index_blocks(z->capacity, i);
    af_lock(lock);
    for (unsigned g = 0; g < count; g++)
        refs[g] = sp->indexes[i]->groups[g].ref;
    af_unlock(lock);
    for (unsigned g = 0; g < count; g++)
        if (refs[g].slot == SLOT_NEVER)
            refs[g].free = group_blocks(z->capacity, first + g) - space_group_reserved(first + g);
    for (; *at < z->change_count && z->changes[*at].group < first + count; (*at)++) {
        refs[z->changes[*at].group - first] = z->changes[*at].ref;
        changed = true;
    }
    return changed;
}

static int write_index(struct space *sp, struct space_frozen *z, uint64_t i,
                       const struct space_ref *refs, uint64_t sequence, uint8_t *bytes)
{
    struct index_change c = {.index = i};
    unsigned count = index_entries(z->capacity, i);
    c.slot = other_slot(sp->indexes[i]->slot);
    for (unsigned g = 0; g < count; g++)
        c.free += refs[g].free;
    c.checksum = space_encode_index(bytes, sp->config.uuid, i, c.slot, sequence, refs, count);
    z->indexes[z->index_count++] = c;
    uint64_t address = space_index_address(i, c.slot);
    return io_pwrite(sp->config.data, bytes, BLOCK_BYTES, address * BLOCK_BYTES);
}

static struct map_ref_disk index_ref(uint64_t checksum, uint32_t free_blocks, uint8_t slot)
{
    return (struct map_ref_disk){
        .checksum = le64_put(checksum), .free = le32_put(free_blocks), .slot = slot};
}

// Writes what changed and fills in what the superblock says of every index block.
static int write_indexes(struct space *sp, struct af_mutex *lock, struct space_frozen *z,
                         uint64_t sequence, uint8_t *bytes, struct space_image *image)
{
    size_t at = 0;
    uint64_t free_blocks = 0;
    for (uint64_t i = 0; i < image->index_count; i++) {
        struct space_ref refs[GROUPS_PER_INDEX];
        const struct space_index *index = sp->indexes[i];
        if (index_refs(sp, lock, z, i, &at, refs)) {
            int r = write_index(sp, z, i, refs, sequence, bytes);
            if (r < 0)
                return r;
            const struct index_change *c = &z->indexes[z->index_count - 1];
            image->refs[i] = index_ref(c->checksum, c->free, c->slot);
        } else {
            image->refs[i] = index_ref(index->checksum, index->free, index->slot);
        }
        free_blocks += le32_get(image->refs[i].free);
    }
    image->used_blocks = z->capacity - free_blocks;
    return 0;
}

// ---- writing and publishing ----

// The new map covers what `data` has now: growth since the freeze is free space in it.
static int begin_write(struct space *sp, struct af_mutex *lock, struct space_frozen *z,
                       struct space_image *image)
{
    af_lock(lock);
    int r = sp->broken;
    z->capacity = sp->capacity;
    af_unlock(lock);
    if (r < 0)
        return r;
    *image = (struct space_image){.data_blocks = z->capacity,
                                  .index_count = (uint32_t)indexes_of(z->capacity)};
    image->refs = calloc(image->index_count + 1u, sizeof(*image->refs));
    z->indexes = calloc(image->index_count + 1u, sizeof(*z->indexes));
    if (image->refs == NULL || z->indexes == NULL)
        return -ENOMEM;
    return sort_frozen(z);
}

int space_write_frozen(struct space *sp, struct af_mutex *lock, struct space_frozen *z,
                       uint64_t sequence, struct space_image *ret_image)
{
    struct space_image image = {0};
    drop_results(z); // of an attempt that failed
    uint8_t *bytes = malloc(BLOCK_BYTES);
    int r = bytes != NULL ? begin_write(sp, lock, z, &image) : -ENOMEM;
    if (r == 0)
        r = write_bitmaps(sp, lock, z, sequence, bytes);
    if (r == 0)
        r = write_indexes(sp, lock, z, sequence, bytes, &image);
    free(bytes);
    if (r < 0) {
        free(image.refs);
        return r;
    }
    *ret_image = image;
    return 0;
}

static void adopt_changes(struct space *sp, const struct space_frozen *z)
{
    for (size_t i = 0; i < z->change_count; i++) {
        const struct change *c = &z->changes[i];
        struct space_group *g = space_group(sp, c->group);
        g->ref = c->ref;
        if (g->bits == NULL && !g->bad) {
            // And what has come to the group since it was written.
            unsigned more =
                group_blocks(sp->capacity, c->group) - group_blocks(z->capacity, c->group);
            space_count_free(sp, g, (int64_t)c->ref.free + more - g->held - g->free);
        }
    }
    for (size_t i = 0; i < z->index_count; i++) {
        const struct index_change *c = &z->indexes[i];
        struct space_index *index = sp->indexes[c->index];
        index->checksum = c->checksum;
        index->free = c->free;
        index->slot = c->slot;
    }
    sp->published_blocks = z->capacity;
}

// The same in a loaded group, whose bitmap was not kept when it was written: the ranges are few.
static void adopt_range(struct space *sp, const struct range *r, bool value)
{
    struct space_group *g = space_group(sp, r->address / GROUP_BLOCKS);
    struct space_bits *b = g->bits;
    unsigned bit = group_bit(r->address), count = (unsigned)r->count;
    if (b == NULL)
        return;
    bits_fill(b->disk, bit, count, value);
    if (value) {
        b->outstanding -= count;
    } else {
        bits_fill(b->used, bit, count, false);
        b->run_max = GROUP_BLOCKS;
        space_count_free(sp, g, count);
    }
}

// ---- what is held ----

void space_hold(struct space *sp)
{
    if (sp->holds++ == 0)
        sp->hold_from = sp->interval;
}

// Freed and published: free on disk, still in use here.
static void hold_range(struct space *sp, const struct range *r)
{
    struct space_group *g = space_group(sp, r->address / GROUP_BLOCKS);
    space_append(sp, &sp->held, r->address, r->count);
    if (g->bits != NULL) {
        bits_fill(g->bits->disk, group_bit(r->address), (unsigned)r->count, false);
        g->bits->outstanding += (uint32_t)r->count;
    }
}

static void unhold_range(struct space *sp, const struct range *r)
{
    struct space_group *g = space_group(sp, r->address / GROUP_BLOCKS);
    struct space_bits *b = g->bits;
    g->held -= (uint32_t)r->count;
    if (b != NULL) {
        bits_fill(b->used, group_bit(r->address), (unsigned)r->count, false);
        b->outstanding -= (uint32_t)r->count;
        b->run_max = GROUP_BLOCKS;
    }
    if (!g->bad)
        space_count_free(sp, g, (int64_t)r->count);
    sp->waiting -= r->count;
}

void space_unhold(struct space *sp)
{
    AF_ASSERT(sp->holds > 0);
    if (--sp->holds > 0)
        return;
    for (const struct range_chunk *c = sp->held.first; c != NULL; c = c->next)
        for (size_t i = 0; i < c->count; i++)
            unhold_range(sp, &c->ranges[i]);
    range_list_free(&sp->held);
    sp->fruitless = UINT64_MAX;
    sp->settled = false;
}

void space_held_bits(struct space *sp, struct space_group *g, struct space_bits *b)
{
    if (g->held == 0)
        return;
    for (const struct range_chunk *c = sp->held.first; c != NULL; c = c->next)
        for (size_t i = 0; i < c->count; i++)
            if (c->ranges[i].address / GROUP_BLOCKS == b->group)
                bits_fill(b->used, group_bit(c->ranges[i].address), (unsigned)c->ranges[i].count,
                          true);
    b->outstanding = g->held;
}

void space_published(struct space *sp, struct space_frozen *z)
{
    AF_ASSERT(sp->frozen && z->indexes != NULL);
    bool hold = sp->holds > 0 && z->interval >= sp->hold_from;
    if (hold)
        for (size_t i = 0; i < z->clear_count; i++)
            space_group(sp, z->clears[i].address / GROUP_BLOCKS)->held +=
                (uint32_t)z->clears[i].count;
    adopt_changes(sp, z);
    for (size_t i = 0; i < z->set_count; i++)
        adopt_range(sp, &z->sets[i], true);
    // After the sets: what was allocated and freed in one interval is free at its end.
    for (size_t i = 0; i < z->clear_count; i++) {
        if (hold)
            hold_range(sp, &z->clears[i]);
        else
            adopt_range(sp, &z->clears[i], false);
    }
    if (!hold)
        sp->waiting -= z->frees.blocks;
    sp->frozen = false;
    sp->fruitless = UINT64_MAX;
    sp->settled = false;
    space_frozen_free(z);
}
