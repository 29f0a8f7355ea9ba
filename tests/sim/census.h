// SPDX-License-Identifier: MIT
// What the crash tests have done, in all programs of a run together: which call sites (base/io.h)
// were crash points or had an error injected, and which states of a disk were recovered and
// checked. Each program writes its part into the directory $AEROFS_TEST_CENSUS when it ends;
// scripts/io-sites sums up. Without that variable nothing is written.
#ifndef AF_TESTS_CENSUS_H
#define AF_TESTS_CENSUS_H

#include <stdint.h>

// `site`: NULL is a call that did not come from the engine.
void census_crash_point(const char *site);
void census_fault_point(const char *site);
void census_state(uint64_t hash);

#endif
