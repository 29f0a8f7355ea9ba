// SPDX-License-Identifier: MIT
// The store's lock, the resolution of faults, and its state as status shows it.

#include "store/store.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "store/store_internal.h"

#define FAULT_ROUNDS_MAX 1000000u // a bound on what can only be a bug
#define EVICT_AT_ONCE    64

void store_lock(struct store *s)
{
    af_lock(&s->lock);
}

void store_unlock(struct store *s)
{
    bool signal = s->signal;

    s->signal = false;
    cache_evict(&s->cache, EVICT_AT_ONCE);
    af_unlock(&s->lock);
    if (signal && s->config.pressure)
        s->config.pressure(s->config.arg);
}

struct timespec store_now(struct store *s)
{
    uint64_t ns = s->config.io->ops->now_ns(s->config.io);

    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
                             .tv_nsec = (long)(ns % 1000000000u)};
}

int store_writable(struct store *s)
{
    if (s->failed)
        return -AF_E_READ_ONLY;
    return s->config.read_only || !s->wal ? -AF_E_READ_ONLY : 0;
}

// ---- bounds of dirty memory ----

// Half of the cache may wait for a checkpoint, and no more than the reserve of space has room for:
// what is dirty now, what a checkpoint under way has frozen, and what both have replaced and cannot
// be used yet.
size_t store_dirty_hard(const struct store *s)
{
    size_t by_cache = s->cache.budget_blocks / 2;
    size_t by_space = (size_t)space_reserve_blocks(s->space) / 4;

    return AF_MAX(AF_MIN(by_cache, by_space), (size_t)128);
}

bool store_wants_checkpoint_locked(struct store *s)
{
    struct wal_stats w;

    if (!s->wal || s->frozen || !s->dirty)
        return false;
    if (s->cache.dirty_count > store_dirty_hard(s) / 2)
        return true;
    wal_get_stats(s->wal, &w);
    return w.log_bytes > w.log_bytes_max / 2;
}

bool store_wants_checkpoint(struct store *s)
{
    store_lock(s);
    bool wants = store_wants_checkpoint_locked(s);

    store_unlock(s);
    return wants;
}

bool store_needs_checkpoint(struct store *s)
{
    store_lock(s);
    bool needs = s->dirty;

    store_unlock(s);
    return needs;
}

// ---- faults ----

void fault_begin(struct fault *f)
{
    memset(f, 0, offsetof(struct fault, ahead));
}

static void fault_end(struct store *s, struct fault *f)
{
    if (f->pin_count > 0) {
        store_lock(s);
        for (unsigned i = 0; i < f->pin_count; i++)
            cache_unpin(&s->cache, f->pins[i]);
        store_unlock(s);
    }
    free(f->pins);
    f->pins = NULL;
    f->pin_count = f->pin_cap = 0;
}

// Pins what was read, so that the next attempt finds it.
static int fault_pin(struct store *s, struct fault *f, enum block_kind kind, uint8_t *bytes)
{
    if (f->pin_count == f->pin_cap) {
        unsigned cap = f->pin_cap ? 2 * f->pin_cap : 16;
        struct block **pins = realloc(f->pins, cap * sizeof(pins[0]));

        if (!pins) {
            free(bytes);
            return -ENOMEM;
        }
        f->pins = pins;
        f->pin_cap = cap;
    }
    store_lock(s);
    struct block *b = cache_insert(&s->cache, &f->ref, kind, f->level, bytes);

    if (b && cache_block_is(b, &f->ref, kind, f->level)) {
        cache_pin(&s->cache, b);
        f->pins[f->pin_count++] = b;
    } else if (b) { // of an earlier use of the address, pinned, by ourselves perhaps: let go, and
                    // try again
        while (f->pin_count > 0)
            cache_unpin(&s->cache, f->pins[--f->pin_count]);
    }
    store_unlock(s);
    return b ? 0 : -ENOMEM;
}

// What does not come is left to whoever asks for it by name. What is not what it should be is an
// error of whoever asks for it in this operation: a second, better reading would not make it sound.
static void fault_read_ahead(struct store *s, struct fault *f)
{
    for (unsigned i = 0; i < f->ahead_count; i++) {
        uint8_t *bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
        int err =
            bytes ? io_pread(s->config.data, bytes, BLOCK_BYTES, f->ahead[i].address * BLOCK_BYTES)
                  : -ENOMEM;

        if (err == 0)
            err = node_validate(bytes, &f->ahead[i], 0, s->tree.uuid);
        if (err < 0) {
            if (err_is_corruption(err) && f->bad_error == 0) {
                f->bad = f->ahead[i];
                f->bad_error = err;
                f->bad_found =
                    err == -AF_E_BLOCK_CHECKSUM ? checksum(CSUM_NODE, 0, bytes, BLOCK_BYTES) : 0;
            }
            free(bytes);
            continue;
        }
        store_lock(s);
        (void)cache_insert(&s->cache, &f->ahead[i], BLOCK_NODE, 0,
                           bytes); // without memory it is not kept
        store_unlock(s);
    }
    f->ahead_count = 0;
}

// Reads the block that was missed. A failure of the block is noted in the fault: it counts if it is
// asked for again.
static int fault_read(struct store *s, struct fault *f)
{
    uint8_t *bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
    int err;

    if (!bytes)
        return -ENOMEM;
    err = io_pread(s->config.data, bytes, BLOCK_BYTES, f->ref.address * BLOCK_BYTES);
    if (err == 0 && f->kind == FAULT_NODE)
        err = node_validate(bytes, &f->ref, f->level, s->tree.uuid);
    else if (err == 0 && checksum(CSUM_DATA, 0, bytes, BLOCK_BYTES) != f->ref.checksum)
        err = -AF_E_DATA_CHECKSUM;
    if (err < 0) {
        bool data = f->kind == FAULT_DATA;

        f->bad = f->ref;
        f->bad_error = err;
        f->bad_found = err == -AF_E_DATA_CHECKSUM || err == -AF_E_BLOCK_CHECKSUM
                           ? checksum(data ? CSUM_DATA : CSUM_NODE, 0, bytes, BLOCK_BYTES)
                           : 0;
        free(bytes);
        return 0;
    }
    err = fault_pin(s, f, f->kind == FAULT_NODE ? BLOCK_NODE : BLOCK_DATA, bytes);
    if (err == 0 && f->kind == FAULT_NODE && f->ahead_count > 0 && !s->no_read_ahead)
        fault_read_ahead(s, f);
    return err;
}

static int fault_wait(struct store *s, struct fault *f)
{
    if (f->kind == FAULT_SPACE && !f->reaping)
        reap_some(s, 4);
    if (s->failed)
        return -AF_E_LOG_FAILED;
    if (f->kind == FAULT_LOG &&
        !f->refilled) { // a fast writer may only be ahead of the disk, and of who makes segments
        int err = wal_prepare_segments(s->wal);

        if (err == 0)
            err = wal_wait(s->wal, wal_appended_lsn(s->wal));
        f->refilled = true;
        if (err == 0 || err == -AF_E_LOG_FAILED)
            return err; // other errors: no segment can be made now, so a checkpoint has to recycle
                        // some
    }
    f->refilled = false;
    return s->config.make_room ? s->config.make_room(s->config.arg) : -ENOSPC;
}

// The segments that it may still make, and one more for a recovery that finds all of them in use.
static void leave_host_for_the_log(struct store *s)
{
    struct wal_stats log;

    if (!s->wal)
        return;
    wal_get_stats(s->wal, &log);
    space_leave_host(s->space, &s->lock, log.missing_bytes + log.segment_bytes);
}

static int fault_serve(struct store *s, struct fault *f)
{
    int err;

    switch (f->kind) {
    case FAULT_NODE:
    case FAULT_DATA:
        return fault_read(s, f);
    case FAULT_GROUP:
        err = space_load_group(s->space, &s->lock, f->number);
        if (err < 0)
            message(
                &s->config.sink, MESSAGE_ERROR,
                "the space map of group %llu (blocks from %llu of data) cannot be read, so nothing is "
                "allocated there: %s (%s); `aerofs check` tells more",
                (unsigned long long)f->number, (unsigned long long)f->number * GROUP_BLOCKS,
                err_text(err), err_name(err));
        return err;
    case FAULT_GROW:
        leave_host_for_the_log(s);
        err = space_grow(s->space, &s->lock, f->number);
        if (err < 0 &&
            err != -ENOMEM) // the growth may not be durable: what is put there would not be either
            store_fail(s, err, "data cannot be extended");
        return err;
    case FAULT_SPACE:
        f->waits++;
        return fault_wait(s, f);
    case FAULT_LOG:
        return fault_wait(s, f);
    case FAULT_FROZEN:
        AF_ASSERT(s->config.await_checkpoint);
        s->config.await_checkpoint(s->config.arg);
        return s->failed ? -AF_E_LOG_FAILED : 0; // one that failed has left all frozen
    case FAULT_GATE:
        store_lock(s);
        while (s->gate)
            af_cond_wait(&s->gate_opened, &s->lock);
        store_unlock(s);
        return 0;
    case FAULT_SPILL:
        f->spills++;
        return spill_inode(s, f->number, 0);
    case FAULT_NONE:
        break;
    }
    AF_ASSERT(!"a fault without a kind");
    return -EIO;
}

// A block that is rotten for good, or an item: for status, and one line for the operator.
static void note_failure(struct store *s, const struct fault *f, int err)
{
    bool block = f->bad_error == err && f->bad.address != 0;

    if (!err_is_corruption(err) && !(block && err == -EIO))
        return;
    store_lock(s);
    s->errors++;
    if (block)
        store_damage_note(s,
                          &(struct store_damage){.code = err,
                                                 .address = f->bad.address,
                                                 .expected = f->bad_found ? f->bad.checksum : 0,
                                                 .found = f->bad_found},
                          NULL);
    store_unlock(s);
}

bool fault_resolve(struct store *s, struct fault *f, enum store_how how, int *r)
{
    if (*r == -AF_E_FAULT && how == STORE_NONBLOCK)
        *r = -AF_E_WOULD_BLOCK;
    if (*r == -AF_E_FAULT) {
        int err = ++f->rounds > FAULT_ROUNDS_MAX ? -EIO : fault_serve(s, f);

        f->kind = FAULT_NONE;
        if (err == 0)
            return true;
        *r = err;
    }
    if (*r < 0 && *r != -AF_E_WOULD_BLOCK)
        note_failure(s, f, *r);
    fault_end(s, f);
    return false;
}

// ---- failure ----

void store_fail(struct store *s, int error, const char *what)
{
    bool first;

    store_lock(s);
    first = s->failed == 0;
    if (first) {
        s->failed = error;
        snprintf(s->failed_what, sizeof(s->failed_what), "%s: %s", what, err_text(error));
    }
    store_unlock(s);
    if (first)
        message(
            &s->config.sink, MESSAGE_ERROR,
            "the store is read-only from now on: %s (%s): %s; nothing that was not acknowledged before is promised; "
            "unmount and mount again to recover",
            what, err_name(error), err_text(error));
}

void store_get_status(struct store *s, struct store_status *ret)
{
    struct space_stats sp;

    memset(ret, 0, sizeof(*ret));
    store_lock(s);
    if (s->wal)
        wal_get_stats(s->wal, &ret->wal);
    space_get_stats(s->space, &sp);
    ret->applied_lsn = s->applied_lsn;
    ret->checkpoint_lsn = s->checkpoint_lsn;
    ret->checkpoint_sequence = s->checkpoint_sequence;
    ret->generation = s->tree.generation;
    ret->cache_blocks = s->cache.block_count;
    ret->cache_dirty_blocks = s->cache.dirty_count + s->cache.frozen_count;
    ret->cache_budget_blocks = s->cache.budget_blocks;
    ret->cache_hits = s->cache.hits;
    ret->cache_misses = s->cache.misses;
    ret->pending_files = s->pending_count;
    ret->pending_bytes = s->pending_mem_blocks * BLOCK_BYTES;
    ret->open_files = s->open_files;
    ret->space_capacity_blocks = sp.capacity;
    ret->space_used_blocks = sp.used;
    ret->space_waiting_blocks = sp.waiting;
    ret->space_reserved_blocks = sp.reserved;
    ret->space_reserve_blocks = sp.reserve;
    ret->space_max_blocks = sp.max_blocks;
    ret->inodes = s->inodes;
    ret->orphans = s->reap_count;
    ret->snapshots = s->snapshots.count;
    ret->errors = s->errors;
    ret->failed = s->failed;
    memcpy(ret->failed_what, s->failed_what, sizeof(ret->failed_what));
    ret->read_only = s->config.read_only || s->failed;
    ret->damage_count = s->damage.count;
    ret->damage_unlisted = s->damage.unlisted;
    store_unlock(s);
}
