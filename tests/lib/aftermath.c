// SPDX-License-Identifier: MIT
// After a fault (aftermath.h).
#include "tests/lib/aftermath.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "tests/lib/canon.h"

// ---- after the fault ----

// Nothing is promised any more, and nothing changes, until the store is opened anew.
static void check_failed(struct world *w)
{
    struct store_attr attr;
    const struct store_cred cred = {0};

    (void)!wal_pump(engine_wal(w->fx.engine),
                    false); // the store hears of a failure of the log here
    for (unsigned i = 0; i < 3; i++) {
        if (fixture_sync(&w->fx) >= 0)
            world_fail(w, "sync succeeds on a failed store");
        if (fixture_fsync(&w->fx, INO_ROOT) >= 0)
            world_fail(w, "fsync succeeds on a failed store");
        for (unsigned k = 0; k < WORLD_HANDLES; k++)
            if (w->handles[k].file && fixture_fsync(&w->fx, w->handles[k].model.ino) >= 0)
                world_fail(w, "fsync of a file succeeds on a failed store");
        if (engine_checkpoint(w->fx.engine) >= 0)
            world_fail(w, "a checkpoint succeeds on a failed store");
        int err = store_mknod(w->fx.store, STORE_BLOCK, INO_ROOT, "after the failure", 040755, 0,
                              &cred, &attr);

        if (err_to_errno(err) != EROFS)
            world_fail(w, "mkdir on a failed store: %s", err_name(err));
        engine_tick(w->fx.engine);
    }
}

// The store lives: all that is history now can be made durable.
static void check_alive(struct world *w, size_t certain)
{
    int err = fixture_sync(&w->fx);

    if (err < 0)
        world_fail(w, "the store has not failed, but sync says %s", err_name(err));
    else
        world_acknowledge(w, certain);
    err = engine_checkpoint(w->fx.engine);
    if (err < 0)
        world_fail(w, "the store has not failed, but a checkpoint says %s", err_name(err));
}

// A call that failed did not happen, or happened whole. A close that failed has dropped what was
// written, and said so.
static void check_visible(struct world *w)
{
    char where[CANON_WHERE_BYTES];
    struct canon seen = {0}, after = {0};
    int err = canon_store(w->fx.store, &seen, where);

    model_visible_dump(&w->m, &after);
    if (err < 0) {
        world_fail(w, "after the fault the tree cannot be read: %s", where);
    } else if (strcmp(w->m.what, "close") != 0 && seen.hash != w->visible_before &&
               seen.hash != after.hash) {
        world_fail(w, "the call that failed has had half an effect");
        canon_diff(&after, "after it", &seen, "seen", 10, stderr);
    }
    canon_free(&seen);
    canon_free(&after);
}

bool aftermath_check(struct world *w)
{
    struct store_status st;

    if (w->failed || !w->fx.engine)
        return false;
    if (w->stopped)
        check_visible(w);
    store_get_status(w->fx.store, &st);
    if (st.failed || st.wal.failed) {
        check_failed(w);
        return true;
    }
    check_alive(w, (w->stopped ? w->states_before : w->m.state_count) - 1);
    return false;
}

// ---- work and recovery ----

void aftermath_recover(struct world *w, enum crash_kind kind)
{
    uint64_t hash;

    world_crash(w, kind, w->seed);
    world_recover(w);
    if (w->failed)
        return;
    hash = w->m.hash;
    world_crash(w, CRASH_DROP_ALL, 0); // what recovery has shown must not depend on the page cache
    world_recover(w);
    if (!w->failed && w->m.hash != hash)
        world_fail(w, "what a recovery has shown is gone after a power cut");
    char text[600];

    if (!w->failed) {
        world_crash(w, CRASH_DROP_ALL, 0);
        if (verify_text(w->fx.sim, text, sizeof(text)) != 0)
            world_fail(w, "verification finds: %.500s", text);
    }
}

void aftermath_work(struct world *w)
{
    for (unsigned round = 0; round < 4 && !world_over(w); round++) {
        for (unsigned i = 0; i < 40 && !world_over(w); i++)
            world_step(w);
        if (round == 1 && !world_over(w))
            world_scatter(w);
        if (round >= 1 && !world_over(w))
            world_checkpoint(w);
        if (round == 2 && !world_over(w)) {
            world_close(w);
            if (!world_over(w) && !w->fx.engine) {
                int err = fixture_open(&w->fx);

                if (err < 0)
                    w->stopped = true; // refused: nothing is open, and nothing lost
            }
        }
    }
    if (!world_over(w) && w->fx.engine)
        world_close(w);
}
