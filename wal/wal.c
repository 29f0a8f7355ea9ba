// SPDX-License-Identifier: MIT
// Opening and closing a log, cuts, numbers, and the work that may be late. See wal.h for the whole.
#include "wal/wal.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "wal/wal_internal.h"

static int check_config(const struct wal_config *config, const struct wal_start *start)
{
    if (start->segment_bytes % WAL_BLOCK != 0 || start->segment_bytes < 4 * WAL_BLOCK ||
        start->segment_bytes > UINT32_MAX || config->log_bytes / start->segment_bytes < 4 ||
        start->next_lsn == 0 || start->next_lsn <= start->cut_lsn)
        return -EINVAL;
    return 0;
}

// How a segment is divided: see the fields.
static void set_sizes(struct wal *wal)
{
    wal->segment_bytes = wal->start.segment_bytes;
    wal->segments_max = wal->config.log_bytes / wal->segment_bytes;
    wal->room_bytes = (size_t)wal->segment_bytes - WAL_BLOCK;
    size_t blocks = wal->room_bytes / WAL_BLOCK / 8;
    blocks = AF_MIN(AF_MAX(blocks, (size_t)1), (size_t)8);
    wal->reserve_bytes = blocks * WAL_BLOCK;
    // So a record of any size is a group alone and leaves the reserve free.
    AF_ASSERT(AF_ROUND_UP(wal_record_bytes(wal_body_max(wal)), (size_t)WAL_BLOCK) <=
              wal->room_bytes - wal->reserve_bytes);
    size_t half = AF_ROUND_DOWN((wal->room_bytes - wal->reserve_bytes) / 2, (size_t)WAL_BLOCK);
    wal->group_bytes_max = AF_MIN(half, (size_t)WAL_GROUP_BYTES_MAX);
}

int wal_open(const struct wal_config *config, const struct wal_start *start, struct wal **ret_wal)
{
    int r = check_config(config, start);

    if (r < 0)
        return r;
    struct wal *wal = calloc(1, sizeof(*wal));
    if (!wal)
        return -ENOMEM;
    wal->config = *config;
    wal->start = *start;
    wal->io = config->io;
    set_sizes(wal);
    af_mutex_init(&wal->lock, LOCK_RANK_WAL);
    af_cond_init(&wal->cond);
    list_init(&wal->queue);
    list_init(&wal->spares);
    list_init(&wal->used);
    list_init(&wal->pool);
    list_init(&wal->standby);
    list_init(&wal->waiters);
    // Nothing of this epoch exists, so everything below its first number counts as durable.
    wal->appended_lsn = start->next_lsn - 1;
    wal->sealed_lsn = wal->durable_lsn = wal->acked_lsn = wal->appended_lsn;
    wal->published_cut = start->cut_lsn;
    wal->chain_checksum = start->cut_checksum;
    wal->chain_lsn = start->cut_lsn;
    wal->chain_segment = start->log_segment;
    r = wal_segments_open(wal);
    if (r < 0) {
        wal_close(wal);
        return r;
    }
    *ret_wal = wal;
    return 0;
}

void wal_set_switches(struct wal *wal, struct switches switches)
{
    af_lock(&wal->lock);
    AF_ASSERT(!wal->have_switches);
    wal->have_switches = true;
    wal->alone = !switch_on(switches, SWITCH_GROUP_COMMIT);
    af_unlock(&wal->lock);
}

static void destroy_groups(struct list *groups)
{
    while (!list_empty(groups)) {
        struct wal_group *group = list_entry(groups->next, struct wal_group, link);

        list_remove(&group->link);
        wal_group_destroy(group);
    }
}

void wal_close(struct wal *wal)
{
    if (!wal)
        return;
    int r = 1;
    af_lock(&wal->lock);
    AF_ASSERT(!wal->pumping && !wal->preparing);
    wal->closing = true; // what is in flight may end, nothing new starts
    while (wal->state != WAL_IDLE && r > 0) {
        af_unlock(&wal->lock);
        r = io_reap(wal->io, true);
        af_lock(&wal->lock);
    }
    if (!wal->failed) {
        wal->failure_told = true; // it is none
        wal_fail_locked(wal, -ECANCELED, "closed");
    }
    af_unlock(&wal->lock);
    wal_deliver(wal);
    // The back end may still write from the buffer or run the callback; memory that it holds is let
    // go of, never freed. With 0 it holds nothing.
    if (r < 0)
        return;
    wal_group_destroy(wal->flying);
    destroy_groups(&wal->spares);
    wal_group_destroy(wal->prepared);
    wal_segments_close(wal);
    af_cond_destroy(&wal->cond);
    af_mutex_destroy(&wal->lock);
    free(wal);
}

size_t wal_body_max(const struct wal *wal)
{
    return AF_MIN(wal->room_bytes / 2, (size_t)WAL_BODY_MAX);
}

uint64_t wal_durable_lsn(struct wal *wal)
{
    af_lock(&wal->lock);
    uint64_t lsn = wal->durable_lsn;
    af_unlock(&wal->lock);
    return lsn;
}

uint64_t wal_appended_lsn(struct wal *wal)
{
    af_lock(&wal->lock);
    uint64_t lsn = wal->appended_lsn;
    af_unlock(&wal->lock);
    return lsn;
}

uint64_t wal_cut(struct wal *wal)
{
    af_lock(&wal->lock);
    uint64_t lsn = wal->appended_lsn;
    if (lsn < wal->start.next_lsn) {
        lsn = wal->start.cut_lsn; // no record of this epoch
    } else {
        struct wal_cut_note *note = &wal->cuts[wal->cut_next];

        // The same cut once more takes its old place.
        for (unsigned i = 0; i < WAL_CUTS; i++) {
            if (wal->cuts[i].lsn == lsn)
                note = &wal->cuts[i];
        }
        if (note->lsn != lsn)
            wal->cut_next = (wal->cut_next + 1) % WAL_CUTS;
        note->lsn = lsn;
        // Sealing fills these in when it has not passed the record yet.
        bool sealed = wal->sealed_lsn == lsn;
        note->checksum = sealed ? wal->chain_checksum : 0;
        note->segment = sealed ? wal->chain_segment : 0;
    }
    af_unlock(&wal->lock);
    return lsn;
}

void wal_cut_info(struct wal *wal, uint64_t cut_lsn, uint64_t *ret_checksum, uint64_t *ret_segment)
{
    bool found = false;

    af_lock(&wal->lock);
    AF_ASSERT(cut_lsn <= wal->durable_lsn); // K1
    if (cut_lsn < wal->start.next_lsn) {
        *ret_checksum = wal->start.cut_checksum;
        *ret_segment = wal->start.log_segment;
        found = true;
    }
    for (unsigned i = 0; i < WAL_CUTS && !found; i++) {
        if (wal->cuts[i].lsn != cut_lsn)
            continue;
        AF_ASSERT(wal->cuts[i].checksum != 0);
        *ret_checksum = wal->cuts[i].checksum;
        *ret_segment = wal->cuts[i].segment;
        found = true;
    }
    AF_ASSERT(found);
    af_unlock(&wal->lock);
}

static struct wal_group *oldest_group_locked(const struct wal *wal)
{
    if (list_empty(&wal->queue))
        return NULL;
    return list_entry(wal->queue.next, struct wal_group, link);
}

// Flushes what has waited long enough, or proves the last flush.
static void tick_locked(struct wal *wal, uint64_t now)
{
    struct wal_group *group = oldest_group_locked(wal);
    uint64_t lsn;

    if (wal->failed)
        return;
    if (group) {
        if (now >= group->opened_ms + WAL_LATE_MS)
            wal->want_lsn = wal->appended_lsn;
    } else if (wal->attest && wal->state == WAL_IDLE && now >= wal->flushed_ms + WAL_LATE_MS &&
               wal_placeable_locked(wal, WAL_RECORD_HEADER)) {
        // Without memory it comes with the next tick.
        if (wal_append_locked(wal, WAL_ATTESTATION, NULL, 0, 0, &lsn) == 0)
            wal->want_lsn = lsn;
    }
    wal_flush_locked(wal);
}

void wal_tick(struct wal *wal)
{
    uint64_t now = wal->io->ops->ticks_ms(wal->io);

    af_lock(&wal->lock);
    tick_locked(wal, now);
    bool prepare = wal_segments_short_locked(wal) &&
                   (wal->prepare_error == 0 || wal->stuck || !list_empty(&wal->pool) ||
                    now >= wal->prepare_failed_ms + WAL_RETRY_MS);
    bool pump = !wal->pump_owned && wal->state != WAL_IDLE;
    af_unlock(&wal->lock);
    if (prepare)
        (void)wal_refill(wal); // a failure is noted there, and tried again later
    if (pump)
        (void)wal_pump(wal, false); // a failure has failed the log
    else
        wal_deliver(wal);
}

bool wal_busy(struct wal *wal)
{
    af_lock(&wal->lock);
    bool busy = !list_empty(&wal->queue) || wal->state != WAL_IDLE || !list_empty(&wal->waiters) ||
                (wal->failed && !wal->failure_told) || (!wal->failed && wal->attest) ||
                wal_segments_short_locked(wal);
    af_unlock(&wal->lock);
    return busy;
}

void wal_get_stats(struct wal *wal, struct wal_stats *ret_stats)
{
    struct wal_stats stats;

    memset(&stats, 0, sizeof(stats));
    af_lock(&wal->lock);
    const struct wal_group *group = oldest_group_locked(wal);
    stats.appended_lsn = wal->appended_lsn;
    stats.sealed_lsn = wal->sealed_lsn;
    stats.durable_lsn = wal->durable_lsn;
    stats.cut_lsn = wal->published_cut;
    stats.epoch = wal->start.epoch;
    stats.first_segment = wal->first_segment;
    stats.current_segment = wal->current ? wal->current->number : wal->start.log_segment;
    stats.log_bytes =
        (stats.current_segment - stats.first_segment) * wal->segment_bytes + wal->offset;
    list_for_each (pos, &wal->queue)
        stats.log_bytes += list_entry(pos, struct wal_group, link)->used;
    // The last segment only is the successor of the one before.
    stats.log_bytes_max = (wal->segments_max - 1) * wal->segment_bytes;
    uint64_t existing = wal->last_segment - wal->first_segment + 1 + wal->pool_count;
    stats.missing_bytes =
        (wal->segments_max - AF_MIN(wal->segments_max, existing)) * wal->segment_bytes;
    stats.segment_bytes = wal->segment_bytes;
    stats.flushes = wal->flushes;
    stats.records = wal->records;
    stats.bytes_written = wal->bytes_written;
    stats.data_syncs = wal->data_syncs;
    stats.failed = wal->failed;
    stats.error = wal->error;
    stats.unflushed_since_ms = group ? group->opened_ms : 0;
    af_unlock(&wal->lock);
    *ret_stats = stats;
}
