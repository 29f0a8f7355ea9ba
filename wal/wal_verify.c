// SPDX-License-Identifier: MIT
// One segment file verified by itself (wal_verify.h). Its header gives the salt; the records are
// followed from its first LSN on, and what stands behind the last one decides: nothing, the rest of
// a transfer or of a torn write, or damage to what was durable.
//
// Nothing that was read is trusted: lengths are checked against the file, memory is bounded by the
// largest record and eight bytes for each record.
#include "wal/wal_verify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "wal/wal_scan.h"

// One file under examination.
struct verify {
    struct wal_file *file;
    struct wal_window window;
    uint64_t salt;
    uint64_t size; // of the file, at most that of the segment
    int (*each)(void *arg, const struct wal_record *record);
    void *arg;
    uint64_t expected_lsn, prev_checksum;
    uint64_t end; // behind the last record that follows
    bool decided;
    uint64_t proof_offset, proof_lsn; // behind the end
    bool behind;                      // a record of this segment is there
};

void wal_file_free(struct wal_file *file)
{
    free(file->checksums);
    file->checksums = NULL;
}

static void AF_PRINTF(5, 6) decide(struct verify *v, enum wal_file_state state, uint64_t offset,
                                   uint64_t lsn, const char *fmt, ...)
{
    va_list ap;

    v->decided = true;
    v->file->state = state;
    v->file->bad_offset = offset;
    v->file->bad_lsn = lsn;
    va_start(ap, fmt);
    (void)vsnprintf(v->file->what, sizeof(v->file->what), fmt, ap); // a cut sentence still tells
    va_end(ap);
}

// ---- the header ----

// True when the whole file is zeros.
static int is_zero(struct verify *v, bool *ret_zero)
{
    *ret_zero = false;
    for (uint64_t off = 0; off < v->window.size; off += WAL_BLOCK) {
        size_t len = (size_t)AF_MIN(v->window.size - off, (uint64_t)WAL_BLOCK);
        const uint8_t *at;
        int r = wal_window_get(&v->window, off, len, &at);

        if (r < 0)
            return r;
        for (size_t i = 0; i < len; i++)
            if (at[i] != 0)
                return 0;
    }
    *ret_zero = true;
    return 0;
}

static void decide_header(struct verify *v, int err, uint64_t version)
{
    if (err == -AF_E_VERSION)
        decide(v, WAL_FILE_UNKNOWN, 0, 0, "the segment has version %" PRIu64 ", not 1", version);
    else if (err == -AF_E_BLOCK_CHECKSUM)
        decide(v, WAL_FILE_DAMAGED, 0, 0, "the checksum of the segment header is wrong");
    else
        decide(v, WAL_FILE_DAMAGED, 0, 0, "the segment header contradicts itself");
}

static int read_header(struct verify *v)
{
    const size_t magic = strlen(WAL_SEGMENT_MAGIC);
    const size_t have = (size_t)AF_MIN(v->window.size, (uint64_t)WAL_BLOCK);
    const uint8_t *block = NULL;
    bool zero;
    int r = is_zero(v, &zero);

    if (r == 0 && have > 0)
        r = wal_window_get(&v->window, 0, have, &block);
    if (r < 0)
        return r;
    if (have > 0 && !zero && memcmp(block, WAL_SEGMENT_MAGIC, AF_MIN(have, magic)) != 0) {
        decide(v, WAL_FILE_UNKNOWN, 0, 0, "not a log segment: it does not begin with the magic");
    } else if (have < WAL_BLOCK) {
        decide(v, WAL_FILE_PARTIAL, have, 0, "cut in the segment header, at offset %zu", have);
    } else if (zero) {
        v->decided = true;
        v->file->state = WAL_FILE_UNUSED;
    } else {
        le32 version;

        memcpy(&version, block + offsetof(struct wal_disk_segment, version), sizeof(version));
        r = wal_segment_decode(block, &v->file->info);
        if (r < 0)
            decide_header(v, r, le32_get(version));
    }
    return 0;
}

// ---- the chain ----

static int note_checksum(struct wal_file *file, uint64_t checksum)
{
    // Grows at every power of two.
    if ((file->records & (file->records - 1)) == 0) {
        size_t cap = file->records ? 2 * (size_t)file->records : 1;
        uint64_t *checksums = realloc(file->checksums, cap * sizeof(checksums[0]));

        if (!checksums)
            return -ENOMEM;
        file->checksums = checksums;
    }
    file->checksums[file->records++] = checksum;
    return 0;
}

static int accept(struct verify *v, uint64_t off, const struct wal_frame *frame,
                  const uint8_t *body)
{
    const struct wal_record record = {
        .lsn = frame->lsn,
        .durable_lsn = frame->durable_lsn,
        .checksum = frame->checksum,
        .segment = v->file->info.segment,
        .offset = off,
        .type = (enum wal_type)frame->type,
        .group_start = frame->group_start,
        .body = body,
        .body_bytes = frame->body_bytes,
    };
    int r = note_checksum(v->file, frame->checksum);

    if (r < 0)
        return r;
    v->end = off + wal_record_bytes(frame->body_bytes);
    v->expected_lsn = frame->lsn + 1;
    v->prev_checksum = frame->checksum;
    v->file->durable_lsn = AF_MAX(v->file->durable_lsn, frame->durable_lsn);
    return v->each ? v->each(v->arg, &record) : 0;
}

// Looks for the next record at `off`. As in wal_scan.c: one with a right checksum that this log
// cannot hold in that place is damage.
static int record_at(struct verify *v, uint64_t off, bool must_start_group, bool *ret_found)
{
    struct wal_frame frame;
    const uint8_t *body;
    bool right;

    *ret_found = false;
    int r = wal_window_record(&v->window, off, v->salt, &frame, &body, &right);
    if (r < 0 || !right)
        return r;
    bool next = frame.known && frame.lsn == v->expected_lsn;
    if (!frame.known || (next && frame.prev_checksum != v->prev_checksum)) {
        decide(v, WAL_FILE_DAMAGED, off, v->expected_lsn,
               "offset %" PRIu64 ": a whole record (LSN %" PRIu64
               ", type %u) stands where LSN %" PRIu64 " must follow",
               off, frame.lsn, (unsigned)frame.type, v->expected_lsn);
        return 0;
    }
    *ret_found = next && (frame.group_start ? off % WAL_BLOCK == 0 : !must_start_group);
    return *ret_found ? accept(v, off, &frame, body) : 0;
}

static int follow(struct verify *v)
{
    bool first = true;

    for (;;) {
        const uint64_t off = v->end;
        bool found;
        int r = record_at(v, off, first, &found);

        if (r == 0 && !found && !v->decided && off % WAL_BLOCK != 0)
            r = record_at(v, AF_ROUND_UP(off, (uint64_t)WAL_BLOCK), true, &found);
        if (r != 0 || !found || v->decided)
            return r;
        first = false;
    }
}

// ---- what stands behind the end ----

static int found_behind(void *arg, const struct wal_record *record)
{
    struct verify *v = arg;

    v->behind = true;
    v->file->durable_lsn = AF_MAX(v->file->durable_lsn, record->durable_lsn);
    if (record->durable_lsn >= v->expected_lsn && v->proof_lsn == 0) {
        v->proof_offset = record->offset;
        v->proof_lsn = record->durable_lsn;
    }
    return 0;
}

// A header at `off` that names the next record of the chain, whose bytes do not match or have not
// all arrived.
static int broken_at(struct verify *v, uint64_t off)
{
    struct wal_frame frame;
    const uint8_t *at;

    if (v->decided || off >= v->size)
        return 0;
    size_t have = (size_t)AF_MIN(v->size - off, (uint64_t)WAL_RECORD_HEADER);
    int r = wal_window_get(&v->window, off, have, &at);
    // The length is compared with what a record may have, not with the file: that is what is asked.
    if (r < 0 || have < WAL_RECORD_HEADER || wal_frame_decode(at, UINT64_MAX, &frame) < 0)
        return r;
    if (frame.lsn != v->expected_lsn || frame.prev_checksum != v->prev_checksum)
        return 0;
    if (frame.body_bytes > v->size - off - WAL_RECORD_HEADER)
        decide(v, WAL_FILE_PARTIAL, off, frame.lsn,
               "cut in record %" PRIu64 ": it begins at offset %" PRIu64
               " and has %zu bytes, the file ends at %" PRIu64,
               frame.lsn, off, (size_t)WAL_RECORD_HEADER + frame.body_bytes, v->size);
    else
        decide(v, WAL_FILE_PARTIAL, off, frame.lsn,
               "offset %" PRIu64 ": record %" PRIu64
               " is not whole; nothing says that it was durable",
               off, frame.lsn);
    return 0;
}

// The last block of a group is filled with zeros.
static int padding(struct verify *v)
{
    const uint64_t block_end = AF_MIN(AF_ROUND_UP(v->end, (uint64_t)WAL_BLOCK), v->size);
    const uint8_t *at;

    if (v->decided || v->end >= block_end)
        return 0;
    int r = wal_window_get(&v->window, v->end, (size_t)(block_end - v->end), &at);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < block_end - v->end; i++) {
        if (at[i] == 0)
            continue;
        decide(v, WAL_FILE_PARTIAL, v->end, v->expected_lsn,
               "offset %" PRIu64 ": the rest of the block is neither record %" PRIu64 " nor zeros",
               v->end, v->expected_lsn);
        return 0;
    }
    return 0;
}

static int judge_end(struct verify *v)
{
    struct wal_walk walk = {
        .window = &v->window,
        .segment = v->file->info.segment,
        .salt = v->salt,
        .from = v->end,
        .lsn_min = v->expected_lsn,
        .found = found_behind,
        .arg = v,
    };
    int r = wal_walk(&walk);

    if (r < 0)
        return r;
    if (v->proof_lsn != 0)
        decide(v, WAL_FILE_DAMAGED, v->end, v->expected_lsn,
               "offset %" PRIu64 ": record %" PRIu64 " is unreadable, but offset %" PRIu64
               " says that LSN %" PRIu64 " was durable",
               v->end, v->expected_lsn, v->proof_offset, v->proof_lsn);
    r = broken_at(v, v->end);
    if (r == 0 && v->end % WAL_BLOCK != 0)
        r = broken_at(v, AF_ROUND_UP(v->end, (uint64_t)WAL_BLOCK));
    if (r == 0)
        r = padding(v);
    if (r < 0 || v->decided)
        return r;
    if (v->file->bytes > v->file->info.segment_bytes)
        decide(v, WAL_FILE_DAMAGED, v->file->info.segment_bytes, v->expected_lsn,
               "the file has %" PRIu64 " bytes, its segment only %" PRIu64, v->file->bytes,
               v->file->info.segment_bytes);
    else if (v->size % WAL_BLOCK != 0)
        decide(v, WAL_FILE_PARTIAL, v->size, v->expected_lsn,
               "cut inside a block, at offset %" PRIu64, v->size);
    else if (v->behind || v->file->records == 0)
        decide(v, WAL_FILE_PARTIAL, v->end, v->expected_lsn,
               "offset %" PRIu64 ": record %" PRIu64
               " is missing; nothing says that it was durable",
               v->end, v->expected_lsn);
    else
        v->file->state = v->size == v->file->info.segment_bytes ? WAL_FILE_WHOLE : WAL_FILE_PREFIX;
    return 0;
}

static int examine(struct verify *v)
{
    struct wal_file *file = v->file;
    int r = read_header(v);

    file->bytes = v->window.size;
    if (r < 0 || v->decided)
        return r;
    v->salt = wal_format_salt(file->info.log_seed, file->info.epoch, file->info.segment);
    v->size = AF_MIN(file->bytes, file->info.segment_bytes);
    v->window.size = v->size;
    v->expected_lsn = file->info.first_lsn;
    v->prev_checksum = file->info.prev_checksum;
    v->end = WAL_BLOCK;
    file->durable_lsn = file->info.durable_lsn;
    r = follow(v);
    file->last_lsn = file->records ? v->expected_lsn - 1 : file->info.prev_lsn;
    file->last_checksum = v->prev_checksum;
    file->end_offset = v->end;
    return r != 0 || v->decided ? r : judge_end(v);
}

int wal_file_verify(struct io *io, struct wal_file *file,
                    int (*each)(void *arg, const struct wal_record *record), void *arg)
{
    struct verify v = {.file = file, .each = each, .arg = arg};

    *file = (struct wal_file){.path = file->path, .place = WAL_PLACE_NONE};
    int r = wal_window_open(&v.window, io, file->path);
    if (r == 0)
        r = examine(&v);
    wal_window_free(&v.window);
    return r;
}

const char *wal_file_state_name(enum wal_file_state state)
{
    static const char *const names[WAL_FILE_STATE_COUNT] = {"whole",   "prefix", "partial",
                                                            "damaged", "unused", "no segment"};

    return (unsigned)state < WAL_FILE_STATE_COUNT ? names[state] : "?";
}

const char *wal_place_name(enum wal_place place)
{
    static const char *const names[WAL_PLACE_COUNT] = {
        "no place", "first",       "continues", "gap",    "reordered", "duplicate",
        "stale",    "other epoch", "recycled",  "forked", "foreign"};

    return (unsigned)place < WAL_PLACE_COUNT ? names[place] : "?";
}
