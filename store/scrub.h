// SPDX-License-Identifier: MIT
// The scrub of a running store: everything that the live tree reaches, and the published space map,
// read from disk and compared with its checksum, while the store is being used. No lock is held
// during I/O.
//
// What fails counts only while it is still referred to, as it was, after the read: a block that was
// freed meanwhile is no damage. What waits in memory for a checkpoint is not on disk yet and is
// passed over. A block is read once: a second, better reading would not make it sound. What several
// trees share, the live one and snapshots, is read for the first of them.
//
// Memory: a bit for each block of `data`.
#ifndef AF_STORE_SCRUB_H
#define AF_STORE_SCRUB_H

#include "store/walk.h"

struct store_scrub {
    struct store *store;
    struct io_file *data; // borrowed; opened past the page cache
    // Called after every read, without locks: `bytes` were read. False: the scrub is to end.
    bool (*pace)(void *arg, uint64_t bytes);
    void *arg;
    uint64_t nodes, data_blocks, map_blocks, bytes; // read so far
    uint64_t damage;                                // found so far

    uint64_t snapshot; // whose tree is walked, 0: the live one
    struct key at;     // where the walk has come to
    uint64_t *done;    // bit for each block that was read
    uint64_t done_blocks;
    struct store_leaf *leaf;
    struct blkref seen[TREE_LEVELS]; // the nodes on the way there that were read last
    uint8_t *buffer;                 // EXTENT_BLOCKS_MAX blocks
    bool stopped;
};

// `sc`: store, data, pace and arg are set, the rest zero. -ENOMEM.
int store_scrub_begin(struct store_scrub *sc) AF_NODISCARD;
// All of it. 0; -EINTR when pace() has ended it; or why it cannot go on. What is damaged is noted
// in the store and counted, and is no error.
int store_scrub_tree(struct store_scrub *sc) AF_NODISCARD; // the live tree, then all snapshots
int store_scrub_map(struct store_scrub *sc) AF_NODISCARD;
void store_scrub_end(struct store_scrub *sc);

#endif
