// SPDX-License-Identifier: MIT
// The log: opaque records made durable in order, and read back in order. It never learns what a
// body means. Format: docs/FORMAT.md, "Log".
//
// States of a flush:   IDLE -> (SYNCING_DATA ->) WRITING -> IDLE, or -> FAILED from any of them.
// FAILED has no exit but wal_close(): every waiter gets the error, every later call does.
//
// LSNs and their order (wal_check_state asserts it):
//   trimmed <= published cut <= durable <= sealed <= appended
//
// Invariants: W1 acknowledgements are sent in LSN order, each only when durable has reached it.
// W2 the order above. W3 a record is replayed whole or not at all, none after an absent one.
// W4 bytes of a recycled segment never validate. W5 FAILED has no exit.
//
// Group commit: one write is in flight at most; records appended meanwhile form the next group. A
// lone commit is written at once, nothing ever waits for company. With the switch off each record
// is a group, has its own write, and its own sync of data where it names extents.
//
// Threading: all calls are thread safe unless they say otherwise. Completions run in wal_pump(). A
// thread whose call may start a flush must live until that has ended (see io.h).
#ifndef AF_WAL_WAL_H
#define AF_WAL_WAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/io.h"
#include "base/list.h"
#include "base/message.h"
#include "base/switch.h"

struct wal;

enum wal_type {
    WAL_OPERATION = 1,
    WAL_MARKER = 2,
    WAL_ATTESTATION = 3,
};

// Where a log starts: what the superblock says of it, and the identity of the store.
struct wal_start {
    uint8_t uuid[16];
    uint64_t epoch;
    uint64_t segment_bytes;
    uint64_t log_segment;  // first segment to read / first segment to write
    uint64_t cut_lsn;      // everything up to here is in the checkpoint
    uint64_t cut_checksum; // of the record at the cut; 0: none
    uint64_t next_lsn;     // of the epoch's first record
    uint64_t log_seed; // secret of the store, in the salt of every segment (docs/FORMAT.md, "Log")
};

// ---- writing ----

struct wal_config {
    struct io *io;            // borrowed, outlives the wal
    struct message_sink sink; // segments made, failure
    uint64_t log_bytes;       // bound of all segments together; at least 4 segments
    // Extents that records name are synced before the records are written: the owner numbers its
    // writes to `data_file`; wal_append() is told the number a record depends on. Right before a
    // sync of data is started data_written() is asked for the highest number whose write has
    // returned; a successful sync then covers that. data_written() is called under the wal's lock:
    // it may only load an atomic. A record must not be appended before the write that it depends on
    // has returned.
    struct io_file *data_file; // borrowed
    uint64_t (*data_written)(void *arg);
    void *arg;
    // Called once, without locks, when the log fails.
    void (*on_failure)(void *arg, int error, const char *what);
};

// A waiter for durability. Caller owned; untouched by the caller until `done` ran.
struct wal_waiter {
    struct list link;
    uint64_t lsn;
    void (*done)(struct wal_waiter *w, int result); // 0: durable; runs without locks, in LSN order
};

struct wal_stats {
    uint64_t appended_lsn, sealed_lsn, durable_lsn, cut_lsn;
    uint64_t epoch;
    uint64_t
        log_bytes; // bytes of segments between log_segment and the end, what counts to the bound
    uint64_t log_bytes_max;
    uint64_t missing_bytes; // of segments that the bound allows and that do not exist
    uint64_t segment_bytes;
    uint64_t flushes, records, bytes_written, data_syncs;
    uint64_t first_segment, current_segment;
    bool failed;
    int error;
    uint64_t unflushed_since_ms; // io ticks of the oldest appended and unsealed record, 0: none
};

// Makes the two first segments of `start` (log_segment and its successor), zero-filled, synced,
// with their directory entries. Reuses nothing. Used by store creation and by recovery (r2).
int wal_create_segments(struct io *io, const struct wal_start *start) AF_NODISCARD;

// Opens for writing at the start of an epoch: log_segment and its successor exist and nothing of
// this epoch was ever written. Takes old segments found in wal/ below log_segment into the pool to
// recycle.
int wal_open(const struct wal_config *config, const struct wal_start *start,
             struct wal **ret_wal) AF_NODISCARD;
// Once, before the first request is served and after recovery has written what it has to: until
// then the log does as if all were on.
void wal_set_switches(struct wal *wal, struct switches switches);
// Waits for a write in flight (reaping itself), frees everything. Unflushed records are dropped.
// NULL ok.
void wal_close(struct wal *wal);

// The largest body that wal_append() takes: 1 MiB, or half of a segment.
size_t wal_body_max(const struct wal *wal);
// True when `bytes` of bodies in `records` records can be appended without running over log_bytes.
// The caller serializes this with its appends (the store lock does). A part of the bound is kept
// for markers and attestations, which need no room. Only segments that exist are counted, so that a
// full disk is met here and not at a flush: false may also mean that wal_prepare_segments() is late
// (it has been asked for). Starts a flush when more than one full group is waiting, so memory stays
// bounded. True on a failed log, whose wal_append() says so.
bool wal_has_room(struct wal *wal, size_t records, size_t bytes);
// Appends one record to the open group and returns its LSN. Memory only; nothing is started.
// `data_number`: the data write it depends on, 0 for none. Errors: -AF_E_LOG_FAILED,
// -AF_E_LOG_TOO_BIG, -ENOMEM. The order of appends is the order of the log.
int wal_append(struct wal *wal, enum wal_type type, const void *body, size_t body_bytes,
               uint64_t data_number, uint64_t *ret_lsn) AF_NODISCARD;
// Makes sure that memory for `bytes` more of bodies is at hand, so that the next wal_append() up to
// that size cannot fail for memory. -ENOMEM.
int wal_prepare(struct wal *wal, size_t bytes) AF_NODISCARD;

// Registers `w` (w->lsn, w->done set). Returns 1 when the LSN is durable already (done will not
// run), 0 when done will run, or -AF_E_LOG_FAILED (done will not run). Does not start a flush: see
// wal_kick().
int wal_wait_async(struct wal *wal, struct wal_waiter *w) AF_NODISCARD;
// Starts a flush of what is appended if none is in flight and either somebody waits or `all` is
// set. If one is in flight its completion starts the next one under the same rule (`all` is
// remembered). Calls nobody back, so it may be called under locks.
void wal_kick(struct wal *wal, bool all);
// Waits until `lsn` is durable: 0 or -AF_E_LOG_FAILED. Kicks and pumps itself when nobody else
// pumps.
int wal_wait(struct wal *wal, uint64_t lsn) AF_NODISCARD;
uint64_t wal_durable_lsn(struct wal *wal);
uint64_t wal_appended_lsn(struct wal *wal);

// Completion processing. A loop that owns the pump calls wal_pump_own(true) once, then
// wal_pump(false) whenever io->ops->event_fd() is readable, and wal_pump_own(false) at its end.
// While nobody owns it, wal_wait() pumps itself, one thread at a time, the others sleep. A `done`
// must not wait for the log.
void wal_pump_own(struct wal *wal, bool own);
int wal_pump(struct wal *wal, bool wait);

// Work that may be late, called every 100 to 500 ms while wal_busy(): flushes what has been
// appended for 500 ms or more, writes an attestation when the last flush holds operations or
// markers and has had no successor for 500 ms, prepares standby segments. May block on I/O; never
// called under a lock.
void wal_tick(struct wal *wal);
bool wal_busy(struct wal *wal); // something waits for wal_tick()
// Makes standby segments until two are ready or the bound is reached (recycled ones first). Blocks.
// -ENOSPC and others are returned and leave the log usable as long as a standby is left: when a
// flush waits for the segment that cannot be made, or a sync failed, the log fails. Call it once
// before serving.
int wal_prepare_segments(struct wal *wal) AF_NODISCARD;
// `need` is called without locks (in wal_pump(), wal_wait() or wal_tick()) when the log is short of
// standby segments, so that a thread can run wal_prepare_segments().
void wal_set_need_segments(struct wal *wal, void (*need)(void *arg), void *arg);

// For a checkpoint. wal_cut() is called right at the freeze and returns the cut: the last appended
// record, or start.cut_lsn when this epoch has none. What the superblock says of it, its checksum
// and the segment that holds it, is known once it is durable: wal_cut_info() may be called from
// then on. The last few cuts are remembered, so a repeated or overlapping one does no harm.
uint64_t wal_cut(struct wal *wal);
void wal_cut_info(struct wal *wal, uint64_t cut_lsn, uint64_t *ret_checksum, uint64_t *ret_segment);
// After the marker of superblock `sequence` is durable: segments below log_segment go to the pool.
// Before the first call nothing is recycled, segments of earlier epochs included. Memory only.
void wal_trim(struct wal *wal, uint64_t sequence, uint64_t cut_lsn, uint64_t log_segment);

void wal_get_stats(struct wal *wal, struct wal_stats *ret_stats);
void wal_check_state(struct wal *wal); // asserts W2 and the rest; for tests and after each
                                       // completion in debug builds

// ---- reading ----

struct wal_record {
    uint64_t lsn;
    uint64_t durable_lsn;
    uint64_t checksum;
    uint64_t segment;
    uint64_t offset; // in the segment file
    enum wal_type type;
    bool group_start;
    const uint8_t *body; // borrowed, valid during the callback
    size_t body_bytes;
};

enum wal_end {
    WAL_END_CLEAN,   // zeros or bytes of an earlier use follow: nothing was lost
    WAL_END_TORN,    // the remains of a group that was never acknowledged follow
    WAL_END_DAMAGED, // acknowledged records are unreadable
    WAL_END_MISSING, // a segment that must exist does not, or is short
};

struct wal_scan_result {
    enum wal_end end;
    uint64_t last_lsn; // of the last valid record (cut_lsn when there is none)
    uint64_t last_checksum;
    uint64_t durable_lsn; // highest LSN proven durable by what was read
    uint64_t records;     // valid ones after the cut
    uint64_t bytes;       // of them
    uint64_t end_segment; // where the scan ended
    uint64_t end_offset;
    uint64_t dropped_bytes; // bytes up to the end of the last block after the end that still holds
                            // something of this epoch
    uint64_t dropped_records; // frames with right magic and salt found there
    uint64_t highest_segment; // highest number of any file in wal/
    // Of all segments in wal/, whatever the end is. A superblock with a lower epoch or sequence is
    // not the newest one: epoch_max comes from headers, and from records under start.epoch + 1
    // where a header is unreadable; sequence_max from headers (markers go to `each`).
    uint64_t epoch_max, epoch_segment;
    uint64_t sequence_max, sequence_segment;
    uint64_t proof_segment, proof_offset, proof_lsn; // for DAMAGED: what proves it
    char what[256]; // DAMAGED and MISSING: a sentence with file, offset and LSN
};

// Reads the log of `start` and calls `each` for every valid record after the cut (markers and
// attestations included). A non-zero return of `each` ends the scan and is returned. Changes
// nothing. Returns 0 with *ret filled for every kind of end, or an error of I/O.
int wal_scan(struct io *io, const struct wal_start *start,
             int (*each)(void *arg, const struct wal_record *record), void *arg,
             struct wal_scan_result *ret_result) AF_NODISCARD;
// The same past the page cache (where the directory takes O_DIRECT), also while the log is being
// written: what was durable before the call must be found, whatever stands behind it.
int wal_scan_disk(struct io *io, const struct wal_start *start,
                  struct wal_scan_result *ret_result) AF_NODISCARD;

// Reads one segment file as far as it goes, for `aerofs log` of damaged stores: *ret_info is the
// header, `valid` when it validates, and `each` gets each record that validates alone, wherever it
// lies (chain breaks allowed).
struct wal_segment_info {
    uint64_t segment, epoch, first_lsn, prev_lsn, prev_checksum, durable_lsn, sequence,
        segment_bytes;
    uint64_t log_seed;
    uint8_t uuid[16];
    bool valid;
};
// `start`: epoch and seed for a segment whose header is unreadable; NULL: only what the header says
// counts.
int wal_read_segment(struct io *io, const char *path, const struct wal_start *start,
                     struct wal_segment_info *ret_info,
                     int (*each)(void *arg, const struct wal_record *record),
                     void *arg) AF_NODISCARD;
// "wal/0000000000000001.seg" into path[32]; and back: false when it is no name of a segment.
void wal_segment_path(uint64_t segment, char path[32]);
bool wal_segment_number(const char *name, uint64_t *ret_segment);

#endif
