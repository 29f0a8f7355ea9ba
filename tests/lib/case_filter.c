// SPDX-License-Identifier: MIT
// AEROFS_TEST_CASE=PATTERN runs those cases of a test program alone whose names match (* and ? are
// wildcards). Linked into every test program, before main().
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
// cmocka wants the headers above first.
#include <cmocka.h>

static void __attribute__((constructor)) filter_cases(void)
{
    const char *pattern = getenv("AEROFS_TEST_CASE");

    if (pattern)
        cmocka_set_test_filter(pattern);
}
