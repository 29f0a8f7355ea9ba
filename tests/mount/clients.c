// SPDX-License-Identifier: MIT
// clients DIRECTORY COUNT BYTES OUTPUT: so many clients, a process each, with a file of its own;
// each overwrites its file with its next number (BYTES of it) and calls fsync, until that fails or
// the file END appears beside OUTPUT. Then it tries to fsync three times more without writing and
// once after writing, and to make a file. One line for each client at the end, errnos as names (0:
// success):
//
//   CLIENT ACKNOWLEDGED FIRST AGAIN AFTER_WRITE WRITE CREATE
//
// AGAIN is the best of the three. OUTPUT.acked grows by a line CLIENT NUMBER with each
// acknowledgement, at once.
//
//   clients verify DIRECTORY COUNT BYTES OUTPUT: each file holds one number throughout, not below
//   the last acknowledged one
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *directory, *output;
static unsigned count;
static size_t bytes;

static void path_of(char path[PATH_MAX], unsigned client)
{
    snprintf(path, PATH_MAX, "%s/client%u", directory, client);
}

static const char *name_of(int r)
{
    return r ? strerrorname_np(errno) : "0";
}

static int write_number(int fd, char *buffer, unsigned number)
{
    for (size_t at = 0; at < bytes; at += 8)
        snprintf(buffer + at, 9, "%07u\n", number % 10000000);
    return pwrite(fd, buffer, bytes, 0) == (ssize_t)bytes ? 0 : -1;
}

static void serve(unsigned client)
{
    char path[PATH_MAX], line[256], *buffer = malloc(bytes + 8);
    unsigned number = 0;
    int r = 0;

    path_of(path, client);
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    snprintf(path, sizeof(path), "%s.acked", output);
    int acked = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0 || acked < 0 || !buffer)
        _exit(1);
    snprintf(path, sizeof(path), "%s.end", output);
    while (!r && access(path, F_OK)) {
        r = write_number(fd, buffer, number + 1);
        if (!r)
            r = fsync(fd);
        if (!r) {
            int n = snprintf(line, sizeof(line), "%u %u\n", client, ++number);
            if (write(acked, line, (size_t)n) != n)
                _exit(1);
        }
    }
    char first[32], again[32] = "", write_name[32], after[32], create[32];
    snprintf(first, sizeof(first), "%s", name_of(r));
    for (int i = 0; i < 3; i++) {
        int good = fsync(fd) == 0;
        if (!*again || good)
            snprintf(again, sizeof(again), "%s", good ? "0" : name_of(-1));
    }
    r = write_number(fd, buffer, number + 2);
    snprintf(write_name, sizeof(write_name), "%s", name_of(r));
    r = fsync(fd);
    snprintf(after, sizeof(after), "%s", name_of(r));
    snprintf(path, sizeof(path), "%s/new%u", directory, client);
    r = open(path, O_WRONLY | O_CREAT, 0644) < 0 ? -1 : 0;
    snprintf(create, sizeof(create), "%s", name_of(r));
    int out = open(output, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int n = snprintf(line, sizeof(line), "%u %u %s %s %s %s %s\n", client, number, first, again,
                     after, write_name, create);
    _exit(out >= 0 && write(out, line, (size_t)n) == n ? 0 : 1);
}

static bool verify(unsigned client, unsigned acknowledged)
{
    char path[PATH_MAX], *buffer = malloc(bytes + 1), *expected = malloc(bytes + 8);
    unsigned number = 0;

    path_of(path, client);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, buffer, bytes + 1);
    if (n <= 0 && acknowledged == 0)
        return true;
    if (n != (ssize_t)bytes || sscanf(buffer, "%u", &number) != 1) {
        printf("client %u: %zd bytes, %u were acknowledged\n", client, n, acknowledged);
        return false;
    }
    for (size_t at = 0; at < bytes; at += 8)
        snprintf(expected + at, 9, "%07u\n", number);
    if (memcmp(buffer, expected, bytes) != 0 || number < acknowledged) {
        printf("client %u: number %u, %u was acknowledged\n", client, number, acknowledged);
        return false;
    }
    return true;
}

static int verify_all(void)
{
    unsigned *acknowledged = calloc(count, sizeof(*acknowledged)), client, number;
    char path[PATH_MAX];
    bool ok = true;

    snprintf(path, sizeof(path), "%s.acked", output);
    FILE *f = fopen(path, "r");
    while (f && fscanf(f, "%u %u", &client, &number) == 2)
        if (client < count && number > acknowledged[client])
            acknowledged[client] = number;
    for (unsigned i = 0; i < count; i++)
        ok &= verify(i, acknowledged[i]);
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    bool verifies = argc == 6 && strcmp(argv[1], "verify") == 0;
    int status, failed = 0;

    argv += verifies;
    if (argc - verifies != 5)
        return 2;
    directory = argv[1];
    count = (unsigned)strtoul(argv[2], NULL, 10);
    bytes = strtoul(argv[3], NULL, 10);
    output = argv[4];
    if (verifies)
        return verify_all();
    for (unsigned i = 0; i < count; i++)
        if (fork() == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL); // no load is left behind
            serve(i);
        }
    while (wait(&status) > 0)
        failed |= status;
    return failed ? 1 : 0;
}
