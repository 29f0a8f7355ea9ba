// SPDX-License-Identifier: MIT
// The space map inside: shared by space.c (opening, counting, growth), space_alloc.c (runs),
// space_group.c (loading and evicting groups), space_frozen.c (checkpoints), space_format.c and
// space_bits.c. Everything under the store lock unless it says otherwise.
//
// Of a loaded group two bitmaps are in memory: `disk`, the published one, and `used`: that and
// everything allocated since, nothing taken out before its publication. So `disk` is always part of
// `used`; bits behind the end of `data` are set in `used` and clear in `disk`. A group of which
// both say the same can be evicted: what was freed in it waits in the lists of the intervals.
#ifndef AF_STORE_SPACE_INTERNAL_H
#define AF_STORE_SPACE_INTERNAL_H

#include "base/list.h"
#include "store/space.h"

#define GROUP_WORDS      (GROUP_BLOCKS / 64u)
#define SPACE_BLOCKS_MAX ((uint64_t)INDEX_MAX * GROUPS_PER_INDEX * GROUP_BLOCKS)
// The last group holds at least so many blocks after growth: its map, its index and a few more.
#define GROUP_BLOCKS_MIN 8u
#define LOADED_MAX       1024u

_Static_assert(GROUP_BLOCKS % 64 == 0, "a bitmap is whole words");
_Static_assert(GROUP_BLOCKS / 8 == BLOCK_BYTES - sizeof(struct block_header_disk), "bitmap size");

// ---- bitmaps of GROUP_BLOCKS bits (space_bits.c) ----

// First bit in [from, to) that has `value`; `to` when there is none.
unsigned bits_find(const uint64_t *words, unsigned from, unsigned to, bool value);
// First run of at least `want` zeros in [from, to), cut at `want`; without one, the longest run.
unsigned bits_find_run(const uint64_t *words, unsigned from, unsigned to, unsigned want,
                       unsigned *ret_len);
bool bits_all(const uint64_t *words, unsigned from, unsigned count, bool value);
void bits_fill(uint64_t *words, unsigned from, unsigned count, bool value);
unsigned bits_count_zeros(const uint64_t *words);

// ---- blocks on disk (space_format.c) ----

struct space_ref { // of a bitmap block; never written: only the slot is set
    uint64_t checksum;
    uint32_t free; // zero bits of blocks that exist in that map
    uint8_t slot;
};

// `words`: GROUP_WORDS, in the order of the host; ref->free and ref->slot are set. Both return the
// checksum for the reference.
uint64_t space_encode_bitmap(uint8_t *bytes, const uint8_t uuid[16], uint64_t group,
                             const struct space_ref *ref, uint64_t sequence, const uint64_t *words);
void space_decode_bitmap(const uint8_t *bytes, uint64_t *words); // of a validated one
uint64_t space_encode_index(uint8_t *bytes, const uint8_t uuid[16], uint64_t index, unsigned slot,
                            uint64_t sequence, const struct space_ref *refs, unsigned count);
unsigned space_decode_index(const uint8_t *bytes, struct space_ref *refs); // likewise; count
// The bits of a group of which nothing is in use.
void space_fresh_bits(uint64_t group, uint64_t *words);

// ---- ranges of an interval: appended under the lock, sorted when the checkpoint writes ----

struct range {
    uint64_t address, count;
};

#define RANGES_PER_CHUNK 255u
struct range_chunk {
    struct range_chunk *next;
    size_t count;
    struct range ranges[RANGES_PER_CHUNK];
};

struct range_list {
    struct range_chunk *first, *last;
    size_t count;    // ranges
    uint64_t blocks; // in all of them
};

// ---- groups ----

struct space_bits { // of a loaded group
    struct list link;
    uint64_t group;
    uint32_t outstanding; // bits in used and not in disk
    uint32_t run_max;     // no free run is longer; >= 1 while one is free
    uint32_t rover_small, rover_large;
    uint64_t used[GROUP_WORDS];
    uint64_t disk[GROUP_WORDS];
};

struct space_group {
    struct space_ref ref; // published
    uint32_t free;        // can be allocated now
    uint32_t held;        // of `used`: free in the published map and held (space_hold())
    bool bad;             // its bitmap could not be read: nothing is allocated there
    struct space_bits *bits;
};

struct space_index {
    uint64_t checksum; // published, as are `free` and `slot`
    uint32_t free;
    uint8_t slot;
    struct space_group groups[GROUPS_PER_INDEX];
};

struct space {
    struct space_config config;
    struct space_index *indexes[INDEX_MAX];
    uint64_t capacity;
    uint64_t published_blocks; // capacity in the published map
    uint64_t limit;            // capacity never grows above it, but by claims
    uint64_t file_blocks;      // length of `data` when it was opened
    uint64_t free, reserved, waiting;

    struct list loaded; // struct space_bits, longest unused first
    size_t loaded_count, loaded_max;
    uint64_t loaded_free;
    uint64_t loaded_want; // an operation loads group after group until that much is free in them
    struct space_bits *current;
    uint64_t fruitless; // no loaded group is known to have a run of so many blocks
    bool settled;       // no other group is worth loading for its longer runs
    bool thin_asked;    // one was asked for since the last successful space_prepare()

    bool growing;
    struct af_cond grown;
    bool host_full;
    uint64_t host_left; // bytes of the host that growth does not take
    unsigned refused;   // since host_full
    bool recovering;

    bool frozen;                     // an interval waits for its publication
    struct range_list allocs, frees; // of the current interval
    struct range_chunk *spare;
    size_t spare_count;
    int broken; // why no further map may be published

    struct space_frozen *next_frozen; // memory for space_freeze()
    uint64_t interval;                // number of the current one
    unsigned holds;
    uint64_t hold_from; // frees of this interval and later ones are held
    struct range_list held;
};

static inline unsigned group_bit(uint64_t address)
{
    return (unsigned)(address % GROUP_BLOCKS);
}

static inline uint64_t groups_of(uint64_t blocks)
{
    return (blocks + GROUP_BLOCKS - 1) / GROUP_BLOCKS;
}

static inline uint64_t indexes_of(uint64_t blocks)
{
    return (groups_of(blocks) + GROUPS_PER_INDEX - 1) / GROUPS_PER_INDEX;
}

// Blocks that index block `index` speaks of when `data` has `blocks` blocks.
static inline uint64_t index_blocks(uint64_t blocks, uint64_t index)
{
    uint64_t each = (uint64_t)GROUPS_PER_INDEX * GROUP_BLOCKS, first = index * each;
    return blocks <= first ? 0 : AF_MIN(blocks - first, each);
}

// Entries in use of index block `index` when `data` has `blocks` blocks.
static inline unsigned index_entries(uint64_t blocks, uint64_t index)
{
    return (unsigned)groups_of(index_blocks(blocks, index));
}

static inline struct space_group *space_group(struct space *sp, uint64_t group)
{
    return &sp->indexes[group / GROUPS_PER_INDEX]->groups[group % GROUPS_PER_INDEX];
}

// Blocks of `group` when `data` has `blocks` blocks.
static inline unsigned group_blocks(uint64_t blocks, uint64_t group)
{
    return (unsigned)AF_MIN(blocks - group * GROUP_BLOCKS, (uint64_t)GROUP_BLOCKS);
}

// Whether [address, address + count) can be blocks in use: inside `data`, in one group, not of the
// map itself.
bool space_range_ok(const struct space *sp, uint64_t address, uint64_t count);
// space.c: raises the capacity; 0 or -ENOMEM.
int space_set_capacity(struct space *sp, uint64_t blocks);
// Adds to (or, negative, takes from) what is free in a group and in sum.
void space_count_free(struct space *sp, struct space_group *g, int64_t blocks);

// space_group.c: reads and checks the bitmap of a group of `blocks` blocks into `words`; without
// the lock.
int space_read_bitmap(struct space *sp, uint64_t group, const struct space_ref *ref,
                      unsigned blocks, uint64_t *words);
// The group worth loading most: with most free blocks. UINT64_MAX: there is none with at least
// `least`.
uint64_t space_best_unloaded(struct space *sp, uint32_t least);
void space_unload(struct space *sp, struct space_group *g);

// space_frozen.c: sets what is held in the bitmap of a group that was just read.
void space_held_bits(struct space *sp, struct space_group *g, struct space_bits *b);
// space_frozen.c: keeps chunks ready, so that appending does not fail; 0 or -ENOMEM.
int space_fill_spares(struct space *sp);
void space_append(struct space *sp, struct range_list *list, uint64_t address, uint64_t count);
void range_list_free(struct range_list *list);

#endif
