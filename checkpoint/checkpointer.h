// SPDX-License-Identifier: MIT
// When checkpoints happen, and the other duties that may be late: flushing what nobody waits for,
// attestations, standby segments, the store's background work.
//
// Whoever needs a checkpoint runs it itself, one at a time; the thread is only one more of those,
// that looks after what nobody waits for. So nothing ever depends on the thread: without it the
// same work is done by the callers that wait and by checkpointer_tick().
#ifndef AF_CHECKPOINT_CHECKPOINTER_H
#define AF_CHECKPOINT_CHECKPOINTER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"
#include "base/message.h"
#include "checkpoint/checkpoint.h"

struct checkpointer {
    struct checkpoint *checkpoint; // borrowed; used by the one that has set `running`
    struct message_sink sink;
    atomic_bool kicked;        // there is work before the period is over
    atomic_bool want_segments; // the log is short of standby segments
    bool have_thread;          // used by the opening and closing thread alone
    pthread_t thread;

    struct af_mutex lock;
    struct af_cond wake; // the thread sleeps here
    struct af_cond done; // a checkpoint has ended
    // Guarded by `lock`.
    bool stop;
    bool running;   // somebody runs a checkpoint
    uint64_t begun; // checkpoints that were begun, the running one included
    uint64_t ended; // of these have ended
    int result;     // of the one that ended last
    struct checkpoint_stats stats;
};

void checkpointer_init(struct checkpointer *p, struct checkpoint *c,
                       const struct message_sink *sink);
void checkpointer_destroy(struct checkpointer *p);           // the thread is stopped
int checkpointer_start(struct checkpointer *p) AF_NODISCARD; // the thread
void checkpointer_stop(struct checkpointer *p);              // and joins; harmless without one

// Returns when a checkpoint that began after the call has been published (0), or its error. Waits;
// no lock is held. The caller must not own the pump of the log.
int checkpointer_run(struct checkpointer *p) AF_NODISCARD;
// Returns when none runs.
void checkpointer_await(struct checkpointer *p);
// Runs `work` while no checkpoint runs: superblocks and the start of the log stand still. Waits.
void checkpointer_between(struct checkpointer *p, void (*work)(void *arg, struct checkpoint *c),
                          void *arg);
void checkpointer_get_stats(struct checkpointer *p, struct checkpoint_stats *ret_stats);
// One round of duties. Waits.
void checkpointer_tick(struct checkpointer *p);
// There is work. From anywhere, does not wait.
void checkpointer_kick(struct checkpointer *p);
// The log is short of standby segments. Likewise.
void checkpointer_need_segments(struct checkpointer *p);

#endif
