// SPDX-License-Identifier: MIT
// POSIX ACLs: what is one, what mode it stands for, how the two follow each other; and the engine's
// side of it.
#include "tests/unit/test_engine_rig.h"

#include <sys/stat.h>

#include "store/acl.h"

struct built {
    uint8_t bytes[ACL_BYTES_MAX + 64];
    size_t size;
};

static struct built begin(void)
{
    return (struct built){.bytes = {2}, .size = 4};
}

static void entry(struct built *b, uint8_t tag, uint8_t perm, uint32_t id)
{
    const uint8_t bytes[8] = {tag, 0, perm, 0, (uint8_t)id, (uint8_t)(id >> 8), 0, 0};

    memcpy(b->bytes + b->size, bytes, sizeof(bytes));
    b->size += sizeof(bytes);
}

enum { U = 1, USER = 2, G = 4, GROUP = 8, M = 16, O = 32 };

// user::7, user:1000:NAMED, group::5, mask::MASK, other::1
static struct built usual(uint8_t named, uint8_t mask)
{
    struct built b = begin();

    entry(&b, U, 7, 0);
    entry(&b, USER, named, 1000);
    entry(&b, G, 5, 0);
    entry(&b, M, mask, 0);
    entry(&b, O, 1, 0);
    return b;
}

static struct built minimal(uint8_t u, uint8_t g, uint8_t o)
{
    struct built b = begin();

    entry(&b, U, u, 0);
    entry(&b, G, g, 0);
    entry(&b, O, o, 0);
    return b;
}

static bool valid(const struct built *b)
{
    return acl_valid(b->bytes, b->size);
}

static void test_what_is_an_acl(void **state)
{
    struct built b = usual(7, 7);

    (void)state;
    assert_true(valid(&b));
    b.bytes[0] = 3; // version
    assert_false(valid(&b));
    b = usual(8, 7); // no such permission
    assert_false(valid(&b));
    b = usual(7, 7);
    for (size_t size = 0; size < b.size; size++) // every part of it
        assert_false(acl_valid(b.bytes, size));
    b = begin(); // not in order
    entry(&b, O, 1, 0);
    entry(&b, G, 1, 0);
    entry(&b, U, 1, 0);
    assert_false(valid(&b));
    b = begin(); // named, and no mask
    entry(&b, U, 7, 0);
    entry(&b, USER, 7, 5);
    entry(&b, G, 5, 0);
    entry(&b, O, 1, 0);
    assert_false(valid(&b));
    b = begin(); // twice
    entry(&b, U, 7, 0);
    entry(&b, U, 7, 0);
    entry(&b, G, 5, 0);
    entry(&b, O, 1, 0);
    assert_false(valid(&b));
    b = minimal(7, 5, 1);
    assert_true(valid(&b));
    b.bytes[4] = 64; // no such tag
    assert_false(valid(&b));
}

static void test_the_largest_acl(void **state)
{
    struct built b = begin();

    (void)state;
    entry(&b, U, 7, 0);
    for (uint32_t i = 0; i < 123; i++)
        entry(&b, USER, 6, i);
    entry(&b, G, 5, 0);
    entry(&b, M, 7, 0);
    entry(&b, O, 0, 0);
    assert_int_equal(b.size, 4 + 127 * 8);
    assert_true(valid(&b));
    entry(&b, O, 0, 0);
    assert_false(valid(&b));
}

static void test_mode_and_acl_follow_each_other(void **state)
{
    struct built b = usual(6, 4), m = minimal(6, 4, 0);
    uint32_t mode;

    (void)state;
    assert_false(acl_to_mode(b.bytes, b.size, &mode)); // says more than a mode
    assert_int_equal(mode, 0741);                      // the group's bits are the mask
    assert_true(acl_to_mode(m.bytes, m.size, &mode));
    assert_int_equal(mode, 0640);
    acl_chmod(b.bytes, b.size, 0620);
    acl_to_mode(b.bytes, b.size, &mode);
    assert_int_equal(mode, 0620);
    struct built expected = begin();
    entry(&expected, U, 6, 0);
    entry(&expected, USER, 6, 1000); // named entries stay
    entry(&expected, G, 5, 0);       // and the owner's group, where there is a mask
    entry(&expected, M, 2, 0);
    entry(&expected, O, 0, 0);
    assert_memory_equal(b.bytes, expected.bytes, b.size);
}

static void test_what_is_made_gets_what_both_allow(void **state)
{
    struct built b = usual(6, 7), m = minimal(6, 4, 0);
    uint32_t mode = S_IFREG | 0664;

    (void)state;
    assert_false(acl_create(b.bytes, b.size, &mode));
    assert_int_equal(mode, S_IFREG | 0660);
    struct built expected = begin();
    entry(&expected, U, 6, 0);
    entry(&expected, USER, 6, 1000);
    entry(&expected, G, 5, 0);
    entry(&expected, M, 6, 0);
    entry(&expected, O, 0, 0);
    assert_memory_equal(b.bytes, expected.bytes, b.size);
    mode = S_IFDIR | 0777;
    assert_true(acl_create(m.bytes, m.size, &mode));
    assert_int_equal(mode, S_IFDIR | 0640);
}

// ---- the engine ----

static uint32_t mode_of(struct store *s, uint64_t ino)
{
    struct store_attr attr;

    assert_int_equal(store_getattr(s, STORE_BLOCK, ino, &attr), 0);
    return attr.mode & 07777;
}

static void test_errors_of_setting(void **state)
{
    struct world *w = world_create();
    struct store_attr d, l, p;
    struct built b = usual(6, 7);

    (void)state;
    must_open(w);
    struct store *s = engine_store(w->engine);
    assert_int_equal(store_mknod(s, STORE_BLOCK, INO_ROOT, "d", S_IFDIR | 0755, 0, &cred, &d), 0);
    assert_int_equal(store_mknod(s, STORE_BLOCK, INO_ROOT, "p", S_IFIFO | 0644, 0, &cred, &p), 0);
    assert_int_equal(store_symlink(s, STORE_BLOCK, INO_ROOT, "l", "t", &cred, &l), 0);
    assert_int_equal(store_set_acl(s, STORE_BLOCK, d.ino, "system.acl", b.bytes, b.size, true),
                     -EOPNOTSUPP);
    assert_int_equal(store_set_acl(s, STORE_BLOCK, l.ino, ACL_ACCESS, b.bytes, b.size, true),
                     -EOPNOTSUPP);
    assert_int_equal(store_set_acl(s, STORE_BLOCK, p.ino, ACL_DEFAULT, b.bytes, b.size, true),
                     -EACCES);
    assert_int_equal(store_set_acl(s, STORE_BLOCK, p.ino, ACL_DEFAULT, NULL, 0, true), 0);
    assert_int_equal(store_set_acl(s, STORE_BLOCK, d.ino, ACL_ACCESS, b.bytes, 5, true), -EINVAL);
    assert_int_equal(
        store_set_acl(s, STORE_BLOCK, d.ino, ACL_ACCESS, b.bytes, ACL_BYTES_MAX + 1, true), -E2BIG);
    assert_int_equal(store_set_acl(s, STORE_BLOCK, 999, ACL_ACCESS, b.bytes, b.size, true),
                     -ENOENT);
    assert_int_equal(mode_of(s, d.ino), 0755);
    must_close(w);
    world_destroy(w);
}

static void test_set_gid_stays_for_who_may(void **state)
{
    struct world *w = world_create();
    struct built b = usual(6, 7);
    struct store_attr d;

    (void)state;
    must_open(w);
    struct store *s = engine_store(w->engine);
    assert_int_equal(store_mknod(s, STORE_BLOCK, INO_ROOT, "d", S_IFDIR | 02755, 0, &cred, &d), 0);
    assert_int_equal(store_set_acl(s, STORE_BLOCK, d.ino, ACL_ACCESS, b.bytes, b.size, true), 0);
    assert_int_equal(mode_of(s, d.ino), 02771);
    assert_int_equal(store_set_acl(s, STORE_BLOCK, d.ino, ACL_ACCESS, b.bytes, b.size, false), 0);
    assert_int_equal(mode_of(s, d.ino), 0771);
    must_close(w);
    world_destroy(w);
}

// A file that is being written for the first time has its ACL beside the tree; it is there after
// the completion and after a clean opening.
static void test_a_new_file_takes_its_acl_along(void **state)
{
    struct world *w = world_create();
    struct built b = usual(6, 7);
    uint8_t found[ACL_BYTES_MAX];
    const struct store_attr mode = {.mode = 0640};
    struct store_file *file;
    struct store_attr attr;
    size_t got;

    (void)state;
    must_open(w);
    struct store *s = engine_store(w->engine);
    assert_int_equal(store_create(s, STORE_BLOCK, INO_ROOT, "f", 0644, O_RDWR, &cred, &attr, &file),
                     0);
    assert_int_equal(store_set_acl(s, STORE_BLOCK, attr.ino, ACL_ACCESS, b.bytes, b.size, true), 0);
    assert_int_equal(mode_of(s, attr.ino), 0771);
    assert_int_equal(store_setattr(s, STORE_BLOCK, attr.ino, file, &mode, STORE_SET_MODE, &attr),
                     0);
    assert_int_equal(store_release(s, STORE_BLOCK, file), 0);
    must_close(w);
    must_open(w);
    s = engine_store(w->engine);
    assert_int_equal(store_lookup(s, STORE_BLOCK, INO_ROOT, "f", &attr), 0);
    assert_int_equal(attr.mode & 07777, 0640);
    assert_int_equal(
        store_getxattr(s, STORE_BLOCK, attr.ino, ACL_ACCESS, found, sizeof(found), &got), 0);
    acl_chmod(b.bytes, b.size, 0640);
    assert_int_equal(got, b.size);
    assert_memory_equal(found, b.bytes, got);
    assert_int_equal(store_set_acl(s, STORE_BLOCK, attr.ino, ACL_ACCESS, NULL, 0, true), 0);
    assert_int_equal(
        store_getxattr(s, STORE_BLOCK, attr.ino, ACL_ACCESS, found, sizeof(found), &got), -ENODATA);
    assert_int_equal(mode_of(s, attr.ino), 0640);
    must_close(w);
    world_destroy(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_an_acl),
        cmocka_unit_test(test_the_largest_acl),
        cmocka_unit_test(test_mode_and_acl_follow_each_other),
        cmocka_unit_test(test_what_is_made_gets_what_both_allow),
        cmocka_unit_test(test_errors_of_setting),
        cmocka_unit_test(test_set_gid_stays_for_who_may),
        cmocka_unit_test(test_a_new_file_takes_its_acl_along),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
