// SPDX-License-Identifier: MIT
// Tests of the real back ends of the disk interface, each in a private directory.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/check.h"
#include "base/err.h"
#include "base/io.h"
#include "base/lock.h"

#define BLOCK            4096u
#define CACHESTAT_NUMBER 451 // newer than the headers of Debian 12

struct fixture {
    const char *method;
    char dir[256];
    struct io *io;
};

static const char *const methods[] = {"plain", "uring"};
static const char *method; // of the group that runs

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const char *base = getenv("TMPDIR");
    int r;

    assert_non_null(f);
    f->method = method;
    (void)snprintf(f->dir, sizeof(f->dir), "%s/aerofs-io-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    r = io_open(f->dir, method, false, &f->io);
    assert_int_equal(r, 0);
    *state = f;
    return 0;
}

static int remove_entry(void *arg, const char *name)
{
    struct fixture *f = arg;
    char path[600];

    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    assert_int_equal(remove(path), 0);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(f->io->ops->list(f->io, "", remove_entry, f), 0);
    f->io->ops->destroy(f->io);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static void *aligned(size_t len, int fill)
{
    void *p = aligned_alloc(BLOCK, len);

    assert_non_null(p);
    memset(p, fill, len);
    return p;
}

static struct io_file *open_ok(struct io *io, const char *path, unsigned flags)
{
    struct io_file *file = NULL;

    assert_int_equal(io_file_open(io, path, flags, &file), 0);
    assert_string_equal(file->path, path);
    assert_ptr_equal(file->io, io);
    return file;
}

static void put_text(struct io *io, const char *path, const char *text)
{
    struct io_file *file = open_ok(io, path, IO_WRITE | IO_CREATE);

    assert_int_equal(io_pwrite(file, text, strlen(text), 0), 0);
    io_file_close(file);
}

// ---- files ----

static void test_write_and_read_back(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_ok(f->io, "data", IO_WRITE | IO_CREATE);
    struct iovec iov[4] = {
        {(char[]){"abc"}, 3}, {NULL, 0}, {(char[]){"de"}, 2}, {(char[]){"f"}, 1}};
    uint64_t size = 0;
    char got[8] = "";

    assert_int_equal(f->io->ops->pwritev(file, iov, 4, 5), 0);
    assert_int_equal(io_size(file, &size), 0);
    assert_int_equal(size, 11);
    assert_int_equal(io_pread(file, got, 6, 5), 0);
    assert_string_equal(got, "abcdef");
    assert_int_equal(io_pread(file, got, 1, 0), 0);
    assert_int_equal(got[0], 0);
    assert_int_equal(io_sync(file), 0);
    io_file_close(file);
}

static void test_read_past_the_end_is_short(void **state)
{
    struct fixture *f = *state;
    struct io_file *file;
    char got[64];

    put_text(f->io, "data", "0123456789");
    file = open_ok(f->io, "data", IO_READ_ONLY);
    assert_int_equal(io_pread(file, got, 10, 0), 0);
    assert_int_equal(io_pread(file, got, 11, 0), -AF_E_IO_SHORT);
    assert_int_equal(io_pread(file, got, 1, 10), -AF_E_IO_SHORT);
    assert_int_equal(io_pread(file, got, 1, 5000), -AF_E_IO_SHORT);
    assert_int_equal(io_pread(file, got, 0, 5000), 0);
    assert_int_equal(io_pread(file, got, 1, UINT64_MAX), -EINVAL);
    assert_int_equal(io_pwrite(file, got, 1, 0), -EBADF);
    io_file_close(file);
}

static void test_sizes_follow_truncate_and_allocate(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_ok(f->io, "data", IO_WRITE | IO_CREATE);
    uint64_t size = 0;
    char got[4] = "x";

    assert_int_equal(f->io->ops->allocate(file, 0, 10 * BLOCK), 0);
    assert_int_equal(io_size(file, &size), 0);
    assert_int_equal(size, 10 * BLOCK);
    assert_int_equal(io_pread(file, got, 1, 9 * BLOCK), 0);
    assert_int_equal(got[0], 0);
    assert_int_equal(f->io->ops->truncate(file, 3), 0);
    assert_int_equal(io_size(file, &size), 0);
    assert_int_equal(size, 3);
    assert_int_equal(f->io->ops->truncate(file, UINT64_MAX), -EINVAL);
    io_file_close(file);
}

static void test_open_flags(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = NULL;
    struct stat st;
    char path[600];

    assert_int_equal(io_file_open(f->io, "none", IO_WRITE, &file), -ENOENT);
    assert_null(file);
    io_file_close(open_ok(f->io, "new", IO_WRITE | IO_CREATE | IO_EXCLUSIVE));
    assert_int_equal(io_file_open(f->io, "new", IO_WRITE | IO_CREATE | IO_EXCLUSIVE, &file),
                     -EEXIST);
    io_file_close(open_ok(f->io, "new", IO_WRITE | IO_CREATE));
    (void)snprintf(path, sizeof(path), "%s/new", f->dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    io_file_close(NULL);
}

// ---- names ----

struct names {
    int count;
    bool seen_a, seen_b, stop;
};

static int see_name(void *arg, const char *name)
{
    struct names *n = arg;

    n->count++;
    n->seen_a = n->seen_a || strcmp(name, "a") == 0;
    n->seen_b = n->seen_b || strcmp(name, "b") == 0;
    return n->stop ? -ECANCELED : 0;
}

static void test_names(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    struct names n = {0};

    assert_int_equal(ops->mkdir(f->io, "wal"), 0);
    assert_int_equal(ops->mkdir(f->io, "wal"), -EEXIST);
    put_text(f->io, "wal/a", "A");
    put_text(f->io, "wal/c", "C");
    assert_int_equal(ops->rename(f->io, "wal/c", "wal/b"), 0);
    assert_int_equal(ops->rename(f->io, "wal/c", "wal/b"), -ENOENT);
    assert_int_equal(ops->sync_dir(f->io, "wal"), 0);
    assert_int_equal(ops->sync_dir(f->io, ""), 0);
    assert_int_equal(ops->sync_dir(f->io, "none"), -ENOENT);
    assert_int_equal(ops->list(f->io, "wal", see_name, &n), 0);
    assert_int_equal(n.count, 2);
    assert_true(n.seen_a && n.seen_b);
    n = (struct names){.stop = true};
    assert_int_equal(ops->list(f->io, "wal", see_name, &n), -ECANCELED);
    assert_int_equal(n.count, 1);
    assert_int_equal(ops->list(f->io, "none", see_name, &n), -ENOENT);
    assert_int_equal(ops->unlink(f->io, "wal/a"), 0);
    assert_int_equal(ops->unlink(f->io, "wal/a"), -ENOENT);
    assert_int_equal(ops->unlink(f->io, "wal/b"), 0);
}

static void test_opening_a_disk_leaves_the_directory_as_it_is(void **state)
{
    struct fixture *f = *state;
    struct names n = {0};

    assert_int_equal(f->io->ops->list(f->io, "", see_name, &n), 0);
    assert_int_equal(n.count, 0);
}

// ---- asynchronous operations ----

struct done {
    int count, result;
};

static void note_done(struct io_async *op, int result)
{
    struct done *d = op->arg;

    d->count++;
    d->result = result;
}

static void test_durable_write_and_sync(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_ok(f->io, "log", IO_WRITE | IO_CREATE | IO_LOG);
    uint8_t *bytes = aligned(4 * BLOCK, 'w'), *got = malloc(4 * BLOCK);
    struct done d = {0};
    struct io_async write = {.kind = IO_OP_WRITE_DURABLE,
                             .file = file,
                             .bytes = bytes,
                             .len = 4 * BLOCK,
                             .off = BLOCK,
                             .done = note_done,
                             .arg = &d};
    struct io_async sync = {.kind = IO_OP_SYNC, .file = file, .done = note_done, .arg = &d};
    uint64_t size = 0;

    assert_non_null(got);
    assert_int_equal(f->io->ops->start(f->io, &write), 0);
    while (d.count < 1)
        assert_true(f->io->ops->reap(f->io, true) >= 0);
    assert_int_equal(d.result, 0);
    assert_int_equal(f->io->ops->start(f->io, &sync), 0);
    assert_int_equal(f->io->ops->reap(f->io, true), 1);
    assert_int_equal(d.count, 2);
    assert_int_equal(d.result, 0);
    assert_int_equal(io_size(file, &size), 0);
    assert_int_equal(size, 5 * BLOCK);
    // Odd reads of a file that may be open past the cache.
    assert_int_equal(io_pread(file, got, 3 * BLOCK, BLOCK + 1), 0);
    assert_memory_equal(got, bytes, 3 * BLOCK);
    assert_int_equal(io_pread(file, got, 10, 5 * BLOCK - 10), 0);
    assert_int_equal(io_pread(file, got, 11, 5 * BLOCK - 10), -AF_E_IO_SHORT);
    assert_int_equal(io_pread(file, got, BLOCK, 5 * BLOCK), -AF_E_IO_SHORT);
    io_file_close(file);
    free(got);
    free(bytes);
}

static void test_reap_without_work_returns_at_once(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(f->io->ops->reap(f->io, false), 0);
    assert_int_equal(f->io->ops->reap(f->io, true), 0);
}

static void test_misaligned_log_writes_are_refused(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_ok(f->io, "log", IO_WRITE | IO_CREATE | IO_LOG);
    uint8_t *bytes = aligned(2 * BLOCK, 'x');
    struct done d = {0};
    struct io_async good = {.kind = IO_OP_WRITE_DURABLE,
                            .file = file,
                            .bytes = bytes,
                            .len = BLOCK,
                            .done = note_done,
                            .arg = &d};
    struct io_async op;

    op = good, op.off = 512;
    assert_int_equal(f->io->ops->start(f->io, &op), -EINVAL);
    op = good, op.len = 100;
    assert_int_equal(f->io->ops->start(f->io, &op), -EINVAL);
    op = good, op.len = 0;
    assert_int_equal(f->io->ops->start(f->io, &op), -EINVAL);
    op = good, op.bytes = bytes + 8;
    assert_int_equal(f->io->ops->start(f->io, &op), -EINVAL);
    assert_int_equal(io_pwrite(file, bytes, 100, 0), -EINVAL);
    assert_int_equal(io_pwrite(file, bytes, BLOCK, 100), -EINVAL);
    // Memory may lie anywhere for plain writes.
    assert_int_equal(io_pwrite(file, bytes + 8, BLOCK, 0), 0);
    assert_int_equal(io_pwrite(file, bytes, 2 * BLOCK, BLOCK), 0);
    assert_int_equal(d.count, 0);
    io_file_close(file);
    free(bytes);
}

static void test_errors_of_operations_reach_done(void **state)
{
    struct fixture *f = *state;
    struct io_file *file;
    uint8_t *bytes = aligned(BLOCK, 'x');
    struct done d = {0};
    struct io_async op = {
        .kind = IO_OP_WRITE_DURABLE, .bytes = bytes, .len = BLOCK, .done = note_done, .arg = &d};

    put_text(f->io, "data", "text");
    file = open_ok(f->io, "data", IO_READ_ONLY);
    op.file = file;
    assert_int_equal(f->io->ops->start(f->io, &op), 0);
    assert_int_equal(f->io->ops->reap(f->io, true), 1);
    assert_int_equal(d.result, -EBADF);
    io_file_close(file);
    free(bytes);
}

static bool is_readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, ms) == 1;
}

static void test_event_fd_tells_of_finished_work(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_ok(f->io, "log", IO_WRITE | IO_CREATE | IO_LOG);
    uint8_t *bytes = aligned(BLOCK, 'e');
    int fd = f->io->ops->event_fd(f->io);
    struct done d = {0};
    struct io_async op = {.kind = IO_OP_WRITE_DURABLE,
                          .file = file,
                          .bytes = bytes,
                          .len = BLOCK,
                          .done = note_done,
                          .arg = &d};

    assert_true(fd >= 0);
    assert_false(is_readable(fd, 0));
    for (int i = 1; i <= 50; i++) {
        op.off = (uint64_t)i * BLOCK;
        assert_int_equal(f->io->ops->start(f->io, &op), 0);
        assert_true(is_readable(fd, 10000));
        assert_true(is_readable(fd, 0));
        assert_int_equal(f->io->ops->reap(f->io, false), 1);
        assert_int_equal(d.count, i);
        assert_false(is_readable(fd, 0));
    }
    io_file_close(file);
    free(bytes);
}

#define CHAIN_LENGTH 100

struct chain {
    struct io *io;
    int done, errors;
};

static void start_next(struct io_async *op, int result)
{
    struct chain *c = op->arg;

    c->errors += result != 0;
    if (++c->done == CHAIN_LENGTH)
        return;
    op->off += BLOCK;
    c->errors += c->io->ops->start(c->io, op) != 0;
}

static void test_done_may_start_the_next_operation(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_ok(f->io, "log", IO_WRITE | IO_CREATE | IO_LOG);
    uint8_t *bytes = aligned(BLOCK, 'c');
    struct chain c = {.io = f->io};
    struct io_async op = {.kind = IO_OP_WRITE_DURABLE,
                          .file = file,
                          .bytes = bytes,
                          .len = BLOCK,
                          .done = start_next,
                          .arg = &c};
    uint64_t size = 0;

    assert_int_equal(f->io->ops->start(f->io, &op), 0);
    while (c.done < CHAIN_LENGTH)
        assert_true(f->io->ops->reap(f->io, true) > 0);
    assert_int_equal(c.errors, 0);
    assert_int_equal(io_size(file, &size), 0);
    assert_int_equal(size, CHAIN_LENGTH * BLOCK);
    io_file_close(file);
    free(bytes);
}

#define THREAD_OPS 60
#define THREADS    3

struct crew {
    struct io *io;
    struct io_file *file;
    const uint8_t *bytes;
    struct af_mutex lock;
    struct af_cond finished;
    int done, errors; // of the thread that reaps
    int starters;     // under `lock`, as the next
    bool leave;
    struct io_async ops[THREADS * THREAD_OPS];
};

static void crew_done(struct io_async *op, int result)
{
    struct crew *c = op->arg;

    c->done++;
    c->errors += result != 0;
}

static void *crew_start(void *arg)
{
    struct crew *c = arg;
    int first;

    af_lock(&c->lock);
    first = c->starters++ * THREAD_OPS;
    af_unlock(&c->lock);
    for (int i = first; i < first + THREAD_OPS; i++) {
        c->ops[i] = (struct io_async){.kind = i % 5 ? IO_OP_WRITE_DURABLE : IO_OP_SYNC,
                                      .file = c->file,
                                      .bytes = c->bytes,
                                      .len = BLOCK,
                                      .off = (uint64_t)i * BLOCK,
                                      .done = crew_done,
                                      .arg = c};
        AF_ASSERT(c->io->ops->start(c->io, &c->ops[i]) == 0);
    }
    // A thread that started something lives until it has finished.
    af_lock(&c->lock);
    while (!c->leave)
        af_cond_wait(&c->finished, &c->lock);
    af_unlock(&c->lock);
    return NULL;
}

static void test_threads_start_while_one_reaps(void **state)
{
    struct fixture *f = *state;
    struct crew *c = calloc(1, sizeof(*c));
    uint8_t *bytes = aligned(BLOCK, 't');
    pthread_t threads[THREADS];
    int reaped = 0;

    assert_non_null(c);
    c->io = f->io;
    c->file = open_ok(f->io, "log", IO_WRITE | IO_CREATE | IO_LOG);
    c->bytes = bytes;
    af_mutex_init(&c->lock, LOCK_RANK_STORE);
    af_cond_init(&c->finished);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, crew_start, c), 0);
    while (reaped < THREADS * THREAD_OPS) {
        int r = f->io->ops->reap(f->io, reaped % 2);

        assert_true(r >= 0);
        reaped += r;
    }
    assert_int_equal(c->errors, 0);
    assert_int_equal(c->done, THREADS * THREAD_OPS);
    af_lock(&c->lock);
    c->leave = true;
    af_cond_broadcast(&c->finished);
    af_unlock(&c->lock);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    io_file_close(c->file);
    af_cond_destroy(&c->finished);
    af_mutex_destroy(&c->lock);
    free(bytes);
    free(c);
}

// ---- the rest ----

static void test_read_only_refuses_every_change(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    uint8_t *bytes = aligned(BLOCK, 'x');
    struct done d = {0};
    struct io_async op = {.bytes = bytes, .len = BLOCK, .done = note_done, .arg = &d};
    struct io_file *file = NULL;
    struct io *io = NULL;
    char got[4];

    put_text(f->io, "data", "text");
    assert_int_equal(io_open(f->dir, f->method, true, &io), 0);
    assert_true(io->read_only);
    assert_false(io->direct);
    assert_int_equal(io_file_open(io, "data", IO_WRITE, &file), -EROFS);
    assert_int_equal(io_file_open(io, "data", IO_CREATE, &file), -EROFS);
    file = open_ok(io, "data", IO_READ_ONLY | IO_LOG);
    assert_int_equal(io_pread(file, got, 4, 0), 0);
    assert_memory_equal(got, "text", 4);
    assert_int_equal(io_pwrite(file, "x", 1, 0), -EROFS);
    assert_int_equal(io_sync(file), -EROFS);
    assert_int_equal(ops->allocate(file, 0, 4), -EROFS);
    assert_int_equal(ops->truncate(file, 0), -EROFS);
    assert_int_equal(ops->rename(io, "data", "other"), -EROFS);
    assert_int_equal(ops->unlink(io, "data"), -EROFS);
    assert_int_equal(ops->mkdir(io, "dir"), -EROFS);
    assert_int_equal(ops->sync_dir(io, ""), -EROFS);
    op.file = file;
    op.kind = IO_OP_WRITE_DURABLE;
    assert_int_equal(ops->start(io, &op), -EROFS);
    op.kind = IO_OP_SYNC;
    assert_int_equal(ops->start(io, &op), -EROFS);
    assert_int_equal(d.count, 0);
    io_file_close(file);
    io->ops->destroy(io);
    free(bytes);
}

static void test_space_clocks_and_random(void **state)
{
    struct fixture *f = *state;
    struct io_space space = {0};
    uint64_t ticks = f->io->ops->ticks_ms(f->io);

    assert_int_equal(f->io->ops->space(f->io, &space), 0);
    assert_true(space.total_bytes > 0 && space.avail_bytes <= space.total_bytes);
    assert_true(f->io->ops->now_ns(f->io) > UINT64_C(1577836800) * 1000000000);
    assert_true(f->io->ops->ticks_ms(f->io) >= ticks);
    assert_true(f->io->ops->random(f->io) != f->io->ops->random(f->io));
    assert_string_equal(f->io->ops->name, f->method);
    assert_non_null(strstr(io_describe(f->io), f->method));
}

static void test_open_names_the_failure(void **state)
{
    struct fixture *f = *state;
    struct io *io = NULL;

    assert_int_equal(io_open("/nonexistent/dir", f->method, false, &io), -ENOENT);
    assert_int_equal(io_open(f->dir, "floppy", false, &io), -AF_E_IO_UNSUPPORTED);
    assert_null(io);
    assert_int_equal(io_open(f->dir, NULL, false, &io), 0);
    io->ops->destroy(io);
    f->io->ops->destroy(NULL);
}

// Pages of the range that wait in the kernel's cache to be written; what cachestat(2) says, which
// Linux has since 6.5. -1: it does not.
static int64_t pages_unwritten(const char *path, uint64_t len)
{
    struct {
        uint64_t off, len;
    } range = {.off = 0, .len = len};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } found = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    long r = syscall(CACHESTAT_NUMBER, fd, &range, &found, 0);
    close(fd);
    return r < 0 ? -1 : (int64_t)(found.dirty + found.writeback);
}

static void run_op(struct io *io, struct io_async *op, struct done *d)
{
    d->count = 0;
    op->done = note_done;
    op->arg = d;
    assert_int_equal(io_start(io, op), 0);
    while (d->count < 1)
        assert_true(io_reap(io, true) >= 0);
    assert_int_equal(d->result, 0);
}

// Writes and syncs that are called durable reach the disk, not the cache alone: what a kill of the
// process would not tell.
static void test_durable_leaves_nothing_in_the_cache(void **state)
{
    struct fixture *f = *state;
    struct done d = {0};
    char path[300];
    void *bytes = aligned(4 * BLOCK, 0x5a);

    f->io->direct = false; // what goes past the cache is not seen in it
    (void)snprintf(path, sizeof(path), "%s/log", f->dir);
    struct io_file *file = open_ok(f->io, "log", IO_WRITE | IO_CREATE | IO_LOG);
    struct io_async write = {
        .kind = IO_OP_WRITE_DURABLE, .file = file, .bytes = bytes, .len = 4 * BLOCK};
    struct io_async sync = {.kind = IO_OP_SYNC, .file = file};
    int64_t unwritten = 1;

    for (unsigned how = 0; how < 3 && unwritten > 0; how++) {
        assert_int_equal(io_pwrite(file, bytes, 4 * BLOCK, 0), 0);
        unwritten = pages_unwritten(path, 4 * BLOCK);
        if (how == 0)
            assert_int_equal(io_sync(file), 0);
        else
            run_op(f->io, how == 1 ? &sync : &write, &d);
        if (unwritten > 0) // else nothing can be told: no cachestat(2), or a disk in memory
            assert_int_equal(pages_unwritten(path, 4 * BLOCK), 0);
    }
    io_file_close(file);
    free(bytes);
    if (unwritten <= 0)
        skip();
}

// In a child of its own, where the kernel answers as one that has no io_uring.
static int without_uring(const char *dir)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = AF_ARRAY_LEN(code), .filter = code};
    struct io_choice insist = {.uring = true};
    struct io *io;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        return 1;
    if (io_open(dir, "uring", false, &io) != -AF_E_IO_UNSUPPORTED)
        return 2;
    if (io_open_chosen(dir, &insist, false, &io) != -AF_E_IO_UNSUPPORTED)
        return 3;
#if !defined(__SANITIZE_THREAD__) // which does not let a forked child start a thread
    insist.uring = false;
    if (io_open_chosen(dir, &insist, false, &io) != 0 || strcmp(io->ops->name, "plain") != 0)
        return 4;
#endif
    return 0;
}

static void test_uring_asked_for_by_name_is_not_replaced(void **state)
{
    struct fixture *f = *state;
    int status = 0;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        _exit(without_uring(f->dir));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int run_method(const char *name)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_write_and_read_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_past_the_end_is_short, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sizes_follow_truncate_and_allocate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_flags, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_opening_a_disk_leaves_the_directory_as_it_is, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_durable_write_and_sync, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reap_without_work_returns_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_misaligned_log_writes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors_of_operations_reach_done, setup, teardown),
        cmocka_unit_test_setup_teardown(test_event_fd_tells_of_finished_work, setup, teardown),
        cmocka_unit_test_setup_teardown(test_done_may_start_the_next_operation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads_start_while_one_reaps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_only_refuses_every_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_space_clocks_and_random, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_names_the_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_durable_leaves_nothing_in_the_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(test_uring_asked_for_by_name_is_not_replaced, setup,
                                        teardown),
    };

    method = name;
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
    int failed = 0;

    for (size_t i = 0; i < AF_ARRAY_LEN(methods); i++) {
        struct io *io = NULL;
        int r = io_open(".", methods[i], true, &io);

        if (r == -AF_E_IO_UNSUPPORTED) {
            printf("%s: skipped, since this kernel does not have it\n", methods[i]);
            continue;
        }
        if (!r)
            io->ops->destroy(io);
        failed += run_method(methods[i]);
    }
    return failed;
}
