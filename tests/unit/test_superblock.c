// SPDX-License-Identifier: MIT
// Tests of the superblock: its bytes, what refuses to decode, and the choice between the two slots.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/checksum.h"
#include "base/err.h"
#include "checkpoint/superblock.h"
#include "checkpoint/superblock_format.h"
#include "tests/sim/sim_disk.h"

static uint8_t slot_bytes[SUPERBLOCK_SLOT_BYTES];

static struct superblock example(uint32_t index_count)
{
    struct superblock sb = {
        .sequence = 41,
        .created = 1000,
        .written = 2000,
        .clean = true,
        .image =
            {
                .cut_lsn = 77,
                .generation = 12,
                .root = {.ref = {.address = 9, .checksum = 0x1122334455667788, .generation = 11},
                         .level = 2},
                .next_ino = 500,
                .hash_seed = 0x99aabbccddeeff00,
                .inodes = 17,
                .space = {.data_blocks = 5000, .used_blocks = 1234, .index_count = index_count},
            },
        .log =
            {
                .epoch = 3,
                .segment_bytes = 1 << 20,
                .log_segment = 6,
                .cut_lsn = 77,
                .cut_checksum = 0x7777,
                .next_lsn = 70,
                .log_seed = 0xabcdef,
            },
    };

    memset(sb.log.uuid, 0x5a, sizeof(sb.log.uuid));
    memset(sb.image.uuid, 0x5a, sizeof(sb.image.uuid));
    sb.image.space.refs = calloc(index_count, sizeof(struct map_ref_disk));
    for (uint32_t i = 0; i < index_count; i++) {
        sb.image.space.refs[i] = (struct map_ref_disk){
            .checksum = le64_put(100 + i), .free = le32_put(3766), .slot = (uint8_t)(i & 1)};
    }
    return sb;
}

// As a program of bad intent, or of another version, would write it.
static void seal(uint8_t *bytes)
{
    struct superblock_disk *d = (struct superblock_disk *)bytes;
    uint32_t len = le32_get(d->bytes);

    d->checksum = le64_put(0);
    d->checksum = le64_put(checksum(CSUM_SUPERBLOCK, 0, bytes, len));
}

static void test_decode_returns_what_was_encoded(void **state)
{
    const uint32_t counts[] = {1, 2, 224, 225, INDEX_MAX};

    (void)state;
    for (size_t i = 0; i < AF_ARRAY_LEN(counts); i++) {
        struct superblock sb = example(counts[i]), got = {0};
        uint32_t len = superblock_encode(&sb, 1, slot_bytes);

        assert_int_equal(len % 4096, 0);
        assert_true(len >= 512 + 16 * counts[i] && len <= SUPERBLOCK_SLOT_BYTES);
        assert_int_equal(superblock_decode(slot_bytes, 1, &got), 0);
        assert_int_equal(got.sequence, 41);
        assert_int_equal(got.created, 1000);
        assert_int_equal(got.written, 2000);
        assert_true(got.clean);
        assert_memory_equal(&got.log, &sb.log, sizeof(sb.log));
        assert_memory_equal(&got.image.root, &sb.image.root, sizeof(sb.image.root));
        assert_int_equal(got.image.generation, 12);
        assert_int_equal(got.image.cut_lsn, 77);
        assert_int_equal(got.image.next_ino, 500);
        assert_true(got.image.hash_seed == 0x99aabbccddeeff00);
        assert_int_equal(got.image.inodes, 17);
        assert_int_equal(got.image.space.data_blocks, 5000);
        assert_int_equal(got.image.space.used_blocks, 1234);
        assert_int_equal(got.image.space.index_count, counts[i]);
        assert_memory_equal(got.image.space.refs, sb.image.space.refs, 16 * counts[i]);
        superblock_free(&got);
        superblock_free(&sb);
    }
}

// docs/FORMAT.md says where each field lies; a program of another year must find them there.
static void test_fields_lie_where_the_format_says(void **state)
{
    struct superblock sb = example(1);
    le64 number;

    (void)state;
    superblock_encode(&sb, 1, slot_bytes);
    assert_memory_equal(slot_bytes, "AEROFSSB\x01\0\0\0\0\x10\0\0", 16);
    assert_memory_equal(slot_bytes + 32, sb.log.uuid, 16);
    memcpy(&number, slot_bytes + 56, 8);
    assert_int_equal(le64_get(number), 1);
    memcpy(&number, slot_bytes + 64, 8);
    assert_int_equal(le64_get(number), 41);
    memcpy(&number, slot_bytes + 80, 8);
    assert_int_equal(le64_get(number), 77);
    memcpy(&number, slot_bytes + 264, 8);
    assert_int_equal(le64_get(number), 70);
    memcpy(&number, slot_bytes + 272, 8);
    assert_int_equal(le64_get(number), 0xabcdef);
    memcpy(&number, slot_bytes + 512, 8);
    assert_int_equal(le64_get(number), 100);
    superblock_free(&sb);
}

static void test_every_flipped_bit_is_noticed(void **state)
{
    struct superblock sb = example(2), got;
    uint32_t len = superblock_encode(&sb, 0, slot_bytes);

    (void)state;
    for (uint32_t i = 0; i < len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            slot_bytes[i] ^= (uint8_t)(1u << bit);
            int err = superblock_decode(slot_bytes, 0, &got);
            slot_bytes[i] ^= (uint8_t)(1u << bit);
            if (err != -AF_E_SB_NONE)
                fail_msg("byte %u, bit %u: %d", i, bit, err);
        }
    }
    superblock_free(&sb);
}

static void test_a_table_of_snapshots_and_its_feature_go_together(void **state)
{
    struct superblock sb = example(1), got = {0};
    struct superblock_disk *d = (struct superblock_disk *)slot_bytes;

    (void)state;
    sb.image.snapshots = (struct blkref){.address = 77, .checksum = 5, .generation = 3};
    sb.image.live_parent = 4;
    sb.image.next_snapshot = 9;
    superblock_encode(&sb, 1, slot_bytes);
    assert_int_equal(superblock_decode(slot_bytes, 1, &got), 0);
    assert_int_equal(got.image.snapshots.address, 77);
    assert_int_equal(got.image.snapshots.checksum, 5);
    assert_int_equal(got.image.live_parent, 4);
    assert_int_equal(got.image.next_snapshot, 9);
    superblock_free(&got);
    d->features_incompat = le64_put(0);
    seal(slot_bytes);
    assert_int_equal(superblock_decode(slot_bytes, 1, &got), -AF_E_SB_FIELD);
    d->features_incompat = le64_put(1);
    d->live_parent = le64_put(9); // not taken yet
    seal(slot_bytes);
    assert_int_equal(superblock_decode(slot_bytes, 1, &got), -AF_E_SB_FIELD);
    superblock_free(&sb);
}

static void test_slot_in_the_other_place_is_refused(void **state)
{
    struct superblock sb = example(1), got;

    (void)state;
    superblock_encode(&sb, 0, slot_bytes);
    assert_int_equal(superblock_decode(slot_bytes, 1, &got), -AF_E_SB_FIELD);
    superblock_free(&sb);
}

// An impossible value under a right checksum: a field at `off` of `len` bytes gets `value`.
static void expect(uint32_t off, unsigned len, uint64_t value, int expected)
{
    struct superblock sb = example(1), got;

    superblock_encode(&sb, 1, slot_bytes);
    for (unsigned i = 0; i < len; i++)
        slot_bytes[off + i] = (uint8_t)(value >> (8 * i));
    seal(slot_bytes);
    int err = superblock_decode(slot_bytes, 1, &got);
    if (err == 0)
        superblock_free(&got);
    if (err != expected)
        fail_msg("offset %u = %llu: %s instead of %s", off, (unsigned long long)value,
                 err_name(err), err_name(expected));
    superblock_free(&sb);
}

static void test_other_version_and_features_are_told_apart(void **state)
{
    (void)state;
    expect(8, 4, 2, -AF_E_VERSION);
    expect(8, 4, 0, -AF_E_VERSION);
    expect(16, 8, 1, -AF_E_SB_FIELD); // snapshots, and no table of them
    expect(16, 8, 2, -AF_E_VERSION);
    expect(16, 8, UINT64_C(1) << 63, -AF_E_VERSION);
    expect(24, 8, 1, 0); // may be read; who writes must look
}

static void test_impossible_fields_are_refused(void **state)
{
    static const struct {
        uint32_t off, len;
        uint64_t value;
    } cases[] = {
        {56, 8, 0},
        {56, 8, 2}, // slot
        {64, 8, 0}, // sequence
        {72, 8, 0}, // epoch
        {80, 8, 0}, // cut without its checksum
        {80, 8, UINT64_MAX},
        {88, 8, 0}, // checksum without a cut
        {96, 8, 0}, // log_segment
        {104, 8, 0},
        {104, 8, 4096}, // segment_bytes
        {104, 8, 1000000},
        {104, 8, UINT64_MAX & ~4095ull}, //
        {112, 8, 10},                    // younger root than tree
        {120, 8, 0},
        {120, 8, 5000}, // root
        {128, 8, 0},
        {136, 8, 0},
        {136, 8, 13}, //
        {144, 4, 16}, // level
        {148, 4, 2},
        {148, 4, 3}, // flags
        {152, 8, 0},
        {152, 8, 1},                       // next_ino
        {152, 8, (UINT64_C(1) << 48) + 1}, //
        {168, 8, 0},
        {168, 8, UINT64_C(252) * 32256 + 1}, // data_blocks
        {176, 8, 5001},                      // used_blocks
        {184, 8, 0},                         // inodes
        {208, 4, 0},
        {208, 4, 4065},
        {208, 4, 300}, // index_count
        {212, 4, 1},
        {216, 8, 1},
        {263, 1, 1}, // reserved, snapshots
        {264, 8, 0},
        {264, 8, UINT64_MAX}, // next_lsn
        {280, 1, 1},
        {511, 1, 1}, // reserved
        {520, 4, 0x00ffffff},
        {524, 1, 2},
        {525, 1, 1}, // index reference
        {524, 1, 255},
        {512, 8, 0},
        {527, 1, 1}, //
        {528, 1, 1},
        {4095, 1, 1}, // behind the references
    };

    (void)state;
    for (size_t i = 0; i < AF_ARRAY_LEN(cases); i++)
        expect(cases[i].off, cases[i].len, cases[i].value, -AF_E_SB_FIELD);
}

static void test_wrong_length_is_no_superblock(void **state)
{
    struct superblock sb = example(1), got;
    const uint32_t lengths[] = {0, 1, 4095, 4097, 65536 + 4096, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < AF_ARRAY_LEN(lengths); i++) {
        superblock_encode(&sb, 0, slot_bytes);
        struct superblock_disk *d = (struct superblock_disk *)slot_bytes;
        d->bytes = le32_put(lengths[i]);
        assert_int_equal(superblock_decode(slot_bytes, 0, &got), -AF_E_SB_NONE);
    }
    // A plausible one that is not this superblock's.
    superblock_encode(&sb, 0, slot_bytes);
    ((struct superblock_disk *)slot_bytes)->bytes = le32_put(8192);
    seal(slot_bytes);
    assert_int_equal(superblock_decode(slot_bytes, 0, &got), -AF_E_SB_FIELD);
    superblock_free(&sb);
}

static void test_garbage_never_decodes(void **state)
{
    struct superblock got;
    uint64_t x = 1;

    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof(slot_bytes); i++) {
            x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            slot_bytes[i] = (uint8_t)(x >> 56);
        }
        if (round % 2)
            memcpy(slot_bytes, SUPERBLOCK_MAGIC, 8);
        assert_int_equal(superblock_decode(slot_bytes, round & 1, &got), -AF_E_SB_NONE);
    }
}

// ---- the file ----

static struct sim *disk_with(uint64_t sequence0, uint64_t sequence1)
{
    struct sim *sim = sim_create(1);
    struct io *io = sim_io(sim);
    struct superblock sb = example(1);
    struct io_file *file;
    int spare = 0;

    assert_int_equal(superblock_replace(io, SUPERBLOCK_FILE_NEW, &sb, &spare), 0);
    assert_int_equal(io_file_open(io, SUPERBLOCK_FILE, IO_WRITE, &file), 0);
    sb.sequence = sequence0;
    assert_int_equal(superblock_write(file, 0, &sb), 0);
    sb.sequence = sequence1;
    assert_int_equal(superblock_write(file, 1, &sb), 0);
    io_file_close(file);
    superblock_free(&sb);
    return sim;
}

static int chosen(struct sim *sim)
{
    struct superblock_slots slots;

    assert_int_equal(superblock_load(sim_io(sim), &slots), 0);
    int slot = slots.chosen;
    superblock_slots_free(&slots);
    return slot;
}

static void test_newest_valid_slot_is_chosen(void **state)
{
    static const struct {
        uint64_t sequence0, sequence1;
        int chosen;
    } cases[] = {{4, 3, 0}, {4, 5, 1}, {6, 6, 0}, {7, 7, 1}};

    (void)state;
    for (size_t i = 0; i < AF_ARRAY_LEN(cases); i++) {
        struct sim *sim = disk_with(cases[i].sequence0, cases[i].sequence1);

        assert_int_equal(chosen(sim), cases[i].chosen);
        assert_int_equal(sim_flip_bits(sim, SUPERBLOCK_FILE, 70, 1), 0); // slot 0
        assert_int_equal(chosen(sim), 1);
        assert_int_equal(sim_flip_bits(sim, SUPERBLOCK_FILE, SUPERBLOCK_SLOT_BYTES + 70, 1), 0);
        assert_int_equal(chosen(sim), -1);
        assert_int_equal(sim_flip_bits(sim, SUPERBLOCK_FILE, 70, 1), 0);
        assert_int_equal(chosen(sim), 0);
        sim_destroy(sim);
    }
}

static void test_short_or_missing_file_is_told(void **state)
{
    struct sim *sim = disk_with(4, 5);
    struct superblock_slots slots;

    (void)state;
    assert_int_equal(sim_truncate_raw(sim, SUPERBLOCK_FILE, SUPERBLOCK_SLOT_BYTES + 100), 0);
    assert_int_equal(chosen(sim), 0);
    assert_int_equal(sim_truncate_raw(sim, SUPERBLOCK_FILE, 10), 0);
    assert_int_equal(chosen(sim), -1);
    assert_int_equal(sim_remove_raw(sim, SUPERBLOCK_FILE), 0);
    assert_int_equal(superblock_load(sim_io(sim), &slots), -ENOENT);
    sim_destroy(sim);
}

static void test_unreadable_slot_leaves_the_other(void **state)
{
    struct sim *sim = disk_with(4, 5);
    struct superblock_slots slots;
    const struct sim_fault fault = {.calls = SIM_BIT(SIM_READ),
                                    .path = SUPERBLOCK_FILE,
                                    .skip = 1,
                                    .times = 1,
                                    .effect = SIM_FAULT_FAIL,
                                    .error = -EIO};

    (void)state;
    sim_fault_add(sim, &fault);
    assert_int_equal(superblock_load(sim_io(sim), &slots), 0);
    assert_int_equal(slots.result[1], -EIO);
    assert_int_equal(slots.chosen, 0);
    superblock_slots_free(&slots);
    sim_destroy(sim);
}

// Whatever a crash leaves, the file is the old one or the new one, and valid.
static void test_replacing_the_file_is_atomic(void **state)
{
    (void)state;
    for (uint64_t event = 0; event < 12; event++) {
        for (int mode = SIM_CRASH_BEFORE; mode <= SIM_CRASH_AFTER; mode++) {
            for (uint64_t seed = 0; seed < 6; seed++) {
                struct sim *sim = disk_with(4, 5);
                struct superblock sb = example(1);
                struct superblock_slots slots;
                int spare = 0;

                sim_power_cut(sim, SIM_CUT_KEEP_ALL, 0);
                sb.sequence = 9;
                sim_crash_at(sim, event, (enum sim_crash_mode)mode);
                int err = superblock_replace(sim_io(sim), SUPERBLOCK_FILE_RECOVER, &sb, &spare);
                sim_power_cut(sim, seed < 3 ? SIM_CUT_RANDOM : SIM_CUT_GARBAGE, seed);
                sim_count_crash(sim);
                assert_int_equal(superblock_load(sim_io(sim), &slots), 0);
                assert_true(slots.chosen >= 0);
                uint64_t sequence = slots.sb[slots.chosen].sequence;
                assert_true(sequence == 9 || (sequence == 5 && err < 0));
                superblock_slots_free(&slots);
                superblock_free(&sb);
                sim_destroy(sim);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_returns_what_was_encoded),
        cmocka_unit_test(test_fields_lie_where_the_format_says),
        cmocka_unit_test(test_every_flipped_bit_is_noticed),
        cmocka_unit_test(test_a_table_of_snapshots_and_its_feature_go_together),
        cmocka_unit_test(test_slot_in_the_other_place_is_refused),
        cmocka_unit_test(test_other_version_and_features_are_told_apart),
        cmocka_unit_test(test_impossible_fields_are_refused),
        cmocka_unit_test(test_wrong_length_is_no_superblock),
        cmocka_unit_test(test_garbage_never_decodes),
        cmocka_unit_test(test_newest_valid_slot_is_chosen),
        cmocka_unit_test(test_short_or_missing_file_is_told),
        cmocka_unit_test(test_unreadable_slot_leaves_the_other),
        cmocka_unit_test(test_replacing_the_file_is_atomic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
