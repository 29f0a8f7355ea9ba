// SPDX-License-Identifier: MIT
// Bounds-checked byte reader and growing byte writer: what encodes and decodes log record bodies.
#ifndef AF_BASE_BUF_H
#define AF_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Whether `len` bytes are zeros. Comparing the bytes with those one place on leaves the work to
// memcmp().
static inline bool all_zero(const void *bytes, size_t len)
{
    const uint8_t *b = bytes;

    return len == 0 || (b[0] == 0 && memcmp(b, b + 1, len - 1) == 0);
}

// Writer. Grows by realloc; after a failed allocation `failed` is set and further puts do nothing,
// so callers check once at the end.
struct buf {
    uint8_t *bytes;
    size_t len;
    size_t cap;
    bool failed;
};

void buf_init(struct buf *b);
void buf_free(struct buf *b);  // accepts a zeroed one; leaves it empty
void buf_reset(struct buf *b); // len = 0, memory kept
// Appends `len` bytes and returns where they are (NULL when out of memory).
uint8_t *buf_extend(struct buf *b, size_t len);
void buf_put(struct buf *b, const void *bytes, size_t len);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u16(struct buf *b, uint16_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Reader over borrowed bytes. A read past the end sets `failed` and yields zeros / NULL.
struct reader {
    const uint8_t *bytes;
    size_t len;
    size_t pos;
    bool failed;
};

void reader_init(struct reader *r, const void *bytes, size_t len);
const uint8_t *reader_take(struct reader *r, size_t len); // borrowed; NULL and failed if too short
uint8_t reader_u8(struct reader *r);
uint16_t reader_u16(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);
size_t reader_left(const struct reader *r);

#endif
