// SPDX-License-Identifier: MIT
// What the tests of the log share: a log on a simulated disk, records whose bodies can be told from
// their LSN, waiters that note when they ran, and a scan that checks what it is given.
#ifndef AF_TESTS_UNIT_TEST_WAL_RIG_H
#define AF_TESTS_UNIT_TEST_WAL_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/sim/sim_disk.h"
#include "wal/wal.h"
#include "wal/wal_format.h"

#define RIG_SEGMENT_BYTES (16u * WAL_BLOCK)
#define RIG_BODY_MAX      (RIG_SEGMENT_BYTES / 2)

struct rig {
    struct sim *sim;
    struct io *io;
    struct io_file *data;
    struct wal_start start;
    struct wal_config config;
    struct wal *wal;
    uint64_t data_written;
    int failures;
    int failure_error;
    int needs;
    unsigned order; // callbacks so far
};

struct rig_waiter {
    struct wal_waiter w;
    struct rig *rig;
    unsigned order; // from 1; 0: did not run
    int result;
};

static inline uint64_t rig_data_written(void *arg)
{
    return ((struct rig *)arg)->data_written;
}

static inline void rig_failure(void *arg, int error, const char *what)
{
    struct rig *rig = arg;

    AF_ASSERT(what != NULL);
    rig->failures++;
    rig->failure_error = error;
    rig->order++;
}

static inline void rig_need(void *arg)
{
    ((struct rig *)arg)->needs++;
}

static inline void rig_open(struct rig *rig)
{
    rig->config = (struct wal_config){
        .io = rig->io,
        .log_bytes = 8 * rig->start.segment_bytes,
        .data_file = rig->data,
        .data_written = rig_data_written,
        .arg = rig,
        .on_failure = rig_failure,
    };
    assert_int_equal(wal_open(&rig->config, &rig->start, &rig->wal), 0);
    wal_set_need_segments(rig->wal, rig_need, rig);
}

// The directory, before any segment.
static inline void rig_make_disk(struct rig *rig, uint64_t seed)
{
    memset(rig, 0, sizeof(*rig));
    rig->sim = sim_create(seed);
    rig->io = sim_io(rig->sim);
    assert_int_equal(rig->io->ops->mkdir(rig->io, "wal"), 0);
    assert_int_equal(io_file_open(rig->io, "data", IO_WRITE | IO_CREATE, &rig->data), 0);
    assert_int_equal(rig->io->ops->sync_dir(rig->io, ""), 0);
    rig->start = (struct wal_start){
        .epoch = 1,
        .segment_bytes = RIG_SEGMENT_BYTES,
        .log_segment = 1,
        .next_lsn = 1,
        .log_seed = 0x5EED,
    };
    memset(rig->start.uuid, 0xAB, sizeof(rig->start.uuid));
}

static inline void rig_setup(struct rig *rig, uint64_t seed)
{
    rig_make_disk(rig, seed);
    assert_int_equal(wal_create_segments(rig->io, &rig->start), 0);
    rig_open(rig);
}

static inline void rig_teardown(struct rig *rig)
{
    wal_close(rig->wal);
    io_file_close(rig->data);
    sim_destroy(rig->sim);
}

static inline void rig_body(uint64_t lsn, uint8_t *body, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        body[i] = (uint8_t)(lsn * 131 + i * 7 + 1) | 1; // no zeros, so that holes show
}

static inline int rig_try_append(struct rig *rig, size_t bytes, uint64_t data_number,
                                 uint64_t *ret_lsn)
{
    uint8_t body[RIG_BODY_MAX];

    rig_body(wal_appended_lsn(rig->wal) + 1, body, bytes);
    return wal_append(rig->wal, WAL_OPERATION, body, bytes, data_number, ret_lsn);
}

static inline uint64_t rig_append(struct rig *rig, size_t bytes)
{
    uint64_t lsn = 0;

    assert_int_equal(rig_try_append(rig, bytes, 0, &lsn), 0);
    return lsn;
}

// Appends and waits: a group of its own.
static inline uint64_t rig_commit(struct rig *rig, size_t bytes)
{
    uint64_t lsn = rig_append(rig, bytes);

    assert_int_equal(wal_wait(rig->wal, lsn), 0);
    wal_check_state(rig->wal);
    return lsn;
}

static inline void rig_waiter_done(struct wal_waiter *w, int result)
{
    struct rig_waiter *waiter = AF_CONTAINER_OF(w, struct rig_waiter, w);

    AF_ASSERT(waiter->order == 0);
    waiter->order = ++waiter->rig->order;
    waiter->result = result;
}

static inline int rig_wait_async(struct rig *rig, struct rig_waiter *waiter, uint64_t lsn)
{
    *waiter = (struct rig_waiter){.w = {.lsn = lsn, .done = rig_waiter_done}, .rig = rig};
    return wal_wait_async(rig->wal, &waiter->w);
}

// ---- reading ----

struct rig_seen {
    uint64_t first_lsn, last_lsn;
    uint64_t count, markers, attestations;
    uint64_t segment, offset; // of the last one
    size_t bytes_max;
};

// Records come in order and whole (W3); rig_body() made the operations.
static inline int rig_see(void *arg, const struct wal_record *record)
{
    struct rig_seen *seen = arg;
    uint8_t body[RIG_BODY_MAX];

    assert_true(seen->count == 0 || record->lsn == seen->last_lsn + 1);
    assert_true(record->durable_lsn < record->lsn);
    if (record->type == WAL_OPERATION) {
        rig_body(record->lsn, body, record->body_bytes);
        assert_memory_equal(body, record->body, record->body_bytes);
    }
    if (seen->count == 0)
        seen->first_lsn = record->lsn;
    seen->last_lsn = record->lsn;
    seen->count++;
    seen->markers += record->type == WAL_MARKER;
    seen->attestations += record->type == WAL_ATTESTATION;
    seen->segment = record->segment;
    seen->offset = record->offset;
    seen->bytes_max = AF_MAX(seen->bytes_max, record->body_bytes);
    return 0;
}

static inline void rig_read_disk(struct sim *sim, const struct wal_start *start,
                                 struct wal_scan_result *result, struct rig_seen *seen)
{
    memset(seen, 0, sizeof(*seen));
    memset(result, 0xEE, sizeof(*result));
    assert_int_equal(wal_scan(sim_io(sim), start, rig_see, seen, result), 0);
    assert_int_equal(result->records, seen->count);
    if (seen->count > 0) {
        assert_int_equal(result->last_lsn, seen->last_lsn);
        assert_int_equal(seen->first_lsn, AF_MAX(start->cut_lsn + 1, start->next_lsn));
    } else {
        assert_int_equal(result->last_lsn, start->cut_lsn);
    }
}

// Checks as well that the scan changes nothing.
static inline void rig_scan_disk(struct sim *sim, const struct wal_start *start,
                                 struct wal_scan_result *result, struct rig_seen *seen)
{
    uint64_t before = sim_hash(sim);

    rig_read_disk(sim, start, result, seen);
    assert_true(sim_hash(sim) == before);
}

static inline enum wal_end rig_scan(struct rig *rig, struct wal_scan_result *result,
                                    struct rig_seen *seen)
{
    rig_scan_disk(rig->sim, &rig->start, result, seen);
    return result->end;
}

// A checkpoint, as far as the log is concerned. Returns what the new superblock says of the log.
static inline struct wal_start rig_checkpoint(struct rig *rig, uint64_t sequence)
{
    struct wal_start start = rig->start;
    uint8_t body[WAL_MARKER_BODY];
    le64 fields[2];
    uint64_t lsn;

    start.cut_lsn = wal_cut(rig->wal);
    if (start.cut_lsn >= start.next_lsn)
        assert_int_equal(wal_wait(rig->wal, start.cut_lsn), 0);
    wal_cut_info(rig->wal, start.cut_lsn, &start.cut_checksum, &start.log_segment);
    fields[0] = le64_put(sequence);
    fields[1] = le64_put(start.cut_lsn);
    memcpy(body, fields, sizeof(body));
    assert_int_equal(wal_append(rig->wal, WAL_MARKER, body, sizeof(body), 0, &lsn), 0);
    assert_int_equal(wal_wait(rig->wal, lsn), 0);
    wal_trim(rig->wal, sequence, start.cut_lsn, start.log_segment);
    wal_check_state(rig->wal);
    return start;
}

// Ends the epoch as a recovery does that has found `result`, and begins the next one.
static inline void rig_next_epoch(struct rig *rig, const struct wal_scan_result *result)
{
    wal_close(rig->wal);
    rig->wal = NULL;
    rig->start.epoch++;
    rig->start.cut_lsn = result->last_lsn;
    rig->start.cut_checksum = result->last_checksum;
    rig->start.next_lsn = result->last_lsn + (1u << 20);
    rig->start.log_segment = result->highest_segment + 1;
    assert_int_equal(wal_create_segments(rig->io, &rig->start), 0);
    rig_open(rig);
}

// Index of the first event at or after `from` that matches, SIM_NEVER if there is none.
static inline uint64_t rig_find_event(const struct rig *rig, uint64_t from, enum sim_call call,
                                      const char *path)
{
    for (uint64_t i = from; i < sim_event_count(rig->sim); i++) {
        const struct sim_event *event = sim_event(rig->sim, i);

        if (event->call == call && (!path || strcmp(event->path, path) == 0))
            return i;
    }
    return SIM_NEVER;
}

#endif
