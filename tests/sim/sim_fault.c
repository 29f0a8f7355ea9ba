// SPDX-License-Identifier: MIT
// Decides what becomes of each call of the simulated disk: events, the crash point, faults.
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/sim/census.h"
#include "tests/sim/sim_internal.h"

const char *sim_call_name(enum sim_call call)
{
    static const char *const names[] = {
        [SIM_OPEN] = "open",
        [SIM_READ] = "read",
        [SIM_SIZE] = "size",
        [SIM_LIST] = "list",
        [SIM_SPACE] = "space",
        [SIM_CREATE] = "create",
        [SIM_WRITE] = "write",
        [SIM_SYNC] = "sync",
        [SIM_ALLOCATE] = "allocate",
        [SIM_TRUNCATE] = "truncate",
        [SIM_RENAME] = "rename",
        [SIM_UNLINK] = "unlink",
        [SIM_MKDIR] = "mkdir",
        [SIM_SYNC_DIR] = "sync-dir",
        [SIM_START_WRITE] = "start-write",
        [SIM_DONE_WRITE] = "done-write",
        [SIM_START_SYNC] = "start-sync",
        [SIM_DONE_SYNC] = "done-sync",
    };

    _Static_assert(AF_ARRAY_LEN(names) == SIM_CALL_COUNT, "one name for each call");
    return (unsigned)call < SIM_CALL_COUNT ? names[call] : "?";
}

// ---- events ----

uint64_t sim_event_count(const struct sim *sim)
{
    return sim->event_count;
}

const struct sim_event *sim_event(const struct sim *sim, uint64_t index)
{
    return index < sim->event_count ? &sim->events[index] : NULL;
}

void sim_dump_events(const struct sim *sim, FILE *to)
{
    for (size_t i = 0; i < sim->event_count; i++) {
        const struct sim_event *e = &sim->events[i];

        fprintf(to, "%" PRIu64 " %s %s %" PRIu64 "+%" PRIu64 "%s%s\n", e->index,
                sim_call_name(e->call), *e->path ? e->path : ".", e->off, e->len, e->tag ? " " : "",
                e->tag ? e->tag : "");
    }
}

void sim_set_tag(struct sim *sim, const char *tag)
{
    sim->tag = tag;
}

void sim_set_event_hook(struct sim *sim, void (*hook)(void *arg, const struct sim_event *event),
                        void *arg)
{
    sim->event_hook = hook;
    sim->event_hook_arg = arg;
}

void sim_crash_at(struct sim *sim, uint64_t event_index, enum sim_crash_mode mode)
{
    sim->crash_at = event_index;
    sim->crash_mode = mode;
}

void sim_crash_now(struct sim *sim)
{
    sim->dead = true;
}

bool sim_is_dead(const struct sim *sim)
{
    return sim->dead;
}

// ---- faults ----

unsigned sim_fault_add(struct sim *sim, const struct sim_fault *fault)
{
    struct sim_armed_fault *armed = &sim->faults[sim->fault_count];

    AF_ASSERT(sim->fault_count < SIM_FAULTS_MAX);
    *armed = (struct sim_armed_fault){.fault = *fault};
    if (fault->path)
        sim_path_copy(armed->path, fault->path);
    return sim->fault_count++;
}

uint64_t sim_fault_hits(const struct sim *sim, unsigned fault)
{
    AF_ASSERT(fault < sim->fault_count);
    return sim->faults[fault].hits;
}

const char *sim_fault_site(const struct sim *sim, unsigned fault)
{
    AF_ASSERT(fault < sim->fault_count);
    return sim->faults[fault].site;
}

void sim_faults_clear(struct sim *sim)
{
    sim->fault_count = 0;
}

void sim_release_held(struct sim *sim)
{
    for (size_t i = 0; i < sim->flight_count; i++)
        sim->flights[i].held = false;
}

static bool fault_acts(struct sim_armed_fault *armed, enum sim_call call, const char *path)
{
    if (!(armed->fault.calls & SIM_BIT(call)))
        return false;
    if (armed->fault.path && fnmatch(armed->path, path, 0) != 0)
        return false;
    armed->seen++;
    return armed->seen > armed->fault.skip && armed->seen - armed->fault.skip <= armed->fault.times;
}

static struct sim_fate fault_fate(const struct sim_fault *fault)
{
    struct sim_fate fate = {.extent = SIM_DO_NOTHING, .result = fault->error};

    switch (fault->effect) {
    case SIM_FAULT_FAIL:
        break;
    case SIM_FAULT_PARTIAL:
        fate.extent = SIM_DO_PART;
        break;
    case SIM_FAULT_AFTER:
        fate.extent = SIM_DO_ALL;
        break;
    case SIM_FAULT_LOST:
        fate.extent = SIM_DO_LOSE;
        break;
    case SIM_FAULT_CORRUPT:
        return (struct sim_fate){.extent = SIM_DO_ALL, .corrupt = true};
    case SIM_FAULT_HOLD:
        return (struct sim_fate){.extent = SIM_DO_ALL, .hold = true};
    }
    // A fault that reports success would be a lie of the disk, which is not modelled.
    AF_ASSERT(fate.result < 0);
    return fate;
}

static struct sim_fate crash_fate(struct sim *sim)
{
    struct sim_fate fate = {.extent = SIM_DO_NOTHING, .result = -EIO};

    sim->dead = true;
    switch (sim->crash_mode) {
    case SIM_CRASH_BEFORE:
        break;
    case SIM_CRASH_PARTIAL:
        fate.extent = SIM_DO_PART;
        break;
    case SIM_CRASH_AFTER:
        fate.extent = SIM_DO_ALL;
        break;
    }
    return fate;
}

struct sim_fate sim_decide(struct sim *sim, enum sim_call call, const char *path, uint64_t off,
                           uint64_t len)
{
    struct sim_fate fate = {.extent = SIM_DO_ALL};
    const char *site = io_site;
    bool decided = false;

    io_site = NULL; // what does not come from the engine has none
    if (sim->dead)
        return (struct sim_fate){.extent = SIM_DO_NOTHING, .result = -EIO};
    if (call >= SIM_CREATE) {
        struct sim_event *event;

        sim_grow(&sim->events, &sim->event_cap, sim->event_count, sizeof(*event));
        event = &sim->events[sim->event_count];
        *event = (struct sim_event){.index = sim->event_count,
                                    .call = call,
                                    .off = off,
                                    .len = len,
                                    .tag = sim->tag,
                                    .site = site};
        sim_path_copy(event->path, path);
        sim->event_count++;
        sim->site = site;
        if (sim->event_hook)
            sim->event_hook(sim->event_hook_arg, event);
        if (sim->dead)
            return (struct sim_fate){.extent = SIM_DO_NOTHING, .result = -EIO};
        if (sim->event_count - 1 == sim->crash_at)
            return crash_fate(sim);
        sim->site = NULL;
    }
    // Every fault counts the call, so that several can be set on the same calls; the first one
    // acts.
    for (unsigned i = 0; i < sim->fault_count; i++) {
        if (fault_acts(&sim->faults[i], call, path) && !decided) {
            sim->faults[i].hits++;
            fate = fault_fate(&sim->faults[i].fault);
            decided = true;
            sim->faults[i].site = site;
            census_fault_point(site);
        }
    }
    return fate;
}
