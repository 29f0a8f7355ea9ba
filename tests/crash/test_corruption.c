// SPDX-License-Identifier: MIT
// Damage of every kind to every part of a store (contract C6): a flipped bit, a block of zeros,
// another block's bytes, the block's own older bytes; files that are missing, short or long. The
// store is refused with the right code, and nothing on the disk has changed; or what the damage
// holds answers with an error, and everything else with the right bytes. Never wrong bytes, and
// what verification calls sound is sound.
//
// Damaged are a store that was closed, and one that has crashed with its log attested, so that no
// damage can pass for a torn tail.
//
//   SEED=n  RUNS=n  how many stores;  COUNT=n  damages of each part
#include <errno.h>
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
#include "tests/lib/world.h"

#define PATHS_MAX 64
#define BLOCK     4096u

enum part {
    PART_SUPERBLOCK,
    PART_NODE,
    PART_BITMAP,
    PART_INDEX,
    PART_CONTENT,
    PART_LOG,
    PART_SPARE,
    PART_COUNT
};
enum damage { DAMAGE_FLIP, DAMAGE_ZERO, DAMAGE_OTHER, DAMAGE_OLD, DAMAGE_COUNT };

static const char *const part_names[PART_COUNT] = {"superblock",      "nodes",     "bitmaps",
                                                   "index blocks",    "file data", "log segments",
                                                   "spare superblock"};

struct tally {
    uint64_t tried, refused, failing, sound, found; // `found`: by verification
};

struct test {
    struct world w;
    struct sim *old; // the same store some time ago
    struct rng r;
    char paths[PATHS_MAX][SIM_PATH_BYTES];
    size_t path_count;
    struct tally tally[PART_COUNT];
    uint64_t codes[AF_E_END - AF_E_FIRST];
    const char *what; // is being tried
    char detail[160];
};

// ---- the right answers ----

static bool code_fits(enum part part, int err)
{
    switch (part) {
    case PART_SUPERBLOCK:
        return err == -AF_E_SB_NONE || err == -AF_E_SB_STALE || err == -AF_E_SB_FIELD ||
               err == -AF_E_VERSION;
    case PART_NODE:
        return err <= -AF_E_BLOCK_MAGIC && err >= -AF_E_NODE_LEVEL;
    case PART_BITMAP:
    case PART_INDEX:
        return err == -AF_E_SPACE_CHECKSUM || err == -AF_E_SPACE_LAYOUT ||
               (err <= -AF_E_BLOCK_MAGIC && err >= -AF_E_BLOCK_UUID);
    case PART_CONTENT:
        return err == -AF_E_DATA_CHECKSUM;
    case PART_LOG:
        return err == -AF_E_LOG_DAMAGED || err == -AF_E_LOG_MISSING || err == -AF_E_SB_STALE;
    case PART_SPARE:
    case PART_COUNT:
        break;
    }
    return false;
}

static void wrong(struct test *t, const char *fmt, const char *more)
{
    char text[200];

    snprintf(text, sizeof(text), fmt, more);
    world_fail(&t->w, "%s, %s: %s", t->what, t->detail, text);
}

// True when there was an error, which must fit.
static bool failed_rightly(struct test *t, enum part part, int err)
{
    if (err >= 0)
        return false;
    if (-err >= AF_E_FIRST && -err < AF_E_END)
        t->codes[-err - AF_E_FIRST]++;
    if (!code_fits(part, err))
        wrong(t, "answers %s", err_name(err));
    return true;
}

// ---- everything that is left of the tree ----

static bool check_bytes(struct test *t, enum part part, struct fixture *fx,
                        const struct model_inode *in)
{
    uint8_t seen[8 * BLOCK], right[8 * BLOCK];
    bool failing = false;

    for (uint64_t at = 0; at < in->attr.size && !t->w.failed; at += sizeof(seen)) {
        size_t got;
        int err = store_read(fx->store, STORE_BLOCK, in->ino, at, seen, sizeof(seen), &got);

        if (failed_rightly(t, part, err)) {
            failing = true;
            continue;
        }
        filebytes_read(&in->bytes, at, right, sizeof(right));
        if (got != AF_MIN(sizeof(seen), in->attr.size - at) || memcmp(seen, right, got) != 0)
            wrong(t, "wrong bytes%s", "");
        uint64_t next = filebytes_next(&in->bytes, at + sizeof(seen));

        if (next == UINT64_MAX && in->attr.size > (UINT64_C(8) << 20))
            break; // a hole to the end
        if (next != UINT64_MAX && next > at + 2 * sizeof(seen))
            at = AF_ROUND_DOWN(next, (uint64_t)BLOCK) - sizeof(seen);
    }
    return failing;
}

static bool check_xattrs(struct test *t, enum part part, struct fixture *fx,
                         const struct model_inode *in)
{
    static uint8_t value[XATTR_VALUE_MAX];
    bool failing = false;

    for (size_t i = 0; i < in->xattr_count; i++) {
        const struct model_xattr *x = &in->xattrs[i];
        size_t len;
        int err =
            store_getxattr(fx->store, STORE_BLOCK, in->ino, x->name, value, sizeof(value), &len);

        if (failed_rightly(t, part, err))
            failing = true;
        else if (len != x->len || memcmp(value, x->value, len) != 0)
            wrong(t, "a wrong value of %s", x->name);
    }
    return failing;
}

static bool check_inode(struct test *t, enum part part, struct fixture *fx,
                        const struct model_inode *in)
{
    struct store_attr attr;
    char target[4096];
    int err = store_getattr(fx->store, STORE_BLOCK, in->ino, &attr);
    bool failing = check_xattrs(t, part, fx, in);

    if (failed_rightly(t, part, err))
        return true;
    if (attr.mode != in->attr.mode || attr.nlink != in->attr.nlink || attr.uid != in->attr.uid ||
        memcmp(&attr.mtime, &in->attr.mtime, sizeof(attr.mtime)) != 0 ||
        (!S_ISDIR(attr.mode) && attr.size != in->attr.size))
        wrong(t, "wrong attributes%s", "");
    if (S_ISREG(in->attr.mode) && check_bytes(t, part, fx, in))
        failing = true;
    if (S_ISLNK(in->attr.mode)) {
        err = store_readlink(fx->store, STORE_BLOCK, in->ino, target);
        if (failed_rightly(t, part, err))
            failing = true;
        else if (strcmp(target, in->target) != 0)
            wrong(t, "a wrong target%s", "");
    }
    return failing;
}

static bool check_names(struct test *t, enum part part, struct fixture *fx,
                        const struct model_inode *dir)
{
    bool failing = false;

    for (size_t i = 0; i < dir->name_count; i++) {
        struct store_attr attr;
        int err = store_lookup(fx->store, STORE_BLOCK, dir->ino, dir->names[i].name, &attr);

        if (failed_rightly(t, part, err))
            failing = true;
        else if (attr.ino != dir->names[i].inode->ino)
            wrong(t, "a wrong inode under %s", dir->names[i].name);
    }
    return failing;
}

// ---- one damage ----

static void try_open(struct test *t, enum part part, struct sim *sim, int64_t damages)
{
    struct tally *n = &t->tally[part];
    struct fixture fx;
    uint64_t before = sim_hash(sim);
    bool failing = false;

    fixture_adopt(&fx, sim_clone(sim), &t->w.fx.options);
    int err = fixture_open(&fx);

    if (err < 0) {
        n->refused++;
        failed_rightly(t, part, err);
        if (sim_hash(fx.sim) != before)
            wrong(t, "a refused opening (%s) has changed the disk", err_name(err));
        if (strlen(fx.refusal) < 20)
            wrong(t, "refused without a reason: %s", fx.refusal);
    }
    for (size_t i = 0; err == 0 && i < t->w.m.count && !t->w.failed; i++) {
        const struct model_inode *in = t->w.m.inodes[i];

        failing = check_inode(t, part, &fx, in) || failing;
        failing = check_names(t, part, &fx, in) || failing;
    }
    if (err == 0 && !t->w.failed) {
        struct store_status st;

        store_get_status(fx.store, &st);
        if (failing && st.damage_count == 0)
            wrong(t, "errors, but no damage is noted%s", "");
        n->failing += failing;
        n->sound += !failing;
    }
    if (damages == 0 && (err < 0 || failing))
        wrong(t, "verification finds nothing%s", "");
    fixture_free(&fx);
}

static void try_damaged(struct test *t, enum part part, struct sim *sim)
{
    char text[400];
    int64_t damages = verify_text(sim, text, sizeof(text));

    if (t->w.failed)
        return;
    if (damages < 0)
        wrong(t, "verification ends with %s", err_name((int)damages));
    t->tally[part].tried++;
    t->tally[part].found += damages > 0;
    try_open(t, part, sim, damages);
}

static void damage_block(struct test *t, enum part part, const char *path, uint64_t off, size_t len,
                         enum damage damage)
{
    static const char *const names[DAMAGE_COUNT] = {"flipped bit", "zeros",
                                                    "bytes of another block", "old bytes"};
    struct sim *sim = sim_clone(t->w.fx.sim);
    uint8_t bytes[BLOCK], now[BLOCK];
    uint64_t size = 0, at = rng_below(&t->r, len), from = off;
    int err = sim_file_size(sim, path, &size);

    if (err == 0)
        err = sim_read_raw(sim, path, off, now, len);
    assert_int_equal(err, 0);
    memcpy(bytes, now, len);
    if (damage == DAMAGE_FLIP)
        bytes[at] ^= (uint8_t)(1u << rng_below(&t->r, 8));
    else if (damage == DAMAGE_ZERO)
        memset(bytes, 0, len);
    if (damage == DAMAGE_OTHER) {
        from = AF_ROUND_DOWN(rng_below(&t->r, size - len + 1), (uint64_t)len);
        err = sim_read_raw(sim, path, from, bytes, len);
    } else if (damage == DAMAGE_OLD) {
        err = sim_read_raw(t->old, path, off, bytes, len);
    }
    if (err == 0 && memcmp(bytes, now, len) != 0) {
        assert_int_equal(sim_write_raw(sim, path, off, bytes, len), 0);
        t->what = names[damage];
        snprintf(t->detail, sizeof(t->detail), "%s, %s, offset %llu, byte %llu, from %llu",
                 part_names[part], path, (unsigned long long)off, (unsigned long long)at,
                 (unsigned long long)from);
        try_damaged(t, part, sim);
    }
    sim_destroy(sim);
}

// ---- where ----

static void note_path(void *arg, const char *path, bool is_dir)
{
    struct test *t = arg;

    if (!is_dir && t->path_count < PATHS_MAX)
        snprintf(t->paths[t->path_count++], SIM_PATH_BYTES, "%s", path);
}

// Which part of the store a block of `data` is, if anything.
static enum part part_of_block(const uint8_t *bytes, uint64_t address)
{
    struct block_header_disk h;

    memcpy(&h, bytes, sizeof(h));
    if (le32_get(h.magic) != BLOCK_MAGIC || le64_get(h.address) != address)
        return PART_CONTENT;
    return h.type == BLOCK_TYPE_NODE     ? PART_NODE
           : h.type == BLOCK_TYPE_BITMAP ? PART_BITMAP
                                         : PART_INDEX;
}

// Up to `count` blocks of each part of `data`, each with the same chance.
static void damage_data(struct test *t, unsigned count)
{
    static const uint8_t zeros[BLOCK];
    uint64_t *chosen = calloc((size_t)PART_COUNT * count, sizeof(*chosen)), size = 0;
    size_t seen[PART_COUNT] = {0};
    uint8_t bytes[BLOCK];

    assert_non_null(chosen);
    assert_int_equal(sim_file_size(t->w.fx.sim, "data", &size), 0);
    for (uint64_t address = 0; address < size / BLOCK; address++) {
        assert_int_equal(sim_read_raw(t->w.fx.sim, "data", address * BLOCK, bytes, BLOCK), 0);
        if (memcmp(bytes, zeros, BLOCK) == 0)
            continue;
        enum part part = part_of_block(bytes, address);
        uint64_t at = seen[part] < count ? seen[part] : rng_below(&t->r, seen[part] + 1);

        seen[part]++;
        if (at < count)
            chosen[(size_t)part * count + at] = address;
    }
    for (unsigned part = 0; part < PART_COUNT; part++)
        for (size_t i = 0; i < count && i < seen[part]; i++)
            damage_block(t, (enum part)part, "data", chosen[part * count + i] * BLOCK, BLOCK,
                         rng_chance(&t->r, 50) ? DAMAGE_FLIP
                                               : (enum damage)rng_below(&t->r, DAMAGE_COUNT));
    free(chosen);
}

static void damage_superblock(struct test *t, const char *path, enum part part, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        // The first 4096 bytes of a slot are used in a store as small as this one.
        uint64_t off = 65536 * rng_below(&t->r, 2);

        damage_block(t, part, path, off, BLOCK,
                     rng_chance(&t->r, 80) ? DAMAGE_FLIP
                                           : (enum damage)rng_below(&t->r, DAMAGE_COUNT));
    }
}

static void damage_log(struct test *t, const char *path, unsigned count)
{
    static const uint8_t zeros[BLOCK];
    uint64_t size = 0;
    uint8_t bytes[BLOCK];

    assert_int_equal(sim_file_size(t->w.fx.sim, path, &size), 0);
    for (uint64_t off = 0; off + BLOCK <= size; off += BLOCK) {
        assert_int_equal(sim_read_raw(t->w.fx.sim, path, off, bytes, BLOCK), 0);
        if (memcmp(bytes, zeros, BLOCK) != 0 && rng_below(&t->r, 16) < count)
            damage_block(t, PART_LOG, path, off, BLOCK,
                         rng_chance(&t->r, 60) ? DAMAGE_FLIP
                                               : (enum damage)rng_below(&t->r, DAMAGE_COUNT));
    }
}

static enum part part_of_path(const char *path)
{
    if (strncmp(path, "wal/", 4) == 0)
        return PART_LOG;
    return strcmp(path, "superblock") == 0 ? PART_SUPERBLOCK : PART_SPARE;
}

// ---- whole files ----

// Missing, empty, half as long. Refused, or nobody needed it; but never a change, and never an
// empty store.
static void damage_file(struct test *t, const char *path)
{
    static const char *const names[] = {"missing", "empty", "cut in half", "a byte short"};
    // Half of the superblocks is one slot, which may be enough; the last byte of `data` may be in
    // no use.
    unsigned refused = strcmp(path, "data") == 0 ? 3 : strcmp(path, "superblock") == 0 ? 2 : 0;

    for (unsigned i = 0; i < AF_ARRAY_LEN(names) && !t->w.failed; i++) {
        struct sim *sim = sim_clone(t->w.fx.sim);
        uint64_t size = 0, before;
        struct fixture fx;

        t->what = names[i];
        snprintf(t->detail, sizeof(t->detail), "%s", path);
        assert_int_equal(sim_file_size(sim, path, &size), 0);
        if (i == 0)
            assert_int_equal(sim_remove_raw(sim, path), 0);
        else
            assert_int_equal(sim_truncate_raw(sim, path,
                                              i == 1   ? 0
                                              : i == 2 ? size / 2
                                                       : size - 1),
                             0);
        fixture_adopt(&fx, sim, &t->w.fx.options);
        before = sim_hash(sim);
        int err = fixture_open(&fx);

        if (err == 0) {
            char where[CANON_WHERE_BYTES];
            struct canon c = {0};

            if (canon_store(fx.store, &c, where) == 0 && c.hash != t->w.m.hash)
                wrong(t, "another tree%s", "");
            canon_free(&c);
            if (i < refused)
                wrong(t, "it opens%s", "");
        } else {
            if (err > -AF_E_FIRST)
                wrong(t, "answers %s", err_name(err));
            if (sim_hash(fx.sim) != before)
                wrong(t, "a refused opening has changed the disk%s", "");
            if (fixture_create(&fx) >= 0)
                wrong(t, "a new store is made over it%s", "");
        }
        fixture_free(&fx);
    }
}

// ---- one store ----

// Work, an older state of the disk on the way, everything closed and acknowledged.
static void prepare(struct test *t, uint64_t seed, bool closed)
{
    struct world *w = &t->w;

    *t = (struct test){.r = {rng_mix(seed, 11)}};
    world_init(w, seed);
    w->durable = 12;
    w->names = 60;
    w->bytes_max = UINT64_C(2) << 20;
    for (unsigned i = 0; i < 500 && !w->failed; i++) {
        world_step(w);
        if (i == 250) {
            world_checkpoint(w);
            t->old = sim_clone(w->fx.sim);
        }
    }
    world_checkpoint(w);
    for (unsigned i = 0; i < 40 && !w->failed; i++)
        world_step(w);
    if (closed) {
        world_close(w);
    } else {
        world_settle(w);
        world_acknowledge(w, w->m.state_count - 1);
        for (unsigned i = 0; i < 4; i++) { // the last flush is attested within a second
            sim_advance_ms(w->fx.sim, 600);
            world_tick(w);
        }
        // What the ticks have flushed is on the disk; nothing else counts.
        world_crash(w, CRASH_DROP_ALL, 0);
    }
    sim_each_path(w->fx.sim, note_path, t);
}

static void damage_all(struct test *t, unsigned count)
{
    damage_data(t, count);
    for (size_t i = 0; i < t->path_count && !t->w.failed; i++) {
        const char *path = t->paths[i];

        if (strcmp(path, "data") != 0 && part_of_path(path) == PART_LOG)
            damage_log(t, path, 16);
        else if (strcmp(path, "data") != 0)
            damage_superblock(t, path, part_of_path(path), 2 * count);
        damage_file(t, path);
    }
}

static void run(uint64_t seed, bool closed)
{
    static struct test t;
    char text[400];

    prepare(&t, seed, closed);
    if (!t.w.failed && verify_text(t.w.fx.sim, text, sizeof(text)) != 0)
        world_fail(&t.w, "damaged before it was: %s", text);
    t.what = "nothing";
    if (!t.w.failed)
        try_open(&t, PART_SPARE, t.w.fx.sim, 0); // undamaged, everything is right
    if (!t.w.failed)
        damage_all(&t, (unsigned)env_number("COUNT", 40));
    printf("  seed %llu, %s:\n", (unsigned long long)seed, closed ? "closed" : "crashed");
    for (unsigned p = 0; p < PART_COUNT; p++) {
        const struct tally *n = &t.tally[p];

        printf(
            "    %-16s %4llu damages, %4llu found by verification: %4llu refused, %4llu answer errors, %4llu do no "
            "harm\n",
            part_names[p], (unsigned long long)n->tried, (unsigned long long)n->found,
            (unsigned long long)n->refused, (unsigned long long)n->failing,
            (unsigned long long)n->sound);
    }
    bool failed = t.w.failed;

    sim_destroy(t.old);
    world_free(&t.w);
    if (failed)
        fail_msg("repeat with SEED=%llu RUNS=1", (unsigned long long)seed);
    assert_true(t.tally[PART_NODE].found > 0 && t.tally[PART_BITMAP].found > 0 &&
                t.tally[PART_INDEX].found > 0 && t.tally[PART_CONTENT].found > 0 &&
                t.tally[PART_CONTENT].failing > 0);
    if (!closed)
        assert_true(t.tally[PART_LOG].refused > 0 && t.tally[PART_SUPERBLOCK].refused > 0);
}

static void test_damage_to_a_closed_store_is_found(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 2);

    (void)state;
    for (uint64_t i = 0; i < (runs ? runs : 50); i++)
        run(seed + i, true);
}

static void test_damage_to_a_crashed_store_is_found(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 2);

    (void)state;
    for (uint64_t i = 0; i < (runs ? runs : 50); i++)
        run(seed + i, false);
}

// ---- the window that is stated ----

struct window {
    uint64_t tried, refused, earlier;
};

// One flipped bit in the segment that was being written.
static void flip_newest(struct world *w, struct rng *r, uint64_t segment, struct window *n)
{
    struct sim *sim = sim_clone(w->fx.sim);
    char path[64], where[CANON_WHERE_BYTES];
    struct canon c = {0};
    struct fixture fx;
    uint64_t size = 0;

    wal_segment_path(segment, path);
    assert_int_equal(sim_file_size(sim, path, &size), 0);
    int err = sim_flip_bits(sim, path, rng_below(r, AF_MIN(size, UINT64_C(40000))),
                            (uint8_t)(1u << rng_below(r, 8)));

    assert_int_equal(err, 0);
    fixture_adopt(&fx, sim, &w->fx.options);
    n->tried++;
    if (fixture_open(&fx) < 0)
        n->refused++;
    else if (canon_store(fx.store, &c, where) < 0)
        world_fail(w, "cannot read: %s", where);
    else if (model_find(&w->m, c.hash, 0, w->m.state_count - 1) < 0)
        world_fail(w, "the tree is no moment of the history");
    else
        n->earlier += c.hash != w->m.hash;
    canon_free(&c);
    fixture_free(&fx);
}

// The newest group, before anything later says that it was durable, looks like a torn tail when it
// is damaged. Even then the tree is a moment of the history.
static void test_damage_to_the_newest_group_leaves_a_moment_of_history(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 2);
    struct window n = {0};

    (void)state;
    for (uint64_t i = 0; i < 4 * (runs ? runs : 50); i++) {
        struct rng r = {rng_mix(seed + i, 12)};
        struct store_status status;
        struct world w;

        world_init(&w, seed + i);
        w.durable = 20;
        w.names = 20;
        w.bytes_max = UINT64_C(1) << 20;
        for (unsigned k = 0; k < 60 + 20 * (i % 8); k++)
            world_step(&w);
        world_settle(&w);
        assert_false(w.failed);
        store_get_status(w.fx.store, &status);
        world_crash(&w, CRASH_DROP_ALL, 0);
        for (unsigned k = 0; k < 40 && !w.failed; k++)
            flip_newest(&w, &r, status.wal.current_segment, &n);
        bool failed = w.failed;

        world_free(&w);
        if (failed)
            fail_msg("repeat with SEED=%llu", (unsigned long long)(seed + i));
    }
    printf("  %llu flipped bits in the newest segment: %llu refused, %llu look like a torn tail\n",
           (unsigned long long)n.tried, (unsigned long long)n.refused,
           (unsigned long long)n.earlier);
    assert_true(n.refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage_to_a_closed_store_is_found),
        cmocka_unit_test(test_damage_to_a_crashed_store_is_found),
        cmocka_unit_test(test_damage_to_the_newest_group_leaves_a_moment_of_history),
    };

    return cmocka_run_group_tests_name("corruption", tests, NULL, NULL);
}
