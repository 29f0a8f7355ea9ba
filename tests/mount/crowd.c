// SPDX-License-Identifier: MIT
// Many clients at once.
//
//   crowd mix DIRECTORY THREADS OPERATIONS SEED one|many
//   crowd calls DIRECTORY MS
//   crowd read FILE MS BYTES
//   crowd write DIRECTORY THREADS BYTES SECONDS
//   crowd fsync DIRECTORY THREADS ROUNDS
//   crowd lookup DIRECTORY COUNT
//
// mix: each thread changes its own keys, in one directory or in one each, and verifies every byte.
//
// calls: what needs no disk, one call after the other; prints the longest, in ms.
//
// read: past the kernel's cache, at random offsets; prints the longest, in ms.
//
// write: overwrites files, without fsync; prints how many.
//
// fsync: creates, writes, syncs, closes; prints the shortest fsync, in ms.
//
// lookup: stat of COUNT names, in turn existing (0 to 9999) and absent.

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KEYS        8
#define BYTES_MAX   20000
#define THREADS_MAX 256
#define PATH_BYTES  1024

static const char *directory;
static unsigned long operations, bytes_each;
static double deadline;

static void die(const char *what, const char *path)
{
    fprintf(stderr, "crowd: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static uint64_t rng_next(uint64_t *s)
{
    *s += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = *s;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

// ---- mix ----

struct client {
    pthread_t thread;
    unsigned number;
    uint64_t rng;
    bool own_directory;
    char base[PATH_BYTES / 2];
    uint64_t version[KEYS]; // of its content; 0: absent
    size_t size[KEYS];
};

static void key_path(const struct client *c, unsigned key, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/t%u-%u", c->base, c->number, key);
}

static void fill(uint8_t *bytes, size_t size, uint64_t version)
{
    for (size_t i = 0; i < size; i += 8) {
        uint64_t v = rng_next(&version);
        memcpy(bytes + i, &v, size - i < 8 ? size - i : 8);
    }
}

static void put(struct client *c, unsigned key, bool sync)
{
    uint8_t bytes[BYTES_MAX + 8];
    char path[PATH_BYTES];
    uint64_t version = rng_next(&c->rng) | 1;
    size_t size = rng_next(&c->rng) % BYTES_MAX;

    key_path(c, key, path);
    fill(bytes, size, version);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        die("open", path);
    if (write(fd, bytes, size) != (ssize_t)size)
        die("write", path);
    if (sync && fsync(fd))
        die("fsync", path);
    if (close(fd))
        die("close", path);
    c->version[key] = version;
    c->size[key] = size;
}

static void check(const struct client *c, unsigned key)
{
    uint8_t found[BYTES_MAX + 8], expected[BYTES_MAX + 8];
    char path[PATH_BYTES];

    key_path(c, key, path);
    int fd = open(path, O_RDONLY);
    if (fd < 0 && errno == ENOENT && !c->version[key])
        return;
    if (fd < 0 || !c->version[key])
        die("is there, or not, against the rules:", path);
    ssize_t n = read(fd, found, sizeof(found));
    close(fd);
    fill(expected, c->size[key], c->version[key]);
    if (n != (ssize_t)c->size[key] || memcmp(found, expected, c->size[key]) != 0) {
        errno = 0;
        die("holds other bytes:", path);
    }
}

static void move(struct client *c, unsigned from, unsigned to)
{
    char a[PATH_BYTES], b[PATH_BYTES];

    key_path(c, from, a);
    key_path(c, to, b);
    if (rename(a, b) == 0) {
        if (!c->version[from])
            die("renamed what is not there:", a);
        c->version[to] = c->version[from];
        c->size[to] = c->size[from];
        if (from != to)
            c->version[from] = 0;
    } else if (errno != ENOENT || c->version[from]) {
        die("rename", a);
    }
}

static void drop(struct client *c, unsigned key)
{
    char path[PATH_BYTES];

    key_path(c, key, path);
    if (unlink(path) ? errno != ENOENT || c->version[key] : !c->version[key])
        die("unlink", path);
    c->version[key] = 0;
}

static void *mix_main(void *arg)
{
    struct client *c = arg;

    if (c->own_directory && mkdir(c->base, 0755) && errno != EEXIST)
        die("mkdir", c->base);
    for (unsigned long i = 0; i < operations; i++) {
        unsigned key = (unsigned)(rng_next(&c->rng) % KEYS);
        switch (rng_next(&c->rng) % 8) {
        case 0:
        case 1:
            put(c, key, false);
            break;
        case 2:
            put(c, key, true);
            break;
        case 3:
            move(c, key, (unsigned)(rng_next(&c->rng) % KEYS));
            break;
        case 4:
            drop(c, key);
            break;
        default:
            check(c, key);
        }
    }
    for (unsigned key = 0; key < KEYS; key++)
        check(c, key);
    return NULL;
}

static void run_clients(unsigned threads, uint64_t seed, bool many, void *(*body)(void *))
{
    static struct client clients[THREADS_MAX];

    for (unsigned i = 0; i < threads; i++) {
        struct client *c = &clients[i];
        *c = (struct client){.number = i, .rng = seed * 1000 + i, .own_directory = many};
        snprintf(c->base, sizeof(c->base), many ? "%s/d%u" : "%s", directory, i);
        if (pthread_create(&c->thread, NULL, body, c))
            die("pthread_create", "");
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(clients[i].thread, NULL);
}

// ---- waiting times ----

static double longest;

static void timed(double since, const char *what)
{
    double ms = now_ms() - since;

    if (ms > longest) {
        longest = ms;
        fprintf(stderr, "%s: %.1f ms\n", what, ms);
    }
}

// One of each call that changes or asks, none of which needs the disk.
static void calls_round(unsigned long i)
{
    char a[PATH_BYTES], b[PATH_BYTES], bytes[512] = "bytes";
    struct stat st;

    snprintf(a, sizeof(a), "%s/calls-%lu", directory, i % 16);
    snprintf(b, sizeof(b), "%s/calls-other-%lu", directory, i % 16);
    double t = now_ms();
    int fd = open(a, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, bytes, sizeof(bytes)) != sizeof(bytes))
        die("write", a);
    timed(t, "create and write"), t = now_ms();
    if (pread(fd, bytes, sizeof(bytes), 0) != sizeof(bytes) || close(fd))
        die("read", a);
    timed(t, "read and close"), t = now_ms();
    if (rename(a, b))
        die("rename", a);
    timed(t, "rename"), t = now_ms();
    if (stat(b, &st) || chmod(b, i % 2 ? 0600 : 0640))
        die("chmod", b);
    timed(t, "stat and chmod"), t = now_ms();
    if (link(b, a) || unlink(b) || unlink(a))
        die("link", b);
    timed(t, "link and unlink"), t = now_ms();
    if (mkdir(a, 0755) || rmdir(a))
        die("mkdir", a);
    timed(t, "mkdir and rmdir");
}

static int calls(double ms)
{
    double end = now_ms() + ms;

    for (unsigned long i = 0; now_ms() < end; i++)
        calls_round(i);
    printf("%.0f\n", longest);
    return 0;
}

static int read_past_cache(const char *path, double ms, size_t bytes)
{
    uint64_t rng = 1;
    struct stat st;
    void *buffer;
    int fd = open(path, O_RDONLY | O_DIRECT);

    if (fd < 0 || fstat(fd, &st) || posix_memalign(&buffer, 4096, bytes))
        die("open", path);
    for (double end = now_ms() + ms; now_ms() < end;) {
        uint64_t at = rng_next(&rng) % ((uint64_t)st.st_size / bytes) * bytes;
        double t = now_ms();
        if (pread(fd, buffer, bytes, (off_t)at) != (ssize_t)bytes)
            die("read", path);
        timed(t, "read");
    }
    printf("%.0f\n", longest);
    return 0;
}

static unsigned long written;

static void *write_main(void *arg)
{
    struct client *c = arg;
    char path[PATH_BYTES];
    char *bytes = malloc(bytes_each);

    if (!bytes)
        die("malloc", "");
    memset(bytes, (int)c->number, bytes_each);
    for (unsigned i = 0; now_ms() < deadline; i++) {
        key_path(c, i % 4, path);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (fd < 0 || write(fd, bytes, bytes_each) != (ssize_t)bytes_each || close(fd))
            die("write", path);
        __atomic_fetch_add(&written, 1, __ATOMIC_RELAXED);
    }
    free(bytes);
    return NULL;
}

static pthread_mutex_t shortest_lock = PTHREAD_MUTEX_INITIALIZER;
static double shortest = 1e9;

static void *fsync_main(void *arg)
{
    struct client *c = arg;
    char path[PATH_BYTES];

    for (unsigned long i = 0; i < operations; i++) {
        snprintf(path, sizeof(path), "%s/fsync-%u-%lu", directory, c->number, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (fd < 0 || write(fd, path, sizeof(path)) != sizeof(path))
            die("write", path);
        double t = now_ms();
        if (fsync(fd) || close(fd))
            die("fsync", path);
        t = now_ms() - t;
        pthread_mutex_lock(&shortest_lock);
        shortest = t < shortest ? t : shortest;
        pthread_mutex_unlock(&shortest_lock);
    }
    return NULL;
}

static int lookup(unsigned long count)
{
    char path[PATH_BYTES];
    struct stat st;

    for (unsigned long i = 0; i < count; i++) {
        bool there = i % 2 == 0;
        snprintf(path, sizeof(path), "%s/%s%lu", directory, there ? "" : "absent-",
                 there ? i / 2 % 10000 : i);
        if (stat(path, &st) ? there || errno != ENOENT : !there)
            die("stat", path);
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 3 ? argv[1] : "";
    unsigned long n = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;

    directory = argc > 2 ? argv[2] : ".";
    if (strcmp(mode, "mix") == 0 && argc == 7 && n <= THREADS_MAX) {
        operations = strtoul(argv[4], NULL, 10);
        run_clients((unsigned)n, strtoul(argv[5], NULL, 10), strcmp(argv[6], "many") == 0,
                    mix_main);
        return 0;
    }
    if (strcmp(mode, "calls") == 0)
        return calls((double)n);
    if (strcmp(mode, "read") == 0 && argc == 5)
        return read_past_cache(directory, (double)n, strtoul(argv[4], NULL, 10));
    if (strcmp(mode, "lookup") == 0)
        return lookup(n);
    if (strcmp(mode, "write") == 0 && argc == 6 && n <= THREADS_MAX) {
        bytes_each = strtoul(argv[4], NULL, 10);
        deadline = now_ms() + strtod(argv[5], NULL) * 1e3;
        run_clients((unsigned)n, 1, false, write_main);
        printf("%lu\n", written);
        return 0;
    }
    if (strcmp(mode, "fsync") == 0 && argc == 5 && n <= THREADS_MAX) {
        operations = strtoul(argv[4], NULL, 10);
        run_clients((unsigned)n, 1, false, fsync_main);
        printf("%.0f\n", shortest);
        return 0;
    }
    fputs("crowd: see the head of tests/mount/crowd.c\n", stderr);
    return 2;
}
