// SPDX-License-Identifier: MIT
// Commands of the cases: names.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/posix/posix.h"

static int64_t do_mkdir(struct call *c)
{
    struct at at = arg_at(c, 1);

    return outcome(mkdirat(at.dir, at.path, (mode_t)arg_num_or(c, 2, 0755)));
}

static int64_t do_rmdir(struct call *c)
{
    struct at at = arg_at(c, 1);

    return outcome(unlinkat(at.dir, at.path, AT_REMOVEDIR));
}

static int64_t do_unlink(struct call *c)
{
    struct at at = arg_at(c, 1);

    return outcome(unlinkat(at.dir, at.path, 0));
}

// file PATH [TEXT] [MODE]: a file with this content.
static int64_t do_file(struct call *c)
{
    struct at at = arg_at(c, 1);
    int fd = openat(at.dir, at.path, O_CREAT | O_EXCL | O_WRONLY, (mode_t)arg_num_or(c, 3, 0644));
    int64_t r = 0;

    if (fd < 0)
        return -errno;
    if (c->argc > 2 && write(fd, c->argv[2], c->lens[2]) != (ssize_t)c->lens[2])
        r = -errno;
    close(fd);
    return r;
}

static int64_t do_cat(struct call *c)
{
    struct at at = arg_at(c, 1);
    int fd = openat(at.dir, at.path, O_RDONLY);
    char *bytes = malloc(TEXT_MAX);

    if (fd < 0 || !bytes) {
        free(bytes);
        return -errno;
    }
    ssize_t n = read(fd, bytes, TEXT_MAX - 1);
    int64_t r = n < 0 ? -errno : answer_text(c, bytes, (size_t)n);
    free(bytes);
    close(fd);
    return r;
}

// mknod PATH MODE [MAJOR MINOR]
static int64_t do_mknod(struct call *c)
{
    struct at at = arg_at(c, 1);

    return outcome(mknodat(at.dir, at.path, (mode_t)arg_num(c, 2),
                           makedev((unsigned)arg_num_or(c, 3, 0), (unsigned)arg_num_or(c, 4, 0))));
}

static int64_t do_symlink(struct call *c)
{
    struct at at = arg_at(c, 2);

    return outcome(symlinkat(c->argv[1], at.dir, at.path));
}

static int64_t do_readlink(struct call *c)
{
    struct at at = arg_at(c, 1);
    char target[8192];
    ssize_t n = readlinkat(at.dir, at.path, target, (size_t)arg_num_or(c, 2, sizeof(target)));

    return n < 0 ? -errno : answer_text(c, target, (size_t)n);
}

static int64_t do_link(struct call *c)
{
    struct at from = arg_at(c, 1), to = arg_at(c, 2);

    return outcome(linkat(from.dir, from.path, to.dir, to.path, (int)arg_num_or(c, 3, 0)));
}

// link-proc FD NAME: by /proc/self/fd, which needs no privilege.
static int64_t do_link_proc(struct call *c)
{
    struct at to = arg_at(c, 2);
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", arg_fd(c, 1));
    return outcome(linkat(AT_FDCWD, path, to.dir, to.path, AT_SYMLINK_FOLLOW));
}

static int64_t do_open_proc(struct call *c)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", arg_fd(c, 1));
    return outcome(open(path, (int)arg_num(c, 2)));
}

static int64_t do_rename(struct call *c)
{
    struct at from = arg_at(c, 1), to = arg_at(c, 2);

    return outcome(renameat2(from.dir, from.path, to.dir, to.path, (unsigned)arg_num_or(c, 3, 0)));
}

static int64_t do_chdir(struct call *c)
{
    return outcome(chdir(c->argv[1]));
}

static int64_t do_fchdir(struct call *c)
{
    return outcome(fchdir(arg_fd(c, 1)));
}

static int64_t do_getcwd(struct call *c)
{
    char path[8192];

    (void)c;
    return getcwd(path, sizeof(path)) ? (int64_t)strlen(path) : -errno;
}

// ---- listings ----

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// ls PATH: sorted, with a comma between; without "." and "..".
static int64_t do_ls(struct call *c)
{
    static char *names[10000];
    size_t count = 0, len = 0;
    struct at at = arg_at(c, 1);
    int fd = openat(at.dir, at.path, O_RDONLY | O_DIRECTORY);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    static char text[TEXT_MAX];

    if (!dir)
        return -errno;
    for (const struct dirent *d; count < 10000 && (d = readdir(dir));) {
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
            names[count++] = strdup(d->d_name);
    }
    closedir(dir);
    qsort(names, count, sizeof(names[0]), by_name);
    text[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i ? "," : "", names[i]);
        free(names[i]);
    }
    return answer_text(c, text, len);
}

// Index of one of the names "f0", "f1", …; -1: another.
static int number_of(const char *name)
{
    return name[0] == 'f' ? (int)strtol(name + 1, NULL, 10) : -1;
}

// readdir-while CHANGE: a listing of 600 files while entries come ("create"), go ("unlink") or move
// ("rename"): 0 when each of those that stay is seen once, else the number of mistakes.
static int64_t do_readdir_while(struct call *c)
{
    enum { FILES = 600 };
    unsigned char seen[FILES] = {0};
    char name[64], to[64];
    int64_t wrong = 0;
    DIR *dir;

    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        close(open(name, O_CREAT | O_WRONLY, 0644));
    }
    dir = opendir(".");
    if (!dir)
        return -errno;
    int read_count = 0;
    for (const struct dirent *d; (d = readdir(dir)); read_count++) {
        int n = number_of(d->d_name);
        if (n >= 0 && n < FILES)
            seen[n]++;
        if (read_count % 7 != 0)
            continue;
        // Odd ones are changed, even ones stay.
        snprintf(name, sizeof(name), "f%d", (read_count * 2 + 1) % FILES);
        snprintf(to, sizeof(to), "x%d", read_count);
        if (strcmp(c->argv[1], "unlink") == 0)
            unlink(name);
        else if (strcmp(c->argv[1], "rename") == 0)
            (void)!rename(name, to);
        else
            close(open(to, O_CREAT | O_WRONLY, 0644));
    }
    closedir(dir);
    for (int i = 0; i < FILES; i++)
        wrong += i % 2 == 0 ? seen[i] != 1 : seen[i] > 1;
    return wrong;
}

// seekdir: 0 when telldir and seekdir go back to the same entry, from everywhere, rewinddir to the
// start, and a rewound listing shows what has come meanwhile.
static int64_t do_seekdir(struct call *c)
{
    enum { FILES = 300 };
    static char names[FILES + 3][256];
    long places[FILES + 3];
    int count = 0;
    char name[64];

    (void)c;
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        close(open(name, O_CREAT | O_WRONLY, 0644));
    }
    DIR *dir = opendir(".");
    if (!dir)
        return -errno;
    for (;;) {
        places[count] = telldir(dir);
        const struct dirent *d = readdir(dir);
        if (!d || count == FILES + 2)
            break;
        snprintf(names[count++], sizeof(names[0]), "%s", d->d_name);
    }
    int64_t wrong = count != FILES + 2;
    for (int i = count - 1; i >= 0; i -= 3) {
        seekdir(dir, places[i]);
        const struct dirent *d = readdir(dir);
        wrong += !d || strcmp(d->d_name, names[i]) != 0;
    }
    close(open("late", O_CREAT | O_WRONLY, 0644));
    rewinddir(dir);
    bool late = false;
    int again = 0;
    for (const struct dirent *d; (d = readdir(dir)); again++)
        late = late || strcmp(d->d_name, "late") == 0;
    wrong += !late + (again != count + 1);
    closedir(dir);
    return wrong;
}

// d-type NAME: what the listing of "." says of it.
static int64_t do_d_type(struct call *c)
{
    DIR *dir = opendir(".");
    int64_t r = -ENOENT;

    if (!dir)
        return -errno;
    for (const struct dirent *d; (d = readdir(dir));) {
        if (strcmp(d->d_name, c->argv[1]) == 0)
            r = d->d_type;
    }
    closedir(dir);
    return r;
}

// d-ino NAME: 1 when the listing of "." has the number that stat(2) says.
static int64_t do_d_ino(struct call *c)
{
    DIR *dir = opendir(".");
    struct stat st;
    int64_t r = -ENOENT;

    if (!dir)
        return -errno;
    for (const struct dirent *d; (d = readdir(dir));) {
        if (strcmp(d->d_name, c->argv[1]) == 0)
            r = lstat(d->d_name, &st) == 0 && st.st_ino == d->d_ino;
    }
    closedir(dir);
    return r;
}

// many PREFIX COUNT: so many empty files.
static int64_t do_many(struct call *c)
{
    char name[300];
    int64_t count = arg_num(c, 2);

    for (int64_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%s%lld", c->argv[1], (long long)i);
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0)
            return -errno;
        close(fd);
    }
    return count;
}

const struct command name_commands[] = {
    {"mkdir", do_mkdir, 1},
    {"rmdir", do_rmdir, 1},
    {"unlink", do_unlink, 1},
    {"file", do_file, 1},
    {"cat", do_cat, 1},
    {"mknod", do_mknod, 2},
    {"symlink", do_symlink, 2},
    {"readlink", do_readlink, 1},
    {"link", do_link, 2},
    {"link-proc", do_link_proc, 2},
    {"open-proc", do_open_proc, 2},
    {"rename", do_rename, 2},
    {"chdir", do_chdir, 1},
    {"fchdir", do_fchdir, 1},
    {"getcwd", do_getcwd, 0},
    {"ls", do_ls, 1},
    {"readdir-while", do_readdir_while, 1},
    {"seekdir", do_seekdir, 0},
    {"d-type", do_d_type, 1},
    {"d-ino", do_d_ino, 1},
    {"many", do_many, 2},
    {NULL, NULL, 0},
};
