// SPDX-License-Identifier: MIT
// The failures of the disk that are injected: one list for the baseline and for every optimization.
// docs/proofs/README.md names each with its section of the failure model, and scripts/proofs-check
// fails when either list has what the other has not, so that none goes by accident.
#ifndef AF_TESTS_FAILURES_H
#define AF_TESTS_FAILURES_H

#include "tests/sim/sim_disk.h"

struct failure {
    const char *name;
    uint32_t calls;
    const char *path; // NULL: any
    enum sim_fault_effect effect;
    int error;
};

extern const struct failure failures[];
extern const size_t failure_count;

#endif
