// SPDX-License-Identifier: MIT
// Duties that may be late: freeing what nobody can reach any more, in bounded steps, and completing
// what appenders have written (contract C4). Run by the checkpoint thread, or by whoever waits for
// space.

#include <stdlib.h>

#include "base/check.h"
#include "base/err.h"
#include "store/store_internal.h"

#define APPENDERS_AT_ONCE 64

// ---- freeing ----

// Where the last CONTENT_EXTENTS_AT_ONCE extents of the content begin; 0 when there are no more
// than these.
static int reap_from(struct store *s, struct fault *f, uint64_t content, uint64_t *ret_from)
{
    uint64_t from = NO_BLOCK;

    for (unsigned i = 0; i < CONTENT_EXTENTS_AT_ONCE && from > 0; i++) {
        const void *value;
        struct key key;
        size_t len;
        int err = tree_prev(&s->tree, store_root(s, f), f, key_make(content, KIND_EXTENT, 0),
                            key_make(content, KIND_EXTENT, from - 1), &key, &value, &len);

        if (err < 0 && err != -ENOENT)
            return err;
        from = err == -ENOENT ? 0 : key.off;
    }
    *ret_from = from;
    return 0;
}

// The operation of one step: a bounded number of extents, then everything else.
static int reap_step_locked(struct store *s, struct fault *f, const struct reap *r, bool *ret_done)
{
    uint64_t content = r->id, from;
    struct inode in;
    struct op op;
    const void *value;
    size_t len;
    int err = tree_get(&s->tree, store_root(s, f), f,
                       key_make(0, KIND_ORPHAN, ORPHAN_OFF(r->what, r->id)), &value, &len);

    *ret_done = true;
    if (err == 0 && r->what == ORPHAN_INODE) {
        err = inode_get(s, f, r->id, &in);
        content = in.content_id;
    }
    if (err < 0)
        return err == -ENOENT ? 0 : err; // gone already
    err = reap_from(s, f, content, &from);
    if (err < 0)
        return err;
    op_begin(s, &op, OP_REAP);
    op.ino = r->id;
    op.what = r->what;
    op.from_block = from;
    *ret_done = from == 0;
    return op_commit(s, f, &op, 0);
}

static int reap_step(struct store *s, const struct reap *r, bool *ret_done)
{
    struct fault f;
    int err;

    fault_begin(&f);
    f.reaping = true; // it may wait for a checkpoint, not for more of its kind
    do {
        store_lock(s);
        err = store_writable(s);
        if (err == 0)
            err = reap_step_locked(s, &f, r, ret_done);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    return err;
}

static struct reap *reap_take(struct store *s)
{
    struct reap *r = NULL;

    store_lock(s);
    if (!list_empty(&s->reap)) {
        r = list_entry(s->reap.next, struct reap, link);
        list_remove(&r->link);
        s->reap_count--;
    }
    store_unlock(s);
    return r;
}

void reap_some(struct store *s, unsigned steps)
{
    while (steps > 0) {
        struct reap *r = reap_take(s);
        bool done = false;
        int err = 0;

        if (!r)
            return;
        while (err == 0 && !done && steps > 0) {
            err = reap_step(s, r, &done);
            steps--;
        }
        if ((err == 0 && !done) || err == -ENOMEM ||
            err == -ENOSPC) { // more to do, or no room for it: next time
            store_lock(s);
            list_prepend(&s->reap, &r->link);
            s->reap_count++;
            store_unlock(s);
            return;
        }
        free(r); // done; or rotten or read-only: what is left of it stays on the orphan list for
                 // the next recovery
    }
}

// ---- orphans after a crash ----

// One step at the first orphan of the list, without the log: recovery's own checkpoint follows.
static int remove_orphan_locked(struct store *s, struct fault *f, bool *ret_found, bool *ret_done)
{
    struct key key;
    const void *value;
    uint64_t content;
    struct inode in;
    struct op op;
    size_t len;
    int err = tree_next(&s->tree, store_root(s, f), f, key_make(0, KIND_ORPHAN, 0),
                        key_make(0, KIND_ORPHAN, UINT64_MAX), &key, &value, &len);

    *ret_found = err == 0;
    if (err < 0)
        return err == -ENOENT ? 0 : err;
    op_begin(s, &op, OP_REAP);
    op.what = (uint8_t)(key.off >> 48);
    op.ino = key.off & INO_MAX;
    op.next_ino = s->next_ino;
    if (op.what < ORPHAN_INODE || op.what > ORPHAN_STAGED)
        return -AF_E_ITEM;
    content = op.ino;
    if (op.what == ORPHAN_INODE) {
        err = inode_get(s, f, op.ino, &in);
        content = in.content_id;
    }
    if (err == 0)
        err = reap_from(s, f, content, &op.from_block);
    if (err < 0)
        return err == -ENOENT ? -AF_E_ITEM : err;
    *ret_done = op.from_block == 0;
    s->replaying = true;
    err = op_prepare(s, f, &op);
    s->replaying = false;
    if (err == 0)
        op_apply(s, &op, s->applied_lsn);
    return err;
}

int store_remove_orphans(struct store *s, uint64_t *ret_count)
{
    bool found, done = false;
    int err;

    *ret_count = 0;
    do {
        struct fault f;

        fault_begin(&f);
        do {
            store_lock(s);
            err = remove_orphan_locked(s, &f, &found, &done);
            store_unlock(s);
        } while (fault_resolve(s, &f, STORE_BLOCK, &err));
        if (err == 0 && found && done)
            ++*ret_count;
    } while (err == 0 && found);
    return err;
}

// ---- appenders ----

static int complete_by_number(struct store *s, uint64_t ino)
{
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        struct oinode *oi = oinode_find(s, ino);

        err = store_writable(s);
        if (err == 0 && oi)
            err = complete(s, &f, oi);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    return err;
}

// Somebody has changed it, and it can be found after a crash.
static bool can_complete(const struct oinode *oi)
{
    return oi->dirty_handles > 0 && !oi->orphan && !(oi->p->is_new && !oi->p->name);
}

static void complete_appenders(struct store *s, uint64_t now_ms)
{
    uint64_t due[APPENDERS_AT_ONCE];
    size_t count = 0;

    if (s->config.commit_open_ms == 0)
        return;
    store_lock(s);
    list_for_each (at, &s->pending) {
        struct oinode *oi = list_entry(at, struct oinode, pending_link);

        if (count < APPENDERS_AT_ONCE && can_complete(oi) && oi->p->append_only && oi->p->content &&
            oi->p->times && now_ms - oi->p->since_ms >= s->config.commit_open_ms)
            due[count++] = oi->ino;
    }
    store_unlock(s);
    for (size_t i = 0; i < count; i++) {
        int err = complete_by_number(s, due[i]);

        if (err < 0 && err != -AF_E_READ_ONLY)
            message(&s->config.sink, MESSAGE_WARNING,
                    "inode %llu: what a program appends could not be committed (%s)",
                    (unsigned long long)due[i], err_name(err));
    }
}

int store_complete_all(struct store *s)
{
    int first = 0;

    for (;;) {
        uint64_t ino = 0;

        store_lock(s);
        list_for_each (at, &s->pending) {
            struct oinode *oi = list_entry(at, struct oinode, pending_link);

            if (can_complete(oi)) {
                ino = oi->ino;
                break;
            }
        }
        store_unlock(s);
        if (ino == 0)
            return first;
        int err = complete_by_number(s, ino);

        if (err < 0) { // the next ones may do; this one is said and dropped
            first = first ? first : err;
            message(
                &s->config.sink, MESSAGE_ERROR,
                "inode %llu: what was written to it while it was open is lost at unmount (%s): %s",
                (unsigned long long)ino, err_name(err), err_text(err));
            store_lock(s);
            struct oinode *oi = oinode_find(s, ino);

            if (oi && oi->p)
                pending_drop(s, oi);
            store_unlock(s);
        }
    }
}

// ---- the rounds ----

bool store_busy_locked(struct store *s)
{
    return s->reap_count > 0 || reclaim_wanted(s) ||
           (s->pending_count > 0 && s->config.commit_open_ms > 0) || cache_is_over(&s->cache);
}

bool store_busy(struct store *s)
{
    store_lock(s);
    bool busy = store_busy_locked(s);

    store_unlock(s);
    return busy;
}

void store_background(struct store *s, uint64_t now_ms)
{
    complete_appenders(s, now_ms);
    reap_some(s, 64);
    reclaim_step(s);
    store_lock(s);
    cache_evict(&s->cache, 4096);
    store_unlock(s);
}
