// SPDX-License-Identifier: MIT
// An engine on a simulated disk, small in every respect, so that log segments roll and are
// recycled, checkpoints come often and the cache is too small. Without threads: what has to be done
// is done in the calls.
#ifndef AF_TESTS_FIXTURE_H
#define AF_TESTS_FIXTURE_H

#include "checkpoint/engine.h"
#include "checkpoint/verify.h"
#include "tests/sim/sim_disk.h"

struct fixture {
    struct sim *sim;       // owned
    struct io *io;         // in the place of the simulated disk; borrowed. NULL: none
    struct engine *engine; // NULL: not open
    struct store *store;
    struct engine_options options;
    char refusal[1024]; // what the last engine_open() said
    char said[8192];    // the latest messages of the engine
    size_t errors;      // messages of level ERROR
};

// As options of the mount: "baseline,group-commit", "no-uring".
struct switches switches_of(const char *words);

// A disk without a store.
void fixture_init(struct fixture *fx, uint64_t seed);
// Takes over `sim`, with the options of another fixture.
void fixture_adopt(struct fixture *fx, struct sim *sim, const struct engine_options *options);
void fixture_free(struct fixture *fx); // abandons what is open

int fixture_create(struct fixture *fx) AF_NODISCARD;
int fixture_open(struct fixture *fx) AF_NODISCARD;
int fixture_close(struct fixture *fx) AF_NODISCARD;
void fixture_abandon(struct fixture *fx);
// The engine ends in the middle of what it does; `sim` is then a disk on which nothing more
// happens, as sim_kill() and sim_power_cut() want it. Handles must have been freed.
void fixture_leave(struct fixture *fx);
// What a crash may be: a power cut by policy, or the end of the process alone.
enum crash_kind {
    CRASH_DROP_ALL = SIM_CUT_DROP_ALL,
    CRASH_KEEP_ALL = SIM_CUT_KEEP_ALL,
    CRASH_RANDOM = SIM_CUT_RANDOM,
    CRASH_GARBAGE = SIM_CUT_GARBAGE,
    CRASH_KILL,
    CRASH_KIND_COUNT,
    CRASH_SUBSET = CRASH_KIND_COUNT, // a power cut with crash_subset()
};
// The disk is then recovered and checked by the caller; it is counted as that (sim_count_crash()).
void crash_disk(struct sim *sim, enum crash_kind kind, uint64_t seed);
// sim_power_cut_parts(), counted likewise.
void crash_subset(struct sim *sim, const bool *keep, bool garbage, uint64_t seed);
const char *crash_name(enum crash_kind kind);

// Waits for the result.
int fixture_fsync(struct fixture *fx, uint64_t ino) AF_NODISCARD;
int fixture_sync(struct fixture *fx) AF_NODISCARD;

// Verifies the whole image of a disk that nobody has open. Returns the number of damages, or an
// error; the first findings stand in `text`.
int64_t verify_text(struct sim *sim, char *text, size_t size);

#endif
