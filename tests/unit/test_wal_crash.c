// SPDX-License-Identifier: MIT
// The log under crashes: a workload with flushes, data syncs, checkpoints, new and recycled
// segments is cut at every event of the disk, in every way that the disk knows. Whatever was
// acknowledged is read back, in order and whole, and no crash looks like damage (W1, W3, K1). Then
// the faults: each call fails once.
#include "tests/unit/test_wal_rig.h"

// What a crash leaves that is not on the disk: what clients were told, and what the superblock
// says.
struct promise {
    uint64_t acked_lsn;
    struct wal_start start;
    // Here, because one that was registered is called back at the close at the latest.
    struct rig_waiter waiters[64];
    unsigned waiter_count;
};

static void note_done(struct wal_waiter *w, int result)
{
    struct rig_waiter *waiter = AF_CONTAINER_OF(w, struct rig_waiter, w);

    waiter->order = 1;
    waiter->result = result;
}

// Returns false when the disk died or the log failed; `promise` holds what was promised until then.
static bool commit(struct rig *rig, struct promise *promise, size_t bytes, bool names_data)
{
    uint64_t lsn;

    if (names_data) {
        uint8_t block[WAL_BLOCK] = {1};

        if (io_pwrite(rig->data, block, sizeof(block), 0) < 0)
            return false;
        rig->data_written++;
    }
    if (rig_try_append(rig, bytes, names_data ? rig->data_written : 0, &lsn) < 0)
        return false;
    if (bytes % 3 == 0)
        return true; // somebody else's flush takes it along
    if (wal_wait(rig->wal, lsn) < 0)
        return false;
    promise->acked_lsn = lsn;
    return true;
}

static bool async_commits(struct rig *rig, struct promise *promise)
{
    struct rig_waiter *w = &promise->waiters[promise->waiter_count];
    unsigned done = 0;

    promise->waiter_count += 3;
    AF_ASSERT(promise->waiter_count <= AF_ARRAY_LEN(promise->waiters));
    for (int i = 0; i < 3; i++) {
        uint64_t lsn;

        if (rig_try_append(rig, 100, 0, &lsn) < 0)
            return false;
        w[i].w.lsn = lsn;
        w[i].w.done = note_done;
        if (wal_wait_async(rig->wal, &w[i].w) < 0)
            return false;
        wal_kick(rig->wal, false);
    }
    while (done < 3 && wal_pump(rig->wal, true) >= 0) {
        done = 0;
        for (int i = 0; i < 3; i++) {
            if (w[i].order && w[i].result == 0) {
                assert_int_equal(done, i); // W1
                promise->acked_lsn = w[i].w.lsn;
            }
            done += w[i].order;
        }
    }
    wal_tick(rig->wal); // a failure at the start is told here at the latest
    return w[0].order && w[1].order && w[2].order && w[2].result == 0;
}

// The superblock is outside of this test: it is taken to be durable when this says so.
static bool checkpoint(struct rig *rig, struct promise *promise, uint64_t sequence)
{
    struct wal_start start = rig->start;
    uint8_t body[WAL_MARKER_BODY] = {(uint8_t)sequence};
    uint64_t lsn;

    start.cut_lsn = wal_cut(rig->wal);
    if (wal_wait(rig->wal, start.cut_lsn) < 0)
        return false;
    promise->acked_lsn = AF_MAX(promise->acked_lsn, start.cut_lsn);
    wal_cut_info(rig->wal, start.cut_lsn, &start.cut_checksum, &start.log_segment);
    promise->start = start;
    if (wal_append(rig->wal, WAL_MARKER, body, sizeof(body), 0, &lsn) < 0 ||
        wal_wait(rig->wal, lsn) < 0)
        return false;
    promise->acked_lsn = lsn;
    wal_trim(rig->wal, sequence, start.cut_lsn, start.log_segment);
    return wal_prepare_segments(rig->wal) == 0;
}

static bool workload(struct rig *rig, struct promise *promise)
{
    for (uint64_t i = 1; i <= 36; i++) {
        if (!commit(rig, promise, (size_t)(i * 977) % 6000, i % 5 == 0))
            return false;
        if (i % 4 == 0 && !async_commits(rig, promise))
            return false;
        if (i % 9 == 0 && !checkpoint(rig, promise, i))
            return false;
        if (i % 7 == 0) {
            sim_advance_ms(rig->sim, 700);
            wal_tick(rig->wal);
            sim_advance_ms(rig->sim, 700);
            wal_tick(rig->wal);
        }
    }
    return true;
}

static void check_promise(const struct rig *rig, const struct promise *promise)
{
    struct wal_scan_result result;
    struct rig_seen seen;

    rig_read_disk(rig->sim, &promise->start, &result, &seen);
    if (result.end == WAL_END_DAMAGED || result.end == WAL_END_MISSING)
        print_error("%s\n", result.what);
    assert_true(result.end == WAL_END_CLEAN || result.end == WAL_END_TORN);
    assert_true(result.last_lsn >= promise->acked_lsn);
    assert_true(result.durable_lsn <= result.last_lsn);
    assert_true(result.epoch_max <= 1);
}

static uint64_t run(struct rig *rig, struct promise *promise, uint64_t crash_at,
                    enum sim_crash_mode mode)
{
    rig_setup(rig, crash_at);
    uint64_t first = sim_event_count(rig->sim);

    if (crash_at != SIM_NEVER)
        sim_crash_at(rig->sim, first + crash_at, mode);
    *promise = (struct promise){.start = rig->start};
    bool whole = workload(rig, promise);
    assert_int_equal(whole, !sim_is_dead(rig->sim));
    assert_true(rig->failures <= 1);
    uint64_t events = sim_event_count(rig->sim) - first;
    wal_close(rig->wal);
    rig->wal = NULL;
    return events;
}

static void test_every_crash_keeps_what_was_acknowledged(void **state)
{
    static const enum sim_crash_mode modes[] = {SIM_CRASH_BEFORE, SIM_CRASH_PARTIAL,
                                                SIM_CRASH_AFTER};
    static const enum sim_cut_policy policies[] = {SIM_CUT_DROP_ALL, SIM_CUT_KEEP_ALL,
                                                   SIM_CUT_RANDOM, SIM_CUT_GARBAGE};
    struct promise promise;
    struct rig rig;

    (void)state;
    uint64_t events = run(&rig, &promise, SIM_NEVER, SIM_CRASH_BEFORE);
    check_promise(&rig, &promise);
    rig_teardown(&rig);
    print_message("%llu events\n", (unsigned long long)events);
    assert_true(events > 100);
    for (uint64_t at = 0; at < events; at++) {
        for (size_t m = 0; m < AF_ARRAY_LEN(modes); m++) {
            (void)run(&rig, &promise, at, modes[m]);
            for (size_t p = 0; p < AF_ARRAY_LEN(policies) * 2; p++) {
                struct rig cut = rig;

                cut.sim = sim_clone(rig.sim);
                if (p == 0)
                    sim_kill(cut.sim, at);
                else
                    sim_power_cut(cut.sim, policies[p % AF_ARRAY_LEN(policies)], at * 8 + p);
                sim_count_crash(cut.sim);
                check_promise(&cut, &promise);
                sim_destroy(cut.sim);
            }
            rig_teardown(&rig);
        }
    }
}

// A failure of any one call is either harmless or loud; nothing is acknowledged that is not there.
static void test_every_fault_is_loud_or_harmless(void **state)
{
    static const enum sim_fault_effect effects[] = {SIM_FAULT_FAIL, SIM_FAULT_PARTIAL,
                                                    SIM_FAULT_AFTER, SIM_FAULT_LOST};
    static const int errors[] = {-EIO, -ENOSPC};

    (void)state;
    for (size_t e = 0; e < AF_ARRAY_LEN(effects); e++) {
        bool hit = true;

        for (uint64_t skip = 0; hit; skip++) {
            struct sim_fault fault = {.calls = SIM_ALL_EVENTS,
                                      .path = "wal*",
                                      .skip = skip,
                                      .times = 1,
                                      .effect = effects[e],
                                      .error = errors[skip % 2]};
            struct promise promise;
            struct rig rig;

            if (effects[e] == SIM_FAULT_LOST)
                fault.calls = SIM_BIT(SIM_SYNC) | SIM_BIT(SIM_DONE_WRITE) | SIM_BIT(SIM_DONE_SYNC) |
                              SIM_BIT(SIM_SYNC_DIR);
            rig_setup(&rig, skip);
            unsigned id = sim_fault_add(rig.sim, &fault);
            promise = (struct promise){.start = rig.start};
            bool whole = workload(&rig, &promise);
            wal_tick(rig.wal); // what a kick has met is told here
            struct wal_stats stats;
            wal_get_stats(rig.wal, &stats);
            hit = sim_fault_hits(rig.sim, id) > 0;
            assert_true(hit || whole);
            assert_true(rig.failures == (stats.failed ? 1 : 0));
            wal_close(rig.wal);
            rig.wal = NULL;
            check_promise(&rig, &promise);
            sim_power_cut(rig.sim, SIM_CUT_RANDOM, skip);
            sim_count_crash(rig.sim);
            check_promise(&rig, &promise);
            rig_teardown(&rig);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_crash_keeps_what_was_acknowledged),
        cmocka_unit_test(test_every_fault_is_loud_or_harmless),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
