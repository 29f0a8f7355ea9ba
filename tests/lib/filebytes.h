// SPDX-License-Identifier: MIT
// The bytes of one file in the model: a sparse array of blocks. Blocks of zeros are not kept, so a
// file has one form only, whatever way its bytes came about, and its sum is up to date after every
// change.
#ifndef AF_TESTS_FILEBYTES_H
#define AF_TESTS_FILEBYTES_H

#include <stddef.h>
#include <stdint.h>

#define FILEBYTES_BLOCK 4096u

struct filebytes_block {
    uint64_t index;
    uint64_t sum;
    uint8_t *bytes;
};

struct filebytes {
    struct filebytes_block *blocks; // by index
    size_t count, cap;
    uint64_t sum; // of all blocks; their order does not matter
};

void filebytes_free(struct filebytes *b); // leaves it empty, as a zeroed one is
void filebytes_write(struct filebytes *b, uint64_t off, const void *bytes, size_t len);
void filebytes_zero(struct filebytes *b, uint64_t off, uint64_t len);
void filebytes_read(const struct filebytes *b, uint64_t off, void *bytes, size_t len);
// The first byte at or after `off` in a block that is not all zeros; UINT64_MAX: none.
uint64_t filebytes_next(const struct filebytes *b, uint64_t off);
// What one block adds to the sum: `len` bytes, the rest zeros. 0 for a block of zeros.
uint64_t filebytes_block_sum(uint64_t index, const uint8_t *bytes, size_t len);

#endif
