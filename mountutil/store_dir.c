// SPDX-License-Identifier: MIT
// Opening a store directory for reading, and saying clearly why that cannot be done.
#include "mountutil/store_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"

// A mount point has .aerofs in it, which answers although it is not listed.
static bool is_mount_point(const char *path)
{
    char name[PATH_MAX];
    struct stat st;

    int len = snprintf(name, sizeof(name), "%s/.aerofs/status", path);
    return len > 0 && (size_t)len < sizeof(name) && stat(name, &st) == 0;
}

static int check_directory(const struct command *command, const char *path)
{
    DIR *dir = opendir(path);

    if (dir) {
        closedir(dir);
        if (!is_mount_point(path))
            return 0;
        cmd_error(command, "'%s' is a mount point. Give the directory of the store", path);
        return -AF_E_NOT_A_STORE;
    }
    int err = -errno;
    const char *advice = "";
    if (err == -EACCES)
        advice = ". A store belongs to its owner alone: run as that user or as root";
    else if (err == -ENOTDIR)
        advice = ". A store is a directory";
    else if (err == -ENOTCONN)
        advice =
            ". The daemon of this mount has ended: detach it with umount, and give the directory of the store";
    cmd_error(command, "cannot open the directory '%s': %s%s", path, strerror(-err), advice);
    return err;
}

#define WAIT_MS      3000
#define WAIT_STEP_MS 50

// Returns 0 when the lock is held, shared; -EWOULDBLOCK when a daemon has it, or another error.
static int try_lock(int fd, enum store_dir_lock lock)
{
    const struct timespec step = {.tv_nsec = WAIT_STEP_MS * 1000000L};
    int left_ms = lock == STORE_DIR_PATIENT ? WAIT_MS : 0;

    while (flock(fd, LOCK_SH | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || left_ms <= 0)
            return -errno;
        left_ms -= WAIT_STEP_MS;
        nanosleep(&step, NULL);
    }
    return 0;
}

long store_dir_holder(int lock_fd, bool *ret_closing)
{
    char text[32] = "";
    ssize_t got = pread(lock_fd, text, sizeof(text) - 1, 0);

    if (ret_closing)
        *ret_closing = strstr(text, STORE_DIR_CLOSING);
    return got > 0 ? strtol(text, NULL, 10) : 0;
}

// The daemon holds STORE/lock exclusively. Its text, the process, is for messages only.
static int take_lock(const struct command *command, enum store_dir_lock lock, struct store_dir *dir)
{
    char name[PATH_MAX];

    int len = snprintf(name, sizeof(name), "%s/lock", dir->path);
    if (len < 0 || (size_t)len >= sizeof(name))
        return -ENAMETOOLONG;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    // The file lives as long as a store was ever mounted; a copy of a store may come without it.
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0) {
        int err = -errno;
        cmd_error(command, "cannot open '%s': %s", name, strerror(-err));
        return err;
    }
    int err = try_lock(fd, lock);
    if (err && err != -EWOULDBLOCK) {
        cmd_error(command, "cannot test the lock '%s': %s", name, strerror(-err));
        close(fd);
        return err;
    }
    if (err) {
        dir->in_use = true;
        dir->holder = store_dir_holder(fd, NULL);
        close(fd);
        return 0;
    }
    if (lock != STORE_DIR_TEST)
        dir->lock_fd = fd;
    else
        close(fd);
    return 0;
}

int store_dir_open(const struct command *command, const char *path, enum store_dir_lock lock,
                   struct store_dir *ret_dir)
{
    *ret_dir = (struct store_dir){.path = path, .lock_fd = -1};

    int err = check_directory(command, path);
    if (err)
        return err;
    err = take_lock(command, lock, ret_dir);
    if (err)
        return err;
    if (ret_dir->in_use && lock != STORE_DIR_TEST)
        return 0;
    err = io_plain_open(path, true, &ret_dir->io);
    if (err) {
        cmd_error(command, "cannot open the store '%s': %s", path, err_text(err));
        return err;
    }
    ret_dir->error = examine_load(&ret_dir->x, ret_dir->io);
    if (ret_dir->error == -AF_E_NOT_A_STORE) {
        cmd_error(command, "'%s': %s", path, ret_dir->x.message);
        return ret_dir->error;
    }
    return 0;
}

void store_dir_close(struct store_dir *dir)
{
    if (dir->io) {
        examine_free(&dir->x);
        dir->io->ops->destroy(dir->io);
    }
    if (dir->lock_fd >= 0)
        close(dir->lock_fd);
    *dir = (struct store_dir){.lock_fd = -1};
}

static int count_record(void *arg, const struct wal_record *record)
{
    uint64_t *records = arg;

    (void)record;
    ++*records;
    return 0;
}

bool store_dir_is_clean(struct store_dir *dir)
{
    uint64_t operations = 0;

    if (dir->error || examine_log(&dir->x, count_record, &operations))
        return false;
    return dir->x.sb->clean && operations == 0 && dir->x.scan.end == WAL_END_CLEAN;
}

int store_dir_refuse_in_use(const struct command *command, const struct store_dir *dir)
{
    if (dir->holder > 0)
        cmd_error(command, "the store '%s' is in use by process %ld. Unmount it first", dir->path,
                  dir->holder);
    else
        cmd_error(command, "the store '%s' is in use. Unmount it first", dir->path);
    return -AF_E_STORE_LOCKED;
}
