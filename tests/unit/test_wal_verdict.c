// SPDX-License-Identifier: MIT
// The reader's verdict on damaged logs compared with that of a model which never parses: it knows
// every record that was written, byte for byte, and looks for these bytes where docs/FORMAT.md says
// that they must stand. Then the bytes of groups: what is batched is what is written one by one.
#include "tests/lib/rng.h"
#include "tests/unit/test_wal_rig.h"

#define SEGMENTS    3u // that are written to
#define RECORDS_MAX 64u

// ---- what was written ----

struct truth {
    uint64_t lsn, segment, off, durable_lsn;
    size_t bytes; // header and body
    bool group_start;
    uint8_t copy[4096];
};

struct book {
    struct truth records[RECORDS_MAX];
    size_t count;
    uint64_t first_lsn[SEGMENTS + 1]; // of each segment, by number; 0: not written
    uint64_t header_durable[SEGMENTS + 1];
    uint8_t headers[SEGMENTS + 1][WAL_BLOCK];
    size_t segment_bytes;
    uint8_t *image[SEGMENTS + 1]; // of the files as they are now
};

static int note_truth(void *arg, const struct wal_record *record)
{
    struct book *b = arg;
    struct truth *t = &b->records[b->count++];

    AF_ASSERT(b->count <= RECORDS_MAX && record->segment <= SEGMENTS);
    t->lsn = record->lsn;
    t->segment = record->segment;
    t->off = record->offset;
    t->durable_lsn = record->durable_lsn;
    t->bytes = WAL_RECORD_HEADER + record->body_bytes;
    t->group_start = record->group_start;
    AF_ASSERT(t->bytes <= sizeof(t->copy));
    if (b->first_lsn[record->segment] == 0) {
        b->first_lsn[record->segment] = record->lsn;
        b->header_durable[record->segment] = record->durable_lsn;
    }
    return 0;
}

// The files of `sim` into the book, with the true bytes when `as_truth`.
static void book_read(struct book *b, const struct sim *sim, bool as_truth)
{
    char path[32];

    for (uint64_t n = 1; n <= SEGMENTS; n++) {
        wal_segment_path(n, path);
        if (sim_exists(sim, path))
            assert_int_equal(sim_read_raw(sim, path, 0, b->image[n], b->segment_bytes), 0);
        else
            memset(b->image[n], 0, b->segment_bytes);
        if (as_truth)
            memcpy(b->headers[n], b->image[n], WAL_BLOCK);
    }
    for (size_t i = 0; as_truth && i < b->count; i++)
        memcpy(b->records[i].copy, b->image[b->records[i].segment] + b->records[i].off,
               b->records[i].bytes);
}

static void book_init(struct book *b, struct rig *rig)
{
    struct wal_scan_result result;

    memset(b, 0, sizeof(*b));
    b->segment_bytes = rig->start.segment_bytes;
    for (unsigned n = 1; n <= SEGMENTS; n++) {
        b->image[n] = malloc(b->segment_bytes);
        AF_ASSERT(b->image[n]);
    }
    assert_int_equal(wal_scan(rig->io, &rig->start, note_truth, b, &result), 0);
    assert_int_equal(result.end, WAL_END_CLEAN);
    book_read(b, rig->sim, true);
}

static void book_free(struct book *b)
{
    for (unsigned n = 1; n <= SEGMENTS; n++)
        free(b->image[n]);
}

// ---- the model ----

struct verdict {
    uint64_t last_lsn;
    bool damaged;
};

static bool stands(const struct book *b, const struct truth *t, uint64_t segment, uint64_t off)
{
    return t->segment == segment && off <= b->segment_bytes && t->bytes <= b->segment_bytes - off &&
           memcmp(b->image[segment] + off, t->copy, t->bytes) == 0;
}

static bool header_stands(const struct book *b, uint64_t segment)
{
    return b->first_lsn[segment] != 0 &&
           memcmp(b->image[segment], b->headers[segment], WAL_BLOCK) == 0;
}

// Whether record `t` is found next when the one before it ended at `off`. A group begins at a
// block, and what is not right behind its predecessor begins one.
static bool follows(const struct book *b, const struct truth *t, uint64_t segment, uint64_t *off,
                    bool first)
{
    const uint64_t block = AF_ROUND_UP(*off, (uint64_t)WAL_BLOCK);

    if (stands(b, t, segment, *off) && (t->group_start ? *off % WAL_BLOCK == 0 : !first)) {
        *off += AF_ROUND_UP(t->bytes, (size_t)WAL_ALIGN);
        return true;
    }
    if (block != *off && stands(b, t, segment, block) && t->group_start) {
        *off = block + AF_ROUND_UP(t->bytes, (size_t)WAL_ALIGN);
        return true;
    }
    return false;
}

// Anything behind the end that says that record `lsn` was durable: it was written, so it is true.
static bool proof_stands(const struct book *b, uint64_t lsn, uint64_t segment, uint64_t off)
{
    for (uint64_t n = segment; n <= SEGMENTS; n++) {
        if ((n > segment || off == 0) && header_stands(b, n) && b->header_durable[n] >= lsn)
            return true;
        for (size_t i = 0; i < b->count; i++) {
            const struct truth *t = &b->records[i];

            if (t->segment != n || t->lsn < lsn || t->durable_lsn < lsn)
                continue;
            for (uint64_t at = n == segment ? AF_ROUND_UP(off, (uint64_t)WAL_ALIGN) : 0;
                 at < b->segment_bytes; at += WAL_ALIGN)
                if (stands(b, t, n, at))
                    return true;
        }
    }
    return false;
}

static struct verdict model(const struct book *b)
{
    struct verdict v = {0};
    uint64_t segment = 1, off = WAL_BLOCK;
    size_t i = 0;
    bool first = true;

    if (!header_stands(b, 1)) {
        v.damaged = proof_stands(b, 1, 1, 0);
        return v;
    }
    while (i < b->count) {
        if (follows(b, &b->records[i], segment, &off, first)) {
            v.last_lsn = b->records[i++].lsn;
            first = false;
            continue;
        }
        if (segment == SEGMENTS || !header_stands(b, segment + 1))
            break;
        if (b->first_lsn[segment + 1] != v.last_lsn + 1) {
            v.damaged = true; // it was begun when everything before it was durable
            return v;
        }
        segment++;
        off = WAL_BLOCK;
        first = true;
    }
    if (i < b->count)
        v.damaged = proof_stands(b, b->records[i].lsn, segment, off);
    return v;
}

// ---- damage ----

struct tally {
    uint64_t images, damaged, whole;
};

static void judge(struct rig *rig, struct book *b, struct sim *sim, struct tally *tally,
                  const char *what, uint64_t a, uint64_t c)
{
    struct wal_scan_result result;
    struct rig_seen seen;

    book_read(b, sim, false);
    struct verdict v = model(b);
    rig_read_disk(sim, &rig->start, &result, &seen);
    bool damaged = result.end == WAL_END_DAMAGED;

    if (damaged != v.damaged || result.last_lsn != v.last_lsn || result.end == WAL_END_MISSING)
        fail_msg("%s (%llu, %llu): the reader says %d, LSN %llu (%s); the model %s, LSN %llu", what,
                 (unsigned long long)a, (unsigned long long)c, (int)result.end,
                 (unsigned long long)result.last_lsn, damaged ? result.what : "",
                 v.damaged ? "damaged" : "not damaged", (unsigned long long)v.last_lsn);
    tally->images++;
    tally->damaged += damaged;
    tally->whole += v.last_lsn == b->records[b->count - 1].lsn;
}

static void log_setup(struct rig *rig)
{
    static const struct {
        size_t count, bytes;
    } groups[] = {{1, 40},  {3, 300}, {1, 464}, {2, 2500}, {5, 16}, {1, 0},
                  {1, 976}, {4, 700}, {2, 200}, {3, 976},  {1, 60}, {2, 1500}};

    rig_make_disk(rig, 1);
    rig->start.segment_bytes = 7 * WAL_BLOCK;
    assert_int_equal(wal_create_segments(rig->io, &rig->start), 0);
    rig_open(rig);
    for (size_t i = 0; i < AF_ARRAY_LEN(groups); i++) {
        uint64_t lsn = 0;

        for (size_t n = 0; n < groups[i].count; n++)
            lsn = rig_append(rig, groups[i].bytes);
        assert_int_equal(wal_wait(rig->wal, lsn), 0);
    }
    struct wal_stats stats;
    wal_get_stats(rig->wal, &stats);
    assert_int_equal(stats.current_segment, SEGMENTS);
}

static void test_verdicts_on_every_flipped_byte(void **state)
{
    struct tally tally = {0};
    struct rig rig;
    struct book b;
    char path[32];

    (void)state;
    log_setup(&rig);
    book_init(&b, &rig);
    struct sim *sim = sim_clone(rig.sim);
    for (uint64_t n = 1; n <= SEGMENTS; n++) {
        wal_segment_path(n, path);
        for (uint64_t off = 0; off < b.segment_bytes;
             off += off < 120 || off >= WAL_BLOCK ? 3 : 61) {
            uint8_t mask = (uint8_t)(1u << (off / 3) % 8);

            assert_int_equal(sim_flip_bits(sim, path, off, mask), 0);
            judge(&rig, &b, sim, &tally, "flipped", n, off);
            assert_int_equal(sim_flip_bits(sim, path, off, mask), 0);
        }
    }
    print_message("%llu images, %llu damaged\n", (unsigned long long)tally.images,
                  (unsigned long long)tally.damaged);
    assert_true(tally.damaged > 1000 && tally.whole > 100);
    sim_destroy(sim);
    book_free(&b);
    rig_teardown(&rig);
}

// Every record with another length in its header: to the byte before and behind, to the next
// record, to the end of the file and beyond.
static void test_verdicts_on_damaged_lengths(void **state)
{
    static const uint32_t lengths[] = {
        0,     1,     7,       8,       15,         16,         17,         40,        47,   48,
        299,   300,   301,     464,     976,        1023,       4047,       4048,      4096, 12288,
        20000, 28672, 1048576, 1048577, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFD0};
    struct tally tally = {0};
    struct rig rig;
    struct book b;
    char path[32];

    (void)state;
    log_setup(&rig);
    book_init(&b, &rig);
    struct sim *sim = sim_clone(rig.sim);
    for (size_t i = 0; i < b.count; i++) {
        const struct truth *t = &b.records[i];
        uint64_t at = t->off + offsetof(struct wal_disk_record, body_bytes);

        wal_segment_path(t->segment, path);
        for (size_t n = 0; n < AF_ARRAY_LEN(lengths) + 3; n++) {
            uint32_t body = (uint32_t)(t->bytes - WAL_RECORD_HEADER);
            uint32_t length = n < AF_ARRAY_LEN(lengths)        ? lengths[n]
                              : n == AF_ARRAY_LEN(lengths)     ? body - 1
                              : n == AF_ARRAY_LEN(lengths) + 1 ? body + 1
                                                               : (uint32_t)AF_ROUND_UP(body, 8u);
            le32 field = le32_put(length);

            assert_int_equal(sim_write_raw(sim, path, at, &field, sizeof(field)), 0);
            judge(&rig, &b, sim, &tally, "length", t->lsn, length);
        }
        assert_int_equal(sim_write_raw(sim, path, t->off, t->copy, t->bytes), 0);
    }
    assert_true(tally.damaged > 500);
    sim_destroy(sim);
    book_free(&b);
    rig_teardown(&rig);
}

// A record whose checksum is right in the place of another one: older ones, later ones, itself
// elsewhere, its own log's and that of another segment.
static void test_verdicts_on_valid_records_in_wrong_places(void **state)
{
    struct tally tally = {0};
    struct rig rig;
    struct book b;
    char path[32];

    (void)state;
    log_setup(&rig);
    book_init(&b, &rig);
    struct sim *sim = sim_clone(rig.sim);
    for (size_t i = 0; i < b.count; i++) {
        for (size_t j = 0; j < b.count; j++) {
            const struct truth *from = &b.records[i], *to = &b.records[j];
            static uint8_t saved[4096];

            wal_segment_path(to->segment, path);
            if (to->off + from->bytes > b.segment_bytes)
                continue;
            assert_int_equal(sim_read_raw(sim, path, to->off, saved, from->bytes), 0);
            assert_int_equal(sim_write_raw(sim, path, to->off, from->copy, from->bytes), 0);
            judge(&rig, &b, sim, &tally, "copied", from->lsn, to->lsn);
            assert_int_equal(sim_write_raw(sim, path, to->off, saved, from->bytes), 0);
            // And at the next block boundary behind it.
            uint64_t block = AF_ROUND_UP(to->off + 1, (uint64_t)WAL_BLOCK);

            if (block + from->bytes > b.segment_bytes)
                continue;
            assert_int_equal(sim_read_raw(sim, path, block, saved, from->bytes), 0);
            assert_int_equal(sim_write_raw(sim, path, block, from->copy, from->bytes), 0);
            judge(&rig, &b, sim, &tally, "copied to the block behind", from->lsn, to->lsn);
            assert_int_equal(sim_write_raw(sim, path, block, saved, from->bytes), 0);
        }
    }
    print_message("%llu images, %llu damaged\n", (unsigned long long)tally.images,
                  (unsigned long long)tally.damaged);
    assert_true(tally.damaged > 300);
    sim_destroy(sim);
    book_free(&b);
    rig_teardown(&rig);
}

// One to five sectors or blocks: zeros, garbage, or bytes of another place.
static void random_damage(struct sim *sim, const struct book *b, struct rng *r)
{
    for (uint64_t n = 1 + rng_below(r, 5); n > 0; n--) {
        size_t bytes = rng_chance(r, 70) ? SIM_SECTOR_BYTES : WAL_BLOCK;
        uint64_t off = rng_below(r, b->segment_bytes / bytes) * bytes;
        uint8_t fill[WAL_BLOCK] = {0};
        char path[32], other[32];

        wal_segment_path(1 + rng_below(r, SEGMENTS), path);
        wal_segment_path(1 + rng_below(r, SEGMENTS), other);
        switch (rng_below(r, 4)) {
        case 0:
            break;
        case 1:
            for (size_t i = 0; i < bytes; i++)
                fill[i] = (uint8_t)rng_next(r);
            break;
        default:
            assert_int_equal(sim_read_raw(sim, rng_chance(r, 70) ? path : other,
                                          rng_below(r, b->segment_bytes / bytes) * bytes, fill,
                                          bytes),
                             0);
        }
        assert_int_equal(sim_write_raw(sim, path, off, fill, bytes), 0);
    }
}

static void test_verdicts_on_random_damage(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 4000);
    struct tally tally = {0};
    struct rig rig;
    struct book b;

    (void)state;
    log_setup(&rig);
    book_init(&b, &rig);
    for (uint64_t i = 0; i < runs; i++) {
        struct rng r = {rng_mix(seed + i, 50)};
        struct sim *sim = sim_clone(rig.sim);

        random_damage(sim, &b, &r);
        judge(&rig, &b, sim, &tally, "random (SEED=, RUNS=1)", seed + i, 0);
        sim_destroy(sim);
    }
    if (runs >= 1000)
        assert_true(tally.damaged > runs / 4 && tally.damaged < runs);
    book_free(&b);
    rig_teardown(&rig);
}

// ---- one batch ----

// Each record of one group damaged alone, in its header and its body: those before it are read, it
// and those behind it are not.
static void test_each_record_of_a_batch_damaged_alone(void **state)
{
    struct wal_scan_result result;
    struct rig_seen seen;
    struct rig rig;
    struct book b;
    char path[32];

    (void)state;
    for (int proven = 0; proven < 2; proven++) {
        uint64_t lsn = 0;

        rig_setup(&rig, 1);
        rig_commit(&rig, 100);
        for (size_t i = 0; i < 12; i++)
            lsn = rig_append(&rig, 30 + 97 * i);
        assert_int_equal(wal_wait(rig.wal, lsn), 0);
        if (proven)
            rig_commit(&rig, 10);
        book_init(&b, &rig);
        for (size_t i = 1; i <= 12; i++) {
            const struct truth *t = &b.records[i];

            assert_int_equal(t->group_start, i == 1);
            wal_segment_path(t->segment, path);
            for (size_t at = 0; at < t->bytes; at += at < WAL_RECORD_HEADER ? 1 : 13) {
                assert_int_equal(sim_flip_bits(rig.sim, path, t->off + at, 0x10), 0);
                rig_read_disk(rig.sim, &rig.start, &result, &seen);
                assert_int_equal(result.last_lsn, t->lsn - 1);
                assert_int_equal(result.end, proven ? WAL_END_DAMAGED : WAL_END_TORN);
                if (proven)
                    assert_int_equal(result.proof_lsn, lsn);
                assert_int_equal(sim_flip_bits(rig.sim, path, t->off + at, 0x10), 0);
            }
        }
        book_free(&b);
        rig_teardown(&rig);
    }
}

static void mask(struct truth *t)
{
    struct wal_disk_record disk;

    memcpy(&disk, t->copy, sizeof(disk));
    disk.durable_lsn = le64_put(0);
    disk.prev_checksum = le64_put(0);
    disk.checksum = le64_put(0);
    disk.flags = le16_put(0);
    memcpy(t->copy, &disk, sizeof(disk));
}

// The same records in one group, and each in its own: what differs is where they lie, the flag of a
// group's first, durable_lsn, and the checksums that cover these. With the same three, record by
// record, the bytes are the same.
static void test_batched_bytes_are_the_unbatched_ones(void **state)
{
    struct rig one, many;
    static struct book batched, single;
    uint64_t lsn = 0;

    (void)state;
    rig_setup(&one, 1);
    rig_setup(&many, 1);
    for (size_t i = 0; i < 9; i++) {
        lsn = rig_append(&one, 11 + 83 * i);
        rig_commit(&many, 11 + 83 * i);
    }
    assert_int_equal(wal_wait(one.wal, lsn), 0);
    book_init(&batched, &one);
    book_init(&single, &many);
    assert_int_equal(batched.count, 9);
    assert_int_equal(single.count, 9);
    const uint64_t salt = wal_format_salt(one.start.log_seed, one.start.epoch, 1);
    uint64_t prev = 0;
    for (size_t i = 0; i < 9; i++) {
        struct truth *x = &batched.records[i], *y = &single.records[i], sealed = *y;
        le16 flags = le16_put(x->group_start ? WAL_FLAG_GROUP : 0);

        assert_int_equal(x->durable_lsn, 0);
        assert_int_equal(y->durable_lsn, i);
        assert_true(y->group_start && x->group_start == (i == 0));
        memcpy(sealed.copy + offsetof(struct wal_disk_record, flags), &flags, sizeof(flags));
        prev = wal_record_seal(sealed.copy, salt, x->durable_lsn, prev);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(sealed.copy, x->copy, x->bytes);
        mask(x);
        mask(y);
        assert_memory_equal(x->copy, y->copy, x->bytes);
    }
    book_free(&batched);
    book_free(&single);
    rig_teardown(&one);
    rig_teardown(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts_on_every_flipped_byte),
        cmocka_unit_test(test_verdicts_on_damaged_lengths),
        cmocka_unit_test(test_verdicts_on_valid_records_in_wrong_places),
        cmocka_unit_test(test_verdicts_on_random_damage),
        cmocka_unit_test(test_each_record_of_a_batch_damaged_alone),
        cmocka_unit_test(test_batched_bytes_are_the_unbatched_ones),
    };

    return cmocka_run_group_tests_name("wal_verdict", tests, NULL, NULL);
}
