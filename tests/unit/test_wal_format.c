// SPDX-License-Identifier: MIT
// Segment headers and log records: layout to the byte, and that a change of any bit is found (W4).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "base/err.h"
#include "wal/wal_format.h"

static const uint8_t uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static struct wal_segment_info sample_info(void)
{
    struct wal_segment_info info = {
        .segment = 0x0102030405060708,
        .epoch = 9,
        .first_lsn = 1000,
        .prev_checksum = 0xABCDEF,
        .durable_lsn = 999,
        .sequence = 17,
        .segment_bytes = 65536,
        .log_seed = 0xFEDCBA9876543210,
        .prev_lsn = 900,
    };

    memcpy(info.uuid, uuid, sizeof(uuid));
    return info;
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--)
        v = v << 8 | at[i];
    return v;
}

static void test_header_has_the_documented_bytes(void **state)
{
    struct wal_segment_info info = sample_info();
    uint8_t block[WAL_BLOCK];

    (void)state;
    wal_segment_encode(block, &info);
    assert_memory_equal(block, "AEROFSWS", 8);
    assert_int_equal(block[8], 1);
    assert_memory_equal(block + 16, uuid, 16);
    assert_int_equal(get64(block + 40), info.segment);
    assert_int_equal(get64(block + 48), 9);
    assert_int_equal(get64(block + 56), 1000);
    assert_int_equal(get64(block + 64), 0xABCDEF);
    assert_int_equal(get64(block + 72), 999);
    assert_int_equal(get64(block + 80), 65536);
    assert_int_equal(get64(block + 88), 17);
    assert_true(get64(block + 96) == 0xFEDCBA9876543210);
    assert_int_equal(get64(block + 104), 900);
    for (size_t i = 112; i < sizeof(block); i++)
        assert_int_equal(block[i], 0);
    // The checksum is the one of the format, computed here independently.
    uint64_t sum = get64(block + 32);
    memset(block + 32, 0, 8);
    assert_int_equal(sum, checksum(CSUM_SEGMENT, wal_format_salt(info.log_seed, 9, info.segment),
                                   block, sizeof(block)));
}

static void test_header_survives_the_way_there_and_back(void **state)
{
    struct wal_segment_info info = sample_info();
    struct wal_segment_info back;
    uint8_t block[WAL_BLOCK];

    (void)state;
    wal_segment_encode(block, &info);
    assert_int_equal(wal_segment_decode(block, &back), 0);
    assert_true(back.valid);
    assert_int_equal(back.segment, info.segment);
    assert_int_equal(back.epoch, info.epoch);
    assert_int_equal(back.first_lsn, info.first_lsn);
    assert_int_equal(back.prev_checksum, info.prev_checksum);
    assert_int_equal(back.durable_lsn, info.durable_lsn);
    assert_int_equal(back.sequence, info.sequence);
    assert_int_equal(back.segment_bytes, info.segment_bytes);
    assert_true(back.log_seed == info.log_seed);
    assert_int_equal(back.prev_lsn, info.prev_lsn);
    assert_memory_equal(back.uuid, uuid, 16);
}

static void test_header_with_any_byte_changed_is_refused(void **state)
{
    struct wal_segment_info info = sample_info();
    struct wal_segment_info back;
    uint8_t block[WAL_BLOCK];

    (void)state;
    for (size_t i = 0; i < sizeof(block); i++) {
        for (int bit = 0; bit < 8; bit += i < 112 ? 1 : 7) {
            wal_segment_encode(block, &info);
            block[i] = (uint8_t)(block[i] ^ 1 << bit);
            int r = wal_segment_decode(block, &back);
            assert_false(back.valid);
            if (i < 8)
                assert_int_equal(r, -AF_E_BLOCK_MAGIC);
            else if (i < 12)
                assert_int_equal(r, -AF_E_VERSION);
            else
                assert_int_equal(r, -AF_E_BLOCK_CHECKSUM);
        }
    }
}

// Writes the checksum that makes the changed block look whole.
static void resign_header(uint8_t block[WAL_BLOCK])
{
    uint64_t salt = wal_format_salt(get64(block + 96), get64(block + 48), get64(block + 40));

    memset(block + 32, 0, 8);
    le64 sum = le64_put(checksum(CSUM_SEGMENT, salt, block, WAL_BLOCK));
    memcpy(block + 32, &sum, 8);
}

static void test_header_with_impossible_values_is_refused(void **state)
{
    struct wal_segment_info info = sample_info();
    struct wal_segment_info back;
    uint8_t block[WAL_BLOCK];
    static const struct {
        size_t off;
        uint8_t xor ;
    } changes[] = {
        {12, 1},    // reserved
        {112, 1},   // reserved, first
        {109, 1},   // prev_lsn above first_lsn
        {4095, 1},  // reserved, last
        {80, 1},    // segment_bytes no multiple of 4096
        {82, 1},    // segment_bytes 0
        {72, 0x0F}, // durable_lsn = first_lsn
    };

    (void)state;
    for (size_t i = 0; i < AF_ARRAY_LEN(changes); i++) {
        wal_segment_encode(block, &info);
        block[changes[i].off] ^= changes[i].xor ;
        resign_header(block);
        assert_int_equal(wal_segment_decode(block, &back), -AF_E_LOG_RECORD);
        assert_false(back.valid);
    }
}

static void test_salts_differ_by_store_epoch_and_segment(void **state)
{
    (void)state;
    uint64_t salt = wal_format_salt(7, 1, 2);
    assert_true(salt == wal_format_salt(7, 1, 2));
    assert_true(salt != wal_format_salt(7, 2, 1));
    assert_true(salt != wal_format_salt(7, 1, 3));
    assert_true(salt != wal_format_salt(8, 1, 2));
}

#define BODY "the body of a record"

static size_t make_record(uint8_t *at, uint64_t salt)
{
    memset(at, 0xEE, 256);
    wal_record_put(at, 77, WAL_MARKER, true, BODY, sizeof(BODY));
    (void)wal_record_seal(at, salt, 70, 0x1122334455667788);
    return WAL_RECORD_HEADER + sizeof(BODY);
}

static void test_record_has_the_documented_bytes(void **state)
{
    uint8_t at[256];
    size_t len = make_record(at, 5);

    (void)state;
    assert_memory_equal(at, "AFSR", 4);
    assert_int_equal(at[4], sizeof(BODY));
    assert_int_equal(get64(at + 8), 77);
    assert_int_equal(get64(at + 16), 70);
    assert_int_equal(get64(at + 24), 0x1122334455667788);
    assert_int_equal(at[40], 2);
    assert_int_equal(at[41], 0);
    assert_int_equal(at[42], 1);
    assert_int_equal(at[43], 0);
    assert_memory_equal(at + 44, "\0\0\0\0", 4);
    assert_memory_equal(at + 48, BODY, sizeof(BODY));
    for (size_t i = len; i < wal_record_bytes(sizeof(BODY)); i++)
        assert_int_equal(at[i], 0);
    assert_int_equal(wal_record_bytes(sizeof(BODY)) % 8, 0);
    assert_int_equal(at[wal_record_bytes(sizeof(BODY))], 0xEE);
    uint64_t sum = get64(at + 32);
    memset(at + 32, 0, 8);
    assert_int_equal(sum, checksum(CSUM_RECORD, 5, at, len));
}

static void test_record_survives_the_way_there_and_back(void **state)
{
    struct wal_frame frame;
    uint8_t at[256];
    size_t len = make_record(at, 5);

    (void)state;
    assert_int_equal(wal_frame_decode(at, len, &frame), 0);
    assert_int_equal(frame.body_bytes, sizeof(BODY));
    assert_int_equal(frame.lsn, 77);
    assert_int_equal(frame.durable_lsn, 70);
    assert_int_equal(frame.prev_checksum, 0x1122334455667788);
    assert_int_equal(frame.type, WAL_MARKER);
    assert_true(frame.group_start);
    assert_true(frame.known);
    assert_true(wal_frame_verify(at, &frame, 5));
    assert_false(wal_frame_verify(at, &frame, 6));
}

static void test_record_with_any_bit_changed_is_refused(void **state)
{
    struct wal_frame frame;
    uint8_t at[256];
    size_t len = make_record(at, 5);

    (void)state;
    for (size_t i = 0; i < len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            make_record(at, 5);
            at[i] = (uint8_t)(at[i] ^ 1 << bit);
            int r = wal_frame_decode(at, sizeof(at), &frame);
            assert_true(r < 0 || !wal_frame_verify(at, &frame, 5));
            if (i < 4)
                assert_int_equal(r, -AF_E_BLOCK_MAGIC);
        }
    }
}

static void test_record_header_with_impossible_values_is_refused(void **state)
{
    struct wal_frame frame;
    uint8_t at[256];
    static const struct {
        size_t off;
        uint8_t value;
    } changes[] = {
        {40, 0},    {40, 4}, {41, 1}, {42, 2},  {42, 3},
        {43, 0x80}, {44, 1}, {47, 1}, {16, 77}, // durable_lsn = lsn
        {17, 1},                                // durable_lsn > lsn
    };

    (void)state;
    for (size_t i = 0; i < AF_ARRAY_LEN(changes); i++) {
        make_record(at, 5);
        at[changes[i].off] = changes[i].value;
        assert_int_equal(wal_frame_decode(at, sizeof(at), &frame), 0);
        assert_false(frame.known);
    }
    make_record(at, 5);
    memset(at + 8, 0xFF, 8); // the last LSN there is
    assert_int_equal(wal_frame_decode(at, sizeof(at), &frame), 0);
    assert_false(frame.known);
    make_record(at, 5);
    at[7] = 1; // a body of 16 MiB
    assert_int_equal(wal_frame_decode(at, UINT64_MAX, &frame), -AF_E_LOG_RECORD);
}

static void test_record_that_does_not_fit_is_refused(void **state)
{
    struct wal_frame frame;
    uint8_t at[256];
    size_t len = make_record(at, 5);

    (void)state;
    for (size_t avail = 0; avail < len; avail++)
        assert_int_equal(wal_frame_decode(at, avail, &frame), -AF_E_LOG_RECORD);
    assert_int_equal(wal_frame_decode(at, len, &frame), 0);
}

static void test_record_without_a_body(void **state)
{
    struct wal_frame frame;
    uint8_t at[256];

    (void)state;
    wal_record_put(at, 1, WAL_ATTESTATION, false, NULL, 0);
    uint64_t sum = wal_record_seal(at, 9, 0, 3);
    assert_int_equal(wal_record_bytes(0), 48);
    assert_int_equal(wal_frame_decode(at, 48, &frame), 0);
    assert_int_equal(frame.body_bytes, 0);
    assert_int_equal(frame.type, WAL_ATTESTATION);
    assert_false(frame.group_start);
    assert_int_equal(frame.checksum, sum);
    assert_true(wal_frame_verify(at, &frame, 9));
}

static void test_names_of_segments(void **state)
{
    static const char *const bad[] = {
        "",
        "1.seg",
        "0000000000000001",
        "0000000000000001.seg2",
        "000000000000000g.seg",
        "000000000000000A.seg",
        "00000000000000001.seg",
        "0000000000000001.segx",
        "superblock",
    };
    char path[32];
    uint64_t number;

    (void)state;
    wal_segment_path(1, path);
    assert_string_equal(path, "wal/0000000000000001.seg");
    wal_segment_path(UINT64_MAX, path);
    assert_string_equal(path, "wal/ffffffffffffffff.seg");
    assert_true(wal_segment_number(path + 4, &number));
    assert_true(number == UINT64_MAX);
    assert_true(wal_segment_number("00000000deadbeef.seg", &number));
    assert_int_equal(number, 0xdeadbeef);
    for (size_t i = 0; i < AF_ARRAY_LEN(bad); i++)
        assert_false(wal_segment_number(bad[i], &number));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_has_the_documented_bytes),
        cmocka_unit_test(test_header_survives_the_way_there_and_back),
        cmocka_unit_test(test_header_with_any_byte_changed_is_refused),
        cmocka_unit_test(test_header_with_impossible_values_is_refused),
        cmocka_unit_test(test_salts_differ_by_store_epoch_and_segment),
        cmocka_unit_test(test_record_has_the_documented_bytes),
        cmocka_unit_test(test_record_survives_the_way_there_and_back),
        cmocka_unit_test(test_record_with_any_bit_changed_is_refused),
        cmocka_unit_test(test_record_header_with_impossible_values_is_refused),
        cmocka_unit_test(test_record_that_does_not_fit_is_refused),
        cmocka_unit_test(test_record_without_a_body),
        cmocka_unit_test(test_names_of_segments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
