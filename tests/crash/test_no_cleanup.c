// SPDX-License-Identifier: MIT
// The suites once more with everything that cleans up taken away (tests/lib/no_cleanup.h): segments
// are neither recycled nor removed, nothing runs in the background, so contents that were given up
// are never freed before the next opening. Every crash still leaves a moment of history, and space
// that runs out is told.
//
//   SEED=n  RUNS=n
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "tests/lib/crashes.h"
#include "tests/lib/no_cleanup.h"

static void begin(struct world *w, uint64_t seed)
{
    world_init(w, seed);
    no_cleanup_begin(w->fx.sim);
    w->idle = true;
    w->names = 24;
    w->durable = 15;
    w->bytes_max = UINT64_C(3) << 20;
}

static void end(struct world *w, uint64_t seed, uint64_t violations)
{
    bool failed = w->failed;

    world_free(w);
    if (failed || violations > 0)
        fail_msg("repeat with SEED=%llu RUNS=1", (unsigned long long)seed);
}

static uint64_t segment_count(struct sim *sim)
{
    uint64_t count = 0;

    for (uint64_t n = 1; n < 10000; n++) {
        char path[32];

        wal_segment_path(n, path);
        count += sim_exists(sim, path);
    }
    return count;
}

static void test_without_cleanup_every_crash_leaves_a_moment_of_history(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 1);

    (void)state;
    for (uint64_t s = seed; s < seed + runs; s++) {
        struct crashes c;
        struct world w;

        begin(&w, s);
        crashes_init(&c, &w, s);
        c.percent = 12;
        crashes_watch(&c);
        crashes_work(&c, 8);
        printf("seed %llu: ", (unsigned long long)s);
        crashes_report(&c, stdout);
        uint64_t violations = c.violations;

        crashes_free(&c);
        end(&w, s, violations);
    }
}

static void test_without_cleanup_random_calls_match_the_model(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 4);
    uint64_t before = no_cleanup_refusals(), segments = 0;

    (void)state;
    for (uint64_t s = seed; s < seed + runs; s++) {
        struct world w;
        char text[600];

        begin(&w, s + 70);
        for (unsigned i = 1; i <= 2500 && !w.failed; i++) {
            world_step(&w);
            if (i % 100 == 0 && !w.failed)
                world_checkpoint(&w);
            if (i % 250 == 0 && !w.failed) {
                world_compare(&w);
                world_crash(&w, (enum crash_kind)rng_below(&w.r, CRASH_KIND_COUNT), s + i);
                world_recover(&w);
            }
        }
        segments = AF_MAX(segments, segment_count(w.fx.sim));
        if (!w.failed)
            world_close(&w);
        if (!w.failed && verify_text(w.fx.sim, text, sizeof(text)) != 0)
            world_fail(&w, "verification finds: %.500s", text);
        end(&w, s, 0);
    }
    printf("up to %llu segments, %llu renames and removals refused\n", (unsigned long long)segments,
           (unsigned long long)(no_cleanup_refusals() - before));
    assert_true(segments > 20); // the log of these stores has 8
    assert_true(no_cleanup_refusals() > before);
}

// Without room the call that needs it says so; what was acknowledged is there.
static void test_without_cleanup_a_full_disk_is_told(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 6);

    (void)state;
    for (uint64_t s = seed; s < seed + runs; s++) {
        struct world w;

        begin(&w, s + 170);
        w.faults = true;
        sim_set_capacity(w.fx.sim, sim_used_bytes(w.fx.sim) + (UINT64_C(2) << 20));
        for (unsigned i = 1; i < 4000 && !world_over(&w); i++) {
            world_step(&w);
            if (i % 50 == 0 && !world_over(&w))
                world_checkpoint(&w);
        }
        assert_true(w.failed || w.stopped);
        printf("  seed %llu: call %llu says %s\n", (unsigned long long)s,
               (unsigned long long)w.calls, err_name(w.stopped_by));
        assert_true(w.failed || w.stopped_by == -ENOSPC || w.stopped_by <= -AF_E_FIRST);
        sim_set_capacity(w.fx.sim, UINT64_C(1) << 40);
        if (!w.failed) {
            world_crash(&w, s % 2 ? CRASH_DROP_ALL : CRASH_KILL, s);
            world_recover(&w);
        }
        if (!w.failed)
            world_compare(&w);
        end(&w, s, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_cleanup_every_crash_leaves_a_moment_of_history),
        cmocka_unit_test(test_without_cleanup_random_calls_match_the_model),
        cmocka_unit_test(test_without_cleanup_a_full_disk_is_told),
    };

    return cmocka_run_group_tests_name("no_cleanup", tests, NULL, NULL);
}
