// SPDX-License-Identifier: MIT
// The choice of the checkpoint, as a table: every state of the two superblock slots against every
// state of the log. A valid newest slot is taken; an older one only when its log is complete and
// nothing says that a newer one was published; else the store is refused, with the reason, and
// nothing on the disk has changed. What opens has everything that was acknowledged.
#include "tests/unit/test_engine_rig.h"

#include "checkpoint/superblock_format.h"
#include "wal/wal.h"

#define FILE_BYTES 20000u

enum log_state {
    LOG_BEFORE_MARKER, // the newest superblock is durable, its marker is not
    LOG_MARKER,        // it is; the log of the older superblock is still there
    LOG_TRIMMED,       // … and has been recycled
    LOG_FUTURE,        // the marker of a superblock that neither slot holds
    LOG_STATES
};
enum slot_state {
    SLOT_VALID,
    SLOT_TORN,    // half of it is what was there before
    SLOT_CORRUPT, // one bit
    SLOT_ZERO,
    SLOT_LOST, // its last write never came: what was there before
    SLOT_STATES
};
static const char *const log_names[] = {"before the marker", "marker durable", "log trimmed",
                                        "marker of the future"};
static const char *const slot_names[] = {"valid", "torn", "corrupt", "zeros", "lost write"};

struct moment { // a disk after a power cut
    struct sim *sim;
    unsigned files; // acknowledged before
};

struct table {
    struct world *w;
    unsigned files;
    bool synced; // the superblock, by the checkpoint that the hook watches
    struct moment moments[LOG_STATES];
    unsigned newest; // slot
    uint8_t now[2][SUPERBLOCK_SLOT_BYTES], before[2][SUPERBLOCK_SLOT_BYTES];
};

static void file_name(unsigned i, char name[16])
{
    snprintf(name, 16, "f%u", i);
}

static void put_files(struct table *t, unsigned count)
{
    char name[16];

    for (unsigned i = 0; i < count; i++) {
        file_name(t->files, name);
        must_put(t->w, name, t->files, FILE_BYTES);
        t->files++;
    }
}

static void take(struct table *t, enum log_state state)
{
    struct moment *m = &t->moments[state];

    m->sim = sim_clone(t->w->sim);
    m->files = t->files;
    sim_power_cut(m->sim, SIM_CUT_DROP_ALL, 1);
}

// The first write to the log behind the sync of the superblock is the marker's.
static void watch(void *arg, const struct sim_event *event)
{
    struct table *t = arg;

    if (event->call == SIM_SYNC && strcmp(event->path, "superblock") == 0)
        t->synced = true;
    else if (t->synced && event->call == SIM_START_WRITE && !t->moments[LOG_BEFORE_MARKER].sim)
        take(t, LOG_BEFORE_MARKER);
}

static void read_slots(struct table *t, uint8_t to[2][SUPERBLOCK_SLOT_BYTES])
{
    for (uint64_t i = 0; i < 2; i++)
        assert_int_equal(sim_read_raw(t->w->sim, "superblock", i * SUPERBLOCK_SLOT_BYTES, to[i],
                                      SUPERBLOCK_SLOT_BYTES),
                         0);
}

// The segment in which the log of the older superblock starts is gone, by a name that was given to
// another one, or by hand.
static void trim(const struct table *t)
{
    struct superblock_slots slots;
    char path[32];

    assert_int_equal(superblock_load(sim_io(t->moments[LOG_TRIMMED].sim), &slots), 0);
    wal_segment_path(slots.sb[1 - slots.chosen].log.log_segment, path);
    superblock_slots_free(&slots);
    int err = sim_remove_raw(t->moments[LOG_TRIMMED].sim, path);
    assert_true(err == 0 || err == -ENOENT);
}

static void fill(struct table *t)
{
    struct superblock_slots slots;

    t->w = world_create();
    must_open(t->w);
    for (unsigned i = 0; i < 3; i++) {
        put_files(t, 3);
        assert_int_equal(engine_checkpoint(t->w->engine), 0);
    }
    put_files(t, 25);
    read_slots(t, t->before);
    sim_set_event_hook(t->w->sim, watch, t);
    assert_int_equal(engine_checkpoint(t->w->engine), 0);
    sim_set_event_hook(t->w->sim, NULL, NULL);
    assert_non_null(t->moments[LOG_BEFORE_MARKER].sim);
    read_slots(t, t->now);
    assert_int_equal(superblock_load(sim_io(t->w->sim), &slots), 0);
    t->newest = (unsigned)slots.chosen;
    superblock_slots_free(&slots);
    put_files(t, 1);
    take(t, LOG_MARKER);
    put_files(t, 25);
    take(t, LOG_TRIMMED);
    trim(t);
    assert_int_equal(engine_checkpoint(t->w->engine), 0);
    put_files(t, 1);
    take(t, LOG_FUTURE);
}

static void set_slot(struct table *t, struct sim *sim, unsigned slot, enum slot_state state)
{
    static uint8_t bytes[SUPERBLOCK_SLOT_BYTES];

    memcpy(bytes, t->now[slot], sizeof(bytes));
    // Of the newest slot, what was there is the superblock before the last one; of the other, which
    // was not written again, nothing but zeros.
    if (state == SLOT_TORN && slot == t->newest)
        memcpy(bytes + 256, t->before[slot] + 256, sizeof(bytes) - 256);
    else if (state == SLOT_TORN)
        memset(bytes + 256, 0, sizeof(bytes) - 256);
    else if (state == SLOT_CORRUPT)
        bytes[130] ^= 4;
    else if (state == SLOT_ZERO)
        memset(bytes, 0, sizeof(bytes));
    else if (state == SLOT_LOST)
        memcpy(bytes, t->before[slot], sizeof(bytes));
    assert_int_equal(sim_write_raw(sim, "superblock", slot * (uint64_t)SUPERBLOCK_SLOT_BYTES, bytes,
                                   sizeof(bytes)),
                     0);
}

// The rule, in the words of docs/FORMAT.md.
static int rule(enum log_state log, enum slot_state newest, enum slot_state older)
{
    bool other = older == SLOT_VALID;  // a valid older one, of the checkpoint before
    bool oldest = newest == SLOT_LOST; // or of the one before that

    if (newest != SLOT_VALID && !other && !oldest)
        return -AF_E_SB_NONE;
    if (log == LOG_FUTURE)
        return -AF_E_SB_STALE;
    if (newest == SLOT_VALID)
        return 0;
    return log == LOG_BEFORE_MARKER && other ? 0 : -AF_E_SB_STALE;
}

static void check_files(struct world *w, unsigned files, const char *what)
{
    char name[16];

    for (unsigned i = 0; i < files; i++) {
        file_name(i, name);
        if (!has(w->engine, name, i, FILE_BYTES))
            fail_msg("%s: %s was acknowledged and is missing", what, name);
    }
}

static int try(struct table *t, enum log_state log, enum slot_state newest, enum slot_state older)
{
    const struct moment *m = &t->moments[log];
    const int expected = rule(log, newest, older);
    char what[128];
    struct world w;

    snprintf(what, sizeof(what), "%s, newest slot %s, older slot %s", log_names[log],
             slot_names[newest], slot_names[older]);
    world_init(&w, sim_clone(m->sim));
    set_slot(t, w.sim, t->newest, newest);
    set_slot(t, w.sim, 1 - t->newest, older);
    uint64_t before = sim_hash(w.sim);
    int err = world_open(&w);
    if (err != expected)
        fail_msg("%s: %s instead of %s: %s", what, err_name(err), err_name(expected), w.message);
    if (err == 0)
        check_files(&w, m->files, what);
    else if (sim_hash(w.sim) != before || !strstr(w.message, "superblock") ||
             !strstr(w.message, "nothing was changed"))
        fail_msg("%s: refused badly: %s", what, w.message);
    if (err == 0)
        engine_abandon(w.engine);
    sim_destroy(w.sim);
    return err;
}

static void test_the_choice_of_the_checkpoint(void **state)
{
    struct table *t = calloc(1, sizeof(*t));
    unsigned opened = 0, stale = 0, none = 0;

    (void)state;
    assert_non_null(t);
    fill(t);
    for (unsigned log = 0; log < LOG_STATES; log++)
        for (unsigned newest = 0; newest < SLOT_STATES; newest++)
            for (unsigned older = 0; older < SLOT_LOST; older++) {
                int err =
                    try(t, (enum log_state)log, (enum slot_state)newest, (enum slot_state)older);

                opened += err == 0;
                stale += err == -AF_E_SB_STALE;
                none += err == -AF_E_SB_NONE;
            }
    printf("  %u combinations open, %u are refused as stale, %u as without a superblock\n", opened,
           stale, none);
    assert_true(opened >= 14 && stale >= 15 && none >= 20);
    for (unsigned log = 0; log < LOG_STATES; log++)
        sim_destroy(t->moments[log].sim);
    world_destroy(t->w);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_choice_of_the_checkpoint),
    };

    return cmocka_run_group_tests_name("slots", tests, NULL, NULL);
}
