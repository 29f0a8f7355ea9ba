// SPDX-License-Identifier: MIT
// Reading segments: a window over a file, and the search for records wherever they lie. Shared by
// wal_scan.c, which follows the chain, and wal_tail.c, which looks at what is behind its end.
//
// Nothing here trusts a length or a number that it has read: every access is checked against the
// size of the file, memory is bounded by that of the largest record, and the work by budgets.
#ifndef AF_WAL_WAL_SCAN_H
#define AF_WAL_WAL_SCAN_H

#include "wal/wal.h"
#include "wal/wal_format.h"

// The part of a file that is in memory.
struct wal_window {
    struct io_file *file;
    unsigned open_flags; // IO_LOG: read past the page cache
    uint64_t size;       // of the file, or of what of it counts
    uint8_t *buf;
    size_t cap;
    uint64_t start; // of the bytes in `buf`
    size_t ahead;   // bytes to read at once, at least
    size_t have;
};

// Opens `path` in place of what is open; the memory is kept. -ENOENT and other errors of I/O.
int wal_window_open(struct wal_window *w, struct io *io, const char *path) AF_NODISCARD;
void wal_window_close(struct wal_window *w);
void wal_window_free(struct wal_window *w);
// Bytes off .. off + len, which lie in the file; borrowed until the next call.
int wal_window_get(struct wal_window *w, uint64_t off, size_t len,
                   const uint8_t **ret_bytes) AF_NODISCARD;
// Looks for a record with a right checksum at `off`, which need not be inside the file. *ret_valid
// tells; then `frame` is filled and *ret_body borrowed until the next call.
int wal_window_record(struct wal_window *w, uint64_t off, uint64_t salt, struct wal_frame *frame,
                      const uint8_t **ret_body, bool *ret_valid) AF_NODISCARD;

// A search for records from `from` to the end of the file, at every multiple of 8.
struct wal_walk {
    struct wal_window *window;
    uint64_t segment;
    uint64_t salt;
    uint64_t from;
    uint64_t lsn_min; // lower ones are of an earlier use
    int (*found)(void *arg, const struct wal_record *record);
    void *arg;

    uint64_t nonzero_end; // end of the last block with anything in it; `from` when there is none
};
int wal_walk(struct wal_walk *walk) AF_NODISCARD;

// A scan under way.
struct wal_scan {
    struct io *io;
    const struct wal_start *start;
    int (*each)(void *arg, const struct wal_record *record);
    void *arg;
    struct wal_window window;
    uint64_t *numbers; // of the segment files, rising
    size_t number_count;
    bool fresh; // nothing of this epoch is at or before the cut

    uint64_t expected_lsn; // of the next record
    uint64_t prev_checksum;
    bool decided; // result->end is final
    struct wal_scan_result result;
};

bool wal_scan_has(const struct wal_scan *s, uint64_t segment);
// Opens a segment. *ret_there: it exists at full length; otherwise MISSING is decided if `must`.
int wal_scan_open(struct wal_scan *s, uint64_t segment, bool must, bool *ret_there) AF_NODISCARD;
// Reads the header of the open segment. True when it is of this store, epoch, number and size.
int wal_scan_header(struct wal_scan *s, uint64_t segment, struct wal_segment_info *ret_info,
                    bool *ret_valid) AF_NODISCARD;
void wal_scan_decide(struct wal_scan *s, enum wal_end end, const char *fmt, ...) AF_PRINTF(3, 4);
// Looks for traces of a newer superblock in all segments.
int wal_scan_survey(struct wal_scan *s) AF_NODISCARD;
// Looks behind the end: proof of damage, remains of a torn group, or nothing.
int wal_scan_tail(struct wal_scan *s) AF_NODISCARD;

#endif
