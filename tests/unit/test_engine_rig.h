// SPDX-License-Identifier: MIT
// What the tests of the engine share: a store on the simulated disk with a life of its own, files
// with content that can be told apart, verification.
#ifndef AF_TESTS_UNIT_TEST_ENGINE_RIG_H
#define AF_TESTS_UNIT_TEST_ENGINE_RIG_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/err.h"
#include "checkpoint/engine.h"
#include "checkpoint/superblock.h"
#include "checkpoint/verify.h"
#include "tests/sim/sim_disk.h"

#define CONTENT_MAX 300000u

static const struct store_cred cred = {.uid = 1, .gid = 2};

// ---- a store to play with ----

struct world {
    struct sim *sim;
    struct engine *engine;
    struct engine_options options;
    char message[512];
    char log[4096]; // what the engine told the operator
};

static inline void note_message(void *arg, enum message_level level, const char *text)
{
    struct world *w = arg;
    size_t len = strlen(w->log);

    (void)level;
    snprintf(w->log + len, sizeof(w->log) - len, "%s\n", text);
}

static inline void world_init(struct world *w, struct sim *sim)
{
    memset(w, 0, sizeof(*w));
    w->sim = sim;
    w->options = (struct engine_options){
        .cache_bytes = 8u << 20,
        .log_bytes = 1u << 20,
        .commit_open_ms = UINT64_MAX,
        .sink = {.emit = note_message, .arg = w},
    };
}

static inline int world_open(struct world *w)
{
    return engine_open(sim_io(w->sim), &w->options, &w->engine, w->message, sizeof(w->message));
}

static inline void must_open(struct world *w)
{
    int err = world_open(w);

    if (err < 0)
        fail_msg("open: %s: %s", err_name(err), w->message);
}

static inline void must_close(struct world *w)
{
    assert_int_equal(engine_close(w->engine), 0);
    w->engine = NULL;
}

static inline struct world *world_create(void)
{
    struct world *w = malloc(sizeof(*w));

    world_init(w, sim_create(7));
    assert_int_equal(engine_create(sim_io(w->sim), &w->options, &cred), 0);
    return w;
}

static inline void world_destroy(struct world *w)
{
    if (w->engine)
        engine_abandon(w->engine);
    sim_destroy(w->sim);
    free(w);
}

// The power goes, or only the process.
static inline void world_crash(struct world *w, bool power, enum sim_cut_policy policy,
                               uint64_t seed)
{
    sim_crash_now(w->sim);
    if (w->engine)
        engine_abandon(w->engine);
    w->engine = NULL;
    if (power)
        sim_power_cut(w->sim, policy, seed);
    else
        sim_kill(w->sim, seed);
    sim_count_crash(w->sim);
}

// Content that only this name and version have.
static inline void content_of(const char *name, unsigned version, size_t size, uint8_t *bytes)
{
    uint64_t x = version;

    for (const char *p = name; *p; p++)
        x = x * 31 + (uint8_t)*p;
    for (size_t i = 0; i < size; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        bytes[i] = (uint8_t)(x >> 56);
    }
}

static inline void ignore_done(struct wal_waiter *w, int result)
{
    (void)w;
    (void)result;
}

// Writes a new file and makes it durable; 0 is an acknowledgement.
static inline int put(struct engine *e, const char *name, unsigned version, size_t size)
{
    static uint8_t bytes[CONTENT_MAX];
    struct store *s = engine_store(e);
    struct wal_waiter waiter = {.done = ignore_done};
    struct store_file *file;
    struct store_attr attr;
    size_t written = 0;

    content_of(name, version, size, bytes);
    int err =
        store_create(s, STORE_BLOCK, INO_ROOT, name, S_IFREG | 0644, O_RDWR, &cred, &attr, &file);
    if (err < 0)
        return err;
    while (written < size && err == 0) {
        size_t n = AF_MIN(size - written, (size_t)100000);
        err = store_write(s, STORE_BLOCK, file, written, bytes + written, n, false);
        written += n;
    }
    if (err == 0)
        err = store_fsync(s, STORE_BLOCK, attr.ino, &waiter);
    if (err >= 0)
        err = engine_sync(e);
    int released = store_release(s, STORE_BLOCK, file);
    return err < 0 ? err : released;
}

static inline bool has(struct engine *e, const char *name, unsigned version, size_t size)
{
    static uint8_t expected[CONTENT_MAX], found[CONTENT_MAX];
    struct store *s = engine_store(e);
    struct store_attr attr;
    size_t got;
    int err = store_lookup(s, STORE_BLOCK, INO_ROOT, name, &attr);

    if (err == -ENOENT)
        return false;
    assert_int_equal(err, 0);
    content_of(name, version, size, expected);
    assert_int_equal(attr.size, size);
    assert_int_equal(store_read(s, STORE_BLOCK, attr.ino, 0, found, sizeof(found), &got), 0);
    assert_int_equal(got, size);
    assert_memory_equal(found, expected, size);
    return true;
}

static inline void must_put(struct world *w, const char *name, unsigned version, size_t size)
{
    int err = put(w->engine, name, version, size);

    if (err < 0)
        fail_msg("put %s: %s", name, err_name(err));
}

// ---- verification ----

struct findings {
    uint64_t damage, notes;
    char text[2048];
};

static inline void note_finding(void *arg, const struct verify_finding *f)
{
    struct findings *all = arg;
    size_t len = strlen(all->text);

    if (f->severity == VERIFY_DAMAGE)
        all->damage++;
    else
        all->notes++;
    snprintf(all->text + len, sizeof(all->text) - len, "%s: %s\n", f->file, f->text);
}

static inline struct verify_result verify(struct world *w, struct findings *all)
{
    struct verify_options options = {.finding = note_finding, .arg = all};
    struct verify_result result;
    uint64_t before = sim_hash(w->sim);

    memset(all, 0, sizeof(*all));
    assert_int_equal(verify_image(sim_io(w->sim), &options, &result), 0);
    assert_true(sim_hash(w->sim) == before);
    assert_int_equal(all->damage, result.damage);
    return result;
}

static inline void must_be_sound(struct world *w)
{
    struct findings all;
    struct verify_result r = verify(w, &all);

    if (r.damage > 0)
        fail_msg("%s", all.text);
    assert_true(r.complete && r.log_scanned && r.log_replayed);
    assert_int_equal(r.blocks_reached, r.blocks_marked);
}

// A store with a checkpoint and records behind it, left by a process that was killed.
static inline struct world *world_used(void)
{
    struct world *w = world_create();

    must_open(w);
    must_put(w, "a", 1, 50000);
    assert_int_equal(engine_checkpoint(w->engine), 0);
    must_put(w, "b", 1, 2000);
    must_put(w, "c", 1, 2000);
    world_crash(w, false, SIM_CUT_DROP_ALL, 1);
    return w;
}

#endif
