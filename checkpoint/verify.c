// SPDX-License-Identifier: MIT
// Whole-image verification: the order of the work, findings, the log (verify.h).

#include "checkpoint/verify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "checkpoint/examine.h"
#include "checkpoint/verify_internal.h"
#include "store/op.h"

#define REPLAY_CACHE_BYTES (UINT64_C(64) << 20)
#define COLLISIONS_MAX     128u
#define PROGRESS_EVERY     1024u // blocks

// ---- piles ----

void pile_init(struct pile *p, size_t element_bytes)
{
    *p = (struct pile){.element_bytes = element_bytes};
}

void pile_free(struct pile *p)
{
    free(p->list);
    p->list = NULL;
    p->count = p->cap = 0;
}

void pile_add(struct verify *v, struct pile *p, const void *element)
{
    if (p->count == p->cap) {
        size_t cap = p->cap ? p->cap + p->cap / 2 : 256;
        void *list = realloc(p->list, cap * p->element_bytes);

        if (!list) {
            v->fatal = -ENOMEM;
            return;
        }
        p->list = list;
        p->cap = cap;
    }
    memcpy((uint8_t *)p->list + p->count * p->element_bytes, element, p->element_bytes);
    p->count++;
}

// ---- findings ----

// Names come from disk and may hold anything; a text goes to terminals.
static void found_text(struct verify *v, struct verify_finding f, char *text)
{
    struct verify_result *r = v->result;

    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127)
            *p = '?';
    f.text = text;
    if (f.severity == VERIFY_DAMAGE) {
        r->damage++;
        if (r->first_code == 0)
            r->first_code = f.code;
        verify_affected(v, &f);
    } else {
        r->notes++;
    }
    if (v->options->finding)
        v->options->finding(v->options->arg, &f);
}

void verify_found(struct verify *v, const struct verify_finding *finding, const char *fmt, ...)
{
    char text[640];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap); // a cut sentence still tells
    va_end(ap);
    found_text(v, *finding, text);
}

void verify_item_damage(struct verify *v, int code, uint64_t ino, const char *fmt, ...)
{
    struct verify_finding f = {
        .code = code, .file = "data", .address = v->node_address, .ino = ino};
    char text[320];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    found_text(v, f, text);
}

void verify_progress(struct verify *v, uint64_t blocks)
{
    uint64_t before = v->read / PROGRESS_EVERY;

    v->read += blocks;
    if (v->options->progress && v->read / PROGRESS_EVERY != before)
        v->options->progress(v->options->arg, v->read,
                             AF_MAX(v->read, v->sb->image.space.used_blocks));
}

// ---- superblocks ----

// An invalid second slot is what a torn write leaves; but a clean end was written behind a
// superblock that was durable, so after it both must stand.
static void note_slots(struct verify *v, const struct examination *x)
{
    for (unsigned i = 0; i < 2; i++) {
        const int result = x->slots.result[i];
        struct verify_finding f = {
            .severity = x->sb->clean ? VERIFY_DAMAGE : VERIFY_NOTE,
            .code = result,
            .file = SUPERBLOCK_FILE,
            .off = (uint64_t)i * SUPERBLOCK_SLOT_BYTES,
        };

        if (result < 0)
            verify_found(v, &f,
                         "superblock slot %u does not validate: %s (%s); slot %d, sequence %" PRIu64
                         ", is in force",
                         i, err_text(result), err_name(result), x->slots.chosen, x->sb->sequence);
    }
}

static void take_superblock(struct verify *v, const struct examination *x)
{
    const struct superblock *sb = x->sb;
    struct verify_result *r = v->result;

    v->sb = sb;
    memcpy(r->uuid, sb->log.uuid, sizeof(r->uuid));
    r->sequence = sb->sequence;
    r->epoch = sb->log.epoch;
    r->generation = sb->image.generation;
    r->cut_lsn = sb->log.cut_lsn;
    r->clean = sb->clean;
}

// ---- the log ----

static const char *file_of(int err)
{
    switch (-err) {
    case AF_E_LOG_DAMAGED:
    case AF_E_LOG_MISSING:
    case AF_E_LOG_RECORD:
        return "wal";
    case AF_E_IO_SHORT:
        return "data";
    default:
        return SUPERBLOCK_FILE;
    }
}

static void note_log(struct verify *v, const struct examination *x)
{
    const struct wal_scan_result *scan = &x->scan;
    struct verify_finding f = {.severity = VERIFY_NOTE};
    char path[32];

    v->result->log_scanned = true;
    v->result->log_records = scan->records;
    v->result->log_bytes = scan->bytes;
    v->result->log_last_lsn = scan->last_lsn;
    v->result->tail_records = scan->end == WAL_END_TORN ? scan->dropped_records : 0;
    v->result->tail_bytes = scan->end == WAL_END_TORN ? scan->dropped_bytes : 0;
    wal_segment_path(scan->end_segment, path);
    f.file = path;
    f.off = scan->end_offset;
    if (scan->end == WAL_END_TORN)
        verify_found(v, &f,
                     "behind LSN %" PRIu64
                     " lies the tail of a write that was never acknowledged: %" PRIu64
                     " bytes, %" PRIu64 " whole records; the next mount drops it",
                     scan->last_lsn, scan->dropped_bytes, scan->dropped_records);
    if (scan->records > 0)
        verify_found(v, &f,
                     "the store was not closed cleanly: the next mount replays %" PRIu64
                     " records, LSN %" PRIu64 " to %" PRIu64,
                     scan->records, x->sb->log.cut_lsn + 1, scan->last_lsn);
}

struct replay {
    struct verify *v;
    struct store *store;
    bool claiming;
    int err;
    uint64_t lsn, segment, offset;
};

// File data that only the log names: a record in the log says that it was synced, and nothing has
// been written over it since, even where a later record has let go of it.
static int verify_named(struct verify *v, const struct wal_record *record)
{
    struct op op;
    int err = op_decode(record->body, record->body_bytes, &op);

    if (err < 0)
        return err;
    for (uint32_t i = 0; i < op.piece_count; i++) {
        const struct op_piece *p = &op.pieces[i];

        if (p->type == PIECE_EXTENT)
            (void)verify_data(v, op.ino, p->block, p->address, (uint32_t)p->count,
                              (const le64 *)p->checksums);
    }
    op_free(&op);
    return 0;
}

static int replay_record(void *arg, const struct wal_record *record)
{
    struct replay *r = arg;

    if (r->claiming) {
        r->err = store_claim(r->store, record->body, record->body_bytes);
        if (r->err == 0)
            r->err = verify_named(r->v, record);
    } else {
        r->err = store_replay(r->store, record->lsn, record->body, record->body_bytes);
    }
    r->lsn = record->lsn;
    r->segment = record->segment;
    r->offset = record->offset;
    return r->err;
}

// As recovery would, in memory.
static void try_replay(struct verify *v, struct examination *x)
{
    const struct store_config config = {
        .io = v->io, .data = v->data, .cache_bytes = REPLAY_CACHE_BYTES, .read_only = true};
    struct replay r = {.v = v, .claiming = true};
    struct verify_finding f = {.file = "data", .address = x->sb->image.root.ref.address};
    char path[32];
    int err = store_open_image(&config, &x->sb->image, &r.store);

    if (err < 0) {
        f.code = err;
        verify_found(v, &f, "the checkpoint cannot be opened: %s (%s)", err_text(err),
                     err_name(err));
        return;
    }
    err = examine_log(x, replay_record, &r);
    r.claiming = false;
    if (err == 0)
        err = examine_log(x, replay_record, &r);
    v->replayed = r.store;
    if (err == 0) {
        v->result->log_replayed = true;
        return;
    }
    wal_segment_path(r.segment, path);
    f = (struct verify_finding){.code = err, .file = path, .off = r.offset};
    if (r.err < 0)
        verify_found(v, &f, "the record at LSN %" PRIu64 " cannot be replayed: %s (%s)", r.lsn,
                     err_text(err), err_name(err));
    else
        verify_found(v, &f, "%s", x->message);
}

static void verify_log(struct verify *v, struct examination *x)
{
    int err = examine_log(x, NULL, NULL);

    if (err == -ENOMEM) {
        v->fatal = err;
        return;
    }
    if (err < 0) {
        struct verify_finding f = {.code = err, .file = file_of(err)};

        verify_found(v, &f, "%s", x->message);
        return;
    }
    note_log(v, x);
    if (!v->options->skip_replay && v->data)
        try_replay(v, x);
}

// ---- all of it ----

static int begin(struct verify *v, struct io *io, const struct verify_options *options,
                 struct verify_result *result)
{
    *v = (struct verify){.options = options, .result = result, .io = io};
    pile_init(&v->inodes, sizeof(struct inode_note));
    pile_init(&v->names, sizeof(struct name_note));
    pile_init(&v->contents, sizeof(struct content_note));
    pile_init(&v->claims, sizeof(struct claim_note));
    pile_init(&v->orphans, sizeof(struct orphan_note));
    pile_init(&v->affected, sizeof(struct store_damage));
    v->buffer = aligned_alloc(BLOCK_BYTES, (size_t)EXTENT_BLOCKS_MAX * BLOCK_BYTES);
    v->range_names = malloc(COLLISIONS_MAX * sizeof(v->range_names[0]));
    v->range_lens = malloc(COLLISIONS_MAX);
    return v->buffer && v->range_names && v->range_lens ? 0 : -ENOMEM;
}

static void end(struct verify *v)
{
    store_close(v->replayed);
    io_file_close(v->data);
    pile_free(&v->affected);
    pile_free(&v->inodes);
    pile_free(&v->names);
    pile_free(&v->contents);
    pile_free(&v->claims);
    pile_free(&v->orphans);
    free(v->bits);
    free(v->buffer);
    free(v->range_names);
    free(v->range_lens);
}

static void verify_checkpoint(struct verify *v)
{
    int err = io_file_open(v->io, "data", IO_READ_ONLY, &v->data);

    if (err < 0) {
        v->data = NULL;
        if (err != -ENOENT) // its absence has been reported
            v->fatal = err;
        return;
    }
    v->fatal = verify_space_begin(v);
    if (v->fatal == 0)
        verify_tree(v);
    if (v->fatal == 0)
        verify_links(v);
    if (v->fatal == 0)
        verify_snapshots(v);
    if (v->fatal == 0)
        verify_space(v);
}

static int verify_all(struct verify *v)
{
    struct examination x;
    int err = examine_load(&x, v->io);

    if (err == -ENOMEM)
        v->fatal = err;
    else if (err < 0)
        verify_found(v, &(struct verify_finding){.code = err, .file = file_of(err)}, "%s",
                     x.message);
    if (x.sb && v->fatal == 0) {
        take_superblock(v, &x);
        note_slots(v, &x);
        verify_checkpoint(v);
    }
    // A superblock that the log does not belong to, or no log at all, has been reported.
    if (x.sb && v->fatal == 0 && err != -AF_E_LOG_MISSING)
        verify_log(v, &x);
    if (v->fatal == 0)
        verify_names(v);
    examine_free(&x);
    return v->fatal;
}

int verify_image(struct io *io, const struct verify_options *options,
                 struct verify_result *ret_result)
{
    const bool read_only = io->read_only;
    struct verify_result result = {0};
    struct verify v;
    int err = begin(&v, io, options, &result);

    // Nothing below may write; the disk itself sees to it.
    io->read_only = true;
    if (err == 0)
        err = verify_all(&v);
    io->read_only = read_only;
    end(&v);
    if (err == 0)
        *ret_result = result;
    return err;
}
