// SPDX-License-Identifier: MIT
// Mutations of images, and checksums put right after them.
#include "tests/fuzz/mutate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "checkpoint/superblock.h"
#include "checkpoint/superblock_format.h"
#include "store/btree.h"
#include "store/space.h"
#include "wal/wal_format.h"

#define DATA_FILE "data"

// wal_record_seal() asserts what a mutation breaks.
static uint64_t seal_record(uint8_t *at, uint64_t salt, uint64_t prev)
{
    struct wal_disk_record disk;

    memcpy(&disk, at, sizeof(disk));
    disk.prev_checksum = le64_put(prev);
    disk.checksum = le64_put(0);
    memcpy(at, &disk, sizeof(disk));
    uint64_t sum = checksum(CSUM_RECORD, salt, at, sizeof(disk) + le32_get(disk.body_bytes));
    disk.checksum = le64_put(sum);
    memcpy(at, &disk, sizeof(disk));
    return sum;
}

void reseal_segment(uint8_t *bytes, size_t len)
{
    struct wal_disk_segment *h = (struct wal_disk_segment *)bytes;
    struct wal_frame frame;

    if (len < WAL_BLOCK)
        return;
    uint64_t salt =
        wal_format_salt(le64_get(h->log_seed), le64_get(h->epoch), le64_get(h->segment));
    h->checksum = le64_put(0);
    h->checksum = le64_put(checksum(CSUM_SEGMENT, salt, bytes, WAL_BLOCK));
    uint64_t prev = le64_get(h->prev_checksum);
    for (size_t at = WAL_BLOCK; at + WAL_RECORD_HEADER <= len;) {
        if (wal_frame_decode(bytes + at, len - at, &frame) < 0) {
            at = AF_ROUND_UP(at + 1, (size_t)WAL_BLOCK);
            continue;
        }
        prev = seal_record(bytes + at, salt, prev);
        at += wal_record_bytes(frame.body_bytes);
    }
}

void reseal_superblock(uint8_t slot[65536])
{
    struct superblock_disk *sb = (struct superblock_disk *)slot;
    uint32_t bytes = le32_get(sb->bytes);

    if (bytes < SUPERBLOCK_FIXED_BYTES || bytes > SUPERBLOCK_SLOT_BYTES)
        return;
    sb->checksum = le64_put(0);
    sb->checksum = le64_put(checksum(CSUM_SUPERBLOCK, 0, slot, bytes));
}

// ---- blocks ----

static bool get_block(struct sim *sim, uint64_t address, uint8_t *bytes)
{
    return address < UINT64_C(1) << 40 &&
           sim_read_raw(sim, DATA_FILE, address * BLOCK_BYTES, bytes, BLOCK_BYTES) == 0;
}

static void put_block(struct sim *sim, uint64_t address, const uint8_t *bytes)
{
    if (sim_write_raw(sim, DATA_FILE, address * BLOCK_BYTES, bytes, BLOCK_BYTES) < 0)
        abort();
}

// Puts right what leads from `node` to `address`; true when the node's own checksum has changed.
static bool reseal_below(struct sim *sim, uint64_t node, uint64_t address, unsigned depth)
{
    uint8_t bytes[BLOCK_BYTES], child[BLOCK_BYTES];
    struct block_header_disk *h = (struct block_header_disk *)bytes;
    bool changed = false;

    if (node == address)
        return true;
    if (depth > 4 || !get_block(sim, node, bytes) || h->type != BLOCK_TYPE_NODE || h->level == 0)
        return false;
    for (unsigned i = 0; i < le32_get(h->count) && i < 168; i++) {
        const struct slot_disk *slot = (const struct slot_disk *)(bytes + sizeof(*h)) + i;
        size_t off = le16_get(slot->value_off);
        struct blkref_disk ref;

        if (off > BLOCK_BYTES - sizeof(ref))
            continue;
        memcpy(&ref, bytes + off, sizeof(ref));
        if (!reseal_below(sim, le64_get(ref.address), address, depth + 1) ||
            !get_block(sim, le64_get(ref.address), child))
            continue;
        ref.checksum = le64_put(checksum(CSUM_NODE, 0, child, BLOCK_BYTES));
        memcpy(bytes + off, &ref, sizeof(ref));
        changed = true;
    }
    if (changed)
        put_block(sim, node, bytes);
    return changed;
}

// Index and bitmap blocks of the first group, all that a small store has.
static void reseal_map(struct sim *sim, struct superblock_disk *sb, uint64_t address)
{
    uint8_t index[BLOCK_BYTES], bitmap[BLOCK_BYTES];
    struct map_ref_disk *ref = &sb->refs[0];
    struct map_ref_disk *of_group =
        (struct map_ref_disk *)(index + sizeof(struct block_header_disk));
    uint64_t index_address = space_index_address(0, ref->slot & 1);

    if (le32_get(sb->index_count) == 0 || ref->slot > 1 || !get_block(sim, index_address, index))
        return;
    if (of_group->slot <= 1 && address == space_bitmap_address(0, of_group->slot) &&
        get_block(sim, address, bitmap)) {
        of_group->checksum = le64_put(checksum(CSUM_BITMAP, 0, bitmap, BLOCK_BYTES));
        put_block(sim, index_address, index);
    }
    ref->checksum = le64_put(checksum(CSUM_INDEX, 0, index, BLOCK_BYTES));
}

void reseal_block(struct sim *sim, uint64_t address)
{
    static uint8_t slot[SUPERBLOCK_SLOT_BYTES];
    uint8_t root[BLOCK_BYTES];

    for (unsigned i = 0; i < 2; i++) {
        struct superblock_disk *sb = (struct superblock_disk *)slot;
        uint64_t off = (uint64_t)i * SUPERBLOCK_SLOT_BYTES;

        if (sim_read_raw(sim, SUPERBLOCK_FILE, off, slot, sizeof(slot)) < 0)
            return;
        if (address < 4)
            reseal_map(sim, sb, address);
        else if (reseal_below(sim, le64_get(sb->root.address), address, 0) &&
                 get_block(sim, le64_get(sb->root.address), root))
            sb->root.checksum = le64_put(checksum(CSUM_NODE, 0, root, BLOCK_BYTES));
        reseal_superblock(slot);
        if (sim_write_raw(sim, SUPERBLOCK_FILE, off, slot, sizeof(slot)) < 0)
            return;
    }
}

// ---- images ----

static void reseal_file(struct sim *sim, const char *path, uint64_t off, uint64_t bytes)
{
    static uint8_t slot[SUPERBLOCK_SLOT_BYTES];
    uint8_t *all;

    if (strcmp(path, DATA_FILE) == 0) {
        reseal_block(sim, off / BLOCK_BYTES);
    } else if (strcmp(path, SUPERBLOCK_FILE) == 0) {
        off -= off % sizeof(slot);
        if (sim_read_raw(sim, path, off, slot, sizeof(slot)) == 0) {
            reseal_superblock(slot);
            if (sim_write_raw(sim, path, off, slot, sizeof(slot)) < 0)
                abort();
        }
    } else {
        all = malloc(bytes);
        if (all && sim_read_raw(sim, path, 0, all, bytes) == 0) {
            reseal_segment(all, bytes);
            if (sim_write_raw(sim, path, 0, all, bytes) < 0)
                abort();
        }
        free(all);
    }
}

struct paths {
    char list[32][SIM_PATH_BYTES];
    size_t count;
};

static void note_path(void *arg, const char *path, bool is_dir)
{
    struct paths *p = arg;

    if (!is_dir && p->count < AF_ARRAY_LEN(p->list))
        snprintf(p->list[p->count++], SIM_PATH_BYTES, "%s", path);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void add_page(struct mutable_pages *pages, const char *path, uint64_t off)
{
    if (pages->count == pages->cap) {
        pages->cap = pages->cap ? 2 * pages->cap : 64;
        pages->list = realloc(pages->list, pages->cap * sizeof(pages->list[0]));
        if (!pages->list)
            abort();
    }
    struct mutable_page *page = &pages->list[pages->count++];
    *page = (struct mutable_page){.off = off};
    snprintf(page->path, sizeof(page->path), "%s", path);
}

void mutable_pages_find(const struct sim *sim, struct mutable_pages *ret)
{
    static const uint8_t zeros[BLOCK_BYTES];
    static uint8_t page[BLOCK_BYTES];
    struct paths paths = {.count = 0};
    uint64_t bytes;

    *ret = (struct mutable_pages){0};
    sim_each_path(sim, note_path, &paths);
    qsort(paths.list, paths.count, sizeof(paths.list[0]), by_name);
    for (size_t i = 0; i < paths.count; i++) {
        bool blank = false;

        if (sim_file_size(sim, paths.list[i], &bytes) < 0)
            abort();
        for (uint64_t off = 0; off + BLOCK_BYTES <= bytes; off += BLOCK_BYTES) {
            if (sim_read_raw(sim, paths.list[i], off, page, sizeof(page)) < 0)
                abort();
            bool empty = memcmp(page, zeros, sizeof(page)) == 0;
            if (!empty || !blank)
                add_page(ret, paths.list[i], off);
            blank = blank || empty;
        }
    }
}

enum { MUTATE_RESEAL = 1, MUTATE_COPY = 2, MUTATE_ZERO = 4 };

// An instruction of 12 bytes: flags; width and low bits of the place in the page; the rest of the
// place; the page; eight bytes to be put there, or the number of the page whose bytes are.
bool mutate_image(struct sim *sim, const struct mutable_pages *pages, const uint8_t *input,
                  size_t size)
{
    bool resealed = false;

    for (unsigned n = 0; size >= 12 && n < 16; n++, input += 12, size -= 12) {
        const struct mutable_page *page = &pages->list[input[3] % pages->count];
        const struct mutable_page *other = &pages->list[input[4] % pages->count];
        uint8_t bytes[BLOCK_BYTES] = {0};
        size_t width = (size_t)1 << (input[1] & 3), at = (size_t)input[2] << 4 | input[1] >> 4;
        uint64_t file_bytes;

        if (at > BLOCK_BYTES - width)
            at = BLOCK_BYTES - width;
        memcpy(bytes + at, input + 4, width);
        if (input[0] & (MUTATE_COPY | MUTATE_ZERO)) {
            memset(bytes, 0, sizeof(bytes));
            at = 0;
            width = sizeof(bytes);
        }
        if ((input[0] & MUTATE_COPY) &&
            sim_read_raw(sim, other->path, other->off, bytes, sizeof(bytes)) < 0)
            abort();
        if (sim_write_raw(sim, page->path, page->off + at, bytes + at, width) < 0 ||
            sim_file_size(sim, page->path, &file_bytes) < 0)
            abort();
        if (input[0] & MUTATE_RESEAL) {
            reseal_file(sim, page->path, page->off + at, file_bytes);
            resealed = true;
        }
    }
    return resealed;
}
