// SPDX-License-Identifier: MIT
// Opening and closing a store: recovery's steps in order, then the log, the store and the
// checkpoint thread tied together. What callers may rely on is in engine.h.
//
// Opening has three outcomes:
//   the disk takes writes               recovery writes; the store runs
//   the same, with option read_only     recovery writes just so, closes cleanly at once, and no log
//   runs the disk is read-only               only a store that was closed cleanly opens; nothing is
//   written

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "checkpoint/engine_internal.h"
#include "checkpoint/recovery.h"
#include "checkpoint/superblock_format.h"
#include "store/damage.h"

#define CACHE_BYTES_DEFAULT    (UINT64_C(256) << 20)
#define CACHE_BYTES_MIN        (UINT64_C(1) << 20)
#define LOG_BYTES_DEFAULT      (UINT64_C(64) << 20)
#define LOG_SEGMENTS_MIN       4u
#define COMMIT_OPEN_MS_DEFAULT 30000u

struct engine_options engine_options_complete(const struct engine_options *options)
{
    struct engine_options o = *options;

    if (o.cache_bytes == 0)
        o.cache_bytes = CACHE_BYTES_DEFAULT;
    o.cache_bytes = AF_MAX(o.cache_bytes, CACHE_BYTES_MIN);
    if (o.log_bytes == 0)
        o.log_bytes = LOG_BYTES_DEFAULT;
    if (o.commit_open_ms == UINT64_MAX)
        o.commit_open_ms = COMMIT_OPEN_MS_DEFAULT;
    return o;
}

struct store_config engine_store_config(const struct engine_options *options, struct io *io,
                                        struct io_file *data)
{
    return (struct store_config){
        .io = io,
        .data = data,
        .sink = options->sink,
        .cache_bytes = options->cache_bytes,
        .max_bytes = options->max_bytes,
        .pending_bytes = options->pending_bytes,
        .commit_open_ms = options->commit_open_ms,
    };
}

// ---- what the floors below call ----

static int make_room(void *arg)
{
    struct engine *e = arg;

    // During recovery there is no checkpoint to be had: what replay needs was there when it was
    // lived.
    return e->running ? checkpointer_run(&e->checkpointer) : -ENOSPC;
}

static void pressure(void *arg)
{
    struct engine *e = arg;

    checkpointer_kick(&e->checkpointer);
    scrub_kick(&e->scrub);
}

static void await_checkpoint(void *arg)
{
    struct engine *e = arg;

    checkpointer_await(&e->checkpointer);
}

static void need_segments(void *arg)
{
    struct engine *e = arg;

    checkpointer_need_segments(&e->checkpointer);
}

static uint64_t data_written(void *arg)
{
    struct engine *e = arg;

    return store_data_written(e->store);
}

// C5: everybody who waits has been told by the log; from now on nothing is acknowledged.
static void log_failed(void *arg, int error, const char *what)
{
    struct engine *e = arg;
    char text[128];

    if (!e->running)
        return; // opening fails, and says why
    (void)snprintf(text, sizeof(text), "the log failed in %s", what);
    store_fail(e->store, error, text);
}

// ---- opening ----

static int open_data(struct engine *e, struct recovery *r)
{
    int err = e->io->read_only ? -EROFS : io_file_open(e->io, "data", IO_WRITE, &e->data);

    // Only the file system's own word counts as a read-only disk; a lack of permission is a
    // failure.
    if (err == -EROFS) {
        e->disk_read_only = true;
        err = io_file_open(e->io, "data", IO_READ_ONLY, &e->data);
    }
    if (err < 0) {
        e->data = NULL;
        return examine_refuse(&r->x, err,
                              "cannot open the file 'data': %s (%s); nothing was changed",
                              err_text(err), err_name(err));
    }
    // Once more for the log: what a sync reports, it reports once for each open file (fsync(2)).
    if (!e->disk_read_only)
        err = io_file_open(e->io, "data", IO_WRITE, &e->data_log);
    if (err < 0)
        return examine_refuse(
            &r->x, err, "cannot open the file 'data' a second time: %s (%s); nothing was changed",
            err_text(err), err_name(err));
    uint64_t unknown = r->x.sb->features_ro_compat & ~SUPERBLOCK_FEATURES_RO_COMPAT;
    if (unknown != 0 && !e->disk_read_only)
        return examine_refuse(&r->x, -AF_E_VERSION,
                              "the store has features (%#" PRIx64
                              ") that this program may read but not write; use the "
                              "version of AeroFS that made them; nothing was changed",
                              unknown);
    return 0;
}

static int replay(struct engine *e, struct recovery *r)
{
    struct store_config config = engine_store_config(&e->options, e->io, e->data);

    config.read_only = e->disk_read_only;
    config.make_room = make_room;
    config.pressure = pressure;
    config.await_checkpoint = await_checkpoint;
    config.arg = e;
    int err = recovery_replay(r, &config, !e->disk_read_only);
    e->store = r->store;
    return err;
}

static int require_clean(struct recovery *r)
{
    char slots[320] = "";

    if (r->clean)
        return 0;
    recovery_slots_text(r, slots, sizeof(slots));
    return examine_refuse(
        &r->x, -AF_E_NEEDS_RECOVERY,
        "the store was not closed cleanly (%" PRIu64 " log records behind superblock %" PRIu64
        ") and the disk is read-only, so it cannot be recovered; make the disk writable and mount once%s",
        r->x.scan.records, r->x.sb->sequence, slots);
}

static int restart(struct engine *e, struct recovery *r)
{
    const uint64_t segment_bytes = r->x.sb->log.segment_bytes;
    const struct wal_config config = {
        .io = e->io,
        .sink = e->options.sink,
        .log_bytes = AF_MAX(e->options.log_bytes, LOG_SEGMENTS_MIN * segment_bytes),
        .data_file = e->data_log,
        .data_written = data_written,
        .arg = e,
        .on_failure = log_failed,
    };
    struct checkpoint *c = &e->checkpoint;

    c->io = e->io;
    c->store = e->store;
    int err = recovery_restart(r, c, &config);
    if (err < 0 || !e->options.read_only)
        return err;
    // The recovered store is left as a clean one and no log runs, so closing it has nothing to
    // write.
    err = checkpoint_publish_clean(c);
    wal_close(c->wal);
    c->wal = NULL;
    if (err < 0)
        return examine_refuse(&r->x, err, "%s: %s (%s); mount again when the disk takes writes",
                              c->failed_what, err_text(err), err_name(err));
    return 0;
}

// The store accepts changes from here on. Only now do log and store learn of the switches: what
// recovery has done does not depend on them.
static int start(struct engine *e, struct recovery *r)
{
    struct wal *wal = e->checkpoint.wal;
    int err = e->options.threads ? scrub_start(&e->scrub, e->store, e->io) : 0;

    if (err < 0)
        return examine_refuse(&r->x, err, "cannot start the scrub thread: %s", err_text(err));
    store_set_switches(e->store, e->options.switches);
    if (!wal)
        return 0;
    wal_set_switches(wal, e->options.switches);
    wal_set_need_segments(wal, need_segments, e);
    err = wal_prepare_segments(wal);
    if (err == -ENOSPC || err == -EDQUOT) {
        message(&e->options.sink, MESSAGE_WARNING,
                "the file system of the store has no room for another log segment");
        checkpointer_need_segments(&e->checkpointer);
        err = 0;
    }
    if (err < 0)
        return examine_refuse(&r->x, err, "cannot make log segments: %s (%s)", err_text(err),
                              err_name(err));
    store_attach_wal(e->store, wal);
    e->checkpoint.serving = true;
    e->running = true;
    if (e->options.threads)
        err = checkpointer_start(&e->checkpointer);
    if (err < 0)
        return examine_refuse(&r->x, err, "cannot start the checkpoint thread: %s", err_text(err));
    return 0;
}

static void destroy(struct engine *e)
{
    e->running = false;
    wal_close(
        e->checkpoint.wal); // first: it may still ask the store which of its writes have returned
    store_close(e->store);
    io_file_close(e->checkpoint.file);
    io_file_close(e->data);
    io_file_close(e->data_log);
    checkpoint_free(&e->checkpoint);
    scrub_destroy(&e->scrub);
    checkpointer_destroy(&e->checkpointer);
    free(e);
}

static int open_steps(struct engine *e, struct recovery *r)
{
    int err = recovery_load(r, e->io);
    if (err == 0)
        err = open_data(e, r);
    if (err == 0)
        err = replay(e, r);
    if (err == 0)
        err = e->disk_read_only ? require_clean(r) : restart(e, r);
    if (err == 0)
        err = start(e, r);
    return err;
}

static void report(struct engine *e, struct recovery *r)
{
    bool lossy =
        r->report.tail_bytes_dropped > 0 || r->x.slots.result[0] < 0 || r->x.slots.result[1] < 0;

    e->recovery = r->report;
    memcpy(e->uuid, r->x.sb->log.uuid, sizeof(e->uuid));
    e->segment_bytes = r->x.sb->log.segment_bytes;
    message(&e->options.sink, lossy ? MESSAGE_WARNING : MESSAGE_INFO, "%s", e->recovery.text);
}

int engine_open(struct io *io, const struct engine_options *options, struct engine **ret_engine,
                char *message_text, size_t message_size)
{
    struct engine *e = calloc(1, sizeof(*e));
    struct recovery r;

    if (message_text && message_size > 0)
        message_text[0] = 0;
    if (!e)
        return -ENOMEM;
    e->io = io;
    e->options = engine_options_complete(options);
    checkpointer_init(&e->checkpointer, &e->checkpoint, &e->options.sink);
    scrub_init(&e->scrub, &e->checkpointer, &e->options.sink);
    int err = open_steps(e, &r);
    if (err == 0) {
        recovery_report(&r);
        report(e, &r);
        *ret_engine = e;
    } else {
        if (message_text)
            (void)snprintf(message_text, message_size, "%s",
                           r.x.message[0] ? r.x.message : err_text(err));
        scrub_stop(&e->scrub);
        checkpointer_stop(&e->checkpointer);
        destroy(e);
    }
    recovery_free(&r);
    return err;
}

// ---- closing ----

static int failure_of(struct engine *e)
{
    struct store_status status;

    store_get_status(e->store, &status);
    return e->checkpoint.failed ? e->checkpoint.failed : status.failed;
}

static int shut_down(struct engine *e)
{
    int err = failure_of(e);
    if (err < 0)
        return err;
    // What cannot be completed was never acknowledged; the rest is still closed cleanly. The
    // checkpoint is written even when nothing was applied: it carries the counter of inode numbers,
    // which never go back.
    int incomplete = store_complete_all(e->store);
    err = checkpointer_run(&e->checkpointer);
    if (err == 0)
        err = failure_of(e);
    if (err == 0)
        err = checkpoint_publish_clean(&e->checkpoint);
    return incomplete < 0 ? incomplete : err;
}

int engine_close(struct engine *e)
{
    scrub_stop(&e->scrub);
    checkpointer_stop(&e->checkpointer);
    int err = e->checkpoint.wal ? shut_down(e) : 0;
    destroy(e);
    return err;
}

void engine_abandon(struct engine *e)
{
    scrub_stop(&e->scrub);
    checkpointer_stop(&e->checkpointer);
    destroy(e);
}

// ---- while it runs ----

struct store *engine_store(struct engine *e)
{
    return e->store;
}

struct wal *engine_wal(struct engine *e)
{
    return e->checkpoint.wal;
}

int engine_checkpoint(struct engine *e)
{
    return e->checkpoint.wal ? checkpointer_run(&e->checkpointer) : -AF_E_READ_ONLY;
}

void engine_tick(struct engine *e)
{
    if (e->checkpoint.wal)
        checkpointer_tick(&e->checkpointer);
}

int engine_scrub(struct engine *e, uint64_t rate)
{
    if (e->options.threads)
        return scrub_want(&e->scrub, rate);
    scrub_run(&e->scrub, e->store, e->io, rate);
    return 0;
}

void engine_scrub_cancel(struct engine *e)
{
    scrub_cancel(&e->scrub);
}

void engine_get_scrub(struct engine *e, struct engine_scrub *ret_scrub)
{
    scrub_get(&e->scrub, ret_scrub);
}

int engine_sync(struct engine *e)
{
    struct wal *wal = e->checkpoint.wal;

    return wal ? wal_wait(wal, wal_appended_lsn(wal)) : 0;
}

void engine_get_status(struct engine *e, struct engine_status *ret_status)
{
    struct engine_status s = {.recovery = e->recovery,
                              .segment_bytes = e->segment_bytes,
                              .io = io_describe(e->io),
                              .switches = e->options.switches};
    struct checkpoint_stats stats;

    store_get_status(e->store, &s.store);
    checkpointer_get_stats(&e->checkpointer, &stats);
    s.checkpoints = stats.count;
    s.last_checkpoint_us = stats.last_us;
    s.last_checkpoint_bytes = stats.last_bytes;
    memcpy(s.uuid, e->uuid, sizeof(s.uuid));
    s.damage_count = store_damage_lines(e->store, s.damage, ENGINE_DAMAGE_LINES);
    s.read_only = e->checkpoint.wal == NULL;
    (void)snprintf(s.state, sizeof(s.state), "%s",
                   s.store.failed ? "failed"
                   : s.read_only  ? "read-only"
                                  : "running");
    *ret_status = s;
}
