// SPDX-License-Identifier: MIT
// Large content goes to the disk while it is being written: to fresh blocks that no record names
// yet. The bytes are written without the lock; the extents join the pending content afterwards,
// unless a later write has overtaken them.
//
// What a commit behind a large completion waits for is bounded: a writer that has left more than
// UNSYNCED_MAX unsynced syncs before it goes on. Extents of a
// content with very many pieces are staged: put into the tree by an operation of their own, under
// an id on the orphan list, so that neither memory nor the completion's record grows with the file.

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "store/store_internal.h"

#define SPILL_BLOCKS_MAX  256u                 // at once
#define DIRECT_BLOCKS_MAX 257u                 // of one write
#define UNSYNCED_MAX      (UINT64_C(32) << 20) // bytes

struct run {
    uint64_t block, address, count;
    const uint8_t *bytes;
    le64 *checksums;
    uint64_t *versions; // NULL: not from MEM blocks
};

// One call for the run, or one for each of its blocks.
static int write_run(struct store *s, const struct run *run)
{
    uint64_t step = s->no_batching ? 1 : run->count;
    int err = 0;

    for (uint64_t at = 0; err == 0 && at < run->count; at += step)
        err = io_pwrite(s->config.data, run->bytes + at * BLOCK_BYTES, step * BLOCK_BYTES,
                        (run->address + at) * BLOCK_BYTES);
    return err;
}

// Writes the runs. Without the lock.
static int write_runs(struct store *s, struct run *runs, size_t run_count)
{
    uint64_t bytes = 0;

    for (size_t r = 0; r < run_count; r++) {
        struct run *run = &runs[r];

        for (uint64_t i = 0; i < run->count; i++)
            run->checksums[i] =
                le64_put(checksum(CSUM_DATA, 0, run->bytes + i * BLOCK_BYTES, BLOCK_BYTES));
        int err = write_run(s, run);

        if (err < 0) {
            message(&s->config.sink, MESSAGE_ERROR,
                    "%llu blocks from block %llu of data could not be written: %s (%s)",
                    (unsigned long long)run->count, (unsigned long long)run->address, err_text(err),
                    err_name(err));
            return err;
        }
        bytes += run->count * BLOCK_BYTES;
    }
    if (atomic_fetch_add(&s->unsynced_bytes, bytes) + bytes > UNSYNCED_MAX) {
        atomic_store(&s->unsynced_bytes, 0);
        int err = io_sync(
            s->config.data); // promises nothing: it only bounds what the next commit waits for

        if (err < 0) {
            store_fail(s, err, "sync of data failed");
            return err;
        }
    }
    return 0;
}

static void release_runs(struct store *s, const struct run *runs, size_t run_count)
{
    for (size_t r = 0; r < run_count; r++)
        space_release(s->space, runs[r].address, runs[r].count);
}

// Allocates runs for `count` blocks that lie one after the other in the file and in memory. Space
// was prepared.
static size_t alloc_runs(struct store *s, struct pending *p, uint64_t block, const uint8_t *bytes,
                         uint64_t count, le64 *checksums, uint64_t *versions, struct run *runs)
{
    size_t n = 0;

    for (uint64_t done = 0; done < count;) {
        struct run *run = &runs[n++];
        uint64_t want = AF_MIN(count - done, (uint64_t)EXTENT_BLOCKS_MAX);

        run->address = space_alloc(s->space, want, p->spill_hint, &run->count);
        run->block = block + done;
        run->bytes = bytes + done * BLOCK_BYTES;
        run->checksums = checksums + done;
        run->versions = versions ? versions + done : NULL;
        p->spill_hint = run->address + run->count;
        done += run->count;
    }
    return n;
}

// Makes [from, from + count) of the run a piece. 0 or -ENOMEM, with nothing changed.
static int adopt_part(struct store *s, struct pending *p, const struct run *run, uint64_t from,
                      uint64_t count)
{
    struct pend_piece piece = {
        .block = run->block + from,
        .count = count,
        .type = PEND_EXTENT,
        .address = run->address + from,
        .checksums = malloc(count * sizeof(le64)),
    };

    if (!piece.checksums)
        return -ENOMEM;
    memcpy(piece.checksums, run->checksums + from, count * sizeof(le64));
    int err = pending_cut(s, p, piece.block, count, 1);

    if (err < 0) {
        free(piece.checksums);
        return err;
    }
    pending_add(s, p, &piece);
    return 0;
}

// ---- MEM blocks of one inode ----

struct spill {
    uint8_t *bytes;
    le64 *checksums;
    uint64_t *versions, *blocks;
    struct run *runs;
    size_t count, run_count;
};

static void spill_free(struct spill *sp)
{
    free(sp->bytes);
    free(sp->checksums);
    free(sp->versions);
    free(sp->blocks);
    free(sp->runs);
}

static int spill_init(struct spill *sp)
{
    *sp = (struct spill){
        .bytes = malloc(SPILL_BLOCKS_MAX * BLOCK_BYTES),
        .checksums = malloc(SPILL_BLOCKS_MAX * sizeof(le64)),
        .versions = malloc(SPILL_BLOCKS_MAX * sizeof(uint64_t)),
        .blocks = malloc(SPILL_BLOCKS_MAX * sizeof(uint64_t)),
        .runs = malloc(SPILL_BLOCKS_MAX * sizeof(struct run)),
    };
    if (sp->bytes && sp->checksums && sp->versions && sp->blocks && sp->runs)
        return 0;
    spill_free(sp);
    return -ENOMEM;
}

// Copies MEM blocks out and allocates their runs. Under the lock.
static int spill_collect(struct store *s, struct fault *f, uint64_t ino, size_t keep,
                         struct spill *sp)
{
    struct oinode *oi = oinode_find(s, ino);
    struct pending *p = oi ? oi->p : NULL;
    size_t most =
        p && p->mem_blocks > keep ? AF_MIN(p->mem_blocks - keep, (size_t)SPILL_BLOCKS_MAX) : 0;

    // While they are written they count twice, as allocated and as reserved: little, against the
    // reserve.
    most = AF_MIN(most, AF_MAX(space_reserve_blocks(s->space) / 32, (uint64_t)8));
    sp->count = sp->run_count = 0;
    if (most == 0)
        return 0;
    int err = space_prepare(s->space, f, most, most,
                            true); // reserved block by block when they were written

    if (err < 0)
        return err;
    for (size_t i = 0; i < p->piece_count && sp->count < most; i++) {
        const struct pend_piece *piece = &p->pieces[i];

        if (piece->type != PEND_MEM)
            continue;
        memcpy(sp->bytes + sp->count * BLOCK_BYTES, piece->bytes, BLOCK_BYTES);
        sp->versions[sp->count] = piece->version;
        sp->blocks[sp->count++] = piece->block;
    }
    for (size_t at = 0; at < sp->count;) {
        size_t end = at + 1;

        while (end < sp->count && sp->blocks[end] == sp->blocks[at] + (end - at))
            end++;
        sp->run_count +=
            alloc_runs(s, p, sp->blocks[at], sp->bytes + at * BLOCK_BYTES, end - at,
                       sp->checksums + at, sp->versions + at, sp->runs + sp->run_count);
        at = end;
    }
    return 0;
}

// The runs take the place of the MEM blocks that are still as they were copied; the rest is given
// back. Under the lock.
static void spill_adopt(struct store *s, uint64_t ino, struct spill *sp)
{
    struct oinode *oi = oinode_find(s, ino);
    struct pending *p = oi ? oi->p : NULL;

    for (size_t r = 0; r < sp->run_count; r++) {
        const struct run *run = &sp->runs[r];

        for (uint64_t at = 0; at < run->count;) {
            uint64_t end = at;

            while (p && end < run->count) {
                size_t i = pending_search(p, run->block + end);

                if (i == p->piece_count || p->pieces[i].type != PEND_MEM ||
                    p->pieces[i].block != run->block + end ||
                    p->pieces[i].version != run->versions[end])
                    break;
                end++;
            }
            if (end > at && adopt_part(s, p, run, at, end - at) < 0)
                end = at;
            if (end == at) {
                space_release(s->space, run->address + at, 1);
                end++;
            }
            at = end;
        }
    }
    if (p && sp->run_count > 0)
        p->data_number = atomic_fetch_add(&s->data_number, 1) + 1;
}

static int spill_once(struct store *s, uint64_t ino, size_t keep, struct spill *sp)
{
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = spill_collect(s, &f, ino, keep, sp);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    if (err < 0 || sp->count == 0)
        return err;
    err = write_runs(s, sp->runs, sp->run_count);
    store_lock(s);
    if (err < 0)
        release_runs(s, sp->runs, sp->run_count);
    else
        spill_adopt(s, ino, sp);
    store_unlock(s);
    return err;
}

static bool spill_more(struct store *s, uint64_t ino, size_t keep)
{
    store_lock(s);
    const struct oinode *oi = oinode_find(s, ino);
    bool more = oi && oi->p && oi->p->mem_blocks * BLOCK_BYTES > ride_bytes_max(s) &&
                oi->p->mem_blocks > keep;

    store_unlock(s);
    return more;
}

int spill_inode(struct store *s, uint64_t ino, size_t keep)
{
    struct spill sp;
    int err = spill_init(&sp);

    if (err < 0)
        return err;
    do {
        err = spill_once(s, ino, keep, &sp);
    } while (err == 0 && sp.count > 0 && spill_more(s, ino, keep));
    spill_free(&sp);
    return err < 0 ? err : stage_inode(s, ino);
}

// ---- whole blocks of one large write ----

struct direct {
    struct run runs[DIRECT_BLOCKS_MAX];
    le64 checksums[DIRECT_BLOCKS_MAX];
    struct pend_piece
        pieces[DIRECT_BLOCKS_MAX]; // made ready, so that adopting them is all or nothing
    size_t run_count;
    uint64_t block, count;
    bool adopted;
};

struct direct *direct_begin(void)
{
    return calloc(1, sizeof(struct direct));
}

int direct_alloc(struct store *s, struct fault *f, struct oinode *oi, uint64_t block,
                 const uint8_t *bytes, uint64_t count, struct direct *d)
{
    int err = space_prepare(s->space, f, count, 0, false);

    if (err < 0)
        return err;
    AF_ASSERT(count > 0 && count <= DIRECT_BLOCKS_MAX);
    d->run_count = alloc_runs(s, oi->p, block, bytes, count, d->checksums, NULL, d->runs);
    d->block = block;
    d->count = count;
    return 0;
}

int direct_write(struct store *s, struct direct *d)
{
    int err = write_runs(s, d->runs, d->run_count);

    for (size_t r = 0; err == 0 && r < d->run_count; r++) {
        const struct run *run = &d->runs[r];

        d->pieces[r] = (struct pend_piece){.block = run->block,
                                           .count = run->count,
                                           .type = PEND_EXTENT,
                                           .address = run->address,
                                           .checksums = malloc(run->count * sizeof(le64))};
        if (!d->pieces[r].checksums)
            err = -ENOMEM;
        else
            memcpy(d->pieces[r].checksums, run->checksums, run->count * sizeof(le64));
    }
    return err;
}

int direct_adopt(struct store *s, struct oinode *oi, struct direct *d)
{
    struct pending *p = oi->p;
    int err = pending_cut(s, p, d->block, d->count, d->run_count);

    if (err < 0)
        return err;
    for (size_t r = 0; r < d->run_count; r++)
        pending_add(s, p, &d->pieces[r]);
    d->adopted = true;
    p->data_number = atomic_fetch_add(&s->data_number, 1) + 1;
    return 0;
}

void direct_end(struct store *s, struct direct *d)
{
    if (!d->adopted) {
        store_lock(s);
        release_runs(s, d->runs, d->run_count);
        store_unlock(s);
        for (size_t r = 0; r < d->run_count; r++)
            free(d->pieces[r].checksums);
    }
    free(d);
}

// ---- staging ----

// When what the pieces take in a record comes near what one record holds: the rest is for what
// rides in it.
bool stage_wanted(const struct store *s, const struct pending *p)
{
    return p && p->extent_pieces > 0 && p->record_bytes > wal_body_max(s->wal) / 4;
}

// Builds the operation out of as many extents as a record takes. Indexes of the pieces used go up
// from 0 over EXTENT pieces.
static int stage_draft(struct store *s, const struct pending *p, struct op *op)
{
    size_t room = AF_MIN(wal_body_max(s->wal) / 2, (size_t)512 << 10);

    op->pieces = calloc(p->extent_pieces, sizeof(op->pieces[0]));
    if (!op->pieces)
        return -ENOMEM;
    for (size_t i = 0; i < p->piece_count; i++) {
        const struct pend_piece *from = &p->pieces[i];
        size_t bytes = 40 + 8 * (size_t)from->count;

        if (from->type != PEND_EXTENT)
            continue;
        if (bytes > room)
            break;
        room -= bytes;
        op->pieces[op->piece_count++] = (struct op_piece){
            .block = from->block,
            .count = from->count,
            .type = PIECE_EXTENT,
            .address = from->address,
            .checksums = (const uint8_t *)from->checksums,
        };
    }
    return 0;
}

// The staged ones leave memory; their blocks are the tree's now.
static void stage_forget(struct store *s, struct pending *p, uint32_t staged)
{
    size_t to = 0;

    for (size_t i = 0; i < p->piece_count; i++) {
        if (p->pieces[i].type == PEND_EXTENT && staged > 0) {
            staged--;
            pending_count(s, p, &p->pieces[i], -1);
            free(p->pieces[i].checksums);
            continue;
        }
        p->pieces[to++] = p->pieces[i];
    }
    p->piece_count = to;
}

static int stage_locked(struct store *s, struct fault *f, uint64_t ino)
{
    struct oinode *oi = oinode_find(s, ino);
    struct pending *p = oi ? oi->p : NULL;
    struct op op;
    int err;

    if (!s->wal || !stage_wanted(s, p))
        return 0;
    op_begin(s, &op, OP_STAGE);
    op.ino = p->staged_id ? p->staged_id : ino_new(s);
    err = stage_draft(s, p, &op);
    if (err == 0)
        err = op_commit(s, f, &op, p->data_number);
    if (err == 0) {
        p->staged_id = op.ino;
        stage_forget(s, p, op.piece_count);
    } else if (!p->staged_id) {
        ino_return(s, op.ino);
    }
    op_free(&op);
    return err;
}

int stage_inode(struct store *s, uint64_t ino)
{
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = stage_locked(s, &f, ino);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    return err;
}
