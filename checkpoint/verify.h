// SPDX-License-Identifier: MIT
// Whole-image verification: reads everything that the newest checkpoint reaches, checks each byte
// against its checksum and each structure against the others, and sees whether the log can be
// replayed. Changes nothing, trusts nothing that it reads, and works without the cache of the
// store.
//
// What it holds in memory: one bit for each block of `data`, 24 bytes for each inode, 16 for each
// name, 40 for each content that is not known by its inode's own number (files that were exchanged
// as a whole, orphans).
#ifndef AF_CHECKPOINT_VERIFY_H
#define AF_CHECKPOINT_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/io.h"
#include "store/store.h"

enum verify_severity {
    VERIFY_DAMAGE, // bytes or structures that are not what was written
    VERIFY_NOTE,   // what a crash leaves behind and the next mount takes care of
};

struct verify_finding {
    enum verify_severity severity;
    int code;         // -AF_E_…, -errno; 0 for a note
    const char *file; // "superblock", "data", "wal/0000000000000001.seg"
    uint64_t address; // block of `data`; 0: none
    uint64_t ino;     // inode or content it concerns; 0: none
    uint64_t off;     // byte offset: in the file of that inode, or, with no inode, in `file`
    const char *text; // a sentence: what is wrong, what was expected, what was found
};

struct verify_options {
    // May be NULL. `done` of `total` blocks of the checkpoint have been read.
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void (*finding)(void *arg, const struct verify_finding *finding);
    // May be NULL. At the end: names of what damage to `data` affects, where they are known, for
    // the first STORE_DAMAGE_MAX damages; `part` says which part of it, "" all.
    void (*affected)(void *arg, const char *path, const char *part,
                     const struct store_damage *damage);
    // May be NULL. The same damage has so many more names, or none that is known (0).
    void (*affected_more)(void *arg, uint64_t names, const struct store_damage *damage);
    void *arg;
    bool skip_data;   // structures only: file data is not read
    bool skip_replay; // the log is scanned, not replayed in memory
};

struct verify_result {
    uint64_t damage, notes; // findings
    int first_code;         // of the first damage; 0: sound
    bool complete;          // every node of the tree could be read

    uint8_t uuid[16];
    uint64_t sequence, epoch, generation, cut_lsn;
    bool clean;
    uint64_t nodes, items;
    uint64_t snapshots;
    uint64_t inodes, directories, files, symlinks, others;
    uint64_t names, xattrs, extents, orphans;
    uint64_t data_blocks;    // of files, read or not
    uint64_t blocks_reached; // in use by the checkpoint, the space map's own included
    uint64_t blocks_marked;  // in use says the space map
    uint64_t blocks_leaked;  // marked and not reached
    uint64_t blocks_missing; // reached and not marked

    bool log_scanned, log_replayed;
    uint64_t log_records, log_bytes, log_last_lsn;
    uint64_t tail_records, tail_bytes;
};

// Verifies the store behind `io`, which no one else uses meanwhile. Returns 0 when the verification
// has run to its end, whatever it has found (see result->damage); -ENOMEM or an error of I/O on
// directories when it could not. While it runs, io->read_only is set.
int verify_image(struct io *io, const struct verify_options *options,
                 struct verify_result *ret_result) AF_NODISCARD;

#endif
