// SPDX-License-Identifier: MIT
// The tree against a sorted array: random changes, reads, freezes, writes and thaws (tree_world.h),
// and the cases that chance would seldom find. SEED=N repeats a run.
#include "tests/unit/tree_world.h"

#include "base/checksum.h"

static struct item item_of(struct key key, uint32_t len)
{
    return (struct item){.key = key, .len = len, .number = (uint32_t)key.off};
}

static void put_one(struct world *w, struct key key, uint32_t len)
{
    struct item it = item_of(key, len);
    assert_int_equal(world_change(w, &it, 1, false), 0);
}

static void delete_one(struct world *w, struct key key)
{
    put_one(w, key, UINT32_MAX);
}

// What is frozen is written, published and thawed, without changes meanwhile.
static void finish_checkpoint(struct world *w)
{
    w->change_while_writing = false;
    if (w->phase == FROZEN)
        world_write(w);
    while (w->phase == WRITTEN)
        world_thaw(w, 50);
    world_checkpoint(w);
    check_all(w, &w->tree.root, &w->live);
}

static void random_run(uint64_t seed, unsigned steps, uint64_t budget_blocks)
{
    static const uint64_t tendencies[] = {15, 50, 90, 5, 60, 97};
    random_state = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15);
    struct world *w = world_new(budget_blocks);
    w->change_while_writing = true;
    for (unsigned step = 0; step < steps; step++) {
        w->deletes_in_100 = tendencies[step / 300 % AF_ARRAY_LEN(tendencies)];
        w->offs = step / 1800 % 2 ? 400 : 40;
        if (random_below(100) < 80)
            world_change_randomly(w);
        check_some(w, &w->tree.root, &w->live);
        if (w->phase != IDLE)
            check_some(w, &w->tree.frozen_root, &w->cut);
        if (random_below(20) == 0) {
            check_all(w, &w->tree.root, &w->live);
            if (w->phase != IDLE)
                check_all(w, &w->tree.frozen_root, &w->cut);
        }
        if (random_below(15) > 0)
            continue;
        if (w->phase == IDLE) {
            world_freeze(w);
        } else if (w->phase == FROZEN) {
            w->fail_write_in = random_below(5) == 0 ? 1 + (unsigned)random_below(4) : 0;
            world_write(w);
            w->fail_write_in = 0;
        } else {
            world_thaw(w, random_below(8));
        }
    }
    finish_checkpoint(w);
    assert_true(budget_blocks > 100 || w->faults > 100);
    world_free(w);
}

static void test_random_changes_agree_with_a_sorted_array(void **state)
{
    (void)state;
    uint64_t seed = env_number("SEED", env_number("AEROFS_TEST_SEED", 1));
    uint64_t runs = env_number("AEROFS_TEST_RUNS", 6);
    for (uint64_t i = 0; i < runs; i++) {
        print_message("SEED=%llu\n", (unsigned long long)(seed + i));
        random_run(seed + i, 3600, i % 3 == 2 ? 10000 : 4 * (i % 3));
    }
}

// Nearly only big values: three levels, so that inner nodes are split and merged too.
static void test_random_changes_of_a_deep_tree(void **state)
{
    static const uint64_t tendencies[] = {5, 50, 95, 40};
    (void)state;
    uint64_t seed = env_number("SEED", env_number("AEROFS_TEST_SEED", 1));
    print_message("SEED=%llu\n", (unsigned long long)seed);
    random_state = (seed + 1) * UINT64_C(0xC2B2AE3D27D4EB4F);
    struct world *w = world_new(500);
    unsigned level_max = 0;
    w->change_while_writing = true;
    w->offs = 2000;
    w->big_in_100 = 97;
    for (unsigned step = 0; step < 12000; step++) {
        w->deletes_in_100 = tendencies[step / 1500 % AF_ARRAY_LEN(tendencies)];
        world_change_randomly(w);
        check_some(w, &w->tree.root, &w->live);
        level_max = AF_MAX(level_max, w->tree.root.level);
        if (random_below(200) == 0)
            check_all(w, &w->tree.root, &w->live);
        if (random_below(30) > 0)
            continue;
        if (w->phase == IDLE)
            world_freeze(w);
        else if (w->phase == FROZEN)
            world_write(w);
        else
            world_thaw(w, random_below(50));
    }
    assert_true(level_max >= 2);
    finish_checkpoint(w);
    world_free(w);
}

static void *write_checkpoints(void *arg)
{
    struct world *w = arg;
    for (unsigned i = 0; i < 40; i++) {
        af_lock(&w->lock);
        world_freeze(w);
        af_unlock(&w->lock);
        struct tree_write_stats stats;
        assert_int_equal(tree_write_frozen(&w->tree, &w->lock, &w->file, count_logged, w, &stats),
                         0);
        for (w->phase = WRITTEN; w->phase != IDLE;) {
            af_lock(&w->lock);
            world_thaw(w, 10);
            af_unlock(&w->lock);
        }
    }
    return NULL;
}

// Mostly for the thread sanitizer: what the writer reads without the lock does not change.
static void test_changes_beside_a_writing_thread(void **state)
{
    (void)state;
    random_state = 4711;
    struct world *w = world_new(50);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_checkpoints, w), 0);
    for (unsigned i = 0; i < 3000; i++) {
        af_lock(&w->lock);
        w->deletes_in_100 = i % 1000 < 700 ? 10 : 80;
        world_change_randomly(w);
        check_some(w, &w->tree.root, &w->live);
        af_unlock(&w->lock);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    finish_checkpoint(w);
    world_free(w);
}

static void test_empty_tree_is_frozen_and_opened(void **state)
{
    (void)state;
    struct world *w = world_new(4);
    world_checkpoint(w);
    check_all(w, &w->tree.root, &w->live);
    // Unchanged: nothing is written, the root is the same.
    struct blkref before = w->tree.root.ref;
    world_freeze(w);
    world_write(w);
    assert_int_equal(w->logged, 0);
    world_thaw(w, 0);
    assert_int_equal(w->tree.root.ref.address, before.address);
    put_one(w, key_make(1, KIND_INODE, 0), 144);
    delete_one(w, key_make(1, KIND_INODE, 0));
    assert_int_equal(w->tree.root.level, 0);
    world_checkpoint(w);
    world_free(w);
}

static void test_rising_keys_leave_full_nodes(void **state)
{
    (void)state;
    struct world *w = world_new(100);
    put_one(w, key_make(9, KIND_INODE, 0), 144); // what comes is not at the end of the tree
    for (uint64_t i = 0; i < 7 * 500; i++)
        put_one(w, key_make(8, KIND_EXTENT, i * 64), 16 + 8 * 64);
    world_checkpoint(w);
    assert_true(w->space->used < 500 + 500 / 50 + 5);
    world_free(w);
}

static void test_falling_keys_behind_a_full_leaf_share_nodes(void **state)
{
    (void)state;
    struct world *w = world_new(100);
    for (uint64_t i = 0; i < 21; i++)
        put_one(w, key_make(8, KIND_EXTENT, i), 168);
    put_one(w, key_make(8, KIND_EXTENT, 10000), 168);
    for (uint64_t i = 9000; i > 8000; i--)
        put_one(w, key_make(8, KIND_EXTENT, i), 168);
    world_checkpoint(w);
    assert_true(w->space->used < 2 * 1020 / 21 + 10);
    world_free(w);
}

static void test_tree_grows_and_shrinks_by_levels(void **state)
{
    (void)state;
    struct world *w = world_new(2000);
    enum { ITEMS = 22000 };
    for (uint64_t i = 0; i < ITEMS; i++)
        put_one(w, key_make(8, KIND_EXTENT, i), ITEM_BYTES_MAX);
    assert_int_equal(w->tree.root.level, 3);
    world_checkpoint(w);
    for (uint64_t i = 0; i < ITEMS - 1; i++)
        delete_one(w, key_make(8, KIND_EXTENT, i * 7919 % ITEMS));
    tree_sweep(&w->tree);
    assert_int_equal(w->live.count, 1);
    world_checkpoint(w);
    assert_true(w->space->used <= 8);
    world_free(w);
}

// One operation empties the leaf that it then puts into, while the neighbours are not in memory.
static void test_emptied_leaf_can_be_put_into(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    for (uint64_t i = 0; i < 60; i++)
        put_one(w, key_make(8, KIND_EXTENT, i * 10), 1000);
    world_checkpoint(w);
    for (unsigned start = 9; start < 50; start += 7) {
        struct item changes[GROUP_MAX];
        for (unsigned i = 0; i < 8; i++) {
            changes[i] = item_of(key_make(8, KIND_EXTENT, (start + i) * 10), UINT32_MAX);
            changes[8 + i] = item_of(key_make(8, KIND_EXTENT, (start + i) * 10 + 5), 900);
        }
        assert_int_equal(world_change(w, changes, 16, true), 0);
    }
    check_all(w, &w->tree.root, &w->live);
    world_checkpoint(w);
    world_free(w);
}

// What a range query read to its end before the changes, it finds in memory between them.
static void test_range_read_before_does_not_fault_between_deletes(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    for (uint64_t i = 0; i < 100; i++)
        put_one(w, key_make(8, KIND_EXTENT, i), 1000);
    world_checkpoint(w);
    struct fault f;
    struct key first = key_make(8, KIND_EXTENT, 30), last = key_make(8, KIND_EXTENT, 60), key;
    const void *value;
    size_t len;
    int r;
    fault_start(w, &f);
    do {
        struct key at = first;
        while ((r = tree_next(&w->tree, &w->tree.root, &f, at, last, &key, &value, &len)) == 0) {
            r = tree_touch(&w->tree, &f, key);
            if (r < 0)
                break;
            at.off = key.off + 1;
        }
    } while (fault_resolve(w, &f, r));
    assert_int_equal(r, -ENOENT);
    assert_int_equal(tree_prepare(&w->tree, &f, tree_need(&w->tree, 1, 31, 0), 0, true), 0);
    for (uint64_t i = 0; i < 31; i++) {
        uint64_t off = 30 + i * 17 % 31;
        tree_delete(&w->tree, key_make(8, KIND_EXTENT, off));
        model_delete(&w->live, &(struct key){.ino = 8, .kind = KIND_EXTENT, .off = off});
        r = tree_next(&w->tree, &w->tree.root, &f, first, last, &key, &value, &len);
        assert_int_equal(r, i < 30 ? 0 : -ENOENT);
        r = tree_prev(&w->tree, &w->tree.root, &f, first, last, &key, &value, &len);
        assert_int_equal(r, i < 30 ? 0 : -ENOENT);
    }
    fault_finish(w, &f);
    check_all(w, &w->tree.root, &w->live);
    world_checkpoint(w);
    world_free(w);
}

// Thin leaves, left by deletes while no neighbour was in memory: neighbouring items are each in a
// leaf of its own, all of which one operation copies. tree_touch() counts them.
static void test_thin_leaves_are_counted_by_touch(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    for (uint64_t i = 0; i < 3 * 100; i++)
        put_one(w, key_make(8, KIND_EXTENT, i), i % 3 == 1 ? 40 : 1320);
    world_checkpoint(w);
    for (uint64_t i = 0; i < 3 * 100; i++) {
        if (i % 3 != 1)
            delete_one(w, key_make(8, KIND_EXTENT, i));
        if (i % 3 == 2)
            world_checkpoint(w);
    }
    assert_true(w->space->used > 90);
    struct item changes[100];
    for (unsigned i = 0; i < 100; i++)
        changes[i] = item_of(key_make(8, KIND_EXTENT, 3 * i + 1), 30);
    assert_int_equal(world_change(w, changes, 100, true), 0);
    world_checkpoint(w);
    for (unsigned i = 0; i < 100; i++)
        changes[i].len = UINT32_MAX;
    assert_int_equal(world_change(w, changes, 100, true), 0);
    world_checkpoint(w);
    world_free(w);
}

static void test_need_covers_many_big_neighbours(void **state)
{
    (void)state;
    for (unsigned order = 0; order < 3; order++) {
        struct world *w = world_new(0);
        struct item changes[600];
        for (uint64_t i = 0; i < 20; i++)
            put_one(w, key_make(8, KIND_EXTENT, 1000000 * (i % 2) + i), 1320);
        world_checkpoint(w);
        for (uint64_t i = 0; i < 600; i++) {
            uint64_t off = order == 0 ? i : order == 1 ? 599 - i : i * 7919 % 600;
            changes[i] = item_of(key_make(8, KIND_EXTENT, 1000 + off), 1320 - (uint32_t)(off % 7));
        }
        assert_int_equal(world_change(w, changes, 600, true), 0);
        check_all(w, &w->tree.root, &w->live);
        world_checkpoint(w);
        world_free(w);
    }
}

static void test_touch_counts_what_may_be_born(void **state)
{
    (void)state;
    struct world *w = world_new(100);
    struct fault f;
    struct key key = key_make(8, KIND_INODE, 0);
    fault_start(w, &f);
    put_one(w, key, 144);
    assert_int_equal(w->tree.touched, 0);
    assert_int_equal(tree_touch(&w->tree, &f, key), 0);
    assert_int_equal(tree_touch(&w->tree, &f, key), 0);
    assert_int_equal(w->tree.touched, 1); // may split
    world_freeze(w);
    assert_int_equal(tree_touch(&w->tree, &f, key), 0);
    assert_int_equal(w->tree.touched, 2); // and must be copied
    world_write(w);
    world_thaw(w, 10);
    world_free(w);
}

static void test_last_offset_has_no_successor(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    for (uint64_t i = 1; i < 200; i++)
        put_one(w, key_make(i, KIND_DENTRY, UINT64_MAX), 200 + (uint32_t)i);
    check_all(w, &w->tree.root, &w->live);
    world_checkpoint(w);
    world_free(w);
}

static void test_range_ends_without_reading_the_next_leaf(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    for (uint64_t i = 0; i < 90; i++)
        put_one(w, key_make(8, KIND_EXTENT, 10 * i), ITEM_BYTES_MAX);
    for (uint64_t i = 2; i < 90; i += 3) // the last of each leaf
        delete_one(w, key_make(8, KIND_EXTENT, 10 * i));
    world_checkpoint(w);
    const uint8_t *root = w->disk + w->tree.root.ref.address * BLOCK_BYTES;
    assert_int_equal(node_level(root), 1);
    check_get(w, &w->tree.root, &w->live, key_min); // evicts
    for (unsigned slot = 1; slot + 1 < node_count(root); slot++) {
        struct key first = node_key(root, slot), last = node_key(root, slot + 1), from = last;
        last.off--;
        from.off -= 9; // behind the last item
        w->faults = 0;
        check_range(w, &w->tree.root, &w->live, from, last, true);
        assert_int_equal(w->faults, 2);
        w->faults = 0;
        check_range(w, &w->tree.root, &w->live, first, first, false);
        assert_int_equal(w->faults, 2);
    }
    world_free(w);
}

// What validates but was never written by this code: a root with one child. The last delete turns
// it into the empty leaf.
static void test_root_with_one_child_becomes_the_empty_leaf(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    put_one(w, key_make(8, KIND_EXTENT, 1), 10);
    world_checkpoint(w);
    uint64_t address = 7777, count;
    uint8_t *root = w->disk + address * BLOCK_BYTES;
    struct key key = key_make(8, KIND_EXTENT, 1);
    w->space->prepared = 1;
    assert_int_equal(space_alloc(w->space, 1, address, &count), address);
    w->space->born[address]--;
    node_init(root, uuid, address, 1, 1);
    node_insert_child(root, 0, &key, &w->tree.root.ref);
    w->tree.root = (struct tree_root){.ref = {.address = address,
                                              .checksum = checksum(CSUM_NODE, 0, root, BLOCK_BYTES),
                                              .generation = 1},
                                      .level = 1};
    check_all(w, &w->tree.root, &w->live);
    delete_one(w, key);
    check_all(w, &w->tree.root, &w->live);
    world_checkpoint(w);
    assert_int_equal(w->tree.root.level, 0);
    assert_int_equal(w->space->used, 1);
    world_free(w);
}

// At the address of a child lies in memory what it held before it was given out anew.
static void test_stale_block_in_memory_is_read_again(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    for (uint64_t i = 0; i < 100; i++)
        put_one(w, key_make(8, KIND_EXTENT, i), 1000);
    world_checkpoint(w);
    struct blkref ref = node_child(w->disk + w->tree.root.ref.address * BLOCK_BYTES, 0);
    struct blkref stale = {.address = ref.address, .checksum = 1, .generation = 1};
    struct key key = key_make(8, KIND_EXTENT, 0);
    uint8_t *bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
    assert_non_null(cache_insert(&w->cache, &stale, BLOCK_DATA, 0, memset(bytes, 0, BLOCK_BYTES)));
    check_get(w, &w->tree.root, &w->live, key);
    // While someone holds it, it is not taken away, and not taken for the child either.
    bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
    struct block *b = cache_insert(&w->cache, &stale, BLOCK_NODE, 0, memset(bytes, 0, BLOCK_BYTES));
    cache_pin(&w->cache, b);
    struct item it = item_of(key, 10);
    assert_int_equal(world_change(w, &it, 1, false), b->generation == ref.generation
                                                         ? -AF_E_BLOCK_CHECKSUM
                                                         : -AF_E_BLOCK_GENERATION);
    cache_unpin(&w->cache, b);
    assert_int_equal(world_change(w, &it, 1, false), 0);
    world_free(w);
}

static void test_damage_is_an_error_for_what_it_holds_only(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    for (uint64_t i = 0; i < 100; i++)
        put_one(w, key_make(8, KIND_EXTENT, i), 1000);
    world_checkpoint(w);
    const uint8_t *root = w->disk + w->tree.root.ref.address * BLOCK_BYTES;
    struct blkref ref = node_child(root, 5);
    struct key first = node_key(root, 5), behind = node_key(root, 6);
    w->disk[ref.address * BLOCK_BYTES + 4000] ^= 1;
    unsigned bad = 0;
    for (uint64_t i = 0; i < 100; i++) {
        struct key key = key_make(8, KIND_EXTENT, i);
        struct fault f;
        const void *value;
        size_t len;
        int r;
        fault_start(w, &f);
        do
            r = tree_get(&w->tree, &w->tree.root, &f, key, &value, &len);
        while (fault_resolve(w, &f, r));
        bool inside = key_compare(&key, &first) >= 0 && key_compare(&key, &behind) < 0;
        assert_int_equal(r, inside ? -AF_E_BLOCK_CHECKSUM : 0);
        bad += inside;
        fault_finish(w, &f);
    }
    assert_true(bad > 0 && bad < 5);
    struct item it = item_of(first, 10);
    assert_int_equal(world_change(w, &it, 1, false), -AF_E_BLOCK_CHECKSUM);
    world_free(w);
}

static void test_prepare_passes_on_that_there_is_no_space(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    struct fault f;
    fault_start(w, &f);
    assert_int_equal(tree_prepare(&w->tree, &f, 1, 0, false), -ENOSPC);
    world_free(w);
}

static void test_data_blocks_are_written_first_and_not_handed_over(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    put_one(w, key_make(8, KIND_INODE, 0), 144);
    assert_int_equal(tree_prepare(&w->tree, NULL, 20, 20, true), 0);
    uint64_t count, address[20];
    for (unsigned i = 0; i < 20; i++) {
        address[i] = space_alloc(w->space, 1, 1000 + 40 * (i % 2), &count);
        struct block *b = cache_new(&w->cache, address[i], w->tree.generation, BLOCK_DATA, 0);
        memset(b->bytes, (int)i + 1, BLOCK_BYTES);
        assert_int_equal(count, 1);
    }
    world_freeze(w);
    cache_drop(&w->cache, cache_lookup(&w->cache, address[4])); // the cut holds it all the same
    world_write(w);
    assert_int_equal(w->logged, 1);
    world_thaw(w, 100);
    for (unsigned i = 0; i < 20; i++) {
        const uint8_t *bytes = w->disk + address[i] * BLOCK_BYTES;
        assert_int_equal(bytes[0], i + 1);
        assert_int_equal(bytes[BLOCK_BYTES - 1], i + 1);
    }
    assert_null(cache_lookup(&w->cache, address[4]));
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_changes_agree_with_a_sorted_array),
        cmocka_unit_test(test_random_changes_of_a_deep_tree),
        cmocka_unit_test(test_changes_beside_a_writing_thread),
        cmocka_unit_test(test_empty_tree_is_frozen_and_opened),
        cmocka_unit_test(test_rising_keys_leave_full_nodes),
        cmocka_unit_test(test_falling_keys_behind_a_full_leaf_share_nodes),
        cmocka_unit_test(test_tree_grows_and_shrinks_by_levels),
        cmocka_unit_test(test_emptied_leaf_can_be_put_into),
        cmocka_unit_test(test_range_read_before_does_not_fault_between_deletes),
        cmocka_unit_test(test_thin_leaves_are_counted_by_touch),
        cmocka_unit_test(test_need_covers_many_big_neighbours),
        cmocka_unit_test(test_touch_counts_what_may_be_born),
        cmocka_unit_test(test_last_offset_has_no_successor),
        cmocka_unit_test(test_range_ends_without_reading_the_next_leaf),
        cmocka_unit_test(test_root_with_one_child_becomes_the_empty_leaf),
        cmocka_unit_test(test_stale_block_in_memory_is_read_again),
        cmocka_unit_test(test_damage_is_an_error_for_what_it_holds_only),
        cmocka_unit_test(test_prepare_passes_on_that_there_is_no_space),
        cmocka_unit_test(test_data_blocks_are_written_first_and_not_handed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
