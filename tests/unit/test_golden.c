// SPDX-License-Identifier: MIT
// The golden images of every format version (tests/golden/) open, verify, and show the tree that
// their listing says.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/golden.h"

static char *load(const char *name, size_t *ret_len)
{
    const char *top = getenv("TEST_TOP");
    char path[512];
    long len;

    snprintf(path, sizeof(path), "%s/tests/golden/%s", top ? top : ".", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    len = ftell(f);
    rewind(f);
    char *bytes = malloc((size_t)len + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)len, f), len);
    bytes[len] = 0;
    fclose(f);
    *ret_len = (size_t)len;
    return bytes;
}

static void compare(const char *image, const char *listing, struct engine_recovery *ret_recovery)
{
    struct canon list, wanted = {0};
    char text[4096], *rest;
    size_t len;

    char *bytes = load(image, &len);
    struct sim *sim = golden_unpack((const uint8_t *)bytes, len);
    assert_non_null(sim);
    free(bytes);
    assert_int_equal(verify_text(sim, text, sizeof(text)), 0);
    assert_int_equal(golden_list(sim, &list, ret_recovery), 0);
    bytes = load(listing, &len);
    for (char *line = strtok_r(bytes, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        canon_add(&wanted, line);
    canon_diff(&list, "found", &wanted, "wanted", 5, stderr);
    assert_int_equal(list.count, wanted.count);
    assert_true(list.hash == wanted.hash);
    assert_int_equal(verify_text(sim, text, sizeof(text)), 0);
    free(bytes);
    canon_free(&list);
    canon_free(&wanted);
    sim_destroy(sim);
}

static void test_clean_image_of_version_1(void **state)
{
    struct engine_recovery recovery;

    (void)state;
    compare("v1-clean.image", "v1-clean.list", &recovery);
    assert_true(recovery.clean);
}

static void test_crashed_image_of_version_1(void **state)
{
    struct engine_recovery recovery;

    (void)state;
    compare("v1-dirty.image", "v1-dirty.list", &recovery);
    assert_false(recovery.clean);
    assert_true(recovery.records_replayed > 0);
    assert_int_equal(recovery.orphans_removed, 1);
    assert_true(recovery.tail_bytes_dropped > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean_image_of_version_1),
        cmocka_unit_test(test_crashed_image_of_version_1),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
