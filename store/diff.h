// SPDX-License-Identifier: MIT
// What differs between two published trees. Subtrees that both have are passed over by their
// reference, so the work is what differs, not what there is.
#ifndef AF_STORE_DIFF_H
#define AF_STORE_DIFF_H

#include <stddef.h>

#include "store/fault.h"
#include "store/key.h"

struct store;

// One item that only one of the trees has, or that both have with other bytes. `a`, `b`: NULL where
// it is missing. They hold during the call. Non-zero ends the walk with that result.
typedef int (*diff_fn)(void *arg, struct key key, const void *a, size_t a_len, const void *b,
                       size_t b_len);
// In key order. Both trees are on disk and kept: snapshots, or the root of a checkpoint under
// space_hold(). Reads past the cache, without the lock. 0, what `each` said, or why a node cannot
// be read.
int diff_trees(struct store *s, const struct tree_root *a, const struct tree_root *b, diff_fn each,
               void *arg);

#endif
