// SPDX-License-Identifier: MIT
// Every class of bytes of every structure on disk, by name: one flipped bit in each field of the
// superblocks, of a segment's header, of a record, of a leaf and an inner node, of a bitmap and an
// index block, in file data, in what is between and behind them. The verdict is compared with the
// one that docs/FORMAT.md gives:
//
//   refused    the mount, with exactly this code, and not a byte on the disk has changed
//   fails      exactly what the block holds; the scrub of the running store finds it
//   harmless   everything can be read and is right; the scrub finds nothing
//
// The store has crashed with its log attested, so that nothing can pass for a torn tail; or it was
// closed. SEED=n chooses the bits.
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "checkpoint/superblock.h"
#include "checkpoint/superblock_format.h"
#include "store/walk.h"
#include "tests/lib/fixture.h"
#include "tests/lib/rng.h"
#include "wal/wal_format.h"

#define SMALL_FILES 200u
#define LARGE_BYTES (40u * BLOCK_BYTES + 1000u)
#define BLOCK_MID   2048u

enum verdict { REFUSED, FAILS, HARMLESS };

struct field {
    const char *name;
    size_t off, len;
};
#define FIELD(type, member)                                          \
    {                                                                \
#member, offsetof(type, member), sizeof(((type *)0)->member) \
    }

struct rig {
    struct fixture fx; // not open; its disk is the sound one
    struct rng r;
    uint64_t small[SMALL_FILES], large;
    const char *part; // what is being damaged
    char what[96];
    uint64_t tried[3]; // by verdict
};

// What must fail, of the small and the large file.
struct expected {
    enum verdict verdict;
    int code;             // REFUSED: this one; FAILS: any of corruption
    struct key low, next; // FAILS: keys that cannot be read
    bool last;
    uint64_t bad_block; // of the large file; UINT64_MAX: none
    bool unseen;        // verification has nothing to say of it
};

static const struct store_cred cred = {.uid = 1, .gid = 2};

// ---- the store ----

static void small_text(unsigned i, char text[64])
{
    snprintf(text, 64, "contents of the small file %u", i);
}

static uint8_t large_byte(uint64_t at)
{
    return (uint8_t)(at * 31 + at / 4096 + 7);
}

static uint64_t put(struct rig *rig, const char *name, const void *bytes, size_t len)
{
    struct store_attr attr;
    struct store_file *file;

    assert_int_equal(
        store_create(rig->fx.store, STORE_BLOCK, INO_ROOT, name, 0644, O_RDWR, &cred, &attr, &file),
        0);
    assert_int_equal(store_write(rig->fx.store, STORE_BLOCK, file, 0, bytes, len, false), 0);
    assert_int_equal(store_release(rig->fx.store, STORE_BLOCK, file), 0);
    return attr.ino;
}

static void put_small(struct rig *rig, unsigned from, unsigned to)
{
    char name[16], text[64];

    for (unsigned i = from; i < to; i++) {
        snprintf(name, sizeof(name), "small-%u", i);
        small_text(i, text);
        rig->small[i] = put(rig, name, text, strlen(text));
    }
}

static void make(struct rig *rig, bool closed)
{
    uint8_t *bytes = malloc(LARGE_BYTES);

    *rig = (struct rig){.r = {rng_mix(env_number("SEED", 1), 21)}};
    assert_non_null(bytes);
    for (uint64_t i = 0; i < LARGE_BYTES; i++)
        bytes[i] = large_byte(i);
    fixture_init(&rig->fx, env_number("SEED", 1));
    assert_int_equal(fixture_create(&rig->fx), 0);
    assert_int_equal(fixture_open(&rig->fx), 0);
    put_small(rig, 0, SMALL_FILES / 2);
    rig->large = put(rig, "large", bytes, LARGE_BYTES);
    free(bytes);
    assert_int_equal(engine_checkpoint(rig->fx.engine), 0);
    put_small(rig, SMALL_FILES / 2, SMALL_FILES - 20);
    assert_int_equal(engine_checkpoint(rig->fx.engine), 0);
    for (unsigned i = SMALL_FILES - 20; i < SMALL_FILES; i++) {
        put_small(rig, i, i + 1);
        assert_int_equal(fixture_sync(&rig->fx), 0);
    }
    for (unsigned i = 0; i < 4; i++) { // the last flush is attested within a second
        sim_advance_ms(rig->fx.sim, 600);
        engine_tick(rig->fx.engine);
    }
    if (closed) {
        assert_int_equal(fixture_close(&rig->fx), 0);
    } else {
        fixture_leave(&rig->fx);
        crash_disk(rig->fx.sim, CRASH_DROP_ALL, 1);
    }
}

// ---- verdicts ----

static void wrong(const struct rig *rig, const char *fmt, ...) AF_PRINTF(2, 3);
static void wrong(const struct rig *rig, const char *fmt, ...)
{
    char text[200];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fail_msg("%s, %s: %s (SEED=%llu)", rig->part, rig->what, text,
             (unsigned long long)env_number("SEED", 1));
}

static bool holds(const struct expected *x, struct key key)
{
    return x->verdict == FAILS && x->bad_block == UINT64_MAX && key_compare(&key, &x->low) >= 0 &&
           (x->last || key_compare(&key, &x->next) < 0);
}

static void check_error(const struct rig *rig, const char *of, uint64_t ino, int err, bool bad)
{
    if (bad != (err < 0))
        wrong(rig, "%s of inode %llu: %s, and it should be %s", of, (unsigned long long)ino,
              err < 0 ? err_name(err) : "right", bad ? "an error" : "right");
    if (err < 0 && (!err_is_corruption(err) || err_to_errno(err) != EIO))
        wrong(rig, "%s of inode %llu answers %s", of, (unsigned long long)ino, err_name(err));
}

static void check_small(const struct rig *rig, struct store *s, unsigned i,
                        const struct expected *x)
{
    const uint64_t ino = rig->small[i];
    char seen[64], right[64];
    struct store_attr attr;
    size_t got = 0;
    bool bad_inode = holds(x, key_make(ino, KIND_INODE, 0));

    small_text(i, right);
    check_error(rig, "attributes", ino, store_getattr(s, STORE_BLOCK, ino, &attr), bad_inode);
    int err = store_read(s, STORE_BLOCK, ino, 0, seen, sizeof(seen), &got);
    check_error(rig, "content", ino, err, bad_inode || holds(x, key_make(ino, KIND_INLINE, 0)));
    if (err == 0 && (got != strlen(right) || memcmp(seen, right, got) != 0))
        wrong(rig, "wrong bytes of inode %llu", (unsigned long long)ino);
}

static void check_large(const struct rig *rig, struct store *s, const struct expected *x)
{
    uint8_t seen[BLOCK_BYTES];

    for (uint64_t b = 0; b * BLOCK_BYTES < LARGE_BYTES; b++) {
        size_t got = 0;
        int err = store_read(s, STORE_BLOCK, rig->large, b * BLOCK_BYTES, seen, sizeof(seen), &got);

        check_error(rig, "a block", rig->large, err, b == x->bad_block);
        for (size_t i = 0; err == 0 && i < got; i++)
            if (seen[i] != large_byte(b * BLOCK_BYTES + i))
                wrong(rig, "wrong bytes in block %llu", (unsigned long long)b);
    }
}

static void check_open(const struct rig *rig, struct fixture *fx, const struct expected *x)
{
    struct engine_scrub scrub;
    struct store_status st;

    for (unsigned i = 0; i < SMALL_FILES; i++)
        check_small(rig, fx->store, i, x);
    // A leaf of small files only: the large one has its own.
    if (x->verdict != FAILS || x->bad_block != UINT64_MAX)
        check_large(rig, fx->store, x);
    store_get_status(fx->store, &st);
    if ((st.damage_count > 0) != (x->verdict == FAILS))
        wrong(rig, "%zu damages are noted", st.damage_count);
    assert_int_equal(engine_scrub(fx->engine, 0), 0);
    engine_get_scrub(fx->engine, &scrub);
    if (scrub.result < 0 || (scrub.damage > 0) != (x->verdict == FAILS))
        wrong(rig, "the scrub ends with %s and %llu findings", err_name(scrub.result),
              (unsigned long long)scrub.damage);
}

// One flipped bit at `off`, from the field [from, from + len) of which the caller has told.
static void flip(struct rig *rig, const char *part, const char *field, const char *path,
                 uint64_t off, size_t len, const struct expected *x)
{
    struct fixture fx;
    char text[400];

    rig->part = part;
    off += rng_below(&rig->r, len);
    snprintf(rig->what, sizeof(rig->what), "%s (byte %llu of %s)", field, (unsigned long long)off,
             path);
    fixture_adopt(&fx, sim_clone(rig->fx.sim), &rig->fx.options);
    assert_int_equal(sim_flip_bits(fx.sim, path, off, (uint8_t)(1u << rng_below(&rig->r, 8))), 0);
    uint64_t before = sim_hash(fx.sim);
    int64_t damages = verify_text(fx.sim, text, sizeof(text));
    if (!x->unseen && (damages > 0) != (x->verdict != HARMLESS))
        wrong(rig, "verification finds %lld damages: %s", (long long)damages, text);
    int err = fixture_open(&fx);
    if (x->verdict == REFUSED ? err != x->code : err != 0)
        wrong(rig, "opening answers %s: %s", err_name(err), fx.refusal);
    if (err < 0 && sim_hash(fx.sim) != before)
        wrong(rig, "the refused opening has changed the disk");
    if (err == 0)
        check_open(rig, &fx, x);
    rig->tried[x->verdict]++;
    fixture_free(&fx);
}

static void flip_fields(struct rig *rig, const char *part, const char *path, uint64_t at,
                        const struct field *fields, size_t count, const struct expected *x)
{
    for (size_t i = 0; i < count; i++)
        flip(rig, part, fields[i].name, path, at + fields[i].off, fields[i].len, x);
}

static void end(struct rig *rig)
{
    printf("  %llu flipped bits refused, %llu fail alone, %llu harmless\n",
           (unsigned long long)rig->tried[REFUSED], (unsigned long long)rig->tried[FAILS],
           (unsigned long long)rig->tried[HARMLESS]);
    fixture_free(&rig->fx);
}

static const struct expected harmless = {.verdict = HARMLESS, .bad_block = UINT64_MAX};

// ---- superblocks ----

static const struct field superblock_fields[] = {
    FIELD(struct superblock_disk, magic),
    FIELD(struct superblock_disk, version),
    FIELD(struct superblock_disk, bytes),
    FIELD(struct superblock_disk, features_incompat),
    FIELD(struct superblock_disk, features_ro_compat),
    FIELD(struct superblock_disk, uuid),
    FIELD(struct superblock_disk, checksum),
    FIELD(struct superblock_disk, slot),
    FIELD(struct superblock_disk, sequence),
    FIELD(struct superblock_disk, epoch),
    FIELD(struct superblock_disk, cut_lsn),
    FIELD(struct superblock_disk, cut_checksum),
    FIELD(struct superblock_disk, log_segment),
    FIELD(struct superblock_disk, segment_bytes),
    FIELD(struct superblock_disk, generation),
    FIELD(struct superblock_disk, root),
    FIELD(struct superblock_disk, root_level),
    FIELD(struct superblock_disk, flags),
    FIELD(struct superblock_disk, next_ino),
    FIELD(struct superblock_disk, hash_seed),
    FIELD(struct superblock_disk, data_blocks),
    FIELD(struct superblock_disk, used_blocks),
    FIELD(struct superblock_disk, inodes),
    FIELD(struct superblock_disk, created),
    FIELD(struct superblock_disk, written),
    FIELD(struct superblock_disk, index_count),
    FIELD(struct superblock_disk, reserved0),
    FIELD(struct superblock_disk, snapshots),
    FIELD(struct superblock_disk, reserved2),
    FIELD(struct superblock_disk, next_lsn),
    FIELD(struct superblock_disk, log_seed),
    FIELD(struct superblock_disk, live_parent),
    FIELD(struct superblock_disk, next_snapshot),
    FIELD(struct superblock_disk, reserved1),
    {"refs", 512, 16},
    {"padding", 600, 3000},
};

static uint64_t newest_slot(struct rig *rig)
{
    struct superblock_slots slots;

    assert_int_equal(superblock_load(sim_io(rig->fx.sim), &slots), 0);
    uint64_t off = (uint64_t)slots.chosen * SUPERBLOCK_SLOT_BYTES;
    superblock_slots_free(&slots);
    return off;
}

static void test_every_field_of_the_superblocks(void **state)
{
    const struct expected lost = {.verdict = REFUSED, .code = -AF_E_SB_STALE};
    struct expected spare = harmless;
    struct rig rig;

    (void)state;
    spare.unseen = true; // after a clean end both slots must stand, after a crash one may be torn
    for (unsigned closed = 0; closed < 2; closed++) {
        make(&rig, closed == 1);
        uint64_t newest = newest_slot(&rig);
        // The last superblock of a clean end is a copy of the one before: its loss costs nothing.
        flip_fields(&rig, closed ? "newest superblock, closed" : "newest superblock", "superblock",
                    newest, superblock_fields, AF_ARRAY_LEN(superblock_fields),
                    closed ? &spare : &lost);
        flip_fields(&rig, "older superblock", "superblock", SUPERBLOCK_SLOT_BYTES - newest,
                    superblock_fields, AF_ARRAY_LEN(superblock_fields), &spare);
        flip(&rig, "superblock", "unused rest of the slot", "superblock", newest + 8192, 50000,
             &harmless);
        if (sim_exists(rig.fx.sim, SUPERBLOCK_FILE_RECOVER))
            flip(&rig, "spare superblock", "any", SUPERBLOCK_FILE_RECOVER, 0, 4096, &harmless);
        end(&rig);
    }
}

// ---- the log ----

struct records { // of the crashed store, behind the cut
    struct {
        uint64_t segment, offset;
        size_t body_bytes;
    } list[64];
    size_t count;
};

static int note_record(void *arg, const struct wal_record *record)
{
    struct records *n = arg;

    if (record->type == WAL_OPERATION && n->count < AF_ARRAY_LEN(n->list)) {
        n->list[n->count].segment = record->segment;
        n->list[n->count].offset = record->offset;
        n->list[n->count++].body_bytes = record->body_bytes;
    }
    return 0;
}

static void scan(struct rig *rig, struct records *ret, struct wal_scan_result *ret_result)
{
    struct superblock_slots slots;

    *ret = (struct records){0};
    assert_int_equal(superblock_load(sim_io(rig->fx.sim), &slots), 0);
    assert_int_equal(
        wal_scan(sim_io(rig->fx.sim), &slots.sb[slots.chosen].log, note_record, ret, ret_result),
        0);
    superblock_slots_free(&slots);
    assert_true(ret->count >= 10);
}

static const struct field segment_fields[] = {
    FIELD(struct wal_disk_segment, magic),         FIELD(struct wal_disk_segment, version),
    FIELD(struct wal_disk_segment, reserved0),     FIELD(struct wal_disk_segment, uuid),
    FIELD(struct wal_disk_segment, checksum),      FIELD(struct wal_disk_segment, segment),
    FIELD(struct wal_disk_segment, epoch),         FIELD(struct wal_disk_segment, first_lsn),
    FIELD(struct wal_disk_segment, prev_checksum), FIELD(struct wal_disk_segment, durable_lsn),
    FIELD(struct wal_disk_segment, segment_bytes), FIELD(struct wal_disk_segment, sequence),
    FIELD(struct wal_disk_segment, log_seed),      FIELD(struct wal_disk_segment, prev_lsn),
    FIELD(struct wal_disk_segment, reserved1),
};

static const struct field record_fields[] = {
    FIELD(struct wal_disk_record, magic),         FIELD(struct wal_disk_record, body_bytes),
    FIELD(struct wal_disk_record, lsn),           FIELD(struct wal_disk_record, durable_lsn),
    FIELD(struct wal_disk_record, prev_checksum), FIELD(struct wal_disk_record, checksum),
    FIELD(struct wal_disk_record, type),          FIELD(struct wal_disk_record, flags),
    FIELD(struct wal_disk_record, reserved),
};

static void test_every_field_of_the_log(void **state)
{
    const struct expected damaged = {.verdict = REFUSED, .code = -AF_E_LOG_DAMAGED};
    struct wal_scan_result result;
    struct records n;
    struct rig rig;
    char path[32];

    (void)state;
    make(&rig, false);
    scan(&rig, &n, &result);
    wal_segment_path(n.list[0].segment, path);
    flip_fields(&rig, "segment header", path, 0, segment_fields, AF_ARRAY_LEN(segment_fields),
                &damaged);
    // Each record by itself, the last one too: its attestation proves it.
    for (size_t i = 0; i < n.count; i++) {
        const uint64_t at = n.list[i].offset, body = at + sizeof(struct wal_disk_record);
        const size_t len = n.list[i].body_bytes, all = wal_record_bytes(len);

        wal_segment_path(n.list[i].segment, path);
        flip(&rig, "record", "body", path, body, len, &damaged);
        if (i == n.count / 2) {
            flip_fields(&rig, "record", path, at, record_fields, AF_ARRAY_LEN(record_fields),
                        &damaged);
            flip(&rig, "record", "first byte of the body", path, body, 1, &damaged);
            flip(&rig, "record", "last byte of the body", path, body + len - 1, 1, &damaged);
        }
        // Zeros that nothing reads.
        if (all > sizeof(struct wal_disk_record) + len)
            flip(&rig, "record", "padding", path, body + len,
                 all - sizeof(struct wal_disk_record) - len, &harmless);
    }
    flip(&rig, "log", "rest of the last block of a group", path,
         AF_ROUND_UP(n.list[n.count - 2].offset + 1, (uint64_t)BLOCK_BYTES) - 8, 8, &harmless);
    end(&rig);
}

// ---- the tree ----

static const struct field header_fields[] = {
    FIELD(struct block_header_disk, magic),      FIELD(struct block_header_disk, version),
    FIELD(struct block_header_disk, type),       FIELD(struct block_header_disk, level),
    FIELD(struct block_header_disk, uuid),       FIELD(struct block_header_disk, address),
    FIELD(struct block_header_disk, generation), FIELD(struct block_header_disk, count),
    FIELD(struct block_header_disk, heap_start), FIELD(struct block_header_disk, reserved),
};

static const struct field slot_fields[] = {
    FIELD(struct slot_disk, ino),       FIELD(struct slot_disk, off),
    FIELD(struct slot_disk, kind),      FIELD(struct slot_disk, reserved0),
    FIELD(struct slot_disk, value_off), FIELD(struct slot_disk, value_len),
    FIELD(struct slot_disk, reserved1),
};

static void flip_node(struct rig *rig, const char *part, const struct tree_way *way, unsigned level,
                      const struct expected *x)
{
    const uint64_t at = way->ref[level].address * BLOCK_BYTES;
    uint8_t bytes[BLOCK_BYTES];

    assert_int_equal(sim_read_raw(rig->fx.sim, "data", at, bytes, sizeof(bytes)), 0);
    const struct block_header_disk *h = (const struct block_header_disk *)bytes;
    unsigned count = le32_get(h->count), heap = le32_get(h->heap_start);
    size_t slots = sizeof(*h) + count * sizeof(struct slot_disk);

    flip_fields(rig, part, "data", at, header_fields, AF_ARRAY_LEN(header_fields), x);
    flip_fields(rig, part, "data", at + sizeof(*h) + count / 2 * sizeof(struct slot_disk),
                slot_fields, AF_ARRAY_LEN(slot_fields), x);
    if (heap > slots)
        flip(rig, part, "gap between slots and values", "data", at + slots, heap - slots, x);
    flip(rig, part, "first value", "data", at + heap, 1, x);
    flip(rig, part, "last value", "data", at + BLOCK_BYTES - 1, 1, x);
}

// The leaf with a small file, and the way to it, of the checkpoint of the closed store.
static void find_leaf(struct rig *rig, uint64_t ino, struct store_leaf *ret)
{
    struct fixture fx;
    struct io_file *data;

    fixture_adopt(&fx, sim_clone(rig->fx.sim), &rig->fx.options);
    assert_int_equal(fixture_open(&fx), 0);
    assert_int_equal(io_file_open(sim_io(fx.sim), "data", IO_READ_ONLY, &data), 0);
    assert_int_equal(store_walk(fx.store, data, 0, key_make(ino, KIND_INODE, 0), ret), 0);
    io_file_close(data);
    fixture_free(&fx);
}

static void test_every_field_of_the_nodes(void **state)
{
    struct expected root = {.verdict = REFUSED, .code = 0, .bad_block = UINT64_MAX};
    struct store_leaf *leaf = malloc(sizeof(*leaf));
    struct rig rig;

    (void)state;
    assert_non_null(leaf);
    make(&rig, true);
    find_leaf(&rig, rig.small[40], leaf);
    assert_true(leaf->way.root_level == 1 && !leaf->way.last);
    const struct expected lost = {
        .verdict = FAILS, .low = leaf->way.low, .next = leaf->way.next, .bad_block = UINT64_MAX};
    flip_node(&rig, "leaf", &leaf->way, 0, &lost);
    // The root is read when the store is opened.
    static const struct {
        size_t field;
        int code;
    } codes[] = {{0, -AF_E_BLOCK_MAGIC},      {1, -AF_E_BLOCK_CHECKSUM}, {2, -AF_E_BLOCK_MAGIC},
                 {3, -AF_E_NODE_LEVEL},       {4, -AF_E_BLOCK_UUID},     {5, -AF_E_BLOCK_ADDRESS},
                 {6, -AF_E_BLOCK_GENERATION}, {7, -AF_E_BLOCK_CHECKSUM}, {8, -AF_E_BLOCK_CHECKSUM},
                 {9, -AF_E_BLOCK_CHECKSUM}};
    for (size_t i = 0; i < AF_ARRAY_LEN(codes); i++) {
        root.code = codes[i].code;
        flip_fields(&rig, "root", "data", leaf->way.ref[1].address * BLOCK_BYTES,
                    &header_fields[codes[i].field], 1, &root);
    }
    root.code = -AF_E_BLOCK_CHECKSUM;
    flip_fields(&rig, "root", "data",
                leaf->way.ref[1].address * BLOCK_BYTES + sizeof(struct block_header_disk),
                slot_fields, AF_ARRAY_LEN(slot_fields), &root);
    end(&rig);
    free(leaf);
}

// ---- file data, the space map ----

static void test_every_byte_of_data_and_map(void **state)
{
    struct store_leaf *leaf = malloc(sizeof(*leaf));
    struct expected x = {.verdict = FAILS};
    struct superblock_slots slots;
    struct extent_disk e;
    struct rig rig;

    (void)state;
    assert_non_null(leaf);
    make(&rig, true);
    find_leaf(&rig, rig.large, leaf);
    uint64_t address = 0;
    for (unsigned i = 0; i < node_count(leaf->bytes); i++) {
        struct key key = node_key(leaf->bytes, i);
        size_t len;
        const void *value = node_value(leaf->bytes, i, &len);

        memcpy(&e, value, AF_MIN(len, sizeof(e)));
        if (key.ino != rig.large || key.kind != KIND_EXTENT || address != 0)
            continue;
        address = le64_get(e.address);
        for (uint32_t b = 0; b < le32_get(e.count); b += AF_MAX(le32_get(e.count) / 4, 1u)) {
            x.bad_block = key.off + b;
            flip(&rig, "file data", "first byte", "data", (address + b) * BLOCK_BYTES, 1, &x);
            flip(&rig, "file data", "middle", "data", (address + b) * BLOCK_BYTES + 1, BLOCK_MID,
                 &x);
            flip(&rig, "file data", "last byte", "data", (address + b + 1) * BLOCK_BYTES - 1, 1,
                 &x);
        }
    }
    assert_true(address != 0);
    end(&rig);

    make(&rig, false); // recovery needs the map
    assert_int_equal(superblock_load(sim_io(rig.fx.sim), &slots), 0);
    const struct map_ref_disk *index = &slots.sb[slots.chosen].image.space.refs[0];
    uint64_t at = space_index_address(0, index->slot) * BLOCK_BYTES;
    struct map_ref_disk bitmap;
    assert_int_equal(sim_read_raw(rig.fx.sim, "data", at + sizeof(struct block_header_disk),
                                  &bitmap, sizeof(bitmap)),
                     0);
    static const int codes[] = {-AF_E_BLOCK_MAGIC,    -AF_E_SPACE_CHECKSUM, -AF_E_BLOCK_MAGIC,
                                -AF_E_SPACE_CHECKSUM, -AF_E_BLOCK_UUID,     -AF_E_BLOCK_ADDRESS,
                                -AF_E_SPACE_CHECKSUM, -AF_E_SPACE_CHECKSUM, -AF_E_SPACE_CHECKSUM,
                                -AF_E_SPACE_CHECKSUM};
    for (unsigned step = 0; step < 2; step++) {
        const char *part = step == 0 ? "index block" : "bitmap";
        struct expected refused = {.verdict = REFUSED};

        if (step == 1)
            at = space_bitmap_address(0, bitmap.slot) * BLOCK_BYTES;
        for (size_t i = 0; i < AF_ARRAY_LEN(codes); i++) {
            refused.code = codes[i];
            flip_fields(&rig, part, "data", at, &header_fields[i], 1, &refused);
        }
        refused.code = -AF_E_SPACE_CHECKSUM;
        flip(&rig, part, "first entry", "data", at + sizeof(struct block_header_disk), 16,
             &refused);
        flip(&rig, part, "any entry", "data", at + sizeof(struct block_header_disk), 4000,
             &refused);
        // The slot that is not in force.
        uint64_t pair = step == 0 ? 2 * BLOCK_BYTES : 0;
        flip(&rig, part, "the other slot", "data", at == pair ? pair + BLOCK_BYTES : pair,
             BLOCK_BYTES, &harmless);
    }
    superblock_slots_free(&slots);
    end(&rig);
    free(leaf);
}

// ---- one wrong reading, then right ones ----

static int count_entry(void *arg, const char *name, size_t name_len, uint64_t ino, uint32_t mode,
                       const struct store_attr *attr, uint64_t next_cookie)
{
    (void)name, (void)name_len, (void)ino, (void)mode, (void)attr, (void)next_cookie;
    ++*(unsigned *)arg;
    return 0;
}

// Reads everything that there is; the first error.
static int read_all(struct rig *rig, struct store *s, unsigned what)
{
    static uint8_t seen[LARGE_BYTES];
    struct store_attr attr;
    unsigned entries = 0;
    size_t got;
    int err = 0;

    if (what == 0) {
        err = store_readdir(s, STORE_BLOCK, INO_ROOT, 0, false, count_entry, &entries);
        if (err == 0)
            assert_int_equal(entries, SMALL_FILES + 3); // "large", "." and ".."
    }
    for (unsigned i = 0; what == 1 && err == 0 && i < SMALL_FILES; i++)
        err = store_getattr(s, STORE_BLOCK, rig->small[i], &attr);
    if (what == 2)
        err = store_read(s, STORE_BLOCK, rig->large, 0, seen, sizeof(seen), &got);
    for (uint64_t i = 0; what == 2 && err == 0 && i < LARGE_BYTES; i++)
        assert_int_equal(seen[i], large_byte(i));
    return err;
}

// §8.2: no reading is repeated in the hope of a better one. The first reading of a block is wrong,
// and the call fails, although the disk is sound.
static void test_a_wrong_reading_is_not_repeated(void **state)
{
    struct rig rig;
    uint64_t failed = 0;

    (void)state;
    make(&rig, true);
    for (unsigned what = 0; what < 3; what++) {
        for (uint64_t skip = 0;; skip++) {
            const struct sim_fault fault = {.calls = SIM_BIT(SIM_READ),
                                            .path = "data",
                                            .skip = skip,
                                            .times = 1,
                                            .effect = SIM_FAULT_CORRUPT};
            struct store_status st;
            struct fixture fx;

            fixture_adopt(&fx, sim_clone(rig.fx.sim), &rig.fx.options);
            assert_int_equal(fixture_open(&fx), 0);
            unsigned number = sim_fault_add(fx.sim, &fault);
            int err = read_all(&rig, fx.store, what);
            uint64_t hits = sim_fault_hits(fx.sim, number);

            sim_faults_clear(fx.sim);
            store_get_status(fx.store, &st);
            if ((hits > 0) != (err < 0) || (err < 0 && !err_is_corruption(err)))
                fail_msg("work %u, reading %llu is wrong: the call answers %s", what,
                         (unsigned long long)skip, err_name(err));
            assert_true(st.damage_count == hits);
            // Asked again, it is read again, and right.
            assert_int_equal(read_all(&rig, fx.store, what), 0);
            fixture_free(&fx);
            failed += hits;
            if (hits == 0)
                break;
        }
    }
    printf("  %llu wrong readings, each an error\n", (unsigned long long)failed);
    assert_true(failed >= 15);
    end(&rig);
}

// The same while the store is opened: refused, or it did not matter; never another tree.
static void test_a_wrong_reading_at_recovery_refuses(void **state)
{
    static const char *const paths[] = {"data", "superblock", "wal/*"};
    uint64_t refused = 0, opened = 0;
    struct rig rig;

    (void)state;
    make(&rig, false);
    rig.part = "opening";
    for (unsigned p = 0; p < AF_ARRAY_LEN(paths); p++) {
        for (uint64_t skip = 0;; skip++) {
            const struct sim_fault fault = {.calls = SIM_BIT(SIM_READ),
                                            .path = paths[p],
                                            .skip = skip,
                                            .times = 1,
                                            .effect = SIM_FAULT_CORRUPT};
            struct fixture fx;

            snprintf(rig.what, sizeof(rig.what), "reading %llu of %s", (unsigned long long)skip,
                     paths[p]);
            fixture_adopt(&fx, sim_clone(rig.fx.sim), &rig.fx.options);
            unsigned number = sim_fault_add(fx.sim, &fault);
            uint64_t before = sim_hash(fx.sim);
            int err = fixture_open(&fx);
            uint64_t hits = sim_fault_hits(fx.sim, number);

            sim_faults_clear(fx.sim);
            if (err < 0 && !err_is_corruption(err))
                wrong(&rig, "answers %s", err_name(err));
            // Only replay has to come before the first write; what fails behind it leaves a store
            // that opens.
            if (err < 0 && sim_hash(fx.sim) != before && !strstr(fx.refusal, "recovery could not"))
                wrong(&rig, "the refused opening has changed the disk: %s", fx.refusal);
            refused += err < 0;
            opened += err == 0;
            if (err < 0)
                err = fixture_open(&fx);
            if (err < 0)
                wrong(&rig, "with right readings it is refused as well: %s", fx.refusal);
            for (unsigned i = 0; err == 0 && i < SMALL_FILES; i++)
                check_small(&rig, fx.store, i, &harmless);
            fixture_free(&fx);
            if (hits == 0)
                break;
        }
    }
    printf("  %llu openings with a wrong reading refused, %llu did not need it\n",
           (unsigned long long)refused, (unsigned long long)opened);
    assert_true(refused > 10);
    end(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_field_of_the_superblocks),
        cmocka_unit_test(test_every_field_of_the_log),
        cmocka_unit_test(test_every_field_of_the_nodes),
        cmocka_unit_test(test_every_byte_of_data_and_map),
        cmocka_unit_test(test_a_wrong_reading_is_not_repeated),
        cmocka_unit_test(test_a_wrong_reading_at_recovery_refuses),
    };

    return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
