// SPDX-License-Identifier: MIT
// The replica's side of the offline replication harness. Its disk has a store directory, which only
// whole and verified things get into, and `in/`, where copies of the archive's files arrive, cut
// anywhere, in any order, more than once (archive.h).
//
// replica_place() takes what follows: a base, a checkpoint, a group of records with the blocks that
// they name; each checked with what the formats carry and with the product's own functions, made
// durable in the primary's order (blocks, then the record; a checkpoint's blocks, then its
// superblock, then its marker). replica_apply() replays through the one replay path, in memory: the
// replica's log stays the primary's, byte for byte.
#ifndef AF_TESTS_REPLICA_REPLICA_H
#define AF_TESTS_REPLICA_REPLICA_H

#include "tests/lib/canon.h"
#include "tests/replica/archive.h"

enum replica_wait {           // why nothing more is placed
    REPLICA_WAITS_BASE,       // there is no whole base
    REPLICA_WAITS_RECORD,     // the next record has not arrived, or not in whole
    REPLICA_WAITS_BLOCKS,     // blocks that it names have not
    REPLICA_WAITS_CHECKPOINT, // it is the marker of a checkpoint that has not
    REPLICA_REFUSES,          // what has arrived is damaged, foreign or of another history
    REPLICA_NEEDS_BASE,       // it needs blocks that the base still uses: start again
    REPLICA_WAIT_COUNT
};

struct replica {
    struct sim *sim; // owned; all below is derived from it
    struct engine_options options;
    bool ready;           // there is a base
    struct wal_start log; // of its superblock
    uint64_t sequence;
    uint64_t lsn, checksum; // the last record placed
    uint64_t segment, end;  // and where the log ends
    enum replica_wait wait;
    char why[256];
    uint64_t placed, published, bases; // counters
};

void replica_init(struct replica *r, const struct engine_options *options, uint64_t seed);
void replica_free(struct replica *r);
// Bytes of a file of the archive arrive; they are not synced before replica_sync().
void replica_receive(struct replica *r, const char *name, uint64_t off, const void *bytes,
                     size_t len);
void replica_sync(struct replica *r, const char *name);
void replica_forget(struct replica *r, const char *name);             // a transfer starts over
uint64_t replica_received(const struct replica *r, const char *name); // bytes of it
// Forgets the base and the log, to start again with a new base. What has arrived stays.
void replica_discard(struct replica *r);
// Places all that can be. True when something was. An error of the disk ends it.
bool replica_place(struct replica *r);
// After a crash or a start: everything from the disk. False: the disk has died meanwhile.
bool replica_restart(struct replica *r);
// The tree at r->lsn, from base and log alone. Changes nothing.
void replica_apply(const struct replica *r, struct canon *ret);

#endif
