// SPDX-License-Identifier: MIT
// The canonical form of a tree of files: one line of text for each inode and one for each name, so
// that two trees are equal if and only if their lines are. The hash of a tree is the sum of the
// hashes of its lines; a model keeps it up to date line by line.
#ifndef AF_TESTS_CANON_H
#define AF_TESTS_CANON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "store/store.h"

#define CANON_LINE_BYTES  640
#define CANON_WHERE_BYTES 400 // of a message that says where a dump failed

struct canon {
    char **lines;
    size_t count, cap;
    uint64_t hash;
};

void canon_free(struct canon *d); // leaves it empty, as a zeroed one is
void canon_add(struct canon *d, const char *line);
uint64_t canon_line_hash(const char *line);
// Prints what only one of them holds, at most `max` lines of each. Sorts both.
void canon_diff(struct canon *a, const char *a_name, struct canon *b, const char *b_name,
                size_t max, FILE *to);

// The line of an inode. `content`: filebytes sum (files); `xattrs`: sum of canon_xattr_sum();
// `target`: symlinks.
void canon_inode_line(char line[CANON_LINE_BYTES], const struct store_attr *attr, uint64_t parent,
                      uint64_t content, uint64_t xattrs, const char *target);
void canon_name_line(char line[CANON_LINE_BYTES], uint64_t parent, const char *name, uint64_t ino,
                     uint32_t mode);
uint64_t canon_xattr_sum(const char *name, const void *value, size_t len);

// A store through its interface, as readers see it: everything that can be reached from the root.
// 0, or the error of the call that failed, with its place in `where`. Listings are compared with
// lookups on the way.
int canon_store(struct store *s, struct canon *ret, char where[CANON_WHERE_BYTES]);
// The same of the view whose root directory is `root`.
int canon_view(struct store *s, uint64_t root, struct canon *ret, char where[CANON_WHERE_BYTES]);

// The same walk for others: `inode` once for each inode, `name` for each entry (its parent's inode
// came before, its own may come after). NULL: not wanted.
struct canon_visitor {
    void (*inode)(void *arg, const struct store_attr *attr, uint64_t parent);
    void (*name)(void *arg, uint64_t parent, const char *name, const struct store_attr *attr);
    void *arg;
};
int canon_walk(struct store *s, const struct canon_visitor *v, char where[CANON_WHERE_BYTES]);

// The bytes of a file in pieces that begin at a block; of large files only where there is data.
typedef void (*canon_bytes_fn)(void *arg, uint64_t off, const uint8_t *bytes, size_t len);
int canon_each_bytes(struct store *s, const struct store_attr *attr, canon_bytes_fn each,
                     void *arg);
typedef void (*canon_xattr_fn)(void *arg, const char *name, const void *value, size_t len);
int canon_each_xattr(struct store *s, uint64_t ino, canon_xattr_fn each, void *arg);

#endif
