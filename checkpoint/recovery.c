// SPDX-License-Identifier: MIT
// Recovery (recovery.h): claim, replay, prove durable, start a new epoch.
//
// "Prove durable": after a kill or a failed sync bytes can be in the page cache, even marked clean,
// and not on disk. What recovery relies on is therefore either known to have been synced before it
// was referred to (extents before their record, blocks before their superblock), or written again:
// the superblock in r1, the effect of every replayed record in the checkpoint of r3.

#include "checkpoint/recovery.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"

// Numbers of a lost tail are not given again: after a crash the log goes on this much higher. The
// open and flying groups together hold fewer records.
#define LSN_JUMP (UINT64_C(1) << 20)

int recovery_load(struct recovery *r, struct io *io)
{
    *r = (struct recovery){.started_ms = io->ops->ticks_ms(io)};
    return examine_load(&r->x, io);
}

void recovery_free(struct recovery *r)
{
    examine_free(&r->x);
}

// ---- claim and replay, in memory ----

struct pass {
    struct store *store;
    int error; // of the first record that does not fit
    uint64_t lsn, segment, offset;
};

static void note_misfit(struct pass *p, const struct wal_record *record, int err)
{
    p->error = err;
    p->lsn = record->lsn;
    p->segment = record->segment;
    p->offset = record->offset;
}

// The scan goes on after a failure: what is found at its end (a lost superblock, damage) explains
// more.
static int claim_record(void *arg, const struct wal_record *record)
{
    struct pass *p = arg;

    if (p->error == 0 && p->store) {
        int err = store_claim(p->store, record->body, record->body_bytes);
        if (err < 0)
            note_misfit(p, record, err);
    }
    return 0;
}

static int replay_record(void *arg, const struct wal_record *record)
{
    struct pass *p = arg;
    int err = store_replay(p->store, record->lsn, record->body, record->body_bytes);

    if (err < 0)
        note_misfit(p, record, err);
    return err;
}

static int refuse_record(struct recovery *r, const struct pass *p, const char *what)
{
    char path[32];

    wal_segment_path(p->segment, path);
    return examine_refuse(&r->x, p->error,
                          "%s the log record at LSN %" PRIu64 " (%s, offset %" PRIu64
                          "): %s (%s); nothing was changed; "
                          "`aerofs check STORE` tells what is damaged, "
                          "`aerofs rescue STORE OUT` reads out what can be read",
                          what, p->lsn, path, p->offset, err_text(p->error), err_name(p->error));
}

static int open_image(struct recovery *r, const struct store_config *config)
{
    const struct superblock *sb = r->x.sb;
    struct pass claims = {0};
    int open_err = store_open_image(config, &sb->image, &r->store);

    if (open_err < 0)
        r->store = NULL;
    claims.store = r->store;
    // Claims come before anything is allocated: whatever the log names is in use, free as it may
    // look in the map.
    int err = examine_log(&r->x, claim_record, &claims);
    if (err == 0 && open_err < 0)
        err = examine_refuse(
            &r->x, open_err,
            "cannot read the checkpoint of superblock %" PRIu64 " (root at block %" PRIu64
            " of data): %s (%s); nothing was changed; `aerofs check STORE` tells what is damaged, "
            "`aerofs rescue STORE OUT` reads out what can be read",
            sb->sequence, sb->image.root.ref.address, err_text(open_err), err_name(open_err));
    if (err == 0 && claims.error < 0)
        err = refuse_record(r, &claims, "cannot claim the blocks of");
    return err;
}

static int replay_log(struct recovery *r)
{
    const struct wal_scan_result first = r->x.scan;
    struct pass replay = {.store = r->store};
    int err = examine_log(&r->x, replay_record, &replay);

    if (replay.error < 0)
        return refuse_record(r, &replay, "cannot replay");
    if (err < 0)
        return err;
    if (r->x.scan.last_lsn != first.last_lsn || r->x.scan.last_checksum != first.last_checksum)
        return examine_refuse(&r->x, -AF_E_LOG_DAMAGED,
                              "the log reads differently each time: it ended at LSN %" PRIu64
                              ", then at %" PRIu64 "; nothing was changed; check the disk",
                              first.last_lsn, r->x.scan.last_lsn);
    return 0;
}

int recovery_replay(struct recovery *r, const struct store_config *config, bool scrap_orphans)
{
    int err = open_image(r, config);

    if (err < 0)
        return err;
    err = replay_log(r);
    if (err < 0)
        return err;
    const struct wal_scan_result *scan = &r->x.scan;
    r->clean = r->x.sb->clean && scan->records == 0 && scan->end == WAL_END_CLEAN;
    store_replay_end(r->store, scan->last_lsn, !r->clean);
    if (!scrap_orphans)
        return 0;
    err = store_remove_orphans(r->store, &r->report.orphans_removed);
    if (err < 0)
        return examine_refuse(
            &r->x, err,
            "cannot remove files that were unlinked while open: %s (%s); nothing was changed; "
            "`aerofs check STORE` tells what is damaged, "
            "`aerofs rescue STORE OUT` reads out what can be read",
            err_text(err), err_name(err));
    err = store_check_space(r->store);
    if (err < 0)
        return examine_refuse(
            &r->x, err,
            "cannot read the space map that the first checkpoint has to change: %s (%s); "
            "nothing was changed; `aerofs check STORE` tells what is damaged, "
            "`aerofs rescue STORE OUT` reads out what can be read",
            err_text(err), err_name(err));
    return 0;
}

// ---- r1 to r3 ----

static int refuse_write(struct recovery *r, int err, const char *what)
{
    return examine_refuse(
        &r->x, err,
        "recovery could not %s: %s (%s); nothing that was acknowledged is lost; mount again when the "
        "disk takes writes",
        what, err_text(err), err_name(err));
}

// r1. The chosen superblock is durable whatever the page cache said, no older one remains, and at
// every instant one valid file stands: the slots of the present file are left alone, since which of
// them is on disk as it was read nobody knows. It no longer says that the store is clean: r3 may
// tear the other slot, which after a clean end is damage.
static int restore_superblock(struct recovery *r, struct checkpoint *c)
{
    struct superblock sb = *r->x.sb; // borrows the references

    sb.clean = false;
    int err = superblock_replace(c->io, SUPERBLOCK_FILE_RECOVER, &sb, &r->spare_error);

    return err < 0 ? err : io_file_open(c->io, SUPERBLOCK_FILE, IO_WRITE, &c->file);
}

// Where the log of the new epoch starts.
static struct wal_start new_epoch(const struct recovery *r)
{
    const struct wal_scan_result *scan = &r->x.scan;
    struct wal_start start = r->x.sb->log;
    // An epoch that was begun and has left no record may have given its first numbers all the same.
    uint64_t next = AF_MAX(scan->last_lsn + 1, start.next_lsn);

    start.epoch++;
    start.log_segment = scan->end_segment + 1;
    start.cut_lsn = scan->last_lsn;
    start.cut_checksum = scan->last_checksum;
    start.next_lsn = next + (r->clean ? 0 : LSN_JUMP);
    return start;
}

// The file is there at full length. It is synced: it may come from a run that was killed before it
// had done so.
static int sync_segment(struct io *io, uint64_t segment, uint64_t bytes)
{
    struct io_file *file;
    uint64_t size = 0;
    char path[32];

    wal_segment_path(segment, path);
    int err = io_file_open(io, path, IO_WRITE, &file);
    if (err < 0)
        return err;
    err = io_size(file, &size);
    if (err == 0)
        err = size == bytes ? io_sync(file) : -AF_E_IO_SHORT;
    io_file_close(file);
    return err;
}

struct lowest { // the smallest number of a segment between two bounds
    uint64_t above, below, found;
};

static int note_lowest(void *arg, const char *name)
{
    struct lowest *l = arg;
    uint64_t segment;

    if (wal_segment_number(name, &segment) && segment > l->above && segment < l->below &&
        (l->found == 0 || segment < l->found))
        l->found = segment;
    return 0;
}

// A segment that lies wholly before the cut becomes segment `number`: no log looks at it any more,
// and r1 has left no superblock that does. -ENOENT: there is none.
static int recycle_segment(struct recovery *r, struct io *io, uint64_t number)
{
    const struct wal_start *old = &r->x.sb->log;
    struct lowest l = {.below = old->log_segment};
    char from[32], to[32];

    for (;;) {
        l.found = 0;
        int err = io_list(io, "wal", note_lowest, &l);
        if (err == 0 && l.found == 0)
            err = -ENOENT;
        if (err < 0)
            return err;
        err = sync_segment(io, l.found, old->segment_bytes);
        if (err == 0)
            break;
        if (err != -AF_E_IO_SHORT)
            return err;
        l.above = l.found;
    }
    wal_segment_path(l.found, from);
    wal_segment_path(number, to);
    return io_rename(io, from, to);
}

// r2. The standby segments of the old epoch will do where they are whole, and old ones in the place
// of those that are not: nothing of theirs will be read, and a host without room can be mounted.
// Otherwise new ones are made above every number seen; what is there stays, since until r3 is
// published the old epoch's log still needs its successor.
static int prepare_segments(struct recovery *r, struct checkpoint *c)
{
    struct wal_start *start = &c->start;
    int err = 0;

    for (uint64_t i = 0; i < 2 && err == 0; i++) {
        err = sync_segment(c->io, start->log_segment + i, start->segment_bytes);
        if (err == -ENOENT || err == -AF_E_IO_SHORT)
            err = recycle_segment(r, c->io, start->log_segment + i);
    }
    if (err == 0)
        return io_sync_dir(c->io, "wal");
    if (err != -ENOENT && err != -AF_E_IO_SHORT)
        return err;
    start->log_segment = AF_MAX(r->x.scan.highest_segment, start->log_segment) + 1;
    return wal_create_segments(c->io, start);
}

// The publisher goes on from the chosen superblock; the copy owns its references.
static int adopt_superblock(struct recovery *r, struct checkpoint *c)
{
    const struct superblock *sb = r->x.sb;
    size_t bytes = sb->image.space.index_count * sizeof(struct map_ref_disk);
    struct map_ref_disk *refs = malloc(AF_MAX(bytes, (size_t)1));

    if (!refs)
        return -ENOMEM;
    if (bytes > 0)
        memcpy(refs, sb->image.space.refs, bytes);
    c->newest = *sb;
    c->newest.image.space.refs = refs;
    return 0;
}

int recovery_restart(struct recovery *r, struct checkpoint *c, const struct wal_config *wal_config)
{
    c->start = new_epoch(r);
    int err = adopt_superblock(r, c);
    if (err < 0)
        return refuse_write(r, err, "begin");

    r->writing = true;
    err = restore_superblock(r, c); // r1
    if (err < 0)
        return refuse_write(r, err, "write the file 'superblock'");
    err = prepare_segments(r, c); // r2
    if (err < 0)
        return refuse_write(r, err, "make log segments in 'wal'");
    err = wal_open(wal_config, &c->start, &c->wal);
    if (err < 0) {
        c->wal = NULL;
        return refuse_write(r, err, "open the new log segments");
    }
    err = checkpoint_run(c); // r3
    if (err < 0)
        return refuse_write(r, err, c->failed ? c->failed_what : "begin a checkpoint");
    AF_ASSERT(c->newest.log.epoch == c->start.epoch && c->newest.log.cut_lsn == c->start.cut_lsn);
    return 0;
}

// ---- the report ----

static void append_text(char *text, size_t size, const char *more)
{
    size_t len = strlen(text);

    if (len < size)
        (void)snprintf(text + len, size - len, "%s", more);
}

void recovery_slots_text(const struct recovery *r, char *text, size_t size)
{
    char more[160];

    for (unsigned i = 0; i < 2; i++) {
        if (r->x.slots.result[i] == 0)
            continue;
        snprintf(more, sizeof(more), "; the superblock slot at offset %u did not validate (%s)%s",
                 i * SUPERBLOCK_SLOT_BYTES, err_name(r->x.slots.result[i]),
                 r->writing ? " and was written anew" : "");
        append_text(text, size, more);
    }
}

static void report_text(const struct recovery *r, char *text, size_t size)
{
    const struct engine_recovery *e = &r->report;
    char more[200], path[32];

    if (e->clean)
        snprintf(text, size, "closed cleanly; opened at superblock %" PRIu64 ", LSN %" PRIu64,
                 e->sequence, e->cut_lsn);
    else
        snprintf(text, size,
                 "recovered from superblock %" PRIu64 " (LSN %" PRIu64 "): %" PRIu64
                 " records, %" PRIu64 " bytes, replayed up to LSN %" PRIu64,
                 e->sequence, e->cut_lsn, e->records_replayed, e->bytes_replayed, e->last_lsn);
    if (e->records_unproven > 0) {
        snprintf(more, sizeof(more),
                 "; the last %" PRIu64 " of them, after LSN %" PRIu64
                 ", may or may not have been acknowledged: they are kept",
                 e->records_unproven, e->proven_lsn);
        append_text(text, size, more);
    }
    if (e->tail_bytes_dropped > 0 || e->tail_records_dropped > 0) {
        wal_segment_path(e->tail_segment, path);
        snprintf(more, sizeof(more),
                 "; dropped a tail that was never acknowledged: %" PRIu64 " records, %" PRIu64
                 " bytes at %s, offset %" PRIu64,
                 e->tail_records_dropped, e->tail_bytes_dropped, path, e->tail_offset);
        append_text(text, size, more);
    }
    if (e->orphans_removed > 0) {
        snprintf(more, sizeof(more), "; removed %" PRIu64 " files that were unlinked while open",
                 e->orphans_removed);
        append_text(text, size, more);
    }
    recovery_slots_text(r, text, size);
    if (r->spare_error < 0) {
        snprintf(more, sizeof(more),
                 "; there is no room for the file '" SUPERBLOCK_FILE_RECOVER
                 "' (%s), which a recovery on a full disk would need",
                 err_name(r->spare_error));
        append_text(text, size, more);
    }
}

void recovery_report(struct recovery *r)
{
    const struct wal_scan_result *scan = &r->x.scan;
    const struct superblock *sb = r->x.sb;
    struct engine_recovery *e = &r->report;
    struct io *io = r->x.io;

    e->clean = r->clean;
    e->sequence = sb->sequence;
    e->generation = sb->image.generation;
    e->cut_lsn = sb->log.cut_lsn;
    e->last_lsn = scan->last_lsn;
    e->records_replayed = scan->records;
    e->bytes_replayed = scan->bytes;
    // A clean end proves all that stands before it.
    e->proven_lsn = r->clean ? scan->last_lsn : AF_MAX(scan->durable_lsn, sb->log.cut_lsn);
    e->records_unproven = scan->last_lsn - AF_MIN(scan->last_lsn, e->proven_lsn);
    if (scan->end == WAL_END_TORN) {
        e->tail_records_dropped = scan->dropped_records;
        e->tail_bytes_dropped = scan->dropped_bytes;
        e->tail_segment = scan->end_segment;
        e->tail_offset = scan->end_offset;
    }
    e->epoch = sb->log.epoch + (r->writing ? 1 : 0);
    e->duration_us = (io->ops->ticks_ms(io) - r->started_ms) * 1000;
    report_text(r, e->text, sizeof(e->text));
}
