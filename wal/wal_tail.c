// SPDX-License-Identifier: MIT
// What lies behind the end of the chain. A group that was being written when the power went may be
// there in any subset of its sectors; that is a torn tail and is dropped. Acknowledged records that
// have become unreadable look alike, but for what was written after them: a record or segment
// header that says "LSN n is durable" with n at or behind the end is proof of damage, whatever lies
// between.
//
// A valid record behind the end is no proof by itself: sectors of one unsynced group may have
// persisted in any order.
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "wal/wal_scan.h"

#define WINDOW_BYTES (1024u * 1024u)

static const uint8_t zero_block[WAL_BLOCK];

int wal_window_open(struct wal_window *w, struct io *io, const char *path)
{
    wal_window_close(w);
    int r = io_file_open(io, path, IO_READ_ONLY | w->open_flags, &w->file);
    if (r < 0) {
        w->file = NULL;
        return r;
    }
    r = io_size(w->file, &w->size);
    if (r < 0)
        wal_window_close(w);
    return r;
}

void wal_window_close(struct wal_window *w)
{
    io_file_close(w->file);
    w->file = NULL;
    w->size = 0;
    w->start = 0;
    w->have = 0;
    w->ahead = WINDOW_BYTES;
}

void wal_window_free(struct wal_window *w)
{
    wal_window_close(w);
    free(w->buf);
    w->buf = NULL;
    w->cap = 0;
}

int wal_window_get(struct wal_window *w, uint64_t off, size_t len, const uint8_t **ret_bytes)
{
    AF_ASSERT(off <= w->size && len <= w->size - off);
    if (off < w->start || off + len > w->start + w->have) {
        uint64_t start = AF_ROUND_DOWN(off, (uint64_t)WAL_BLOCK);
        size_t need = (size_t)(off - start) + len;
        size_t want = (size_t)AF_MIN((uint64_t)AF_MAX(need, w->ahead), w->size - start);

        if (want > w->cap) {
            size_t cap = AF_ROUND_UP(want, (size_t)WAL_BLOCK);
            void *buf;

            if (posix_memalign(&buf, WAL_BLOCK, cap) != 0)
                return -ENOMEM;
            free(w->buf);
            w->buf = buf;
            w->cap = cap;
        }
        w->have = 0;
        int r = io_pread(w->file, w->buf, want, start);
        if (r < 0)
            return r;
        w->start = start;
        w->have = want;
    }
    *ret_bytes = w->buf + (off - w->start);
    return 0;
}

int wal_window_record(struct wal_window *w, uint64_t off, uint64_t salt, struct wal_frame *frame,
                      const uint8_t **ret_body, bool *ret_valid)
{
    const uint8_t *at;

    *ret_valid = false;
    if (off > w->size || w->size - off < WAL_RECORD_HEADER)
        return 0;
    int r = wal_window_get(w, off, WAL_RECORD_HEADER, &at);
    if (r < 0 || wal_frame_decode(at, w->size - off, frame) < 0)
        return r;
    r = wal_window_get(w, off, WAL_RECORD_HEADER + frame->body_bytes, &at);
    if (r < 0)
        return r;
    *ret_body = at + WAL_RECORD_HEADER;
    *ret_valid = wal_frame_verify(at, frame, salt);
    return 0;
}

// Looks at a place where the magic stands. *ret_skip: how far to go on.
static int walk_examine(struct wal_walk *walk, uint64_t off, uint64_t *budget, uint64_t *ret_skip)
{
    struct wal_window *w = walk->window;
    const bool boundary = off % WAL_BLOCK == 0;
    struct wal_frame frame;
    const uint8_t *at;
    bool valid;

    *ret_skip = WAL_ALIGN;
    int r = wal_window_get(w, off, WAL_RECORD_HEADER, &at);
    if (r < 0 || wal_frame_decode(at, w->size - off, &frame) < 0 || !frame.known)
        return r;
    if (frame.lsn < walk->lsn_min)
        return 0;
    // Groups start at block boundaries, and those are all looked at. What claims to be a record
    // elsewhere may be somebody's file; hashing what it claims is bounded.
    uint64_t cost = WAL_RECORD_HEADER + frame.body_bytes;
    if (!boundary && cost > *budget)
        return 0;
    r = wal_window_record(w, off, walk->salt, &frame, &at, &valid);
    if (r < 0)
        return r;
    if (!valid) {
        if (!boundary)
            *budget -= cost;
        return 0;
    }
    struct wal_record record = {
        .lsn = frame.lsn,
        .durable_lsn = frame.durable_lsn,
        .checksum = frame.checksum,
        .segment = walk->segment,
        .offset = off,
        .type = (enum wal_type)frame.type,
        .group_start = frame.group_start,
        .body = at,
        .body_bytes = frame.body_bytes,
    };
    *ret_skip = wal_record_bytes(frame.body_bytes);
    return walk->found(walk->arg, &record);
}

int wal_walk(struct wal_walk *walk)
{
    struct wal_window *w = walk->window;
    const le32 magic = le32_put(WAL_RECORD_MAGIC);
    uint64_t budget = 4 * w->size;
    uint64_t off = AF_ROUND_UP(walk->from, (uint64_t)WAL_ALIGN);

    walk->nonzero_end = walk->from;
    while (off < w->size && w->size - off >= WAL_RECORD_HEADER) {
        uint64_t end = AF_MIN(AF_ROUND_DOWN(off, (uint64_t)WAL_BLOCK) + WAL_BLOCK, w->size);
        size_t len = (size_t)(end - off);
        const uint8_t *at;
        size_t i = 0;
        int r = wal_window_get(w, off, len, &at);

        if (r < 0)
            return r;
        if (memcmp(at, zero_block, len) == 0) {
            off = end;
            continue;
        }
        walk->nonzero_end = end;
        while (i + sizeof(magic) <= len && memcmp(at + i, &magic, sizeof(magic)) != 0)
            i += WAL_ALIGN;
        off += i;
        if (off >= end || w->size - off < WAL_RECORD_HEADER) {
            off = end;
            continue;
        }
        uint64_t skip;
        r = walk_examine(walk, off, &budget, &skip);
        if (r != 0)
            return r;
        off += skip;
    }
    return 0;
}

// What is known of the part of one file that lies behind the end.
struct tail {
    struct wal_scan *s;
    uint64_t segment;
    uint64_t ours_end; // end of the last thing of this epoch; 0: none
    bool sure;         // something validates, so it is of this epoch
};

static void note_proof(struct wal_scan *s, uint64_t segment, uint64_t off, uint64_t durable_lsn)
{
    if (durable_lsn < s->expected_lsn || s->result.proof_lsn != 0)
        return;
    s->result.proof_segment = segment;
    s->result.proof_offset = off;
    s->result.proof_lsn = durable_lsn;
}

static int tail_found(void *arg, const struct wal_record *record)
{
    struct tail *tail = arg;
    struct wal_scan *s = tail->s;

    tail->sure = true;
    s->result.dropped_records++;
    s->result.durable_lsn = AF_MAX(s->result.durable_lsn, record->durable_lsn);
    tail->ours_end = record->offset + wal_record_bytes(record->body_bytes);
    note_proof(s, record->segment, record->offset, record->durable_lsn);
    return 0;
}

// A record at the end whose header names its place in the chain but whose bytes do not match: what
// is left of the group that was being written.
static int tail_broken_record(struct tail *tail, uint64_t off)
{
    struct wal_scan *s = tail->s;
    struct wal_frame frame;
    const uint8_t *at;

    if (off > s->window.size || s->window.size - off < WAL_RECORD_HEADER)
        return 0;
    int r = wal_window_get(&s->window, off, WAL_RECORD_HEADER, &at);
    if (r < 0 || wal_frame_decode(at, s->window.size - off, &frame) < 0)
        return r;
    if (frame.lsn == s->expected_lsn && frame.prev_checksum == s->prev_checksum)
        tail->ours_end = AF_MAX(tail->ours_end, off + WAL_RECORD_HEADER + frame.body_bytes);
    return 0;
}

// Whether the open segment was only ever filled with zeros before this epoch wrote to it, so that
// whatever is behind the end is of this epoch, even without a readable header. Nothing is recycled
// before the first marker of a new store; later epochs begin in segments that recovery found, with
// whatever a crash has left in them. A recycled file has a header. This matters for the report
// only: where it cannot be known, remains without a readable record are not told from bytes of an
// earlier use.
static int tail_is_virgin(struct wal_scan *s, const struct wal_segment_info *info, bool *ret_virgin)
{
    const size_t sector = 512;
    const uint8_t *at;

    if (info) {
        *ret_virgin = info->sequence == 0 && info->epoch == 1;
        return 0;
    }
    if (s->window.size < sector)
        return 0;
    int r = wal_window_get(&s->window, 0, sector, &at);
    if (r == 0)
        *ret_virgin = memcmp(at, zero_block, sector) == 0;
    return r;
}

// Looks at the open segment from `from` on.
static int tail_segment(struct tail *tail, uint64_t from)
{
    struct wal_scan *s = tail->s;
    const uint64_t segment = tail->segment;
    struct wal_segment_info info = {.valid = false};
    bool ours = false;
    struct wal_walk walk = {
        .window = &s->window,
        .segment = segment,
        .salt = wal_format_salt(s->start->log_seed, s->start->epoch, segment),
        .from = from,
        .lsn_min = s->expected_lsn,
        .found = tail_found,
        .arg = tail,
    };
    int r = wal_scan_header(s, segment, &info, &ours);

    if (r < 0)
        return r;
    if (from == 0 && ours) {
        tail->ours_end = WAL_BLOCK;
        tail->sure = true;
        note_proof(s, segment, 0, info.durable_lsn);
    }
    if (from != 0) {
        r = tail_broken_record(tail, from);
        if (r == 0)
            r = tail_broken_record(tail, AF_ROUND_UP(from, (uint64_t)WAL_BLOCK));
    }
    if (r == 0)
        r = wal_walk(&walk);
    if (r < 0)
        return r;
    bool virgin = false;
    r = tail_is_virgin(s, ours ? &info : NULL, &virgin);
    if (virgin && walk.nonzero_end > from)
        tail->ours_end = AF_MAX(tail->ours_end, walk.nonzero_end);
    return r;
}

// Bytes behind the end in a segment after it: things of this epoch need the segments between, and a
// successor.
static int tail_check_neighbours(struct wal_scan *s, uint64_t segment)
{
    const uint64_t end = s->result.end_segment;
    char path[32], found[32];
    bool there;

    wal_segment_path(segment, found);
    if (segment > end && !wal_scan_has(s, end + 1)) {
        wal_segment_path(end + 1, path);
        wal_scan_decide(s, WAL_END_MISSING, "%s is missing, but %s holds records of the same log",
                        path, found);
        return 0;
    }
    if (segment == UINT64_MAX)
        return 0;
    int r = wal_scan_open(s, segment + 1, false, &there);
    if (r == 0 && !there && !s->decided) {
        wal_segment_path(segment + 1, path);
        wal_scan_decide(s, WAL_END_MISSING, "%s is missing or short, but %s was written", path,
                        found);
    }
    return r;
}

static int tail_next(struct wal_scan *s, uint64_t segment, uint64_t from)
{
    struct tail tail = {.s = s, .segment = segment};
    char path[32];

    wal_segment_path(segment, path);
    int r = wal_window_open(&s->window, s->io, path);
    if (r < 0)
        return r;
    s->window.size = AF_MIN(s->window.size, s->start->segment_bytes);
    if (s->window.size > from)
        r = tail_segment(&tail, from);
    if (r < 0 || tail.ours_end == 0)
        return r;
    uint64_t end = AF_ROUND_UP(tail.ours_end, (uint64_t)WAL_BLOCK);
    s->result.dropped_bytes += AF_MIN(end, s->start->segment_bytes) - from;
    return tail.sure ? tail_check_neighbours(s, segment) : 0;
}

int wal_scan_tail(struct wal_scan *s)
{
    const uint64_t end = s->result.end_segment;
    int r = tail_next(s, end, s->result.end_offset);

    for (size_t i = 0; r == 0 && !s->decided && i < s->number_count; i++) {
        if (s->numbers[i] > end)
            r = tail_next(s, s->numbers[i], 0);
    }
    if (r < 0 || s->decided)
        return r;
    if (s->result.proof_lsn != 0) {
        char path[32], proof[32];

        wal_segment_path(end, path);
        wal_segment_path(s->result.proof_segment, proof);
        wal_scan_decide(
            s, WAL_END_DAMAGED,
            "%s, offset %llu: record %llu is unreadable, but %s, offset %llu, says that LSN "
            "%llu was durable",
            path, (unsigned long long)s->result.end_offset, (unsigned long long)s->expected_lsn,
            proof, (unsigned long long)s->result.proof_offset,
            (unsigned long long)s->result.proof_lsn);
        return 0;
    }
    s->result.end = s->result.dropped_bytes > 0 ? WAL_END_TORN : WAL_END_CLEAN;
    return 0;
}

static int survey_found(void *arg, const struct wal_record *record)
{
    (void)arg;
    (void)record;
    return 1; // one is enough
}

// The newest epoch and superblock that one segment knows of.
static int survey_segment(struct wal_scan *s, uint64_t segment)
{
    struct wal_segment_info info = {.valid = false};
    char path[32];
    bool mine = false;

    wal_segment_path(segment, path);
    int r = wal_window_open(&s->window, s->io, path);
    if (r < 0)
        return r;
    if (s->window.size >= WAL_BLOCK) {
        const uint8_t *block;

        s->window.ahead = WAL_BLOCK;
        r = wal_window_get(&s->window, 0, WAL_BLOCK, &block);
        s->window.ahead = WINDOW_BYTES;
        if (r < 0)
            return r;
        // What a recycled one says of its earlier use holds as well.
        mine = wal_segment_decode(block, &info) == 0 && info.log_seed == s->start->log_seed &&
               memcmp(info.uuid, s->start->uuid, sizeof(info.uuid)) == 0;
    }
    if (mine && info.epoch > s->result.epoch_max) {
        s->result.epoch_max = info.epoch;
        s->result.epoch_segment = segment;
    }
    if (mine && info.sequence > s->result.sequence_max) {
        s->result.sequence_max = info.sequence;
        s->result.sequence_segment = segment;
    }
    if (mine && info.segment == segment)
        return 0;
    // The header may have been that of the next epoch.
    struct wal_walk walk = {
        .window = &s->window,
        .segment = segment,
        .salt = wal_format_salt(s->start->log_seed, s->start->epoch + 1, segment),
        .lsn_min = s->start->next_lsn,
        .found = survey_found,
    };
    r = wal_walk(&walk);
    if (r > 0 && s->start->epoch + 1 > s->result.epoch_max) {
        s->result.epoch_max = s->start->epoch + 1;
        s->result.epoch_segment = segment;
    }
    return AF_MIN(r, 0);
}

int wal_scan_survey(struct wal_scan *s)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < s->number_count; i++)
        r = survey_segment(s, s->numbers[i]);
    return r;
}

static int read_segment(struct wal_window *w, const char *path, const struct wal_start *start,
                        struct wal_segment_info *info,
                        int (*each)(void *arg, const struct wal_record *record), void *arg)
{
    const char *name = strrchr(path, '/');
    const uint8_t *block;

    if (w->size < WAL_BLOCK)
        return 0;
    int r = wal_window_get(w, 0, WAL_BLOCK, &block);
    if (r < 0)
        return r;
    if (wal_segment_decode(block, info) < 0) {
        // What it says is worth nothing; the name of the file and the superblock must do.
        uint64_t number;

        *info = (struct wal_segment_info){.valid = false};
        if (!start || !wal_segment_number(name ? name + 1 : path, &number))
            return 0;
        info->segment = number;
        info->epoch = start->epoch;
        info->log_seed = start->log_seed;
    }
    struct wal_walk walk = {
        .window = w,
        .segment = info->segment,
        .salt = wal_format_salt(info->log_seed, info->epoch, info->segment),
        .from = WAL_BLOCK,
        .found = each,
        .arg = arg,
    };
    return wal_walk(&walk);
}

int wal_read_segment(struct io *io, const char *path, const struct wal_start *start,
                     struct wal_segment_info *ret_info,
                     int (*each)(void *arg, const struct wal_record *record), void *arg)
{
    struct wal_window w = {.file = NULL};
    struct wal_segment_info info = {.valid = false};
    int r = wal_window_open(&w, io, path);

    if (r == 0)
        r = read_segment(&w, path, start, &info, each, arg);
    wal_window_free(&w);
    if (r == 0)
        *ret_info = info;
    return r;
}
