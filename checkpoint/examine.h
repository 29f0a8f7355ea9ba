// SPDX-License-Identifier: MIT
// What a store directory holds, looked at without changing anything: the superblock that is in
// force, the files that must be there, the log behind it. Recovery starts with it, and so does
// whole-image verification.
//
// Two slots protect against a torn superblock only. So after the choice comes the question whether
// a newer one has been lost; each of these says so, and is refused (docs/FORMAT.md, "The end of the
// log"):
//   a marker in the log, or a segment header, with a higher sequence
//   a segment header of a higher epoch, or a record of the next epoch: nothing of an epoch is
//   written before a superblock that names it is durable
#ifndef AF_CHECKPOINT_EXAMINE_H
#define AF_CHECKPOINT_EXAMINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/io.h"
#include "checkpoint/superblock.h"
#include "wal/wal.h"

struct examination {
    struct io *io; // borrowed
    struct superblock_slots slots;
    const struct superblock *sb; // the chosen one, in `slots`; NULL: none
    uint64_t data_bytes;         // length of `data`
    struct wal_scan_result scan; // of examine_log()
    char message[640];           // of a refusal: what, which file, where, what to do
};

// Reads the superblocks, chooses, and looks for the other files. 0, or with `message`:
//   -AF_E_NOT_A_STORE   nothing of a store is there
//   -AF_E_SB_NONE       no valid superblock, or no superblock file beside other parts of a store
//   -AF_E_VERSION       a newer program wrote it
//   -AF_E_SB_FIELD      -AF_E_SB_STALE      -AF_E_IO_SHORT (data)      -AF_E_LOG_MISSING (wal/)
// and errors of I/O. Whatever is returned, examine_free() is to be called; `sb` is set when there
// is one.
int examine_load(struct examination *x, struct io *io) AF_NODISCARD;
// Scans the log behind the chosen superblock and judges its end: 0, -AF_E_SB_STALE,
// -AF_E_LOG_DAMAGED, -AF_E_LOG_MISSING, or an error of I/O. `each` (may be NULL) sees the
// operations in order, before the judgement; a non-zero return ends the scan and is returned as it
// is, without a message.
int examine_log(struct examination *x, int (*each)(void *arg, const struct wal_record *record),
                void *arg) AF_NODISCARD;
// Puts the message and returns `err`.
int examine_refuse(struct examination *x, int err, const char *fmt, ...) AF_PRINTF(3, 4);
void examine_free(struct examination *x);

#endif
