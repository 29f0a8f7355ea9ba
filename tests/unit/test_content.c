// SPDX-License-Identifier: MIT
// What enters the history, and when, in the smallest cases: holes and truncation hide what was
// there, the last close and a rename complete the content.
#include <linux/falloc.h>

#include "tests/unit/test_engine_rig.h"

#define FILE_BYTES 24576u // six blocks

static void must(int err)
{
    if (err < 0)
        fail_msg("%s", err_name(err));
}

// Opens a file that was made durable with this content, as "a".
static struct store_file *reopened(struct world *w, uint64_t *ret_ino)
{
    struct store *s = engine_store(w->engine);
    struct store_file *file;
    struct store_attr attr;

    must_put(w, "a", 1, FILE_BYTES);
    must(store_lookup(s, STORE_BLOCK, INO_ROOT, "a", &attr));
    must(store_open(s, STORE_BLOCK, attr.ino, O_RDWR, &file));
    *ret_ino = attr.ino;
    return file;
}

// The file holds `size` bytes: those of "a", but zeros from `from` to `to`.
static void check_zeros(struct world *w, uint64_t ino, size_t size, size_t from, size_t to)
{
    static uint8_t wanted[FILE_BYTES], found[FILE_BYTES];
    size_t got;

    content_of("a", 1, FILE_BYTES, wanted);
    memset(wanted + from, 0, to - from);
    must(store_read(engine_store(w->engine), STORE_BLOCK, ino, 0, found, sizeof(found), &got));
    assert_int_equal(got, size);
    assert_memory_equal(found, wanted, size);
}

// Pending, completed, and after a crash.
static void check_three_times(struct world *w, struct store_file *file, uint64_t ino, size_t size,
                              size_t from, size_t to)
{
    struct wal_waiter waiter = {.done = ignore_done};

    check_zeros(w, ino, size, from, to);
    assert_true(store_fsync(engine_store(w->engine), STORE_BLOCK, ino, &waiter) >= 0);
    must(engine_sync(w->engine));
    check_zeros(w, ino, size, from, to);
    must(store_release(engine_store(w->engine), STORE_BLOCK, file));
    world_crash(w, true, SIM_CUT_DROP_ALL, 1);
    must_open(w);
    check_zeros(w, ino, size, from, to);
    must_close(w);
    must_be_sound(w);
}

static void test_hole_hides_what_was_there(void **state)
{
    static const struct {
        size_t from, to;
    } holes[] = {{4096, 12288}, {5000, 15000}, {100, 200}, {0, 4096}};

    (void)state;
    for (size_t i = 0; i < AF_ARRAY_LEN(holes); i++) {
        struct world *w = world_create();
        uint64_t ino;

        must_open(w);
        struct store_file *file = reopened(w, &ino);
        must(store_fallocate(engine_store(w->engine), STORE_BLOCK, file,
                             FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, holes[i].from,
                             holes[i].to - holes[i].from));
        check_three_times(w, file, ino, FILE_BYTES, holes[i].from, holes[i].to);
        world_destroy(w);
    }
}

static void test_what_was_cut_off_does_not_come_back(void **state)
{
    static const size_t cuts[] = {0, 100, 4096, 9000};

    (void)state;
    for (size_t i = 0; i < AF_ARRAY_LEN(cuts); i++) {
        struct world *w = world_create();
        struct store_attr attr = {0};
        uint64_t ino;

        must_open(w);
        struct store_file *file = reopened(w, &ino);
        for (unsigned step = 0; step < 2; step++) {
            attr.size = step == 0 ? cuts[i] : FILE_BYTES;
            must(store_setattr(engine_store(w->engine), STORE_BLOCK, ino, file, &attr,
                               STORE_SET_SIZE, &attr));
        }
        check_three_times(w, file, ino, FILE_BYTES, cuts[i], FILE_BYTES);
        world_destroy(w);
    }
}

// Creates "new", writes to it, and ends as told; what is there after a sync of everything and a
// crash?
static void complete_by(bool rename, bool close, const char *name, bool there)
{
    struct world *w = world_create();
    uint8_t bytes[5000];
    struct store_file *file;
    struct store_attr attr;

    must_open(w);
    struct store *s = engine_store(w->engine);
    content_of("new", 1, sizeof(bytes), bytes);
    must(
        store_create(s, STORE_BLOCK, INO_ROOT, "new", S_IFREG | 0644, O_RDWR, &cred, &attr, &file));
    must(store_write(s, STORE_BLOCK, file, 0, bytes, sizeof(bytes), false));
    if (rename)
        must(store_rename(s, STORE_BLOCK, INO_ROOT, "new", INO_ROOT, name, 0));
    if (close)
        must(store_release(s, STORE_BLOCK, file));
    must(engine_sync(w->engine));
    sim_crash_now(w->sim);
    if (!close) { // too late to count
        int late = store_release(s, STORE_BLOCK, file);
        (void)late;
    }
    world_crash(w, true, SIM_CUT_DROP_ALL, 1);
    must_open(w);
    int err = store_lookup(engine_store(w->engine), STORE_BLOCK, INO_ROOT, name, &attr);
    assert_int_equal(err, there ? 0 : -ENOENT);
    if (there) {
        uint8_t found[5000];
        size_t got;

        must(store_read(engine_store(w->engine), STORE_BLOCK, attr.ino, 0, found, sizeof(found),
                        &got));
        assert_int_equal(got, sizeof(bytes));
        assert_memory_equal(found, bytes, sizeof(bytes));
    }
    must_close(w);
    world_destroy(w);
}

static void test_content_is_completed_by_the_last_close_and_by_a_rename(void **state)
{
    (void)state;
    complete_by(false, false, "new", false);
    complete_by(false, true, "new", true);
    complete_by(true, false, "renamed", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hole_hides_what_was_there),
        cmocka_unit_test(test_what_was_cut_off_does_not_come_back),
        cmocka_unit_test(test_content_is_completed_by_the_last_close_and_by_a_rename),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
