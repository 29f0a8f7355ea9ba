// SPDX-License-Identifier: MIT
// The log of a damaged store (rescue.h): what of it can be replayed, and what has to be given up.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "checkpoint/rescue_internal.h"
#include "store/op.h"
#include "wal/wal_format.h"

#define MISFITS_TOLD 20u

// ---- all segments, in the order of their numbers ----

struct numbers {
    uint64_t *list;
    size_t count, cap;
};

static int note_number(void *arg, const char *name)
{
    struct numbers *n = arg;
    uint64_t number;

    if (!wal_segment_number(name, &number))
        return 0;
    if (n->count == n->cap) {
        size_t cap = n->cap ? 2 * n->cap : 64;
        uint64_t *list = realloc(n->list, cap * sizeof(list[0]));

        if (!list)
            return -ENOMEM;
        n->list = list;
        n->cap = cap;
    }
    n->list[n->count++] = number;
    return 0;
}

static int compare_numbers(const void *x, const void *y)
{
    uint64_t a, b;

    memcpy(&a, x, sizeof(a));
    memcpy(&b, y, sizeof(b));
    return a < b ? -1 : a > b;
}

// Leaves it invalid when it cannot be read.
static void read_header(struct rescue *r, const char *path)
{
    struct io_file *file;
    uint8_t block[WAL_BLOCK];

    r->header = (struct wal_segment_info){.valid = false};
    if (io_file_open(r->io, path, IO_READ_ONLY, &file) < 0)
        return;
    if (io_pread(file, block, sizeof(block), 0) < 0 || wal_segment_decode(block, &r->header) < 0)
        r->header.valid = false;
    io_file_close(file);
}

// Calls `each` for every record that validates by itself. A segment that cannot be read is passed
// over.
static int read_all(struct rescue *r, int (*each)(void *arg, const struct wal_record *record),
                    void *arg)
{
    struct numbers n = {0};
    int err = io_list(r->io, "wal", note_number, &n);

    if (err < 0 && err != -ENOMEM)
        err = 0; // no directory: no log
    if (err == 0 && n.count > 0)
        qsort(n.list, n.count, sizeof(n.list[0]), compare_numbers);
    for (size_t i = 0; i < n.count && err == 0; i++) {
        struct wal_segment_info info;
        char path[32];

        wal_segment_path(n.list[i], path);
        read_header(r, path);
        err = wal_read_segment(r->io, path, r->x->sb ? &r->x->sb->log : NULL, &info, each, arg);
        if (err < 0 && err != -ENOMEM)
            err = 0;
    }
    free(n.list);
    return err;
}

// ---- who it belongs to ----

struct identity {
    struct rescue *r;
    uint8_t *uuid;
    bool found;
};

static int ignore(void *arg, const struct wal_record *record)
{
    (void)arg;
    (void)record;
    return 0;
}

static int identify(void *arg, const char *name)
{
    struct identity *id = arg;
    struct wal_segment_info info;
    uint64_t number;
    char path[32];

    if (!wal_segment_number(name, &number))
        return 0;
    wal_segment_path(number, path);
    if (wal_read_segment(id->r->io, path, NULL, &info, ignore, NULL) < 0 || !info.valid)
        return 0;
    memcpy(id->uuid, info.uuid, 16);
    id->found = true;
    return 1;
}

bool rescue_log_identity(struct rescue *r, uint8_t uuid[16])
{
    struct identity id = {.r = r, .uuid = uuid};

    (void)io_list(r->io, "wal", identify, &id); // what cannot be listed identifies nothing
    return id.found;
}

// ---- what it names ----

static int raise_run(void *arg, uint64_t address, uint64_t count)
{
    uint64_t *highest = arg;

    if (address < (UINT64_C(1) << 40) && count < (UINT64_C(1) << 40))
        *highest = AF_MAX(*highest, address + count);
    return 0;
}

static int raise_highest(void *arg, const struct wal_record *record)
{
    struct rescue *r = arg;
    struct op op;

    if (record->type != WAL_OPERATION || op_decode(record->body, record->body_bytes, &op) < 0)
        return 0;
    (void)op_addresses(&op, raise_run, &r->highest_block); // raise_run() does not fail
    op_free(&op);
    return 0;
}

void rescue_log_blocks(struct rescue *r)
{
    (void)read_all(r, raise_highest, r); // what cannot be read is not replayed either
}

// ---- replay ----

static void note_misfit(struct rescue *r, const struct wal_record *record, int err)
{
    struct buf text;

    if (++r->misfits > MISFITS_TOLD)
        return;
    buf_init(&text);
    op_to_text(record->body, record->body_bytes, &text);
    rescue_note(r,
                "the log record at LSN %" PRIu64 " does not fit what is left of the tree: %s: %.*s",
                record->lsn, err_text(err), (int)AF_MIN(text.len, (size_t)300),
                text.bytes ? (const char *)text.bytes : "");
    buf_free(&text);
}

static int replay_one(void *arg, const struct wal_record *record)
{
    struct rescue *r = arg;
    int err = 0;

    if (record->lsn <= r->base_lsn)
        return 0;
    if (record->type == WAL_OPERATION) {
        err = store_replay(r->store, record->lsn, record->body, record->body_bytes);
        if (err == -ENOMEM)
            return err;
        if (err < 0)
            note_misfit(r, record, err);
        else
            r->records++;
    }
    r->last_lsn = record->lsn;
    return 0;
}

// The first record of an epoch: what was before it, its header says.
static bool begins_epoch(const struct rescue *r, const struct wal_record *record)
{
    return r->header.valid && r->header.segment == record->segment &&
           r->header.first_lsn == record->lsn && r->header.prev_lsn + 1 < record->lsn;
}

// Only what directly follows: an operation after one that is missing would be of no history. A root
// that was found by its own may be younger than the newest change in it: then what lies between is
// in it, if it is anywhere.
static int replay_next(void *arg, const struct wal_record *record)
{
    struct rescue *r = arg;

    if (record->lsn == r->last_lsn + 1)
        return replay_one(arg, record);
    if (record->lsn <= r->last_lsn || !begins_epoch(r, record) || r->header.prev_lsn < r->last_lsn)
        return 0;
    if (r->header.prev_lsn > r->last_lsn) {
        if (!r->searched_root)
            return 0;
        rescue_note(r,
                    "the log from LSN %" PRIu64 " to %" PRIu64
                    " is not there any more: the root that was found is taken to hold it",
                    r->last_lsn + 1, r->header.prev_lsn);
    }
    return replay_one(arg, record);
}

static int count_dropped(void *arg, const struct wal_record *record)
{
    struct rescue *r = arg;

    if (record->type == WAL_OPERATION && record->lsn > r->last_lsn) {
        r->dropped++;
        r->dropped_lsn = AF_MAX(r->dropped_lsn, record->lsn);
    }
    return 0;
}

// Along the chain from the cut of the superblock, as recovery goes.
static int replay_chain(struct rescue *r)
{
    struct wal_scan_result scan = {0};
    int err = wal_scan(r->io, &r->x->sb->log, replay_one, r, &scan);

    if (err == -ENOMEM)
        return err;
    if (err < 0) {
        rescue_note(r, "the log cannot be read beyond LSN %" PRIu64 ": %s", r->last_lsn,
                    err_text(err));
        return read_all(r, count_dropped, r);
    }
    if (scan.end != WAL_END_DAMAGED && scan.end != WAL_END_MISSING)
        return 0;
    rescue_note(r, "the log is given up behind LSN %" PRIu64 ": %s", r->last_lsn, scan.what);
    return read_all(r, count_dropped, r);
}

int rescue_replay(struct rescue *r)
{
    int err = 0;

    if (!r->stale) {
        err = replay_chain(r);
    } else if (!r->x->sb) {
        err = read_all(r, count_dropped, r);
        if (r->dropped > 0)
            rescue_note(r, "the log is given up: what is needed to replay names was in the "
                           "superblock alone");
    } else {
        err = read_all(r, replay_next, r);
        if (err == 0)
            err = read_all(r, count_dropped, r);
    }
    if (err < 0)
        return err;
    if (r->dropped > 0)
        rescue_note(r,
                    "%" PRIu64 " whole operations behind LSN %" PRIu64 ", up to LSN %" PRIu64
                    ", are not used",
                    r->dropped, r->last_lsn, r->dropped_lsn);
    if (r->misfits > MISFITS_TOLD)
        rescue_note(r, "%" PRIu64 " more records do not fit", r->misfits - MISFITS_TOLD);
    store_replay_end(r->store, r->last_lsn, false);
    return 0;
}
