// SPDX-License-Identifier: MIT
// A primary that works, its archive, its history, and what must be true of every replica at any
// time: never ahead of the primary's durable LSN, its log the primary's byte for byte, its tree
// that of the primary at that LSN.
#ifndef AF_TESTS_REPLICA_FOLLOW_H
#define AF_TESTS_REPLICA_FOLLOW_H

#include "tests/lib/rng.h"
#include "tests/replica/replica.h"

#define FOLLOW_STATES_MAX 4000u

struct primary {
    struct fixture fx;
    struct archive a;
    struct rng r;
    unsigned steps; // so far
    uint64_t lsn[FOLLOW_STATES_MAX],
        hash[FOLLOW_STATES_MAX]; // the tree after each, by the last LSN
    size_t states;
    bool alone;         // nothing is archived
    unsigned large;     // percent of the files that are too large for a record
    size_t large_bytes; // 0: of any size
};

void primary_init(struct primary *p, uint64_t seed);
void primary_free(struct primary *p);
// One operation or a few that belong together; all of it durable, noted and archived.
void primary_step(struct primary *p);
void primary_checkpoint(struct primary *p);
void primary_note(struct primary *p); // the tree as it is, archived
// The power or the process ends; then the store is opened again.
void primary_crash(struct primary *p, enum crash_kind kind, uint64_t seed);
void primary_reopen(struct primary *p); // after a clean close

// Ends the program with a message when something is not true.
void check_replica(struct primary *p, struct replica *r, const char *when);
// Sends everything of the archive that the replica does not have yet.
void send_all(struct primary *p, struct replica *r);
// And places it: it must end up where the archive ends.
void catch_up(struct primary *p, struct replica *r);

#endif
