// SPDX-License-Identifier: MIT
// From a finished write to acknowledgements: durable LSN, callbacks in order, the FAILED state,
// pumping.
//
// W1: callbacks run in LSN order, each when durable_lsn has reached it; wal_wait() returns only for
// what is covered by acked_lsn, so it does not overtake them. W5: wal_fail_locked() is the only way
// into FAILED and there is none out of it; a write that completes afterwards acknowledges nothing.
#include <stdio.h>

#include "base/check.h"
#include "base/err.h"
#include "wal/wal_internal.h"

void wal_fail_locked(struct wal *wal, int error, const char *what)
{
    AF_ASSERT(error < 0);
    if (wal->failed)
        return;
    wal->failed = true;
    wal->error = error;
    wal->stuck = false;
    wal->need_pending = false;
    (void)snprintf(wal->what, sizeof(wal->what), "%s", what); // a cut text is good enough
    while (!list_empty(&wal->queue)) {
        struct wal_group *group = list_entry(wal->queue.next, struct wal_group, link);

        list_remove(&group->link);
        wal_group_put_locked(wal, group);
    }
    af_cond_broadcast(&wal->cond);
}

// What is cheap to check after every completion.
static void check_numbers_locked(const struct wal *wal)
{
    // W2. A published cut of an earlier epoch lies below every number of this one.
    AF_ASSERT(wal->published_cut <= wal->durable_lsn);
    AF_ASSERT(wal->acked_lsn <= wal->durable_lsn);
    AF_ASSERT(wal->durable_lsn <= wal->sealed_lsn);
    AF_ASSERT(wal->sealed_lsn <= wal->appended_lsn);
    AF_ASSERT(wal->first_segment <= wal->last_segment);
    AF_ASSERT((wal->state == WAL_IDLE) == (wal->flying == NULL));
    if (wal->current) {
        AF_ASSERT(wal->current->number + wal->standby_count == wal->last_segment);
        AF_ASSERT(wal->first_segment <= wal->current->number);
        AF_ASSERT(wal->offset % WAL_BLOCK == 0 && wal->offset <= wal->segment_bytes);
    }
}

// Ends the flight. Returns the group when the log is still whole.
static struct wal_group *land_locked(struct wal *wal, int result, const char *what)
{
    struct wal_group *group = wal->flying;

    AF_ASSERT(group && wal->state != WAL_IDLE);
    if (!wal->failed && result >= 0)
        return group;
    wal->state = WAL_IDLE;
    wal->flying = NULL;
    wal_group_put_locked(wal, group);
    if (result < 0)
        wal_fail_locked(wal, result, what);
    return NULL;
}

void wal_sync_done(struct io_async *op, int result)
{
    struct wal *wal = op->arg;

    af_lock(&wal->lock);
    AF_ASSERT(wal->state == WAL_SYNCING_DATA);
    if (land_locked(wal, result, "sync of data")) {
        wal->synced_number = AF_MAX(wal->synced_number, wal->syncing_number);
        wal->data_syncs++;
        wal_write_locked(wal);
    }
    af_cond_broadcast(&wal->cond);
    af_unlock(&wal->lock);
}

void wal_write_done(struct io_async *op, int result)
{
    struct wal *wal = op->arg;

    af_lock(&wal->lock);
    AF_ASSERT(wal->state == WAL_WRITING);
    struct wal_group *group = land_locked(wal, result, "write of the log");
    if (group) {
        AF_ASSERT(group->last_lsn == wal->sealed_lsn && group->first_lsn == wal->durable_lsn + 1);
        wal->durable_lsn = group->last_lsn;
        wal->flushes++;
        wal->bytes_written += op->len;
        wal->attest = !group->attests_only;
        wal->flushed_ms = wal->io->ops->ticks_ms(wal->io);
        wal->state = WAL_IDLE;
        wal->flying = NULL;
        wal_group_put_locked(wal, group);
        wal_flush_locked(wal);
        check_numbers_locked(wal);
    }
    af_cond_broadcast(&wal->cond);
    af_unlock(&wal->lock);
}

// Takes what is to be called next out of the state: a waiter and its result, or NULL when there is
// none.
static struct wal_waiter *due_waiter_locked(struct wal *wal, int *ret_result)
{
    if (list_empty(&wal->waiters))
        return NULL;
    struct wal_waiter *w = list_entry(wal->waiters.next, struct wal_waiter, link);
    if (w->lsn <= wal->durable_lsn)
        *ret_result = 0;
    else if (wal->failed)
        *ret_result = -AF_E_LOG_FAILED;
    else
        return NULL;
    list_remove(&w->link);
    return w;
}

static void tell_failure(struct wal *wal)
{
    // Set once before `failed` and not changed afterwards.
    message(&wal->config.sink, MESSAGE_ERROR, "the log has failed (%s: %s); the store is read-only",
            wal->what, err_text(wal->error));
    if (wal->config.on_failure)
        wal->config.on_failure(wal->config.arg, wal->error, wal->what);
}

// One callback. Drops the lock around it. False when nothing is due.
static bool deliver_one_locked(struct wal *wal)
{
    struct wal_waiter *first =
        list_empty(&wal->waiters) ? NULL : list_entry(wal->waiters.next, struct wal_waiter, link);
    int result = 0;

    // The owner hears of the failure before any waiter does, and after those whose record is
    // durable.
    if (wal->failed && !wal->failure_told && (!first || first->lsn > wal->durable_lsn)) {
        wal->failure_told = true;
        af_unlock(&wal->lock);
        tell_failure(wal);
        af_lock(&wal->lock);
        return true;
    }
    struct wal_waiter *w = due_waiter_locked(wal, &result);
    if (w) {
        if (result == 0)
            wal->acked_lsn = AF_MAX(wal->acked_lsn, w->lsn - 1);
        af_unlock(&wal->lock);
        w->done(w, result); // may free it
        af_lock(&wal->lock);
        return true;
    }
    wal->acked_lsn = AF_MAX(wal->acked_lsn, wal->durable_lsn);
    if (wal->need_pending && wal->need && !wal->preparing) {
        void (*need)(void *arg) = wal->need;
        void *arg = wal->need_arg;

        wal->need_pending = false;
        af_unlock(&wal->lock);
        need(arg);
        af_lock(&wal->lock);
        return true;
    }
    return false;
}

void wal_deliver(struct wal *wal)
{
    af_lock(&wal->lock);
    if (!wal->delivering) {
        wal->delivering = true;
        while (deliver_one_locked(wal))
            ;
        wal->delivering = false;
        af_cond_broadcast(&wal->cond);
    }
    af_unlock(&wal->lock);
}

int wal_wait_async(struct wal *wal, struct wal_waiter *w)
{
    int r = 0;

    af_lock(&wal->lock);
    AF_ASSERT(w->lsn <= wal->appended_lsn);
    if (w->lsn <= wal->acked_lsn) {
        r = 1;
    } else if (wal->failed && w->lsn > wal->durable_lsn) {
        r = -AF_E_LOG_FAILED;
    } else {
        struct list *at = &wal->waiters;

        // Nearly always the newest comes last. Equal ones keep the order in which they came.
        while (at->prev != &wal->waiters &&
               list_entry(at->prev, struct wal_waiter, link)->lsn > w->lsn)
            at = at->prev;
        list_insert_before(at, &w->link);
    }
    af_unlock(&wal->lock);
    return r;
}

void wal_kick(struct wal *wal, bool all)
{
    af_lock(&wal->lock);
    if (all)
        wal->want_lsn = wal->appended_lsn;
    wal_flush_locked(wal);
    af_unlock(&wal->lock);
}

// Reaps once, as the only one. The caller has set `pumping`.
static int pump_once(struct wal *wal, bool wait)
{
    int r = io_reap(wal->io, wait);

    if (r < 0) {
        af_lock(&wal->lock);
        wal_fail_locked(wal, r, "completion of I/O");
        af_unlock(&wal->lock);
    }
    wal_deliver(wal);
    af_lock(&wal->lock);
    wal->pumping = false;
    af_cond_broadcast(&wal->cond);
    af_unlock(&wal->lock);
    return r;
}

int wal_pump(struct wal *wal, bool wait)
{
    af_lock(&wal->lock);
    if (wal->pumping) {
        while (wait && wal->pumping)
            af_cond_wait(&wal->cond, &wal->lock);
        af_unlock(&wal->lock);
        return 0;
    }
    wal->pumping = true;
    wait = wait && wal->state != WAL_IDLE;
    af_unlock(&wal->lock);
    return pump_once(wal, wait);
}

void wal_pump_own(struct wal *wal, bool own)
{
    af_lock(&wal->lock);
    AF_ASSERT(wal->pump_owned != own);
    // A thread in wal_wait() that pumps finishes its turn and sees then that it need not.
    wal->pump_owned = own;
    wal->pump_owner = pthread_self();
    while (own && wal->pumping)
        af_cond_wait(&wal->cond, &wal->lock);
    af_cond_broadcast(&wal->cond);
    af_unlock(&wal->lock);
}

// One turn of the thread that pumps for all that wait.
static void lead_locked(struct wal *wal)
{
    bool stuck = wal->stuck;
    bool wait = wal->state != WAL_IDLE;

    wal->pumping = true;
    af_unlock(&wal->lock);
    // Nobody else may be there to make the segment. A failure fails the log, so this does not spin.
    if (stuck)
        (void)wal_refill(wal);
    (void)pump_once(wal, wait && !stuck);
    af_lock(&wal->lock);
}

int wal_wait(struct wal *wal, uint64_t lsn)
{
    int r = 0;

    af_lock(&wal->lock);
    AF_ASSERT(lsn <= wal->appended_lsn);
    while (wal->acked_lsn < lsn) {
        if (wal->failed && lsn > wal->durable_lsn) {
            r = -AF_E_LOG_FAILED;
            break;
        }
        wal->want_lsn = AF_MAX(wal->want_lsn, lsn);
        wal_flush_locked(wal);
        bool others = wal->pump_owned && !pthread_equal(wal->pump_owner, pthread_self());
        if (others || wal->pumping)
            af_cond_wait(&wal->cond, &wal->lock);
        else
            lead_locked(wal);
    }
    af_unlock(&wal->lock);
    if (r < 0)
        wal_deliver(wal); // the owner hears of it first
    return r;
}

static void check_lists_locked(const struct wal *wal)
{
    const struct wal_group *group;
    uint64_t lsn = wal->sealed_lsn;
    uint64_t before = 0;

    list_for_each (pos, &wal->waiters) {
        const struct wal_waiter *w = list_entry(pos, struct wal_waiter, link);

        AF_ASSERT(w->lsn >= before && w->lsn > wal->acked_lsn);
        before = w->lsn;
    }
    if (wal->failed) {
        AF_ASSERT(list_empty(&wal->queue));
        return;
    }
    if (wal->state == WAL_SYNCING_DATA) {
        AF_ASSERT(wal->flying->first_lsn == lsn + 1);
        lsn = wal->flying->last_lsn;
    }
    list_for_each (pos, &wal->queue) {
        group = list_entry(pos, struct wal_group, link);
        AF_ASSERT(group->first_lsn == lsn + 1 && group->last_lsn >= group->first_lsn);
        lsn = group->last_lsn;
    }
    AF_ASSERT(lsn == wal->appended_lsn);
}

void wal_check_state(struct wal *wal)
{
    af_lock(&wal->lock);
    check_numbers_locked(wal);
    check_lists_locked(wal);
    af_unlock(&wal->lock);
}
