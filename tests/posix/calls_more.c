// SPDX-License-Identifier: MIT
// Commands of the cases: who runs them, other processes, programs.

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/posix/posix.h"

// su UID GID [GROUP…]: the effective user, by which file systems go.
static int64_t do_su(struct call *c)
{
    gid_t groups[ARGS_MAX];
    size_t count = 0;

    if (seteuid(0))
        return -errno;
    for (unsigned i = 3; i < c->argc; i++)
        groups[count++] = (gid_t)arg_num(c, i);
    if (setgroups(count, groups) || setegid((gid_t)arg_num(c, 2)) || seteuid((uid_t)arg_num(c, 1)))
        return -errno;
    return 0;
}

static int64_t do_umask(struct call *c)
{
    return umask((mode_t)arg_num(c, 1));
}

static int64_t do_sleep_ms(struct call *c)
{
    struct timespec t = {.tv_nsec = arg_num(c, 1) * 1000000};

    return outcome(nanosleep(&t, NULL));
}

// other COMMAND…: in a child, which ends then; text is not carried over.
static int64_t do_other(struct call *c)
{
    static struct result r;
    int64_t value;
    int p[2];

    if (pipe(p))
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        script_command(c->run, c->argv + 1, c->lens + 1, c->argc - 1, &r);
        _exit(write(p[1], &r.value, sizeof(r.value)) != sizeof(r.value));
    }
    close(p[1]);
    ssize_t n = read(p[0], &value, sizeof(value));
    close(p[0]);
    waitpid(pid, NULL, 0);
    return n == (ssize_t)sizeof(value) ? value : NO_RESULT;
}

// touch-map OFFSET: the signal that a read of the map gets; 0: none.
static int64_t do_touch_map(struct call *c)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(((volatile char *)c->run->map)[arg_num(c, 1)] == 1 ? 0 : 0);
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

// exec PATH: the exit code of a copied /bin/true or /bin/false.
static int64_t do_exec(struct call *c)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        execl(c->argv[1], c->argv[1], (char *)NULL);
        _exit(errno == EACCES ? 213 : errno == ETXTBSY ? 226 : 255);
    }
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status))
        return NO_RESULT;
    int code = WEXITSTATUS(status);
    return code == 213 ? -EACCES : code == 226 ? -ETXTBSY : code == 255 ? -EIO : code;
}

// install FROM PATH: copies a program.
static int64_t do_install(struct call *c)
{
    int in = open(c->argv[1], O_RDONLY), out = open(c->argv[2], O_CREAT | O_WRONLY, 0755);
    static char bytes[65536];
    ssize_t n = in < 0 || out < 0 ? -1 : 1;

    while (n > 0) {
        n = read(in, bytes, sizeof(bytes));
        if (n > 0 && write(out, bytes, (size_t)n) != n)
            n = -1;
    }
    int64_t r = outcome(n);
    close(in);
    close(out);
    return r;
}

// bind PATH: a socket by bind(2).
static int64_t do_bind(struct call *c)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%.100s", c->argv[1]);
    int64_t r = outcome(bind(fd, (struct sockaddr *)&a, sizeof(a)));
    close(fd);
    return r;
}

// fifo PATH: bytes through it, between two processes.
static int64_t do_fifo(struct call *c)
{
    char bytes[16] = {0};
    pid_t pid = fork();

    if (pid == 0) {
        int fd = open(c->argv[1], O_WRONLY);
        _exit(write(fd, "through", 7) != 7);
    }
    int fd = open(c->argv[1], O_RDONLY);
    ssize_t n = read(fd, bytes, sizeof(bytes));
    close(fd);
    waitpid(pid, NULL, 0);
    return n < 0 ? -errno : answer_text(c, bytes, (size_t)n);
}

// deep COUNT: directories below each other, as deep as that; the depth reached.
static int64_t do_deep(struct call *c)
{
    for (int64_t i = 0; i < arg_num(c, 1); i++) {
        if (mkdir("d", 0755) || chdir("d"))
            return -errno;
    }
    return arg_num(c, 1);
}

// long-path LENGTH: an existing file by a path of so many bytes, made of "./".
static int64_t do_long_path(struct call *c)
{
    static char path[8192];
    size_t len = (size_t)arg_num(c, 1);

    memset(path, '/', sizeof(path));
    for (size_t i = 0; i + 1 < len; i += 2)
        path[i] = '.';
    path[len - 1] = 'f';
    path[len] = '\0';
    return outcome(access(path, F_OK));
}

static int64_t do_ioctl(struct call *c)
{
    long dummy[32] = {0};

    return outcome(ioctl(arg_fd(c, 1), (unsigned long)arg_num(c, 2), dummy));
}

// appenders FD COUNT: two processes that append to the file of an O_APPEND descriptor, one line at
// a time; how many lines are whole.
static int64_t do_appenders(struct call *c)
{
    int count = (int)arg_num(c, 2), fd = arg_fd(c, 1);
    char line[16], bytes[16];
    int64_t whole = 0;
    pid_t pid = fork();

    for (int i = 0; i < count; i++) {
        snprintf(line, sizeof(line), "%c%06d\n", pid ? 'p' : 'c', i);
        if (write(fd, line, 8) != 8)
            return -errno;
    }
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    for (off_t at = 0; pread(fd, bytes, 8, at) == 8; at += 8)
        whole += bytes[7] == '\n' && (bytes[0] == 'p' || bytes[0] == 'c');
    return whole;
}

const struct command more_commands[] = {
    {"su", do_su, 2},
    {"umask", do_umask, 1},
    {"sleep-ms", do_sleep_ms, 1},
    {"other", do_other, 1},
    {"touch-map", do_touch_map, 1},
    {"exec", do_exec, 1},
    {"install", do_install, 2},
    {"bind", do_bind, 1},
    {"fifo", do_fifo, 1},
    {"deep", do_deep, 1},
    {"long-path", do_long_path, 1},
    {"ioctl", do_ioctl, 2},
    {"appenders", do_appenders, 2},
    {NULL, NULL, 0},
};
