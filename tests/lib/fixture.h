// SPDX-License-Identifier: MIT
// An engine on a simulated disk, small in every respect, so that log segments roll and are recycled, checkpoints come
// often and the cache is too small. Without threads: what has to be done is done in the calls.
#ifndef AF_TESTS_FIXTURE_H
#define AF_TESTS_FIXTURE_H

#include "checkpoint/engine.h"
#include "checkpoint/verify.h"
#include "tests/sim/sim_disk.h"

struct fixture {
    struct sim *sim; // owned
    struct engine *engine; // NULL: not open
    struct store *store;
    struct engine_options options;
    char refusal[1024]; // what the last engine_open() said
    char said[8192];    // the latest messages of the engine
    size_t errors;      // messages of level ERROR
};

// A disk without a store.
void fixture_init(struct fixture *fx, uint64_t seed);
// Takes over `sim`, with the options of another fixture.
void fixture_adopt(struct fixture *fx, struct sim *sim, const struct engine_options *options);
void fixture_free(struct fixture *fx); // abandons what is open

int fixture_create(struct fixture *fx) AF_NODISCARD;
int fixture_open(struct fixture *fx) AF_NODISCARD;
int fixture_close(struct fixture *fx) AF_NODISCARD;
void fixture_abandon(struct fixture *fx);
// The process ends in the middle (SIGKILL), or the power does; afterwards nothing is open and the disk is what the next start finds.
void fixture_kill(struct fixture *fx, uint64_t seed);
void fixture_power_cut(struct fixture *fx, enum sim_cut_policy policy, uint64_t seed);

// Waits for the result.
int fixture_fsync(struct fixture *fx, uint64_t ino) AF_NODISCARD;
int fixture_sync(struct fixture *fx) AF_NODISCARD;

// Verifies the whole image of a disk that nobody has open. Returns the number of damages, or an error; the first findings stand in `text`.
int64_t verify_text(struct sim *sim, char *text, size_t size);

#endif
