// SPDX-License-Identifier: MIT
// From a record to a started write: groups in memory, their place in the segments, sealing. Records
// gather in the open group while another one flies; a flush takes the oldest group whole, so
// whoever appended before it was taken is acknowledged by it (group commit), whoever came later is
// not.
//
// W2: appended >= sealed is moved here. A sealed buffer is immutable until its completion. W4: the
// salt goes in at sealing, when the segment is known.
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "wal/wal_internal.h"

struct wal_group *wal_group_create(size_t bytes)
{
    struct wal_group *group = calloc(1, sizeof(*group));
    void *buf;

    if (!group)
        return NULL;
    group->cap = WAL_BLOCK + AF_ROUND_UP(bytes, (size_t)WAL_BLOCK);
    if (posix_memalign(&buf, WAL_BLOCK, group->cap) != 0) {
        free(group);
        return NULL;
    }
    group->buf = buf;
    list_init(&group->link);
    return group;
}

struct wal_group *wal_group_destroy(struct wal_group *group)
{
    if (group) {
        AF_ASSERT(list_empty(&group->link));
        free(group->buf);
        free(group);
    }
    return NULL;
}

// Keeps the buffer for the next group. Oversized ones, made for one large record, go.
void wal_group_put_locked(struct wal *wal, struct wal_group *group)
{
    if (wal->spare_count >= WAL_SPARES_MAX || group->cap > WAL_BLOCK + wal->group_bytes_max) {
        wal_group_destroy(group);
        return;
    }
    list_prepend(&wal->spares, &group->link);
    wal->spare_count++;
}

static size_t group_room(const struct wal_group *group)
{
    return group->cap - WAL_BLOCK - group->used;
}

static bool group_grow(struct wal_group *group, size_t bytes)
{
    size_t cap = WAL_BLOCK + AF_ROUND_UP(bytes, (size_t)WAL_BLOCK);
    void *buf;

    if (posix_memalign(&buf, WAL_BLOCK, cap) != 0)
        return false;
    memcpy((uint8_t *)buf + WAL_BLOCK, group->buf + WAL_BLOCK, group->used);
    free(group->buf);
    group->buf = buf;
    group->cap = cap;
    return true;
}

// What a fresh buffer holds at least.
static size_t group_least(const struct wal *wal, size_t bytes)
{
    if (wal->alone)
        return bytes;
    return AF_MAX(bytes, AF_MIN(wal->group_bytes_max, (size_t)WAL_GROUP_BYTES_MIN));
}

// A fresh buffer for at least `bytes`: a spare, a new one, or the prepared one.
static struct wal_group *group_take_locked(struct wal *wal, size_t bytes, bool may_use_prepared)
{
    struct wal_group *group = NULL;

    if (!list_empty(&wal->spares)) {
        group = list_entry(wal->spares.next, struct wal_group, link);
        list_remove(&group->link);
        wal->spare_count--;
        if (group->cap - WAL_BLOCK < bytes)
            group = wal_group_destroy(group);
    }
    if (!group)
        group = wal_group_create(group_least(wal, bytes));
    if (!group && may_use_prepared && wal->prepared && wal->prepared->cap - WAL_BLOCK >= bytes) {
        group = wal->prepared;
        wal->prepared = NULL;
    }
    return group;
}

// The group that a record of `bytes` (header and padding included) goes to; opened if need be.
static struct wal_group *group_for_locked(struct wal *wal, size_t bytes, bool may_use_prepared)
{
    struct wal_group *group;

    if (!list_empty(&wal->queue) && !wal->alone) {
        group = list_entry(wal->queue.prev, struct wal_group, link);
        if (group->used + bytes <= wal->group_bytes_max) {
            size_t cap = AF_MAX(group->used + bytes, 2 * (group->cap - WAL_BLOCK));

            if (group_room(group) >= bytes || group_grow(group, AF_MIN(cap, wal->group_bytes_max)))
                return group;
        }
    }
    group = group_take_locked(wal, bytes, may_use_prepared);
    if (!group)
        return NULL;
    group->used = 0;
    group->first_lsn = wal->appended_lsn + 1;
    group->last_lsn = wal->appended_lsn;
    group->data_number = 0;
    group->attests_only = true;
    group->opened_ms = AF_MAX(wal->io->ops->ticks_ms(wal->io), 1u); // 0 means: none
    list_append(&wal->queue, &group->link);
    return group;
}

int wal_append_locked(struct wal *wal, enum wal_type type, const void *body, size_t body_bytes,
                      uint64_t data_number, uint64_t *ret_lsn)
{
    if (wal->failed)
        return -AF_E_LOG_FAILED;
    if (body_bytes > wal_body_max(wal))
        return -AF_E_LOG_TOO_BIG;
    // The next epoch skips 2^20 numbers, which must be more than a crash can lose.
    AF_ASSERT(wal->appended_lsn - wal->durable_lsn < WAL_OUTSTANDING_HARD - 1);

    size_t bytes = wal_record_bytes(body_bytes);
    struct wal_group *group = group_for_locked(wal, bytes, type != WAL_ATTESTATION);
    if (!group)
        return -ENOMEM;
    wal->appended_lsn++;
    wal_record_put(group->buf + WAL_BLOCK + group->used, wal->appended_lsn, type, group->used == 0,
                   body, body_bytes);
    group->used += bytes;
    group->last_lsn = wal->appended_lsn;
    group->data_number = AF_MAX(group->data_number, data_number);
    if (type != WAL_ATTESTATION)
        group->attests_only = false;
    wal->records++;
    *ret_lsn = wal->appended_lsn;
    return 0;
}

int wal_append(struct wal *wal, enum wal_type type, const void *body, size_t body_bytes,
               uint64_t data_number, uint64_t *ret_lsn)
{
    af_lock(&wal->lock);
    int r = wal_append_locked(wal, type, body, body_bytes, data_number, ret_lsn);
    af_unlock(&wal->lock);
    return r;
}

int wal_prepare(struct wal *wal, size_t bytes)
{
    size_t need = wal_record_bytes(bytes);
    int r = 0;

    if (bytes > wal_body_max(wal))
        return -AF_E_LOG_TOO_BIG;
    af_lock(&wal->lock);
    // A large one is not kept for ever.
    bool fits = wal->prepared && wal->prepared->cap - WAL_BLOCK >= need;
    bool large = wal->prepared && wal->prepared->cap > WAL_BLOCK + wal->group_bytes_max;
    if (!fits || (large && need <= wal->group_bytes_max)) {
        struct wal_group *group = wal_group_create(group_least(wal, need));

        if (group) {
            wal_group_destroy(wal->prepared);
            wal->prepared = group;
        } else if (!fits) {
            r = -ENOMEM;
        }
    }
    af_unlock(&wal->lock);
    return r;
}

static size_t padded(size_t bytes)
{
    return AF_ROUND_UP(bytes, (size_t)WAL_BLOCK);
}

// Where the groups in memory will lie at the latest: bytes used of a segment's room, and how many
// more segments can be begun after it. Returns false when they overrun what exists already. The
// reserve is left out of every segment, so a marker or attestation slipping in between moves
// nothing further.
static bool room_after_queue_locked(struct wal *wal, size_t limit, size_t *ret_used,
                                    size_t *ret_left)
{
    // The last standby only serves as the successor of the one before it.
    size_t left = wal->standby_count > 0 ? wal->standby_count - 1 : 0;
    size_t used = wal->current ? (size_t)(wal->offset - WAL_BLOCK) : wal->room_bytes;
    const struct wal_group *unplaced = wal->state == WAL_SYNCING_DATA ? wal->flying : NULL;
    struct list *pos = &wal->queue;

    for (;;) {
        size_t bytes = 0;

        if (unplaced) {
            bytes = padded(unplaced->used);
            unplaced = NULL;
        } else {
            pos = pos->next;
            if (pos == &wal->queue)
                break;
            bytes = padded(list_entry(pos, struct wal_group, link)->used);
        }
        if (used + bytes > limit) {
            if (left == 0)
                return false;
            left--;
            used = 0;
        }
        used += bytes;
    }
    *ret_used = used;
    *ret_left = left;
    return true;
}

// Whether `records` records with `bytes` of bodies fit, whichever way they will be grouped.
static bool room_locked(struct wal *wal, size_t records, size_t bytes)
{
    const size_t limit = wal->room_bytes - wal->reserve_bytes;
    size_t used, left;

    const uint64_t outstanding = wal->alone ? 4 * WAL_ALONE_MAX : WAL_OUTSTANDING_MAX;

    if (wal->appended_lsn - wal->durable_lsn + records > outstanding)
        return false;
    if (!room_after_queue_locked(wal, limit, &used, &left))
        return false;
    if (bytes > limit * (left + 1))
        return false;
    // At worst each record is a group of its own.
    size_t worst = records == 1 ? padded(wal_record_bytes(bytes))
                                : bytes + records * (wal_record_bytes(0) + WAL_ALIGN + WAL_BLOCK);
    if (used + worst <= limit)
        return true;
    if (left == 0)
        return false;
    // One record moves to the next segment, alone or with the open group that it joined, which is
    // small then.
    if (records == 1)
        return worst <= limit;
    // The open group may grow and move as a whole; every segment but the last may waste the size of
    // a group.
    if (!list_empty(&wal->queue))
        worst += padded(list_entry(wal->queue.prev, struct wal_group, link)->used);
    size_t waste = AF_MIN(limit, AF_MAX(wal->group_bytes_max, worst));
    return worst <= (left - 1) * (limit - waste) + limit;
}

// What is to be flushed unasked, so that memory stays bounded: all full groups.
static uint64_t full_lsn_locked(const struct wal *wal)
{
    if (wal->alone)
        return AF_MAX(wal->appended_lsn, WAL_ALONE_MAX) - WAL_ALONE_MAX;
    if (list_empty(&wal->queue))
        return 0;
    return list_entry(wal->queue.prev, struct wal_group, link)->first_lsn - 1;
}

bool wal_has_room(struct wal *wal, size_t records, size_t bytes)
{
    af_lock(&wal->lock);
    bool room = wal->failed || room_locked(wal, records, bytes);
    if (!room) {
        wal->want_lsn = wal->appended_lsn;
        if (wal_segments_short_locked(wal))
            wal->need_pending = true;
    } else {
        wal->want_lsn = AF_MAX(wal->want_lsn, full_lsn_locked(wal));
    }
    wal_flush_locked(wal);
    af_unlock(&wal->lock);
    return room;
}

bool wal_placeable_locked(const struct wal *wal, size_t bytes)
{
    if (wal->current && wal->offset + padded(bytes) <= wal->segment_bytes)
        return true;
    return wal->standby_count >= 2; // the next one and its successor
}

// Highest LSN that somebody waits for or that was asked to be flushed.
static uint64_t wanted_lsn_locked(const struct wal *wal)
{
    uint64_t lsn = wal->want_lsn;

    if (!list_empty(&wal->waiters))
        lsn = AF_MAX(lsn, list_entry(wal->waiters.prev, struct wal_waiter, link)->lsn);
    return lsn;
}

void wal_flush_locked(struct wal *wal)
{
    if (wal->failed || wal->closing || wal->state != WAL_IDLE || list_empty(&wal->queue))
        return;
    struct wal_group *group = list_entry(wal->queue.next, struct wal_group, link);
    if (group->first_lsn > wanted_lsn_locked(wal))
        return;
    wal->stuck = !wal_placeable_locked(wal, group->used);
    if (wal->stuck) {
        wal->need_pending = true;
        return;
    }
    list_remove(&group->link);
    wal->flying = group;
    // A sync for an earlier group covers what was written by then; without group commit it is not
    // shared.
    if (group->data_number == 0 || (group->data_number <= wal->synced_number && !wal->alone)) {
        wal_write_locked(wal);
        return;
    }

    wal->syncing_number = wal->config.data_written(wal->config.arg);
    AF_ASSERT(wal->syncing_number >= group->data_number);
    wal->state = WAL_SYNCING_DATA;
    wal->op = (struct io_async){
        .kind = IO_OP_SYNC, .file = wal->config.data_file, .done = wal_sync_done, .arg = wal};
    int r = io_start(wal->io, &wal->op);
    if (r < 0) {
        wal->state = WAL_IDLE;
        wal->flying = NULL;
        wal_group_put_locked(wal, group);
        wal_fail_locked(wal, r, "start of a data sync");
    }
}

static void activate_locked(struct wal *wal)
{
    AF_ASSERT(wal->standby_count >= 2);
    if (wal->current)
        list_append(&wal->used, &wal->current->link);
    wal->current = list_entry(wal->standby.next, struct wal_segment, link);
    list_remove(&wal->current->link);
    wal->standby_count--;
    wal->offset = 0;
    if (wal_segments_short_locked(wal))
        wal->need_pending = true;
}

// Fills in what only now is known of the group's records, in order, and moves the chain on.
static void seal_locked(struct wal *wal, struct wal_group *group)
{
    const uint64_t segment = wal->current->number;
    const uint64_t salt = wal_format_salt(wal->start.log_seed, wal->start.epoch, segment);
    uint8_t *at = group->buf + WAL_BLOCK;
    uint8_t *end = at + group->used;

    for (uint64_t lsn = group->first_lsn; lsn <= group->last_lsn; lsn++) {
        const struct wal_disk_record *disk = (const struct wal_disk_record *)at;

        AF_ASSERT(at < end && le64_get(disk->lsn) == lsn);
        wal->chain_checksum = wal_record_seal(at, salt, wal->durable_lsn, wal->chain_checksum);
        for (unsigned i = 0; i < WAL_CUTS; i++) {
            if (wal->cuts[i].lsn == lsn) {
                wal->cuts[i].checksum = wal->chain_checksum;
                wal->cuts[i].segment = segment;
            }
        }
        at += wal_record_bytes(le32_get(disk->body_bytes));
    }
    AF_ASSERT(at == end);
    memset(end, 0, padded(group->used) - group->used);
    wal->chain_lsn = group->last_lsn;
    wal->chain_segment = segment;
    wal->sealed_lsn = group->last_lsn;
}

void wal_write_locked(struct wal *wal)
{
    struct wal_group *group = wal->flying;
    const uint64_t prev_checksum = wal->chain_checksum;
    const size_t bytes = padded(group->used);

    AF_ASSERT(group->first_lsn == wal->sealed_lsn + 1);
    if (!wal->current || wal->offset + bytes > wal->segment_bytes)
        activate_locked(wal);
    const bool first = wal->offset == 0;
    if (first) {
        struct wal_segment_info info = {
            .segment = wal->current->number,
            .epoch = wal->start.epoch,
            .first_lsn = group->first_lsn,
            .prev_lsn = wal->chain_lsn,
            .prev_checksum = prev_checksum,
            .durable_lsn = wal->durable_lsn,
            .sequence = wal->sequence,
            .segment_bytes = wal->segment_bytes,
            .log_seed = wal->start.log_seed,
        };

        memcpy(info.uuid, wal->start.uuid, sizeof(info.uuid));
        wal_segment_encode(group->buf, &info);
    }
    seal_locked(wal, group);

    wal->state = WAL_WRITING;
    wal->op = (struct io_async){
        .kind = IO_OP_WRITE_DURABLE,
        .file = wal->current->file,
        .bytes = first ? group->buf : group->buf + WAL_BLOCK,
        .len = first ? WAL_BLOCK + bytes : bytes,
        .off = wal->offset,
        .done = wal_write_done,
        .arg = wal,
    };
    wal->offset += wal->op.len;
    AF_ASSERT(wal->offset <= wal->segment_bytes);
    int r = io_start(wal->io, &wal->op);
    if (r < 0) {
        wal->state = WAL_IDLE;
        wal->flying = NULL;
        wal_group_put_locked(wal, group);
        wal_fail_locked(wal, r, "start of a log write");
    }
}
