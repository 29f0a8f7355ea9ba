// SPDX-License-Identifier: MIT
// The simulated disk: its life, its copies, its clock and space, and the table of its functions.
#include "tests/sim/sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/sim/sim_internal.h"

#define SIM_CAPACITY_DEFAULT (UINT64_C(64) << 30)
#define SIM_NOW_NS_DEFAULT   (UINT64_C(1577836800) * 1000000000) // 2020-01-01

// ---- numbers and memory ----

void *sim_alloc(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);

    AF_ASSERT(p);
    return p;
}

void sim_grow(void *array, size_t *cap, size_t count, size_t element_bytes)
{
    void **p = array;

    if (count < *cap)
        return;
    *cap = *cap ? *cap * 2 : 8;
    *p = realloc(*p, *cap * element_bytes);
    AF_ASSERT(*p);
}

void sim_path_copy(char *to, const char *path)
{
    size_t size = strlen(path) + 1;

    AF_ASSERT(size <= SIM_PATH_BYTES);
    memcpy(to, path, size);
}

// SplitMix64.
uint64_t sim_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint64_t sim_below(uint64_t *state, uint64_t bound)
{
    return bound ? sim_next(state) % bound : 0;
}

uint64_t sim_mix(uint64_t a, uint64_t b)
{
    uint64_t state = a;

    state = sim_next(&state) ^ b;
    return sim_next(&state);
}

// ---- space and time ----

void sim_set_capacity(struct sim *sim, uint64_t bytes)
{
    sim->capacity = bytes;
}

uint64_t sim_used_bytes(const struct sim *sim)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < sim->inode_count; i++) {
        const struct sim_inode *inode = sim->inodes[i];
        bool visible = inode->open_count;

        for (size_t k = 0; k < sim->names.count && !visible; k++)
            visible = sim->names.entries[k].inode == inode;
        if (visible)
            pages += inode->content.page_count;
    }
    return pages * SIM_PAGE_BYTES;
}

static int sim_space(struct io *io, struct io_space *ret_space)
{
    struct sim *sim = sim_of(io);
    struct sim_fate fate = sim_decide(sim, SIM_SPACE, "", 0, 0);
    uint64_t used = sim_used_bytes(sim);

    if (fate.result)
        return fate.result;
    *ret_space = (struct io_space){
        .total_bytes = sim->capacity,
        .avail_bytes = sim->capacity > used ? sim->capacity - used : 0,
    };
    return 0;
}

void sim_reseed(struct sim *sim, uint64_t seed)
{
    sim->choices = sim_mix(seed, 1);
}

void sim_set_now_ns(struct sim *sim, uint64_t now_ns)
{
    sim->now_ns = now_ns;
}

void sim_set_ticks_ms(struct sim *sim, uint64_t ticks_ms)
{
    sim->ticks_ms = ticks_ms;
}

void sim_advance_ms(struct sim *sim, uint64_t ms)
{
    sim->now_ns += ms * 1000000;
    sim->ticks_ms += ms;
}

void sim_set_clock_hooks(struct sim *sim, uint64_t (*now_ns)(void *arg),
                         uint64_t (*ticks_ms)(void *arg), void *arg)
{
    sim->now_hook = now_ns;
    sim->ticks_hook = ticks_ms;
    sim->clock_arg = arg;
}

void sim_set_random_hook(struct sim *sim, uint64_t (*random_hook)(void *arg), void *arg)
{
    sim->random_hook = random_hook;
    sim->random_arg = arg;
}

static uint64_t sim_now_ns(struct io *io)
{
    struct sim *sim = sim_of(io);

    return sim->now_hook ? sim->now_hook(sim->clock_arg) : sim->now_ns;
}

static uint64_t sim_ticks_ms(struct io *io)
{
    struct sim *sim = sim_of(io);

    return sim->ticks_hook ? sim->ticks_hook(sim->clock_arg) : sim->ticks_ms;
}

static uint64_t sim_random(struct io *io)
{
    struct sim *sim = sim_of(io);

    return sim->random_hook ? sim->random_hook(sim->random_arg) : sim_next(&sim->randoms);
}

// ---- life ----

static int sim_event_fd(struct io *io)
{
    (void)io;
    return -1;
}

static void sim_destroy_io(struct io *io)
{
    sim_destroy(io ? sim_of(io) : NULL);
}

static const struct io_ops sim_ops = {
    .name = "sim",
    .open = sim_open_file,
    .close = sim_close_file,
    .pread = sim_pread,
    .pwritev = sim_pwritev,
    .sync = sim_sync,
    .size = sim_size,
    .allocate = sim_allocate,
    .truncate = sim_truncate,
    .rename = sim_rename,
    .unlink = sim_unlink,
    .mkdir = sim_mkdir,
    .sync_dir = sim_sync_dir,
    .list = sim_list,
    .space = sim_space,
    .now_ns = sim_now_ns,
    .ticks_ms = sim_ticks_ms,
    .random = sim_random,
    .start = sim_start,
    .reap = sim_reap,
    .event_fd = sim_event_fd,
    .destroy = sim_destroy_io,
};

struct sim *sim_create(uint64_t seed)
{
    struct sim *sim = sim_alloc(sizeof(*sim));

    sim->io.ops = &sim_ops;
    sim->next_ino = 1;
    sim->capacity = SIM_CAPACITY_DEFAULT;
    // What the disk chooses must not depend on how many random numbers the engine draws.
    sim->choices = sim_mix(seed, 1);
    sim->randoms = sim_mix(seed, 2);
    sim->now_ns = SIM_NOW_NS_DEFAULT;
    sim->ticks_ms = 1000;
    sim->crash_at = SIM_NEVER;
    return sim;
}

struct io *sim_io(struct sim *sim)
{
    return &sim->io;
}

void sim_set_lazy(struct sim *sim, bool lazy)
{
    sim->lazy = lazy;
}

void sim_destroy(struct sim *sim)
{
    if (!sim)
        return;
    sim_forget_process(sim);
    for (size_t i = 0; i < sim->flight_count; i++)
        sim_blob_put(sim->flights[i].blob);
    for (size_t i = 0; i < sim->inode_count; i++)
        sim_inode_free(sim->inodes[i]);
    free(sim->inodes);
    free(sim->names.entries);
    free(sim->durable_names.entries);
    free(sim->name_changes);
    free(sim->flights);
    free(sim->events);
    free(sim);
}

// ---- copies ----

static struct sim_inode *sim_counterpart(const struct sim *from, const struct sim *to,
                                         const struct sim_inode *inode)
{
    for (size_t i = 0; i < from->inode_count; i++) {
        if (from->inodes[i] == inode)
            return to->inodes[i];
    }
    af_assert_fail("inode is in the table", __FILE__, __LINE__);
}

static struct sim_inode *sim_clone_inode(const struct sim_inode *from)
{
    struct sim_inode *inode = sim_alloc(sizeof(*inode));

    *inode = *from;
    inode->open_count = 0;
    content_copy(&inode->content, &from->content);
    content_copy(&inode->durable, &from->durable);
    inode->change_cap = from->change_count;
    inode->changes = sim_alloc(from->change_count * sizeof(*inode->changes));
    for (size_t i = 0; i < from->change_count; i++) {
        inode->changes[i] = from->changes[i];
        inode->changes[i].blob = sim_blob_get(from->changes[i].blob);
    }
    return inode;
}

static void sim_clone_names(const struct sim *from, struct sim *to, const struct sim_names *names,
                            struct sim_names *ret_names)
{
    ret_names->cap = ret_names->count = names->count;
    ret_names->entries = sim_alloc(names->count * sizeof(*names->entries));
    for (size_t i = 0; i < names->count; i++) {
        ret_names->entries[i] = names->entries[i];
        ret_names->entries[i].inode = sim_counterpart(from, to, names->entries[i].inode);
    }
}

static void sim_clone_flights(const struct sim *from, struct sim *to)
{
    for (size_t i = 0; i < from->flight_count; i++) {
        struct sim_flight flight = from->flights[i];

        // A sync that is under way has done nothing yet, and nobody waits for it in the copy.
        if (!flight.is_write)
            continue;
        flight.op = NULL;
        flight.inode = sim_counterpart(from, to, flight.inode);
        sim_blob_get(flight.blob);
        sim_grow(&to->flights, &to->flight_cap, to->flight_count, sizeof(flight));
        to->flights[to->flight_count++] = flight;
    }
}

struct sim *sim_clone(const struct sim *from)
{
    struct sim *to = sim_alloc(sizeof(*to));

    to->io = from->io;
    to->next_ino = from->next_ino;
    to->seq = from->seq;
    to->capacity = from->capacity;
    to->choices = from->choices;
    to->randoms = from->randoms;
    to->now_ns = from->now_ns;
    to->ticks_ms = from->ticks_ms;
    to->lazy = from->lazy;
    to->crash_at = SIM_NEVER;
    to->site = from->site;

    to->inode_cap = to->inode_count = from->inode_count;
    to->inodes = sim_alloc(from->inode_count * sizeof(struct sim_inode *));
    for (size_t i = 0; i < from->inode_count; i++)
        to->inodes[i] = sim_clone_inode(from->inodes[i]);
    sim_clone_names(from, to, &from->names, &to->names);
    sim_clone_names(from, to, &from->durable_names, &to->durable_names);
    to->name_change_cap = to->name_change_count = from->name_change_count;
    to->name_changes = sim_alloc(from->name_change_count * sizeof(*to->name_changes));
    for (size_t i = 0; i < from->name_change_count; i++) {
        to->name_changes[i] = from->name_changes[i];
        to->name_changes[i].inode = sim_counterpart(from, to, from->name_changes[i].inode);
    }
    sim_clone_flights(from, to);
    sim_collect(to);
    return to;
}
