// SPDX-License-Identifier: MIT
// One measurement of one workload in one directory, on whatever file system that is.
// tests/bench/run alternates two sides, repeats, and makes the table; this program only does the
// work and prints one number: operations or MiB per second.
//
// Each client is a process. All start together; the rate is the number of operations over the time
// from the start to the end of the last client.

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <dirent.h>

#define BLOCK       4096u
#define CLIENTS_MAX 64

static char block[1u << 20];

struct job {
    const char *dir;
    unsigned clients;
    unsigned operations; // of each client
    unsigned client;     // own number
    bool atomic_rename;  // native side of `replace`
};

static void die(const char *what, const char *path)
{
    fprintf(stderr, "bench: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static void nap(long ns)
{
    struct timespec t = {.tv_nsec = ns};

    nanosleep(&t, NULL);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void put(const char *path, int flags, size_t bytes, bool sync)
{
    int fd = open(path, O_WRONLY | O_CREAT | flags, 0644);

    if (fd < 0)
        die("open", path);
    if (write(fd, block, bytes) != (ssize_t)bytes)
        die("write", path);
    if (sync && fsync(fd) != 0)
        die("fsync", path);
    if (close(fd) != 0)
        die("close", path);
}

static void file_path(char *path, size_t size, const struct job *j, bool shared, unsigned i)
{
    if (shared)
        snprintf(path, size, "%s/c%u-%u", j->dir, j->client, i);
    else
        snprintf(path, size, "%s/%u/f%u", j->dir, j->client, i);
}

// ---- workloads of one client ----

static void own_directory(const struct job *j)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%u", j->dir, j->client);
    if (mkdir(path, 0755) != 0)
        die("mkdir", path);
}

static void create(const struct job *j, bool shared, bool sync, size_t bytes)
{
    char path[4096];

    for (unsigned i = 0; i < j->operations; i++) {
        file_path(path, sizeof(path), j, shared, i);
        put(path, O_EXCL, bytes, sync);
    }
}

static void create_own(const struct job *j)
{
    create(j, false, true, BLOCK);
}
static void create_shared(const struct job *j)
{
    create(j, true, true, BLOCK);
}
static void create_small(const struct job *j)
{
    create(j, false, false, 1024);
}

static void prepare_one(const struct job *j)
{
    char path[4096];

    own_directory(j);
    file_path(path, sizeof(path), j, false, 0);
    put(path, 0, BLOCK, true);
}

static void overwrite(const struct job *j)
{
    char path[4096];

    file_path(path, sizeof(path), j, false, 0);
    int fd = open(path, O_WRONLY);

    if (fd < 0)
        die("open", path);
    for (unsigned i = 0; i < j->operations; i++)
        if (pwrite(fd, block, BLOCK, 0) != BLOCK || fsync(fd) != 0)
            die("overwrite", path);
    close(fd);
}

// Atomic durable replacement of a file's content: what a careful program does on a native file
// system, and what does the same on AeroFS.
static void replace(const struct job *j)
{
    char path[4096], temporary[4096], dir[4096];

    file_path(path, sizeof(path), j, false, 0);
    snprintf(temporary, sizeof(temporary), "%s/%u/tmp", j->dir, j->client);
    snprintf(dir, sizeof(dir), "%s/%u", j->dir, j->client);
    for (unsigned i = 0; i < j->operations; i++) {
        if (!j->atomic_rename) {
            put(path, O_TRUNC, BLOCK, true);
            continue;
        }
        put(temporary, O_TRUNC, BLOCK, true);
        if (rename(temporary, path) != 0)
            die("rename", path);
        int fd = open(dir, O_RDONLY | O_DIRECTORY);

        if (fd < 0 || fsync(fd) != 0)
            die("fsync", dir);
        close(fd);
    }
}

static void prepare_many(const struct job *j)
{
    own_directory(j);
    create_small(j);
}

static void stat_all(const struct job *j)
{
    char path[4096];
    struct stat st;

    for (unsigned i = 0; i < j->operations; i++) {
        file_path(path, sizeof(path), j, false, i);
        if (stat(path, &st) != 0)
            die("stat", path);
    }
}

static void list_all(const struct job *j)
{
    char path[4096];
    unsigned found = 0;

    snprintf(path, sizeof(path), "%s/%u", j->dir, j->client);
    DIR *d = opendir(path);

    if (!d)
        die("opendir", path);
    for (struct dirent *e; (e = readdir(d));)
        found += e->d_name[0] != '.';
    closedir(d);
    if (found != j->operations)
        die("listing is short", path);
}

static void delete_all(const struct job *j)
{
    char path[4096];

    for (unsigned i = 0; i < j->operations; i++) {
        file_path(path, sizeof(path), j, false, i);
        if (unlink(path) != 0)
            die("unlink", path);
    }
}

// `operations` is a number of MiB here.
static void prepare_large(const struct job *j)
{
    char path[4096];

    own_directory(j);
    file_path(path, sizeof(path), j, false, 0);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);

    if (fd < 0)
        die("open", path);
    for (unsigned i = 0; i < j->operations; i++)
        if (write(fd, block, sizeof(block)) != sizeof(block))
            die("write", path);
    if (fsync(fd) != 0)
        die("fsync", path);
    close(fd);
}

static void write_large(const struct job *j)
{
    prepare_large(j);
}

static void read_large(const struct job *j)
{
    char path[4096];
    uint64_t bytes = 0;
    ssize_t n;

    file_path(path, sizeof(path), j, false, 0);
    int fd = open(path, O_RDONLY);

    if (fd < 0)
        die("open", path);
    while ((n = read(fd, block, sizeof(block))) > 0)
        bytes += (uint64_t)n;
    if (n < 0 || bytes != (uint64_t)j->operations << 20)
        die("read", path);
    close(fd);
}

static void prepare_warm(const struct job *j)
{
    prepare_large(j);
    read_large(j);
}

static void drop_caches(void)
{
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

    sync();
    if (fd < 0 || write(fd, "3", 1) != 1)
        die("write", "/proc/sys/vm/drop_caches");
    close(fd);
}

static void prepare_cold(const struct job *j)
{
    prepare_large(j);
    drop_caches();
}

static void read_random(const struct job *j)
{
    char path[4096];
    uint64_t seed = 88172645463325252u + j->client;

    file_path(path, sizeof(path), j, false, 0);
    int fd = open(path, O_RDONLY);

    if (fd < 0)
        die("open", path);
    for (unsigned i = 0; i < j->operations * 256u; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        if (pread(fd, block, BLOCK, (off_t)(seed % ((uint64_t)j->operations << 8)) * BLOCK) !=
            BLOCK)
            die("pread", path);
    }
    close(fd);
}

struct workload {
    const char *name;
    void (*prepare)(const struct job *j);
    void (*run)(const struct job *j);
    unsigned scale; // what is counted for one operation
};

static const struct workload WORKLOADS[] = {
    {"create", own_directory, create_own, 1},
    {"create-shared", NULL, create_shared, 1},
    {"overwrite", prepare_one, overwrite, 1},
    {"replace", prepare_one, replace, 1},
    {"small-create", own_directory, create_small, 1},
    {"small-stat", prepare_many, stat_all, 1},
    {"small-list", prepare_many, list_all, 1},
    {"small-delete", prepare_many, delete_all, 1},
    {"write", NULL, write_large, 1},
    {"read-cold", prepare_cold, read_large, 1},
    {"read-warm", prepare_warm, read_large, 1},
    {"read-random", prepare_warm, read_random, 256},
};

struct gate { // shared by the clients
    atomic_uint ready, failed;
    atomic_bool go;
};

static void client(const struct workload *w, const struct job *j, struct gate *gate)
{
    if (w->prepare)
        w->prepare(j);
    atomic_fetch_add(&gate->ready, 1);
    while (!atomic_load(&gate->go))
        nap(100000);
    w->run(j);
    exit(0);
}

static double measure(const struct workload *w, struct job *j)
{
    struct gate *gate =
        mmap(NULL, sizeof(*gate), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pids[CLIENTS_MAX];
    double start;

    if (gate == MAP_FAILED)
        die("mmap", "");
    for (unsigned i = 0; i < j->clients; i++) {
        j->client = i;
        pids[i] = fork();
        if (pids[i] < 0)
            die("fork", "");
        if (pids[i] == 0)
            client(w, j, gate);
    }
    while (atomic_load(&gate->ready) < j->clients) {
        int status;

        if (waitpid(-1, &status, WNOHANG) > 0)
            exit(1); // a client failed while preparing and has said why
        nap(500000);
    }
    start = now();
    atomic_store(&gate->go, true);
    for (unsigned i = 0; i < j->clients; i++) {
        int status;

        if (waitpid(pids[i], &status, 0) < 0 || status != 0)
            exit(1);
    }
    return (double)j->operations * j->clients * w->scale / (now() - start);
}

int main(int argc, char **argv)
{
    struct job j = {0};

    if (argc < 5) {
        fprintf(stderr, "usage: bench WORKLOAD DIR CLIENTS OPERATIONS [rename]\n");
        return 2;
    }
    j.dir = argv[2];
    j.clients = (unsigned)strtoul(argv[3], NULL, 10);
    j.operations = (unsigned)strtoul(argv[4], NULL, 10);
    j.atomic_rename = argc > 5;
    if (j.clients == 0 || j.clients > CLIENTS_MAX || j.operations == 0) {
        fprintf(stderr, "bench: 1 to %d clients, at least one operation\n", CLIENTS_MAX);
        return 2;
    }
    memset(block, 'a', sizeof(block));
    for (size_t i = 0; i < sizeof(WORKLOADS) / sizeof(WORKLOADS[0]); i++) {
        if (strcmp(WORKLOADS[i].name, argv[1]) == 0) {
            printf("%.1f\n", measure(&WORKLOADS[i], &j));
            return 0;
        }
    }
    fprintf(stderr, "bench: no workload %s\n", argv[1]);
    return 2;
}
