// SPDX-License-Identifier: MIT
// The engine of a test.
#include "tests/lib/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"

#define CACHE_BYTES   (UINT64_C(1) << 20)
#define LOG_BYTES     (UINT64_C(512) << 10)
#define PENDING_BYTES (UINT64_C(1) << 20)

static void listen(void *arg, enum message_level level, const char *text)
{
    struct fixture *fx = arg;
    size_t len = strlen(fx->said);

    if (level == MESSAGE_ERROR)
        fx->errors++;
    if (len + strlen(text) + 2 > sizeof(fx->said)) {
        memmove(fx->said, fx->said + len / 2, len - len / 2 + 1);
        len = strlen(fx->said);
    }
    snprintf(fx->said + len, sizeof(fx->said) - len, "%s\n", text);
}

struct switches switches_of(const char *words)
{
    struct switches s = {0};
    char name[64];
    enum switch_id id;

    while (*words) {
        size_t len = strcspn(words, ",");
        bool on = strncmp(words, "no-", 3) != 0;

        AF_ASSERT(len < sizeof(name));
        memcpy(name, words, len);
        name[len] = 0;
        if (strcmp(name, "baseline") == 0)
            s = switches_baseline();
        else if (switch_find(on ? name : name + 3, &id))
            switch_set(&s, id, on);
        else if (len > 0)
            AF_ASSERT(!"AEROFS_TEST_SWITCHES has an unknown word");
        words += words[len] ? len + 1 : len;
    }
    return s;
}

// Every test on the simulated disk runs with any choice: AEROFS_TEST_SWITCHES=baseline,group-commit
static struct switches env_switches(void)
{
    const char *words = getenv("AEROFS_TEST_SWITCHES");

    return switches_of(words ? words : "");
}

void fixture_init(struct fixture *fx, uint64_t seed)
{
    const struct engine_options options = {
        .cache_bytes = CACHE_BYTES,
        .log_bytes = LOG_BYTES,
        .pending_bytes = PENDING_BYTES,
        .switches = env_switches(),
    };

    fixture_adopt(fx, sim_create(seed), &options);
}

void fixture_adopt(struct fixture *fx, struct sim *sim, const struct engine_options *options)
{
    *fx = (struct fixture){.sim = sim, .options = *options};
    fx->options.sink = (struct message_sink){.emit = listen, .arg = fx};
}

void fixture_free(struct fixture *fx)
{
    fixture_abandon(fx);
    sim_destroy(fx->sim);
    fx->sim = NULL;
}

static struct io *fixture_io(struct fixture *fx)
{
    return fx->io ? fx->io : sim_io(fx->sim);
}

int fixture_create(struct fixture *fx)
{
    const struct store_cred cred = {.uid = 1000, .gid = 1000};

    return engine_create(fixture_io(fx), &fx->options, &cred);
}

int fixture_open(struct fixture *fx)
{
    AF_ASSERT(!fx->engine);
    int err =
        engine_open(fixture_io(fx), &fx->options, &fx->engine, fx->refusal, sizeof(fx->refusal));

    fx->store = err == 0 ? engine_store(fx->engine) : NULL;
    if (err < 0)
        fx->engine = NULL;
    return err;
}

int fixture_close(struct fixture *fx)
{
    int err = engine_close(fx->engine);

    fx->engine = NULL;
    fx->store = NULL;
    return err;
}

void fixture_abandon(struct fixture *fx)
{
    if (fx->engine)
        engine_abandon(fx->engine);
    fx->engine = NULL;
    fx->store = NULL;
}

// The clone is the disk with what is under way; the engine then unwinds on the old one, which
// nobody looks at again.
void fixture_leave(struct fixture *fx)
{
    struct sim *left = sim_clone(fx->sim);

    fixture_abandon(fx);
    sim_destroy(fx->sim);
    fx->sim = left;
}

void crash_disk(struct sim *sim, enum crash_kind kind, uint64_t seed)
{
    if (kind == CRASH_KILL)
        sim_kill(sim, seed);
    else
        sim_power_cut(sim, (enum sim_cut_policy)kind, seed);
    sim_count_crash(sim);
}

void crash_subset(struct sim *sim, const bool *keep, bool garbage, uint64_t seed)
{
    sim_power_cut_parts(sim, keep, garbage, seed);
    sim_count_crash(sim);
}

const char *crash_name(enum crash_kind kind)
{
    static const char *const names[] = {
        "all unsynced dropped",  "all unsynced kept", "some unsynced kept or torn",
        "some unsynced garbage", "process killed",    "a subset of the unsynced"};

    return (unsigned)kind < AF_ARRAY_LEN(names) ? names[kind] : "?";
}

// ---- waiting ----

struct waiting {
    struct wal_waiter w;
    bool done;
    int result;
};

static void waited(struct wal_waiter *w, int result)
{
    struct waiting *me = AF_CONTAINER_OF(w, struct waiting, w);

    me->done = true;
    me->result = result;
}

static int wait_for(struct fixture *fx, struct waiting *me, int err)
{
    if (err != 0)
        return err == 1 ? 0 : err;
    store_kick(fx->store);
    int waited_for = wal_wait(engine_wal(fx->engine), me->w.lsn);

    AF_ASSERT(me->done); // W1: waiters are told before wal_wait() returns
    AF_ASSERT((waited_for == 0) == (me->result == 0));
    return me->result;
}

int fixture_fsync(struct fixture *fx, uint64_t ino)
{
    struct waiting me = {.w.done = waited};

    return wait_for(fx, &me, store_fsync(fx->store, STORE_BLOCK, ino, &me.w));
}

int fixture_sync(struct fixture *fx)
{
    struct waiting me = {.w.done = waited};

    return wait_for(fx, &me, store_sync(fx->store, &me.w));
}

// ---- verification ----

struct findings {
    char *text;
    size_t size;
};

static void note_finding(void *arg, const struct verify_finding *f)
{
    struct findings *n = arg;
    size_t len = strlen(n->text);

    if (f->severity == VERIFY_DAMAGE && len < n->size)
        snprintf(n->text + len, n->size - len, "%s%s (%s, block %llu, inode %llu, offset %llu)",
                 len ? "; " : "", f->text, err_name(f->code), (unsigned long long)f->address,
                 (unsigned long long)f->ino, (unsigned long long)f->off);
}

int64_t verify_text(struct sim *sim, char *text, size_t size)
{
    struct findings n = {.text = text, .size = size};
    const struct verify_options options = {.finding = note_finding, .arg = &n};
    struct io *io = sim_io(sim);
    bool read_only = io->read_only;
    struct verify_result result;

    text[0] = 0;
    int err = verify_image(io, &options, &result);

    io->read_only = read_only;
    return err < 0 ? err : (int64_t)result.damage;
}
