// SPDX-License-Identifier: MIT
// Reading the log back: follows the chain of valid records from where the superblock says that it
// starts to the first position without one (docs/FORMAT.md, "The end of the log"). What that end
// means is found out in wal_tail.c.
//
// W3: records are delivered in order, each only when all before it were; a group cut in the middle
// yields its first records, each of which is a whole operation.
#include "wal/wal_scan.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"

void wal_scan_decide(struct wal_scan *s, enum wal_end end, const char *fmt, ...)
{
    va_list ap;

    s->decided = true;
    s->result.end = end;
    va_start(ap, fmt);
    (void)vsnprintf(s->result.what, sizeof(s->result.what), fmt, ap); // a cut sentence still tells
    va_end(ap);
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x, y;

    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return x < y ? -1 : x > y;
}

bool wal_scan_has(const struct wal_scan *s, uint64_t segment)
{
    return s->number_count > 0 && bsearch(&segment, s->numbers, s->number_count,
                                          sizeof(s->numbers[0]), compare_numbers) != NULL;
}

static int note_number(void *arg, const char *name)
{
    struct wal_scan *s = arg;
    uint64_t number;

    if (!wal_segment_number(name, &number))
        return 0;
    // Grows at every power of two.
    if ((s->number_count & (s->number_count - 1)) == 0) {
        size_t cap = s->number_count ? 2 * s->number_count : 1;
        uint64_t *numbers = realloc(s->numbers, cap * sizeof(numbers[0]));

        if (!numbers)
            return -ENOMEM;
        s->numbers = numbers;
    }
    s->numbers[s->number_count++] = number;
    return 0;
}

int wal_scan_open(struct wal_scan *s, uint64_t segment, bool must, bool *ret_there)
{
    char path[32];

    *ret_there = false;
    wal_segment_path(segment, path);
    int r = wal_window_open(&s->window, s->io, path);
    if (r == -ENOENT) {
        if (must)
            wal_scan_decide(s, WAL_END_MISSING,
                            "%s is missing; the log must continue there at LSN %llu", path,
                            (unsigned long long)s->expected_lsn);
        return 0;
    }
    if (r < 0)
        return r;
    if (s->window.size < s->start->segment_bytes) {
        if (must)
            wal_scan_decide(s, WAL_END_MISSING, "%s has %llu bytes instead of %llu", path,
                            (unsigned long long)s->window.size,
                            (unsigned long long)s->start->segment_bytes);
        return 0;
    }
    s->window.size = s->start->segment_bytes; // nothing was ever written behind it
    *ret_there = true;
    return 0;
}

int wal_scan_header(struct wal_scan *s, uint64_t segment, struct wal_segment_info *ret_info,
                    bool *ret_valid)
{
    const uint8_t *block;

    *ret_valid = false;
    if (s->window.size < WAL_BLOCK)
        return 0;
    int r = wal_window_get(&s->window, 0, WAL_BLOCK, &block);
    if (r < 0)
        return r;
    if (wal_segment_decode(block, ret_info) < 0)
        return 0;
    *ret_valid = memcmp(ret_info->uuid, s->start->uuid, sizeof(ret_info->uuid)) == 0 &&
                 ret_info->log_seed == s->start->log_seed && ret_info->epoch == s->start->epoch &&
                 ret_info->segment == segment && ret_info->segment_bytes == s->start->segment_bytes;
    if (*ret_valid)
        s->result.durable_lsn = AF_MAX(s->result.durable_lsn, ret_info->durable_lsn);
    return 0;
}

// Before a segment's first group its successor was there. Leaves another file in the window.
static int check_successor(struct wal_scan *s, uint64_t segment)
{
    bool there;

    if (segment == UINT64_MAX)
        return 0;
    return wal_scan_open(s, segment + 1, true, &there);
}

static void decide_bad_header(struct wal_scan *s, uint64_t segment, uint64_t lsn, const char *why)
{
    char path[32];

    wal_segment_path(segment, path);
    s->result.proof_segment = segment;
    s->result.proof_offset = 0;
    s->result.proof_lsn = lsn;
    wal_scan_decide(s, WAL_END_DAMAGED, "%s, offset 0: %s (LSN %llu expected)", path, why,
                    (unsigned long long)s->expected_lsn);
}

// Enters log_segment. The cut's record lies in it unless this epoch has none at or before the cut.
static int enter_first(struct wal_scan *s, bool *ret_entered)
{
    const uint64_t segment = s->start->log_segment;
    struct wal_segment_info info;
    bool there, valid;

    *ret_entered = false;
    s->result.end_segment = segment;
    int r = wal_scan_open(s, segment, true, &there);
    if (r < 0 || !there)
        return r;
    r = wal_scan_header(s, segment, &info, &valid);
    if (r < 0)
        return r;
    if (!valid) {
        if (!s->fresh)
            decide_bad_header(s, segment, s->start->cut_lsn,
                              "the header is unreadable, and the superblock's cut was behind it");
        return 0;
    }
    uint64_t next = s->start->cut_lsn + 1;
    bool fits = s->fresh ? info.first_lsn == s->start->next_lsn
                         : info.first_lsn >= s->start->next_lsn && info.first_lsn <= next;
    if (s->fresh || info.first_lsn == next)
        fits = fits && info.prev_lsn == s->start->cut_lsn &&
               info.prev_checksum == s->start->cut_checksum;
    else if (info.first_lsn > s->start->next_lsn)
        fits = fits && info.prev_lsn == info.first_lsn - 1;
    if (!fits) {
        decide_bad_header(s, segment, info.first_lsn,
                          "the header does not fit the superblock's cut");
        return 0;
    }
    s->expected_lsn = info.first_lsn;
    s->prev_checksum = info.prev_checksum;
    s->result.end_offset = WAL_BLOCK;
    *ret_entered = true;
    return 0;
}

// Enters the segment behind one that was read to its end. It exists: that was checked.
static int enter_next(struct wal_scan *s, uint64_t segment, bool *ret_entered)
{
    struct wal_segment_info info;
    bool there, valid;

    *ret_entered = false;
    int r = wal_scan_open(s, segment, true, &there);
    if (r < 0 || !there)
        return r;
    r = wal_scan_header(s, segment, &info, &valid);
    if (r < 0 || !valid)
        return r;
    // It was written when everything before was durable, so whatever it does not continue is lost.
    if (info.first_lsn != s->expected_lsn || info.prev_lsn != s->expected_lsn - 1 ||
        info.prev_checksum != s->prev_checksum) {
        decide_bad_header(s, segment, info.durable_lsn,
                          "the header does not continue the record before, which was durable");
        return 0;
    }
    s->result.end_segment = segment;
    s->result.end_offset = WAL_BLOCK;
    *ret_entered = true;
    return 0;
}

// True when a record with a right checksum at `off` is the next one of the chain.
static bool continues(const struct wal_scan *s, uint64_t off, const struct wal_frame *frame,
                      bool must_start_group)
{
    if (!frame->known || frame->lsn != s->expected_lsn || frame->prev_checksum != s->prev_checksum)
        return false;
    // A group starts at a block, and whatever is not right behind its predecessor starts one.
    return frame->group_start ? off % WAL_BLOCK == 0 : !must_start_group;
}

// A record with a right checksum stands in the expected place, but is not the one that belongs
// there. It is damage when this log has such a record nowhere. A known one with another LSN may be
// a copy: a torn write may leave sectors of other places; what it says of durability is looked at
// in wal_tail.c.
static bool is_odd(const struct wal_scan *s, const struct wal_frame *frame)
{
    return !frame->known ||
           (frame->lsn == s->expected_lsn && frame->prev_checksum != s->prev_checksum);
}

static void decide_odd_record(struct wal_scan *s, uint64_t segment, uint64_t off,
                              const struct wal_frame *frame)
{
    char path[32];

    wal_segment_path(segment, path);
    s->result.proof_segment = segment;
    s->result.proof_offset = off;
    s->result.proof_lsn = frame->lsn;
    wal_scan_decide(
        s, WAL_END_DAMAGED,
        "%s, offset %llu: a whole record (LSN %llu, type %u) stands where LSN %llu must "
        "follow",
        path, (unsigned long long)off, (unsigned long long)frame->lsn, (unsigned)frame->type,
        (unsigned long long)s->expected_lsn);
}

static int accept_record(struct wal_scan *s, uint64_t segment, uint64_t off,
                         const struct wal_frame *frame, const uint8_t *body)
{
    const struct wal_start *start = s->start;

    s->result.end_segment = segment;
    s->result.end_offset = off + wal_record_bytes(frame->body_bytes);
    s->expected_lsn = frame->lsn + 1;
    s->prev_checksum = frame->checksum;
    s->result.durable_lsn = AF_MAX(s->result.durable_lsn, frame->durable_lsn);
    if (frame->lsn == start->cut_lsn && frame->checksum != start->cut_checksum) {
        char path[32];

        wal_segment_path(segment, path);
        s->result.proof_segment = segment;
        s->result.proof_offset = off;
        s->result.proof_lsn = frame->lsn;
        wal_scan_decide(s, WAL_END_DAMAGED,
                        "%s, offset %llu: record %llu is not the superblock's cut", path,
                        (unsigned long long)off, (unsigned long long)frame->lsn);
        return 0;
    }
    if (frame->lsn <= start->cut_lsn)
        return 0;
    struct wal_record record = {
        .lsn = frame->lsn,
        .durable_lsn = frame->durable_lsn,
        .checksum = frame->checksum,
        .segment = segment,
        .offset = off,
        .type = (enum wal_type)frame->type,
        .group_start = frame->group_start,
        .body = body,
        .body_bytes = frame->body_bytes,
    };
    s->result.last_lsn = frame->lsn;
    s->result.last_checksum = frame->checksum;
    s->result.records++;
    s->result.bytes += wal_record_bytes(frame->body_bytes);
    return s->each ? s->each(s->arg, &record) : 0;
}

// Looks for the next record at one place. *ret_found: `frame` and `body` are it.
static int record_at(struct wal_scan *s, uint64_t segment, uint64_t off, bool must_start_group,
                     struct wal_frame *frame, const uint8_t **body, bool *ret_found)
{
    const uint64_t salt = wal_format_salt(s->start->log_seed, s->start->epoch, segment);
    bool right;

    *ret_found = false;
    int r = wal_window_record(&s->window, off, salt, frame, body, &right);
    if (r < 0 || !right)
        return r;
    *ret_found = continues(s, off, frame, must_start_group);
    if (!*ret_found && is_odd(s, frame))
        decide_odd_record(s, segment, off, frame);
    return 0;
}

// Reads the open segment to the first position without a valid record.
static int read_records(struct wal_scan *s, uint64_t segment)
{
    bool first = true;

    while (!s->decided) {
        uint64_t off = s->result.end_offset;
        struct wal_frame frame;
        const uint8_t *body;
        bool found;
        int r = record_at(s, segment, off, first, &frame, &body, &found);

        if (r == 0 && !found && !s->decided && off % WAL_BLOCK != 0) {
            off = AF_ROUND_UP(off, (uint64_t)WAL_BLOCK);
            r = record_at(s, segment, off, true, &frame, &body, &found);
        }
        if (r < 0 || !found)
            return r;
        r = accept_record(s, segment, off, &frame, body);
        if (r != 0)
            return r;
        first = false;
    }
    return 0;
}

static int follow_chain(struct wal_scan *s)
{
    uint64_t segment = s->start->log_segment;
    bool entered, there;
    int r = enter_first(s, &entered);

    while (r == 0 && entered && !s->decided) {
        r = check_successor(s, segment);
        if (r == 0 && !s->decided)
            r = wal_scan_open(s, segment, true, &there);
        if (r == 0 && !s->decided)
            r = read_records(s, segment);
        if (r != 0 || s->decided || segment == UINT64_MAX)
            break;
        segment++;
        r = enter_next(s, segment, &entered);
    }
    return r;
}

static int scan_run(struct wal_scan *s)
{
    int r = io_list(s->io, "wal", note_number, s);

    if (r < 0)
        return r;
    if (s->number_count > 0) {
        qsort(s->numbers, s->number_count, sizeof(s->numbers[0]), compare_numbers);
        s->result.highest_segment = s->numbers[s->number_count - 1];
    }
    r = wal_scan_survey(s);
    if (r == 0)
        r = follow_chain(s);
    if (r != 0 || s->decided)
        return r;
    if (!s->fresh && s->expected_lsn <= s->start->cut_lsn) {
        char path[32];

        wal_segment_path(s->result.end_segment, path);
        s->result.proof_lsn = s->start->cut_lsn;
        wal_scan_decide(
            s, WAL_END_DAMAGED,
            "%s, offset %llu: record %llu is unreadable; the superblock's cut, LSN %llu, was "
            "behind it",
            path, (unsigned long long)s->result.end_offset, (unsigned long long)s->expected_lsn,
            (unsigned long long)s->start->cut_lsn);
        return 0;
    }
    return wal_scan_tail(s);
}

static int scan_with(struct io *io, unsigned open_flags, const struct wal_start *start,
                     int (*each)(void *arg, const struct wal_record *record), void *arg,
                     struct wal_scan_result *ret_result)
{
    struct wal_scan s = {
        .io = io,
        .window = {.open_flags = open_flags},
        .start = start,
        .each = each,
        .arg = arg,
        .fresh = start->cut_lsn < start->next_lsn,
        .expected_lsn = start->next_lsn,
        .prev_checksum = start->cut_checksum,
    };

    if (start->segment_bytes < 2 * WAL_BLOCK || start->segment_bytes % WAL_BLOCK != 0)
        return -EINVAL;
    s.result.last_lsn = start->cut_lsn;
    s.result.last_checksum = start->cut_checksum;
    s.result.durable_lsn = start->cut_lsn;
    int r = scan_run(&s);
    wal_window_free(&s.window);
    free(s.numbers);
    if (r == 0)
        *ret_result = s.result;
    return r;
}

int wal_scan(struct io *io, const struct wal_start *start,
             int (*each)(void *arg, const struct wal_record *record), void *arg,
             struct wal_scan_result *ret_result)
{
    return scan_with(io, IO_READ_ONLY, start, each, arg, ret_result);
}

int wal_scan_disk(struct io *io, const struct wal_start *start, struct wal_scan_result *ret_result)
{
    return scan_with(io, IO_LOG, start, NULL, NULL, ret_result);
}
