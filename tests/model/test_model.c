// SPDX-License-Identifier: MIT
// Random operations on the engine and on the model (tests/lib/model.h), with checkpoints, clean
// ends, kills and power cuts at random points. Readers must see what the model says at any time;
// after a crash the tree must be one of the moments of the model's history from the last
// acknowledged one on; and the image must verify.
//
//   SEED=n    the first seed;  RUNS=n  how many;  OPS=n  calls of one run;  TRACE=1  prints every
//   call
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "tests/lib/world.h"

static void verify(struct world *w, const char *when)
{
    char text[1024];
    int64_t damages;

    if (w->failed)
        return;
    w->m.what = when;
    damages = verify_text(w->fx.sim, text, sizeof(text));
    if (damages != 0)
        world_fail(w, "verification finds %lld: %.900s", (long long)damages, text);
}

// A crash of any kind, now or at one of the next events; and the crashed image verifies before
// anybody has repaired it.
static void crash(struct world *w)
{
    enum crash_kind kind = (enum crash_kind)rng_below(&w->r, CRASH_KIND_COUNT);
    uint64_t seed = rng_next(&w->r);

    if (!world_dead(w) && rng_chance(&w->r, 70)) {
        uint64_t at = sim_event_count(w->fx.sim) + rng_below(&w->r, 60);

        sim_crash_at(w->fx.sim, at, (enum sim_crash_mode)rng_below(&w->r, 3));
        for (unsigned i = 0; i < 400 && !world_over(w); i++)
            world_step(w);
    }
    world_crash(w, kind, seed);
    // After a kill what is unsynced is still to be seen, so it is looked at where the power has
    // failed.
    if (kind != CRASH_KILL && rng_chance(&w->r, 30))
        verify(w, "verifying the crashed image");
}

// The recovery is crashed in turn, at some event, up to three times.
static void recover(struct world *w)
{
    for (unsigned i = 0; i < 3 && !w->failed && rng_chance(&w->r, 40); i++) {
        sim_crash_at(w->fx.sim, rng_below(&w->r, 60), (enum sim_crash_mode)rng_below(&w->r, 3));
        int err = fixture_open(&w->fx);

        if (err == 0)
            fixture_abandon(&w->fx);
        else if (!world_dead(w))
            world_fail(w, "recovery refuses without a crash: %s", w->fx.refusal);
        crash_disk(w->fx.sim, (enum crash_kind)rng_below(&w->r, CRASH_KIND_COUNT), rng_next(&w->r));
    }
    world_recover(w);
}

static void clean_end(struct world *w)
{
    world_close(w);
    verify(w, "verifying the closed image");
    if (!w->failed)
        world_reopen(w);
}

static void run(uint64_t seed, uint64_t ops)
{
    struct world w;

    world_init(&w, seed);
    w.trace = env_number("TRACE", 0) != 0;
    w.names = (unsigned)(rng_chance(&w.r, 30) ? 120 : 8 + rng_below(&w.r, 40));
    w.durable = (unsigned)rng_below(&w.r, 25);
    w.clock_jumps = rng_chance(&w.r, 50);
    w.with_snapshots = rng_chance(&w.r, 50);
    sim_set_lazy(w.fx.sim, rng_chance(&w.r, 50));
    if (!w.failed && rng_chance(&w.r, 30)) {
        world_close(&w);
        w.fx.options.commit_open_ms = w.m.commit_open_ms = 2000;
        world_recover(&w);
    }
    for (uint64_t i = 0; i < ops && !w.failed; i++) {
        world_step(&w);
        if (rng_below(&w.r, 150) == 0)
            world_compare(&w);
        if (rng_below(&w.r, 400) == 0) {
            crash(&w);
            recover(&w);
            sim_set_lazy(w.fx.sim, rng_chance(&w.r, 50));
        } else if (rng_below(&w.r, 1000) == 0) {
            clean_end(&w);
        }
    }
    if (!w.failed)
        clean_end(&w);
    if (!w.failed)
        world_compare(&w);
    bool failed = w.failed;

    world_free(&w);
    if (failed)
        fail_msg("repeat with SEED=%llu RUNS=1", (unsigned long long)seed);
}

static void test_random_calls_match_the_model(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 100),
             ops = env_number("OPS", 2500);

    (void)state;
    printf("seeds %llu to %llu, %llu calls each\n", (unsigned long long)seed,
           (unsigned long long)(seed + runs - 1), (unsigned long long)ops);
    for (uint64_t i = 0; i < runs; i++)
        run(seed + i, ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_calls_match_the_model),
    };

    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
