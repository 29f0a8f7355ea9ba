// SPDX-License-Identifier: MIT
// Power cuts of the simulated disk part by part, so that a test can go through all subsets of what
// is unsynced.
#include <string.h>

#include "base/check.h"
#include "tests/sim/sim_internal.h"

// Goes over the parts; with `keep` it also decides about them.
struct parts {
    const bool *keep; // NULL: only counts
    bool garbage;
    uint64_t random;
    size_t count;
};

static bool next_part(struct parts *p)
{
    size_t part = p->count++;

    return p->keep && p->keep[part];
}

// ---- sectors ----

static bool is_covered(const struct sim_inode *inode, size_t before, uint64_t off, uint64_t end)
{
    for (size_t i = 0; i < before; i++) {
        const struct sim_change *c = &inode->changes[i];

        if (c->kind == SIM_CHANGE_DATA && c->off < end && off < c->off + c->len)
            return true;
    }
    return false;
}

// A sector that is on the disk already is no part: whether it is written makes no difference.
static bool is_same(const struct sim_content *was, uint64_t off, const uint8_t *bytes, size_t len)
{
    uint8_t old[SIM_SECTOR_BYTES];

    content_read(was, off, old, len);
    return memcmp(old, bytes, len) == 0;
}

// `was`: what is durable before the cut; `index`: the number of changes before this one. True when
// any of it is kept.
static bool parts_write(struct parts *p, const struct sim_content *was, struct sim_inode *inode,
                        size_t index, uint64_t off, const uint8_t *bytes, uint64_t len)
{
    uint64_t end = off + len;
    bool any = false;

    for (uint64_t at = off, next; at < end; at = next) {
        next = AF_MIN(end, AF_ROUND_DOWN(at, (uint64_t)SIM_SECTOR_BYTES) + SIM_SECTOR_BYTES);
        if (is_same(was, at, bytes + (at - off), next - at) && !is_covered(inode, index, at, next))
            continue;
        if (next_part(p)) {
            content_write(&inode->durable, at, bytes + (at - off), next - at);
            any = true;
        } else if (p->keep && p->garbage) {
            sim_damage_sector(inode, at, SIM_SECTOR_BYTES, &p->random);
        }
    }
    return any;
}

// ---- files ----

// The sizes of a file follow each other; returns how many of them are kept.
static size_t parts_sizes(struct parts *p, const struct sim_inode *inode)
{
    size_t seen = 0, kept = 0;

    for (size_t i = 0; i < inode->change_count; i++) {
        if (inode->changes[i].kind != SIM_CHANGE_SIZE)
            continue;
        seen++;
        if (next_part(p))
            kept = seen;
    }
    return kept;
}

static void parts_inode(struct parts *p, const struct sim *sim, const struct sim_content *was,
                        struct sim_inode *inode)
{
    size_t sizes = parts_sizes(p, inode);

    for (size_t i = 0; i < inode->change_count; i++) {
        const struct sim_change *c = &inode->changes[i];

        if (c->kind == SIM_CHANGE_DATA) {
            (void)parts_write(p, was, inode, i, c->off, c->blob->bytes + c->blob_off, c->len);
        } else if (c->kind == SIM_CHANGE_ALLOCATE) {
            if (p->keep) // which changes no byte and is no part
                sim_durable_change(inode, c);
        } else if (sizes > 0) {
            sim_durable_change(inode, c);
            sizes--;
        }
    }
    for (size_t i = 0; i < sim->flight_count; i++) {
        const struct sim_flight *f = &sim->flights[i];

        if (f->inode == inode && f->is_write &&
            parts_write(p, was, inode, inode->change_count, f->off, f->blob->bytes, f->len))
            inode->durable_size = AF_MAX(inode->durable_size, f->off + f->len);
    }
}

size_t sim_cut_parts(const struct sim *sim)
{
    struct parts p = {0};

    for (size_t i = 0; i < sim->inode_count; i++) // which only counts, and so changes nothing
        parts_inode(&p, sim, &sim->inodes[i]->durable, sim->inodes[i]);
    return p.count + sim->name_change_count;
}

void sim_power_cut_parts(struct sim *sim, const bool *keep, bool garbage, uint64_t seed)
{
    struct parts p = {.keep = keep, .garbage = garbage, .random = sim_mix(seed, 5)};

    sim_forget_process(sim);
    for (size_t i = 0; i < sim->inode_count; i++) {
        struct sim_content was; // what is compared must not change while it is cut

        content_copy(&was, &sim->inodes[i]->durable);
        parts_inode(&p, sim, &was, sim->inodes[i]);
        content_free(&was);
        sim_settle_inode(sim->inodes[i]);
    }
    sim_forget_flights(sim);
    for (size_t i = 0; i < sim->name_change_count; i++) {
        if (next_part(&p))
            sim_name_change_apply(&sim->durable_names, &sim->name_changes[i]);
    }
    sim_settle_names(sim);
}
