// SPDX-License-Identifier: MIT
// The process ends while it holds a lock: a child works on a store in a real directory with several
// threads and kills itself, by SIGKILL, right behind the n-th time that a lock of a given rank was
// taken (docs/LOCKING.md). The store opens at once, is whole, and has everything that the child was
// told to be durable. The Makefile has the linker send every af_lock() through the wrapper below.
//
//   SEED=n  RUNS=n  kills for each rank
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "base/lock.h"
#include "checkpoint/engine.h"
#include "checkpoint/verify.h"
#include "tests/lib/real_dir.h"
#include "tests/lib/rng.h"

#define WRITERS 3

// ---- the lock that kills ----

static atomic_int deadly_rank; // 0: none
static atomic_llong to_go;

void __real_af_lock(struct af_mutex *m);
void __wrap_af_lock(struct af_mutex *m);

void __wrap_af_lock(struct af_mutex *m)
{
    __real_af_lock(m);
    if (m->rank == atomic_load(&deadly_rank) && atomic_fetch_sub(&to_go, 1) == 0)
        kill(getpid(), SIGKILL);
}

// ---- the child ----

static const struct store_cred cred = {.uid = 1000, .gid = 1000};
static const struct engine_options options = {
    .cache_bytes = UINT64_C(2) << 20, .log_bytes = UINT64_C(2) << 20, .threads = true};

struct ack { // through the pipe: whole or not at all
    uint32_t writer, number;
};

static struct engine *engine;
static int ack_fd;

static size_t size_of(uint32_t writer, uint32_t number)
{
    struct rng r = {rng_mix(writer, number)};

    return rng_below(&r, number % 5 == 0 ? 200000 : 3000) + 1;
}

static uint8_t *bytes_of(uint32_t writer, uint32_t number, size_t size)
{
    struct rng r = {rng_mix(number, writer)};
    uint8_t *bytes = malloc(size);

    for (size_t i = 0; bytes && i < size; i++)
        bytes[i] = (uint8_t)rng_next(&r);
    return bytes;
}

static void name_of(uint32_t writer, uint32_t number, char name[32])
{
    snprintf(name, 32, "w%u.%u", writer, number);
}

static int write_one(struct store *s, uint32_t writer, uint32_t number)
{
    struct store_attr attr;
    struct store_file *file;
    size_t size = size_of(writer, number);
    uint8_t *bytes = bytes_of(writer, number, size);
    char name[32];

    name_of(writer, number, name);
    int err = store_create(s, STORE_BLOCK, INO_ROOT, name, 0644, O_RDWR, &cred, &attr, &file);
    if (err == 0)
        err = store_write(s, STORE_BLOCK, file, 0, bytes, size, false);
    if (err == 0)
        err = store_release(s, STORE_BLOCK, file);
    free(bytes);
    return err < 0 ? err : engine_sync(engine);
}

static void *writer_main(void *arg)
{
    uint32_t writer = *(uint32_t *)arg;

    for (uint32_t number = 1;; number++) {
        struct ack a = {.writer = writer, .number = number};

        if (write_one(engine_store(engine), writer, number) < 0)
            _exit(3);
        if (write(ack_fd, &a, sizeof(a)) != sizeof(a))
            _exit(4);
        if (number % 16 == 0 && engine_checkpoint(engine) < 0)
            _exit(5);
    }
    return NULL;
}

static void child(const char *dir, int rank, long long n)
{
    static uint32_t numbers[WRITERS];
    char message[512];
    struct io *io;
    pthread_t thread;

    if (io_plain_open(dir, false, &io) < 0 ||
        engine_open(io, &options, &engine, message, sizeof(message)) < 0)
        _exit(1);
    atomic_store(&to_go, n);
    atomic_store(&deadly_rank, rank);
    for (uint32_t i = 0; i < WRITERS; i++) {
        numbers[i] = i;
        if (pthread_create(&thread, NULL, writer_main, &numbers[i]) != 0)
            _exit(2);
    }
    for (;;)
        pause();
}

// ---- the parent ----

static void check_one(struct store *s, const struct ack *a)
{
    size_t size = size_of(a->writer, a->number), got = 0;
    uint8_t *right = bytes_of(a->writer, a->number, size), *found = malloc(size + 1);
    struct store_attr attr;
    char name[32];

    name_of(a->writer, a->number, name);
    assert_int_equal(store_lookup(s, STORE_BLOCK, INO_ROOT, name, &attr), 0);
    assert_int_equal(store_read(s, STORE_BLOCK, attr.ino, 0, found, size + 1, &got), 0);
    assert_int_equal(got, size);
    assert_memory_equal(found, right, size);
    free(right);
    free(found);
}

// Runs a child until it dies; returns how many acknowledgements it had got.
static unsigned kill_in(const char *dir, struct io *io, int rank, long long n)
{
    const struct verify_options verify = {0};
    struct verify_result result;
    char message[512];
    struct ack a;
    unsigned acks = 0;
    int fds[2], status;

    assert_int_equal(engine_create(io, &options, &cred), 0);
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        ack_fd = fds[1];
        child(dir, rank, n);
    }
    close(fds[1]);
    struct ack *list = NULL;

    while (read(fds[0], &a, sizeof(a)) == sizeof(a)) {
        list = realloc(list, (acks + 1) * sizeof(a));
        assert_non_null(list);
        list[acks++] = a;
    }
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("the child ended by itself, with status %d", status);
    int err = engine_open(io, &options, &engine, message, sizeof(message));
    if (err < 0)
        fail_msg("killed in a lock of rank %d, %lld: %s", rank, n, message);
    for (unsigned i = 0; i < acks; i++)
        check_one(engine_store(engine), &list[i]);
    assert_int_equal(engine_close(engine), 0);
    assert_int_equal(verify_image(io, &verify, &result), 0);
    assert_int_equal(result.damage, 0);
    free(list);
    return acks;
}

static void test_a_kill_inside_each_lock_loses_nothing(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 12);
    const char *base = getenv("TMPDIR");

    (void)state;
    for (int rank = LOCK_RANK_CKPT; rank <= LOCK_RANK_IO; rank++) {
        struct rng r = {rng_mix(seed, (uint64_t)rank)};
        uint64_t acks = 0;

        for (uint64_t i = 0; i < (runs ? runs : 200); i++) {
            char dir[300];
            struct io *io;

            snprintf(dir, sizeof(dir), "%s/aerofs-locks.XXXXXX", base ? base : "/tmp");
            assert_non_null(mkdtemp(dir));
            assert_int_equal(io_plain_open(dir, false, &io), 0);
            // Checkpoints take theirs seldom.
            acks += kill_in(dir, io, rank,
                            (long long)rng_below(&r, rank == LOCK_RANK_CKPT ? 60 : 3000));
            io->ops->destroy(io);
            real_dir_remove(dir);
        }
        printf("  rank %d: %llu kills, %llu acknowledged, none lost\n", rank,
               (unsigned long long)(runs ? runs : 200), (unsigned long long)acks);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_kill_inside_each_lock_loses_nothing),
    };

    return cmocka_run_group_tests_name("locks", tests, NULL, NULL);
}
