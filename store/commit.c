// SPDX-License-Identifier: MIT
// Prepare, append, apply: how every change becomes an operation of the log.
//
//   1 prepare  read and pin what it touches, check it, have memory, space and log room ready
//   2 append   the record joins the open group: here its place in the history is fixed
//   3 apply    the tree changes in memory
//
// Appending before applying, both under one hold of the lock, makes log order and apply order one.
// Applying before the record is durable is safe since durability is a prefix: whoever saw the
// change commits behind it.

#include "base/check.h"
#include "base/err.h"
#include "store/store_internal.h"

#define NUMBERS_AHEAD_MAX \
    (UINT64_C(1) << 19) // of inode numbers given out and named by no record yet

void op_begin(struct store *s, struct op *op, enum op_kind kind)
{
    memset(op, 0, sizeof(*op));
    op->kind = kind;
    op->keep_blocks = NO_BLOCK;
    op->time = store_now(s);
}

// Log room and dirty memory have bounds; writers wait for a checkpoint before they reach them.
static int admit(struct store *s, struct fault *f, size_t body_bytes)
{
    if (s->gate) {
        f->kind = FAULT_GATE;
        return -AF_E_FAULT;
    }
    if (s->closed_checkpoint && s->frozen) {
        f->kind = FAULT_FROZEN;
        return -AF_E_FAULT;
    }
    if (s->cache.dirty_count + s->cache.frozen_count > store_dirty_hard(s)) {
        f->kind = FAULT_LOG;
        return -AF_E_FAULT;
    }
    if (!wal_has_room(s->wal, 2, body_bytes + 256)) {
        f->kind = FAULT_LOG;
        return -AF_E_FAULT;
    }
    return wal_prepare(s->wal, body_bytes);
}

// ctime has moved in the tree. Readers of a file that is being written see the pending one, and the
// completion must not set it back.
static void touch_pending(struct store *s, const struct op *op)
{
    bool replaced = op->kind == OP_RENAME && !(op->flags & OP_EXCHANGE);
    struct oinode *oi = NULL;

    if (op->kind == OP_UNLINK || op->kind == OP_SET_XATTR || op->kind == OP_REMOVE_XATTR)
        oi = oinode_find(s, op->ino);
    else if (replaced && op->replaced != 0)
        oi = oinode_find(s, op->replaced);
    if (oi && oi->p && oi->p->times)
        oi->p->ctime = op->time;
}

int op_commit(struct store *s, struct fault *f, struct op *op, uint64_t data_number)
{
    uint64_t lsn;
    int err;

    AF_ASSERT(af_is_locked(&s->lock) && s->wal);
    op->next_ino = s->next_ino;
    err = op_prepare(s, f, op);
    if (err < 0)
        return err;
    buf_reset(&s->encode);
    op_encode(op, &s->encode);
    if (s->encode.failed) {
        buf_free(&s->encode);
        buf_init(&s->encode);
        return -ENOMEM;
    }
    err = admit(s, f, s->encode.len);
    if (err == 0)
        err = wal_append(s->wal, WAL_OPERATION, s->encode.bytes, s->encode.len, data_number, &lsn);
    if (err < 0)
        return err;
    op_apply(s, op, lsn);
    touch_pending(s, op);
    if (store_wants_checkpoint_locked(s))
        s->signal = true;
    return 0;
}

int numbers_note(struct store *s, struct fault *f)
{
    struct op op;

    if (s->next_ino - s->logged_ino < NUMBERS_AHEAD_MAX)
        return 0;
    op_begin(s, &op, OP_NUMBERS);
    return op_commit(s, f, &op, 0);
}
