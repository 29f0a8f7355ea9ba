// SPDX-License-Identifier: MIT
// Asynchronous operations of the simulated disk, and what makes bytes durable.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/sim/sim_internal.h"

#define SIM_ALIGN 4096u

// ---- durability ----

// Some sectors of a write become durable, the others do not. With `whole` all do.
static void sim_durable_sectors(struct sim *sim, struct sim_inode *inode,
                                const struct sim_change *change, bool whole)
{
    uint64_t end = change->off + change->len;

    for (uint64_t at = change->off; at < end;) {
        uint64_t next =
            AF_MIN(end, AF_ROUND_DOWN(at, (uint64_t)SIM_SECTOR_BYTES) + SIM_SECTOR_BYTES);

        if (whole || sim_below(&sim->choices, 2))
            content_write(&inode->durable, at,
                          change->blob->bytes + change->blob_off + (at - change->off), next - at);
        at = next;
    }
}

// Puts a change that stays unsynced back into the journal.
static void sim_keep_change(struct sim_inode *inode, const struct sim_change *change)
{
    sim_grow(&inode->changes, &inode->change_cap, inode->change_count, sizeof(*change));
    inode->changes[inode->change_count++] = *change;
}

// What stays in the journal must not later overwrite what has become durable after it.
static void sim_make_durable(struct sim_inode *inode, const struct sim_change *change)
{
    sim_durable_change(inode, change);
    if (change->kind == SIM_CHANGE_DATA)
        sim_changes_cover(inode, inode->change_count, change->off, change->len);
    else if (change->kind == SIM_CHANGE_SIZE && change->off < change->len)
        sim_changes_cover(inode, inode->change_count, change->off, UINT64_MAX);
    sim_blob_put(change->blob);
}

void sim_sync_changes(struct sim *sim, struct sim_inode *inode, uint64_t seq,
                      enum sim_extent extent)
{
    struct sim_change *changes = inode->changes;
    size_t count = inode->change_count;
    // Sizes go with any data, since one that followed later would cut off what is durable already.
    // When the data are lost, the metadata are not: they wait for the next sync.
    bool sizes = extent != SIM_DO_LOSE;

    if (extent == SIM_DO_NOTHING || !count)
        return;
    inode->changes = NULL;
    inode->change_count = inode->change_cap = 0;
    for (size_t i = 0; i < count; i++) {
        struct sim_change *change = &changes[i];
        bool is_data = change->kind == SIM_CHANGE_DATA;

        if (change->seq <= seq && is_data && extent == SIM_DO_LOSE) {
            // It leaves the journal as if it were on the disk, which is true for some of it at
            // best.
            if (sim_below(&sim->choices, 3) == 0)
                sim_durable_sectors(sim, inode, change, false);
            sim_blob_put(change->blob);
        } else if (change->seq > seq || (!is_data && !sizes) ||
                   (is_data && extent == SIM_DO_PART && sim_below(&sim->choices, 2))) {
            sim_keep_change(inode, change);
        } else {
            sim_make_durable(inode, change);
        }
    }
    free(changes);
}

// The metadata that is needed to find the bytes of a durable write again.
static void sim_sync_sizes(struct sim_inode *inode)
{
    struct sim_change *changes = inode->changes;
    size_t count = inode->change_count;

    inode->changes = NULL;
    inode->change_count = inode->change_cap = 0;
    for (size_t i = 0; i < count; i++) {
        if (changes[i].kind == SIM_CHANGE_DATA)
            sim_keep_change(inode, &changes[i]);
        else
            sim_make_durable(inode, &changes[i]);
    }
    free(changes);
}

static void sim_flight_remove(struct sim *sim, size_t index)
{
    sim->flight_count--;
    memmove(&sim->flights[index], &sim->flights[index + 1],
            (sim->flight_count - index) * sizeof(*sim->flights));
}

// A write that nobody waits for does not reach the disk any more once a later one to the same place
// is durable.
static void sim_drop_stragglers(struct sim *sim, const struct sim_flight *newer)
{
    for (size_t i = sim->flight_count; i > 0; i--) {
        const struct sim_flight *f = &sim->flights[i - 1];

        if (f->op || !f->is_write || f->inode != newer->inode || f->started > newer->started ||
            f->off >= newer->off + newer->len || newer->off >= f->off + f->len)
            continue;
        sim_blob_put(f->blob);
        sim_flight_remove(sim, i - 1);
    }
}

static int sim_durable_write(struct sim *sim, const struct sim_flight *flight,
                             enum sim_extent extent)
{
    struct sim_inode *inode = flight->inode;
    size_t unsynced;
    int r;

    if (extent == SIM_DO_NOTHING)
        return 0;
    sim_sync_sizes(inode);
    // First as the cache takes it, which finds a full disk; then that change is made durable.
    unsynced = inode->change_count;
    r = sim_cache_write(sim, inode, flight->off, flight->blob->bytes, flight->len);
    if (r)
        return r;
    for (; unsynced < inode->change_count; unsynced++) {
        if (inode->changes[unsynced].kind == SIM_CHANGE_SIZE)
            sim_durable_change(inode, &inode->changes[unsynced]);
    }
    inode->change_count--;
    sim_durable_sectors(sim, inode, &inode->changes[inode->change_count], extent == SIM_DO_ALL);
    sim_blob_put(inode->changes[inode->change_count].blob);
    if (inode->change_count && inode->changes[inode->change_count - 1].kind == SIM_CHANGE_SIZE)
        inode->change_count--;
    sim_changes_cover(inode, inode->change_count, flight->off, flight->len);
    sim_drop_stragglers(sim, flight);
    return 0;
}

// ---- operations under way ----

int sim_start(struct io *io, struct io_async *op)
{
    struct sim *sim = sim_of(io);
    struct sim_file *file = sim_file_of(op->file);
    bool is_write = op->kind == IO_OP_WRITE_DURABLE;
    struct sim_flight flight = {.is_write = is_write};
    struct sim_fate fate;

    AF_ASSERT(op->done && op->file->io == io);
    if (io->read_only || !file->inode)
        return io->read_only ? -EROFS : -EIO;
    if (is_write && !(file->flags & IO_WRITE))
        return -EBADF;
    if (is_write && (!op->len || op->len % SIM_ALIGN || op->off % SIM_ALIGN ||
                     (uintptr_t)op->bytes % SIM_ALIGN || op->off > INT64_MAX - op->len))
        return -EINVAL;
    fate = sim_decide(sim, is_write ? SIM_START_WRITE : SIM_START_SYNC, op->file->path,
                      is_write ? op->off : 0, is_write ? op->len : 0);
    if (fate.result && (!is_write || fate.extent == SIM_DO_NOTHING))
        return fate.result;
    flight.inode = file->inode;
    flight.started = ++sim->seq;
    flight.held = fate.hold;
    if (is_write) {
        flight.off = op->off;
        flight.len = op->len;
        flight.blob = sim_blob_new(op->bytes, op->len);
    }
    // A write that was said not to be started can still have been: then nobody hears of its end.
    flight.op = fate.result ? NULL : op;
    sim_grow(&sim->flights, &sim->flight_cap, sim->flight_count, sizeof(flight));
    sim->flights[sim->flight_count++] = flight;
    return fate.result;
}

// Ends one operation and tells its owner.
static void sim_finish(struct sim *sim, size_t index)
{
    struct sim_flight flight = sim->flights[index];
    struct io_async *op = flight.op;
    struct sim_fate fate = sim_decide(sim, flight.is_write ? SIM_DONE_WRITE : SIM_DONE_SYNC,
                                      op->file->path, flight.off, flight.len);
    int r = 0;

    if (flight.is_write)
        AF_ASSERT(memcmp(op->bytes, flight.blob->bytes, flight.len) == 0);
    if (sim->dead && flight.is_write && fate.extent == SIM_DO_NOTHING) {
        // The machine ends, but the write may still be on its way to the disk.
        sim->flights[index].op = NULL;
    } else {
        sim_flight_remove(sim, index);
        if (flight.is_write)
            r = sim_durable_write(sim, &flight, fate.extent);
        else
            sim_sync_changes(sim, flight.inode, flight.started, fate.extent);
        sim_blob_put(flight.blob);
    }
    op->done(op, fate.result ? fate.result : r);
}

static bool sim_is_ready(const struct sim *sim, const struct sim_flight *flight, uint64_t bound)
{
    // A dead disk lets go of everything, so that the engine can unwind.
    return flight->op && flight->started <= bound && (sim->dead || !flight->held);
}

int sim_reap(struct io *io, bool wait)
{
    struct sim *sim = sim_of(io);
    uint64_t bound = sim->seq; // what `done` starts is for the next call
    const char *site = io_site;
    size_t under_way = 0, ready = 0, quota;
    int count = 0;

    for (size_t i = 0; i < sim->flight_count; i++) {
        under_way += sim->flights[i].op != NULL;
        ready += sim_is_ready(sim, &sim->flights[i], bound);
    }
    if (!ready && sim->dead)
        return -EIO;
    if (!ready)
        return wait && under_way ? -AF_E_WOULD_BLOCK : 0;
    quota = ready;
    if (sim->lazy && !sim->dead)
        quota = wait ? 1 + sim_below(&sim->choices, ready) : sim_below(&sim->choices, ready + 1);
    while (quota--) {
        size_t skip = sim->lazy ? sim_below(&sim->choices, ready) : 0;
        size_t i = 0;

        while (!sim_is_ready(sim, &sim->flights[i], bound) || skip--)
            i++;
        io_site = site; // of every completion, whatever `done` has called
        sim_finish(sim, i);
        ready--;
        count++;
    }
    return count;
}
