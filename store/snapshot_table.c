// SPDX-License-Identifier: MIT
// The table of snapshots on disk (docs/FORMAT.md, "Snapshots"): a chain of blocks, the newest
// entries in the block that the superblock names, each block with the checksum of the next older
// one. So a new snapshot writes one block, whatever their number.
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "base/io.h"
#include "store/blkref.h"
#include "store/snapshot.h"
#include "store/store_internal.h"

#define ROUND8(n) (((n) + 7) & ~(size_t)7)

static size_t entry_bytes(size_t name_len)
{
    return ROUND8(sizeof(struct snapshot_disk) + name_len);
}

static struct blkref ref_at(const uint8_t *bytes)
{
    struct blkref_disk d;

    memcpy(&d, bytes, sizeof(d));
    return blkref_get(&d);
}

// ---- reading ----

struct blkref snapshot_block_next(const uint8_t *bytes)
{
    return ref_at(bytes + sizeof(struct block_header_disk));
}

// Where the entry at `at` ends; 0: it is none.
static size_t entry_decode(const uint8_t *bytes, size_t at, struct snapshot *ret)
{
    struct snapshot_disk d;

    if (at + sizeof(d) > BLOCK_BYTES)
        return 0;
    memcpy(&d, bytes + at, sizeof(d));
    size_t end = at + entry_bytes(d.name_len);
    uint32_t flags = le32_get(d.flags);

    *ret = (struct snapshot){
        .id = le64_get(d.id),
        .parent = le64_get(d.parent),
        .cut_lsn = le64_get(d.cut_lsn),
        .generation = le64_get(d.generation),
        .inodes = le64_get(d.inodes),
        .created = (int64_t)le64_get(d.created),
        .root = {.ref = ref_at(bytes + at + offsetof(struct snapshot_disk, root)),
                 .level = le32_get(d.root_level)},
        .deleted = (flags & SNAPSHOT_DELETED) != 0,
        .published = true,
    };
    if (d.name_len == 0 || end > BLOCK_BYTES || (flags & ~SNAPSHOT_DELETED) != 0 || ret->id == 0 ||
        ret->parent >= ret->id || ret->inodes == 0 || ret->root.level > NODE_LEVEL_MAX ||
        ret->root.ref.address == 0 || ret->root.ref.checksum == 0 ||
        ret->root.ref.generation > ret->generation)
        return 0;
    memcpy(ret->name, bytes + at + offsetof(struct snapshot_disk, name), d.name_len);
    if (strlen(ret->name) != d.name_len || strchr(ret->name, '/'))
        return 0;
    return end;
}

bool snapshot_block_entry(const uint8_t *bytes, size_t *at, struct snapshot *ret)
{
    size_t from = *at ? *at : SNAPSHOT_ENTRIES_OFFSET;

    if (from + sizeof(struct snapshot_disk) > BLOCK_BYTES || bytes[from + 80] == 0)
        return false;
    *at = entry_decode(bytes, from, ret);
    return *at != 0;
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

int snapshot_block_validate(const uint8_t *bytes, const struct blkref *ref, const uint8_t uuid[16])
{
    struct block_header_disk h;
    struct snapshot entry;
    size_t at = SNAPSHOT_ENTRIES_OFFSET;
    uint64_t before = 0;

    memcpy(&h, bytes, sizeof(h));
    if (le32_get(h.magic) != BLOCK_MAGIC || le16_get(h.version) != FORMAT_VERSION ||
        h.type != BLOCK_TYPE_SNAPSHOTS)
        return -AF_E_BLOCK_MAGIC;
    if (checksum(CSUM_NODE, 0, bytes, BLOCK_BYTES) != ref->checksum)
        return -AF_E_BLOCK_CHECKSUM;
    if (memcmp(h.uuid, uuid, sizeof(h.uuid)) != 0)
        return -AF_E_BLOCK_UUID;
    if (le64_get(h.address) != ref->address)
        return -AF_E_BLOCK_ADDRESS;
    if (le64_get(h.generation) != ref->generation)
        return -AF_E_BLOCK_GENERATION;
    if (h.level != 0 || le32_get(h.heap_start) != 0 || le32_get(h.count) == 0 ||
        !is_zero(h.reserved, sizeof(h.reserved)))
        return -AF_E_NODE_LAYOUT;
    for (uint32_t i = 0; i < le32_get(h.count); i++) {
        at = entry_decode(bytes, at, &entry);
        if (at == 0)
            return -AF_E_NODE_LAYOUT;
        if (entry.id <= before)
            return -AF_E_NODE_ORDER;
        before = entry.id;
    }
    return is_zero(bytes + at, BLOCK_BYTES - at) ? 0 : -AF_E_NODE_LAYOUT;
}

static int grow(struct snapshots *ss, size_t more)
{
    if (ss->count + more <= ss->cap)
        return 0;
    size_t cap = AF_MAX(ss->count + more, 2 * ss->cap);
    struct snapshot *list = realloc(ss->list, cap * sizeof(*list));

    if (!list)
        return -ENOMEM;
    ss->list = list;
    ss->cap = cap;
    return 0;
}

// Appends the entries of one block, newest first, since the chain leads from new to old.
static int load_block(struct snapshots *ss, const uint8_t *bytes, const struct blkref *ref)
{
    struct snapshot_block *blocks = realloc(ss->blocks, (ss->block_count + 1) * sizeof(*blocks));
    struct snapshot entry;
    size_t at = 0, first = ss->count;

    if (!blocks)
        return -ENOMEM;
    ss->blocks = blocks;
    while (snapshot_block_entry(bytes, &at, &entry)) {
        int err = grow(ss, 1);

        if (err < 0)
            return err;
        memmove(&ss->list[first + 1], &ss->list[first], (ss->count - first) * sizeof(entry));
        ss->list[first] = entry;
        ss->count++;
    }
    ss->blocks[ss->block_count++] =
        (struct snapshot_block){.ref = *ref, .count = ss->count - first};
    return 0;
}

static void reverse(struct snapshots *ss)
{
    size_t first = 0;

    for (size_t i = 0; i < ss->count / 2; i++) {
        struct snapshot t = ss->list[i];
        ss->list[i] = ss->list[ss->count - 1 - i];
        ss->list[ss->count - 1 - i] = t;
    }
    for (size_t i = 0; i < ss->block_count / 2; i++) {
        struct snapshot_block t = ss->blocks[i];
        ss->blocks[i] = ss->blocks[ss->block_count - 1 - i];
        ss->blocks[ss->block_count - 1 - i] = t;
    }
    for (size_t i = 0; i < ss->block_count; i++) {
        ss->blocks[i].first = first;
        first += ss->blocks[i].count;
    }
}

// Identities rise along the list, and whoever is descended from exists.
static int check_list(struct snapshots *ss)
{
    for (size_t i = 0; i < ss->count; i++) {
        const struct snapshot *sn = &ss->list[i];

        if ((i > 0 && sn->id <= ss->list[i - 1].id) || sn->id >= ss->next_id ||
            (sn->parent != 0 && !snapshot_find(ss, sn->parent)))
            return -AF_E_NODE_ORDER;
    }
    return ss->live_parent == 0 || snapshot_find(ss, ss->live_parent) ? 0 : -AF_E_NODE_ORDER;
}

int snapshots_load(struct store *s, const struct blkref *head, uint64_t live_parent,
                   uint64_t next_id)
{
    struct snapshots *ss = &s->snapshots;
    uint8_t *bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
    struct blkref ref = *head;
    int err = bytes ? 0 : -ENOMEM;

    ss->next_id = AF_MAX(next_id, UINT64_C(1));
    ss->live_parent = live_parent;
    while (err == 0 && ref.address != 0) {
        uint64_t oldest = ss->count > 0 ? ss->list[ss->count - 1].id : UINT64_MAX;

        err = io_pread(s->config.data, bytes, BLOCK_BYTES, ref.address * BLOCK_BYTES);
        if (err == 0)
            err = snapshot_block_validate(bytes, &ref, s->tree.uuid);
        if (err == 0)
            err = load_block(ss, bytes, &ref);
        if (err == 0 && oldest <= ss->list[ss->count - ss->blocks[ss->block_count - 1].count].id)
            err = -AF_E_NODE_ORDER; // and so the chain comes to an end
        if (err == 0)
            ref = snapshot_block_next(bytes);
    }
    free(bytes);
    if (err == 0) {
        reverse(ss);
        err = check_list(ss);
    }
    if (err < 0)
        return err;
    const struct snapshot *parent = live_parent ? snapshot_find(ss, live_parent) : NULL;

    ss->keep_lsn = parent ? parent->cut_lsn : 0;
    ss->keep_generation = parent ? parent->generation : 0;
    return 0;
}

void snapshots_free(struct snapshots *ss)
{
    free(ss->list);
    free(ss->blocks);
    free(ss->views);
    *ss = (struct snapshots){0};
}

// ---- writing ----

// How entries [first, count) divide into blocks; `blocks` NULL only counts them.
static size_t divide(const struct snapshot *list, size_t count, size_t first,
                     struct snapshot_block *blocks)
{
    size_t n = 0, room = 0;

    for (size_t i = first; i < count; i++) {
        size_t need = entry_bytes(strlen(list[i].name));

        if (need > room) {
            room = BLOCK_BYTES - SNAPSHOT_ENTRIES_OFFSET;
            if (blocks)
                blocks[n] = (struct snapshot_block){.first = i};
            n++;
        }
        room -= need;
        if (blocks)
            blocks[n - 1].count++;
    }
    return n;
}

// Blocks that stay: those whose entries all lie before the first change, but for the newest, which
// takes more.
static size_t blocks_kept(const struct snapshots *ss)
{
    size_t kept = 0;

    while (kept + 1 < ss->block_count &&
           ss->blocks[kept].first + ss->blocks[kept].count <= ss->changed_from)
        kept++;
    return kept;
}

int snapshots_prepare(struct store *s, struct fault *f, struct snapshots_frozen *z)
{
    struct snapshots *ss = &s->snapshots;

    snapshots_frozen_free(z);
    if (!ss->changed)
        return 0;
    size_t kept = blocks_kept(ss),
           first = kept > 0 ? ss->blocks[kept - 1].first + ss->blocks[kept - 1].count : 0;
    size_t fresh = divide(ss->list, ss->count, first, NULL);
    int err = space_prepare(s->space, f, fresh + 1, 0, true);

    if (err < 0)
        return err;
    z->list = calloc(ss->count - first + 1, sizeof(z->list[0]));
    z->blocks = calloc(kept + fresh + 1, sizeof(z->blocks[0]));
    if (!z->list || !z->blocks) {
        snapshots_frozen_free(z);
        return -ENOMEM;
    }
    z->first = first;
    z->kept = kept;
    z->block_count = kept + fresh;
    return 0;
}

// The new blocks get addresses and the ones that they replace are let go of, in the interval that
// ends now.
static void place_blocks(struct store *s, struct snapshots_frozen *z)
{
    struct snapshots *ss = &s->snapshots;

    if (z->kept > 0) // of none there is no array either
        memcpy(z->blocks, ss->blocks, z->kept * sizeof(z->blocks[0]));
    (void)divide(ss->list, ss->count, z->first, z->blocks + z->kept);
    for (size_t i = z->kept; i < z->block_count; i++) {
        uint64_t got;
        uint64_t address = space_alloc(s->space, 1, 0, &got);

        space_log_alloc(s->space, address, 1);
        z->blocks[i].ref.address = address;
    }
    for (size_t i = z->kept; i < ss->block_count; i++)
        space_free(s->space, ss->blocks[i].ref.address, 1);
}

void snapshots_freeze(struct store *s, struct snapshots_frozen *z, uint64_t cut_lsn)
{
    struct snapshots *ss = &s->snapshots;

    if (ss->changed) {
        z->changed = true;
        z->stamped = UINT64_MAX;
        for (size_t i = 0; i < ss->count; i++) {
            struct snapshot *sn = &ss->list[i];

            if (!sn->wanted)
                continue;
            sn->wanted = false;
            sn->parent = ss->live_parent;
            sn->cut_lsn = cut_lsn;
            sn->generation = s->tree.generation;
            sn->inodes = s->inodes;
            sn->root = s->tree.root;
            sn->created = store_now(s).tv_sec;
            z->stamped = AF_MIN(z->stamped, sn->id);
            ss->live_parent = sn->id;
            ss->keep_lsn = sn->cut_lsn;
            ss->keep_generation = sn->generation;
            reclaim_overtaken(s);
        }
        z->count = ss->count - z->first;
        if (z->count > 0)
            memcpy(z->list, ss->list + z->first, z->count * sizeof(z->list[0]));
        place_blocks(s, z);
        ss->changed = false;
        ss->changed_from = ss->count;
    } else {
        z->head = ss->block_count > 0 ? ss->blocks[ss->block_count - 1].ref : (struct blkref){0};
    }
    z->live_parent = ss->live_parent;
    z->next_id = ss->next_id;
}

static void encode_entry(uint8_t *bytes, const struct snapshot *sn)
{
    size_t name_len = strlen(sn->name);
    struct snapshot_disk d = {
        .id = le64_put(sn->id),
        .parent = le64_put(sn->parent),
        .cut_lsn = le64_put(sn->cut_lsn),
        .generation = le64_put(sn->generation),
        .inodes = le64_put(sn->inodes),
        .created = le64_put((uint64_t)sn->created),
        .root = blkref_put(&sn->root.ref),
        .root_level = le32_put(sn->root.level),
        .flags = le32_put(sn->deleted ? SNAPSHOT_DELETED : 0),
        .name_len = (uint8_t)name_len,
    };

    memcpy(bytes, &d, sizeof(d));
    memcpy(bytes + offsetof(struct snapshot_disk, name), sn->name, name_len);
}

static void encode_block(const struct store *s, const struct snapshots_frozen *z, size_t index,
                         uint64_t sequence, uint8_t *bytes)
{
    const struct snapshot_block *b = &z->blocks[index];
    struct block_header_disk h = {
        .magic = le32_put(BLOCK_MAGIC),
        .version = le16_put(FORMAT_VERSION),
        .type = BLOCK_TYPE_SNAPSHOTS,
        .address = le64_put(b->ref.address),
        .generation = le64_put(sequence),
        .count = le32_put((uint32_t)b->count),
    };
    size_t at = SNAPSHOT_ENTRIES_OFFSET;

    memset(bytes, 0, BLOCK_BYTES);
    memcpy(h.uuid, s->tree.uuid, sizeof(h.uuid));
    memcpy(bytes, &h, sizeof(h));
    if (index > 0) {
        struct blkref_disk older = blkref_put(&z->blocks[index - 1].ref);

        memcpy(bytes + sizeof(h), &older, sizeof(older));
    }
    for (size_t i = 0; i < b->count; i++) {
        const struct snapshot *sn = &z->list[b->first + i - z->first];

        encode_entry(bytes + at, sn);
        at += entry_bytes(strlen(sn->name));
    }
    AF_ASSERT(at <= BLOCK_BYTES);
}

int snapshots_write(struct store *s, struct snapshots_frozen *z, const struct tree_root *root,
                    uint64_t sequence)
{
    int err = 0;

    if (!z->changed)
        return 0;
    // What was frozen had no checksum of its root yet.
    for (size_t i = 0; i < z->count; i++)
        if (z->list[i].id >= z->stamped)
            z->list[i].root = *root;
    uint8_t *bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);

    if (!bytes)
        return -ENOMEM;
    for (size_t i = z->kept; err == 0 && i < z->block_count; i++) {
        struct blkref *ref = &z->blocks[i].ref;

        encode_block(s, z, i, sequence, bytes);
        ref->generation = sequence;
        ref->checksum = checksum(CSUM_NODE, 0, bytes, BLOCK_BYTES);
        err = io_pwrite(s->config.data, bytes, BLOCK_BYTES, ref->address * BLOCK_BYTES);
    }
    free(bytes);
    z->head = z->block_count > 0 ? z->blocks[z->block_count - 1].ref : (struct blkref){0};
    return err;
}

void snapshots_published(struct store *s, struct snapshots_frozen *z)
{
    struct snapshots *ss = &s->snapshots;

    if (!z->changed)
        return;
    for (size_t i = 0; i < z->count; i++) {
        struct snapshot *sn = snapshot_find(ss, z->list[i].id);

        AF_ASSERT(sn); // entries leave at a freeze only
        if (!sn->published)
            sn->root = z->list[i].root;
        sn->published = true;
    }
    free(ss->blocks);
    ss->blocks = z->blocks;
    ss->block_count = z->block_count;
    z->blocks = NULL;
}

void snapshots_frozen_free(struct snapshots_frozen *z)
{
    free(z->list);
    free(z->blocks);
    *z = (struct snapshots_frozen){0};
}
