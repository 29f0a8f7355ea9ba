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
#include <unistd.h>

#include "base/err.h"

// What the directory holds, as far as it decides the message.
struct contents {
    bool superblock, other_parts, strangers;
};

static int look_into(const char *path, struct contents *ret)
{
    DIR *dir = opendir(path);

    if (!dir)
        return -errno;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            strcmp(e->d_name, "lost+found") == 0)
            continue;
        if (strcmp(e->d_name, "superblock") == 0)
            ret->superblock = true;
        else if (strcmp(e->d_name, "data") == 0 || strcmp(e->d_name, "wal") == 0)
            ret->other_parts = true;
        else
            ret->strangers = true;
    }
    closedir(dir);
    return 0;
}

// A mount point has .aerofs in it, which answers although it is not listed.
static bool is_mount_point(const char *path)
{
    char name[PATH_MAX];
    struct stat st;

    int len = snprintf(name, sizeof(name), "%s/.aerofs/status", path);
    return len > 0 && (size_t)len < sizeof(name) && stat(name, &st) == 0;
}

static int check_looks_like_store(const struct command *command, const char *path)
{
    struct contents contents = {0};

    int err = look_into(path, &contents);
    if (err) {
        cmd_error(
            command, "cannot read the directory '%s': %s%s", path, strerror(-err),
            err == -EACCES    ? ". A store belongs to its owner alone: run as that user or as root"
            : err == -ENOTDIR ? ". A store is a directory"
            : err == -ENOTCONN
                ? ". It is the mount point of a daemon that has ended: umount it, and give the store directory"
                : "");
        return err;
    }
    if (contents.superblock)
        return 0;
    if (is_mount_point(path))
        cmd_error(command, "'%s' is a mount point. Give the directory of the store", path);
    else if (contents.other_parts)
        cmd_error(
            command,
            "'%s' has parts of a store but no file 'superblock': its creation was interrupted, or the file was lost. "
            "After an interrupted creation, mount with --create",
            path);
    else if (contents.strangers)
        cmd_error(command, "'%s' is not an AeroFS store: it has no file 'superblock'", path);
    else
        cmd_error(command,
                  "'%s' is empty, not an AeroFS store. Is the disk mounted that belongs there?",
                  path);
    return -AF_E_NOT_A_STORE;
}

// The daemon holds STORE/lock exclusively. Its text, the process, is for messages only.
static int take_lock(const struct command *command, enum store_dir_lock lock, struct store_dir *dir)
{
    char name[PATH_MAX], text[32];

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
    if (flock(fd, LOCK_SH | LOCK_NB) < 0) {
        int err = -errno;
        if (err != -EWOULDBLOCK) {
            cmd_error(command, "cannot test the lock '%s': %s", name, strerror(-err));
            close(fd);
            return err;
        }
        dir->in_use = true;
        ssize_t got = pread(fd, text, sizeof(text) - 1, 0);
        text[got > 0 ? got : 0] = 0;
        dir->holder = strtol(text, NULL, 10);
        close(fd);
        return 0;
    }
    if (lock == STORE_DIR_SHARED)
        dir->lock_fd = fd;
    else
        close(fd);
    return 0;
}

int store_dir_open(const struct command *command, const char *path, enum store_dir_lock lock,
                   struct store_dir *ret_dir)
{
    *ret_dir = (struct store_dir){.path = path, .lock_fd = -1};

    int err = check_looks_like_store(command, path);
    if (err)
        return err;
    err = take_lock(command, lock, ret_dir);
    if (err)
        return err;
    if (ret_dir->in_use && lock == STORE_DIR_SHARED)
        return 0;
    err = io_plain_open(path, true, &ret_dir->io);
    if (err) {
        cmd_error(command, "cannot open the store '%s': %s", path, err_text(err));
        return err;
    }
    err = superblock_load(ret_dir->io, &ret_dir->slots);
    if (err) {
        cmd_error(command, "cannot read '%s/superblock': %s", path, err_text(err));
        return err;
    }
    ret_dir->loaded = true;
    return 0;
}

void store_dir_close(struct store_dir *dir)
{
    if (dir->loaded)
        superblock_slots_free(&dir->slots);
    if (dir->io)
        dir->io->ops->destroy(dir->io);
    if (dir->lock_fd >= 0)
        close(dir->lock_fd);
    *dir = (struct store_dir){.lock_fd = -1};
}

const struct superblock *store_dir_superblock(const struct store_dir *dir)
{
    if (!dir->loaded || dir->slots.chosen < 0)
        return NULL;
    return &dir->slots.sb[dir->slots.chosen];
}

int store_dir_superblock_error(const struct store_dir *dir)
{
    const int *result = dir->slots.result;

    // A newer program wrote at least one slot: then an older slot, although valid, is not the state
    // of the store.
    if (result[0] == -AF_E_VERSION || result[1] == -AF_E_VERSION)
        return -AF_E_VERSION;
    if (dir->slots.chosen >= 0)
        return 0;
    if (result[0] == -AF_E_SB_FIELD || result[1] == -AF_E_SB_FIELD)
        return -AF_E_SB_FIELD;
    return -AF_E_SB_NONE;
}

const char *store_dir_slot_text(const struct store_dir *dir, unsigned slot)
{
    return dir->slots.result[slot] == 0 ? "valid" : err_text(dir->slots.result[slot]);
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

int store_dir_refuse_superblock(const struct command *command, const struct store_dir *dir)
{
    int err = store_dir_superblock_error(dir);

    if (err == -AF_E_VERSION)
        cmd_error(command,
                  "'%s/superblock': %s. Use the version of AeroFS that wrote it, or a newer one",
                  dir->path, err_text(err));
    else
        cmd_error(
            command,
            "'%s/superblock' has no valid slot (slot 0: %s; slot 1: %s). Restore the file from a backup; until then "
            "leave the directory as it is",
            dir->path, store_dir_slot_text(dir, 0), store_dir_slot_text(dir, 1));
    return err;
}
