// SPDX-License-Identifier: MIT
// What the files of the replica share.
#ifndef AF_TESTS_REPLICA_REPLICA_INTERNAL_H
#define AF_TESTS_REPLICA_REPLICA_INTERNAL_H

#include "base/attr.h"
#include "tests/replica/replica.h"

#define REPLICA_BLOCK 4096u

// Notes why nothing is placed. Always false.
bool replica_waits(struct replica *r, enum replica_wait wait, const char *fmt, ...) AF_PRINTF(3, 4);
void replica_incoming_path(const char *name, char path[SIM_PATH_BYTES]);
// A file of in/ in memory, for free(). NULL: not there.
uint8_t *replica_read_incoming(const struct replica *r, const char *name, size_t *ret_len);
// A segment is there at full length and durable, zeros if it is new: as the log wants the successor
// of every segment that is written to.
int replica_ensure_segment(struct io *io, uint64_t number, uint64_t bytes) AF_NODISCARD;

// Each places one thing, if it can.
bool replica_place_base(struct replica *r);
bool replica_place_step(struct replica *r);    // replica_base.c
bool replica_place_records(struct replica *r); // replica_records.c

#endif
