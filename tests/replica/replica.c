// SPDX-License-Identifier: MIT
// A replica that is fed with files. See replica.h.
#include "tests/replica/replica.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "checkpoint/engine_internal.h"
#include "checkpoint/recovery.h"
#include "checkpoint/superblock.h"
#include "tests/replica/replica_internal.h"

void replica_init(struct replica *r, const struct engine_options *options, uint64_t seed)
{
    *r = (struct replica){.sim = sim_create(seed), .options = *options};
    r->options.sink = (struct message_sink){0};
    struct io *io = sim_io(r->sim);

    AF_ASSERT(io->ops->mkdir(io, "in") == 0 && io->ops->mkdir(io, "wal") == 0);
    AF_ASSERT(io->ops->sync_dir(io, "") == 0);
    r->wait = REPLICA_WAITS_BASE;
}

void replica_free(struct replica *r)
{
    sim_destroy(r->sim);
    *r = (struct replica){0};
}

bool replica_waits(struct replica *r, enum replica_wait wait, const char *fmt, ...)
{
    va_list ap;

    r->wait = wait;
    va_start(ap, fmt);
    (void)vsnprintf(r->why, sizeof(r->why), fmt, ap);
    va_end(ap);
    return false;
}

// ---- what arrives ----

void replica_incoming_path(const char *name, char path[SIM_PATH_BYTES])
{
    (void)snprintf(path, SIM_PATH_BYTES, "in/%s", name);
}

void replica_receive(struct replica *r, const char *name, uint64_t off, const void *bytes,
                     size_t len)
{
    struct io *io = sim_io(r->sim);
    char path[SIM_PATH_BYTES];
    struct io_file *file;

    replica_incoming_path(name, path);
    if (io_file_open(io, path, IO_WRITE | IO_CREATE, &file) < 0)
        return; // the disk has died; whoever looks sees that
    (void)!io_pwrite(file, bytes, len, off);
    io_file_close(file);
}

void replica_forget(struct replica *r, const char *name)
{
    struct io *io = sim_io(r->sim);
    char path[SIM_PATH_BYTES];

    replica_incoming_path(name, path);
    (void)!io->ops->unlink(io, path);
}

uint64_t replica_received(const struct replica *r, const char *name)
{
    char path[SIM_PATH_BYTES];
    uint64_t bytes = 0;

    replica_incoming_path(name, path);
    return sim_file_size(r->sim, path, &bytes) == 0 ? bytes : 0;
}

// A file of in/ in memory. NULL: not there.
uint8_t *replica_read_incoming(const struct replica *r, const char *name, size_t *ret_len)
{
    char path[SIM_PATH_BYTES];
    uint64_t size;

    replica_incoming_path(name, path);
    if (sim_file_size(r->sim, path, &size) < 0)
        return NULL;
    uint8_t *bytes = malloc(AF_MAX(size, (uint64_t)1));
    AF_ASSERT(bytes && sim_read_raw(r->sim, path, 0, bytes, size) == 0);
    *ret_len = size;
    return bytes;
}

// ---- segments of its own ----

// There at full length and durable, zeros if it is new: as the log wants the successor of every
// segment that is written to.
int replica_ensure_segment(struct io *io, uint64_t number, uint64_t bytes)
{
    static const uint8_t zeros[65536];
    struct io_file *file;
    uint64_t size = 0;
    char path[32];

    wal_segment_path(number, path);
    int r = io_file_open(io, path, IO_WRITE | IO_CREATE, &file);
    if (r < 0)
        return r;
    r = io_size(file, &size);
    for (uint64_t off = size; r == 0 && off < bytes;) {
        size_t len = (size_t)AF_MIN(bytes - off, (uint64_t)sizeof(zeros));

        r = io_pwrite(file, zeros, len, off);
        off += len;
    }
    if (r == 0)
        r = io_sync(file);
    io_file_close(file);
    return r < 0 ? r : io->ops->sync_dir(io, "wal");
}

static int sync_file(struct io *io, const char *path)
{
    struct io_file *file;
    int r = io_file_open(io, path, IO_WRITE, &file);

    if (r < 0)
        return r;
    r = io_sync(file);
    io_file_close(file);
    return r;
}

void replica_sync(struct replica *r, const char *name)
{
    char path[SIM_PATH_BYTES];

    replica_incoming_path(name, path);
    (void)!sync_file(sim_io(r->sim), path);
}

// ---- start ----

// What was not synced when the process ended may be in the page cache alone.
static int sync_all(struct replica *r)
{
    struct io *io = sim_io(r->sim);
    char path[32];
    int err = sync_file(io, "data");

    for (uint64_t n = r->segment; n <= r->segment + 1 && err == 0; n++) {
        wal_segment_path(n, path);
        err = sync_file(io, path);
    }
    return err;
}

bool replica_restart(struct replica *r)
{
    struct io *io = sim_io(r->sim);
    struct superblock_slots slots;
    struct wal_scan_result scan;

    r->ready = false;
    r->wait = REPLICA_WAITS_BASE;
    if (!sim_exists(r->sim, "superblock"))
        return !sim_is_dead(r->sim);
    int err = superblock_load(io, &slots);
    if (err < 0)
        return replica_waits(r, REPLICA_REFUSES, "no superblock: %s", err_name(err));
    bool valid = slots.chosen >= 0;
    if (valid) {
        r->log = slots.sb[slots.chosen].log;
        r->sequence = slots.sb[slots.chosen].sequence;
    }
    superblock_slots_free(&slots);
    if (!valid)
        return replica_waits(r, REPLICA_REFUSES, "no valid superblock");
    err = wal_scan(io, &r->log, NULL, NULL, &scan);
    if (err < 0)
        return replica_waits(r, REPLICA_REFUSES, "the log cannot be read: %s", err_name(err));
    if (scan.end != WAL_END_CLEAN && scan.end != WAL_END_TORN)
        return replica_waits(r, REPLICA_REFUSES, "%s", scan.what);
    r->lsn = scan.last_lsn;
    r->checksum = scan.last_checksum;
    r->segment = scan.end_segment;
    r->end = scan.end_offset;
    r->ready = true;
    return sync_all(r) == 0;
}

bool replica_place(struct replica *r)
{
    bool any = false;

    if (!r->ready && r->wait == REPLICA_WAITS_BASE && !sim_is_dead(r->sim))
        any = replica_place_base(r);
    while (r->ready && !sim_is_dead(r->sim)) {
        if (!replica_place_step(r) && !(r->ready && replica_place_records(r)))
            break;
        any = true;
    }
    return any;
}

// ---- the tree ----

void replica_apply(const struct replica *r, struct canon *ret)
{
    struct engine_options options = engine_options_complete(&r->options);
    struct sim *scratch = sim_clone(r->sim);
    struct io *io = sim_io(scratch);
    char where[CANON_WHERE_BYTES];
    struct io_file *data;
    struct recovery rec;

    io->read_only = true; // nothing is written, by whatever
    AF_ASSERT(recovery_load(&rec, io) == 0);
    AF_ASSERT(io_file_open(io, "data", IO_READ_ONLY, &data) == 0);
    struct store_config config = engine_store_config(&options, io, data);
    config.read_only = true;
    int err = recovery_replay(&rec, &config, false);
    if (err < 0)
        fprintf(stderr, "replay refuses: %s\n", rec.x.message);
    AF_ASSERT(err == 0 && rec.x.scan.last_lsn == r->lsn);
    err = canon_store(rec.store, ret, where);
    if (err < 0)
        fprintf(stderr, "the tree cannot be read: %s\n", where);
    AF_ASSERT(err == 0);
    store_close(rec.store);
    io_file_close(data);
    recovery_free(&rec);
    sim_destroy(scratch);
}
