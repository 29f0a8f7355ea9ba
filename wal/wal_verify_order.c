// SPDX-License-Identifier: MIT
// Verified segment files put in order (wal_verify.h). The order is that of the chain: a segment
// names the LSN and the checksum of the record before its first one, over the border of an epoch as
// well. So the newest segment is taken first, and each is asked whether it ends where the next one
// begins.
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "wal/wal_verify.h"

struct order {
    struct wal_file *files;
    size_t *chain; // indices of files with a place in the log, by epoch and number
    size_t count;
};

// ---- who takes part ----

// A recycled segment that has not been written yet keeps what it was, under a higher name.
static bool is_recycled(const struct wal_file *file)
{
    const char *slash = strrchr(file->path, '/');
    uint64_t number;

    return wal_segment_number(slash ? slash + 1 : file->path, &number) &&
           number > file->info.segment;
}

static bool same_store(const struct wal_file *a, const struct wal_file *b)
{
    return memcmp(a->info.uuid, b->info.uuid, sizeof(a->info.uuid)) == 0 &&
           a->info.log_seed == b->info.log_seed;
}

static int compare_place(const void *a, const void *b, void *arg)
{
    const struct wal_file *files = arg;
    size_t i, j;

    memcpy(&i, a, sizeof(i));
    memcpy(&j, b, sizeof(j));
    const struct wal_segment_info *x = &files[i].info, *y = &files[j].info;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    if (x->segment != y->segment)
        return x->segment < y->segment ? -1 : 1;
    // Of copies the one with the most records comes first, and so stands for them.
    if (files[i].records != files[j].records)
        return files[i].records > files[j].records ? -1 : 1;
    return i < j ? -1 : 1;
}

static bool same_segment(const struct wal_file *a, const struct wal_file *b)
{
    return a->info.epoch == b->info.epoch && a->info.segment == b->info.segment;
}

// The checksum of record `lsn` of a file; of the one before its first it knows too. 0: not there.
static uint64_t checksum_of(const struct wal_file *file, uint64_t lsn)
{
    if (lsn == file->info.prev_lsn)
        return file->info.prev_checksum;
    if (lsn < file->info.first_lsn || lsn - file->info.first_lsn >= file->records)
        return 0;
    return file->checksums[lsn - file->info.first_lsn];
}

// `file` has no more records than `longest`, of the same segment.
static enum wal_place place_copy(const struct wal_file *file, const struct wal_file *longest)
{
    if (file->info.first_lsn != longest->info.first_lsn ||
        file->info.prev_checksum != longest->info.prev_checksum)
        return WAL_PLACE_FORKED;
    if (file->records == longest->records && file->last_checksum == longest->last_checksum)
        return WAL_PLACE_DUPLICATE;
    return file->records < longest->records &&
                   checksum_of(longest, file->last_lsn) == file->last_checksum
               ? WAL_PLACE_STALE
               : WAL_PLACE_FORKED;
}

// Foreign and recycled files and copies leave the chain.
static void thin_out(struct order *o)
{
    size_t kept = 0;

    for (size_t i = 0; i < o->count; i++) {
        struct wal_file *file = &o->files[o->chain[i]];

        if (kept > 0 && same_segment(file, &o->files[o->chain[kept - 1]])) {
            file->other = o->chain[kept - 1];
            file->place = place_copy(file, &o->files[file->other]);
        } else {
            o->chain[kept++] = o->chain[i];
        }
    }
    o->count = kept;
}

// ---- the chain, from its end ----

static void AF_PRINTF(2, 3) note(struct wal_file *file, const char *fmt, ...)
{
    size_t len = strlen(file->what);
    va_list ap;

    if (len > 0 && len + 2 < sizeof(file->what)) {
        memcpy(file->what + len, "; ", 3);
        len += 2;
    }
    va_start(ap, fmt);
    (void)vsnprintf(file->what + len, sizeof(file->what) - len, fmt, ap); // cut, it still tells
    va_end(ap);
}

// `file` ends before `next` begins. What lies between was durable, or `next` would not be.
static void place_gap(struct wal_file *file, struct wal_file *next)
{
    next->place = WAL_PLACE_GAP;
    next->missing_from = file->last_lsn + 1;
    next->missing_to = next->info.prev_lsn;
    // In a file that is all there, a record that stands in its place and is not whole is rotten.
    if (file->state != WAL_FILE_PARTIAL || file->bytes < file->info.segment_bytes ||
        next->info.epoch != file->info.epoch)
        return;
    file->state = WAL_FILE_DAMAGED;
    note(file, "segment 0x%" PRIx64 " says that LSN %" PRIu64 " was durable", next->info.segment,
         next->info.prev_lsn);
}

// Joins `file` to the one after it. False: it is no part of the history that goes on there.
static bool join(struct wal_file *file, struct wal_file *next, size_t next_index)
{
    const uint64_t before = next->info.prev_lsn;

    if (before > file->last_lsn) {
        place_gap(file, next);
        return true;
    }
    if (file->info.prev_lsn > before || checksum_of(file, before) != next->info.prev_checksum) {
        bool older = file->info.epoch < next->info.epoch && file->info.first_lsn > before;

        file->place = older ? WAL_PLACE_OTHER_EPOCH : WAL_PLACE_FORKED;
        file->other = next_index;
        return false;
    }
    if (next->info.epoch == file->info.epoch && before < file->last_lsn) {
        file->place = WAL_PLACE_FORKED; // a running log never goes back
        file->other = next_index;
        return false;
    }
    next->place = WAL_PLACE_CONTINUES;
    if (next->info.epoch == file->info.epoch)
        return true;
    // A recovery came between: it has read this segment to here and dropped the rest.
    if (before < file->last_lsn)
        note(file, "epoch %" PRIu64 " goes on behind LSN %" PRIu64 "; what follows was given up",
             next->info.epoch, before);
    else if (file->state == WAL_FILE_PARTIAL && file->bytes >= file->info.segment_bytes) {
        file->state = WAL_FILE_WHOLE;
        file->what[0] = 0;
        note(file,
             "the torn tail behind LSN %" PRIu64 " was dropped by the recovery to epoch %" PRIu64,
             before, next->info.epoch);
    }
    return true;
}

static void link_chain(struct order *o)
{
    size_t left = o->count;
    size_t at = o->count; // where the chain stands that is known so far, filled from the end

    while (left > 0) {
        size_t i = o->chain[--left];
        struct wal_file *file = &o->files[i];

        if (at < o->count && !join(file, &o->files[o->chain[at]], o->chain[at]))
            continue;
        file->place = WAL_PLACE_FIRST; // until one before it is found
        o->chain[--at] = i;
    }
    memmove(o->chain, o->chain + at, (o->count - at) * sizeof(o->chain[0]));
    o->count -= at;
}

// What was given before something that it follows.
static void mark_reordered(struct order *o)
{
    size_t latest = 0;

    for (size_t i = 0; i < o->count; i++) {
        struct wal_file *file = &o->files[o->chain[i]];

        if (i > 0 && o->chain[i] < latest && file->place == WAL_PLACE_CONTINUES)
            file->place = WAL_PLACE_REORDERED;
        latest = AF_MAX(latest, o->chain[i]);
    }
}

// ---- all of them ----

static void sum_up(const struct order *o, struct wal_file_set *set)
{
    for (size_t i = 0; i < o->count; i++) {
        const struct wal_file *file = &o->files[o->chain[i]];

        if (i == 0) {
            set->epoch_first = file->info.epoch;
            set->first_lsn = file->info.first_lsn;
        } else if (file->place == WAL_PLACE_GAP) {
            break;
        }
        set->epoch_last = file->info.epoch;
        set->last_lsn = file->last_lsn;
        set->last_checksum = file->last_checksum;
        set->durable_lsn = AF_MAX(set->durable_lsn, file->durable_lsn);
        if (i + 1 < o->count && o->files[o->chain[i + 1]].info.prev_lsn < file->last_lsn) {
            set->last_lsn = o->files[o->chain[i + 1]].info.prev_lsn; // the rest was given up
            continue;
        }
        if (file->state == WAL_FILE_DAMAGED)
            break;
    }
}

int wal_files_order(struct wal_file *files, size_t count, struct wal_file_set *ret_set)
{
    struct wal_file_set set = {0};
    struct order o = {.files = files, .chain = malloc(AF_MAX(count, (size_t)1) * sizeof(size_t))};

    if (!o.chain)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        files[i].place = WAL_PLACE_NONE;
        if (!files[i].info.valid)
            continue;
        if (!set.any)
            set.reference = i;
        set.any = true;
        if (!same_store(&files[i], &files[set.reference]))
            files[i].place = WAL_PLACE_FOREIGN;
        else if (is_recycled(&files[i]))
            files[i].place = WAL_PLACE_RECYCLED;
        else
            o.chain[o.count++] = i;
    }
    qsort_r(o.chain, o.count, sizeof(o.chain[0]), compare_place, files);
    thin_out(&o);
    link_chain(&o);
    mark_reordered(&o);
    sum_up(&o, &set);
    for (size_t i = 0; i < count; i++) {
        set.states[files[i].state]++;
        set.places[files[i].place]++;
    }
    free(o.chain);
    *ret_set = set;
    return 0;
}
