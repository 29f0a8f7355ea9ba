// SPDX-License-Identifier: MIT
// Nothing of the log goes before the checkpoint that makes it superfluous is durable, marker
// included: at each removal and renaming of a segment the disk, cut at that moment, must do without
// it. And where any step of the checkpoint fails, no segment goes at all.
//
//   SEED=n  RUNS=n
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
#include "checkpoint/superblock.h"
#include "tests/lib/report.h"
#include "tests/lib/world.h"

struct trace {
    struct sim *sim;
    unsigned trims;
    bool look; // at what is durable
    char why[200];
};

// Of a cut at this moment: the newest superblock starts behind segment `number`, and the log knows
// of it.
static void check_superfluous(struct trace *t, uint64_t number)
{
    struct sim *cut = sim_clone(t->sim);
    struct superblock_slots slots;
    struct report report;
    char text[200];

    sim_power_cut(cut, SIM_CUT_DROP_ALL, 1);
    int err = report_expect(cut, &report);
    if (err == 0)
        err = superblock_load(sim_io(cut), &slots);
    if (err < 0) {
        snprintf(t->why, sizeof(t->why), "nothing durable can be read: %s", err_name(err));
    } else {
        const struct superblock *sb = &slots.sb[slots.chosen];

        if (number >= sb->log.log_segment)
            snprintf(t->why, sizeof(t->why), "segment %llu goes, the log starts in %llu",
                     (unsigned long long)number, (unsigned long long)sb->log.log_segment);
        else if (report.marker < sb->sequence)
            snprintf(t->why, sizeof(t->why), "segment %llu goes, marker %llu, superblock %llu",
                     (unsigned long long)number, (unsigned long long)report.marker,
                     (unsigned long long)sb->sequence);
        else if (verify_text(cut, text, sizeof(text)) != 0)
            snprintf(t->why, sizeof(t->why), "the checkpoint is not sound: %.150s", text);
        superblock_slots_free(&slots);
    }
    sim_destroy(cut);
}

static void on_event(void *arg, const struct sim_event *event)
{
    struct trace *t = arg;
    uint64_t number;

    if ((event->call != SIM_RENAME && event->call != SIM_UNLINK && event->call != SIM_TRUNCATE) ||
        strncmp(event->path, "wal/", 4) != 0 || !wal_segment_number(event->path + 4, &number))
        return;
    t->trims++;
    if (t->look && !t->why[0])
        check_superfluous(t, number);
}

static void begin(struct world *w, struct trace *t, uint64_t seed, bool look)
{
    world_init(w, seed);
    w->durable = 15;
    w->names = 20;
    w->bytes_max = UINT64_C(2) << 20;
    w->with_snapshots = false; // whose checkpoints keep the log short
    *t = (struct trace){.sim = w->fx.sim, .look = look};
    sim_set_event_hook(w->fx.sim, on_event, t);
}

static void test_a_segment_goes_when_the_durable_checkpoint_needs_it_no_more(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 4);
    unsigned trims = 0;

    (void)state;
    for (uint64_t i = 0; i < runs; i++) {
        struct world w;
        struct trace t;

        begin(&w, &t, seed + i, true);
        for (unsigned k = 0; k < 600 && !world_over(&w); k++) {
            world_step(&w);
            if (k % 60 == 59)
                world_checkpoint(&w);
        }
        trims += t.trims;
        bool failed = w.failed;

        world_free(&w);
        assert_false(failed);
        if (t.why[0])
            fail_msg("seed %llu: %s", (unsigned long long)(seed + i), t.why);
    }
    printf("  %u segments have gone\n", trims);
    assert_true(trims > 10);
}

// ---- a step that fails ----

static const struct {
    const char *what, *path;
    uint32_t calls;
} steps[] = {
    {"blocks written", "data", SIM_BIT(SIM_WRITE)},
    {"data synced", "data", SIM_BIT(SIM_SYNC)},
    {"superblock written", "superblock", SIM_BIT(SIM_WRITE)},
    {"superblock synced", "superblock", SIM_BIT(SIM_SYNC)},
    {"marker started", "wal/*", SIM_BIT(SIM_START_WRITE)},
    {"marker written", "wal/*", SIM_BIT(SIM_DONE_WRITE)},
};

static void test_a_checkpoint_that_fails_lets_no_segment_go(void **state)
{
    static const enum sim_fault_effect effects[] = {SIM_FAULT_FAIL, SIM_FAULT_AFTER,
                                                    SIM_FAULT_LOST};
    bool any_trim_without = false;

    (void)state;
    for (size_t i = 0; i <= sizeof(steps) / sizeof(steps[0]); i++) { // the last one: no fault
        for (size_t e = 0; e < sizeof(effects) / sizeof(effects[0]); e++) {
            struct world w;
            struct trace t;
            bool none = i == sizeof(steps) / sizeof(steps[0]);
            const struct sim_fault fault = {.calls = none ? 0 : steps[i].calls,
                                            .path = none ? NULL : steps[i].path,
                                            .times = 1,
                                            .effect = effects[e],
                                            .error = -EIO};

            begin(&w, &t, 7, false);
            for (unsigned k = 0; k < 200 && !world_over(&w); k++)
                world_step(&w);
            assert_int_equal(fixture_sync(&w.fx), 0); // so that the next log write is the marker
            assert_true(wal_pump(engine_wal(w.fx.engine), true) >= 0);
            t.trims = 0;
            unsigned number = sim_fault_add(w.fx.sim, &fault);
            int err = engine_checkpoint(w.fx.engine);
            for (unsigned k = 0; k < 20; k++) {
                sim_advance_ms(w.fx.sim, 1000);
                engine_tick(w.fx.engine);
                (void)!wal_prepare_segments(engine_wal(w.fx.engine));
            }
            for (unsigned k = 0; k < 300 && none; k++) // which wants segments
                world_step(&w);
            any_trim_without = any_trim_without || (none && t.trims > 0);
            if (!none && (err >= 0 || sim_fault_hits(w.fx.sim, number) == 0 || t.trims > 0))
                fail_msg("%s, effect %u: %s, %u segments have gone", steps[i].what,
                         (unsigned)effects[e], err_name(err), t.trims);
            bool failed = w.failed;

            sim_faults_clear(w.fx.sim);
            sim_set_event_hook(w.fx.sim, NULL, NULL);
            world_free(&w);
            assert_false(failed);
        }
    }
    assert_true(any_trim_without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_segment_goes_when_the_durable_checkpoint_needs_it_no_more),
        cmocka_unit_test(test_a_checkpoint_that_fails_lets_no_segment_go),
    };

    return cmocka_run_group_tests_name("trim", tests, NULL, NULL);
}
