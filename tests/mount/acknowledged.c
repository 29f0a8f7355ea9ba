// SPDX-License-Identifier: MIT
// One call each, or two, up to what acknowledges it; then "acknowledged" on stdout, and nothing
// more happens until the process is killed. test_acknowledged.sh cuts the power then and looks.
//
//   acknowledged prepare DIR     what the stories start from; prepare-big: what read-ahead does
//   acknowledged STORY DIR

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SIZE 100000

static char bytes[SIZE];

static void must(long r, const char *what)
{
    if (r >= 0)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static int opened(const char *name, int flags)
{
    int fd = open(name, flags, 0644);

    must(fd, name);
    return fd;
}

static void put(int fd, char letter, size_t size)
{
    memset(bytes, letter, size);
    must(write(fd, bytes, size), "write");
}

static void sync_dir(const char *name)
{
    int fd = opened(name, O_RDONLY | O_DIRECTORY);

    must(fsync(fd), "fsync of a directory");
    close(fd);
}

static void file(const char *name, char letter)
{
    int fd = opened(name, O_CREAT | O_WRONLY | O_TRUNC);

    put(fd, letter, SIZE);
    must(close(fd), "close");
}

static void prepare(void)
{
    file("a", 'a');
    file("b", 'b');
    sync_dir(".");
}

#define PARTS 48

static void prepare_big(void)
{
    int fd = opened("big", O_CREAT | O_WRONLY);

    for (unsigned i = 0; i < PARTS * (1u << 20) / SIZE; i++)
        put(fd, 'a', SIZE);
    must(fsync(fd), "fsync");
}

// ---- stories ----

static void tmpfile_story(void)
{
    int fd = opened(".", O_TMPFILE | O_RDWR);
    char path[64];

    put(fd, 't', SIZE);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    must(linkat(AT_FDCWD, path, AT_FDCWD, "new", AT_SYMLINK_FOLLOW), "linkat");
    sync_dir(".");
}

static void tmpfile_fsync_story(void)
{
    int fd = opened(".", O_TMPFILE | O_RDWR);
    char path[64];

    put(fd, 't', 100);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    must(linkat(AT_FDCWD, path, AT_FDCWD, "new", AT_SYMLINK_FOLLOW), "linkat");
    must(fsync(fd), "fsync");
}

static void exchange_story(void)
{
    must(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE), "exchange");
    sync_dir(".");
}

static void hole_story(void)
{
    int fd = opened("a", O_RDWR);

    must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 60000), "punch");
    must(fsync(fd), "fsync");
}

static void acl_story(void)
{
    static const unsigned char acl[] = {
        2, 0,    0,    0,    1,    0,    6,  0, 0xff, 0xff, 0xff, 0xff, 2,    0,   7,
        0, 0xe8, 3,    0,    0,    4,    0,  4, 0,    0xff, 0xff, 0xff, 0xff, 16,  0,
        7, 0,    0xff, 0xff, 0xff, 0xff, 32, 0, 0,    0,    0xff, 0xff, 0xff, 0xff};
    int fd = opened("a", O_RDONLY);

    must(setxattr("a", "system.posix_acl_access", acl, sizeof(acl), 0), "setxattr");
    must(fsync(fd), "fsync");
}

static void orphan_story(void)
{
    int fd = opened("a", O_RDWR);

    must(link("a", "c"), "link");
    must(unlink("a"), "unlink");
    must(unlink("c"), "unlink");
    put(fd, 'o', SIZE);
    must(fsync(fd), "fsync");
}

static void one_link_story(void)
{
    (void)opened("a", O_RDWR);
    must(link("a", "c"), "link");
    must(unlink("a"), "unlink");
    sync_dir(".");
}

static void second_descriptor_story(void)
{
    int writer = opened("a", O_WRONLY), other = opened("a", O_RDONLY);

    put(writer, 'x', SIZE);
    must(fsync(other), "fsync");
}

static void hard_link_story(void)
{
    must(link("a", "c"), "link");
    int writer = opened("a", O_WRONLY), other = opened("c", O_RDONLY);

    put(writer, 'x', SIZE);
    must(fsync(other), "fsync");
}

static void msync_story(void)
{
    int fd = opened("a", O_RDWR);
    char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (map == MAP_FAILED)
        must(-1, "mmap");
    memset(map, 'm', SIZE);
    must(msync(map, SIZE, MS_SYNC), "msync");
}

static void append_story(void)
{
    int fd = opened("a", O_WRONLY | O_APPEND | O_SYNC);

    put(fd, '1', 10);
    put(fd, '2', 10);
}

static void close_story(void)
{
    file("new", 'n');
    sync_dir(".");
}

static void mkdir_story(void)
{
    must(mkdir("dir", 0755), "mkdir");
    must(mkdir("dir/sub", 0755), "mkdir");
    sync_dir("dir");
}

static void copy_story(void)
{
    int in = opened("a", O_RDONLY), out = opened("b", O_WRONLY);
    loff_t from = 0, to = 0;

    must(copy_file_range(in, &from, out, &to, SIZE, 0), "copy_file_range");
    must(fsync(out), "fsync");
}

// Everything that was done before, in every way, by one fsync of one descriptor.
static void one_fsync_story(void)
{
    int one = opened("a", O_RDWR), two = opened("a", O_RDWR),
        end = opened("a", O_WRONLY | O_APPEND);

    must(pwrite(one, "first", 5, 0), "pwrite");
    must(pwrite(two, "second", 6, 30000), "pwrite");
    char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, one, 0);
    if (map == MAP_FAILED)
        must(-1, "mmap");
    memcpy(map + 60000, "third", 5);
    must(ftruncate(two, 90000), "ftruncate");
    must(write(end, "fourth", 6), "append");
    file("new", 'n');
    must(rename("new", "renamed"), "rename");
    must(fsync(one), "fsync");
}

// A close is done before the sync of the directory that follows it, though the kernel holds the
// RELEASE back until the read-ahead by the same descriptor has been answered.
static void read_ahead_story(void)
{
    int fd = opened("big", O_RDWR), dir = opened(".", O_RDONLY | O_DIRECTORY);

    for (unsigned i = 0; i < 48; i += 8) {
        int err = posix_fadvise(fd, (off_t)i << 20, 1 << 20, POSIX_FADV_WILLNEED);
        if (err) {
            errno = err;
            must(-1, "posix_fadvise");
        }
    }
    memset(bytes, 'x', 4096);
    must(pwrite(fd, bytes, 4096, (PARTS - 2) << 20), "pwrite");
    close(fd);
    must(fsync(dir), "fsync of the directory");
    const char *daemon = getenv("KILL"); // at once: a moment later the RELEASE has come
    if (daemon)
        must(kill((pid_t)strtol(daemon, NULL, 10), SIGKILL), "kill");
}

// Nothing acknowledges it: what is open is not completed by somebody else's sync.
static void truncate_open_story(void)
{
    int fd = opened("a", O_RDWR);

    must(ftruncate(fd, 50001), "ftruncate");
    sync_dir(".");
}

static void write_open_story(void)
{
    put(opened("a", O_RDWR), 'x', SIZE);
    put(opened("new", O_RDWR | O_CREAT), 'x', SIZE);
    put(opened(".", O_RDWR | O_TMPFILE), 'x', SIZE);
    sync_dir(".");
}

static const struct {
    const char *name;
    void (*run)(void);
} stories[] = {
    {"tmpfile", tmpfile_story},
    {"tmpfile-fsync", tmpfile_fsync_story},
    {"exchange", exchange_story},
    {"hole", hole_story},
    {"acl", acl_story},
    {"orphan", orphan_story},
    {"one-link", one_link_story},
    {"second-descriptor", second_descriptor_story},
    {"hard-link", hard_link_story},
    {"msync", msync_story},
    {"append", append_story},
    {"close", close_story},
    {"mkdir", mkdir_story},
    {"copy", copy_story},
    {"read-ahead", read_ahead_story},
    {"one-fsync", one_fsync_story},
    {"truncate-open", truncate_open_story},
    {"write-open", write_open_story},
};

int main(int argc, char **argv)
{
    if (argc != 3 || chdir(argv[2])) {
        fprintf(stderr, "usage: acknowledged STORY DIR\n");
        return 2;
    }
    if (strcmp(argv[1], "prepare") == 0) {
        prepare();
        return 0;
    }
    if (strcmp(argv[1], "prepare-big") == 0) {
        prepare_big();
        return 0;
    }
    for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        if (strcmp(argv[1], stories[i].name) == 0) {
            stories[i].run();
            puts("acknowledged");
            fflush(stdout);
            pause();
            return 0;
        }
    }
    fprintf(stderr, "no story %s\n", argv[1]);
    return 2;
}
