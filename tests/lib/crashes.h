// SPDX-License-Identifier: MIT
// The crash matrix: every event of a piece of work is a crash point, every crash has several
// outcomes, every outcome is recovered, compared with the model's history and verified; and a
// sample of the recoveries is crashed in turn.
//
// The disk is cloned at the event, before anything of it has happened; a part of it, or all of it
// without an answer, is what the clone taken at the next event is when the cut keeps something of
// it. What a crash inside of a call does to the engine itself is for the tests that use
// sim_crash_at().
//
// What is demanded of each outcome:
//   recovery succeeds                                   the tree is a state from the last
//   acknowledged one on the image verifies                                  a second recovery gives
//   the same tree where recovery itself was crashed: the same, and after a power cut, where no
//   bytes are in doubt, the same state
#ifndef AF_TESTS_CRASHES_H
#define AF_TESTS_CRASHES_H

#include "tests/lib/world.h"

#define CRASH_SITES 256

// A place in the engine that makes a call of the disk.
struct crash_site {
    const char *name; // base/io.h
    enum sim_call call;
    char path[SIM_PATH_BYTES];
    const char *tag;
    uint64_t events, points;
};

struct crash_image { // waits for the end of the call in which it was taken
    struct sim *sim;
    struct sim_event event;
    size_t from; // first state that is allowed
};

struct crashes {
    struct rng r;
    unsigned percent;     // of the events that are crash points; each site's first ones always are
    unsigned random_cuts; // outcomes beside all dropped, all kept
    unsigned again_percent;  // of the recoveries that are crashed in turn
    unsigned verify_percent; // of the outcomes
    // Where a cut has at most so many parts (sim_cut_parts()), every subset of them is an outcome;
    // where it has more, so many subsets that are drawn. 0: none.
    unsigned subset_parts, subset_draws;
    bool quiet;      // violations are expected
    bool kills;      // killed processes too, and not only power cuts
    bool opening;    // the model starts anew with what is found
    struct world *w; // whose model is compared with
    struct crash_image *images;
    size_t image_count, image_cap;
    struct crash_site sites[CRASH_SITES];
    size_t site_count;
    uint64_t *seen; // disks that were tried, hashed with what was demanded of them
    size_t seen_count, seen_cap;
    uint64_t events, points, outcomes, exhausted, states, again, deepest, violations;
    char why[1200]; // of the first violation
};

void crashes_init(struct crashes *c, struct world *w, uint64_t seed);
void crashes_free(struct crashes *c);
// From here on the events of the world's disk are crash points, tried after each call of the world.
// To be called again after each crash or exchange of the disk.
void crashes_watch(struct crashes *c);
// Tries what has been taken since the last time. After each call of the world.
void crashes_try(struct crashes *c);
// Opens what was closed cleanly, as world_reopen() or, with other options, world_recover() do, and
// tries that.
void crashes_reopen(struct crashes *c);
void crashes_report(const struct crashes *c, FILE *to);
// True when every site that made a call was a crash point.
bool crashes_all_sites(const struct crashes *c);

// Work that has everything in it: calls of all kinds, files that are spilled and staged, open files
// that are unlinked, checkpoints, rolling segments, a clean end and an opening. About `rounds`
// times 60 calls.
void crashes_work(struct crashes *c, unsigned rounds);
// Few calls, with a checkpoint after every thirty and a clean end after every sixty; 15 calls a
// round.
void crashes_small_work(struct crashes *c, unsigned rounds);

#endif
