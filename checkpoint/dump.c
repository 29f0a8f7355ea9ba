// SPDX-License-Identifier: MIT
// Dump of superblocks, tree and space map (dump.h). Blocks are validated as everywhere; one that is
// not valid yields a line that says so, and the walk goes on beside it.

#include "checkpoint/dump.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "checkpoint/dump_item.h"
#include "checkpoint/superblock.h"
#include "store/btree.h"

struct dump {
    const struct dump_options *options;
    struct io_file *data;
    const struct superblock *sb;
    struct buf text;
    int stop; // what ends it
};

static void line(struct dump *d, const char *fmt, ...) AF_PRINTF(2, 3);

static void emit(struct dump *d)
{
    buf_put_u8(&d->text, 0);
    if (d->text.failed)
        d->stop = -ENOMEM;
    if (d->stop == 0)
        d->stop = d->options->line(d->options->arg, (const char *)d->text.bytes);
    buf_reset(&d->text);
}

static void line(struct dump *d, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    buf_put(&d->text, text, strlen(text));
    emit(d);
}

// ---- superblocks ----

static void dump_superblock(struct dump *d, unsigned slot, const struct superblock *sb)
{
    const struct store_image *image = &sb->image;
    const struct wal_start *log = &sb->log;

    line(d, "superblock slot %u: sequence %" PRIu64 "%s", slot, sb->sequence,
         sb->clean ? ", clean" : "");
    line(d, "  created %" PRIu64 ", written %" PRIu64 ", features_ro_compat %#" PRIx64, sb->created,
         sb->written, sb->features_ro_compat);
    line(d,
         "  log: epoch %" PRIu64 ", cut_lsn %" PRIu64 ", cut_checksum %016" PRIx64
         ", next_lsn %" PRIu64 ", log_segment %" PRIu64 ", segment_bytes %" PRIu64,
         log->epoch, log->cut_lsn, log->cut_checksum, log->next_lsn, log->log_segment,
         log->segment_bytes);
    line(d,
         "  tree: generation %" PRIu64 ", root at block %" PRIu64 ", checksum %016" PRIx64
         ", born %" PRIu64 ", level %u",
         image->generation, image->root.ref.address, image->root.ref.checksum,
         image->root.ref.generation, image->root.level);
    line(d,
         "  inodes %" PRIu64 ", next_ino %" PRIu64 ", data_blocks %" PRIu64 ", used_blocks %" PRIu64
         ", index_count %" PRIu32,
         image->inodes, image->next_ino, image->space.data_blocks, image->space.used_blocks,
         image->space.index_count);
}

static void dump_superblocks(struct dump *d, const struct superblock_slots *slots)
{
    for (unsigned i = 0; i < 2; i++) {
        if (slots->result[i] == 0)
            dump_superblock(d, i, &slots->sb[i]);
        else
            line(d, "superblock slot %u: not valid: %s (%s)", i, err_text(slots->result[i]),
                 err_name(slots->result[i]));
    }
    if (slots->chosen >= 0)
        line(d, "superblock in force: slot %d", slots->chosen);
}

// ---- tree ----

struct dump_level {
    uint8_t bytes[BLOCK_BYTES];
    unsigned index;
};

static bool wanted(const struct dump *d, struct key key)
{
    return d->options->ino == 0 || key.ino == d->options->ino;
}

static void dump_leaf(struct dump *d, const uint8_t *bytes)
{
    for (unsigned i = 0; i < node_count(bytes) && d->stop == 0; i++) {
        size_t len;
        const void *value = node_value(bytes, i, &len);
        struct key key = node_key(bytes, i);

        if (!wanted(d, key))
            continue;
        dump_item(key, value, len, &d->text);
        emit(d);
    }
}

// With a number asked for: can the range of child `i` hold it?
static bool child_wanted(const struct dump *d, const uint8_t *bytes, unsigned i)
{
    const uint64_t ino = d->options->ino;

    if (ino == 0)
        return true;
    return (i == 0 || node_key(bytes, i).ino <= ino) &&
           (i + 1 == node_count(bytes) || node_key(bytes, i + 1).ino >= ino);
}

static bool read_node(struct dump *d, const struct blkref *ref, unsigned level, uint8_t *bytes)
{
    int err = ref->address >= UINT64_MAX / BLOCK_BYTES
                  ? -AF_E_IO_SHORT
                  : io_pread(d->data, bytes, BLOCK_BYTES, ref->address * BLOCK_BYTES);

    if (err == 0)
        err = node_validate(bytes, ref, level, d->sb->image.uuid);
    if (err < 0)
        line(d, "node at block %" PRIu64 ", level %u: not valid: %s (%s)", ref->address, level,
             err_text(err), err_name(err));
    else if (d->options->parts & DUMP_NODES)
        line(d,
             "node at block %" PRIu64 ", level %u, born %" PRIu64 ", checksum %016" PRIx64
             ", %u items",
             ref->address, level, ref->generation, ref->checksum, node_count(bytes));
    return err == 0;
}

// A node of generation g refers only to nodes that were there before it, and levels fall: this
// ends.
static void dump_tree(struct dump *d)
{
    const struct tree_root *root = &d->sb->image.root;
    struct dump_level *stack = malloc((NODE_LEVEL_MAX + 1) * sizeof(*stack));
    unsigned level = root->level;

    if (!stack) {
        d->stop = -ENOMEM;
        return;
    }
    stack[level].index = 0;
    bool there = read_node(d, &root->ref, level, stack[level].bytes);

    while (there && d->stop == 0) {
        struct dump_level *l = &stack[level];

        if (level == 0)
            dump_leaf(d, l->bytes);
        if (level > 0 && l->index < node_count(l->bytes)) {
            unsigned i = l->index++;
            struct blkref ref = node_child(l->bytes, i);

            if (child_wanted(d, l->bytes, i) &&
                read_node(d, &ref, level - 1, stack[level - 1].bytes)) {
                level--;
                stack[level].index = 0;
            }
            continue;
        }
        if (level == root->level)
            break;
        level++;
    }
    free(stack);
}

// ---- space map ----

static bool read_map_block(struct dump *d, enum block_type type, uint64_t address,
                           const struct map_ref_disk *ref, uint8_t *bytes)
{
    int err = io_pread(d->data, bytes, BLOCK_BYTES, address * BLOCK_BYTES);

    if (err == 0)
        err = space_validate(bytes, type, address, le64_get(ref->checksum), d->sb->image.uuid);
    if (err < 0)
        line(d, "%s at block %" PRIu64 ": not valid: %s (%s)",
             type == BLOCK_TYPE_INDEX ? "index" : "bitmap", address, err_text(err), err_name(err));
    return err == 0;
}

static void dump_group(struct dump *d, uint64_t group, const struct map_ref_disk *ref)
{
    uint8_t bytes[BLOCK_BYTES];

    if (ref->slot == SLOT_NEVER) {
        line(d, "  group %" PRIu64 ": never written", group);
        return;
    }
    if (!read_map_block(d, BLOCK_TYPE_BITMAP, space_bitmap_address(group, ref->slot), ref, bytes))
        return;
    line(d, "  group %" PRIu64 ": slot %u, %" PRIu32 " bits clear, written by superblock %" PRIu64,
         group, ref->slot, le32_get(ref->free),
         le64_get(((const struct block_header_disk *)bytes)->generation));
}

static void dump_index(struct dump *d, uint32_t index, const struct map_ref_disk *ref)
{
    uint8_t bytes[BLOCK_BYTES];
    const struct map_ref_disk *refs =
        (const struct map_ref_disk *)(bytes + sizeof(struct block_header_disk));

    if (ref->slot > 1) {
        line(d, "index %" PRIu32 ": never written", index);
        return;
    }
    if (!read_map_block(d, BLOCK_TYPE_INDEX, space_index_address(index, ref->slot), ref, bytes))
        return;
    uint32_t count =
        AF_MIN(le32_get(((const struct block_header_disk *)bytes)->count), GROUPS_PER_INDEX);
    line(d, "index %" PRIu32 ": slot %u, %" PRIu32 " groups, %" PRIu32 " bits clear", index,
         ref->slot, count, le32_get(ref->free));
    for (uint32_t i = 0; i < count && d->stop == 0; i++)
        dump_group(d, (uint64_t)index * GROUPS_PER_INDEX + i, &refs[i]);
}

static void dump_space(struct dump *d)
{
    const struct space_image *space = &d->sb->image.space;

    for (uint32_t i = 0; i < space->index_count && d->stop == 0; i++)
        dump_index(d, i, &space->refs[i]);
}

// ---- all of it ----

static void dump_blocks(struct dump *d, struct io *io)
{
    int err = io_file_open(io, "data", IO_READ_ONLY, &d->data);

    if (err < 0) {
        line(d, "data: cannot be opened: %s (%s)", err_text(err), err_name(err));
        return;
    }
    if (d->options->parts & (DUMP_TREE | DUMP_NODES))
        dump_tree(d);
    if (d->stop == 0 && (d->options->parts & DUMP_SPACE))
        dump_space(d);
    io_file_close(d->data);
}

int dump_store(struct io *io, const struct dump_options *options)
{
    struct dump d = {.options = options};
    struct superblock_slots slots;
    int err = superblock_load(io, &slots);

    if (err < 0)
        return err;
    buf_init(&d.text);
    if (options->parts & DUMP_SUPERBLOCKS)
        dump_superblocks(&d, &slots);
    if (slots.chosen >= 0 && d.stop == 0 && (options->parts & ~(unsigned)DUMP_SUPERBLOCKS)) {
        d.sb = &slots.sb[slots.chosen];
        dump_blocks(&d, io);
    }
    buf_free(&d.text);
    superblock_slots_free(&slots);
    return d.stop;
}
