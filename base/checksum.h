// SPDX-License-Identifier: MIT
// Checksums: XXH3-64 (xxHash) with a seed for each kind of structure, so that a valid block of one
// kind never passes for another (docs/FORMAT.md, "Checksums").
#ifndef AF_BASE_CHECKSUM_H
#define AF_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

enum checksum_kind {
    CSUM_SUPERBLOCK = 1,
    CSUM_NODE = 2,
    CSUM_DATA = 3,
    CSUM_BITMAP = 4,
    CSUM_INDEX = 5,
    CSUM_SEGMENT = 6,
    CSUM_RECORD = 7,
    CSUM_NAME = 8,
};

// `salt` is 0 unless the format says otherwise (log records: the salt of their segment).
// The result is never 0, so 0 can stand for "not known yet".
uint64_t checksum(enum checksum_kind kind, uint64_t salt, const void *bytes, size_t len);

// The same over two pieces, as if they lay one after the other.
uint64_t checksum2(enum checksum_kind kind, uint64_t salt, const void *a, size_t a_len,
                   const void *b, size_t b_len);

#endif
