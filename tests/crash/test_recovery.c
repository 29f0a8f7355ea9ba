// SPDX-License-Identifier: MIT
// Recovery comes to the same whatever is around it: the clock, the order of the directory, where
// things lie in memory, threads and processors; and whatever else lies in the store's directory, it
// is a case that recovery knows, or it is refused and nothing is changed.
//
//   SEED=n  RUNS=n
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "tests/lib/report.h"
#include "tests/lib/world.h"

// A store left by a crash in the middle of mixed work: two checkpoints, a log behind them, torn.
static struct sim *crashed_store(uint64_t seed, struct engine_options *ret_options)
{
    struct world w;

    world_init(&w, seed);
    w.durable = 15;
    w.names = 20;
    w.bytes_max = UINT64_C(1) << 20;
    for (unsigned i = 0; i < 160; i++) {
        world_step(&w);
        if (i % 50 == 30)
            world_checkpoint(&w);
    }
    world_crash(&w, seed % 2 ? CRASH_RANDOM : CRASH_GARBAGE, seed);
    assert_false(w.failed);
    struct sim *sim = sim_clone(w.fx.sim);

    *ret_options = w.fx.options;
    world_free(&w);
    return sim;
}

// ---- the same whatever is around ----

struct result { // what a recovery has come to, but for the time it took
    uint64_t tree;
    struct engine_recovery r;
};

static int recover(struct io *io, const struct engine_options *options, struct result *ret)
{
    char message[600], where[CANON_WHERE_BYTES];
    struct engine_status st;
    struct canon d = {0};
    struct engine *e;
    int err = engine_open(io, options, &e, message, sizeof(message));

    memset(ret, 0, sizeof(*ret));
    if (err < 0)
        return err;
    engine_get_status(e, &st);
    err = canon_store(engine_store(e), &d, where);
    ret->tree = d.hash;
    canon_free(&d);
    engine_abandon(e);
    ret->r.clean = st.recovery.clean;
    ret->r.sequence = st.recovery.sequence;
    ret->r.generation = st.recovery.generation;
    ret->r.cut_lsn = st.recovery.cut_lsn;
    ret->r.last_lsn = st.recovery.last_lsn;
    ret->r.records_replayed = st.recovery.records_replayed;
    ret->r.bytes_replayed = st.recovery.bytes_replayed;
    ret->r.tail_records_dropped = st.recovery.tail_records_dropped;
    ret->r.tail_bytes_dropped = st.recovery.tail_bytes_dropped;
    ret->r.tail_segment = st.recovery.tail_segment;
    ret->r.tail_offset = st.recovery.tail_offset;
    ret->r.orphans_removed = st.recovery.orphans_removed;
    ret->r.epoch = st.recovery.epoch;
    snprintf(ret->r.text, sizeof(ret->r.text), "%s", st.recovery.text);
    return err;
}

static uint64_t jumping_clock(void *arg)
{
    struct rng *r = arg;

    return rng_next(r) % (UINT64_C(5) << 60);
}

static uint64_t steady_ticks(void *arg)
{
    (void)arg;
    return 5000; // a clock that has stopped
}

#define TEN_YEARS_NS (UINT64_C(10) * 365 * 86400 * 1000000000)

static const char *const clocks[] = {"1970", "ten years back", "ten years on", "stopped",
                                     "jumping"};

static void set_clock(struct sim *sim, unsigned clock, struct rng *r)
{
    const uint64_t now = UINT64_C(1577836800) * 1000000000;

    switch (clock) {
    case 0:
        sim_set_now_ns(sim, 0);
        break;
    case 1:
        sim_set_now_ns(sim, now - TEN_YEARS_NS);
        break;
    case 2:
        sim_set_now_ns(sim, now + TEN_YEARS_NS);
        break;
    case 3:
        sim_set_clock_hooks(sim, NULL, steady_ticks, NULL);
        break;
    default:
        sim_set_clock_hooks(sim, jumping_clock, steady_ticks, r);
        break;
    }
}

// Other places in memory: what lies free is filled with something else and cut up anew.
static void stir_memory(struct rng *r)
{
    void *blocks[64];

    (void)mallopt(M_PERTURB, (int)(rng_next(r) & 255));
    for (unsigned i = 0; i < 64; i++)
        blocks[i] = malloc(rng_below(r, 20000) + 1);
    for (unsigned i = 0; i < 64; i++)
        free(blocks[i * 37 % 64]);
}

static void expect_same(const struct result *a, const struct result *b, const char *what)
{
    if (memcmp(a, b, sizeof(*a)) != 0)
        fail_msg("%s: tree %016llx and %016llx; \"%s\" and \"%s\"", what,
                 (unsigned long long)a->tree, (unsigned long long)b->tree, a->r.text, b->r.text);
}

static void test_a_hundred_recoveries_of_one_image_are_the_same(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 100);
    struct engine_options options;
    struct sim *base = crashed_store(seed, &options);
    struct rng r = {rng_mix(seed, 3)};
    struct result first, again;

    (void)state;
    options.sink = (struct message_sink){0};
    for (uint64_t i = 0; i < (runs ? runs : 100); i++) {
        struct sim *sim = sim_clone(base);

        sim_reseed(sim, i);
        if (i > 0)
            set_clock(sim, (unsigned)(i % 5), &r);
        stir_memory(&r);
        assert_int_equal(recover(sim_io(sim), &options, i == 0 ? &first : &again), 0);
        if (i > 0)
            expect_same(&first, &again, clocks[i % 5]);
        sim_destroy(sim);
    }
    assert_true(first.r.records_replayed > 0 && !first.r.clean);
    sim_destroy(base);
}

// On a real directory, in processes of their own, so that the kernel chooses where they lie; with
// and without the engine's threads, on one processor and on all.
static void recover_in_a_process(const struct sim *base, const struct engine_options *options,
                                 unsigned variant, const struct result *expected)
{
    const char *top = getenv("TEST_DIR") ? getenv("TEST_DIR") : ".";
    char dir[300];

    snprintf(dir, sizeof(dir), "%s/store.%ld.%u", top, (long)getpid(), variant);
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(sim_export(base, dir), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct engine_options o = *options;
        struct result found;
        struct io *io;
        cpu_set_t one;

        CPU_ZERO(&one);
        CPU_SET(0, &one);
        if (variant % 2)
            (void)sched_setaffinity(0, sizeof(one), &one);
        o.threads = variant / 2 % 2;
        int err = io_open(dir, variant / 4 % 2 ? "plain" : NULL, false, &io);
        if (err == 0)
            err = recover(io, &o, &found);
        _exit(err < 0 ? 1 : memcmp(&found, expected, sizeof(found)) ? 2 : 0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    char command[400];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_recoveries_in_processes_and_threads_are_the_same(void **state)
{
    struct engine_options options;
    struct sim *base = crashed_store(env_number("SEED", 1) + 1, &options), *sim = sim_clone(base);
    struct result expected;

    (void)state;
    options.sink = (struct message_sink){0};
    assert_int_equal(recover(sim_io(sim), &options, &expected), 0);
    sim_destroy(sim);
    for (unsigned variant = 0; variant < 8; variant++)
        recover_in_a_process(base, &options, variant, &expected);
    sim_destroy(base);
}

// ---- strangers, and what is missing ----

struct files {
    char path[64][SIM_PATH_BYTES];
    size_t count;
};

static void note_file(void *arg, const char *path, bool is_dir)
{
    struct files *f = arg;

    if (!is_dir && f->count < 64)
        snprintf(f->path[f->count++], SIM_PATH_BYTES, "%s", path);
}

static void copy_file(struct sim *sim, const char *from, const char *to)
{
    uint64_t size;

    if (sim_file_size(sim, from, &size) < 0 || size > UINT64_C(64) << 20)
        return;
    uint8_t *bytes = malloc(size + 1);
    assert_non_null(bytes);
    assert_int_equal(sim_read_raw(sim, from, 0, bytes, size), 0);
    sim_put_file(sim, to, bytes, size);
    free(bytes);
}

// True when the change takes away or alters something of the store.
static bool change_files(struct sim *sim, struct rng *r)
{
    static const char *const strangers[] = {"README",         "wal/notes",
                                            "wal/0000.seg",   "data.old",
                                            "superblock.bak", "wal/zzzzzzzzzzzzzzzz.seg"};
    struct files f = {0};

    sim_each_path(sim, note_file, &f);
    assert_true(f.count > 3);
    const char *victim = f.path[rng_below(r, f.count)], *other = f.path[rng_below(r, f.count)];
    uint64_t size = 0;

    switch (rng_below(r, 5)) {
    case 0:
        return sim_remove_raw(sim, victim) == 0;
    case 1:
        (void)!sim_file_size(sim, victim, &size);
        return sim_truncate_raw(sim, victim, rng_below(r, size + 1)) == 0;
    case 2:
        copy_file(sim, other, victim);
        return true;
    default:
        copy_file(sim, other, strangers[rng_below(r, sizeof(strangers) / sizeof(strangers[0]))]);
        return false;
    }
}

static void test_every_set_of_files_is_one_case_or_refused(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 600);
    struct engine_options options;
    struct rng r = {rng_mix(seed, 29)};
    unsigned opened = 0, refused = 0;
    struct sim *base = crashed_store(seed + 2, &options), *sim = sim_clone(base);
    struct result whole;

    (void)state;
    options.sink = (struct message_sink){0};
    assert_int_equal(recover(sim_io(sim), &options, &whole), 0);
    sim_destroy(sim);
    for (uint64_t i = 0; i < (runs ? runs : 600); i++) {
        unsigned changes = (unsigned)rng_below(&r, 4) + 1;
        bool harmed = false;
        struct result a, b;

        sim = sim_clone(base);
        while (changes-- > 0)
            harmed = change_files(sim, &r) || harmed;
        struct sim *twin = sim_clone(sim);
        uint64_t before = sim_hash(sim);
        int err = recover(sim_io(sim), &options, &a);

        sim_reseed(twin, i);
        assert_int_equal(recover(sim_io(twin), &options, &b), err);
        if (err < 0) {
            refused++;
            assert_true(sim_hash(sim) == before); // nothing was changed
            if (!harmed)
                fail_msg("seed %llu, run %llu: a stranger makes recovery refuse: %s",
                         (unsigned long long)seed, (unsigned long long)i, err_name(err));
        } else {
            opened++;
            expect_same(&a, &b, "the same files");
            if (a.tree != whole.tree)
                fail_msg("seed %llu, run %llu: another tree: %s", (unsigned long long)seed,
                         (unsigned long long)i, a.r.text);
        }
        sim_destroy(twin);
        sim_destroy(sim);
    }
    printf("  %u opened as ever, %u refused\n", opened, refused);
    assert_true(opened > 50 && refused > 50);
    sim_destroy(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hundred_recoveries_of_one_image_are_the_same),
        cmocka_unit_test(test_recoveries_in_processes_and_threads_are_the_same),
        cmocka_unit_test(test_every_set_of_files_is_one_case_or_refused),
    };

    return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
