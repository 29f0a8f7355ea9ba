// SPDX-License-Identifier: MIT
// The block cache: what stays in memory, what goes, and the states a block runs through.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "store/cache.h"
#include "store/store_format.h"

static struct blkref ref_of(uint64_t address)
{
    return (struct blkref){.address = address, .checksum = address + 1000, .generation = 3};
}

static struct block *insert(struct cache *c, const struct blkref *ref)
{
    uint8_t *bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
    assert_non_null(bytes);
    memset(bytes, (int)ref->address, BLOCK_BYTES);
    struct block *b = cache_insert(c, ref, BLOCK_NODE, 1, bytes);
    assert_non_null(b);
    return b;
}

static struct block *insert_clean(struct cache *c, uint64_t address)
{
    struct blkref ref = ref_of(address);
    struct block *b = insert(c, &ref);
    assert_int_equal(cache_state(c, b), BLOCK_CLEAN);
    return b;
}

static struct block *new_dirty(struct cache *c, uint64_t address)
{
    assert_int_equal(cache_prepare(c, 1), 0);
    struct block *b = cache_new(c, address, 7, BLOCK_NODE, 0);
    memset(b->bytes, (int)address, BLOCK_BYTES);
    assert_int_equal(cache_state(c, b), BLOCK_DIRTY);
    return b;
}

static void expect_counts(const struct cache *c, size_t clean, size_t dirty, size_t frozen)
{
    assert_int_equal(c->clean_count, clean);
    assert_int_equal(c->dirty_count, dirty);
    assert_int_equal(c->frozen_count, frozen);
    assert_int_equal(c->block_count, clean + dirty + frozen);
}

static void test_inserted_blocks_are_found_with_their_bytes(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 100 * BLOCK_BYTES), 0);
    for (uint64_t a = 1; a <= 500; a++)
        insert_clean(&c, a * 32256);
    for (uint64_t a = 1; a <= 500; a++) {
        struct block *b = cache_lookup(&c, a * 32256);
        assert_non_null(b);
        assert_int_equal(b->bytes[4095], (uint8_t)(a * 32256));
        assert_int_equal((uintptr_t)b->bytes % BLOCK_BYTES, 0);
    }
    assert_null(cache_lookup(&c, 5));
    assert_int_equal(c.hits, 500);
    assert_int_equal(c.misses, 1);
    cache_destroy(&c);
}

static void test_eviction_takes_the_longest_unused_and_stops_at_the_budget(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 10 * BLOCK_BYTES), 0);
    for (uint64_t a = 1; a <= 20; a++)
        insert_clean(&c, a);
    while (c.block_count > 10)
        cache_evict(&c, 5);
    expect_counts(&c, 10, 0, 0);
    assert_int_equal(c.evictions, 10);
    for (uint64_t a = 1; a <= 20; a++)
        assert_int_equal(cache_lookup(&c, a) != NULL, a > 10);
    cache_destroy(&c);
}

static void test_used_blocks_survive_eviction(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 4 * BLOCK_BYTES), 0);
    struct block *hot = insert_clean(&c, 1);
    for (uint64_t a = 2; a <= 200; a++) {
        insert_clean(&c, a);
        assert_ptr_equal(cache_lookup(&c, 1), hot);
        cache_evict(&c, 8);
    }
    assert_true(c.block_count <= 6);
    cache_destroy(&c);
}

static void test_eviction_is_bounded_by_its_limit(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 0), 0);
    for (uint64_t a = 1; a <= 100; a++)
        insert_clean(&c, a);
    cache_evict(&c, 7);
    assert_int_equal(c.block_count, 93);
    cache_destroy(&c);
}

static void test_pinned_and_dirty_blocks_are_not_evicted(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 0), 0);
    struct block *pinned = insert_clean(&c, 1);
    cache_pin(&c, pinned);
    new_dirty(&c, 2);
    for (unsigned i = 0; i < 5; i++)
        cache_evict(&c, 100);
    expect_counts(&c, 1, 1, 0);
    cache_unpin(&c, pinned);
    for (unsigned i = 0; i < 2; i++)
        cache_evict(&c, 100);
    expect_counts(&c, 0, 1, 0);
    cache_destroy(&c);
}

static void test_a_second_insert_returns_what_is_there(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 100 * BLOCK_BYTES), 0);
    struct block *b = insert_clean(&c, 1);
    assert_ptr_equal(insert_clean(&c, 1), b);
    struct block *dirty = new_dirty(&c, 2);
    struct blkref ref = ref_of(2);
    assert_ptr_equal(insert(&c, &ref), dirty);
    expect_counts(&c, 1, 1, 0);
    cache_destroy(&c);
}

static void test_a_clean_block_of_other_content_is_replaced(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 100 * BLOCK_BYTES), 0);
    struct block *b = insert_clean(&c, 1);
    struct blkref ref = {.address = 1, .checksum = 5, .generation = 4};
    b = insert(&c, &ref);
    assert_int_equal(b->checksum, 5);
    assert_int_equal(b->generation, 4);
    expect_counts(&c, 1, 0, 0);
    // Not one that someone holds: he who asked will find that it is not what he meant.
    cache_pin(&c, b);
    ref.checksum = 6;
    assert_ptr_equal(insert(&c, &ref), b);
    assert_int_equal(b->checksum, 5);
    cache_unpin(&c, b);
    // An address that was free and is given out anew.
    new_dirty(&c, 1);
    expect_counts(&c, 0, 1, 0);
    cache_destroy(&c);
}

static void test_dropped_blocks_are_gone_at_once_unless_pinned(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 100 * BLOCK_BYTES), 0);
    cache_drop(&c, insert_clean(&c, 1));
    cache_drop(&c, new_dirty(&c, 2));
    struct block *clean = insert_clean(&c, 3), *dirty = new_dirty(&c, 4);
    cache_pin(&c, clean);
    cache_pin(&c, clean);
    cache_pin(&c, dirty);
    size_t spare = c.spare_count;
    cache_drop(&c, clean);
    cache_drop(&c, dirty);
    expect_counts(&c, 0, 0, 0);
    for (uint64_t a = 1; a <= 4; a++)
        assert_null(cache_lookup(&c, a));
    assert_int_equal(clean->bytes[0], 3); // still to be read by who holds it
    cache_unpin(&c, clean);
    cache_unpin(&c, dirty);
    assert_int_equal(c.spare_count, spare + 1);
    cache_unpin(&c, clean);
    assert_int_equal(c.spare_count, spare + 2);
    cache_destroy(&c);
}

static void test_prepared_blocks_are_enough(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 100 * BLOCK_BYTES), 0);
    assert_int_equal(cache_prepare(&c, 1000), 0);
    for (uint64_t a = 0; a < 1000; a++)
        memset(cache_new(&c, a, 1, BLOCK_DATA, 0)->bytes, 1, BLOCK_BYTES);
    expect_counts(&c, 0, 1000, 0);
    cache_destroy(&c);
}

static void test_freeze_and_thaw_change_the_state_of_all(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 100 * BLOCK_BYTES), 0);
    struct block *clean = insert_clean(&c, 1), *frozen = new_dirty(&c, 2);
    cache_freeze(&c);
    struct block *dirty = new_dirty(&c, 3);
    expect_counts(&c, 1, 1, 1);
    assert_int_equal(cache_state(&c, clean), BLOCK_CLEAN);
    assert_int_equal(cache_state(&c, frozen), BLOCK_FROZEN);
    assert_int_equal(cache_state(&c, dirty), BLOCK_DIRTY);
    assert_true(cache_thaw(&c, 0));
    expect_counts(&c, 2, 1, 0);
    assert_int_equal(cache_state(&c, frozen), BLOCK_CLEAN);
    assert_int_equal(cache_state(&c, dirty), BLOCK_DIRTY);
    cache_freeze(&c);
    assert_int_equal(cache_state(&c, frozen), BLOCK_CLEAN);
    assert_int_equal(cache_state(&c, dirty), BLOCK_FROZEN);
    cache_destroy(&c);
}

static void test_doomed_blocks_are_found_until_the_thaw(void **state)
{
    (void)state;
    struct cache c;
    assert_int_equal(cache_init(&c, 0), 0);
    for (uint64_t a = 1; a <= 10; a++)
        new_dirty(&c, a);
    cache_freeze(&c);
    for (uint64_t a = 1; a <= 5; a++)
        cache_drop(&c, cache_lookup(&c, a));
    struct block *pinned = cache_lookup(&c, 1);
    cache_pin(&c, pinned);
    cache_evict(&c, 100);
    expect_counts(&c, 0, 0, 10);
    for (uint64_t a = 1; a <= 5; a++)
        assert_non_null(cache_lookup(&c, a));
    assert_false(cache_thaw(&c, 2));
    assert_false(cache_thaw(&c, 2));
    expect_counts(&c, 0, 0, 6);
    // More may be doomed between the calls.
    cache_drop(&c, cache_lookup(&c, 6));
    assert_true(cache_thaw(&c, 2));
    expect_counts(&c, 4, 0, 0);
    for (uint64_t a = 1; a <= 10; a++)
        assert_int_equal(cache_lookup(&c, a) != NULL, a > 6);
    assert_int_equal(pinned->bytes[0], 1);
    cache_unpin(&c, pinned);
    for (unsigned i = 0; i < 3; i++)
        cache_evict(&c, 100);
    expect_counts(&c, 0, 0, 0);
    cache_destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inserted_blocks_are_found_with_their_bytes),
        cmocka_unit_test(test_eviction_takes_the_longest_unused_and_stops_at_the_budget),
        cmocka_unit_test(test_used_blocks_survive_eviction),
        cmocka_unit_test(test_eviction_is_bounded_by_its_limit),
        cmocka_unit_test(test_pinned_and_dirty_blocks_are_not_evicted),
        cmocka_unit_test(test_a_second_insert_returns_what_is_there),
        cmocka_unit_test(test_a_clean_block_of_other_content_is_replaced),
        cmocka_unit_test(test_dropped_blocks_are_gone_at_once_unless_pinned),
        cmocka_unit_test(test_prepared_blocks_are_enough),
        cmocka_unit_test(test_freeze_and_thaw_change_the_state_of_all),
        cmocka_unit_test(test_doomed_blocks_are_found_until_the_thaw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
