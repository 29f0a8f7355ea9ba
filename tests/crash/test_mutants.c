// SPDX-License-Identifier: MIT
// The crash matrix is not vacuous: where the disk, the log's acknowledgements or the model are
// wrong in one point, it finds a violation; and where nothing is synced, loss does occur, and is
// found to be allowed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "tests/lib/crashes.h"
#include "tests/lib/lie.h"

#define SEEDS 8

struct mutant {
    enum lie lie;
    bool ack_early;   // every fsync counts as answered when it is asked
    bool ack_joiners; // whoever asks during a flush is answered with it
};

// The work with the mutant, until a violation is found. True: found.
static bool finds(const struct mutant *mutant, uint64_t seed)
{
    struct world w;
    struct crashes c;

    world_init(&w, seed);
    w.durable = 25;
    w.names = 16;
    w.bytes_max = UINT64_C(1) << 20;
    w.ack_early = mutant->ack_early;
    w.ack_joiners = mutant->ack_joiners;
    crashes_init(&c, &w, seed);
    c.quiet = true;
    c.kills = false;
    c.again_percent = 0;
    c.verify_percent = 20;
    if (mutant->lie != LIE_NONE)
        lie_begin(w.fx.sim, mutant->lie);
    crashes_watch(&c);
    crashes_work(&c, 6);
    bool found = c.violations > 0;

    if (found)
        printf("  %s\n", c.why);
    else if (w.failed) // the lie has come out without a crash
        printf("  (the work itself fails: %s)\n", w.why);
    crashes_free(&c);
    world_free(&w);
    return found;
}

static void expect(const struct mutant *mutant, const char *name)
{
    printf("%s:\n", name);
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        if (finds(mutant, seed))
            return;
    fail_msg("nothing was found");
}

static void test_lies_of_the_disk_are_found(void **state)
{
    (void)state;
    for (unsigned lie = LIE_NONE + 1; lie < LIE_COUNT; lie++) {
        struct mutant mutant = {.lie = (enum lie)lie};

        expect(&mutant, lie_name((enum lie)lie));
    }
}

static void test_early_acknowledgements_are_found(void **state)
{
    (void)state;
    expect(&(struct mutant){.ack_early = true}, "fsync answers before the flush");
    expect(&(struct mutant){.ack_joiners = true}, "who asks during a flush is answered with it");
}

static void test_without_a_mutant_nothing_is_found(void **state)
{
    (void)state;
    printf("nothing wrong:\n");
    assert_false(finds(&(struct mutant){.lie = LIE_NONE}, 1));
}

// What is not acknowledged may be lost, and in the simulation it is; otherwise the matrix would
// prove nothing.
static void test_unacknowledged_work_is_lost_at_times(void **state)
{
    unsigned lost = 0, kept = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct world w;

        world_init(&w, seed);
        w.durable = 3;
        for (unsigned i = 0; i < 80; i++)
            world_step(&w);
        size_t before = w.m.state_count - 1, acked = w.m.acked;
        uint64_t hash = w.m.hash;

        world_crash(&w, seed % 2 ? CRASH_DROP_ALL : CRASH_KEEP_ALL, seed);
        world_recover(&w);
        assert_false(w.failed);
        if (before > acked && w.m.hash != hash)
            lost++;
        else
            kept++;
        world_free(&w);
    }
    printf("%u runs have lost something, %u nothing\n", lost, kept);
    assert_true(lost > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lies_of_the_disk_are_found),
        cmocka_unit_test(test_early_acknowledgements_are_found),
        cmocka_unit_test(test_without_a_mutant_nothing_is_found),
        cmocka_unit_test(test_unacknowledged_work_is_lost_at_times),
    };

    return cmocka_run_group_tests_name("mutants", tests, NULL, NULL);
}
