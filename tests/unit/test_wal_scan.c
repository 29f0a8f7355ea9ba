// SPDX-License-Identifier: MIT
// Reading the log back: what the end of it means. Torn tails are dropped, damage to acknowledged
// records is proven and refused, lost files are noticed, and no bytes whatever upset the reader
// (W3, W4).
#include "tests/unit/test_wal_rig.h"

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    AF_ASSERT(rig);
    rig_setup(rig, 1);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    rig_teardown(*state);
    free(*state);
    return 0;
}

// One write of the log, as it went to the disk, and what was there before.
struct write {
    char path[SIM_PATH_BYTES];
    uint64_t off;
    size_t len;
    uint8_t old[RIG_SEGMENT_BYTES], new[RIG_SEGMENT_BYTES];
};

// Appends `count` records of `bytes` and flushes them as one group.
static void write_group(struct rig *rig, size_t count, size_t bytes, struct write *w)
{
    struct sim *before = sim_clone(rig->sim);
    uint64_t lsn = 0;
    uint64_t found = SIM_NEVER;

    for (size_t i = 0; i < count; i++)
        lsn = rig_append(rig, bytes);
    uint64_t from = sim_event_count(rig->sim);
    assert_int_equal(wal_wait(rig->wal, lsn), 0);
    for (;;) {
        from = rig_find_event(rig, from, SIM_START_WRITE, NULL);
        if (from == SIM_NEVER)
            break;
        found = from++;
    }
    const struct sim_event *event = sim_event(rig->sim, found);
    memcpy(w->path, event->path, sizeof(w->path));
    w->off = event->off;
    w->len = (size_t)event->len;
    assert_int_equal(sim_read_raw(rig->sim, w->path, w->off, w->new, w->len), 0);
    if (sim_read_raw(before, w->path, w->off, w->old, w->len) != 0)
        memset(w->old, 0, w->len);
    sim_destroy(before);
}

// Makes the disk hold the sectors of `w` that are in `mask`, and the old bytes in the others.
static void tear(struct rig *rig, const struct write *w, uint64_t mask)
{
    uint8_t bytes[RIG_SEGMENT_BYTES];

    for (size_t i = 0; i < w->len; i += SIM_SECTOR_BYTES) {
        bool keep = mask >> (i / SIM_SECTOR_BYTES) & 1;

        memcpy(bytes + i, (keep ? w->new : w->old) + i, SIM_SECTOR_BYTES);
    }
    assert_int_equal(sim_write_raw(rig->sim, w->path, w->off, bytes, w->len), 0);
}

// `virgin`: the segment held only zeros, so whatever is left of the group is known for what it is.
static void check_torn(struct rig *rig, const struct write *w, uint64_t mask, uint64_t acked,
                       uint64_t last, bool virgin)
{
    struct wal_scan_result result;
    struct rig_seen seen;
    uint64_t all = (UINT64_C(1) << w->len / SIM_SECTOR_BYTES) - 1;

    tear(rig, w, mask);
    rig_read_disk(rig->sim, &rig->start, &result, &seen);
    enum wal_end end = result.end;
    assert_true(result.last_lsn >= acked && result.last_lsn <= last);
    if (mask == 0) {
        assert_int_equal(end, WAL_END_CLEAN);
        assert_int_equal(result.last_lsn, acked);
    } else if (mask == all) {
        assert_int_equal(end, WAL_END_CLEAN);
        assert_int_equal(result.last_lsn, last);
    } else {
        assert_true(end == WAL_END_TORN || (end == WAL_END_CLEAN && !virgin));
        // The padding behind the record before counts as well.
        if (end == WAL_END_TORN)
            assert_true(result.dropped_bytes > 0 && result.dropped_bytes < w->len + WAL_BLOCK);
    }
}

// All single sectors, all prefixes and suffixes, and some subsets.
static void check_all_tears(struct rig *rig, const struct write *w, uint64_t acked, uint64_t last,
                            bool virgin)
{
    unsigned sectors = (unsigned)(w->len / SIM_SECTOR_BYTES);
    uint64_t all = (UINT64_C(1) << sectors) - 1;
    uint64_t random = 12345;

    assert_true(sectors < 64);
    for (unsigned i = 0; i <= sectors; i++) {
        check_torn(rig, w, (UINT64_C(1) << i) - 1, acked, last, virgin);
        check_torn(rig, w, all & ~((UINT64_C(1) << i) - 1), acked, last, virgin);
        if (i < sectors) {
            check_torn(rig, w, UINT64_C(1) << i, acked, last, virgin);
            check_torn(rig, w, all & ~(UINT64_C(1) << i), acked, last, virgin);
        }
    }
    for (int i = 0; i < 300; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        check_torn(rig, w, (random >> 20) & all, acked, last, virgin);
    }
    check_torn(rig, w, all, acked, last, virgin);
}

static void test_torn_tail_in_fresh_segment(void **state)
{
    struct rig *rig = *state;
    struct write w;

    uint64_t acked = rig_commit(rig, 3000);
    write_group(rig, 5, 3216, &w); // no sector of it is zeros
    assert_true(w.len > 3 * WAL_BLOCK);
    check_all_tears(rig, &w, acked, acked + 5, true);
    write_group(rig, 1, 10, &w);
    check_all_tears(rig, &w, acked + 5, acked + 6, false);
}

static void test_torn_first_group_of_a_segment(void **state)
{
    struct rig *rig = *state;
    struct write w;
    uint64_t acked = 0;

    do {
        acked = rig_commit(rig, 5000);
        write_group(rig, 3, 2000, &w);
        acked += 3;
    } while (w.off != 0);
    check_all_tears(rig, &w, acked - 3, acked, false);
}

static void test_torn_very_first_group_of_the_epoch(void **state)
{
    struct rig *rig = *state;
    struct write w;

    write_group(rig, 3, 2000, &w);
    assert_int_equal(w.off, 0);
    check_all_tears(rig, &w, 0, 3, false);
}

static void test_torn_tail_in_recycled_segment(void **state)
{
    struct rig *rig = *state;
    struct wal_start start = rig->start;
    struct write w;
    uint64_t acked = 0;

    for (uint64_t i = 1; i <= 4; i++) {
        for (int j = 0; j < 20; j++)
            acked = rig_commit(rig, 100);
        write_group(rig, 5, 2500, &w);
        acked += 5;
        check_all_tears(rig, &w, acked - 5, acked, false);
        rig->start = start;
        start = rig_checkpoint(rig, i);
        assert_int_equal(wal_prepare_segments(rig->wal), 0);
        rig->start = start;
    }
}

// ---- damage ----

// Flips one bit, scans, and flips it back.
static enum wal_end scan_flipped(struct rig *rig, const char *path, uint64_t off, uint8_t bit,
                                 struct wal_scan_result *result)
{
    struct rig_seen seen;

    assert_int_equal(sim_flip_bits(rig->sim, path, off, bit), 0);
    rig_read_disk(rig->sim, &rig->start, result, &seen);
    assert_int_equal(sim_flip_bits(rig->sim, path, off, bit), 0);
    return result->end;
}

static void test_damage_before_a_later_group_is_proven(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct write w, later;

    rig_commit(rig, 300);
    write_group(rig, 3, 1500, &w);
    write_group(rig, 1, 10, &later);
    size_t used = 3 * wal_record_bytes(1500);
    for (size_t i = 0; i < used; i += 11) {
        size_t in_record = i % wal_record_bytes(1500);

        assert_int_equal(scan_flipped(rig, w.path, w.off + i, (uint8_t)(1 << i % 8), &result),
                         in_record < WAL_RECORD_HEADER + 1500 ? WAL_END_DAMAGED : WAL_END_CLEAN);
        if (result.end != WAL_END_DAMAGED)
            continue;
        assert_int_equal(result.last_lsn, 1 + i / wal_record_bytes(1500));
        assert_true(result.proof_lsn >= result.last_lsn + 1);
        assert_int_equal(result.proof_offset, later.off);
        assert_non_null(strstr(result.what, w.path));
    }
}

static void test_damage_to_the_newest_group_is_proven_by_its_attestation(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct write w;

    rig_commit(rig, 300);
    write_group(rig, 1, 1500, &w);
    assert_int_equal(scan_flipped(rig, w.path, w.off + 100, 1, &result), WAL_END_TORN);
    sim_advance_ms(rig->sim, 1000);
    wal_tick(rig->wal);
    (void)wal_pump(rig->wal, true);
    assert_int_equal(scan_flipped(rig, w.path, w.off + 100, 1, &result), WAL_END_DAMAGED);
    assert_int_equal(result.proof_lsn, 2);
    // Damage to the attestation itself costs nothing but the proof.
    assert_int_equal(scan_flipped(rig, w.path, w.off + w.len + 10, 1, &result), WAL_END_TORN);
    assert_int_equal(result.last_lsn, 2);
}

static void test_damage_is_proven_by_a_later_segment(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;
    struct write w, last;

    write_group(rig, 1, 5000, &w);
    do {
        last = w;
        write_group(rig, 1, 5000, &w);
    } while (w.off != 0 || strcmp(w.path, "wal/0000000000000001.seg") == 0);
    // The last group of segment 1 is damaged, segment 2 has one group.
    assert_int_equal(scan_flipped(rig, last.path, last.off + 60, 1, &result), WAL_END_DAMAGED);
    assert_int_equal(result.proof_segment, 2);
    assert_int_equal(result.proof_offset, 0);
    // With the header of segment 2 gone as well, its record proves it.
    assert_int_equal(sim_flip_bits(rig->sim, w.path, 50, 1), 0);
    assert_int_equal(scan_flipped(rig, last.path, last.off + 60, 1, &result), WAL_END_DAMAGED);
    assert_int_equal(result.proof_offset, WAL_BLOCK);
    // With the header alone gone, segment 2 looks torn; it is the newest group.
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_TORN);
    rig_commit(rig, 10);
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_DAMAGED);
}

static void test_damaged_header_of_the_first_segment(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;

    rig_commit(rig, 10);
    rig_commit(rig, 10);
    for (uint64_t off = 0; off < 112; off += 3)
        assert_int_equal(scan_flipped(rig, "wal/0000000000000001.seg", off, 4, &result),
                         WAL_END_DAMAGED);
    // The cut lies behind the header: the superblock is proof enough, if nothing follows.
    rig->start = rig_checkpoint(rig, 1);
    assert_int_equal(scan_flipped(rig, "wal/0000000000000001.seg", 40, 1, &result),
                     WAL_END_DAMAGED);
    assert_int_equal(scan_flipped(rig, "wal/0000000000000001.seg", WAL_BLOCK + 8, 1, &result),
                     WAL_END_DAMAGED);
}

static void test_end_before_the_cut_is_damage(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;
    struct write w;

    rig_commit(rig, 10);
    write_group(rig, 1, 100, &w);
    struct wal_start start = rig->start;
    start.cut_lsn = wal_cut(rig->wal);
    wal_cut_info(rig->wal, start.cut_lsn, &start.cut_checksum, &start.log_segment);
    rig->start = start;
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 0);
    // The record at the cut is the newest one, and nothing else proves it.
    assert_int_equal(scan_flipped(rig, w.path, w.off + 20, 1, &result), WAL_END_DAMAGED);
    assert_non_null(strstr(result.what, "cut"));
}

// Puts a record with a right checksum at `off`.
static void forge(struct rig *rig, uint64_t off, uint64_t lsn, uint64_t prev_checksum,
                  uint16_t type, uint16_t flags)
{
    uint8_t block[WAL_BLOCK] = {0};
    uint64_t salt = wal_format_salt(rig->start.log_seed, rig->start.epoch, 1);

    wal_record_put(block, lsn, WAL_OPERATION, false, NULL, 0);
    le16 fields[2] = {le16_put(type), le16_put(flags)};
    memcpy(block + 40, fields, sizeof(fields));
    (void)wal_record_seal(block, salt, 0, prev_checksum);
    assert_int_equal(
        sim_write_raw(rig->sim, "wal/0000000000000001.seg", off, block, WAL_RECORD_HEADER), 0);
}

static void test_whole_record_that_nobody_wrote_is_damage(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;
    struct write w;

    write_group(rig, 1, 100, &w);
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    const uint64_t prev = result.last_checksum;
    const uint64_t behind = WAL_BLOCK + wal_record_bytes(100);
    const uint64_t next = 2 * WAL_BLOCK;
    static const struct {
        uint64_t lsn, prev_xor;
        uint16_t type, flags;
        bool damage_behind, damage_next;
    } cases[] = {
        {2, 0, 1, 0, false, false}, // the right one, right behind; elsewhere part of a torn group
        {2, 0, 1, 1, false, false}, // a group starts at a block; its first sector may have a copy
        {1, 0, 1, 0, false, false}, // a copy of an earlier one
        {3, 0, 1, 1, false, false}, // of a later one of the torn group
        {2, 1, 1, 1, true, true},   // nobody has written that
        {2, 0, 4, 1, true, true},   {2, 0, 1, 3, true, true}, {2, 0, 0, 0, true, true},
    };

    for (size_t i = 0; i < AF_ARRAY_LEN(cases); i++) {
        for (int place = 0; place < 2; place++) {
            uint64_t off = place ? next : behind;
            bool damage = place ? cases[i].damage_next : cases[i].damage_behind;
            uint8_t zeros[WAL_RECORD_HEADER] = {0};

            forge(rig, off, cases[i].lsn, prev ^ cases[i].prev_xor, cases[i].type, cases[i].flags);
            enum wal_end end = rig_scan(rig, &result, &seen);
            assert_int_equal(end == WAL_END_DAMAGED, damage);
            assert_int_equal(sim_write_raw(rig->sim, w.path, off, zeros, sizeof(zeros)), 0);
        }
    }
}

// ---- missing files ----

static void check_missing(struct rig *rig, const char *path, const char *named)
{
    struct wal_scan_result result;
    struct rig_seen seen;
    struct sim *clone = sim_clone(rig->sim);

    assert_int_equal(sim_remove_raw(clone, path), 0);
    rig_scan_disk(clone, &rig->start, &result, &seen);
    assert_int_equal(result.end, WAL_END_MISSING);
    assert_non_null(strstr(result.what, named));
    sim_destroy(clone);

    clone = sim_clone(rig->sim);
    assert_int_equal(sim_truncate_raw(clone, path, RIG_SEGMENT_BYTES - 1), 0);
    rig_scan_disk(clone, &rig->start, &result, &seen);
    assert_int_equal(result.end, WAL_END_MISSING);
    sim_destroy(clone);
}

static void test_missing_and_short_segments(void **state)
{
    struct rig *rig = *state;

    check_missing(rig, "wal/0000000000000001.seg", "wal/0000000000000001.seg");
    rig_commit(rig, 10);
    check_missing(rig, "wal/0000000000000002.seg", "wal/0000000000000002.seg");
    while (rig_commit(rig, 5000) < 40)
        ;
    check_missing(rig, "wal/0000000000000001.seg", "wal/0000000000000001.seg");
    check_missing(rig, "wal/0000000000000002.seg", "wal/0000000000000002.seg");
    check_missing(rig, "wal/0000000000000003.seg", "wal/0000000000000003.seg");
    struct wal_stats stats;
    wal_get_stats(rig->wal, &stats);
    char path[32];
    wal_segment_path(stats.current_segment + 1, path);
    check_missing(rig, path, path);
}

static void test_segment_missing_behind_an_unused_one(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;

    while (rig_commit(rig, 5000) < 40)
        ;
    // Only a later segment tells that the first two were ever used.
    uint8_t zeros[RIG_SEGMENT_BYTES] = {0};
    assert_int_equal(sim_write_raw(rig->sim, "wal/0000000000000001.seg", 0, zeros, sizeof(zeros)),
                     0);
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_DAMAGED);
    assert_int_equal(sim_remove_raw(rig->sim, "wal/0000000000000002.seg"), 0);
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_MISSING);
}

static void test_io_error_is_no_end(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result = {.records = 77};
    struct rig_seen seen = {0};
    struct sim_fault fault = {
        .calls = SIM_BIT(SIM_READ), .path = "wal/*", .times = 1, .error = -EIO};
    int r = -EIO;

    for (int i = 0; i < 30; i++)
        rig_commit(rig, 3000);
    // The n-th read fails, for each n until there is none.
    int failures = 0;
    for (uint64_t n = 0; r != 0; n++) {
        fault.skip = n;
        sim_faults_clear(rig->sim);
        unsigned id = sim_fault_add(rig->sim, &fault);
        memset(&seen, 0, sizeof(seen));
        r = wal_scan(rig->io, &rig->start, rig_see, &seen, &result);
        assert_int_equal(r, sim_fault_hits(rig->sim, id) ? -EIO : 0);
        failures += r != 0;
        assert_true(r == 0 || result.records == 77); // untouched on failure
    }
    assert_true(failures > 5);
}

static int stop_at(void *arg, const struct wal_record *record)
{
    return record->lsn == *(uint64_t *)arg ? 42 : 0;
}

static void test_caller_may_stop_the_scan(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    uint64_t stop = 3;

    for (int i = 0; i < 5; i++)
        rig_commit(rig, 10);
    assert_int_equal(wal_scan(rig->io, &rig->start, stop_at, &stop, &result), 42);
    stop = 6;
    assert_int_equal(wal_scan(rig->io, &rig->start, stop_at, &stop, &result), 0);
}

// ---- epochs ----

static void test_epochs_follow_each_other_and_an_older_superblock_is_noticed(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;

    for (int i = 0; i < 20; i++)
        rig_commit(rig, 3000);
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(result.epoch_max, 1);
    struct wal_start old = rig->start;
    rig_next_epoch(rig, &result);
    rig_scan_disk(rig->sim, &old, &result, &seen);
    assert_int_equal(result.epoch_max, 1); // nothing was written in the new epoch
    uint64_t first = rig_commit(rig, 10);
    assert_int_equal(first, 20 + (1u << 20));
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 1);
    (void)rig_checkpoint(rig, 9);
    while (rig_commit(rig, 5000) < first + 20)
        ;

    rig_scan_disk(rig->sim, &old, &result, &seen);
    assert_int_equal(result.end, WAL_END_MISSING); // its segments were recycled
    assert_int_equal(result.epoch_max, 2);
    assert_int_equal(result.sequence_max, 9);
    char path[32];
    wal_segment_path(result.epoch_segment, path);
    assert_int_equal(result.epoch_segment, rig->start.log_segment);
    // The same by its records, when no header of the new epoch is readable.
    for (uint64_t n = rig->start.log_segment; n <= result.highest_segment; n++) {
        wal_segment_path(n, path);
        assert_int_equal(sim_flip_bits(rig->sim, path, 100, 1), 0);
    }
    rig_scan_disk(rig->sim, &old, &result, &seen);
    assert_int_equal(result.epoch_max, 2);
}

static void test_segment_of_another_store_is_none_of_this_log(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;

    rig_commit(rig, 10);
    rig->start.log_seed++;
    assert_true(rig_scan(rig, &result, &seen) != WAL_END_DAMAGED);
    assert_int_equal(seen.count, 0);
    assert_int_equal(result.epoch_max, 0);
    rig->start.log_seed--;
    rig->start.uuid[3]++;
    (void)rig_scan(rig, &result, &seen);
    assert_int_equal(seen.count, 0);
}

static void test_segment_with_unreadable_header_is_read_by_its_name(void **state)
{
    struct rig *rig = *state;
    struct wal_segment_info info;
    struct rig_seen seen = {0};

    for (int i = 0; i < 3; i++)
        rig_commit(rig, 10);
    assert_int_equal(sim_flip_bits(rig->sim, "wal/0000000000000001.seg", 48, 1), 0);
    assert_int_equal(
        wal_read_segment(rig->io, "wal/0000000000000001.seg", NULL, &info, rig_see, &seen), 0);
    assert_false(info.valid);
    assert_int_equal(seen.count, 0);
    assert_int_equal(
        wal_read_segment(rig->io, "wal/0000000000000001.seg", &rig->start, &info, rig_see, &seen),
        0);
    assert_false(info.valid);
    assert_int_equal(seen.count, 3);
}

// ---- any bytes ----

static int see_any(void *arg, const struct wal_record *record)
{
    uint64_t *sum = arg;

    for (size_t i = 0; i < record->body_bytes; i++)
        *sum += record->body[i];
    return 0;
}

// Damages the log in `count` places; lengths and magic numbers are favoured.
static void scramble(struct sim *sim, uint64_t *random, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        *random = *random * 6364136223846793005u + 1442695040888963407u;
        uint64_t r = *random >> 16;
        uint64_t off = r % RIG_SEGMENT_BYTES;
        uint8_t bytes[48];
        char path[32];

        wal_segment_path(1 + (r >> 20) % 3, path);
        memset(bytes, (int)(r >> 24) & 0xFF, sizeof(bytes));
        off = AF_MIN(off, RIG_SEGMENT_BYTES - sizeof(bytes));
        if (r & 1 << 30) {
            off = AF_ROUND_DOWN(off, 8u);
            le32 magic = le32_put(WAL_RECORD_MAGIC);

            memcpy(bytes, &magic, sizeof(magic));
            memset(bytes + 4, (int)(r >> 10) & 0x0F, 2);
            memset(bytes + 6, 0, 2);
        }
        size_t len = r & 1 << 29 ? sizeof(bytes) : 1 + (r >> 33) % 16;
        assert_int_equal(sim_write_raw(sim, path, off, bytes, len), 0);
    }
}

static void test_no_bytes_upset_the_reader(void **state)
{
    struct rig *rig = *state;
    uint64_t random = 99;
    int counts[4] = {0};

    while (rig_commit(rig, 2500) < 35)
        ;
    for (int i = 0; i < 2000; i++) {
        struct sim *clone = sim_clone(rig->sim);
        struct wal_scan_result result;
        struct wal_segment_info info;
        struct rig_seen seen;
        uint64_t sum = 0;

        scramble(clone, &random, 1 + (unsigned)i % 40);
        rig_read_disk(clone, &rig->start, &result, &seen); // checks what is delivered
        counts[result.end]++;
        assert_int_equal(wal_read_segment(sim_io(clone), "wal/0000000000000002.seg", &rig->start,
                                          &info, see_any, &sum),
                         0);
        sim_destroy(clone);
    }
    assert_true(counts[WAL_END_DAMAGED] > 100);
}

static void test_a_segment_full_of_false_records_is_read_in_bounded_time(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;
    uint8_t segment[RIG_SEGMENT_BYTES];

    rig_commit(rig, 10);
    memset(segment, 0, sizeof(segment));
    for (size_t i = 0; i + WAL_RECORD_HEADER < sizeof(segment); i += 48) {
        wal_record_put(segment + i, 1000, WAL_OPERATION, false, NULL, 0);
        le32 len = le32_put((uint32_t)(sizeof(segment) - i - WAL_RECORD_HEADER));
        memcpy(segment + i + 4, &len, sizeof(len));
    }
    assert_int_equal(
        sim_write_raw(rig->sim, "wal/0000000000000002.seg", 0, segment, sizeof(segment)), 0);
    assert_true(rig_scan(rig, &result, &seen) != WAL_END_DAMAGED);
    assert_int_equal(seen.count, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_torn_tail_in_fresh_segment),
        TEST(test_torn_first_group_of_a_segment),
        TEST(test_torn_very_first_group_of_the_epoch),
        TEST(test_torn_tail_in_recycled_segment),
        TEST(test_damage_before_a_later_group_is_proven),
        TEST(test_damage_to_the_newest_group_is_proven_by_its_attestation),
        TEST(test_damage_is_proven_by_a_later_segment),
        TEST(test_damaged_header_of_the_first_segment),
        TEST(test_end_before_the_cut_is_damage),
        TEST(test_whole_record_that_nobody_wrote_is_damage),
        TEST(test_missing_and_short_segments),
        TEST(test_segment_missing_behind_an_unused_one),
        TEST(test_io_error_is_no_end),
        TEST(test_caller_may_stop_the_scan),
        TEST(test_epochs_follow_each_other_and_an_older_superblock_is_noticed),
        TEST(test_segment_of_another_store_is_none_of_this_log),
        TEST(test_segment_with_unreadable_header_is_read_by_its_name),
        TEST(test_no_bytes_upset_the_reader),
        TEST(test_a_segment_full_of_false_records_is_read_in_bounded_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
