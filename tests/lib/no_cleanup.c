// SPDX-License-Identifier: MIT
// A disk that takes no renames and removals of log segments. The simulated disk's table of
// functions is replaced.
#include "tests/lib/no_cleanup.h"

#include <errno.h>
#include <string.h>

// One thread; all disks share the same table.
static const struct io_ops *honest;
static struct io_ops refusing;
static uint64_t refusals;

static bool is_segment(const char *path)
{
    return strncmp(path, "wal/", 4) == 0;
}

static int refusing_rename(struct io *io, const char *from, const char *to)
{
    if (!is_segment(from))
        return honest->rename(io, from, to);
    refusals++;
    return -ENOENT;
}

// What a crash has left of the making of a segment must go; it is zeros. struct io is the first
// member of a simulated disk.
static bool was_used(struct io *io, const char *path)
{
    uint8_t magic[8] = {0};

    return sim_read_raw((const struct sim *)io, path, 0, magic, sizeof(magic)) == 0 &&
           magic[0] != 0;
}

static int refusing_unlink(struct io *io, const char *path)
{
    if (!is_segment(path) || !was_used(io, path))
        return honest->unlink(io, path);
    refusals++;
    return -EPERM;
}

void no_cleanup_begin(struct sim *sim)
{
    struct io *io = sim_io(sim);

    if (!honest) {
        honest = io->ops;
        refusing = *honest;
        refusing.rename = refusing_rename;
        refusing.unlink = refusing_unlink;
    }
    io->ops = &refusing;
}

uint64_t no_cleanup_refusals(void)
{
    return refusals;
}
