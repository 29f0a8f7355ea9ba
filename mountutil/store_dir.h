// SPDX-License-Identifier: MIT
// A store directory opened for reading only, by the commands that look at a store which no daemon
// serves: status, check, log, dump. Nothing in it is ever changed, not even a time of access that
// matters.
#ifndef AF_MOUNTUTIL_STORE_DIR_H
#define AF_MOUNTUTIL_STORE_DIR_H

#include <stdbool.h>

#include "base/attr.h"
#include "base/io.h"
#include "checkpoint/examine.h"
#include "mountutil/cmd.h"

enum store_dir_lock {
    STORE_DIR_SHARED,  // keep the lock shared until store_dir_close(), so that no daemon starts
                       // meanwhile
    STORE_DIR_PATIENT, // the same; a daemon gets a moment to end, for umount(8) returns before it
                       // has
    STORE_DIR_TEST,    // only look whether somebody holds it
};

// In the lock file, behind the process number: it has been unmounted and is about to let go.
#define STORE_DIR_CLOSING "closing"

struct store_dir {
    const char *path; // borrowed, as given
    struct io *io;
    int lock_fd; // -1: not held
    bool in_use; // a daemon has the store
    long holder; // its process, 0: not known
    // What examine_load() said, unless in_use without STORE_DIR_TEST.
    struct examination x;
    int error; // 0, or why the store cannot be mounted; x.message says it in words
};

// Opens `path`, which must be a store, and loads its superblock. On failure the message is out and
// the error code is returned. A store in use is no failure: see `in_use`; neither is a store that
// is damaged: see `error`. store_dir_close() is to be called in any case.
int store_dir_open(const struct command *command, const char *path, enum store_dir_lock lock,
                   struct store_dir *ret_dir) AF_NODISCARD;
void store_dir_close(struct store_dir *dir);
// The store was unmounted cleanly, and nothing has been lost since.
bool store_dir_is_clean(struct store_dir *dir);
// The process number in an open lock file, 0 when it holds none; and whether that process has been
// unmounted and is about to let go. `ret_closing` may be NULL.
long store_dir_holder(int lock_fd, bool *ret_closing);

// Prints that the store is in use, by whom, and what to do. Returns -AF_E_STORE_LOCKED.
int store_dir_refuse_in_use(const struct command *command, const struct store_dir *dir);

#endif
