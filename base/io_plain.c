// SPDX-License-Identifier: MIT
// The disk through plain system calls; one helper thread performs what io_start() is given, in
// order.
//
// An operation waits, is in the hands of the helper thread, or is finished until io_reap() takes
// it; in_flight counts all three. The event descriptor is readable while anything is finished: the
// helper adds to the list before it signals, and the reaper drains the descriptor before it takes
// the list, so no wake-up is lost (but there may be one too many).
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/io_posix.h"
#include "base/lock.h"

struct plain_queue {
    struct io_async *first, *last;
};

struct io_plain {
    struct io_posix posix; // first
    int event_fd;
    pthread_t helper;
    struct af_mutex lock;
    struct af_cond changed; // a queue has grown, or `stopping` was set
    // Under `lock`:
    struct plain_queue waiting, finished;
    size_t in_flight;
    bool stopping;
};

static struct io_plain *plain_of(struct io *io)
{
    return AF_CONTAINER_OF(io, struct io_plain, posix.io);
}

static void plain_queue_append(struct plain_queue *q, struct io_async *op)
{
    op->next = NULL;
    if (q->last)
        q->last->next = op;
    else
        q->first = op;
    q->last = op;
}

static struct io_async *plain_queue_take_first(struct plain_queue *q)
{
    struct io_async *op = q->first;

    q->first = op->next;
    if (!q->first)
        q->last = NULL;
    return op;
}

static void plain_signal(const struct io_plain *p)
{
    uint64_t one = 1;
    ssize_t n;

    do
        n = write(p->event_fd, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
    // It could fail only when the counter is full, and then it is readable as well.
}

static void *plain_help(void *arg)
{
    struct io_plain *p = arg;

    af_lock(&p->lock);
    for (;;) {
        struct io_async *op;

        while (!p->waiting.first && !p->stopping)
            af_cond_wait(&p->changed, &p->lock);
        // What was started is performed even when the end has been announced.
        if (!p->waiting.first)
            break;
        op = plain_queue_take_first(&p->waiting);
        af_unlock(&p->lock);
        op->result = io_posix_run_async(op);
        af_lock(&p->lock);
        plain_queue_append(&p->finished, op);
        plain_signal(p);
        af_cond_broadcast(&p->changed);
    }
    af_unlock(&p->lock);
    return NULL;
}

static int plain_start(struct io *io, struct io_async *op)
{
    struct io_plain *p = plain_of(io);
    int r = io_posix_check_async(io, op);

    if (r)
        return r;
    af_lock(&p->lock);
    p->in_flight++;
    plain_queue_append(&p->waiting, op);
    af_cond_broadcast(&p->changed);
    af_unlock(&p->lock);
    return 0;
}

static int plain_reap(struct io *io, bool wait)
{
    struct io_plain *p = plain_of(io);
    struct io_async *op, *next;
    uint64_t signals;
    int count = 0;

    // Fails when nothing was signalled, which is fine.
    if (read(p->event_fd, &signals, sizeof(signals)) < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    af_lock(&p->lock);
    while (wait && !p->finished.first && p->in_flight)
        af_cond_wait(&p->changed, &p->lock);
    op = p->finished.first;
    p->finished = (struct plain_queue){0};
    for (next = op; next; next = next->next)
        count++;
    p->in_flight -= (size_t)count;
    af_unlock(&p->lock);
    for (; op; op = next) {
        // `done` may free the operation or start it again.
        next = op->next;
        op->done(op, op->result);
    }
    return count;
}

static int plain_event_fd(struct io *io)
{
    return plain_of(io)->event_fd;
}

static void plain_destroy(struct io *io)
{
    struct io_plain *p;

    if (!io)
        return;
    p = plain_of(io);
    af_lock(&p->lock);
    p->stopping = true;
    af_cond_broadcast(&p->changed);
    af_unlock(&p->lock);
    AF_ASSERT(pthread_join(p->helper, NULL) == 0);
    af_cond_destroy(&p->changed);
    af_mutex_destroy(&p->lock);
    (void)close(p->event_fd); // Holds nothing.
    io_posix_close(&p->posix);
    free(p);
}

static const struct io_ops plain_ops = {
    .name = "plain",
    IO_POSIX_OPS,
    .start = plain_start,
    .reap = plain_reap,
    .event_fd = plain_event_fd,
    .destroy = plain_destroy,
};

int io_plain_open(const char *path, bool read_only, struct io **ret_io)
{
    struct io_plain *p = calloc(1, sizeof(*p));
    int r;

    if (!p)
        return -ENOMEM;
    r = io_posix_init(&p->posix, &plain_ops, path, read_only);
    if (r)
        goto free_p;
    p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->event_fd < 0) {
        r = -errno;
        goto close_posix;
    }
    af_mutex_init(&p->lock, LOCK_RANK_IO);
    af_cond_init(&p->changed);
    r = -pthread_create(&p->helper, NULL, plain_help, p);
    if (r)
        goto destroy_lock;
    *ret_io = &p->posix.io;
    return 0;

destroy_lock:
    af_cond_destroy(&p->changed);
    af_mutex_destroy(&p->lock);
    (void)close(p->event_fd);
close_posix:
    io_posix_close(&p->posix);
free_p:
    free(p);
    return r;
}
