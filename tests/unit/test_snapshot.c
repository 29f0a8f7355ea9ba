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
    unsigned number; // the higher, the younger
    uint64_t hash;
};

struct history {
    struct world w;
    struct kept kept[KEPT_MAX];
    size_t count;
    unsigned taken, deleted, went_back;
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

// A snapshot holds history: what is open and not completed is not in it.
static void take(struct history *h)
{
    struct kept *k = &h->kept[h->count];

    if (h->count == KEPT_MAX)
        return;
    if (rng_chance(&h->w.r, 50))
        world_settle(&h->w);
    k->number = h->taken++;
    snprintf(k->name, sizeof(k->name), "s%u", k->number);
    k->hash = h->w.m.hash;
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

// What was open in the tree that is gone: stale, and closed without a trace.
static void close_stale(struct history *h)
{
    for (unsigned i = 0; i < WORLD_HANDLES; i++) {
        struct world_handle *handle = &h->w.handles[i];

        if (!handle->file)
            continue;
        int err = store_write(h->w.fx.store, STORE_BLOCK, handle->file, 0, "x", 1, false);
        if (!store_file_stale(h->w.fx.store, handle->file) || err != -ESTALE)
            world_fail(&h->w, "a file opened before is not stale: %s", err_name(err));
        err = store_release(h->w.fx.store, STORE_BLOCK, handle->file);
        if (err < 0)
            world_fail(&h->w, "cannot close a stale file: %s", err_name(err));
        handle->file = NULL;
    }
}

// Back to one of them; what is there now becomes another.
static void go_back(struct history *h)
{
    char where[CANON_WHERE_BYTES];

    if (h->count == KEPT_MAX)
        return;
    if (rng_chance(&h->w.r, 40))
        world_settle(&h->w);
    else if (engine_sync(h->w.fx.engine) < 0) // every answer comes
        world_fail(&h->w, "cannot sync");
    // The one that the live tree descends from is being reclaimed, and has been compared with it.
    if (h->count > 1 && rng_chance(&h->w.r, 50)) {
        size_t newest = 0;

        for (size_t i = 1; i < h->count; i++)
            if (h->kept[i].number > h->kept[newest].number)
                newest = i;
        drop(h, newest);
        for (uint64_t i = rng_below(&h->w.r, 5); i > 0; i--)
            engine_tick(h->w.fx.engine);
    }
    struct kept *to = &h->kept[rng_below(&h->w.r, h->count)], *keep = &h->kept[h->count];

    keep->number = h->taken++;
    snprintf(keep->name, sizeof(keep->name), "s%u", keep->number);
    keep->hash = h->w.m.hash;
    int err = store_snapshot_rollback(h->w.fx.store, STORE_BLOCK, to->name, keep->name, NULL, NULL);
    if (err < 0) {
        world_fail(&h->w, "cannot go back to %s: %s", to->name, err_name(err));
        return;
    }
    h->count++;
    h->went_back++;
    close_stale(h);
    if (live_hash(h) != to->hash)
        world_fail(&h->w, "the live tree is not that of %s", to->name);
    if (model_load(&h->w.m, h->w.fx.store, where) < 0)
        world_fail(&h->w, "cannot load the tree: %s", where);
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
        else if (what < 64 && h.count > 0)
            go_back(&h);
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

// ---- going back, crashed at every event ----

struct moments {
    struct sim *sim;
    struct sim *taken[400];
    size_t count;
};

static void take_moment(void *arg, const struct sim_event *event)
{
    struct moments *m = arg;

    (void)event;
    if (m->count < AF_ARRAY_LEN(m->taken))
        m->taken[m->count++] = sim_clone(m->sim);
}

// Either the state before or the one gone back to, whole; the latter never without the snapshot of
// the former.
static bool check_moment(struct history *h, struct sim *sim, enum crash_kind kind, uint64_t seed,
                         const struct kept *to, const struct kept *before)
{
    struct canon live = {0}, kept = {0};
    char where[CANON_WHERE_BYTES], text[600];
    struct fixture fx;
    uint64_t root;

    crash_disk(sim, kind, seed);
    fixture_adopt(&fx, sim, &h->w.fx.options);
    int err = fixture_open(&fx);
    if (err == 0)
        err = canon_store(fx.store, &live, where);
    bool has_kept = err == 0 && store_snapshot_open(fx.store, before->name, &root) == 0;
    if (has_kept)
        err = canon_view(fx.store, root, &kept, where);
    bool went_back = live.hash == to->hash;
    if (err < 0 || (!went_back && live.hash != before->hash))
        world_fail(&h->w, "a crash in going back leaves neither state: %s", err_name(err));
    else if ((went_back && !has_kept) || (has_kept && kept.hash != before->hash))
        world_fail(&h->w, "a crash in going back loses the state before");
    for (unsigned i = 0; i < 20 && err == 0; i++)
        engine_tick(fx.engine);
    if (err == 0)
        err = fixture_close(&fx);
    int64_t damages = err == 0 ? verify_text(fx.sim, text, sizeof(text)) : 0;
    if (err < 0 || damages != 0)
        world_fail(&h->w, "after a crash in going back: %s, %lld: %.500s", err_name(err),
                   (long long)damages, damages ? text : "");
    canon_free(&live);
    canon_free(&kept);
    fixture_free(&fx);
    return went_back;
}

static void crash_going_back(uint64_t seed)
{
    struct history h = {0};
    struct moments m = {0};
    unsigned back = 0, outcomes = 0;

    world_init(&h.w, seed);
    h.w.durable = 5;
    h.w.bytes_max = UINT64_C(1) << 20;
    for (unsigned i = 0; i < 4 && !h.w.failed; i++) {
        for (unsigned k = 0; k < 60; k++)
            world_step(&h.w);
        take(&h);
    }
    if (seed % 2 && h.count > 2) // the newest is being reclaimed while the live tree leaves it
        drop(&h, h.count - 1);
    for (unsigned k = 0; k < 40 && !h.w.failed; k++)
        world_step(&h.w);
    if (engine_sync(h.w.fx.engine) < 0)
        world_fail(&h.w, "cannot sync");
    struct kept to = h.kept[rng_below(&h.w.r, h.count)], before = {.name = "before"};

    before.hash = h.w.m.hash;
    if (seed % 2)
        engine_tick(h.w.fx.engine);
    m.sim = h.w.fx.sim;
    sim_set_event_hook(m.sim, take_moment, &m);
    int err = h.w.failed ? 0
                         : store_snapshot_rollback(h.w.fx.store, STORE_BLOCK, to.name, before.name,
                                                   NULL, NULL);
    take_moment(&m, NULL);
    sim_set_event_hook(m.sim, NULL, NULL);
    if (err < 0)
        world_fail(&h.w, "cannot go back: %s", err_name(err));
    for (size_t i = 0; i < m.count; i++)
        for (unsigned k = 0; k < 4; k++) {
            enum crash_kind kind = k == 3 ? CRASH_RANDOM : (enum crash_kind)k;

            if (h.w.failed)
                break;
            back += check_moment(&h, sim_clone(m.taken[i]), kind, rng_next(&h.w.r), &to, &before);
            outcomes++;
        }
    bool failed = h.w.failed;

    for (size_t i = 0; i < m.count; i++)
        sim_destroy(m.taken[i]);
    world_free(&h.w);
    if (failed)
        fail_msg("repeat with SEED=%llu RUNS=1", (unsigned long long)seed);
    printf("  seed %llu: %zu crash points, %u outcomes, %u of them back\n",
           (unsigned long long)seed, m.count, outcomes, back);
    assert_true(back > 0 && back < outcomes);
}

static void test_going_back_is_one_step(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 4);

    (void)state;
    for (uint64_t i = 0; i < (runs ? runs : 40); i++)
        crash_going_back(seed + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshots_show_their_moment_whatever_comes_after),
        cmocka_unit_test(test_going_back_is_one_step),
    };

    return cmocka_run_group_tests_name("snapshots", tests, NULL, NULL);
}
