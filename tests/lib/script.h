// SPDX-License-Identifier: MIT
// Scripts: sequences of calls that follow from a seed alone and not from any answer, so that they
// can be run again on an engine with other switches, or with a fault at the same step, and compared
// step by step. A script_run remembers every answer, what readers see after each operation, and
// what has been acknowledged.
#ifndef AF_TESTS_SCRIPT_H
#define AF_TESTS_SCRIPT_H

#include "tests/lib/fixture.h"
#include "tests/lib/rng.h"

enum script_kind {
    SCRIPT_PUT,    // a file written anew and closed: from one byte to more than a large write
    SCRIPT_PATCH,  // bytes inside of it
    SCRIPT_APPEND, // at its end
    SCRIPT_CUT,    // truncated
    SCRIPT_MKDIR,
    SCRIPT_RMDIR,
    SCRIPT_UNLINK,
    SCRIPT_RENAME,
    SCRIPT_LINK,
    SCRIPT_SYMLINK,
    SCRIPT_SETXATTR,
    SCRIPT_CHMOD,
    SCRIPT_READ,
    SCRIPT_LIST,
    SCRIPT_KEEP_OPEN, // written, synced, written again, unlinked, closed
    SCRIPT_FSYNC,     // answered before the next step
    SCRIPT_SYNC,      // of everything
    SCRIPT_BATCH,     // files by several clients, each with an fsync, which wait together
    SCRIPT_CHECKPOINT,
    SCRIPT_TICK, // half a second and more goes by: attestations, reaping
    SCRIPT_KIND_COUNT
};

struct script_step {
    enum script_kind kind;
    unsigned dir, name, to_dir, to_name;
    uint64_t off, size, seed;
};

#define SCRIPT_STEPS_MAX  256
#define SCRIPT_STATES_MAX 1024
#define SCRIPT_BATCH_MAX  6

struct script {
    uint64_t seed;
    size_t count;
    struct script_step steps[SCRIPT_STEPS_MAX];
};

void script_make(struct script *s, uint64_t seed, size_t count);
const char *script_kind_name(enum script_kind kind);

struct script_ack {
    struct wal_waiter w;
    struct script_run *run;
    size_t state;
    int result; // 1: no answer yet
};

struct script_run {
    const struct script *script;
    struct fixture fx;
    size_t step;                        // the one that runs, or comes next
    int replies[SCRIPT_STEPS_MAX];      // the last error of the step, or 0
    uint64_t reads[SCRIPT_STEPS_MAX];   // a hash of what it has read and listed
    uint64_t visible[SCRIPT_STEPS_MAX]; // of the tree after it; 0: it could not be read
    uint64_t states[SCRIPT_STATES_MAX]; // of the tree after each operation; nothing is pending then
    size_t state_count;
    size_t acked;                    // the newest state that was acknowledged
    size_t counts[SCRIPT_STEPS_MAX]; // state_count and acked after each step
    size_t ackeds[SCRIPT_STEPS_MAX];
    // The first `known_steps` steps are known to give what `known` has got: nothing is read for
    // them.
    const struct script_run *known;
    size_t known_steps;
    struct script_ack acks[SCRIPT_BATCH_MAX];
    // At the instant of each acknowledgement, after `acked` has moved. May clone the disk. NULL:
    // none.
    void (*acknowledged)(void *arg);
    void *arg;
};

// Makes the store on a new disk and opens it with `switches`.
void script_begin(struct script_run *r, const struct script *s, struct switches switches);
// The same on another disk, which is empty. The simulated one still gives the time.
void script_begin_on(struct script_run *r, const struct script *s, struct switches switches,
                     struct io *io, struct sim *clock);
void script_step(struct script_run *r); // runs one
void script_end(struct script_run *r);  // frees, without closing the store
// The power fails or the process ends between two steps; the store is opened again with `switches`.
// What was not acknowledged may be gone: `states` goes on with what is found. 0, or why not.
int script_crash(struct script_run *r, enum crash_kind kind, struct switches switches);
int script_kill(struct script_run *r, struct switches switches);   // of the process; on any disk
int script_reopen(struct script_run *r, struct switches switches); // after a clean end
// What readers see; 0: it cannot be read.
uint64_t script_tree_hash(struct store *s);
// The newest of states[from … to] with this hash, or -1.
int64_t script_find(const struct script_run *r, uint64_t hash, size_t from, size_t to);

#endif
