// SPDX-License-Identifier: MIT
// `aerofs scrub`: has the daemon of a mount read everything on disk and compare it with its
// checksums, and tells what it found. The work is the daemon's (checkpoint/scrub.h); it is asked
// through MOUNTPOINT/.aerofs/scrub, and ends when this program does, since the descriptor that
// asked for it is closed then.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mountutil/cmd.h"
#include "mountutil/exit_code.h"

enum { SCRUB_CLEAN = 0, SCRUB_DAMAGE = 1, SCRUB_CANNOT_RUN = 2 };

#define RATE_DEFAULT (UINT64_C(64) << 20)
#define TEXT_BYTES   2048
#define POLL_MS      100

struct scrub_text {
    char bytes[TEXT_BYTES];
};

static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static int read_text(const char *path, struct scrub_text *text)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text->bytes, sizeof(text->bytes) - 1);
    int err = got < 0 ? -errno : 0;

    if (fd >= 0)
        close(fd);
    text->bytes[got > 0 ? got : 0] = 0;
    return err;
}

// The value of "key: value"; the rest of its line, or "" when it is not there.
static void value_of(const struct scrub_text *text, const char *key, char *ret, size_t size)
{
    size_t len = strlen(key);

    ret[0] = 0;
    for (const char *line = text->bytes; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) != 0 || strncmp(line + len, ": ", 2) != 0)
            continue;
        (void)snprintf(ret, size, "%.*s", (int)strcspn(line + len + 2, "\n"), line + len + 2);
        return;
    }
}

static uint64_t number_of(const struct scrub_text *text, const char *key)
{
    char value[32];

    value_of(text, key, value, sizeof(value));
    return strtoull(value, NULL, 10);
}

static int cannot(const struct command *command, const char *mountpoint, int err)
{
    if (err == -ENOENT || err == -ENOTDIR)
        cmd_error(
            command,
            "'%s' is no mount point of AeroFS. A store that is not mounted: aerofs check STORE",
            mountpoint);
    else if (err == -ENOTCONN)
        cmd_error(command, "the daemon of the mount '%s' has ended. Mount the store again",
                  mountpoint);
    else if (err == -EBUSY)
        cmd_error(command,
                  "a scrub of '%s' is running already; %s/.aerofs/scrub tells how far it is",
                  mountpoint, mountpoint);
    else if (err == -EROFS)
        cmd_error(
            command,
            "'%s' is mounted read-only, so it cannot be asked. Unmount it and use: aerofs check STORE",
            mountpoint);
    else
        cmd_error(command, "cannot use '%s/.aerofs/scrub': %s", mountpoint, strerror(-err));
    return SCRUB_CANNOT_RUN;
}

static int print_result(const struct command *command, const char *mountpoint,
                        const struct scrub_text *text)
{
    uint64_t damage = number_of(text, "damage");
    char state[32], result[256];

    value_of(text, "state", state, sizeof(state));
    value_of(text, "result", result, sizeof(result));
    printf("%" PRIu64 " bytes read: %" PRIu64 " tree nodes, %" PRIu64 " data blocks, %" PRIu64
           " of the space map\n",
           number_of(text, "bytes"), number_of(text, "nodes"), number_of(text, "data_blocks"),
           number_of(text, "map_blocks"));
    if (damage > 0)
        printf("'%s' is damaged: %" PRIu64 " finding%s; %s/.aerofs/damage lists them by name\n",
               mountpoint, damage, damage == 1 ? "" : "s", mountpoint);
    if (strcmp(state, "done") != 0) {
        cmd_error(command, "the scrub of '%s' ended early: %s", mountpoint, result);
        return damage > 0 ? SCRUB_DAMAGE : SCRUB_CANNOT_RUN;
    }
    if (damage == 0)
        printf("'%s' is whole: no damage\n", mountpoint);
    return damage > 0 ? SCRUB_DAMAGE : SCRUB_CLEAN;
}

// Until it is over; a signal ends it.
static int watch(const char *path, int fd, struct scrub_text *text)
{
    const struct timespec step = {.tv_nsec = POLL_MS * 1000000L};
    struct cmd_progress progress;
    char state[32];
    bool told = false;
    int err;

    cmd_progress_start(&progress);
    for (;;) {
        err = read_text(path, text);
        value_of(text, "state", state, sizeof(state));
        if (err < 0 || strcmp(state, "running") != 0)
            break;
        if (interrupted && !told)
            told = write(fd, "stop", 4) == 4;
        cmd_progress_show(&progress, "scrubbing, bytes", number_of(text, "bytes"),
                          number_of(text, "total_bytes"));
        (void)nanosleep(&step, NULL);
    }
    cmd_progress_end(&progress);
    return err;
}

static int scrub(const struct command *command, const char *mountpoint, uint64_t rate)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct scrub_text text;
    char path[PATH_MAX], order[48];
    int len = snprintf(path, sizeof(path), "%s/.aerofs/scrub", mountpoint);

    if (len < 0 || (size_t)len >= sizeof(path))
        return cannot(command, mountpoint, -ENAMETOOLONG);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return cannot(command, mountpoint, -errno);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    len = snprintf(order, sizeof(order), "run %" PRIu64, rate);
    int err = write(fd, order, (size_t)len) == len ? 0 : -errno;
    if (err == 0)
        err = watch(path, fd, &text);
    close(fd);
    return err < 0 ? cannot(command, mountpoint, err) : print_result(command, mountpoint, &text);
}

static int run(const struct command *command, int argc, char **argv)
{
    const char *mountpoint, *rate_text = NULL;
    const struct cmd_option options[] = {{"rate", NULL, &rate_text}};
    uint64_t rate = RATE_DEFAULT;

    int code = cmd_parse(command, argc, argv, options, AF_ARRAY_LEN(options), &mountpoint, 1);
    if (code >= 0)
        return code;
    if (rate_text && !cmd_parse_number(rate_text, &rate)) {
        cmd_error(command, "--rate=%s is no number of bytes a second", rate_text);
        return SCRUB_CANNOT_RUN;
    }
    code = scrub(command, mountpoint, rate);
    return cmd_finish(command, code) == EXIT_CODE_IO ? SCRUB_CANNOT_RUN : code;
}

const struct command cmd_scrub = {
    .name = "scrub",
    .usage = "[--rate BYTES] MOUNTPOINT",
    .summary = "verify everything on disk while the mount serves",
    .help =
        "Has the daemon read from disk, past the caches, all that the store consists of: superblocks,\n"
        "log, space map, tree, the data of files; and compare it with its checksums. The mount serves\n"
        "meanwhile. What is damaged goes into MOUNTPOINT/.aerofs/damage and `aerofs status`, by name.\n"
        "Nothing is changed. Ctrl-C ends it.\n"
        "\n"
        "  --rate BYTES   read at most so many bytes a second (default 67108864; 0: no bound)\n"
        "  --help         print this\n"
        "  --version      print the version\n"
        "\n"
        "Exit codes: 0 everything is whole; 1 damage was found; 2 the scrub could not run or not finish\n"
        "(after damage was found it is 1).\n",
    .run = run,
};
