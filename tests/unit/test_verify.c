// SPDX-License-Identifier: MIT
// Tests of whole-image verification and of the dump: whatever is wrong is found, and nothing
// crashes them.
#include "base/checksum.h"
#include "checkpoint/dump.h"
#include "tests/unit/test_engine_rig.h"

// ---- verification and dump find what is broken ----

static int count_line(void *arg, const char *text)
{
    unsigned *lines = arg;

    assert_non_null(text);
    ++*lines;
    return 0;
}

static void test_every_flipped_byte_of_data_in_use_is_found(void **state)
{
    struct world *w = world_used();
    struct dump_options dump = {.parts = DUMP_SUPERBLOCKS | DUMP_TREE | DUMP_NODES | DUMP_SPACE,
                                .line = count_line};
    struct findings all;
    uint64_t bytes, found = 0;
    unsigned lines = 0;

    (void)state;
    must_open(w);
    must_close(w);
    struct verify_result sound = verify(w, &all);
    assert_int_equal(sim_file_size(w->sim, "data", &bytes), 0);
    dump.arg = &lines;
    for (uint64_t block = 0; block < AF_MIN(bytes / BLOCK_BYTES, UINT64_C(2000)); block++) {
        assert_int_equal(sim_flip_bits(w->sim, "data", block * BLOCK_BYTES + 77, 1), 0);
        found += verify(w, &all).damage > 0;
        assert_int_equal(dump_store(sim_io(w->sim), &dump), 0);
        assert_int_equal(sim_flip_bits(w->sim, "data", block * BLOCK_BYTES + 77, 1), 0);
    }
    // Of each pair of slots one is in use: of two pairs in the first group.
    assert_int_equal(found, sound.blocks_reached - 2);
    assert_true(lines > 0);
    world_destroy(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_flipped_byte_of_data_in_use_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
