// SPDX-License-Identifier: MIT
// What must hold after something that an engine needs has failed under random work: it was told,
// and nothing that was acknowledged is gone. For faults of the disk and of memory alike.
#ifndef AF_TESTS_AFTERMATH_H
#define AF_TESTS_AFTERMATH_H

#include "tests/lib/world.h"

// A little of everything: calls of all kinds, a scattered file, checkpoints, a clean end and an
// opening. Stops with the first call that fails.
void aftermath_work(struct world *w);
// Once nothing fails any more: the call that failed has had no effect or all of it; a store that
// has failed stays so, one that has not goes on. True when it has failed.
bool aftermath_check(struct world *w);
// A crash, a recovery, and both again.
void aftermath_recover(struct world *w, enum crash_kind kind);

#endif
