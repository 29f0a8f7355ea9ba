// SPDX-License-Identifier: MIT
// Operations to bytes and back (docs/FORMAT.md, "Operation bodies"). Pure: no I/O, no locks; the
// only allocation is the array of pieces, bounded by the body's length. Decoding refuses whatever
// encoding could not have written.

#include "store/op.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "store/store_format.h"
#include "store/store_internal.h"

#define ADDRESS_MAX (UINT64_MAX / BLOCK_BYTES)
#define BLOCK_MAX   (UINT64_C(1) << 51) // blocks of the largest file

static const char *const NAMES[] = {
    [OP_MAKE] = "make",
    [OP_COMPLETE] = "complete",
    [OP_LINK] = "link",
    [OP_UNLINK] = "unlink",
    [OP_RMDIR] = "rmdir",
    [OP_RENAME] = "rename",
    [OP_ATTRIBUTES] = "attributes",
    [OP_SET_XATTR] = "set-xattr",
    [OP_REMOVE_XATTR] = "remove-xattr",
    [OP_STAGE] = "stage",
    [OP_REAP] = "reap",
    [OP_NUMBERS] = "numbers",
};

const char *op_name(enum op_kind kind)
{
    return (size_t)kind < AF_ARRAY_LEN(NAMES) && NAMES[kind] ? NAMES[kind] : "unknown";
}

// ---- encoding ----

static void put_name(struct buf *out, const char *name, uint8_t len)
{
    buf_put_u8(out, len);
    buf_put(out, name, len);
}

static void put_inode(struct buf *out, const struct inode *in)
{
    struct inode copy = *in;
    struct inode_disk d;

    // What replay fills in from the record and the tree is zero in the record.
    copy.content_lsn = copy.attr_lsn = copy.listing_lsn = copy.blocks = 0;
    inode_encode(&copy, &d);
    buf_put(out, &d, sizeof(d));
}

static void put_xattr(struct buf *out, const struct op_xattr *x)
{
    put_name(out, x->name, x->name_len);
    buf_put_u32(out, x->value_len);
    if (x->value_len > INLINE_BYTES_MAX)
        buf_put(out, x->addresses, 8 * BLOCKS_OF(x->value_len));
    buf_put(out, x->value, x->value_len);
}

static void put_xattrs(struct buf *out, const struct op *op)
{
    buf_put_u16(out, op->xattr_count);
    for (unsigned i = 0; i < op->xattr_count; i++)
        put_xattr(out, &op->xattrs[i]);
}

static void put_pieces(struct buf *out, const struct op *op)
{
    static const uint8_t zeros[7];

    buf_put_u64(out, op->keep_blocks);
    buf_put_u32(out, op->piece_count);
    for (uint32_t i = 0; i < op->piece_count; i++) {
        const struct op_piece *p = &op->pieces[i];

        buf_put_u64(out, p->block);
        buf_put_u64(out, p->count);
        buf_put_u8(out, (uint8_t)p->type);
        buf_put(out, zeros, sizeof(zeros));
        if (p->type == PIECE_HOLE)
            continue;
        buf_put_u64(out, p->address);
        if (p->type == PIECE_EXTENT) {
            buf_put(out, p->checksums, 8 * p->count);
            continue;
        }
        for (uint64_t b = 0; b < p->count; b++)
            buf_put(out, p->blocks[b], BLOCK_BYTES);
    }
}

static void put_complete(struct buf *out, const struct op *op)
{
    buf_put_u64(out, op->ino);
    put_inode(out, &op->inode);
    if (op->flags & OP_NEW) {
        buf_put_u64(out, op->parent);
        put_name(out, op->name, op->name_len);
        put_xattrs(out, op);
    }
    buf_put_u8(out, (uint8_t)op->content);
    if (op->content == CONTENT_INLINE) {
        buf_put_u32(out, op->bytes_len);
        buf_put(out, op->bytes, op->bytes_len);
    }
    if (op->content == CONTENT_ADOPT || op->content == CONTENT_MERGE)
        buf_put_u64(out, op->staged_id);
    if (op->content >= CONTENT_PIECES)
        put_pieces(out, op);
}

static void put_make(struct buf *out, const struct op *op)
{
    buf_put_u64(out, op->parent);
    buf_put_u64(out, op->ino);
    put_inode(out, &op->inode);
    put_name(out, op->name, op->name_len);
    buf_put_u32(out, op->target_len);
    if (op->target_len > INLINE_BYTES_MAX)
        buf_put_u64(out, op->target_address);
    buf_put(out, op->target, op->target_len);
    put_xattrs(out, op);
}

void op_encode(const struct op *op, struct buf *out)
{
    buf_put_u8(out, (uint8_t)op->kind);
    buf_put_u8(out, op->flags);
    buf_put_u8(out, op->index);
    buf_put_u8(out, 0);
    buf_put_u32(out, 0);
    buf_put_u64(out, op->next_ino);
    buf_put_u64(out, (uint64_t)op->time.tv_sec);
    buf_put_u32(out, (uint32_t)op->time.tv_nsec);
    buf_put_u32(out, 0);
    switch (op->kind) {
    case OP_MAKE:
        put_make(out, op);
        break;
    case OP_COMPLETE:
        put_complete(out, op);
        break;
    case OP_LINK:
        buf_put_u64(out, op->ino);
        buf_put_u64(out, op->parent);
        put_name(out, op->name, op->name_len);
        break;
    case OP_UNLINK:
    case OP_RMDIR:
        buf_put_u64(out, op->parent);
        put_name(out, op->name, op->name_len);
        buf_put_u64(out, op->ino);
        break;
    case OP_RENAME:
        buf_put_u64(out, op->parent);
        put_name(out, op->name, op->name_len);
        buf_put_u64(out, op->ino);
        buf_put_u64(out, op->new_parent);
        put_name(out, op->new_name, op->new_name_len);
        buf_put_u64(out, op->replaced);
        break;
    case OP_ATTRIBUTES:
        buf_put_u64(out, op->ino);
        put_inode(out, &op->inode);
        if (op->flags & OP_AND_XATTR)
            put_xattr(out, &op->xattr);
        break;
    case OP_SET_XATTR:
        buf_put_u64(out, op->ino);
        put_xattr(out, &op->xattr);
        if (op->flags & OP_AND_INODE)
            put_inode(out, &op->inode);
        break;
    case OP_REMOVE_XATTR:
        buf_put_u64(out, op->ino);
        put_name(out, op->name, op->name_len);
        if (op->flags & OP_AND_INODE)
            put_inode(out, &op->inode);
        break;
    case OP_STAGE:
        buf_put_u64(out, op->ino);
        put_pieces(out, op);
        break;
    case OP_REAP:
        buf_put_u64(out, op->ino);
        buf_put_u8(out, op->what);
        buf_put_u64(out, op->from_block);
        break;
    case OP_NUMBERS:
        break;
    default:
        AF_ASSERT(!"operation of no known kind");
    }
}

// ---- decoding ----

static void get_name(struct reader *r, const char **ret_name, uint8_t *ret_len)
{
    *ret_len = reader_u8(r);
    *ret_name = (const char *)reader_take(r, *ret_len);
    if (*ret_len == 0 || (*ret_name && memchr(*ret_name, 0, *ret_len)))
        r->failed = true;
}

// Name of a directory entry: also without '/', and neither "." nor "..".
static void get_entry_name(struct reader *r, const char **ret_name, uint8_t *ret_len)
{
    get_name(r, ret_name, ret_len);
    if (r->failed)
        return;
    if (memchr(*ret_name, '/', *ret_len) || (*ret_len == 1 && (*ret_name)[0] == '.') ||
        (*ret_len == 2 && memcmp(*ret_name, "..", 2) == 0))
        r->failed = true;
}

static uint64_t get_ino(struct reader *r)
{
    uint64_t ino = reader_u64(r);

    if (ino == 0 || ino > INO_MAX)
        r->failed = true;
    return ino;
}

static void get_inode(struct reader *r, struct inode *ret)
{
    const uint8_t *bytes = reader_take(r, sizeof(struct inode_disk));

    // What put_inode() leaves out must be zero: replay would not use it.
    if (bytes &&
        (inode_decode(bytes, sizeof(struct inode_disk), ret) < 0 || ret->content_lsn != 0 ||
         ret->attr_lsn != 0 || ret->listing_lsn != 0 || ret->blocks != 0))
        r->failed = true;
}

static uint64_t get_address(struct reader *r, uint64_t count)
{
    uint64_t address = reader_u64(r);

    if (address == 0 || count > ADDRESS_MAX || address > ADDRESS_MAX - count)
        r->failed = true;
    return address;
}

static void get_xattr(struct reader *r, struct op_xattr *x)
{
    get_name(r, &x->name, &x->name_len);
    x->value_len = reader_u32(r);
    x->addresses = NULL;
    if (x->value_len > XATTR_VALUE_MAX) {
        r->failed = true;
        return;
    }
    if (x->value_len > INLINE_BYTES_MAX) {
        x->addresses = reader_take(r, 8 * BLOCKS_OF(x->value_len));
        for (uint64_t i = 0; x->addresses && i < BLOCKS_OF(x->value_len); i++) {
            uint64_t address = op_le64(x->addresses, i);

            if (address == 0 || address >= ADDRESS_MAX)
                r->failed = true;
        }
    }
    x->value = reader_take(r, x->value_len);
}

static void get_xattrs(struct reader *r, struct op *op)
{
    op->xattr_count = reader_u16(r);
    if (op->xattr_count > OP_XATTRS_MAX) {
        op->xattr_count = 0;
        r->failed = true;
    }
    for (unsigned i = 0; i < op->xattr_count && !r->failed; i++)
        get_xattr(r, &op->xattrs[i]);
}

static void get_piece(struct reader *r, struct op_piece *p)
{
    static const uint8_t zeros[7];

    p->block = reader_u64(r);
    p->count = reader_u64(r);
    p->type = (enum piece_type)reader_u8(r);
    const uint8_t *reserved = reader_take(r, sizeof(zeros));

    if (r->failed || memcmp(reserved, zeros, sizeof(zeros)) != 0 || p->count == 0 ||
        p->block > BLOCK_MAX || p->count > BLOCK_MAX - p->block) {
        r->failed = true;
        return;
    }
    if (p->type == PIECE_HOLE)
        return;
    if (p->count > reader_left(r) / 8) { // bounds the products below
        r->failed = true;
        return;
    }
    p->address = get_address(r, p->count);
    if (p->type == PIECE_EXTENT && p->count <= EXTENT_BLOCKS_MAX)
        p->checksums = reader_take(r, 8 * p->count);
    else if (p->type == PIECE_DATA)
        p->data = reader_take(r, BLOCK_BYTES * p->count);
    else
        r->failed = true;
}

static int get_pieces(struct reader *r, struct op *op)
{
    uint64_t end = 0;

    op->keep_blocks = reader_u64(r);
    op->piece_count = reader_u32(r);
    if (r->failed || op->piece_count > reader_left(r) / 24) {
        op->piece_count = 0;
        r->failed = true;
        return 0;
    }
    if (op->piece_count == 0)
        return 0;
    op->pieces = calloc(op->piece_count, sizeof(op->pieces[0]));
    if (!op->pieces)
        return -ENOMEM;
    for (uint32_t i = 0; i < op->piece_count && !r->failed; i++) {
        struct op_piece *p = &op->pieces[i];

        get_piece(r, p);
        if (p->block < end)
            r->failed = true;
        end = p->block + p->count;
    }
    return 0;
}

static int get_complete(struct reader *r, struct op *op)
{
    op->ino = get_ino(r);
    get_inode(r, &op->inode);
    if (op->flags & OP_NEW) {
        op->parent = get_ino(r);
        get_entry_name(r, &op->name, &op->name_len);
        get_xattrs(r, op);
    }
    op->content = (enum content_mode)reader_u8(r);
    switch (op->content) {
    case CONTENT_KEEP:
        return 0;
    case CONTENT_INLINE:
        op->bytes_len = reader_u32(r);
        if (op->bytes_len == 0 || op->bytes_len > INLINE_BYTES_MAX ||
            op->bytes_len != op->inode.size)
            r->failed = true;
        op->bytes = reader_take(r, op->bytes_len);
        return 0;
    case CONTENT_ADOPT:
    case CONTENT_MERGE:
        op->staged_id = get_ino(r);
        return get_pieces(r, op);
    case CONTENT_PIECES:
        return get_pieces(r, op);
    default:
        r->failed = true;
        return 0;
    }
}

static void get_make(struct reader *r, struct op *op)
{
    op->parent = get_ino(r);
    op->ino = get_ino(r);
    get_inode(r, &op->inode);
    get_entry_name(r, &op->name, &op->name_len);
    op->target_len = reader_u32(r);
    if (op->target_len >= BLOCK_BYTES || (op->target_len != 0) != S_ISLNK(op->inode.mode))
        r->failed = true;
    if (op->target_len > INLINE_BYTES_MAX)
        op->target_address = get_address(r, 1);
    op->target = reader_take(r, op->target_len);
    get_xattrs(r, op);
}

static void get_rename(struct reader *r, struct op *op)
{
    op->parent = get_ino(r);
    get_entry_name(r, &op->name, &op->name_len);
    op->ino = get_ino(r);
    op->new_parent = get_ino(r);
    get_entry_name(r, &op->new_name, &op->new_name_len);
    op->replaced = reader_u64(r);
    if (op->replaced > INO_MAX)
        r->failed = true;
}

static int get_fields(struct reader *r, struct op *op)
{
    switch (op->kind) {
    case OP_MAKE:
        get_make(r, op);
        return 0;
    case OP_COMPLETE:
        return get_complete(r, op);
    case OP_LINK:
        op->ino = get_ino(r);
        op->parent = get_ino(r);
        get_entry_name(r, &op->name, &op->name_len);
        return 0;
    case OP_UNLINK:
    case OP_RMDIR:
        op->parent = get_ino(r);
        get_entry_name(r, &op->name, &op->name_len);
        op->ino = get_ino(r);
        return 0;
    case OP_RENAME:
        get_rename(r, op);
        return 0;
    case OP_ATTRIBUTES:
        op->ino = get_ino(r);
        get_inode(r, &op->inode);
        if (op->flags & OP_AND_XATTR)
            get_xattr(r, &op->xattr);
        return 0;
    case OP_SET_XATTR:
        op->ino = get_ino(r);
        get_xattr(r, &op->xattr);
        if (op->flags & OP_AND_INODE)
            get_inode(r, &op->inode);
        return 0;
    case OP_REMOVE_XATTR:
        op->ino = get_ino(r);
        get_name(r, &op->name, &op->name_len);
        if (op->flags & OP_AND_INODE)
            get_inode(r, &op->inode);
        return 0;
    case OP_STAGE:
        op->ino = get_ino(r);
        return get_pieces(r, op);
    case OP_REAP:
        op->ino = get_ino(r);
        op->what = reader_u8(r);
        op->from_block = reader_u64(r);
        if (op->what < ORPHAN_INODE || op->what > ORPHAN_STAGED)
            r->failed = true;
        return 0;
    case OP_NUMBERS:
        return 0;
    default:
        r->failed = true;
        return 0;
    }
}

int op_decode(const void *body, size_t body_bytes, struct op *ret_op)
{
    struct reader r;
    uint32_t reserved;

    memset(ret_op, 0, sizeof(*ret_op));
    reader_init(&r, body, body_bytes);
    ret_op->kind = (enum op_kind)reader_u8(&r);
    ret_op->flags = reader_u8(&r);
    ret_op->index = reader_u8(&r);
    reserved = reader_u8(&r);
    reserved |= reader_u32(&r);
    ret_op->next_ino = reader_u64(&r);
    ret_op->time.tv_sec = (time_t)reader_u64(&r);
    ret_op->time.tv_nsec = reader_u32(&r);
    reserved |= reader_u32(&r);
    if (r.failed || reserved != 0 || ret_op->index >= DENTRY_INDEX_MAX ||
        ret_op->time.tv_nsec > 999999999 || ret_op->next_ino > INO_MAX + 1)
        return -AF_E_LOG_RECORD;
    int err = get_fields(&r, ret_op);

    if (err == 0 && (r.failed || reader_left(&r) != 0))
        err = -AF_E_LOG_RECORD;
    if (err < 0)
        op_free(ret_op);
    return err;
}

void op_free(struct op *op)
{
    free(op->pieces);
    op->pieces = NULL;
    op->piece_count = 0;
}

static int xattr_addresses(const struct op_xattr *x, int (*each)(void *, uint64_t, uint64_t),
                           void *arg)
{
    int err = 0;

    if (x->value_len <= INLINE_BYTES_MAX)
        return 0;
    for (uint64_t i = 0; err == 0 && i < BLOCKS_OF(x->value_len); i++)
        err = each(arg, op_le64(x->addresses, i), 1);
    return err;
}

int op_addresses(const struct op *op, int (*each)(void *arg, uint64_t address, uint64_t count),
                 void *arg)
{
    int err = 0;

    if (op->kind == OP_MAKE && op->target_len > INLINE_BYTES_MAX)
        err = each(arg, op->target_address, 1);
    if (err == 0 &&
        (op->kind == OP_SET_XATTR || (op->kind == OP_ATTRIBUTES && (op->flags & OP_AND_XATTR))))
        err = xattr_addresses(&op->xattr, each, arg);
    for (unsigned i = 0; err == 0 && i < op->xattr_count; i++)
        err = xattr_addresses(&op->xattrs[i], each, arg);
    for (uint32_t i = 0; err == 0 && i < op->piece_count; i++)
        if (op->pieces[i].type != PIECE_HOLE)
            err = each(arg, op->pieces[i].address, op->pieces[i].count);
    return err;
}
