// SPDX-License-Identifier: MIT
// The optimizations against the baseline, continued (test_equivalence.c): failures of the disk at
// the same step of a script; recovery of one image under every combination of switches; one store
// whose switches change from opening to opening; the calls of a checkpoint; changes during a
// checkpoint.
//
//   SEED=n  the first script;  RUNS=n  how many
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/lib/crashes.h"
#include "tests/lib/failures.h"
#include "tests/lib/script.h"

// What the engine reads; the others have no effect on the simulated disk.
static const enum switch_id on_sim[] = {
    SWITCH_GROUP_COMMIT,    SWITCH_WRITE_BATCHING, SWITCH_RECORD_DATA, SWITCH_LARGE_WRITES,
    SWITCH_OPEN_CHECKPOINT, SWITCH_BLOCK_CACHE,    SWITCH_READ_AHEAD,  SWITCH_READ_IN_PLACE,
};

static struct switches without(enum switch_id id)
{
    struct switches s = {0};

    switch_set(&s, id, false);
    return s;
}

static uint64_t first_seed(void)
{
    return env_number("SEED", 1);
}

static uint64_t run_count(void)
{
    uint64_t runs = env_number("RUNS", 1);

    return runs ? runs : 1;
}

// ---- a failure at the same step ----

struct faulted {
    struct script_run run;
    bool hit, failed_store;
    int reply; // of the step in which the failure is
};

// The same failures of the same disk: an errno, or a success.
static int errno_class(int reply)
{
    return reply < 0 ? err_to_errno(reply) : 0;
}

static void run_with_failure(struct faulted *x, const struct script *s,
                             const struct script_run *known, const struct failure *failure,
                             size_t at, struct switches switches)
{
    struct sim_fault fault = {.calls = failure->calls,
                              .path = failure->path,
                              .times = 1,
                              .effect = failure->effect,
                              .error = failure->error};
    struct store_status st;

    *x = (struct faulted){.hit = false};
    script_begin(&x->run, s, switches);
    x->run.known = known;
    x->run.known_steps = at;
    while (x->run.step < at)
        script_step(&x->run);
    unsigned number = sim_fault_add(x->run.fx.sim, &fault);

    script_step(&x->run);
    x->hit = sim_fault_hits(x->run.fx.sim, number) > 0;
    sim_faults_clear(x->run.fx.sim);
    x->reply = x->run.replies[at];
    (void)!wal_pump(engine_wal(x->run.fx.engine), false); // the store hears of a failed log
    store_get_status(x->run.fx.store, &st);
    x->failed_store = st.failed || st.wal.failed;
}

// Nothing is promised any more; and what a crash leaves is history from the last acknowledged one
// on.
static const char *check_after(struct faulted *x, uint64_t seed)
{
    if (x->failed_store && fixture_sync(&x->run.fx) >= 0)
        return "sync succeeds on a failed store";
    if (!x->failed_store && fixture_sync(&x->run.fx) < 0)
        return "sync fails on a store that has not";
    if (!x->failed_store)
        x->run.acked = AF_MAX(x->run.acked, x->run.counts[x->run.step - 1] - 1);
    if (script_crash(&x->run, (enum crash_kind)(seed % CRASH_KIND_COUNT), (struct switches){0}) < 0)
        return "what recovery finds is no state that a crash may leave";
    return NULL;
}

struct failure_counts {
    unsigned runs, hits, both, failed;
};

static void compare_failure(const struct script *s, const struct script_run *known,
                            const struct failure *failure, size_t at, struct failure_counts *n)
{
    static struct faulted on, x;

    run_with_failure(&on, s, known, failure, at, (struct switches){0});
    for (size_t i = 0; i <= AF_ARRAY_LEN(on_sim); i++) {
        bool all_off = i == AF_ARRAY_LEN(on_sim);

        run_with_failure(&x, s, known, failure, at,
                         all_off ? switches_baseline() : without(on_sim[i]));
        n->runs++;
        n->hits += x.hit;
        n->failed += x.failed_store;
        const char *wrong = NULL;
        // Where both make the call that fails, they say and do the same; where one does not make
        // it, that one goes on as if nothing were.
        if (on.hit && x.hit) {
            n->both++;
            if (errno_class(on.reply) != errno_class(x.reply))
                wrong = "another errno than with all on";
            else if (on.failed_store != x.failed_store)
                wrong = "the store fails with one choice and not with the other";
        } else if (!x.hit && errno_class(x.reply) != errno_class(known->replies[at])) {
            wrong = "nothing was injected, but the answer is another one";
        }
        if (!wrong)
            wrong = check_after(&x, s->seed + at + i);
        if (wrong)
            fprintf(stderr, "%s off, script %llu, step %zu (%s), '%s': %s (%s, with all on %s)\n",
                    all_off ? "all" : switch_name(on_sim[i]), (unsigned long long)s->seed, at,
                    script_kind_name(s->steps[at].kind), failure->name, wrong, err_name(x.reply),
                    err_name(on.reply));
        assert_null(wrong);
        script_end(&x.run);
    }
    script_end(&on.run);
}

static void test_failures_at_the_same_step_have_the_same_answer(void **state)
{
    static const enum script_kind kinds[] = {SCRIPT_FSYNC, SCRIPT_BATCH,     SCRIPT_CHECKPOINT,
                                             SCRIPT_PUT,   SCRIPT_KEEP_OPEN, SCRIPT_READ};
    static struct script s;
    static struct script_run known;

    (void)state;
    for (uint64_t k = 0; k < run_count(); k++) {
        struct failure_counts n = {0};

        script_make(&s, first_seed() + 20 + k, 40);
        script_begin(&known, &s, (struct switches){0});
        while (known.step < s.count)
            script_step(&known);
        for (size_t f = 0; f < failure_count; f++) {
            // One kind of step after the other, the first one after some work that succeeds.
            enum script_kind kind = kinds[(f + k) % AF_ARRAY_LEN(kinds)];
            size_t at = 12;

            while (at + 1 < s.count && (s.steps[at].kind != kind || known.replies[at] < 0))
                at++;
            compare_failure(&s, &known, &failures[f], at, &n);
        }
        printf(
            "script %llu: %u runs with a failure, %u met it, %u of them as all on did, %u stores failed\n",
            (unsigned long long)s.seed, n.runs, n.hits, n.both, n.failed);
        assert_true(n.both > 40 && n.failed > 40);
        script_end(&known);
    }
}

// ---- one image, every combination ----

struct recovered {
    uint64_t disk, tree;
    struct engine_recovery report;
};

static void recover(const struct sim *image, const struct engine_options *options, uint32_t off,
                    struct recovered *ret)
{
    struct engine_status st;
    struct fixture fx;

    memset(ret, 0, sizeof(*ret));
    fixture_adopt(&fx, sim_clone(image), options);
    fx.options.switches.off = off;
    if (fixture_open(&fx) == 0) {
        ret->disk = sim_hash(fx.sim);
        ret->tree = script_tree_hash(fx.store);
        engine_get_status(fx.engine, &st);
        ret->report = st.recovery;
        ret->report.duration_us = 0;
    } else {
        ret->disk = sim_hash(fx.sim);
        snprintf(ret->report.text, sizeof(ret->report.text), "%.400s", fx.refusal);
    }
    fixture_free(&fx);
}

static void test_an_image_recovers_the_same_under_every_choice(void **state)
{
    static struct script s;
    static struct script_run r;
    unsigned images = 0, torn = 0;

    (void)state;
    script_make(&s, first_seed() + 40, 60);
    script_begin(&r, &s, (struct switches){0});
    while (r.step < s.count) {
        script_step(&r);
        if (r.step % 12 != 0)
            continue;
        struct sim *image = sim_clone(r.fx.sim);
        struct recovered first, x;

        crash_disk(image, (enum crash_kind)(images % CRASH_KIND_COUNT), r.step);
        if (images == 2) // a refusal is the same as well
            assert_int_equal(sim_flip_bits(image, "superblock", 70000, 1) +
                                 sim_flip_bits(image, "superblock", 200, 1),
                             0);
        recover(image, &r.fx.options, 0, &first);
        torn += first.report.tail_bytes_dropped > 0;
        for (uint32_t bits = 1; bits < UINT32_C(1) << AF_ARRAY_LEN(on_sim); bits++) {
            struct switches s_off = {0};

            for (size_t k = 0; k < AF_ARRAY_LEN(on_sim); k++)
                switch_set(&s_off, on_sim[k], !(bits >> k & 1));
            recover(image, &r.fx.options, s_off.off, &x);
            assert_true(x.disk == first.disk);
            assert_true(x.tree == first.tree);
            assert_memory_equal(&x.report, &first.report, sizeof(x.report));
        }
        images++;
        sim_destroy(image);
    }
    script_end(&r);
    assert_int_equal(images, 5);
}

// ---- crashes of recovery, of the recovery after it, and of the one after that ----

#define LEVEL_MAX 20000u
#define DEPTH     3u

struct level { // distinct disks
    struct sim *disks[LEVEL_MAX];
    size_t count;
};

static struct {
    uint64_t hashes[1u << 18]; // of all disks of all levels
    size_t count;
} seen;

// True when it is the first time.
static bool see(uint64_t hash)
{
    size_t at = hash & (AF_ARRAY_LEN(seen.hashes) - 1);

    hash += hash == 0;
    while (seen.hashes[at] && seen.hashes[at] != hash)
        at = (at + 1) & (AF_ARRAY_LEN(seen.hashes) - 1);
    if (seen.hashes[at])
        return false;
    AF_ASSERT(++seen.count < AF_ARRAY_LEN(seen.hashes) / 2);
    seen.hashes[at] = hash;
    return true;
}

struct deeper {
    struct sim *sim; // that recovers
    struct level *next;
};

// The power fails before each call of the recovery: all that is unsynced is gone, or all of it
// stays.
static void crash_here(void *arg, const struct sim_event *e)
{
    static const enum crash_kind kinds[] = {CRASH_DROP_ALL, CRASH_KEEP_ALL, CRASH_RANDOM};
    struct deeper *d = arg;

    for (size_t i = 0; i < AF_ARRAY_LEN(kinds); i++) {
        struct sim *crashed = sim_clone(d->sim);

        crash_disk(crashed, kinds[i], e->index);
        if (!see(sim_hash(crashed))) {
            sim_destroy(crashed);
            continue;
        }
        sim_count_crash(crashed);
        AF_ASSERT(d->next->count < LEVEL_MAX);
        d->next->disks[d->next->count++] = crashed;
    }
}

// Recovers every disk of the level, which must come to the same tree, and collects the crashes of
// it.
static void recover_level(struct level *l, struct level *next, uint64_t tree,
                          const struct engine_options *options)
{
    for (size_t i = 0; i < l->count; i++) {
        struct deeper d = {l->disks[i], next};
        struct fixture fx;

        fixture_adopt(&fx, l->disks[i], options);
        if (next)
            sim_set_event_hook(fx.sim, crash_here, &d);
        // With other switches each time.
        fx.options.switches.off = (uint32_t)i % (switches_baseline().off + 1);
        assert_int_equal(fixture_open(&fx), 0);
        sim_set_event_hook(fx.sim, NULL, NULL);
        assert_true(script_tree_hash(fx.store) == tree);
        fixture_free(&fx);
    }
    l->count = 0;
}

static void test_recovery_crashed_three_deep_comes_to_the_same_tree(void **state)
{
    static struct level levels[2];
    static struct script s;
    static struct script_run r;

    (void)state;
    script_make(&s, first_seed() + 100, 30);
    script_begin(&r, &s, (struct switches){0});
    while (r.step < 20)
        script_step(&r);
    struct sim *image = sim_clone(r.fx.sim);
    struct recovered first;

    crash_disk(image, CRASH_RANDOM, 3);
    recover(image, &r.fx.options, 0, &first);
    assert_true(first.tree != 0);
    memset(&seen, 0, sizeof(seen));
    (void)see(sim_hash(image));
    levels[0].disks[levels[0].count++] = image;
    for (unsigned depth = 0; depth <= DEPTH; depth++) {
        printf("depth %u: %zu disks\n", depth, levels[depth % 2].count);
        assert_true(levels[depth % 2].count > 0);
        recover_level(&levels[depth % 2], depth < DEPTH ? &levels[(depth + 1) % 2] : NULL,
                      first.tree, &r.fx.options);
    }
    script_end(&r);
}

// ---- one store, switches that change ----

// The script with a crash or a clean end after every few steps, and other switches each time.
static void run_mixed(struct script_run *r, const struct script *s, const uint32_t *off,
                      size_t off_count)
{
    size_t at = 0;

    script_begin(r, s, (struct switches){off[0]});
    while (r->step < s->count) {
        script_step(r);
        if (r->step % 7 != 0)
            continue;
        // All is durable, so that the crash leaves one state only, the same for all.
        assert_int_equal(fixture_sync(&r->fx), 0);
        r->acked = r->state_count - 1;
        at = (at + 1) % off_count;
        int err = r->step % 3 == 0 ? script_reopen(r, (struct switches){off[at]})
                                   : script_crash(r, r->step % 2 ? CRASH_DROP_ALL : CRASH_RANDOM,
                                                  (struct switches){off[at]});

        if (err < 0)
            fail_msg("script %llu, after step %zu: %s: %s", (unsigned long long)s->seed, r->step,
                     err_name(err), r->fx.refusal);
    }
}

static void test_switches_change_from_opening_to_opening(void **state)
{
    static struct script s;
    static struct script_run on, x;
    const uint32_t all_on[] = {0}, none = switches_baseline().off;
    char text[600];

    (void)state;
    for (uint64_t k = 0; k < 3 * run_count(); k++) {
        script_make(&s, first_seed() + 60 + k, 80);
        run_mixed(&on, &s, all_on, 1);
        for (size_t i = 0; i <= AF_ARRAY_LEN(on_sim); i++) {
            struct rng r = {rng_mix(s.seed, i)};
            // On and off in turn, both with the rest on; all in turn; then any.
            uint32_t off[8] = {0, i < AF_ARRAY_LEN(on_sim) ? without(on_sim[i]).off : none};

            for (size_t j = 2; j < 8; j++)
                off[j] = (uint32_t)rng_below(&r, none + 1);
            run_mixed(&x, &s, off, i % 2 ? 2 : 8);
            assert_memory_equal(x.replies, on.replies, sizeof(x.replies));
            assert_memory_equal(x.reads, on.reads, sizeof(x.reads));
            assert_memory_equal(x.visible, on.visible, sizeof(x.visible));
            assert_memory_equal(x.counts, on.counts, sizeof(x.counts));
            assert_int_equal(fixture_close(&x.fx), 0);
            assert_int_equal(verify_text(x.fx.sim, text, sizeof(text)), 0);
            script_end(&x);
        }
        script_end(&on);
    }
}

// ---- the calls of a checkpoint ----

struct sequence {
    char text[600];
    bool over;
};

// Repetitions of one call count as one: how many blocks there are is no matter of order.
static void note_call(void *arg, const struct sim_event *e)
{
    struct sequence *q = arg;
    char item[96];
    size_t len = strlen(q->text);

    if (q->over)
        return;
    snprintf(item, sizeof(item), "%s %.*s; ", sim_call_name(e->call), (int)strcspn(e->path, "/"),
             e->path);
    if (len < strlen(item) || strcmp(q->text + len - strlen(item), item) != 0)
        snprintf(q->text + len, sizeof(q->text) - len, "%s", item);
    // The marker is durable: what follows gives back, and is not the order that matters.
    q->over = e->call == SIM_DONE_WRITE;
}

#define CHECKPOINT_CALLS \
    "write data; sync data; write superblock; sync superblock; start-write wal; done-write wal; "

static void test_a_checkpoint_makes_its_calls_in_one_order(void **state)
{
    static struct script s;
    static struct script_run r;

    (void)state;
    script_make(&s, first_seed() + 80, 30);
    for (size_t i = 0; i <= AF_ARRAY_LEN(on_sim) + 1; i++) {
        struct sequence q = {.over = false};
        struct switches switches = i == 0                      ? (struct switches){0}
                                   : i <= AF_ARRAY_LEN(on_sim) ? without(on_sim[i - 1])
                                                               : switches_baseline();

        script_begin(&r, &s, switches);
        while (r.step < s.count)
            script_step(&r);
        assert_int_equal(fixture_sync(&r.fx), 0);
        sim_set_event_hook(r.fx.sim, note_call, &q);
        assert_int_equal(engine_checkpoint(r.fx.engine), 0);
        sim_set_event_hook(r.fx.sim, NULL, NULL);
        assert_string_equal(q.text, CHECKPOINT_CALLS);
        script_end(&r);
    }
}

// ---- changes during a checkpoint ----

struct meanwhile {
    struct script_run *r;
    bool done;
    unsigned calls, blocked, images;
    struct sim *after[16];
};

// While the checkpoint writes its blocks, somebody makes a directory. (The calls of the disk that
// this makes are none: the record waits in memory.)
static void change_meanwhile(void *arg, const struct sim_event *e)
{
    const struct store_cred cred = {.uid = 1000, .gid = 1000};
    struct meanwhile *m = arg;
    struct store_attr attr;
    char name[32];

    if (e->call == SIM_WRITE && strcmp(e->path, "data") == 0 && m->calls < 3) {
        snprintf(name, sizeof(name), "meanwhile%u", m->calls++);
        int err = store_mknod(m->r->fx.store, STORE_NONBLOCK, INO_ROOT, name, S_IFDIR | 0755, 0,
                              &cred, &attr);

        if (err == -AF_E_WOULD_BLOCK)
            m->blocked++;
        else
            assert_int_equal(err, 0);
    }
    if (m->images < AF_ARRAY_LEN(m->after))
        m->after[m->images++] = sim_clone(m->r->fx.sim);
}

static void checkpoint_with_changes(struct script_run *r, bool open, unsigned *ret_images)
{
    struct meanwhile m = {.r = r};
    uint64_t before, hash;
    struct fixture fx;

    assert_int_equal(fixture_sync(&r->fx), 0);
    before = script_tree_hash(r->fx.store);
    sim_set_event_hook(r->fx.sim, change_meanwhile, &m);
    assert_int_equal(engine_checkpoint(r->fx.engine), 0);
    sim_set_event_hook(r->fx.sim, NULL, NULL);
    assert_true(m.calls > 0);
    assert_int_equal(m.blocked, open ? 0 : m.calls);
    // A commit behind the cut is not in the checkpoint, and nothing has made it durable: crashes
    // leave the tree without it, until it is flushed.
    for (unsigned i = 0; i < m.images; i++) {
        fixture_adopt(&fx, m.after[i], &r->fx.options);
        crash_disk(fx.sim, i % 2 ? CRASH_RANDOM : CRASH_DROP_ALL, i);
        assert_int_equal(fixture_open(&fx), 0);
        hash = script_tree_hash(fx.store);
        if (i + 2 < m.images) // the marker's flush takes along what waits
            assert_true(hash == before);
        fixture_free(&fx);
    }
    hash = script_tree_hash(r->fx.store);
    assert_int_equal(fixture_sync(&r->fx), 0);
    fixture_leave(&r->fx);
    crash_disk(r->fx.sim, CRASH_DROP_ALL, 1);
    assert_int_equal(fixture_open(&r->fx), 0);
    assert_true(script_tree_hash(r->fx.store) == hash);
    assert_true((hash != before) == open);
    *ret_images = m.images;
}

static void test_changes_during_a_checkpoint_are_behind_its_cut(void **state)
{
    static struct script s;
    static struct script_run r;
    unsigned images;

    (void)state;
    script_make(&s, first_seed() + 90, 24);
    for (unsigned open = 0; open < 2; open++) {
        script_begin(&r, &s, open ? (struct switches){0} : without(SWITCH_OPEN_CHECKPOINT));
        while (r.step < 20)
            script_step(&r);
        checkpoint_with_changes(&r, open, &images);
        assert_true(images >= 5);
        script_end(&r);
    }
}

// ---- the crash matrix ----

// Random work of all kinds on engine and model, a crash at a share of the events
// (tests/lib/crashes.h).
static void matrix(const char *choice, uint64_t seed, unsigned percent)
{
    struct crashes c;
    struct world w;

    assert_int_equal(setenv("AEROFS_TEST_SWITCHES", choice, 1), 0); // of every engine of the matrix
    world_init(&w, seed);
    w.durable = 15;
    w.names = 20;
    w.bytes_max = UINT64_C(1) << 20;
    crashes_init(&c, &w, seed);
    c.percent = percent;
    c.verify_percent = 25;
    crashes_watch(&c);
    crashes_work(&c, 2);
    printf("  %-28s %llu events, %llu crash points, %llu states\n", choice,
           (unsigned long long)c.events, (unsigned long long)c.points,
           (unsigned long long)c.states);
    bool wrong = w.failed || c.violations > 0;

    crashes_free(&c);
    world_free(&w);
    assert_int_equal(unsetenv("AEROFS_TEST_SWITCHES"), 0);
    if (wrong)
        fail_msg("%s: repeat with SEED=%llu", choice, (unsigned long long)seed);
}

static void test_the_crash_matrix_holds_with_each_switch_alone(void **state)
{
    unsigned percent = run_count() > 1 ? 30 : 3;
    char choice[64];

    (void)state;
    for (uint64_t k = 0; k < run_count(); k++) {
        matrix("", first_seed() + 120 + k, percent);
        matrix("baseline", first_seed() + 120 + k, percent);
        for (size_t i = 0; i < AF_ARRAY_LEN(on_sim); i++) {
            snprintf(choice, sizeof(choice), "baseline,%s", switch_name(on_sim[i]));
            matrix(choice, first_seed() + 120 + k, percent);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failures_at_the_same_step_have_the_same_answer),
        cmocka_unit_test(test_an_image_recovers_the_same_under_every_choice),
        cmocka_unit_test(test_recovery_crashed_three_deep_comes_to_the_same_tree),
        cmocka_unit_test(test_switches_change_from_opening_to_opening),
        cmocka_unit_test(test_a_checkpoint_makes_its_calls_in_one_order),
        cmocka_unit_test(test_changes_during_a_checkpoint_are_behind_its_cut),
        cmocka_unit_test(test_the_crash_matrix_holds_with_each_switch_alone),
    };

    return cmocka_run_group_tests_name("equivalence, more", tests, NULL, NULL);
}
