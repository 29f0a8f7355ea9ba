// SPDX-License-Identifier: MIT
// How long a sync takes decides nothing but who shares a flush: the same calls under syncs that are
// instant, slow, out of the blue, or one after the other give the same records, and under any clock
// the same bytes.
#include "tests/lib/rng.h"
#include "tests/unit/test_wal_rig.h"

#define STEPS 120u

enum regime { INSTANT, SLOW, LAZY, SERIAL, REGIMES };

// What a script does, drawn once from its seed.
struct step {
    size_t bytes;
    bool names_data, waits;
};

static void draw(struct step steps[STEPS], uint64_t seed)
{
    struct rng r = {rng_mix(seed, 65)};

    for (size_t i = 0; i < STEPS; i++)
        steps[i] =
            (struct step){.bytes = rng_chance(&r, 80) ? rng_below(&r, 300) : rng_below(&r, 6000),
                          .names_data = rng_chance(&r, 25),
                          .waits = rng_chance(&r, 60)};
}

struct waiting {
    struct rig_waiter waiters[STEPS];
    size_t count;
};

static void hold(struct rig *rig)
{
    const struct sim_fault fault = {.calls = SIM_BIT(SIM_START_WRITE) | SIM_BIT(SIM_START_SYNC),
                                    .times = SIM_FOREVER,
                                    .effect = SIM_FAULT_HOLD};

    (void)sim_fault_add(rig->sim, &fault);
}

// What the disk does after a step.
static void let_disk_work(struct rig *rig, enum regime regime, struct rng *r, uint64_t lsn)
{
    switch (regime) {
    case INSTANT:
        while (wal_pump(rig->wal, true) > 0)
            ;
        break;
    case SLOW: // ten minutes, some steps later
        sim_advance_ms(rig->sim, 600000);
        if (!rng_chance(r, 15))
            break;
        sim_release_held(rig->sim);
        (void)wal_pump(rig->wal, false);
        break;
    case LAZY:
        if (rng_chance(r, 50))
            (void)wal_pump(rig->wal, false);
        break;
    case SERIAL:
        assert_int_equal(wal_wait(rig->wal, lsn), 0);
        break;
    case REGIMES:
        break;
    }
}

static uint64_t run_step(struct rig *rig, const struct step *step, struct waiting *w)
{
    uint64_t lsn = 0;

    if (step->names_data) {
        uint8_t block[WAL_BLOCK] = {1};

        assert_int_equal(io_pwrite(rig->data, block, sizeof(block), 0), 0);
        rig->data_written++;
    }
    assert_int_equal(
        rig_try_append(rig, step->bytes, step->names_data ? rig->data_written : 0, &lsn), 0);
    if (step->waits) {
        int r = rig_wait_async(rig, &w->waiters[w->count], lsn);

        assert_true(r == 0);
        w->count++;
        wal_kick(rig->wal, false);
    }
    return lsn;
}

static void finish(struct rig *rig, struct waiting *w, uint64_t lsn)
{
    sim_faults_clear(rig->sim);
    sim_release_held(rig->sim);
    assert_int_equal(wal_wait(rig->wal, lsn), 0);
    for (size_t i = 0; i < w->count; i++) { // each is told once, in order
        assert_int_equal(w->waiters[i].result, 0);
        assert_true(w->waiters[i].order > 0);
        assert_true(i == 0 || w->waiters[i].order > w->waiters[i - 1].order);
    }
}

// Runs the script; `clock_ms` goes by before each step.
static void run(struct rig *rig, const struct step steps[STEPS], enum regime regime, uint64_t seed,
                uint64_t clock_ms)
{
    static struct waiting w;
    struct rng r = {rng_mix(seed, (uint64_t)regime)};
    uint64_t lsn = 0;

    memset(&w, 0, sizeof(w));
    rig_make_disk(rig, seed);
    rig->start.segment_bytes = 64 * WAL_BLOCK;
    assert_int_equal(wal_create_segments(rig->io, &rig->start), 0);
    rig_open(rig);
    assert_int_equal(wal_prepare_segments(rig->wal), 0);
    sim_set_lazy(rig->sim, regime == LAZY);
    if (regime == SLOW)
        hold(rig);
    for (size_t i = 0; i < STEPS; i++) {
        sim_advance_ms(rig->sim, clock_ms);
        lsn = run_step(rig, &steps[i], &w);
        let_disk_work(rig, regime, &r, lsn);
    }
    finish(rig, &w, lsn);
}

// ---- the records ----

struct content { // of a log: what each record says, without where it lies and what it knows durable
    uint64_t lsn[STEPS], sum[STEPS];
    size_t count, groups;
};

static int note_content(void *arg, const struct wal_record *record)
{
    struct content *c = arg;
    uint64_t sum = 1469598103934665603u ^ (uint64_t)record->type;

    AF_ASSERT(c->count < STEPS);
    for (size_t i = 0; i < record->body_bytes; i++)
        sum = (sum ^ record->body[i]) * 1099511628211u;
    c->lsn[c->count] = record->lsn;
    c->sum[c->count++] = sum ^ record->body_bytes;
    c->groups += record->group_start;
    return 0;
}

static struct content content_of(struct rig *rig)
{
    struct wal_scan_result result;
    struct content c = {0};

    assert_int_equal(wal_scan(rig->io, &rig->start, note_content, &c, &result), 0);
    assert_int_equal(result.end, WAL_END_CLEAN);
    assert_int_equal(c.count, STEPS);
    return c;
}

static void test_the_log_is_the_same_however_long_a_sync_takes(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 20);

    (void)state;
    for (uint64_t s = seed; s < seed + runs; s++) {
        struct content contents[REGIMES];
        struct step steps[STEPS];

        draw(steps, s);
        for (unsigned regime = 0; regime < REGIMES; regime++) {
            struct rig rig;

            run(&rig, steps, (enum regime)regime, s, 0);
            contents[regime] = content_of(&rig);
            rig_teardown(&rig);
        }
        for (unsigned regime = 1; regime < REGIMES; regime++) {
            if (memcmp(contents[0].lsn, contents[regime].lsn, sizeof(contents[0].lsn)) != 0 ||
                memcmp(contents[0].sum, contents[regime].sum, sizeof(contents[0].sum)) != 0)
                fail_msg("SEED=%llu RUNS=1: regime %u has another log", (unsigned long long)s,
                         regime);
        }
        // They were not all the same run.
        assert_int_equal(contents[SERIAL].groups, STEPS);
        assert_true(contents[SLOW].groups < contents[INSTANT].groups);
        assert_true(contents[INSTANT].groups < STEPS);
    }
}

static void assert_same_bytes(struct rig *a, struct rig *b)
{
    static uint8_t x[64 * WAL_BLOCK], y[64 * WAL_BLOCK];
    struct wal_stats stats;
    char path[32];

    wal_get_stats(a->wal, &stats);
    for (uint64_t n = 1; n <= stats.current_segment + 1; n++) {
        wal_segment_path(n, path);
        assert_int_equal(sim_read_raw(a->sim, path, 0, x, sizeof(x)), 0);
        assert_int_equal(sim_read_raw(b->sim, path, 0, y, sizeof(y)), 0);
        assert_memory_equal(x, y, sizeof(x));
    }
}

// No timer forms groups: with the same completions the groups are the same, byte for byte, whatever
// the clock says.
static void test_no_clock_changes_a_byte_of_the_log(void **state)
{
    static const enum regime regimes[] = {INSTANT, LAZY, SERIAL};
    static const uint64_t clocks[] = {1, 499, 501, 3600000};
    uint64_t seed = env_number("SEED", 1);
    struct step steps[STEPS];

    (void)state;
    draw(steps, seed);
    for (size_t i = 0; i < AF_ARRAY_LEN(regimes); i++) {
        struct rig frozen;

        run(&frozen, steps, regimes[i], seed, 0);
        for (size_t c = 0; c < AF_ARRAY_LEN(clocks); c++) {
            struct rig rig;

            run(&rig, steps, regimes[i], seed, clocks[c]);
            assert_same_bytes(&frozen, &rig);
            rig_teardown(&rig);
        }
        rig_teardown(&frozen);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_log_is_the_same_however_long_a_sync_takes),
        cmocka_unit_test(test_no_clock_changes_a_byte_of_the_log),
    };

    return cmocka_run_group_tests_name("wal_sync", tests, NULL, NULL);
}
