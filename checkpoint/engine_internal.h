// SPDX-License-Identifier: MIT
// What engine.c, create.c and status.c share. Who owns what: the engine owns everything in it; the
// store and the log borrow `data`, the publisher borrows store and log.
#ifndef AF_CHECKPOINT_ENGINE_INTERNAL_H
#define AF_CHECKPOINT_ENGINE_INTERNAL_H

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpointer.h"
#include "checkpoint/engine.h"
#include "checkpoint/scrub.h"

struct engine {
    struct io *io; // borrowed
    struct engine_options options;
    struct io_file *data;
    struct io_file
        *data_log; // the same file, for the syncs of the log; NULL: the disk is read-only
    struct store *store;
    struct checkpoint checkpoint; // owns its superblock file and the log: checkpoint.wal
    struct checkpointer checkpointer;
    struct scrub scrub;
    struct engine_recovery recovery;
    uint8_t uuid[16];
    uint64_t segment_bytes;
    bool disk_read_only; // nothing can be written, and nothing is
    bool running;        // open succeeded: waiting calls may ask for checkpoints
};

// Defaults filled in.
struct engine_options engine_options_complete(const struct engine_options *options);
// For a store that cannot ask for checkpoints yet; callers set the callbacks.
struct store_config engine_store_config(const struct engine_options *options, struct io *io,
                                        struct io_file *data);

#endif
