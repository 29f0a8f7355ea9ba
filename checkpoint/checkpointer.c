// SPDX-License-Identifier: MIT
// The checkpoint thread and what it shares with callers that wait for a checkpoint
// (checkpointer.h).
//
// How the thread sleeps:   work is waiting for a tick (wal_busy, store_busy)   BUSY_MS
//                          nothing is                                          IDLE_MS, or until
//                          kicked
// A kick ends the sleep, but not before PAUSE_MS have gone by since the last round: under load
// every operation may kick. The idle period bounds what a kick that never came would cost: an
// operation that nobody waits for is still flushed within the second that the contract gives it
// (C4).

#include "checkpoint/checkpointer.h"

#include <errno.h>

#include "base/check.h"
#include "base/err.h"

#define BUSY_MS  200u
#define IDLE_MS  400u
#define PAUSE_MS 10u

static uint64_t ticks(const struct checkpointer *p)
{
    struct io *io = p->checkpoint->io;

    return io->ops->ticks_ms(io);
}

void checkpointer_init(struct checkpointer *p, struct checkpoint *c,
                       const struct message_sink *sink)
{
    *p = (struct checkpointer){.checkpoint = c, .sink = *sink};
    atomic_init(&p->kicked, false);
    atomic_init(&p->want_segments, false);
    af_mutex_init(&p->lock, LOCK_RANK_CKPT);
    af_cond_init(&p->wake);
    af_cond_init(&p->done);
}

void checkpointer_destroy(struct checkpointer *p)
{
    AF_ASSERT(!p->have_thread && !p->running);
    af_cond_destroy(&p->wake);
    af_cond_destroy(&p->done);
    af_mutex_destroy(&p->lock);
}

// ---- duties ----

// A host without room is met again and again until there is some; the log says itself when it
// cannot go on. Other failures are not tried again: they stand for a disk that has failed.
static void prepare_segments(struct checkpointer *p)
{
    struct checkpoint *c = p->checkpoint;

    atomic_store(&p->want_segments, false);
    int err = wal_prepare_segments(c->wal);
    if (err == -ENOSPC || err == -EDQUOT || err == -ENOMEM)
        atomic_store(&p->want_segments, true);
    else if (err < 0 && err != -AF_E_LOG_FAILED) // which has been reported
        message(&p->sink, MESSAGE_WARNING, "cannot make a log segment: %s (%s)", err_text(err),
                err_name(err));
}

// Runs without the lock, by the one that has set `running`. Standby segments come first, since a
// log without them has no room for the marker, and last, since trimming gives some back.
static int run_one(struct checkpointer *p)
{
    prepare_segments(p);
    int err = checkpoint_run(p->checkpoint);
    if (err == 0)
        prepare_segments(p);
    return err;
}

// A failure of the store has been reported by the store.
static void report_no_begin(struct checkpointer *p, int err)
{
    if (!p->checkpoint->failed)
        message(&p->sink, MESSAGE_WARNING, "a checkpoint could not begin: %s (%s)", err_text(err),
                err_name(err));
}

int checkpointer_run(struct checkpointer *p)
{
    af_lock(&p->lock);
    // One that is running now began before the call, so what was freed since may not be in it.
    uint64_t target = p->begun + 1;
    while (p->ended < target) {
        if (p->running) {
            af_cond_wait(&p->done, &p->lock);
            continue;
        }
        p->running = true;
        p->begun++;
        af_unlock(&p->lock);
        int err = run_one(p);
        // Once for each kind of failure; these fields change only in the hand of the one that runs.
        if (err < 0 && err != p->result)
            report_no_begin(p, err);
        af_lock(&p->lock);
        p->running = false;
        p->ended = p->begun;
        p->result = err;
        p->stats = p->checkpoint->stats;
        af_cond_broadcast(&p->done);
    }
    int result = p->result;
    af_unlock(&p->lock);
    return result;
}

void checkpointer_await(struct checkpointer *p)
{
    af_lock(&p->lock);
    while (p->running)
        af_cond_wait(&p->done, &p->lock);
    af_unlock(&p->lock);
}

void checkpointer_between(struct checkpointer *p, void (*work)(void *arg, struct checkpoint *c),
                          void *arg)
{
    af_lock(&p->lock);
    while (p->running)
        af_cond_wait(&p->done, &p->lock);
    p->running = true;
    af_unlock(&p->lock);
    work(arg, p->checkpoint);
    af_lock(&p->lock);
    p->running = false;
    af_cond_broadcast(&p->done);
    af_unlock(&p->lock);
}

void checkpointer_get_stats(struct checkpointer *p, struct checkpoint_stats *ret_stats)
{
    af_lock(&p->lock);
    *ret_stats = p->stats;
    af_unlock(&p->lock);
}

// Nobody waits for this one; a failure has been reported where it happened.
static void run_unasked(struct checkpointer *p)
{
    int err = checkpointer_run(p);

    (void)err;
}

void checkpointer_tick(struct checkpointer *p)
{
    struct checkpoint *c = p->checkpoint;

    if (atomic_load(&p->want_segments))
        prepare_segments(p);
    wal_tick(c->wal);
    store_background(c->store, ticks(p));
    if (store_wants_checkpoint(c->store))
        run_unasked(p);
}

void checkpointer_kick(struct checkpointer *p)
{
    if (atomic_exchange(&p->kicked, true))
        return;
    af_lock(&p->lock);
    af_cond_broadcast(&p->wake);
    af_unlock(&p->lock);
}

void checkpointer_need_segments(struct checkpointer *p)
{
    atomic_store(&p->want_segments, true);
    checkpointer_kick(p);
}

// ---- the thread ----

// Sleeps until there is work; false: the thread is to end.
static bool wait_for_work(struct checkpointer *p, uint64_t round_ms)
{
    struct checkpoint *c = p->checkpoint;
    bool busy = wal_busy(c->wal) || store_busy(c->store) || atomic_load(&p->want_segments);
    uint64_t period = busy ? BUSY_MS : IDLE_MS;

    af_lock(&p->lock);
    while (!p->stop) {
        uint64_t gone = ticks(p) - round_ms;
        uint64_t wait = atomic_load(&p->kicked) ? PAUSE_MS : period;

        if (gone >= wait)
            break;
        (void)af_cond_wait_ms(&p->wake, &p->lock, wait - gone); // why it ended is looked at anew
    }
    bool go_on = !p->stop;
    af_unlock(&p->lock);
    return go_on;
}

static void *thread_main(void *arg)
{
    struct checkpointer *p = arg;
    uint64_t round_ms = ticks(p);

    while (wait_for_work(p, round_ms)) {
        // Before the round: what is kicked during it may have come too late for it.
        atomic_store(&p->kicked, false);
        round_ms = ticks(p);
        checkpointer_tick(p);
    }
    return NULL;
}

int checkpointer_start(struct checkpointer *p)
{
    AF_ASSERT(!p->have_thread);
    int err = pthread_create(&p->thread, NULL, thread_main, p);
    p->have_thread = err == 0;
    return -err;
}

void checkpointer_stop(struct checkpointer *p)
{
    if (!p->have_thread)
        return;
    af_lock(&p->lock);
    p->stop = true;
    af_cond_broadcast(&p->wake);
    af_unlock(&p->lock);
    int err = pthread_join(p->thread, NULL);
    AF_ASSERT(err == 0);
    p->have_thread = false;
}
