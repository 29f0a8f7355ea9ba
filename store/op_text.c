// SPDX-License-Identifier: MIT
// An operation as one line of text, for `aerofs log`. Decodes what it can and never fails.

#include <sys/stat.h>

#include "base/buf.h"
#include "base/err.h"
#include "store/store_internal.h"

static void put_name(struct buf *out, const char *name, size_t len)
{
    buf_put_u8(out, '"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)name[i];

        if (c < 0x20 || c == '"' || c == '\\' || c >= 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_put_u8(out, c);
    }
    buf_put_u8(out, '"');
}

static void put_entry(struct buf *out, const char *what, uint64_t dir, const char *name, size_t len)
{
    buf_printf(out, " %s=%llu/", what, (unsigned long long)dir);
    put_name(out, name, len);
}

static void put_inode(struct buf *out, const struct inode *in)
{
    buf_printf(out, " mode=%o uid=%u gid=%u size=%llu", in->mode, in->uid, in->gid,
               (unsigned long long)in->size);
}

static void put_xattr(struct buf *out, const struct op_xattr *x)
{
    buf_printf(out, " xattr=");
    put_name(out, x->name, x->name_len);
    buf_printf(out, " bytes=%u", x->value_len);
}

static void put_pieces(struct buf *out, const struct op *op)
{
    static const char *const TYPES[] = {"?", "extent", "data", "hole"};

    if (op->keep_blocks != NO_BLOCK)
        buf_printf(out, " keep=%llu", (unsigned long long)op->keep_blocks);
    for (uint32_t i = 0; i < op->piece_count; i++) {
        const struct op_piece *p = &op->pieces[i];

        buf_printf(out, " %s[%llu+%llu", TYPES[p->type], (unsigned long long)p->block,
                   (unsigned long long)p->count);
        if (p->type != PIECE_HOLE)
            buf_printf(out, "@%llu", (unsigned long long)p->address);
        buf_printf(out, "]");
    }
}

static void put_content(struct buf *out, const struct op *op)
{
    switch (op->content) {
    case CONTENT_KEEP:
        buf_printf(out, " content=kept");
        return;
    case CONTENT_INLINE:
        buf_printf(out, " inline=%u", op->bytes_len);
        return;
    case CONTENT_ADOPT:
        buf_printf(out, " adopt=%llu", (unsigned long long)op->staged_id);
        break;
    case CONTENT_MERGE:
        buf_printf(out, " merge=%llu", (unsigned long long)op->staged_id);
        break;
    case CONTENT_PIECES:
        break;
    }
    put_pieces(out, op);
}

static void put_fields(struct buf *out, const struct op *op)
{
    buf_printf(out, " ino=%llu", (unsigned long long)op->ino);
    switch (op->kind) {
    case OP_MAKE:
        put_entry(out, "name", op->parent, op->name, op->name_len);
        put_inode(out, &op->inode);
        if (op->target_len > 0) {
            buf_printf(out, " target=");
            put_name(out, (const char *)op->target, op->target_len);
        }
        break;
    case OP_COMPLETE:
        if (op->flags & OP_NEW)
            put_entry(out, "new", op->parent, op->name, op->name_len);
        put_inode(out, &op->inode);
        put_content(out, op);
        break;
    case OP_LINK:
    case OP_UNLINK:
    case OP_RMDIR:
        put_entry(out, "name", op->parent, op->name, op->name_len);
        break;
    case OP_RENAME:
        put_entry(out, "from", op->parent, op->name, op->name_len);
        put_entry(out, "to", op->new_parent, op->new_name, op->new_name_len);
        if (op->replaced)
            buf_printf(out, " %s=%llu", op->flags & OP_EXCHANGE ? "exchanged" : "replaced",
                       (unsigned long long)op->replaced);
        break;
    case OP_ATTRIBUTES:
        put_inode(out, &op->inode);
        break;
    case OP_SET_XATTR:
        put_xattr(out, &op->xattr);
        break;
    case OP_REMOVE_XATTR:
        buf_printf(out, " xattr=");
        put_name(out, op->name, op->name_len);
        break;
    case OP_STAGE:
        put_pieces(out, op);
        break;
    case OP_REAP:
        buf_printf(out, " what=%u from=%llu", op->what, (unsigned long long)op->from_block);
        break;
    case OP_NUMBERS:
        break;
    }
    for (unsigned i = 0; i < op->xattr_count; i++)
        put_xattr(out, &op->xattrs[i]);
}

void op_to_text(const void *body, size_t body_bytes, struct buf *out)
{
    struct op op;
    int err = op_decode(body, body_bytes, &op);

    if (err < 0) {
        buf_printf(out, "undecodable (%s): %zu bytes", err_name(err), body_bytes);
        return;
    }
    buf_printf(out, "%s", op_name(op.kind));
    put_fields(out, &op);
    buf_printf(out, " next-ino=%llu", (unsigned long long)op.next_ino);
    op_free(&op);
}
