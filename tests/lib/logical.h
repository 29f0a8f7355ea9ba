// SPDX-License-Identifier: MIT
// The logical log: the operations that a log holds, in their order, in a form that does not depend
// on groups, durable LSNs, addresses, or on whether contents ride in a record or lie in extents.
#ifndef AF_TESTS_LOGICAL_H
#define AF_TESTS_LOGICAL_H

#include "tests/sim/sim_disk.h"

struct logical {
    uint64_t *hashes; // of each operation
    uint64_t *lsns;   // rising
    size_t count, cap;
};

// Adds what the segments of the disk hold behind what was collected before. To be called before
// segments are recycled: when a checkpoint writes its superblock, and at the end.
void logical_collect(struct logical *log, const struct sim *sim);
// *ret_at: the first operation that differs.
bool logical_equal(const struct logical *a, const struct logical *b, size_t *ret_at);
void logical_free(struct logical *log);

#endif
