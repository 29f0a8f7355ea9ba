// SPDX-License-Identifier: MIT
// Tests of the simulated disk: that it loses what a real one may lose, and nothing else.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/help.h"

#define BLOCK HELP_BLOCK
#define SEEDS 200

// ---- data ----

static void test_only_synced_bytes_survive(void **state)
{
    struct sim *sim = sim_create(1), *cut;
    struct io_file *file = help_make_durable(sim, "f", 2 * BLOCK, 'a');

    (void)state;
    help_fill(file, 0, BLOCK, 'b');
    assert_int_equal(help_byte_at(sim, "f", 0), 'b');
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_byte_at(cut, "f", 0), 'a');
    sim_destroy(cut);
    cut = help_cut_clone(sim, SIM_CUT_KEEP_ALL, 1);
    assert_int_equal(help_byte_at(cut, "f", 0), 'b');
    sim_destroy(cut);
    assert_int_equal(io_sync(file), 0);
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_byte_at(cut, "f", 0), 'b');
    assert_int_equal(help_byte_at(cut, "f", BLOCK), 'a');
    sim_destroy(cut);
    io_file_close(file);
    sim_destroy(sim);
}

static void test_unsynced_writes_are_kept_lost_and_torn(void **state)
{
    struct sim *sim = sim_create(1);
    struct io_file *file = help_make_durable(sim, "f", 4 * BLOCK, 'a');
    unsigned seen = 0, seen_garbage = 0;

    (void)state;
    help_fill(file, 0, 4 * BLOCK, 'b');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim *cut = help_cut_clone(sim, SIM_CUT_RANDOM, seed);

        seen |= help_outcome(cut, "f", 4 * BLOCK, 'a', 'b');
        sim_destroy(cut);
        cut = help_cut_clone(sim, SIM_CUT_GARBAGE, seed);
        seen_garbage |= help_outcome(cut, "f", 4 * BLOCK, 'a', 'b');
        assert_int_equal(help_size_of(cut, "f"), 4 * BLOCK);
        sim_destroy(cut);
    }
    assert_int_equal(seen, HELP_OLD | HELP_NEW | HELP_TORN);
    assert_int_equal(seen_garbage, HELP_OLD | HELP_NEW | HELP_TORN | HELP_DAMAGED);
    io_file_close(file);
    sim_destroy(sim);
}

static void test_unsynced_writes_are_independent(void **state)
{
    struct sim *sim = sim_create(1);
    struct io_file *file = help_make_durable(sim, "f", 2 * BLOCK, 'a');
    unsigned seen = 0;

    (void)state;
    help_fill(file, 0, SIM_SECTOR_BYTES, 'b');
    help_fill(file, BLOCK, SIM_SECTOR_BYTES, 'c');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim *cut = help_cut_clone(sim, SIM_CUT_RANDOM, seed);
        unsigned first = help_byte_at(cut, "f", 0) == 'b',
                 second = help_byte_at(cut, "f", BLOCK) == 'c';

        seen |= 1u << (first * 2 + second);
        sim_destroy(cut);
    }
    // Also the later one without the earlier one.
    assert_int_equal(seen, 15);
    io_file_close(file);
    sim_destroy(sim);
}

// Every subset of the parts of two writes, a size and a new name, each once.
static void test_cuts_by_parts_give_every_subset(void **state)
{
    struct sim *sim = sim_create(1);
    struct io_file *file = help_make_durable(sim, "f", BLOCK, 'a'), *other;
    uint64_t seen[256], count = 0;

    (void)state;
    help_fill(file, 0, 2 * SIM_SECTOR_BYTES, 'b');
    help_fill(file, 2 * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES, 'a'); // is there already: no part
    help_fill(file, SIM_SECTOR_BYTES, SIM_SECTOR_BYTES, 'a');     // would hide an earlier one
    help_fill(file, BLOCK, 1, 'c');                               // and its size
    other = help_open(sim, "g", IO_WRITE | IO_CREATE);
    assert_int_equal(sim_cut_parts(sim), 6);
    for (unsigned subset = 0; subset < 64; subset++) {
        struct sim *cut = sim_clone(sim);
        bool keep[6], fresh = true;

        for (unsigned i = 0; i < 6; i++)
            keep[i] = subset >> i & 1;
        sim_power_cut_parts(cut, keep, false, 1);
        bool size = keep[0], first = keep[1], second = keep[2] && !keep[3], name = keep[5];
        assert_int_equal(help_byte_at(cut, "f", 0), first ? 'b' : 'a');
        assert_int_equal(help_byte_at(cut, "f", SIM_SECTOR_BYTES), second ? 'b' : 'a');
        assert_int_equal(help_size_of(cut, "f"), size ? BLOCK + 1 : BLOCK);
        assert_int_equal(sim_exists(cut, "g"), name);
        for (uint64_t i = 0; i < count; i++)
            fresh = fresh && seen[i] != sim_hash(cut);
        if (fresh)
            seen[count++] = sim_hash(cut);
        sim_destroy(cut);
    }
    // Second sector: two ways to be as before; the byte beyond the size counts only with it.
    assert_int_equal(count, 2 * 2 * 3 * 2);
    io_file_close(other);
    io_file_close(file);
    sim_destroy(sim);
}

// Some cuts tear every 512 bytes, others whole blocks of 4096 only.
static void test_cuts_tear_by_small_or_by_large_sectors(void **state)
{
    struct sim *sim = sim_create(1);
    struct io_file *file = help_make_durable(sim, "f", 4 * BLOCK, 'a');
    unsigned small = 0, large = 0;

    (void)state;
    help_fill(file, 0, 4 * BLOCK, 'b');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim *cut = help_cut_clone(sim, SIM_CUT_RANDOM, seed);
        bool inside = false, between = false;

        for (uint64_t off = SIM_SECTOR_BYTES; off < 4 * BLOCK; off += SIM_SECTOR_BYTES) {
            bool torn =
                help_byte_at(cut, "f", off) != help_byte_at(cut, "f", off - SIM_SECTOR_BYTES);

            inside |= torn && off % BLOCK != 0;
            between |= torn && off % BLOCK == 0;
        }
        small += inside;
        large += between && !inside;
        sim_destroy(cut);
    }
    assert_true(small > SEEDS / 20 && large > SEEDS / 20);
    io_file_close(file);
    sim_destroy(sim);
}

static void test_sizes_are_unsynced_too(void **state)
{
    struct sim *sim = sim_create(1);
    struct io_file *file = help_make_durable(sim, "f", BLOCK, 'a');
    bool seen_zeros = false, seen_old = false, seen_new = false;

    (void)state;
    help_fill(file, BLOCK, BLOCK, 'b');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim *cut = help_cut_clone(sim, SIM_CUT_RANDOM, seed);
        uint64_t size = help_size_of(cut, "f");

        assert_true(size == BLOCK || size == 2 * BLOCK);
        seen_old |= size == BLOCK;
        seen_zeros |= size == 2 * BLOCK && help_byte_at(cut, "f", BLOCK) == 0;
        seen_new |= size == 2 * BLOCK && help_byte_at(cut, "f", BLOCK) == 'b';
        sim_destroy(cut);
    }
    assert_true(seen_old && seen_zeros && seen_new);
    io_file_close(file);
    sim_destroy(sim);
}

static void test_truncated_bytes_do_not_come_back_after_sync(void **state)
{
    struct sim *sim = sim_create(1), *cut;
    struct io *io = sim_io(sim);
    struct io_file *file = help_make_durable(sim, "f", 3 * BLOCK, 'a');

    (void)state;
    help_fill(file, 2 * BLOCK, BLOCK, 'b');
    assert_int_equal(io->ops->truncate(file, BLOCK + 10), 0);
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_size_of(cut, "f"), 3 * BLOCK);
    assert_int_equal(help_byte_at(cut, "f", 2 * BLOCK), 'a');
    sim_destroy(cut);
    assert_int_equal(io->ops->truncate(file, 3 * BLOCK), 0);
    assert_int_equal(help_byte_at(sim, "f", BLOCK + 9), 'a');
    assert_int_equal(help_byte_at(sim, "f", BLOCK + 10), 0);
    assert_int_equal(io_sync(file), 0);
    cut = help_cut_clone(sim, SIM_CUT_RANDOM, 1);
    assert_int_equal(help_size_of(cut, "f"), 3 * BLOCK);
    assert_int_equal(help_byte_at(cut, "f", BLOCK + 10), 0);
    assert_int_equal(help_byte_at(cut, "f", 2 * BLOCK), 0);
    sim_destroy(cut);
    io_file_close(file);
    sim_destroy(sim);
}

// ---- names ----

static void test_sync_of_a_file_does_not_make_its_name_durable(void **state)
{
    struct sim *sim = sim_create(1), *cut;
    struct io_file *file = help_open(sim, "f", IO_WRITE | IO_CREATE);

    (void)state;
    help_fill(file, 0, BLOCK, 'a');
    assert_int_equal(io_sync(file), 0);
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_false(sim_exists(cut, "f"));
    sim_destroy(cut);
    cut = help_cut_clone(sim, SIM_CUT_KEEP_ALL, 1);
    assert_int_equal(help_byte_at(cut, "f", 0), 'a');
    sim_destroy(cut);
    assert_int_equal(help_sync_dir(sim, ""), 0);
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_byte_at(cut, "f", 0), 'a');
    sim_destroy(cut);
    io_file_close(file);
    sim_destroy(sim);
}

static void test_rename_is_dropped_or_kept_as_a_whole(void **state)
{
    struct sim *sim = sim_create(1);
    struct io *io = sim_io(sim);
    bool seen_old = false, seen_new = false;

    (void)state;
    io_file_close(help_make_durable(sim, "new", BLOCK, 'n'));
    io_file_close(help_make_durable(sim, "target", BLOCK, 't'));
    assert_int_equal(io->ops->rename(io, "new", "target"), 0);
    assert_false(sim_exists(sim, "new"));
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim *cut = help_cut_clone(sim, SIM_CUT_RANDOM, seed);
        bool dropped = sim_exists(cut, "new");

        assert_int_equal(help_byte_at(cut, "target", 0), dropped ? 't' : 'n');
        seen_old |= dropped;
        seen_new |= !dropped;
        sim_destroy(cut);
    }
    assert_true(seen_old && seen_new);
    assert_int_equal(help_sync_dir(sim, ""), 0);
    sim_power_cut(sim, SIM_CUT_DROP_ALL, 1);
    assert_false(sim_exists(sim, "new"));
    assert_int_equal(help_byte_at(sim, "target", 0), 'n');
    sim_destroy(sim);
}

static void test_unlink_comes_back_until_the_directory_is_synced(void **state)
{
    struct sim *sim = sim_create(1), *cut;
    struct io *io = sim_io(sim);

    (void)state;
    io_file_close(help_make_durable(sim, "f", BLOCK, 'a'));
    assert_int_equal(io->ops->unlink(io, "f"), 0);
    assert_false(sim_exists(sim, "f"));
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_byte_at(cut, "f", 0), 'a');
    sim_destroy(cut);
    assert_int_equal(help_sync_dir(sim, ""), 0);
    sim_power_cut(sim, SIM_CUT_DROP_ALL, 1);
    assert_false(sim_exists(sim, "f"));
    sim_destroy(sim);
}

static void test_a_lost_directory_takes_its_entries_with_it(void **state)
{
    struct sim *sim = sim_create(1), *cut;
    struct io *io = sim_io(sim);

    (void)state;
    assert_int_equal(io->ops->mkdir(io, "wal"), 0);
    io_file_close(help_open(sim, "wal/1", IO_WRITE | IO_CREATE));
    assert_int_equal(help_sync_dir(sim, "wal"), 0);
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_false(sim_exists(cut, "wal") || sim_exists(cut, "wal/1"));
    sim_destroy(cut);
    assert_int_equal(help_sync_dir(sim, ""), 0);
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_true(sim_exists(cut, "wal") && sim_exists(cut, "wal/1"));
    sim_destroy(cut);
    sim_destroy(sim);
}

static void test_sync_dir_is_for_one_directory(void **state)
{
    struct sim *sim = sim_create(1), *cut;
    struct io *io = sim_io(sim);

    (void)state;
    assert_int_equal(io->ops->mkdir(io, "a"), 0);
    assert_int_equal(io->ops->mkdir(io, "b"), 0);
    assert_int_equal(help_sync_dir(sim, ""), 0);
    io_file_close(help_open(sim, "a/1", IO_WRITE | IO_CREATE));
    io_file_close(help_open(sim, "b/1", IO_WRITE | IO_CREATE));
    assert_int_equal(help_sync_dir(sim, "a"), 0);
    assert_int_equal(io->ops->rename(io, "a/1", "b/2"), 0);
    // A rename between directories waits for both.
    assert_int_equal(help_sync_dir(sim, "a"), 0);
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_true(sim_exists(cut, "a/1"));
    assert_false(sim_exists(cut, "b/1") || sim_exists(cut, "b/2"));
    sim_destroy(cut);
    assert_int_equal(help_sync_dir(sim, "b"), 0);
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_false(sim_exists(cut, "a/1"));
    assert_true(sim_exists(cut, "b/1") && sim_exists(cut, "b/2"));
    sim_destroy(cut);
    sim_destroy(sim);
}

static int count_names(void *arg, const char *name)
{
    (void)name;
    (*(int *)arg)++;
    return 0;
}

static void test_names_answer_like_a_file_system(void **state)
{
    struct sim *sim = sim_create(1);
    struct io *io = sim_io(sim);
    struct io_file *file = NULL;
    int count = 0;
    char longer[SIM_PATH_BYTES + 10];

    (void)state;
    assert_int_equal(io_file_open(io, "f", IO_WRITE, &file), -ENOENT);
    assert_int_equal(io_file_open(io, "none/f", IO_WRITE | IO_CREATE, &file), -ENOENT);
    assert_int_equal(io->ops->mkdir(io, "d"), 0);
    assert_int_equal(io->ops->mkdir(io, "d"), -EEXIST);
    assert_int_equal(io->ops->mkdir(io, "none/d"), -ENOENT);
    assert_int_equal(io_file_open(io, "d", IO_WRITE, &file), -EISDIR);
    io_file_close(help_open(sim, "d/f", IO_WRITE | IO_CREATE | IO_EXCLUSIVE));
    assert_int_equal(io_file_open(io, "d/f", IO_WRITE | IO_CREATE | IO_EXCLUSIVE, &file), -EEXIST);
    assert_int_equal(io->ops->unlink(io, "d"), -EISDIR);
    assert_int_equal(io->ops->unlink(io, "f"), -ENOENT);
    assert_int_equal(io->ops->rename(io, "f", "g"), -ENOENT);
    assert_int_equal(io->ops->rename(io, "d/f", "none/g"), -ENOENT);
    assert_int_equal(help_sync_dir(sim, "none"), -ENOENT);
    assert_int_equal(io->ops->list(io, "none", count_names, &count), -ENOENT);
    assert_int_equal(io->ops->list(io, "d", count_names, &count), 0);
    assert_int_equal(count, 1);
    assert_int_equal(io->ops->list(io, "", count_names, &count), 0);
    assert_int_equal(count, 2);
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = 0;
    assert_int_equal(io_file_open(io, longer, IO_WRITE | IO_CREATE, &file), -ENAMETOOLONG);
    assert_string_equal(io_describe(io), "sim");
    sim_destroy(sim);
}

static void test_an_open_file_outlives_its_name(void **state)
{
    struct sim *sim = sim_create(1);
    struct io *io = sim_io(sim);
    struct io_file *file = help_make_durable(sim, "f", BLOCK, 'a');
    char byte = 0;

    (void)state;
    assert_int_equal(io->ops->rename(io, "f", "g"), 0);
    help_fill(file, 0, 1, 'b');
    assert_int_equal(help_byte_at(sim, "g", 0), 'b');
    assert_int_equal(io->ops->unlink(io, "g"), 0);
    assert_int_equal(help_sync_dir(sim, ""), 0);
    assert_int_equal(io_pread(file, &byte, 1, 0), 0);
    assert_int_equal(byte, 'b');
    assert_int_equal(sim_used_bytes(sim), BLOCK);
    io_file_close(file);
    assert_int_equal(sim_used_bytes(sim), 0);
    sim_destroy(sim);
}

// ---- asynchronous operations ----
static void test_durable_write_is_durable_when_reaped(void **state)
{
    struct help_async a;
    struct sim *cut;
    unsigned seen = 0;

    (void)state;
    help_async_begin(&a);
    help_fill(a.file, 0, 2 * BLOCK, 'u'); // unsynced, under and beside it
    assert_int_equal(a.io->ops->start(a.io, &a.write), 0);
    assert_int_equal(help_byte_at(a.sim, "log", BLOCK), 'u');
    assert_int_equal(a.done.count, 0);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        cut = help_cut_clone(a.sim, SIM_CUT_RANDOM, seed);
        seen |= help_byte_at(cut, "log", BLOCK) == 'w' ? HELP_NEW : HELP_OLD;
        seen |= help_byte_at(cut, "log", BLOCK) != help_byte_at(cut, "log", 2 * BLOCK - 1)
                    ? HELP_TORN
                    : 0;
        sim_destroy(cut);
    }
    assert_int_equal(seen, HELP_OLD | HELP_NEW | HELP_TORN);
    assert_int_equal(a.io->ops->reap(a.io, true), 1);
    assert_int_equal(a.done.count, 1);
    assert_int_equal(a.done.result, 0);
    assert_int_equal(help_byte_at(a.sim, "log", BLOCK), 'w');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        cut = help_cut_clone(a.sim, seed ? SIM_CUT_RANDOM : SIM_CUT_DROP_ALL, seed);
        // Its own bytes whatever happens, and only they.
        assert_int_equal(help_outcome(cut, "log", BLOCK, 'a', 'u') & HELP_DAMAGED, 0);
        assert_int_equal(help_byte_at(cut, "log", BLOCK), 'w');
        assert_int_equal(help_byte_at(cut, "log", 2 * BLOCK - 1), 'w');
        if (!seed)
            assert_int_equal(help_byte_at(cut, "log", 0), 'a');
        sim_destroy(cut);
    }
    help_async_end(&a);
}

static void test_durable_write_beyond_the_end_carries_the_size(void **state)
{
    struct help_async a;

    (void)state;
    help_async_begin(&a);
    a.write.off = 6 * BLOCK;
    assert_int_equal(a.io->ops->start(a.io, &a.write), 0);
    assert_int_equal(a.io->ops->reap(a.io, true), 1);
    sim_power_cut(a.sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_size_of(a.sim, "log"), 7 * BLOCK);
    assert_int_equal(help_byte_at(a.sim, "log", 7 * BLOCK - 1), 'w');
    assert_int_equal(help_byte_at(a.sim, "log", 5 * BLOCK), 0);
    help_async_end(&a);
}

static void test_async_sync_covers_what_was_written_before_its_start(void **state)
{
    struct help_async a;

    (void)state;
    help_async_begin(&a);
    help_fill(a.file, 0, BLOCK, 'b');
    assert_int_equal(a.io->ops->start(a.io, &a.sync), 0);
    help_fill(a.file, 0, SIM_SECTOR_BYTES, 'c');
    help_fill(a.file, 2 * BLOCK, BLOCK, 'c');
    assert_int_equal(a.io->ops->reap(a.io, true), 1);
    assert_int_equal(a.done.result, 0);
    sim_power_cut(a.sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_byte_at(a.sim, "log", 0), 'b');
    assert_int_equal(help_byte_at(a.sim, "log", 2 * BLOCK), 'a');
    help_async_end(&a);
}

static void test_lazy_reap_varies_and_held_work_does_not_hang(void **state)
{
    struct help_async a;
    struct io_async more[4];
    bool seen_part = false;

    (void)state;
    help_async_begin(&a);
    sim_set_lazy(a.sim, true);
    for (int round = 0; round < 50; round++) {
        int before = a.done.count, r;

        for (size_t i = 0; i < AF_ARRAY_LEN(more); i++) {
            more[i] = a.write;
            assert_int_equal(a.io->ops->start(a.io, &more[i]), 0);
        }
        r = a.io->ops->reap(a.io, round % 2);
        assert_true(r >= round % 2 && r <= 4);
        seen_part |= r > 0 && r < 4;
        while (a.done.count < before + 4)
            assert_true(a.io->ops->reap(a.io, true) > 0);
    }
    assert_true(seen_part);
    assert_int_equal(a.io->ops->reap(a.io, true), 0);
    (void)sim_fault_add(a.sim, &(struct sim_fault){.calls = SIM_BIT(SIM_START_WRITE),
                                                   .times = 1,
                                                   .effect = SIM_FAULT_HOLD});
    assert_int_equal(a.io->ops->start(a.io, &a.write), 0);
    assert_int_equal(a.io->ops->reap(a.io, false), 0);
    assert_int_equal(a.io->ops->reap(a.io, true), -AF_E_WOULD_BLOCK);
    sim_release_held(a.sim);
    assert_int_equal(a.io->ops->reap(a.io, true), 1);
    assert_int_equal(a.io->ops->event_fd(a.io), -1);
    help_async_end(&a);
}

static void test_misaligned_log_writes_are_refused(void **state)
{
    struct sim *sim = sim_create(1);
    struct io *io = sim_io(sim);
    struct io_file *file = help_open(sim, "log", IO_WRITE | IO_CREATE | IO_LOG);
    struct help_done d = {0};
    struct io_async op = {.kind = IO_OP_WRITE_DURABLE,
                          .file = file,
                          .bytes = (void *)(uintptr_t)(BLOCK + 8),
                          .len = BLOCK,
                          .done = help_note_done,
                          .arg = &d};

    (void)state;
    assert_int_equal(io_pwrite(file, "x", 1, 0), -EINVAL);
    assert_int_equal(io->ops->start(io, &op), -EINVAL);
    assert_int_equal(sim_event_count(sim), 1);
    io_file_close(file);
    sim_destroy(sim);
}

// ---- copies, raw access ----

static void test_clones_are_separate_and_equal(void **state)
{
    struct sim *sim = sim_create(1), *clone;
    struct io_file *file = help_make_durable(sim, "f", 100 * BLOCK, 'a'), *other;
    uint64_t hash;

    (void)state;
    help_fill(file, 5, 1000, 'b');
    io_file_close(help_open(sim, "g", IO_WRITE | IO_CREATE));
    hash = sim_hash(sim);
    clone = sim_clone(sim);
    assert_true(sim_hash(clone) == hash);
    other = help_open(clone, "f", IO_WRITE);
    help_fill(other, 50 * BLOCK, 2 * BLOCK, 'c');
    assert_int_equal(io_sync(other), 0);
    assert_int_equal(help_byte_at(sim, "f", 50 * BLOCK), 'a');
    assert_int_equal(help_byte_at(clone, "f", 50 * BLOCK), 'c');
    assert_true(sim_hash(sim) == hash);
    assert_true(sim_hash(clone) != hash);
    // Both draw the same random numbers from here on.
    assert_true(sim_io(sim)->ops->random(sim_io(sim)) == sim_io(clone)->ops->random(sim_io(clone)));
    io_file_close(file);
    sim_destroy(sim);
    assert_int_equal(help_byte_at(clone, "f", 5), 'b');
    io_file_close(other);
    sim_destroy(clone);
}

static void test_hash_sees_every_kind_of_change(void **state)
{
    struct sim *sim = sim_create(1);
    struct io *io = sim_io(sim);
    struct io_file *file = help_make_durable(sim, "f", 2 * BLOCK, 'a');
    uint64_t hash = sim_hash(sim);
    char byte;

    (void)state;
    // Looking changes nothing.
    io->read_only = true;
    assert_int_equal(io_pread(file, &byte, 1, 0), 0);
    assert_int_equal(io_pwrite(file, "x", 1, 0), -EROFS);
    assert_int_equal(io_sync(file), -EROFS);
    assert_int_equal(io->ops->unlink(io, "f"), -EROFS);
    assert_int_equal(io->ops->mkdir(io, "d"), -EROFS);
    assert_int_equal(help_sync_dir(sim, ""), -EROFS);
    io->read_only = false;
    assert_true(sim_hash(sim) == hash);
    // The same bytes again, but unsynced.
    help_fill(file, 0, 1, 'a');
    assert_true(sim_hash(sim) != hash);
    assert_int_equal(io_sync(file), 0);
    assert_true(sim_hash(sim) == hash);
    assert_int_equal(io->ops->allocate(file, 0, 3 * BLOCK), 0);
    assert_true(sim_hash(sim) != hash);
    assert_int_equal(io->ops->truncate(file, 2 * BLOCK), 0);
    assert_int_equal(io_sync(file), 0);
    assert_true(sim_hash(sim) == hash);
    io_file_close(help_open(sim, "g", IO_WRITE | IO_CREATE));
    assert_true(sim_hash(sim) != hash);
    io_file_close(file);
    sim_destroy(sim);
}

static void test_raw_access_damages_what_is_durable(void **state)
{
    struct sim *sim = sim_create(1);
    struct io_file *file = help_make_durable(sim, "f", 2 * BLOCK, 'a');
    uint64_t events = sim_event_count(sim);

    (void)state;
    help_fill(file, 0, BLOCK, 'b');
    assert_int_equal(sim_flip_bits(sim, "f", 10, 0x81), 0);
    assert_int_equal(sim_write_raw(sim, "f", BLOCK, "zz", 2), 0);
    assert_int_equal(sim_write_raw(sim, "f", 2 * BLOCK, "z", 1), -EINVAL);
    assert_int_equal(sim_flip_bits(sim, "none", 0, 1), -ENOENT);
    io_file_close(file);
    assert_int_equal(sim_event_count(sim), events + 1);
    sim_power_cut(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_byte_at(sim, "f", 9), 'a');
    assert_int_equal(help_byte_at(sim, "f", 10), 'b' ^ 0x81);
    assert_int_equal(help_byte_at(sim, "f", BLOCK + 1), 'z');
    assert_int_equal(sim_truncate_raw(sim, "f", 5), 0);
    sim_put_file(sim, "dir/sub/g", "hello", 5);
    sim_put_file(sim, "h", "h", 1);
    sim_power_cut(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_size_of(sim, "f"), 5);
    assert_int_equal(help_byte_at(sim, "dir/sub/g", 4), 'o');
    assert_int_equal(sim_remove_raw(sim, "h"), 0);
    assert_false(sim_exists(sim, "h"));
    sim_power_cut(sim, SIM_CUT_DROP_ALL, 1);
    assert_false(sim_exists(sim, "h"));
    sim_destroy(sim);
}

static void test_export_writes_real_files(void **state)
{
    struct sim *sim = sim_create(1);
    const char *base = getenv("TMPDIR");
    char dir[256], path[400], text[6] = "";
    FILE *from;

    (void)state;
    (void)snprintf(dir, sizeof(dir), "%s/aerofs-sim-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    sim_put_file(sim, "wal/1", "hello", 5);
    assert_int_equal(sim_export(sim, dir), 0);
    (void)snprintf(path, sizeof(path), "%s/wal/1", dir);
    from = fopen(path, "r");
    assert_non_null(from);
    assert_int_equal(fread(text, 1, sizeof(text), from), 5);
    assert_string_equal(text, "hello");
    assert_int_equal(fclose(from), 0);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(path, sizeof(path), "%s/wal", dir);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(dir), 0);
    sim_destroy(sim);
}

static uint64_t fixed_number(void *arg)
{
    return *(uint64_t *)arg;
}

static void test_time_and_randomness_are_the_tests_to_set(void **state)
{
    struct sim *sim = sim_create(1);
    struct io *io = sim_io(sim);
    uint64_t number = 42, now = io->ops->now_ns(io), ticks = io->ops->ticks_ms(io);

    (void)state;
    sim_advance_ms(sim, 1500);
    assert_int_equal(io->ops->now_ns(io) - now, 1500000000);
    assert_int_equal(io->ops->ticks_ms(io) - ticks, 1500);
    sim_set_now_ns(sim, 5);
    sim_set_ticks_ms(sim, 6);
    assert_int_equal(io->ops->now_ns(io), 5);
    assert_int_equal(io->ops->ticks_ms(io), 6);
    sim_set_clock_hooks(sim, fixed_number, fixed_number, &number);
    sim_set_random_hook(sim, fixed_number, &number);
    assert_int_equal(io->ops->now_ns(io), 42);
    assert_int_equal(io->ops->ticks_ms(io), 42);
    assert_int_equal(io->ops->random(io), 42);
    sim_destroy(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_synced_bytes_survive),
        cmocka_unit_test(test_unsynced_writes_are_kept_lost_and_torn),
        cmocka_unit_test(test_unsynced_writes_are_independent),
        cmocka_unit_test(test_cuts_by_parts_give_every_subset),
        cmocka_unit_test(test_cuts_tear_by_small_or_by_large_sectors),
        cmocka_unit_test(test_sizes_are_unsynced_too),
        cmocka_unit_test(test_truncated_bytes_do_not_come_back_after_sync),
        cmocka_unit_test(test_sync_of_a_file_does_not_make_its_name_durable),
        cmocka_unit_test(test_rename_is_dropped_or_kept_as_a_whole),
        cmocka_unit_test(test_unlink_comes_back_until_the_directory_is_synced),
        cmocka_unit_test(test_a_lost_directory_takes_its_entries_with_it),
        cmocka_unit_test(test_sync_dir_is_for_one_directory),
        cmocka_unit_test(test_names_answer_like_a_file_system),
        cmocka_unit_test(test_an_open_file_outlives_its_name),
        cmocka_unit_test(test_durable_write_is_durable_when_reaped),
        cmocka_unit_test(test_durable_write_beyond_the_end_carries_the_size),
        cmocka_unit_test(test_async_sync_covers_what_was_written_before_its_start),
        cmocka_unit_test(test_lazy_reap_varies_and_held_work_does_not_hang),
        cmocka_unit_test(test_misaligned_log_writes_are_refused),
        cmocka_unit_test(test_clones_are_separate_and_equal),
        cmocka_unit_test(test_hash_sees_every_kind_of_change),
        cmocka_unit_test(test_raw_access_damages_what_is_durable),
        cmocka_unit_test(test_export_writes_real_files),
        cmocka_unit_test(test_time_and_randomness_are_the_tests_to_set),
    };

    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
