// SPDX-License-Identifier: MIT
// Writing the log: group commit, order of acknowledgements, segments, failure. On the simulated
// disk.
#include "tests/unit/test_wal_rig.h"

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    AF_ASSERT(rig);
    rig_setup(rig, 1);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    rig_teardown(*state);
    free(*state);
    return 0;
}

static void add_fault(struct rig *rig, enum sim_call call, const char *path,
                      enum sim_fault_effect effect, int error)
{
    struct sim_fault fault = {
        .calls = SIM_BIT(call), .path = path, .times = 1, .effect = effect, .error = error};

    (void)sim_fault_add(rig->sim, &fault);
}

// Lets the next write of the log start and not finish.
static void hold_next_write(struct rig *rig)
{
    add_fault(rig, SIM_START_WRITE, "wal/*", SIM_FAULT_HOLD, 0);
}

static void test_appended_records_come_back(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;

    for (size_t i = 0; i < 100; i++)
        assert_int_equal(rig_append(rig, i * 13 % 700), i + 1);
    assert_int_equal(wal_durable_lsn(rig->wal), 0);
    assert_int_equal(wal_wait(rig->wal, 100), 0);
    assert_int_equal(wal_durable_lsn(rig->wal), 100);
    for (size_t i = 0; i < 20; i++)
        rig_commit(rig, i);

    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 120);
    assert_int_equal(result.durable_lsn, 119);
    assert_int_equal(result.dropped_bytes, 0);
}

static void test_nothing_is_written_unless_somebody_waits(void **state)
{
    struct rig *rig = *state;
    struct rig_waiter waiter;
    uint64_t before = sim_event_count(rig->sim);

    uint64_t lsn = rig_append(rig, 10);
    wal_kick(rig->wal, false);
    assert_int_equal(sim_event_count(rig->sim), before);
    assert_int_equal(rig_wait_async(rig, &waiter, lsn), 0);
    assert_int_equal(sim_event_count(rig->sim), before);
    wal_kick(rig->wal, false);
    assert_int_equal(sim_event_count(rig->sim), before + 1);
    assert_true(wal_pump(rig->wal, true) > 0);
    assert_int_equal(waiter.order, 1);
    assert_int_equal(waiter.result, 0);
}

static void test_records_appended_in_flight_belong_to_the_next_flush(void **state)
{
    struct rig *rig = *state;
    struct rig_waiter a, b;

    hold_next_write(rig);
    uint64_t first = rig_append(rig, 10);
    uint64_t second = rig_append(rig, 10);
    assert_int_equal(rig_wait_async(rig, &a, second), 0);
    wal_kick(rig->wal, false);
    uint64_t third = rig_append(rig, 10);
    assert_int_equal(rig_wait_async(rig, &b, third), 0);
    wal_kick(rig->wal, false); // one is in flight
    (void)wal_pump(rig->wal, false);
    assert_int_equal(a.order, 0);

    hold_next_write(rig);
    sim_release_held(rig->sim);
    assert_true(wal_pump(rig->wal, true) > 0);
    assert_int_equal(a.order, 1);
    assert_int_equal(b.order, 0);
    assert_int_equal(wal_durable_lsn(rig->wal), second);
    sim_release_held(rig->sim);
    assert_true(wal_pump(rig->wal, true) > 0);
    assert_int_equal(b.order, 2);
    assert_int_equal(wal_durable_lsn(rig->wal), third);
    (void)first;

    struct wal_stats stats;
    wal_get_stats(rig->wal, &stats);
    assert_int_equal(stats.flushes, 2);
    assert_int_equal(stats.records, 3);
}

static void test_kick_of_all_is_remembered_while_in_flight(void **state)
{
    struct rig *rig = *state;

    hold_next_write(rig);
    (void)rig_append(rig, 10);
    wal_kick(rig->wal, true);
    uint64_t lsn = rig_append(rig, 10);
    wal_kick(rig->wal, true);
    uint64_t later = rig_append(rig, 10); // joins the group that is wanted
    sim_release_held(rig->sim);
    for (int i = 0; i < 3; i++)
        (void)wal_pump(rig->wal, true);
    assert_true(wal_durable_lsn(rig->wal) >= lsn);
    assert_int_equal(wal_durable_lsn(rig->wal), later);
    assert_int_equal(wal_pump(rig->wal, true), 0); // nothing in flight: does not hang
}

static void test_acknowledgements_come_in_order_of_lsn(void **state)
{
    struct rig *rig = *state;
    struct rig_waiter w[5];
    static const uint64_t lsns[] = {3, 1, 5, 2, 4};

    for (int i = 0; i < 5; i++)
        (void)rig_append(rig, 10);
    for (int i = 0; i < 5; i++)
        assert_int_equal(rig_wait_async(rig, &w[i], lsns[i]), 0);
    wal_check_state(rig->wal);
    wal_kick(rig->wal, false);
    (void)wal_pump(rig->wal, true);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(w[i].order, lsns[i]);
        assert_int_equal(w[i].result, 0);
    }
    assert_int_equal(rig_wait_async(rig, &w[0], 5), 1);
}

static void test_data_is_synced_before_the_record_that_names_it(void **state)
{
    struct rig *rig = *state;
    struct wal_stats stats;
    uint64_t lsn;

    rig->data_written = 7;
    assert_int_equal(rig_try_append(rig, 10, 5, &lsn), 0);
    uint64_t from = sim_event_count(rig->sim);
    assert_int_equal(wal_wait(rig->wal, lsn), 0);
    uint64_t synced = rig_find_event(rig, from, SIM_DONE_SYNC, "data");
    uint64_t written = rig_find_event(rig, from, SIM_START_WRITE, NULL);
    assert_true(synced < written && written != SIM_NEVER);

    // 7 was synced with it, 8 was not.
    from = sim_event_count(rig->sim);
    assert_int_equal(rig_try_append(rig, 10, 7, &lsn), 0);
    assert_int_equal(wal_wait(rig->wal, lsn), 0);
    assert_true(rig_find_event(rig, from, SIM_START_SYNC, "data") == SIM_NEVER);
    rig->data_written = 8;
    from = sim_event_count(rig->sim);
    assert_int_equal(rig_try_append(rig, 10, 8, &lsn), 0);
    assert_int_equal(wal_wait(rig->wal, lsn), 0);
    assert_true(rig_find_event(rig, from, SIM_START_SYNC, "data") != SIM_NEVER);
    wal_get_stats(rig->wal, &stats);
    assert_int_equal(stats.data_syncs, 2);
}

// Everything that a failed log owes: see the callers.
static void check_failed(struct rig *rig, struct rig_waiter *w, int count, int error)
{
    struct rig_waiter late;
    struct wal_stats stats;
    uint64_t lsn;

    assert_int_equal(rig->failures, 1);
    assert_int_equal(rig->failure_error, error);
    for (int i = 0; i < count; i++) {
        assert_int_equal(w[i].result, -AF_E_LOG_FAILED);
        assert_int_equal(w[i].order, i + 2); // behind the failure itself
    }
    // W5
    uint64_t durable = wal_durable_lsn(rig->wal);
    uint64_t before = sim_event_count(rig->sim);
    assert_int_equal(rig_try_append(rig, 10, 0, &lsn), -AF_E_LOG_FAILED);
    assert_int_equal(wal_wait(rig->wal, durable + 1), -AF_E_LOG_FAILED);
    assert_int_equal(rig_wait_async(rig, &late, durable + 1), -AF_E_LOG_FAILED);
    assert_int_equal(wal_wait(rig->wal, durable), 0);
    assert_int_equal(wal_prepare_segments(rig->wal), -AF_E_LOG_FAILED);
    assert_true(wal_has_room(rig->wal, 1, 10));
    wal_kick(rig->wal, true);
    sim_advance_ms(rig->sim, 5000);
    wal_tick(rig->wal);
    (void)wal_pump(rig->wal, true);
    wal_check_state(rig->wal);
    wal_get_stats(rig->wal, &stats);
    assert_true(stats.failed);
    assert_int_equal(stats.error, error);
    assert_int_equal(wal_durable_lsn(rig->wal), durable);
    assert_int_equal(sim_event_count(rig->sim), before);
    assert_int_equal(rig->failures, 1);
    assert_false(wal_busy(rig->wal));
}

static void test_failed_write_fails_all_waiters_for_good(void **state)
{
    struct rig *rig = *state;
    struct rig_waiter w[4];

    uint64_t good = rig_commit(rig, 10);
    hold_next_write(rig);
    add_fault(rig, SIM_DONE_WRITE, "wal/*", SIM_FAULT_FAIL, -EIO);
    for (int i = 0; i < 2; i++)
        assert_int_equal(rig_wait_async(rig, &w[i], rig_append(rig, 10)), 0);
    wal_kick(rig->wal, false);
    for (int i = 2; i < 4; i++) // these wait for the next group
        assert_int_equal(rig_wait_async(rig, &w[i], rig_append(rig, 10)), 0);
    sim_release_held(rig->sim);
    (void)wal_pump(rig->wal, true);
    assert_int_equal(wal_durable_lsn(rig->wal), good);
    check_failed(rig, w, 4, -EIO);
}

static void test_failed_sync_of_data_fails_all_waiters(void **state)
{
    struct rig *rig = *state;
    struct rig_waiter w[2];
    uint64_t lsn;

    rig->data_written = 1;
    add_fault(rig, SIM_DONE_SYNC, "data", SIM_FAULT_LOST, -EIO);
    assert_int_equal(rig_try_append(rig, 10, 1, &lsn), 0);
    assert_int_equal(rig_wait_async(rig, &w[0], lsn), 0);
    wal_kick(rig->wal, false);
    assert_int_equal(rig_wait_async(rig, &w[1], rig_append(rig, 10)), 0);
    (void)wal_pump(rig->wal, true);
    assert_true(rig_find_event(rig, 0, SIM_START_WRITE, NULL) == SIM_NEVER);
    check_failed(rig, w, 2, -EIO);
}

static void test_write_that_cannot_start_fails_all_waiters(void **state)
{
    struct rig *rig = *state;
    struct rig_waiter w[2];

    add_fault(rig, SIM_START_WRITE, "wal/*", SIM_FAULT_FAIL, -ENOMEM);
    for (int i = 0; i < 2; i++)
        assert_int_equal(rig_wait_async(rig, &w[i], rig_append(rig, 10)), 0);
    wal_kick(rig->wal, false);
    assert_int_equal(w[0].order, 0); // a kick calls nobody back
    assert_true(wal_busy(rig->wal));
    wal_tick(rig->wal);
    check_failed(rig, w, 2, -ENOMEM);
}

static void test_write_that_lands_after_the_failure_acknowledges_nothing(void **state)
{
    struct rig *rig = *state;
    struct rig_waiter w[1];

    // The first flush leaves one standby, so the next segment is needed and its sync fails.
    rig_commit(rig, 10);
    hold_next_write(rig);
    assert_int_equal(rig_wait_async(rig, &w[0], rig_append(rig, 10)), 0);
    wal_kick(rig->wal, false);
    add_fault(rig, SIM_SYNC, "wal/*", SIM_FAULT_LOST, -EIO);
    assert_int_equal(wal_prepare_segments(rig->wal), -AF_E_LOG_FAILED);
    sim_release_held(rig->sim);
    (void)wal_pump(rig->wal, true);
    assert_int_equal(wal_durable_lsn(rig->wal), 1);
    check_failed(rig, w, 1, -EIO);
}

static void test_close_fails_who_waits_and_drops_what_is_not_flushed(void **state)
{
    struct rig *rig = *state;
    struct rig_waiter w[2];
    struct wal_scan_result result;
    struct rig_seen seen;

    assert_int_equal(rig_wait_async(rig, &w[0], rig_append(rig, 10)), 0);
    wal_kick(rig->wal, false);
    assert_int_equal(rig_wait_async(rig, &w[1], rig_append(rig, 10)), 0);
    wal_close(rig->wal);
    rig->wal = NULL;
    assert_int_equal(w[0].result, 0); // was in flight
    assert_int_equal(w[1].result, -AF_E_LOG_FAILED);
    assert_int_equal(rig->failures, 0);
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 1);
}

// ---- segments ----

static void test_log_continues_over_segments(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;
    struct wal_segment_info info;

    for (int i = 0; i < 60; i++)
        rig_commit(rig, (size_t)(i * 517) % 9000);
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 60);
    assert_true(result.end_segment > 3);
    for (uint64_t n = 1; n <= result.end_segment; n++) {
        char path[32];

        memset(&seen, 0, sizeof(seen));
        wal_segment_path(n, path);
        assert_int_equal(wal_read_segment(rig->io, path, NULL, &info, rig_see, &seen), 0);
        assert_true(info.valid);
        assert_int_equal(info.segment, n);
        assert_int_equal(info.epoch, 1);
        assert_true(seen.count > 0);
        assert_int_equal(info.first_lsn, seen.first_lsn);
        assert_int_equal(info.prev_lsn, seen.first_lsn - 1);
        assert_int_equal(info.durable_lsn, seen.first_lsn - 1);
        assert_true(seen.offset < RIG_SEGMENT_BYTES);
    }
}

// For each first write of a segment: the next file was made, synced, and its name synced, before.
static void test_successor_is_durable_before_a_segment_is_begun(void **state)
{
    struct rig *rig = *state;
    uint64_t begun = 0;

    for (int i = 0; i < 60; i++)
        rig_commit(rig, 5000);
    for (uint64_t i = 0; i < sim_event_count(rig->sim); i++) {
        const struct sim_event *event = sim_event(rig->sim, i);
        uint64_t number;
        char path[32];

        if (event->call != SIM_START_WRITE || event->off != 0)
            continue;
        begun++;
        assert_true(wal_segment_number(event->path + 4, &number));
        assert_true(event->len > WAL_BLOCK); // header and group in one
        wal_segment_path(number + 1, path);
        uint64_t made = rig_find_event(rig, 0, SIM_CREATE, path);
        uint64_t synced = rig_find_event(rig, 0, SIM_SYNC, path);
        uint64_t named = rig_find_event(rig, synced, SIM_SYNC_DIR, "wal");
        assert_true(made < synced && synced < named && named < i);
    }
    assert_true(begun > 3);
}

static void test_every_flush_starts_on_a_fresh_block(void **state)
{
    struct rig *rig = *state;
    uint64_t end = 0;

    for (int i = 0; i < 40; i++)
        rig_commit(rig, (size_t)(i * 331) % 5000);
    for (uint64_t i = 0; i < sim_event_count(rig->sim); i++) {
        const struct sim_event *event = sim_event(rig->sim, i);

        if (event->call != SIM_START_WRITE)
            continue;
        assert_true(event->off == end || event->off == 0);
        end = event->off + event->len;
        assert_true(end <= RIG_SEGMENT_BYTES);
    }
}

static void test_trimmed_segments_are_recycled_and_their_bytes_are_dead(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;
    struct wal_start start = rig->start;
    uint64_t renames = 0, last = 0;

    for (uint64_t i = 1; i <= 20; i++) {
        for (int j = 0; j < 12; j++)
            last = rig_commit(rig, 3000);
        rig->start = start;
        assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
        assert_int_equal(result.last_lsn, last);
        start = rig_checkpoint(rig, i);
        assert_int_equal(wal_prepare_segments(rig->wal), 0);
    }
    rig->start = start;
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.markers, 1);
    for (uint64_t i = 0; i < sim_event_count(rig->sim); i++)
        renames += sim_event(rig->sim, i)->call == SIM_RENAME;
    assert_true(renames > 10);
    assert_true(sim_used_bytes(rig->sim) <= 8 * RIG_SEGMENT_BYTES);
}

static void test_old_epochs_segments_wait_for_the_first_marker(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;

    for (int i = 0; i < 30; i++)
        rig_commit(rig, 3000);
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    rig_next_epoch(rig, &result);
    uint64_t from = sim_event_count(rig->sim);
    for (int i = 0; i < 20; i++)
        rig_commit(rig, 3000);
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 20);
    assert_true(rig_find_event(rig, from, SIM_RENAME, NULL) == SIM_NEVER);
    assert_true(sim_exists(rig->sim, "wal/0000000000000001.seg"));

    struct wal_start start = rig_checkpoint(rig, 2);
    for (int i = 0; i < 40; i++)
        rig_commit(rig, 3000);
    assert_true(rig_find_event(rig, from, SIM_RENAME, NULL) != SIM_NEVER);
    assert_false(sim_exists(rig->sim, "wal/0000000000000001.seg"));
    rig->start = start;
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 41);
}

static void test_short_old_segment_is_not_recycled(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;

    for (int i = 0; i < 30; i++)
        rig_commit(rig, 3000);
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(sim_truncate_raw(rig->sim, "wal/0000000000000001.seg", 4096), 0);
    rig_next_epoch(rig, &result);
    (void)rig_checkpoint(rig, 2);
    for (int i = 0; i < 50; i++)
        rig_commit(rig, 3000);
    assert_false(sim_exists(rig->sim, "wal/0000000000000001.seg"));
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 51);
}

static void test_full_disk_is_harmless_while_a_standby_is_left(void **state)
{
    struct rig *rig = *state;
    struct rig_waiter w[1];

    sim_set_capacity(rig->sim, sim_used_bytes(rig->sim));
    rig_commit(rig, 10);
    assert_int_equal(wal_prepare_segments(rig->wal), -ENOSPC);
    assert_int_equal(rig->failures, 0);
    // Segment 1 can still be filled, and has_room says how far.
    uint64_t count = 0;
    while (wal_has_room(rig->wal, 1, 3000)) {
        rig_commit(rig, 3000);
        count++;
    }
    assert_true(count > 5);
    assert_int_equal(rig->failures, 0);
    // Space comes back.
    sim_set_capacity(rig->sim, UINT64_MAX);
    sim_advance_ms(rig->sim, 2000);
    wal_tick(rig->wal);
    assert_true(wal_has_room(rig->wal, 1, 3000));
    rig_commit(rig, 3000);

    // Who does not ask for room meets the full disk at the flush, and that is a failure.
    assert_int_equal(wal_prepare_segments(rig->wal), 0);
    sim_set_capacity(rig->sim, sim_used_bytes(rig->sim));
    int r = 0;
    for (int i = 0; i < 100 && r == 0; i++) {
        uint64_t lsn = rig_append(rig, 3000);
        r = wal_wait(rig->wal, lsn);
    }
    assert_int_equal(r, -AF_E_LOG_FAILED);
    assert_int_equal(rig->failures, 1);
    assert_int_equal(rig->failure_error, -ENOSPC);
    (void)w;
}

static void test_owner_is_told_when_segments_are_needed(void **state)
{
    struct rig *rig = *state;
    struct rig_waiter w;
    bool ran = false;

    wal_pump_own(rig->wal, true);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(rig_wait_async(rig, &w, rig_append(rig, 5000)), 0);
        wal_kick(rig->wal, false);
        (void)wal_pump(rig->wal, true);
        if (w.order == 0) { // stuck: both segments are used
            assert_true(wal_busy(rig->wal));
            assert_true(rig->needs > 0);
            assert_int_equal(wal_prepare_segments(rig->wal), 0);
            (void)wal_pump(rig->wal, true);
            ran = true;
        }
        assert_int_equal(w.result, 0);
        assert_true(w.order > 0);
    }
    assert_true(ran);
    rig_commit(rig, 1); // the owner may wait as well; it pumps then
    wal_pump_own(rig->wal, false);
    rig_commit(rig, 1);
}

// ---- bounds ----

static void test_largest_body(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;
    size_t max = wal_body_max(rig->wal);
    uint64_t lsn;

    assert_true(max <= (RIG_SEGMENT_BYTES - WAL_BLOCK) / 2 && max > RIG_SEGMENT_BYTES / 4);
    assert_int_equal(rig_try_append(rig, max + 1, 0, &lsn), -AF_E_LOG_TOO_BIG);
    assert_int_equal(wal_prepare(rig->wal, max + 1), -AF_E_LOG_TOO_BIG);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(wal_prepare(rig->wal, max), 0);
        rig_append(rig, 5);
        rig_append(rig, max);
        assert_int_equal(wal_wait(rig->wal, rig_append(rig, 5)), 0);
    }
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 30);
    assert_int_equal(seen.bytes_max, max);
}

// What has_room grants can always be flushed inside the bound, with a marker after it.
static void test_room_ends_before_the_bound_and_returns_after_a_trim(void **state)
{
    struct rig *rig = *state;
    uint64_t granted = 0;

    for (unsigned round = 1; round <= 6; round++) {
        unsigned seed = round;

        granted = 0;
        for (;;) {
            size_t bytes = (size_t)rand_r(&seed) % (wal_body_max(rig->wal) + 1);

            if (round % 2)
                bytes %= 200;
            if (!wal_has_room(rig->wal, 1, bytes)) {
                assert_int_equal(wal_prepare_segments(rig->wal), 0);
                if (!wal_has_room(rig->wal, 1, bytes))
                    break;
            }
            uint64_t lsn = rig_append(rig, bytes);
            if (rand_r(&seed) % 4 == 0)
                assert_int_equal(wal_wait(rig->wal, lsn), 0);
            granted++;
        }
        assert_true(granted > 5);
        (void)rig_checkpoint(rig, round);
        struct wal_stats stats;
        wal_get_stats(rig->wal, &stats);
        assert_int_equal(wal_prepare_segments(rig->wal), 0);
        assert_true(sim_used_bytes(rig->sim) <= 8 * RIG_SEGMENT_BYTES);
        assert_true(stats.log_bytes <= stats.log_bytes_max);
    }
}

// The same for many records at once, however they come to be grouped.
static void test_room_for_many_records_at_once(void **state)
{
    struct rig *rig = *state;
    unsigned seed = 5;
    unsigned rounds = 0, sequence = 0;

    assert_int_equal(wal_prepare_segments(rig->wal), 0);
    while (rounds < 400) {
        size_t count = 2 + (size_t)rand_r(&seed) % 7;
        size_t bytes = (size_t)rand_r(&seed) % 2000;

        if (!wal_has_room(rig->wal, count, count * bytes)) {
            (void)rig_checkpoint(rig, ++sequence);
            assert_int_equal(wal_prepare_segments(rig->wal), 0);
            continue;
        }
        // No segment can be made from here on, and none is needed.
        sim_set_capacity(rig->sim, sim_used_bytes(rig->sim));
        uint64_t lsn = 0;
        for (size_t i = 0; i < count; i++) {
            lsn = rig_append(rig, bytes);
            if (rand_r(&seed) % 8 == 0)
                assert_int_equal(wal_wait(rig->wal, lsn), 0);
        }
        if (rand_r(&seed) % 2)
            assert_int_equal(wal_wait(rig->wal, lsn), 0);
        wal_check_state(rig->wal);
        sim_set_capacity(rig->sim, UINT64_MAX);
        rounds++;
    }
    assert_true(sequence > 5);
    assert_int_equal(rig->failures, 0);
}

static void test_room_has_a_bound_on_records(void **state)
{
    struct rig *rig = *state;

    assert_false(wal_has_room(rig->wal, (1u << 19) + 1, 0));
    assert_false(wal_has_room(rig->wal, 1, SIZE_MAX / 2));
    assert_true(wal_has_room(rig->wal, 1, 0));
    assert_true(wal_has_room(rig->wal, 2, 100));
}

// ---- late work ----

static void test_tick_flushes_what_has_waited(void **state)
{
    struct rig *rig = *state;

    rig_append(rig, 10);
    assert_true(wal_busy(rig->wal));
    wal_tick(rig->wal);
    assert_int_equal(wal_durable_lsn(rig->wal), 0);
    sim_advance_ms(rig->sim, 600);
    wal_tick(rig->wal);
    (void)wal_pump(rig->wal, true);
    assert_int_equal(wal_durable_lsn(rig->wal), 1);
}

static void test_quiet_log_gets_one_attestation(void **state)
{
    struct rig *rig = *state;
    struct wal_scan_result result;
    struct rig_seen seen;

    rig_commit(rig, 10);
    for (int i = 0; i < 10; i++) {
        sim_advance_ms(rig->sim, 300);
        wal_tick(rig->wal);
        (void)wal_pump(rig->wal, true);
    }
    assert_false(wal_busy(rig->wal));
    assert_int_equal(rig_scan(rig, &result, &seen), WAL_END_CLEAN);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.attestations, 1);
    assert_int_equal(result.durable_lsn, 1);
}

// ---- cuts ----

static void test_cut_without_records_is_the_start(void **state)
{
    struct rig *rig = *state;
    uint64_t checksum, segment;

    assert_int_equal(wal_cut(rig->wal), 0);
    wal_cut_info(rig->wal, 0, &checksum, &segment);
    assert_int_equal(checksum, 0);
    assert_int_equal(segment, 1);
}

static void check_cut(struct rig *rig, uint64_t cut)
{
    struct wal_scan_result result;
    struct rig_seen seen;
    struct wal_start start = rig->start;

    start.cut_lsn = cut;
    wal_cut_info(rig->wal, cut, &start.cut_checksum, &start.log_segment);
    rig_scan_disk(rig->sim, &start, &result, &seen);
    assert_int_equal(result.end, WAL_END_CLEAN);
    assert_int_equal(result.last_lsn, wal_durable_lsn(rig->wal));
    // Another checksum is not this cut.
    start.cut_checksum ^= 1;
    rig_scan_disk(rig->sim, &start, &result, &seen);
    assert_int_equal(result.end, WAL_END_DAMAGED);
    assert_int_equal(seen.count, 0);
}

static void test_cut_is_known_once_durable_whenever_it_was_taken(void **state)
{
    struct rig *rig = *state;

    for (int i = 0; i < 30; i++) {
        // Before its flush, with records behind it.
        rig_append(rig, 2000);
        uint64_t a = rig_append(rig, 10);
        assert_int_equal(wal_cut(rig->wal), a);
        assert_int_equal(wal_cut(rig->wal), a);
        assert_int_equal(wal_wait(rig->wal, rig_append(rig, 10)), 0);
        check_cut(rig, a);
        // In flight.
        hold_next_write(rig);
        uint64_t b = rig_append(rig, 10);
        wal_kick(rig->wal, true);
        assert_int_equal(wal_cut(rig->wal), b);
        rig_append(rig, 10);
        sim_release_held(rig->sim);
        assert_int_equal(wal_wait(rig->wal, b), 0);
        check_cut(rig, b);
        // After it was flushed, and once more.
        uint64_t c = rig_commit(rig, 1000);
        assert_int_equal(wal_cut(rig->wal), c);
        check_cut(rig, c);
        assert_int_equal(wal_cut(rig->wal), c);
        check_cut(rig, c);
    }
}

static void test_bad_configurations_are_refused(void **state)
{
    struct rig *rig = *state;
    struct wal_start start = rig->start;
    struct wal_config config = rig->config;
    struct wal *wal = NULL;

    config.log_bytes = 3 * start.segment_bytes;
    assert_int_equal(wal_open(&config, &start, &wal), -EINVAL);
    config = rig->config;
    start.segment_bytes = 4096;
    assert_int_equal(wal_open(&config, &start, &wal), -EINVAL);
    start = rig->start;
    start.log_segment = 2; // no successor
    assert_int_equal(wal_open(&config, &start, &wal), -AF_E_LOG_MISSING);
    start.segment_bytes = 8 * WAL_BLOCK;
    start.log_segment = 1;
    assert_int_equal(wal_open(&config, &start, &wal), -AF_E_LOG_MISSING);
    assert_null(wal);
    wal_close(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_appended_records_come_back),
        TEST(test_nothing_is_written_unless_somebody_waits),
        TEST(test_records_appended_in_flight_belong_to_the_next_flush),
        TEST(test_kick_of_all_is_remembered_while_in_flight),
        TEST(test_acknowledgements_come_in_order_of_lsn),
        TEST(test_data_is_synced_before_the_record_that_names_it),
        TEST(test_failed_write_fails_all_waiters_for_good),
        TEST(test_failed_sync_of_data_fails_all_waiters),
        TEST(test_write_that_cannot_start_fails_all_waiters),
        TEST(test_write_that_lands_after_the_failure_acknowledges_nothing),
        TEST(test_close_fails_who_waits_and_drops_what_is_not_flushed),
        TEST(test_log_continues_over_segments),
        TEST(test_successor_is_durable_before_a_segment_is_begun),
        TEST(test_every_flush_starts_on_a_fresh_block),
        TEST(test_trimmed_segments_are_recycled_and_their_bytes_are_dead),
        TEST(test_old_epochs_segments_wait_for_the_first_marker),
        TEST(test_short_old_segment_is_not_recycled),
        TEST(test_full_disk_is_harmless_while_a_standby_is_left),
        TEST(test_owner_is_told_when_segments_are_needed),
        TEST(test_largest_body),
        TEST(test_room_ends_before_the_bound_and_returns_after_a_trim),
        TEST(test_room_for_many_records_at_once),
        TEST(test_room_has_a_bound_on_records),
        TEST(test_tick_flushes_what_has_waited),
        TEST(test_quiet_log_gets_one_attestation),
        TEST(test_cut_without_records_is_the_start),
        TEST(test_cut_is_known_once_durable_whenever_it_was_taken),
        TEST(test_bad_configurations_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
