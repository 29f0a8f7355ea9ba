// SPDX-License-Identifier: MIT
// Opening what is left of a damaged store (rescue.h): base, nodes, log.

#include "checkpoint/rescue.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "checkpoint/rescue_internal.h"
#include "store/node.h"
#include "store/op.h"

#define CACHE_BYTES (UINT64_C(256) << 20)
#define NOWHERE     (UINT64_C(1) << 50)
#define LOST_MAX    1000000u // nodes that are replaced, each of which stays in memory

void rescue_note(struct rescue *r, const char *fmt, ...)
{
    char text[800];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap); // a cut sentence still tells
    va_end(ap);
    r->given_up++;
    r->options->note(r->options->arg, text);
}

static void progress(void *arg, uint64_t done, uint64_t total)
{
    struct rescue *r = arg;

    if (r->options->progress)
        r->options->progress(r->options->arg, "searching data, blocks", done, total);
}

// ---- the search of `data`, once ----

// From whatever still knows it: a superblock, a segment of the log, the first block of `data`.
static bool find_uuid(struct rescue *r, uint8_t uuid[16])
{
    struct block_header_disk h;
    uint8_t bytes[BLOCK_BYTES];

    if (r->x->sb) {
        memcpy(uuid, r->x->sb->image.uuid, 16);
        return true;
    }
    if (rescue_log_identity(r, uuid))
        return true;
    for (uint64_t slot = 0; slot < 2; slot++) {
        if (io_pread(r->data, bytes, BLOCK_BYTES, slot * BLOCK_BYTES) < 0)
            continue;
        memcpy(&h, bytes, sizeof(h));
        if (le32_get(h.magic) == BLOCK_MAGIC && h.type == BLOCK_TYPE_BITMAP &&
            le64_get(h.address) == slot) {
            memcpy(uuid, h.uuid, 16);
            return true;
        }
    }
    return false;
}

static int search(struct rescue *r, const uint8_t uuid[16])
{
    if (r->searched || r->options->no_search)
        return 0;
    r->searched = true;
    return node_search_run(&r->search, r->data, uuid, progress, r);
}

// ---- what the map has in use, where it can be read ----

static bool load_map(struct rescue *r, uint64_t group)
{
    const struct space_image *image = &r->x->sb->image.space;
    const uint8_t *uuid = r->x->sb->image.uuid;
    struct map_ref_disk ref;
    uint64_t index = group / GROUPS_PER_INDEX;

    if (index >= image->index_count)
        return false;
    ref = image->refs[index];
    for (unsigned step = 0; step < 2; step++) {
        enum block_type type = step == 0 ? BLOCK_TYPE_INDEX : BLOCK_TYPE_BITMAP;

        if (ref.slot > 1)
            return false;
        uint64_t address = step == 0 ? space_index_address(index, ref.slot)
                                     : space_bitmap_address(group, ref.slot);
        if (io_pread(r->data, r->map, BLOCK_BYTES, address * BLOCK_BYTES) < 0 ||
            space_validate(r->map, type, address, le64_get(ref.checksum), uuid) < 0)
            return false;
        if (step == 0)
            memcpy(&ref,
                   r->map + sizeof(struct block_header_disk) +
                       group % GROUPS_PER_INDEX * sizeof(ref),
                   sizeof(ref));
    }
    return true;
}

static bool in_use(void *arg, uint64_t address)
{
    struct rescue *r = arg;
    uint64_t group = address / GROUP_BLOCKS, bit = address % GROUP_BLOCKS;

    if (r->map_group != group) {
        r->map_group = group;
        r->map_known = load_map(r, group);
    }
    return !r->map_known ||
           (r->map[sizeof(struct block_header_disk) + bit / 8] >> bit % 8 & 1) != 0;
}

// ---- nodes that cannot be read ----

static int add_lost(struct rescue *r, const struct key *low, const struct key *next, bool last,
                    bool certain)
{
    if (r->lost_count == r->lost_cap) {
        size_t cap = r->lost_cap ? 2 * r->lost_cap : 64;
        struct rescue_range *list = realloc(r->lost, cap * sizeof(list[0]));

        if (!list)
            return -ENOMEM;
        r->lost = list;
        r->lost_cap = cap;
    }
    r->lost[r->lost_count++] = (struct rescue_range){*low, *next, last, certain};
    return 0;
}

// Between and beside the nodes that were found something may be missing, of which nobody knows.
static int add_gaps(struct rescue *r, const struct tree_way *way, const uint8_t *node)
{
    struct key low = way->low;
    int err = 0;

    for (unsigned i = 0; i < node_count(node) && err == 0; i++) {
        struct blkref ref = node_child(node, i);

        for (size_t k = 0; k < r->search.count; k++) {
            const struct node_found *n = &r->search.list[k];

            if (n->ref.address != ref.address)
                continue;
            if (key_compare(&low, &n->first) < 0)
                err = add_lost(r, &low, &n->first, false, false);
            low = n->last;
            low.off++; // the last item itself is there
            break;
        }
    }
    return err < 0 ? err : add_lost(r, &low, &way->next, way->last, false);
}

// An inner node may not be empty: its one child is an empty leaf, or leads to one. These stand at
// addresses that no file reaches.
static int patch_empty(struct rescue *r, const struct tree_way *way, const uint8_t uuid[16])
{
    struct blkref ref = way->ref[way->level];
    uint8_t bytes[BLOCK_BYTES];
    int err = 0;

    for (unsigned level = way->level; err == 0; level--) {
        struct blkref child = {NOWHERE + r->placed, 1, ref.generation};

        memset(bytes, 0, sizeof(bytes));
        node_init(bytes, uuid, ref.address, ref.generation, level);
        if (level > 0)
            node_insert_child(bytes, 0, &way->low, &child);
        err = store_patch(r->store, &ref, level, bytes);
        if (level == 0)
            break;
        r->placed++;
        ref = child;
    }
    return err;
}

static int replace_node(struct rescue *r, const struct tree_way *way, int cause)
{
    const struct blkref *ref = &way->ref[way->level];
    const struct superblock *sb = r->x->sb;
    uint8_t bytes[BLOCK_BYTES], uuid[16];
    unsigned children = 0, level = way->level;
    int err = 0;

    if (++r->lost_nodes > LOST_MAX) {
        rescue_note(r, "more than %u tree nodes cannot be read; this is the end", LOST_MAX);
        return cause;
    }
    if (!find_uuid(r, uuid))
        return cause;
    if (level > 0) {
        err = search(r, uuid);
        children = node_search_children(&r->search, way, uuid,
                                        sb && !r->searched_root ? in_use : NULL, r, bytes);
    }
    if (err < 0)
        return err;
    if (children > 0) {
        r->found_nodes += children;
        rescue_note(
            r,
            "the tree node at block %" PRIu64
            " of data (level %u) cannot be read: %s; a search has "
            "found %u nodes that may have hung below it: whether they are the newest and whole, "
            "only that node knew",
            ref->address, level, err_text(cause), children);
        err = add_gaps(r, way, bytes);
        return err < 0 ? err : store_patch(r->store, ref, level, bytes);
    }
    rescue_note(r,
                "the tree node at block %" PRIu64
                " of data (level %u) cannot be read: %s; what hung below "
                "it is lost: numbers %" PRIu64 " to %" PRIu64 "%s",
                ref->address, level, err_text(cause), way->low.ino,
                way->last ? way->low.ino : way->next.ino, way->last ? " and above" : "");
    err = add_lost(r, &way->low, &way->next, way->last, true);
    if (err < 0)
        return err;
    return patch_empty(r, way, uuid);
}

// Afterwards everything that the tree leads to can be read.
static int replace_nodes(struct rescue *r)
{
    struct store_leaf *leaf = malloc(sizeof(*leaf));
    struct key at = key_make(0, 0, 0);
    uint64_t before = 0;
    int err = leaf ? 0 : -ENOMEM;

    while (err == 0) {
        err = store_walk(r->store, r->data, 0, at, leaf);
        if (err == 0) {
            before = 0;
            if (leaf->way.last)
                break;
            at = leaf->way.next;
        } else if ((err_is_corruption(err) || err == -EIO) &&
                   leaf->way.ref[leaf->way.level].address != before) {
            before = leaf->way.ref[leaf->way.level].address;
            err = replace_node(r, &leaf->way, err);
        }
    }
    free(leaf);
    return err;
}

// ---- the base ----

static int open_base(struct rescue *r, const struct store_image *image)
{
    const struct store_config config = {
        .io = r->io,
        .data = r->data,
        .cache_bytes = CACHE_BYTES,
        .read_only = true,
        .sealed_blocks = AF_MAX(AF_MAX(r->highest_block, image->space.data_blocks), (uint64_t)1),
    };
    int err = store_open_rescue(&config, image, &r->store);

    if (err < 0) {
        r->store = NULL;
        return err;
    }
    r->generation = image->generation;
    r->base_lsn = r->last_lsn = image->cut_lsn;
    return replace_nodes(r);
}

// Without a superblock that could be trusted to be the newest.
static int open_searched(struct rescue *r, uint64_t above)
{
    struct store_image image = {.next_ino = INO_MAX / 2};
    int err;

    if (r->options->no_search || !find_uuid(r, image.uuid))
        return -ENOENT;
    err = search(r, image.uuid);
    if (err < 0)
        return err;
    if (!node_search_root(&r->search, r->data, image.uuid, above, &image.root))
        return -ENOENT;
    image.generation = image.root.ref.generation;
    image.hash_seed = r->x->sb ? r->x->sb->image.hash_seed : 0;
    r->searched_root = true;
    err = open_base(r, &image);
    if (err < 0)
        return err;
    err = store_highest_lsn(r->store, &r->base_lsn);
    r->last_lsn = r->base_lsn;
    rescue_note(
        r,
        "the tree comes from a root of generation %" PRIu64 ", at block %" PRIu64
        " of data, that a search has found and no superblock names; the newest change in it is LSN "
        "%" PRIu64,
        image.generation, image.root.ref.address, r->base_lsn);
    return err;
}

static int choose_base(struct rescue *r)
{
    const struct superblock *sb = r->x->sb;
    int err = sb ? examine_log(r->x, NULL, NULL) : -AF_E_SB_NONE;

    if (err == 0)
        return open_base(r, &sb->image);
    rescue_note(r, "the store cannot be mounted: %s", r->x->message);
    if (err == -AF_E_SB_STALE || !sb) {
        r->stale = true;
        err = open_searched(r, sb ? sb->image.root.ref.generation : 0);
        if (err != -ENOENT || !sb)
            return err == -ENOENT ? -AF_E_SB_NONE : err;
        rescue_note(
            r,
            "the root of superblock %" PRIu64 ", of LSN %" PRIu64
            ", is the newest that was found: what has changed since and is not in the log is "
            "missing",
            sb->sequence, sb->log.cut_lsn);
    }
    return open_base(r, &sb->image);
}

// ---- the whole ----

int rescue_open(struct rescue *r, struct io *io, struct examination *x,
                const struct rescue_options *options)
{
    AF_ASSERT(io->read_only);
    *r = (struct rescue){.io = io, .x = x, .options = options, .map_group = UINT64_MAX};
    r->map = malloc(BLOCK_BYTES);
    if (!r->map)
        return -ENOMEM;
    int err = io_file_open(io, "data", IO_READ_ONLY, &r->data);
    if (err < 0) {
        r->data = NULL;
        rescue_note(r, "the file 'data' cannot be opened: %s", err_text(err));
        return err;
    }
    rescue_log_blocks(r);
    err = choose_base(r);
    if (err == 0)
        err = rescue_replay(r);
    if (err < 0)
        rescue_note(r, "the tree cannot be opened: %s (%s)", err_text(err), err_name(err));
    return err;
}

void rescue_close(struct rescue *r)
{
    store_close(r->store);
    io_file_close(r->data);
    node_search_free(&r->search);
    free(r->lost);
    free(r->map);
    *r = (struct rescue){0};
}

bool rescue_lost(const struct rescue *r, uint64_t id, uint8_t kind, bool certain, uint64_t *off,
                 uint64_t *end)
{
    struct key at = key_make(id, kind, *off), last = key_make(id, kind, UINT64_MAX);
    bool found = false;

    for (size_t i = 0; i < r->lost_count; i++) {
        const struct rescue_range *l = &r->lost[i];
        struct key low = key_compare(&l->low, &at) > 0 ? l->low : at;

        if (certain && !l->certain)
            continue;
        if (key_compare(&low, &last) > 0 || (!l->last && key_compare(&l->next, &low) <= 0))
            continue;
        if (found && low.off >= *off)
            continue;
        found = true;
        *off = low.off;
        *end = !l->last && l->next.ino == id && l->next.kind == kind ? l->next.off : UINT64_MAX;
    }
    return found;
}
