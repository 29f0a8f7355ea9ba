// SPDX-License-Identifier: MIT
// Growing byte writer and bounds-checked byte reader.
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"

#define BUF_FIRST_CAP 64

void buf_init(struct buf *b)
{
    *b = (struct buf){0};
}

void buf_free(struct buf *b)
{
    free(b->bytes);
    buf_init(b);
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->failed = false;
}

static bool buf_reserve(struct buf *b, size_t more)
{
    size_t need, cap = b->cap ? b->cap : BUF_FIRST_CAP;
    uint8_t *bytes;

    if (b->failed)
        return false;
    if (__builtin_add_overflow(b->len, more, &need) || need > SIZE_MAX / 2) {
        b->failed = true;
        return false;
    }
    if (b->bytes && need <= b->cap)
        return true;
    while (cap < need)
        cap *= 2;
    bytes = realloc(b->bytes, cap);
    if (!bytes) {
        b->failed = true;
        return false;
    }
    b->bytes = bytes;
    b->cap = cap;
    return true;
}

uint8_t *buf_extend(struct buf *b, size_t len)
{
    uint8_t *at;

    if (!buf_reserve(b, len))
        return NULL;
    at = b->bytes + b->len;
    b->len += len;
    return at;
}

void buf_put(struct buf *b, const void *bytes, size_t len)
{
    uint8_t *at = buf_extend(b, len);

    if (at && len)
        memcpy(at, bytes, len);
}

void buf_put_u8(struct buf *b, uint8_t v)
{
    buf_put(b, &v, 1);
}

void buf_put_u16(struct buf *b, uint16_t v)
{
    le16 le = le16_put(v);

    buf_put(b, &le, sizeof(le));
}

void buf_put_u32(struct buf *b, uint32_t v)
{
    le32 le = le32_put(v);

    buf_put(b, &le, sizeof(le));
}

void buf_put_u64(struct buf *b, uint64_t v)
{
    le64 le = le64_put(v);

    buf_put(b, &le, sizeof(le));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args;
    int len;

    va_start(args, fmt);
    len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    // One byte more is reserved for the terminator that vsnprintf writes; it is not counted, so the
    // next put overwrites it, and after the last one the text can be used as a string.
    if (len < 0 || !buf_reserve(b, (size_t)len + 1)) {
        b->failed = true;
        return;
    }
    va_start(args, fmt);
    (void)vsnprintf((char *)b->bytes + b->len, (size_t)len + 1, fmt, args);
    va_end(args);
    b->len += (size_t)len;
}

void reader_init(struct reader *r, const void *bytes, size_t len)
{
    *r = (struct reader){.bytes = bytes, .len = len};
}

const uint8_t *reader_take(struct reader *r, size_t len)
{
    const uint8_t *at;

    // A failed reader stays failed: a shorter field after a missing one would be read out of place.
    if (r->failed || len > r->len - r->pos) {
        r->failed = true;
        return NULL;
    }
    at = r->bytes + r->pos;
    r->pos += len;
    return at;
}

uint8_t reader_u8(struct reader *r)
{
    const uint8_t *at = reader_take(r, 1);

    return at ? *at : 0;
}

uint16_t reader_u16(struct reader *r)
{
    le16 le = {{0}};
    const uint8_t *at = reader_take(r, sizeof(le));

    if (at)
        memcpy(&le, at, sizeof(le));
    return le16_get(le);
}

uint32_t reader_u32(struct reader *r)
{
    le32 le = {{0}};
    const uint8_t *at = reader_take(r, sizeof(le));

    if (at)
        memcpy(&le, at, sizeof(le));
    return le32_get(le);
}

uint64_t reader_u64(struct reader *r)
{
    le64 le = {{0}};
    const uint8_t *at = reader_take(r, sizeof(le));

    if (at)
        memcpy(&le, at, sizeof(le));
    return le64_get(le);
}

size_t reader_left(const struct reader *r)
{
    return r->failed ? 0 : r->len - r->pos;
}
