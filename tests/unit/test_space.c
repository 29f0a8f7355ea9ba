// SPDX-License-Identifier: MIT
// The space map: each of its rules and each kind of damage by itself.
#include "tests/unit/test_space_rig.h"

// ---- the rules, one by one ----

static void test_freed_block_waits_for_publication(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    uint64_t count;
    uint64_t address = alloc(x, 8, &count);
    assert_int_equal(count, 8);
    space_log_alloc(x->sp, address, 8);
    checkpoint(x);
    space_free(x->sp, address + 2, 1);
    assert_false(is_free(x, address + 2));
    freeze(x);
    space_free(x->sp, address + 4, 1);
    publish(x);
    assert_true(is_free(x, address + 2));
    assert_false(is_free(x, address + 4));
    assert_int_equal(stats(x).waiting, 1);
    checkpoint(x);
    assert_true(is_free(x, address + 4));
    assert_int_equal(stats(x).waiting, 0);
    fix_free(x);
}

static void test_block_allocated_and_freed_in_one_interval_is_free_after_it(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    uint64_t count;
    uint64_t address = alloc(x, 2, &count);
    space_log_alloc(x->sp, address, 2);
    space_free(x->sp, address, 1);
    assert_false(is_free(x, address)); // the log names it
    uint64_t used = stats(x).used;
    checkpoint(x);
    assert_true(is_free(x, address));
    assert_false(is_free(x, address + 1));
    assert_int_equal(stats(x).used, used - 1);
    assert_int_equal(x->image.used_blocks, used - 1);
    fix_free(x);
}

static void test_spilled_block_is_free_in_the_map(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    uint64_t count;
    uint64_t address = alloc(x, 1, &count);
    checkpoint(x);
    assert_int_equal(x->image.used_blocks, 4);
    assert_int_equal(stats(x).used, 5);
    space_log_alloc(x->sp, address, 1);
    checkpoint(x);
    assert_int_equal(x->image.used_blocks, 5);
    fix_free(x);
}

static void test_release_gives_back_at_once(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    uint64_t count, used = stats(x).used;
    uint64_t address = alloc(x, 64, &count);
    used = stats(x).used - count;
    space_release(x->sp, address + 10, 20);
    assert_true(is_free(x, address + 10));
    assert_int_equal(stats(x).used, used + 44);
    space_release(x->sp, address, 10);
    space_release(x->sp, address + 30, 34);
    assert_int_equal(stats(x).used, used);
    assert_int_equal(space_group(x->sp, 0)->bits->outstanding, 0); // it can be evicted
    fix_free(x);
}

static void test_reserve_is_kept_for_urgent_work(void **state)
{
    (void)state;
    struct fix *x = fix_new(16384);
    uint64_t size = space_reserve_blocks(x->sp), count;
    assert_int_equal(size, 1024);
    assert_int_equal(reserve(x, 16384 - 4 - size), 0);
    assert_int_equal(stats(x).capacity, 16384);
    assert_int_equal(reserve(x, 1), -ENOSPC);
    assert_int_equal(prepare(x, 1, 0, false), -ENOSPC);
    // What was promised is given; and urgent work takes from the reserve, to its last eighth.
    assert_int_equal(prepare(x, 100, 100, false), 0);
    assert_int_equal(prepare(x, 7 * size / 8, 0, true), 0);
    assert_int_equal(prepare(x, 7 * size / 8 + 1, 0, true), -ENOSPC);
    space_set_recovery(x->sp, true);
    assert_int_equal(prepare(x, size, 0, false), 0);
    assert_int_equal(prepare(x, size + 1, 0, false), -ENOSPC);
    space_set_recovery(x->sp, false);

    uint64_t address = space_alloc(x->sp, 1, 0, &count);
    space_log_alloc(x->sp, address, 1);
    space_unreserve(x->sp, 1);
    checkpoint(x);
    space_free(x->sp, address, 1);
    assert_int_equal(reserve(x, 1), WAITS);
    checkpoint(x);
    assert_int_equal(reserve(x, 1), 0);
    assert_int_equal(reserve(x, UINT64_MAX), -ENOSPC);
    fix_free(x);
}

static void test_waiting_for_space_has_an_end(void **state)
{
    (void)state;
    struct fix *x = fix_new(2048);
    uint64_t count;
    assert_int_equal(prepare(x, 1, 0, true), 0);
    uint64_t address = space_alloc(x->sp, 1, 0, &count);
    space_log_alloc(x->sp, address, 1);
    space_free(x->sp, address, 1);
    struct fault f = {.waits = 63};
    assert_int_equal(space_reserve(x->sp, &f, 2000), -AF_E_FAULT);
    assert_int_equal(f.kind, FAULT_SPACE);
    f.waits = 64;
    assert_int_equal(space_reserve(x->sp, &f, 2000), -ENOSPC);
    fix_free(x);
}

static void test_growth_takes_less_when_the_host_is_short(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    x->disk.host_blocks = 4096;
    // The reserve does not fit; it shrinks to what the store has become.
    assert_int_equal(reserve(x, 100), 0);
    assert_in_range(stats(x).capacity, 2048, 4096);
    assert_int_equal(space_reserve_blocks(x->sp), 256);
    assert_int_equal(reserve(x, 4096), -ENOSPC);
    // The host is not asked at every refusal, but now and then.
    unsigned calls = x->disk.allocate_calls;
    for (int i = 0; i < 40; i++)
        assert_int_equal(reserve(x, 4096), -ENOSPC);
    assert_int_equal(x->disk.allocate_calls, calls);
    x->disk.host_blocks = UINT64_MAX;
    int r = -ENOSPC;
    for (int i = 0; i < 40 && r != 0; i++)
        r = reserve(x, 4096);
    assert_int_equal(r, 0);
    x->disk.allocate_error = -EOPNOTSUPP;
    assert_int_equal(space_grow(x->sp, &x->lock, 1), -EOPNOTSUPP);
    fix_free(x);
}

// What recovery and the file system itself need is not for `data`.
static void test_growth_leaves_the_host_a_megabyte(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    x->disk.host_blocks = 4096;
    x->disk.host_other = 0;
    assert_int_equal(reserve(x, 100), 0);
    int r = 0;
    while (r == 0)
        r = reserve(x, 64);
    assert_int_equal(r, -ENOSPC);
    assert_in_range(x->disk.blocks, 4096 - 256 - 64, 4096 - 256);
    fix_free(x);

    x = fix_new(8u * GROUP_BLOCKS);
    x->disk.space_error = -EIO;
    assert_int_equal(space_grow(x->sp, &x->lock, 1), -EIO);
    fix_free(x);
}

static void test_no_space_at_all_is_an_answer(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    x->disk.host_blocks = 0;
    assert_int_equal(reserve(x, 1), -ENOSPC);
    assert_int_equal(prepare(x, 1, 0, true), -ENOSPC);
    checkpoint(x);
    assert_int_equal(x->image.index_count, 0);
    reopen(x);
    fix_free(x);
}

static void test_growth_of_the_last_group_is_counted_in_its_bitmap(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    uint64_t count;
    uint64_t address = alloc(x, 1, &count);
    checkpoint(x); // nothing in use: no bitmap is written
    assert_int_equal(x->disk.writes, 1);
    assert_int_equal(space_grow(x->sp, &x->lock, 100), 0);
    checkpoint(x);
    assert_int_equal(x->disk.writes, 2);
    space_log_alloc(x->sp, address, 1);
    checkpoint(x);
    assert_int_equal(x->disk.writes, 4);
    uint64_t capacity = stats(x).capacity;
    assert_true(capacity < GROUP_BLOCKS);
    assert_int_equal(space_grow(x->sp, &x->lock, 100), 0);
    assert_true(stats(x).capacity >= capacity + 100);
    checkpoint(x);
    assert_int_equal(x->disk.writes, 6);
    assert_int_equal(x->image.data_blocks, stats(x).capacity);
    checkpoint(x);
    assert_int_equal(x->disk.writes, 6);
    // Growth while a checkpoint is written, with and without the group in memory.
    for (int loaded = 0; loaded < 2; loaded++) {
        struct space_image image;
        reopen(x);
        if (loaded)
            assert_int_equal(space_load_group(x->sp, &x->lock, 0), 0);
        if (!loaded)
            space_free(x->sp, address, 1);
        freeze(x);
        assert_int_equal(write_frozen(x, &image), 0);
        assert_int_equal(space_grow(x->sp, &x->lock, 100), 0);
        adopt(x, &image);
        assert_int_equal(stats(x).used, 4);
        reopen(x);
        assert_int_equal(stats(x).used, 4);
        assert_int_equal(space_load_group(x->sp, &x->lock, 0), 0);
    }
    fix_free(x);
}

static void test_growth_is_synced_before_it_is_granted(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    x->disk.sync_error = -EIO;
    assert_int_equal(prepare(x, 1, 0, true), -EIO);
    assert_int_equal(stats(x).capacity, 0);
    fix_free(x);
}

static void test_map_of_many_groups_has_several_indexes(void **state)
{
    (void)state;
    uint64_t blocks = 253 * (uint64_t)GROUP_BLOCKS;
    struct fix *x = fix_new(UINT64_MAX);
    assert_int_equal(space_grow(x->sp, &x->lock, blocks), 0);
    uint64_t last = 252 * (uint64_t)GROUP_BLOCKS + 4;
    assert_int_equal(claim(x, last, 10), 0);
    space_log_alloc(x->sp, last, 10);
    checkpoint(x);
    assert_int_equal(x->image.index_count, 2);
    assert_int_equal(x->image.used_blocks, 10 + 2 * groups_of(x->image.data_blocks) + 2 * 2);
    reopen(x);
    assert_int_equal(claim(x, last + 9, 1), -AF_E_SPACE_CLAIM);
    space_free(x->sp, last + 9, 1);
    unsigned writes = x->disk.writes;
    checkpoint(x);
    assert_int_equal(x->disk.writes, writes + 2); // one bitmap, its index
    reopen(x);
    assert_int_equal(claim(x, last + 9, 1), 0);
    fix_free(x);
}

static void test_groups_are_evicted_but_for_those_with_allocations(void **state)
{
    (void)state;
    struct fix *x = fix_new(UINT64_MAX);
    assert_int_equal(space_grow(x->sp, &x->lock, 20 * (uint64_t)GROUP_BLOCKS), 0);
    x->sp->loaded_max = 3;
    assert_int_equal(claim(x, 2 * GROUP_BLOCKS + 100, 1), 0);
    for (uint64_t g = 0; g < 20; g++)
        assert_int_equal(space_load_group(x->sp, &x->lock, g), 0);
    assert_int_equal(x->sp->loaded_count, 3);
    assert_non_null(space_group(x->sp, 2)->bits);
    // One operation that needs more than they hold loads more.
    assert_int_equal(prepare(x, 5 * GROUP_BLOCKS, 0, false), 0);
    assert_in_range(x->sp->loaded_count, 6, 8);
    // A free in a group that is not in memory.
    space_log_alloc(x->sp, 2 * GROUP_BLOCKS + 100, 1);
    checkpoint(x);
    for (uint64_t g = 3; g < 12; g++)
        assert_int_equal(space_load_group(x->sp, &x->lock, g), 0);
    assert_int_equal(prepare(x, 1, 0, false), 0);
    for (uint64_t g = 3; g < 12; g++)
        assert_int_equal(space_load_group(x->sp, &x->lock, g), 0);
    assert_null(space_group(x->sp, 2)->bits);
    uint64_t used = stats(x).used;
    space_free(x->sp, 2 * GROUP_BLOCKS + 100, 1);
    assert_int_equal(stats(x).used, used);
    checkpoint(x);
    assert_int_equal(stats(x).used, used - 1);
    assert_int_equal(space_load_group(x->sp, &x->lock, 2), 0);
    assert_true(is_free(x, 2 * GROUP_BLOCKS + 100));
    assert_int_equal(space_load_group(x->sp, &x->lock, 1000), -AF_E_SPACE_LAYOUT);
    fix_free(x);
}

static void test_long_runs_and_single_blocks_lie_apart(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    assert_int_equal(space_grow(x->sp, &x->lock, GROUP_BLOCKS), 0);
    uint64_t node = 0, data = 0, count;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(prepare(x, 65, 0, false), 0);
        uint64_t n = space_alloc(x->sp, 1, node, &count);
        assert_true(node == 0 || n == node);
        node = n + 1;
        uint64_t a = space_alloc(x->sp, 64, 0, &count);
        assert_int_equal(count, 64);
        assert_true(data == 0 || a == data);
        data = a + 64;
    }
    fix_free(x);
}

static void test_claim_refuses_what_the_map_cannot_give(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    assert_int_equal(space_grow(x->sp, &x->lock, 2000), 0);
    checkpoint(x);
    uint64_t published = stats(x).capacity;
    assert_int_equal(space_grow(x->sp, &x->lock, 2 * GROUP_BLOCKS), 0);
    uint64_t length = x->disk.blocks;
    reopen(x);
    assert_int_equal(stats(x).capacity, published);
    static const struct range bad[] = {{0, 1},
                                       {3, 1},
                                       {2, 4},
                                       {100, 0},
                                       {GROUP_BLOCKS - 1, 2},
                                       {GROUP_BLOCKS + 1, 1},
                                       {100, UINT64_MAX},
                                       {UINT64_MAX - 5, 10},
                                       {UINT64_MAX, UINT64_MAX},
                                       {SPACE_BLOCKS_MAX + 100, 1}};
    for (size_t i = 0; i < AF_ARRAY_LEN(bad); i++)
        assert_int_equal(claim(x, bad[i].address, bad[i].count), -AF_E_SPACE_CLAIM);
    assert_int_equal(claim(x, length, 1), -AF_E_SPACE_CLAIM);
    assert_int_equal(stats(x).capacity, published);
    assert_int_equal(claim(x, length - 2, 2), 0); // `data` had grown
    assert_int_equal(stats(x).capacity, length);
    assert_int_equal(claim(x, length - 2, 1), -AF_E_SPACE_CLAIM);
    space_release(x->sp, length - 2, 1);
    assert_int_equal(claim(x, length - 2, 1), 0);
    x->config.read_only = true;
    reopen(x);
    assert_int_equal(claim(x, length, 1), -AF_E_SPACE_CLAIM);
    assert_int_equal(space_grow(x->sp, &x->lock, 100000), 0);
    assert_int_equal(x->disk.blocks, length);
    fix_free(x);
}

static void test_cap_below_what_is_used_opens(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    uint64_t count;
    for (int i = 0; i < 100; i++) {
        uint64_t address = alloc(x, 64, &count);
        space_log_alloc(x->sp, address, count);
    }
    checkpoint(x);
    x->config.max_blocks = 3000;
    reopen(x);
    assert_int_equal(prepare(x, 1, 0, false), -ENOSPC);
    assert_int_equal(prepare(x, 100, 0, true), 0); // so that something can be deleted
    uint64_t capacity = stats(x).capacity;
    assert_int_equal(space_grow(x->sp, &x->lock, 1), 0);
    assert_int_equal(stats(x).capacity, capacity);
    fix_free(x);
}

// ---- damage ----

static void test_contradictions_are_never_published(void **state)
{
    (void)state;
    static const struct range bad[] = {
        {1, 1}, {GROUP_BLOCKS - 1, 2}, {UINT64_MAX, 1}, {50, UINT64_MAX}, {1000, 1}};
    for (size_t i = 0; i < 2 * AF_ARRAY_LEN(bad) + 3; i++) {
        struct fix *x = fix_new(8u * GROUP_BLOCKS);
        struct space_image image;
        uint64_t count;
        uint64_t address = alloc(x, 10, &count);
        if (i < AF_ARRAY_LEN(bad))
            space_free(x->sp, bad[i].address, bad[i].count);
        else if (i < 2 * AF_ARRAY_LEN(bad))
            space_log_alloc(x->sp, bad[i / 2].address, bad[i / 2].count);
        else if (i == 2 * AF_ARRAY_LEN(bad))
            space_free(x->sp, address, 1); // no record named it
        freeze(x);
        if (i == 2 * AF_ARRAY_LEN(bad) + 1)
            assert_int_equal(space_frozen_add(x->z, address + 100 * GROUP_BLOCKS, 1), 0);
        if (i == 2 * AF_ARRAY_LEN(bad) + 2) {
            assert_int_equal(space_frozen_add(x->z, 2, 1), 0);
        }
        assert_int_equal(write_frozen(x, &image), -AF_E_SPACE_LAYOUT);
        fix_free(x);
    }
}

static void test_double_free_is_found_at_the_checkpoint(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    struct space_image image;
    uint64_t count;
    uint64_t address = alloc(x, 2, &count);
    space_log_alloc(x->sp, address, 2);
    checkpoint(x);
    space_free(x->sp, address, 2);
    space_free(x->sp, address, 1);
    freeze(x);
    assert_int_equal(write_frozen(x, &image), -AF_E_SPACE_LAYOUT);
    fix_free(x);
}

// A store with one bitmap and one index, not in memory.
static struct fix *small_store(void)
{
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    uint64_t count;
    uint64_t address = alloc(x, 10, &count);
    space_log_alloc(x->sp, address, count);
    checkpoint(x);
    space_close(x->sp);
    x->sp = NULL;
    return x;
}

static uint8_t *index_bytes(struct fix *x)
{
    return disk_block(&x->disk, space_index_address(0, x->image.refs[0].slot));
}

static uint8_t *bitmap_bytes(struct fix *x)
{
    struct space_ref refs[GROUPS_PER_INDEX];
    (void)space_decode_index(index_bytes(x), refs);
    return disk_block(&x->disk, space_bitmap_address(0, refs[0].slot));
}

static int open_again(struct fix *x)
{
    return space_open(&x->config, &x->image, &x->sp);
}

// Free on disk, and not given out: not while the group is in memory, and not after it was read
// again.
static void test_what_is_held_is_not_used_anew(void **state)
{
    (void)state;
    struct fix *x = fix_new(8u * GROUP_BLOCKS);
    uint64_t count;
    uint64_t address = alloc(x, 8, &count);
    space_log_alloc(x->sp, address, 8);
    checkpoint(x);
    uint64_t used = stats(x).used;
    space_free(x->sp, address, 1);
    freeze(x);
    space_hold(x->sp); // from this freeze on: what was freed before it goes its way
    space_free(x->sp, address + 1, 1);
    space_log_alloc(x->sp, alloc(x, 1, &count), 1);
    publish(x);
    assert_true(is_free(x, address));
    checkpoint(x);
    assert_false(is_free(x, address + 1));
    assert_int_equal(x->image.used_blocks, used - 1); // one freed twice over, one allocated
    struct space_group *g = space_group(x->sp, address / GROUP_BLOCKS);
    g->bits->outstanding -= g->held; // as if it could be evicted
    space_unload(x->sp, g);
    assert_int_equal(space_load_group(x->sp, &x->lock, address / GROUP_BLOCKS), 0);
    assert_false(is_free(x, address + 1));
    checkpoint(x);
    assert_false(is_free(x, address + 1));
    space_unhold(x->sp);
    assert_true(is_free(x, address + 1));
    assert_int_equal(stats(x).waiting, 0);
    assert_int_equal(stats(x).used, x->image.used_blocks);
    checkpoint(x);
    space_close(x->sp);
    assert_int_equal(open_again(x), 0);
    assert_int_equal(stats(x).used, used - 1);
    fix_free(x);
}

static void test_every_flipped_byte_of_the_map_is_found(void **state)
{
    (void)state;
    struct fix *x = small_store();
    for (size_t i = 0; i < BLOCK_BYTES; i += 1 + i / 64) {
        index_bytes(x)[i] ^= 0x10;
        assert_true(err_is_corruption(open_again(x)) || i < 8); // i < 8: magic, version, type
        assert_null(x->sp);
        index_bytes(x)[i] ^= 0x10;
        bitmap_bytes(x)[i] ^= 0x10;
        assert_int_equal(open_again(x), 0);
        assert_true(space_load_group(x->sp, &x->lock, 0) < 0);
        // What was in it is not given out.
        assert_int_equal(x->sp->free, 0);
        bitmap_bytes(x)[i] ^= 0x10;
        assert_int_equal(space_load_group(x->sp, &x->lock, 0), 0);
        assert_int_equal(x->sp->free, x->sp->capacity - 14);
        space_close(x->sp);
        x->sp = NULL;
    }
    fix_free(x);
}

static void test_damaged_group_is_passed_over(void **state)
{
    (void)state;
    struct fix *x = small_store();
    assert_int_equal(open_again(x), 0);
    assert_int_equal(space_grow(x->sp, &x->lock, 2 * GROUP_BLOCKS), 0);
    assert_int_equal(prepare(x, 1, 0, false), 0);
    bitmap_bytes(x)[1000] ^= 1;
    assert_int_equal(space_load_group(x->sp, &x->lock, 0), -AF_E_SPACE_CHECKSUM);
    uint64_t count;
    assert_true(alloc(x, 64, &count) > GROUP_BLOCKS);
    // Something freed in it cannot be published.
    struct space_image image;
    space_free(x->sp, 5, 1);
    freeze(x);
    assert_int_equal(write_frozen(x, &image), -AF_E_SPACE_CHECKSUM);
    fix_free(x);
}

// Changes the index block as a faulty writer would, with a right checksum.
static int open_with_index(struct fix *x, size_t off, uint8_t value)
{
    uint8_t *bytes = index_bytes(x);
    uint8_t old = bytes[off];
    le64 sum = x->image.refs[0].checksum;
    bytes[off] = value;
    x->image.refs[0].checksum = le64_put(checksum(CSUM_INDEX, 0, bytes, BLOCK_BYTES));
    int r = open_again(x);
    bytes[off] = old;
    x->image.refs[0].checksum = sum;
    assert_null(x->sp);
    return r;
}

static void test_impossible_index_is_refused(void **state)
{
    (void)state;
    struct fix *x = small_store();
    assert_int_equal(open_with_index(x, 0, 'B'), -AF_E_BLOCK_MAGIC);
    assert_int_equal(open_with_index(x, 4, 2), -AF_E_VERSION);
    assert_int_equal(open_with_index(x, 6, BLOCK_TYPE_BITMAP), -AF_E_BLOCK_MAGIC);
    assert_int_equal(open_with_index(x, 8, 'x'), -AF_E_BLOCK_UUID);
    assert_int_equal(open_with_index(x, 24, 77), -AF_E_BLOCK_ADDRESS);
    static const struct {
        uint8_t off, value;
    } layout[] = {{7, 1},           {40, 0}, {40, 2}, {41, 1}, {44, 64},
                  {48, 1},          {63, 1}, {72, 1}, {75, 1}, {76, 2},
                  {76, SLOT_NEVER}, {77, 1}, {79, 1}, {80, 1}, {92, SLOT_NEVER}};
    for (size_t i = 0; i < AF_ARRAY_LEN(layout); i++)
        assert_int_equal(open_with_index(x, layout[i].off, layout[i].value), -AF_E_SPACE_LAYOUT);
    fix_free(x);
}

static void test_impossible_image_is_refused(void **state)
{
    (void)state;
    struct fix *x = small_store();
    struct space_image good = x->image;
    struct map_ref_disk ref = good.refs[0];
    x->image.used_blocks++;
    assert_int_equal(open_again(x), -AF_E_SPACE_LAYOUT);
    x->image = good;
    x->image.index_count = 0;
    assert_int_equal(open_again(x), -AF_E_SPACE_LAYOUT);
    x->image = good;
    x->image.data_blocks = 3;
    assert_int_equal(open_again(x), -AF_E_SPACE_LAYOUT);
    x->image.data_blocks = UINT64_MAX;
    assert_int_equal(open_again(x), -AF_E_SPACE_LAYOUT);
    x->image.data_blocks = good.data_blocks + 1;
    assert_int_equal(open_again(x), -AF_E_IO_SHORT);
    x->image = good;
    good.refs[0].slot = SLOT_NEVER;
    assert_int_equal(open_again(x), -AF_E_SPACE_LAYOUT);
    good.refs[0] = ref;
    good.refs[0].reserved[1] = 1;
    assert_int_equal(open_again(x), -AF_E_SPACE_LAYOUT);
    good.refs[0] = ref;
    good.refs[0].free = le32_put(le32_get(ref.free) - 1);
    assert_int_equal(open_again(x), -AF_E_SPACE_LAYOUT);
    good.refs[0] = ref;
    good.refs[0].slot ^= 1;
    assert_true(open_again(x) < 0);
    good.refs[0] = ref;
    x->disk.read_error = -EIO;
    assert_int_equal(open_again(x), -EIO);
    x->disk.read_error = 0;
    assert_int_equal(open_again(x), 0);
    fix_free(x);
}

static void test_impossible_bitmap_is_refused(void **state)
{
    (void)state;
    struct fix *x = small_store();
    uint8_t bytes[BLOCK_BYTES];
    static const struct {
        uint16_t off;
        uint8_t value;
    } layout[] = {{7, 1}, {42, 1}, {44, 64}, {50, 1}, {64, 0xfe}, {64, 0xf7}, {4095, 0x80}};
    for (size_t i = 0; i < AF_ARRAY_LEN(layout); i++) {
        memcpy(bytes, bitmap_bytes(x), BLOCK_BYTES);
        bytes[layout[i].off] = layout[i].value;
        uint64_t sum = checksum(CSUM_BITMAP, 0, bytes, BLOCK_BYTES);
        int r = space_validate(bytes, BLOCK_TYPE_BITMAP, space_bitmap_address(0, 0), sum,
                               x->config.uuid);
        assert_int_equal(r, -AF_E_SPACE_LAYOUT);
    }
    // With references that fit, but another count than that of the zeros: found when it is loaded.
    struct index_head {
        struct block_header_disk header;
        struct map_ref_disk refs[GROUPS_PER_INDEX];
    } *index = (struct index_head *)index_bytes(x);
    bitmap_bytes(x)[2000] ^= 1;
    index->refs[0].checksum = le64_put(checksum(CSUM_BITMAP, 0, bitmap_bytes(x), BLOCK_BYTES));
    x->image.refs[0].checksum = le64_put(checksum(CSUM_INDEX, 0, index, BLOCK_BYTES));
    assert_int_equal(open_again(x), 0);
    assert_int_equal(space_load_group(x->sp, &x->lock, 0), -AF_E_SPACE_LAYOUT);
    fix_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_freed_block_waits_for_publication),
        cmocka_unit_test(test_block_allocated_and_freed_in_one_interval_is_free_after_it),
        cmocka_unit_test(test_what_is_held_is_not_used_anew),
        cmocka_unit_test(test_spilled_block_is_free_in_the_map),
        cmocka_unit_test(test_release_gives_back_at_once),
        cmocka_unit_test(test_reserve_is_kept_for_urgent_work),
        cmocka_unit_test(test_waiting_for_space_has_an_end),
        cmocka_unit_test(test_growth_takes_less_when_the_host_is_short),
        cmocka_unit_test(test_growth_leaves_the_host_a_megabyte),
        cmocka_unit_test(test_no_space_at_all_is_an_answer),
        cmocka_unit_test(test_growth_of_the_last_group_is_counted_in_its_bitmap),
        cmocka_unit_test(test_growth_is_synced_before_it_is_granted),
        cmocka_unit_test(test_map_of_many_groups_has_several_indexes),
        cmocka_unit_test(test_groups_are_evicted_but_for_those_with_allocations),
        cmocka_unit_test(test_long_runs_and_single_blocks_lie_apart),
        cmocka_unit_test(test_claim_refuses_what_the_map_cannot_give),
        cmocka_unit_test(test_cap_below_what_is_used_opens),
        cmocka_unit_test(test_contradictions_are_never_published),
        cmocka_unit_test(test_double_free_is_found_at_the_checkpoint),
        cmocka_unit_test(test_every_flipped_byte_of_the_map_is_found),
        cmocka_unit_test(test_damaged_group_is_passed_over),
        cmocka_unit_test(test_impossible_index_is_refused),
        cmocka_unit_test(test_impossible_image_is_refused),
        cmocka_unit_test(test_impossible_bitmap_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
