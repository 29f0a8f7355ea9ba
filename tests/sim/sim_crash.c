// SPDX-License-Identifier: MIT
// What a power cut or the end of the process leaves of the simulated disk.
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/sim/census.h"
#include "tests/sim/sim_internal.h"

// The odds of one file, in percent, so that a cut can spare one file and hit another.
struct cut {
    uint64_t random; // state of the generator
    enum sim_cut_policy policy;
    uint64_t keep_percent;
    uint64_t torn_percent;
    uint64_t sector_bytes; // what the device writes at once: 512 or 4096, by the seed
};

static bool cut_chance(struct cut *cut, uint64_t percent)
{
    return sim_below(&cut->random, 100) < percent;
}

static void cut_draw_odds(struct cut *cut)
{
    static const uint8_t keeps[] = {0, 20, 50, 80, 100};
    static const uint8_t torns[] = {0, 30, 70};

    cut->keep_percent = keeps[sim_below(&cut->random, AF_ARRAY_LEN(keeps))];
    cut->torn_percent = torns[sim_below(&cut->random, AF_ARRAY_LEN(torns))];
    if (cut->policy == SIM_CUT_DROP_ALL || cut->policy == SIM_CUT_KEEP_ALL) {
        cut->keep_percent = cut->policy == SIM_CUT_KEEP_ALL ? 100 : 0;
        cut->torn_percent = 0;
    }
}

void sim_forget_process(struct sim *sim)
{
    // The owners of open files still close them; until then every call answers -EIO.
    for (struct sim_file *file = sim->files, *next; file; file = next) {
        next = file->next;
        file->inode->open_count--;
        file->inode = NULL;
        file->sim = NULL;
    }
    sim->files = NULL;
    sim->event_count = 0;
    sim->fault_count = 0;
    sim->tag = NULL;
    sim->event_hook = NULL;
    sim->crash_at = SIM_NEVER;
    sim->dead = false;
}

// ---- one write ----

void sim_damage_sector(struct sim_inode *inode, uint64_t at, uint64_t sector_bytes,
                       uint64_t *random)
{
    uint8_t sector[SIM_SECTOR_BYTES_MAX];
    uint64_t sectors = inode->durable_size / sector_bytes;

    // Either what the heads wrote when the current went, or what lay there before the block was
    // given to this file.
    if (sectors && sim_below(random, 3) == 0) {
        content_read(&inode->durable, sim_below(random, sectors) * sector_bytes, sector,
                     sector_bytes);
    } else {
        for (size_t i = 0; i < sector_bytes; i++)
            sector[i] = (uint8_t)sim_next(random);
    }
    content_write(&inode->durable, AF_ROUND_DOWN(at, sector_bytes), sector, sector_bytes);
}

// A write that reached the disk in part: its first sectors, its last ones, or any.
static void cut_tear(struct cut *cut, struct sim_inode *inode, const struct sim_change *change)
{
    uint64_t end = change->off + change->len;
    uint64_t shape = sim_below(&cut->random, 3);
    uint64_t border = change->off + sim_below(&cut->random, change->len + 1);

    for (uint64_t at = change->off, next; at < end; at = next) {
        bool keep = shape == 0 ? at < border : shape == 1 ? at >= border : cut_chance(cut, 50);

        next = AF_MIN(end, AF_ROUND_DOWN(at, cut->sector_bytes) + cut->sector_bytes);
        if (keep)
            content_write(&inode->durable, at,
                          change->blob->bytes + change->blob_off + (at - change->off), next - at);
        else if (cut->policy == SIM_CUT_GARBAGE && cut_chance(cut, 40))
            sim_damage_sector(inode, at, cut->sector_bytes, &cut->random);
    }
}

static void cut_change(struct cut *cut, struct sim_inode *inode, const struct sim_change *change)
{
    if (change->kind == SIM_CHANGE_DATA && cut_chance(cut, cut->torn_percent))
        cut_tear(cut, inode, change);
    else if (cut_chance(cut, cut->keep_percent))
        sim_durable_change(inode, change);
}

// ---- one file ----

static void cut_flights(struct cut *cut, struct sim *sim, struct sim_inode *inode)
{
    for (size_t i = 0; i < sim->flight_count; i++) {
        const struct sim_flight *flight = &sim->flights[i];
        struct sim_change change = {
            .kind = SIM_CHANGE_DATA, .off = flight->off, .len = flight->len, .blob = flight->blob};

        if (flight->inode != inode || !flight->is_write)
            continue;
        if (flight->off + flight->len > inode->durable_size && cut_chance(cut, cut->keep_percent))
            inode->durable_size = flight->off + flight->len;
        cut_change(cut, inode, &change);
    }
}

void sim_settle_inode(struct sim_inode *inode)
{
    sim_changes_clear(inode);
    content_truncate(&inode->durable, inode->durable_size);
    content_free(&inode->content);
    content_copy(&inode->content, &inode->durable);
    inode->size = inode->durable_size;
}

static void cut_inode(struct cut *cut, struct sim *sim, struct sim_inode *inode)
{
    size_t sizes = 0, sizes_kept, seen = 0;

    cut_draw_odds(cut);
    for (size_t i = 0; i < inode->change_count; i++)
        sizes += inode->changes[i].kind == SIM_CHANGE_SIZE;
    // The sizes that a file had follow each other in one inode: a later one does not reach the disk
    // as if an earlier one had not been.
    sizes_kept = sim_below(&cut->random, sizes + 1);
    if (cut->policy == SIM_CUT_KEEP_ALL || cut->policy == SIM_CUT_DROP_ALL)
        sizes_kept = cut->policy == SIM_CUT_KEEP_ALL ? sizes : 0;
    for (size_t i = 0; i < inode->change_count; i++) {
        const struct sim_change *change = &inode->changes[i];

        if (change->kind != SIM_CHANGE_SIZE)
            cut_change(cut, inode, change);
        else if (seen++ < sizes_kept)
            sim_durable_change(inode, change);
    }
    cut_flights(cut, sim, inode);
    sim_settle_inode(inode);
}

// ---- names ----

void sim_settle_names(struct sim *sim)
{
    size_t i = 0;

    sim->name_change_count = 0;
    // What lies in a directory that is gone is gone. Each removal can make another one necessary.
    while (i < sim->durable_names.count) {
        struct sim_entry entry = sim->durable_names.entries[i++];

        if (!sim_parent_exists(&sim->durable_names, entry.path)) {
            sim_names_drop(&sim->durable_names, entry.path, entry.inode);
            i = 0;
        }
    }
    free(sim->names.entries);
    sim->names = sim->durable_names;
    sim->durable_names = (struct sim_names){0};
    for (i = 0; i < sim->names.count; i++)
        sim_names_set(&sim->durable_names, sim->names.entries[i].path, sim->names.entries[i].inode);
    sim_collect(sim);
}

static void cut_names(struct cut *cut, struct sim *sim)
{
    size_t count = sim->name_change_count;
    bool random = cut->policy == SIM_CUT_RANDOM || cut->policy == SIM_CUT_GARBAGE;
    bool in_order = random && sim_below(&cut->random, 2);
    size_t first = sim_below(&cut->random, count + 1);

    cut_draw_odds(cut);
    for (size_t k = 0; k < count; k++) {
        if (in_order ? k < first : cut_chance(cut, cut->keep_percent))
            sim_name_change_apply(&sim->durable_names, &sim->name_changes[k]);
    }
    sim_settle_names(sim);
}

void sim_forget_flights(struct sim *sim)
{
    for (size_t i = 0; i < sim->flight_count; i++)
        sim_blob_put(sim->flights[i].blob);
    sim->flight_count = 0;
}

void sim_power_cut(struct sim *sim, enum sim_cut_policy policy, uint64_t seed)
{
    struct cut cut = {
        .random = sim_mix(seed, 3),
        .policy = policy,
        .sector_bytes = sim_mix(seed, 5) & 1 ? SIM_SECTOR_BYTES_MAX : SIM_SECTOR_BYTES,
    };

    sim_forget_process(sim);
    for (size_t i = 0; i < sim->inode_count; i++)
        cut_inode(&cut, sim, sim->inodes[i]);
    sim_forget_flights(sim);
    cut_names(&cut, sim);
}

void sim_count_crash(const struct sim *sim)
{
    census_crash_point(sim->site);
    census_state(sim_hash(sim));
}

void sim_kill(struct sim *sim, uint64_t seed)
{
    uint64_t random = sim_mix(seed, 4);

    sim_forget_process(sim);
    for (size_t i = 0; i < sim->flight_count; i++) {
        const struct sim_flight *flight = &sim->flights[i];
        uint64_t len = flight->len;

        if (!flight->is_write)
            continue;
        switch (sim_below(&random, 3)) {
        case 0:
            continue;
        case 1:
            len = AF_ROUND_DOWN(sim_below(&random, len), (uint64_t)SIM_SECTOR_BYTES);
            break;
        default:
            break;
        }
        // A disk that is full by now has refused it.
        (void)sim_cache_write(sim, flight->inode, flight->off, flight->blob->bytes, len);
    }
    sim_forget_flights(sim);
    sim_collect(sim);
}
