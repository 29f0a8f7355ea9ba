// SPDX-License-Identifier: MIT
// A store whose cleaning up never comes to anything: log segments that were in use can neither be
// recycled nor removed. With world.idle nothing runs in the background either. To show that
// correctness rests on none of it.
#ifndef AF_TESTS_NO_CLEANUP_H
#define AF_TESTS_NO_CLEANUP_H

#include "tests/sim/sim_disk.h"

// From here on, for this disk and its clones.
void no_cleanup_begin(struct sim *sim);
// How often it was tried since the start of the program.
uint64_t no_cleanup_refusals(void);

#endif
