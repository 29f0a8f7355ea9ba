// SPDX-License-Identifier: MIT
// Several descriptors, maps and processes at once, on one mount: everybody sees what the others
// have done, nothing is lost.
//
//   coherence DIRECTORY            all checks
//   coherence DIRECTORY durable    makes files whose content is durable when it returns, for a
//   check after a crash: each
//                                  holds its own name

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

#define EXPECT(condition)                                                              \
    do {                                                                               \
        if (!(condition)) {                                                            \
            fprintf(stderr, "%s:%d: %s (errno: %s)\n", __func__, __LINE__, #condition, \
                    strerror(errno));                                                  \
            failures++;                                                                \
        }                                                                              \
    } while (0)

// `body` in `count` processes; each gets its number.
static void in_processes(int count, void (*body)(int number))
{
    int status;

    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        EXPECT(pid >= 0);
        if (pid == 0) {
            failures = 0;
            body(i);
            exit(failures > 0);
        }
    }
    for (int i = 0; i < count; i++)
        EXPECT(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// ---- one file, several descriptors ----

#define FILE_BYTES ((size_t)3 << 20)

static bool all_are(const uint8_t *bytes, size_t size, uint8_t value)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

// Writes through `writer` and looks through everything else.
static void write_and_look(int writer, const int *readers, int count, const uint8_t *map, off_t at,
                           size_t size, uint8_t value)
{
    static uint8_t out[FILE_BYTES], in[FILE_BYTES];

    memset(out, value, size);
    EXPECT(pwrite(writer, out, size, at) == (ssize_t)size);
    for (int i = 0; i < count; i++)
        EXPECT(pread(readers[i], in, size, at) == (ssize_t)size && all_are(in, size, value));
    EXPECT(all_are(map + at, size, value));
}

static void check_descriptors(void)
{
    static const size_t sizes[] = {1, 100, 4096, 5000, 65536, 100000, 1 << 20, (1 << 20) + 4097};
    static uint8_t zeros[FILE_BYTES];
    uint8_t value = 0;

    int both = open("shared", O_RDWR | O_CREAT | O_TRUNC, 0644);
    EXPECT(write(both, zeros, FILE_BYTES) == (ssize_t)FILE_BYTES);
    int only_writes = open("shared", O_WRONLY), only_reads = open("shared", O_RDONLY);
    const int readers[] = {both, only_reads};
    uint8_t *map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, only_reads, 0);
    uint8_t *write_map = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, both, 0);
    EXPECT(only_writes >= 0 && only_reads >= 0 && map != MAP_FAILED && write_map != MAP_FAILED);
    EXPECT(all_are(map, FILE_BYTES, 0)); // every page is cached now

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (off_t at = 0; at < 3 * 4096; at += 2049) {
            write_and_look(only_writes, readers, 2, map, at, sizes[i], ++value);
            write_and_look(both, readers, 2, map, at + 4096, sizes[i], ++value);
        }
        // Dirty pages of a map under a write through a descriptor: the other bytes of the page
        // stay.
        memset(write_map, ++value, 8192);
        write_and_look(only_writes, readers, 2, map, 1000, 50, (uint8_t)(value + 1));
        EXPECT(all_are(map, 1000, value) && all_are(map + 1050, 8192 - 1050, value));
        value++;
        EXPECT(fsync(only_writes) == 0);
        EXPECT(all_are(map + 1000, 50, value));
    }
    // The size: growth and truncation show everywhere at once.
    struct stat st;
    EXPECT(pwrite(only_writes, "end", 3, FILE_BYTES) == 3 && fstat(only_reads, &st) == 0 &&
           st.st_size == FILE_BYTES + 3);
    EXPECT(ftruncate(both, 5000) == 0 && fstat(only_writes, &st) == 0 && st.st_size == 5000);
    EXPECT(pread(only_reads, zeros, 10, 5000) == 0);
    EXPECT(ftruncate(both, 8192) == 0 && pread(only_reads, zeros, 3192, 5000) == 3192 &&
           all_are(zeros, 3192, 0));
    EXPECT(lseek(only_writes, 0, SEEK_END) == 8192);
    int truncating = open("shared", O_WRONLY | O_TRUNC);
    EXPECT(fstat(only_reads, &st) == 0 && st.st_size == 0 && pread(only_reads, zeros, 10, 0) == 0);
    EXPECT(pwrite(both, "new", 3, 0) == 3 && pread(only_reads, zeros, 10, 0) == 3 &&
           memcmp(zeros, "new", 3) == 0);
    munmap(map, FILE_BYTES);
    munmap(write_map, FILE_BYTES);
    EXPECT(close(truncating) == 0 && close(both) == 0 && close(only_writes) == 0 &&
           close(only_reads) == 0);
    EXPECT(stat("shared", &st) == 0 && st.st_size == 3);
}

// ---- appending ----

#define APPENDERS 8
#define RECORDS   300

static size_t record_size(int number, int i)
{
    return 24 + (size_t)(number * 7919 + i * 104729) % (i % 10 == 0 ? 9000 : 300);
}

static void append(int number)
{
    char record[10000];
    int fd = open("appended", O_WRONLY | O_APPEND);

    EXPECT(fd >= 0);
    for (int i = 0; i < RECORDS; i++) {
        size_t size = record_size(number, i);
        memset(record, 'a' + number, size);
        int n = snprintf(record, sizeof(record), "<%d %d %zu>", number, i, size);
        record[n] = (char)('a' + number);
        record[size - 1] = '\n';
        EXPECT(write(fd, record, size) == (ssize_t)size);
        if (i % 50 == number)
            EXPECT(fsync(fd) == 0);
    }
    EXPECT(close(fd) == 0);
}

static void check_appending(void)
{
    int next[APPENDERS] = {0};
    static char line[10000];

    close(open("appended", O_WRONLY | O_CREAT | O_TRUNC, 0644));
    in_processes(APPENDERS, append);
    FILE *f = fopen("appended", "r");
    EXPECT(f);
    while (f && fgets(line, sizeof(line), f)) {
        int number, i;
        size_t size;
        if (sscanf(line, "<%d %d %zu>", &number, &i, &size) != 3 || number < 0 ||
            number >= APPENDERS) {
            fprintf(stderr, "not a record: %.40s\n", line);
            failures++;
            break;
        }
        EXPECT(i == next[number] && size == record_size(number, i) && strlen(line) == size);
        size_t start = strcspn(line, ">") + 1;
        EXPECT(all_are((const uint8_t *)line + start, size - 1 - start, (uint8_t)('a' + number)));
        next[number]++;
    }
    if (f)
        fclose(f);
    for (int i = 0; i < APPENDERS; i++)
        EXPECT(next[i] == RECORDS);
}

// ---- a reader follows a writer ----

static void check_following(void)
{
    enum { BLOCKS = 3000, SIZE = 1000 };
    static uint8_t in[4 * SIZE];
    int fd = open("grows", O_WRONLY | O_CREAT | O_TRUNC, 0644), status;
    pid_t pid = fork();

    if (pid == 0) {
        uint8_t out[SIZE];
        for (int i = 0; i < BLOCKS; i++) {
            memset(out, 1 + i % 250, SIZE);
            if (write(fd, out, SIZE) != SIZE)
                exit(1);
        }
        exit(0);
    }
    int reader = open("grows", O_RDONLY);
    // What is below the size is what was written there: never zeros, never a piece of something
    // else.
    for (off_t at = 0; at < (off_t)BLOCKS * SIZE;) {
        ssize_t n = pread(reader, in, sizeof(in), at);
        EXPECT(n >= 0);
        bool right = true;
        for (ssize_t i = 0; i < n; i++)
            right &= in[i] == 1 + (at + i) / SIZE % 250;
        EXPECT(right);
        if (n < 0 || !right)
            break;
        at += n;
    }
    EXPECT(waitpid(pid, &status, 0) == pid && status == 0);
    close(reader);
    EXPECT(close(fd) == 0);
}

// ---- one directory, many processes ----

#define STORMERS 16
#define STEPS    250
#define OWN      20
#define STEADY   300

static void name_of(char name[64], int number, int i)
{
    snprintf(name, 64, "storm/own-%d-%d", number, i);
}

// Each changes names of its own, and leaves a file `expect-N` with what it expects.
static void storm(int number)
{
    bool there[OWN] = {0};
    char name[64], other[64];
    unsigned state = (unsigned)number * 7919 + 1;

    for (int step = 0; step < STEPS; step++) {
        state = state * 1103515245 + 12345;
        int i = (int)(state >> 16) % OWN, k = (int)(state >> 8 & 0xffff) % OWN;
        name_of(name, number, i);
        name_of(other, number, k);
        if (!there[i]) {
            int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
            EXPECT(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
            there[i] = true;
            EXPECT(open(name, O_WRONLY | O_CREAT | O_EXCL, 0644) < 0 && errno == EEXIST);
        } else if (step % 3 == 0 && i != k) {
            EXPECT(rename(name, other) == 0);
            there[i] = false;
            there[k] = true;
            EXPECT(access(name, F_OK) < 0 && errno == ENOENT && access(other, F_OK) == 0);
        } else {
            EXPECT(unlink(name) == 0);
            there[i] = false;
            EXPECT(access(name, F_OK) < 0 && errno == ENOENT);
        }
    }
    snprintf(name, sizeof(name), "expect-%d", number);
    FILE *f = fopen(name, "w");
    EXPECT(f);
    for (int i = 0; f && i < OWN; i++)
        fputc(there[i] ? '1' : '0', f);
    if (f)
        EXPECT(fclose(f) == 0);
}

// Entries that nobody touches are in every listing, once.
static void *list_steady(void *arg)
{
    const atomic_bool *stop = arg;
    int i;

    while (!atomic_load(stop)) {
        unsigned char seen[STEADY] = {0};
        DIR *dir = opendir("storm");
        EXPECT(dir);
        for (const struct dirent *e; dir && (e = readdir(dir));)
            if (sscanf(e->d_name, "steady-%d", &i) == 1 && i >= 0 && i < STEADY)
                seen[i]++;
        closedir(dir);
        for (i = 0; i < STEADY; i++)
            EXPECT(seen[i] == 1);
    }
    return NULL;
}

static void check_storm(void)
{
    char name[64];
    atomic_bool stop = false;
    pthread_t thread;

    EXPECT(mkdir("storm", 0755) == 0);
    for (int i = 0; i < STEADY; i++) {
        snprintf(name, sizeof(name), "storm/steady-%d", i);
        close(open(name, O_WRONLY | O_CREAT, 0644));
    }
    EXPECT(pthread_create(&thread, NULL, list_steady, &stop) == 0);
    in_processes(STORMERS, storm);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);

    static char expect[STORMERS][OWN + 1], found[STORMERS][OWN + 1];
    for (int number = 0; number < STORMERS; number++) {
        snprintf(name, sizeof(name), "expect-%d", number);
        FILE *f = fopen(name, "r");
        EXPECT(f && fread(expect[number], 1, OWN, f) == OWN);
        if (f)
            fclose(f);
        memset(found[number], '0', OWN);
    }
    DIR *dir = opendir("storm");
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        int number, i;
        if (sscanf(e->d_name, "own-%d-%d", &number, &i) != 2)
            continue;
        EXPECT(number >= 0 && number < STORMERS && i >= 0 && i < OWN && found[number][i] == '0');
        found[number][i] = '1';
    }
    closedir(dir);
    for (int number = 0; number < STORMERS; number++)
        EXPECT(memcmp(expect[number], found[number], OWN) == 0);
}

// ---- many names of one file, directories moved about ----

static void move(int number)
{
    char name[64], moved[64];

    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "tree/%d", number);
        snprintf(moved, sizeof(moved), "tree/x%d/%d", (number + i) % 4, number);
        EXPECT(mkdir(name, 0755) == 0);
        EXPECT(rename(name, moved) == 0);
        EXPECT(link("tree/file", name) == 0 && unlink(name) == 0);
        EXPECT(rmdir(moved) == 0);
    }
}

static void check_moving(void)
{
    struct stat st;
    char name[64];

    EXPECT(mkdir("tree", 0755) == 0);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "tree/x%d", i);
        EXPECT(mkdir(name, 0755) == 0);
    }
    close(open("tree/file", O_WRONLY | O_CREAT, 0644));
    in_processes(8, move);
    EXPECT(stat("tree", &st) == 0 && st.st_nlink == 6);
    EXPECT(stat("tree/file", &st) == 0 && st.st_nlink == 1);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "tree/x%d", i);
        EXPECT(stat(name, &st) == 0 && st.st_nlink == 2 && rmdir(name) == 0);
    }
}

// ---- durable by other ways than fsync of the descriptor that wrote ----

static int durable(void)
{
    int fd = open("by-other-fd", O_WRONLY | O_CREAT, 0644);
    int other = open("by-other-fd", O_RDONLY);
    EXPECT(write(fd, "by-other-fd", 11) == 11 &&
           fsync(other) == 0); // stays open: only the fsync can have done it

    fd = open("by-fdatasync", O_RDWR | O_CREAT, 0644);
    EXPECT(write(fd, "by-fdatasync", 12) == 12 && fdatasync(fd) == 0);

    fd = open("by-o-sync", O_WRONLY | O_CREAT | O_SYNC, 0644);
    EXPECT(write(fd, "by-o-sync", 9) == 9);

    fd = open("by-o-dsync", O_WRONLY | O_CREAT | O_DSYNC, 0644);
    EXPECT(write(fd, "by-o-", 5) == 5 && write(fd, "dsync", 5) == 5);

    fd = open("by-msync", O_RDWR | O_CREAT, 0644);
    EXPECT(ftruncate(fd, 8) == 0);
    char *map = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(map != MAP_FAILED);
    memcpy(map, "by-msync", 8);
    EXPECT(msync(map, 8, MS_SYNC) == 0);

    fd = open("by-fsync-of-a-map", O_RDWR | O_CREAT, 0644);
    EXPECT(ftruncate(fd, 17) == 0);
    map = mmap(NULL, 17, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(map != MAP_FAILED);
    memcpy(map, "by-fsync-of-a-map", 17);
    EXPECT(fsync(fd) == 0);

    // Attributes and names ride along.
    fd = open("unnamed", O_WRONLY | O_CREAT, 0600);
    EXPECT(write(fd, "by-rename", 9) == 9 && rename("unnamed", "by-rename") == 0 &&
           fchmod(fd, 0640) == 0 && fsync(fd) == 0);

    fd = open("linked", O_WRONLY | O_CREAT, 0644);
    EXPECT(write(fd, "by-link", 7) == 7 && link("linked", "by-link") == 0 &&
           unlink("linked") == 0 && fsync(fd) == 0);
    if (failures)
        return 1;
    puts("durable");
    fflush(stdout);
    pause(); // everything stays open until the mount is gone
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2 || chdir(argv[1])) {
        fprintf(stderr, "usage: coherence DIRECTORY [durable]\n");
        return 2;
    }
    if (argc > 2)
        return durable();
    check_descriptors();
    check_appending();
    check_following();
    check_storm();
    check_moving();
    return failures > 0;
}
