// SPDX-License-Identifier: MIT
// A block reference as it lies on disk (docs/FORMAT.md, "Block reference") and in memory.
#ifndef AF_STORE_BLKREF_H
#define AF_STORE_BLKREF_H

#include "store/fault.h"
#include "store/store_format.h"

static inline struct blkref_disk blkref_put(const struct blkref *ref)
{
    return (struct blkref_disk){.address = le64_put(ref->address),
                                .checksum = le64_put(ref->checksum),
                                .generation = le64_put(ref->generation)};
}

static inline struct blkref blkref_get(const struct blkref_disk *ref)
{
    return (struct blkref){.address = le64_get(ref->address),
                           .checksum = le64_get(ref->checksum),
                           .generation = le64_get(ref->generation)};
}

static inline bool blkref_same(const struct blkref *a, const struct blkref *b)
{
    return a->address == b->address && a->checksum == b->checksum && a->generation == b->generation;
}

#endif
