// SPDX-License-Identifier: MIT
// Crash semantics of single calls (contract C1 to C3), each as a small story with a crash at every
// event of the disk: O_TMPFILE and its link, exchanges, holes, ACLs, orphans, and the ways to make
// something durable. A story says which states it goes through; each crash, with several outcomes
// for what was not synced, must leave one of them, not older than the last acknowledged one, and an
// image without damage or leaked blocks.
//
//   SEED=n  for what survives of a cut
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "store/acl.h"
#include "tests/lib/fixture.h"
#include "tests/lib/rng.h"

#define IMAGES_MAX 4000
#define BIG        400000u

static const struct store_cred cred = {.uid = 1000, .gid = 1000};

struct image {
    struct sim *sim;
    int acked; // when it was taken
};

struct story {
    struct fixture fx;
    // The number of the state that the store is in, -1: none of them.
    int (*state)(struct store *s);
    int acked, last;
    bool watching;
    struct image images[IMAGES_MAX];
    size_t image_count;
    uint64_t points, outcomes;
    bool seen[16]; // states that a crash has left
};

// ---- crashing ----

static void on_event(void *arg, const struct sim_event *event)
{
    struct story *t = arg;

    (void)event;
    assert_true(t->image_count < IMAGES_MAX);
    t->images[t->image_count++] = (struct image){.sim = sim_clone(t->fx.sim), .acked = t->acked};
}

static void try_outcome(struct story *t, const struct image *image, enum crash_kind kind)
{
    struct fixture fx;
    char text[400];
    uint64_t seed = env_number("SEED", 1) + t->outcomes;

    fixture_adopt(&fx, sim_clone(image->sim), &t->fx.options);
    crash_disk(fx.sim, kind, seed);
    int err = fixture_open(&fx);
    if (err < 0)
        fail_msg("%s (seed %llu): refused: %s", crash_name(kind), (unsigned long long)seed,
                 fx.refusal);
    int state = t->state(fx.store);
    if (state < image->acked || state > t->last)
        fail_msg("%s (seed %llu): state %d, between %d and %d were allowed", crash_name(kind),
                 (unsigned long long)seed, state, image->acked, t->last);
    t->seen[state] = true;
    assert_int_equal(fixture_close(&fx), 0);
    int64_t damages = verify_text(fx.sim, text, sizeof(text));
    if (damages != 0)
        fail_msg("%s (seed %llu): %lld damages: %s", crash_name(kind), (unsigned long long)seed,
                 (long long)damages, text);
    fixture_free(&fx);
    t->outcomes++;
}

// After each call: what was the disk during it?
static void try_all(struct story *t)
{
    sim_set_event_hook(t->fx.sim, NULL, NULL);
    for (size_t i = 0; i < t->image_count; i++) {
        for (unsigned kind = 0; kind < CRASH_KIND_COUNT; kind++)
            try_outcome(t, &t->images[i], (enum crash_kind)kind);
        sim_destroy(t->images[i].sim);
        t->points++;
    }
    t->image_count = 0;
    if (t->watching)
        sim_set_event_hook(t->fx.sim, on_event, t);
}

static void begin(struct story *t, int (*state)(struct store *s))
{
    memset(t, 0, sizeof(*t));
    fixture_init(&t->fx, 7);
    assert_int_equal(fixture_create(&t->fx), 0);
    assert_int_equal(fixture_open(&t->fx), 0);
    t->state = state;
}

// From here on every event is a crash point; what was done so far is durable, as state 0.
static void watch(struct story *t)
{
    assert_int_equal(fixture_sync(&t->fx), 0);
    t->watching = true;
    sim_set_event_hook(t->fx.sim, on_event, t);
}

// The next call may bring about the states up to `n`.
static void may_reach(struct story *t, int n)
{
    t->last = n;
}

static void must(struct story *t, int err)
{
    if (err)
        fail_msg("a call failed: %s", err_name(err));
    try_all(t);
}

// An acknowledgement, and nothing but it: state `n` is there for ever.
static void ack(struct story *t, int err, int n)
{
    must(t, err);
    t->acked = t->last = n;
}

static void end(struct story *t, int states)
{
    assert_int_equal(t->state(t->fx.store), t->last);
    may_reach(t, t->last);
    must(t, engine_checkpoint(t->fx.engine));
    sim_set_event_hook(t->fx.sim, NULL, NULL);
    assert_int_equal(fixture_close(&t->fx), 0);
    fixture_free(&t->fx);
    printf("%llu crash points, %llu outcomes\n", (unsigned long long)t->points,
           (unsigned long long)t->outcomes);
    for (int i = 0; i < states; i++) {
        if (!t->seen[i])
            fail_msg("no crash has left state %d: the story shows nothing of it", i);
    }
}

// ---- calls ----

static const uint8_t *letters(unsigned which)
{
    static uint8_t bytes[4][BIG];

    for (size_t i = 0; i < BIG; i++)
        bytes[which][i] = (uint8_t)(i * (which + 3) + i / 251 + which);
    return bytes[which];
}

static struct store_file *create(struct story *t, const char *name, uint64_t *ret_ino)
{
    struct store_file *file;
    struct store_attr attr;

    must(t,
         store_create(t->fx.store, STORE_BLOCK, INO_ROOT, name, 0644, O_RDWR, &cred, &attr, &file));
    *ret_ino = attr.ino;
    return file;
}

static int put(struct story *t, struct store_file *file, uint64_t off, const uint8_t *bytes,
               size_t size)
{
    return store_write(t->fx.store, STORE_BLOCK, file, off, bytes, size, false);
}

// A whole file, closed.
static uint64_t file_of(struct story *t, const char *name, const uint8_t *bytes, size_t size)
{
    uint64_t ino;
    struct store_file *file = create(t, name, &ino);

    must(t, put(t, file, 0, bytes, size));
    must(t, store_release(t->fx.store, STORE_BLOCK, file));
    return ino;
}

static bool find(struct store *s, const char *name, struct store_attr *ret)
{
    int err = store_lookup(s, STORE_BLOCK, INO_ROOT, name, ret);

    if (err != 0 && err != -ENOENT)
        fail_msg("lookup of %s: %s", name, err_name(err));
    return err == 0;
}

// The file holds exactly these bytes.
static bool holds(struct store *s, const char *name, const uint8_t *bytes, size_t size)
{
    static uint8_t found[BIG + 1];
    struct store_attr attr;
    size_t got;

    if (!find(s, name, &attr) || attr.size != size)
        return false;
    int err = store_read(s, STORE_BLOCK, attr.ino, 0, found, sizeof(found), &got);
    if (err)
        fail_msg("read of %s: %s", name, err_name(err));
    return got == size && memcmp(found, bytes, size) == 0;
}

static bool has_xattr(struct store *s, const char *name, const char *xattr, const void *value,
                      size_t size)
{
    uint8_t found[ACL_BYTES_MAX];
    struct store_attr attr;
    size_t got;

    if (!find(s, name, &attr))
        return false;
    int err = store_getxattr(s, STORE_BLOCK, attr.ino, xattr, found, sizeof(found), &got);
    return err == 0 ? got == size && memcmp(found, value, size) == 0 : !value && err == -ENODATA;
}

// ---- O_TMPFILE, then link ----

static size_t tmp_size;

static int tmp_state(struct store *s)
{
    struct store_attr attr;

    if (!find(s, "linked", &attr))
        return 0;
    return holds(s, "linked", letters(0), tmp_size) && attr.nlink == 1 &&
                   (attr.mode & 07777) == 0600 && has_xattr(s, "linked", "user.k", "v", 1)
               ? 1
               : -1;
}

static void tmpfile_story(size_t size)
{
    static struct story t;
    struct store_file *file;
    struct store_attr attr;

    tmp_size = size;
    begin(&t, tmp_state);
    watch(&t);
    must(&t, store_tmpfile(t.fx.store, STORE_BLOCK, INO_ROOT, 0600, O_RDWR, &cred, &attr, &file));
    assert_int_equal(attr.nlink, 0);
    for (size_t at = 0; at < size; at += 50000)
        must(&t, put(&t, file, at, letters(0) + at, AF_MIN(size - at, (size_t)50000)));
    must(&t, store_setxattr(t.fx.store, STORE_BLOCK, attr.ino, "user.k", "v", 1, 0));
    ack(&t, fixture_fsync(&t.fx, attr.ino), 0); // promises nothing of what nobody can find
    may_reach(&t, 1);
    must(&t, store_link(t.fx.store, STORE_BLOCK, attr.ino, INO_ROOT, "linked", &attr));
    assert_int_equal(attr.nlink, 1);
    ack(&t, fixture_sync(&t.fx), 1);
    must(&t, store_release(t.fx.store, STORE_BLOCK, file));
    end(&t, 2);
}

static void test_a_tmpfile_gets_its_name_with_all_its_content(void **state)
{
    (void)state;
    tmpfile_story(900);
    tmpfile_story(20000);
}

static void test_a_large_tmpfile_gets_its_name_with_all_its_content(void **state)
{
    (void)state;
    tmpfile_story(BIG);
}

static int nothing_state(struct store *s)
{
    struct store_statfs sf;

    assert_int_equal(store_statfs(s, &sf), 0);
    return sf.inodes == 1 ? 0 : -1;
}

static void test_a_tmpfile_without_a_name_leaves_nothing(void **state)
{
    static struct story t;
    struct store_file *file;
    struct store_attr attr;

    (void)state;
    begin(&t, nothing_state);
    watch(&t);
    must(&t, store_tmpfile(t.fx.store, STORE_BLOCK, INO_ROOT, 0600, O_RDWR | O_EXCL, &cred, &attr,
                           &file));
    must(&t, put(&t, file, 0, letters(0), BIG));
    assert_int_equal(store_link(t.fx.store, STORE_BLOCK, attr.ino, INO_ROOT, "no", &attr), -ENOENT);
    ack(&t, fixture_sync(&t.fx), 0);
    must(&t, store_release(t.fx.store, STORE_BLOCK, file));
    end(&t, 1);
}

// ---- rename exchange ----

static int exchange_state(struct store *s)
{
    bool a1 = holds(s, "a", letters(0), 5000), b2 = holds(s, "b", letters(1), 9000);
    struct store_attr attr;

    if (!find(s, "a", &attr) && !find(s, "b", &attr))
        return 0;
    if (a1 && !find(s, "b", &attr))
        return 1;
    if (a1 && b2)
        return 2;
    return holds(s, "b", letters(0), 5000) && holds(s, "a", letters(1), 9000) ? 3 : -1;
}

static void test_an_exchange_carries_what_is_written(void **state)
{
    static struct story t;
    uint64_t a, b;

    (void)state;
    begin(&t, exchange_state);
    watch(&t);
    struct store_file *fa = create(&t, "a", &a), *fb = create(&t, "b", &b);
    must(&t, put(&t, fa, 0, letters(0), 5000));
    must(&t, put(&t, fb, 0, letters(1), 9000));
    may_reach(&t, 3);
    must(&t, store_rename(t.fx.store, STORE_BLOCK, INO_ROOT, "a", INO_ROOT, "b", RENAME_EXCHANGE));
    ack(&t, fixture_sync(&t.fx), 3);
    must(&t, store_release(t.fx.store, STORE_BLOCK, fa));
    must(&t, store_release(t.fx.store, STORE_BLOCK, fb));
    end(&t, 1);
}

// ---- holes ----

static uint8_t with_hole[100000];

static int hole_state(struct store *s)
{
    if (holds(s, "f", letters(0), 100000))
        return 0;
    if (holds(s, "f", with_hole, 100000))
        return 1;
    return holds(s, "f", with_hole, 60000) ? 2 : -1;
}

static void test_a_hole_is_there_whole_or_not(void **state)
{
    static struct story t;
    struct store_file *file;
    uint64_t ino;

    (void)state;
    memcpy(with_hole, letters(0), sizeof(with_hole));
    memset(with_hole + 10000, 0, 30000); // neither begins nor ends with a block
    memset(with_hole + 45056, 0, 8192);
    begin(&t, hole_state);
    ino = file_of(&t, "f", letters(0), 100000);
    watch(&t);
    must(&t, store_open(t.fx.store, STORE_BLOCK, ino, O_RDWR, &file));
    must(&t, store_fallocate(t.fx.store, STORE_BLOCK, file,
                             FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10000, 30000));
    must(&t, store_fallocate(t.fx.store, STORE_BLOCK, file, FALLOC_FL_ZERO_RANGE, 45056, 8192));
    may_reach(&t, 1);
    ack(&t, fixture_fsync(&t.fx, ino), 1);
    const struct store_attr size = {.size = 60000};
    struct store_attr attr;
    must(&t, store_setattr(t.fx.store, STORE_BLOCK, ino, file, &size, STORE_SET_SIZE, &attr));
    may_reach(&t, 2);
    must(&t, store_release(t.fx.store, STORE_BLOCK, file)); // the last close completes
    ack(&t, fixture_sync(&t.fx), 2);
    end(&t, 3);
}

// ---- ACLs ----

// user::rw-, user:1000:NAMED, group::r--, mask::MASK, other::---
static const uint8_t *acl(uint8_t named, uint8_t mask)
{
    static uint8_t bytes[4 + 5 * 8];
    const uint8_t tags[] = {1, 2, 4, 16, 32}, perms[] = {6, named, 4, mask, 0};

    memset(bytes, 0, sizeof(bytes));
    bytes[0] = 2;
    for (size_t i = 0; i < sizeof(tags); i++) {
        bytes[4 + 8 * i] = tags[i];
        bytes[4 + 8 * i + 2] = perms[i];
        memset(bytes + 4 + 8 * i + 4, 0xff, 4);
    }
    bytes[4 + 8 + 4] = 0xe8;
    bytes[4 + 8 + 5] = 3;
    bytes[4 + 8 + 6] = bytes[4 + 8 + 7] = 0;
    return bytes;
}
#define ACL_SIZE (4 + 5 * 8)

static uint32_t mode_of(struct store *s, const char *name)
{
    struct store_attr attr;

    return find(s, name, &attr) ? attr.mode & 07777 : UINT32_MAX;
}

// Mode and ACL change by one operation: each of these pairs, and no other.
static int acl_state(struct store *s)
{
    uint32_t mode = mode_of(s, "f");

    if (mode == 0644 && has_xattr(s, "f", ACL_ACCESS, NULL, 0))
        return 0;
    if (mode == 0670 && has_xattr(s, "f", ACL_ACCESS, acl(7, 7), ACL_SIZE))
        return 1;
    if (mode == 0640 && has_xattr(s, "f", ACL_ACCESS, acl(7, 4), ACL_SIZE))
        return 2;
    return mode == 0600 && has_xattr(s, "f", ACL_ACCESS, NULL, 0) ? 3 : -1;
}

static void test_acl_and_mode_change_together(void **state)
{
    static struct story t;
    const uint8_t as_mode[] = {2,    0,    0, 0, 1,    0,    6,    0,    0xff, 0xff,
                               0xff, 0xff, 4, 0, 0,    0,    0xff, 0xff, 0xff, 0xff,
                               32,   0,    0, 0, 0xff, 0xff, 0xff, 0xff};
    const struct store_attr mode = {.mode = 0640};
    struct store_attr attr;

    (void)state;
    begin(&t, acl_state);
    uint64_t ino = file_of(&t, "f", letters(0), 100);
    watch(&t);
    may_reach(&t, 1);
    must(&t, store_set_acl(t.fx.store, STORE_BLOCK, ino, ACL_ACCESS, acl(7, 7), ACL_SIZE, true));
    ack(&t, fixture_sync(&t.fx), 1);
    may_reach(&t, 2);
    must(&t, store_setattr(t.fx.store, STORE_BLOCK, ino, NULL, &mode, STORE_SET_MODE, &attr));
    ack(&t, fixture_sync(&t.fx), 2);
    may_reach(&t, 3);
    must(&t,
         store_set_acl(t.fx.store, STORE_BLOCK, ino, ACL_ACCESS, as_mode, sizeof(as_mode), true));
    ack(&t, fixture_fsync(&t.fx, ino), 3);
    end(&t, 4);
}

static int inherit_state(struct store *s)
{
    struct store_attr dir, file;
    uint8_t found[ACL_SIZE];
    size_t got;

    if (!find(s, "d", &dir))
        return -1;
    int err = store_lookup(s, STORE_BLOCK, dir.ino, "f", &file);
    if (err == -ENOENT)
        return 0;
    assert_int_equal(err, 0);
    err = store_getxattr(s, STORE_BLOCK, file.ino, ACL_ACCESS, found, sizeof(found), &got);
    return err == 0 && got == ACL_SIZE && memcmp(found, acl(7, 6), ACL_SIZE) == 0 &&
                   (file.mode & 07777) == 0660 && file.size == 3000
               ? 1
               : -1;
}

static void test_what_is_inherited_comes_with_the_name(void **state)
{
    static struct story t;
    struct store_file *file;
    struct store_attr dir, attr;

    (void)state;
    begin(&t, inherit_state);
    must(&t, store_mknod(t.fx.store, STORE_BLOCK, INO_ROOT, "d", S_IFDIR | 0755, 0, &cred, &dir));
    must(&t,
         store_set_acl(t.fx.store, STORE_BLOCK, dir.ino, ACL_DEFAULT, acl(7, 7), ACL_SIZE, true));
    watch(&t);
    must(&t,
         store_create(t.fx.store, STORE_BLOCK, dir.ino, "f", 0666, O_RDWR, &cred, &attr, &file));
    must(&t, put(&t, file, 0, letters(0), 3000));
    may_reach(&t, 1);
    must(&t, store_release(t.fx.store, STORE_BLOCK, file));
    ack(&t, fixture_sync(&t.fx), 1); // the directory, right after the close
    end(&t, 2);
}

// ---- link counts and orphans ----

static int links_state(struct store *s)
{
    struct store_statfs sf;
    struct store_attr a, b;
    bool has_a = find(s, "a", &a), has_b = find(s, "b", &b);

    assert_int_equal(store_statfs(s, &sf), 0);
    if (has_a && has_b)
        return a.ino == b.ino && a.nlink == 2 && sf.inodes == 2 ? 0 : -1;
    if (has_b)
        return b.nlink == 1 && sf.inodes == 2 && holds(s, "b", letters(0), BIG) ? 1 : -1;
    return !has_a && sf.inodes == 1 ? 2 : -1; // recovery has removed the orphan
}

static void test_an_open_file_without_names_is_gone_after_a_kill(void **state)
{
    static struct story t;
    struct store_file *file;
    struct store_attr attr;

    (void)state;
    begin(&t, links_state);
    uint64_t ino = file_of(&t, "a", letters(0), BIG);
    must(&t, store_link(t.fx.store, STORE_BLOCK, ino, INO_ROOT, "b", &attr));
    watch(&t);
    must(&t, store_open(t.fx.store, STORE_BLOCK, ino, O_RDWR, &file));
    may_reach(&t, 1);
    must(&t, store_unlink(t.fx.store, STORE_BLOCK, INO_ROOT, "a"));
    ack(&t, fixture_sync(&t.fx), 1);
    may_reach(&t, 2);
    must(&t, store_unlink(t.fx.store, STORE_BLOCK, INO_ROOT, "b"));
    ack(&t, fixture_fsync(&t.fx, ino), 2);
    must(&t, put(&t, file, 0, letters(1), BIG));
    ack(&t, fixture_fsync(&t.fx, ino), 2);
    t.state = nothing_state; // of the live store too, once it is closed
    must(&t, store_release(t.fx.store, STORE_BLOCK, file));
    t.state = links_state;
    sim_set_event_hook(t.fx.sim, NULL, NULL);
    assert_int_equal(fixture_close(&t.fx), 0);
    fixture_free(&t.fx);
    assert_true(t.seen[1] && t.seen[2]);
}

// ---- the ways to make something durable ----

static int durable_state(struct store *s)
{
    if (holds(s, "f", letters(0), 7000))
        return 0;
    return holds(s, "f", letters(1), 7000) ? 1 : -1;
}

static void test_fsync_by_another_descriptor_or_name(void **state)
{
    static struct story t;
    struct store_file *writer, *other;
    struct store_attr attr;

    (void)state;
    begin(&t, durable_state);
    uint64_t ino = file_of(&t, "f", letters(0), 7000);
    must(&t, store_link(t.fx.store, STORE_BLOCK, ino, INO_ROOT, "hard link", &attr));
    watch(&t);
    must(&t, store_open(t.fx.store, STORE_BLOCK, ino, O_RDWR, &writer));
    must(&t, store_lookup(t.fx.store, STORE_BLOCK, INO_ROOT, "hard link", &attr));
    must(&t, store_open(t.fx.store, STORE_BLOCK, attr.ino, O_RDONLY, &other));
    must(&t, put(&t, writer, 0, letters(1), 7000));
    may_reach(&t, 1);
    ack(&t, fixture_fsync(&t.fx, store_file_ino(other)), 1);
    must(&t, store_release(t.fx.store, STORE_BLOCK, other));
    must(&t, store_release(t.fx.store, STORE_BLOCK, writer));
    end(&t, 2);
}

#define LINES 6

static int append_state(struct store *s)
{
    struct store_attr attr;

    if (!find(s, "log", &attr) || attr.size % 3000 != 0)
        return -1;
    int lines = (int)(attr.size / 3000);
    return lines <= LINES && (lines == 0 || holds(s, "log", letters(0), (size_t)lines * 3000))
               ? lines
               : -1;
}

// An O_SYNC append is a write and an fsync.
static void test_synced_appends_come_line_by_line(void **state)
{
    static struct story t;
    struct store_file *file;

    (void)state;
    begin(&t, append_state);
    uint64_t ino = file_of(&t, "log", letters(0), 0);
    watch(&t);
    must(&t, store_open(t.fx.store, STORE_BLOCK, ino, O_WRONLY | O_APPEND, &file));
    for (int i = 0; i < LINES; i++) {
        must(&t, put(&t, file, (uint64_t)i * 3000, letters(0) + i * 3000, 3000));
        may_reach(&t, i + 1);
        ack(&t, fixture_fsync(&t.fx, ino), i + 1);
    }
    must(&t, store_release(t.fx.store, STORE_BLOCK, file));
    end(&t, LINES + 1);
}

static int mkdir_state(struct store *s)
{
    struct store_attr d, e, root;

    assert_int_equal(store_getattr(s, STORE_BLOCK, INO_ROOT, &root), 0);
    if (!find(s, "d", &d))
        return root.nlink == 2 ? 0 : -1;
    int err = store_lookup(s, STORE_BLOCK, d.ino, "e", &e);
    if (root.nlink != 3 || d.nlink != (err == 0 ? 3u : 2u))
        return -1;
    return err == 0 ? 2 : 1;
}

static void test_mkdir_and_fsync_of_the_parent(void **state)
{
    static struct story t;
    struct store_attr d, e;

    (void)state;
    begin(&t, mkdir_state);
    watch(&t);
    may_reach(&t, 1);
    must(&t, store_mknod(t.fx.store, STORE_BLOCK, INO_ROOT, "d", S_IFDIR | 0755, 0, &cred, &d));
    ack(&t, fixture_sync(&t.fx), 1);
    may_reach(&t, 2);
    must(&t, store_mknod(t.fx.store, STORE_BLOCK, d.ino, "e", S_IFDIR | 0755, 0, &cred, &e));
    ack(&t, fixture_sync(&t.fx), 2);
    end(&t, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tmpfile_gets_its_name_with_all_its_content),
        cmocka_unit_test(test_a_large_tmpfile_gets_its_name_with_all_its_content),
        cmocka_unit_test(test_a_tmpfile_without_a_name_leaves_nothing),
        cmocka_unit_test(test_an_exchange_carries_what_is_written),
        cmocka_unit_test(test_a_hole_is_there_whole_or_not),
        cmocka_unit_test(test_acl_and_mode_change_together),
        cmocka_unit_test(test_what_is_inherited_comes_with_the_name),
        cmocka_unit_test(test_an_open_file_without_names_is_gone_after_a_kill),
        cmocka_unit_test(test_fsync_by_another_descriptor_or_name),
        cmocka_unit_test(test_synced_appends_come_line_by_line),
        cmocka_unit_test(test_mkdir_and_fsync_of_the_parent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
