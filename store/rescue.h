// SPDX-License-Identifier: MIT
// What reading out a damaged store needs of the store: opening it without trusting more than the
// root, putting something usable in the place of a node that cannot be read, and comparing what is
// found of a content with what its inode says. All in memory; nothing is written.
#ifndef AF_STORE_RESCUE_H
#define AF_STORE_RESCUE_H

#include "store/store_engine.h"
#include "store/walk.h"

// As store_open_image(), without a look at the root and the space map. config: read_only, an io
// that is read-only, sealed_blocks above every block that the log names.
int store_open_rescue(const struct store_config *config, const struct store_image *image,
                      struct store **ret_store) AF_NODISCARD;
// From here on the node at `ref` is this one: an empty leaf, or a node that leads to what was found
// of what it led to. `bytes` is a node of `level`. -ENOMEM.
int store_patch(struct store *s, const struct blkref *ref, unsigned level,
                const uint8_t *bytes) AF_NODISCARD;

struct store_content {
    uint64_t id;
    uint64_t blocks, blocks_found; // as the inode says; as its extents have
    bool inlined;                  // its bytes are in the tree
    uint64_t entries;              // of a directory, as the inode says
};
// -ENOENT: there is no such inode.
int store_get_content(struct store *s, uint64_t ino, struct store_content *ret) AF_NODISCARD;
// Calls `each` for every inode of the tree, with the number of its links, and for every number that
// has entries of a directory, which may have lost its inode (and may come twice); a non-zero return
// ends it and is returned.
typedef int (*store_inode_fn)(void *arg, uint64_t ino, uint32_t nlink, bool directory);
int store_each_inode(struct store *s, store_inode_fn each, void *arg) AF_NODISCARD;
// As store_readdir() without attributes, `.` and `..`, whether the directory has an inode or not.
// Entries that cannot be read are passed over; the first such error is returned at the end.
int store_each_entry(struct store *s, uint64_t dir, uint64_t cookie, store_dirent_fn each,
                     void *arg) AF_NODISCARD;
// The highest LSN that anything in the tree carries: the tree holds everything up to there.
int store_highest_lsn(struct store *s, uint64_t *ret_lsn) AF_NODISCARD;

#endif
