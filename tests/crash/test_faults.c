// SPDX-License-Identifier: MIT
// Errors of the disk at every call: what fails is told to somebody, and what was acknowledged
// stays.
//
//   one fault     the n-th call of a kind fails, once or from then on; n rises until nothing fails
//   any more the call      either did not happen or happened whole afterwards    where the log, its
//   data or a checkpoint failed, no later fsync answers with success, and nothing changes;
//                 else everything goes on
//   and then      a kill or a power cut; recovery finds a state from the last acknowledged one on,
//   which survives another power cut
//
//   SEED=n  RUNS=n  how many kinds of work;  RUNS=all  every n of every fault
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "tests/lib/aftermath.h"
#include "tests/lib/failures.h"
#include "tests/lib/world.h"

struct counts {
    uint64_t hits, surfaced, failed_stores;
};

// ---- one run ----

// True when the fault acted.
static bool run(const struct failure *kind, uint64_t seed, uint64_t skip, uint64_t times,
                struct counts *n, bool *ret_failed)
{
    struct sim_fault fault = {.calls = kind->calls,
                              .path = kind->path,
                              .skip = skip,
                              .times = times,
                              .effect = kind->effect,
                              .error = kind->error};
    struct world w;

    world_init(&w, seed);
    w.durable = 15;
    w.names = 20;
    w.bytes_max = UINT64_C(1) << 20;
    w.faults = true;
    unsigned number = sim_fault_add(w.fx.sim, &fault);

    aftermath_work(&w);
    bool hit = sim_fault_hits(w.fx.sim, number) > 0;

    if (hit && times == SIM_FOREVER && w.fx.engine &&
        skip % 2) // also while the disk goes on failing
        (void)!fixture_sync(&w.fx);
    sim_faults_clear(w.fx.sim);
    n->hits += hit;
    n->surfaced += hit && w.stopped;
    n->failed_stores += aftermath_check(&w);
    if (!w.failed)
        aftermath_recover(&w, (enum crash_kind)(skip % CRASH_KIND_COUNT));
    if (w.failed)
        fprintf(stderr, "fault: %s, after %llu of them, %s\n", kind->name, (unsigned long long)skip,
                times == 1 ? "once" : "from then on");
    *ret_failed = w.failed;
    world_free(&w);
    return hit;
}

static bool fault_of_kind(const struct failure *kind, uint64_t seed, uint64_t times, bool all)
{
    struct rng r = {rng_mix(seed, times)};
    struct counts n = {0};
    bool failed = false, hit = true;
    uint64_t skip = 0, runs = 0;

    for (; hit && !failed; runs++) {
        hit = run(kind, seed, skip, times, &n, &failed);
        skip += all || skip < 6 ? 1 : 1 + rng_below(&r, skip / 5);
    }
    printf("  %-36s %-12s %5llu runs, %5llu hits, %5llu calls failed, %5llu stores failed\n",
           kind->name, times == 1 ? "once" : "from then on", (unsigned long long)runs,
           (unsigned long long)n.hits, (unsigned long long)n.surfaced,
           (unsigned long long)n.failed_stores);
    return failed;
}

static void test_errors_of_the_disk_are_told_and_lose_nothing(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 1);
    bool all = runs == 0;

    (void)state;
    for (uint64_t k = 0; k < (all ? 1 : runs); k++)
        for (size_t i = 0; i < failure_count; i++)
            for (unsigned f = 0; f < 2; f++)
                if (fault_of_kind(&failures[i], seed + k, f ? SIM_FOREVER : 1, all))
                    fail_msg("repeat with SEED=%llu", (unsigned long long)(seed + k));
}

// ---- recovery ----

static uint64_t tree_hash(struct fixture *fx)
{
    char where[CANON_WHERE_BYTES];
    struct canon c = {0};
    int err = canon_store(fx->store, &c, where);
    uint64_t hash = c.hash;

    canon_free(&c);
    return err == 0 ? hash : 0;
}

// Recovers the crashed disk of `w` with the fault; then without. It may refuse, but it must come to
// `hash` in the end, and must not have shown anything else. True when the fault acted.
static bool recover_with_fault(struct world *w, const struct failure *kind, uint64_t skip,
                               uint64_t times, uint64_t hash, struct counts *n)
{
    struct sim_fault fault = {.calls = kind->calls,
                              .path = kind->path,
                              .skip = skip,
                              .times = times,
                              .effect = kind->effect,
                              .error = kind->error};
    struct fixture fx;

    fixture_adopt(&fx, sim_clone(w->fx.sim), &w->fx.options);
    unsigned number = sim_fault_add(fx.sim, &fault);
    int err = fixture_open(&fx);
    bool hit = sim_fault_hits(fx.sim, number) > 0;

    sim_faults_clear(fx.sim);
    n->hits += hit;
    n->surfaced += hit && err < 0;
    if (err < 0 && !hit)
        world_fail(w, "recovery refuses without a fault: %s", fx.refusal);
    if (err == 0 && tree_hash(&fx) != hash)
        world_fail(w, "recovery with a fault gives another tree");
    for (unsigned i = 0; i < 2 && !w->failed; i++) {
        fixture_leave(&fx);
        crash_disk(fx.sim, i == 0 ? (enum crash_kind)(skip % CRASH_KIND_COUNT) : CRASH_DROP_ALL,
                   skip);
        err = fixture_open(&fx);
        if (err < 0)
            world_fail(w, "the next recovery refuses: %s: %s", err_name(err), fx.refusal);
        else if (tree_hash(&fx) != hash)
            world_fail(w, "the next recovery gives another tree");
    }
    if (w->failed)
        fprintf(stderr, "fault: %s, after %llu of them, %s\n", kind->name, (unsigned long long)skip,
                times == 1 ? "once" : "from then on");
    fixture_free(&fx);
    return hit;
}

static void recoveries(uint64_t seed, struct counts *n)
{
    struct fixture fx;
    struct world w;

    world_init(&w, seed);
    w.durable = 15;
    w.names = 20;
    w.bytes_max = UINT64_C(1) << 20;
    for (unsigned i = 0; i < 150; i++)
        world_step(&w);
    world_crash(&w, seed % 2 ? CRASH_RANDOM : CRASH_GARBAGE, seed);
    fixture_adopt(&fx, sim_clone(w.fx.sim), &w.fx.options);
    assert_int_equal(fixture_open(&fx), 0);
    uint64_t hash = tree_hash(&fx);

    fixture_free(&fx);
    for (size_t i = 0; i < failure_count && !w.failed; i++) {
        for (unsigned f = 0; f < 2 && !w.failed; f++) {
            uint64_t skip = 0;

            while (!w.failed &&
                   recover_with_fault(&w, &failures[i], skip, f ? SIM_FOREVER : 1, hash, n))
                skip++;
        }
    }
    bool failed = w.failed;

    world_free(&w);
    if (failed)
        fail_msg("repeat with SEED=%llu", (unsigned long long)seed);
}

static void test_a_recovery_that_meets_errors_can_be_repeated(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 1);
    struct counts n = {0};

    (void)state;
    for (uint64_t i = 0; i < 4 * (runs ? runs : 1); i++)
        recoveries(seed + 100 + i, &n);
    printf("  %llu recoveries with a fault, %llu refused\n", (unsigned long long)n.hits,
           (unsigned long long)n.surfaced);
    assert_true(n.surfaced > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_of_the_disk_are_told_and_lose_nothing),
        cmocka_unit_test(test_a_recovery_that_meets_errors_can_be_repeated),
    };

    return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
