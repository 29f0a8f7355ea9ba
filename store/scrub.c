// SPDX-License-Identifier: MIT
// The scrub of tree, data and space map (scrub.h).

#include "store/scrub.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "store/store_internal.h"
#include "store/xattr.h"

int store_scrub_begin(struct store_scrub *sc)
{
    struct space_stats sp;

    store_lock(sc->store);
    space_get_stats(sc->store->space, &sp);
    store_unlock(sc->store);
    sc->done_blocks = sp.capacity;
    sc->done = calloc((size_t)(sp.capacity / 64 + 1), sizeof(sc->done[0]));
    sc->leaf = malloc(sizeof(*sc->leaf));
    sc->buffer = aligned_alloc(BLOCK_BYTES, (size_t)EXTENT_BLOCKS_MAX * BLOCK_BYTES);
    return sc->leaf && sc->buffer && sc->done ? 0 : -ENOMEM;
}

void store_scrub_end(struct store_scrub *sc)
{
    free(sc->leaf);
    free(sc->buffer);
    free(sc->done);
    sc->leaf = NULL;
    sc->buffer = NULL;
    sc->done = NULL;
}

// What `data` has grown by since is read as often as it is met.
static bool is_done(const struct store_scrub *sc, uint64_t address)
{
    return address < sc->done_blocks && (sc->done[address / 64] >> address % 64 & 1) != 0;
}

static void set_done(struct store_scrub *sc, uint64_t address)
{
    if (address < sc->done_blocks)
        sc->done[address / 64] |= UINT64_C(1) << address % 64;
}

static void found(struct store_scrub *sc, const struct store_damage *d, const struct tree_way *way)
{
    struct store_damage noted = *d;

    noted.in_snapshot = sc->snapshot != 0;
    sc->damage++;
    store_lock(sc->store);
    sc->store->errors++;
    store_damage_note(sc->store, &noted, sc->snapshot ? NULL : way);
    store_unlock(sc->store);
}

static void pace(struct store_scrub *sc, uint64_t bytes)
{
    sc->bytes += bytes;
    if (sc->pace && !sc->pace(sc->arg, bytes))
        sc->stopped = true;
}

// ---- data ----

// A run of blocks of one item: an extent, or one block of a large xattr.
struct run {
    struct key key; // of the item
    uint64_t index; // of an xattr's block
    uint64_t address;
    uint32_t count;
    const le64 *sums;
};

// What waits in memory for a checkpoint is not on disk. Taken before the read: what is clean then
// has been written before.
static void skip_dirty(struct store *s, const struct run *r, bool *ret_skip)
{
    store_lock(s);
    for (uint32_t i = 0; i < r->count; i++) {
        struct block *b = cache_lookup(&s->cache, r->address + i);

        ret_skip[i] = b && cache_state(&s->cache, b) != BLOCK_CLEAN;
    }
    store_unlock(s);
}

// The block's reference in the item as it is now.
static bool item_refers(const struct run *r, uint32_t i, const void *value, size_t len)
{
    if (r->key.kind == KIND_EXTENT) {
        struct extent e;

        return extent_decode(r->key, value, len, &e) == 0 && i < e.count &&
               e.address == r->address && le64_get(e.checksums[i]) == le64_get(r->sums[i]);
    }
    struct xattr_item x;
    struct xattr_block_disk b;

    if (xattr_decode(value, len, &x) < 0 || !x.blocks || r->index >= BLOCKS_OF(x.value_len))
        return false;
    memcpy(&b, x.blocks + r->index * sizeof(b), sizeof(b));
    return le64_get(b.address) == r->address && le64_get(b.checksum) == le64_get(r->sums[0]);
}

// An extent that was cut meanwhile has become another item: the walk has passed it, and what is
// left of it is read by the next scrub.
static bool still_referred(const struct store_scrub *sc, const struct run *r, uint32_t i)
{
    struct store *s = sc->store;

    const void *value;
    struct fault f;
    size_t len;
    bool refers = false;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        const struct tree_root *root = walk_root(s, sc->snapshot);

        err = root ? tree_get(&s->tree, root, &f, r->key, &value, &len) : -ENOENT;
        refers = err == 0 && item_refers(r, i, value, len);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    return refers;
}

static void run_damage(struct store_scrub *sc, const struct run *r, uint32_t i,
                       struct store_damage d)
{
    bool extent = r->key.kind == KIND_EXTENT;

    d.ino = r->key.ino;
    d.address = r->address + i;
    d.off = (extent ? r->key.off + i : r->index) * BLOCK_BYTES;
    d.bytes = extent ? BLOCK_BYTES : 0; // no range of the file
    if (still_referred(sc, r, i))
        found(sc, &d, NULL);
}

// Of the snapshots only what no tree before has shown.
static bool all_done(const struct store_scrub *sc, const struct run *r)
{
    bool done = sc->snapshot != 0;

    for (uint32_t i = 0; i < r->count && done; i++)
        done = is_done(sc, r->address + i);
    return done;
}

static void check_run(struct store_scrub *sc, const struct run *r)
{
    bool skip[EXTENT_BLOCKS_MAX], any = false;
    uint64_t off = r->address * BLOCK_BYTES;

    if (all_done(sc, r))
        return;
    skip_dirty(sc->store, r, skip);
    int err = io_pread(sc->data, sc->buffer, (size_t)r->count * BLOCK_BYTES, off);
    for (uint32_t i = 0; i < r->count; i++) {
        uint8_t *bytes = sc->buffer + (size_t)i * BLOCK_BYTES;
        struct store_damage d = {0};

        if (skip[i] || (sc->snapshot && is_done(sc, r->address + i)))
            continue;
        set_done(sc, r->address + i);
        sc->data_blocks++;
        // Of a run that cannot be read, what of it can.
        d.code = err < 0 ? io_pread(sc->data, bytes, BLOCK_BYTES, off + i * BLOCK_BYTES) : 0;
        if (d.code == 0) {
            uint64_t sum = checksum(CSUM_DATA, 0, bytes, BLOCK_BYTES);

            if (sum == le64_get(r->sums[i]))
                continue;
            d.code = -AF_E_DATA_CHECKSUM;
            d.expected = le64_get(r->sums[i]);
            d.found = sum;
        }
        any = true;
        run_damage(sc, r, i, d);
    }
    // What a disk has refused to read once is not sound, whatever it says the second time.
    if (err < 0 && !any)
        run_damage(sc, r, 0, (struct store_damage){.code = err});
    pace(sc, (uint64_t)r->count * BLOCK_BYTES);
}

static void check_xattr(struct store_scrub *sc, struct key key, const void *value, size_t len)
{
    struct xattr_item x;

    if (xattr_decode(value, len, &x) < 0 || !x.blocks)
        return; // whoever asks for it is told
    for (uint64_t i = 0; i < BLOCKS_OF(x.value_len) && !sc->stopped; i++) {
        struct xattr_block_disk b;

        memcpy(&b, x.blocks + i * sizeof(b), sizeof(b));
        check_run(sc, &(struct run){.key = key,
                                    .index = i,
                                    .address = le64_get(b.address),
                                    .count = 1,
                                    .sums = &b.checksum});
    }
}

static void check_items(struct store_scrub *sc)
{
    unsigned count = node_count(sc->leaf->bytes);

    for (unsigned i = 0; i < count && !sc->stopped; i++) {
        struct key key = node_key(sc->leaf->bytes, i);
        struct extent e;
        size_t len;
        const void *value = node_value(sc->leaf->bytes, i, &len);

        if (key.kind == KIND_XATTR)
            check_xattr(sc, key, value, len);
        else if (key.kind == KIND_EXTENT && extent_decode(key, value, len, &e) == 0)
            check_run(sc,
                      &(struct run){
                          .key = key, .address = e.address, .count = e.count, .sums = e.checksums});
    }
}

// ---- nodes ----

// Range of the node at `level` on the way to a leaf: the walk knows that of the leaf only, so an
// inner node that is in memory and rotten on disk is noted without one.
static void check_node(struct store_scrub *sc, const struct tree_way *way, unsigned level)
{
    const struct blkref *ref = &way->ref[level];
    struct store_damage d = {.address = ref->address};

    d.code = io_pread(sc->data, sc->buffer, BLOCK_BYTES, ref->address * BLOCK_BYTES);
    if (d.code == 0)
        d.code = node_validate(sc->buffer, ref, level, sc->store->tree.uuid);
    if (d.code == -AF_E_BLOCK_CHECKSUM) {
        d.expected = ref->checksum;
        d.found = checksum(CSUM_NODE, 0, sc->buffer, BLOCK_BYTES);
    }
    sc->nodes++;
    pace(sc, BLOCK_BYTES);
    if (d.code < 0 && store_walk_current(sc->store, sc->snapshot, way, level))
        found(sc, &d, level == 0 ? way : NULL);
}

// The nodes that lead to the leaf, as far as they have not just been read. What was born since the
// last checkpoint is not on disk.
static void check_way(struct store_scrub *sc, const struct tree_way *way)
{
    for (unsigned level = way->root_level + 1; level-- > way->level && !sc->stopped;) {
        const struct blkref *ref = &way->ref[level];

        if (ref->checksum == 0 || memcmp(ref, &sc->seen[level], sizeof(*ref)) == 0)
            continue;
        sc->seen[level] = *ref;
        check_node(sc, way, level);
    }
}

// A node that cannot be read, and what hangs below it.
static void lose_node(struct store_scrub *sc, const struct tree_way *way, int err)
{
    struct store_damage d = {.code = err, .address = way->ref[way->level].address};

    // Another tree that has it too has told.
    if (sc->snapshot && is_done(sc, d.address))
        return;
    set_done(sc, d.address);
    if (way->level == 0 && err == -AF_E_BLOCK_CHECKSUM) {
        d.expected = way->ref[0].checksum;
        d.found = checksum(CSUM_NODE, 0, sc->leaf->bytes, BLOCK_BYTES);
    }
    found(sc, &d, way);
    pace(sc, BLOCK_BYTES);
}

// Moves the walk of a snapshot behind a subtree that was walked before, if there is one here.
static void skip_shared(struct store_scrub *sc, bool *ret_skipped, bool *ret_last)
{
    const struct tree_way *way = &sc->leaf->way;

    *ret_skipped = false;
    int err = store_walk_way(sc->store, sc->snapshot, sc->at, sc->leaf);
    if (err < 0)
        return; // store_walk() tells
    for (unsigned level = way->root_level + 1; level-- > 0;) {
        if (!is_done(sc, way->ref[level].address))
            continue;
        *ret_skipped = true;
        *ret_last = way->last_at[level];
        sc->at = way->next_at[level];
        return;
    }
}

static int scrub_leaf(struct store_scrub *sc, bool *ret_last)
{
    const struct tree_way *way = &sc->leaf->way;
    int err = store_walk(sc->store, sc->data, sc->snapshot, sc->at, sc->leaf);

    if (err < 0 && err != -EIO && !err_is_corruption(err))
        return err;
    if (err < 0) {
        lose_node(sc, way, err);
    } else {
        // What store_walk() has read from the disk just now need not be read once more.
        if (!sc->leaf->cached) {
            sc->seen[0] = way->ref[0];
            sc->nodes++;
            pace(sc, BLOCK_BYTES);
        }
        check_way(sc, way);
        check_items(sc);
        set_done(sc, way->ref[0].address);
    }
    // What the walk leaves is done, with all below it.
    for (unsigned level = way->level + 1; level <= way->root_level; level++)
        if (way->last_at[level] == way->last &&
            (way->last || key_compare(&way->next, &way->next_at[level]) == 0))
            set_done(sc, way->ref[level].address);
    *ret_last = way->last;
    sc->at = way->next;
    return 0;
}

static int scrub_one_tree(struct store_scrub *sc)
{
    bool last = false, skipped = false;
    int err = 0;

    sc->at = key_make(0, 0, 0);
    while (err == 0 && !last && !sc->stopped) {
        if (sc->snapshot)
            skip_shared(sc, &skipped, &last);
        if (err == 0 && !skipped)
            err = scrub_leaf(sc, &last);
    }
    return sc->stopped ? -EINTR : err;
}

// Under the lock. False: the table has no such block (any more).
static bool table_ref(struct store *s, size_t i, struct blkref *ret)
{
    bool there;

    store_lock(s);
    there = i < s->snapshots.block_count;
    if (there)
        *ret = s->snapshots.blocks[i].ref;
    store_unlock(s);
    return there;
}

// The table of snapshots: blocks that are not written yet have no checksum.
static void scrub_table(struct store_scrub *sc)
{
    struct blkref ref, now;

    for (size_t i = 0; table_ref(sc->store, i, &ref) && !sc->stopped; i++) {
        struct store_damage d = {.address = ref.address};

        if (ref.checksum == 0)
            continue;
        d.code = io_pread(sc->data, sc->buffer, BLOCK_BYTES, ref.address * BLOCK_BYTES);
        if (d.code == 0)
            d.code = snapshot_block_validate(sc->buffer, &ref, sc->store->tree.uuid);
        if (d.code < 0 && table_ref(sc->store, i, &now) && memcmp(&now, &ref, sizeof(ref)) == 0)
            found(sc, &d, NULL);
        pace(sc, BLOCK_BYTES);
    }
}

int store_scrub_tree(struct store_scrub *sc)
{
    struct store_snapshot sn = {0};
    int err = scrub_one_tree(sc);

    while (err == 0 && store_snapshot_next(sc->store, sn.id, &sn)) {
        sc->snapshot = sn.id;
        err = scrub_one_tree(sc);
        if (err == -ENOENT) // deleted meanwhile, or not published yet
            err = 0;
    }
    sc->snapshot = 0;
    if (err == 0)
        scrub_table(sc);
    return sc->stopped ? -EINTR : err;
}

// ---- the space map ----

int store_scrub_map(struct store_scrub *sc)
{
    for (uint64_t group = 0; !sc->stopped; group++) {
        struct space_bad bad;
        uint64_t read;
        int err =
            space_check_group(sc->store->space, &sc->store->lock, sc->data, group, &bad, &read);

        if (err < 0)
            return err == -ENOENT ? 0 : err;
        if (bad.code < 0)
            found(sc,
                  &(struct store_damage){.code = bad.code,
                                         .address = bad.address,
                                         .expected = bad.expected,
                                         .found = bad.found},
                  NULL);
        sc->map_blocks += read / BLOCK_BYTES;
        if (read > 0)
            pace(sc, read);
    }
    return -EINTR;
}
