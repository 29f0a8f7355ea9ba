// SPDX-License-Identifier: MIT
// Bases and checkpoints: verified as a whole on a copy before the replica's superblock changes.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "checkpoint/superblock.h"
#include "tests/replica/blob.h"
#include "tests/replica/replica_internal.h"
#include "wal/wal_format.h"
#include "wal/wal_verify.h"

// ---- base ----

// Its superblock's number; 0: none has begun to arrive.
static uint64_t newest_base(const struct replica *r, char name[ARCHIVE_NAME_BYTES])
{
    for (uint64_t n = 200; n > 0; n--) {
        (void)snprintf(name, ARCHIVE_NAME_BYTES, "%016" PRIx64 ".base", n);
        if (replica_received(r, name) > 0)
            return n;
    }
    return 0;
}

static int write_base(struct io *io, struct blob *blob)
{
    int err = 0;

    for (size_t i = 0; i < blob->count && err == 0; i++)
        err = blob_write(io, &blob->files[i],
                         strcmp(blob->files[i].name, "superblock") == 0 ? "in/superblock"
                                                                        : blob->files[i].name);
    if (err == 0)
        err = io->ops->sync_dir(io, "wal");
    return err == 0 ? io->ops->sync_dir(io, "") : err;
}

// The superblock comes last: without it there is no store.
static int publish_base(struct io *io)
{
    int err = io->ops->rename(io, "in/superblock", "superblock");

    if (err == 0)
        err = io->ops->sync_dir(io, "in");
    return err == 0 ? io->ops->sync_dir(io, "") : err;
}

static bool verifies(struct replica *r, struct sim *image, const char *what)
{
    char text[200];
    int64_t damage = verify_text(image, text, sizeof(text));

    sim_destroy(image);
    return damage == 0 || replica_waits(r, REPLICA_REFUSES, "%s does not verify (%" PRId64 "): %s",
                                        what, damage, text);
}

// One slot may be damaged, and the other a whole store of an older checkpoint: not what was sent.
static bool is_superblock(struct replica *r, struct sim *image, uint64_t sequence)
{
    struct superblock_slots slots;
    uint64_t found = 0;

    if (superblock_load(sim_io(image), &slots) < 0)
        return replica_waits(r, REPLICA_REFUSES, "the base has no superblock");
    if (slots.chosen >= 0)
        found = slots.sb[slots.chosen].sequence;
    superblock_slots_free(&slots);
    return found == sequence ||
           replica_waits(r, REPLICA_REFUSES, "the base's superblock is %" PRIu64, found);
}

// What fills up a record or the last block of a group is under no checksum; it is zeros, or the
// bytes are not the primary's.
struct padding {
    const uint8_t *bytes; // of the segment
    uint64_t at;          // behind the record before
    bool zero;
};

static void check_padding(struct padding *p, uint64_t to)
{
    for (; p->at < to; p->at++)
        p->zero = p->zero && p->bytes[p->at] == 0;
}

static int pad_before(void *arg, const struct wal_record *record)
{
    struct padding *p = arg;

    check_padding(p, record->offset);
    p->at = record->offset + WAL_RECORD_HEADER + record->body_bytes;
    return 0;
}

static bool padded_with_zeros(struct sim *image, const char *path)
{
    struct wal_file file = {.path = path};
    uint64_t size;

    AF_ASSERT(sim_file_size(image, path, &size) == 0);
    uint8_t *bytes = malloc(AF_MAX(size, (uint64_t)1));
    AF_ASSERT(bytes && sim_read_raw(image, path, 0, bytes, size) == 0);
    struct padding p = {.bytes = bytes, .at = WAL_BLOCK, .zero = true};
    AF_ASSERT(wal_file_verify(sim_io(image), &file, pad_before, &p) == 0);
    if (file.records > 0)
        check_padding(&p, AF_MIN(AF_ROUND_UP(p.at, (uint64_t)WAL_BLOCK), size));
    wal_file_free(&file);
    free(bytes);
    return p.zero;
}

bool replica_place_base(struct replica *r)
{
    struct io *io = sim_io(r->sim);
    char name[ARCHIVE_NAME_BYTES];
    struct blob blob;
    size_t len;

    const uint64_t sequence = newest_base(r, name);
    if (sequence == 0)
        return replica_waits(r, REPLICA_WAITS_BASE, "no base has arrived");
    uint8_t *bytes = replica_read_incoming(r, name, &len);
    bool done = bytes && blob_parse(bytes, len, &blob) && blob_find(&blob, "superblock") &&
                blob_find(&blob, "data");
    if (!done) {
        free(bytes);
        return replica_waits(r, REPLICA_WAITS_BASE, "%s is not whole", name);
    }
    int err = write_base(io, &blob);
    free(bytes);
    if (err < 0)
        return replica_waits(r, REPLICA_REFUSES, "cannot write the base: %s", err_name(err));
    struct sim *image = sim_clone(r->sim);
    if (publish_base(sim_io(image)) < 0 || !is_superblock(r, image, sequence)) {
        sim_destroy(image);
        return false;
    }
    bool padded = true;
    for (size_t i = 0; i < blob.count; i++)
        if (strncmp(blob.files[i].name, "wal/", 4) == 0)
            padded = padded && padded_with_zeros(image, blob.files[i].name);
    if (!verifies(r, image, "the base"))
        return false;
    if (!padded)
        return replica_waits(r, REPLICA_REFUSES, "the log of the base is not padded with zeros");
    if (publish_base(io) < 0)
        return replica_waits(r, REPLICA_REFUSES, "cannot publish the base");
    r->bases++;
    return replica_restart(r) && r->ready;
}

void replica_discard(struct replica *r)
{
    struct io *io = sim_io(r->sim);
    int err = io->ops->unlink(io, "superblock"); // first: without it the rest is no store

    if (err == 0)
        err = io->ops->sync_dir(io, "");
    for (uint64_t n = 1; n < 1000 && err == 0; n++) {
        char path[32];

        wal_segment_path(n, path);
        if (sim_exists(r->sim, path))
            err = io->ops->unlink(io, path);
    }
    if (err == 0 && sim_exists(r->sim, "data"))
        err = io->ops->unlink(io, "data");
    r->ready = false;
    r->wait = REPLICA_WAITS_BASE;
}

// ---- a checkpoint ----

// Applies a step to a disk whose log has reached its cut.
static int write_step(struct io *io, struct blob *blob, struct superblock *sb)
{
    int spare_error = 0;
    int err = blob_write(io, blob_find(blob, "data"), "data");

    // An epoch may begin with it, in segments that nobody has made here yet.
    for (uint64_t i = 0; i < 2 && err == 0; i++)
        err = replica_ensure_segment(io, sb->log.log_segment + i, sb->log.segment_bytes);
    if (err == 0)
        err = superblock_replace(io, SUPERBLOCK_FILE_RECOVER, sb, &spare_error);
    return err == 0 ? spare_error : err;
}

// The superblock that a step brings, read as the product reads one.
static int step_superblock(struct replica *r, struct blob *blob, struct superblock_slots *slots)
{
    struct sim *scratch = sim_clone(r->sim);
    const struct blob_file *file = blob_find(blob, "superblock");
    int err = file ? blob_write(sim_io(scratch), file, "superblock") : -ENOENT;

    if (err == 0)
        err = superblock_load(sim_io(scratch), slots);
    sim_destroy(scratch);
    return err;
}

// True when the log that is here is the one that `log` goes on behind.
static bool log_reaches(struct replica *r, const struct wal_start *log)
{
    struct wal_start here = r->log;
    struct wal_scan_result scan;

    if (memcmp(log->uuid, here.uuid, sizeof(here.uuid)) != 0 || log->log_seed != here.log_seed)
        return replica_waits(r, REPLICA_REFUSES, "a checkpoint of another store");
    if (log->cut_lsn > r->lsn)
        return replica_waits(r, REPLICA_WAITS_RECORD, "the log is behind the next checkpoint");
    if (log->epoch != here.epoch || log->cut_lsn == r->lsn)
        return log->cut_lsn == r->lsn && log->cut_checksum == r->checksum
                   ? true
                   : replica_waits(r, REPLICA_REFUSES, "the next checkpoint is of another history");
    // The record at the cut is here: a scan from it agrees, or says that it is another one.
    here.cut_lsn = log->cut_lsn;
    here.cut_checksum = log->cut_checksum;
    here.log_segment = log->log_segment;
    if (wal_scan(sim_io(r->sim), &here, NULL, NULL, &scan) < 0 || scan.last_lsn != r->lsn)
        return replica_waits(r, REPLICA_REFUSES, "the next checkpoint is of another history");
    return true;
}

static bool publish_step(struct replica *r, struct blob *blob, struct superblock_slots *slots)
{
    struct superblock *sb = &slots->sb[slots->chosen];
    struct sim *scratch;

    if (sb->sequence != r->sequence + 1)
        return replica_waits(r, REPLICA_REFUSES, "the checkpoint is not the next one");
    if (!log_reaches(r, &sb->log))
        return false;
    sb->clean = false; // more may follow; and whether the primary was closed is its own business
    scratch = sim_clone(r->sim);
    if (write_step(sim_io(scratch), blob, sb) < 0 || !verifies(r, scratch, "the next checkpoint"))
        return false;
    int err = write_step(sim_io(r->sim), blob, sb);
    if (err < 0)
        return replica_waits(r, REPLICA_REFUSES, "cannot write a checkpoint: %s", err_name(err));
    r->published++;
    return replica_restart(r) && r->ready;
}

bool replica_place_step(struct replica *r)
{
    struct superblock_slots slots;
    char name[ARCHIVE_NAME_BYTES];
    bool placed = false;
    struct blob blob;
    size_t len;

    (void)snprintf(name, sizeof(name), "%016" PRIx64 ".step", r->sequence + 1);
    uint8_t *bytes = replica_read_incoming(r, name, &len);
    if (!bytes)
        return false;
    if (!blob_parse(bytes, len, &blob) || !blob_find(&blob, "data")) {
        replica_waits(r, REPLICA_WAITS_CHECKPOINT, "%s is not whole", name);
    } else if (step_superblock(r, &blob, &slots) == 0) {
        placed = slots.chosen >= 0 && publish_step(r, &blob, &slots);
        superblock_slots_free(&slots);
    }
    free(bytes);
    return placed;
}
