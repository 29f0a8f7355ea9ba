// SPDX-License-Identifier: MIT
// Every call of the disk fails once, with each error, in scenes that are small enough for all of
// them: creation, opening after a crash, work, verification, dump, scrub.
//
// Demanded is, of each failure, that it is told: its name stands in a message, whatever the call
// returns (of a command, what it returns is enough); the calls at which that is not wanted are
// listed below with the reason. That it is harmless: afterwards the store opens, is sound and holds
// what was acknowledged. And that it is always the same: codes and messages, however often.
//
//   REPEAT=n  repetitions for the last (100)
#include "tests/unit/test_engine_rig.h"

#include "checkpoint/dump.h"
#include "checkpoint/rescue.h"
#include "tests/lib/rng.h"

static const int errors[] = {EIO, ENOSPC, EDQUOT, EACCES, EROFS, EINTR, EAGAIN, ENOMEM};

// ---- scenes ----

// What a scene has come to: the first error, and what it has promised.
struct outcome {
    int err;
    bool acked; // "new" is durable
};

struct scene {
    const char *name;
    struct sim *(*prepare)(void);
    void (*run)(struct world *w, struct outcome *o);
    bool has_old; // a store with "old" in it is there from the start
    bool command; // whoever calls it prints the error that it returns
    bool rescue;  // reads past what it cannot read, and lists what is missing by name and place
};

static void note(struct outcome *o, int err)
{
    if (o->err == 0 && err < 0)
        o->err = err;
}

static struct sim *prepare_nothing(void)
{
    return sim_create(7);
}

// A creation that was interrupted shortly before its end.
static struct sim *prepare_half(void)
{
    struct world w;

    world_init(&w, sim_create(7));
    sim_crash_at(w.sim, 16, SIM_CRASH_AFTER);
    assert_true(engine_create(sim_io(w.sim), &w.options, &cred) < 0);
    sim_power_cut(w.sim, SIM_CUT_KEEP_ALL, 1);
    return w.sim;
}

static int put_numbered(struct world *w, const char *name, unsigned number, size_t size)
{
    char full[NAME_BYTES_MAX];

    // Long names, so that a directory has several leaves.
    snprintf(full, sizeof(full), "%s%u-%0200u", name, number, number);
    return put(w->engine, full, number, size);
}

// Left by a crash, with a log to replay and a torn tail; the log has rolled, so that old segments
// lie about.
static struct sim *prepare_crashed(void)
{
    struct world *w = world_create();
    struct sim *sim = w->sim;

    must_open(w);
    must_put(w, "old", 1, 70000);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(put_numbered(w, "many", i, 9000), 0);
    assert_int_equal(store_snapshot_create(engine_store(w->engine), STORE_BLOCK, "kept"), 0);
    assert_int_equal(put_numbered(w, "many", 40, 9000), 0);
    assert_int_equal(engine_checkpoint(w->engine), 0);
    must_put(w, "small", 1, 3000);
    must_put(w, "large", 1, 30000);
    sim_crash_at(sim, sim_event_count(sim) + 3, SIM_CRASH_PARTIAL);
    (void)put(w->engine, "torn", 1, 3000);
    world_crash(w, true, SIM_CUT_KEEP_ALL, 3);
    free(w);
    return sim;
}

// The same without the standby segments, which recovery then makes of old ones.
static struct sim *prepare_short(void)
{
    struct sim *sim = prepare_crashed();
    uint64_t highest = 0;
    char path[32];

    for (uint64_t i = 1; i < 64; i++) {
        wal_segment_path(i, path);
        highest = sim_exists(sim, path) ? i : highest;
    }
    wal_segment_path(highest, path);
    assert_int_equal(sim_truncate_raw(sim, path, 4096), 0);
    return sim;
}

static struct sim *prepare_clean(void)
{
    struct world w;

    world_init(&w, prepare_crashed());
    must_open(&w);
    must_close(&w);
    return w.sim;
}

static void run_create(struct world *w, struct outcome *o)
{
    note(o, engine_create(sim_io(w->sim), &w->options, &cred));
}

static void end(struct world *w, struct outcome *o)
{
    if (!w->engine)
        return;
    note(o, engine_close(w->engine));
    w->engine = NULL;
}

static bool begin(struct world *w, struct outcome *o)
{
    int err = world_open(w);

    note(o, err);
    if (err < 0)
        w->engine = NULL;
    return err == 0;
}

static void run_open(struct world *w, struct outcome *o)
{
    if (begin(w, o))
        end(w, o);
}

static void run_open_read_only(struct world *w, struct outcome *o)
{
    sim_io(w->sim)->read_only = true;
    if (begin(w, o))
        end(w, o);
    sim_io(w->sim)->read_only = false;
}

static int note_entry(void *arg, const char *name, size_t name_len, uint64_t ino, uint32_t mode,
                      const struct store_attr *attr, uint64_t next_cookie)
{
    (void)name, (void)name_len, (void)ino, (void)mode, (void)attr;
    *(uint64_t *)arg = next_cookie;
    return 0;
}

static int list_all(struct engine *e)
{
    uint64_t cookie = 0;

    return store_readdir(engine_store(e), STORE_BLOCK, INO_ROOT, 0, true, note_entry, &cookie);
}

static int read_all(struct engine *e, const char *name)
{
    static uint8_t bytes[CONTENT_MAX];
    struct store_attr attr;
    size_t got;
    int err = store_lookup(engine_store(e), STORE_BLOCK, INO_ROOT, name, &attr);

    return err < 0
               ? err
               : store_read(engine_store(e), STORE_BLOCK, attr.ino, 0, bytes, sizeof(bytes), &got);
}

static void run_work(struct world *w, struct outcome *o)
{
    struct store_statfs space;

    if (!begin(w, o))
        return;
    note(o, store_statfs(engine_store(w->engine), &space));
    note(o, list_all(w->engine));
    note(o, read_all(w->engine, "old"));
    int err = put(w->engine, "new", 5, 200000);
    note(o, err);
    o->acked = err == 0;
    note(o, store_unlink(engine_store(w->engine), STORE_BLOCK, INO_ROOT, "small"));
    note(o, store_snapshot_create(engine_store(w->engine), STORE_BLOCK, "taken"));
    note(o, store_snapshot_delete(engine_store(w->engine), STORE_BLOCK, "kept"));
    note(o, engine_checkpoint(w->engine));
    for (unsigned i = 0; i < 6; i++)
        engine_tick(w->engine); // which gives the space of the snapshot back
    for (unsigned i = 0; i < 12; i++)
        note(o, put_numbered(w, "more", i, 9000));
    note(o, engine_checkpoint(w->engine));
    end(w, o);
}

static void run_verify(struct world *w, struct outcome *o)
{
    struct findings all = {0};
    struct verify_options options = {.finding = note_finding, .arg = &all};
    struct verify_result result;
    int err = verify_image(sim_io(w->sim), &options, &result);

    note(o, err);
    if (err == 0 && result.damage > 0)
        note(o, result.first_code);
    snprintf(w->message, sizeof(w->message), "%.500s", all.text);
}

static int injected; // the error that is looked for

static int note_line(void *arg, const char *line)
{
    if (injected && strstr(line, err_name(injected)))
        note_message(arg, MESSAGE_ERROR, line);
    return 0;
}

static void run_dump(struct world *w, struct outcome *o)
{
    const struct dump_options options = {.parts =
                                             DUMP_SUPERBLOCKS | DUMP_TREE | DUMP_NODES | DUMP_SPACE,
                                         .line = note_line,
                                         .arg = w};

    note(o, dump_store(sim_io(w->sim), &options));
}

static void run_scrub(struct world *w, struct outcome *o)
{
    struct engine_scrub scrub;

    if (!begin(w, o))
        return;
    note(o, engine_scrub(w->engine, 0));
    engine_get_scrub(w->engine, &scrub);
    note(o, scrub.result);
    end(w, o);
}

static void note_given_up(void *arg, const char *text)
{
    note_message(arg, MESSAGE_WARNING, text);
}

// `off` of `path` is damaged meanwhile.
static void rescue_without(struct world *w, struct outcome *o, const char *path, uint64_t off,
                           uint64_t off2)
{
    const struct rescue_options options = {.note = note_given_up, .arg = w};
    struct examination x;
    struct rescue r;

    assert_int_equal(sim_flip_bits(w->sim, path, off, 255), 0);
    assert_int_equal(sim_flip_bits(w->sim, path, off2, 255), 0);
    sim_io(w->sim)->read_only = true;
    (void)!examine_load(&x, sim_io(w->sim));
    note(o, rescue_open(&r, sim_io(w->sim), &x, &options));
    rescue_close(&r);
    examine_free(&x);
    sim_io(w->sim)->read_only = false;
    assert_int_equal(sim_flip_bits(w->sim, path, off, 255), 0);
    assert_int_equal(sim_flip_bits(w->sim, path, off2, 255), 0);
}

static void run_rescue_root(struct world *w, struct outcome *o)
{
    struct superblock_slots slots;
    int err = superblock_load(sim_io(w->sim), &slots);

    note(o, err);
    if (err == 0 && slots.chosen >= 0) {
        uint64_t root = slots.sb[slots.chosen].image.root.ref.address * BLOCK_BYTES;

        rescue_without(w, o, "data", root + 100, root + 200);
    }
    if (err == 0)
        superblock_slots_free(&slots);
}

static void run_rescue_superblock(struct world *w, struct outcome *o)
{
    rescue_without(w, o, SUPERBLOCK_FILE, 100, 65536 + 100);
}

static void note_changed(void *arg, uint64_t ino, const char *name, size_t name_len)
{
    (void)arg, (void)ino, (void)name, (void)name_len;
}

static void run_rollback(struct world *w, struct outcome *o)
{
    if (!begin(w, o))
        return;
    note(o, put_numbered(w, "more", 1, 9000));
    note(o, store_snapshot_rollback(engine_store(w->engine), STORE_BLOCK, "kept", "before",
                                    note_changed, NULL));
    end(w, o);
}

static const struct scene scenes[] = {
    {"creation", prepare_nothing, run_create, false, false, false},
    {"opening of nothing", prepare_nothing, run_open, false, false, false},
    {"creation over the remains of one", prepare_half, run_create, false, false, false},
    {"recovery", prepare_crashed, run_open, true, false, false},
    {"recovery that recycles segments", prepare_short, run_open, true, false, false},
    {"opening on a read-only disk", prepare_clean, run_open_read_only, true, false, false},
    {"work", prepare_clean, run_work, true, false, false},
    {"verification", prepare_crashed, run_verify, true, true, false},
    {"dump", prepare_clean, run_dump, true, true, false},
    {"scrub", prepare_clean, run_scrub, true, false, false},
    {"going back to a snapshot", prepare_clean, run_rollback, true, false, false},
    {"rescue without the root", prepare_crashed, run_rescue_root, true, true, true},
    {"rescue without a superblock", prepare_crashed, run_rescue_superblock, true, true, true},
};

// Where a failure is told to nobody, and why that is right.
static const struct {
    const char *file, *call;
    int error; // 0: any
    const char *reason;
} silent[] = {
    {"store/space.c", "allocate", ENOSPC,
     "data is extended by less; when it cannot be at all, the writer gets ENOSPC"},
    {"store/space.c", "allocate", EDQUOT, "the same"},
    {"checkpoint/engine.c", "open IO_WRITE", EROFS,
     "the disk is read-only, which the status says; changes get EROFS"},
    {"store/spill.c", "start_writeback", 0, "a hint that promises nothing"},
    {"store/reclaim.c", "read", ENOMEM, "begun anew; any other error is told and ends it"},
    {"store/store.c", "read", 0,
     "what is read ahead and does not come is read again by whoever needs it, and told then"},
};

static bool may_be_silent(const char *site, int error)
{
    for (size_t i = 0; site && i < AF_ARRAY_LEN(silent); i++)
        if (strncmp(site, silent[i].file, strlen(silent[i].file)) == 0 &&
            strstr(site, silent[i].call) && (silent[i].error == 0 || silent[i].error == error))
            return true;
    return false;
}

// ---- one failure ----

struct failure { // what it looked like
    const char *site;
    int err;
    uint64_t messages; // hash
    bool told;
};

static uint64_t hash_of(const char *text, uint64_t sum)
{
    for (; *text; text++)
        sum = (sum ^ (uint8_t)*text) * UINT64_C(0x100000001B3);
    return sum;
}

static bool is_named(const struct world *w, int error)
{
    return strstr(w->message, err_name(error)) || strstr(w->log, err_name(error)) ||
           strstr(w->message, err_text(error)) || strstr(w->log, err_text(error));
}

static void check_harmless(const struct scene *scene, struct world *w, const struct outcome *o,
                           uint64_t nth)
{
    world_crash(w, nth % 2, nth % 4 == 1 ? SIM_CUT_DROP_ALL : SIM_CUT_RANDOM, nth);
    if (!scene->has_old && world_open(w) < 0) {
        w->engine = NULL;
        assert_int_equal(engine_create(sim_io(w->sim), &w->options, &cred), 0);
    }
    if (!w->engine)
        must_open(w);
    if (scene->has_old)
        assert_true(has(w->engine, "old", 1, 70000));
    if (o->acked) // else the end of the failed call may have left it in part
        assert_true(has(w->engine, "new", 5, 200000));
    must_close(w);
    must_be_sound(w);
}

// `times` calls from the nth on fail with `error`. False: there are not so many.
static bool fail_at(const struct scene *scene, const struct sim *base, uint64_t nth, uint64_t times,
                    int error, bool check, struct failure *ret)
{
    const struct sim_fault fault = {.calls = UINT32_MAX,
                                    .skip = nth,
                                    .times = times,
                                    .effect = SIM_FAULT_FAIL,
                                    .error = -error};
    struct outcome o = {0};
    struct world w;

    world_init(&w, sim_clone(base));
    unsigned number = sim_fault_add(w.sim, &fault);
    injected = error;
    scene->run(&w, &o);
    bool hit = sim_fault_hits(w.sim, number) > 0;
    *ret = (struct failure){
        .site = sim_fault_site(w.sim, number),
        .err = o.err,
        .messages = hash_of(w.log, hash_of(o.err < 0 ? w.message : "", 1)),
        .told = is_named(&w, error) || (scene->command && err_to_errno(o.err) == error),
    };
    sim_faults_clear(w.sim);
    if (scene->rescue)
        assert_true(sim_hash(w.sim) == sim_hash(base));
    else if (check)
        check_harmless(scene, &w, &o, nth);
    sim_destroy(w.sim);
    return hit;
}

// ---- all of them ----

static uint64_t fail_scene(const struct scene *scene, uint64_t times, size_t error_count)
{
    struct sim *base = scene->prepare();
    uint64_t calls = 0, failures = 0, untold = 0;
    struct failure f;

    for (size_t e = 0; e < (scene->rescue ? 1 : error_count); e++) {
        for (calls = 0; fail_at(scene, base, calls, times, errors[e], true, &f); calls++) {
            failures++;
            if (f.told || scene->rescue || may_be_silent(f.site, errors[e]))
                continue;
            untold++;
            print_error("%s: %s at call %llu (%s) is told to nobody; the scene says %s\n",
                        scene->name, err_name(errors[e]), (unsigned long long)calls,
                        f.site ? f.site : "?", err_name(f.err));
        }
    }
    printf("  %-36s %4llu calls, %llu failures of %llu in a row\n", scene->name,
           (unsigned long long)calls, (unsigned long long)failures, (unsigned long long)times);
    sim_destroy(base);
    return untold;
}

static void test_every_call_fails_with_every_error(void **state)
{
    uint64_t untold = 0;

    (void)state;
    for (size_t s = 0; s < AF_ARRAY_LEN(scenes); s++) {
        untold += fail_scene(&scenes[s], 1, AF_ARRAY_LEN(errors));
        untold += fail_scene(&scenes[s], 2, 1);
    }
    assert_int_equal(untold, 0);
}

// At each call site once, as often as asked for.
static void test_the_same_failure_gives_the_same_answer(void **state)
{
    const char *seen[200];
    uint64_t runs = env_number("REPEAT", 100);
    size_t count = 0;

    (void)state;
    for (size_t s = 0; s < AF_ARRAY_LEN(scenes); s++) {
        struct sim *base = scenes[s].prepare();
        struct failure first, again;

        for (uint64_t nth = 0;
             !scenes[s].rescue && fail_at(&scenes[s], base, nth, 1, EIO, false, &first); nth++) {
            size_t k = 0;

            while (k < count && seen[k] != first.site)
                k++;
            if (k < count)
                continue;
            assert_true(count < AF_ARRAY_LEN(seen));
            seen[count++] = first.site;
            for (uint64_t i = 1; i < runs; i++) {
                assert_true(fail_at(&scenes[s], base, nth, 1, EIO, false, &again));
                assert_ptr_equal(again.site, first.site);
                assert_int_equal(again.err, first.err);
                assert_true(again.messages == first.messages);
            }
        }
        sim_destroy(base);
    }
    printf("  %zu call sites, %llu times each\n", count, (unsigned long long)runs);
    assert_true(count > 60);
}

// A writer that is far ahead syncs by itself; when that fails, it is told, and so is everybody
// after it.
static void test_a_failed_sync_of_a_writer_is_told(void **state)
{
    static uint8_t piece[256 << 10];
    bool there = false;

    (void)state;
    for (uint64_t skip = 0; skip < 40 && !there; skip++) {
        const struct sim_fault fault = {.calls = SIM_BIT(SIM_SYNC),
                                        .path = "data",
                                        .skip = skip,
                                        .times = 1,
                                        .effect = SIM_FAULT_LOST,
                                        .error = -ENOSPC};
        struct world *w = world_create();
        struct store_file *file;
        struct store_attr attr;
        int err = 0;

        must_open(w);
        must_put(w, "old", 1, 70000);
        unsigned number = sim_fault_add(w->sim, &fault);
        struct store *store = engine_store(w->engine);
        assert_int_equal(store_create(store, STORE_BLOCK, INO_ROOT, "big", S_IFREG | 0644, O_RDWR,
                                      &cred, &attr, &file),
                         0);
        for (uint64_t i = 0; i < 140 && err == 0; i++)
            err = store_write(store, STORE_BLOCK, file, i * sizeof(piece), piece, sizeof(piece),
                              false);
        if (sim_fault_hits(w->sim, number) > 0) { // whichever sync it was
            assert_true(err < 0);
            assert_true(put(w->engine, "later", 1, 10) < 0);
            assert_non_null(strstr(w->log, "ENOSPC"));
            there = strstr(sim_fault_site(w->sim, number), "spill.c");
        }
        (void)!store_release(store, STORE_BLOCK, file);
        world_crash(w, true, SIM_CUT_DROP_ALL, 1);
        must_open(w);
        assert_true(has(w->engine, "old", 1, 70000));
        world_destroy(w);
    }
    assert_true(there);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call_fails_with_every_error),
        cmocka_unit_test(test_the_same_failure_gives_the_same_answer),
        cmocka_unit_test(test_a_failed_sync_of_a_writer_is_told),
    };

    return cmocka_run_group_tests_name("errors", tests, NULL, NULL);
}
