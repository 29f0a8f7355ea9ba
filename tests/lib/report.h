// SPDX-License-Identifier: MIT
// What the report of a recovery has to say about a disk: found out beforehand by reading it.
#ifndef AF_TESTS_REPORT_H
#define AF_TESTS_REPORT_H

#include "checkpoint/engine.h"
#include "tests/sim/sim_disk.h"

struct report {
    struct engine_recovery r; // the fields that can be known; text: a part that must be there
    uint64_t marker;          // the highest sequence that a marker in the log carries
};

// Of a disk that a recovery is going to open: 0 or an error.
int report_expect(struct sim *sim, struct report *ret) AF_NODISCARD;
// True: the same. Otherwise `why` says what is not.
bool report_matches(const struct report *expected, const struct engine_recovery *found, char *why,
                    size_t size);

#endif
