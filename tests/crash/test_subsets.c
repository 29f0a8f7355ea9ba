// SPDX-License-Identifier: MIT
// Small work with every crash that it can have: at each event, every subset of what is unsynced
// (sectors of writes, sizes, directory entries) is what the power cut leaves, as long as there are
// at most PARTS of them; where there are more, subsets are drawn. Everything is small, so that a
// recovery takes a fraction of a millisecond.
//
//   SEED=n  the first seed;  RUNS=n, WORKS=n (16)  n × n kinds of work;  PARTS=n  2^n outcomes of
//   one crash; DRAWS=n  beyond
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "tests/lib/crashes.h"

// Steady, at its zero, ten years back, ten years on, and jumping all the time.
static void set_clock(struct world *w, unsigned clock)
{
    const uint64_t second = 1000000000, now = 1577836800 * second, years = 315360000 * second;
    const uint64_t starts[] = {now, 0, now - years, now + years, now};

    sim_set_now_ns(w->fx.sim, starts[clock]);
    w->clock_jumps = clock == 4;
}

static void subsets(uint64_t seed)
{
    struct world w;
    struct crashes c;

    world_init(&w, seed);
    w.durable = 25;
    w.names = 6;
    w.bytes_max = 0; // small writes only
    set_clock(&w, (unsigned)(seed % 5));
    crashes_init(&c, &w, seed);
    c.random_cuts = 0;
    c.again_percent = 1;
    c.verify_percent = 4;
    c.subset_parts = (unsigned)env_number("PARTS", 8);
    c.subset_draws = (unsigned)env_number("DRAWS", 64);
    crashes_watch(&c);
    crashes_small_work(&c, (unsigned)env_number("ROUNDS", 8));
    printf("seed %llu: %llu calls; %llu crash points with all subsets; ", (unsigned long long)seed,
           (unsigned long long)w.calls, (unsigned long long)c.exhausted);
    crashes_report(&c, stdout);
    bool failed = w.failed || c.violations > 0;

    crashes_free(&c);
    world_free(&w);
    if (failed)
        fail_msg("repeat with SEED=%llu RUNS=1 WORKS=1", (unsigned long long)seed);
}

static void test_every_subset_of_small_work_leaves_a_moment_of_history(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 1);
    uint64_t works = env_number("WORKS", 16);

    (void)state;
    for (uint64_t i = 0; i < (runs ? runs : 1) * works; i++)
        subsets(seed + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_subset_of_small_work_leaves_a_moment_of_history),
    };

    return cmocka_run_group_tests_name("subsets", tests, NULL, NULL);
}
