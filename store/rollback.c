// SPDX-License-Identifier: MIT
// Going back to a snapshot, in one step: the root of the live tree becomes that of the snapshot,
// and the state before is kept as a snapshot of its own. Numbers of inodes and of the log go on.
//
//   1 gate      changes wait from here on (admit() in commit.c); what readers see stands still
//   2 keep      a checkpoint takes the snapshot of the state before
//   3 swap      in memory: root, descent, counters; what was open and not completed is dropped
//   4 publish   a checkpoint: the commit point is its superblock. Before it a crash leaves the
//   state before (and its
//               snapshot), after it the one that was gone back to
//   5 gate      opens
//
// No record of the log says so: none lies between the cuts of the two checkpoints.
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "store/diff.h"
#include "store/snapshot.h"
#include "store/store_internal.h"

static void drop_pending(struct store *s)
{
    while (!list_empty(&s->pending)) {
        struct oinode *oi = list_entry(s->pending.next, struct oinode, pending_link);

        pending_drop(s, oi);
        oinode_put(s, oi);
    }
    for (size_t i = 0; i < OINODE_BUCKETS; i++)
        for (struct oinode *oi = s->oinodes[i]; oi; oi = oi->hash_next)
            oi->orphan = false; // the new tree has its own list of them
    while (!list_empty(&s->reap)) {
        struct reap *r = list_entry(s->reap.next, struct reap, link);

        list_remove(&r->link);
        s->reap_count--;
        free(r);
    }
}

// What is being reclaimed goes on: it was compared with the tree before, or is now with the
// snapshot of it, which has taken the live tree's place behind it.
static void swap(struct store *s, const struct snapshot *to)
{
    struct snapshots *ss = &s->snapshots;

    drop_pending(s);
    s->history++;
    s->tree.root = to->root;
    s->inodes = to->inodes;
    ss->live_parent = to->id;
    ss->keep_lsn = to->cut_lsn;
    ss->keep_generation = to->generation;
    s->dirty = true;
}

// The snapshot to go back to and the name of the other one; closes the gate.
static int begin(struct store *s, const char *name, const char *keep, uint64_t *ret_to,
                 uint64_t *ret_keep)
{
    const struct snapshot *to = snapshot_named(&s->snapshots, name);
    int err = s->gate ? -EBUSY : store_writable(s);

    if (err == 0 && (!to || !to->published))
        err = -ENOENT;
    if (err < 0)
        return err;
    *ret_to = to->id;
    err = snapshot_want(s, keep, ret_keep);
    s->gate = err == 0;
    return err;
}

static void open_gate(struct store *s)
{
    store_lock(s);
    s->gate = false;
    af_cond_broadcast(&s->gate_opened);
    store_unlock(s);
}

static int go_back(struct store *s, uint64_t to_id, uint64_t keep_id, struct tree_root *ret_before)
{
    uint64_t orphans;
    int err = snapshot_publish(s);

    store_lock(s);
    struct snapshot *keep = snapshot_find(&s->snapshots, keep_id);
    const struct snapshot *to = snapshot_find(&s->snapshots, to_id);

    if (err < 0 && keep && keep->wanted)
        snapshots_remove(s, keep_id);
    if (err == 0 && (!to || to->deleted || !keep || keep->deleted))
        err = -ENOENT; // somebody has deleted one of them meanwhile
    if (err == 0) {
        AF_ASSERT(keep->published && keep->generation < s->tree.generation);
        *ret_before = keep->root;
        swap(s, to);
    }
    store_unlock(s);
    if (err < 0)
        return err;
    err = store_remove_orphans(s, &orphans);
    if (err == 0)
        err = snapshot_publish(s);
    if (err < 0) // half of it is in memory: nothing of that may be published
        store_fail(s, err, "going back to a snapshot");
    return err;
}

// ---- what has changed, for those who have kept copies ----

struct telling {
    store_changed_fn changed;
    void *arg;
};

static int tell(void *arg, struct key key, const void *a, size_t a_len, const void *b, size_t b_len)
{
    const struct telling *t = arg;

    if (key.kind == KIND_INODE)
        t->changed(t->arg, key.ino, NULL, 0);
    for (int i = 0; key.kind == KIND_DENTRY && i < 2; i++) {
        const void *item = i ? b : a;
        const char *name;
        size_t len;
        uint64_t ino;
        uint8_t type;

        if (item && dentry_decode(item, i ? b_len : a_len, &ino, &type, &name, &len) == 0)
            t->changed(t->arg, key.ino, name, len);
    }
    return 0;
}

// What is open is stale, whether it differs or not: no copy of it may be used.
static int tell_open(struct store *s, const struct telling *t)
{
    uint64_t *list = NULL;
    size_t count = 0;

    store_lock(s);
    list = malloc((s->open_files + 1) * sizeof(list[0]));
    for (size_t i = 0; list && i < OINODE_BUCKETS; i++)
        for (const struct oinode *oi = s->oinodes[i]; oi; oi = oi->hash_next)
            if (oi->opens > 0 && count < s->open_files)
                list[count++] = oi->ino;
    store_unlock(s);
    for (size_t i = 0; i < count; i++)
        t->changed(t->arg, list[i], NULL, 0);
    int err = list ? 0 : -ENOMEM;

    free(list);
    return err;
}

int store_snapshot_rollback(struct store *s, enum store_how how, const char *name, const char *keep,
                            store_changed_fn changed, void *arg)
{
    struct telling t = {.changed = changed, .arg = arg};
    struct tree_root before = {0}, after = {0};
    uint64_t to_id = 0, keep_id = 0;

    if (how == STORE_NONBLOCK)
        return -AF_E_WOULD_BLOCK;
    store_lock(s);
    int err = begin(s, name, keep, &to_id, &keep_id);

    store_unlock(s);
    if (err < 0)
        return err;
    err = go_back(s, to_id, keep_id, &before);
    open_gate(s);
    if (err < 0 || !changed)
        return err;
    store_lock(s);
    const struct snapshot *to = snapshot_find(&s->snapshots, to_id);

    if (to)
        after = to->root;
    store_unlock(s);
    // Both are kept: the one as the snapshot just taken, the other as the one gone back to.
    err = to ? diff_trees(s, &before, &after, tell, &t) : -ESTALE;
    if (err == 0)
        err = tell_open(s, &t);
    if (err < 0)
        message(
            &s->config.sink, MESSAGE_WARNING,
            "the tree is that of snapshot '%s', but what has changed by it could not be told: %s (%s); "
            "what the kernel has cached may be old until the next mount",
            name, err_text(err), err_name(err));
    return err;
}
