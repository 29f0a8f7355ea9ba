// SPDX-License-Identifier: MIT
// Mutex and condition variable that abort on misuse (docs/LOCKING.md).
//
// The owner is kept in every build. The order of the ranks is checked unless NDEBUG is set
// (AF_DEBUG brings it back): each thread notes the mutexes that it holds, and takes only one that
// ranks above all of them.
#include "base/lock.h"

#include <errno.h>
#include <time.h>

#include "base/check.h"

#if !defined(NDEBUG) || defined(AF_DEBUG)
#define LOCK_CHECKS_RANK 1
#else
#define LOCK_CHECKS_RANK 0
#endif

// The value of `owner` while nobody holds the mutex. glibc's pthread_t is the address of the
// thread's descriptor, so no thread has it.
#define LOCK_NO_OWNER ((pthread_t)0)

#if LOCK_CHECKS_RANK
// One mutex of each rank at most, since equal ranks are refused.
#define LOCK_HELD_MAX 8

static _Thread_local const struct af_mutex *lock_held[LOCK_HELD_MAX];
static _Thread_local unsigned lock_held_count;

static void lock_rank_check(const struct af_mutex *m)
{
    // Ranks rise along the array (a release keeps the order of the rest), so the last is the
    // highest.
    if (lock_held_count)
        AF_ASSERT(lock_held[lock_held_count - 1]->rank < m->rank);
}

static void lock_rank_push(const struct af_mutex *m)
{
    AF_ASSERT(lock_held_count < LOCK_HELD_MAX);
    lock_held[lock_held_count++] = m;
}

static void lock_rank_pop(const struct af_mutex *m)
{
    unsigned i = lock_held_count;

    while (i > 0 && lock_held[i - 1] != m)
        i--;
    AF_ASSERT(i > 0);
    for (; i < lock_held_count; i++)
        lock_held[i - 1] = lock_held[i];
    lock_held_count--;
}
#else
static void lock_rank_check(const struct af_mutex *m)
{
    (void)m;
}
static void lock_rank_push(const struct af_mutex *m)
{
    (void)m;
}
static void lock_rank_pop(const struct af_mutex *m)
{
    (void)m;
}
#endif

// The owner is read by threads that do not hold the mutex (af_is_locked), hence the atomics.
// Relaxed order is enough: a thread sees its own id only while it holds the mutex, because it is
// itself the one that wrote it and that clears it before it lets go.
static void lock_set_owner(struct af_mutex *m, bool held)
{
    __atomic_store_n(&m->owner, held ? pthread_self() : LOCK_NO_OWNER, __ATOMIC_RELAXED);
    __atomic_store_n(&m->held, held, __ATOMIC_RELAXED);
}

void af_mutex_init(struct af_mutex *m, enum lock_rank rank)
{
    *m = (struct af_mutex){.owner = LOCK_NO_OWNER, .rank = (uint8_t)rank};
    AF_ASSERT(pthread_mutex_init(&m->m, NULL) == 0);
}

void af_mutex_destroy(struct af_mutex *m)
{
    AF_ASSERT(!__atomic_load_n(&m->held, __ATOMIC_RELAXED));
    AF_ASSERT(pthread_mutex_destroy(&m->m) == 0);
}

void af_lock(struct af_mutex *m)
{
    AF_ASSERT(!af_is_locked(m));
    lock_rank_check(m);
    AF_ASSERT(pthread_mutex_lock(&m->m) == 0);
    lock_set_owner(m, true);
    lock_rank_push(m);
}

void af_unlock(struct af_mutex *m)
{
    AF_ASSERT(af_is_locked(m));
    lock_rank_pop(m);
    lock_set_owner(m, false);
    AF_ASSERT(pthread_mutex_unlock(&m->m) == 0);
}

bool af_is_locked(const struct af_mutex *m)
{
    return __atomic_load_n(&m->owner, __ATOMIC_RELAXED) == pthread_self();
}

void af_cond_init(struct af_cond *c)
{
    pthread_condattr_t attr;

    AF_ASSERT(pthread_condattr_init(&attr) == 0);
    AF_ASSERT(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    AF_ASSERT(pthread_cond_init(&c->c, &attr) == 0);
    AF_ASSERT(pthread_condattr_destroy(&attr) == 0);
}

void af_cond_destroy(struct af_cond *c)
{
    AF_ASSERT(pthread_cond_destroy(&c->c) == 0);
}

void af_cond_wait(struct af_cond *c, struct af_mutex *m)
{
    AF_ASSERT(af_is_locked(m));
    lock_rank_pop(m);
    // The mutex is taken again while the others are still held, which must be in order as well.
    lock_rank_check(m);
    lock_set_owner(m, false);
    AF_ASSERT(pthread_cond_wait(&c->c, &m->m) == 0);
    lock_set_owner(m, true);
    lock_rank_push(m);
}

bool af_cond_wait_ms(struct af_cond *c, struct af_mutex *m, uint64_t ms)
{
    // Longer waits mean "for ever"; the bound keeps the sum far from overflow.
    const uint64_t ms_max = UINT64_C(1000) * 60 * 60 * 24 * 365;
    struct timespec until;
    int r;

    AF_ASSERT(af_is_locked(m));
    AF_ASSERT(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    if (ms > ms_max)
        ms = ms_max;
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    lock_rank_pop(m);
    lock_rank_check(m);
    lock_set_owner(m, false);
    r = pthread_cond_timedwait(&c->c, &m->m, &until);
    AF_ASSERT(r == 0 || r == ETIMEDOUT);
    lock_set_owner(m, true);
    lock_rank_push(m);
    return r == 0;
}

void af_cond_broadcast(struct af_cond *c)
{
    AF_ASSERT(pthread_cond_broadcast(&c->c) == 0);
}
