// SPDX-License-Identifier: MIT
// Reading: pending content over the tree's. Where the bytes are is looked up under the lock; what
// lies on disk is read without it and checked block by block. A block that fails may have been
// freed and used anew in between: then the map has changed, and the read starts over; if the map is
// the same, the bytes are rotten.

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "store/store_internal.h"

struct part { // a run of blocks to be read from disk
    uint64_t block, address, count;
    size_t first_sum; // index into sums
};

struct plan {
    struct part *parts;
    uint64_t *sums;
    size_t part_count, sum_count, part_cap;
    uint64_t first, last; // blocks
    uint8_t *bytes;       // of whole blocks first…last
    bool borrowed;        // they are the caller's
    uint64_t size;        // of the file
};

static int plan_part(struct plan *pl, uint64_t block, uint64_t address, uint64_t sum)
{
    struct part *p = pl->part_count ? &pl->parts[pl->part_count - 1] : NULL;

    if (p && p->block + p->count == block && p->address + p->count == address) {
        p->count++;
    } else {
        if (pl->part_count == pl->part_cap)
            return -ENOMEM;
        pl->parts[pl->part_count++] = (struct part){
            .block = block, .address = address, .count = 1, .first_sum = pl->sum_count};
    }
    pl->sums[pl->sum_count++] = sum;
    return 0;
}

// One block from below the pieces: from the cache when it waits there for a checkpoint, else
// planned.
static int plan_stored(struct store *s, struct plan *pl, uint64_t block, uint64_t address,
                       uint64_t sum)
{
    struct block *b = cache_lookup(&s->cache, address);

    if (b && b->kind == BLOCK_DATA &&
        (cache_state(&s->cache, b) != BLOCK_CLEAN || b->checksum == sum)) {
        memcpy(pl->bytes + (block - pl->first) * BLOCK_BYTES, b->bytes, BLOCK_BYTES);
        return 0;
    }
    return plan_part(pl, block, address, sum);
}

// The tree's blocks of `content` in [from, to].
static int plan_content(struct store *s, struct fault *f, struct plan *pl, uint64_t content,
                        uint64_t from, uint64_t to, bool *covered)
{
    struct extent e;
    int err;

    for (uint64_t at = from; (err = extent_at(s, f, content, at, to, &e)) == 0;) {
        uint64_t end = AF_MIN(e.block + e.count, to + 1);

        for (uint64_t b = AF_MAX(e.block, at); b < end; b++) {
            if (covered[b - pl->first])
                continue;
            covered[b - pl->first] = true;
            err = plan_stored(s, pl, b, e.address + (b - e.block),
                              le64_get(e.checksums[b - e.block]));
            if (err < 0)
                return err;
        }
        if (end > to)
            return 0;
        at = end;
    }
    return err == -ENOENT ? 0 : err;
}

static int plan_pieces(const struct pending *p, struct plan *pl, bool *covered)
{
    for (size_t i = pending_search(p, pl->first);
         i < p->piece_count && p->pieces[i].block <= pl->last; i++) {
        const struct pend_piece *piece = &p->pieces[i];
        uint64_t from = AF_MAX(piece->block, pl->first),
                 to = AF_MIN(piece->block + piece->count - 1, pl->last);

        for (uint64_t b = from; b <= to; b++) {
            covered[b - pl->first] = true;
            if (piece->type == PEND_HOLE) {
                memset(pl->bytes + (b - pl->first) * BLOCK_BYTES, 0, BLOCK_BYTES);
            } else if (piece->type == PEND_MEM) {
                memcpy(pl->bytes + (b - pl->first) * BLOCK_BYTES, piece->bytes, BLOCK_BYTES);
            } else if (piece->type == PEND_EXTENT) {
                int err = plan_part(pl, b, piece->address + (b - piece->block),
                                    le64_get(piece->checksums[b - piece->block]));
                if (err < 0)
                    return err;
            }
        }
    }
    return 0;
}

static int plan_locked(struct store *s, struct fault *f, uint64_t ino, struct plan *pl,
                       bool *covered)
{
    struct oinode *oi;
    struct inode in;
    const void *bytes;
    size_t len, blocks = (size_t)(pl->last - pl->first + 1);
    int err = inode_current(s, f, ino, &in, &oi);
    const struct pending *p = oi ? oi->p : NULL;

    if (err == 0 && S_ISDIR(in.mode))
        err = -EISDIR;
    if (err < 0)
        return err;
    pl->size = in.size;
    pl->part_count = pl->sum_count = 0;
    memset(covered, 0, blocks);
    if (p && p->content)
        err = plan_pieces(p, pl, covered);
    if (err == 0 && p && p->staged_id)
        err = plan_content(s, f, pl, p->staged_id, pl->first, pl->last, covered);
    if (err < 0 || (p && p->is_new))
        return err;
    if (!(p && p->content) && pl->first == 0) {
        err = inline_get(s, f, in.content_id, &bytes, &len);
        if (err == 0) {
            len = AF_MIN(len, (size_t)BLOCK_BYTES);
            memcpy(pl->bytes, bytes, len);
            memset(pl->bytes + len, 0, BLOCK_BYTES - len);
            covered[0] = true;
            return 0;
        }
        if (err != -ENOENT)
            return err;
    }
    uint64_t last = p && p->content && p->keep_blocks <= pl->last ? p->keep_blocks : pl->last + 1;

    if (last <= pl->first)
        return 0;
    return plan_content(s, f, pl, in.content_id, pl->first, last - 1, covered);
}

// Reads the parts and checks every block; *ret_bad: the first one that failed.
static int read_parts(struct store *s, const struct plan *pl, struct store_damage *ret_bad)
{
    *ret_bad = (struct store_damage){.bytes = BLOCK_BYTES};

    for (size_t i = 0; i < pl->part_count; i++) {
        const struct part *p = &pl->parts[i];
        uint8_t *to = pl->bytes + (p->block - pl->first) * BLOCK_BYTES;
        int err = io_pread(s->config.data, to, p->count * BLOCK_BYTES, p->address * BLOCK_BYTES);

        ret_bad->off = p->block * BLOCK_BYTES;
        ret_bad->address = p->address;
        if (err < 0) {
            ret_bad->bytes = p->count * BLOCK_BYTES;
            return err;
        }
        for (uint64_t b = 0; b < p->count; b++) {
            ret_bad->off = (p->block + b) * BLOCK_BYTES;
            ret_bad->address = p->address + b;
            ret_bad->expected = pl->sums[p->first_sum + b];
            ret_bad->found = checksum(CSUM_DATA, 0, to + b * BLOCK_BYTES, BLOCK_BYTES);
            if (ret_bad->found != ret_bad->expected)
                return -AF_E_DATA_CHECKSUM;
        }
    }
    return 0;
}

static bool plan_same(const struct plan *a, const struct plan *b)
{
    return a->part_count == b->part_count && a->sum_count == b->sum_count &&
           memcmp(a->parts, b->parts, a->part_count * sizeof(a->parts[0])) == 0 &&
           memcmp(a->sums, b->sums, a->sum_count * sizeof(a->sums[0])) == 0;
}

static int plan_run(struct store *s, enum store_how how, uint64_t ino, struct plan *pl,
                    bool *covered)
{
    struct fault f;
    uint64_t number;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = view_enter(s, &f, ino, &number);
        if (err == 0)
            err = plan_locked(s, &f, number, pl, covered);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

// `bytes`: the caller's, used as they are when the range is one of whole blocks.
static int plan_init(const struct store *s, struct plan *pl, uint64_t off, size_t size,
                     uint8_t *bytes)
{
    size_t blocks;

    *pl = (struct plan){.first = off / BLOCK_BYTES, .last = (off + size - 1) / BLOCK_BYTES};
    blocks = (size_t)(pl->last - pl->first + 1);
    pl->part_cap = blocks;
    pl->parts = calloc(blocks, sizeof(pl->parts[0]));
    pl->sums = calloc(blocks, sizeof(pl->sums[0]));
    pl->borrowed = !s->no_read_in_place && off % BLOCK_BYTES == 0 && size % BLOCK_BYTES == 0;
    pl->bytes = pl->borrowed ? bytes : malloc(blocks * BLOCK_BYTES);
    return pl->parts && pl->sums && pl->bytes ? 0 : -ENOMEM;
}

static void plan_free(struct plan *pl)
{
    free(pl->parts);
    free(pl->sums);
    if (!pl->borrowed)
        free(pl->bytes);
}

// Plans and reads; when a block fails and the map has changed meanwhile, again.
static int read_checked(struct store *s, enum store_how how, uint64_t ino, struct plan *pl,
                        bool *covered)
{
    struct plan before = {0};
    struct store_damage bad;
    int failed = 0, err;

    for (;;) {
        err = plan_run(s, how, ino, pl, covered);
        if (err < 0 || pl->part_count == 0)
            break;
        if (how == STORE_NONBLOCK) {
            err = -AF_E_WOULD_BLOCK;
            break;
        }
        if (failed < 0 && plan_same(&before, pl)) {
            bad.code = failed;
            bad.ino = ino;
            store_lock(s);
            store_damage_note(s, &bad, NULL);
            store_unlock(s);
            err = failed;
            break;
        }
        failed = read_parts(s, pl, &bad);
        if (failed == 0)
            break;
        plan_free(&before);
        before = *pl;
        before.bytes = NULL;
        before.parts = calloc(pl->part_cap, sizeof(before.parts[0]));
        before.sums = calloc(pl->part_cap, sizeof(before.sums[0]));
        if (!before.parts || !before.sums) {
            err = -ENOMEM;
            break;
        }
        memcpy(before.parts, pl->parts, pl->part_count * sizeof(before.parts[0]));
        memcpy(before.sums, pl->sums, pl->sum_count * sizeof(before.sums[0]));
    }
    plan_free(&before);
    return err;
}

int store_read(struct store *s, enum store_how how, uint64_t ino, uint64_t off, void *bytes,
               size_t size, size_t *ret_size)
{
    struct plan pl;
    bool *covered;
    int err;

    *ret_size = 0;
    if (size == 0 || off >= FILE_BYTES_MAX)
        return 0;
    size = AF_MIN(size, FILE_BYTES_MAX - off);
    err = plan_init(s, &pl, off, size, bytes);
    covered = calloc(pl.part_cap, sizeof(covered[0]));
    if (err == 0 && !covered)
        err = -ENOMEM;
    if (err == 0)
        err = read_checked(s, how, ino, &pl, covered);
    if (err == 0 && off < pl.size) {
        *ret_size = AF_MIN(size, pl.size - off);
        for (size_t b = 0; b < pl.part_cap; b++)
            if (!covered[b]) // a hole
                memset(pl.bytes + b * BLOCK_BYTES, 0, BLOCK_BYTES);
        if (!pl.borrowed)
            memcpy(bytes, pl.bytes + off % BLOCK_BYTES, *ret_size);
    }
    plan_free(&pl);
    free(covered);
    return err;
}

// ---- SEEK_DATA, SEEK_HOLE ----

#define SEEK_STEPS 256u // under one hold of the lock

// What lies at *block below the pieces, up to `end` at most: data or a hole, and where it ends.
static int stored_run(struct store *s, struct fault *f, const struct inode *in,
                      const struct pending *p, uint64_t block, uint64_t end, bool *ret_data,
                      uint64_t *ret_end)
{
    uint64_t base_end = p ? (p->is_new ? 0 : AF_MIN(end, p->keep_blocks)) : end;
    struct extent e;
    int err;

    *ret_data = false;
    *ret_end = end;
    if (p && p->staged_id) {
        err = extent_at(s, f, p->staged_id, block, end - 1, &e);
        if (err < 0 && err != -ENOENT)
            return err;
        if (err == 0 && e.block <= block) {
            *ret_data = true;
            *ret_end = AF_MIN(end, e.block + e.count);
            return 0;
        }
        if (err == 0)
            *ret_end = e.block;
    }
    if (block >= base_end)
        return 0;
    err = extent_at(s, f, in->content_id, block, base_end - 1, &e);
    if (err < 0)
        return err == -ENOENT ? 0 : err;
    *ret_data = e.block <= block;
    *ret_end = AF_MIN(*ret_end, *ret_data ? AF_MIN(base_end, e.block + e.count) : e.block);
    return 0;
}

// Moves *block to the first one at or after it with data (want_data) or without, as readers see it,
// or to `end`. 1: there; 0: not yet.
static int seek_blocks(struct store *s, struct fault *f, const struct inode *in,
                       const struct pending *p, uint64_t *block, uint64_t end, bool want_data)
{
    for (unsigned step = 0; step < SEEK_STEPS && *block < end; step++) {
        size_t i = p ? pending_search(p, *block) : 0;
        bool piece = p && i < p->piece_count;
        uint64_t next;
        bool data;

        if (piece && p->pieces[i].block <= *block) {
            data = p->pieces[i].type != PEND_HOLE;
            next = p->pieces[i].block + p->pieces[i].count;
        } else {
            int err = stored_run(s, f, in, p, *block, piece ? AF_MIN(end, p->pieces[i].block) : end,
                                 &data, &next);

            if (err < 0)
                return err;
        }
        if (data == want_data)
            return 1;
        *block = AF_MIN(next, end);
    }
    return *block < end ? 0 : 1;
}

// One batch. *block is where the search has come to, kept from batch to batch.
static int seek_locked(struct store *s, struct fault *f, uint64_t ino, uint64_t off, int whence,
                       uint64_t *block, uint64_t *ret_off)
{
    struct oinode *oi;
    struct inode in;
    const void *bytes;
    size_t len;
    int err = inode_current(s, f, ino, &in, &oi);
    const struct pending *p = oi && oi->p && (oi->p->content || oi->p->is_new) ? oi->p : NULL;

    if (err < 0)
        return err;
    if (off >= in.size)
        return -ENXIO;
    if (!p) {
        err = inline_get(s, f, in.content_id, &bytes, &len);
        if (err == 0)
            *ret_off = whence == SEEK_DATA ? off : in.size;
        if (err != -ENOENT)
            return err == 0 ? 1 : err;
    }
    err = seek_blocks(s, f, &in, p, block, BLOCKS_OF(in.size), whence == SEEK_DATA);
    if (err <= 0)
        return err;
    *ret_off = AF_MIN(AF_MAX(off, *block * BLOCK_BYTES), in.size);
    return whence == SEEK_DATA && *block * BLOCK_BYTES >= in.size ? -ENXIO : 1;
}

int store_seek(struct store *s, enum store_how how, uint64_t ino, uint64_t off, int whence,
               uint64_t *ret_off)
{
    uint64_t block = off / BLOCK_BYTES, number;
    struct fault f;
    int err;

    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    do { // in batches, so that a long search does not hold up the others
        fault_begin(&f);
        do {
            store_lock(s);
            err = view_enter(s, &f, ino, &number);
            if (err == 0)
                err = seek_locked(s, &f, number, off, whence, &block, ret_off);
            store_unlock(s);
        } while (fault_resolve(s, &f, how, &err));
    } while (err == 0);
    return err < 0 ? err : 0;
}
