// SPDX-License-Identifier: MIT
// Random work on the simulated disk against a model, and a small store that is crashed everywhere.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/check.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/help.h"

#define BLOCK HELP_BLOCK

// ---- against a model ----

#define MODEL_BYTES (8 * BLOCK)

// One file, byte by byte: what readers see, what is durable, and every value that each byte may
// have after a power cut. After a change of size any byte may also be zero.
struct model {
    struct sim *sim;
    struct io_file *file;
    uint64_t random;
    uint8_t now[MODEL_BYTES], durable[MODEL_BYTES];
    uint8_t may[MODEL_BYTES][32]; // a bit for each value
    bool may_size[MODEL_BYTES + 1];
    uint64_t size, durable_size;
};

static uint64_t model_draw(struct model *m, uint64_t bound)
{
    m->random = m->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (m->random >> 33) % bound;
}

static void model_may(struct model *m, uint64_t at, uint8_t value)
{
    m->may[at][value / 8] |= (uint8_t)(1u << (value % 8));
}

static void model_synced(struct model *m)
{
    memcpy(m->durable, m->now, sizeof(m->now));
    m->durable_size = m->size;
    memset(m->may, 0, sizeof(m->may));
    memset(m->may_size, 0, sizeof(m->may_size));
    m->may_size[m->size] = true;
    for (size_t i = 0; i < MODEL_BYTES; i++)
        model_may(m, i, m->now[i]);
}

static void model_set_size(struct model *m, uint64_t size)
{
    if (size == m->size)
        return;
    if (size < m->size)
        memset(m->now + size, 0, m->size - size);
    m->size = size;
    m->may_size[size] = true;
    for (size_t i = 0; i < MODEL_BYTES; i++)
        model_may(m, i, 0);
}

static void model_write(struct model *m, uint64_t off, size_t len, uint8_t value)
{
    if (off + len > m->size)
        model_set_size(m, off + len);
    memset(m->now + off, value, len);
    for (uint64_t i = off; i < off + len; i++)
        model_may(m, i, value);
}

static void model_step_durable_write(struct model *m, uint8_t value)
{
    uint64_t off = model_draw(m, 7) * BLOCK;
    uint8_t *bytes = help_aligned(BLOCK, value);
    struct io *io = sim_io(m->sim);
    struct help_done d = {0};
    struct io_async op = {.kind = IO_OP_WRITE_DURABLE,
                          .file = m->file,
                          .bytes = bytes,
                          .len = BLOCK,
                          .off = off,
                          .done = help_note_done,
                          .arg = &d};

    assert_int_equal(io->ops->start(io, &op), 0);
    assert_int_equal(io->ops->reap(io, true), 1);
    assert_int_equal(d.result, 0);
    model_write(m, off, BLOCK, value);
    // The size is durable with it: shorter than now it cannot be after a cut, unless it is cut
    // again.
    memset(m->may_size, 0, sizeof(m->may_size));
    m->may_size[m->size] = true;
    m->durable_size = m->size;
    for (uint64_t i = off; i < off + BLOCK; i++) {
        memset(m->may[i], 0, sizeof(m->may[i]));
        model_may(m, i, value);
        m->durable[i] = value;
    }
    free(bytes);
}

static void model_step(struct model *m, uint8_t value)
{
    uint64_t off = model_draw(m, MODEL_BYTES), len = 1 + model_draw(m, 3 * BLOCK);
    struct io *io = sim_io(m->sim);

    len = AF_MIN(len, MODEL_BYTES - off);
    switch (model_draw(m, 8)) {
    case 0:
        assert_int_equal(io_sync(m->file), 0);
        model_synced(m);
        break;
    case 1:
        assert_int_equal(io->ops->truncate(m->file, off), 0);
        model_set_size(m, off);
        break;
    case 2:
        model_step_durable_write(m, value);
        break;
    case 3:
        // Makes some of it durable, and says that it failed; nothing becomes impossible by it.
        sim_faults_clear(m->sim);
        (void)sim_fault_add(m->sim, &(struct sim_fault){.calls = SIM_BIT(SIM_SYNC),
                                                        .times = 1,
                                                        .effect = SIM_FAULT_PARTIAL,
                                                        .error = -EIO});
        assert_int_equal(io_sync(m->file), -EIO);
        break;
    default:
        help_fill(m->file, off, len, value);
        model_write(m, off, len, value);
        break;
    }
}

static void model_check_now(struct model *m)
{
    uint8_t bytes[MODEL_BYTES];

    assert_int_equal(help_size_of(m->sim, "f"), m->size);
    assert_int_equal(sim_read_raw(m->sim, "f", 0, bytes, m->size), 0);
    assert_memory_equal(bytes, m->now, m->size);
}

static void model_check_cut(struct model *m, enum sim_cut_policy policy, uint64_t seed)
{
    struct sim *cut = help_cut_clone(m->sim, policy, seed);
    uint8_t bytes[MODEL_BYTES];
    uint64_t size = help_size_of(cut, "f");

    assert_true(size <= MODEL_BYTES && m->may_size[size]);
    assert_int_equal(sim_read_raw(cut, "f", 0, bytes, size), 0);
    for (uint64_t i = 0; i < size; i++)
        assert_true(m->may[i][bytes[i] / 8] & (1u << (bytes[i] % 8)));
    if (policy == SIM_CUT_KEEP_ALL) {
        assert_int_equal(size, m->size);
        assert_memory_equal(bytes, m->now, size);
    }
    sim_destroy(cut);
}

static void test_random_work_against_a_model(void **state)
{
    struct model *m = malloc(sizeof(*m));

    (void)state;
    assert_non_null(m);
    for (uint64_t seed = 0; seed < 60; seed++) {
        *m = (struct model){.sim = sim_create(seed), .random = seed};
        m->file = help_make_durable(m->sim, "f", BLOCK, 'a');
        m->size = BLOCK;
        memset(m->now, 'a', BLOCK);
        model_synced(m);
        for (unsigned i = 0; i < 60; i++) {
            model_step(m, (uint8_t)(i * 4 + 1));
            model_check_now(m);
            model_check_cut(m, SIM_CUT_KEEP_ALL, i);
            model_check_cut(m, SIM_CUT_DROP_ALL, i);
            model_check_cut(m, SIM_CUT_RANDOM, i);
        }
        io_file_close(m->file);
        sim_destroy(m->sim);
    }
    free(m);
}

// ---- a small store, crashed everywhere ----

// A value is replaced by writing a new file, syncing it, and renaming it. `skip` leaves a step out.
enum step { STEP_SYNC_FILE = 1, STEP_SYNC_DIR = 2 };

static int replace_value(struct sim *sim, uint8_t value, unsigned skip)
{
    struct io *io = sim_io(sim);
    uint8_t bytes[BLOCK];
    struct io_file *file;
    int r = io_file_open(io, "new", IO_WRITE | IO_CREATE, &file);

    if (r)
        return r;
    memset(bytes, value, sizeof(bytes));
    r = io_pwrite(file, bytes, sizeof(bytes), 0);
    if (!r && !(skip & STEP_SYNC_FILE))
        r = io_sync(file);
    io_file_close(file);
    if (!r)
        r = io->ops->rename(io, "new", "value");
    if (!r && !(skip & STEP_SYNC_DIR))
        r = help_sync_dir(sim, "");
    return r;
}

// True when the value is whole and one of `acknowledged` and what came later.
static bool value_is_good(const struct sim *sim, uint8_t acknowledged, uint8_t last)
{
    uint8_t bytes[BLOCK];

    if (sim_read_raw(sim, "value", 0, bytes, sizeof(bytes)))
        return acknowledged == 0;
    for (size_t i = 1; i < sizeof(bytes); i++) {
        if (bytes[i] != bytes[0])
            return false;
    }
    return bytes[0] >= acknowledged && bytes[0] <= last;
}

// Runs the work with a crash at each event, and counts the outcomes that break the promise.
static unsigned crash_everywhere(unsigned skip)
{
    unsigned broken = 0;
    bool crashed = true;

    for (uint64_t at = 0; crashed; at++) {
        for (unsigned mode = SIM_CRASH_BEFORE; mode <= SIM_CRASH_AFTER; mode++) {
            struct sim *sim = sim_create(at);
            uint8_t acknowledged = 0;

            sim_crash_at(sim, at, (enum sim_crash_mode)mode);
            for (uint8_t value = 1; value <= 3; value++) {
                if (replace_value(sim, value, skip))
                    break;
                acknowledged = value;
            }
            crashed = sim_is_dead(sim);
            for (uint64_t seed = 0; seed < 30; seed++) {
                struct sim *cut =
                    help_cut_clone(sim, seed % 2 ? SIM_CUT_GARBAGE : SIM_CUT_RANDOM, seed);

                broken += !value_is_good(cut, acknowledged, 3);
                sim_destroy(cut);
            }
            sim_destroy(sim);
        }
    }
    return broken;
}

static void test_crash_matrix_accepts_a_correct_protocol_and_no_other(void **state)
{
    (void)state;
    assert_int_equal(crash_everywhere(0), 0);
    assert_true(crash_everywhere(STEP_SYNC_FILE) > 0);
    assert_true(crash_everywhere(STEP_SYNC_DIR) > 0);
}

struct hooked {
    struct sim *sim;
    uint64_t clones;
    unsigned broken;
    uint8_t acknowledged;
};

static void clone_at_event(void *arg, const struct sim_event *event)
{
    struct hooked *h = arg;
    struct sim *cut = help_cut_clone(h->sim, SIM_CUT_RANDOM, event->index);

    h->clones++;
    h->broken += !value_is_good(cut, h->acknowledged, 3);
    sim_destroy(cut);
}

static void test_hook_may_clone_at_every_event(void **state)
{
    struct hooked h = {.sim = sim_create(1)};

    (void)state;
    sim_set_event_hook(h.sim, clone_at_event, &h);
    for (uint8_t value = 1; value <= 3; value++) {
        assert_int_equal(replace_value(h.sim, value, 0), 0);
        h.acknowledged = value;
    }
    assert_int_equal(h.clones, sim_event_count(h.sim));
    assert_int_equal(h.clones, 15);
    assert_int_equal(h.broken, 0);
    sim_destroy(h.sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_work_against_a_model),
        cmocka_unit_test(test_crash_matrix_accepts_a_correct_protocol_and_no_other),
        cmocka_unit_test(test_hook_may_clone_at_every_event),
    };

    return cmocka_run_group_tests_name("sim_model", tests, NULL, NULL);
}
