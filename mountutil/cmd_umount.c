// SPDX-License-Identifier: MIT
// `aerofs umount`, and the helper that umount(8) calls.
//
//   1 sync       of the root directory: everything completed is durable, whoever keeps the rest in
//   use 2 unmount    umount2(2), or fusermount3 for an ordinary user 3 wait       until the daemon,
//   with its last checkpoint written, lets go of STORE/lock 4 look       whether it has closed the
//   store cleanly
//
// The kernel does not wait for a FUSE daemon: after 2 the mount is gone, and the daemon still
// works. umount(8) looks for a helper of the type of the mount, and finds it by the name that it
// was installed under: umount.fuse.aerofs; but for root, who gives an absolute path, it asks
// statfs(2) only, to which all FUSE file systems look alike, and calls umount.fuse. Under that name
// other types are passed back to umount(8).
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "fs/mountinfo.h"
#include "mountutil/cmd.h"
#include "mountutil/cmd_umount.h"
#include "mountutil/exit_code.h"
#include "mountutil/mount_store.h"
#include "mountutil/store_dir.h"

struct umount {
    const struct command *command;
    bool lazy, force;
    char path[PATH_MAX]; // resolved
    struct mountinfo info;
    char store[PATH_MAX]; // empty: not known
    int lock_fd;          // STORE/lock, opened before the unmount; -1: none
    int sync_error;
};

// ---- before ----

// The daemon says where its store is. Of a mount that this user may not enter, or of a dead one,
// its source is all there is to know: STORE as it was given.
static void find_store(struct umount *u)
{
    char name[PATH_MAX + 16];

    snprintf(name, sizeof(name), "%s/.aerofs/store", u->path);
    FILE *f = u->force ? NULL : fopen(name, "re");
    size_t len = f ? fread(u->store, 1, sizeof(u->store) - 1, f) : 0;
    if (f)
        (void)fclose(f); // only read
    if (len == 0 && u->info.source[0] == '/') {
        len = strlen(u->info.source);
        memcpy(u->store, u->info.source, len);
    }
    u->store[len] = '\0';
    if (len > 0 && u->store[len - 1] == '\n')
        u->store[len - 1] = '\0';
    if (!u->store[0])
        return;
    snprintf(name, sizeof(name), "%s/lock", u->store);
    u->lock_fd = open(name, O_RDONLY | O_CLOEXEC);
}

static bool is_dead(int err)
{
    return err == -ENOTCONN || err == -ECONNABORTED;
}

// 0, or why it cannot be: also -ENOTCONN, when the daemon is gone, and -EACCES, when this user may
// not enter.
static int sync_mount(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int r = fsync(fd) ? -errno : 0;
    close(fd);
    return r;
}

// ---- the unmount ----

static int detach(const struct umount *u)
{
    // Forced: the kernel cuts the connection, so a daemon that hangs holds nobody up.
    if (u->force && umount2(u->path, MNT_FORCE | UMOUNT_NOFOLLOW) == 0)
        return 0;
    if (u->force && errno != EPERM)
        return -errno;
    return mountinfo_detach(u->path, u->lazy || is_dead(u->sync_error));
}

static int refuse(const struct umount *u, int err)
{
    if (err == -EBUSY)
        cmd_error(
            u->command,
            "%s is busy: a program has a file open or its working directory there (`fuser -vm %s` "
            "names it), or the mount is another user's",
            u->path, u->path);
    else
        cmd_error(u->command, "cannot unmount %s: %s", u->path, strerror(-err));
    return err == -EBUSY ? EXIT_CODE_IN_USE : exit_code(err);
}

// ---- after ----

// A daemon that is on its way says so in the lock file (mount_place_closing()), at once. One that
// has not said it for so long serves other users of the same mount.
#define CLOSING_WAIT_MS 10000
#define STEP_MS         5

// 0: the store is free, or was and has a new holder. Otherwise an exit code, with a message.
static int wait_for_daemon(const struct umount *u)
{
    const struct timespec step = {.tv_nsec = STEP_MS * 1000000L};
    long holder = store_dir_holder(u->lock_fd, NULL);

    for (int waited = 0; flock(u->lock_fd, LOCK_SH | LOCK_NB) < 0; waited += STEP_MS) {
        bool closing;
        long now = store_dir_holder(u->lock_fd, &closing); // 0: it is being written
        if (errno != EWOULDBLOCK && errno != EINTR) {
            cmd_error(u->command, "%s is unmounted; cannot wait for the lock of the store %s: %s",
                      u->path, u->store, strerror(errno));
            return EXIT_CODE_OTHER;
        }
        if (now != 0 && now != holder)
            return 0;
        if (!closing && waited >= CLOSING_WAIT_MS) {
            cmd_error(
                u->command,
                "%s is unmounted, but its daemon, process %ld, goes on: it is mounted elsewhere "
                "too. What was completed is durable; the store %s is in use",
                u->path, holder, u->store);
            return EXIT_CODE_IN_USE;
        }
        nanosleep(&step, NULL);
    }
    return 0;
}

static int check_closed(const struct umount *u)
{
    struct store_dir dir;

    int err = store_dir_open(u->command, u->store, STORE_DIR_SHARED, &dir);
    bool fine = !err && (dir.in_use || store_dir_is_clean(&dir));
    store_dir_close(&dir);
    if (err)
        return exit_code(err);
    if (fine)
        return EXIT_CODE_OK;
    cmd_error(
        u->command,
        "%s is unmounted, but the store %s was not closed cleanly; its daemon has told the system log "
        "why. The next mount recovers it",
        u->path, u->store);
    return EXIT_CODE_IO;
}

static int finish(const struct umount *u)
{
    if (is_dead(u->sync_error)) {
        fprintf(stderr,
                "aerofs %s: the daemon of %s had ended before; the next mount recovers the store\n",
                u->command->name, u->path);
        return EXIT_CODE_OK;
    }
    // In use by others still: then the sync was all that can be promised.
    bool elsewhere = mountinfo_is_mounted(&u->info);
    if ((u->lazy || elsewhere) && u->sync_error) {
        cmd_error(u->command, "%s is unmounted, but what was written is not durable: %s", u->path,
                  strerror(-u->sync_error));
        return exit_code(u->sync_error);
    }
    if (u->lazy || elsewhere)
        return EXIT_CODE_OK;
    if (u->lock_fd < 0) {
        cmd_error(u->command,
                  "%s is unmounted; where its store is cannot be told, so its daemon may still be "
                  "writing",
                  u->path);
        return EXIT_CODE_OTHER;
    }
    int code = wait_for_daemon(u);
    return code ? code : check_closed(u);
}

static int run_umount(struct umount *u)
{
    // Before the sync, which comes after the last close of what was read here. Neither when it is
    // forced: a daemon that hangs would hang us too.
    find_store(u);
    if (!u->force)
        u->sync_error = sync_mount(u->path);
    int r = detach(u);
    int code = r ? refuse(u, r) : finish(u);
    if (u->lock_fd >= 0)
        close(u->lock_fd);
    return code;
}

// 0, or an exit code with a message.
static int find_mount(struct umount *u, const char *operand)
{
    int err = mount_place_resolve(operand, u->path);
    if (err) {
        cmd_error(u->command, "%s: %s", operand, strerror(err));
        return exit_code(-err);
    }
    int r = mountinfo_find(u->path, &u->info);
    if (r == 0 && strcmp(u->info.type, MOUNTINFO_TYPE) == 0)
        return 0;
    if (r == 0 || r == -ENOENT) {
        cmd_error(u->command, "%s is no mount point of AeroFS%s%s", u->path, r ? "" : ", but of ",
                  r ? "" : u->info.type);
        return EXIT_CODE_NOT_A_STORE;
    }
    cmd_error(u->command, "cannot read /proc/self/mountinfo: %s", strerror(-r));
    return exit_code(r);
}

static int run(const struct command *command, int argc, char **argv)
{
    struct umount u = {.command = command, .lock_fd = -1};
    const struct cmd_option options[] = {{"lazy", &u.lazy, NULL}, {"force", &u.force, NULL}};
    const char *operand;

    int code = cmd_parse(command, argc, argv, options, AF_ARRAY_LEN(options), &operand, 1);
    if (code >= 0)
        return code;
    code = find_mount(&u, operand);
    return code ? code : run_umount(&u);
}

// ---- the helper ----

bool umount_helper_is_name(const char *name)
{
    const char *slash = strrchr(name, '/');

    return strncmp(slash ? slash + 1 : name, "umount.", 7) == 0;
}

// The mounts of others, and what only umount(8) can do: there, without a helper.
static int pass_back(char **argv)
{
    char **args = calloc((size_t)UMOUNT_HELPER_ARGS_MAX + 3, sizeof(*args));
    char program[] = "umount", internal[] = "-i";
    size_t count = 0;

    if (args) {
        args[count++] = program;
        args[count++] = internal;
        for (argv++; *argv && count < UMOUNT_HELPER_ARGS_MAX + 2; argv++) {
            // umount(8) takes a list of types, but not with a mount point.
            if (strcmp(*argv, "-t") == 0 && argv[1])
                argv++;
            else
                args[count++] = *argv;
        }
        execvp(program, args);
    }
    fprintf(stderr, "umount.fuse: cannot run umount -i: %s\n", strerror(errno));
    free(args);
    return EXIT_CODE_OTHER;
}

int umount_helper(int argc, char **argv)
{
    struct umount u = {.command = &cmd_umount, .lock_fd = -1};
    const char *operand = NULL;
    bool other = argc > UMOUNT_HELPER_ARGS_MAX;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-t") == 0 && i + 1 < argc)
            i++; // the type, which mountinfo tells as well
        else if (strcmp(argv[i], "-l") == 0)
            u.lazy = true;
        else if (strcmp(argv[i], "-f") == 0)
            u.force = true;
        else if (argv[i][0] != '-')
            operand = argv[i];
        else if (strcmp(argv[i], "-n") != 0 && strcmp(argv[i], "-v") != 0)
            other = true; // -r: read-only when it is busy; -N: another name space
    }
    if (other || !operand || mount_place_resolve(operand, u.path) ||
        mountinfo_find(u.path, &u.info) || strcmp(u.info.type, MOUNTINFO_TYPE) != 0)
        return pass_back(argv);
    return run_umount(&u);
}

const struct command cmd_umount = {
    .name = "umount",
    .usage = "[--lazy] [--force] MOUNTPOINT",
    .summary = "unmount, and return when everything is durable and the store is free",
    .help =
        "Returns when the daemon has written its last checkpoint and let go of the store, however\n"
        "long that takes.\n"
        "\n"
        "  --lazy      detach the mount now; what has files open there keeps it alive. Returns when\n"
        "              everything completed so far is durable; the daemon ends after its last user\n"
        "  --force     cut the connection to a daemon that hangs\n"
        "  --help      print this\n"
        "  --version   print the version\n"
        "\n"
        "Exit codes: 0 unmounted, the store is closed cleanly; 2 wrong arguments; 3 not found;\n"
        "4 no mount point of AeroFS; 5 busy, or mounted elsewhere too; 10 permission denied;\n"
        "16 unmounted, but not closed cleanly; 17 anything else.\n",
    .run = run,
};
