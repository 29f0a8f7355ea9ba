// SPDX-License-Identifier: MIT
// Tests of the engine: creating, opening, closing, and everything that is refused, with the disk
// left as it was.
#include "base/buf.h"
#include "tests/unit/test_engine_rig.h"

// ---- life ----

static void test_new_store_opens_and_is_clean(void **state)
{
    struct world *w = world_create();
    struct engine_status status;

    (void)state;
    must_be_sound(w);
    must_open(w);
    engine_get_status(w->engine, &status);
    assert_true(status.recovery.clean);
    assert_string_equal(status.state, "running");
    assert_int_equal(status.recovery.epoch, 2);
    must_close(w);
    must_be_sound(w);
    must_open(w);
    engine_get_status(w->engine, &status);
    assert_true(status.recovery.clean);
    assert_int_equal(status.recovery.epoch, 3);
    must_close(w);
    world_destroy(w);
}

static void test_content_outlives_a_clean_close(void **state)
{
    struct world *w = world_create();

    (void)state;
    must_open(w);
    must_put(w, "empty", 1, 0);
    must_put(w, "small", 1, 100);
    must_put(w, "block", 1, 4096);
    must_put(w, "large", 1, 300000);
    must_close(w);
    must_be_sound(w);
    must_open(w);
    assert_true(has(w->engine, "empty", 1, 0) && has(w->engine, "small", 1, 100) &&
                has(w->engine, "block", 1, 4096) && has(w->engine, "large", 1, 300000));
    must_close(w);
    world_destroy(w);
}

static void test_acknowledged_content_outlives_crashes(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 8; round++) {
        struct world *w = world_create();

        must_open(w);
        must_put(w, "a", round, 3000);
        if (round % 2)
            assert_int_equal(engine_checkpoint(w->engine), 0);
        must_put(w, "b", round, 200000);
        world_crash(w, round >= 2, round < 5 ? SIM_CUT_DROP_ALL : SIM_CUT_GARBAGE, round);
        must_be_sound(w);
        must_open(w);
        assert_true(has(w->engine, "a", round, 3000) && has(w->engine, "b", round, 200000));
        must_close(w);
        must_be_sound(w);
        world_destroy(w);
    }
}

// Not even those of records that a crash has swallowed.
static void test_numbers_never_go_back(void **state)
{
    struct world *w = world_create();
    struct engine_status before, after;
    struct store_attr attr;
    char name[8];

    (void)state;
    for (unsigned round = 0; round < 6; round++) {
        must_open(w);
        snprintf(name, sizeof(name), "x%u", round);
        must_put(w, name, 1, 10);
        snprintf(name, sizeof(name), "d%u", round);
        assert_int_equal(store_mknod(engine_store(w->engine), STORE_BLOCK, INO_ROOT, name,
                                     S_IFDIR | 0755, 0, &cred, &attr),
                         0);
        engine_get_status(w->engine, &before);
        if (round % 2)
            must_close(w);
        else
            world_crash(w, true, SIM_CUT_DROP_ALL, round);
        must_open(w);
        engine_get_status(w->engine, &after);
        assert_true(after.recovery.epoch > before.recovery.epoch);
        assert_true(after.store.wal.appended_lsn > before.store.wal.appended_lsn);
        assert_true(after.store.checkpoint_sequence > before.store.checkpoint_sequence);
        // A number that was seen is not given to another.
        uint64_t seen = attr.ino;
        snprintf(name, sizeof(name), "e%u", round);
        assert_int_equal(store_mknod(engine_store(w->engine), STORE_BLOCK, INO_ROOT, name,
                                     S_IFDIR | 0755, 0, &cred, &attr),
                         0);
        assert_true(attr.ino > seen);
        must_close(w);
    }
    world_destroy(w);
}

// A log of a few segments takes many times its size when nobody but the writers makes checkpoints.
static void test_small_log_never_fails_without_a_thread(void **state)
{
    struct world *w = world_create();
    char name[16];

    (void)state;
    must_open(w);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        must_put(w, name, i, 20000);
    }
    world_crash(w, true, SIM_CUT_RANDOM, 3);
    must_open(w);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        assert_true(has(w->engine, name, i, 20000));
    }
    must_close(w);
    must_be_sound(w);
    world_destroy(w);
}

// ---- creation ----

static void test_creation_refuses_what_is_no_empty_directory(void **state)
{
    static const char *const parts[] = {"data", "wal/0000000000000001.seg"};
    struct world w;

    (void)state;
    world_init(&w, sim_create(1));
    sim_put_file(w.sim, "notes.txt", "mine", 4);
    assert_int_equal(engine_create(sim_io(w.sim), &w.options, &cred), -ENOTEMPTY);
    sim_destroy(w.sim);
    for (size_t i = 0; i < AF_ARRAY_LEN(parts); i++) {
        world_init(&w, sim_create(1));
        sim_put_file(w.sim, parts[i], "0123", 4);
        uint64_t hash = sim_hash(w.sim);
        assert_int_equal(engine_create(sim_io(w.sim), &w.options, &cred), -AF_E_SB_NONE);
        assert_true(sim_hash(w.sim) == hash);
        sim_destroy(w.sim);
    }
    struct world *there = world_create();
    uint64_t hash = sim_hash(there->sim);
    assert_int_equal(engine_create(sim_io(there->sim), &there->options, &cred), -AF_E_STORE_EXISTS);
    assert_true(sim_hash(there->sim) == hash);
    world_destroy(there);
}

static void test_creation_may_stop_anywhere(void **state)
{
    (void)state;
    for (uint64_t event = 0, done = 0; !done; event++) {
        for (unsigned seed = 0; seed < 24; seed++) {
            struct world w;

            world_init(&w, sim_create(event + 1));
            sim_crash_at(w.sim, event, (enum sim_crash_mode)(seed % 3));
            int err = engine_create(sim_io(w.sim), &w.options, &cred);
            done = err == 0;
            sim_power_cut(w.sim, seed < 12 ? SIM_CUT_RANDOM : SIM_CUT_GARBAGE, seed);
            sim_count_crash(w.sim);
            err = engine_create(sim_io(w.sim), &w.options, &cred);
            if (err != 0 && err != -AF_E_STORE_EXISTS)
                fail_msg("event %llu: %s: %s", (unsigned long long)event, err_name(err), w.log);
            must_be_sound(&w);
            must_open(&w);
            must_close(&w);
            sim_destroy(w.sim);
        }
    }
}

// ---- refusals ----

// Opening fails with `code`, says something with `word` in it, and changes nothing.
static void must_refuse(struct world *w, int code, const char *word)
{
    uint64_t before = sim_hash(w->sim);
    int err = world_open(w);

    if (err == 0)
        fail_msg("opened instead of %s", err_name(code));
    w->engine = NULL;
    if (err != code || !strstr(w->message, word))
        fail_msg("%s instead of %s; '%s' lacks '%s'", err_name(err), err_name(code), w->message,
                 word);
    assert_true(sim_hash(w->sim) == before);
    struct findings all;
    (void)verify(w, &all); // never crashes on it
}

static void test_missing_and_short_files_are_refused(void **state)
{
    struct world w;
    struct world *used;

    (void)state;
    world_init(&w, sim_create(1));
    must_refuse(&w, -AF_E_NOT_A_STORE, "empty");
    sim_put_file(w.sim, "notes.txt", "mine", 4);
    must_refuse(&w, -AF_E_NOT_A_STORE, "not an AeroFS store");
    sim_put_file(w.sim, "superblock.new", "", 0);
    must_refuse(&w, -AF_E_SB_NONE, "interrupted");
    sim_destroy(w.sim);

    used = world_used();
    assert_int_equal(sim_remove_raw(used->sim, "superblock"), 0);
    must_refuse(used, -AF_E_SB_NONE, "superblock");
    world_destroy(used);

    used = world_used();
    assert_int_equal(sim_truncate_raw(used->sim, "data", 4096), 0);
    must_refuse(used, -AF_E_IO_SHORT, "data");
    assert_int_equal(sim_remove_raw(used->sim, "data"), 0);
    must_refuse(used, -AF_E_IO_SHORT, "data");
    world_destroy(used);
}

struct segments {
    char names[16][SIM_PATH_BYTES];
    unsigned count;
};

static void note_segment(void *arg, const char *path, bool is_dir)
{
    struct segments *s = arg;

    if (!is_dir && strncmp(path, "wal/", 4) == 0 && s->count < 16)
        snprintf(s->names[s->count++], SIM_PATH_BYTES, "%s", path);
}

static void test_missing_log_is_refused(void **state)
{
    struct world *w = world_used();
    struct segments all = {.count = 0};
    unsigned refused = 0;

    (void)state;
    sim_each_path(w->sim, note_segment, &all);
    assert_true(all.count >= 2);
    for (unsigned i = 0; i < all.count; i++) {
        struct world v;

        world_init(&v, sim_clone(w->sim));
        assert_int_equal(sim_remove_raw(v.sim, all.names[i]), 0);
        uint64_t before = sim_hash(v.sim);
        int err = world_open(&v);
        if (err < 0) {
            assert_true(err == -AF_E_LOG_MISSING || err == -AF_E_LOG_DAMAGED);
            assert_non_null(strstr(v.message, "wal/"));
            assert_true(sim_hash(v.sim) == before);
            v.engine = NULL;
            refused++;
        } else { // one that nothing needs
            assert_true(has(v.engine, "a", 1, 50000) && has(v.engine, "c", 1, 2000));
            must_close(&v);
        }
        sim_destroy(v.sim);
    }
    assert_true(refused >= 2); // the one in use and its successor
    for (unsigned i = 0; i < all.count; i++)
        assert_int_equal(sim_remove_raw(w->sim, all.names[i]), 0);
    must_refuse(w, -AF_E_LOG_MISSING, "missing");
    world_destroy(w);
}

static uint64_t record_offset(struct world *w, unsigned index, char path[32]);

static void test_damage_in_the_acknowledged_log_is_refused(void **state)
{
    struct world *w = world_used();
    char path[32];
    uint64_t off = record_offset(w, 0, path);

    (void)state;
    assert_int_equal(sim_flip_bits(w->sim, path, off + 60, 4), 0);
    must_refuse(w, -AF_E_LOG_DAMAGED, path);
    assert_int_equal(sim_flip_bits(w->sim, path, off + 60, 4), 0);
    must_open(w);
    assert_true(has(w->engine, "b", 1, 2000));
    world_destroy(w);
}

struct nth {
    unsigned index, seen;
    uint64_t segment, offset;
};

static int find_nth(void *arg, const struct wal_record *record)
{
    struct nth *n = arg;

    if (record->type == WAL_OPERATION && n->seen++ == n->index) {
        n->segment = record->segment;
        n->offset = record->offset;
    }
    return 0;
}

// Where the operation number `index` behind the cut lies.
static uint64_t record_offset(struct world *w, unsigned index, char path[32])
{
    struct superblock_slots slots;
    struct wal_scan_result result;
    struct nth n = {.index = index};

    assert_int_equal(superblock_load(sim_io(w->sim), &slots), 0);
    assert_int_equal(wal_scan(sim_io(w->sim), &slots.sb[slots.chosen].log, find_nth, &n, &result),
                     0);
    assert_true(n.offset > 0);
    superblock_slots_free(&slots);
    wal_segment_path(n.segment, path);
    return n.offset;
}

// The file `superblock` of an earlier time comes back, or the newest slot rots.
static void test_stale_superblock_is_refused(void **state)
{
    struct world *w = world_create();
    uint8_t *old = malloc(2 * SUPERBLOCK_SLOT_BYTES);

    (void)state;
    assert_int_equal(sim_read_raw(w->sim, "superblock", 0, old, 2 * SUPERBLOCK_SLOT_BYTES), 0);
    must_open(w);
    must_put(w, "a", 1, 50000);
    for (unsigned round = 0; round < 4; round++) {
        struct world v;

        world_init(&v, sim_clone(w->sim));
        sim_put_file(v.sim, "superblock", old, 2 * SUPERBLOCK_SLOT_BYTES);
        must_refuse(&v, -AF_E_SB_STALE, "superblock");
        sim_destroy(v.sim);
        // Once more with the one that is in force now, and another epoch or another checkpoint
        // behind it.
        assert_int_equal(sim_read_raw(w->sim, "superblock", 0, old, 2 * SUPERBLOCK_SLOT_BYTES), 0);
        if (round % 2) {
            assert_int_equal(engine_checkpoint(w->engine), 0);
        } else {
            must_close(w);
            must_open(w);
        }
    }
    free(old);
    world_destroy(w);
}

static void test_rotten_newest_slot_is_refused(void **state)
{
    struct world *w = world_used();
    struct superblock_slots slots;

    (void)state;
    assert_int_equal(superblock_load(sim_io(w->sim), &slots), 0);
    uint64_t off = (uint64_t)slots.chosen * SUPERBLOCK_SLOT_BYTES;
    superblock_slots_free(&slots);
    assert_int_equal(sim_flip_bits(w->sim, "superblock", off + 200, 1), 0);
    must_refuse(w, -AF_E_SB_STALE, "superblock");
    assert_int_equal(sim_flip_bits(w->sim, "superblock", SUPERBLOCK_SLOT_BYTES - off + 200, 1), 0);
    must_refuse(w, -AF_E_SB_NONE, "no valid slot");
    world_destroy(w);
}

// The first segment of the older slot's log is gone too (a log that was made smaller), so none of
// its markers is met: the headers of later segments tell.
static void test_rotten_newest_slot_of_a_trimmed_log_is_refused(void **state)
{
    struct world *w = world_create();
    struct superblock_slots slots;
    char name[16], path[32];

    (void)state;
    must_open(w);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        must_put(w, name, i, 3000);
        if (i == 30 || i == 60)
            assert_int_equal(engine_checkpoint(w->engine), 0);
    }
    world_crash(w, true, SIM_CUT_DROP_ALL, 1);
    assert_int_equal(superblock_load(sim_io(w->sim), &slots), 0);
    wal_segment_path(slots.sb[1 - slots.chosen].log.log_segment, path);
    uint64_t off = (uint64_t)slots.chosen * SUPERBLOCK_SLOT_BYTES;
    superblock_slots_free(&slots);
    int r = sim_remove_raw(w->sim, path); // recycled already, it may be
    assert_true(r == 0 || r == -ENOENT);
    assert_int_equal(sim_flip_bits(w->sim, "superblock", off + 200, 1), 0);
    must_refuse(w, -AF_E_SB_STALE, "superblock");
    world_destroy(w);
}

static void test_rotten_root_is_refused(void **state)
{
    struct world *w = world_used();
    struct superblock_slots slots;

    (void)state;
    assert_int_equal(superblock_load(sim_io(w->sim), &slots), 0);
    uint64_t off = slots.sb[slots.chosen].image.root.ref.address * BLOCK_BYTES;
    superblock_slots_free(&slots);
    assert_int_equal(sim_flip_bits(w->sim, "data", off + 4000, 1), 0);
    must_refuse(w, -AF_E_BLOCK_CHECKSUM, "root");
    world_destroy(w);
}

// A write of a part of a block reads the rest of it: what is rotten there must not get a right
// checksum by being written again.
static void test_rotten_content_is_neither_read_nor_written_into(void **state)
{
    static uint8_t content[CONTENT_MAX], block[4096];
    struct world *w = world_create();
    struct store_file *file;
    struct store_attr attr;
    uint64_t bytes, at = 0;
    size_t got;

    (void)state;
    must_open(w);
    must_put(w, "a", 1, 50000);
    must_close(w);
    content_of("a", 1, 50000, content);
    assert_int_equal(sim_file_size(w->sim, "data", &bytes), 0);
    for (uint64_t off = 0; off < bytes && at == 0; off += sizeof(block)) {
        assert_int_equal(sim_read_raw(w->sim, "data", off, block, sizeof(block)), 0);
        if (memcmp(block, content + sizeof(block), sizeof(block)) == 0)
            at = off;
    }
    assert_true(at > 0);
    assert_int_equal(sim_flip_bits(w->sim, "data", at + 1000, 1), 0);

    must_open(w);
    struct store *s = engine_store(w->engine);
    assert_int_equal(store_lookup(s, STORE_BLOCK, INO_ROOT, "a", &attr), 0);
    assert_int_equal(
        store_read(s, STORE_BLOCK, attr.ino, sizeof(block), block, sizeof(block), &got),
        -AF_E_DATA_CHECKSUM);
    assert_int_equal(store_open(s, STORE_BLOCK, attr.ino, O_RDWR, &file), 0);
    assert_int_equal(store_write(s, STORE_BLOCK, file, sizeof(block) + 10, "new", 3, false),
                     -AF_E_DATA_CHECKSUM);
    // The whole block may be replaced.
    assert_int_equal(
        store_write(s, STORE_BLOCK, file, sizeof(block), content, sizeof(block), false), 0);
    assert_int_equal(store_release(s, STORE_BLOCK, file), 0);
    assert_int_equal(
        store_read(s, STORE_BLOCK, attr.ino, sizeof(block), block, sizeof(block), &got), 0);
    assert_memory_equal(block, content, sizeof(block));
    must_close(w);
    must_be_sound(w);
    world_destroy(w);
}

#define OPEN_FILES 4000u

// What many writers have in memory, none of it completed, has its room: the write meets the end of
// the space, and the completion of all that was written before does not.
static void test_room_is_reserved_by_the_write(void **state)
{
    static struct store_file *files[OPEN_FILES];
    static uint64_t numbers[OPEN_FILES];
    struct world *w = world_create();
    struct wal_waiter waiter = {.done = ignore_done};
    uint8_t bytes[3000] = {1};
    struct store_attr attr;
    unsigned count = 0;
    int err = 0;

    (void)state;
    w->options.max_bytes = 8u << 20;
    w->options.pending_bytes = 64u << 20;
    must_open(w);
    struct store *s = engine_store(w->engine);
    while (err == 0 && count < OPEN_FILES) {
        char name[16];

        snprintf(name, sizeof(name), "f%u", count);
        err = store_create(s, STORE_BLOCK, INO_ROOT, name, S_IFREG | 0644, O_RDWR, &cred, &attr,
                           &files[count]);
        if (err < 0)
            break;
        numbers[count] = attr.ino;
        err = store_write(s, STORE_BLOCK, files[count++], 0, bytes, sizeof(bytes), false);
    }
    assert_int_equal(err, -ENOSPC);
    assert_in_range(count, 100, OPEN_FILES - 1);
    for (unsigned i = 0; i < count; i++) {
        assert_true(store_fsync(s, STORE_BLOCK, numbers[i], &waiter) >= 0);
        assert_int_equal(engine_sync(w->engine), 0);
        assert_int_equal(store_release(s, STORE_BLOCK, files[i]), 0);
    }
    must_close(w);
    must_be_sound(w);
    world_destroy(w);
}

// ---- read-only ----

static void test_read_only_option_recovers_and_changes_nothing_afterwards(void **state)
{
    struct world *w = world_used();
    struct engine_status status;
    struct store_attr attr;

    (void)state;
    w->options.read_only = true;
    must_open(w);
    uint64_t before = sim_hash(w->sim);
    engine_get_status(w->engine, &status);
    assert_string_equal(status.state, "read-only");
    assert_true(has(w->engine, "a", 1, 50000) && has(w->engine, "c", 1, 2000));
    int err = store_mknod(engine_store(w->engine), STORE_BLOCK, INO_ROOT, "d", S_IFDIR | 0755, 0,
                          &cred, &attr);
    assert_int_equal(err_to_errno(err), EROFS);
    assert_true(engine_checkpoint(w->engine) < 0);
    must_close(w);
    assert_true(sim_hash(w->sim) == before);
    must_be_sound(w);
    world_destroy(w);
}

static void test_read_only_disk_opens_only_a_clean_store(void **state)
{
    struct world *w = world_used();

    (void)state;
    sim_io(w->sim)->read_only = true;
    must_refuse(w, -AF_E_NEEDS_RECOVERY, "read-only");
    sim_io(w->sim)->read_only = false;
    must_open(w);
    must_close(w);
    sim_io(w->sim)->read_only = true;
    uint64_t before = sim_hash(w->sim);
    must_open(w);
    assert_true(has(w->engine, "b", 1, 2000));
    must_close(w);
    assert_true(sim_hash(w->sim) == before);
    world_destroy(w);
}

// ---- status ----

static void test_status_is_complete_and_escaped(void **state)
{
    struct world *w = world_create();
    struct engine_status status;
    struct buf text;

    (void)state;
    must_open(w);
    engine_get_status(w->engine, &status);
    snprintf(status.recovery.text, sizeof(status.recovery.text),
             "a \"quoted\" \\ text\nwith a line");
    buf_init(&text);
    engine_status_text(&status, true, &text);
    buf_put_u8(&text, 0);
    assert_false(text.failed);
    assert_int_equal(text.bytes[0], '{');
    assert_non_null(strstr((char *)text.bytes,
                           "\"recovery\": \"a \\\"quoted\\\" \\\\ text\\u000awith a line\""));
    assert_non_null(strstr((char *)text.bytes, "\"state\": \"running\","));
    buf_reset(&text);
    engine_status_text(&status, false, &text);
    buf_put_u8(&text, 0);
    assert_non_null(strstr((char *)text.bytes, "\nsuperblock_sequence: "));
    assert_non_null(strstr((char *)text.bytes, "\nread_only: no\n"));
    buf_free(&text);
    must_close(w);
    world_destroy(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_store_opens_and_is_clean),
        cmocka_unit_test(test_content_outlives_a_clean_close),
        cmocka_unit_test(test_acknowledged_content_outlives_crashes),
        cmocka_unit_test(test_numbers_never_go_back),
        cmocka_unit_test(test_small_log_never_fails_without_a_thread),
        cmocka_unit_test(test_creation_refuses_what_is_no_empty_directory),
        cmocka_unit_test(test_creation_may_stop_anywhere),
        cmocka_unit_test(test_missing_and_short_files_are_refused),
        cmocka_unit_test(test_missing_log_is_refused),
        cmocka_unit_test(test_damage_in_the_acknowledged_log_is_refused),
        cmocka_unit_test(test_stale_superblock_is_refused),
        cmocka_unit_test(test_rotten_newest_slot_is_refused),
        cmocka_unit_test(test_rotten_newest_slot_of_a_trimmed_log_is_refused),
        cmocka_unit_test(test_rotten_root_is_refused),
        cmocka_unit_test(test_rotten_content_is_neither_read_nor_written_into),
        cmocka_unit_test(test_room_is_reserved_by_the_write),
        cmocka_unit_test(test_read_only_option_recovers_and_changes_nothing_afterwards),
        cmocka_unit_test(test_read_only_disk_opens_only_a_clean_store),
        cmocka_unit_test(test_status_is_complete_and_escaped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
