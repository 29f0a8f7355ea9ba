// SPDX-License-Identifier: MIT
// The disk with io_uring for what io_start() is given; all else through plain system calls.
//
// Any thread submits, under `lock`, and each start reaches the kernel at once: the submission queue
// is empty whenever the lock is free. One thread at a time takes completions, without the lock; the
// two sides of the ring share nothing. The kernel signals the event descriptor after it has posted
// a completion, and the reaper drains the descriptor before it looks, so no wake-up is lost (but
// there may be one too many).
//
// The ring has no flags that make completions wait for the submitter to enter the kernel, because
// the thread that submitted may be waiting elsewhere. A short write counts as failed: the rest of
// it would be a second write, later than what the caller has arranged around the first.
#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

// liburing includes <sys/socket.h>, whose AF_MAX (the number of address families) is not wanted
// here.
#undef AF_MAX

#include "base/check.h"
#include "base/err.h"
#include "base/io_posix.h"
#include "base/lock.h"

#define URING_ENTRIES 64

struct io_uring_disk {
    struct io_posix posix; // first
    int event_fd;
    struct io_uring ring; // the submission side under `lock`, the completion side with the reaper
    struct af_mutex lock;
    // Submitted and not reaped. Counted after the submission, so that a reaper never waits for one
    // that failed; the completion can come before, hence signed. The order is relaxed: a reaper
    // that must see an operation has learned of its start from the thread that started it.
    atomic_long in_flight;
    // Counts submissions. Its release and acquire carry what the submitter wrote into the operation
    // over to the reaper; the ring does so in fact, but through the kernel, where C does not see
    // it.
    atomic_ulong submissions;
};

static struct io_uring_disk *uring_of(struct io *io)
{
    return AF_CONTAINER_OF(io, struct io_uring_disk, posix.io);
}

static void uring_prepare(struct io_uring_sqe *sqe, struct io_async *op)
{
    int fd = io_posix_fd(op->file);

    if (op->kind == IO_OP_SYNC) {
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    } else {
        io_uring_prep_write(sqe, fd, op->bytes, (unsigned)op->len, op->off);
        sqe->rw_flags = RWF_DSYNC;
    }
    io_uring_sqe_set_data(sqe, op);
}

static int uring_submit_locked(struct io_uring_disk *u, struct io_async *op)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

    if (!sqe)
        return -EBUSY;
    uring_prepare(sqe, op);
    atomic_fetch_add_explicit(&u->submissions, 1, memory_order_release);
    while (io_uring_sq_ready(&u->ring)) {
        int r = io_uring_submit(&u->ring);

        if (r > 0 || r == -EINTR)
            continue;
        // The kernel has not taken the entry, but will with the next submission. It must not
        // perform the operation then, since the caller is told now that it was not started.
        io_uring_prep_nop(sqe);
        io_uring_sqe_set_data(sqe, NULL);
        return r ? r : -EAGAIN;
    }
    atomic_fetch_add_explicit(&u->in_flight, 1, memory_order_relaxed);
    return 0;
}

static int uring_start(struct io *io, struct io_async *op)
{
    struct io_uring_disk *u = uring_of(io);
    int r = io_posix_check_async(io, op);

    if (r)
        return r;
    af_lock(&u->lock);
    r = uring_submit_locked(u, op);
    af_unlock(&u->lock);
    return r;
}

// Takes one completion; false when there is none. An entry without data stands for nothing (above).
static bool uring_take(struct io_uring_disk *u, struct io_async **ret_op)
{
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        struct io_async *op = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&u->ring, cqe);
        (void)atomic_load_explicit(&u->submissions, memory_order_acquire);
        if (!op)
            continue;
        if (result >= 0 && op->kind == IO_OP_WRITE_DURABLE)
            result = (size_t)result == op->len ? 0 : -EIO;
        op->result = result;
        atomic_fetch_sub_explicit(&u->in_flight, 1, memory_order_relaxed);
        *ret_op = op;
        return true;
    }
    return false;
}

static int uring_wait(struct io_uring_disk *u)
{
    struct io_uring_cqe *cqe;
    int r;

    do
        r = io_uring_wait_cqe(&u->ring, &cqe);
    while (r == -EINTR);
    return r;
}

static int uring_reap(struct io *io, bool wait)
{
    struct io_uring_disk *u = uring_of(io);
    struct io_async *op;
    uint64_t signals;
    int r, count = 0;

    // Fails when nothing was signalled, which is fine.
    if (read(u->event_fd, &signals, sizeof(signals)) < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    for (;;) {
        while (uring_take(u, &op)) {
            count++;
            op->done(op, op->result);
        }
        if (count || !wait || atomic_load_explicit(&u->in_flight, memory_order_relaxed) <= 0)
            return count;
        r = uring_wait(u);
        if (r)
            return r;
    }
}

static int uring_event_fd(struct io *io)
{
    return uring_of(io)->event_fd;
}

static void uring_destroy(struct io *io)
{
    struct io_uring_disk *u;
    struct io_async *op;

    if (!io)
        return;
    u = uring_of(io);
    // The kernel may still read from the callers' buffers, so it is waited for. If even that fails,
    // closing the ring is what is left.
    while (atomic_load_explicit(&u->in_flight, memory_order_relaxed) > 0) {
        if (!uring_take(u, &op) && uring_wait(u))
            break;
    }
    io_uring_queue_exit(&u->ring);
    af_mutex_destroy(&u->lock);
    (void)close(u->event_fd); // Holds nothing.
    io_posix_close(&u->posix);
    free(u);
}

static const struct io_ops uring_ops = {
    .name = "uring",
    IO_POSIX_OPS,
    .start = uring_start,
    .reap = uring_reap,
    .event_fd = uring_event_fd,
    .destroy = uring_destroy,
};

// True when the failure means that the kernel has no io_uring for us: too old, switched off,
// filtered, or (before 5.12) charged to a small limit of locked memory.
static bool uring_is_unsupported(int r)
{
    return r == -ENOSYS || r == -EPERM || r == -EACCES || r == -EINVAL || r == -EOPNOTSUPP ||
           r == -ENOMEM;
}

static int uring_ring_init(struct io_uring *ring)
{
    struct io_uring_probe *probe;
    bool supported;
    int r = io_uring_queue_init(URING_ENTRIES, ring, 0);

    if (r)
        return uring_is_unsupported(r) ? -AF_E_IO_UNSUPPORTED : r;
    probe = io_uring_get_probe_ring(ring);
    // Without NODROP a burst of completions could lose some.
    supported = probe && (ring->features & IORING_FEAT_NODROP) &&
                io_uring_opcode_supported(probe, IORING_OP_WRITE) &&
                io_uring_opcode_supported(probe, IORING_OP_FSYNC);
    io_uring_free_probe(probe);
    if (!supported) {
        io_uring_queue_exit(ring);
        return -AF_E_IO_UNSUPPORTED;
    }
    return 0;
}

int io_uring_open(const char *path, bool read_only, struct io **ret_io)
{
    struct io_uring_disk *u = calloc(1, sizeof(*u));
    int r;

    if (!u)
        return -ENOMEM;
    r = io_posix_init(&u->posix, &uring_ops, path, read_only);
    if (r)
        goto free_u;
    u->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (u->event_fd < 0) {
        r = -errno;
        goto close_posix;
    }
    r = uring_ring_init(&u->ring);
    if (r)
        goto close_event_fd;
    r = io_uring_register_eventfd(&u->ring, u->event_fd);
    if (r)
        goto exit_ring;
    af_mutex_init(&u->lock, LOCK_RANK_IO);
    atomic_init(&u->in_flight, 0);
    atomic_init(&u->submissions, 0);
    *ret_io = &u->posix.io;
    return 0;

exit_ring:
    io_uring_queue_exit(&u->ring);
close_event_fd:
    (void)close(u->event_fd);
close_posix:
    io_posix_close(&u->posix);
free_u:
    free(u);
    return r;
}
