// SPDX-License-Identifier: MIT
// Everything goes wrong at once: a disk that is nearly full, syncs that fail and leave a cache that
// looks clean, clocks that jump, kills and power cuts, and an old superblock that rots. After each
// round the store opens and is one of the moments that the contract allows.
//
//   SEED=n  RUNS=n  how many stores
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "checkpoint/superblock.h"
#include "checkpoint/superblock_format.h"
#include "tests/lib/world.h"

struct soak {
    unsigned faults, stopped, full, rotten, kills, cuts;
};

static void arm(struct world *w, struct rng *r)
{
    static const enum sim_fault_effect effects[] = {SIM_FAULT_FAIL, SIM_FAULT_AFTER,
                                                    SIM_FAULT_LOST};
    static const int codes[] = {-EIO, -ENOSPC, -EIO};
    const struct sim_fault fault = {
        .calls = rng_chance(r, 70) ? SIM_BIT(SIM_SYNC) | SIM_BIT(SIM_DONE_SYNC) |
                                         SIM_BIT(SIM_DONE_WRITE) | SIM_BIT(SIM_SYNC_DIR)
                                   : SIM_BIT(SIM_WRITE),
        .skip = rng_below(r, 60),
        .times = rng_chance(r, 50) ? 1 : SIM_FOREVER,
        .effect = effects[rng_below(r, 3)],
        .error = codes[rng_below(r, 3)],
    };
    struct sim_fault f = fault;

    if (f.calls == SIM_BIT(SIM_WRITE) && f.effect == SIM_FAULT_LOST)
        f.effect = SIM_FAULT_PARTIAL;
    (void)sim_fault_add(w->fx.sim, &f);
}

// The slot that is not the newest rots, where both are there: nothing needs it.
static bool rot_old_slot(struct sim *sim, struct rng *r)
{
    struct superblock_slots slots;
    bool rot = superblock_load(sim_io(sim), &slots) == 0 && slots.result[0] == 0 &&
               slots.result[1] == 0 && slots.sb[0].sequence != slots.sb[1].sequence;

    if (rot) {
        unsigned old = slots.sb[0].sequence < slots.sb[1].sequence ? 0 : 1;

        assert_int_equal(sim_flip_bits(sim, SUPERBLOCK_FILE,
                                       old * SUPERBLOCK_SLOT_BYTES + rng_below(r, 4096),
                                       (uint8_t)(1u << rng_below(r, 8))),
                         0);
    }
    superblock_slots_free(&slots);
    return rot;
}

static void round_of(struct world *w, struct rng *r, struct soak *n)
{
    sim_set_capacity(w->fx.sim, sim_used_bytes(w->fx.sim) + (rng_below(r, 4) << 18));
    arm(w, r);
    for (unsigned i = 0; i < 100 && !world_over(w); i++) {
        world_step(w);
        if (i % 40 == 30 && !world_over(w))
            world_checkpoint(w);
    }
    n->faults++;
    n->stopped += w->stopped;
    n->full += w->stopped && w->stopped_by == -ENOSPC;
    sim_faults_clear(w->fx.sim);
    if (w->failed)
        return;
    enum crash_kind kind = (enum crash_kind)rng_below(r, CRASH_KIND_COUNT);

    n->kills += kind == CRASH_KILL;
    n->cuts += kind != CRASH_KILL;
    world_crash(w, kind, rng_next(r));
    // A killed process leaves what the cache holds, where the newest slot may be on no disk.
    if (kind != CRASH_KILL && rng_chance(r, 50))
        n->rotten += rot_old_slot(w->fx.sim, r);
    sim_set_capacity(w->fx.sim, UINT64_C(1) << 40);
    w->stopped = false;
    world_recover(w);
    world_compare(w);
}

static void test_everything_goes_wrong_at_once(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 25);
    struct soak n = {0};

    (void)state;
    for (uint64_t i = 0; i < runs; i++) {
        struct rng r = {rng_mix(seed + i, 112)};
        struct world w;

        world_init(&w, seed + i);
        w.durable = 20;
        w.names = 20;
        w.bytes_max = UINT64_C(2) << 20;
        w.clock_jumps = true;
        w.faults = true;
        for (unsigned k = 0; k < 5 && !w.failed; k++)
            round_of(&w, &r, &n);
        char text[600];
        bool failed = w.failed;

        if (!failed) {
            world_crash(&w, CRASH_DROP_ALL, 0);
            failed = verify_text(w.fx.sim, text, sizeof(text)) != 0;
            if (failed)
                fprintf(stderr, "verification finds: %s\n", text);
        }
        world_free(&w);
        if (failed)
            fail_msg("repeat with SEED=%llu RUNS=1", (unsigned long long)(seed + i));
    }
    printf(
        "  %u rounds: %u stopped by a failure, %u of them by a full disk; %u kills, %u power cuts, %u "
        "rotten slots\n",
        n.faults, n.stopped, n.full, n.kills, n.cuts, n.rotten);
    assert_true(n.stopped > runs && n.rotten > 0 && n.kills > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_goes_wrong_at_once),
    };

    return cmocka_run_group_tests_name("soak", tests, NULL, NULL);
}
