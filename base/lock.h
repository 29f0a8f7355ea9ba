// SPDX-License-Identifier: MIT
// Mutex and condition variable that abort on misuse. The ranks of the mutexes (docs/LOCKING.md) are
// checked in debug builds: a thread takes them in increasing order only.
#ifndef AF_BASE_LOCK_H
#define AF_BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum lock_rank {
    LOCK_RANK_FS = 1,    // fs: request queues, notification lists
    LOCK_RANK_CKPT = 2,  // checkpoint: state of the thread, one checkpoint at a time
    LOCK_RANK_STORE = 3, // store: tree, cache, pending, space
    LOCK_RANK_WAL = 4,   // wal: open group, segments, waiters
    LOCK_RANK_IO = 5,    // base: submission queue of a back end
    LOCK_RANK_LOG = 6,   // message sinks
};

struct af_mutex {
    pthread_mutex_t m;
    pthread_t owner; // valid while held
    bool held;
    uint8_t rank;
};

struct af_cond {
    pthread_cond_t c; // waits on CLOCK_MONOTONIC
};

void af_mutex_init(struct af_mutex *m, enum lock_rank rank);
void af_mutex_destroy(struct af_mutex *m);
void af_lock(struct af_mutex *m);
void af_unlock(struct af_mutex *m);
// True when the calling thread holds `m`; for assertions in _locked functions.
bool af_is_locked(const struct af_mutex *m);

void af_cond_init(struct af_cond *c);
void af_cond_destroy(struct af_cond *c);
void af_cond_wait(struct af_cond *c, struct af_mutex *m);
// Waits at most `ms`; returns false on timeout. Timeouts drive only work that may be late, never an
// outcome.
bool af_cond_wait_ms(struct af_cond *c, struct af_mutex *m, uint64_t ms);
void af_cond_broadcast(struct af_cond *c);

#endif
