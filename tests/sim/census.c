// SPDX-License-Identifier: MIT
// The census: sets in memory, written out at exit. Sites are few; states are written and forgotten
// when there are many, and what is then written twice is counted once by scripts/io-sites.
#include "tests/sim/census.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/le.h"

#define SITES_MAX   512
#define STATES_LOG2 20 // 8 MiB

static const char *directory;
static const char *crash_points[SITES_MAX], *fault_points[SITES_MAX];
static uint64_t *states, state_count, checked;

static FILE *open_part(const char *kind)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%ld.%s", directory, (long)getpid(), kind);
    FILE *f = fopen(path, "a");

    AF_ASSERT(f);
    return f;
}

static void write_states(void)
{
    FILE *f = open_part("states");

    for (size_t i = 0; i < (size_t)1 << STATES_LOG2; i++) {
        le64 number = le64_put(states[i]);

        if (states[i])
            AF_ASSERT(fwrite(&number, sizeof(number), 1, f) == 1);
    }
    AF_ASSERT(fclose(f) == 0);
    memset(states, 0, sizeof(states[0]) << STATES_LOG2);
    state_count = 0;
}

static void write_all(void)
{
    FILE *f = open_part("sites");

    for (size_t i = 0; i < SITES_MAX && crash_points[i]; i++)
        fprintf(f, "crash %s\n", crash_points[i]);
    for (size_t i = 0; i < SITES_MAX && fault_points[i]; i++)
        fprintf(f, "fault %s\n", fault_points[i]);
    fprintf(f, "checked %llu\n", (unsigned long long)checked);
    AF_ASSERT(fclose(f) == 0);
    write_states();
}

static int is_wanted(void)
{
    static int decided;

    if (!decided) {
        decided = 1;
        directory = getenv("AEROFS_TEST_CENSUS");
        if (directory) {
            states = calloc((size_t)1 << STATES_LOG2, sizeof(states[0]));
            AF_ASSERT(states && atexit(write_all) == 0);
        }
    }
    return directory != NULL;
}

static void note(const char *points[SITES_MAX], const char *site)
{
    size_t i = 0;

    if (!site || !is_wanted())
        return;
    while (i < SITES_MAX && points[i] && points[i] != site)
        i++;
    AF_ASSERT(i < SITES_MAX);
    points[i] = site;
}

void census_crash_point(const char *site)
{
    note(crash_points, site);
}

void census_fault_point(const char *site)
{
    note(fault_points, site);
}

void census_state(uint64_t hash)
{
    const size_t mask = ((size_t)1 << STATES_LOG2) - 1;

    if (!is_wanted())
        return;
    hash += hash == 0;
    checked++;
    size_t i = hash & mask;

    while (states[i] && states[i] != hash)
        i = (i + 1) & mask;
    state_count += !states[i];
    states[i] = hash;
    if (state_count > mask / 2)
        write_states();
}
