// SPDX-License-Identifier: MIT
// The log under threads, on real files: committers that wait and committers that are called back, a
// thread that makes segments, one that takes checkpoints, with and without an owner of the pump.
// Meant for TSan as well; what was acknowledged is read back.
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/err.h"
#include "base/lock.h"
#include "wal/wal.h"
#include "wal/wal_format.h"

#define COMMITTERS    4
#define COMMITS       150
#define SEGMENT_BYTES (32u * WAL_BLOCK)

struct shop {
    char dir[64];
    struct io *io;
    struct io_file *data;
    struct wal_start start;
    struct wal *wal;
    atomic_uint_fast64_t data_written;
    atomic_bool stop;
    atomic_bool need;
    atomic_int failures;
    struct af_mutex store; // serializes has_room with append
    // Under `store`:
    struct wal_start published;
    uint64_t last_acked;
};

struct committer {
    struct shop *shop;
    struct wal_waiter w;
    struct af_cond cond;
    struct af_mutex lock;
    unsigned seed;
    bool async;
    bool done; // under `lock`
};

static uint64_t data_written(void *arg)
{
    return atomic_load(&((struct shop *)arg)->data_written);
}

static void on_failure(void *arg, int error, const char *what)
{
    (void)error;
    (void)what;
    atomic_fetch_add(&((struct shop *)arg)->failures, 1);
}

static void on_need(void *arg)
{
    atomic_store(&((struct shop *)arg)->need, true);
}

static void pause_briefly(void)
{
    (void)poll(NULL, 0, 1);
}

static uint64_t append_when_there_is_room(struct committer *c)
{
    struct shop *shop = c->shop;
    uint8_t body[5000];
    size_t bytes = (size_t)rand_r(&c->seed) % sizeof(body);
    uint64_t number = 0, lsn = 0;

    if (rand_r(&c->seed) % 4 == 0) {
        AF_ASSERT(io_pwrite(shop->data, body, 0, 0) == 0);
        number = atomic_fetch_add(&shop->data_written, 1) + 1;
    }
    for (;;) {
        af_lock(&shop->store);
        if (wal_has_room(shop->wal, 1, bytes)) {
            memset(body, (int)((wal_appended_lsn(shop->wal) + 1) & 0xFF), bytes);
            AF_ASSERT(wal_append(shop->wal, WAL_OPERATION, body, bytes, number, &lsn) == 0);
            af_unlock(&shop->store);
            return lsn;
        }
        af_unlock(&shop->store);
        pause_briefly();
    }
}

static void called_back(struct wal_waiter *w, int result)
{
    struct committer *c = AF_CONTAINER_OF(w, struct committer, w);

    AF_ASSERT(result == 0);
    af_lock(&c->lock);
    c->done = true;
    af_cond_broadcast(&c->cond);
    af_unlock(&c->lock);
}

static void wait_for_call(struct committer *c, uint64_t lsn)
{
    c->done = false;
    c->w = (struct wal_waiter){.lsn = lsn, .done = called_back};
    int r = wal_wait_async(c->shop->wal, &c->w);
    AF_ASSERT(r >= 0);
    if (r == 1)
        return;
    wal_kick(c->shop->wal, false);
    af_lock(&c->lock);
    while (!c->done)
        af_cond_wait(&c->cond, &c->lock);
    af_unlock(&c->lock);
}

static void *commit_thread(void *arg)
{
    struct committer *c = arg;

    for (int i = 0; i < COMMITS; i++) {
        uint64_t lsn = append_when_there_is_room(c);

        if (c->async)
            wait_for_call(c, lsn);
        else
            AF_ASSERT(wal_wait(c->shop->wal, lsn) == 0);
        AF_ASSERT(wal_durable_lsn(c->shop->wal) >= lsn);
        af_lock(&c->shop->store);
        c->shop->last_acked = AF_MAX(c->shop->last_acked, lsn);
        af_unlock(&c->shop->store);
    }
    return NULL;
}

static void *pump_thread(void *arg)
{
    struct shop *shop = arg;

    wal_pump_own(shop->wal, true);
    while (!atomic_load(&shop->stop)) {
        struct pollfd fd = {.fd = shop->io->ops->event_fd(shop->io), .events = POLLIN};

        (void)poll(&fd, 1, 1); // a timeout only makes it look earlier
        AF_ASSERT(wal_pump(shop->wal, false) >= 0);
    }
    wal_pump_own(shop->wal, false);
    return NULL;
}

static void *late_thread(void *arg)
{
    struct shop *shop = arg;

    while (!atomic_load(&shop->stop)) {
        if (atomic_exchange(&shop->need, false))
            AF_ASSERT(wal_prepare_segments(shop->wal) == 0);
        if (wal_busy(shop->wal))
            wal_tick(shop->wal);
        pause_briefly();
    }
    return NULL;
}

static void *checkpoint_thread(void *arg)
{
    struct shop *shop = arg;

    for (uint64_t sequence = 1; !atomic_load(&shop->stop); sequence++) {
        struct wal_start start = shop->start;
        uint64_t lsn = 0;

        af_lock(&shop->store);
        start.cut_lsn = wal_cut(shop->wal);
        af_unlock(&shop->store);
        AF_ASSERT(wal_wait(shop->wal, start.cut_lsn) == 0);
        wal_cut_info(shop->wal, start.cut_lsn, &start.cut_checksum, &start.log_segment);
        af_lock(&shop->store);
        AF_ASSERT(wal_append(shop->wal, WAL_MARKER, &start, WAL_MARKER_BODY, 0, &lsn) == 0);
        af_unlock(&shop->store);
        AF_ASSERT(wal_wait(shop->wal, lsn) == 0);
        wal_trim(shop->wal, sequence, start.cut_lsn, start.log_segment);
        wal_check_state(shop->wal);
        AF_ASSERT(wal_prepare_segments(shop->wal) == 0);
        af_lock(&shop->store);
        shop->published = start;
        af_unlock(&shop->store);
        pause_briefly();
    }
    return NULL;
}

static void open_shop(struct shop *shop, const char *method)
{
    memset(shop, 0, sizeof(*shop));
    (void)snprintf(shop->dir, sizeof(shop->dir), "/tmp/aerofs-test-wal-XXXXXX");
    assert_non_null(mkdtemp(shop->dir));
    int r = io_open(shop->dir, method, false, &shop->io);
    if (r == -AF_E_IO_UNSUPPORTED) {
        (void)rmdir(shop->dir);
        skip();
    }
    assert_int_equal(r, 0);
    assert_int_equal(shop->io->ops->mkdir(shop->io, "wal"), 0);
    assert_int_equal(io_file_open(shop->io, "data", IO_WRITE | IO_CREATE, &shop->data), 0);
    af_mutex_init(&shop->store, LOCK_RANK_STORE);
    shop->start = (struct wal_start){.epoch = 1,
                                     .segment_bytes = SEGMENT_BYTES,
                                     .log_segment = 1,
                                     .next_lsn = 1,
                                     .log_seed = 42};
    shop->published = shop->start;
    assert_int_equal(wal_create_segments(shop->io, &shop->start), 0);
    struct wal_config config = {
        .io = shop->io,
        .log_bytes = 8 * SEGMENT_BYTES,
        .data_file = shop->data,
        .data_written = data_written,
        .arg = shop,
        .on_failure = on_failure,
    };
    assert_int_equal(wal_open(&config, &shop->start, &shop->wal), 0);
    wal_set_need_segments(shop->wal, on_need, shop);
}

static int remove_entry(void *arg, const char *name)
{
    struct io *io = arg;
    char path[300];

    (void)snprintf(path, sizeof(path), "wal/%s", name);
    return io->ops->unlink(io, path);
}

static void close_shop(struct shop *shop)
{
    io_file_close(shop->data);
    assert_int_equal(shop->io->ops->list(shop->io, "wal", remove_entry, shop->io), 0);
    assert_int_equal(shop->io->ops->unlink(shop->io, "data"), 0);
    shop->io->ops->destroy(shop->io);
    char path[80];
    (void)snprintf(path, sizeof(path), "%s/wal", shop->dir);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(shop->dir), 0);
    af_mutex_destroy(&shop->store);
}

static int check_record(void *arg, const struct wal_record *record)
{
    (void)arg;
    for (size_t i = 0; record->type == WAL_OPERATION && i < record->body_bytes; i++)
        assert_int_equal(record->body[i], record->lsn & 0xFF);
    return 0;
}

static void run_shop(const char *method, bool owned)
{
    struct shop shop;
    struct committer committers[COMMITTERS];
    pthread_t threads[COMMITTERS], pump, late, checkpoints;
    struct wal_scan_result result;

    open_shop(&shop, method);
    assert_int_equal(pthread_create(&late, NULL, late_thread, &shop), 0);
    assert_int_equal(pthread_create(&checkpoints, NULL, checkpoint_thread, &shop), 0);
    if (owned)
        assert_int_equal(pthread_create(&pump, NULL, pump_thread, &shop), 0);
    for (unsigned i = 0; i < COMMITTERS; i++) {
        struct committer *c = &committers[i];

        *c = (struct committer){.shop = &shop, .seed = i + 1, .async = i % 2 == 1};
        af_mutex_init(&c->lock, LOCK_RANK_FS);
        af_cond_init(&c->cond);
        assert_int_equal(pthread_create(&threads[i], NULL, commit_thread, c), 0);
    }
    for (unsigned i = 0; i < COMMITTERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    atomic_store(&shop.stop, true);
    assert_int_equal(pthread_join(checkpoints, NULL), 0);
    assert_int_equal(pthread_join(late, NULL), 0);
    if (owned)
        assert_int_equal(pthread_join(pump, NULL), 0);
    for (unsigned i = 0; i < COMMITTERS; i++) {
        af_cond_destroy(&committers[i].cond);
        af_mutex_destroy(&committers[i].lock);
    }
    wal_check_state(shop.wal);
    wal_close(shop.wal);
    assert_int_equal(shop.failures, 0);

    assert_int_equal(wal_scan(shop.io, &shop.published, check_record, NULL, &result), 0);
    assert_int_equal(result.end, WAL_END_CLEAN);
    assert_true(result.last_lsn >= shop.last_acked);
    close_shop(&shop);
}

static void test_threads_without_a_pump_owner(void **state)
{
    (void)state;
    run_shop("plain", false);
}

static void test_threads_with_a_pump_owner(void **state)
{
    (void)state;
    run_shop("plain", true);
}

static void test_threads_on_io_uring(void **state)
{
    (void)state;
    run_shop("uring", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_without_a_pump_owner),
        cmocka_unit_test(test_threads_with_a_pump_owner),
        cmocka_unit_test(test_threads_on_io_uring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
