// SPDX-License-Identifier: MIT
// Sparse contents of the model's files.
#include "tests/lib/filebytes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"

uint64_t filebytes_block_sum(uint64_t index, const uint8_t *bytes, size_t len)
{
    uint8_t block[FILEBYTES_BLOCK];
    static const uint8_t zeros[FILEBYTES_BLOCK];

    AF_ASSERT(len <= sizeof(block));
    if (memcmp(bytes, zeros, len) == 0)
        return 0;
    memcpy(block, bytes, len);
    memset(block + len, 0, sizeof(block) - len);
    return checksum(CSUM_DATA, index + 1, block, sizeof(block));
}

// Index of the first kept block at or after `index`.
static size_t find(const struct filebytes *b, uint64_t index)
{
    size_t lo = 0, hi = b->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (b->blocks[mid].index < index)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct filebytes_block *block_get(struct filebytes *b, uint64_t index)
{
    size_t at = find(b, index);

    if (at < b->count && b->blocks[at].index == index)
        return &b->blocks[at];
    if (b->count == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 4;
        b->blocks = realloc(b->blocks, b->cap * sizeof(b->blocks[0]));
        AF_ASSERT(b->blocks);
    }
    memmove(&b->blocks[at + 1], &b->blocks[at], (b->count - at) * sizeof(b->blocks[0]));
    b->count++;
    b->blocks[at] = (struct filebytes_block){.index = index, .bytes = calloc(1, FILEBYTES_BLOCK)};
    AF_ASSERT(b->blocks[at].bytes);
    return &b->blocks[at];
}

// After a change: the sum follows, and a block that has become zeros goes.
static void block_changed(struct filebytes *b, struct filebytes_block *block)
{
    b->sum -= block->sum;
    block->sum = filebytes_block_sum(block->index, block->bytes, FILEBYTES_BLOCK);
    b->sum += block->sum;
    if (block->sum != 0)
        return;
    free(block->bytes);
    b->count--;
    memmove(block, block + 1, (size_t)(b->blocks + b->count - block) * sizeof(*block));
}

void filebytes_free(struct filebytes *b)
{
    for (size_t i = 0; i < b->count; i++)
        free(b->blocks[i].bytes);
    free(b->blocks);
    *b = (struct filebytes){0};
}

void filebytes_write(struct filebytes *b, uint64_t off, const void *bytes, size_t len)
{
    const uint8_t *from = bytes;

    while (len > 0) {
        size_t in_block = off % FILEBYTES_BLOCK, n = FILEBYTES_BLOCK - in_block;
        struct filebytes_block *block = block_get(b, off / FILEBYTES_BLOCK);

        n = n < len ? n : len;
        memcpy(block->bytes + in_block, from, n);
        block_changed(b, block);
        from += n;
        off += n;
        len -= n;
    }
}

void filebytes_zero(struct filebytes *b, uint64_t off, uint64_t len)
{
    uint64_t end = off + len;

    for (size_t at = find(b, off / FILEBYTES_BLOCK); at < b->count;) {
        struct filebytes_block *block = &b->blocks[at];
        uint64_t start = block->index * FILEBYTES_BLOCK, from = off > start ? off - start : 0;
        uint64_t to = end - start < FILEBYTES_BLOCK ? end - start : FILEBYTES_BLOCK;
        size_t before = b->count;

        if (start >= end)
            break;
        if (from < to)
            memset(block->bytes + from, 0, (size_t)(to - from));
        block_changed(b, block);
        if (b->count == before)
            at++;
    }
}

void filebytes_read(const struct filebytes *b, uint64_t off, void *bytes, size_t len)
{
    uint64_t end = off + len;

    memset(bytes, 0, len);
    for (size_t at = find(b, off / FILEBYTES_BLOCK); at < b->count; at++) {
        const struct filebytes_block *block = &b->blocks[at];
        uint64_t start = block->index * FILEBYTES_BLOCK;
        uint64_t from = off > start ? off : start;
        uint64_t to = end < start + FILEBYTES_BLOCK ? end : start + FILEBYTES_BLOCK;

        if (start >= end)
            break;
        if (from < to)
            memcpy((uint8_t *)bytes + (from - off), block->bytes + (from - start),
                   (size_t)(to - from));
    }
}

uint64_t filebytes_next(const struct filebytes *b, uint64_t off)
{
    size_t at = find(b, off / FILEBYTES_BLOCK);

    if (at == b->count)
        return UINT64_MAX;
    uint64_t start = b->blocks[at].index * FILEBYTES_BLOCK;

    return start > off ? start : off;
}
