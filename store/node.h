// SPDX-License-Identifier: MIT
// One tree node, as pure functions on its 4096 bytes: in memory it has the layout that it has on
// disk (docs/FORMAT.md, "Tree"). No I/O, no allocation. What verification and dumps need as well
// (node_validate, node_key, ...) is declared in btree.h.
//
// Unless said otherwise the bytes are a valid node, and an index is below node_count().
#ifndef AF_STORE_NODE_H
#define AF_STORE_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/btree.h"
#include "store/store_format.h"

// What slots and values may take; and what one item takes of it.
#define NODE_ROOM            (BLOCK_BYTES - sizeof(struct block_header_disk))
#define NODE_ITEM_BYTES(len) (sizeof(struct slot_disk) + (len))

// A way from the root to a leaf. By level: the block, and in inner nodes the slot that was
// followed.
struct tree_path {
    struct block *block[NODE_LEVEL_MAX + 1];
    unsigned index[NODE_LEVEL_MAX + 1];
};

void node_init(uint8_t *node, const uint8_t uuid[16], uint64_t address, uint64_t generation,
               unsigned level);
// For a copy at another address.
void node_set_identity(uint8_t *node, uint64_t address, uint64_t generation);

// Index of the first item with a key >= `key`; node_count() when there is none.
unsigned node_search(const uint8_t *node, const struct key *key, bool *ret_found);
// Of an inner node: index of the child whose range holds `key`.
unsigned node_search_child(const uint8_t *node, const struct key *key);

// Bytes of slots and values, of all items (at most NODE_ROOM) or of the first `count`.
size_t node_used(const uint8_t *node);
size_t node_used_by(const uint8_t *node, unsigned count);
bool node_fits(const uint8_t *node, size_t len);

// `value` lies outside the node. Insert: index <= node_count(), node_fits(len), and the key is in
// order there. Replace: the node holds the new value when the old one is gone.
void node_insert(uint8_t *node, unsigned index, const struct key *key, const void *value,
                 size_t len);
void node_replace(uint8_t *node, unsigned index, const void *value, size_t len);
bool node_fits_replaced(const uint8_t *node, unsigned index, size_t len);
void node_delete(uint8_t *node, unsigned index);
void node_set_key(uint8_t *node, unsigned index, const struct key *key);
void node_insert_child(uint8_t *node, unsigned index, const struct key *key,
                       const struct blkref *ref);
void node_set_child(uint8_t *node, unsigned index, const struct blkref *ref);
void node_set_child_checksum(uint8_t *node, unsigned index, uint64_t sum);

// Splits a node for which an item of `len` bytes is too much at `index`: moves its upper items to
// the empty node `right` so that the bytes of both are as equal as possible with that item counted
// in. Returns true when the item belongs into `right`, and its index there or in `left`.
bool node_split(uint8_t *left, uint8_t *right, unsigned index, size_t len, unsigned *ret_index);
// Moves the items from `from` (<= node_count()) on to the empty node `right`.
void node_move_tail(uint8_t *left, uint8_t *right, unsigned from);
// Inserts all items of `from` before `index`.
void node_insert_all(uint8_t *node, unsigned index, const uint8_t *from);

// The same node with zeros wherever it holds nothing: what goes to disk.
void node_copy_clean(uint8_t *ret_node, const uint8_t *node);

#endif
