// SPDX-License-Identifier: MIT
// Contents of files on the simulated disk: the visible bytes, the durable ones, the changes
// between.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/sim/sim_internal.h"

#define SIM_ALIGN 4096u // of writes to log files

// ---- bytes of writes ----

struct sim_blob *sim_blob_new(const void *bytes, uint64_t len)
{
    struct sim_blob *blob = malloc(sizeof(*blob) + len);

    AF_ASSERT(blob);
    blob->refs = 1;
    if (bytes)
        memcpy(blob->bytes, bytes, len);
    return blob;
}

struct sim_blob *sim_blob_get(struct sim_blob *blob)
{
    if (blob)
        blob->refs++;
    return blob;
}

void sim_blob_put(struct sim_blob *blob)
{
    if (blob && --blob->refs == 0)
        free(blob);
}

// ---- the journal of a file ----

struct sim_change *sim_change_add(struct sim *sim, struct sim_inode *inode,
                                  enum sim_change_kind kind, uint64_t off, uint64_t len)
{
    struct sim_change *change;

    sim_grow(&inode->changes, &inode->change_cap, inode->change_count, sizeof(*change));
    change = &inode->changes[inode->change_count++];
    *change = (struct sim_change){.kind = kind, .seq = ++sim->seq, .off = off, .len = len};
    return change;
}

void sim_changes_clear(struct sim_inode *inode)
{
    for (size_t i = 0; i < inode->change_count; i++)
        sim_blob_put(inode->changes[i].blob);
    inode->change_count = 0;
}

// Splits a change that reaches beyond `end`: what lies behind becomes a change of its own, after
// it.
static void change_split(struct sim_inode *inode, size_t index, uint64_t end)
{
    struct sim_change *change, rest;

    sim_grow(&inode->changes, &inode->change_cap, inode->change_count, sizeof(*change));
    change = &inode->changes[index];
    rest = *change;
    rest.off = end;
    rest.len = change->off + change->len - end;
    rest.blob_off += end - change->off;
    sim_blob_get(rest.blob);
    change->len = end - change->off;
    memmove(change + 2, change + 1, (inode->change_count - index - 1) * sizeof(*change));
    change[1] = rest;
    inode->change_count++;
}

void sim_changes_cover(struct sim_inode *inode, size_t count, uint64_t off, uint64_t len)
{
    uint64_t end = len > UINT64_MAX - off ? UINT64_MAX : off + len;

    for (size_t i = 0; i < count; i++) {
        struct sim_change *change = &inode->changes[i];
        uint64_t change_end = change->off + change->len;

        if (change->kind != SIM_CHANGE_DATA || change->off >= end || change_end <= off)
            continue;
        if (change_end > end) {
            change_split(inode, i, end);
            change = &inode->changes[i];
            count++;
        }
        if (change->off < off) {
            change->len = off - change->off;
            continue;
        }
        sim_blob_put(change->blob);
        inode->change_count--;
        memmove(change, change + 1, (inode->change_count - i) * sizeof(*change));
        count--;
        i--;
    }
}

void sim_durable_change(struct sim_inode *inode, const struct sim_change *change)
{
    switch (change->kind) {
    case SIM_CHANGE_DATA:
        content_write(&inode->durable, change->off, change->blob->bytes + change->blob_off,
                      change->len);
        break;
    case SIM_CHANGE_SIZE:
        // `len` is the size before. Bytes beyond the durable size can be there already, when a
        // write was made durable before the size was.
        if (change->off < change->len)
            content_truncate(&inode->durable, change->off);
        inode->durable_size = change->off;
        break;
    case SIM_CHANGE_ALLOCATE:
        content_allocate(&inode->durable, change->off, change->len);
        break;
    }
}

static void sim_set_size(struct sim *sim, struct sim_inode *inode, uint64_t size)
{
    if (size == inode->size)
        return;
    (void)sim_change_add(sim, inode, SIM_CHANGE_SIZE, size, inode->size);
    if (size < inode->size)
        content_truncate(&inode->content, size);
    inode->size = size;
}

static bool sim_has_room(const struct sim *sim, const struct sim_inode *inode, uint64_t off,
                         uint64_t len)
{
    uint64_t more = content_holes(&inode->content, off, len) * SIM_PAGE_BYTES;

    return !more || sim_used_bytes(sim) + more <= sim->capacity;
}

// Takes over the reference to `blob`.
static int sim_cache_blob(struct sim *sim, struct sim_inode *inode, uint64_t off,
                          struct sim_blob *blob, uint64_t len)
{
    struct sim_change *change;

    if (!len || !sim_has_room(sim, inode, off, len)) {
        sim_blob_put(blob);
        return len ? -ENOSPC : 0;
    }
    if (off + len > inode->size)
        sim_set_size(sim, inode, off + len);
    change = sim_change_add(sim, inode, SIM_CHANGE_DATA, off, len);
    change->blob = blob;
    content_write(&inode->content, off, blob->bytes, len);
    return 0;
}

int sim_cache_write(struct sim *sim, struct sim_inode *inode, uint64_t off, const void *bytes,
                    uint64_t len)
{
    return sim_cache_blob(sim, inode, off, sim_blob_new(bytes, len), len);
}

// ---- calls ----

// What is wrong with a change through this file, before anything is tried.
static int sim_check_change(const struct io_file *f)
{
    const struct sim_file *file = (const struct sim_file *)f;

    if (f->io->read_only)
        return -EROFS;
    if (!file->inode)
        return -EIO;
    return file->flags & IO_WRITE ? 0 : -EBADF;
}

int sim_pread(struct io_file *f, void *bytes, size_t len, uint64_t off)
{
    struct sim_file *file = sim_file_of(f);
    struct sim_fate fate;

    if (!file->inode)
        return -EIO;
    fate = sim_decide(file->sim, SIM_READ, f->path, off, len);
    if (fate.extent == SIM_DO_PART && off + len <= file->inode->size)
        content_read(&file->inode->content, off, bytes, len / 2);
    if (fate.result)
        return fate.result;
    if (len > UINT64_MAX - off || off + len > file->inode->size)
        return -AF_E_IO_SHORT;
    content_read(&file->inode->content, off, bytes, len);
    if (fate.corrupt && len) {
        uint64_t bit = sim_below(&file->sim->choices, len * 8);

        ((uint8_t *)bytes)[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    return 0;
}

// How much of a write happens when it happens in part: whole sectors, but not all.
static uint64_t sim_short_len(struct sim *sim, uint64_t len)
{
    return AF_ROUND_DOWN(sim_below(&sim->choices, len), (uint64_t)SIM_SECTOR_BYTES);
}

int sim_pwritev(struct io_file *f, const struct iovec *iov, int iov_count, uint64_t off)
{
    struct sim_file *file = sim_file_of(f);
    struct sim_blob *blob;
    struct sim_fate fate;
    uint64_t len = 0, at = 0;
    int r = sim_check_change(f);

    for (int i = 0; i < iov_count; i++)
        len += iov[i].iov_len;
    if (!r && (off > INT64_MAX || len > INT64_MAX - off))
        r = -EINVAL;
    if (!r && (file->flags & IO_LOG) && (off % SIM_ALIGN || len % SIM_ALIGN))
        r = -EINVAL;
    if (r || !len)
        return r;
    fate = sim_decide(file->sim, SIM_WRITE, f->path, off, len);
    if (fate.extent == SIM_DO_NOTHING || fate.extent == SIM_DO_LOSE)
        return fate.result;
    blob = sim_blob_new(NULL, len);
    for (int i = 0; i < iov_count; i++) {
        if (iov[i].iov_len)
            memcpy(blob->bytes + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    if (fate.extent == SIM_DO_PART)
        len = sim_short_len(file->sim, len);
    r = sim_cache_blob(file->sim, file->inode, off, blob, len);
    return fate.result ? fate.result : r;
}

int sim_sync(struct io_file *f)
{
    struct sim_file *file = sim_file_of(f);
    struct sim_fate fate;

    if (f->io->read_only || !file->inode)
        return f->io->read_only ? -EROFS : -EIO;
    fate = sim_decide(file->sim, SIM_SYNC, f->path, 0, 0);
    sim_sync_changes(file->sim, file->inode, UINT64_MAX, fate.extent);
    return fate.result;
}

int sim_size(struct io_file *f, uint64_t *ret_bytes)
{
    struct sim_file *file = sim_file_of(f);
    struct sim_fate fate;

    if (!file->inode)
        return -EIO;
    fate = sim_decide(file->sim, SIM_SIZE, f->path, 0, 0);
    if (fate.result)
        return fate.result;
    *ret_bytes = file->inode->size;
    return 0;
}

int sim_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
    struct sim_file *file = sim_file_of(f);
    struct sim_inode *inode = file->inode;
    int r = sim_check_change(f);
    struct sim_fate fate;

    if (!r && (!len || off > INT64_MAX || len > INT64_MAX - off))
        r = -EINVAL;
    if (r)
        return r;
    fate = sim_decide(file->sim, SIM_ALLOCATE, f->path, off, len);
    if (fate.extent == SIM_DO_NOTHING || fate.extent == SIM_DO_LOSE)
        return fate.result;
    if (!sim_has_room(file->sim, inode, off, len)) {
        r = -ENOSPC;
    } else {
        (void)sim_change_add(file->sim, inode, SIM_CHANGE_ALLOCATE, off, len);
        content_allocate(&inode->content, off, len);
        // In part: the blocks are there, the size is not.
        if (fate.extent == SIM_DO_ALL && off + len > inode->size)
            sim_set_size(file->sim, inode, off + len);
    }
    return fate.result ? fate.result : r;
}

int sim_truncate(struct io_file *f, uint64_t bytes)
{
    struct sim_file *file = sim_file_of(f);
    int r = sim_check_change(f);
    struct sim_fate fate;

    if (!r && bytes > INT64_MAX)
        r = -EINVAL;
    if (r)
        return r;
    fate = sim_decide(file->sim, SIM_TRUNCATE, f->path, bytes, 0);
    if (fate.extent == SIM_DO_ALL ||
        (fate.extent == SIM_DO_PART && sim_below(&file->sim->choices, 2)))
        sim_set_size(file->sim, file->inode, bytes);
    return fate.result;
}
