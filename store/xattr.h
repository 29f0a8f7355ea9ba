// SPDX-License-Identifier: MIT
// Extended attributes in the tree: items keyed by the hash of their name (docs/FORMAT.md, kind 2).
#ifndef AF_STORE_XATTR_H
#define AF_STORE_XATTR_H

#include "store/op.h"

struct store;

// For op_apply() only: the paths were touched.
void xattr_put(struct store *s, uint64_t ino, const struct op_xattr *x, uint64_t lsn);
void xattr_delete(struct store *s, uint64_t ino, const char *name, size_t len);
void xattr_remove_all(struct store *s, uint64_t ino);

// The bytes of an xattr item: validated and taken apart; pointers into it.
struct xattr_item {
    const char *name;
    uint8_t name_len;
    uint32_t value_len;
    const uint8_t *value;  // in the item; NULL when in blocks
    const uint8_t *blocks; // xattr_block_disk of each block; NULL when in the item
    uint64_t birth;        // LSN of the record that named the blocks
};
int xattr_decode(const void *bytes, size_t len, struct xattr_item *ret);
// Block `i` of a value that lies in blocks; false when there is none.
bool xattr_block(const void *bytes, size_t len, size_t i, uint64_t *ret_birth,
                 uint64_t *ret_address);

#endif
