// SPDX-License-Identifier: MIT
// Segments away from their store (wal/wal_verify.h): cut at every length, damaged at every byte,
// missing, doubled, older, of another store, of another epoch; each is told from the others.
#include "tests/unit/test_wal_rig.h"
#include "wal/wal_verify.h"

#define SMALL_BYTES (8u * WAL_BLOCK)
#define FILES_MAX   24u

// ---- one file ----

static struct wal_file verify(struct sim *sim, const char *path)
{
    struct wal_file file = {.path = path};

    assert_int_equal(wal_file_verify(sim_io(sim), &file, NULL, NULL), 0);
    return file;
}

static void put_copy(struct rig *rig, struct sim *to, uint64_t segment, const char *path)
{
    uint64_t bytes = rig->start.segment_bytes;
    uint8_t *copy = malloc(bytes);
    char from[32];

    AF_ASSERT(copy);
    wal_segment_path(segment, from);
    assert_int_equal(sim_read_raw(rig->sim, from, 0, copy, bytes), 0);
    sim_put_file(to, path, copy, bytes);
    free(copy);
}

static void small_setup(struct rig *rig)
{
    rig_make_disk(rig, 1);
    rig->start.segment_bytes = SMALL_BYTES;
    assert_int_equal(wal_create_segments(rig->io, &rig->start), 0);
    rig_open(rig);
}

// Where the records of the small segment end, and which of them end a group.
struct layout {
    uint64_t record_end[16], group_end[16];
    size_t records, groups;
};

static void note_group(struct layout *l, uint64_t *off, size_t count, size_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        l->record_end[l->records++] = *off + WAL_RECORD_HEADER + bytes;
        *off += wal_record_bytes(bytes);
    }
    *off = AF_ROUND_UP(*off, (uint64_t)WAL_BLOCK);
    l->group_end[l->groups++] = *off;
}

static void write_group(struct rig *rig, struct layout *l, uint64_t *off, size_t count,
                        size_t bytes)
{
    uint64_t lsn = 0;

    for (size_t i = 0; i < count; i++)
        lsn = rig_append(rig, bytes);
    assert_int_equal(wal_wait(rig->wal, lsn), 0);
    note_group(l, off, count, bytes);
}

static enum wal_file_state state_at(const struct layout *l, uint64_t length)
{
    if (length == SMALL_BYTES)
        return WAL_FILE_WHOLE;
    if (length < 2 * WAL_BLOCK || length % WAL_BLOCK != 0)
        return WAL_FILE_PARTIAL;
    for (size_t i = 0; i < l->groups; i++)
        if (length == l->group_end[i])
            return WAL_FILE_PREFIX;
    return length > l->group_end[l->groups - 1] ? WAL_FILE_PREFIX : WAL_FILE_PARTIAL;
}

static void check_length(struct rig *rig, const struct layout *l, uint64_t length)
{
    struct wal_file file = verify(rig->sim, "copy");
    uint64_t whole = 0;

    while (whole < l->records && l->record_end[whole] <= length)
        whole++;
    if (file.state != state_at(l, length))
        fail_msg("length %llu: %s (%s)", (unsigned long long)length,
                 wal_file_state_name(file.state), file.what);
    assert_int_equal(file.bytes, length);
    assert_int_equal(file.info.valid, length >= WAL_BLOCK);
    assert_int_equal(file.records, whole);
    assert_int_equal(file.last_lsn, whole);
    if (file.state == WAL_FILE_PARTIAL) {
        assert_int_equal(file.bad_lsn, length < WAL_BLOCK ? 0 : whole + 1);
        assert_true(file.bad_offset <= length && file.what[0]);
    }
    wal_file_free(&file);
}

static void test_a_segment_cut_at_every_length_is_told(void **state)
{
    struct layout l = {0};
    uint64_t off = WAL_BLOCK;
    struct rig rig;

    (void)state;
    small_setup(&rig);
    write_group(&rig, &l, &off, 1, 100);
    write_group(&rig, &l, &off, 3, 2200); // two blocks, a record across their border
    write_group(&rig, &l, &off, 2, 40);
    put_copy(&rig, rig.sim, 1, "copy");
    for (uint64_t length = SMALL_BYTES;; length--) {
        assert_int_equal(sim_truncate_raw(rig.sim, "copy", length), 0);
        check_length(&rig, &l, length);
        if (length == 0)
            break;
    }
    rig_teardown(&rig);
}

// A transfer into a file of full length: what has not arrived is zeros.
static void test_a_transfer_into_a_whole_file_is_told(void **state)
{
    struct layout l = {0};
    uint64_t off = WAL_BLOCK;
    uint8_t zeros[8] = {0};
    struct rig rig;

    (void)state;
    small_setup(&rig);
    write_group(&rig, &l, &off, 2, 100);
    write_group(&rig, &l, &off, 2, 3000);
    put_copy(&rig, rig.sim, 1, "copy");
    const uint64_t group = l.group_end[0];
    for (uint64_t at = off - 8; at >= WAL_BLOCK; at -= 8) {
        assert_int_equal(sim_write_raw(rig.sim, "copy", at, zeros, sizeof(zeros)), 0);
        struct wal_file file = verify(rig.sim, "copy");
        uint64_t whole = 0;

        while (whole < l.records && l.record_end[whole] <= at)
            whole++;
        assert_true(file.records >= whole); // bodies may end in zeros anyway
        assert_true(file.state == WAL_FILE_WHOLE || file.state == WAL_FILE_PARTIAL);
        // A part of a record is there, its header at least.
        if (at > group + WAL_RECORD_HEADER && at < l.record_end[3] - 8 && at != l.record_end[2])
            assert_int_equal(file.state, WAL_FILE_PARTIAL);
        wal_file_free(&file);
    }
    rig_teardown(&rig);
}

static void check_flip(struct rig *rig, const struct layout *l, uint64_t off)
{
    assert_int_equal(sim_flip_bits(rig->sim, "copy", off, (uint8_t)(1u << off % 8)), 0);
    struct wal_file file = verify(rig->sim, "copy");
    size_t hit = 0;

    assert_int_equal(sim_flip_bits(rig->sim, "copy", off, (uint8_t)(1u << off % 8)), 0);
    while (hit < l->records && l->record_end[hit] <= off)
        hit++;
    if (off < 8) {
        assert_int_equal(file.state, WAL_FILE_UNKNOWN);
    } else if (off < 12) {
        assert_true(file.state == WAL_FILE_UNKNOWN || file.state == WAL_FILE_DAMAGED); // version
    } else if (off < WAL_BLOCK) {
        assert_int_equal(file.state, WAL_FILE_DAMAGED);
        assert_false(file.info.valid);
    } else if (file.records < l->records) {
        // The record hit is where the chain ends, and it is damage where a later one proves it. Of
        // the last group nothing is known.
        assert_int_equal(file.records, hit);
        assert_int_equal(file.state == WAL_FILE_DAMAGED, off < l->group_end[l->groups - 2]);
        if (file.state == WAL_FILE_DAMAGED) {
            assert_int_equal(file.bad_lsn, hit + 1);
            assert_non_null(strstr(file.what, "was durable"));
        }
    } else { // between a record's body and the next one, or behind a group
        assert_true(file.state == WAL_FILE_WHOLE || file.state == WAL_FILE_PARTIAL);
    }
    wal_file_free(&file);
}

static void test_every_damaged_byte_of_a_segment_is_told(void **state)
{
    struct layout l = {0};
    uint64_t off = WAL_BLOCK, unnoticed = 0;
    struct rig rig;

    (void)state;
    small_setup(&rig);
    write_group(&rig, &l, &off, 2, 120);
    write_group(&rig, &l, &off, 3, 1800);
    write_group(&rig, &l, &off, 1, 64);
    put_copy(&rig, rig.sim, 1, "copy");
    for (uint64_t at = 0; at < off; at++)
        check_flip(&rig, &l, at);
    for (uint64_t at = l.record_end[1] - 64; at < l.record_end[1]; at++) {
        struct wal_file file;

        assert_int_equal(sim_flip_bits(rig.sim, "copy", at, 1), 0);
        file = verify(rig.sim, "copy");
        unnoticed += file.records == l.records;
        wal_file_free(&file);
        assert_int_equal(sim_flip_bits(rig.sim, "copy", at, 1), 0);
    }
    assert_int_equal(unnoticed, 0);
    rig_teardown(&rig);
}

// A record with a right checksum that does not follow the one before it, or of a type that is not
// known: no cut and no tear makes these.
static void test_a_whole_record_that_nobody_wrote_is_damage(void **state)
{
    static const struct {
        uint64_t lsn, prev_xor;
        uint16_t type;
        enum wal_file_state state;
    } cases[] = {
        {2, 0, 1, WAL_FILE_WHOLE},   {2, 1, 1, WAL_FILE_DAMAGED}, {2, 0, 4, WAL_FILE_DAMAGED},
        {3, 0, 1, WAL_FILE_PARTIAL}, {1, 0, 1, WAL_FILE_WHOLE},
    };
    struct layout l = {0};
    uint64_t off = WAL_BLOCK;
    struct rig rig;

    (void)state;
    small_setup(&rig);
    write_group(&rig, &l, &off, 1, 100);
    put_copy(&rig, rig.sim, 1, "copy");
    struct wal_file file = verify(rig.sim, "copy");
    const uint64_t salt = wal_format_salt(rig.start.log_seed, 1, 1), prev = file.last_checksum;
    wal_file_free(&file);
    for (size_t i = 0; i < AF_ARRAY_LEN(cases); i++) {
        uint8_t block[WAL_BLOCK] = {0};
        le16 type = le16_put(cases[i].type);

        wal_record_put(block, cases[i].lsn, WAL_OPERATION, true, NULL, 0);
        memcpy(block + offsetof(struct wal_disk_record, type), &type, sizeof(type));
        (void)wal_record_seal(block, salt, 0, prev ^ cases[i].prev_xor);
        assert_int_equal(sim_write_raw(rig.sim, "copy", off, block, sizeof(block)), 0);
        file = verify(rig.sim, "copy");
        assert_int_equal(file.state, cases[i].state);
        assert_int_equal(file.records, i == 0 ? 2 : 1);
        wal_file_free(&file);
    }
    rig_teardown(&rig);
}

static void test_what_is_no_segment_is_told(void **state)
{
    struct sim *sim = sim_create(1);
    uint8_t bytes[3 * WAL_BLOCK] = {0};
    struct wal_file file;

    (void)state;
    sim_put_file(sim, "f", bytes, 0);
    file = verify(sim, "f");
    assert_int_equal(file.state, WAL_FILE_PARTIAL);
    sim_put_file(sim, "f", bytes, sizeof(bytes));
    file = verify(sim, "f");
    assert_int_equal(file.state, WAL_FILE_UNUSED);
    bytes[2 * WAL_BLOCK] = 1;
    sim_put_file(sim, "f", bytes, sizeof(bytes));
    file = verify(sim, "f");
    assert_int_equal(file.state, WAL_FILE_UNKNOWN);
    sim_put_file(sim, "f", "plain text", 10);
    file = verify(sim, "f");
    assert_int_equal(file.state, WAL_FILE_UNKNOWN);
    sim_put_file(sim, "f", WAL_SEGMENT_MAGIC, 5);
    file = verify(sim, "f");
    assert_int_equal(file.state, WAL_FILE_PARTIAL);
    file = (struct wal_file){.path = "nowhere"};
    assert_int_equal(wal_file_verify(sim_io(sim), &file, NULL, NULL), -ENOENT);
    sim_destroy(sim);
}

static void test_a_file_longer_than_its_segment_is_damaged(void **state)
{
    struct rig rig;
    uint8_t more[2 * RIG_SEGMENT_BYTES];

    (void)state;
    rig_setup(&rig, 1);
    rig_commit(&rig, 10);
    assert_int_equal(sim_read_raw(rig.sim, "wal/0000000000000001.seg", 0, more, RIG_SEGMENT_BYTES),
                     0);
    memcpy(more + RIG_SEGMENT_BYTES, more, RIG_SEGMENT_BYTES); // sent twice into one file
    sim_put_file(rig.sim, "copy", more, sizeof(more));
    struct wal_file file = verify(rig.sim, "copy");
    assert_int_equal(file.state, WAL_FILE_DAMAGED);
    assert_int_equal(file.bad_offset, RIG_SEGMENT_BYTES);
    wal_file_free(&file);
    rig_teardown(&rig);
}

// ---- several files ----

struct shelf { // files away from their store
    struct sim *sim;
    char paths[FILES_MAX][32];
    struct wal_file files[FILES_MAX];
    size_t count;
    struct wal_file_set set;
};

static void shelf_init(struct shelf *s)
{
    memset(s, 0, sizeof(*s));
    s->sim = sim_create(9);
}

static size_t shelf_add(struct shelf *s, struct rig *rig, uint64_t segment)
{
    AF_ASSERT(s->count < FILES_MAX);
    (void)snprintf(s->paths[s->count], sizeof(s->paths[0]), "copy-%zu", s->count);
    put_copy(rig, s->sim, segment, s->paths[s->count]);
    return s->count++;
}

static void shelf_forget(struct shelf *s)
{
    for (size_t i = 0; i < s->count; i++)
        wal_file_free(&s->files[i]);
}

static void shelf_order(struct shelf *s)
{
    shelf_forget(s);
    for (size_t i = 0; i < s->count; i++) {
        s->files[i] = (struct wal_file){.path = s->paths[i]};
        assert_int_equal(wal_file_verify(sim_io(s->sim), &s->files[i], NULL, NULL), 0);
    }
    assert_int_equal(wal_files_order(s->files, s->count, &s->set), 0);
}

static void shelf_free(struct shelf *s)
{
    shelf_forget(s);
    sim_destroy(s->sim);
}

static void expect(const struct shelf *s, size_t i, enum wal_file_state state, enum wal_place place)
{
    const struct wal_file *file = &s->files[i];

    if (file->state != state || file->place != place)
        fail_msg("file %zu: %s, %s (%s); %s, %s expected", i, wal_file_state_name(file->state),
                 wal_place_name(file->place), file->what, wal_file_state_name(state),
                 wal_place_name(place));
}

// Commits until the log has `segments` of them; returns the last LSN.
static uint64_t fill(struct rig *rig, uint64_t segments)
{
    struct wal_stats stats;
    uint64_t lsn;

    do {
        lsn = rig_commit(rig, 5000);
        wal_get_stats(rig->wal, &stats);
    } while (stats.current_segment < segments);
    return lsn;
}

static void test_segments_in_order_continue_each_other(void **state)
{
    struct shelf s;
    struct rig rig;

    (void)state;
    rig_setup(&rig, 1);
    uint64_t last = fill(&rig, 4);
    shelf_init(&s);
    for (uint64_t n = 1; n <= 5; n++)
        shelf_add(&s, &rig, n);
    shelf_order(&s);
    expect(&s, 0, WAL_FILE_WHOLE, WAL_PLACE_FIRST);
    for (size_t i = 1; i < 4; i++)
        expect(&s, i, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES);
    expect(&s, 4, WAL_FILE_UNUSED, WAL_PLACE_NONE);
    assert_int_equal(s.set.first_lsn, 1);
    assert_int_equal(s.set.last_lsn, last);
    assert_int_equal(s.set.durable_lsn, last - 1);
    // A prefix at the end is as good, as far as it goes.
    assert_int_equal(sim_truncate_raw(s.sim, "copy-3", 3 * WAL_BLOCK), 0);
    shelf_order(&s);
    expect(&s, 3, WAL_FILE_PREFIX, WAL_PLACE_CONTINUES);
    assert_int_equal(s.set.last_lsn, s.files[3].last_lsn);
    shelf_free(&s);
    rig_teardown(&rig);
}

static void test_a_missing_segment_is_a_gap_with_its_numbers(void **state)
{
    struct rig rig;

    (void)state;
    rig_setup(&rig, 1);
    (void)fill(&rig, 5);
    for (uint64_t missing = 2; missing <= 4; missing++) {
        struct shelf s;

        shelf_init(&s);
        for (uint64_t n = 1; n <= 5; n++)
            if (n != missing)
                shelf_add(&s, &rig, n);
        shelf_order(&s);
        for (size_t i = 1; i < 4; i++)
            expect(&s, i, WAL_FILE_WHOLE, i + 1 == missing ? WAL_PLACE_GAP : WAL_PLACE_CONTINUES);
        assert_int_equal(s.files[missing - 1].missing_from, s.files[missing - 2].last_lsn + 1);
        assert_int_equal(s.files[missing - 1].missing_to, s.files[missing - 1].info.first_lsn - 1);
        assert_int_equal(s.set.last_lsn, s.files[missing - 2].last_lsn); // usable to the gap
        shelf_free(&s);
    }
    rig_teardown(&rig);
}

static void test_reordered_doubled_and_older_copies_are_told(void **state)
{
    struct shelf s;
    struct rig rig;

    (void)state;
    rig_setup(&rig, 1);
    (void)fill(&rig, 3);
    shelf_init(&s);
    shelf_add(&s, &rig, 3); // older than what comes
    uint64_t last = fill(&rig, 4);
    const uint64_t order[] = {1, 3, 2, 2, 4};
    for (size_t i = 0; i < AF_ARRAY_LEN(order); i++)
        shelf_add(&s, &rig, order[i]);
    shelf_order(&s);
    expect(&s, 0, WAL_FILE_WHOLE, WAL_PLACE_STALE);
    assert_int_equal(s.files[0].other, 2);
    expect(&s, 1, WAL_FILE_WHOLE, WAL_PLACE_FIRST);
    expect(&s, 2, WAL_FILE_WHOLE, WAL_PLACE_REORDERED);
    expect(&s, 3, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES);
    expect(&s, 4, WAL_FILE_WHOLE, WAL_PLACE_DUPLICATE);
    assert_int_equal(s.files[4].other, 3);
    expect(&s, 5, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES);
    assert_int_equal(s.set.last_lsn, last);
    shelf_free(&s);
    rig_teardown(&rig);
}

static void test_an_older_copy_in_the_middle_is_a_gap(void **state)
{
    struct shelf s;
    struct rig rig;

    (void)state;
    rig_setup(&rig, 1);
    (void)fill(&rig, 2);
    shelf_init(&s);
    shelf_add(&s, &rig, 1);
    shelf_add(&s, &rig, 2); // one group of it
    (void)fill(&rig, 3);
    shelf_add(&s, &rig, 3);
    shelf_order(&s);
    expect(&s, 1, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES);
    expect(&s, 2, WAL_FILE_WHOLE, WAL_PLACE_GAP);
    assert_int_equal(s.files[2].missing_from, s.files[1].last_lsn + 1);
    shelf_free(&s);
    rig_teardown(&rig);
}

static void test_damage_is_proven_by_the_next_file(void **state)
{
    struct shelf s;
    struct rig rig;

    (void)state;
    rig_setup(&rig, 1);
    (void)fill(&rig, 2);
    shelf_init(&s);
    shelf_add(&s, &rig, 1);
    shelf_add(&s, &rig, 2);
    shelf_order(&s);
    uint64_t last = s.files[0].last_lsn;
    uint64_t in_last = s.files[0].end_offset - 100;
    assert_int_equal(sim_flip_bits(s.sim, "copy-0", in_last, 1), 0);
    struct wal_file alone = verify(s.sim, "copy-0");
    assert_int_equal(alone.state, WAL_FILE_PARTIAL); // by itself it may be a torn group
    wal_file_free(&alone);
    shelf_order(&s);
    expect(&s, 0, WAL_FILE_DAMAGED, WAL_PLACE_FIRST);
    expect(&s, 1, WAL_FILE_WHOLE, WAL_PLACE_GAP);
    assert_int_equal(s.files[0].bad_lsn, last);
    assert_int_equal(s.files[1].missing_from, last);
    assert_int_equal(s.files[1].missing_to, last);
    // Cut in that record, it is a transfer that has not ended.
    assert_int_equal(sim_truncate_raw(s.sim, "copy-0", in_last), 0);
    shelf_order(&s);
    expect(&s, 0, WAL_FILE_PARTIAL, WAL_PLACE_FIRST);
    expect(&s, 1, WAL_FILE_WHOLE, WAL_PLACE_GAP);
    shelf_free(&s);
    rig_teardown(&rig);
}

static void test_segments_of_other_stores_are_foreign(void **state)
{
    struct rig rig, other;
    struct shelf s;

    (void)state;
    rig_setup(&rig, 1);
    rig_setup(&other, 2);
    (void)fill(&rig, 2);
    (void)fill(&other, 2);
    shelf_init(&s);
    shelf_add(&s, &rig, 1);
    shelf_add(&s, &other, 2); // the same store, as far as anybody can see: the same seed
    shelf_order(&s);
    expect(&s, 1, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES);
    rig_teardown(&other);
    rig_make_disk(&other, 2);
    other.start.log_seed ^= 1; // a copy with a log of its own
    assert_int_equal(wal_create_segments(other.io, &other.start), 0);
    rig_open(&other);
    (void)fill(&other, 2);
    put_copy(&other, s.sim, 2, "copy-1");
    shelf_order(&s);
    expect(&s, 1, WAL_FILE_WHOLE, WAL_PLACE_FOREIGN);
    assert_int_equal(s.set.last_lsn, s.files[0].last_lsn);
    shelf_free(&s);
    rig_teardown(&rig);
    rig_teardown(&other);
}

static void test_same_numbers_with_other_records_are_a_fork(void **state)
{
    struct rig rig, other;
    struct shelf s;

    (void)state;
    rig_setup(&rig, 1);
    rig_setup(&other, 2);
    for (int i = 0; i < 20; i++) {
        rig_commit(&rig, i < 5 ? 4000 : 5000);
        rig_commit(&other, i < 5 ? 4000 : 4900); // one history, then two
    }
    shelf_init(&s);
    shelf_add(&s, &rig, 1);
    shelf_add(&s, &other, 1);
    shelf_add(&s, &other, 2);
    shelf_order(&s);
    assert_true(s.set.places[WAL_PLACE_FORKED] > 0);
    assert_true(s.files[0].place == WAL_PLACE_FORKED || s.files[1].place == WAL_PLACE_FORKED);
    // A following segment of the other history does not continue this one.
    s.count = 3;
    put_copy(&rig, s.sim, 1, "copy-1");
    shelf_order(&s);
    assert_int_equal(s.set.places[WAL_PLACE_DUPLICATE], 1);
    assert_int_equal(s.set.places[WAL_PLACE_FORKED], 1);
    shelf_free(&s);
    rig_teardown(&rig);
    rig_teardown(&other);
}

static void test_a_recycled_segment_is_known_by_its_name(void **state)
{
    struct rig rig;
    struct wal_stats stats;
    struct shelf s;

    (void)state;
    rig_setup(&rig, 1);
    (void)fill(&rig, 4);
    (void)rig_checkpoint(&rig, 1);
    assert_int_equal(wal_prepare_segments(rig.wal), 0);
    (void)fill(&rig, 6);
    assert_int_equal(wal_prepare_segments(rig.wal), 0);
    wal_get_stats(rig.wal, &stats);
    shelf_init(&s);
    for (uint64_t n = stats.first_segment; n <= stats.current_segment + 1; n++) {
        size_t i = shelf_add(&s, &rig, n);

        wal_segment_path(n, s.paths[i]);
        put_copy(&rig, s.sim, n, s.paths[i]);
    }
    shelf_order(&s);
    for (size_t i = 1; i + 1 < s.count; i++)
        expect(&s, i, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES);
    expect(&s, s.count - 1, WAL_FILE_WHOLE, WAL_PLACE_RECYCLED);
    shelf_free(&s);
    rig_teardown(&rig);
}

// ---- epochs ----

static void test_the_next_epoch_continues_and_drops_a_torn_tail(void **state)
{
    struct wal_scan_result result;
    struct rig_seen seen;
    struct shelf s;
    struct rig rig;

    (void)state;
    rig_setup(&rig, 1);
    (void)fill(&rig, 2);
    rig_commit(&rig, 6000);
    uint64_t end = rig_commit(&rig, 6000);
    (void)rig_scan(&rig, &result, &seen);
    assert_int_equal(sim_flip_bits(rig.sim, "wal/0000000000000002.seg", seen.offset + 4500, 1), 0);
    assert_int_equal(rig_scan(&rig, &result, &seen), WAL_END_TORN);
    rig_next_epoch(&rig, &result);
    uint64_t segment = rig.start.log_segment;
    (void)fill(&rig, segment + 1);
    shelf_init(&s);
    shelf_add(&s, &rig, 1);
    shelf_add(&s, &rig, 2);
    shelf_order(&s);
    expect(&s, 1, WAL_FILE_PARTIAL, WAL_PLACE_CONTINUES);
    shelf_add(&s, &rig, segment);
    shelf_add(&s, &rig, segment + 1);
    shelf_order(&s);
    expect(&s, 1, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES); // the next epoch says what became of it
    assert_non_null(strstr(s.files[1].what, "dropped"));
    expect(&s, 2, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES);
    expect(&s, 3, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES);
    assert_int_equal(s.files[2].info.prev_lsn, end - 1);
    assert_int_equal(s.set.epoch_first, 1);
    assert_int_equal(s.set.epoch_last, 2);
    // Without segment 2 the new epoch does not follow.
    put_copy(&rig, s.sim, 1, "copy-1");
    shelf_order(&s);
    expect(&s, 2, WAL_FILE_WHOLE, WAL_PLACE_GAP);
    shelf_free(&s);
    rig_teardown(&rig);
}

// Copies that hold more of an epoch than the recovery found.
static void test_records_that_a_recovery_gave_up_are_of_another_epoch(void **state)
{
    struct wal_scan_result result;
    struct rig_seen seen;
    struct shelf s;
    struct rig rig;

    (void)state;
    rig_setup(&rig, 1);
    (void)fill(&rig, 2);
    (void)rig_scan(&rig, &result, &seen);
    struct sim *early = sim_clone(rig.sim);
    (void)fill(&rig, 4);
    shelf_init(&s);
    for (uint64_t n = 1; n <= 4; n++)
        shelf_add(&s, &rig, n);
    wal_close(rig.wal);
    io_file_close(rig.data);
    sim_destroy(rig.sim);
    rig.sim = early;
    rig.io = sim_io(early);
    rig.wal = NULL;
    assert_int_equal(io_file_open(rig.io, "data", IO_WRITE, &rig.data), 0);
    rig_next_epoch(&rig, &result);
    (void)fill(&rig, rig.start.log_segment + 1);
    shelf_add(&s, &rig, rig.start.log_segment);
    shelf_add(&s, &rig, rig.start.log_segment + 1);
    shelf_order(&s);
    expect(&s, 0, WAL_FILE_WHOLE, WAL_PLACE_FIRST);
    expect(&s, 1, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES);
    assert_non_null(strstr(s.files[1].what, "given up"));
    expect(&s, 2, WAL_FILE_WHOLE, WAL_PLACE_OTHER_EPOCH);
    expect(&s, 3, WAL_FILE_WHOLE, WAL_PLACE_OTHER_EPOCH);
    expect(&s, 4, WAL_FILE_WHOLE, WAL_PLACE_CONTINUES);
    assert_int_equal(s.set.last_lsn, s.files[5].last_lsn);
    shelf_free(&s);
    rig_teardown(&rig);
}

// ---- any bytes ----

static void scramble(struct sim *sim, const char *path, uint64_t *random)
{
    uint64_t bytes;

    *random = *random * 6364136223846793005u + 1442695040888963407u;
    if ((*random >> 62) == 0) {
        assert_int_equal(sim_file_size(sim, path, &bytes), 0);
        bytes = (*random >> 20) % (bytes + 1);
        if (*random >> 60 & 1)
            bytes = AF_ROUND_UP(bytes, (uint64_t)WAL_BLOCK);
        assert_int_equal(sim_truncate_raw(sim, path, bytes), 0);
    }
    for (unsigned i = 0; i < 1 + (*random >> 40) % 8; i++) {
        uint64_t r = (*random >> 16) * (2 * i + 1);
        uint8_t byte = (uint8_t)(r >> 24);

        assert_int_equal(sim_file_size(sim, path, &bytes), 0);
        if (bytes > 0)
            assert_int_equal(sim_write_raw(sim, path,
                                           (r & 1 ? r % 160 + (r % 9) * WAL_BLOCK : r) % bytes,
                                           &byte, 1),
                             0);
    }
}

static void test_no_bytes_upset_the_verification(void **state)
{
    uint64_t random = 4711;
    size_t states[WAL_FILE_STATE_COUNT] = {0}, places[WAL_PLACE_COUNT] = {0};
    struct rig rig;

    (void)state;
    rig_setup(&rig, 1);
    (void)fill(&rig, 4);
    for (int round = 0; round < 1500; round++) {
        struct shelf s;

        shelf_init(&s);
        for (uint64_t n = 1; n <= 4; n++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            size_t i = shelf_add(&s, &rig, 1 + (random >> 33) % 5);

            if (random >> 60 < 10)
                scramble(s.sim, s.paths[i], &random);
        }
        shelf_order(&s);
        for (size_t i = 0; i < s.count; i++) {
            states[s.files[i].state]++;
            places[s.files[i].place]++;
            // Whatever is said to follow was read and verified.
            assert_true(s.files[i].records == 0 ||
                        s.files[i].last_lsn == s.files[i].info.first_lsn + s.files[i].records - 1);
        }
        shelf_free(&s);
    }
    for (unsigned i = 0; i < WAL_FILE_STATE_COUNT; i++)
        assert_true(states[i] > 0);
    assert_true(places[WAL_PLACE_GAP] > 50 && places[WAL_PLACE_DUPLICATE] > 50 &&
                places[WAL_PLACE_REORDERED] > 50);
    rig_teardown(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_segment_cut_at_every_length_is_told),
        cmocka_unit_test(test_a_transfer_into_a_whole_file_is_told),
        cmocka_unit_test(test_every_damaged_byte_of_a_segment_is_told),
        cmocka_unit_test(test_a_whole_record_that_nobody_wrote_is_damage),
        cmocka_unit_test(test_what_is_no_segment_is_told),
        cmocka_unit_test(test_a_file_longer_than_its_segment_is_damaged),
        cmocka_unit_test(test_segments_in_order_continue_each_other),
        cmocka_unit_test(test_a_missing_segment_is_a_gap_with_its_numbers),
        cmocka_unit_test(test_reordered_doubled_and_older_copies_are_told),
        cmocka_unit_test(test_an_older_copy_in_the_middle_is_a_gap),
        cmocka_unit_test(test_damage_is_proven_by_the_next_file),
        cmocka_unit_test(test_segments_of_other_stores_are_foreign),
        cmocka_unit_test(test_same_numbers_with_other_records_are_a_fork),
        cmocka_unit_test(test_a_recycled_segment_is_known_by_its_name),
        cmocka_unit_test(test_the_next_epoch_continues_and_drops_a_torn_tail),
        cmocka_unit_test(test_records_that_a_recovery_gave_up_are_of_another_epoch),
        cmocka_unit_test(test_no_bytes_upset_the_verification),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
