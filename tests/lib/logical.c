// SPDX-License-Identifier: MIT
// Operations of a log in a canonical form.
#include "tests/lib/logical.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "store/op.h"
#include "store/store_format.h"
#include "tests/lib/rng.h"
#include "wal/wal.h"

static uint64_t bytes_in(uint64_t hash, const void *bytes, size_t len)
{
    return rng_mix(hash, len ? checksum(CSUM_NAME, 5, bytes, len) : 0);
}

// Block by block: a hole, or what its bytes sum up to.
static uint64_t piece_in(uint64_t hash, const struct op_piece *p)
{
    for (uint64_t i = 0; i < p->count; i++) {
        uint64_t sum = p->type == PIECE_HOLE ? 0
                       : p->type == PIECE_EXTENT
                           ? op_le64(p->checksums, i)
                           : checksum(CSUM_DATA, 0, p->data + i * BLOCK_BYTES, BLOCK_BYTES);

        hash = rng_mix(rng_mix(hash, p->block + i), sum);
    }
    return hash;
}

static uint64_t time_in(uint64_t hash, struct timespec t)
{
    return rng_mix(rng_mix(hash, (uint64_t)t.tv_sec), (uint64_t)t.tv_nsec);
}

static uint64_t inode_in(uint64_t hash, const struct inode *in)
{
    const uint64_t numbers[] = {in->mode, in->nlink,      in->uid,    in->gid,
                                in->rdev, in->content_id, in->parent, in->size};

    for (size_t i = 0; i < AF_ARRAY_LEN(numbers); i++)
        hash = rng_mix(hash, numbers[i]);
    return time_in(time_in(time_in(time_in(hash, in->atime), in->mtime), in->ctime), in->btime);
}

static uint64_t xattr_in(uint64_t hash, const struct op_xattr *x)
{
    return bytes_in(bytes_in(hash, x->name, x->name_len), x->value, x->value_len);
}

static uint64_t op_hash(const struct op *op)
{
    const uint64_t numbers[] = {op->kind,     op->flags,      op->index,       op->next_ino,
                                op->ino,      op->parent,     op->new_parent,  op->replaced,
                                op->what,     op->from_block, op->keep_blocks, op->content,
                                op->staged_id};
    uint64_t hash = time_in(0, op->time);

    for (size_t i = 0; i < AF_ARRAY_LEN(numbers); i++)
        hash = rng_mix(hash, numbers[i]);
    hash = bytes_in(bytes_in(hash, op->name, op->name_len), op->new_name, op->new_name_len);
    hash = bytes_in(bytes_in(hash, op->target, op->target_len), op->bytes, op->bytes_len);
    hash = xattr_in(inode_in(hash, &op->inode), &op->xattr);
    for (unsigned i = 0; i < op->xattr_count; i++)
        hash = xattr_in(hash, &op->xattrs[i]);
    for (uint32_t i = 0; i < op->piece_count; i++)
        hash = piece_in(hash, &op->pieces[i]);
    return hash;
}

static void add(struct logical *log, uint64_t lsn, uint64_t hash)
{
    size_t at = log->count;

    while (at > 0 && log->lsns[at - 1] > lsn)
        at--;
    if (at > 0 && log->lsns[at - 1] == lsn) {
        AF_ASSERT(log->hashes[at - 1] == hash);
        return;
    }
    if (log->count == log->cap) {
        log->cap = log->cap ? 2 * log->cap : 256;
        log->hashes = realloc(log->hashes, log->cap * sizeof(log->hashes[0]));
        log->lsns = realloc(log->lsns, log->cap * sizeof(log->lsns[0]));
        AF_ASSERT(log->hashes && log->lsns);
    }
    memmove(log->hashes + at + 1, log->hashes + at, (log->count - at) * sizeof(log->hashes[0]));
    memmove(log->lsns + at + 1, log->lsns + at, (log->count - at) * sizeof(log->lsns[0]));
    log->hashes[at] = hash;
    log->lsns[at] = lsn;
    log->count++;
}

static int each_record(void *arg, const struct wal_record *record)
{
    struct op op;

    if (record->type != WAL_OPERATION)
        return 0;
    AF_ASSERT(op_decode(record->body, record->body_bytes, &op) == 0);
    add(arg, record->lsn, op_hash(&op));
    op_free(&op);
    return 0;
}

struct collecting {
    struct logical *log;
    struct sim *sim;
};

static void each_path(void *arg, const char *path, bool is_dir)
{
    struct collecting *c = arg;
    struct wal_segment_info info;

    if (is_dir || strncmp(path, "wal/", 4) != 0)
        return;
    AF_ASSERT(wal_read_segment(sim_io(c->sim), path, NULL, &info, each_record, c->log) == 0);
}

void logical_collect(struct logical *log, const struct sim *sim)
{
    struct collecting c = {log, sim_clone(sim)};

    sim_each_path(sim, each_path, &c);
    sim_destroy(c.sim);
}

bool logical_equal(const struct logical *a, const struct logical *b, size_t *ret_at)
{
    size_t at = 0;

    while (at < a->count && at < b->count && a->hashes[at] == b->hashes[at])
        at++;
    *ret_at = at;
    return a->count == b->count && at == a->count;
}

void logical_free(struct logical *log)
{
    free(log->hashes);
    free(log->lsns);
    *log = (struct logical){0};
}
