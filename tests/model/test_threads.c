// SPDX-License-Identifier: MIT
// Several threads on one store in a real directory, with the checkpoint thread, with more
// checkpoints than it would make, with small bounds everywhere; then the process "ends" and the
// store is opened anew. Each writer has its own files, so it knows what it was told: a file holds
// the bytes of exactly one version, not older than the last acknowledged one, not newer than the
// last begun.
//
//   SEED=n  RUNS=n  rounds;  MS=n  milliseconds of each
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "checkpoint/engine.h"
#include "checkpoint/verify.h"
#include "tests/lib/real_dir.h"
#include "tests/lib/rng.h"

#define WRITERS          4
#define FILES            12
#define FILE_BYTES_LARGE 300000u

static const struct store_cred cred = {.uid = 1000, .gid = 1000};

struct versions { // of one file; 0: it is not there
    uint32_t acked, begun;
    bool removal_acked, removal_begun; // of what came after `acked` and `begun`
};

struct stress;

struct writer {
    struct stress *stress;
    unsigned number;
    pthread_t thread;
    struct rng r;
    uint64_t dir;
    struct versions files[FILES];
    uint64_t acks;
};

struct stress {
    struct io *io;
    struct engine *engine;
    struct store *store;
    struct engine_options options;
    atomic_bool stop;
    atomic_uint_fast64_t calls;
    pthread_mutex_t lock;
    char trouble[300]; // the first one
    struct writer writers[WRITERS];
    char dir[300];
};

static void AF_PRINTF(2, 3) trouble(struct stress *t, const char *fmt, ...)
{
    va_list args;

    pthread_mutex_lock(&t->lock);
    va_start(args, fmt);
    if (!t->trouble[0])
        vsnprintf(t->trouble, sizeof(t->trouble), fmt, args);
    va_end(args);
    pthread_mutex_unlock(&t->lock);
    atomic_store(&t->stop, true);
}

static bool fine(struct stress *t, int err, const char *what)
{
    atomic_fetch_add(&t->calls, 1);
    if (err < 0)
        trouble(t, "%s: %s", what, err_name(err));
    return err >= 0;
}

// ---- waiting for durability ----

struct waiting {
    struct wal_waiter w;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool done;
    int result;
};

static void waited(struct wal_waiter *w, int result)
{
    struct waiting *me = AF_CONTAINER_OF(w, struct waiting, w);

    pthread_mutex_lock(&me->lock);
    me->done = true;
    me->result = result;
    pthread_cond_signal(&me->wake);
    pthread_mutex_unlock(&me->lock);
}

static int fsync_file(struct stress *t, uint64_t ino)
{
    struct waiting me = {
        .w.done = waited, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    int err = store_fsync(t->store, STORE_BLOCK, ino, &me.w);

    if (err != 0)
        return err == 1 ? 0 : err;
    uint64_t lsn = me.w.lsn;

    store_kick(t->store);
    err = wal_wait(engine_wal(t->engine), lsn);
    pthread_mutex_lock(&me.lock);
    while (!me.done) // another thread may be just about to tell
        pthread_cond_wait(&me.wake, &me.lock);
    pthread_mutex_unlock(&me.lock);
    return err < 0 ? err : me.result;
}

// ---- contents ----

static size_t size_of_version(unsigned writer, unsigned file, uint32_t version)
{
    struct rng r = {rng_mix(writer * 1000 + file, version)};

    switch (rng_below(&r, 4)) {
    case 0:
        return rng_below(&r, 1000) + 1;
    case 1:
        return rng_below(&r, 9000) + 1;
    case 2:
        return rng_below(&r, 60000) + 1;
    default:
        return rng_below(&r, FILE_BYTES_LARGE) + 1;
    }
}

static void bytes_of_version(unsigned writer, unsigned file, uint32_t version, uint8_t *bytes,
                             size_t size)
{
    struct rng r = {rng_mix(version, writer * 1000 + file)};

    for (size_t i = 0; i < size; i += 8) {
        uint64_t v = rng_next(&r);

        memcpy(bytes + i, &v, size - i < 8 ? size - i : 8);
    }
}

static void file_name(char name[32], unsigned file)
{
    snprintf(name, 32, "file%u", file);
}

// ---- the writers ----

static int open_for_version(struct writer *w, const char *name, struct store_file **ret_file,
                            uint64_t *ret_ino)
{
    struct store *s = w->stress->store;
    struct store_attr attr;
    int err = store_lookup(s, STORE_BLOCK, w->dir, name, &attr);

    if (err == 0)
        err = store_open(s, STORE_BLOCK, attr.ino, O_RDWR | O_TRUNC, ret_file);
    else if (err == -ENOENT)
        err = store_create(s, STORE_BLOCK, w->dir, name, 0644, O_RDWR, &cred, &attr, ret_file);
    *ret_ino = attr.ino;
    return err;
}

static void write_version(struct writer *w, unsigned file, uint8_t *bytes)
{
    struct stress *t = w->stress;
    struct versions *v = &w->files[file];
    uint32_t version = v->begun + 1;
    size_t size = size_of_version(w->number, file, version),
           piece = rng_chance(&w->r, 50) ? 4096 : 100000;
    struct store_file *f;
    char name[32];
    uint64_t ino;

    file_name(name, file);
    bytes_of_version(w->number, file, version, bytes, size);
    if (!fine(t, open_for_version(w, name, &f, &ino), "open"))
        return;
    v->begun = version;
    v->removal_begun = false;
    bool ok = true;

    for (size_t at = 0; ok && at < size; at += piece)
        ok = fine(
            t,
            store_write(t->store, STORE_BLOCK, f, at, bytes + at, AF_MIN(piece, size - at), false),
            "write");
    if (ok && rng_chance(&w->r, 60) && fine(t, fsync_file(t, ino), "fsync")) {
        v->acked = version;
        v->removal_acked = false;
        w->acks++;
    }
    fine(t, store_release(t->store, STORE_BLOCK, f), "close");
}

static void remove_file(struct writer *w, unsigned file)
{
    struct stress *t = w->stress;
    struct versions *v = &w->files[file];
    char name[32];

    file_name(name, file);
    int err = store_unlink(t->store, STORE_BLOCK, w->dir, name);

    if (err == -ENOENT)
        return;
    if (!fine(t, err, "unlink"))
        return;
    v->removal_begun = true;
    if (rng_chance(&w->r, 50) && fine(t, fsync_file(t, w->dir), "fsync of the directory")) {
        v->acked = v->begun;
        v->removal_acked = true;
        w->acks++;
    }
}

// Everything of the file that a crash may leave is gone from `bytes` and the names: what it is now
// is right.
static void read_back(struct writer *w, unsigned file, uint8_t *bytes, uint8_t *right)
{
    struct stress *t = w->stress;
    struct versions *v = &w->files[file];
    struct store_attr attr;
    char name[32];
    size_t got;

    file_name(name, file);
    int err = store_lookup(t->store, STORE_BLOCK, w->dir, name, &attr);

    if (err == -ENOENT && (v->begun == 0 || v->removal_begun))
        return;
    if (!fine(t, err, "lookup") ||
        !fine(t, store_read(t->store, STORE_BLOCK, attr.ino, 0, bytes, FILE_BYTES_LARGE, &got),
              "read"))
        return;
    bytes_of_version(w->number, file, v->begun, right, size_of_version(w->number, file, v->begun));
    if (got != attr.size || got != size_of_version(w->number, file, v->begun) ||
        memcmp(bytes, right, got) != 0)
        trouble(t, "writer %u, file %u reads wrong bytes (version %u)", w->number, file, v->begun);
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    uint8_t *bytes = malloc(FILE_BYTES_LARGE + 8), *right = malloc(FILE_BYTES_LARGE + 8);

    while (!atomic_load(&w->stress->stop)) {
        unsigned file = (unsigned)rng_below(&w->r, FILES);

        if (rng_chance(&w->r, 10))
            remove_file(w, file);
        else if (rng_chance(&w->r, 20))
            read_back(w, file, bytes, right);
        else
            write_version(w, file, bytes);
    }
    free(bytes);
    free(right);
    return NULL;
}

// Checkpoints, listings and readings of everything, at the same time.
static int count_entry(void *arg, const char *name, size_t name_len, uint64_t ino, uint32_t mode,
                       const struct store_attr *attr, uint64_t next_cookie)
{
    (void)name, (void)name_len, (void)ino, (void)mode, (void)attr, (void)next_cookie;
    ++*(unsigned *)arg;
    return 0;
}

static void *other_main(void *arg)
{
    struct stress *t = arg;
    uint8_t *bytes = malloc(FILE_BYTES_LARGE);
    struct rng r = {7};

    while (!atomic_load(&t->stop)) {
        unsigned entries = 0;
        struct store_attr attr;
        struct engine_status status;
        char name[32];
        size_t got;
        uint64_t dir = t->writers[rng_below(&r, WRITERS)].dir;

        fine(
            t,
            store_readdir(t->store, STORE_BLOCK, dir, 0, rng_chance(&r, 50), count_entry, &entries),
            "readdir");
        file_name(name, (unsigned)rng_below(&r, FILES));
        int err = store_lookup(t->store, STORE_BLOCK, dir, name, &attr);

        if (err == 0)
            err = store_read(t->store, STORE_BLOCK, attr.ino, 0, bytes, FILE_BYTES_LARGE, &got);
        if (err != -ENOENT) // it may go in between
            fine(t, err, "read of another's file");
        engine_get_status(t->engine, &status);
        if (rng_chance(&r, 5))
            fine(t, engine_checkpoint(t->engine), "checkpoint");
    }
    free(bytes);
    return NULL;
}

// ---- rounds ----

static void open_engine(struct stress *t)
{
    char message[1024];

    if (engine_open(t->io, &t->options, &t->engine, message, sizeof(message)) < 0)
        fail_msg("%s", message);
    t->store = engine_store(t->engine);
}

// What is there now is what is acknowledged and begun from here on.
static void check_file(struct stress *t, struct writer *w, unsigned file, uint8_t *bytes,
                       uint8_t *right)
{
    struct versions *v = &w->files[file];
    struct store_attr attr;
    char name[32];
    size_t got = 0;
    uint32_t found = 0;

    file_name(name, file);
    int err = store_lookup(t->store, STORE_BLOCK, w->dir, name, &attr);

    if (err == 0)
        err = store_read(t->store, STORE_BLOCK, attr.ino, 0, bytes, FILE_BYTES_LARGE, &got);
    if (err == -ENOENT) {
        // Never made, or removed: in a removal that was acknowledged, or in a later one.
        if (v->acked != 0 && !v->removal_acked && !v->removal_begun && v->begun == v->acked)
            fail_msg("writer %u, file %u: acknowledged as version %u, and it is gone", w->number,
                     file, v->acked);
        v->acked = v->begun;
        v->removal_acked = v->removal_begun = true;
        return;
    }
    if (err < 0)
        fail_msg("writer %u, file %u: %s", w->number, file, err_name(err));
    for (uint32_t k = v->begun; k >= 1 && k >= v->acked && found == 0; k--) {
        if (size_of_version(w->number, file, k) != got || attr.size != got)
            continue;
        bytes_of_version(w->number, file, k, right, got);
        if (memcmp(bytes, right, got) == 0)
            found = k;
    }
    if (found == 0)
        fail_msg("writer %u, file %u: %zu bytes of no version from %u to %u", w->number, file, got,
                 v->acked, v->begun);
    if (found == v->acked && v->removal_acked)
        fail_msg("writer %u, file %u: its removal was acknowledged, and it is there", w->number,
                 file);
    // Later versions have not happened; the next one begins above them all the same, so that no two
    // are equal.
    v->acked = v->begun = found;
    v->removal_acked = v->removal_begun = false;
}

static void check_all(struct stress *t)
{
    uint8_t *bytes = malloc(FILE_BYTES_LARGE + 8), *right = malloc(FILE_BYTES_LARGE + 8);

    for (unsigned i = 0; i < WRITERS; i++)
        for (unsigned k = 0; k < FILES; k++)
            check_file(t, &t->writers[i], k, bytes, right);
    free(bytes);
    free(right);
}

static void one_round(struct stress *t, uint64_t ms)
{
    const struct timespec length = {.tv_sec = (time_t)(ms / 1000),
                                    .tv_nsec = (long)(ms % 1000) * 1000000};
    pthread_t other;

    atomic_store(&t->stop, false);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&t->writers[i].thread, NULL, writer_main, &t->writers[i]),
                         0);
    assert_int_equal(pthread_create(&other, NULL, other_main, t), 0);
    nanosleep(&length, NULL);
    atomic_store(&t->stop, true);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(t->writers[i].thread, NULL), 0);
    assert_int_equal(pthread_join(other, NULL), 0);
    if (t->trouble[0])
        fail_msg("%s", t->trouble);
}

static void begin(struct stress *t,
                  int (*open_io)(const char *path, bool read_only, struct io **ret_io))
{
    const char *base = getenv("TMPDIR");

    *t = (struct stress){.options = {.cache_bytes = UINT64_C(2) << 20,
                                     .log_bytes = UINT64_C(2) << 20,
                                     .pending_bytes = UINT64_C(1) << 20,
                                     .commit_open_ms = 50,
                                     .threads = true}};
    pthread_mutex_init(&t->lock, NULL);
    snprintf(t->dir, sizeof(t->dir), "%s/aerofs-threads.XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(t->dir));
    int err = open_io(t->dir, false, &t->io);

    if (err == -AF_E_IO_UNSUPPORTED) {
        real_dir_remove(t->dir);
        skip();
    }
    assert_int_equal(err, 0);
    assert_int_equal(engine_create(t->io, &t->options, &cred), 0);
    open_engine(t);
    for (unsigned i = 0; i < WRITERS; i++) {
        struct writer *w = &t->writers[i];
        struct store_attr attr;
        char name[32];

        *w = (struct writer){.stress = t, .number = i, .r = {rng_mix(env_number("SEED", 1), i)}};
        snprintf(name, sizeof(name), "writer%u", i);
        assert_int_equal(
            store_mknod(t->store, STORE_BLOCK, INO_ROOT, name, S_IFDIR | 0755, 0, &cred, &attr), 0);
        w->dir = attr.ino;
    }
    assert_int_equal(engine_sync(t->engine), 0);
}

static void run(int (*open_io)(const char *path, bool read_only, struct io **ret_io))
{
    uint64_t rounds = env_number("RUNS", 3), ms = env_number("MS", 700), acks = 0;
    const struct verify_options options = {0};
    struct verify_result result;
    static struct stress t;

    begin(&t, open_io);
    for (uint64_t i = 0; i < rounds; i++) {
        one_round(&t, ms);
        engine_abandon(t.engine); // as if killed
        open_engine(&t);
        check_all(&t);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        acks += t.writers[i].acks;
    printf("  %s: %llu rounds, %llu calls, %llu acknowledged\n", io_describe(t.io),
           (unsigned long long)rounds, (unsigned long long)atomic_load(&t.calls),
           (unsigned long long)acks);
    assert_int_equal(engine_close(t.engine), 0);
    assert_int_equal(verify_image(t.io, &options, &result), 0);
    assert_int_equal(result.damage, 0);
    t.io->ops->destroy(t.io);
    pthread_mutex_destroy(&t.lock);
    real_dir_remove(t.dir);
    assert_true(acks > 0);
}

static void test_threads_over_system_calls(void **state)
{
    (void)state;
    run(io_plain_open);
}

static void test_threads_over_io_uring(void **state)
{
    (void)state;
    run(io_uring_open);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_over_system_calls),
        cmocka_unit_test(test_threads_over_io_uring),
    };

    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
