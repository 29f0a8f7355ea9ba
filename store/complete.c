// SPDX-License-Identifier: MIT
// Completion: pending content becomes one operation of the history (contract C2). By fsync, the
// last close, rename, link, and the timer for appenders. What is small rides in the record; what is
// large has been written out before (FAULT_SPILL) and only its addresses are in the record.

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/err.h"
#include "store/store_internal.h"

// What is allocated for one completion, so that it can be given back if it comes to nothing.
struct draft {
    struct op op;
    uint8_t **blocks;   // pointers to the MEM blocks, in order
    uint8_t *addresses; // little-endian, of xattr values
    struct op_piece *pieces;
    uint32_t piece_count;
};

size_t record_data_max(const struct store *s)
{
    return AF_MIN((size_t)RECORD_DATA_BYTES_MAX,
                  s->wal ? wal_body_max(s->wal) / 4 : RECORD_DATA_BYTES_MAX);
}

#define SPILL_ROUNDS 4u

size_t ride_bytes_max(const struct store *s)
{
    return s->no_record_data ? 0 : record_data_max(s);
}

size_t inode_mem_max(const struct store *s)
{
    size_t by_record = wal_body_max(s->wal) / 2 / BLOCK_BYTES;

    return AF_MAX(AF_MIN(by_record, (size_t)PENDING_MEM_INODE_MAX), (size_t)4);
}

static void draft_free(struct store *s, struct draft *d, bool release)
{
    for (uint32_t i = 0; release && i < d->piece_count; i++)
        if (d->pieces[i].type == PIECE_DATA)
            space_release(s->space, d->pieces[i].address, d->pieces[i].count);
    for (unsigned i = 0, at = 0; release && i < d->op.xattr_count; i++) {
        const struct op_xattr *x = &d->op.xattrs[i];

        for (uint64_t b = 0; x->addresses && b < BLOCKS_OF(x->value_len); b++, at++)
            space_release(s->space, op_le64(d->addresses, at), 1);
    }
    free(d->blocks);
    free(d->addresses);
    free(d->pieces);
}

// Small enough to lie in the tree, and all of it is the one block in memory.
static bool fits_inline(const struct pending *p, const struct inode *in)
{
    if (p->size == 0 || p->size > INLINE_BYTES_MAX || p->staged_id || p->piece_count != 1 ||
        p->pieces[0].type != PEND_MEM || p->pieces[0].block != 0)
        return false;
    return p->is_new || p->keep_blocks == 0 || in->blocks == 0;
}

// One run of MEM pieces from index `at` becomes DATA pieces; returns the index behind it.
static size_t draft_data(struct store *s, const struct pending *p, struct draft *d, size_t at,
                         size_t *block_index)
{
    size_t end = at;

    while (end < p->piece_count && p->pieces[end].type == PEND_MEM &&
           p->pieces[end].block == p->pieces[at].block + (end - at))
        end++;
    for (size_t done = at; done < end;) {
        struct op_piece *piece = &d->pieces[d->piece_count++];
        uint64_t got;

        piece->type = PIECE_DATA;
        piece->block = p->pieces[done].block;
        piece->address = space_alloc(s->space, end - done, 0, &got);
        piece->count = got;
        piece->blocks = (const uint8_t *const *)&d->blocks[*block_index];
        for (uint64_t i = 0; i < got; i++)
            d->blocks[(*block_index)++] = p->pieces[done + i].bytes;
        done += got;
    }
    return end;
}

static int draft_pieces(struct store *s, const struct pending *p, struct draft *d)
{
    size_t block_index = 0;

    if (p->piece_count == 0)
        return 0;
    d->blocks = malloc((p->mem_blocks + 1) * sizeof(d->blocks[0]));
    d->pieces = calloc(p->piece_count, sizeof(d->pieces[0]));
    if (!d->blocks || !d->pieces)
        return -ENOMEM;
    for (size_t at = 0; at < p->piece_count;) {
        const struct pend_piece *from = &p->pieces[at];

        if (from->type == PEND_MEM) {
            at = draft_data(s, p, d, at, &block_index);
            continue;
        }
        struct op_piece *piece = &d->pieces[d->piece_count++];

        piece->block = from->block;
        piece->count = from->count;
        piece->type = from->type == PEND_HOLE ? PIECE_HOLE : PIECE_EXTENT;
        piece->address = from->address;
        piece->checksums = (const uint8_t *)from->checksums;
        at++;
    }
    return 0;
}

static int draft_xattrs(struct store *s, const struct pending *p, struct draft *d)
{
    size_t at = 0;

    d->addresses = malloc(8 * (p->xattr_blocks + 1));
    if (!d->addresses)
        return -ENOMEM;
    for (const struct pend_xattr *x = p->xattrs; x; x = x->next) {
        struct op_xattr *to = &d->op.xattrs[d->op.xattr_count++];

        *to = (struct op_xattr){
            .name = x->name, .name_len = x->name_len, .value = x->value, .value_len = x->value_len};
        if (x->value_len <= INLINE_BYTES_MAX)
            continue;
        to->addresses = d->addresses + 8 * at;
        for (uint64_t b = 0; b < BLOCKS_OF(x->value_len); b++, at++) {
            uint64_t got;
            le64 address = le64_put(space_alloc(s->space, 1, 0, &got));

            memcpy(d->addresses + 8 * at, &address, sizeof(address));
        }
    }
    return 0;
}

// A large content that is replaced whole is not freed in one operation: the inode gets a fresh
// content id, the old content goes to the orphan list.
#define EXCHANGE_BLOCKS (64u * EXTENT_BLOCKS_MAX)

static void draft_content_mode(struct store *s, const struct pending *p, const struct inode *in,
                               struct op *op)
{
    if (!p->content && !p->is_new) {
        op->content = CONTENT_KEEP;
        return;
    }
    if (!p->is_new && p->keep_blocks == 0 && in->blocks > EXCHANGE_BLOCKS)
        op->inode.content_id = ino_new(s);
    if (fits_inline(p, in)) {
        op->content = CONTENT_INLINE;
        op->bytes = p->pieces[0].bytes;
        op->bytes_len = (uint32_t)p->size;
        return;
    }
    op->content = CONTENT_PIECES;
    op->keep_blocks = p->is_new ? NO_BLOCK : p->keep_blocks;
    if (p->staged_id) {
        op->staged_id = p->staged_id;
        op->content = p->is_new || p->keep_blocks == 0 ? CONTENT_ADOPT : CONTENT_MERGE;
    }
    if (op->content ==
        CONTENT_ADOPT) { // the old content is gone as a whole, nothing of the new one is
        op->inode.content_id = p->staged_id;
        op->keep_blocks = NO_BLOCK;
    }
}

static void draft_inode(const struct pending *p, const struct inode *in, struct op *op)
{
    op->inode = *in;
    if (p->content)
        op->inode.size = p->size;
    if (p->times) {
        op->inode.mtime = p->mtime;
        op->inode.ctime = p->ctime;
    }
    if (p->atime_set)
        op->inode.atime = p->atime;
    if (p->kill_suidgid)
        op->inode.mode &= ~(uint32_t)(S_ISUID | ((in->mode & S_IXGRP) ? S_ISGID : 0));
}

static int draft_make(struct store *s, struct fault *f, const struct pending *p,
                      const struct inode *in, struct draft *d)
{
    size_t blocks = p->xattr_blocks;
    int err = 0;

    draft_inode(p, in, &d->op);
    draft_content_mode(s, p, in, &d->op);
    if (d->op.content >= CONTENT_PIECES)
        blocks += p->mem_blocks;
    if (blocks > 0)
        err = space_prepare(s->space, f, blocks, blocks, true);
    if (err == 0 && d->op.content >= CONTENT_PIECES)
        err = draft_pieces(s, p, d);
    d->op.pieces = d->pieces;
    d->op.piece_count = d->piece_count;
    if (err == 0 && p->is_new) {
        d->op.flags = OP_NEW | OP_NAME_SEEN;
        d->op.time = pend_dir_find(s, p->parent)->changed;
        d->op.parent = p->parent;
        d->op.name = p->name;
        d->op.name_len = (uint8_t)strlen(p->name);
        d->op.index = p->index;
        err = draft_xattrs(s, p, d);
    }
    return err;
}

int complete(struct store *s, struct fault *f, struct oinode *oi)
{
    struct pending *p = oi->p;
    struct inode in;
    struct draft d = {0};
    int err = 0;

    if (!p || oi->orphan || (p->is_new && !p->name))
        return 0; // nothing, or nothing that anybody could find after a crash
    if (p->is_new)
        in = p->fresh;
    else
        err = inode_get(s, f, oi->ino, &in);
    if (err == 0 && p->content)
        err = pending_trim(s, p);
    if (err < 0)
        return err;
    // What is in memory rides in the record when it is little. A writer that goes on writing must
    // not keep the completion for ever: after some rounds all that one inode may have in memory
    // (pending_mem_max) rides too.
    if (p->mem_blocks * BLOCK_BYTES > ride_bytes_max(s) && !fits_inline(p, &in) &&
        (f->spills < SPILL_ROUNDS || p->mem_blocks > inode_mem_max(s))) {
        f->kind = FAULT_SPILL;
        f->number = oi->ino;
        return -AF_E_FAULT;
    }
    op_begin(s, &d.op, OP_COMPLETE);
    d.op.ino = oi->ino;
    err = draft_make(s, f, p, &in, &d);
    if (err == 0)
        err = op_commit(s, f, &d.op, p->data_number);
    draft_free(s, &d, err < 0);
    if (err < 0) {
        if (!p->is_new && d.op.inode.content_id != p->staged_id &&
            d.op.inode.content_id != in.content_id)
            ino_return(s, d.op.inode.content_id);
        return err;
    }
    if (!p->is_new && d.op.inode.content_id != in.content_id && in.blocks > 0)
        reap_add(s, in.content_id, ORPHAN_CONTENT); // where the operation has put it
    pending_done(s, oi);
    return 0;
}
