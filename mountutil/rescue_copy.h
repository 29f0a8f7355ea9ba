// SPDX-License-Identifier: MIT
// Writing what a rescue has opened (checkpoint/rescue.h) into a directory: names, contents with
// their holes, modes, owners, times, extended attributes, hard links. What could not be read is
// told, one line each, and its place is left out or, in a file, zero.
#ifndef AF_MOUNTUTIL_RESCUE_COPY_H
#define AF_MOUNTUTIL_RESCUE_COPY_H

#include <stdio.h>

#include "checkpoint/rescue.h"

struct rescue_counts {
    uint64_t directories, files, symlinks, others, links, bytes;
    uint64_t nameless; // below lost+found: their names are lost
    uint64_t lost;     // lines told
};

struct rescue_copy {
    struct rescue *rescue;
    const char *out; // an empty directory
    // One line: what is lost, of what, why. `path` is that in the store.
    void (*lose)(void *arg, const char *path, const char *text);
    void (*progress)(void *arg, uint64_t done, uint64_t total); // inodes; may be NULL
    void *arg;
    uint64_t total;
    struct rescue_counts counts;

    // Inodes that were written, with the path of those that have several links: open addressing.
    struct rescue_seen {
        uint64_t ino; // 0: free
        bool lossy;   // something of it was lost
        char *path;
    } * seen;
    size_t seen_count, seen_size; // size: a power of two
    struct rescue_dir {
        uint64_t ino;
        char *path; // in the store, without a / at its end: "" is the root
    } * dirs;       // in the order in which they were made
    size_t dir_count, dir_cap;
    uint8_t *buffer;
};

// 0; or why it had to end: -ENOMEM, an error of writing into `out`.
int rescue_copy_all(struct rescue_copy *c) AF_NODISCARD;
void rescue_copy_free(struct rescue_copy *c);

// ---- rescue_file.c ----

// What is lost of `path`: a sentence.
void rescue_lose(struct rescue_copy *c, const char *path, const char *fmt, ...) AF_PRINTF(3, 4);
// True for errors of the store, which are lost things; others end the copy.
bool rescue_is_loss(int err);
// Content of a file into the new file `fd`.
int rescue_write_content(struct rescue_copy *c, const struct store_attr *attr, const char *path,
                         int fd) AF_NODISCARD;
// Owner, mode, times and extended attributes of what was made at `target`.
int rescue_write_attributes(struct rescue_copy *c, const struct store_attr *attr, const char *path,
                            const char *target) AF_NODISCARD;

#endif
