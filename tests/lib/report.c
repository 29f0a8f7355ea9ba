// SPDX-License-Identifier: MIT
// Expected recovery reports.
#include "tests/lib/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/le.h"
#include "checkpoint/superblock.h"
#include "wal/wal.h"

static int note_marker(void *arg, const struct wal_record *record)
{
    struct report *e = arg;
    le64 sequence;

    if (record->type == WAL_MARKER && record->body_bytes >= sizeof(sequence)) {
        memcpy(&sequence, record->body, sizeof(sequence));
        e->marker = AF_MAX(e->marker, le64_get(sequence));
    }
    return 0;
}

int report_expect(struct sim *sim, struct report *ret)
{
    struct superblock_slots slots;
    struct wal_scan_result scan;
    int err = superblock_load(sim_io(sim), &slots), newest = -1;

    *ret = (struct report){0};
    if (err < 0)
        return err;
    for (int i = 0; i < 2; i++)
        if (slots.result[i] == 0 &&
            (newest < 0 || slots.sb[i].sequence > slots.sb[newest].sequence))
            newest = i;
    err = newest < 0 ? -EIO : wal_scan(sim_io(sim), &slots.sb[newest].log, note_marker, ret, &scan);
    if (err == 0) {
        const struct superblock *sb = &slots.sb[newest];

        ret->r = (struct engine_recovery){
            .sequence = sb->sequence,
            .generation = sb->image.generation,
            .cut_lsn = sb->log.cut_lsn,
            .last_lsn = scan.last_lsn,
            .records_replayed = scan.records,
            .bytes_replayed = scan.bytes,
            .epoch = sb->log.epoch + 1,
            .clean = sb->clean && scan.records == 0,
        };
        if (scan.end == WAL_END_TORN) {
            ret->r.tail_records_dropped = scan.dropped_records;
            ret->r.tail_bytes_dropped = scan.dropped_bytes;
            ret->r.tail_segment = scan.end_segment;
            ret->r.tail_offset = scan.end_offset;
        }
        snprintf(ret->r.text, sizeof(ret->r.text), "superblock %" PRIu64, sb->sequence);
    }
    superblock_slots_free(&slots);
    return err;
}

bool report_matches(const struct report *expected, const struct engine_recovery *found, char *why,
                    size_t size)
{
    const struct engine_recovery *e = &expected->r;
    const struct {
        const char *name;
        uint64_t expected, found;
    } fields[] = {
        {"clean", e->clean, found->clean},
        {"sequence", e->sequence, found->sequence},
        {"generation", e->generation, found->generation},
        {"cut_lsn", e->cut_lsn, found->cut_lsn},
        {"last_lsn", e->last_lsn, found->last_lsn},
        {"records_replayed", e->records_replayed, found->records_replayed},
        {"bytes_replayed", e->bytes_replayed, found->bytes_replayed},
        {"tail_records_dropped", e->tail_records_dropped, found->tail_records_dropped},
        {"tail_bytes_dropped", e->tail_bytes_dropped, found->tail_bytes_dropped},
        {"tail_segment", e->tail_segment, found->tail_segment},
        {"tail_offset", e->tail_offset, found->tail_offset},
        {"epoch", e->epoch, found->epoch},
        // What is lost must be told in words too.
        {"\"dropped\" in the text", e->tail_bytes_dropped > 0 || e->tail_records_dropped > 0,
         strstr(found->text, "dropped") != NULL},
        {"the superblock in the text", 1, strstr(found->text, e->text) != NULL},
        {"a newer marker", 0, expected->marker > found->sequence},
    };

    for (size_t i = 0; i < AF_ARRAY_LEN(fields); i++) {
        if (fields[i].expected == fields[i].found)
            continue;
        snprintf(why, size,
                 "the report has %s %" PRIu64 ", the disk says %" PRIu64 "; it reads: %s",
                 fields[i].name, fields[i].found, fields[i].expected, found->text);
        return false;
    }
    return true;
}
