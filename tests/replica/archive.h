// SPDX-License-Identifier: MIT
// The primary's side of the offline replication harness: what a store has made durable, as files
// that can be copied anywhere and at any time. It watches the simulated disk of the primary; the
// engine knows nothing of it and waits for nothing.
//
//   N.seg    the bytes of log segment N up to the durable LSN; grows, never changes
//   N.ext    the blocks of `data` that its records name: address (8 bytes), block, and so on
//   S.step   the checkpoint that superblock S published: it and the blocks that differ from S - 1
//   S.base   a whole store as superblock S published it: where a replica starts
//
// A step is taken at the instant between the superblock's sync and its marker: nothing that it has
// freed is used again yet, so its blocks fit a replica that still stands on the one before.
#ifndef AF_TESTS_REPLICA_ARCHIVE_H
#define AF_TESTS_REPLICA_ARCHIVE_H

#include "tests/lib/fixture.h"

#define ARCHIVE_NAME_BYTES 32

struct archive_file {
    char name[ARCHIVE_NAME_BYTES];
    uint8_t *bytes;
    size_t len, cap;
};

struct archive {
    struct archive_file *files;
    size_t count, cap;
    struct sim *published;  // durable image of the primary as the last superblock was published
    uint64_t sequence;      // of it; 0: none yet
    uint64_t lsn, checksum; // the log is archived up to here
    bool synced;            // the superblock was synced by the last event
    struct sim *watched;    // borrowed
    // What the primary no longer has: a step or a record was missed. archive_rebase() starts anew.
    bool behind;
    char why[160];
    uint64_t records, extents, steps;
};

void archive_free(struct archive *a);
// Watches the disk of the primary from here on; again after each exchange of the disk.
void archive_watch(struct archive *a, struct sim *primary);
// Takes what has become durable. Between calls of the engine.
void archive_update(struct archive *a, struct fixture *primary);
// Forgets everything but the newest published checkpoint, and starts from it.
void archive_rebase(struct archive *a, struct fixture *primary);
struct archive_file *archive_find(struct archive *a, const char *name); // NULL: none

#endif
