// SPDX-License-Identifier: MIT
// Recovery: from the files of a store to a store that runs. The steps, in the order of the calls:
//
//   recovery_load     superblock chosen, files present, no newer superblock lost        (examine.h)
//   recovery_replay   store opened at the checkpoint's image; every extent that the log names
//   claimed;
//                     end of the log judged; operations replayed in memory. A store that was closed
//                     cleanly goes the same way with no records.
//   recovery_restart  only now is anything written:
//                       r1 a new superblock file with the chosen one in both slots takes the old
//                       one's place r2 log segments behind the one where the scan ended r3 a
//                       checkpoint of a new epoch, with its marker
//                     then requests may be accepted.
//
// Up to recovery_restart() nothing on disk has changed, so every refusal leaves the store as it
// was; a crash anywhere repeats the whole from an equal state.
#ifndef AF_CHECKPOINT_RECOVERY_H
#define AF_CHECKPOINT_RECOVERY_H

#include "checkpoint/checkpoint.h"
#include "checkpoint/engine.h"
#include "checkpoint/examine.h"

struct recovery {
    struct examination x;
    struct store *store; // opened by recovery_replay(); whoever gets the recovery closes it
    bool clean;          // nothing follows the cut of a superblock that says so
    bool writing; // recovery_restart() has begun: a failure from there on may have changed the disk
    int spare_error; // superblock_replace()
    uint64_t started_ms;
    struct engine_recovery report;
};

int recovery_load(struct recovery *r, struct io *io) AF_NODISCARD;
// `config` is that of the store. With `scrap_orphans` what was unlinked while it was open goes, in
// memory; the checkpoint of recovery_restart() makes that last.
int recovery_replay(struct recovery *r, const struct store_config *config,
                    bool scrap_orphans) AF_NODISCARD;
// `c`: io and store set; the rest is filled in. On return, also after a failure, c->wal and c->file
// may be open: the caller closes them. `wal_config` is that of the new log; the store is not
// attached to it yet.
int recovery_restart(struct recovery *r, struct checkpoint *c,
                     const struct wal_config *wal_config) AF_NODISCARD;
// Appends to `text` a clause for each superblock slot that could not be read or is not valid.
void recovery_slots_text(const struct recovery *r, char *text, size_t size);
// Fills the rest of r->report.
void recovery_report(struct recovery *r);
void recovery_free(struct recovery *r); // not the store

#endif
