// SPDX-License-Identifier: MIT
// A disk that lies about durability.
#include "tests/lib/lie.h"

#include <string.h>

#include "base/check.h"

#define LATER_MAX 8

// One disk at a time, in one thread.
static const struct io_ops *honest;
static struct io_ops lying;
static enum lie telling;
static struct io_async *later[LATER_MAX]; // started and said to be durable at the next reap
static unsigned later_count;

const char *lie_name(enum lie lie)
{
    static const char *const names[LIE_COUNT] = {
        "no lie",
        "log writes are not durable",
        "syncs of log segments do nothing",
        "syncs of data do nothing",
        "syncs of the superblock do nothing",
        "syncs of directories do nothing",
    };

    return (unsigned)lie < LIE_COUNT ? names[lie] : "?";
}

static bool is_about(const char *path)
{
    switch (telling) {
    case LIE_LOG_SYNC:
    case LIE_LOG_WRITE:
        return strncmp(path, "wal/", 4) == 0;
    case LIE_DATA_SYNC:
        return strcmp(path, "data") == 0;
    case LIE_SUPERBLOCK:
        return strncmp(path, "superblock", 10) == 0;
    case LIE_NONE:
    case LIE_DIRECTORY:
    case LIE_COUNT:
        break;
    }
    return false;
}

static int lying_sync(struct io_file *f)
{
    return telling != LIE_LOG_WRITE && is_about(f->path) ? 0 : honest->sync(f);
}

static int lying_sync_dir(struct io *io, const char *path)
{
    return telling == LIE_DIRECTORY ? 0 : honest->sync_dir(io, path);
}

static int lying_start(struct io *io, struct io_async *op)
{
    bool write = op->kind == IO_OP_WRITE_DURABLE;
    bool lie =
        is_about(op->file->path) && (write ? telling == LIE_LOG_WRITE : telling != LIE_LOG_WRITE);

    if (!lie)
        return honest->start(io, op);
    op->result = 0;
    if (write) {
        struct iovec iov = {.iov_base = (void *)(uintptr_t)op->bytes, .iov_len = op->len};

        op->result = honest->pwritev(op->file, &iov, 1, op->off);
    }
    AF_ASSERT(later_count < LATER_MAX);
    later[later_count++] = op;
    return 0;
}

static int lying_reap(struct io *io, bool wait)
{
    struct io_async *now[LATER_MAX];
    unsigned count = later_count;
    int ran = honest->reap(io, wait && count == 0);

    memcpy(now, later, sizeof(now));
    later_count = 0;
    for (unsigned i = 0; i < count; i++)
        now[i]->done(now[i], now[i]->result);
    return ran < 0 ? ran : ran + (int)count;
}

void lie_end(struct sim *sim)
{
    if (honest)
        sim_io(sim)->ops = honest;
}

void lie_begin(struct sim *sim, enum lie lie)
{
    struct io *io = sim_io(sim);

    if (!honest)
        honest = io->ops;
    lying = *honest;
    lying.sync = lying_sync;
    lying.sync_dir = lying_sync_dir;
    lying.start = lying_start;
    lying.reap = lying_reap;
    telling = lie;
    later_count = 0;
    io->ops = &lying;
}
