// SPDX-License-Identifier: MIT
// A disk with a volatile write cache over a real directory: struct io_ops for a daemon whose
// SIGKILL is a power cut. What was synced lies in the directory; everything else is in the memory
// of the process only: written sectors as an overlay over each file, and the changes of directories
// as a journal. With a seed, a thread writes some of it early and in any order, as real caches do.
#ifndef AF_TESTS_POWERCUT_IO_VOLATILE_H
#define AF_TESTS_POWERCUT_IO_VOLATILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/io.h"

struct io_volatile_options {
    bool survive;      // some of what is not synced survives
    uint64_t seed;     // what survives
    unsigned delay_us; // of each asynchronous operation
    unsigned
        slow_sync_us; // of each sync that is waited for, once the mount is up: those of checkpoints
    const char *lie;  // a prefix of paths whose syncs succeed without effect, or NULL; borrowed
};

int io_volatile_open(const char *path, const struct io_volatile_options *options,
                     struct io **ret_io) AF_NODISCARD;
// The lies begin: while a store is being made and opened, the disk is honest.
void io_volatile_start_lying(struct io *io);

#endif
