// SPDX-License-Identifier: MIT
// Giving back what a deleted snapshot alone had, without reference counts and without lists of the
// dead: ages say it.
//
// Let S be the snapshot, P the one that it descends from, C the one state that descends from it: a
// later snapshot, or the live tree. (With two, which a rollback makes, S waits until one of them is
// gone.) A node or extent of S that is as old as P is P's too. What of S is left in C is found by
// walking C where it is younger than S; where a node of C is as old as S, all below it is S's as
// well and the walk turns back. Then S is walked where it is younger than P, but for the nodes that
// C has too: what is met belongs to S alone. So the cost is what differs, not what there is.
//
// Extents can move to another key (a staged content that an inode adopts), so those that C has are
// compared by address.
//
// When C is the live tree, its frozen root of one checkpoint is walked. What the live tree lets go
// of from that freeze on, and S keeps, is noted (reclaim_note()) and joins what is freed; and the
// blocks of that root are held (space_hold()), so that none is used anew before the walk is over.
// Frees and the table without S become durable with one superblock; a crash before it begins all of
// this again.
//
// The walk reads `data` itself, past the cache, in bounded steps: nothing waits for it. Memory: 16
// bytes for each extent and node that S alone has or shares with younger parts of C.
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "base/io.h"
#include "store/node.h"
#include "store/snapshot.h"
#include "store/store_internal.h"
#include "store/xattr.h"

#define NODES_AT_ONCE 256u // read in one step

struct run {
    uint64_t address, count;
};

struct runs {
    struct run *list;
    size_t count, cap;
};

enum phase {
    RECLAIM_FREEZE, // waits for a checkpoint whose root to compare with
    RECLAIM_CHILD,  // walks what descends from the snapshot
    RECLAIM_OWN,    // walks the snapshot
    RECLAIM_READY,  // waits for a checkpoint that frees
    RECLAIM_FAILED, // a block could not be read; not tried again before the next mount
};

struct level {
    uint8_t bytes[BLOCK_BYTES];
    unsigned index;
};

struct reclaim {
    enum phase phase;
    uint64_t id;
    bool against_live, holds, noting;
    uint64_t old_lsn, old_generation; // of P: as old is P's
    uint64_t own_lsn, own_generation; // of S
    struct tree_root root, child;     // of S and C
    bool walking;
    unsigned top, at;
    struct level *stack;
    struct runs shared, own, noted;
    int err; // out of memory in reclaim_note(): begin anew
};

// ---- runs of blocks ----

static int runs_add(struct runs *r, uint64_t address, uint64_t count)
{
    struct run *last = r->count > 0 ? &r->list[r->count - 1] : NULL;

    if (last && last->address + last->count == address &&
        address % GROUP_BLOCKS != 0) { // a run lies in one group
        last->count += count;
        return 0;
    }
    if (r->count == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 256;
        struct run *list = realloc(r->list, cap * sizeof(*list));

        if (!list)
            return -ENOMEM;
        r->list = list;
        r->cap = cap;
    }
    r->list[r->count++] = (struct run){.address = address, .count = count};
    return 0;
}

static int compare_runs(const void *a, const void *b)
{
    const struct run *x = a, *y = b;

    return x->address < y->address ? -1 : x->address > y->address;
}

static void runs_sort(struct runs *r)
{
    if (r->count > 1)
        qsort(r->list, r->count, sizeof(r->list[0]), compare_runs);
}

// The run that ends behind `address`, of sorted ones; count when there is none.
static size_t runs_search(const struct runs *r, uint64_t address)
{
    size_t lo = 0, hi = r->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (r->list[mid].address + r->list[mid].count <= address)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool runs_have(const struct runs *r, uint64_t address)
{
    size_t at = runs_search(r, address);

    return at < r->count && r->list[at].address <= address;
}

// Adds to `to` what of the run is not in `without`.
static int add_rest(struct runs *to, const struct runs *without, uint64_t address, uint64_t count)
{
    uint64_t end = address + count;
    int err = 0;

    for (size_t i = runs_search(without, address); err == 0 && address < end; i++) {
        uint64_t stop = i < without->count ? AF_MIN(without->list[i].address, end) : end;

        if (stop > address)
            err = runs_add(to, address, stop - address);
        if (i >= without->count)
            break;
        address = AF_MAX(address, without->list[i].address + without->list[i].count);
    }
    return err;
}

// ---- the walk ----

// What an item owns of `data`, younger than P and as old as S.
struct owned {
    struct reclaim *r;
    struct runs *to;
    const struct runs *without; // NULL: everything
    int err;
};

static void owned_run(struct owned *o, uint64_t birth, uint64_t address, uint64_t count)
{
    if (o->err < 0 || birth <= o->r->old_lsn || birth > o->r->own_lsn)
        return;
    o->err =
        o->without ? add_rest(o->to, o->without, address, count) : runs_add(o->to, address, count);
}

static int leaf_owned(struct owned *o, const uint8_t *bytes)
{
    for (unsigned i = 0; i < node_count(bytes) && o->err == 0; i++) {
        size_t len;
        struct key key = node_key(bytes, i);
        const void *value = node_value(bytes, i, &len);
        struct extent e;

        if (key.kind == KIND_EXTENT) {
            o->err = extent_decode(key, value, len, &e);
            if (o->err == 0)
                owned_run(o, e.birth, e.address, e.count);
        } else if (key.kind == KIND_XATTR) {
            uint64_t birth, address;

            for (size_t b = 0; xattr_block(value, len, b, &birth, &address); b++)
                owned_run(o, birth, address, 1);
        }
    }
    return o->err;
}

static int read_node(struct store *s, struct reclaim *r, const struct blkref *ref, unsigned level)
{
    uint8_t *bytes = r->stack[level].bytes;
    int err = io_pread(s->config.data, bytes, BLOCK_BYTES, ref->address * BLOCK_BYTES);

    if (err == 0)
        err = node_validate(bytes, ref, level, s->tree.uuid);
    r->stack[level].index = 0;
    r->at = level;
    return err;
}

// A reference met on the walk of C: where C is as old as S, S has it too. 1: go down.
static int meet_child(struct reclaim *r, const struct blkref *ref)
{
    if (ref->generation > r->own_generation)
        return 1;
    return ref->generation > r->old_generation ? runs_add(&r->shared, ref->address, 1) : 0;
}

// Of S: neither P nor C has it. 1: go down.
static int meet_own(struct reclaim *r, const struct blkref *ref)
{
    if (ref->generation <= r->old_generation || runs_have(&r->shared, ref->address))
        return 0;
    int err = runs_add(&r->own, ref->address, 1);

    return err < 0 ? err : 1;
}

static int meet(struct reclaim *r, const struct blkref *ref)
{
    return r->phase == RECLAIM_CHILD ? meet_child(r, ref) : meet_own(r, ref);
}

// One node further. 1: there is more; 0: the walk has ended.
static int walk_step(struct store *s, struct reclaim *r, unsigned *nodes)
{
    if (!r->walking) {
        const struct tree_root *root = r->phase == RECLAIM_CHILD ? &r->child : &r->root;
        int go = meet(r, &root->ref);

        if (go <= 0)
            return go;
        r->walking = true;
        r->top = root->level;
        ++*nodes;
        go = read_node(s, r, &root->ref, root->level);
        return go < 0 ? go : 1;
    }
    struct level *l = &r->stack[r->at];

    if (r->at == 0 && l->index == 0) {
        struct owned o = {.r = r, .to = r->phase == RECLAIM_CHILD ? &r->shared : &r->own};

        o.without = r->phase == RECLAIM_CHILD ? NULL : &r->shared;
        int err = leaf_owned(&o, l->bytes);

        if (err < 0)
            return err;
        l->index = node_count(l->bytes);
    }
    if (l->index >= node_count(l->bytes)) {
        if (r->at == r->top) {
            r->walking = false;
            return 0;
        }
        r->at++;
        return 1;
    }
    struct blkref ref = node_child(l->bytes, l->index++);
    int go = meet(r, &ref);

    if (go <= 0)
        return go < 0 ? go : 1;
    ++*nodes;
    go = read_node(s, r, &ref, r->at - 1);
    return go < 0 ? go : 1;
}

static int walk_some(struct store *s, struct reclaim *r)
{
    unsigned nodes = 0;
    int more = 1;

    while (more > 0 && nodes < NODES_AT_ONCE)
        more = walk_step(s, r, &nodes);
    return more;
}

// ---- beginning and ending ----

// Descendants of `id`: how many, and one of them. The live tree counts; *ret_child NULL means it.
static unsigned children(struct snapshots *ss, uint64_t id, const struct snapshot **ret_child)
{
    unsigned count = ss->live_parent == id;

    *ret_child = NULL;
    for (size_t i = 0; i < ss->count; i++) {
        if (ss->list[i].wanted || ss->list[i].parent != id)
            continue;
        *ret_child = &ss->list[i];
        count++;
    }
    return count;
}

static struct snapshot *pick(struct snapshots *ss, const struct snapshot **ret_child)
{
    for (size_t i = 0; i < ss->count; i++) {
        struct snapshot *sn = &ss->list[i];

        // The deletion is durable once a table without `changed` says so; until then it is not
        // begun.
        if (sn->deleted && sn->published && children(ss, sn->id, ret_child) <= 1 &&
            (!*ret_child || (*ret_child)->published))
            return sn;
    }
    return NULL;
}

bool reclaim_wanted(struct store *s)
{
    const struct snapshot *child;

    if (store_writable(s) < 0)
        return false;
    if (s->snapshots.reclaim)
        return s->snapshots.reclaim->phase != RECLAIM_FAILED;
    return pick(&s->snapshots, &child) != NULL;
}

static int begin(struct store *s)
{
    struct snapshots *ss = &s->snapshots;
    const struct snapshot *child, *parent;
    struct snapshot *sn = pick(ss, &child);

    if (!sn)
        return -ENOENT;
    struct reclaim *r = calloc(1, sizeof(*r));

    if (r)
        r->stack = calloc(NODE_LEVEL_MAX + 1, sizeof(r->stack[0]));
    if (!r || !r->stack) {
        free(r);
        return -ENOMEM;
    }
    parent = sn->parent ? snapshot_find(ss, sn->parent) : NULL;
    r->id = sn->id;
    r->root = sn->root;
    r->own_lsn = sn->cut_lsn;
    r->own_generation = sn->generation;
    r->old_lsn = parent ? parent->cut_lsn : 0;
    r->old_generation = parent ? parent->generation : 0;
    r->against_live = ss->live_parent == sn->id;
    if (child)
        r->child = child->root;
    // A leaf of the history shares nothing with anybody younger.
    r->phase = r->against_live ? RECLAIM_FREEZE : child ? RECLAIM_CHILD : RECLAIM_OWN;
    ss->reclaim = r;
    if (r->against_live)
        s->dirty = true;
    return 0;
}

void reclaim_free(struct store *s, struct reclaim *r)
{
    if (!r)
        return;
    if (r->holds)
        space_unhold(s->space);
    free(r->shared.list);
    free(r->own.list);
    free(r->noted.list);
    free(r->stack);
    free(r);
}

static void note(struct reclaim *r, uint64_t address, uint64_t count)
{
    if (r->noting && runs_add(&r->noted, address, count) < 0)
        r->err = -ENOMEM;
}

void reclaim_note(struct store *s, uint64_t birth, uint64_t address, uint64_t count)
{
    struct reclaim *r = s->snapshots.reclaim;

    if (birth > r->old_lsn)
        note(r, address, count);
}

void reclaim_note_node(struct store *s, uint64_t generation, uint64_t address)
{
    struct reclaim *r = s->snapshots.reclaim;

    if (generation > r->old_generation)
        note(r, address, 1);
}

// ---- checkpoints ----

void reclaim_apply(struct store *s)
{
    struct snapshots *ss = &s->snapshots;
    struct reclaim *r = ss->reclaim;

    if (!r || r->phase != RECLAIM_READY)
        return;
    ss->reclaim = NULL; // from here on nothing is noted
    struct snapshot *sn = r->err == 0 ? snapshot_find(ss, r->id) : NULL;

    if (sn) {
        for (size_t i = 0; i < r->own.count; i++)
            space_free(s->space, r->own.list[i].address, r->own.list[i].count);
        for (size_t i = 0; i < r->noted.count; i++)
            space_free(s->space, r->noted.list[i].address, r->noted.list[i].count);
        for (size_t i = 0; i < ss->count; i++) {
            if (!ss->list[i].wanted && ss->list[i].parent == sn->id) {
                ss->list[i].parent = sn->parent;
                snapshots_changed(s, &ss->list[i]);
            }
        }
        if (ss->live_parent == sn->id) {
            ss->live_parent = sn->parent;
            ss->keep_lsn = r->old_lsn;
            ss->keep_generation = r->old_generation;
        }
        snapshots_remove(s, r->id);
    }
    reclaim_free(s, r);
}

void reclaim_frozen(struct store *s)
{
    struct reclaim *r = s->snapshots.reclaim;

    if (!r || r->phase != RECLAIM_FREEZE)
        return;
    // A snapshot that this very freeze takes stands between: it is the one to compare with.
    r->against_live = s->snapshots.live_parent == r->id;
    r->noting = r->against_live;
    r->holds = true;
    space_hold(s->space);
}

void reclaim_published(struct store *s, const struct tree_root *root)
{
    struct reclaim *r = s->snapshots.reclaim;

    if (!r || r->phase != RECLAIM_FREEZE || !r->holds)
        return;
    r->child = *root;
    r->phase = RECLAIM_CHILD;
}

void reclaim_overtaken(struct store *s)
{
    if (s->snapshots.reclaim)
        s->snapshots.reclaim->noting = false;
}

static void give_up(struct store *s, struct reclaim *r, int err)
{
    message(
        &s->config.sink, MESSAGE_ERROR,
        "the space of a deleted snapshot (number %llu) cannot be given back: %s (%s); it stays in use; see "
        "`aerofs check`",
        (unsigned long long)r->id, err_text(err), err_name(err));
    store_lock(s);
    r->noting = false;
    if (r->holds)
        space_unhold(s->space);
    r->holds = false;
    r->phase = RECLAIM_FAILED;
    store_unlock(s);
}

static void wait_for_checkpoint(struct store *s)
{
    int err = s->config.make_room ? s->config.make_room(s->config.arg) : -AF_E_READ_ONLY;

    (void)err; // the store has said why; while it fails nothing is freed
}

static void start_anew(struct store *s)
{
    store_lock(s);
    struct reclaim *r = s->snapshots.reclaim;

    s->snapshots.reclaim = NULL;
    reclaim_free(s, r);
    store_unlock(s);
}

static void walk(struct store *s, struct reclaim *r)
{
    int more = walk_some(s, r); // phase and lists of runs but `noted` are this thread's alone

    if (more > 0)
        return;
    if (more < 0) {
        if (more == -ENOMEM)
            start_anew(s);
        else
            give_up(s, r, more);
        return;
    }
    if (r->phase == RECLAIM_CHILD)
        runs_sort(&r->shared);
    store_lock(s);
    r->phase = r->phase == RECLAIM_CHILD ? RECLAIM_OWN : RECLAIM_READY;
    if (r->phase == RECLAIM_READY)
        s->dirty = true;
    store_unlock(s);
}

void reclaim_step(struct store *s)
{
    store_lock(s);
    bool wanted = reclaim_wanted(s);
    int err = wanted && !s->snapshots.reclaim ? begin(s) : 0;
    struct reclaim *r = s->snapshots.reclaim;
    enum phase phase = r ? r->phase : RECLAIM_FAILED;

    if (wanted)
        s->signal = true; // and soon again
    store_unlock(s);
    if (!wanted || err < 0)
        return;
    if (phase == RECLAIM_FREEZE || phase == RECLAIM_READY)
        wait_for_checkpoint(s);
    else if (phase != RECLAIM_FAILED)
        walk(s, r);
}
