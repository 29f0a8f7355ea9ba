// SPDX-License-Identifier: MIT
// Tests of the faults and crashes of the simulated disk.
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
#include "tests/sim/sim_disk.h"
#include "tests/sim/help.h"

#define BLOCK HELP_BLOCK

// ---- faults ----

static void test_failed_sync_can_leave_a_cache_that_looks_clean(void **state)
{
    struct sim *sim = sim_create(1), *cut;
    struct io_file *file = help_make_durable(sim, "f", BLOCK, 'a');
    bool seen_lost = false;

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        help_fill(file, 0, BLOCK, 'a');
        assert_int_equal(io_sync(file), 0);
        help_fill(file, 0, BLOCK, 'b');
        sim_faults_clear(sim);
        (void)sim_fault_add(sim, &(struct sim_fault){.calls = SIM_BIT(SIM_SYNC),
                                                     .path = "f",
                                                     .times = 1,
                                                     .effect = SIM_FAULT_LOST,
                                                     .error = -EIO});
        assert_int_equal(io_sync(file), -EIO);
        assert_int_equal(help_byte_at(sim, "f", 0), 'b');
        // The next sync succeeds and means nothing.
        assert_int_equal(io_sync(file), 0);
        cut = help_cut_clone(sim, SIM_CUT_KEEP_ALL, seed);
        seen_lost |= help_outcome(cut, "f", BLOCK, 'a', 'b') == HELP_OLD;
        assert_int_not_equal(help_outcome(cut, "f", BLOCK, 'a', 'b'), HELP_DAMAGED);
        sim_destroy(cut);
    }
    assert_true(seen_lost);
    // Neither does a restart of the process; but writing again helps.
    cut = sim_clone(sim);
    sim_kill(cut, 1);
    assert_int_equal(help_byte_at(cut, "f", 0), 'b');
    sim_destroy(cut);
    help_fill(file, 0, BLOCK, 'b');
    assert_int_equal(io_sync(file), 0);
    sim_power_cut(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_outcome(sim, "f", BLOCK, 'a', 'b'), HELP_NEW);
    io_file_close(file);
    sim_destroy(sim);
}

static void test_failed_sync_can_leave_a_dirty_cache(void **state)
{
    struct sim *sim = sim_create(1);
    struct io_file *file = help_make_durable(sim, "f", BLOCK, 'a');

    (void)state;
    help_fill(file, 0, BLOCK, 'b');
    (void)sim_fault_add(
        sim, &(struct sim_fault){
                 .calls = SIM_BIT(SIM_SYNC), .times = 1, .effect = SIM_FAULT_FAIL, .error = -EIO});
    assert_int_equal(io_sync(file), -EIO);
    assert_int_equal(io_sync(file), 0);
    sim_power_cut(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_byte_at(sim, "f", 0), 'b');
    io_file_close(file);
    sim_destroy(sim);
}

static void test_faults_hit_the_calls_they_name(void **state)
{
    struct sim *sim = sim_create(1);
    struct io *io = sim_io(sim);
    struct io_file *f = help_make_durable(sim, "data", BLOCK, 'a');
    struct io_file *g = help_make_durable(sim, "super", BLOCK, 'a');
    char byte = 'x';
    unsigned fault;

    (void)state;
    fault = sim_fault_add(sim, &(struct sim_fault){.calls = SIM_BIT(SIM_WRITE) | SIM_BIT(SIM_SYNC),
                                                   .path = "da*",
                                                   .skip = 1,
                                                   .times = 2,
                                                   .effect = SIM_FAULT_FAIL,
                                                   .error = -ENOSPC});
    assert_int_equal(io_pwrite(f, &byte, 1, 0), 0);
    assert_int_equal(io_pwrite(g, &byte, 1, 0), 0);
    assert_int_equal(io_sync(f), -ENOSPC);
    assert_int_equal(io_pwrite(f, &byte, 1, 1), -ENOSPC);
    assert_int_equal(help_byte_at(sim, "data", 1), 'a');
    assert_int_equal(io_sync(f), 0);
    assert_int_equal(sim_fault_hits(sim, fault), 2);
    sim_faults_clear(sim);
    (void)sim_fault_add(sim, &(struct sim_fault){.calls = UINT32_MAX,
                                                 .times = SIM_FOREVER,
                                                 .effect = SIM_FAULT_FAIL,
                                                 .error = -EIO});
    assert_int_equal(io_pread(f, &byte, 1, 0), -EIO);
    assert_int_equal(io->ops->mkdir(io, "d"), -EIO);
    assert_int_equal(io->ops->rename(io, "data", "x"), -EIO);
    assert_int_equal(io->ops->unlink(io, "data"), -EIO);
    assert_int_equal(io->ops->truncate(f, 0), -EIO);
    assert_int_equal(io->ops->allocate(f, 0, 9 * BLOCK), -EIO);
    assert_int_equal(io->ops->space(io, &(struct io_space){0}), -EIO);
    assert_int_equal(io_size(f, &(uint64_t){0}), -EIO);
    sim_faults_clear(sim);
    assert_int_equal(help_size_of(sim, "data"), BLOCK);
    assert_false(sim_exists(sim, "d"));
    io_file_close(f);
    io_file_close(g);
    sim_destroy(sim);
}

static void test_faults_in_part_after_and_in_reads(void **state)
{
    struct sim *sim = sim_create(3);
    struct io *io = sim_io(sim);
    struct io_file *file = help_make_durable(sim, "f", 4 * BLOCK, 'a');
    uint8_t bytes[4 * BLOCK];
    int flipped = 0;

    (void)state;
    (void)sim_fault_add(sim, &(struct sim_fault){.calls = SIM_BIT(SIM_WRITE),
                                                 .times = 1,
                                                 .effect = SIM_FAULT_PARTIAL,
                                                 .error = -ENOSPC});
    memset(bytes, 'b', sizeof(bytes));
    assert_int_equal(io_pwrite(file, bytes, sizeof(bytes), 0), -ENOSPC);
    assert_int_equal(help_byte_at(sim, "f", 4 * BLOCK - 1), 'a');
    assert_int_equal(help_byte_at(sim, "f", 0), 'b');
    (void)sim_fault_add(sim, &(struct sim_fault){.calls = SIM_BIT(SIM_UNLINK),
                                                 .times = 1,
                                                 .effect = SIM_FAULT_AFTER,
                                                 .error = -EIO});
    assert_int_equal(io->ops->unlink(io, "f"), -EIO);
    assert_false(sim_exists(sim, "f"));
    help_fill(file, 0, sizeof(bytes), 'c');
    (void)sim_fault_add(
        sim,
        &(struct sim_fault){.calls = SIM_BIT(SIM_READ), .times = 1, .effect = SIM_FAULT_CORRUPT});
    assert_int_equal(io_pread(file, bytes, sizeof(bytes), 0), 0);
    for (size_t i = 0; i < sizeof(bytes); i++)
        flipped += bytes[i] != 'c';
    assert_int_equal(flipped, 1);
    assert_int_equal(io_pread(file, bytes, sizeof(bytes), 0), 0);
    for (size_t i = 0; i < sizeof(bytes); i++)
        assert_int_equal(bytes[i], 'c');
    io_file_close(file);
    sim_destroy(sim);
}

static void test_failed_durable_write_reports_and_may_lie_in_the_cache(void **state)
{
    struct help_async a;

    (void)state;
    help_async_begin(&a);
    (void)sim_fault_add(a.sim, &(struct sim_fault){.calls = SIM_BIT(SIM_DONE_WRITE),
                                                   .times = 1,
                                                   .effect = SIM_FAULT_LOST,
                                                   .error = -EIO});
    assert_int_equal(a.io->ops->start(a.io, &a.write), 0);
    assert_int_equal(a.io->ops->reap(a.io, true), 1);
    assert_int_equal(a.done.result, -EIO);
    assert_int_equal(help_byte_at(a.sim, "log", BLOCK), 'w');
    assert_int_equal(io_sync(a.file), 0);
    sim_power_cut(a.sim, SIM_CUT_KEEP_ALL, 1);
    // Half of eight sectors by chance: not all of them.
    assert_int_equal(help_outcome(a.sim, "log", 4 * BLOCK, 'a', 'w'), HELP_TORN);
    help_async_end(&a);
}

static void test_a_full_disk_answers_enospc(void **state)
{
    struct sim *sim = sim_create(1);
    struct io *io = sim_io(sim);
    struct io_file *file = help_make_durable(sim, "f", BLOCK, 'a');
    struct io_space space = {0};
    uint8_t *bytes = help_aligned(BLOCK, 'w');
    struct help_done d = {0};
    struct io_async op = {.kind = IO_OP_WRITE_DURABLE,
                          .file = file,
                          .bytes = bytes,
                          .len = BLOCK,
                          .off = 4 * BLOCK,
                          .done = help_note_done,
                          .arg = &d};

    (void)state;
    sim_set_capacity(sim, 3 * BLOCK);
    assert_int_equal(io->ops->space(io, &space), 0);
    assert_int_equal(space.total_bytes, 3 * BLOCK);
    assert_int_equal(space.avail_bytes, 2 * BLOCK);
    assert_int_equal(io->ops->allocate(file, 0, 4 * BLOCK), -ENOSPC);
    assert_int_equal(help_size_of(sim, "f"), BLOCK);
    assert_int_equal(io->ops->allocate(file, 0, 3 * BLOCK), 0);
    // What was allocated can be written, what was not cannot.
    help_fill(file, BLOCK, 2 * BLOCK, 'b');
    assert_int_equal(io_pwrite(file, "x", 1, 3 * BLOCK), -ENOSPC);
    assert_int_equal(io->ops->start(io, &op), 0);
    assert_int_equal(io->ops->reap(io, true), 1);
    assert_int_equal(d.result, -ENOSPC);
    assert_int_equal(help_size_of(sim, "f"), 3 * BLOCK);
    assert_int_equal(io->ops->truncate(file, 0), 0);
    assert_int_equal(sim_used_bytes(sim), 0);
    io_file_close(file);
    sim_destroy(sim);
    free(bytes);
}

// ---- crashes ----

static void test_kill_keeps_the_cache_and_leaves_it_unsynced(void **state)
{
    struct sim *sim = sim_create(1), *cut;
    struct io_file *file = help_make_durable(sim, "f", BLOCK, 'a');

    (void)state;
    help_fill(file, 0, BLOCK, 'b');
    io_file_close(file);
    io_file_close(help_open(sim, "g", IO_WRITE | IO_CREATE));
    sim_kill(sim, 1);
    assert_int_equal(help_byte_at(sim, "f", 0), 'b');
    assert_true(sim_exists(sim, "g"));
    cut = help_cut_clone(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_byte_at(cut, "f", 0), 'a');
    assert_false(sim_exists(cut, "g"));
    sim_destroy(cut);
    file = help_open(sim, "f", IO_WRITE);
    assert_int_equal(io_sync(file), 0);
    io_file_close(file);
    sim_power_cut(sim, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(help_byte_at(sim, "f", 0), 'b');
    sim_destroy(sim);
}

static void test_a_dead_disk_answers_nothing(void **state)
{
    struct help_async a;
    uint64_t count;
    char byte;

    (void)state;
    help_async_begin(&a);
    assert_int_equal(a.io->ops->start(a.io, &a.write), 0);
    count = sim_event_count(a.sim);
    sim_crash_at(a.sim, count, SIM_CRASH_BEFORE);
    assert_int_equal(io_pread(a.file, &byte, 1, 0), 0);
    assert_int_equal(io_sync(a.file), -EIO);
    assert_true(sim_is_dead(a.sim));
    assert_int_equal(io_pread(a.file, &byte, 1, 0), -EIO);
    assert_int_equal(io_pwrite(a.file, "x", 1, 0), -EIO);
    assert_int_equal(a.io->ops->mkdir(a.io, "d"), -EIO);
    assert_int_equal(a.io->ops->rename(a.io, "no", "where"), -EIO);
    assert_int_equal(a.io->ops->unlink(a.io, "nothing"), -EIO);
    assert_int_equal(help_sync_dir(a.sim, "none"), -EIO);
    assert_int_equal(a.io->ops->start(a.io, &a.sync), -EIO);
    // What was under way ends, so that its owner can let go of it.
    assert_int_equal(a.io->ops->reap(a.io, true), 1);
    assert_int_equal(a.done.result, -EIO);
    assert_int_equal(a.io->ops->reap(a.io, true), -EIO);
    assert_int_equal(sim_event_count(a.sim), count + 1);
    sim_power_cut(a.sim, SIM_CUT_KEEP_ALL, 1);
    assert_false(sim_is_dead(a.sim));
    assert_int_equal(sim_event_count(a.sim), 0);
    // Files of before the crash stay useless; what was under way has happened, by this policy.
    assert_int_equal(io_pread(a.file, &byte, 1, 0), -EIO);
    assert_int_equal(io_pwrite(a.file, "x", 1, 0), -EIO);
    assert_int_equal(help_byte_at(a.sim, "log", BLOCK), 'w');
    help_async_end(&a);
}

static void test_an_event_happens_not_at_all_in_part_or_unheard(void **state)
{
    static const enum sim_crash_mode modes[] = {SIM_CRASH_BEFORE, SIM_CRASH_PARTIAL,
                                                SIM_CRASH_AFTER};
    unsigned seen[AF_ARRAY_LEN(modes)] = {0};

    (void)state;
    for (size_t m = 0; m < AF_ARRAY_LEN(modes); m++) {
        for (uint64_t seed = 0; seed < 50; seed++) {
            struct sim *sim = sim_create(seed);
            struct io_file *file = help_make_durable(sim, "f", 2 * BLOCK, 'a');

            for (unsigned i = 0; i < 8; i++)
                help_fill(file, i * 1024, 1024, 'b');
            sim_crash_at(sim, sim_event_count(sim), modes[m]);
            assert_int_equal(io_sync(file), -EIO);
            io_file_close(file);
            sim_power_cut(sim, SIM_CUT_DROP_ALL, seed);
            seen[m] |= help_outcome(sim, "f", 2 * BLOCK, 'a', 'b');
            sim_destroy(sim);
        }
    }
    assert_int_equal(seen[0], HELP_OLD);
    assert_true(seen[1] & HELP_TORN);
    assert_int_equal(seen[2], HELP_NEW);
}

static void run_some_work(struct sim *sim)
{
    struct io *io = sim_io(sim);
    struct io_file *file = help_make_durable(sim, "f", BLOCK, 'a');

    sim_set_tag(sim, "tagged");
    help_fill(file, io->ops->random(io) % 100, 100, 'b');
    (void)io->ops->mkdir(io, "d");
    (void)io->ops->truncate(file, 77);
    io_file_close(file);
    (void)io->ops->rename(io, "f", "d/f");
}

static char *dump_of(struct sim *sim)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);

    assert_non_null(to);
    sim_dump_events(sim, to);
    assert_int_equal(fclose(to), 0);
    return text;
}

static void test_events_are_counted_and_the_same_for_the_same_seed(void **state)
{
    struct sim *a = sim_create(5), *b = sim_create(5), *c = sim_create(6);
    char *text_a, *text_b;

    (void)state;
    run_some_work(a);
    run_some_work(b);
    run_some_work(c);
    text_a = dump_of(a);
    text_b = dump_of(b);
    assert_string_equal(text_a, text_b);
    assert_true(sim_hash(a) == sim_hash(b));
    assert_true(sim_hash(a) != sim_hash(c));
    assert_int_equal(sim_event_count(a), 8);
    assert_int_equal(sim_event(a, 0)->call, SIM_CREATE);
    assert_int_equal(sim_event(a, 6)->call, SIM_TRUNCATE);
    assert_int_equal(sim_event(a, 6)->off, 77);
    assert_string_equal(sim_event(a, 7)->path, "f");
    assert_null(sim_event(a, 8));
    assert_non_null(strstr(text_a, "0 create f 0+0\n"));
    assert_non_null(strstr(text_a, "7 rename f 0+0 tagged\n"));
    free(text_a);
    free(text_b);
    sim_destroy(a);
    sim_destroy(b);
    sim_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_sync_can_leave_a_cache_that_looks_clean),
        cmocka_unit_test(test_failed_sync_can_leave_a_dirty_cache),
        cmocka_unit_test(test_faults_hit_the_calls_they_name),
        cmocka_unit_test(test_faults_in_part_after_and_in_reads),
        cmocka_unit_test(test_failed_durable_write_reports_and_may_lie_in_the_cache),
        cmocka_unit_test(test_a_full_disk_answers_enospc),
        cmocka_unit_test(test_kill_keeps_the_cache_and_leaves_it_unsynced),
        cmocka_unit_test(test_a_dead_disk_answers_nothing),
        cmocka_unit_test(test_an_event_happens_not_at_all_in_part_or_unheard),
        cmocka_unit_test(test_events_are_counted_and_the_same_for_the_same_seed),
    };

    return cmocka_run_group_tests_name("sim_fault", tests, NULL, NULL);
}
