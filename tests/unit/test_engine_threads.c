// SPDX-License-Identifier: MIT
// The engine with its thread, on a real directory: writers, readers, checkpoints and their waiters
// at the same time. Mostly for the thread sanitizer, which the simulated disk cannot serve.
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "tests/unit/test_engine_rig.h"
#include "tests/lib/real_dir.h"

#define WRITERS    3
#define FILES_EACH 60

struct shop {
    struct engine *engine;
    char dir[256];
    char trouble[256];
};

struct writer {
    struct shop *shop;
    unsigned number;
    pthread_t thread;
};

static int write_one(struct engine *e, const char *name, unsigned version, uint8_t *bytes,
                     size_t size)
{
    struct store *s = engine_store(e);
    struct store_attr attr;
    struct store_file *file;

    content_of(name, version, size, bytes);
    int err =
        store_create(s, STORE_BLOCK, INO_ROOT, name, S_IFREG | 0644, O_RDWR, &cred, &attr, &file);
    if (err < 0)
        return err;
    err = store_write(s, STORE_BLOCK, file, 0, bytes, size, false);
    int released = store_release(s, STORE_BLOCK, file);
    return err < 0 ? err : released;
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    uint8_t *bytes = malloc(70000);
    char name[32];

    for (unsigned i = 0; i < FILES_EACH; i++) {
        snprintf(name, sizeof(name), "w%u-%u", w->number, i);
        int err = write_one(w->shop->engine, name, i, bytes, 1000 + 1000 * i);
        if (err == 0 && i % 8 == 0)
            err = engine_sync(w->shop->engine);
        if (err == 0 && i % 20 == 19)
            err = engine_checkpoint(w->shop->engine);
        if (err < 0)
            snprintf(w->shop->trouble, sizeof(w->shop->trouble), "%s: %s", name, err_name(err));
    }
    free(bytes);
    return NULL;
}

static void sleep_ms(unsigned ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&t, NULL);
}

static void test_thread_and_waiters_share_the_checkpoints(void **state)
{
    struct engine_options options = {
        .cache_bytes = 8u << 20, .log_bytes = 2u << 20, .threads = true};
    struct writer writers[WRITERS];
    struct shop shop = {0};
    const char *base = getenv("TMPDIR");
    struct engine_status status;
    struct io *io;
    char message[512], name[32];

    (void)state;
    snprintf(shop.dir, sizeof(shop.dir), "%s/aerofs-engine.XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(shop.dir));
    assert_int_equal(io_plain_open(shop.dir, false, &io), 0);
    assert_int_equal(engine_create(io, &options, &cred), 0);
    if (engine_open(io, &options, &shop.engine, message, sizeof(message)) < 0)
        fail_msg("%s", message);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.shop = &shop, .number = i};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
    assert_string_equal(shop.trouble, "");
    engine_get_status(shop.engine, &status);
    assert_true(status.checkpoints >= 3);
    assert_int_equal(engine_close(shop.engine), 0);

    struct verify_options check = {0};
    struct verify_result result;
    assert_int_equal(verify_image(io, &check, &result), 0);
    assert_int_equal(result.damage, 0);
    assert_true(result.clean);

    assert_int_equal(engine_open(io, &options, &shop.engine, message, sizeof(message)), 0);
    for (unsigned i = 0; i < WRITERS * FILES_EACH; i++) {
        unsigned file = i % FILES_EACH;

        snprintf(name, sizeof(name), "w%u-%u", i / FILES_EACH, file);
        assert_true(has(shop.engine, name, file, 1000 + 1000 * file));
    }
    assert_int_equal(engine_close(shop.engine), 0);
    io->ops->destroy(io);
    real_dir_remove(shop.dir);
}

// C4: nobody waits, nobody calls, and yet it is durable a second later.
static void test_thread_flushes_what_nobody_waits_for(void **state)
{
    struct engine_options options = {
        .cache_bytes = 8u << 20, .log_bytes = 2u << 20, .threads = true};
    const char *base = getenv("TMPDIR");
    struct shop shop = {0};
    uint8_t bytes[100];
    struct io *io;
    char message[512];

    (void)state;
    snprintf(shop.dir, sizeof(shop.dir), "%s/aerofs-engine.XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(shop.dir));
    assert_int_equal(io_plain_open(shop.dir, false, &io), 0);
    assert_int_equal(engine_create(io, &options, &cred), 0);
    assert_int_equal(engine_open(io, &options, &shop.engine, message, sizeof(message)), 0);
    sleep_ms(600); // the thread sleeps as when nothing has happened for long
    assert_int_equal(write_one(shop.engine, "a", 1, bytes, sizeof(bytes)), 0);
    uint64_t lsn = wal_appended_lsn(engine_wal(shop.engine));
    for (unsigned i = 0; i < 100 && wal_durable_lsn(engine_wal(shop.engine)) < lsn; i++)
        sleep_ms(100);
    assert_true(wal_durable_lsn(engine_wal(shop.engine)) >= lsn);
    engine_abandon(shop.engine);
    io->ops->destroy(io);
    real_dir_remove(shop.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thread_and_waiters_share_the_checkpoints),
        cmocka_unit_test(test_thread_flushes_what_nobody_waits_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
