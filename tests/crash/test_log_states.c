// SPDX-License-Identifier: MIT
// Every state in which a crash can leave the one write of the log that is under way: each of its
// sectors new, old, garbage or a copy of its neighbour, all of it cut at each byte. Sectors have
// 512 or 4096 bytes. The verdict is that of a model which knows what was written: all that was
// acknowledged, then the records of the group up to the first one that is not there byte for byte.
// Nothing of it is ever damage.
#include <fcntl.h>
#include <sys/stat.h>

#include "checkpoint/superblock.h"
#include "checkpoint/superblock_format.h"
#include "tests/lib/canon.h"
#include "tests/lib/fixture.h"
#include "tests/lib/rng.h"
#include "tests/unit/test_wal_rig.h"

#define SMALL_BYTES (8u * WAL_BLOCK)

// ---- a write and the model of it ----

struct flight {
    char path[SIM_PATH_BYTES];
    uint64_t off;
    size_t len;
    uint64_t acked; // LSN before it
    size_t records;
    size_t at[64], bytes[64]; // of each record in the write, without padding
    uint8_t old[SMALL_BYTES], new[SMALL_BYTES];
};

static void note_records(struct flight *f)
{
    size_t at = f->off == 0 ? WAL_BLOCK : 0;
    struct wal_frame frame;

    f->records = 0;
    while (at < f->len && wal_frame_decode(f->new + at, f->len - at, &frame) == 0) {
        f->at[f->records] = at;
        f->bytes[f->records++] = WAL_RECORD_HEADER + frame.body_bytes;
        at += wal_record_bytes(frame.body_bytes);
    }
}

// The last write of the log since `from`, and what `before` has in its place.
static void catch_flight(struct sim *sim, const struct sim *before, uint64_t from, struct flight *f)
{
    const struct sim_event *found = NULL;

    for (uint64_t i = from; i < sim_event_count(sim); i++)
        if (sim_event(sim, i)->call == SIM_START_WRITE)
            found = sim_event(sim, i);
    assert_non_null(found);
    memcpy(f->path, found->path, sizeof(f->path));
    f->off = found->off;
    f->len = (size_t)found->len;
    AF_ASSERT(f->len <= sizeof(f->new));
    assert_int_equal(sim_read_raw(sim, f->path, f->off, f->new, f->len), 0);
    assert_int_equal(sim_read_raw(before, f->path, f->off, f->old, f->len), 0);
    note_records(f);
}

// How many of its records are in `image`, each whole and none after an absent one.
static size_t model_records(const struct flight *f, const uint8_t *image)
{
    size_t k = 0;

    if (f->off == 0 && memcmp(image, f->new, WAL_BLOCK) != 0)
        return 0;
    while (k < f->records && memcmp(image + f->at[k], f->new + f->at[k], f->bytes[k]) == 0)
        k++;
    return k;
}

static void check_image(struct rig *rig, const struct flight *f, const uint8_t *image)
{
    const size_t k = model_records(f, image);
    struct wal_scan_result result;
    struct rig_seen seen;

    assert_int_equal(sim_write_raw(rig->sim, f->path, f->off, image, f->len), 0);
    rig_read_disk(rig->sim, &rig->start, &result, &seen);
    if ((result.end != WAL_END_CLEAN && result.end != WAL_END_TORN) ||
        result.last_lsn != f->acked + k)
        fail_msg("%s+%llu: the end is %d at LSN %llu, the model says %llu: %s", f->path,
                 (unsigned long long)f->off, (int)result.end, (unsigned long long)result.last_lsn,
                 (unsigned long long)(f->acked + k),
                 result.end == WAL_END_CLEAN ? "" : result.what);
    if (memcmp(image, f->old, f->len) == 0 || memcmp(image, f->new, f->len) == 0)
        assert_int_equal(result.end, WAL_END_CLEAN);
    assert_true(result.durable_lsn <= result.last_lsn);
}

// ---- the sectors ----

enum fill { NEW, OLD, GARBAGE, NEIGHBOUR, FILLS };

static void fill_sector(const struct flight *f, uint8_t *image, size_t at, size_t bytes,
                        enum fill fill, struct rng *r)
{
    const size_t next = at + bytes < f->len ? at + bytes : 0;

    switch (fill) {
    case NEW:
        memcpy(image + at, f->new + at, bytes);
        break;
    case OLD:
        memcpy(image + at, f->old + at, bytes);
        break;
    case GARBAGE:
        for (size_t i = 0; i < bytes; i += 8) {
            uint64_t word = rng_next(r);

            memcpy(image + at + i, &word, sizeof(word));
        }
        break;
    case NEIGHBOUR:
    case FILLS:
        memcpy(image + at, f->new + next, bytes);
        break;
    }
}

// All of the fills^sectors states. Returns how many.
static uint64_t all_states(struct rig *rig, const struct flight *f, size_t sector, unsigned fills)
{
    const size_t sectors = f->len / sector;
    uint64_t count = 1;
    uint8_t image[SMALL_BYTES];
    struct rng r = {rng_mix(f->acked, sector)};

    for (size_t i = 0; i < sectors; i++)
        count *= fills;
    for (uint64_t state = 0; state < count; state++) {
        uint64_t left = state;

        for (size_t i = 0; i < sectors; i++, left /= fills)
            fill_sector(f, image, i * sector, sector, (enum fill)(left % fills), &r);
        check_image(rig, f, image);
    }
    assert_int_equal(sim_write_raw(rig->sim, f->path, f->off, f->new, f->len), 0);
    return count;
}

static void small_setup(struct rig *rig, unsigned blocks)
{
    rig_make_disk(rig, 1);
    rig->start.segment_bytes = blocks * WAL_BLOCK;
    assert_int_equal(wal_create_segments(rig->io, &rig->start), 0);
    rig_open(rig);
}

// One flush of `count` records of `bytes`.
static void fly(struct rig *rig, size_t count, size_t bytes, struct flight *f)
{
    struct sim *before = sim_clone(rig->sim);
    uint64_t from = sim_event_count(rig->sim), lsn = 0;

    f->acked = wal_durable_lsn(rig->wal);
    for (size_t i = 0; i < count; i++)
        lsn = rig_append(rig, bytes);
    assert_int_equal(wal_wait(rig->wal, lsn), 0);
    catch_flight(rig->sim, before, from, f);
    assert_int_equal(f->records, count);
    sim_destroy(before);
}

// Moves on to where the next flush of one block begins a segment that was used before, or goes on
// in one.
static void recycle(struct rig *rig, bool first)
{
    struct wal_stats stats;
    struct wal_start start = rig->start;

    for (uint64_t i = 1; i <= 12; i++) {
        (void)rig_commit(rig, 300);
        rig->start = start;
        start = rig_checkpoint(rig, i); // a group of its own
        assert_int_equal(wal_prepare_segments(rig->wal), 0);
        rig->start = start;
    }
    // A full segment is one that the next flush leaves.
    do {
        (void)rig_commit(rig, 300);
        wal_get_stats(rig->wal, &stats);
    } while ((stats.log_bytes % rig->start.segment_bytes == 0) != first);
}

static void test_every_state_of_the_sectors_of_one_block(void **state)
{
    struct flight f;
    struct rig rig;
    uint64_t states = 0;

    (void)state;
    small_setup(&rig, 4);
    rig_commit(&rig, 200);
    fly(&rig, 6, 464, &f); // a record fills a sector: copies of sectors are whole records
    states += all_states(&rig, &f, SIM_SECTOR_BYTES, FILLS);
    fly(&rig, 3, 1200, &f); // records across sectors
    states += all_states(&rig, &f, SIM_SECTOR_BYTES, 3);
    rig_teardown(&rig);

    small_setup(&rig, 4);
    recycle(&rig, false); // the old bytes are records, of another use
    fly(&rig, 9, 400, &f);
    assert_int_equal(f.len, WAL_BLOCK);
    states += all_states(&rig, &f, SIM_SECTOR_BYTES, FILLS);
    rig_teardown(&rig);
    print_message("%llu states\n", (unsigned long long)states);
}

static void test_every_subset_of_the_sectors_of_two_blocks(void **state)
{
    struct flight f;
    struct rig rig;
    uint64_t states = 0;

    (void)state;
    small_setup(&rig, 6);
    recycle(&rig, false);
    fly(&rig, 5, 1400, &f);
    if (f.off == 0) // the segment had one block left
        fly(&rig, 5, 1400, &f);
    assert_int_equal(f.len, 2 * WAL_BLOCK);
    states += all_states(&rig, &f, SIM_SECTOR_BYTES, 2);
    rig_teardown(&rig);

    // The first write of a segment takes the header along.
    small_setup(&rig, 6);
    recycle(&rig, true);
    fly(&rig, 4, 700, &f);
    assert_int_equal(f.off, 0);
    assert_int_equal(f.len, 2 * WAL_BLOCK);
    states += all_states(&rig, &f, SIM_SECTOR_BYTES, 2);
    rig_teardown(&rig);
    print_message("%llu states\n", (unsigned long long)states);
}

static void test_every_state_of_large_sectors(void **state)
{
    struct flight f;
    struct rig rig;
    uint64_t states = 0;

    (void)state;
    small_setup(&rig, 8);
    fly(&rig, 2, 3000, &f); // the very first one of the epoch
    assert_int_equal(f.off, 0);
    states += all_states(&rig, &f, WAL_BLOCK, FILLS);
    recycle(&rig, true);
    fly(&rig, 7, 1500, &f);
    assert_int_equal(f.off, 0);
    states += all_states(&rig, &f, WAL_BLOCK, FILLS);
    fly(&rig, 1, 12000, &f); // one record across three blocks
    assert_int_equal(f.len, 3 * WAL_BLOCK);
    states += all_states(&rig, &f, WAL_BLOCK, FILLS);
    rig_teardown(&rig);
    print_message("%llu states\n", (unsigned long long)states);
}

// ---- the bytes ----

// The write is cut behind each byte of it, and before each.
static void every_length(struct rig *rig, const struct flight *f)
{
    uint8_t image[SMALL_BYTES];

    for (size_t len = 0; len <= f->len; len++) {
        memcpy(image, f->new, len);
        memcpy(image + len, f->old + len, f->len - len);
        check_image(rig, f, image);
        if (len % 16 != 3)
            continue;
        memcpy(image, f->old, len);
        memcpy(image + len, f->new + len, f->len - len);
        check_image(rig, f, image);
    }
}

static void fly_type(struct rig *rig, enum wal_type type, size_t bytes, struct flight *f)
{
    struct sim *before = sim_clone(rig->sim);
    uint64_t from = sim_event_count(rig->sim), lsn;
    uint8_t body[SMALL_BYTES];

    f->acked = wal_durable_lsn(rig->wal);
    rig_body(f->acked + 1, body, bytes);
    assert_int_equal(wal_append(rig->wal, type, body, bytes, 0, &lsn), 0);
    assert_int_equal(wal_wait(rig->wal, lsn), 0);
    catch_flight(rig->sim, before, from, f);
    sim_destroy(before);
}

static void test_every_length_of_each_record_type(void **state)
{
    static const struct {
        enum wal_type type;
        size_t bytes;
    } cases[] = {
        {WAL_OPERATION, 0},    {WAL_OPERATION, 1},     {WAL_OPERATION, 4000},
        {WAL_OPERATION, 4048}, {WAL_OPERATION, 4049},  {WAL_MARKER, WAL_MARKER_BODY},
        {WAL_ATTESTATION, 0},  {WAL_OPERATION, 10000},
    };
    struct flight f;
    struct rig rig;

    (void)state;
    for (size_t i = 0; i < AF_ARRAY_LEN(cases); i++) {
        small_setup(&rig, 8);
        if (i % 2)
            recycle(&rig, false);
        rig_commit(&rig, 100);
        fly_type(&rig, cases[i].type, cases[i].bytes, &f);
        every_length(&rig, &f);
        rig_teardown(&rig);
    }
    // With the header of a segment before it.
    small_setup(&rig, 8);
    fly_type(&rig, WAL_OPERATION, 500, &f);
    every_length(&rig, &f);
    recycle(&rig, true);
    fly_type(&rig, WAL_OPERATION, 500, &f);
    every_length(&rig, &f);
    rig_teardown(&rig);
}

// A segment that is being made: until it is whole it does not count, and a log that needs it says
// so.
static void test_every_length_of_a_segment_file(void **state)
{
    struct wal_scan_result result;
    struct rig_seen seen;
    struct rig rig;

    (void)state;
    small_setup(&rig, 8);
    rig_commit(&rig, 100);
    for (uint64_t len = SMALL_BYTES; len > 0; len--) {
        assert_int_equal(sim_truncate_raw(rig.sim, "wal/0000000000000002.seg", len - 1), 0);
        rig_read_disk(rig.sim, &rig.start, &result, &seen);
        assert_int_equal(result.end, WAL_END_MISSING);
        assert_non_null(strstr(result.what, "wal/0000000000000002.seg has"));
    }
    rig_teardown(&rig);
}

// ---- mounted ----

static uint64_t tree_hash(struct fixture *fx)
{
    char where[CANON_WHERE_BYTES];
    struct canon c = {0};

    assert_int_equal(canon_store(fx->store, &c, where), 0);
    uint64_t hash = c.hash;
    canon_free(&c);
    return hash;
}

static void make_dir(struct fixture *fx, const char *name)
{
    const struct store_cred cred = {.uid = 1, .gid = 2};
    struct store_attr attr;

    assert_int_equal(store_mknod(fx->store, STORE_BLOCK, 1, name, S_IFDIR | 0755, 0, &cred, &attr),
                     0);
}

// Three operations of one group on their way to the disk, in every state of the sectors: the mount
// succeeds, shows a whole number of them, and says what it has dropped.
static void test_every_subset_of_a_group_mounts(void **state)
{
    uint64_t hashes[4], seen[4] = {0}, reported = 0;
    struct rng r = {77};
    struct fixture fx;
    struct flight f;
    uint8_t image[SMALL_BYTES];

    (void)state;
    fixture_init(&fx, 3);
    assert_int_equal(fixture_create(&fx), 0);
    assert_int_equal(fixture_open(&fx), 0);
    make_dir(&fx, "acknowledged");
    assert_int_equal(fixture_sync(&fx), 0);
    struct sim *before = sim_clone(fx.sim);
    uint64_t from = sim_event_count(fx.sim);
    f.acked = wal_durable_lsn(engine_wal(fx.engine));
    hashes[0] = tree_hash(&fx);
    for (unsigned i = 1; i <= 3; i++) {
        char name[231]; // such that no record lies in one sector alone, and the last not in the
                        // second
        memset(name, 'a' + (int)i, sizeof(name) - 1);
        name[sizeof(name) - 1] = 0;
        make_dir(&fx, name);
        hashes[i] = tree_hash(&fx);
    }
    assert_int_equal(fixture_sync(&fx), 0);
    catch_flight(fx.sim, before, from, &f);
    assert_int_equal(f.records, 3);
    assert_int_equal(f.len, WAL_BLOCK);
    crash_disk(before, CRASH_DROP_ALL, 0);
    // What lies behind the records is padding in every state; the sectors with records count.
    const unsigned sectors = (unsigned)((f.at[2] + f.bytes[2]) / SIM_SECTOR_BYTES + 1);
    for (unsigned subset = 0; subset < 3u << sectors; subset++) {
        struct fixture cut;

        for (unsigned i = 0; i < f.len / SIM_SECTOR_BYTES; i++) {
            enum fill other = subset >> sectors == 0   ? OLD
                              : subset >> sectors == 1 ? GARBAGE
                                                       : NEIGHBOUR;

            fill_sector(&f, image, i * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES,
                        i >= sectors || subset >> i & 1 ? NEW : other, &r);
        }
        size_t k = model_records(&f, image);

        fixture_adopt(&cut, sim_clone(before), &fx.options);
        assert_int_equal(sim_write_raw(cut.sim, f.path, f.off, image, f.len), 0);
        if (fixture_open(&cut) < 0)
            fail_msg("subset %u: %s", subset, cut.refusal);
        assert_true(tree_hash(&cut) == hashes[k]);
        reported += strstr(cut.said, "never acknowledged") != NULL;
        seen[k]++;
        fixture_free(&cut);
    }
    for (unsigned k = 0; k <= 3; k++)
        assert_true(seen[k] > 0);
    assert_true(reported > 0);
    sim_destroy(before);
    fixture_free(&fx);
}

// ---- syncs of any speed ----

enum speed { EACH_WAITED_FOR, WAITED_FOR_AT_THE_END, LAZY, HELD, SPEEDS };

static void note_done(struct wal_waiter *w, int result)
{
    assert_int_equal(result, 0);
    w->lsn = 0; // told
}

// A file of some size, which its fsync completes; then a rename over an older one now and then.
static void put_file(struct fixture *fx, unsigned i, struct wal_waiter *w)
{
    static uint8_t bytes[60000];
    const struct store_cred cred = {.uid = 1, .gid = 2};
    struct store_file *file;
    struct store_attr attr;
    char name[32];

    memset(bytes, (int)i + 1, sizeof(bytes));
    (void)snprintf(name, sizeof(name), "file-%u", i);
    assert_int_equal(
        store_create(fx->store, STORE_BLOCK, 1, name, 0644, O_RDWR, &cred, &attr, &file), 0);
    assert_int_equal(
        store_write(fx->store, STORE_BLOCK, file, 0, bytes, 1 + i * 7919 % sizeof(bytes), false),
        0);
    *w = (struct wal_waiter){.done = note_done};
    if (store_fsync(fx->store, STORE_BLOCK, attr.ino, w) == 1)
        w->lsn = 0;
    store_kick(fx->store);
    assert_int_equal(store_release(fx->store, STORE_BLOCK, file), 0);
    if (i % 5 == 4)
        assert_int_equal(store_rename(fx->store, STORE_BLOCK, 1, name, 1, "file-0", 0), 0);
}

static void disk_works(struct fixture *fx, enum speed speed, unsigned i)
{
    struct wal *wal = engine_wal(fx->engine);

    if (speed == EACH_WAITED_FOR)
        assert_int_equal(fixture_sync(fx), 0);
    else if (speed == LAZY && i % 3 == 0)
        (void)wal_pump(wal, false);
    else if (speed == HELD && i % 10 == 9) {
        sim_release_held(fx->sim);
        (void)wal_pump(wal, false);
    }
}

// The tree at the end, before and after a power cut.
static void tree_at_speed(enum speed speed, uint64_t hashes[2])
{
    const struct sim_fault held = {.calls = SIM_BIT(SIM_START_WRITE) | SIM_BIT(SIM_START_SYNC),
                                   .times = SIM_FOREVER,
                                   .effect = SIM_FAULT_HOLD};
    static struct wal_waiter waiters[40];
    struct fixture fx;

    fixture_init(&fx, 5);
    assert_int_equal(fixture_create(&fx), 0);
    assert_int_equal(fixture_open(&fx), 0);
    sim_set_lazy(fx.sim, speed == LAZY);
    if (speed == HELD)
        (void)sim_fault_add(fx.sim, &held);
    for (unsigned i = 0; i < AF_ARRAY_LEN(waiters); i++) {
        put_file(&fx, i, &waiters[i]);
        disk_works(&fx, speed, i);
    }
    sim_faults_clear(fx.sim);
    sim_release_held(fx.sim);
    assert_int_equal(fixture_sync(&fx), 0);
    for (unsigned i = 0; i < AF_ARRAY_LEN(waiters); i++)
        assert_int_equal(waiters[i].lsn, 0);
    hashes[0] = tree_hash(&fx);
    fixture_leave(&fx);
    crash_disk(fx.sim, CRASH_DROP_ALL, 0);
    assert_int_equal(fixture_open(&fx), 0);
    hashes[1] = tree_hash(&fx);
    fixture_free(&fx);
}

static void test_the_tree_is_the_same_however_long_a_sync_takes(void **state)
{
    uint64_t first[2], other[2];

    (void)state;
    tree_at_speed(EACH_WAITED_FOR, first);
    assert_true(first[0] == first[1]);
    for (unsigned speed = 1; speed < SPEEDS; speed++) {
        tree_at_speed((enum speed)speed, other);
        assert_true(other[0] == first[0] && other[1] == first[0]);
    }
}

// A superblock cut at each byte: the old one or the new one, by whether all of it is there.
static void test_every_length_of_a_superblock(void **state)
{
    static uint8_t old[2 * SUPERBLOCK_SLOT_BYTES], new[2 * SUPERBLOCK_SLOT_BYTES];
    struct superblock_slots slots;
    struct fixture fx;

    (void)state;
    fixture_init(&fx, 3);
    assert_int_equal(fixture_create(&fx), 0);
    assert_int_equal(fixture_open(&fx), 0);
    assert_int_equal(sim_read_raw(fx.sim, "superblock", 0, old, sizeof(old)), 0);
    make_dir(&fx, "one");
    assert_int_equal(engine_checkpoint(fx.engine), 0);
    assert_int_equal(sim_read_raw(fx.sim, "superblock", 0, new, sizeof(new)), 0);
    assert_int_equal(superblock_load(sim_io(fx.sim), &slots), 0);
    const uint64_t newest = slots.sb[slots.chosen].sequence;
    superblock_slots_free(&slots);
    const size_t at = superblock_home(newest) * SUPERBLOCK_SLOT_BYTES;
    struct sim *sim = sim_clone(fx.sim);
    for (size_t len = 0; len <= SUPERBLOCK_BYTES_MIN; len++) {
        bool whole;

        memcpy(old + at, new + at, len);
        whole = memcmp(old + at, new + at, SUPERBLOCK_BYTES_MIN) == 0;
        sim_put_file(sim, "superblock", old, sizeof(old));
        assert_int_equal(superblock_load(sim_io(sim), &slots), 0);
        assert_true(slots.chosen >= 0);
        assert_int_equal(slots.sb[slots.chosen].sequence, whole ? newest : newest - 1);
        superblock_slots_free(&slots);
    }
    sim_destroy(sim);
    fixture_free(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_state_of_the_sectors_of_one_block),
        cmocka_unit_test(test_every_subset_of_the_sectors_of_two_blocks),
        cmocka_unit_test(test_every_state_of_large_sectors),
        cmocka_unit_test(test_every_length_of_each_record_type),
        cmocka_unit_test(test_every_length_of_a_segment_file),
        cmocka_unit_test(test_every_subset_of_a_group_mounts),
        cmocka_unit_test(test_the_tree_is_the_same_however_long_a_sync_takes),
        cmocka_unit_test(test_every_length_of_a_superblock),
    };

    return cmocka_run_group_tests_name("log_states", tests, NULL, NULL);
}
