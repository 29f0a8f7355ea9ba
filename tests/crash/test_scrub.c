// SPDX-License-Identifier: MIT
// The scrub of a store that changes under it: what was freed, and holds something else, between the
// look at the tree and the read of the block is no damage.
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

#include "store/scrub.h"
#include "tests/lib/fixture.h"
#include "tests/lib/rng.h"

#define LARGE_BYTES (60u * BLOCK_BYTES)

static const struct store_cred cred = {.uid = 1, .gid = 2};

struct meddler {
    struct fixture fx;
    struct store_scrub scrub;
    uint64_t addresses[64]; // of the blocks of the large files
    size_t count;
    bool done;
};

static void note_extents(struct meddler *m)
{
    struct store_leaf *leaf = malloc(sizeof(*leaf));
    struct key at = key_make(0, 0, 0);

    assert_non_null(leaf);
    do {
        assert_int_equal(store_walk(m->scrub.store, m->scrub.data, 0, at, leaf), 0);
        for (unsigned i = 0; i < node_count(leaf->bytes); i++) {
            struct extent_disk e;
            size_t len;
            const void *value = node_value(leaf->bytes, i, &len);

            memcpy(&e, value, AF_MIN(len, sizeof(e)));
            for (uint32_t b = 0; node_key(leaf->bytes, i).kind == KIND_EXTENT &&
                                 b < le32_get(e.count) && m->count < AF_ARRAY_LEN(m->addresses);
                 b += 5)
                m->addresses[m->count++] = le64_get(e.address) + b;
        }
        at = leaf->way.next;
    } while (!leaf->way.last);
    free(leaf);
    assert_true(m->count > 20);
}

// Between two reads of data all large files go, and their blocks hold something else.
static bool meddle(void *arg, uint64_t bytes)
{
    static const uint8_t other[BLOCK_BYTES] = {1, 2, 3};
    struct meddler *m = arg;
    struct fixture *fx = &m->fx;

    (void)bytes;
    if (m->done || m->scrub.data_blocks == 0)
        return true;
    m->done = true;
    for (unsigned i = 0; i < 3; i++) {
        char name[16];

        snprintf(name, sizeof(name), "more-%u", i);
        assert_int_equal(store_unlink(fx->store, STORE_BLOCK, INO_ROOT, name), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        store_background(fx->store, 1000000 + i);
        assert_int_equal(engine_checkpoint(fx->engine), 0);
    }
    for (size_t i = 0; i < m->count; i++)
        assert_int_equal(
            sim_write_raw(fx->sim, "data", m->addresses[i] * BLOCK_BYTES, other, sizeof(other)), 0);
    return true;
}

static void put(struct fixture *fx, unsigned i, const void *bytes)
{
    struct store_attr attr;
    struct store_file *file;
    char name[16];

    snprintf(name, sizeof(name), "more-%u", i);
    assert_int_equal(
        store_create(fx->store, STORE_BLOCK, INO_ROOT, name, 0644, O_RDWR, &cred, &attr, &file), 0);
    assert_int_equal(store_write(fx->store, STORE_BLOCK, file, 0, bytes, LARGE_BYTES, false), 0);
    assert_int_equal(store_release(fx->store, STORE_BLOCK, file), 0);
}

static void test_a_block_freed_during_the_scrub_is_no_damage(void **state)
{
    struct meddler *m = calloc(1, sizeof(*m));
    uint8_t *bytes = malloc(LARGE_BYTES);

    (void)state;
    assert_true(m && bytes);
    fixture_init(&m->fx, env_number("SEED", 1));
    assert_int_equal(fixture_create(&m->fx), 0);
    assert_int_equal(fixture_open(&m->fx), 0);
    for (unsigned i = 0; i < 3; i++) {
        memset(bytes, 'a' + (int)i, LARGE_BYTES);
        put(&m->fx, i, bytes);
    }
    free(bytes);
    assert_int_equal(engine_checkpoint(m->fx.engine), 0);
    m->scrub = (struct store_scrub){.store = m->fx.store, .pace = meddle, .arg = m};
    assert_int_equal(io_file_open(sim_io(m->fx.sim), "data", IO_READ_ONLY, &m->scrub.data), 0);
    note_extents(m);
    assert_int_equal(store_scrub_begin(&m->scrub), 0);
    assert_int_equal(store_scrub_map(&m->scrub), 0);
    assert_int_equal(store_scrub_tree(&m->scrub), 0);
    // The leaf that was being read says where the blocks of all three were.
    assert_true(m->done && m->scrub.data_blocks > 100);
    assert_int_equal(m->scrub.damage, 0);
    store_scrub_end(&m->scrub);
    io_file_close(m->scrub.data);
    fixture_free(&m->fx);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_block_freed_during_the_scrub_is_no_damage),
    };

    return cmocka_run_group_tests_name("scrub", tests, NULL, NULL);
}
