// SPDX-License-Identifier: MIT
// System calls that shell tools do not make, checked in DIRECTORY: `calls DIRECTORY`. Prints what
// fails; exit code 1 then.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
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
// `call` fails with `error`.
#define EXPECT_ERROR(error, call)                                                                  \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long result_ = (long)(call);                                                               \
        if (result_ != -1 || errno != (error)) {                                                   \
            fprintf(stderr, "%s:%d: %s: result %ld, errno %s instead of %s\n", __func__, __LINE__, \
                    #call, result_, strerror(errno), strerror(error));                             \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

static int make(const char *name, const char *text)
{
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

    EXPECT(fd >= 0);
    EXPECT(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    return fd;
}

static int holds(const char *name, const char *text)
{
    char buf[4096];
    int fd = open(name, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

    if (fd >= 0)
        close(fd);
    return n == (ssize_t)strlen(text) && memcmp(buf, text, strlen(text)) == 0;
}

static off_t size_of(const char *name)
{
    struct stat st;

    return stat(name, &st) ? -1 : st.st_size;
}

static void test_open_flags(void)
{
    close(make("file", "text"));
    EXPECT(mkdir("dir", 0755) == 0);
    EXPECT(symlink("file", "link") == 0);
    EXPECT(symlink("nowhere", "dangling") == 0);
    EXPECT_ERROR(EEXIST, open("file", O_CREAT | O_EXCL | O_WRONLY, 0644));
    EXPECT_ERROR(EEXIST, open("dangling", O_CREAT | O_EXCL | O_WRONLY, 0644));
    EXPECT_ERROR(ENOTDIR, open("file", O_RDONLY | O_DIRECTORY));
    EXPECT_ERROR(ELOOP, open("link", O_RDONLY | O_NOFOLLOW));
    EXPECT_ERROR(EISDIR, open("dir", O_WRONLY));
    EXPECT_ERROR(ENOENT, open("missing", O_RDONLY));
    EXPECT_ERROR(ENOTDIR, open("file/below", O_RDONLY));

    int fd = open("file", O_RDONLY);
    EXPECT_ERROR(EBADF, write(fd, "x", 1));
    EXPECT(close(fd) == 0);
    fd = open("file", O_WRONLY | O_APPEND);
    EXPECT(lseek(fd, 0, SEEK_SET) == 0 && write(fd, "+", 1) == 1);
    EXPECT(close(fd) == 0);
    EXPECT(holds("file", "text+"));
    fd = open("file", O_WRONLY | O_TRUNC);
    EXPECT(size_of("file") == 0);
    EXPECT(close(fd) == 0 && size_of("file") == 0);
    // Through a dangling link a file is made at its target.
    fd = open("dangling", O_CREAT | O_WRONLY, 0600);
    EXPECT(fd >= 0 && close(fd) == 0 && size_of("nowhere") == 0);
}

static void test_unlinked(void)
{
    int fd = make("gone", "before");
    struct stat st;

    EXPECT(unlink("gone") == 0);
    EXPECT_ERROR(ENOENT, access("gone", F_OK));
    char buf[32] = "";
    EXPECT(pread(fd, buf, sizeof(buf), 0) == 6 && memcmp(buf, "before", 6) == 0);
    EXPECT(pwrite(fd, "AFTER.", 6, 6) == 6 && fsync(fd) == 0);
    EXPECT(pread(fd, buf, sizeof(buf), 0) == 12 && memcmp(buf, "beforeAFTER.", 12) == 0);
    EXPECT(fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == 12);
    EXPECT(fchmod(fd, 0600) == 0 && ftruncate(fd, 3) == 0 && fstat(fd, &st) == 0 &&
           st.st_size == 3);
    // The name is free again, and another file.
    close(make("gone", "new"));
    EXPECT(pread(fd, buf, sizeof(buf), 0) == 3 && memcmp(buf, "bef", 3) == 0);
    EXPECT(close(fd) == 0 && holds("gone", "new"));

    // Replaced by a rename while open.
    fd = make("old", "old");
    close(make("new", "new"));
    EXPECT(rename("new", "old") == 0);
    EXPECT(pread(fd, buf, sizeof(buf), 0) == 3 && memcmp(buf, "old", 3) == 0);
    EXPECT(close(fd) == 0 && holds("old", "new"));

    // A directory removed while open.
    EXPECT(mkdir("dead", 0755) == 0);
    fd = open("dead", O_RDONLY | O_DIRECTORY);
    EXPECT(rmdir("dead") == 0);
    EXPECT_ERROR(ENOENT, openat(fd, "x", O_CREAT | O_WRONLY, 0644));
    EXPECT(close(fd) == 0);
}

static void test_mmap(void)
{
    const size_t size = 3 * 4096 + 100;
    int fd = open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0644);

    EXPECT(ftruncate(fd, (off_t)size) == 0);
    char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(map != MAP_FAILED);
    memcpy(map + 4090, "across a page", 13);
    map[size - 1] = 'z';
    EXPECT(msync(map, size, MS_SYNC) == 0);
    char buf[16];
    EXPECT(pread(fd, buf, 13, 4090) == 13 && memcmp(buf, "across a page", 13) == 0);
    // write(2) shows in the map.
    EXPECT(pwrite(fd, "written", 7, 100) == 7 && memcmp(map + 100, "written", 7) == 0);
    // The descriptor is gone, the map goes on.
    EXPECT(close(fd) == 0);
    memcpy(map + 8192, "late", 4);
    EXPECT(msync(map, size, MS_SYNC) == 0 && munmap(map, size) == 0);
    fd = open("mapped", O_RDONLY);
    EXPECT(pread(fd, buf, 4, 8192) == 4 && memcmp(buf, "late", 4) == 0 &&
           size_of("mapped") == (off_t)size);
    // A private map leaves the file alone.
    map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    EXPECT(map != MAP_FAILED);
    map[100] = 'X';
    EXPECT(pread(fd, buf, 7, 100) == 7 && memcmp(buf, "written", 7) == 0);
    munmap(map, 4096);
    close(fd);
}

static void test_sparse(void)
{
    const off_t far = (off_t)1 << 40;
    struct stat st;
    char buf[8192];

    int fd = open("sparse", O_RDWR | O_CREAT | O_TRUNC, 0644);
    EXPECT(pwrite(fd, "end", 3, far) == 3 && fstat(fd, &st) == 0 && st.st_size == far + 3);
    EXPECT(st.st_blocks < 1000);
    EXPECT(pread(fd, buf, 4, far - 4) == 4 && memcmp(buf, "\0\0\0\0", 4) == 0);
    EXPECT(lseek(fd, 0, SEEK_DATA) == far && lseek(fd, 0, SEEK_HOLE) == 0);
    EXPECT(lseek(fd, far, SEEK_HOLE) == far + 3);
    EXPECT_ERROR(ENXIO, lseek(fd, far + 3, SEEK_DATA));
    EXPECT(fsync(fd) == 0 && close(fd) == 0);

    // Holes are punched, and read as zeros.
    fd = open("holes", O_RDWR | O_CREAT | O_TRUNC, 0644);
    memset(buf, 'x', sizeof(buf));
    for (int i = 0; i < 32; i++)
        EXPECT(write(fd, buf, sizeof(buf)) == sizeof(buf));
    EXPECT(fsync(fd) == 0);
    EXPECT(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 100000) == 0);
    EXPECT(pread(fd, buf, 2, 4999) == 2 && buf[0] == 'x' && buf[1] == 0);
    EXPECT(pread(fd, buf, 2, 104999) == 2 && buf[0] == 0 && buf[1] == 'x');
    EXPECT(fsync(fd) == 0 && fstat(fd, &st) == 0 && st.st_size == 262144 &&
           st.st_blocks * 512 < 262144);
    off_t hole = lseek(fd, 0, SEEK_HOLE);
    EXPECT(hole > 4999 && hole <= 8192 && lseek(fd, hole, SEEK_DATA) >= 102400);
    EXPECT(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20) == 0 && size_of("holes") == 262144);
    EXPECT(fallocate(fd, 0, 0, 1 << 20) == 0 && size_of("holes") == 1 << 20);
    EXPECT(close(fd) == 0);
}

static void test_truncate(void)
{
    char buf[64];
    int fd = make("cut", "0123456789");

    EXPECT(ftruncate(fd, 4) == 0 && ftruncate(fd, 8) == 0);
    EXPECT(pread(fd, buf, sizeof(buf), 0) == 8 && memcmp(buf, "0123\0\0\0\0", 8) == 0);
    EXPECT(close(fd) == 0);
    EXPECT(truncate("cut", 2) == 0 && holds("cut", "01"));
    EXPECT(truncate("cut", 100000) == 0 && size_of("cut") == 100000);
    EXPECT(truncate("cut", 0) == 0 && holds("cut", ""));
    EXPECT_ERROR(ENOENT, truncate("none", 0));
    EXPECT_ERROR(EISDIR, truncate("dir", 0));
    EXPECT_ERROR(EINVAL, truncate("cut", -1));
}

static void test_rename(void)
{
    close(make("a", "a"));
    close(make("b", "b"));
    EXPECT_ERROR(EEXIST, renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
    EXPECT(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE) == 0 && holds("a", "b") &&
           holds("b", "a"));
    EXPECT(rename("a", "b") == 0 && holds("b", "b"));
    EXPECT_ERROR(ENOENT, rename("a", "c"));
    EXPECT(mkdir("d1", 0755) == 0 && mkdir("d2", 0755) == 0 && mkdir("d2/sub", 0755) == 0);
    EXPECT_ERROR(ENOTEMPTY, rename("d1", "d2"));
    EXPECT_ERROR(EISDIR, rename("b", "d1"));
    EXPECT_ERROR(ENOTDIR, rename("d1", "b"));
    EXPECT_ERROR(EINVAL, rename("d2", "d2/sub/d2"));
    EXPECT(rename("d2/sub", "d1") == 0); // over an empty one
    EXPECT(rename("d1", "d2/moved") == 0);
    struct stat st;
    EXPECT(stat("d2", &st) == 0 && st.st_nlink == 3);
    // Two names of one file: rename does nothing.
    EXPECT(link("b", "b2") == 0 && rename("b", "b2") == 0 && holds("b", "b") && holds("b2", "b"));
    EXPECT_ERROR(EPERM, link("d2", "hard"));
}

static void test_directories(void)
{
    enum { COUNT = 500 };
    char name[300];
    unsigned char seen[COUNT] = {0};
    int count = 0;

    EXPECT(mkdir("many", 0755) == 0);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "many/entry-%03d", i);
        close(make(name, ""));
    }
    DIR *dir = opendir("many");
    EXPECT(dir);
    long middle = -1;
    int after_middle = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        int i = (int)strtol(e->d_name + 6, NULL, 10);
        EXPECT(i >= 0 && i < COUNT && !seen[i] && e->d_type == DT_REG);
        seen[i] = 1;
        after_middle += middle >= 0;
        if (++count == COUNT / 2)
            middle = telldir(dir);
    }
    EXPECT(count == COUNT && after_middle == COUNT - COUNT / 2);
    seekdir(dir, middle);
    count = 0;
    while (readdir(dir))
        count++;
    EXPECT(count == after_middle);
    // Entries that stay are listed once, whatever is removed meanwhile.
    rewinddir(dir);
    count = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        count++;
        snprintf(name, sizeof(name), "many/%s", e->d_name);
        EXPECT(unlink(name) == 0);
    }
    EXPECT(count == COUNT);
    closedir(dir);
    EXPECT(rmdir("many") == 0);

    EXPECT(mkdir("full", 0755) == 0 && mkdir("full/x", 0755) == 0);
    EXPECT_ERROR(ENOTEMPTY, rmdir("full"));
    EXPECT_ERROR(EEXIST, mkdir("full", 0755));
    EXPECT_ERROR(EISDIR, unlink("full"));
    memset(name, 'n', 256);
    name[256] = 0;
    EXPECT_ERROR(ENAMETOOLONG, mkdir(name, 0755));
    name[255] = 0;
    EXPECT(mkdir(name, 0755) == 0 && rmdir(name) == 0);
}

static void test_times(void)
{
    const struct timespec both[2] = {{.tv_sec = -5, .tv_nsec = 1},
                                     {.tv_sec = 1LL << 33, .tv_nsec = 999999999}};
    const struct timespec only_mtime[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 77}};
    struct stat st, before;

    int fd = make("timed", "x");
    EXPECT(futimens(fd, both) == 0 && fstat(fd, &st) == 0);
    EXPECT(st.st_atim.tv_sec == -5 && st.st_atim.tv_nsec == 1);
    EXPECT(st.st_mtim.tv_sec == 1LL << 33 && st.st_mtim.tv_nsec == 999999999);
    EXPECT(close(fd) == 0 && stat("timed", &st) == 0 &&
           st.st_mtim.tv_sec == 1LL << 33); // the last close keeps them
    EXPECT(utimensat(AT_FDCWD, "timed", only_mtime, 0) == 0 && stat("timed", &st) == 0);
    EXPECT(st.st_atim.tv_sec == -5 && st.st_mtim.tv_sec == 77);
    before = st;
    EXPECT(chmod("timed", 0600) == 0 && stat("timed", &st) == 0);
    EXPECT(st.st_mtim.tv_sec == 77 && (st.st_ctim.tv_sec > before.st_ctim.tv_sec ||
                                       st.st_ctim.tv_nsec != before.st_ctim.tv_nsec));
    EXPECT(symlink("nowhere2", "timelink") == 0 &&
           utimensat(AT_FDCWD, "timelink", only_mtime, AT_SYMLINK_NOFOLLOW) == 0 &&
           lstat("timelink", &st) == 0);
    EXPECT(st.st_mtim.tv_sec == 77);
}

static void test_vectors(void)
{
    char one[3], two[5];
    struct iovec out[2] = {{"abc", 3}, {"defgh", 5}}, in[2] = {{one, 3}, {two, 5}};
    int fd = open("vectors", O_RDWR | O_CREAT | O_TRUNC, 0644);

    EXPECT(pwritev(fd, out, 2, 10) == 8 && preadv(fd, in, 2, 10) == 8);
    EXPECT(memcmp(one, "abc", 3) == 0 && memcmp(two, "defgh", 5) == 0);
    EXPECT(pread(fd, one, 3, 18) == 0 && pread(fd, one, 3, 1000000) == 0);
    // copy_file_range between two files of the mount.
    int to = open("vectors2", O_RDWR | O_CREAT | O_TRUNC, 0644);
    off_t from_at = 10, to_at = 0;
    EXPECT(copy_file_range(fd, &from_at, to, &to_at, 8, 0) == 8);
    EXPECT(close(fd) == 0 && close(to) == 0 && holds("vectors2", "abcdefgh"));
}

int main(int argc, char **argv)
{
    static void (*const tests[])(void) = {
        test_open_flags, test_unlinked,    test_mmap,  test_sparse,  test_truncate,
        test_rename,     test_directories, test_times, test_vectors,
    };

    if (argc != 2 || chdir(argv[1])) {
        fprintf(stderr, "usage: calls DIRECTORY\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tests[i]();
    return failures > 0;
}
