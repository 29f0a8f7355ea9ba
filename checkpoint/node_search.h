// SPDX-License-Identifier: MIT
// Nodes of a tree, found by reading all of `data`: for rescue, where the way to them is lost. What
// is found is whole by itself (its own layout, address and store); that it is the newest of its
// place, and that no bit of it has turned, only its lost parent knew.
#ifndef AF_CHECKPOINT_NODE_SEARCH_H
#define AF_CHECKPOINT_NODE_SEARCH_H

#include "store/btree.h"
#include "store/store_engine.h"

struct node_found {
    struct blkref ref; // with the checksum of the bytes as they are
    unsigned level;
    struct key first, last; // of its items
};

struct node_search {
    struct node_found *list; // by level, then first key, then generation, the highest first
    size_t count, cap;
};

// Reads `data` from end to end. progress may be NULL. -ENOMEM, or an error of I/O on the file as a
// whole; blocks that cannot be read are passed over.
int node_search_run(struct node_search *ns, struct io_file *data, const uint8_t uuid[16],
                    void (*progress)(void *arg, uint64_t done, uint64_t total),
                    void *arg) AF_NODISCARD;
void node_search_free(struct node_search *ns); // accepts a zeroed one

// A node of `level` that leads to what was found of the nodes one level below it with keys in
// [low, next), of generations up to ref->generation, newer before older where they overlap.
// `in_use` (may be NULL) says which blocks the map has in use. Returns how many children it has; 0:
// nothing was found, and `bytes` is undefined.
unsigned node_search_children(const struct node_search *ns, const struct tree_way *way,
                              const uint8_t uuid[16], bool (*in_use)(void *arg, uint64_t address),
                              void *arg, uint8_t *bytes);
// The root that was written last of those that lead to their leftmost leaf, and whose generation is
// above `above`. False: there is none.
bool node_search_root(const struct node_search *ns, struct io_file *data, const uint8_t uuid[16],
                      uint64_t above, struct tree_root *ret_root);

#endif
