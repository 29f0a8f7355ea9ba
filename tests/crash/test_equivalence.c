// SPDX-License-Identifier: MIT
// Each optimization against the baseline: the same seeded scripts and the same semantic crash
// points with all on, all off, each off, and each alone on, and with the switches changing from
// opening to opening on one store. What must not differ:
//
//   answers    the error of every step, the bytes that were read, the listings
//   history    the tree after every operation, what was acknowledged after every step; and a power
//              cut at the instant of an acknowledgement leaves what was acknowledged
//   log        the operations in their order, whatever groups and durable LSNs say
//   crashes    for every step, each crash leaves a state between the last acknowledged one and the
//              newest; the oldest and the newest that do occur are the same, and for clients that
//              wait together the whole set is
//   failures   a failure of the disk at the same step gives the same errno, unless the call that
//              fails is not made there
//   files      names and format numbers
//   recovery   of one image under every combination of switches: the same disk, bit by bit, and the
//              same report
//
//   SEED=n  the first script;  RUNS=n  how many;  STEPS=n  their length
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/lib/failures.h"
#include "tests/lib/logical.h"
#include "tests/lib/script.h"

// ---- the table: where each switch is compared, and which calls of the disk it may change ----

enum { ON_SIM = 1, ON_DISK = 2, ON_MOUNT = 4 };

// ON_SIM: here. ON_DISK: tests/crash/test_equivalence_disk.c. ON_MOUNT:
// tests/mount/test_switches.sh. `calls`: call sites, as "FILE CALL", whose number may differ from
// what it is with all on; every other site is reached as often as with all on (obligation 4).
// scripts/proofs-check reads the names.
static const struct equivalence {
    enum switch_id id;
    unsigned where;
    const char *calls[8];
} equivalences[] = {
    {SWITCH_GROUP_COMMIT,
     ON_SIM,
     {"wal/wal_append.c start", "wal/wal_segment.c open", "wal/wal_segment.c sync",
      "wal/wal_segment.c rename", "wal/wal_segment.c write", "wal/wal_segment.c sync_dir",
      "wal/wal_segment.c unlink"}},
    {SWITCH_WRITE_BATCHING, ON_SIM, {"store/freeze.c write", "store/spill.c write"}},
    {SWITCH_RECORD_DATA,
     ON_SIM,
     {"store/spill.c write", "store/freeze.c write", "wal/wal_append.c start"}},
    {SWITCH_LARGE_WRITES, ON_SIM, {"store/spill.c write", "store/freeze.c write"}},
    {SWITCH_OPEN_CHECKPOINT, ON_SIM, {NULL}},
    {SWITCH_BLOCK_CACHE, ON_SIM, {"store/freeze.c write"}},
    {SWITCH_READ_AHEAD, ON_SIM | ON_MOUNT, {NULL}},
    {SWITCH_READ_IN_PLACE, ON_SIM, {NULL}},
    {SWITCH_URING, ON_DISK | ON_MOUNT, {NULL}},
    {SWITCH_DIRECT, ON_DISK | ON_MOUNT, {NULL}},
    {SWITCH_KERNEL_CACHE, ON_MOUNT, {NULL}},
};

_Static_assert(AF_ARRAY_LEN(equivalences) == SWITCH_COUNT, "one entry for each switch");

// ---- choices of switches ----

#define CHOICES_MAX (2 * SWITCH_COUNT + 2)

struct choice {
    struct switches switches;
    char name[64];
};

static size_t choices_make(struct choice choices[CHOICES_MAX], unsigned where)
{
    size_t n = 0;

    choices[n++] = (struct choice){.name = "all on"};
    choices[n++] = (struct choice){switches_baseline(), "all off"};
    for (unsigned i = 0; i < SWITCH_COUNT; i++) {
        if (!(equivalences[i].where & where))
            continue;
        switch_set(&choices[n].switches, equivalences[i].id, false);
        snprintf(choices[n++].name, sizeof(choices[0].name), "%s off",
                 switch_name(equivalences[i].id));
        choices[n].switches = switches_baseline();
        switch_set(&choices[n].switches, equivalences[i].id, true);
        snprintf(choices[n++].name, sizeof(choices[0].name), "%s alone on",
                 switch_name(equivalences[i].id));
    }
    return n;
}

static void test_every_switch_is_compared_somewhere(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SWITCH_COUNT; i++) {
        assert_int_equal(equivalences[i].id, i);
        assert_true(equivalences[i].where != 0);
    }
}

// ---- one script with one choice ----

#define IMAGES_MAX  64
#define CLASSES_MAX 96
#define PARTS_MAX   8192

struct image {
    struct sim *sim;
    size_t acked;
};

struct call_class { // all call sites of one call in one file
    char name[64];
    uint64_t count;
};

struct observed {
    struct script_run run;
    struct rng r;
    struct switches recover; // for every second recovery
    const char *name;
    // Of the states that crashes in each step have left: the step's first acknowledged one is bit
    // 0.
    uint64_t sets[SCRIPT_STEPS_MAX], quiet[SCRIPT_STEPS_MAX];
    size_t base[SCRIPT_STEPS_MAX];
    struct call_class classes[CLASSES_MAX];
    size_t class_count;
    struct logical log;
    struct store_status status; // before the end
    struct image images[IMAGES_MAX];
    size_t image_count, event_in_step;
    uint64_t crashes, outcomes, recovered, acknowledged;
    bool failed;
};

// Trees of disks that were recovered before: what recovery finds follows from the disk alone, as
// test_an_image_recovers_the_same_under_every_choice() shows.
#define MEMO_SIZE (1u << 16)
static struct {
    uint64_t disk, tree;
} memo[MEMO_SIZE];

static void problem(struct observed *o, size_t step, const char *fmt, ...) AF_PRINTF(3, 4);
static void problem(struct observed *o, size_t step, const char *fmt, ...)
{
    const struct script *s = o->run.script;
    va_list args;

    if (o->failed)
        return;
    o->failed = true;
    fprintf(stderr, "%s, script %llu, step %zu (%s): ", o->name, (unsigned long long)s->seed, step,
            step < s->count ? script_kind_name(s->steps[step].kind) : "end");
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, "\n");
}

static void count_call(struct observed *o, const struct sim_event *e)
{
    char name[64];
    const char *site = e->site ? e->site : "? ?", *colon = strchr(site, ':');
    const char *call = strchr(site, ' ');

    snprintf(name, sizeof(name), "%.*s%s", (int)(colon ? colon - site : 1), site, call ? call : "");
    if (strncmp(name, "wal/wal_append.c", 16) != 0 && strstr(name, " open"))
        *(strstr(name, " open") + 5) = 0; // without its flags
    for (size_t i = 0; i < o->class_count; i++) {
        if (strcmp(o->classes[i].name, name) == 0) {
            o->classes[i].count++;
            return;
        }
    }
    AF_ASSERT(o->class_count < CLASSES_MAX);
    memcpy(o->classes[o->class_count].name, name, sizeof(name));
    o->classes[o->class_count++].count = 1;
}

static void on_event(void *arg, const struct sim_event *e)
{
    struct observed *o = arg;
    const struct script_run *r = &o->run;
    bool all = r->script->steps[r->step].kind == SCRIPT_BATCH;
    size_t at = o->event_in_step++;

    if (e->site && strncmp(e->site, "checkpoint/superblock.c", 23) == 0 && e->call == SIM_WRITE)
        logical_collect(&o->log, r->fx.sim);
    // The completion of an operation is no call of the engine.
    if (e->call != SIM_DONE_WRITE && e->call != SIM_DONE_SYNC)
        count_call(o, e);
    if (!all && at >= 4 && !rng_chance(&o->r, 4))
        return;
    if (o->image_count >= IMAGES_MAX / 2)
        return;
    o->images[o->image_count++] = (struct image){sim_clone(r->fx.sim), r->acked};
    o->crashes++;
}

// At the instant of an acknowledgement a power cut leaves what was acknowledged: what makes it
// durable has ended before.
static void on_acknowledgement(void *arg)
{
    struct observed *o = arg;

    o->acknowledged++;
    AF_ASSERT(o->image_count < IMAGES_MAX);
    o->images[o->image_count++] = (struct image){sim_clone(o->run.fx.sim), o->run.acked};
}

// `sim` is a disk after a crash, and is freed. The number of the state that recovery finds.
static void try_outcome(struct observed *o, struct sim *sim, size_t from, uint64_t *set)
{
    const struct script_run *r = &o->run;
    uint64_t disk = sim_hash(sim), tree;
    size_t slot = (size_t)(disk % MEMO_SIZE);
    struct fixture fx;

    o->outcomes++;
    if (memo[slot].disk == disk) {
        tree = memo[slot].tree;
        sim_destroy(sim);
    } else {
        sim_count_crash(sim);
        fixture_adopt(&fx, sim, &r->fx.options);
        if (o->recovered++ % 2)
            fx.options.switches = o->recover;
        int err = fixture_open(&fx);
        tree = err == 0 ? script_tree_hash(fx.store) : 0;
        if (err < 0)
            problem(o, r->step - 1, "recovery refuses: %s: %s", err_name(err), fx.refusal);
        fixture_free(&fx);
        memo[slot].disk = disk;
        memo[slot].tree = tree;
    }
    int64_t found = tree ? script_find(r, tree, from, r->state_count - 1) : -1;
    size_t base = o->base[r->step - 1];

    if (found < 0)
        problem(o, r->step - 1, "a crash leaves what is no state from %zu to %zu", from,
                r->state_count - 1);
    else if ((size_t)found >= base && (size_t)found - base < 64)
        *set |= UINT64_C(1) << ((size_t)found - base);
}

// The first parts of what is unsynced, sector by sector.
static void try_prefixes(struct observed *o, const struct image *image, uint64_t *set)
{
    size_t parts = sim_cut_parts(image->sim);
    bool keep[PARTS_MAX] = {false};

    AF_ASSERT(parts <= PARTS_MAX);
    for (size_t i = 0; i < parts; i++) {
        struct sim *sim = sim_clone(image->sim);

        keep[i] = true;
        sim_power_cut_parts(sim, keep, i % 2, rng_next(&o->r));
        try_outcome(o, sim, image->acked, set);
    }
}

static void try_image(struct observed *o, const struct image *image, bool whole, uint64_t *set)
{
    static const enum crash_kind kinds[] = {CRASH_DROP_ALL, CRASH_KEEP_ALL, CRASH_RANDOM,
                                            CRASH_GARBAGE, CRASH_KILL};

    for (size_t i = 0; i < (whole ? AF_ARRAY_LEN(kinds) : 3); i++) {
        struct sim *sim = sim_clone(image->sim);

        crash_disk(sim, i == 2 && !whole ? kinds[2 + rng_below(&o->r, 3)] : kinds[i],
                   rng_next(&o->r));
        try_outcome(o, sim, image->acked, set);
    }
    // Of what had been waiting before, nobody asks whether each can come alone.
    size_t step = o->run.step - 1;
    if (whole && step > 0 && image->acked + 1 >= o->run.counts[step - 1])
        try_prefixes(o, image, set);
}

static void observe_step(struct observed *o)
{
    struct script_run *r = &o->run;
    size_t step = r->step;
    bool whole = r->script->steps[step].kind == SCRIPT_BATCH;

    o->base[step] = r->acked;
    o->event_in_step = 0;
    sim_set_event_hook(r->fx.sim, on_event, o);
    script_step(r);
    sim_set_event_hook(r->fx.sim, NULL, NULL);
    for (size_t i = 0; i < o->image_count; i++) {
        try_image(o, &o->images[i], whole, &o->sets[step]);
        sim_destroy(o->images[i].sim);
    }
    o->image_count = 0;
    // Between two steps nothing is in flight: here all must agree wholly.
    struct image quiet = {sim_clone(r->fx.sim), r->acked};

    try_image(o, &quiet, false, &o->quiet[step]);
    sim_destroy(quiet.sim);
    o->sets[step] |= o->quiet[step];
}

static void check_files(void *arg, const char *path, bool is_dir)
{
    struct observed *o = arg;
    uint64_t segment;
    bool known =
        is_dir ? strcmp(path, "wal") == 0
               : strcmp(path, "superblock") == 0 || strcmp(path, "data") == 0 ||
                     strcmp(path, "superblock.recover") == 0 ||
                     (strncmp(path, "wal/", 4) == 0 && wal_segment_number(path + 4, &segment));

    if (!known)
        problem(o, o->run.step, "there is a file '%s'", path);
}

// Both slots: magic, version, feature masks.
static void format_numbers(const struct sim *sim, uint8_t ret[2][32])
{
    for (unsigned slot = 0; slot < 2; slot++) {
        assert_int_equal(sim_read_raw(sim, "superblock", slot * 65536u, ret[slot], 32), 0);
        memset(ret[slot] + 12, 0, 4); // bytes used
    }
}

static void observe_end(struct observed *o)
{
    struct script_run *r = &o->run;
    char text[600];

    assert_int_equal(fixture_sync(&r->fx), 0);
    store_get_status(r->fx.store, &o->status);
    logical_collect(&o->log, r->fx.sim);
    int err = script_reopen(r, o->recover);
    if (err < 0)
        problem(o, r->step, "closing and opening: %s", err_name(err));
    if (err == 0)
        err = fixture_close(&r->fx);
    if (err < 0 || verify_text(r->fx.sim, text, sizeof(text)) != 0)
        problem(o, r->step, "the store is not whole at the end: %s",
                err < 0 ? err_name(err) : text);
    sim_each_path(r->fx.sim, check_files, o);
}

static struct observed *observe(const struct script *s, const struct choice *c,
                                struct switches recover)
{
    struct observed *o = calloc(1, sizeof(*o));

    AF_ASSERT(o);
    o->name = c->name;
    o->recover = recover;
    o->r.state = rng_mix(s->seed, 9);
    script_begin(&o->run, s, c->switches);
    o->run.acknowledged = on_acknowledgement;
    o->run.arg = o;
    while (o->run.step < s->count && !o->failed)
        observe_step(o);
    if (!o->failed)
        observe_end(o);
    return o;
}

static void observed_free(struct observed *o)
{
    script_end(&o->run);
    logical_free(&o->log);
    free(o);
}

// ---- comparing two ----

static void compare_sets(const struct observed *on, struct observed *o, size_t step)
{
    uint64_t a = on->sets[step], b = o->sets[step];

    if (on->quiet[step] != o->quiet[step])
        problem(o, step, "between steps crashes leave the states %#llx, with all on %#llx",
                (unsigned long long)o->quiet[step], (unsigned long long)on->quiet[step]);
    // Of what had been waiting before, records may share a sector, and then come together in one
    // flush; the batch's own are longer than that.
    size_t before = step > 0 ? on->run.counts[step - 1] - 1 - on->base[step] : 0;
    bool whole = on->run.script->steps[step].kind == SCRIPT_BATCH;
    bool ends = (a & -a) == (b & -b) && __builtin_clzll(a) == __builtin_clzll(b);

    if (!ends || (whole && before < 64 && a >> before != b >> before))
        problem(o, step, "crashes leave the states %#llx, with all on %#llx", (unsigned long long)b,
                (unsigned long long)a);
}

static void compare_steps(const struct observed *on, struct observed *o)
{
    const struct script_run *x = &on->run, *y = &o->run;

    for (size_t i = 0; i < x->script->count && !o->failed; i++) {
        if (x->replies[i] != y->replies[i])
            problem(o, i, "answers %s, with all on %s", err_name(y->replies[i]),
                    err_name(x->replies[i]));
        else if (x->reads[i] != y->reads[i])
            problem(o, i, "reads other bytes than with all on");
        else if (x->visible[i] != y->visible[i])
            problem(o, i, "readers see another tree than with all on");
        else if (x->counts[i] != y->counts[i] || x->ackeds[i] != y->ackeds[i])
            problem(o, i, "%zu states, %zu acknowledged; with all on %zu, %zu", y->counts[i],
                    y->ackeds[i], x->counts[i], x->ackeds[i]);
        else
            compare_sets(on, o, i);
    }
    if (memcmp(x->states, y->states, x->state_count * sizeof(x->states[0])) != 0)
        problem(o, x->script->count, "the history is another one than with all on");
}

static bool may_differ(struct switches off, const char *name)
{
    for (unsigned i = 0; i < SWITCH_COUNT; i++) {
        const char *const *calls = equivalences[i].calls;

        for (size_t k = 0; !switch_on(off, equivalences[i].id) && k < 8 && calls[k]; k++)
            if (strcmp(calls[k], name) == 0)
                return true;
    }
    return false;
}

static uint64_t calls_of(const struct observed *o, const char *name)
{
    for (size_t i = 0; i < o->class_count; i++)
        if (strcmp(o->classes[i].name, name) == 0)
            return o->classes[i].count;
    return 0;
}

// No path is faster by leaving crash points out: the same places are reached, as often, but for
// what the table says.
static void compare_calls(const struct observed *on, struct observed *o, struct switches off)
{
    for (unsigned both = 0; both < 2; both++) {
        const struct observed *list = both ? o : on;

        for (size_t i = 0; i < list->class_count; i++) {
            const char *name = list->classes[i].name;
            uint64_t a = calls_of(on, name), b = calls_of(o, name);

            if (a != b && !may_differ(off, name))
                problem(o, o->run.step, "'%s' is called %llu times, with all on %llu", name,
                        (unsigned long long)b, (unsigned long long)a);
        }
    }
}

// A switch that does nothing would agree with everything: its calls differ somewhere.
static void check_effect(const struct observed *on, struct observed *o, struct switches off)
{
    for (unsigned i = 0; i < SWITCH_COUNT; i++) {
        const char *const *calls = equivalences[i].calls;
        bool differs = !calls[0] || switch_on(off, equivalences[i].id) ||
                       equivalences[i].id == SWITCH_BLOCK_CACHE;

        for (size_t k = 0; k < 8 && calls[k]; k++)
            differs = differs || calls_of(on, calls[k]) != calls_of(o, calls[k]);
        if (!differs)
            problem(o, o->run.step, "%s off makes no difference", switch_name(equivalences[i].id));
    }
    if (!switch_on(off, SWITCH_BLOCK_CACHE) && o->status.cache_misses <= on->status.cache_misses)
        problem(o, o->run.step, "the cache misses as little as with all on");
}

static void compare_formats(const struct observed *on, struct observed *o)
{
    uint8_t a[2][32], b[2][32];

    format_numbers(on->run.fx.sim, a);
    format_numbers(o->run.fx.sim, b);
    if (memcmp(a, b, sizeof(a)) != 0)
        problem(o, o->run.step, "other format numbers than with all on");
}

static void compare(const struct observed *on, struct observed *o, struct switches off)
{
    size_t at;

    if (!o->failed)
        compare_steps(on, o);
    if (!o->failed)
        compare_calls(on, o, off);
    if (!o->failed)
        check_effect(on, o, off);
    if (!o->failed)
        compare_formats(on, o);
    if (!o->failed && !logical_equal(&on->log, &o->log, &at))
        problem(o, o->run.step, "the log holds another operation at %zu of %zu (with all on %zu)",
                at, o->log.count, on->log.count);
}

static unsigned bits_of(const uint64_t *sets, size_t count)
{
    unsigned n = 0;

    for (size_t i = 0; i < count; i++)
        n += (unsigned)__builtin_popcountll(sets[i]);
    return n;
}

static void compare_script(uint64_t seed, size_t steps)
{
    struct choice choices[CHOICES_MAX] = {0};
    size_t count = choices_make(choices, ON_SIM);
    static struct script s;
    bool failed = false;

    script_make(&s, seed, steps);
    struct observed *on = observe(&s, &choices[0], choices[1].switches);

    printf("script %llu: %zu operations, %zu states\n", (unsigned long long)seed, on->log.count,
           on->run.state_count);
    for (size_t i = 0; i < count && !failed; i++) {
        struct observed *o =
            i == 0 ? on : observe(&s, &choices[i], choices[i == 1 ? 0 : 1].switches);

        if (i > 0)
            compare(on, o, choices[i].switches);
        printf(
            "  %-26s %4llu crash points, %3llu acknowledgements, %5llu outcomes, %4llu recoveries, %3u states\n",
            o->name, (unsigned long long)o->crashes, (unsigned long long)o->acknowledged,
            (unsigned long long)o->outcomes, (unsigned long long)o->recovered,
            bits_of(o->sets, s.count));
        failed = o->failed;
        if (i > 0)
            observed_free(o);
    }
    observed_free(on);
    if (failed)
        fail_msg("repeat with SEED=%llu RUNS=1 STEPS=%zu", (unsigned long long)seed, steps);
}

static void test_scripts_agree_with_each_choice_of_switches(void **state)
{
    uint64_t first = env_number("SEED", 1), runs = env_number("RUNS", 1);

    (void)state;
    for (uint64_t i = 0; i < (runs ? runs : 1); i++)
        compare_script(first + i, (size_t)env_number("STEPS", 60));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_switch_is_compared_somewhere),
        cmocka_unit_test(test_scripts_agree_with_each_choice_of_switches),
    };

    return cmocka_run_group_tests_name("equivalence", tests, NULL, NULL);
}
