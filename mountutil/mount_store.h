// SPDX-License-Identifier: MIT
// The two directories of a mount: checked before anything is opened, and the lock on the store.
#ifndef AF_MOUNTUTIL_MOUNT_STORE_H
#define AF_MOUNTUTIL_MOUNT_STORE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/attr.h"
#include "mountutil/mount_opts.h"

struct mount_place {
    char store[PATH_MAX];      // absolute and resolved
    char mountpoint[PATH_MAX]; // the same
    bool make_store;           // no store is there, and it is to be made
    bool disk_read_only;
    int lock_fd; // -1: not held
    int dir_fd;  // the directory, locked as well; -1: not held
};

// All functions return 0 or an exit code (exit_code.h), and then a message of one line.

// Resolves a path whose last component may be missing or not answer (a dead mount). Returns 0 or an
// errno, not negated.
int mount_place_resolve(const char *path, char ret_path[PATH_MAX]) AF_NODISCARD;
// Resolves both paths, detaches a dead AeroFS mount at the mount point, and finds out what STORE
// is. Changes nothing in it; makes the directory if it is missing and to be made.
int mount_place_check(const struct mount_opts *opts, struct mount_place *ret_place,
                      char *message_text, size_t message_size) AF_NODISCARD;
// Takes STORE/lock. Only the lock decides; the text in the file is for people.
int mount_place_lock(struct mount_place *place, char *message_text,
                     size_t message_size) AF_NODISCARD;
// Says in the file that the holder is about to let go, so that the next mount waits.
void mount_place_closing(struct mount_place *place);
void mount_place_unlock(struct mount_place *place);

#endif
