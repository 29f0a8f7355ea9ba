// SPDX-License-Identifier: MIT
// The frame of random work: comparing, acknowledging, crashing, going on.
#include "tests/lib/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"

void world_fail(struct world *w, const char *fmt, ...)
{
    va_list args;

    if (w->failed)
        return;
    w->failed = true;
    va_start(args, fmt);
    vsnprintf(w->why, sizeof(w->why), fmt, args);
    va_end(args);
    fprintf(stderr, "seed %" PRIu64 ", step %" PRIu64 ", %s: %s\n", w->seed, w->step, w->m.what,
            w->why);
    if (w->fx.said[0])
        fprintf(stderr, "the engine said: %s", w->fx.said);
}

bool world_dead(const struct world *w)
{
    return sim_is_dead(w->fx.sim);
}

bool world_over(const struct world *w)
{
    return w->failed || w->stopped || world_dead(w);
}

bool world_broke(struct world *w, int err)
{
    bool fault =
        w->faults && (err == -EIO || err == -ENOSPC || err == -ENOMEM || err <= -AF_E_FIRST);

    if (fault && !w->stopped) {
        w->stopped = true;
        w->stopped_by = err;
    }
    return err < 0 && (fault || world_dead(w));
}

// ---- one call ----

static uint64_t visible_hash(const struct world *w)
{
    struct canon c = {0};

    model_visible_dump(&w->m, &c);
    uint64_t hash = c.hash;

    canon_free(&c);
    return hash;
}

static void note_lsn(struct world *w)
{
    struct wal *wal = w->fx.engine ? engine_wal(w->fx.engine) : NULL;

    if (wal)
        w->lsn_max = AF_MAX(w->lsn_max, wal_appended_lsn(wal));
}

void world_new_inode(struct world *w, uint64_t ino)
{
    if (ino <= w->ino_max)
        world_fail(w, "inode number %" PRIu64 " was given before (%" PRIu64 " was the last)", ino,
                   w->ino_max);
    w->ino_max = AF_MAX(w->ino_max, ino);
}

void world_begin(struct world *w, const char *what)
{
    struct io *io = sim_io(w->fx.sim);
    uint64_t ns = io->ops->now_ns(io);

    w->calls++;
    w->m.now =
        (struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    w->m.ticks_ms = io->ops->ticks_ms(io);
    w->m.what = what;
    note_lsn(w);
    w->m.lsn = engine_wal(w->fx.engine) ? wal_appended_lsn(engine_wal(w->fx.engine)) : 0;
    sim_set_tag(w->fx.sim, what);
    if (w->faults) {
        w->states_before = w->m.state_count;
        w->visible_before = visible_hash(w);
    }
}

bool world_check(struct world *w, int engine, int model)
{
    if (w->trace)
        fprintf(stderr, "  step %" PRIu64 " %s: %s\n", w->step, w->m.what, err_name(engine));
    if (engine != model && !world_broke(w, engine) && !world_dead(w))
        world_fail(w, "the engine says %s, the model %s", err_name(engine), err_name(model));
    return engine == 0 && model == 0;
}

enum store_how world_how(struct world *w)
{
    return rng_chance(&w->r, 30) ? STORE_NONBLOCK : STORE_BLOCK;
}

bool world_again(int err, enum store_how *how)
{
    bool again = err == -AF_E_WOULD_BLOCK && *how == STORE_NONBLOCK;

    *how = STORE_BLOCK;
    return again;
}

void world_acknowledge(struct world *w, size_t state)
{
    w->acked++;
    w->m.acked = AF_MAX(w->m.acked, state);
}

// ---- comparing ----

static bool dump_now(struct world *w, struct canon *ret)
{
    char where[CANON_WHERE_BYTES];
    int err = canon_store(w->fx.store, ret, where);

    if (err < 0)
        world_fail(w, "cannot read the tree: %s", where);
    return err == 0;
}

static void check_numbers(struct world *w)
{
    struct store_status st;
    uint64_t inodes = 0;

    store_get_status(w->fx.store, &st);
    for (size_t i = 0; i < w->m.count; i++)
        inodes += w->m.inodes[i]->in_history;
    // An orphan counts until it has been freed.
    if (st.inodes < inodes)
        world_fail(w, "the store counts %" PRIu64 " inodes, there are %" PRIu64, st.inodes, inodes);
    if (st.failed || st.damage_count > 0)
        world_fail(w, "the store has failed: %s, %zu damages", st.failed_what, st.damage_count);
}

static void check_snapshots(struct world *w)
{
    char why[200];

    if (!world_snapshots_check(w, w->fx.store, why, sizeof(why)))
        world_fail(w, "%s", why);
}

void world_compare(struct world *w)
{
    struct canon seen = {0}, expected = {0};

    if (world_over(w))
        return;
    model_visible_dump(&w->m, &expected);
    if (dump_now(w, &seen) && seen.hash != expected.hash) {
        world_fail(w, "readers see something else");
        canon_diff(&expected, "expected", &seen, "seen", 20, stderr);
    }
    canon_free(&seen);
    canon_free(&expected);
    if (!w->failed)
        check_numbers(w);
    if (!w->failed)
        check_snapshots(w);
}

// ---- life ----

void world_init(struct world *w, uint64_t seed)
{
    *w = (struct world){
        .r = {rng_mix(seed, 1)},
        .seed = seed,
        .names = 40,
        .bytes_max = UINT64_C(12) << 20,
        .durable = 10,
    };
    fixture_init(&w->fx, rng_mix(seed, 2));
    model_init(&w->m);
    int err = fixture_create(&w->fx);

    if (err == 0)
        err = fixture_open(&w->fx);
    if (err < 0) {
        world_fail(w, "cannot create and open a store: %s: %s", err_name(err), w->fx.refusal);
        return;
    }
    char where[CANON_WHERE_BYTES];

    err = model_load(&w->m, w->fx.store, where);
    if (err < 0)
        world_fail(w, "cannot read the new store: %s", where);
}

// Nobody listens any more. Handles are memory of the store, freed by closing them, which is no part
// of any history here.
static void forget(struct world *w)
{
    for (unsigned i = 0; i < WORLD_ACKS; i++)
        w->acks[i].world = NULL;
    for (unsigned i = 0; i < WORLD_HANDLES; i++) {
        if (w->handles[i].file && w->fx.store) {
            int err = store_release(w->fx.store, STORE_BLOCK, w->handles[i].file);

            (void)err; // it may well fail
        }
        w->handles[i].file = NULL;
    }
}

void world_free(struct world *w)
{
    forget(w);
    fixture_free(&w->fx);
    model_free(&w->m);
}

// ---- a crash, and after it ----

void world_crash(struct world *w, enum crash_kind kind, uint64_t seed)
{
    struct sim *left = sim_clone(w->fx.sim);

    note_lsn(w);
    sim_set_event_hook(w->fx.sim, NULL, NULL);
    forget(w);
    fixture_abandon(&w->fx);
    memset(w->acks, 0, sizeof(w->acks));
    sim_destroy(w->fx.sim);
    w->fx.sim = left;
    crash_disk(left, kind, seed);
}

// What recovery says of itself; and numbers that rise with every one.
static void check_report(struct world *w)
{
    struct engine_status st;

    engine_get_status(w->fx.engine, &st);
    const struct engine_recovery *r = &st.recovery;

    if (r->epoch <= w->epoch_max || st.store.wal.appended_lsn <= w->lsn_max)
        world_fail(w, "epoch %" PRIu64 " after %" PRIu64 ", LSN %" PRIu64 " after %" PRIu64,
                   r->epoch, w->epoch_max, st.store.wal.appended_lsn, w->lsn_max);
    if (r->last_lsn < r->cut_lsn || (r->records_replayed == 0) != (r->last_lsn == r->cut_lsn) ||
        (r->clean && (r->records_replayed > 0 || r->tail_bytes_dropped > 0)) ||
        strlen(r->text) < 20)
        world_fail(w, "the report contradicts itself: %s", r->text);
    w->epoch_max = AF_MAX(w->epoch_max, r->epoch);
}

void world_recover(struct world *w)
{
    struct canon found = {0};
    char where[CANON_WHERE_BYTES];
    int err = w->failed ? -ECANCELED : fixture_open(&w->fx);

    if (w->failed)
        return;
    w->recoveries++;
    w->m.what = "recovery";
    if (err < 0) {
        world_fail(w, "recovery refuses: %s: %s", err_name(err), w->fx.refusal);
        return;
    }
    check_report(w);
    if (dump_now(w, &found)) {
        int64_t k = model_find(&w->m, found.hash, w->m.acked, w->m.state_count - 1);

        if (k < 0) {
            world_fail(w, "the recovered tree is none of the states that a crash may leave");
            model_explain(&w->m, &found, w->m.acked, w->m.state_count - 1, stderr);
        }
    }
    if (!w->failed) {
        err = model_load(&w->m, w->fx.store, where);
        if (err < 0 || w->m.hash != found.hash)
            world_fail(w, "cannot load the recovered tree: %s", where);
    }
    canon_free(&found);
    if (!w->failed)
        world_snapshots_recovered(w);
}

void world_settle(struct world *w)
{
    for (unsigned i = 0; i < WORLD_HANDLES && !world_over(w); i++) {
        if (!w->handles[i].file)
            continue;
        world_begin(w, "close");
        int err = store_release(w->fx.store, STORE_BLOCK, w->handles[i].file);

        w->handles[i].file = NULL;
        model_release(&w->m, &w->handles[i].model);
        world_check(w, err, 0);
    }
    if (world_over(w))
        return;
    int err = engine_sync(w->fx.engine); // and so every answer comes

    world_begin(w, "settling");
    world_check(w, err, 0);
    for (unsigned i = 0; i < WORLD_ACKS && !world_over(w); i++)
        if (w->acks[i].busy)
            world_fail(w, "an fsync has got no answer");
}

void world_close(struct world *w)
{
    if (w->failed)
        return;
    world_settle(w);
    if (world_over(w))
        return;
    world_begin(w, "closing");
    world_check(w, fixture_close(&w->fx), 0);
    if (world_over(w))
        return;
    world_acknowledge(w, w->m.state_count - 1);
}

void world_reopen(struct world *w)
{
    world_recover(w);
    if (w->failed)
        return;
    struct engine_status st;

    engine_get_status(w->fx.engine, &st);
    if (!st.recovery.clean)
        world_fail(w, "closed cleanly, opened as crashed: %s", st.recovery.text);
}

void world_step(struct world *w)
{
    if (world_over(w))
        return;
    w->step++;
    if (rng_chance(&w->r, 50))
        sim_advance_ms(w->fx.sim, rng_below(&w->r, 400));
    if (w->clock_jumps && rng_chance(&w->r, 1))
        sim_set_now_ns(w->fx.sim, UINT64_C(1000000000) * rng_below(&w->r, UINT64_C(1) << 32));
    world_random_call(w);
    if (w->after_step)
        w->after_step(w->arg, w);
}
