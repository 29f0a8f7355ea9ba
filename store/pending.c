// SPDX-License-Identifier: MIT
// Pending content: what was written to a file and is not completed. It lies beside the tree, so
// that neither tree nor checkpoint ever holds half of a change. Layers, as a reader sees them from
// the top:
//
//   pieces    MEM (a block in memory), EXTENT (written out already, named by no record), HOLE
//   (hides what is below) staged    extents that went into the tree under an id of their own,
//   because there were too many pieces base      the content that the inode has in the tree, up to
//   keep_blocks
//
// Every MEM block has one block of space reserved, so that the completion finds room. All of it is
// bounded: blocks in memory by PENDING_MEM_INODE_MAX for one inode and config.pending_bytes for
// all, pieces by staging.

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/err.h"
#include "store/store_internal.h"

#define BLOCK_LIMIT (UINT64_C(1) << 51) // behind the last block of the largest file

int pending_begin(struct store *s, struct oinode *oi, const struct inode *in)
{
    if (oi->p)
        return 0;
    struct pending *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->append_only = true;
    p->since_ms = s->config.io->ops->ticks_ms(s->config.io);
    p->size = in->size;
    p->mtime = in->mtime;
    p->ctime = in->ctime;
    p->keep_blocks = NO_BLOCK;
    oi->p = p;
    list_append(&s->pending, &oi->pending_link);
    s->pending_count++;
    return 0;
}

void pending_touch(struct store *s, struct oinode *oi)
{
    oi->p->mtime = oi->p->ctime = store_now(s);
    oi->p->times = true;
}

void reap_add(struct store *s, uint64_t id, uint8_t what)
{
    struct reap *r = malloc(sizeof(*r));

    if (!r) // the next recovery will find it on the orphan list
        return;
    r->id = id;
    r->what = what;
    list_append(&s->reap, &r->link);
    s->reap_count++;
    s->signal = true;
}

// ---- blocks of data in the cache ----

int data_block(struct store *s, struct fault *f, uint64_t address, uint64_t sum,
               const uint8_t **ret_bytes)
{
    struct block *b = cache_lookup(&s->cache, address);

    // A clean block may be left from an earlier use of the address: only the checksum says what it
    // is.
    if (b && b->kind == BLOCK_DATA &&
        (cache_state(&s->cache, b) != BLOCK_CLEAN || b->checksum == sum)) {
        *ret_bytes = b->bytes;
        return 0;
    }
    if (f->bad_error != 0 && f->bad.address == address && f->bad.checksum == sum)
        return f->bad_error;
    f->kind = FAULT_DATA;
    f->ref = (struct blkref){.address = address, .checksum = sum};
    return -AF_E_FAULT;
}

void data_forget(struct store *s, uint64_t address, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct block *b = cache_lookup(&s->cache, address + i);

        if (b)
            cache_drop(&s->cache, b);
    }
}

int base_find(struct store *s, struct fault *f, const struct inode *in, const struct pending *p,
              uint64_t block, uint64_t *ret_address, uint64_t *ret_sum)
{
    struct extent e;
    int err = -ENOENT;

    *ret_address = 0;
    if (p && p->staged_id)
        err = extent_at(s, f, p->staged_id, block, block, &e);
    if (err == -ENOENT && !(p && (p->is_new || block >= p->keep_blocks)))
        err = extent_at(s, f, in->content_id, block, block, &e);
    if (err == 0) {
        *ret_address = e.address + (block - e.block);
        *ret_sum = le64_get(e.checksums[block - e.block]);
    }
    return err == -ENOENT ? 0 : err;
}

// ---- pieces ----

size_t pending_search(const struct pending *p, uint64_t block)
{
    size_t lo = 0, hi = p->piece_count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (p->pieces[mid].block + p->pieces[mid].count <= block)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static int pieces_room(struct pending *p, size_t more)
{
    size_t need = p->piece_count + more;

    if (need <= p->piece_cap)
        return 0;
    size_t cap = AF_MAX(need, 2 * p->piece_cap + 4);
    struct pend_piece *pieces = realloc(p->pieces, cap * sizeof(*pieces));

    if (!pieces)
        return -ENOMEM;
    p->pieces = pieces;
    p->piece_cap = cap;
    return 0;
}

static void release_run(struct store *s, uint64_t address, uint64_t count)
{
    data_forget(s, address, count);
    space_release(s->space, address, count);
}

void pending_count(struct store *s, struct pending *p, const struct pend_piece *piece, int by)
{
    if (piece->type == PEND_MEM) {
        p->mem_blocks += (size_t)by;
        s->pending_mem_blocks += (size_t)by;
    } else if (piece->type == PEND_EXTENT) {
        p->extent_pieces += (size_t)by;
        p->extent_blocks += (uint64_t)by * piece->count;
        p->record_bytes += (size_t)by * (32 + 8 * (size_t)piece->count);
    } else {
        p->hole_pieces += (size_t)by;
        p->record_bytes += (size_t)by * 24;
    }
}

static void remove_piece(struct store *s, struct pending *p, size_t at, bool release)
{
    struct pend_piece *piece = &p->pieces[at];

    pending_count(s, p, piece, -1);
    if (piece->type == PEND_MEM)
        space_unreserve(s->space, 1);
    else if (piece->type == PEND_EXTENT && release)
        release_run(s, piece->address, piece->count);
    free(piece->bytes);
    free(piece->checksums);
    p->piece_count--;
    memmove(piece, piece + 1, (p->piece_count - at) * sizeof(*piece));
}

// Cuts a piece in two at `block`, which lies inside. The room was made.
static int split_piece(struct store *s, struct pending *p, size_t at, uint64_t block)
{
    struct pend_piece *left = &p->pieces[at];
    struct pend_piece right = *left;
    uint64_t head = block - left->block;

    right.block = block;
    right.count = left->count - head;
    if (left->type == PEND_EXTENT) {
        right.address = left->address + head;
        right.checksums = malloc(8 * right.count);
        if (!right.checksums)
            return -ENOMEM;
        memcpy(right.checksums, left->checksums + head, 8 * right.count);
    }
    pending_count(s, p, left, -1);
    left->count = head;
    pending_count(s, p, left, 1);
    memmove(left + 2, left + 1, (p->piece_count - at - 1) * sizeof(*left));
    left[1] = right;
    p->piece_count++;
    pending_count(s, p, &right, 1);
    return 0;
}

int pending_cut(struct store *s, struct pending *p, uint64_t block, uint64_t count, size_t more)
{
    uint64_t end = block + count;
    int err = pieces_room(p, more + 2);

    if (err < 0)
        return err;
    size_t at = pending_search(p, block);

    if (at < p->piece_count && p->pieces[at].block < block) {
        err = split_piece(s, p, at, block);
        if (err < 0)
            return err;
        at++;
    }
    size_t last = pending_search(p, end);

    if (last < p->piece_count && p->pieces[last].block < end) {
        err = split_piece(s, p, last, end);
        if (err < 0)
            return err;
    }
    while (at < p->piece_count && p->pieces[at].block < end)
        remove_piece(s, p, at, true);
    return 0;
}

void pending_add(struct store *s, struct pending *p, const struct pend_piece *piece)
{
    size_t at = pending_search(p, piece->block);

    AF_ASSERT(p->piece_count < p->piece_cap);
    AF_ASSERT(at == p->piece_count || p->pieces[at].block >= piece->block + piece->count);
    memmove(&p->pieces[at + 1], &p->pieces[at], (p->piece_count - at) * sizeof(*piece));
    p->pieces[at] = *piece;
    p->piece_count++;
    pending_count(s, p, piece, 1);
}

// Adds one MEM block with the given bytes (owned from here on, freed on failure); space is reserved
// here.
static int add_block(struct store *s, struct fault *f, struct pending *p, uint64_t block,
                     uint8_t *bytes)
{
    struct pend_piece piece = {.block = block, .count = 1, .type = PEND_MEM, .bytes = bytes};
    int err = space_reserve(s->space, f, 1);

    if (err == 0) {
        err = pending_cut(s, p, block, 1, 1);
        if (err < 0)
            space_unreserve(s->space, 1);
    }
    if (err < 0) {
        free(bytes);
        return err;
    }
    piece.version = ++s->version;
    pending_add(s, p, &piece);
    return 0;
}

int pending_content(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in)
{
    struct pending *p = oi->p;
    const void *bytes;
    size_t len;
    int err = 0;

    if (p->content)
        return 0;
    if (!p->is_new) {
        err = inline_get(s, f, in->content_id, &bytes, &len);
        if (err == 0) {
            uint8_t *block = calloc(1, BLOCK_BYTES);

            if (!block)
                return -ENOMEM;
            memcpy(block, bytes, len);
            err = add_block(s, f, p, 0, block);
        } else if (err == -ENOENT) {
            err = 0;
        }
    }
    if (err == 0)
        p->content = true;
    return err;
}

int pending_block(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in,
                  uint64_t block, bool whole, struct pend_piece **ret_piece)
{
    struct pending *p = oi->p;
    size_t at = pending_search(p, block);
    bool covered = at < p->piece_count && p->pieces[at].block <= block;
    const uint8_t *from = NULL;
    uint64_t address = 0, sum = 0;
    int err = 0;

    if (covered && p->pieces[at].type == PEND_MEM) {
        p->pieces[at].version = ++s->version;
        *ret_piece = &p->pieces[at];
        return 0;
    }
    if (!whole && covered && p->pieces[at].type == PEND_EXTENT) {
        address = p->pieces[at].address + (block - p->pieces[at].block);
        sum = le64_get(p->pieces[at].checksums[block - p->pieces[at].block]);
    } else if (!whole && !covered) {
        err = base_find(s, f, in, p, block, &address, &sum);
    }
    if (err == 0 && address != 0)
        err = data_block(s, f, address, sum, &from);
    if (err < 0)
        return err;
    uint8_t *bytes = from ? malloc(BLOCK_BYTES) : calloc(1, BLOCK_BYTES);

    if (!bytes)
        return -ENOMEM;
    if (from)
        memcpy(bytes, from, BLOCK_BYTES);
    err = add_block(s, f, p, block, bytes);
    if (err < 0)
        return err;
    *ret_piece = &p->pieces[pending_search(p, block)];
    return 0;
}

// Whether anything but zeros may be seen at `block`.
static int block_is_hole(struct store *s, struct fault *f, const struct pending *p,
                         const struct inode *in, uint64_t block, bool *ret_hole)
{
    size_t at = pending_search(p, block);
    uint64_t address, sum;
    int err;

    if (at < p->piece_count && p->pieces[at].block <= block) {
        *ret_hole = p->pieces[at].type == PEND_HOLE;
        return 0;
    }
    err = base_find(s, f, in, p, block, &address, &sum);
    *ret_hole = address == 0;
    return err;
}

// Brings a block that will be zeroed in part into memory; a hole needs none.
static int fetch_part(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in,
                      uint64_t block)
{
    struct pend_piece *piece;
    bool hole;
    int err = block_is_hole(s, f, oi->p, in, block, &hole);

    return err < 0 || hole ? err : pending_block(s, f, oi, in, block, false, &piece);
}

// Zeroes [from, to) of one block, if there is anything to zero.
static int zero_part(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in,
                     uint64_t block, size_t from, size_t to)
{
    struct pend_piece *piece;
    bool hole;
    int err = block_is_hole(s, f, oi->p, in, block, &hole);

    if (err < 0 || hole)
        return err;
    err = pending_block(s, f, oi, in, block, false, &piece);
    if (err == 0)
        memset(piece->bytes + from, 0, to - from);
    return err;
}

// Hides whole blocks of what is below.
static int hide(struct store *s, struct pending *p, uint64_t block, uint64_t end)
{
    struct pend_piece hole = {.block = block, .count = end - block, .type = PEND_HOLE};
    int err = pending_cut(s, p, block, end - block, 1);

    if (err == 0 && (p->staged_id || (!p->is_new && block < p->keep_blocks)))
        pending_add(s, p, &hole);
    return err;
}

int pending_trim(struct store *s, struct pending *p)
{
    uint64_t end = BLOCKS_OF(p->size);

    for (size_t at = pending_search(p, end); at < p->piece_count; at++) {
        const struct pend_piece *piece = &p->pieces[at];

        if (piece->type == PEND_HOLE || piece->block < end)
            continue;
        int err = hide(s, p, piece->block, piece->block + piece->count);

        if (err < 0)
            return err;
        at = pending_search(p, end) - 1; // from the start again: the pieces have moved
    }
    return 0;
}

int pending_truncate(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in,
                     uint64_t size)
{
    struct pending *p = oi->p;
    uint64_t keep = BLOCKS_OF(size);
    int err = pending_content(s, f, oi, in);

    if (err < 0)
        return err;
    if (size < p->size) {
        if (size % BLOCK_BYTES != 0)
            err = zero_part(s, f, oi, in, size / BLOCK_BYTES, size % BLOCK_BYTES, BLOCK_BYTES);
        if (err == 0 && p->staged_id && keep > 0)
            err = hide(s, p, keep, BLOCK_LIMIT);
        else if (err == 0)
            err = pending_cut(s, p, keep, BLOCK_LIMIT - keep, 0);
        if (err < 0)
            return err;
        if (p->staged_id && keep == 0) {
            reap_add(s, p->staged_id, ORPHAN_STAGED);
            p->staged_id = 0;
        }
        if (!p->is_new)
            p->keep_blocks = AF_MIN(p->keep_blocks, keep);
    }
    p->size = size;
    p->append_only = false;
    return 0;
}

int pending_hole(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in,
                 uint64_t off, uint64_t len)
{
    uint64_t first = off / BLOCK_BYTES, last = (off + len - 1) / BLOCK_BYTES;
    uint64_t whole = BLOCKS_OF(off), whole_end = (off + len) / BLOCK_BYTES;
    size_t from = off % BLOCK_BYTES, to = (size_t)((off + len - 1) % BLOCK_BYTES) + 1;
    int err = pending_content(s, f, oi, in);

    if (err == 0 && oi->p->hole_pieces >= HOLE_PIECES_MAX)
        err = -ENOSPC; // what one completion can say is bounded: fsync first
    if (err < 0)
        return err;
    // Both ends come into memory before anything is changed.
    if (from != 0 || (first == last && to != BLOCK_BYTES))
        err = fetch_part(s, f, oi, in, first);
    if (err == 0 && first != last && to != BLOCK_BYTES)
        err = fetch_part(s, f, oi, in, last);
    if (err == 0 && whole < whole_end)
        err = hide(s, oi->p, whole, whole_end);
    if (err < 0)
        return err;
    if (first == last)
        err = from == 0 && to == BLOCK_BYTES ? 0 : zero_part(s, f, oi, in, first, from, to);
    else if (from != 0)
        err = zero_part(s, f, oi, in, first, from, BLOCK_BYTES);
    if (err == 0 && first != last && to != BLOCK_BYTES)
        err = zero_part(s, f, oi, in, last, 0, to);
    if (err == 0)
        oi->p->append_only = false;
    return err;
}

// ---- the end ----

static void pending_free(struct store *s, struct oinode *oi, bool release)
{
    struct pending *p = oi->p;

    while (p->piece_count > 0)
        remove_piece(s, p, p->piece_count - 1, release);
    if (p->name)
        pend_dir_remove(s, p->parent, oi);
    while (p->xattrs) {
        struct pend_xattr *x = p->xattrs;

        p->xattrs = x->next;
        free(x);
    }
    space_unreserve(s->space, p->xattr_blocks);
    if (release && p->staged_id)
        reap_add(s, p->staged_id, ORPHAN_STAGED);
    free(p->name);
    free(p->pieces);
    free(p);
    oi->p = NULL;
    list_remove(&oi->pending_link);
    s->pending_count--;
    oi->epoch++;
    oi->dirty_handles = 0;
}

void pending_drop(struct store *s, struct oinode *oi)
{
    pending_free(s, oi, true);
}

void pending_done(struct store *s, struct oinode *oi)
{
    pending_free(s, oi, false);
}
