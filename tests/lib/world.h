// SPDX-License-Identifier: MIT
// Random work on an engine and on the model at once, call by call, with their answers compared.
// Everything follows from the seed.
//
// A crash may come at any time: by sim_crash_at() (the call under way may or may not have
// happened), or between calls. world_recover() then opens the store, demands that it is one of the
// states that the contract allows, and goes on from there.
#ifndef AF_TESTS_WORLD_H
#define AF_TESTS_WORLD_H

#include "tests/lib/fixture.h"
#include "tests/lib/model.h"
#include "tests/lib/rng.h"

#define WORLD_HANDLES    12
#define WORLD_ACKS       8
#define WORLD_SNAPSHOTS  3
#define WORLD_NAME_BYTES 300

struct world;

struct world_handle {
    struct store_file *file; // NULL: free
    struct model_file model;
};

struct world_snapshot {
    char name[16];
    uint64_t hash;  // of the state of history that it holds
    bool there;     // after the last call
    bool unsettled; // that call made or deleted it: a crash in it may leave either
};

struct world_ack { // an fsync that has not been answered
    struct wal_waiter w;
    struct world *world;
    size_t state;
    bool busy;
};

struct world {
    struct fixture fx;
    struct model m;
    struct rng r;
    uint64_t seed, step;
    struct world_handle handles[WORLD_HANDLES];
    struct world_ack acks[WORLD_ACKS];
    bool with_snapshots; // some are taken and deleted
    struct world_snapshot snapshots[WORLD_SNAPSHOTS + 1];
    unsigned snapshot_count, snapshots_taken;
    uint64_t stale;     // inode number of a directory that is gone
    unsigned names;     // how many different ones are used; more make a larger tree
    uint64_t bytes_max; // of all files, above which only small writes are made
    unsigned durable;   // percent of calls that make something durable
    bool clock_jumps;
    bool idle;  // nothing runs in the background
    bool trace; // prints every call
    // Faults are injected: a call may fail, and the work stops with the first that does.
    bool faults;
    bool stopped;
    int stopped_by;          // its error
    size_t states_before;    // the model before the last call: number of states,
    uint64_t visible_before; // hash of what readers saw
    bool ack_early;          // mutants: an fsync counts as answered when it is asked;
    bool ack_joiners;        // or with the first answer that comes after it
    bool failed;             // something was wrong; it has been printed, and no more is done
    char why[256];           // the first line of it
    // After each call, engine and model at rest. May be NULL.
    void (*after_step)(void *arg, struct world *w);
    void *arg;
    // Numbers that are never given twice, whatever crashes.
    uint64_t lsn_max, ino_max, epoch_max;
    // Counters.
    uint64_t calls, recoveries, acked;
};

// Makes the store and opens it.
void world_init(struct world *w, uint64_t seed);
void world_free(struct world *w);
void world_step(struct world *w);
// Compares what readers see.
void world_compare(struct world *w);
// The process ends, or the power does. Open files and unanswered fsyncs are gone.
void world_crash(struct world *w, enum crash_kind kind, uint64_t seed);
// Opens after it and compares with the model's history.
void world_recover(struct world *w);
// Opens after a clean close: the last state, and nothing else.
void world_reopen(struct world *w);
void world_close(struct world *w);
void world_fail(struct world *w, const char *fmt, ...) AF_PRINTF(2, 3);
// A crash-free end of everything open: handles closed, acknowledgements in.
void world_settle(struct world *w);

// ---- for world.c and world_ops.c ----

bool world_dead(const struct world *w);
// No more calls: the disk is dead, a fault has shown, or something was wrong.
bool world_over(const struct world *w);
// The call did not come through: the disk is dead, or `err` is what an injected fault may be.
bool world_broke(struct world *w, int err);
// Before each call: time and names for the messages.
void world_begin(struct world *w, const char *what);
// After it. True: both say that it succeeded.
bool world_check(struct world *w, int engine, int model);
enum store_how world_how(struct world *w);
bool world_again(int err, enum store_how *how);
void world_acknowledge(struct world *w, size_t state);
void world_new_inode(struct world *w, uint64_t ino); // checks its number
void world_random_call(struct world *w);
void world_checkpoint(struct world *w);
// One is taken or deleted.
void world_snapshot_call(struct world *w);
// Whether the open `store`, after a crash or without one, has the snapshots that it must have, with
// what they must hold.
bool world_snapshots_check(const struct world *w, struct store *store, char *why, size_t size);
// After a recovery: the same, and what the last call did to them is looked up.
void world_snapshots_recovered(struct world *w);
// What the last call did to them counts as done.
void world_snapshots_settle(struct world *w);
void world_tick(struct world *w);
// One file of many extents, made durable: it is spilled and staged.
void world_scatter(struct world *w);

#endif
