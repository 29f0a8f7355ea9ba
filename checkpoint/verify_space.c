// SPDX-License-Identifier: MIT
// Verification of the space map: a bitmap of what the tree reaches is made in memory, and compared
// with the one on disk, group by group. In the map of a checkpoint exactly what it reaches is in
// use.

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "checkpoint/verify_internal.h"

#define GROUP_WORDS (GROUP_BLOCKS / 64u)

static bool bit_get(const uint64_t *bits, uint64_t i)
{
    return (bits[i / 64] >> (i % 64) & 1) != 0;
}

static void bit_set(uint64_t *bits, uint64_t i)
{
    bits[i / 64] |= UINT64_C(1) << (i % 64);
}

static uint64_t group_count(const struct verify *v)
{
    return (v->sb->image.space.data_blocks + GROUP_BLOCKS - 1) / GROUP_BLOCKS;
}

int verify_space_begin(struct verify *v)
{
    const uint64_t groups = group_count(v);

    // Whole groups, so that a group's bits are whole words.
    v->bits = calloc((size_t)(groups + 1) * GROUP_WORDS, sizeof(v->bits[0]));
    if (!v->bits)
        return -ENOMEM;
    for (uint64_t g = 0; g < groups; g++) {
        for (unsigned i = 0; i < space_group_reserved(g); i++)
            bit_set(v->bits, g * GROUP_BLOCKS + i);
        v->result->blocks_reached += space_group_reserved(g);
    }
    return 0;
}

bool verify_mark(struct verify *v, uint64_t ino, uint64_t address, uint64_t count)
{
    const uint64_t end = v->sb->image.space.data_blocks;
    struct verify_finding f = {.code = -AF_E_ITEM, .file = "data", .address = address, .ino = ino};

    if (address >= end || count > end - address) {
        verify_found(v, &f,
                     "blocks %" PRIu64 " to %" PRIu64 " are referred to by number %" PRIu64
                     " and lie behind the end, %" PRIu64,
                     address, address + count - 1, ino, end);
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (!bit_get(v->bits, address + i))
            continue;
        f.address = address + i;
        if ((address + i) % GROUP_BLOCKS < space_group_reserved((address + i) / GROUP_BLOCKS))
            verify_found(v, &f,
                         "block %" PRIu64 " is referred to by number %" PRIu64
                         " and belongs to the space map",
                         f.address, ino);
        else
            verify_found(v, &f,
                         "block %" PRIu64 " is referred to by number %" PRIu64
                         " and is in use elsewhere too",
                         f.address, ino);
        return false;
    }
    for (uint64_t i = 0; i < count; i++)
        bit_set(v->bits, address + i);
    v->result->blocks_reached += count;
    return true;
}

bool verify_marked(const struct verify *v, uint64_t address)
{
    return address < v->sb->image.space.data_blocks && bit_get(v->bits, address);
}

// ---- the map on disk ----

static void map_damage(struct verify *v, uint64_t address, int code, const char *what)
{
    struct verify_finding f = {.code = code, .file = "data", .address = address};

    verify_found(v, &f, "space map, block %" PRIu64 ": %s: %s (%s)", address, what, err_text(code),
                 err_name(code));
}

static bool read_map_block(struct verify *v, enum block_type type, uint64_t address,
                           const struct map_ref_disk *ref, uint8_t *bytes)
{
    int err = io_pread(v->data, bytes, BLOCK_BYTES, address * BLOCK_BYTES);

    if (err == 0)
        err = space_validate(bytes, type, address, le64_get(ref->checksum), v->sb->image.uuid);
    if (err == 0 &&
        le64_get(((const struct block_header_disk *)bytes)->generation) > v->sb->sequence)
        err = -AF_E_BLOCK_GENERATION;
    verify_progress(v, 1);
    if (err < 0)
        map_damage(v, address, err, "cannot be used");
    return err == 0;
}

// One run of blocks that the map and the tree see differently.
static void difference(struct verify *v, uint64_t first, uint64_t count, bool marked,
                       unsigned *shown)
{
    struct verify_finding f = {.code = -AF_E_SPACE_LAYOUT, .file = "data", .address = first};

    if (marked)
        v->result->blocks_leaked += count;
    else
        v->result->blocks_missing += count;
    // What an unreadable node refers to is marked and not reached: that says nothing.
    if ((marked && !v->result->complete) || ++*shown > DIFFERENCES_SHOWN)
        return;
    verify_found(v, &f, "blocks %" PRIu64 " to %" PRIu64 " are %s", first, first + count - 1,
                 marked ? "marked as in use, and nothing refers to them"
                        : "marked as free, and in use");
}

static void compare_group(struct verify *v, uint64_t group, const uint64_t *disk)
{
    const uint64_t *reached = v->bits + group * GROUP_WORDS;
    unsigned shown = 0;

    for (unsigned i = 0; i < GROUP_BLOCKS;) {
        bool marked = bit_get(disk, i);
        unsigned first = i;

        if (i % 64 == 0 && disk[i / 64] == reached[i / 64]) {
            i += 64;
            continue;
        }
        if (marked == bit_get(reached, i)) {
            i++;
            continue;
        }
        while (i < GROUP_BLOCKS && bit_get(disk, i) == marked && bit_get(reached, i) == !marked)
            i++;
        difference(v, group * GROUP_BLOCKS + first, i - first, marked, &shown);
    }
    for (unsigned i = 0; i < GROUP_WORDS; i++)
        v->result->blocks_marked += (uint64_t)__builtin_popcountll(disk[i]);
}

static bool check_group(struct verify *v, uint64_t group, const struct map_ref_disk *ref,
                        uint8_t *bytes)
{
    uint64_t words[GROUP_WORDS] = {0};
    uint64_t address = space_bitmap_address(group, ref->slot);

    if (ref->slot == SLOT_NEVER) {
        for (unsigned i = 0; i < space_group_reserved(group); i++)
            bit_set(words, i);
    } else {
        if (!read_map_block(v, BLOCK_TYPE_BITMAP, address, ref, bytes))
            return false;
        if (le32_get(((const struct block_header_disk *)bytes)->count) != le32_get(ref->free))
            map_damage(v, address, -AF_E_SPACE_LAYOUT,
                       "its count of free blocks is not that of the index");
        for (unsigned i = 0; i < GROUP_WORDS; i++) {
            le64 word;

            memcpy(&word, bytes + sizeof(struct block_header_disk) + 8 * i, sizeof(word));
            words[i] = le64_get(word);
        }
    }
    compare_group(v, group, words);
    return true;
}

static bool check_index(struct verify *v, uint32_t index, const struct map_ref_disk *ref,
                        uint8_t *bitmap)
{
    uint8_t block[BLOCK_BYTES];
    uint64_t address = space_index_address(index, ref->slot), groups = group_count(v), sum = 0;
    const struct map_ref_disk *refs =
        (const struct map_ref_disk *)(block + sizeof(struct block_header_disk));
    bool whole = true;

    if (ref->slot > 1) {
        map_damage(v, space_index_address(index, 0), -AF_E_SPACE_LAYOUT,
                   "the superblock names no slot for this index");
        return false;
    }
    if (!read_map_block(v, BLOCK_TYPE_INDEX, address, ref, block))
        return false;
    uint32_t count = le32_get(((const struct block_header_disk *)block)->count);
    uint64_t first = (uint64_t)index * GROUPS_PER_INDEX;

    if (first >= groups || count != AF_MIN(groups - first, (uint64_t)GROUPS_PER_INDEX)) {
        map_damage(v, address, -AF_E_SPACE_LAYOUT,
                   "it speaks of another number of groups than there are");
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        sum += le32_get(refs[i].free);
        whole = check_group(v, first + i, &refs[i], bitmap) && whole;
    }
    if (sum != le32_get(ref->free))
        map_damage(v, address, -AF_E_SPACE_LAYOUT,
                   "its sum of free blocks is not that of the superblock");
    return whole;
}

void verify_space(struct verify *v)
{
    const struct space_image *space = &v->sb->image.space;
    uint64_t groups = group_count(v);
    uint8_t *bitmap = malloc(BLOCK_BYTES);
    bool whole = true;

    if (!bitmap) {
        v->fatal = -ENOMEM;
        return;
    }
    if (space->index_count != (groups + GROUPS_PER_INDEX - 1) / GROUPS_PER_INDEX)
        map_damage(v, 0, -AF_E_SPACE_LAYOUT,
                   "the superblock has another number of index blocks than `data` needs");
    for (uint32_t i = 0; i < space->index_count; i++)
        whole = check_index(v, i, &space->refs[i], bitmap) && whole;
    free(bitmap);
    if (whole && v->result->blocks_marked != space->used_blocks) {
        struct verify_finding f = {.code = -AF_E_SPACE_LAYOUT, .file = SUPERBLOCK_FILE};

        verify_found(v, &f,
                     "the superblock counts %" PRIu64 " blocks in use, the space map %" PRIu64,
                     space->used_blocks, v->result->blocks_marked);
    }
    if (v->result->blocks_leaked > 0 && !v->result->complete) {
        struct verify_finding f = {.severity = VERIFY_NOTE, .file = "data"};

        verify_found(v, &f, "%" PRIu64 " blocks are marked as in use by what cannot be read",
                     v->result->blocks_leaked);
        v->result->blocks_leaked = 0;
    }
}
