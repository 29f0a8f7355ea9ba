// SPDX-License-Identifier: MIT
// A disk that lies, to show that the tests would notice an engine that forgets a step: what is said
// to be durable is not. The simulated disk itself never lies; its table of functions is replaced.
#ifndef AF_TESTS_LIE_H
#define AF_TESTS_LIE_H

#include "tests/sim/sim_disk.h"

enum lie {
    LIE_NONE,
    LIE_LOG_WRITE,  // a durable write of the log is only a write
    LIE_LOG_SYNC,   // a sync of a segment does nothing
    LIE_DATA_SYNC,  // likewise of `data`
    LIE_SUPERBLOCK, // of `superblock`, under whatever name
    LIE_DIRECTORY,  // of a directory
    LIE_COUNT
};

const char *lie_name(enum lie lie);
// One disk at a time. Its clones lie as well, until they are told not to.
void lie_begin(struct sim *sim, enum lie lie);
void lie_end(struct sim *sim);

#endif
