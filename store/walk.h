// SPDX-License-Identifier: MIT
// Walking over everything in the live tree, leaf by leaf, while it is being changed: for names of
// what is damaged, for the scrub and for rescue. No snapshot is held and nothing enters the cache:
// each leaf is what it is at the moment when it is come to, and the walk goes on behind it. What
// cannot be read is an error with its range, and the walk goes on behind that too.
#ifndef AF_STORE_WALK_H
#define AF_STORE_WALK_H

#include "store/btree.h"
#include "store/store_engine.h"

struct store_leaf {
    struct tree_way way; // where it was found; way.low: asked from here on; way.next: goes on there
    bool cached;         // the bytes come from memory
    uint8_t bytes[BLOCK_BYTES]; // a valid node of level 0
};

// The leaf whose range holds `key`, of the live tree (`snapshot` 0) or of a snapshot. `data`: what
// it is read from when it is not in memory. 0; or an error of the node at way.ref[way.level], which
// is still referred to: everything in [way.low, way.next) hangs below it. -ENOMEM. -ENOENT: there
// is no such snapshot (any more).
int store_walk(struct store *s, struct io_file *data, uint64_t snapshot, struct key key,
               struct store_leaf *ret) AF_NODISCARD;
// The way alone, in ret->way; nothing but inner nodes is read.
int store_walk_way(struct store *s, uint64_t snapshot, struct key key,
                   struct store_leaf *ret) AF_NODISCARD;
// True when the node at `level` of `way` is still part of that tree.
bool store_walk_current(struct store *s, uint64_t snapshot, const struct tree_way *way,
                        unsigned level);

#endif
