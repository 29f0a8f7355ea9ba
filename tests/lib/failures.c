// SPDX-License-Identifier: MIT
// The failures of the disk that are injected.
#include "tests/lib/failures.h"

#include <errno.h>

#include "base/attr.h"

#define DURABLE_WRITES (SIM_BIT(SIM_START_WRITE) | SIM_BIT(SIM_DONE_WRITE))
#define ALL_SYNCS      (SIM_BIT(SIM_SYNC) | SIM_BIT(SIM_START_SYNC) | SIM_BIT(SIM_DONE_SYNC))

const struct failure failures[] = {
    {"read fails", SIM_BIT(SIM_READ), NULL, SIM_FAULT_FAIL, -EIO},
    {"read brings a wrong bit", SIM_BIT(SIM_READ), NULL, SIM_FAULT_CORRUPT, -EIO},
    {"write fails", SIM_BIT(SIM_WRITE), NULL, SIM_FAULT_FAIL, -EIO},
    {"write is cut short", SIM_BIT(SIM_WRITE), NULL, SIM_FAULT_PARTIAL, -EIO},
    {"write finds no space", SIM_BIT(SIM_WRITE), NULL, SIM_FAULT_PARTIAL, -ENOSPC},
    {"allocation finds no space", SIM_BIT(SIM_ALLOCATE), NULL, SIM_FAULT_FAIL, -ENOSPC},
    {"allocation fails", SIM_BIT(SIM_ALLOCATE), NULL, SIM_FAULT_PARTIAL, -EIO},
    {"sync fails", ALL_SYNCS, NULL, SIM_FAULT_FAIL, -EIO},
    {"sync fails and the cache looks clean", ALL_SYNCS, NULL, SIM_FAULT_LOST, -EIO},
    {"sync works and says no", ALL_SYNCS, NULL, SIM_FAULT_AFTER, -EIO},
    {"log write fails", DURABLE_WRITES, "wal/*", SIM_FAULT_FAIL, -EIO},
    {"log write is cut short", DURABLE_WRITES, "wal/*", SIM_FAULT_PARTIAL, -EIO},
    {"log write finds no space", DURABLE_WRITES, "wal/*", SIM_FAULT_PARTIAL, -ENOSPC},
    {"log write fails and looks done", DURABLE_WRITES, "wal/*", SIM_FAULT_LOST, -EIO},
    {"log write works and says no", DURABLE_WRITES, "wal/*", SIM_FAULT_AFTER, -EIO},
    {"superblock write is cut short", SIM_BIT(SIM_WRITE), "superblock*", SIM_FAULT_PARTIAL, -EIO},
    {"superblock write works and says no", SIM_BIT(SIM_WRITE), "superblock*", SIM_FAULT_AFTER,
     -EIO},
    {"superblock sync fails", SIM_BIT(SIM_SYNC), "superblock*", SIM_FAULT_LOST, -EIO},
    {"creation of a file fails", SIM_BIT(SIM_CREATE), NULL, SIM_FAULT_FAIL, -EIO},
    {"creation of a file finds no space", SIM_BIT(SIM_CREATE), NULL, SIM_FAULT_FAIL, -ENOSPC},
    {"rename fails", SIM_BIT(SIM_RENAME), NULL, SIM_FAULT_FAIL, -EIO},
    {"rename works and says no", SIM_BIT(SIM_RENAME), NULL, SIM_FAULT_AFTER, -EIO},
    {"directory sync fails", SIM_BIT(SIM_SYNC_DIR), NULL, SIM_FAULT_LOST, -EIO},
    {"opening fails", SIM_BIT(SIM_OPEN), NULL, SIM_FAULT_FAIL, -EIO},
    {"no permission", SIM_BIT(SIM_OPEN) | SIM_BIT(SIM_CREATE), NULL, SIM_FAULT_FAIL, -EACCES},
    {"size fails", SIM_BIT(SIM_SIZE), NULL, SIM_FAULT_FAIL, -EIO},
    {"listing fails", SIM_BIT(SIM_LIST), NULL, SIM_FAULT_FAIL, -EIO},
};

const size_t failure_count = AF_ARRAY_LEN(failures);
