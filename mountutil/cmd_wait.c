// SPDX-License-Identifier: MIT
// `aerofs wait`: returns when a mount has made durable everything so far, or everything up to a log
// sequence number.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mountutil/cmd.h"
#include "mountutil/exit_code.h"

// The number behind "NAME: " in MOUNTPOINT/.aerofs/status. 0 or an errno.
static int read_number(const char *mountpoint, const char *name, uint64_t *ret)
{
    char path[PATH_MAX], *line = NULL;
    size_t size = 0, len = strlen(name);
    int err = ENODATA;

    if ((size_t)snprintf(path, sizeof(path), "%s/.aerofs/status", mountpoint) >= sizeof(path))
        return ENAMETOOLONG;
    FILE *from = fopen(path, "re");

    if (!from)
        return errno;
    while (err != 0 && getline(&line, &size, from) > 0)
        if (strncmp(line, name, len) == 0 && line[len] == ':' &&
            sscanf(line + len + 1, " %" SCNu64, ret) == 1)
            err = 0;
    free(line);
    fclose(from);
    return err;
}

// fsync of a directory of AeroFS makes durable what was completed before. 0 or an errno.
static int sync_all(const char *mountpoint)
{
    int fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

    if (fd < 0)
        return errno;
    if (fsync(fd) != 0)
        err = errno;
    close(fd);
    return err;
}

static int failed(const struct command *command, const char *mountpoint, int err)
{
    if (err == ENOTCONN) {
        cmd_error(command, "the daemon of the mount '%s' has ended; mount the store again",
                  mountpoint);
        return EXIT_CODE_NOT_CONNECTED;
    }
    if (err == ENOENT || err == ENOTDIR || err == ENODATA) {
        cmd_error(command, "'%s' is no mount point of AeroFS", mountpoint);
        return EXIT_CODE_NOT_FOUND;
    }
    cmd_error(command, "'%s': %s; what is not durable now will not be: see aerofs status",
              mountpoint, strerror(err));
    return exit_code(-err);
}

static int run(const struct command *command, int argc, char **argv)
{
    const char *operands[2] = {NULL};
    const struct timespec step = {.tv_nsec = 20000000};
    uint64_t lsn = 0, durable = 0;
    bool numbered = argc > 2 && argv[1][0] != '-' && argv[2][0] != '-';

    int code = cmd_parse(command, argc, argv, NULL, 0, operands, numbered ? 2 : 1);
    if (code >= 0)
        return code;
    if (numbered && !cmd_parse_number(operands[1], &lsn)) {
        cmd_error(command, "'%s' is no log sequence number", operands[1]);
        return EXIT_CODE_USAGE;
    }
    for (;;) {
        int err = read_number(operands[0], "lsn_durable", &durable);

        if (err == 0 && numbered && durable >= lsn)
            break;
        if (err == 0)
            err = sync_all(operands[0]);
        if (err == 0)
            err = read_number(operands[0], "lsn_durable", &durable);
        if (err != 0)
            return failed(command, operands[0], err);
        if (!numbered || durable >= lsn)
            break;
        nanosleep(&step, NULL); // a number that has not been given yet
    }
    printf("%" PRIu64 "\n", durable);
    return cmd_finish(command, EXIT_CODE_OK);
}

const struct command cmd_wait = {
    .name = "wait",
    .usage = "MOUNTPOINT [LSN]",
    .summary = "wait until what was done so far, or up to an LSN, is durable",
    .help =
        "Returns when everything that was completed before the call is durable, as `sync MOUNTPOINT`\n"
        "does; with an LSN, when the log is durable up to there, also one that has not been given yet.\n"
        "Prints the LSN up to which the log is durable then. `getfattr -n user.aerofs.state KEY` tells\n"
        "that of the last change of a key.\n"
        "\n"
        "  --help      print this\n"
        "  --version   print the version\n"
        "\n"
        "Exit codes: 0 durable; 2 wrong arguments; 3 no mount point of AeroFS; 10 permission denied; 12 the\n"
        "mount is read-only; 14 the daemon of the mount has ended; 16 the log has failed; 17 anything else.\n",
    .run = run,
};
