// SPDX-License-Identifier: MIT
// Tests of whole-image verification and of the dump: whatever is wrong is found, and nothing
// crashes them.
#include "base/checksum.h"
#include "checkpoint/dump.h"
#include "store/btree.h"
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
    for (uint64_t block = 0; block < bytes / BLOCK_BYTES; block++) {
        static const uint8_t zeros[BLOCK_BYTES];
        uint8_t old[BLOCK_BYTES];

        assert_int_equal(sim_read_raw(w->sim, "data", block * BLOCK_BYTES, old, BLOCK_BYTES), 0);
        if (memcmp(old, zeros, BLOCK_BYTES) == 0)
            continue; // never written, so not in use
        assert_int_equal(sim_flip_bits(w->sim, "data", block * BLOCK_BYTES + 77, 1), 0);
        found += verify(w, &all).damage > 0;
        assert_int_equal(dump_store(sim_io(w->sim), &dump), 0);
        assert_int_equal(sim_flip_bits(w->sim, "data", block * BLOCK_BYTES + 77, 1), 0);
    }
    // All nodes, all data, and of the space map the slots in use: at most one of each pair.
    assert_true(found > sound.nodes + sound.data_blocks && found < sound.blocks_reached);
    assert_true(lines > 0);
    world_destroy(w);
}

static void test_every_flipped_byte_of_the_table_of_snapshots_is_found(void **state)
{
    struct world *w = world_used();
    struct block_header_disk h;
    struct findings all;
    uint64_t bytes, table = 0;

    (void)state;
    must_open(w);
    assert_int_equal(store_snapshot_create(engine_store(w->engine), STORE_BLOCK, "one"), 0);
    must_close(w);
    assert_int_equal(verify(w, &all).damage, 0);
    assert_int_equal(sim_file_size(w->sim, "data", &bytes), 0);
    for (uint64_t off = 0; off < bytes && table == 0; off += BLOCK_BYTES) {
        assert_int_equal(sim_read_raw(w->sim, "data", off, &h, sizeof(h)), 0);
        if (le32_get(h.magic) == BLOCK_MAGIC && h.type == BLOCK_TYPE_SNAPSHOTS)
            table = off;
    }
    assert_true(table > 0);
    for (uint64_t at = 0; at < BLOCK_BYTES; at += at < 256 ? 1 : 97) {
        assert_int_equal(sim_flip_bits(w->sim, "data", table + at, 4), 0);
        int err = world_open(w);
        if (err == 0)
            fail_msg("byte %u of the table of snapshots may be anything", (unsigned)at);
        assert_true(err_is_corruption(err));
        w->engine = NULL;
        assert_true(verify(w, &all).damage > 0);
        assert_int_equal(sim_flip_bits(w->sim, "data", table + at, 4), 0);
    }
    must_open(w);
    must_close(w);
    world_destroy(w);
}

// ---- structures that are wrong under right checksums ----

// A closed store whose tree is one leaf: changed, and sealed again up to the superblock.
struct sealed {
    struct world *w;
    struct superblock_slots slots;
    struct superblock *sb;
    uint8_t leaf[BLOCK_BYTES];
};

static void sealed_open(struct sealed *s)
{
    struct store_attr attr;

    s->w = world_used();
    must_open(s->w);
    assert_int_equal(store_mknod(engine_store(s->w->engine), STORE_BLOCK, INO_ROOT, "dir",
                                 S_IFDIR | 0755, 0, &cred, &attr),
                     0);
    assert_int_equal(store_symlink(engine_store(s->w->engine), STORE_BLOCK, INO_ROOT, "link",
                                   "target", &cred, &attr),
                     0);
    assert_int_equal(
        store_setxattr(engine_store(s->w->engine), STORE_BLOCK, attr.ino, "user.x", "1", 1, 0), 0);
    must_close(s->w);
    must_be_sound(s->w);
    assert_int_equal(superblock_load(sim_io(s->w->sim), &s->slots), 0);
    s->sb = &s->slots.sb[s->slots.chosen];
    assert_int_equal(s->sb->image.root.level, 0);
    assert_int_equal(sim_read_raw(s->w->sim, "data", s->sb->image.root.ref.address * BLOCK_BYTES,
                                  s->leaf, BLOCK_BYTES),
                     0);
}

static void sealed_write(struct sealed *s, const uint8_t *leaf, const struct superblock *sb)
{
    static uint8_t bytes[SUPERBLOCK_SLOT_BYTES];
    struct superblock changed = *sb;

    changed.image.root.ref.checksum = checksum(CSUM_NODE, 0, leaf, BLOCK_BYTES);
    superblock_encode(&changed, (unsigned)s->slots.chosen, bytes);
    assert_int_equal(sim_write_raw(s->w->sim, "superblock",
                                   (uint64_t)s->slots.chosen * SUPERBLOCK_SLOT_BYTES, bytes,
                                   sizeof(bytes)),
                     0);
    assert_int_equal(sim_write_raw(s->w->sim, "data", sb->image.root.ref.address * BLOCK_BYTES,
                                   leaf, BLOCK_BYTES),
                     0);
}

static void sealed_close(struct sealed *s)
{
    superblock_slots_free(&s->slots);
    world_destroy(s->w);
}

// Offset in the leaf of the value of the item number `nth` of a kind.
static size_t item_at(const uint8_t *leaf, enum item_kind kind, unsigned nth)
{
    for (unsigned i = 0; i < node_count(leaf); i++) {
        size_t len;

        if (node_key(leaf, i).kind == kind && nth-- == 0)
            return (size_t)((const uint8_t *)node_value(leaf, i, &len) - leaf);
    }
    fail_msg("no such item");
    return 0;
}

static void test_wrong_items_under_right_checksums_are_found(void **state)
{
    static const struct {
        enum item_kind kind;
        unsigned nth;   // of the kind
        unsigned off;   // byte of the value
        uint8_t change; // added to it
    } cases[] = {
        {KIND_INODE, 0, 4, 1},    {KIND_INODE, 1, 4, 1},     // nlink of the root, of a file
        {KIND_INODE, 0, 24, 1},   {KIND_INODE, 1, 25, 0xf0}, // size
        {KIND_INODE, 0, 1, 0x40}, {KIND_INODE, 1, 1, 0x20},  // type
        {KIND_INODE, 1, 2, 1},                               // mode
        {KIND_INODE, 1, 32, 1},   {KIND_INODE, 1, 51, 0x80}, // blocks, nanoseconds
        {KIND_INODE, 1, 88, 1},   {KIND_INODE, 1, 92, 1},    // flags, reserved
        {KIND_INODE, 1, 96, 1},   {KIND_INODE, 1, 101, 1},   // content id
        {KIND_INODE, 0, 104, 1},  {KIND_INODE, 1, 104, 1},   // parent
        {KIND_INODE, 1, 118, 1},  {KIND_INODE, 1, 126, 1},   // LSNs behind the cut
        {KIND_INODE, 1, 136, 1},                             // reserved
        {KIND_DENTRY, 0, 0, 1},   {KIND_DENTRY, 1, 5, 1},    {KIND_DENTRY, 0, 8, 1},
        {KIND_DENTRY, 0, 9, 1},   {KIND_DENTRY, 0, 10, 1},   {KIND_EXTENT, 0, 0, 1},
        {KIND_EXTENT, 0, 3, 1},   {KIND_EXTENT, 0, 7, 0x80}, {KIND_EXTENT, 0, 14, 1},
        {KIND_EXTENT, 0, 16, 1},  {KIND_EXTENT, 0, 17, 1},   {KIND_EXTENT, 0, 20, 1},
        {KIND_EXTENT, 0, 24, 1},  {KIND_EXTENT, 0, 40, 1},   {KIND_XATTR, 0, 0, 1},
        {KIND_XATTR, 0, 1, 1},    {KIND_XATTR, 0, 2, 1},     {KIND_XATTR, 0, 4, 1},
        {KIND_XATTR, 0, 9, 1},
    };
    struct sealed s;
    struct findings all;

    (void)state;
    sealed_open(&s);
    for (size_t i = 0; i < AF_ARRAY_LEN(cases); i++) {
        uint8_t leaf[BLOCK_BYTES];

        memcpy(leaf, s.leaf, sizeof(leaf));
        size_t at = item_at(leaf, cases[i].kind, cases[i].nth) + cases[i].off;
        leaf[at] = (uint8_t)(leaf[at] + cases[i].change);
        sealed_write(&s, leaf, s.sb);
        if (verify(s.w, &all).damage == 0)
            fail_msg("case %zu: kind %d, byte %u", i, (int)cases[i].kind, cases[i].off);
    }
    sealed_write(&s, s.leaf, s.sb);
    must_be_sound(s.w);
    sealed_close(&s);
}

static void test_wrong_sums_in_the_superblock_are_found(void **state)
{
    struct sealed s;
    struct findings all;

    (void)state;
    sealed_open(&s);
    for (unsigned i = 0; i < 4; i++) {
        struct superblock sb = *s.sb;

        sb.image.inodes += i == 0;
        sb.image.next_ino = i == 1 ? 2 : sb.image.next_ino;
        sb.image.space.used_blocks += i == 2;
        sb.image.hash_seed += i == 3;
        sealed_write(&s, s.leaf, &sb);
        assert_true(verify(s.w, &all).damage > 0);
    }
    sealed_close(&s);
}

// Nothing that stands on disk, however wrong, may crash those that only look.
static void test_random_bytes_under_right_checksums_crash_nothing(void **state)
{
    struct dump_options dump = {.parts = DUMP_TREE | DUMP_NODES | DUMP_SPACE, .line = count_line};
    struct sealed s;
    struct findings all;
    uint64_t x = 99;
    unsigned lines = 0;

    (void)state;
    sealed_open(&s);
    dump.arg = &lines;
    for (unsigned round = 0; round < 1000; round++) {
        uint8_t leaf[BLOCK_BYTES];

        memcpy(leaf, s.leaf, sizeof(leaf));
        for (unsigned i = 0; i <= round % 4; i++) {
            x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            // Of the block's own header only what is behind its identity.
            leaf[40 + (x >> 33) % (BLOCK_BYTES - 40)] = (uint8_t)(x >> 56);
        }
        sealed_write(&s, leaf, s.sb);
        (void)verify(s.w, &all);
        assert_int_equal(dump_store(sim_io(s.w->sim), &dump), 0);
    }
    sealed_close(&s);
}

static void test_a_clean_store_with_a_rotten_second_slot_is_damaged(void **state)
{
    struct sealed s;
    struct findings all;

    (void)state;
    sealed_open(&s);
    uint64_t off = (uint64_t)(1 - s.slots.chosen) * SUPERBLOCK_SLOT_BYTES;
    assert_int_equal(sim_flip_bits(s.w->sim, "superblock", off + 99, 1), 0);
    assert_int_equal(verify(s.w, &all).damage, 1);
    // It opens all the same, and says so.
    must_open(s.w);
    assert_non_null(strstr(s.w->log, "written anew"));
    must_close(s.w);
    must_be_sound(s.w);
    sealed_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_flipped_byte_of_data_in_use_is_found),
        cmocka_unit_test(test_every_flipped_byte_of_the_table_of_snapshots_is_found),
        cmocka_unit_test(test_wrong_items_under_right_checksums_are_found),
        cmocka_unit_test(test_wrong_sums_in_the_superblock_are_found),
        cmocka_unit_test(test_random_bytes_under_right_checksums_crash_nothing),
        cmocka_unit_test(test_a_clean_store_with_a_rotten_second_slot_is_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
