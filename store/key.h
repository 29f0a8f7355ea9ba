// SPDX-License-Identifier: MIT
// The key of a tree item: (inode or content id, kind, offset), ordered as numbers in that order.
#ifndef AF_STORE_KEY_H
#define AF_STORE_KEY_H

#include <stdint.h>

struct key {
    uint64_t ino;
    uint8_t kind;
    uint64_t off;
};

static inline struct key key_make(uint64_t ino, uint8_t kind, uint64_t off)
{
    return (struct key){.ino = ino, .kind = kind, .off = off};
}

static inline int key_compare(const struct key *a, const struct key *b)
{
    if (a->ino != b->ino)
        return a->ino < b->ino ? -1 : 1;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->off != b->off)
        return a->off < b->off ? -1 : 1;
    return 0;
}

#endif
