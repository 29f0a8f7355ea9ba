// SPDX-License-Identifier: MIT
// Crash points off the main road: calls of the disk that ordinary work reaches seldom or never. In
// each case they are reached on purpose, with a crash at each of them, as tests/lib/crashes.h tries
// it.
//
//   SEED=n
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "tests/lib/crashes.h"

static const struct store_cred cred = {.uid = 1, .gid = 1};

// ---- the frame ----

struct scene {
    struct world w;
    struct crashes c;
};

// Crash points are the first events of each call site only.
static struct scene *scene_begin(void)
{
    uint64_t seed = env_number("SEED", 1);
    struct scene *s = malloc(sizeof(*s));

    assert_non_null(s);
    world_init(&s->w, seed);
    s->w.durable = 10;
    s->w.bytes_max = UINT64_C(2) << 20;
    crashes_init(&s->c, &s->w, seed);
    s->c.percent = 1;
    s->c.verify_percent = 20;
    crashes_watch(&s->c);
    return s;
}

// `path`: a call of this kind must have been a crash point.
static void scene_end(struct scene *s, enum sim_call call, const char *path)
{
    bool failed = s->w.failed || s->c.violations > 0, seen = false;

    for (size_t i = 0; i < s->c.site_count; i++)
        seen = seen || (s->c.sites[i].call == call && s->c.sites[i].points > 0 &&
                        strncmp(s->c.sites[i].path, path, strlen(path)) == 0);
    printf("  %llu crash points, %llu states\n", (unsigned long long)s->c.points,
           (unsigned long long)s->c.states);
    crashes_free(&s->c);
    world_free(&s->w);
    free(s);
    assert_false(failed);
    assert_true(seen);
}

static void steps(struct scene *s, unsigned count)
{
    for (unsigned i = 0; i < count && !world_over(&s->w) && s->c.violations == 0; i++)
        world_step(&s->w);
}

static void checkpoint(struct scene *s)
{
    world_checkpoint(&s->w);
    crashes_try(&s->c);
}

// Without checkpoints, so that the log goes on into segments that have to be made.
static void grow(struct scene *s)
{
    for (unsigned i = 0; i < 6; i++)
        steps(s, 60);
}

// With them, so that it goes on into segments that are recycled.
static void roll(struct scene *s)
{
    for (unsigned i = 0; i < 4; i++) {
        steps(s, 60);
        checkpoint(s);
    }
}

static void once(struct scene *s, uint32_t calls, enum sim_fault_effect effect, int error)
{
    const struct sim_fault fault = {
        .calls = calls, .path = "wal/*", .times = 1, .effect = effect, .error = error};

    (void)sim_fault_add(s->w.fx.sim, &fault);
}

// ---- segments ----

// A segment that a crash left behind before any log counted it stands in the place of a new one.
static void test_crash_while_a_leftover_segment_is_replaced(void **state)
{
    struct scene *s = scene_begin();
    static const char zeros[4096];

    (void)state;
    steps(s, 5);
    once(s, SIM_BIT(SIM_UNLINK), SIM_FAULT_FAIL, -EIO); // which is not the end of it
    once(s, SIM_BIT(SIM_CREATE), SIM_FAULT_FAIL, -EIO);
    for (unsigned i = 0; i < 12; i++) {
        char path[32];

        wal_segment_path(3 + i, path);
        if (!sim_exists(s->w.fx.sim, path))
            sim_put_file(s->w.fx.sim, path, zeros, sizeof(zeros));
    }
    grow(s);
    scene_end(s, SIM_UNLINK, "wal/");
}

static void test_crash_after_a_segment_could_not_be_made(void **state)
{
    struct scene *s = scene_begin();

    (void)state;
    once(s, SIM_BIT(SIM_WRITE), SIM_FAULT_PARTIAL, -ENOSPC);
    once(s, SIM_BIT(SIM_UNLINK), SIM_FAULT_FAIL, -EIO);
    grow(s);
    scene_end(s, SIM_UNLINK, "wal/");
}

static void test_crash_after_a_segment_could_not_be_recycled(void **state)
{
    struct scene *s = scene_begin();

    (void)state;
    once(s, SIM_BIT(SIM_RENAME), SIM_FAULT_FAIL, -EIO);
    once(s, SIM_BIT(SIM_UNLINK), SIM_FAULT_FAIL, -EIO);
    roll(s);
    scene_end(s, SIM_UNLINK, "wal/");
}

// Opened with a smaller log, segments beyond its bound are removed.
static void test_crash_while_the_log_shrinks(void **state)
{
    struct scene *s = scene_begin();

    (void)state;
    grow(s);
    world_close(&s->w);
    crashes_try(&s->c);
    s->w.fx.options.log_bytes = UINT64_C(256) << 10;
    once(s, SIM_BIT(SIM_UNLINK), SIM_FAULT_FAIL, -EIO);
    crashes_reopen(&s->c);
    roll(s);
    scene_end(s, SIM_UNLINK, "wal/");
}

static void ignore_done(struct wal_waiter *waiter, int result)
{
    (void)waiter;
    (void)result;
}

// The process comes to its end while a log write is under way.
static void test_crash_while_the_log_is_closed(void **state)
{
    struct scene *s = scene_begin();
    struct store_attr attr = {.mode = 0700}, seen;
    struct wal_waiter waiter = {.done = ignore_done};

    (void)state;
    steps(s, 10);
    world_settle(&s->w);
    crashes_try(&s->c);
    world_begin(&s->w, "chmod");
    int err =
        store_setattr(s->w.fx.store, STORE_BLOCK, INO_ROOT, NULL, &attr, STORE_SET_MODE, &seen);
    assert_int_equal(err, model_setattr(&s->w.m, INO_ROOT, NULL, &attr, STORE_SET_MODE));
    assert_int_equal(store_sync(s->w.fx.store, &waiter), 0);
    store_kick(s->w.fx.store);
    once(s, SIM_BIT(SIM_DONE_WRITE), SIM_FAULT_AFTER, -EIO);
    fixture_abandon(&s->w.fx);
    crashes_try(&s->c);
    scene_end(s, SIM_DONE_WRITE, "wal/");
}

// ---- data ----

// A file that is written faster than anybody syncs: the writer itself syncs in between.
static void test_crash_while_a_writer_syncs_what_it_spilled(void **state)
{
    enum { PIECE = 256 << 10, PIECES = 34 * 4 };
    struct scene *s = scene_begin();
    struct world *w = &s->w;
    struct world_handle h;
    struct store_attr attr;
    uint8_t *bytes = malloc(PIECE);

    (void)state;
    world_begin(w, "create");
    assert_int_equal(store_create(w->fx.store, STORE_BLOCK, INO_ROOT, "big", 0600, O_RDWR, &cred,
                                  &attr, &h.file),
                     0);
    assert_int_equal(model_create(&w->m, INO_ROOT, "big", 0600, O_RDWR, &cred, attr.ino, &h.model),
                     0);
    for (unsigned i = 0; i < PIECES && s->c.violations == 0; i++) {
        memset(bytes, (int)(i + 1), PIECE);
        world_begin(w, "write");
        assert_int_equal(
            store_write(w->fx.store, STORE_BLOCK, h.file, (uint64_t)i * PIECE, bytes, PIECE, false),
            0);
        assert_int_equal(model_write(&w->m, &h.model, (uint64_t)i * PIECE, bytes, PIECE, false), 0);
        crashes_try(&s->c);
    }
    free(bytes);
    world_begin(w, "close");
    assert_int_equal(store_release(w->fx.store, STORE_BLOCK, h.file), 0);
    model_release(&w->m, &h.model);
    crashes_try(&s->c);
    checkpoint(s);
    scene_end(s, SIM_SYNC, "data");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash_while_a_leftover_segment_is_replaced),
        cmocka_unit_test(test_crash_after_a_segment_could_not_be_made),
        cmocka_unit_test(test_crash_after_a_segment_could_not_be_recycled),
        cmocka_unit_test(test_crash_while_the_log_shrinks),
        cmocka_unit_test(test_crash_while_the_log_is_closed),
        cmocka_unit_test(test_crash_while_a_writer_syncs_what_it_spilled),
    };

    return cmocka_run_group_tests_name("sites", tests, NULL, NULL);
}
