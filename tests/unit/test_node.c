// SPDX-License-Identifier: MIT
// One tree node: order, room, gaps, splits, and every reason for which validation refuses a block.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/checksum.h"
#include "base/err.h"
#include "store/node.h"

#define ADDRESS    77u
#define GENERATION 9u

static const uint8_t uuid[16] = "0123456789abcde";

static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t random_below(uint64_t n)
{
    return random_next() % n;
}

static void random_seed(void)
{
    const char *text = getenv("SEED");
    if (!text)
        text = getenv("AEROFS_TEST_SEED");
    random_state = text ? strtoull(text, NULL, 0) : 20240607;
    print_message("SEED=%llu\n", (unsigned long long)random_state);
    random_state = random_state * UINT64_C(0x9E3779B97F4A7C15) + 1;
}

// Aligned as blocks are.
union page {
    uint8_t bytes[BLOCK_BYTES];
    uint64_t align;
};

static void leaf_init(union page *p)
{
    memset(p, 0xA5, sizeof(*p));
    node_init(p->bytes, uuid, ADDRESS, GENERATION, 0);
}

static struct key key_of(uint64_t off)
{
    return key_make(5, KIND_EXTENT, off);
}

static void leaf_put(union page *p, uint64_t off, size_t len)
{
    uint8_t value[ITEM_BYTES_MAX];
    bool found;
    struct key key = key_of(off);
    memset(value, (int)(off * 31 + len), sizeof(value));
    unsigned index = node_search(p->bytes, &key, &found);
    assert_false(found);
    assert_true(node_fits(p->bytes, len));
    node_insert(p->bytes, index, &key, value, len);
}

static void leaf_expect(const union page *p, unsigned index, uint64_t off, size_t len)
{
    size_t real_len;
    const uint8_t *value = node_value(p->bytes, index, &real_len);
    struct key key = node_key(p->bytes, index), want = key_of(off);
    assert_int_equal(key_compare(&key, &want), 0);
    assert_int_equal(real_len, len);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(value[i], (uint8_t)(off * 31 + len));
}

static struct blkref seal(const union page *p)
{
    return (struct blkref){.address = ADDRESS,
                           .checksum = checksum(CSUM_NODE, 0, p->bytes, BLOCK_BYTES),
                           .generation = GENERATION};
}

static int validate(const union page *p, unsigned level)
{
    struct blkref ref = seal(p);
    return node_validate(p->bytes, &ref, level, uuid);
}

static void test_search_finds_items_and_places(void **state)
{
    (void)state;
    union page p;
    bool found;
    leaf_init(&p);
    for (uint64_t off = 2; off <= 20; off += 2)
        leaf_put(&p, off, 8);
    for (uint64_t off = 1; off <= 21; off++) {
        struct key key = key_of(off);
        assert_int_equal(node_search(p.bytes, &key, &found), (off - 1) / 2);
        assert_int_equal(found, off % 2 == 0);
    }
    struct key low = key_make(4, KIND_ORPHAN, 99), high = key_make(5, KIND_DENTRY, 0);
    assert_int_equal(node_search(p.bytes, &low, &found), 0);
    assert_int_equal(node_search(p.bytes, &high, &found), 10);
}

static void test_search_child_takes_slot_0_below_its_key(void **state)
{
    (void)state;
    union page p;
    node_init(p.bytes, uuid, ADDRESS, GENERATION, 1);
    for (unsigned i = 0; i < 5; i++) {
        struct blkref ref = {.address = 100 + i, .checksum = 1, .generation = 2};
        struct key key = key_of(10 * i + 10);
        node_insert_child(p.bytes, i, &key, &ref);
    }
    static const unsigned want[][2] = {{0, 0},  {10, 0}, {19, 0}, {20, 1},
                                       {49, 3}, {50, 4}, {99, 4}};
    for (size_t i = 0; i < AF_ARRAY_LEN(want); i++) {
        struct key key = key_of(want[i][0]);
        unsigned index = node_search_child(p.bytes, &key);
        assert_int_equal(index, want[i][1]);
        assert_int_equal(node_child(p.bytes, index).address, 100 + want[i][1]);
    }
    node_set_child_checksum(p.bytes, 3, 4711);
    struct blkref ref = node_child(p.bytes, 3);
    assert_int_equal(ref.address, 103);
    assert_int_equal(ref.checksum, 4711);
    assert_int_equal(ref.generation, 2);
    assert_int_equal(validate(&p, 1), 0);
}

static void test_node_is_filled_to_the_last_byte(void **state)
{
    (void)state;
    union page p;
    leaf_init(&p);
    for (uint64_t off = 0; off < 3; off++)
        leaf_put(&p, off, ITEM_BYTES_MAX);
    assert_int_equal(node_used(p.bytes), NODE_ROOM);
    assert_false(node_fits(p.bytes, 0));
    assert_int_equal(validate(&p, 0), 0);
    node_delete(p.bytes, 1);
    assert_true(node_fits(p.bytes, ITEM_BYTES_MAX));
    leaf_put(&p, 1, ITEM_BYTES_MAX);
    for (unsigned i = 0; i < 3; i++)
        leaf_expect(&p, i, i, ITEM_BYTES_MAX);
    node_delete(p.bytes, 0);
    node_delete(p.bytes, 0);
    node_delete(p.bytes, 0);
    assert_int_equal(node_used(p.bytes), 0);
    assert_int_equal(validate(&p, 0), 0);
}

// Random inserts, replacements and deletes in one node, against an array of lengths by key.
static void test_random_changes_keep_all_items(void **state)
{
    (void)state;
    enum { KEYS = 64 };
    random_seed();
    for (unsigned round = 0; round < 200; round++) {
        union page p;
        int lens[KEYS];
        leaf_init(&p);
        memset(lens, 0xFF, sizeof(lens));
        for (unsigned step = 0; step < 300; step++) {
            uint64_t off = random_below(KEYS);
            size_t len = random_below(random_below(4) == 0 ? ITEM_BYTES_MAX + 1 : 60);
            struct key key = key_of(off);
            bool found;
            unsigned index = node_search(p.bytes, &key, &found);
            assert_int_equal(found, lens[off] >= 0);
            if (found && random_below(3) == 0) {
                node_delete(p.bytes, index);
                lens[off] = -1;
            } else if (found && node_fits_replaced(p.bytes, index, len)) {
                uint8_t value[ITEM_BYTES_MAX];
                memset(value, (int)(off * 31 + len), sizeof(value));
                node_replace(p.bytes, index, value, len);
                lens[off] = (int)len;
            } else if (!found && node_fits(p.bytes, len)) {
                leaf_put(&p, off, len);
                lens[off] = (int)len;
            }
        }
        unsigned at = 0;
        size_t used = 0;
        for (unsigned off = 0; off < KEYS; off++) {
            if (lens[off] < 0)
                continue;
            leaf_expect(&p, at++, off, (size_t)lens[off]);
            used += NODE_ITEM_BYTES((size_t)lens[off]);
        }
        assert_int_equal(node_count(p.bytes), at);
        assert_int_equal(node_used(p.bytes), used);
        assert_int_equal(validate(&p, 0), 0);
    }
}

static void test_split_balances_bytes_and_loses_nothing(void **state)
{
    (void)state;
    random_seed();
    for (unsigned round = 0; round < 2000; round++) {
        union page left, right;
        size_t lens[256], max = random_below(3) == 0 ? ITEM_BYTES_MAX + 1 : 1 + random_below(300);
        unsigned count = 0;
        leaf_init(&left);
        leaf_init(&right);
        size_t len = random_below(max);
        while (node_fits(left.bytes, len)) {
            lens[count] = len;
            leaf_put(&left, 2 * count++, len);
            len = random_below(max);
        }
        unsigned index = (unsigned)random_below(count + 1), to;
        bool to_right = node_split(left.bytes, right.bytes, index, len, &to);
        uint8_t value[ITEM_BYTES_MAX];
        uint64_t off = index == 0 ? 0 : 2 * index - 1;
        struct key key = index == 0 ? key_make(5, KIND_XATTR, 0) : key_of(off);
        memset(value, (int)(off * 31 + len), sizeof(value));
        node_insert(to_right ? right.bytes : left.bytes, to, &key, value, len);
        unsigned left_count = node_count(left.bytes), right_count = node_count(right.bytes);
        assert_true(left_count > 0 && right_count > 0);
        assert_int_equal(left_count + right_count, count + 1);
        assert_int_equal(validate(&left, 0), 0);
        assert_int_equal(validate(&right, 0), 0);
        size_t bigger = AF_MAX(node_used(left.bytes), node_used(right.bytes));
        size_t total = node_used(left.bytes) + node_used(right.bytes);
        assert_true(2 * bigger <= total + NODE_ITEM_BYTES(ITEM_BYTES_MAX));
        for (unsigned i = 0; i <= count; i++) {
            const union page *p = i < left_count ? &left : &right;
            unsigned at = i < left_count ? i : i - left_count;
            if (i != index)
                leaf_expect(p, at, 2 * (i < index ? i : i - 1), lens[i < index ? i : i - 1]);
            else
                assert_int_equal(to_right, i >= left_count);
        }
    }
}

static void test_insert_all_merges(void **state)
{
    (void)state;
    union page a, b;
    leaf_init(&a);
    leaf_init(&b);
    for (uint64_t off = 0; off < 10; off++) {
        leaf_put(&a, off, 20 + off);
        leaf_put(&b, 10 + off, 30 + off);
    }
    union page c = a;
    node_insert_all(c.bytes, 10, b.bytes);
    union page d = b;
    node_insert_all(d.bytes, 0, a.bytes);
    for (unsigned i = 0; i < 20; i++) {
        leaf_expect(&c, i, i, 20 + i);
        leaf_expect(&d, i, i, 20 + i);
    }
}

static void test_clean_copy_is_the_same_node_with_zero_gaps(void **state)
{
    (void)state;
    union page p, copy;
    leaf_init(&p);
    for (uint64_t off = 0; off < 12; off++)
        leaf_put(&p, off, 100);
    node_delete(p.bytes, 3);
    node_delete(p.bytes, 7);
    node_replace(p.bytes, 0, "short", 5);
    node_copy_clean(copy.bytes, p.bytes);
    assert_int_equal(node_count(copy.bytes), 10);
    uint8_t held[BLOCK_BYTES] = {0};
    memset(held, 1, sizeof(struct block_header_disk) + 10 * sizeof(struct slot_disk));
    for (unsigned i = 0; i < 10; i++) {
        size_t len, copy_len;
        const uint8_t *value = node_value(p.bytes, i, &len);
        const uint8_t *copied = node_value(copy.bytes, i, &copy_len);
        assert_int_equal(len, copy_len);
        assert_int_equal(value - p.bytes, copied - copy.bytes);
        assert_memory_equal(value, copied, len);
        memset(held + (copied - copy.bytes), 1, len);
    }
    for (unsigned i = 0; i < BLOCK_BYTES; i++)
        assert_true(held[i] || copy.bytes[i] == 0);
    assert_int_equal(validate(&copy, 0), 0);
}

static struct block_header_disk *header(union page *p)
{
    return (struct block_header_disk *)p->bytes;
}

static struct slot_disk *slot(union page *p, unsigned i)
{
    return (struct slot_disk *)(p->bytes + sizeof(struct block_header_disk)) + i;
}

static void three_items(union page *p)
{
    leaf_init(p);
    for (uint64_t off = 0; off < 3; off++)
        leaf_put(p, off, 50);
}

static void test_validate_compares_the_header_with_the_reference(void **state)
{
    (void)state;
    union page p;
    three_items(&p);
    assert_int_equal(validate(&p, 0), 0);
    header(&p)->magic = le32_put(BLOCK_MAGIC + 1);
    assert_int_equal(validate(&p, 0), -AF_E_BLOCK_MAGIC);
    three_items(&p);
    header(&p)->type = BLOCK_TYPE_INDEX;
    assert_int_equal(validate(&p, 0), -AF_E_BLOCK_MAGIC);
    three_items(&p);
    header(&p)->version = le16_put(FORMAT_VERSION + 1);
    assert_int_equal(validate(&p, 0), -AF_E_VERSION);
    three_items(&p);
    header(&p)->uuid[15] ^= 1;
    assert_int_equal(validate(&p, 0), -AF_E_BLOCK_UUID);
    three_items(&p);
    header(&p)->address = le64_put(ADDRESS + 1);
    assert_int_equal(validate(&p, 0), -AF_E_BLOCK_ADDRESS);
    three_items(&p);
    header(&p)->generation = le64_put(GENERATION - 1);
    assert_int_equal(validate(&p, 0), -AF_E_BLOCK_GENERATION);
    three_items(&p);
    assert_int_equal(validate(&p, 1), -AF_E_NODE_LEVEL);
    header(&p)->level = NODE_LEVEL_MAX + 1;
    assert_int_equal(validate(&p, NODE_LEVEL_MAX + 1), -AF_E_NODE_LEVEL);
}

static void test_validate_finds_every_flipped_bit(void **state)
{
    (void)state;
    union page p;
    three_items(&p);
    struct blkref ref = seal(&p);
    for (unsigned bit = 0; bit < 8 * BLOCK_BYTES; bit += 7) {
        p.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(node_validate(p.bytes, &ref, 0, uuid) < 0);
        p.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(node_validate(p.bytes, &ref, 0, uuid), 0);
    p.bytes[4095] ^= 1;
    assert_int_equal(node_validate(p.bytes, &ref, 0, uuid), -AF_E_BLOCK_CHECKSUM);
    ref.checksum = 0;
    assert_int_equal(node_validate(p.bytes, &ref, 0, uuid), -AF_E_BLOCK_CHECKSUM);
}

static void test_validate_refuses_impossible_layouts(void **state)
{
    (void)state;
    union page p;
    three_items(&p);
    header(&p)->reserved[7] = 1;
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    three_items(&p);
    header(&p)->count = le32_put(169);
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    three_items(&p);
    header(&p)->count = le32_put(UINT32_MAX);
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    three_items(&p);
    header(&p)->heap_start = le32_put(BLOCK_BYTES + 1);
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    three_items(&p);
    header(&p)->heap_start = le32_put(64 + 3 * 24 - 1);
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    three_items(&p);
    header(&p)->heap_start = le32_put(BLOCK_BYTES); // above the values
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    node_init(p.bytes, uuid, ADDRESS, GENERATION, 3);
    assert_int_equal(validate(&p, 3), -AF_E_NODE_LAYOUT); // an inner node without children
}

static void test_validate_refuses_impossible_slots(void **state)
{
    (void)state;
    union page p;
    three_items(&p);
    slot(&p, 1)->reserved0 = 1;
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    three_items(&p);
    slot(&p, 2)->reserved1 = le16_put(1);
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    three_items(&p);
    slot(&p, 1)->value_off = le16_put((uint16_t)(BLOCK_BYTES - 149)); // a byte of the next one
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    three_items(&p);
    slot(&p, 0)->value_len = le16_put(51); // past the end of the block
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    three_items(&p);
    slot(&p, 0)->value_off = le16_put(UINT16_MAX);
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    leaf_init(&p);
    leaf_put(&p, 0, ITEM_BYTES_MAX);
    slot(&p, 0)->value_len = le16_put(ITEM_BYTES_MAX + 1);
    slot(&p, 0)->value_off = le16_put((uint16_t)(BLOCK_BYTES - ITEM_BYTES_MAX - 1));
    header(&p)->heap_start = le32_put(BLOCK_BYTES - ITEM_BYTES_MAX - 1);
    assert_int_equal(validate(&p, 0), -AF_E_NODE_LAYOUT);
    three_items(&p);
    slot(&p, 1)->kind = 0;
    assert_int_equal(validate(&p, 0), -AF_E_ITEM);
    three_items(&p);
    slot(&p, 2)->kind = KIND_ORPHAN + 1;
    assert_int_equal(validate(&p, 0), -AF_E_ITEM);
    three_items(&p);
    slot(&p, 1)->off = le64_put(0); // equal to slot 0
    assert_int_equal(validate(&p, 0), -AF_E_NODE_ORDER);
    three_items(&p);
    slot(&p, 0)->ino = le64_put(6);
    assert_int_equal(validate(&p, 0), -AF_E_NODE_ORDER);
}

static void inner_with(union page *p, struct blkref ref)
{
    struct key key = key_of(1);
    node_init(p->bytes, uuid, ADDRESS, GENERATION, 2);
    node_insert_child(p->bytes, 0, &key, &ref);
}

static void test_validate_refuses_impossible_references(void **state)
{
    (void)state;
    union page p;
    inner_with(&p, (struct blkref){.address = 1, .checksum = 2, .generation = GENERATION});
    assert_int_equal(validate(&p, 2), 0);
    inner_with(&p, (struct blkref){.address = 0, .checksum = 2, .generation = 3});
    assert_int_equal(validate(&p, 2), -AF_E_NODE_LAYOUT);
    inner_with(&p, (struct blkref){.address = 1, .checksum = 0, .generation = 3});
    assert_int_equal(validate(&p, 2), -AF_E_NODE_LAYOUT);
    inner_with(&p, (struct blkref){.address = 1, .checksum = 2, .generation = GENERATION + 1});
    assert_int_equal(validate(&p, 2), -AF_E_NODE_LAYOUT);
    inner_with(&p, (struct blkref){.address = 1, .checksum = 2, .generation = 3});
    slot(&p, 0)->value_len = le16_put(23);
    assert_int_equal(validate(&p, 2), -AF_E_NODE_LAYOUT);
}

// Whatever bytes pass can be read without leaving the block: the accessors rely on it.
static void test_what_validates_is_safe_to_read(void **state)
{
    (void)state;
    random_seed();
    unsigned passed = 0;
    for (unsigned round = 0; round < 20000; round++) {
        union page p;
        unsigned level = (unsigned)random_below(2);
        if (level == 0)
            three_items(&p);
        else
            inner_with(&p, (struct blkref){.address = 1, .checksum = 2, .generation = 3});
        for (unsigned n = (unsigned)random_below(3); n > 0; n--)
            p.bytes[40 + random_below(100)] = (uint8_t)random_next();
        if (validate(&p, level) < 0)
            continue;
        passed++;
        for (unsigned i = 0; i < node_count(p.bytes); i++) {
            size_t len;
            const uint8_t *value = node_value(p.bytes, i, &len);
            assert_true(value >= p.bytes && value + len <= p.bytes + BLOCK_BYTES);
        }
    }
    assert_true(passed > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search_finds_items_and_places),
        cmocka_unit_test(test_search_child_takes_slot_0_below_its_key),
        cmocka_unit_test(test_node_is_filled_to_the_last_byte),
        cmocka_unit_test(test_random_changes_keep_all_items),
        cmocka_unit_test(test_split_balances_bytes_and_loses_nothing),
        cmocka_unit_test(test_insert_all_merges),
        cmocka_unit_test(test_clean_copy_is_the_same_node_with_zero_gaps),
        cmocka_unit_test(test_validate_compares_the_header_with_the_reference),
        cmocka_unit_test(test_validate_finds_every_flipped_bit),
        cmocka_unit_test(test_validate_refuses_impossible_layouts),
        cmocka_unit_test(test_validate_refuses_impossible_slots),
        cmocka_unit_test(test_validate_refuses_impossible_references),
        cmocka_unit_test(test_what_validates_is_safe_to_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
