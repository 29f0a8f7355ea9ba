// SPDX-License-Identifier: MIT
// Replication as far as the formats carry it (failure model, §11): a primary's log and checkpoints
// as files, and replicas that get them cut, late, twice, in any order, damaged; with crashes of
// either side. What must hold is in follow.h.
//
//   SEED=n  RUNS=n
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/replica/follow.h"
#include "wal/wal_format.h"

static void start(struct primary *p, struct replica *r, uint64_t seed)
{
    primary_init(p, seed);
    replica_init(r, &p->fx.options, seed + 1);
}

static void end(struct primary *p, struct replica *r)
{
    replica_free(r);
    primary_free(p);
}

static void work(struct primary *p, unsigned steps)
{
    for (unsigned i = 0; i < steps; i++)
        primary_step(p);
}

// ---- following ----

static void test_a_replica_follows_every_step(void **state)
{
    struct primary p;
    struct replica r;

    (void)state;
    start(&p, &r, 1);
    catch_up(&p, &r);
    for (unsigned i = 1; i <= 120; i++) {
        primary_step(&p);
        catch_up(&p, &r);
        if (i % 25 == 0) {
            primary_checkpoint(&p);
            catch_up(&p, &r);
        }
    }
    print_message("%llu records, %llu blocks, %llu checkpoints, %llu segments\n",
                  (unsigned long long)r.placed, (unsigned long long)p.a.extents,
                  (unsigned long long)r.published, (unsigned long long)r.segment);
    assert_int_equal(r.bases, 1);
    assert_true(p.a.extents > 200 && r.published >= 4 && r.segment > 4);
    // From base and log alone: the store directory on another disk gives the same tree.
    struct replica copy = r;
    struct canon here = {0}, there = {0};
    copy.sim = sim_clone(r.sim);
    for (size_t i = 0; i < p.a.count; i++)
        replica_forget(&copy, p.a.files[i].name);
    assert_true(replica_restart(&copy));
    assert_int_equal(copy.lsn, r.lsn);
    replica_apply(&r, &here);
    replica_apply(&copy, &there);
    assert_true(here.hash == there.hash);
    canon_free(&here);
    canon_free(&there);
    sim_destroy(copy.sim);
    end(&p, &r);
}

// The same through crashes and clean ends of the primary: a new epoch is followed too.
static void test_a_replica_follows_into_the_next_epochs(void **state)
{
    struct primary p;
    struct replica r;

    (void)state;
    start(&p, &r, 2);
    for (unsigned round = 0; round < 12; round++) {
        work(&p, 6);
        if (round % 3 != 1) // or it is far behind when the epoch ends
            catch_up(&p, &r);
        if (round % 4 == 3)
            primary_reopen(&p);
        else
            primary_crash(&p, (enum crash_kind)(round % CRASH_KIND_COUNT), round);
        catch_up(&p, &r);
    }
    assert_false(p.a.behind);
    assert_int_equal(r.bases, 1);
    assert_true(r.log.epoch > 12);
    end(&p, &r);
}

// ---- cut ----

// All that is in the archive as one string, in the order of a sender that sends blocks before the
// records that name them.
struct stream {
    struct {
        const struct archive_file *file;
        size_t from, to;
    } parts[64];
    size_t count, bytes;
};

static void stream_add(struct stream *s, struct archive *a, struct replica *r, const char *kind)
{
    for (size_t i = 0; i < a->count; i++) {
        const struct archive_file *file = &a->files[i];
        size_t have = (size_t)replica_received(r, file->name);

        if (!strstr(file->name, kind) || have >= file->len)
            continue;
        AF_ASSERT(s->count < AF_ARRAY_LEN(s->parts));
        s->parts[s->count].file = file;
        s->parts[s->count].from = have;
        s->parts[s->count++].to = file->len;
        s->bytes += file->len - have;
    }
}

// Byte `at` of the stream arrives.
static void stream_byte(const struct stream *s, struct replica *r, size_t at)
{
    for (size_t i = 0; i < s->count; i++) {
        size_t len = s->parts[i].to - s->parts[i].from;

        if (at >= len) {
            at -= len;
            continue;
        }
        const struct archive_file *file = s->parts[i].file;
        replica_receive(r, file->name, s->parts[i].from + at, file->bytes + s->parts[i].from + at,
                        1);
        if (at % 64 == 63) // or the journal of the simulated disk grows without end
            replica_sync(r, file->name);
        return;
    }
}

static struct replica replica_copy(const struct replica *r)
{
    struct replica copy = *r;

    copy.sim = sim_clone(r->sim);
    return copy;
}

// The connection breaks and the replica ends; it comes back and gets the rest.
static void check_resume(struct primary *p, const struct replica *r, enum crash_kind kind,
                         uint64_t seed)
{
    struct replica copy = replica_copy(r);
    const uint64_t lsn = r->ready ? r->lsn : 0;

    crash_disk(copy.sim, kind, seed);
    assert_true(replica_restart(&copy));
    assert_true(!r->ready || (copy.ready && copy.lsn >= lsn && copy.sequence >= r->sequence));
    check_replica(p, &copy, "after a restart");
    if (kind != CRASH_KEEP_ALL && kind != CRASH_KILL) // what is left of a transfer is not trusted
        for (size_t i = 0; i < p->a.count; i++)
            replica_forget(&copy, p->a.files[i].name);
    catch_up(p, &copy);
    replica_free(&copy);
}

// Records are placed when the last of their bytes is there, and not before; then it goes on.
static void cut_at_each_byte(struct primary *p, struct replica *r, const struct stream *s,
                             unsigned stride)
{
    uint64_t before = r->lsn, changes = 0;

    for (size_t at = 0; at < s->bytes; at++) {
        stream_byte(s, r, at);
        bool placed = replica_place(r);

        assert_true(placed || r->lsn == before);
        if (placed) {
            check_replica(p, r, "cut");
            changes++;
            before = r->lsn;
        }
        if (placed || at % stride == 0)
            check_resume(p, r, (enum crash_kind)(at / stride % CRASH_KIND_COUNT), at);
    }
    print_message("%zu cuts, %llu of them moved the replica\n", s->bytes,
                  (unsigned long long)changes);
    assert_int_equal(r->lsn, p->a.lsn);
    assert_int_equal(r->sequence, p->a.sequence);
}

static void test_a_transfer_cut_at_each_byte(void **state)
{
    struct stream s = {0};
    struct primary p;
    struct replica r;

    (void)state;
    start(&p, &r, 3);
    p.large = 0;
    catch_up(&p, &r);
    work(&p, 6);
    p.large = 100;
    p.large_bytes = 66000; // just too large for a record
    while (p.a.extents == 0)
        primary_step(&p);
    p.large = 0;
    primary_checkpoint(&p);
    work(&p, 2);
    stream_add(&s, &p.a, &r, ".ext");
    stream_add(&s, &p.a, &r, ".step");
    stream_add(&s, &p.a, &r, ".seg");
    cut_at_each_byte(&p, &r, &s, env_number("RUNS", 1) == 0 ? 1 : 997);
    end(&p, &r);
}

static void test_a_base_cut_at_each_byte(void **state)
{
    struct stream s = {0};
    struct primary p;
    struct replica r;

    (void)state;
    start(&p, &r, 4);
    p.large = 0;
    work(&p, 3);
    primary_checkpoint(&p);
    archive_rebase(&p.a, &p.fx);
    stream_add(&s, &p.a, &r, ".base");
    stream_add(&s, &p.a, &r, ".ext");
    stream_add(&s, &p.a, &r, ".seg");
    cut_at_each_byte(&p, &r, &s, env_number("RUNS", 1) == 0 ? 1 : 1999);
    assert_int_equal(r.bases, 1);
    end(&p, &r);
}

// ---- crashes of the replica ----

struct crashing {
    struct primary *p;
    struct replica *r;
    struct {
        struct sim *sim;
        bool ready;
        uint64_t lsn, sequence;
    } images[600];
    size_t count, events;
    unsigned every;
};

static void note_event(void *arg, const struct sim_event *event)
{
    struct crashing *c = arg;

    (void)event;
    if (c->events++ % c->every != 0)
        return;
    AF_ASSERT(c->count < AF_ARRAY_LEN(c->images));
    c->images[c->count].sim = sim_clone(c->r->sim);
    c->images[c->count].ready = c->r->ready;
    c->images[c->count].lsn = c->r->lsn;
    c->images[c->count++].sequence = c->r->sequence;
}

static void try_images(struct crashing *c)
{
    for (size_t i = 0; i < c->count; i++) {
        for (unsigned kind = 0; kind < CRASH_KIND_COUNT; kind++) {
            struct replica back = *c->r;

            back.sim = sim_clone(c->images[i].sim);
            crash_disk(back.sim, (enum crash_kind)kind, i);
            assert_true(replica_restart(&back));
            // Nothing that was placed is gone; more may be there.
            if (c->images[i].ready) {
                if (!back.ready || back.lsn < c->images[i].lsn ||
                    back.sequence < c->images[i].sequence)
                    fail_msg("crash before event %zu, %s: %s", i * c->every,
                             crash_name((enum crash_kind)kind), back.why);
            }
            check_replica(c->p, &back, "after a crash of the replica");
            for (size_t f = 0; f < c->p->a.count; f++)
                replica_forget(&back, c->p->a.files[f].name);
            catch_up(c->p, &back);
            replica_free(&back);
        }
        sim_destroy(c->images[i].sim);
    }
    c->count = 0;
}

static void test_the_replica_may_crash_at_every_event(void **state)
{
    static struct crashing c;
    struct primary p;
    struct replica r;

    (void)state;
    start(&p, &r, 5);
    c = (struct crashing){.p = &p, .r = &r, .every = 1};
    work(&p, 3);
    sim_set_event_hook(r.sim, note_event, &c);
    catch_up(&p, &r); // the base
    try_images(&c);
    p.large = 40;
    work(&p, 4);
    primary_checkpoint(&p);
    work(&p, 3);
    primary_crash(&p, CRASH_RANDOM, 1); // and an epoch
    work(&p, 2);
    catch_up(&p, &r);
    sim_set_event_hook(r.sim, NULL, NULL);
    try_images(&c);
    print_message("%zu events of the replica\n", c.events);
    assert_true(c.events > 60);
    end(&p, &r);
}

// ---- crashes of the primary ----

// With a write on its way: it is not shipped, and whatever becomes of it, the primary comes back
// with everything that a replica has.
static void test_a_primary_that_loses_power_is_never_behind_its_replica(void **state)
{
    const struct sim_fault held = {
        .calls = SIM_BIT(SIM_START_WRITE), .times = SIM_FOREVER, .effect = SIM_FAULT_HOLD};
    const struct store_cred cred = {.uid = 1, .gid = 2};
    uint64_t beyond = 0;
    struct primary p;
    struct replica r;

    (void)state;
    start(&p, &r, 6);
    for (unsigned i = 0; i < 25; i++) {
        struct store_attr attr;
        char name[32];

        primary_step(&p);
        catch_up(&p, &r);
        (void)sim_fault_add(p.fx.sim, &held);
        (void)snprintf(name, sizeof(name), "unfinished-%u", i);
        assert_int_equal(
            store_mknod(p.fx.store, STORE_BLOCK, INO_ROOT, name, 040755, 0, &cred, &attr), 0);
        wal_kick(engine_wal(p.fx.engine), true);
        archive_update(&p.a, &p.fx);
        catch_up(&p, &r); // nothing new
        assert_int_equal(r.lsn, wal_durable_lsn(engine_wal(p.fx.engine)));
        assert_true(wal_appended_lsn(engine_wal(p.fx.engine)) > r.lsn);
        for (unsigned kind = 0; kind < CRASH_KIND_COUNT; kind++) {
            struct engine_status status;
            struct fixture back;

            fixture_adopt(&back, sim_clone(p.fx.sim), &p.fx.options);
            crash_disk(back.sim, (enum crash_kind)kind, i);
            if (fixture_open(&back) < 0)
                fail_msg("%s", back.refusal);
            engine_get_status(back.engine, &status);
            assert_true(status.recovery.last_lsn >= r.lsn);
            beyond += status.recovery.last_lsn > r.lsn;
            fixture_free(&back);
        }
        sim_faults_clear(p.fx.sim);
        sim_release_held(p.fx.sim);
        assert_int_equal(engine_sync(p.fx.engine), 0);
        primary_note(&p);
    }
    assert_true(beyond > 0); // some outcomes kept the write that was never acknowledged
    end(&p, &r);
}

// ---- order ----

static void test_resent_reordered_and_older_files_change_nothing(void **state)
{
    struct primary p;
    struct replica r;

    (void)state;
    start(&p, &r, 7);
    p.large = 0;
    catch_up(&p, &r);
    work(&p, 60);
    assert_true(p.a.count > 4);
    // Newest first, each once more, and cut copies behind whole ones.
    for (size_t i = p.a.count; i > 0; i--) {
        const struct archive_file *file = &p.a.files[i - 1];

        replica_forget(&r, file->name);
        replica_receive(&r, file->name, 0, file->bytes, file->len);
        replica_receive(&r, file->name, 0, file->bytes, file->len);
        (void)replica_place(&r);
        check_replica(&p, &r, "reordered");
    }
    assert_int_equal(r.lsn, p.a.lsn);
    for (size_t i = 0; i < p.a.count; i++) {
        const struct archive_file *file = &p.a.files[i];

        replica_forget(&r, file->name);
        replica_receive(&r, file->name, 0, file->bytes, file->len / 2);
        assert_false(replica_place(&r));
        assert_int_equal(r.lsn, p.a.lsn);
    }
    work(&p, 3);
    catch_up(&p, &r);
    end(&p, &r);
}

static void test_a_gap_is_not_placed(void **state)
{
    struct primary p;
    struct replica r;
    uint64_t before;

    (void)state;
    start(&p, &r, 8);
    p.large = 0;
    catch_up(&p, &r);
    before = r.lsn;
    const uint64_t segment = r.segment ? r.segment : 1;
    while (p.a.count < 9)
        primary_step(&p);
    // Everything but the segment in which the next record stands.
    for (size_t i = 0; i < p.a.count; i++) {
        const struct archive_file *file = &p.a.files[i];
        uint64_t number;

        if (!wal_segment_number(file->name, &number) || number > segment)
            replica_receive(&r, file->name, 0, file->bytes, file->len);
    }
    assert_false(replica_place(&r));
    assert_int_equal(r.lsn, before);
    assert_int_equal(r.wait, REPLICA_WAITS_RECORD);
    // Without the blocks that a record names it is not placed either, nor without a checkpoint.
    catch_up(&p, &r);
    p.large = 100;
    primary_step(&p);
    primary_step(&p);
    for (size_t i = 0; i < p.a.count; i++) {
        const struct archive_file *file = &p.a.files[i];

        if (strstr(file->name, ".seg"))
            replica_receive(&r, file->name, 0, file->bytes, file->len);
    }
    (void)replica_place(&r);
    assert_true(r.lsn < p.a.lsn);
    assert_int_equal(r.wait, REPLICA_WAITS_BLOCKS);
    check_replica(&p, &r, "without blocks");
    catch_up(&p, &r);
    primary_checkpoint(&p);
    work(&p, 2);
    for (size_t i = 0; i < p.a.count; i++)
        if (!strstr(p.a.files[i].name, ".step"))
            replica_receive(&r, p.a.files[i].name, 0, p.a.files[i].bytes, p.a.files[i].len);
    (void)replica_place(&r);
    assert_int_equal(r.wait, REPLICA_WAITS_CHECKPOINT);
    check_replica(&p, &r, "without a checkpoint");
    catch_up(&p, &r);
    end(&p, &r);
}

// ---- damage ----

// A file of the archive arrives with one bit wrong. Whatever is placed of it is right.
static void send_damaged(struct replica *r, const struct archive_file *file, size_t at)
{
    uint8_t *bytes = malloc(file->len);

    AF_ASSERT(bytes);
    memcpy(bytes, file->bytes, file->len);
    bytes[at] ^= (uint8_t)(1u << at % 8);
    replica_forget(r, file->name);
    replica_receive(r, file->name, 0, bytes, file->len);
    free(bytes);
}

static void test_damaged_files_are_not_placed(void **state)
{
    uint64_t stopped = 0, tried = 0;
    struct primary p;
    struct replica r;

    (void)state;
    start(&p, &r, 9);
    p.large = 30;
    catch_up(&p, &r);
    work(&p, 6);
    primary_checkpoint(&p);
    work(&p, 4);
    for (size_t i = 0; i < p.a.count; i++) {
        const struct archive_file *file = &p.a.files[i];
        size_t have = (size_t)replica_received(&r, file->name);

        for (unsigned n = 0; n < 40 && have < file->len; n++, tried++) {
            struct replica copy = replica_copy(&r);

            send_damaged(&copy, file, have + rng_below(&p.r, file->len - have));
            send_all(&p, &copy); // the others whole
            (void)replica_place(&copy);
            check_replica(&p, &copy, "damaged");
            stopped += copy.lsn < p.a.lsn;
            // The right bytes come: it goes on.
            replica_forget(&copy, file->name);
            if (!copy.ready)
                copy.wait = REPLICA_WAITS_BASE;
            catch_up(&p, &copy);
            replica_free(&copy);
        }
    }
    print_message("%llu damaged files, %llu stopped the replica\n", (unsigned long long)tried,
                  (unsigned long long)stopped);
    assert_true(tried > 100 && stopped > tried / 2);
    end(&p, &r);
}

static void test_a_damaged_base_is_not_used(void **state)
{
    uint64_t refused = 0;
    struct primary p;
    struct replica r;

    (void)state;
    start(&p, &r, 10);
    work(&p, 5);
    primary_checkpoint(&p);
    archive_rebase(&p.a, &p.fx);
    for (unsigned n = 0; n < 150; n++) {
        struct replica copy = replica_copy(&r);

        send_damaged(&copy, &p.a.files[0], rng_below(&p.r, p.a.files[0].len));
        (void)replica_place(&copy);
        refused += !copy.ready;
        check_replica(&p, &copy, "damaged base"); // what does not matter may be wrong
        if (!copy.ready) {
            replica_forget(&copy, p.a.files[0].name);
            replica_discard(&copy);
        }
        catch_up(&p, &copy);
        replica_free(&copy);
    }
    assert_true(refused > 100);
    end(&p, &r);
}

static void test_files_of_another_store_or_history_are_refused(void **state)
{
    struct primary p, other;
    struct replica r;

    (void)state;
    start(&p, &r, 11);
    primary_init(&other, 1234);
    catch_up(&p, &r);
    work(&p, 3);
    work(&other, 3);
    primary_checkpoint(&other);
    uint64_t before = r.lsn;
    for (size_t i = 0; i < other.a.count; i++)
        replica_forget(&r, other.a.files[i].name);
    send_all(&other, &r);
    (void)replica_place(&r);
    assert_int_equal(r.lsn, before);
    assert_int_equal(r.wait, REPLICA_REFUSES);
    for (size_t i = 0; i < other.a.count; i++)
        replica_forget(&r, other.a.files[i].name);
    catch_up(&p, &r);
    primary_free(&other);

    // The replica goes on by itself: it is a primary then, in an epoch of its own, and the old
    // one's records are none of its history any more.
    struct replica own = replica_copy(&r);
    struct fixture fx;
    struct canon c = {0};
    fixture_adopt(&fx, own.sim, &p.fx.options);
    assert_int_equal(fixture_open(&fx), 0);
    char where[CANON_WHERE_BYTES], text[300];
    assert_int_equal(canon_store(fx.store, &c, where), 0);
    assert_true(c.hash == p.hash[p.states - 1]);
    canon_free(&c);
    assert_int_equal(fixture_close(&fx), 0);
    assert_int_equal(verify_text(fx.sim, text, sizeof(text)), 0);
    assert_true(replica_restart(&own));
    assert_int_equal(own.log.epoch, r.log.epoch + 1);
    before = own.lsn;
    work(&p, 3);
    send_all(&p, &own);
    assert_false(replica_place(&own));
    assert_int_equal(own.lsn, before);
    replica_free(&own);
    end(&p, &r);
}

// ---- gaps in time ----

// Files are copied every few hours. Nothing waits for that: the primary checkpoints, trims and
// recycles as ever.
static void test_files_copied_after_hours(void **state)
{
    struct primary p;
    struct replica r;

    (void)state;
    start(&p, &r, 12);
    catch_up(&p, &r);
    for (unsigned day = 0; day < 5; day++) {
        for (unsigned hour = 0; hour < 24; hour++) {
            primary_step(&p);
            sim_advance_ms(p.fx.sim, 3600000);
            engine_tick(p.fx.engine);
            primary_note(&p);
        }
        // One file a time, whole, with the replica turned off in between.
        for (size_t i = 0; i < p.a.count; i++) {
            const struct archive_file *file = &p.a.files[i];

            replica_forget(&r, file->name);
            replica_receive(&r, file->name, 0, file->bytes, file->len);
            crash_disk(r.sim, CRASH_KILL, day);
            assert_true(replica_restart(&r));
            (void)replica_place(&r);
            check_replica(&p, &r, "copied");
        }
        catch_up(&p, &r);
    }
    assert_int_equal(r.bases, 1);
    end(&p, &r);
}

// No replica and no archive: the primary acknowledges and trims as it always does. One that comes
// back behind the trim is told so, and starts again from a new base.
static void test_a_primary_does_not_wait_and_a_late_replica_starts_again(void **state)
{
    struct primary p;
    struct replica r;
    struct wal_stats stats;

    (void)state;
    start(&p, &r, 13);
    work(&p, 5);
    catch_up(&p, &r);
    sim_set_event_hook(p.fx.sim, NULL, NULL);
    p.alone = true;
    for (unsigned i = 0; i < 150; i++) {
        primary_step(&p);
        wal_get_stats(engine_wal(p.fx.engine), &stats);
        assert_true(stats.log_bytes <= stats.log_bytes_max);
    }
    assert_true(stats.first_segment > r.segment + 1); // trimmed behind the replica
    p.alone = false;
    archive_watch(&p.a, p.fx.sim);
    archive_update(&p.a, &p.fx);
    assert_true(p.a.behind);
    assert_true(p.a.why[0] != 0);
    uint64_t before = r.lsn;
    send_all(&p, &r);
    (void)replica_place(&r);
    assert_int_equal(r.lsn, before);
    archive_rebase(&p.a, &p.fx);
    assert_false(p.a.behind);
    // The new files alone do not fit the old base.
    send_all(&p, &r);
    (void)replica_place(&r);
    assert_int_equal(r.lsn, before);
    replica_discard(&r);
    catch_up(&p, &r);
    assert_int_equal(r.bases, 2);
    work(&p, 5);
    catch_up(&p, &r);
    end(&p, &r);
}

// ---- everything at once ----

static void random_transfer(struct primary *p, struct replica *r)
{
    if (p->a.count == 0)
        return;
    const struct archive_file *file = &p->a.files[rng_below(&p->r, p->a.count)];
    uint64_t have = replica_received(r, file->name);

    if (have > file->len || rng_chance(&p->r, 10)) { // from the start again
        replica_forget(r, file->name);
        have = 0;
    }
    if (rng_chance(&p->r, 10) && have > 0) // what is there already
        have = rng_below(&p->r, have);
    uint64_t len = file->len - have;
    if (rng_chance(&p->r, 50))
        len = rng_below(&p->r, len + 1);
    replica_receive(r, file->name, have, file->bytes + have, len);
}

static void replica_crash(struct primary *p, struct replica *r)
{
    enum crash_kind kind = (enum crash_kind)rng_below(&p->r, CRASH_KIND_COUNT);
    const bool ready = r->ready;
    const uint64_t lsn = r->lsn;

    crash_disk(r->sim, kind, rng_next(&p->r));
    assert_true(replica_restart(r));
    assert_true(!ready || (r->ready && r->lsn >= lsn));
    // What had arrived may be garbage now, and is sent again.
    for (size_t i = 0; i < p->a.count; i++)
        replica_forget(r, p->a.files[i].name);
}

static void walk(uint64_t seed)
{
    struct primary p;
    struct replica r;

    start(&p, &r, seed);
    for (unsigned i = 0; i < 150; i++) {
        switch (rng_below(&p.r, 12)) {
        case 0:
        case 1:
        case 2:
            primary_step(&p);
            break;
        case 3:
            if (rng_chance(&p.r, 40))
                primary_checkpoint(&p);
            break;
        case 4:
            replica_crash(&p, &r);
            break;
        case 5:
            if (rng_chance(&p.r, 30))
                primary_crash(&p, (enum crash_kind)rng_below(&p.r, CRASH_KIND_COUNT), i);
            else if (rng_chance(&p.r, 10))
                primary_reopen(&p);
            break;
        default:
            random_transfer(&p, &r);
            (void)replica_place(&r);
        }
        check_replica(&p, &r, "in the walk");
    }
    for (size_t i = 0; i < p.a.count; i++)
        replica_forget(&r, p.a.files[i].name);
    assert_false(p.a.behind);
    catch_up(&p, &r);
    end(&p, &r);
}

static void test_transfers_and_crashes_of_either_side_in_any_order(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 12);

    (void)state;
    for (uint64_t s = seed; s < seed + runs; s++) {
        print_message("walk %llu (SEED=%llu RUNS=1 repeats it)\n", (unsigned long long)s,
                      (unsigned long long)s);
        walk(s + 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_replica_follows_every_step),
        cmocka_unit_test(test_a_replica_follows_into_the_next_epochs),
        cmocka_unit_test(test_a_transfer_cut_at_each_byte),
        cmocka_unit_test(test_a_base_cut_at_each_byte),
        cmocka_unit_test(test_the_replica_may_crash_at_every_event),
        cmocka_unit_test(test_a_primary_that_loses_power_is_never_behind_its_replica),
        cmocka_unit_test(test_resent_reordered_and_older_files_change_nothing),
        cmocka_unit_test(test_a_gap_is_not_placed),
        cmocka_unit_test(test_damaged_files_are_not_placed),
        cmocka_unit_test(test_a_damaged_base_is_not_used),
        cmocka_unit_test(test_files_of_another_store_or_history_are_refused),
        cmocka_unit_test(test_files_copied_after_hours),
        cmocka_unit_test(test_a_primary_does_not_wait_and_a_late_replica_starts_again),
        cmocka_unit_test(test_transfers_and_crashes_of_either_side_in_any_order),
    };

    return cmocka_run_group_tests_name("replica", tests, NULL, NULL);
}
