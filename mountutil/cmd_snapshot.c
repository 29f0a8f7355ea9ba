// SPDX-License-Identifier: MIT
// `aerofs snapshot`: takes, lists and deletes snapshots of a mount. It does what mkdir, ls and
// rmdir in MOUNTPOINT/.aerofs/snapshots do, with messages that say what that meant.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "mountutil/cmd.h"
#include "mountutil/exit_code.h"

// Opens MOUNTPOINT/.aerofs/NAME. -1, with a message and *ret_code.
static int open_control(const struct command *command, const char *mountpoint, const char *name,
                        int flags, int *ret_code)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof(path), "%s/.aerofs/%s", mountpoint, name);
    int fd = -1;

    errno = ENAMETOOLONG;
    if (len > 0 && (size_t)len < sizeof(path))
        fd = open(path, flags | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    int err = errno;

    *ret_code = exit_code(-err);
    if (err == ENOTCONN) {
        *ret_code = EXIT_CODE_NOT_CONNECTED;
        cmd_error(command, "the daemon of the mount '%s' has ended; mount the store again",
                  mountpoint);
    } else if (err == ENOENT || err == ENOTDIR) {
        *ret_code = EXIT_CODE_NOT_FOUND;
        cmd_error(command, "'%s' is no mount point of AeroFS", mountpoint);
    } else {
        cmd_error(command, "cannot open '%s': %s", path, strerror(err));
    }
    return -1;
}

// What a call on the snapshot `name` said: the exit code, with a message.
static int result(const struct command *command, const char *what, const char *name, int err)
{
    switch (err) {
    case 0:
        return EXIT_CODE_OK;
    case EEXIST:
        cmd_error(command, "cannot %s snapshot '%s': there is one of that name", what, name);
        return EXIT_CODE_EXISTS;
    case ENOENT:
        cmd_error(command, "cannot %s snapshot '%s': there is none of that name", what, name);
        return EXIT_CODE_NOT_FOUND;
    case EINVAL:
        cmd_error(
            command,
            "cannot %s snapshot '%s': a name is 1 to 255 bytes without '/' and control characters",
            what, name);
        return EXIT_CODE_USAGE;
    default:
        cmd_error(command, "cannot %s snapshot '%s': %s", what, name, strerror(err));
        return exit_code(-err);
    }
}

static int check_name(const struct command *command, const char *what, const char *name)
{
    if (*name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
        return EXIT_CODE_OK;
    return result(command, what, name, EINVAL);
}

static int create(const struct command *command, const char *mountpoint, const char *name)
{
    int code = check_name(command, "take", name), fd;

    if (code)
        return code;
    fd = open_control(command, mountpoint, "snapshots", O_RDONLY | O_DIRECTORY, &code);
    if (fd < 0)
        return code;
    code = result(command, "take", name, mkdirat(fd, name, 0755) == 0 ? 0 : errno);
    close(fd);
    return code;
}

static int delete (const struct command *command, const char *mountpoint, const char *name)
{
    int code = check_name(command, "delete", name), fd;

    if (code)
        return code;
    fd = open_control(command, mountpoint, "snapshots", O_RDONLY | O_DIRECTORY, &code);
    if (fd < 0)
        return code;
    code = result(command, "delete", name, unlinkat(fd, name, AT_REMOVEDIR) == 0 ? 0 : errno);
    close(fd);
    return code;
}

// Names the present state after the moment, unless told otherwise.
static int rollback(const struct command *command, const char *mountpoint, const char *name,
                    const char *keep)
{
    char made[64], text[600];
    int code = check_name(command, "go back to", name);

    if (!keep) {
        time_t now = time(NULL);
        struct tm tm;

        if (!localtime_r(&now, &tm) ||
            strftime(made, sizeof(made), "before-rollback-%Y-%m-%d-%H%M%S", &tm) == 0)
            snprintf(made, sizeof(made), "before-rollback-%lld", (long long)now);
        keep = made;
    }
    if (!code)
        code = check_name(command, "keep", keep);
    if (code)
        return code;
    int fd = open_control(command, mountpoint, "rollback", O_WRONLY, &code);
    if (fd < 0)
        return code;
    int len = snprintf(text, sizeof(text), "%s\n%s\n", name, keep);
    int err = write(fd, text, (size_t)len) == len ? 0 : errno;
    close(fd);
    if (err == EEXIST)
        return result(command, "keep the present state as", keep, err);
    code = result(command, "go back to", name, err);
    if (code == 0)
        printf("went back to '%s'; the state before is snapshot '%s'\n", name, keep);
    return cmd_finish(command, code);
}

// "LSN SECONDS INODES NAME" as the daemon writes it.
static void print_line(char *line)
{
    uint64_t lsn, inodes;
    int64_t created;
    int at = 0;
    struct tm tm;
    char when[40];

    line[strcspn(line, "\n")] = 0;
    if (sscanf(line, "%" SCNu64 " %" SCNd64 " %" SCNu64 " %n", &lsn, &created, &inodes, &at) != 3 ||
        at == 0)
        return;
    time_t t = (time_t)created;

    if (!localtime_r(&t, &tm) || strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm) == 0)
        snprintf(when, sizeof(when), "%" PRId64, created);
    printf("%-19s  lsn %-12" PRIu64 "  inodes %-9" PRIu64 "  %s\n", when, lsn, inodes, line + at);
}

static int list(const struct command *command, const char *mountpoint)
{
    int code = 0, fd = open_control(command, mountpoint, "snapshots.list", O_RDONLY, &code);
    FILE *from = fd >= 0 ? fdopen(fd, "r") : NULL;
    char *line = NULL;
    size_t size = 0;

    if (!from) {
        if (fd >= 0)
            close(fd);
        return code ? code : EXIT_CODE_OTHER;
    }
    while (getline(&line, &size, from) > 0)
        print_line(line);
    if (ferror(from)) {
        cmd_error(command, "cannot read the list of snapshots of '%s': %s", mountpoint,
                  strerror(errno));
        code = EXIT_CODE_IO;
    }
    free(line);
    fclose(from);
    return cmd_finish(command, code);
}

static int run(const struct command *command, int argc, char **argv)
{
    const char *operands[3] = {NULL};
    const char *action = argc > 1 ? argv[1] : "";
    bool lists = strcmp(action, "list") == 0, creates = strcmp(action, "create") == 0;
    bool deletes = strcmp(action, "delete") == 0, goes_back = strcmp(action, "rollback") == 0;
    const char *keep = NULL;
    const struct cmd_option options[] = {{"keep", NULL, &keep}};

    int code = cmd_parse(command, argc, argv, options, goes_back, operands, lists ? 2 : 3);
    if (code >= 0)
        return code;
    if (lists)
        return list(command, operands[1]);
    if (creates)
        return create(command, operands[1], operands[2]);
    if (deletes)
        return delete (command, operands[1], operands[2]);
    if (goes_back)
        return rollback(command, operands[1], operands[2], keep);
    cmd_error(command,
              "'%s' is none of create, list, delete, rollback\nTry: aerofs snapshot --help",
              action);
    return EXIT_CODE_USAGE;
}

const struct command cmd_snapshot = {
    .name = "snapshot",
    .usage =
        "create|delete MOUNTPOINT NAME | list MOUNTPOINT | rollback MOUNTPOINT NAME [--keep NAME]",
    .summary = "take, list and delete snapshots of a mount, go back to one",
    .help =
        "A snapshot is the whole tree as it is now, under a name: a read-only directory\n"
        "MOUNTPOINT/.aerofs/snapshots/NAME. Taking one costs a checkpoint, whatever the size of the\n"
        "store; it is durable when the command returns and holds everything completed before\n"
        "(files closed or synced). What it holds is kept until it is deleted; a deleted one is gone at\n"
        "once and gives its space back in the background. The same is done by mkdir, ls and rmdir.\n"
        "\n"
        "rollback makes the whole tree what it was, in one step that a crash undoes or keeps as a whole; the\n"
        "state before becomes a snapshot. Changes wait meanwhile. Files that are open become stale\n"
        "(ESTALE), and what was written to them and not completed is dropped.\n"
        "\n"
        "  --keep NAME name of the snapshot of the state before; otherwise before-rollback-DATE-TIME\n"
        "  --help      print this\n"
        "  --version   print the version\n"
        "\n"
        "Exit codes: 0 done; 2 wrong arguments; 3 no mount point of AeroFS, or no such snapshot; 10 permission\n"
        "denied; 11 no space; 12 the mount is read-only; 14 the daemon of the mount has ended; 15 there is a\n"
        "snapshot of that name; 16 the disk failed; 17 anything else.\n",
    .run = run,
};
