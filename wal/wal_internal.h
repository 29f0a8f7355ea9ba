// SPDX-License-Identifier: MIT
// The state of an open log, shared by the files of this folder. See wal.h for invariants W1..W5.
//
// A record's way: wal_append() copies it into the open group (the last of `queue`);
// wal_flush_locked() takes the first group of the queue, syncs the data that it names, gives it a
// place, seals it (checksums, durable LSN) and starts its write; wal_complete.c moves durable_lsn
// and calls the waiters back.
#ifndef AF_WAL_WAL_INTERNAL_H
#define AF_WAL_WAL_INTERNAL_H

#include <pthread.h>

#include "base/list.h"
#include "base/lock.h"
#include "wal/wal.h"
#include "wal/wal_format.h"

// Groups grow to this unless a single record is larger: large enough that a flush is worth its
// wait, small enough that hashing one under the lock (0.1 ms) and the space lost at the end of a
// segment do not matter.
#define WAL_GROUP_BYTES_MAX (1024u * 1024u)
#define WAL_GROUP_BYTES_MIN (64u * 1024u)
#define WAL_SPARES_MAX      2u // buffers kept for reuse: one open, one in flight
#define WAL_STANDBY_TARGET  2u // segments ready beyond the current one
#define WAL_OUTSTANDING_MAX \
    (1u << 19) // records not durable that wal_has_room() allows; half of DET-3
#define WAL_OUTSTANDING_HARD (1u << 20)
#define WAL_ALONE_MAX        256u // records that wait for flushes of their own, without group commit
#define WAL_LATE_MS          500u  // a record waits no longer than this for its flush
#define WAL_RETRY_MS         1000u // between attempts to make a segment after one has failed
#define WAL_CUTS             4u

// What one flush writes. The first block of the buffer is kept for a segment header.
struct wal_group {
    struct list link;
    uint8_t *buf; // 4096-aligned
    size_t cap;
    size_t used; // bytes of records, from buf + WAL_BLOCK on
    uint64_t first_lsn, last_lsn;
    uint64_t data_number; // highest data write that a record depends on
    uint64_t opened_ms;
    bool attests_only; // holds nothing that an attestation would have to prove
};

struct wal_segment {
    struct list link;
    uint64_t number;
    struct io_file *file; // open for standby and current ones, and shortly after
};

struct wal_cut_note {
    uint64_t lsn;
    uint64_t checksum; // 0: not sealed yet
    uint64_t segment;
};

enum wal_state {
    WAL_IDLE,
    WAL_SYNCING_DATA,
    WAL_WRITING,
};

struct wal {
    // Set at open.
    struct wal_config config;
    struct wal_start start;
    struct io *io;
    uint64_t segment_bytes;
    uint64_t segments_max;
    size_t room_bytes;    // of a segment for groups
    size_t reserve_bytes; // of it kept for markers and attestations
    size_t group_bytes_max;
    bool alone;         // each record is a group
    bool have_switches; // wal_set_switches() was called

    struct af_mutex lock;
    struct af_cond cond; // anything that somebody sleeps for has changed

    // Guarded by `lock`: numbers (W2).
    uint64_t appended_lsn, sealed_lsn, durable_lsn;
    uint64_t acked_lsn; // every waiter up to here has been called back (W1)
    uint64_t published_cut;
    uint64_t sequence;
    uint64_t chain_checksum; // of the last sealed record, or the start's cut
    uint64_t chain_lsn;
    uint64_t chain_segment; // that holds it
    struct wal_cut_note cuts[WAL_CUTS];
    unsigned cut_next;

    // Guarded by `lock`: groups.
    struct list queue; // sealed in this order; appends go to the last one
    struct list spares;
    unsigned spare_count;
    struct wal_group *prepared; // of wal_prepare(), used only when memory is short
    struct wal_group *flying;   // immutable from start to completion
    enum wal_state state;
    bool stuck;        // the next group waits for a segment
    bool closing;      // nothing more is started
    uint64_t want_lsn; // flush up to here without being asked again
    uint64_t synced_number, syncing_number;
    struct io_async op;
    bool attest; // the last flush lacks a proof
    uint64_t flushed_ms;

    // Guarded by `lock`: segments. Numbers rise through used, current, standby.
    struct list used, pool, standby;
    unsigned standby_count, pool_count;
    struct wal_segment *current; // NULL until the first flush
    uint64_t offset;             // in it: where the next group goes
    uint64_t first_segment, last_segment;
    bool preparing;
    int prepare_error;
    uint64_t prepare_failed_ms;
    void (*need)(void *arg);
    void *need_arg;
    bool need_pending;

    // Guarded by `lock`: waiting and pumping.
    struct list waiters; // rising LSN
    bool delivering;
    bool pumping; // a thread is in io_reap()
    bool pump_owned;
    pthread_t pump_owner;

    // Guarded by `lock`: failure (W5).
    bool failed;
    int error;
    char what[96];
    bool failure_told;

    uint64_t flushes, records, bytes_written, data_syncs;
};

// wal_append.c
struct wal_group *wal_group_create(size_t bytes);
struct wal_group *wal_group_destroy(struct wal_group *group);
void wal_group_put_locked(struct wal *wal, struct wal_group *group);
int wal_append_locked(struct wal *wal, enum wal_type type, const void *body, size_t body_bytes,
                      uint64_t data_number, uint64_t *ret_lsn) AF_NODISCARD;
// Starts the flush of the first queued group if the log is idle and somebody wants it.
void wal_flush_locked(struct wal *wal);
// Seals and starts the group in `flying`.
void wal_write_locked(struct wal *wal);
// True when a group of `bytes` has a place now: in the current segment, or in the next one whose
// successor exists.
bool wal_placeable_locked(const struct wal *wal, size_t bytes);

// wal_complete.c
void wal_sync_done(struct io_async *op, int result);
void wal_write_done(struct io_async *op, int result);
void wal_fail_locked(struct wal *wal, int error, const char *what);
// Calls back what is due, in LSN order. Without locks; a second caller returns at once.
void wal_deliver(struct wal *wal);

// wal_segment.c
int wal_segments_open(struct wal *wal) AF_NODISCARD;
void wal_segments_close(struct wal *wal);
bool wal_segments_short_locked(const struct wal *wal);
int wal_refill(struct wal *wal); // wal_prepare_segments(); its error is noted, so it may be ignored
struct wal_segment *wal_segment_destroy(struct wal_segment *segment);

#endif
