// SPDX-License-Identifier: MIT
// The structures of a store as lines of text, for `aerofs dump`: superblocks, tree, space map.
// Shows as much as can be read; what cannot says why. Changes nothing. The log is shown by
// wal_read_segment() and op_to_text().
#ifndef AF_CHECKPOINT_DUMP_H
#define AF_CHECKPOINT_DUMP_H

#include <stdint.h>

#include "base/attr.h"
#include "base/io.h"

enum {
    DUMP_SUPERBLOCKS = 1, // both slots, valid or not
    DUMP_TREE = 2,        // every item of the newest checkpoint
    DUMP_NODES = 4,       // with the tree: its nodes too
    DUMP_SPACE = 8,       // index blocks and groups
};

struct dump_options {
    unsigned parts;
    uint64_t ino; // of the tree only what stands under this number; 0: everything
    // Gets a line without its end; a non-zero return ends the dump and is returned.
    int (*line)(void *arg, const char *text);
    void *arg;
};

// 0 also when parts could not be read; -ENOENT without a superblock file, -ENOMEM, what `line`
// returned.
int dump_store(struct io *io, const struct dump_options *options) AF_NODISCARD;

#endif
