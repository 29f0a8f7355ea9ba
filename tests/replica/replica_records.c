// SPDX-License-Identifier: MIT
// Records and the blocks that they name: blocks first, then the record, each synced.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "checkpoint/engine_internal.h"
#include "checkpoint/recovery.h"
#include "store/op.h"
#include "tests/replica/replica_internal.h"
#include "wal/wal_format.h"
#include "wal/wal_verify.h"

// ---- records ----

// The records of one group, or the part of it that has arrived in whole.
struct batch {
    struct replica *r;
    uint64_t from, to; // bytes of the segment
    uint64_t first_lsn, last_lsn, last_checksum;
    bool full; // a record of the next group was met
    struct buf_list {
        uint8_t *bytes;
        size_t len;
        uint64_t off;
        enum wal_type type;
    } records[600];
    size_t count;
};

static int collect(void *arg, const struct wal_record *record)
{
    struct batch *b = arg;

    if (record->lsn <= b->r->lsn)
        return 0;
    if (b->count > 0 && record->group_start)
        return 1;
    AF_ASSERT(b->count < AF_ARRAY_LEN(b->records));
    if (b->count == 0) {
        b->first_lsn = record->lsn;
        b->from = record->offset;
    }
    uint8_t *copy = malloc(AF_MAX(record->body_bytes, (size_t)1));
    AF_ASSERT(copy);
    memcpy(copy, record->body, record->body_bytes);
    b->records[b->count].bytes = copy;
    b->records[b->count].len = record->body_bytes;
    b->records[b->count].off = record->offset;
    b->records[b->count++].type = record->type;
    b->to = record->offset + wal_record_bytes(record->body_bytes);
    b->last_lsn = record->lsn;
    b->last_checksum = record->checksum;
    return 0;
}

static void batch_free(struct batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        free(b->records[i].bytes);
    free(b);
}

// The block for `address` with this checksum among what has arrived; the last one sent counts.
static const uint8_t *find_block(const uint8_t *ext, size_t len, uint64_t address, uint64_t sum)
{
    for (size_t at = len / (8 + REPLICA_BLOCK); at > 0; at--) {
        const uint8_t *entry = ext + (at - 1) * (8 + REPLICA_BLOCK);

        if (op_le64(entry, 0) == address && checksum(CSUM_DATA, 0, entry + 8, REPLICA_BLOCK) == sum)
            return entry + 8;
    }
    return NULL;
}

// Writes the blocks that a piece names; without a file, only looks whether they are all there.
static int place_piece(const struct op_piece *piece, const uint8_t *ext, size_t len,
                       struct io_file *data)
{
    for (uint64_t i = 0; i < piece->count; i++) {
        const uint8_t *block =
            find_block(ext, len, piece->address + i, op_le64(piece->checksums, i));

        if (!block)
            return -ENODATA;
        int err =
            data ? io_pwrite(data, block, REPLICA_BLOCK, (piece->address + i) * REPLICA_BLOCK) : 0;
        if (err < 0)
            return err;
    }
    return 0;
}

// A primary grows `data` before a record may name what is new of it, and no record says so.
static int grow_data(struct io *io, uint64_t blocks)
{
    struct io_file *file;
    uint64_t size = 0;
    int err = io_file_open(io, "data", IO_WRITE, &file);

    if (err < 0)
        return err;
    err = io_size(file, &size);
    if (err == 0 && size < blocks * REPLICA_BLOCK) {
        err = io->ops->truncate(file, blocks * REPLICA_BLOCK);
        if (err == 0)
            err = io_sync(file);
    }
    io_file_close(file);
    return err;
}

static int note_end(void *arg, uint64_t address, uint64_t count)
{
    uint64_t *end = arg;

    *end = AF_MAX(*end, address + count);
    return 0;
}

// *ret_end: behind the last block that is named; 0: none is.
static int each_piece(const struct batch *b, const uint8_t *ext, size_t len, struct io_file *data,
                      uint64_t *ret_end)
{
    int err = 0;

    *ret_end = 0;
    for (size_t i = 0; i < b->count && err == 0; i++) {
        struct op op;

        if (b->records[i].type != WAL_OPERATION)
            continue;
        err = op_decode(b->records[i].bytes, b->records[i].len, &op);
        if (err < 0)
            return err;
        err = op_addresses(&op, note_end, ret_end);
        for (uint32_t p = 0; p < op.piece_count && err == 0; p++)
            if (op.pieces[p].type == PIECE_EXTENT)
                err = place_piece(&op.pieces[p], ext, len, data);
        op_free(&op);
    }
    return err;
}

static int claim(void *arg, const struct wal_record *record)
{
    return store_claim(arg, record->body, record->body_bytes);
}

// What the records name is free in the base, or they cannot be replayed on it: then not a byte of
// it is touched.
static int claims_fit(const struct replica *r, const struct batch *b)
{
    struct sim *scratch = sim_clone(r->sim);
    struct io *io = sim_io(scratch);
    struct store *store = NULL;
    struct io_file *data = NULL;
    struct recovery rec;
    int err = recovery_load(&rec, io);

    if (err == 0)
        err = io_file_open(io, "data", IO_READ_ONLY, &data);
    if (err == 0) {
        struct engine_options options = engine_options_complete(&r->options);
        struct store_config config = engine_store_config(&options, io, data);

        config.read_only = true;
        err = store_open_image(&config, &rec.x.sb->image, &store);
    }
    if (err == 0)
        err = examine_log(&rec.x, claim, store);
    for (size_t i = 0; i < b->count && err == 0; i++)
        if (b->records[i].type == WAL_OPERATION)
            err = store_claim(store, b->records[i].bytes, b->records[i].len);
    store_close(store);
    io_file_close(data);
    recovery_free(&rec);
    sim_destroy(scratch);
    return err;
}

static bool place_blocks(struct replica *r, const struct batch *b, uint64_t segment)
{
    struct io *io = sim_io(r->sim);
    char name[ARCHIVE_NAME_BYTES];
    struct io_file *data = NULL;
    uint64_t end;
    size_t len = 0;

    (void)snprintf(name, sizeof(name), "%016" PRIx64 ".ext", segment);
    uint8_t *ext = replica_read_incoming(r, name, &len);
    int err = each_piece(b, ext, len, NULL, &end);
    if (err == 0 && end > 0)
        err = grow_data(io, end);
    if (err == 0 && end > 0)
        err = claims_fit(r, b);
    if (err == 0 && end > 0)
        err = io_file_open(io, "data", IO_WRITE, &data);
    if (err == 0 && end > 0)
        err = each_piece(b, ext, len, data, &end);
    if (err == 0 && end > 0)
        err = io_sync(data);
    io_file_close(data);
    free(ext);
    if (err == -ENODATA)
        return replica_waits(r, REPLICA_WAITS_BLOCKS,
                             "blocks that LSN %" PRIu64 " to %" PRIu64 " name have not arrived",
                             b->first_lsn, b->last_lsn);
    if (err == -AF_E_SPACE_CLAIM)
        return replica_waits(r, REPLICA_NEEDS_BASE,
                             "the base still uses what LSN %" PRIu64 " names", b->first_lsn);
    return err == 0 || replica_waits(r, REPLICA_REFUSES, "blocks of LSN %" PRIu64 ": %s",
                                     b->first_lsn, err_name(err));
}

// Copies the bytes of the batch out of the file that has arrived.
static int write_records(struct replica *r, const struct batch *b, const char *from,
                         uint64_t segment)
{
    struct io *io = sim_io(r->sim);
    uint64_t start = b->from == WAL_BLOCK ? 0 : b->from; // with the header of the segment
    uint64_t size = 0;
    struct io_file *file;
    char path[32];

    AF_ASSERT(sim_file_size(r->sim, from, &size) == 0);
    // The zeros behind the last one may still be missing; a recycled segment has something else
    // there.
    size_t len = (size_t)(AF_ROUND_UP(b->to, (uint64_t)WAL_BLOCK) - start);
    uint8_t *bytes = calloc(1, len);
    AF_ASSERT(bytes &&
              sim_read_raw(r->sim, from, start, bytes, (size_t)(AF_MIN(b->to, size) - start)) == 0);
    // What fills up the records is under no checksum.
    for (size_t i = 0; i < b->count; i++) {
        const uint64_t body_end = b->records[i].off + WAL_RECORD_HEADER + b->records[i].len;
        const uint64_t next = i + 1 < b->count ? b->records[i + 1].off : b->to;

        memset(bytes + (body_end - start), 0, (size_t)(next - body_end));
    }
    int err = replica_ensure_segment(io, segment, r->log.segment_bytes);
    if (err == 0)
        err = replica_ensure_segment(io, segment + 1, r->log.segment_bytes);
    wal_segment_path(segment, path);
    if (err == 0)
        err = io_file_open(io, path, IO_WRITE, &file);
    if (err == 0) {
        err = io_pwrite(file, bytes, len, start);
        if (err == 0)
            err = io_sync(file);
        io_file_close(file);
    }
    free(bytes);
    return err;
}

// A marker is taken only on top of the superblock that it speaks of.
static bool markers_fit(struct replica *r, const struct batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->records[i].type == WAL_MARKER && b->records[i].len >= 8 &&
            op_le64(b->records[i].bytes, 0) > r->sequence)
            return replica_waits(r, REPLICA_WAITS_CHECKPOINT,
                                 "superblock %" PRIu64 " has not arrived, which LSN %" PRIu64
                                 " marks",
                                 op_le64(b->records[i].bytes, 0), b->last_lsn);
    return true;
}

static bool place_batch(struct replica *r, struct batch *b, const char *path, uint64_t segment)
{
    if (!markers_fit(r, b) || !place_blocks(r, b, segment))
        return false;
    int err = write_records(r, b, path, segment);
    if (err < 0)
        return replica_waits(r, REPLICA_REFUSES, "cannot write the log: %s", err_name(err));
    r->lsn = b->last_lsn;
    r->checksum = b->last_checksum;
    r->segment = segment;
    r->end = b->to;
    r->placed += b->count;
    return true;
}

// True when the file is a segment in which the next record of this log stands.
static bool goes_on(struct replica *r, const struct wal_file *file, uint64_t number)
{
    const struct wal_segment_info *info = &file->info;

    if (!info->valid)
        return file->state == WAL_FILE_PARTIAL || file->state == WAL_FILE_UNUSED
                   ? replica_waits(r, REPLICA_WAITS_RECORD, "segment %" PRIu64 ": %s", number,
                                   file->what)
                   : replica_waits(r, REPLICA_REFUSES, "segment %" PRIu64 ": %s", number,
                                   file->what);
    if (memcmp(info->uuid, r->log.uuid, sizeof(info->uuid)) != 0 ||
        info->log_seed != r->log.log_seed || info->segment != number)
        return replica_waits(r, REPLICA_REFUSES, "segment %" PRIu64 " is of another store", number);
    // A new epoch begins with its checkpoint, so that is there first.
    if (info->epoch != r->log.epoch)
        return replica_waits(
            r, info->epoch > r->log.epoch ? REPLICA_WAITS_CHECKPOINT : REPLICA_REFUSES,
            "segment %" PRIu64 " is of epoch %" PRIu64 ", the base of %" PRIu64, number,
            info->epoch, r->log.epoch);
    uint64_t sum = r->lsn == info->prev_lsn ? info->prev_checksum
                   : r->lsn >= info->first_lsn && r->lsn - info->first_lsn < file->records
                       ? file->checksums[r->lsn - info->first_lsn]
                       : 0;
    if (r->lsn < info->prev_lsn)
        return replica_waits(r, REPLICA_WAITS_RECORD,
                             "LSN %" PRIu64 " to %" PRIu64 " have not arrived", r->lsn + 1,
                             info->prev_lsn);
    if (r->lsn > file->last_lsn || (r->lsn == file->last_lsn && sum == r->checksum))
        return file->state == WAL_FILE_DAMAGED
                   ? replica_waits(r, REPLICA_REFUSES, "segment %" PRIu64 ": %s", number,
                                   file->what)
                   : replica_waits(r, REPLICA_WAITS_RECORD,
                                   "LSN %" PRIu64 " has not arrived in whole", r->lsn + 1);
    return sum == r->checksum ||
           replica_waits(r, REPLICA_REFUSES, "segment %" PRIu64 " holds another LSN %" PRIu64,
                         number, r->lsn);
}

static bool place_from(struct replica *r, uint64_t number)
{
    char name[ARCHIVE_NAME_BYTES], path[SIM_PATH_BYTES];
    bool placed = false;

    (void)snprintf(name, sizeof(name), "%016" PRIx64 ".seg", number);
    replica_incoming_path(name, path);
    struct wal_file file = {.path = path};
    int err = wal_file_verify(sim_io(r->sim), &file, NULL, NULL);
    if (err < 0)
        return err == -ENOENT
                   ? replica_waits(r, REPLICA_WAITS_RECORD, "segment %" PRIu64 " has not arrived",
                                   number)
                   : replica_waits(r, REPLICA_REFUSES, "cannot read %s: %s", path, err_name(err));
    if (goes_on(r, &file, number)) {
        struct batch *b = calloc(1, sizeof(*b));

        AF_ASSERT(b);
        b->r = r;
        wal_file_free(&file);
        err = wal_file_verify(sim_io(r->sim), &file, collect, b);
        placed = err >= 0 && b->count > 0 && place_batch(r, b, path, number);
        batch_free(b);
    }
    wal_file_free(&file);
    return placed;
}

// The next record stands in the segment where the log ends, or begins the next one.
bool replica_place_records(struct replica *r)
{
    enum replica_wait wait;
    char why[sizeof(r->why)];

    if (place_from(r, r->segment))
        return true;
    if (r->wait != REPLICA_WAITS_RECORD)
        return false;
    wait = r->wait;
    memcpy(why, r->why, sizeof(why));
    if (place_from(r, r->segment + 1))
        return true;
    if (r->wait == REPLICA_WAITS_RECORD) {
        r->wait = wait;
        memcpy(r->why, why, sizeof(why));
    }
    return false;
}
