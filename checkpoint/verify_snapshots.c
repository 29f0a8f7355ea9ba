// SPDX-License-Identifier: MIT
// Verification of snapshots: their table, and each tree as far as it differs from what was walked
// before. A node that the live tree or another snapshot has too is checked against the reference
// and not entered again; so the work is what snapshots hold alone, not their number times the
// store.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "checkpoint/verify_internal.h"
#include "store/snapshot.h"
#include "store/xattr.h"

struct snapshot_walk {
    struct verify *v;
    const struct snapshot *sn;
    uint8_t *nodes; // one for each level
};

static void damage(struct verify *v, int code, uint64_t address, const char *name, const char *what)
{
    struct verify_finding f = {.code = code, .file = "data", .address = address};

    v->result->complete = false;
    verify_found(v, &f, "%s%s%s, block %" PRIu64 ": %s (%s)", what, *name ? " of snapshot " : "",
                 name, address, err_text(code), err_name(code));
}

// Blocks of data that an item names: those that nobody has named before are checked.
static void visit_extent(struct snapshot_walk *w, struct key key, const void *value, size_t len)
{
    struct extent_disk d = {0};

    memcpy(&d, value, AF_MIN(len, sizeof(d)));
    const uint32_t count = le32_get(d.count);
    const uint64_t address = le64_get(d.address);
    const le64 *sums = (const le64 *)((const uint8_t *)value + sizeof(d));

    if (count == 0 || count > EXTENT_BLOCKS_MAX || len != sizeof(d) + 8 * (size_t)count) {
        damage(w->v, -AF_E_ITEM, address, w->sn->name, "an extent");
        return;
    }
    for (uint32_t i = 0; i < count;) {
        uint32_t n = 1;
        bool marked = verify_marked(w->v, address + i);

        while (i + n < count && verify_marked(w->v, address + i + n) == marked)
            n++;
        if (!marked && verify_mark(w->v, key.ino, address + i, n))
            (void)verify_data(w->v, key.ino, key.off + i, address + i, n, sums + i);
        i += n;
    }
}

static void visit_xattr(struct snapshot_walk *w, struct key key, const void *value, size_t len)
{
    uint64_t birth, address;
    struct xattr_item x;
    int err = xattr_decode(value, len, &x);

    if (err < 0) {
        damage(w->v, err, 0, w->sn->name, "an extended attribute");
        return;
    }
    for (size_t i = 0; xattr_block(value, len, i, &birth, &address); i++) {
        struct xattr_block_disk b;

        memcpy(&b, x.blocks + i * sizeof(b), sizeof(b));
        if (!verify_marked(w->v, address) && verify_mark(w->v, key.ino, address, 1))
            (void)verify_data(w->v, key.ino, i, address, 1, &b.checksum);
    }
}

static void visit_leaf(struct snapshot_walk *w, const uint8_t *bytes)
{
    for (unsigned i = 0; i < node_count(bytes); i++) {
        struct key key = node_key(bytes, i);
        size_t len;
        const void *value = node_value(bytes, i, &len);

        if (key.kind == KIND_EXTENT)
            visit_extent(w, key, value, len);
        else if (key.kind == KIND_XATTR)
            visit_xattr(w, key, value, len);
    }
}

static void visit_node(struct snapshot_walk *w, const struct blkref *ref, unsigned level)
{
    uint8_t *bytes = w->nodes + (size_t)level * BLOCK_BYTES;
    bool known = verify_marked(w->v, ref->address);

    if (!known && !verify_mark(w->v, 0, ref->address, 1)) {
        w->v->result->complete = false;
        return;
    }
    int err = io_pread(w->v->data, bytes, BLOCK_BYTES, ref->address * BLOCK_BYTES);
    if (err == 0)
        err = node_validate(bytes, ref, level, w->v->sb->image.uuid);
    verify_progress(w->v, 1);
    if (err < 0) {
        damage(w->v, err, ref->address, w->sn->name, "a tree node");
        return;
    }
    if (known)
        return;
    w->v->result->nodes++;
    if (level == 0)
        visit_leaf(w, bytes);
    for (unsigned i = 0; level > 0 && i < node_count(bytes) && w->v->fatal == 0; i++) {
        struct blkref child = node_child(bytes, i);

        visit_node(w, &child, level - 1); // as deep as the tree: 16 at most
    }
}

// One block of the table, older entries after it. False: the chain cannot be followed.
static bool visit_table(struct verify *v, struct blkref *ref, uint8_t *bytes, uint8_t *nodes,
                        uint64_t *below)
{
    struct snapshot sn;
    size_t at = 0;
    int err = io_pread(v->data, bytes, BLOCK_BYTES, ref->address * BLOCK_BYTES);

    if (err == 0)
        err = snapshot_block_validate(bytes, ref, v->sb->image.uuid);
    if (err == 0 && ref->generation > v->sb->sequence)
        err = -AF_E_BLOCK_GENERATION;
    if (err < 0)
        damage(v, err, ref->address, "", "the table of snapshots");
    if (err < 0 || !verify_mark(v, 0, ref->address, 1))
        return false;
    uint64_t lowest = UINT64_MAX;

    while (snapshot_block_entry(bytes, &at, &sn)) {
        struct snapshot_walk w = {.v = v, .sn = &sn, .nodes = nodes};

        lowest = AF_MIN(lowest, sn.id);
        if (sn.id >= *below || sn.id >= v->sb->image.next_snapshot ||
            sn.generation > v->sb->image.generation || sn.cut_lsn > v->sb->image.cut_lsn)
            damage(v, -AF_E_NODE_ORDER, ref->address, sn.name, "the entry");
        visit_node(&w, &sn.root.ref, sn.root.level);
        v->result->snapshots += !sn.deleted;
    }
    *below = lowest;
    *ref = snapshot_block_next(bytes);
    return ref->address != 0;
}

void verify_snapshots(struct verify *v)
{
    struct blkref ref = v->sb->image.snapshots;
    uint64_t below = UINT64_MAX;
    uint8_t *bytes = malloc(BLOCK_BYTES);
    uint8_t *nodes = malloc((NODE_LEVEL_MAX + 1) * (size_t)BLOCK_BYTES);

    if (!bytes || !nodes)
        v->fatal = -ENOMEM;
    v->in_snapshot = true;
    if (v->fatal == 0 && ref.address != 0)
        while (v->fatal == 0 && visit_table(v, &ref, bytes, nodes, &below)) {
        }
    v->in_snapshot = false;
    free(bytes);
    free(nodes);
}
