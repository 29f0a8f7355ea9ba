// SPDX-License-Identifier: MIT
// Ends the process when an assertion on our own state fails.
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

void af_assert_fail(const char *expr, const char *file, int line)
{
    // The one place that writes to stderr: there is no caller left who could report it.
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expr);
    fflush(stderr);
    abort();
}
