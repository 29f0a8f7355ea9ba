// SPDX-License-Identifier: MIT
// The loop: one thread that reads the device, runs handlers and pumps the log.
//
//   drain the device: each request is run at once, or handed to a worker
//   store_kick() once, so that all fsyncs of the round share a flush
//   epoll_wait(): device | log (io event_fd) | wake_fd | signals
//   log readable: wal_pump(), which answers the fsyncs that became durable
//
// One thread, because on few cores the cost of a request is the wake-up of another thread more than
// the work itself, and because the order in which requests are read is then the order in which they
// are run (F2).
//
// States:  RUNNING -> GONE      the kernel has ended the connection: unmounted, or aborted
//          RUNNING -> STOPPING  a signal came and the mount had to be detached lazily: what has
//          been queued is still
//                               answered, later calls of those who hold it open get ENOTCONN
//          any     -> FAILED    the device or epoll answered an error that has no meaning here
//
// A RELEASE that the kernel holds back. Read-ahead keeps a descriptor alive: when it is still under
// way, close(2) returns and the RELEASE is sent only with the answer to the READ. So what changes
// or syncs waits, in `waiting`, until every READ by a writable descriptor that was read before it
// has been answered and the device has been found empty after that: then the RELEASE was read.
// (WRITEs need not wait: they enter no history.)
//
// All three end the loop; before it returns, workers finish and fsyncs are answered.

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/err.h"
#include "fs/fs_reply.h"

// A READ or WRITE above this goes to a worker unasked: copying and summing it would hold up the
// others for longer than waking a worker takes.
#define INLINE_PAYLOAD_MAX (64u * 1024u)
// So many requests are run before the log gets its turn, however many more are waiting.
#define ROUND_REQUESTS_MAX 64u
// What the kernel may have queued before a RELEASE, in rounds: max_background requests.
#define WAITING_ROUNDS_MAX 1024u

enum state { RUNNING, GONE, STOPPING, FAILED };

struct loop {
    struct fs *fs;
    enum state state;
    int error; // for FAILED
    int epoll_fd, signal_fd, log_fd;
    struct fs_request *free_request; // where the next request is read into; NULL: none yet
    bool more;                       // the device was not empty when the round ended
    struct list waiting;             // for RELEASEs that may come; see above
    unsigned rounds_waiting;         // rounds without finding the device empty
    bool answered;                   // such a READ was, here, since the device was empty
    uint64_t done, oldest;           // of the workers, before the last read(2)
    uint64_t done_empty;             // `done` when the device was last found empty
    bool polled;                     // epoll watches the device
    bool told_ready;
    bool detaching; // the thread exists
    pthread_t detacher;
    // By the detaching thread; read after `detached` was seen:
    atomic_bool detached;
    bool detached_lazily;
    int detach_error;
};

static void loop_fail(struct loop *l, int r, const char *what)
{
    message(&l->fs->sink, MESSAGE_ERROR, "%s: %s (%s)", what, err_text(r), err_name(r));
    l->state = FAILED;
    l->error = r;
}

void fs_wake_loop(struct fs *fs)
{
    uint64_t one = 1;
    ssize_t n;

    do {
        n = write(fs->wake_fd, &one, sizeof(one));
    } while (n < 0 && errno == EINTR);
    // EAGAIN: the counter is full, so the loop is awake anyway.
}

bool fs_run_request(struct fs *fs, const struct fs_request *rq, enum store_how how)
{
    struct fuse_buf buf = {.size = rq->size, .mem = rq->bytes, .fd = -1};
    uint64_t copy[FS_SETATTR_BYTES_MAX / sizeof(uint64_t)];

    // libfuse takes the mark of the descriptor out of it. Run a second time, a truncation by
    // descriptor would be one by path, which is completed at once.
    if (rq->peek.setattr) {
        memcpy(copy, rq->bytes, rq->size);
        buf.mem = copy;
    }
    fs_call_begin(how, &rq->peek);
    if (rq->peek.raw != FS_RAW_NONE)
        fs_raw_request(fs, rq);
    else
        fuse_session_process_buf(fs->session, &buf);
    return fs_call_end();
}

// ---- the device ----

// Gives the request in free_request to the workers. Small ones are copied, so that the big buffer
// stays and what is queued takes the memory that it needs.
static void hand_over(struct loop *l, bool ordered)
{
    struct fs_request *rq = l->free_request;
    struct fs_request *copy = rq->size <= INLINE_PAYLOAD_MAX ? fs_request_copy(rq) : NULL;

    if (copy)
        rq = copy;
    else
        l->free_request = NULL;
    if (ordered)
        fs_workers_submit_ordered(l->fs->workers, rq);
    else
        fs_workers_submit(l->fs->workers, rq);
}

// A RELEASE may be on its way that belongs before it.
static bool must_wait(const struct loop *l, const struct fs_peek *peek)
{
    const struct fs_workers *w = l->fs->workers;

    return peek->kind == FS_KIND_CHANGES && !peek->write &&
           (l->answered || fs_workers_hold_oldest(w) != 0 ||
            fs_workers_hold_done(w) != l->done_empty);
}

static void wait_for_releases(struct loop *l)
{
    struct fs_request *rq = l->free_request;
    struct fs_request *copy = rq->size <= INLINE_PAYLOAD_MAX ? fs_request_copy(rq) : NULL;

    if (copy)
        rq = copy;
    else
        l->free_request = NULL;
    rq->hold_number = fs_workers_hold_last(l->fs->workers);
    list_append(&l->waiting, &rq->link);
}

// Runs those that have waited enough, in their order: the READs before `oldest` (0: all) have been
// answered, and what came of it was read.
static void run_waiting(struct loop *l, uint64_t oldest)
{
    struct fs *fs = l->fs;

    while (!list_empty(&l->waiting)) {
        struct fs_request *rq = list_entry(l->waiting.next, struct fs_request, link);
        if (oldest != 0 && oldest <= rq->hold_number)
            break;
        list_remove(&rq->link);
        if (fs_workers_ordered_busy(fs->workers))
            fs_workers_submit_ordered(fs->workers, rq);
        else if (fs_run_request(fs, rq, STORE_NONBLOCK))
            fs_request_free(rq);
        else
            fs_workers_submit(fs->workers, rq);
    }
}

static void dispatch(struct loop *l)
{
    struct fs *fs = l->fs;
    struct fs_request *rq = l->free_request;

    if (!fs_peek(rq->bytes, rq->size, &rq->peek)) {
        loop_fail(l, -EPROTO, "the FUSE device gave bytes that are no request");
        return;
    }
    enum fs_kind kind = rq->peek.kind;
    if (kind == FS_KIND_SILENT) {
        fs_forgotten(rq, fs_ghost_forget, fs);
        return;
    }
    if (must_wait(l, &rq->peek))
        wait_for_releases(l);
    else if (kind != FS_KIND_READS && fs_workers_ordered_busy(fs->workers))
        hand_over(l, true);
    else if (rq->peek.payload_bytes > INLINE_PAYLOAD_MAX)
        hand_over(l, false);
    else if (!fs_run_request(fs, rq, STORE_NONBLOCK))
        hand_over(l, kind == FS_KIND_RELEASE);
    else if (rq->peek.holds_release)
        l->answered = true;
}

static bool may_read(struct loop *l)
{
    if (fs_workers_full(l->fs->workers))
        return false;
    if (!l->free_request)
        l->free_request = fs_request_new();
    if (!l->free_request && fs_workers_idle(l->fs->workers))
        loop_fail(l, -ENOMEM, "no memory for requests"); // nobody is left who could give some back
    return l->free_request;
}

static void found_empty(struct loop *l)
{
    l->answered = false;
    l->done_empty = l->done;
    l->rounds_waiting = 0;
    run_waiting(l, l->oldest);
}

// Reads one request. False: none is there, or the state is no longer RUNNING.
static bool read_request(struct loop *l)
{
    for (;;) {
        struct fs_request *rq = l->free_request;
        l->done = fs_workers_hold_done(l->fs->workers);
        l->oldest = fs_workers_hold_oldest(l->fs->workers);
        ssize_t n = read(l->fs->device_fd, rq->bytes, rq->cap);
        if (n > 0) {
            rq->size = (size_t)n;
            return true;
        }
        if (n < 0 && (errno == EINTR || errno == ENOENT))
            continue; // ENOENT: the request was called off while it was being read
        if (n < 0 && errno == EAGAIN) {
            found_empty(l);
            return false;
        }
        if (n == 0 || errno == ENODEV || errno == ECONNABORTED)
            l->state = l->state == STOPPING ? STOPPING : GONE;
        else
            loop_fail(l, -errno, "cannot read the FUSE device");
        return false;
    }
}

static void tell_ready(struct loop *l)
{
    if (fuse_session_exited(l->fs->session)) {
        loop_fail(l, -EPROTO, "the kernel speaks another FUSE protocol");
    } else if (l->fs->initialized && !l->told_ready) {
        l->told_ready = true;
        // After INIT, with which the kernel sets its own.
        mountinfo_raise_read_ahead(&l->fs->info, FS_PAYLOAD_MAX / 1024);
        if (l->fs->ready)
            l->fs->ready(l->fs->callback_arg);
    }
}

// One round: what is in the device now, up to the bound.
static void drain(struct loop *l)
{
    unsigned count = 0;

    l->more = false;
    while (l->state == RUNNING && count < ROUND_REQUESTS_MAX && may_read(l) && read_request(l)) {
        dispatch(l);
        count++;
    }
    l->more = count == ROUND_REQUESTS_MAX;
    // Each client has one request under way at most, and the kernel queues no more than this.
    if (l->more && !list_empty(&l->waiting) && ++l->rounds_waiting == WAITING_ROUNDS_MAX) {
        l->rounds_waiting = 0;
        run_waiting(l, l->oldest);
    }
    store_kick(l->fs->store);
    if (!l->told_ready && l->state == RUNNING)
        tell_ready(l);
}

// ---- the end ----

// A signal has come: unmount as umount(8) does, so that whoever has something open keeps it; if
// that cannot be, lazily. In a thread of its own, because the kernel writes mapped pages back
// before it lets go, and the loop must take them.
static void *detach_main(void *arg)
{
    struct loop *l = arg;
    int r = mountinfo_detach(l->fs->mountpoint, false);

    if (r == -EBUSY) {
        l->detached_lazily = true;
        r = mountinfo_detach(l->fs->mountpoint, true);
    }
    l->detach_error = r;
    atomic_store(&l->detached, true);
    fs_wake_loop(l->fs);
    return NULL;
}

static void start_detaching(struct loop *l)
{
    struct fs *fs = l->fs;

    if (l->detaching)
        return;
    if (!fs_is_on_top(fs)) {
        fs->mounted = false;
        l->state = STOPPING;
        return;
    }
    int r = pthread_create(&l->detacher, NULL, detach_main, l);
    if (r)
        loop_fail(l, -r, "cannot start a thread to unmount");
    l->detaching = r == 0;
}

static void after_detaching(struct loop *l)
{
    if (!l->detaching || !atomic_load(&l->detached))
        return;
    pthread_join(l->detacher, NULL);
    l->detaching = false;
    if (l->detach_error)
        message(&l->fs->sink, MESSAGE_WARNING, "cannot unmount %s: %s", l->fs->mountpoint,
                err_text(l->detach_error));
    else
        l->fs->mounted = false;
    // After a plain unmount the device says so itself. Otherwise this end is ours to make.
    if (l->state == RUNNING && (l->detached_lazily || l->detach_error))
        l->state = STOPPING;
}

// What is still queued in the kernel came before the end: answer it. It is bounded by a round,
// since those who hold the mount open could go on for ever.
static void drain_last(struct loop *l)
{
    for (unsigned i = 0; i < ROUND_REQUESTS_MAX && may_read(l) && read_request(l); i++)
        dispatch(l);
    store_kick(l->fs->store);
}

// ---- waiting ----

static void watch_device(struct loop *l, bool on)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = l->fs->device_fd};

    if (l->polled == on)
        return;
    // Taken out, not masked: a dead connection signals an error whatever the mask says.
    if (epoll_ctl(l->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, l->fs->device_fd, &ev))
        loop_fail(l, -errno, "epoll_ctl");
    l->polled = on;
}

static void drain_counter(int fd)
{
    uint64_t value;

    // Non-blocking; EAGAIN means that it was empty.
    (void)!read(fd, &value, sizeof(value));
}

static void wake_up(struct loop *l)
{
    drain_counter(l->fs->wake_fd);
    if (!list_empty(&l->waiting))
        l->more = true;
}

static void on_signal(struct loop *l)
{
    struct signalfd_siginfo info;

    if (read(l->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info) && l->state == RUNNING)
        start_detaching(l);
}

static void on_log(struct loop *l)
{
    int r = wal_pump(l->fs->wal, false);

    // The log has failed its waiters itself; without this the loop would spin.
    if (r < 0 && epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, l->log_fd, NULL) == 0)
        message(&l->fs->sink, MESSAGE_ERROR, "the log cannot be pumped: %s", err_text(r));
}

static void wait_events(struct loop *l, int timeout_ms)
{
    struct epoll_event events[4];
    int n = epoll_wait(l->epoll_fd, events, AF_ARRAY_LEN(events), timeout_ms);

    if (n < 0 && errno != EINTR)
        loop_fail(l, -errno, "epoll_wait");
    for (int i = 0; i < n; i++) {
        int fd = events[i].data.fd;
        if (fd == l->fs->device_fd)
            l->more = true;
        else if (fd == l->log_fd)
            on_log(l);
        else if (fd == l->fs->wake_fd)
            wake_up(l);
        else
            on_signal(l);
    }
    after_detaching(l);
}

static void loop_run(struct loop *l)
{
    struct fs *fs = l->fs;

    while (l->state == RUNNING) {
        if (l->more)
            drain(l);
        if (l->state != RUNNING)
            break;
        // Set before the workers are asked, so that one that finishes in between sees it.
        atomic_store(&fs->want_wake, true);
        bool may = may_read(l);
        bool waiting = !list_empty(&l->waiting);
        if (waiting && fs_workers_hold_done(fs->workers) != l->done)
            l->more = true; // answered since: look again
        atomic_store(&fs->want_wake, !may || waiting);
        watch_device(l, may);
        wait_events(l, may && l->more ? 0 : -1);
    }
    if (l->state == STOPPING)
        drain_last(l);
    run_waiting(l, 0);
}

// Workers finish, fsyncs are answered, a thread that detaches ends.
static void loop_settle(struct loop *l)
{
    struct fs *fs = l->fs;

    watch_device(l, false);
    atomic_store(&fs->want_wake, true);
    store_kick(fs->store);
    while (!fs_workers_idle(fs->workers) || atomic_load(&fs->unanswered) > 0 || l->detaching)
        wait_events(l, -1);
}

// ---- start and stop ----

static int watch(struct loop *l, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

    return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static int loop_open(struct loop *l)
{
    sigset_t signals;
    int r;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    l->log_fd = l->fs->wal ? l->fs->io->ops->event_fd(l->fs->io) : -1;
    if (l->fs->wal && l->log_fd < 0)
        return -AF_E_IO_UNSUPPORTED;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0)
        return -errno;
    l->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (l->signal_fd < 0)
        return -errno;
    r = watch(l, l->fs->wake_fd);
    if (r == 0 && l->fs->wal)
        r = watch(l, l->log_fd);
    if (r == 0)
        r = watch(l, l->signal_fd);
    return r;
}

static void loop_close(struct loop *l)
{
    if (l->signal_fd >= 0)
        close(l->signal_fd);
    if (l->epoll_fd >= 0)
        close(l->epoll_fd);
    fs_request_free(l->free_request);
}

int fs_run(struct fs *fs)
{
    struct loop l = {.fs = fs, .state = RUNNING, .epoll_fd = -1, .signal_fd = -1, .more = true};

    list_init(&l.waiting);
    int r = loop_open(&l);

    if (r == 0)
        r = fs_workers_create(fs, &fs->workers);
    if (r < 0)
        message(&fs->sink, MESSAGE_ERROR, "cannot begin to serve %s: %s (%s)", fs->mountpoint,
                err_text(r), err_name(r));
    if (r == 0) {
        if (fs->wal)
            wal_pump_own(fs->wal, true);
        loop_run(&l);
        if (fs->ending)
            fs->ending(fs->callback_arg);
        loop_settle(&l);
        if (fs->wal)
            wal_pump_own(fs->wal, false);
        r = l.error;
    }
    fs_workers_destroy(fs->workers);
    fs->workers = NULL;
    loop_close(&l);
    fs_call_free();
    return r;
}
