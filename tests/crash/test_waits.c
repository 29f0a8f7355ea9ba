// SPDX-License-Identifier: MIT
// Nothing depends on how long the disk takes, or on who gets to run: an operation that does not
// return acknowledges nothing and fails nothing, however long, and its late success is one
// acknowledgement; delays change no result; threads that are held up lose nothing.
//
//   SEED=n  RUNS=n
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/rng.h"
#include "tests/unit/test_engine_rig.h"

// ---- a flush that does not return ----

struct told {
    struct wal_waiter w;
    unsigned count;
    int result;
};

static void note_told(struct wal_waiter *w, int result)
{
    struct told *t = AF_CONTAINER_OF(w, struct told, w);

    t->count++;
    t->result = result;
}

// A new file whose fsync is asked for and not waited for.
static struct store_file *ask(struct world *w, size_t size, struct told *told)
{
    static uint8_t bytes[CONTENT_MAX];
    struct store *s = engine_store(w->engine);
    struct store_file *file;
    struct store_attr attr;

    content_of("new", 1, size, bytes);
    assert_int_equal(
        store_create(s, STORE_BLOCK, INO_ROOT, "new", S_IFREG | 0644, O_RDWR, &cred, &attr, &file),
        0);
    assert_int_equal(store_write(s, STORE_BLOCK, file, 0, bytes, size, false), 0);
    *told = (struct told){.w.done = note_told};
    assert_int_equal(store_fsync(s, STORE_BLOCK, attr.ino, &told->w), 0);
    store_kick(s);
    return file;
}

static void pass_time(struct world *w, unsigned seconds)
{
    for (unsigned i = 0; i < seconds; i++) {
        sim_advance_ms(w->sim, 1000);
        assert_true(wal_pump(engine_wal(w->engine), false) >= 0);
        engine_tick(w->engine);
    }
}

enum end { END_RELEASED, END_KILLED, END_POWER_CUT, ENDS };

// From the nth operation on all are held. False: there are not so many.
static bool hold_from(uint64_t nth, size_t size, unsigned seconds, enum end end)
{
    const struct sim_fault hold = {.calls = SIM_BIT(SIM_START_WRITE) | SIM_BIT(SIM_START_SYNC),
                                   .skip = nth,
                                   .times = SIM_FOREVER,
                                   .effect = SIM_FAULT_HOLD};
    struct world *w = world_create();
    struct engine_status status;
    struct told told;

    must_open(w);
    must_put(w, "old", 1, 70000);
    unsigned number = sim_fault_add(w->sim, &hold);
    struct store_file *file = ask(w, size, &told);

    pass_time(w, seconds);
    bool hit = sim_fault_hits(w->sim, number) > 0;
    // What is held later than the flush itself, such as its attestation, keeps nobody waiting.
    assert_true(hit || told.count == 1);
    assert_true(nth > 0 || told.count == 0);
    engine_get_status(w->engine, &status);
    assert_string_equal(status.state, "running");
    if (hit && end == END_RELEASED) {
        sim_faults_clear(w->sim);
        sim_release_held(w->sim);
        pass_time(w, 3);
        assert_int_equal(told.count, 1);
    }
    assert_true(told.count == 0 || told.result == 0);
    bool acked = told.count > 0;

    if (acked)
        assert_int_equal(store_release(engine_store(w->engine), STORE_BLOCK, file), 0);
    else
        (void)!store_release(engine_store(w->engine), STORE_BLOCK, file);
    world_crash(w, end == END_POWER_CUT, SIM_CUT_RANDOM, nth);
    assert_int_equal(told.count, 1);           // at the latest when the log is closed,
    assert_int_equal(told.result == 0, acked); // and then it is no success
    must_open(w);
    assert_true(has(w->engine, "old", 1, 70000));
    assert_true(has(w->engine, "new", 1, size) || !acked);
    must_close(w);
    must_be_sound(w);
    world_destroy(w);
    return hit;
}

static void test_a_flush_that_does_not_return_acknowledges_nothing(void **state)
{
    static const size_t sizes[] = {300, 90000}; // the latter syncs data first
    unsigned held = 0;

    (void)state;
    for (size_t s = 0; s < AF_ARRAY_LEN(sizes); s++)
        for (unsigned end = 0; end < ENDS; end++)
            for (uint64_t nth = 0; hold_from(
                     nth, sizes[s], nth == 0 && end == END_RELEASED ? 3600 : 61, (enum end)end);
                 nth++)
                held++;
    printf("  %u times held\n", held);
    assert_true(held >= 9);
}

// ---- delays of every call ----

struct delays {
    struct sim *sim;
    struct rng r;
    uint64_t ticks;
};

// Up to ten minutes, at each event.
static void delay(void *arg, const struct sim_event *event)
{
    struct delays *d = arg;

    (void)event;
    d->ticks += rng_below(&d->r, 3) ? rng_below(&d->r, 100) : rng_below(&d->r, 600000);
    sim_set_ticks_ms(d->sim, d->ticks);
}

static uint64_t tree_of(struct world *w)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < 30; i++) {
        char name[32];

        snprintf(name, sizeof(name), "f%u", i);
        sum = sum * 3 + has(w->engine, name, i, 200 + 3000 * (i % 7));
    }
    return sum;
}

// The same work; returns the number of records and what is there after a crash.
static uint64_t delayed_work(uint64_t seed, uint64_t *ret_records)
{
    struct world *w = world_create();
    struct delays d = {.sim = w->sim, .r = {seed}, .ticks = 1000};

    must_open(w);
    if (seed) {
        sim_set_event_hook(w->sim, delay, &d);
        sim_set_lazy(w->sim, seed % 2);
    }
    for (unsigned i = 0; i < 30; i++) {
        char name[32];

        snprintf(name, sizeof(name), "f%u", i);
        must_put(w, name, i, 200 + 3000 * (i % 7));
        if (i % 12 == 11)
            assert_int_equal(engine_checkpoint(w->engine), 0);
    }
    *ret_records = wal_appended_lsn(engine_wal(w->engine));
    world_crash(w, true, SIM_CUT_DROP_ALL, 1);
    must_open(w);
    uint64_t tree = tree_of(w);

    must_close(w);
    must_be_sound(w);
    world_destroy(w);
    return tree;
}

static void test_delays_change_no_result(void **state)
{
    uint64_t runs = env_number("RUNS", 20), seed = env_number("SEED", 1), records, late_records;
    uint64_t tree = delayed_work(0, &records);

    (void)state;
    for (uint64_t i = 0; i < runs; i++) {
        assert_true(delayed_work(seed + i, &late_records) == tree);
        assert_int_equal(late_records, records);
    }
}

// ---- threads that are held up ----

#define WRITERS 3

struct writer {
    struct engine *engine;
    unsigned number;
    int report; // pipe
};

// What every writer writes, so that it can be checked from its name.
static size_t piece(unsigned writer, unsigned count, uint8_t *bytes)
{
    char name[32];
    size_t size = 100 + (count * 977u) % 20000;

    snprintf(name, sizeof(name), "w%u-%u", writer, count);
    content_of(name, count, size, bytes);
    return size;
}

static void *write_files(void *arg)
{
    struct writer *me = arg;
    struct store *s = engine_store(me->engine);
    uint8_t bytes[20100];

    for (unsigned count = 0;; count++) {
        struct store_file *file;
        struct store_attr attr;
        char name[32];
        size_t size = piece(me->number, count, bytes);

        snprintf(name, sizeof(name), "w%u-%u", me->number, count);
        if (store_create(s, STORE_BLOCK, INO_ROOT, name, S_IFREG | 0644, O_RDWR, &cred, &attr,
                         &file) < 0 ||
            store_write(s, STORE_BLOCK, file, 0, bytes, size, false) < 0 ||
            store_release(s, STORE_BLOCK, file) < 0 || engine_sync(me->engine) < 0)
            _exit(3);
        const unsigned done[2] = {me->number, count};
        if (write(me->report, done, sizeof(done)) != (ssize_t)sizeof(done))
            _exit(4);
    }
    return NULL;
}

static void hold_up(int signal)
{
    const struct timespec moment = {.tv_nsec = 40000000};

    (void)signal;
    (void)nanosleep(&moment, NULL);
}

// Holds up a thread of this process, chosen by the seed, again and again: writers, the checkpoint
// thread, the helper of the disk.
static void starve(struct rng *r)
{
    const struct timespec moment = {.tv_nsec = 5000000};
    long me = syscall(SYS_gettid);

    for (;;) {
        long threads[64];
        size_t count = 0;
        DIR *dir = opendir("/proc/self/task");

        for (struct dirent *e; dir && count < 64 && (e = readdir(dir));)
            if (strtol(e->d_name, NULL, 10) > 0 && strtol(e->d_name, NULL, 10) != me)
                threads[count++] = strtol(e->d_name, NULL, 10);
        if (dir)
            closedir(dir);
        if (count > 0)
            (void)syscall(SYS_tgkill, getpid(), threads[rng_below(r, count)], SIGUSR1);
        (void)nanosleep(&moment, NULL);
    }
}

static void run_child(const char *dir, uint64_t seed, int report)
{
    static struct writer writers[WRITERS];
    struct sigaction action = {.sa_handler = hold_up, .sa_flags = SA_RESTART};
    struct engine_options o = {.log_bytes = 1 << 20, .cache_bytes = 4 << 20, .threads = true};
    struct rng r = {seed};
    struct engine *e;
    pthread_t thread;
    struct io *io;

    if (sigaction(SIGUSR1, &action, NULL) < 0 ||
        io_open(dir, seed % 2 ? "plain" : NULL, false, &io) < 0 ||
        engine_create(io, &o, &cred) < 0 || engine_open(io, &o, &e, NULL, 0) < 0)
        _exit(2);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.engine = e, .number = i, .report = report};
        if (pthread_create(&thread, NULL, write_files, &writers[i]) != 0)
            _exit(5);
    }
    starve(&r);
}

// Returns how many files were acknowledged before the kill; all of them must be there.
static unsigned check_reported(const char *dir, int report)
{
    static uint8_t expected[20100], found[20100];
    struct engine_options o = {.log_bytes = 1 << 20, .cache_bytes = 4 << 20};
    struct engine *e;
    struct io *io;
    unsigned acked = 0, done[2];

    assert_int_equal(io_open(dir, NULL, false, &io), 0);
    assert_int_equal(engine_open(io, &o, &e, NULL, 0), 0);
    while (read(report, done, sizeof(done)) == (ssize_t)sizeof(done)) {
        struct store_attr attr;
        char name[32];
        size_t size = piece(done[0], done[1], expected), got;

        snprintf(name, sizeof(name), "w%u-%u", done[0], done[1]);
        assert_int_equal(store_lookup(engine_store(e), STORE_BLOCK, INO_ROOT, name, &attr), 0);
        assert_int_equal(
            store_read(engine_store(e), STORE_BLOCK, attr.ino, 0, found, sizeof(found), &got), 0);
        assert_int_equal(got, size);
        assert_memory_equal(found, expected, size);
        acked++;
    }
    assert_int_equal(engine_close(e), 0);
    io->ops->destroy(io);
    return acked;
}

static void test_threads_that_are_held_up_lose_nothing(void **state)
{
    const char *top = getenv("TEST_DIR") ? getenv("TEST_DIR") : ".";
    uint64_t runs = env_number("RUNS", 6), seed = env_number("SEED", 1);
    unsigned acked = 0;

    (void)state;
    for (uint64_t i = 0; i < runs; i++) {
        const struct timespec time = {.tv_nsec = 500000000};
        char dir[300], command[400];
        int report[2], status;

        snprintf(dir, sizeof(dir), "%s/starved.%ld", top, (long)getpid());
        assert_int_equal(mkdir(dir, 0700), 0);
        assert_int_equal(pipe(report), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            close(report[0]);
            run_child(dir, seed + i, report[1]);
        }
        close(report[1]);
        struct pollfd first = {.fd = report[0], .events = POLLIN};
        assert_int_equal(poll(&first, 1, 120000), 1); // it runs
        (void)nanosleep(&time, NULL);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail_msg("seed %llu: the process has ended by itself, status %x",
                     (unsigned long long)(seed + i), (unsigned)status);
        acked += check_reported(dir, report[0]);
        close(report[0]);
        snprintf(command, sizeof(command), "rm -rf '%s'", dir);
        assert_int_equal(system(command), 0);
    }
    printf("  %u files acknowledged\n", acked);
    assert_true(acked > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flush_that_does_not_return_acknowledges_nothing),
        cmocka_unit_test(test_delays_change_no_result),
        cmocka_unit_test(test_threads_that_are_held_up_lose_nothing),
    };

    return cmocka_run_group_tests_name("waits", tests, NULL, NULL);
}
