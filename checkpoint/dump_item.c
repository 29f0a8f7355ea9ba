// SPDX-License-Identifier: MIT
// Tree items as text (dump_item.h). Every length is checked against the item before it is used.

#include "checkpoint/dump_item.h"

#include <string.h>

#include "base/attr.h"
#include "base/buf.h"
#include "base/le.h"
#include "store/store_format.h"

#define CONTENT_SHOWN 48u // bytes of inline content

typedef unsigned long long ull;

// Printable ASCII as it is, everything else as escapes, in quotes.
static void put_bytes(struct buf *out, const uint8_t *bytes, size_t len)
{
    buf_put_u8(out, '"');
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] >= 32 && bytes[i] < 127 && bytes[i] != '"' && bytes[i] != '\\')
            buf_put_u8(out, bytes[i]);
        else
            buf_printf(out, "\\x%02x", bytes[i]);
    }
    buf_put_u8(out, '"');
}

static void put_wrong(struct buf *out, size_t len)
{
    buf_printf(out, " impossible value of %zu bytes", len);
}

static void put_time(struct buf *out, const char *name, const struct time_disk *t)
{
    buf_printf(out, " %s %lld.%09u", name, (long long)le64_get(t->sec), le32_get(t->nsec));
}

static void put_inode(struct buf *out, const void *value, size_t len)
{
    struct inode_disk d;

    if (len != sizeof(d)) {
        put_wrong(out, len);
        return;
    }
    memcpy(&d, value, sizeof(d));
    buf_printf(
        out,
        " mode %06o nlink %u uid %u gid %u size %llu blocks %llu content %llu parent %llu rdev %llx",
        le32_get(d.mode), le32_get(d.nlink), le32_get(d.uid), le32_get(d.gid),
        (ull)le64_get(d.size), (ull)le64_get(d.blocks), (ull)le64_get(d.content_id),
        (ull)le64_get(d.parent), (ull)le64_get(d.rdev));
    buf_printf(out, " lsn content %llu attr %llu listing %llu", (ull)le64_get(d.content_lsn),
               (ull)le64_get(d.attr_lsn), (ull)le64_get(d.listing_lsn));
    put_time(out, "atime", &d.atime);
    put_time(out, "mtime", &d.mtime);
    put_time(out, "ctime", &d.ctime);
    put_time(out, "btime", &d.btime);
}

static void put_xattr_blocks(struct buf *out, const uint8_t *bytes, size_t rest)
{
    le64 birth;

    if (rest < sizeof(birth)) {
        put_wrong(out, rest);
        return;
    }
    memcpy(&birth, bytes, sizeof(birth));
    buf_printf(out, " born %llu blocks", (ull)le64_get(birth));
    for (size_t at = sizeof(birth); at + sizeof(struct xattr_block_disk) <= rest;
         at += sizeof(struct xattr_block_disk)) {
        struct xattr_block_disk b;

        memcpy(&b, bytes + at, sizeof(b));
        buf_printf(out, " %llu:%016llx", (ull)le64_get(b.address), (ull)le64_get(b.checksum));
    }
}

static void put_xattr(struct buf *out, const void *value, size_t len)
{
    const struct xattr_disk *d = value;

    if (len < sizeof(*d) || d->name_len > len - sizeof(*d)) {
        put_wrong(out, len);
        return;
    }
    const uint8_t *rest = d->bytes + d->name_len;
    size_t rest_len = len - sizeof(*d) - d->name_len;

    buf_put_u8(out, ' ');
    put_bytes(out, d->bytes, d->name_len);
    buf_printf(out, " %u bytes", le32_get(d->value_len));
    if (d->flags & XATTR_IN_BLOCKS) {
        put_xattr_blocks(out, rest, rest_len);
        return;
    }
    buf_printf(out, " = ");
    put_bytes(out, rest, AF_MIN(rest_len, (size_t)CONTENT_SHOWN));
    buf_printf(out, "%s", rest_len > CONTENT_SHOWN ? "..." : "");
}

static void put_extent(struct buf *out, const void *value, size_t len)
{
    struct extent_disk d;

    if (len < sizeof(d)) {
        put_wrong(out, len);
        return;
    }
    memcpy(&d, value, sizeof(d));
    const uint8_t *checksums = (const uint8_t *)value + sizeof(d);
    size_t count = (len - sizeof(d)) / sizeof(le64);

    buf_printf(out, " at block %llu, count %u, born %llu, checksums", (ull)le64_get(d.address),
               le32_get(d.count), (ull)le64_get(d.birth));
    for (size_t i = 0; i < count; i++) {
        le64 sum;

        memcpy(&sum, checksums + i * sizeof(sum), sizeof(sum));
        buf_printf(out, " %016llx", (ull)le64_get(sum));
    }
    if (count != le32_get(d.count))
        put_wrong(out, len);
}

static void put_dentry(struct buf *out, const void *value, size_t len)
{
    const struct dentry_disk *d = value;

    if (len < sizeof(*d) || d->name_len != len - sizeof(*d)) {
        put_wrong(out, len);
        return;
    }
    buf_put_u8(out, ' ');
    put_bytes(out, d->name, d->name_len);
    buf_printf(out, " -> inode %llu type %u", (ull)le64_get(d->ino), d->type);
}

static void put_orphan(struct buf *out, struct key key, const void *value, size_t len)
{
    static const char *const names[] = {"?", "inode", "content", "staged"};
    struct orphan_disk d;

    if (len != sizeof(d)) {
        put_wrong(out, len);
        return;
    }
    memcpy(&d, value, sizeof(d));
    buf_printf(out, " %s %llu, %llu blocks", d.what < AF_ARRAY_LEN(names) ? names[d.what] : "?",
               (ull)(key.off & INO_MAX), (ull)le64_get(d.blocks));
}

void dump_item(struct key key, const void *value, size_t len, struct buf *out)
{
    buf_printf(out, "%llu", (ull)key.ino);
    switch ((enum item_kind)key.kind) {
    case KIND_INODE:
        buf_printf(out, " inode");
        put_inode(out, value, len);
        return;
    case KIND_XATTR:
        buf_printf(out, " xattr %016llx", (ull)key.off);
        put_xattr(out, value, len);
        return;
    case KIND_INLINE:
        buf_printf(out, " inline %zu bytes ", len);
        put_bytes(out, value, AF_MIN(len, (size_t)CONTENT_SHOWN));
        buf_printf(out, "%s", len > CONTENT_SHOWN ? "..." : "");
        return;
    case KIND_EXTENT:
        buf_printf(out, " extent of file block %llu", (ull)key.off);
        put_extent(out, value, len);
        return;
    case KIND_DENTRY:
        buf_printf(out, " entry %016llx", (ull)key.off);
        put_dentry(out, value, len);
        return;
    case KIND_ORPHAN:
        buf_printf(out, " orphan");
        put_orphan(out, key, value, len);
        return;
    }
    buf_printf(out, " kind %u off %llu %zu bytes", key.kind, (ull)key.off, len);
}
