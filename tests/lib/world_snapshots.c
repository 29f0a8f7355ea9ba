// SPDX-License-Identifier: MIT
// Snapshots in random work: each holds the state of history at which it was taken, and what a crash
// leaves of them is known.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "tests/lib/world_internal.h"

// What the call before has made or deleted is settled now.
void world_snapshots_settle(struct world *w)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < w->snapshot_count; i++) {
        w->snapshots[i].unsettled = false;
        if (w->snapshots[i].there)
            w->snapshots[kept++] = w->snapshots[i];
    }
    w->snapshot_count = kept;
}

static void take(struct world *w)
{
    struct world_snapshot *s = &w->snapshots[w->snapshot_count];

    *s = (struct world_snapshot){.hash = w->m.hash, .unsettled = true};
    snprintf(s->name, sizeof(s->name), "s%u", w->snapshots_taken++);
    w->snapshot_count++;
    int err = store_snapshot_create(w->fx.store, STORE_BLOCK, s->name);
    if (world_broke(w, err))
        return;
    s->there = err == 0;
    if (world_check(w, err, 0))
        world_acknowledge(w, w->m.state_count - 1); // it holds everything so far, and is durable
}

static void drop(struct world *w)
{
    struct world_snapshot *s = &w->snapshots[rng_below(&w->r, w->snapshot_count)];

    s->unsettled = true;
    int err = store_snapshot_delete(w->fx.store, STORE_BLOCK, s->name);
    if (world_broke(w, err))
        return;
    s->there = err != 0;
    if (world_check(w, err, 0))
        world_acknowledge(w, w->m.state_count - 1);
}

void world_snapshot_call(struct world *w)
{
    world_begin(w, "snapshot");
    world_snapshots_settle(w);
    if (w->snapshot_count < WORLD_SNAPSHOTS && rng_chance(&w->r, w->snapshot_count ? 50 : 100))
        take(w);
    else
        drop(w);
}

bool world_snapshots_check(const struct world *w, struct store *store, char *why, size_t size)
{
    for (unsigned i = 0; i < w->snapshot_count; i++) {
        const struct world_snapshot *s = &w->snapshots[i];
        char where[CANON_WHERE_BYTES];
        struct canon c = {0};
        uint64_t root;
        int err = store_snapshot_open(store, s->name, &root);

        if (err == -ENOENT && (s->unsettled || !s->there))
            continue;
        if (err == 0 && !s->there && !s->unsettled)
            err = -EEXIST;
        if (err == 0)
            err = canon_view(store, root, &c, where);
        uint64_t hash = c.hash;

        canon_free(&c);
        if (err == 0 && hash == s->hash)
            continue;
        snprintf(why, size, "snapshot %s: %s", s->name,
                 err < 0 ? err_name(err) : "it shows another tree than the one that was taken");
        return false;
    }
    return true;
}

void world_snapshots_recovered(struct world *w)
{
    char why[200];

    if (!world_snapshots_check(w, w->fx.store, why, sizeof(why))) {
        world_fail(w, "%s", why);
        return;
    }
    for (unsigned i = 0; i < w->snapshot_count; i++) {
        uint64_t root;

        w->snapshots[i].there = store_snapshot_open(w->fx.store, w->snapshots[i].name, &root) == 0;
    }
    world_snapshots_settle(w);
}
