// SPDX-License-Identifier: MIT
// The optimizations of the disk interface against the baseline, on real files: the same seeded
// scripts with io_uring and O_DIRECT, with one of them, and with neither; the process ends after
// every few steps, and the next opening has other switches. Answers and trees must be the same, and
// in the end every byte of every file: time and random numbers are the script's. An operation that
// cannot be started, or completes with an error, has the same answers too.
//
//   SEED=n  the first script;  RUNS=n  how many
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "tests/lib/script.h"

// ---- a real disk whose time and random numbers are those of a simulated one ----

enum fault { FAULT_NOTHING, FAULT_START, FAULT_COMPLETION };

static struct {
    struct sim *clock;
    struct io_ops ops;
    const struct io_ops *real;
    enum fault fault;
    unsigned countdown; // operations until the fault
    void (*done)(struct io_async *op, int result);
    bool hit;
} disk;

static uint64_t clock_now(struct io *io)
{
    (void)io;
    return sim_io(disk.clock)->ops->now_ns(sim_io(disk.clock));
}

static uint64_t clock_ticks(struct io *io)
{
    (void)io;
    return sim_io(disk.clock)->ops->ticks_ms(sim_io(disk.clock));
}

static uint64_t clock_random(struct io *io)
{
    (void)io;
    return sim_io(disk.clock)->ops->random(sim_io(disk.clock));
}

// The log has one operation under way at most.
static void done_badly(struct io_async *op, int result)
{
    (void)result;
    op->done = disk.done;
    op->done(op, -EIO);
}

static int start_or_fail(struct io *io, struct io_async *op)
{
    bool now = disk.fault != FAULT_NOTHING && disk.countdown-- == 0;

    if (!now)
        return disk.real->start(io, op);
    disk.hit = true;
    if (disk.fault == FAULT_START)
        return -EAGAIN;
    disk.fault = FAULT_NOTHING;
    disk.done = op->done;
    op->done = done_badly;
    return disk.real->start(io, op);
}

static struct io *disk_open(const char *dir, struct switches switches, struct sim *clock)
{
    struct io_choice choice = {.switches = switches};
    struct io *io;

    assert_int_equal(io_open_chosen(dir, &choice, false, &io), 0);
    // What is switched on has to be there, or nothing would be compared.
    if (switch_on(switches, SWITCH_URING))
        assert_string_equal(io->ops->name, "uring");
    if (switch_on(switches, SWITCH_DIRECT))
        assert_true(io->direct);
    disk.clock = clock;
    disk.real = io->ops;
    disk.ops = *io->ops;
    disk.ops.now_ns = clock_now;
    disk.ops.ticks_ms = clock_ticks;
    disk.ops.random = clock_random;
    disk.ops.start = start_or_fail;
    io->ops = &disk.ops;
    return io;
}

static void disk_close(struct io *io)
{
    io->ops = disk.real;
    io->ops->destroy(io);
}

// ---- directories ----

static void make_dir(char dir[128])
{
    const char *base = getenv("TMPDIR");

    snprintf(dir, 128, "%s/aerofs-equivalence.XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
}

// Names, lengths and bytes of all files, and away with them if asked.
static uint64_t dir_hash(const char *dir, bool remove_them)
{
    static uint8_t bytes[1 << 16];
    DIR *d = opendir(dir);
    uint64_t sum = 0;

    assert_non_null(d);
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        char path[512];
        struct stat st;
        size_t n;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        assert_int_equal(stat(path, &st), 0);
        uint64_t hash = checksum(CSUM_NAME, 3, e->d_name, strlen(e->d_name));
        if (S_ISDIR(st.st_mode)) {
            hash = rng_mix(hash, dir_hash(path, remove_them));
        } else {
            FILE *f = fopen(path, "re");

            assert_non_null(f);
            while ((n = fread(bytes, 1, sizeof(bytes), f)) > 0)
                hash = rng_mix(hash, checksum(CSUM_DATA, n, bytes, n));
            assert_int_equal(fclose(f), 0);
            if (remove_them)
                assert_int_equal(unlink(path), 0);
        }
        sum += hash;
    }
    assert_int_equal(closedir(d), 0);
    if (remove_them)
        assert_int_equal(rmdir(dir), 0);
    return sum;
}

// ---- runs ----

static struct switches method(unsigned bits)
{
    struct switches s = {0};

    switch_set(&s, SWITCH_URING, bits & 1);
    switch_set(&s, SWITCH_DIRECT, bits & 2);
    return s;
}

// Kills the process after every ninth step; `next`: bits of the method that the next opening has.
static uint64_t run(struct script_run *r, const struct script *s, unsigned first, unsigned step)
{
    struct sim *clock = sim_create(s->seed);
    unsigned bits = first;
    char dir[128];

    make_dir(dir);
    struct io *io = disk_open(dir, method(bits), clock);
    script_begin_on(r, s, (struct switches){0}, io, clock);
    while (r->step < s->count) {
        script_step(r);
        if (r->step % 9 != 0)
            continue;
        assert_int_equal(fixture_sync(&r->fx), 0);
        r->acked = r->state_count - 1;
        fixture_abandon(&r->fx);
        disk_close(io);
        bits = (bits + step) % 4;
        io = r->fx.io = disk_open(dir, method(bits), clock);
        int err = script_kill(r, (struct switches){0});
        if (err < 0)
            fail_msg("method %u: %s: %s", bits, err_name(err), r->fx.refusal);
    }
    assert_int_equal(fixture_close(&r->fx), 0);
    script_end(r);
    disk_close(io);
    return dir_hash(dir, true);
}

static void test_methods_leave_the_same_bytes(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 1);
    static struct script s;
    static struct script_run plain, r;

    (void)state;
    for (uint64_t k = 0; k < (runs ? runs : 1); k++) {
        script_make(&s, seed + k, 50);
        uint64_t expected = run(&plain, &s, 0, 0);

        // Each method, and each mixed with the others from opening to opening.
        for (unsigned i = 1; i < 6; i++) {
            uint64_t bytes = run(&r, &s, i % 4, i < 4 ? 0 : i == 4 ? 1 : 3);

            assert_memory_equal(r.replies, plain.replies, sizeof(r.replies));
            assert_memory_equal(r.reads, plain.reads, sizeof(r.reads));
            assert_memory_equal(r.visible, plain.visible, sizeof(r.visible));
            assert_memory_equal(r.ackeds, plain.ackeds, sizeof(r.ackeds));
            assert_true(bytes == expected);
        }
        printf("script %llu: 6 runs, %zu states, the same bytes in the end\n",
               (unsigned long long)s.seed, plain.state_count);
    }
}

// The n-th operation that is started fails; the run goes on to its end, with a store that has
// failed.
static bool run_faulty(struct script_run *r, const struct script *s, unsigned bits,
                       enum fault fault, unsigned n)
{
    struct sim *clock = sim_create(s->seed);
    char dir[128];

    make_dir(dir);
    struct io *io = disk_open(dir, method(bits), clock);
    script_begin_on(r, s, (struct switches){0}, io, clock);
    disk.hit = false;
    disk.countdown = n;
    disk.fault = fault;
    while (r->step < s->count)
        script_step(r);
    bool hit = disk.hit;

    if (hit)
        assert_true(fixture_sync(&r->fx) < 0);
    disk.fault = FAULT_NOTHING;
    assert_int_equal(script_kill(r, (struct switches){0}), 0);
    script_end(r);
    disk_close(io);
    (void)dir_hash(dir, true);
    return hit;
}

static void test_methods_fail_alike(void **state)
{
    static struct script s;
    static struct script_run plain, r;
    unsigned hits = 0;

    (void)state;
    script_make(&s, env_number("SEED", 1) + 30, 30);
    for (unsigned fault = FAULT_START; fault <= FAULT_COMPLETION; fault++) {
        for (unsigned n = 1; n < 9; n += 5) {
            bool hit = run_faulty(&plain, &s, 0, (enum fault)fault, n);

            hits += hit;
            for (unsigned bits = 1; bits < 4; bits++) {
                assert_true(run_faulty(&r, &s, bits, (enum fault)fault, n) == hit);
                assert_memory_equal(r.replies, plain.replies, sizeof(r.replies));
                assert_memory_equal(r.visible, plain.visible, sizeof(r.visible));
                assert_memory_equal(r.ackeds, plain.ackeds, sizeof(r.ackeds));
                assert_int_equal(r.acked, plain.acked);
            }
        }
    }
    assert_true(hits >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_methods_leave_the_same_bytes),
        cmocka_unit_test(test_methods_fail_alike),
    };

    return cmocka_run_group_tests_name("equivalence on disk", tests, NULL, NULL);
}
