// SPDX-License-Identifier: MIT
// The exerciser (exerciser.c): a copy in memory of what every file must hold, and of what a kill of
// the daemon may leave of it.
//
// A name has a history of completed contents (contract C2): by fsync, by the last close of the
// descriptors that changed it, by rename, by truncation by path of a file that nobody changes. Each
// has a number from one count for all names, so that after a kill one cut must explain all names at
// once (contract C3). What is acknowledged drops everything before it.
#ifndef AF_TESTS_POSIX_EXERCISER_H
#define AF_TESTS_POSIX_EXERCISER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FILES       6
#define FDS         4
#define BYTES_MAX   (768u * 1024u)
#define HISTORY_MAX 160

struct content {
    bool there;
    size_t size;
    uint8_t *bytes; // owned
};

struct moment {
    uint64_t number;
    bool sure; // false: it may have been completed, or not yet
    struct content content;
};

struct open_fd {
    int fd; // -1: free
    int flags;
    bool dirty; // has changed the content since its last completion
};

struct file { // what stands under a name
    struct content now;
    struct moment history[HISTORY_MAX];
    unsigned count;
    struct open_fd fds[FDS];
    bool maps_wrote; // by a map: which descriptor counts as the writer is the kernel's choice
};

struct exerciser {
    const char *dir;
    struct file files[FILES];
    uint64_t number; // of completions
    uint64_t acked;  // the last one that must survive
    uint64_t rng;
    bool killed; // the daemon is gone, or going
    uint64_t ops, bytes_checked, kills, remounts;
};

// ---- exerciser_model.c ----

uint64_t rnd(struct exerciser *x, uint64_t below);
void content_copy(struct content *to, const struct content *from);
void content_free(struct content *c);
void content_resize(struct content *c, size_t size); // zeros behind
bool content_same(const struct content *a, const struct content *b);
// The present content of the file was completed, or may have been.
void completed(struct exerciser *x, struct file *f, bool sure);
// The same for two names at once.
void completed_both(struct exerciser *x, struct file *a, struct file *b, bool sure);
// Everything that is completed is durable.
void acknowledged(struct exerciser *x);
// The number of a cut that leaves these contents, or -1: none does.
int64_t find_cut(const struct exerciser *x, const struct content found[FILES]);
void restart_from(struct exerciser *x, struct content found[FILES]); // takes them over

#endif
