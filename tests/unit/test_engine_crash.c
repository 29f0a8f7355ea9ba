// SPDX-License-Identifier: MIT
// Tests of the engine in crashes and failures: at every event of opening, working, publishing and
// closing.
#include "tests/unit/test_engine_rig.h"

// ---- crashes at every event ----

enum phase { PHASE_OPEN, PHASE_WORK, PHASE_CHECKPOINT, PHASE_CLOSE, PHASES };

// Runs the phases up to the crash point; what was acknowledged is told.
static void run_phases(struct world *w, enum phase crash_in, uint64_t event,
                       enum sim_crash_mode mode, bool *ret_acked, bool *ret_finished)
{
    *ret_acked = *ret_finished = false;
    if (crash_in == PHASE_OPEN)
        sim_crash_at(w->sim, event, mode);
    if (world_open(w) < 0)
        return;
    if (crash_in == PHASE_WORK)
        sim_crash_at(w->sim, sim_event_count(w->sim) + event, mode);
    *ret_acked = put(w->engine, "new", 5, 30000) == 0;
    if (crash_in == PHASE_CHECKPOINT)
        sim_crash_at(w->sim, sim_event_count(w->sim) + event, mode);
    if (engine_checkpoint(w->engine) < 0)
        return;
    if (crash_in == PHASE_CLOSE)
        sim_crash_at(w->sim, sim_event_count(w->sim) + event, mode);
    int err = engine_close(w->engine);
    w->engine = NULL;
    *ret_finished = err == 0;
}

// `base` is a store that was left without a close, with "old" in it.
static bool crash_once(const struct sim *base, enum phase phase, uint64_t event, unsigned variant)
{
    struct world w;
    bool acked, finished;

    world_init(&w, sim_clone(base));
    run_phases(&w, phase, event, (enum sim_crash_mode)(variant % 3), &acked, &finished);
    bool reached = sim_is_dead(w.sim);
    world_crash(&w, variant % 4 != 3, variant % 2 ? SIM_CUT_RANDOM : SIM_CUT_GARBAGE,
                event + variant);
    must_be_sound(&w);
    must_open(&w);
    assert_true(has(w.engine, "old", 1, 70000));
    bool there = has(w.engine, "new", 5, 30000);
    if (acked && !there)
        fail_msg("phase %d, event %llu, variant %u: an acknowledged file is gone", phase,
                 (unsigned long long)event, variant);
    must_put(&w, "later", 1, 500);
    must_close(&w);
    must_be_sound(&w);
    sim_destroy(w.sim);
    return reached;
}

static void test_crash_at_every_event_of_each_phase(void **state)
{
    struct world *w = world_create();

    (void)state;
    must_open(w);
    must_put(w, "old", 1, 70000);
    world_crash(w, false, SIM_CUT_DROP_ALL, 1);
    for (int phase = 0; phase < PHASES; phase++) {
        bool reached = true;

        for (uint64_t event = 0; reached; event++)
            for (unsigned variant = 0; variant < 6; variant++)
                reached = crash_once(w->sim, (enum phase)phase, event, variant);
    }
    world_destroy(w);
}

// Recovery that crashes, again and again, in the middle: the last one finds what the first would
// have.
static void test_recovery_may_crash_repeatedly(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 30; seed++) {
        struct world *w = world_create();

        must_open(w);
        must_put(w, "old", 1, 70000);
        world_crash(w, seed % 2, SIM_CUT_RANDOM, seed);
        for (unsigned i = 0; i < 4; i++) {
            sim_crash_at(w->sim, (seed * 7 + i * 5) % 23, (enum sim_crash_mode)(i % 3));
            if (world_open(w) < 0)
                w->engine = NULL;
            world_crash(w, (seed + i) % 3 != 0, i % 2 ? SIM_CUT_GARBAGE : SIM_CUT_RANDOM, seed + i);
        }
        must_open(w);
        assert_true(has(w->engine, "old", 1, 70000));
        must_close(w);
        must_be_sound(w);
        world_destroy(w);
    }
}

// Killed between the write of the superblock and its sync, then the power fails during recovery:
// what the page cache showed was on no disk, and the superblock before it must not be gone either
// (r1).
static void test_superblock_seen_only_in_the_cache_is_not_relied_on(void **state)
{
    struct world *w = world_create();
    uint64_t first, sync = SIM_NEVER;

    (void)state;
    must_open(w);
    must_put(w, "old", 1, 70000);
    first = sim_event_count(w->sim);
    // Two runs of the same: one finds the event, the other stops there.
    for (unsigned run = 0; run < 2; run++) {
        struct world *v = world_create();

        must_open(v);
        must_put(v, "old", 1, 70000);
        assert_int_equal(sim_event_count(v->sim), first);
        if (run == 1)
            sim_crash_at(v->sim, sync, SIM_CRASH_BEFORE);
        int err = engine_checkpoint(v->engine);
        assert_int_equal(err < 0, run);
        for (uint64_t i = first; run == 0 && i < sim_event_count(v->sim); i++)
            if (sim_event(v->sim, i)->call == SIM_SYNC &&
                strcmp(sim_event(v->sim, i)->path, SUPERBLOCK_FILE) == 0)
                sync = i;
        if (run == 1) {
            world_destroy(w);
            w = v;
            world_crash(w, false, SIM_CUT_DROP_ALL, 1);
        } else {
            world_destroy(v);
        }
    }
    bool reached = true;
    for (uint64_t event = 0; reached; event++) {
        for (unsigned variant = 0; variant < 45; variant++) {
            struct world v;

            world_init(&v, sim_clone(w->sim));
            sim_crash_at(v.sim, event, (enum sim_crash_mode)(variant % 3));
            if (world_open(&v) < 0)
                v.engine = NULL;
            reached = sim_is_dead(v.sim);
            world_crash(&v, true,
                        (enum sim_cut_policy[]){SIM_CUT_DROP_ALL, SIM_CUT_RANDOM,
                                                SIM_CUT_GARBAGE}[variant / 15],
                        event * 64 + variant);
            must_open(&v);
            assert_true(has(v.engine, "old", 1, 70000));
            must_close(&v);
            must_be_sound(&v);
            sim_destroy(v.sim);
        }
    }
    world_destroy(w);
}

// Killed while it makes segments, so that a file or its name is there and not durable; the next one
// takes them over, and the power fails in the middle of its recovery, or after it.
static void lose_power_after_recovery(const struct sim *left, bool old, uint64_t event,
                                      bool *ret_reached)
{
    struct world v;

    world_init(&v, sim_clone(left));
    if (event != SIM_NEVER)
        sim_crash_at(v.sim, event, SIM_CRASH_AFTER);
    if (world_open(&v) < 0)
        v.engine = NULL;
    *ret_reached = sim_is_dead(v.sim);
    world_crash(&v, true, SIM_CUT_DROP_ALL, 1);
    must_open(&v);
    assert_true(has(v.engine, "old", 1, 70000) == old);
    must_close(&v);
    must_be_sound(&v);
    sim_destroy(v.sim);
}

// `left`: a store that was not closed, or never opened.
static void kill_while_segments_are_made(const struct sim *left, bool old)
{
    bool killed = true;

    for (uint64_t event = 0; killed; event++) {
        struct world v;
        bool reached = true;

        world_init(&v, sim_clone(left));
        sim_crash_at(v.sim, event, SIM_CRASH_AFTER);
        if (world_open(&v) < 0)
            v.engine = NULL;
        killed = sim_is_dead(v.sim);
        // The event is the last one: was it about a segment?
        const struct sim_event *last = sim_event(v.sim, sim_event_count(v.sim) - 1);
        bool segment = strncmp(last->path, "wal/", 4) == 0;

        world_crash(&v, false, SIM_CUT_DROP_ALL, event);
        for (uint64_t at = 0; segment && reached; at++)
            lose_power_after_recovery(v.sim, old, at, &reached);
        sim_destroy(v.sim);
    }
}

static void test_segments_that_a_kill_left_unsynced_are_synced_by_recovery(void **state)
{
    struct world *w = world_create();

    (void)state;
    kill_while_segments_are_made(w->sim, false);
    must_open(w);
    must_put(w, "old", 1, 70000);
    world_crash(w, true, SIM_CUT_DROP_ALL, 1);
    kill_while_segments_are_made(w->sim, true);
    world_destroy(w);
}

// ---- failures of the disk ----

static void test_every_failure_in_a_checkpoint_is_loud_and_harmless(void **state)
{
    bool hit = true;

    (void)state;
    for (uint64_t skip = 0; hit; skip++) {
        struct world *w = world_create();
        struct engine_status status;
        const struct sim_fault fault = {.calls = SIM_ALL_EVENTS,
                                        .skip = skip,
                                        .times = 1,
                                        .effect = SIM_FAULT_LOST,
                                        .error = -EIO};

        must_open(w);
        must_put(w, "a", 1, 50000);
        unsigned number = sim_fault_add(w->sim, &fault);
        int err = engine_checkpoint(w->engine);
        hit = sim_fault_hits(w->sim, number) > 0;
        sim_faults_clear(w->sim);
        engine_get_status(w->engine, &status);
        if (err < 0) {
            assert_string_equal(status.state, "failed");
            assert_true(put(w->engine, "b", 1, 10) < 0);
            assert_true(engine_checkpoint(w->engine) < 0);
            assert_non_null(strstr(w->log, "read-only"));
            assert_true(engine_close(w->engine) < 0);
        } else {
            assert_int_equal(engine_close(w->engine), 0);
        }
        w->engine = NULL;
        sim_power_cut(w->sim, SIM_CUT_RANDOM, skip);
        sim_count_crash(w->sim);
        must_open(w);
        assert_true(has(w->engine, "a", 1, 50000));
        must_close(w);
        must_be_sound(w);
        world_destroy(w);
    }
}

// A file system that cannot allocate is said so: writing zeros instead would find no room later.
static void test_a_host_without_allocation_is_told(void **state)
{
    struct world *w = world_create();
    const struct sim_fault fault = {.calls = SIM_BIT(SIM_ALLOCATE),
                                    .times = SIM_FOREVER,
                                    .effect = SIM_FAULT_FAIL,
                                    .error = -EOPNOTSUPP};
    char name[8];
    int err = 0;

    (void)state;
    must_open(w);
    must_put(w, "a", 1, 50000);
    sim_fault_add(w->sim, &fault);
    for (unsigned i = 0; i < 2000 && err == 0; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        err = put(w->engine, name, 1, 250000);
    }
    assert_int_equal(err, -EOPNOTSUPP);
    assert_non_null(strstr(w->log, "read-only"));
    world_crash(w, true, SIM_CUT_DROP_ALL, 1);
    must_open(w);
    assert_true(has(w->engine, "a", 1, 50000) && has(w->engine, "f0", 1, 250000));
    must_close(w);
    world_destroy(w);
}

static void test_failure_in_recovery_refuses_and_may_be_repeated(void **state)
{
    bool hit = true;

    (void)state;
    for (uint64_t skip = 0; hit; skip++) {
        struct world *w = world_create();
        const struct sim_fault fault = {.calls = SIM_ALL_EVENTS,
                                        .skip = skip,
                                        .times = 1,
                                        .effect = SIM_FAULT_LOST,
                                        .error = -EIO};

        must_open(w);
        must_put(w, "a", 1, 50000);
        world_crash(w, skip % 2, SIM_CUT_DROP_ALL, skip);
        unsigned number = sim_fault_add(w->sim, &fault);
        int err = world_open(w);
        hit = sim_fault_hits(w->sim, number) > 0;
        sim_faults_clear(w->sim);
        if (err < 0) {
            assert_true(strlen(w->message) > 20);
            w->engine = NULL;
        }
        world_crash(w, skip % 3 != 0, SIM_CUT_RANDOM, skip);
        must_open(w);
        assert_true(has(w->engine, "a", 1, 50000));
        must_close(w);
        world_destroy(w);
    }
}

// One read fails, or returns a flipped bit, and never again: the store is refused with nothing
// changed, or everything acknowledged is there.
static void test_wrong_reads_in_recovery_lose_nothing(void **state)
{
    struct world *base = world_used();

    (void)state;
    for (unsigned effect = 0; effect < 2; effect++) {
        bool hit = true;

        for (uint64_t skip = 0; hit; skip++) {
            struct world w;
            const struct sim_fault fault = {.calls = SIM_BIT(SIM_READ) | SIM_BIT(SIM_SIZE) |
                                                     SIM_BIT(SIM_LIST) | SIM_BIT(SIM_OPEN),
                                            .skip = skip,
                                            .times = 1,
                                            .effect = effect ? SIM_FAULT_CORRUPT : SIM_FAULT_FAIL,
                                            .error = -EIO};

            world_init(&w, sim_clone(base->sim));
            uint64_t before = sim_hash(w.sim);
            unsigned number = sim_fault_add(w.sim, &fault);
            int err = world_open(&w);
            hit = sim_fault_hits(w.sim, number) > 0;
            sim_faults_clear(w.sim);
            if (err < 0) {
                w.engine = NULL;
                assert_true(strlen(w.message) > 20);
                if (sim_event_count(w.sim) == 0)
                    assert_true(sim_hash(w.sim) == before);
                must_open(&w);
            }
            assert_true(has(w.engine, "a", 1, 50000) && has(w.engine, "b", 1, 2000) &&
                        has(w.engine, "c", 1, 2000));
            must_close(&w);
            must_be_sound(&w);
            sim_destroy(w.sim);
        }
    }
    world_destroy(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash_at_every_event_of_each_phase),
        cmocka_unit_test(test_recovery_may_crash_repeatedly),
        cmocka_unit_test(test_superblock_seen_only_in_the_cache_is_not_relied_on),
        cmocka_unit_test(test_segments_that_a_kill_left_unsynced_are_synced_by_recovery),
        cmocka_unit_test(test_every_failure_in_a_checkpoint_is_loud_and_harmless),
        cmocka_unit_test(test_a_host_without_allocation_is_told),
        cmocka_unit_test(test_failure_in_recovery_refuses_and_may_be_repeated),
        cmocka_unit_test(test_wrong_reads_in_recovery_lose_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
