// SPDX-License-Identifier: MIT
// Numbers for tests from the environment (rng.h).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/rng.h"

uint64_t env_number(const char *name, uint64_t otherwise)
{
    char full[64];
    const char *text;

    snprintf(full, sizeof(full), "AEROFS_TEST_%s", name);
    text = getenv(full);
    if (!text)
        text = getenv(name);
    if (text && strcmp(text, "all") == 0)
        return 0;
    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}
