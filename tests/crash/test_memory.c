// SPDX-License-Identifier: MIT
// Memory that is refused: the n-th allocation of the engine fails, once or from then on, with n
// rising over all of a piece of work that has everything in it. The call either did not happen or
// happened whole, the store goes on or has failed loudly, and a crash after it loses nothing that
// was acknowledged. The Makefile links this test with copies of the libraries in which malloc() and
// its kin are the functions below.
//
//   SEED=n  RUNS=n  how many kinds of work;  RUNS=all  every n
#include <errno.h>
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
#include "tests/lib/aftermath.h"

// ---- the engine's memory ----

static bool armed;
static uint64_t to_go;   // until the first one that fails
static uint64_t left;    // so many fail
static uint64_t refused; // since it was armed

static bool refuses(void)
{
    if (!armed)
        return false;
    if (to_go > 0) {
        to_go--;
        return false;
    }
    if (left == 0)
        return false;
    left--;
    refused++;
    return true;
}

void *memory_malloc(size_t size);
void *memory_calloc(size_t count, size_t size);
void *memory_realloc(void *old, size_t size);
void *memory_aligned_alloc(size_t alignment, size_t size);
int memory_posix_memalign(void **ret, size_t alignment, size_t size);
char *memory_strdup(const char *text);

void *memory_malloc(size_t size)
{
    return refuses() ? NULL : malloc(size);
}

void *memory_calloc(size_t count, size_t size)
{
    return refuses() ? NULL : calloc(count, size);
}

void *memory_realloc(void *old, size_t size)
{
    return refuses() ? NULL : realloc(old, size);
}

void *memory_aligned_alloc(size_t alignment, size_t size)
{
    return refuses() ? NULL : aligned_alloc(alignment, size);
}

int memory_posix_memalign(void **ret, size_t alignment, size_t size)
{
    return refuses() ? ENOMEM : posix_memalign(ret, alignment, size);
}

char *memory_strdup(const char *text)
{
    return refuses() ? NULL : strdup(text);
}

static void arm(uint64_t skip, uint64_t times)
{
    armed = true;
    to_go = skip;
    left = times;
    refused = 0;
}

// ---- one run ----

struct counts {
    uint64_t runs, refusals, surfaced, failed_stores;
};

// True when an allocation was refused.
static bool run(uint64_t seed, uint64_t skip, uint64_t times, struct counts *n, bool *ret_failed)
{
    struct world w;

    world_init(&w, seed);
    w.durable = 15;
    w.names = 20;
    w.bytes_max = UINT64_C(1) << 20;
    w.faults = true;
    arm(skip, times);
    aftermath_work(&w);
    armed = false;
    n->runs++;
    n->refusals += refused;
    n->surfaced += refused > 0 && w.stopped;
    n->failed_stores += aftermath_check(&w);
    if (!w.failed)
        aftermath_recover(&w, (enum crash_kind)(skip % CRASH_KIND_COUNT));
    if (w.failed)
        fprintf(stderr, "allocation %llu refused, %s\n", (unsigned long long)skip,
                times == 1 ? "once" : "and all behind it");
    *ret_failed = w.failed;
    world_free(&w);
    return refused > 0;
}

static void refuse_all(uint64_t seed, uint64_t times, unsigned runs_wanted)
{
    struct rng r = {rng_mix(seed, times)};
    struct counts n = {0};
    uint64_t skip = 0, total;
    bool failed = false;

    // How many there are, without a refusal.
    arm(UINT64_MAX, 0);
    (void)run(seed, UINT64_MAX, 0, &n, &failed);
    total = UINT64_MAX - to_go;
    for (bool hit = true; hit && !failed && skip < total;) {
        hit = run(seed, skip, times, &n, &failed);
        skip += runs_wanted == 0 ? 1 : 1 + rng_below(&r, 2 * total / runs_wanted);
    }
    printf(
        "  seed %llu, %s: %llu allocations, %llu runs, %llu refused, %llu calls failed, %llu stores failed\n",
        (unsigned long long)seed, times == 1 ? "once" : "from then on", (unsigned long long)total,
        (unsigned long long)n.runs, (unsigned long long)n.refusals, (unsigned long long)n.surfaced,
        (unsigned long long)n.failed_stores);
    if (failed)
        fail_msg("repeat with SEED=%llu", (unsigned long long)seed);
    assert_true(n.surfaced > 10);
}

static void test_refused_memory_loses_nothing(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 1);

    (void)state;
    for (uint64_t i = 0; i < (runs ? runs : 1); i++) {
        refuse_all(seed + i, 1, runs ? 300 : 0);
        refuse_all(seed + i, 100000, runs ? 150 : 0);
    }
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

// Each allocation of a recovery refused in turn: it refuses, or comes to the same tree; and the
// next one does.
static void test_a_recovery_without_memory_can_be_repeated(void **state)
{
    uint64_t seed = env_number("SEED", 1), refusals = 0, opened = 0;
    struct world w;

    (void)state;
    world_init(&w, seed + 50);
    w.durable = 15;
    w.names = 20;
    w.bytes_max = UINT64_C(1) << 20;
    for (unsigned i = 0; i < 150; i++)
        world_step(&w);
    world_crash(&w, CRASH_RANDOM, seed);
    assert_false(w.failed);
    uint64_t hash = 0;

    for (uint64_t skip = 0, hit = 1; hit && !w.failed; skip++) {
        struct fixture fx;

        fixture_adopt(&fx, sim_clone(w.fx.sim), &w.fx.options);
        arm(hash ? skip : UINT64_MAX, 1);
        int err = fixture_open(&fx);
        armed = false;
        hit = refused > 0 || !hash;
        refusals += err < 0;
        opened += err == 0;
        if (err == 0 && hash && tree_hash(&fx) != hash)
            world_fail(&w, "a recovery with allocation %llu refused gives another tree",
                       (unsigned long long)skip);
        if (!hash && err == 0) {
            hash = tree_hash(&fx);
            skip--;
        }
        fixture_leave(&fx);
        crash_disk(fx.sim, (enum crash_kind)(skip % CRASH_KIND_COUNT), skip);
        err = fixture_open(&fx);
        if (err < 0 || tree_hash(&fx) != hash)
            world_fail(&w, "the recovery after it: %s, or another tree", err_name(err));
        fixture_free(&fx);
    }
    bool failed = w.failed;

    world_free(&w);
    printf("  %llu recoveries refused for lack of memory, %llu did without\n",
           (unsigned long long)refusals, (unsigned long long)opened);
    assert_false(failed);
    assert_true(refusals > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_memory_loses_nothing),
        cmocka_unit_test(test_a_recovery_without_memory_can_be_repeated),
    };

    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
