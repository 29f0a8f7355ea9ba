// SPDX-License-Identifier: MIT
// Threads that may wait: for a cold block, for room, for the store to write out what is pending.
//
// Three queues. What reads has one, what changes has another, each with its own threads: a change
// may have to wait for a checkpoint, and a reader never does. No order is kept in either: the
// callers of these requests are still waiting for their answers, so none has been promised to
// anyone. The third is served by one thread, one request at a time, in the order of their
// submission. It exists for F2: a RELEASE has no caller that waits, close(2) has returned, so what
// the same client does next must not overtake it. While a RELEASE waits there, the loop sends
// everything that changes or syncs after it. Reads pass.
//
// Bounds: the number of threads, of requests held and of the bytes in them. When one is reached,
// the loop stops reading the device (fs_workers_full()), so the kernel holds what comes; it goes on
// pumping the log, which is all that a worker can wait for besides the disk, so there is always
// progress. The bound on bytes is so high because until then readers are served: it is reached when
// more than a hundred clients have each a large write waiting for room.

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "fs/fs_reply.h"

#define LANE_WORKERS      8u
// Every request held costs its size. A full-sized buffer counts wholly.
#define HELD_REQUESTS_MAX 1024u
#define HELD_BYTES_MAX    (128u * 1024u * 1024u)

struct worker {
    struct fs_workers *all;
    struct lane *lane;
    pthread_t thread;
    struct af_cond wake;
    // Guarded by all->lock:
    struct fs_request *job; // handed over while it was idle
    struct worker *next_idle;
};

// What reads, or what changes. Guarded by the lock of the whole:
struct lane {
    struct worker *idle; // the last one to fall idle is the first to be used: its cache is warm
    struct list queue;   // while nobody is idle
};

enum { LANE_READS, LANE_CHANGES, LANES };

#define WORKERS (LANES * LANE_WORKERS)

struct fs_workers {
    struct fs *fs;
    struct af_mutex lock;
    // Guarded by lock:
    struct lane lanes[LANES];
    struct list ordered;
    size_t held, held_bytes; // queued or running
    struct list holding;     // of them, those with holds_release
    bool stop;

    struct af_cond ordered_wake;
    pthread_t ordered_thread;
    // Submitted in order and not finished. Written under the lock; the loop, the only one that
    // raises it, reads it without.
    atomic_size_t ordered_count;
    // Likewise, see fs_workers_hold_last().
    atomic_uint_fast64_t hold_last, hold_oldest, hold_done;
    size_t started; // of workers[]
    bool ordered_started;
    struct worker workers[WORKERS];
};

static void run(struct fs_workers *w, struct fs_request *rq)
{
    bool done = fs_run_request(w->fs, rq, STORE_BLOCK);

    AF_ASSERT(done); // a store that may wait never asks to be called again
    // What the loop does once for many requests: start the flush for whoever waits for it now.
    store_kick(w->fs->store);
}

static void note_oldest_locked(struct fs_workers *w)
{
    uint64_t oldest = 0;

    if (!list_empty(&w->holding))
        oldest = list_entry(w->holding.next, struct fs_request, hold_link)->hold_number;
    atomic_store(&w->hold_oldest, oldest);
}

// Its answer is out: whatever the kernel sends because of it is in the device.
static void finish_locked(struct fs_workers *w, struct fs_request *rq)
{
    AF_ASSERT(af_is_locked(&w->lock) && w->held > 0 && w->held_bytes >= rq->cap);
    w->held--;
    w->held_bytes -= rq->cap;
    if (!rq->peek.holds_release)
        return;
    list_remove(&rq->hold_link);
    atomic_fetch_add(&w->hold_done, 1);
    note_oldest_locked(w);
}

// After unlocking: either the loop has seen the new numbers, or it has set want_wake before looking
// at them.
static void after_finish(struct fs_workers *w, struct fs_request *rq)
{
    fs_request_free(rq);
    if (atomic_load(&w->fs->want_wake))
        fs_wake_loop(w->fs);
}

static struct list *first_of(struct list *l)
{
    return list_empty(l) ? NULL : l->next;
}

static void *worker_main(void *arg)
{
    struct worker *me = arg;
    struct fs_workers *w = me->all;
    struct lane *lane = me->lane;

    af_lock(&w->lock);
    for (;;) {
        struct list *first = first_of(&lane->queue);
        struct fs_request *rq = NULL;
        if (first) {
            rq = list_entry(first, struct fs_request, link);
            list_remove(first);
        } else if (!w->stop) {
            me->next_idle = lane->idle;
            lane->idle = me;
            while (!me->job && !w->stop)
                af_cond_wait(&me->wake, &w->lock);
            rq = me->job;
            me->job = NULL;
        }
        if (!rq)
            break;
        af_unlock(&w->lock);
        run(w, rq);
        af_lock(&w->lock);
        finish_locked(w, rq);
        af_unlock(&w->lock);
        after_finish(w, rq);
        af_lock(&w->lock);
    }
    af_unlock(&w->lock);
    fs_call_free();
    return NULL;
}

static void *ordered_main(void *arg)
{
    struct fs_workers *w = arg;

    af_lock(&w->lock);
    for (;;) {
        while (list_empty(&w->ordered) && !w->stop)
            af_cond_wait(&w->ordered_wake, &w->lock);
        if (list_empty(&w->ordered))
            break;
        struct fs_request *rq = list_entry(w->ordered.next, struct fs_request, link);
        list_remove(&rq->link);
        af_unlock(&w->lock);
        run(w, rq);
        af_lock(&w->lock);
        finish_locked(w, rq);
        atomic_fetch_sub(&w->ordered_count, 1);
        af_unlock(&w->lock);
        after_finish(w, rq);
        af_lock(&w->lock);
    }
    af_unlock(&w->lock);
    fs_call_free();
    return NULL;
}

int fs_workers_create(struct fs *fs, struct fs_workers **ret_workers)
{
    struct fs_workers *w = calloc(1, sizeof(*w));
    int r = 0;

    if (!w)
        return -ENOMEM;
    w->fs = fs;
    af_mutex_init(&w->lock, LOCK_RANK_FS);
    af_cond_init(&w->ordered_wake);
    list_init(&w->ordered);
    list_init(&w->holding);
    for (size_t i = 0; i < LANES; i++)
        list_init(&w->lanes[i].queue);
    for (size_t i = 0; i < WORKERS; i++) {
        w->workers[i].all = w;
        w->workers[i].lane = &w->lanes[i / LANE_WORKERS];
        af_cond_init(&w->workers[i].wake);
    }
    while (r == 0 && w->started < WORKERS) {
        struct worker *each = &w->workers[w->started];
        r = pthread_create(&each->thread, NULL, worker_main, each);
        w->started += r == 0;
    }
    if (r == 0) {
        r = pthread_create(&w->ordered_thread, NULL, ordered_main, w);
        w->ordered_started = r == 0;
    }
    if (r) {
        fs_workers_destroy(w);
        return -r;
    }
    *ret_workers = w;
    return 0;
}

static void hold_locked(struct fs_workers *w, struct fs_request *rq)
{
    AF_ASSERT(af_is_locked(&w->lock) && !w->stop);
    w->held++;
    w->held_bytes += rq->cap;
    if (!rq->peek.holds_release)
        return;
    rq->hold_number = atomic_fetch_add(&w->hold_last, 1) + 1;
    list_append(&w->holding, &rq->hold_link);
    note_oldest_locked(w);
}

void fs_workers_submit(struct fs_workers *w, struct fs_request *rq)
{
    af_lock(&w->lock);
    hold_locked(w, rq);
    struct lane *lane = &w->lanes[rq->peek.kind == FS_KIND_READS ? LANE_READS : LANE_CHANGES];
    struct worker *idle = lane->idle;
    if (idle) {
        lane->idle = idle->next_idle;
        idle->job = rq;
        af_cond_broadcast(&idle->wake);
    } else {
        list_append(&lane->queue, &rq->link);
    }
    af_unlock(&w->lock);
}

void fs_workers_submit_ordered(struct fs_workers *w, struct fs_request *rq)
{
    af_lock(&w->lock);
    hold_locked(w, rq);
    atomic_fetch_add(&w->ordered_count, 1);
    list_append(&w->ordered, &rq->link);
    af_cond_broadcast(&w->ordered_wake);
    af_unlock(&w->lock);
}

bool fs_workers_ordered_busy(const struct fs_workers *w)
{
    // Sequentially consistent: 0 means that the loop also sees all that those requests did.
    return atomic_load(&w->ordered_count) > 0;
}

uint64_t fs_workers_hold_last(const struct fs_workers *w)
{
    return atomic_load(&w->hold_last);
}

uint64_t fs_workers_hold_oldest(const struct fs_workers *w)
{
    return atomic_load(&w->hold_oldest);
}

uint64_t fs_workers_hold_done(const struct fs_workers *w)
{
    return atomic_load(&w->hold_done);
}

bool fs_workers_full(struct fs_workers *w)
{
    af_lock(&w->lock);
    bool full = w->held >= HELD_REQUESTS_MAX || w->held_bytes >= HELD_BYTES_MAX;
    af_unlock(&w->lock);
    return full;
}

bool fs_workers_idle(struct fs_workers *w)
{
    af_lock(&w->lock);
    bool idle = w->held == 0;
    af_unlock(&w->lock);
    return idle;
}

void fs_workers_destroy(struct fs_workers *w)
{
    if (!w)
        return;
    af_lock(&w->lock);
    AF_ASSERT(w->held == 0);
    w->stop = true;
    for (size_t i = 0; i < w->started; i++)
        af_cond_broadcast(&w->workers[i].wake);
    af_cond_broadcast(&w->ordered_wake);
    af_unlock(&w->lock);
    for (size_t i = 0; i < w->started; i++)
        pthread_join(w->workers[i].thread, NULL);
    if (w->ordered_started)
        pthread_join(w->ordered_thread, NULL);
    for (size_t i = 0; i < WORKERS; i++)
        af_cond_destroy(&w->workers[i].wake);
    af_cond_destroy(&w->ordered_wake);
    af_mutex_destroy(&w->lock);
    free(w);
}
