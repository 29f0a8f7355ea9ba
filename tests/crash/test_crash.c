// SPDX-License-Identifier: MIT
// The crash matrix (tests/lib/crashes.h): mixed work with a crash at every event, and the creation
// of a store likewise; then the same work run into a crash, so that the engine itself has to unwind
// in the middle of every call.
//
//   SEED=n  the first seed;  RUNS=n  how many kinds of work;  RUNS=all  one of each, with every
//   event a crash point;  PERCENT=n  of the events that are crash points;  ROUNDS=n  length of the
//   work
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "tests/lib/crashes.h"

static uint64_t first_seed(void)
{
    return env_number("SEED", 1);
}

static uint64_t run_count(uint64_t otherwise)
{
    uint64_t runs = env_number("RUNS", otherwise);

    return runs ? runs : otherwise;
}

// ---- the matrix ----

static void matrix(uint64_t seed, unsigned percent, bool lazy, bool timer)
{
    struct world w;
    struct crashes c;

    world_init(&w, seed);
    w.durable = 12;
    w.names = 24;
    w.bytes_max = UINT64_C(3) << 20;
    w.with_snapshots = seed % 3 != 0;
    if (timer)
        w.fx.options.commit_open_ms = w.m.commit_open_ms = 3000;
    sim_set_lazy(w.fx.sim, lazy);
    crashes_init(&c, &w, seed);
    c.percent = percent;
    crashes_watch(&c);
    if (timer) { // the options count from the next opening on
        world_close(&w);
        crashes_try(&c);
        crashes_reopen(&c);
    }
    crashes_work(&c, (unsigned)env_number("ROUNDS", 10));
    if (!w.failed && c.violations == 0) {
        world_close(&w);
        crashes_try(&c);
    }
    printf("seed %llu: %llu calls, %llu acknowledged; ", (unsigned long long)seed,
           (unsigned long long)w.calls, (unsigned long long)w.acked);
    crashes_report(&c, stdout);
    bool sites = crashes_all_sites(&c), failed = w.failed;
    uint64_t violations = c.violations;

    crashes_free(&c);
    world_free(&w);
    if (failed || violations > 0)
        fail_msg("repeat with SEED=%llu RUNS=1 (PERCENT as it was)", (unsigned long long)seed);
    assert_true(sites);
}

static void test_a_crash_at_every_event_leaves_a_moment_of_history(void **state)
{
    bool all = env_number("RUNS", 1) == 0;
    unsigned percent = (unsigned)env_number("PERCENT", all ? 100 : 50);
    uint64_t runs = run_count(3);

    (void)state;
    for (uint64_t i = 0; i < runs; i++)
        matrix(first_seed() + i, percent, i % 2 == 1, i % 3 == 2);
}

// ---- creation ----

struct creation {
    struct sim *sim;
    struct engine_options options;
    uint64_t whole; // hash of the empty store's tree, times of the root and all
    uint64_t points, outcomes, made;
    struct sim_event event;
    bool again; // over what an interrupted one has left
    bool failed;
};

static void creation_event(void *arg, const struct sim_event *event);

static uint64_t tree_hash(struct fixture *fx)
{
    char where[CANON_WHERE_BYTES];
    struct canon d = {0};
    int err = canon_store(fx->store, &d, where);
    uint64_t hash = d.hash;

    canon_free(&d);
    return err == 0 ? hash : 0;
}

static void creation_failed(struct creation *cr, enum crash_kind kind, uint64_t seed,
                            const char *what, int err, const struct fixture *fx)
{
    cr->failed = true;
    fprintf(stderr, "creation crashed before event %llu (%s %s), %s, seed %llu: %s: %s; %s\n",
            (unsigned long long)cr->event.index, sim_call_name(cr->event.call), cr->event.path,
            crash_name(kind), (unsigned long long)seed, what, err_name(err), fx->said);
}

// Makes the store over what is left of one, and crashes at times in that too.
static int create_again(struct creation *cr, struct fixture *fx)
{
    struct creation inner = {
        .sim = fx->sim, .options = cr->options, .whole = cr->whole, .again = true};

    if (!cr->again && cr->made++ % 12 == 0)
        sim_set_event_hook(fx->sim, creation_event, &inner);
    int err = fixture_create(fx);

    sim_set_event_hook(fx->sim, NULL, NULL);
    cr->outcomes += inner.outcomes;
    cr->failed = cr->failed || inner.failed;
    return err;
}

// Either there is no store, and making one works; or there is a whole empty one.
static void try_creation(struct creation *cr, enum crash_kind kind, uint64_t seed)
{
    struct fixture fx;
    uint64_t before;
    int err;

    fixture_adopt(&fx, sim_clone(cr->sim), &cr->options);
    crash_disk(fx.sim, kind, seed);
    cr->outcomes++;
    before = sim_hash(fx.sim);
    err = fixture_open(&fx);
    if (err < 0) {
        if (sim_hash(fx.sim) != before)
            creation_failed(cr, kind, seed, "a refused opening has changed the disk", err, &fx);
        err = create_again(cr, &fx);
        if (err == 0)
            err = fixture_open(&fx);
        if (err < 0)
            creation_failed(cr, kind, seed, "there is no store, and none can be made", err, &fx);
    }
    if (err == 0 && tree_hash(&fx) != cr->whole)
        creation_failed(cr, kind, seed, "the store is not an empty one", 0, &fx);
    if (err == 0) {
        char text[400];

        err = fixture_close(&fx);
        if (err < 0 || verify_text(fx.sim, text, sizeof(text)) != 0)
            creation_failed(cr, kind, seed, text, err, &fx);
    }
    fixture_free(&fx);
}

static void creation_event(void *arg, const struct sim_event *event)
{
    struct creation *cr = arg;

    cr->event = *event;
    cr->points++;
    for (unsigned kind = 0; kind < CRASH_KIND_COUNT; kind++)
        try_creation(cr, (enum crash_kind)kind, 2 * cr->points);
    for (unsigned i = 0; i < 6 && !cr->again; i++)
        try_creation(cr, i % 2 ? CRASH_RANDOM : CRASH_GARBAGE, 1000 * cr->points + i);
}

static void test_a_crash_in_creation_leaves_no_store_or_a_whole_one(void **state)
{
    struct fixture fx, model;
    struct creation cr = {0};

    (void)state;
    fixture_init(&model, 5);
    assert_int_equal(fixture_create(&model), 0);
    assert_int_equal(fixture_create(&model), -AF_E_STORE_EXISTS);
    assert_int_equal(fixture_open(&model), 0);
    cr.whole = tree_hash(&model);
    fixture_free(&model);

    fixture_init(&fx, 5);
    cr.sim = fx.sim;
    cr.options = fx.options;
    sim_set_event_hook(fx.sim, creation_event, &cr);
    assert_int_equal(fixture_create(&fx), 0);
    sim_set_event_hook(fx.sim, NULL, NULL);
    creation_event(&cr, &cr.event); // and after the last one
    printf("%llu crash points, %llu outcomes, %llu made anew\n", (unsigned long long)cr.points,
           (unsigned long long)cr.outcomes, (unsigned long long)cr.made);
    fixture_free(&fx);
    assert_false(cr.failed);
    assert_true(cr.made > 0 && cr.made < cr.outcomes);
}

// ---- the engine in the middle of a call ----

// Runs the work until the crash at event `at`; at SIM_NEVER to its end. Returns the number of
// events.
static uint64_t run_into(uint64_t seed, uint64_t at, enum sim_crash_mode mode, enum crash_kind kind,
                         bool *ret_failed)
{
    struct world w;
    uint64_t events;

    world_init(&w, seed);
    w.durable = 15;
    w.names = 20;
    w.bytes_max = UINT64_C(2) << 20;
    uint64_t base = sim_event_count(w.fx.sim);

    if (at != SIM_NEVER)
        sim_crash_at(w.fx.sim, base + at, mode);
    for (unsigned round = 0; round < 5 && !world_over(&w); round++) {
        for (unsigned i = 0; i < 60 && !world_over(&w); i++)
            world_step(&w);
        if (round == 2 && !world_over(&w))
            world_scatter(&w);
        if (round % 2 == 1 && !world_over(&w))
            world_checkpoint(&w);
    }
    if (!world_over(&w))
        world_close(&w);
    events = sim_event_count(w.fx.sim) - base;
    world_crash(&w, kind, rng_mix(seed, at));
    if (!w.failed)
        world_recover(&w);
    if (!w.failed)
        world_compare(&w);
    if (w.failed)
        fprintf(stderr, "crash at event %llu, mode %d, %s\n", (unsigned long long)at, (int)mode,
                crash_name(kind));
    *ret_failed = w.failed;
    world_free(&w);
    return events;
}

static void test_the_engine_unwinds_from_a_crash_anywhere(void **state)
{
    bool all = env_number("RUNS", 1) == 0, failed = false;
    uint64_t seed = first_seed() + 500, points = 0, events;
    struct rng r = {rng_mix(seed, 9)};

    (void)state;
    events = run_into(seed, SIM_NEVER, SIM_CRASH_BEFORE, CRASH_DROP_ALL, &failed);
    assert_false(failed);
    for (uint64_t at = 0; at < events && !failed; at += all ? 1 : 1 + rng_below(&r, events / 60)) {
        for (unsigned mode = 0; mode < 3 && !failed; mode++, points++)
            (void)run_into(seed, at, (enum sim_crash_mode)mode,
                           (enum crash_kind)rng_below(&r, CRASH_KIND_COUNT), &failed);
    }
    printf("%llu events, %llu crashes\n", (unsigned long long)events, (unsigned long long)points);
    assert_false(failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_crash_in_creation_leaves_no_store_or_a_whole_one),
        cmocka_unit_test(test_a_crash_at_every_event_leaves_a_moment_of_history),
        cmocka_unit_test(test_the_engine_unwinds_from_a_crash_anywhere),
    };

    return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}
