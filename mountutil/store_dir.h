// SPDX-License-Identifier: MIT
// A store directory opened for reading only, by the commands that look at a store which no daemon
// serves: status, check, log, dump. Nothing in it is ever changed, not even a time of access that
// matters.
#ifndef AF_MOUNTUTIL_STORE_DIR_H
#define AF_MOUNTUTIL_STORE_DIR_H

#include <stdbool.h>

#include "base/attr.h"
#include "base/io.h"
#include "checkpoint/superblock.h"
#include "mountutil/cmd.h"

enum store_dir_lock {
    STORE_DIR_SHARED, // keep the lock shared until store_dir_close(), so that no daemon starts
                      // meanwhile
    STORE_DIR_TEST,   // only look whether somebody holds it
};

struct store_dir {
    const char *path; // borrowed, as given
    struct io *io;
    int lock_fd;                   // -1: not held
    bool in_use;                   // a daemon has the store
    long holder;                   // its process, 0: not known
    struct superblock_slots slots; // loaded unless in_use with STORE_DIR_SHARED
    bool loaded;
};

// Opens `path`, which must look like a store, and loads both superblock slots. On failure the
// message is out and the error code is returned. A store in use is no failure: see `in_use`;
// neither are bad superblocks: see store_dir_superblock_error(). store_dir_close() is to be called
// in any case.
int store_dir_open(const struct command *command, const char *path, enum store_dir_lock lock,
                   struct store_dir *ret_dir) AF_NODISCARD;
void store_dir_close(struct store_dir *dir);

// 0 when there is a valid superblock, -AF_E_VERSION when the store is of a newer format, else what
// is wrong.
int store_dir_superblock_error(const struct store_dir *dir);
// The chosen superblock; NULL when none is valid.
const struct superblock *store_dir_superblock(const struct store_dir *dir);
// "valid", or what is wrong with a slot; static storage.
const char *store_dir_slot_text(const struct store_dir *dir, unsigned slot);
// Prints that the store is in use, by whom, and what to do. Returns -AF_E_STORE_LOCKED.
int store_dir_refuse_in_use(const struct command *command, const struct store_dir *dir);
// Prints what is wrong with the superblocks and what to do. Returns the error code.
int store_dir_refuse_superblock(const struct command *command, const struct store_dir *dir);

#endif
