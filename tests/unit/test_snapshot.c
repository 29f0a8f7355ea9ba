// SPDX-License-Identifier: MIT
// Snapshots on the simulated disk: what they show, what they keep, what their deletion gives back,
// and that all of it outlives crashes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "tests/lib/canon.h"
#include "tests/lib/world.h"

#define KEPT_MAX 24

struct kept { // a snapshot that must be there, and what it must show
    char name[32];
    uint64_t hash;
};

struct history {
    struct world w;
    struct kept kept[KEPT_MAX];
    size_t count;
    unsigned taken, deleted;
};

static uint64_t live_hash(struct history *h)
{
    char where[CANON_WHERE_BYTES];
    struct canon c = {0};
    int err = canon_store(h->w.fx.store, &c, where);
    uint64_t hash = c.hash;

    canon_free(&c);
    if (err < 0)
        world_fail(&h->w, "cannot read the live tree: %s", where);
    return hash;
}

static void check_snapshot(struct history *h, const struct kept *k)
{
    char where[CANON_WHERE_BYTES];
    struct canon c = {0};
    uint64_t root;
    int err = store_snapshot_open(h->w.fx.store, k->name, &root);

    if (err < 0) {
        world_fail(&h->w, "snapshot %s: %s", k->name, err_name(err));
        return;
    }
    err = canon_view(h->w.fx.store, root, &c, where);
    if (err < 0)
        world_fail(&h->w, "snapshot %s cannot be read: %s", k->name, where);
    else if (c.hash != k->hash)
        world_fail(&h->w, "snapshot %s shows another tree than the one that was taken", k->name);
    canon_free(&c);
}

static void check_all(struct history *h)
{
    struct store_snapshot s = {0};
    size_t there = 0;

    for (size_t i = 0; i < h->count && !h->w.failed; i++)
        check_snapshot(h, &h->kept[i]);
    while (store_snapshot_next(h->w.fx.store, s.id, &s))
        there++;
    if (!h->w.failed && there != h->count)
        world_fail(&h->w, "%zu snapshots are listed, %zu were taken and not deleted", there,
                   h->count);
}

// Everything is completed first, so that what readers see is what the snapshot holds.
static void take(struct history *h)
{
    struct kept *k = &h->kept[h->count];

    if (h->count == KEPT_MAX)
        return;
    world_settle(&h->w);
    snprintf(k->name, sizeof(k->name), "s%u", h->taken++);
    k->hash = live_hash(h);
    int err = store_snapshot_create(h->w.fx.store, STORE_BLOCK, k->name);
    if (err < 0)
        world_fail(&h->w, "cannot take snapshot %s: %s", k->name, err_name(err));
    h->count++;
}

static void drop(struct history *h, size_t i)
{
    int err = store_snapshot_delete(h->w.fx.store, STORE_BLOCK, h->kept[i].name);
    uint64_t root;

    if (err < 0)
        world_fail(&h->w, "cannot delete snapshot %s: %s", h->kept[i].name, err_name(err));
    if (store_snapshot_open(h->w.fx.store, h->kept[i].name, &root) != -ENOENT)
        world_fail(&h->w, "snapshot %s is still there", h->kept[i].name);
    h->kept[i] = h->kept[--h->count];
    h->deleted++;
}

static void verify(struct history *h, const char *when)
{
    char text[1024];

    if (h->w.failed)
        return;
    int64_t damages = verify_text(h->w.fx.sim, text, sizeof(text));
    if (damages != 0)
        world_fail(&h->w, "%s: verification finds %lld: %.700s", when, (long long)damages, text);
}

static void crash(struct history *h)
{
    enum crash_kind kind = (enum crash_kind)rng_below(&h->w.r, CRASH_KIND_COUNT);

    world_crash(&h->w, kind, rng_next(&h->w.r));
    if (kind != CRASH_KILL)
        verify(h, "after a power cut");
    world_recover(&h->w);
}

static void close_and_open(struct history *h)
{
    world_settle(&h->w);
    world_close(&h->w);
    verify(h, "closed");
    if (!h->w.failed)
        world_reopen(&h->w);
}

static void random_history(uint64_t seed)
{
    struct history h = {0};

    world_init(&h.w, seed);
    h.w.durable = 10;
    h.w.names = (unsigned)(10 + rng_below(&h.w.r, 60));
    h.w.bytes_max = UINT64_C(4) << 20;
    for (unsigned i = 0; i < 1200 && !h.w.failed; i++) {
        world_step(&h.w);
        uint64_t what = rng_below(&h.w.r, 400);

        if (what < 10)
            take(&h);
        else if (what < 18 && h.count > 0)
            drop(&h, rng_below(&h.w.r, h.count));
        else if (what < 20)
            check_all(&h);
        else if (what < 22)
            crash(&h);
        else if (what < 23)
            close_and_open(&h);
        else if (what < 60)
            engine_tick(h.w.fx.engine);
    }
    if (!h.w.failed)
        check_all(&h);
    while (h.count > 0 && !h.w.failed)
        drop(&h, rng_below(&h.w.r, h.count));
    for (unsigned i = 0; i < 400 && !h.w.failed; i++)
        engine_tick(h.w.fx.engine);
    if (!h.w.failed)
        close_and_open(&h);
    bool failed = h.w.failed;

    world_free(&h.w);
    if (failed)
        fail_msg("repeat with SEED=%llu RUNS=1", (unsigned long long)seed);
}

static void test_snapshots_show_their_moment_whatever_comes_after(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 12);

    (void)state;
    for (uint64_t i = 0; i < (runs ? runs : 100); i++)
        random_history(seed + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshots_show_their_moment_whatever_comes_after),
    };

    return cmocka_run_group_tests_name("snapshots", tests, NULL, NULL);
}
