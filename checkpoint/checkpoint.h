// SPDX-License-Identifier: MIT
// Publishing a checkpoint: t0 to t7 of docs/FORMAT.md, "Publishing, step by step". One procedure
// for the checkpoint thread, for creation, for the end of recovery and for a clean close.
//
// Invariants: K1 the published cut never exceeds the durable LSN. K2 at every instant at least one
// superblock slot is valid, and no older one can be taken in silence: the slot that is written is
// never that of the newest published superblock, and nothing is freed or trimmed before the marker
// is durable.
//
// No failure is retried: after a failed write or sync the store is read-only until it is opened
// anew.
#ifndef AF_CHECKPOINT_CHECKPOINT_H
#define AF_CHECKPOINT_CHECKPOINT_H

#include "base/io.h"
#include "checkpoint/superblock.h"
#include "store/store_engine.h"
#include "wal/wal.h"

struct checkpoint_stats {
    uint64_t count;          // published since open
    uint64_t last_us;        // duration of the last one
    uint64_t last_bytes;     // written by it
    uint64_t last_freeze_us; // for how long it held the store
};

// The publisher of one store. Only one checkpoint runs at a time: the caller sees to it
// (checkpointer_run(), or there is but one thread).
struct checkpoint {
    struct io *io;        // borrowed, as all pointers here
    struct io_file *file; // the superblock file; NULL in creation
    struct store *store;
    struct wal *wal;          // NULL in creation, where no log runs
    struct wal_start start;   // of the epoch that runs
    struct superblock newest; // published; owned. Before the first: what the next is derived from
    struct checkpoint_stats stats;
    bool serving;    // a failure makes the store read-only, and it says so; else the caller does
    int spare_error; // superblock_replace()
    int failed;      // sticky
    char failed_what[100]; // in which step
};

// Publishes what is in the store now. In creation (file NULL) it makes the superblock file and
// marks the superblock clean, since no log has begun. 0; -ENOMEM when it could not begin, which
// leaves everything as it was; or the error that has made the store read-only.
int checkpoint_run(struct checkpoint *c) AF_NODISCARD;
// Clean close and read-only opening, with everything applied in the last checkpoint: publishes the
// same image once more with the clean flag and the end of the log as its cut. No marker follows: it
// would follow the cut. If this superblock is lost, the one before it and its marker are in force,
// with the same tree.
int checkpoint_publish_clean(struct checkpoint *c) AF_NODISCARD;
void checkpoint_free(struct checkpoint *c); // what it owns; accepts a zeroed one

#endif
