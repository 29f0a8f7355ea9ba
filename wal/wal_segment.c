// SPDX-License-Identifier: MIT
// Segment files: made of zeros, synced with their directory entry before they count, recycled by
// renaming. Every write of a log lands in blocks that were written before, so a flush changes no
// metadata.
//
// The successor of a segment exists, durable and at full length, before the segment's first group
// is written: a log that ends where the next file is missing has lost it. W4 makes recycled bytes
// harmless. Slow work here runs without the wal's lock; wal->preparing keeps it to one thread.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "wal/wal_internal.h"

#define ZERO_BYTES (1024u * 1024u)

void wal_segment_path(uint64_t segment, char path[32])
{
    (void)snprintf(path, 32, "wal/%016llx.seg", (unsigned long long)segment); // 24 characters
}

bool wal_segment_number(const char *name, uint64_t *ret_segment)
{
    uint64_t number = 0;

    for (int i = 0; i < 16; i++) {
        char c = name[i];

        if (c >= '0' && c <= '9')
            number = number << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            number = number << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false; // a NUL included
    }
    if (strcmp(name + 16, ".seg") != 0)
        return false;
    *ret_segment = number;
    return true;
}

struct wal_segment *wal_segment_destroy(struct wal_segment *segment)
{
    if (segment) {
        io_file_close(segment->file);
        free(segment);
    }
    return NULL;
}

static struct wal_segment *segment_new(uint64_t number)
{
    struct wal_segment *segment = calloc(1, sizeof(*segment));

    if (segment) {
        segment->number = number;
        list_init(&segment->link);
    }
    return segment;
}

static int write_zeros(struct io_file *file, uint64_t bytes)
{
    size_t chunk = (size_t)AF_MIN(bytes, (uint64_t)ZERO_BYTES);
    void *zeros;
    int r = 0;

    if (posix_memalign(&zeros, WAL_BLOCK, chunk) != 0)
        return -ENOMEM;
    memset(zeros, 0, chunk);
    for (uint64_t off = 0; r == 0 && off < bytes; off += chunk)
        r = io_pwrite(file, zeros, (size_t)AF_MIN(bytes - off, (uint64_t)chunk), off);
    free(zeros);
    return r;
}

// Makes the file, filled and synced; its directory entry is not. A leftover of that name, which no
// log has ever counted, is replaced. *ret_fatal: a sync failed, after which nothing can be trusted
// to be written.
static int make_file(struct io *io, uint64_t number, uint64_t bytes, bool *ret_fatal)
{
    struct io_file *file;
    char path[32];

    wal_segment_path(number, path);
    int r = io_file_open(io, path, IO_WRITE | IO_CREATE | IO_EXCLUSIVE, &file);
    if (r == -EEXIST) {
        r = io_unlink(io, path);
        if (r == 0)
            r = io_file_open(io, path, IO_WRITE | IO_CREATE | IO_EXCLUSIVE, &file);
    }
    if (r < 0)
        return r;
    r = write_zeros(file, bytes);
    if (r == 0) {
        r = io_sync(file);
        *ret_fatal = r < 0;
    }
    io_file_close(file);
    if (r < 0)
        (void)io_unlink(io, path); // gives space back; what stays is replaced next time
    return r;
}

// Gives the file of `segment` the number `number`. It is checked and synced first: it may come from
// an earlier run that was killed before it had done so.
static int recycle_file(struct io *io, struct wal_segment *segment, uint64_t number, uint64_t bytes,
                        bool *ret_fatal)
{
    struct io_file *file;
    uint64_t size = 0;
    char from[32], to[32];

    io_file_close(segment->file);
    segment->file = NULL;
    wal_segment_path(segment->number, from);
    wal_segment_path(number, to);
    int r = io_file_open(io, from, IO_WRITE, &file);
    if (r < 0)
        return r;
    r = io_size(file, &size);
    if (r == 0 && size != bytes)
        r = -AF_E_IO_SHORT;
    if (r == 0) {
        r = io_sync(file);
        *ret_fatal = r < 0;
    }
    io_file_close(file);
    return r < 0 ? r : io_rename(io, from, to);
}

// Opens a segment for appending and checks its length.
static int open_log_file(struct io *io, struct wal_segment *segment, uint64_t bytes)
{
    uint64_t size = 0;
    char path[32];

    wal_segment_path(segment->number, path);
    int r = io_file_open(io, path, IO_WRITE | IO_LOG, &segment->file);
    if (r < 0) {
        segment->file = NULL;
        return r == -ENOENT ? -AF_E_LOG_MISSING : r;
    }
    r = io_size(segment->file, &size);
    if (r == 0 && size != bytes)
        r = -AF_E_LOG_MISSING;
    return r;
}

int wal_create_segments(struct io *io, const struct wal_start *start)
{
    bool fatal = false;

    for (uint64_t i = 0; i < 2; i++) {
        int r = make_file(io, start->log_segment + i, start->segment_bytes, &fatal);

        if (r < 0)
            return r;
    }
    return io_sync_dir(io, "wal");
}

// Notes a file in wal/ that the log no longer needs; rising, whatever the order of the directory.
static int note_old_segment(void *arg, const char *name)
{
    struct wal *wal = arg;
    uint64_t number;

    if (!wal_segment_number(name, &number) || number >= wal->start.log_segment)
        return 0;
    struct wal_segment *segment = segment_new(number);
    if (!segment)
        return -ENOMEM;
    struct list *at = &wal->used;
    while (at->prev != &wal->used &&
           list_entry(at->prev, struct wal_segment, link)->number > number)
        at = at->prev;
    list_insert_before(at, &segment->link);
    return 0;
}

int wal_segments_open(struct wal *wal)
{
    for (uint64_t i = 0; i < 2; i++) {
        struct wal_segment *segment = segment_new(wal->start.log_segment + i);

        if (!segment)
            return -ENOMEM;
        list_append(&wal->standby, &segment->link);
        wal->standby_count++;
        int r = open_log_file(wal->io, segment, wal->segment_bytes);
        if (r < 0)
            return r;
    }
    wal->first_segment = wal->start.log_segment;
    wal->last_segment = wal->start.log_segment + 1;
    return io_list(wal->io, "wal", note_old_segment, wal);
}

static void destroy_all(struct list *segments)
{
    while (!list_empty(segments)) {
        struct wal_segment *segment = list_entry(segments->next, struct wal_segment, link);

        list_remove(&segment->link);
        wal_segment_destroy(segment);
    }
}

void wal_segments_close(struct wal *wal)
{
    destroy_all(&wal->used);
    destroy_all(&wal->pool);
    destroy_all(&wal->standby);
    wal->current = wal_segment_destroy(wal->current);
}

// Segments that exist from the first one needed to the last standby.
static uint64_t chain_count_locked(const struct wal *wal)
{
    return wal->last_segment - wal->first_segment + 1;
}

bool wal_segments_short_locked(const struct wal *wal)
{
    if (wal->failed || wal->standby_count >= WAL_STANDBY_TARGET)
        return false;
    // A waiting flush comes before the bound: the checkpoint that shortens the log waits for it.
    return chain_count_locked(wal) < wal->segments_max || wal->stuck;
}

// Takes a segment from the pool, NULL when it is empty.
static struct wal_segment *pool_take_locked(struct wal *wal)
{
    if (list_empty(&wal->pool))
        return NULL;
    struct wal_segment *segment = list_entry(wal->pool.next, struct wal_segment, link);
    list_remove(&segment->link);
    wal->pool_count--;
    return segment;
}

// Closes segments that are full, which wal_write_locked() leaves open because closing may take
// time.
static void close_used_locked(struct wal *wal)
{
    bool again = true;

    while (again) {
        again = false;
        list_for_each (pos, &wal->used) {
            struct wal_segment *segment = list_entry(pos, struct wal_segment, link);
            struct io_file *file = segment->file;

            if (!file)
                continue;
            segment->file = NULL;
            af_unlock(&wal->lock);
            io_file_close(file);
            af_lock(&wal->lock);
            again = true; // the list may have changed
            break;
        }
    }
}

// Removes what the pool holds beyond the bound: segments of a log that was larger.
static void shrink_pool_locked(struct wal *wal)
{
    while (wal->pool_count > 0 && wal->pool_count + chain_count_locked(wal) > wal->segments_max) {
        struct wal_segment *segment = pool_take_locked(wal);
        char path[32];

        af_unlock(&wal->lock);
        wal_segment_path(segment->number, path);
        wal_segment_destroy(segment);
        (void)io_unlink(wal->io, path); // one that stays is found at the next open
        af_lock(&wal->lock);
    }
}

// Makes segment `number` ready: from `old` if there is one (consumed), else anew. Without locks.
static int make_standby(struct wal *wal, uint64_t number, struct wal_segment *old,
                        struct wal_segment **ret_segment, bool *ret_fatal)
{
    struct io *io = wal->io;
    struct wal_segment *segment = segment_new(number);
    int r = segment ? 0 : -ENOMEM;

    if (r == 0 && old) {
        r = recycle_file(io, old, number, wal->segment_bytes, ret_fatal);
        if (r < 0 && !*ret_fatal) {
            // Of no use, so it must not take up space either.
            char path[32];

            wal_segment_path(old->number, path);
            (void)io_unlink(io, path);
        }
    } else if (r == 0) {
        r = make_file(io, number, wal->segment_bytes, ret_fatal);
    }
    wal_segment_destroy(old);
    if (r == 0) {
        r = io_sync_dir(io, "wal");
        *ret_fatal = r < 0;
    }
    if (r == 0)
        r = open_log_file(io, segment, wal->segment_bytes);
    if (r < 0) {
        wal_segment_destroy(segment);
        return r;
    }
    *ret_segment = segment;
    return 0;
}

// Makes one more standby segment. Drops the lock meanwhile.
static int add_standby_locked(struct wal *wal)
{
    struct wal_segment *segment = NULL;
    uint64_t number = wal->last_segment + 1;
    struct wal_segment *old = pool_take_locked(wal);
    bool recycled = old != NULL;
    bool fatal = false;
    int last_error = wal->prepare_error; // what is tried again and again is told once

    af_unlock(&wal->lock);
    int r = make_standby(wal, number, old, &segment, &fatal);
    if (r == 0 && !recycled)
        message(&wal->config.sink, MESSAGE_INFO, "log segment %016llx made",
                (unsigned long long)number);
    else if (r < 0 && !fatal && (recycled || r != last_error)) // `fatal` has its own message
        message(&wal->config.sink, MESSAGE_WARNING,
                "log segment %016llx could not be %s: %s (%s)%s", (unsigned long long)number,
                recycled ? "made of an old one" : "made", err_text(r), err_name(r),
                recycled ? "; it is dropped, and another takes its place" : "");
    af_lock(&wal->lock);
    if (r < 0) {
        // A failed sync says that nobody knows what is on disk; and without a segment the waiting
        // flush can never be.
        if (fatal || (wal->stuck && !recycled))
            wal_fail_locked(wal, r, fatal ? "sync of a log segment" : "a new log segment");
        return r;
    }
    list_append(&wal->standby, &segment->link);
    wal->standby_count++;
    wal->last_segment = number;
    return 0;
}

int wal_refill(struct wal *wal)
{
    int r = 0;

    af_lock(&wal->lock);
    while (wal->preparing)
        af_cond_wait(&wal->cond, &wal->lock);
    wal->preparing = true;
    close_used_locked(wal);
    if (!wal->failed)
        shrink_pool_locked(wal);
    while (wal_segments_short_locked(wal)) {
        bool recycling = !list_empty(&wal->pool);

        r = add_standby_locked(wal);
        // One that cannot be recycled is dropped; the next one, or a new one, may do.
        if (r < 0 && (!recycling || wal->failed))
            break;
        wal_flush_locked(wal); // it may have waited for this
        r = 0;
    }
    if (wal->failed)
        r = -AF_E_LOG_FAILED;
    wal->prepare_error = r;
    wal->prepare_failed_ms = wal->io->ops->ticks_ms(wal->io);
    wal->need_pending = false;
    wal->preparing = false;
    af_cond_broadcast(&wal->cond);
    af_unlock(&wal->lock);
    wal_deliver(wal);
    return r;
}

int wal_prepare_segments(struct wal *wal)
{
    return wal_refill(wal);
}

void wal_set_need_segments(struct wal *wal, void (*need)(void *arg), void *arg)
{
    af_lock(&wal->lock);
    wal->need = need;
    wal->need_arg = arg;
    af_unlock(&wal->lock);
}

void wal_trim(struct wal *wal, uint64_t sequence, uint64_t cut_lsn, uint64_t log_segment)
{
    af_lock(&wal->lock);
    AF_ASSERT(cut_lsn <= wal->durable_lsn && cut_lsn >= wal->published_cut);
    AF_ASSERT(sequence >= wal->sequence && log_segment >= wal->first_segment);
    AF_ASSERT(log_segment <= (wal->current ? wal->current->number : wal->start.log_segment));
    wal->published_cut = cut_lsn;
    wal->sequence = sequence;
    wal->first_segment = log_segment;
    list_for_each_safe (pos, &wal->used) {
        struct wal_segment *segment = list_entry(pos, struct wal_segment, link);

        if (segment->number < log_segment) {
            list_remove(&segment->link);
            list_append(&wal->pool, &segment->link);
            wal->pool_count++;
        }
    }
    if (wal_segments_short_locked(wal))
        wal->need_pending = true;
    af_unlock(&wal->lock);
}
