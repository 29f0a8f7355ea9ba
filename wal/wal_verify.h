// SPDX-License-Identifier: MIT
// Log segments away from their store: each verified alone, by what its own header says (store,
// seed, epoch, number, predecessor), then put in order with others. For `aerofs log --verify` and
// for whoever ships a log elsewhere.
//
// A store's own log is judged by wal_scan(), which knows from the superblock where it must start
// and that its files are whole. Here nothing is known but the bytes: a file may be cut at any
// length, belong to somebody else, or be an older copy.
#ifndef AF_WAL_WAL_VERIFY_H
#define AF_WAL_WAL_VERIFY_H

#include "wal/wal.h"

// What one file is, by itself.
enum wal_file_state {
    WAL_FILE_WHOLE,   // full length; its records end at a group's end, nothing of it follows
    WAL_FILE_PREFIX,  // shorter, but the last group in it has arrived: the records up to last_lsn
    WAL_FILE_PARTIAL, // cut inside a header, a record or a block, or a record that is not whole and
                      // of which nothing says that it was durable
    WAL_FILE_DAMAGED, // the header or a record is wrong, or one is unreadable that was durable
    WAL_FILE_UNUSED,  // zeros: no log was ever written to it
    WAL_FILE_UNKNOWN, // not a log segment
    WAL_FILE_STATE_COUNT
};

// Where it belongs among the others.
enum wal_place {
    WAL_PLACE_NONE,        // it has no valid header, so it belongs nowhere
    WAL_PLACE_FIRST,       // nothing given comes before it
    WAL_PLACE_CONTINUES,   // its first record follows the last one of the segment before
    WAL_PLACE_GAP,         // records between the segment before and this one are missing
    WAL_PLACE_REORDERED,   // continues, but was given before one that comes earlier in the log
    WAL_PLACE_DUPLICATE,   // the same records as another file
    WAL_PLACE_STALE,       // the first of the records of another file: an older copy
    WAL_PLACE_OTHER_EPOCH, // of an epoch that a recovery has ended before these records
    WAL_PLACE_RECYCLED,    // under the name of a later segment, not written since
    WAL_PLACE_FORKED,      // same numbers as another file, other records
    WAL_PLACE_FOREIGN,     // of another store
    WAL_PLACE_COUNT
};

struct wal_file {
    const char *path; // borrowed; its last part counts only if it is the name of a segment
    // wal_file_verify() fills these in.
    struct wal_segment_info info; // info.valid: the rest of it counts
    enum wal_file_state state;
    uint64_t bytes;                   // of the file
    uint64_t records;                 // that follow each other from first_lsn on
    uint64_t last_lsn, last_checksum; // of the last one; the predecessor's where there is none
    uint64_t *checksums;              // of all of them, for the comparison of copies
    uint64_t durable_lsn;             // highest that anything in it says
    uint64_t end_offset;              // behind the last record
    uint64_t bad_offset, bad_lsn; // PARTIAL, DAMAGED: where, and the record expected there (0: the
                                  // header)
    char what[256];               // in words, when there is something to say
    // wal_files_order() fills these in; it may turn PARTIAL into WHOLE or DAMAGED.
    enum wal_place place;
    uint64_t missing_from, missing_to; // GAP: LSNs
    size_t other;                      // DUPLICATE, STALE, FORKED, OTHER_EPOCH: index of the other
};

// Reads `file->path` through `io`. `each` (may be NULL) gets the records that follow each other; a
// non-zero return ends the reading and is returned. 0, or an error of I/O.
int wal_file_verify(struct io *io, struct wal_file *file,
                    int (*each)(void *arg, const struct wal_record *record),
                    void *arg) AF_NODISCARD;
void wal_file_free(struct wal_file *file); // what wal_file_verify() has allocated

// What all of them together are.
struct wal_file_set {
    size_t states[WAL_FILE_STATE_COUNT], places[WAL_PLACE_COUNT];
    bool any;         // there is a segment with a valid header
    size_t reference; // the first such file: what is not of its store is foreign
    uint64_t epoch_first, epoch_last;
    // Records that can be used: from the first segment to the first thing that breaks the order.
    uint64_t first_lsn, last_lsn, last_checksum, durable_lsn;
};

// Puts verified files in order; `files` stand as they were given. -ENOMEM.
int wal_files_order(struct wal_file *files, size_t count,
                    struct wal_file_set *ret_set) AF_NODISCARD;

const char *wal_file_state_name(enum wal_file_state state);
const char *wal_place_name(enum wal_place place);

#endif
