// SPDX-License-Identifier: MIT
// Open files: open, write, truncate, holes, fsync, close. What is written goes into pending content
// (pending.c); what makes it history is complete().

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/err.h"
#include "store/store_internal.h"

#define WRITE_BYTES_MAX  ((1u << 20) + BLOCK_BYTES)
#define DIRECT_BYTES_MIN 65536u // writes of so much go straight to fresh extents

uint64_t store_file_ino(const struct store_file *file)
{
    return file->oi->ino;
}

static void mark_dirty(struct store_file *file)
{
    if (file->dirty_epoch == file->oi->epoch)
        return;
    file->dirty_epoch = file->oi->epoch;
    file->oi->dirty_handles++;
}

// ---- open ----

static int truncate_locked(struct store *s, struct fault *f, struct oinode *oi, uint64_t size)
{
    struct inode in;
    struct oinode *same;
    int err = inode_current(s, f, oi->ino, &in, &same);

    if (err == 0)
        err = pending_begin(s, oi, &in);
    if (err == 0) {
        f->urgent = size < in.size;
        err = pending_truncate(s, f, oi, &in, size);
    }
    if (err == 0)
        pending_touch(s, oi);
    return err;
}

static int open_locked(struct store *s, struct fault *f, uint64_t ino, struct store_file *file)
{
    bool writes = (file->flags & O_ACCMODE) != O_RDONLY;
    struct inode in;
    struct oinode *oi = NULL;
    uint64_t number;
    int err = view_enter(s, f, ino, &number);

    if (err == 0 && f->in_view && (writes || (file->flags & O_TRUNC)))
        err = -EROFS;
    if (err == 0)
        err = inode_current(s, f, number, &in, &oi);

    if (err == 0 && S_ISDIR(in.mode))
        err = -EISDIR;
    if (err == 0 && !S_ISREG(in.mode))
        err = -EINVAL;
    if (err == 0 && in.nlink == 0 && !oi && !f->in_view)
        err = -ESTALE; // unlinked, closed, and about to be freed
    if (err == 0 && (writes || (file->flags & O_TRUNC)))
        err = store_writable(s);
    if (err < 0)
        return err;
    oi = oinode_get(s, ino);
    if (!oi)
        return -ENOMEM;
    oi->opens++; // keeps it while the truncation is tried
    file->oi = oi;
    file->history = s->history;
    if (file->flags & O_TRUNC) { // of an empty file too: its times move
        err = truncate_locked(s, f, oi, 0);
        if (err == 0)
            mark_dirty(file);
    }
    if (err < 0) {
        oi->opens--;
        if (oi->opens == 0 && oi->p) // begun here, unchanged
            pending_drop(s, oi);
        oinode_put(s, oi);
        return err;
    }
    s->open_files++;
    list_append(&s->files, &file->link);
    return 0;
}

int store_open(struct store *s, enum store_how how, uint64_t ino, int flags,
               struct store_file **ret_file)
{
    struct store_file *file = calloc(1, sizeof(*file));
    struct fault f;
    int err;

    if (!file)
        return -ENOMEM;
    file->flags = flags;
    fault_begin(&f);
    do {
        store_lock(s);
        err = open_locked(s, &f, ino, file);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    if (err < 0)
        free(file);
    else
        *ret_file = file;
    return err;
}

bool store_file_stale(struct store *s, const struct store_file *file)
{
    store_lock(s);
    bool stale = file->history != s->history;

    store_unlock(s);
    return stale;
}

// ---- write ----

// The pending content that a change of `file` goes into.
static int change_begin(struct store *s, struct fault *f, struct store_file *file,
                        struct inode *ret_in)
{
    struct oinode *same;
    int err = store_writable(s);

    if (err == 0 && file->history != s->history)
        err = -ESTALE;
    if (err == 0)
        err = inode_current(s, f, file->oi->ino, ret_in, &same);
    if (err == 0)
        err = pending_begin(s, file->oi, ret_in);
    if (err == 0)
        err = pending_content(s, f, file->oi, ret_in);
    if (err == 0 && !(file->flags & O_APPEND))
        file->oi->p->append_only = false;
    return err;
}

static void change_end(struct store *s, struct store_file *file, uint64_t end, bool kill_suidgid)
{
    struct pending *p = file->oi->p;

    if (end > p->size)
        p->size = end;
    if (kill_suidgid && !p->is_new)
        p->kill_suidgid = true;
    else if (kill_suidgid)
        p->fresh.mode &= ~(uint32_t)(S_ISUID | ((p->fresh.mode & S_IXGRP) ? S_ISGID : 0));
    pending_touch(s, file->oi);
    mark_dirty(file);
}

// Somebody whose content is in memory, the one that has waited longest.
static struct oinode *spill_victim(struct store *s)
{
    list_for_each (at, &s->pending) {
        struct oinode *oi = list_entry(at, struct oinode, pending_link);

        if (oi->p->mem_blocks > 0) {
            list_remove(&oi->pending_link);
            list_append(&s->pending, &oi->pending_link);
            return oi;
        }
    }
    return NULL;
}

// Bounds of memory: an inode with much in memory is written out first; when all together are at the
// bound, the writer's own, or else the oldest.
static int memory_room(struct store *s, struct fault *f, struct oinode *oi, size_t blocks)
{
    const struct pending *p = oi->p;
    struct oinode *victim = NULL;

    if (stage_wanted(s, p) || (p->mem_blocks > 0 && p->mem_blocks + blocks > inode_mem_max(s)))
        victim = oi;
    else if (s->pending_mem_blocks > 0 && s->pending_mem_blocks + blocks > s->pending_mem_max)
        victim = p->mem_blocks > 0 ? oi : spill_victim(s);
    if (!victim)
        return 0;
    f->kind = FAULT_SPILL;
    f->number = victim->ino;
    return -AF_E_FAULT;
}

// Puts whole blocks into memory. All or nothing.
static int write_blocks(struct store *s, struct fault *f, struct pending *p, uint64_t block,
                        const uint8_t *bytes, size_t count)
{
    uint8_t *buffers[WRITE_BYTES_MAX / BLOCK_BYTES];
    size_t made = 0;
    int err;

    AF_ASSERT(count <= AF_ARRAY_LEN(buffers));
    err = space_reserve(s->space, f, count);
    if (err < 0)
        return err;
    while (made < count && (buffers[made] = malloc(BLOCK_BYTES)))
        made++;
    err = made == count ? pending_cut(s, p, block, count, count) : -ENOMEM;
    if (err < 0) {
        while (made > 0)
            free(buffers[--made]);
        space_unreserve(s->space, count);
        return err;
    }
    for (size_t i = 0; i < count; i++) {
        struct pend_piece piece = {.block = block + i,
                                   .count = 1,
                                   .type = PEND_MEM,
                                   .bytes = buffers[i],
                                   .version = ++s->version};

        memcpy(piece.bytes, bytes + i * BLOCK_BYTES, BLOCK_BYTES);
        pending_add(s, p, &piece);
    }
    return 0;
}

struct span { // one write, cut at block boundaries
    uint64_t off;
    const uint8_t *bytes;
    size_t head, whole,
        tail; // bytes of a partial first block, whole blocks (count), a partial last block
    uint64_t head_block, whole_block, tail_block;
};

static struct span span_of(uint64_t off, const uint8_t *bytes, size_t size)
{
    struct span sp = {.off = off, .bytes = bytes};
    size_t in_block = off % BLOCK_BYTES;

    sp.head_block = off / BLOCK_BYTES;
    sp.head = in_block ? AF_MIN(size, BLOCK_BYTES - in_block) : 0;
    sp.whole_block = (off + sp.head) / BLOCK_BYTES;
    sp.whole = (size - sp.head) / BLOCK_BYTES;
    sp.tail_block = sp.whole_block + sp.whole;
    sp.tail = size - sp.head - sp.whole * BLOCK_BYTES;
    return sp;
}

// The partial blocks at both ends, in memory. A partial last block that holds everything up to the
// end of the file needs nothing of its old content but zeros behind.
static int write_edges(struct store *s, struct fault *f, struct store_file *file,
                       const struct inode *in, const struct span *sp)
{
    struct oinode *oi = file->oi;
    struct pend_piece *piece;
    int err;

    if (sp->head > 0) { // both ends first: bringing them in changes nothing that can be seen
        err = pending_block(s, f, oi, in, sp->head_block, false, &piece);
        if (err < 0)
            return err;
    }
    if (sp->tail > 0) {
        err = pending_block(s, f, oi, in, sp->tail_block, false, &piece);
        if (err < 0)
            return err;
        memcpy(piece->bytes, sp->bytes + sp->head + sp->whole * BLOCK_BYTES, sp->tail);
    }
    if (sp->head > 0) {
        err = pending_block(s, f, oi, in, sp->head_block, false,
                            &piece); // the second may have moved the first
        if (err < 0)
            return err;
        memcpy(piece->bytes + sp->off % BLOCK_BYTES, sp->bytes, sp->head);
    }
    return 0;
}

// The partial blocks at both ends come into memory; nothing that can be seen changes.
static int fetch_edges(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in,
                       const struct span *sp)
{
    struct pend_piece *piece;
    int err = 0;

    if (sp->head > 0)
        err = pending_block(s, f, oi, in, sp->head_block, false, &piece);
    if (err == 0 && sp->tail > 0)
        err = pending_block(s, f, oi, in, sp->tail_block, false, &piece);
    return err;
}

static int write_locked(struct store *s, struct fault *f, struct store_file *file, uint64_t off,
                        const uint8_t *bytes, size_t size, bool kill_suidgid)
{
    struct span sp = span_of(off, bytes, size);
    struct inode in;
    int err = change_begin(s, f, file, &in);

    if (err == 0)
        err = memory_room(s, f, file->oi, sp.whole + 2);
    if (err == 0)
        err = fetch_edges(s, f, file->oi, &in, &sp);
    if (err == 0 && sp.whole > 0)
        err = write_blocks(s, f, file->oi->p, sp.whole_block, bytes + sp.head, sp.whole);
    if (err == 0)
        err = write_edges(s, f, file, &in, &sp);
    if (err == 0)
        change_end(s, file, off + size, kill_suidgid);
    return err;
}

// Large writes: whole blocks go to disk without the lock; then they and the edges become pending
// content under one hold of it, so that the write is there whole or not at all.
static int write_direct(struct store *s, struct store_file *file, uint64_t off,
                        const uint8_t *bytes, size_t size, bool kill_suidgid)
{
    struct span sp = span_of(off, bytes, size);
    struct direct *d = direct_begin();
    struct inode in;
    struct fault f;
    int err;

    if (!d)
        return -ENOMEM;
    fault_begin(&f);
    do {
        store_lock(s);
        err = change_begin(s, &f, file, &in);
        if (err == 0)
            err = memory_room(s, &f, file->oi, 2);
        if (err == 0)
            err = fetch_edges(s, &f, file->oi, &in, &sp);
        if (err == 0)
            err = direct_alloc(s, &f, file->oi, sp.whole_block, bytes + sp.head, sp.whole, d);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    if (err == 0)
        err = direct_write(s, d);
    if (err == 0) {
        fault_begin(&f);
        do {
            store_lock(s);
            err = change_begin(s, &f, file,
                               &in); // completed meanwhile? then new pending content begins
            if (err == 0)
                err = fetch_edges(s, &f, file->oi, &in, &sp);
            if (err == 0)
                err = direct_adopt(s, file->oi, d);
            if (err == 0)
                err = write_edges(s, &f, file, &in, &sp);
            if (err == 0)
                change_end(s, file, off + size, kill_suidgid);
            store_unlock(s);
        } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    }
    direct_end(s, d);
    return err;
}

int store_write(struct store *s, enum store_how how, struct store_file *file, uint64_t off,
                const void *bytes, size_t size, bool kill_suidgid)
{
    struct fault f;
    int err;

    if (size == 0)
        return 0;
    if (size > WRITE_BYTES_MAX)
        return -EINVAL;
    if (off > FILE_BYTES_MAX - size)
        return -EFBIG;
    if (size >= DIRECT_BYTES_MIN && !s->no_large_writes)
        return how == STORE_NONBLOCK ? -AF_E_WOULD_BLOCK
                                     : write_direct(s, file, off, bytes, size, kill_suidgid);
    fault_begin(&f);
    do {
        store_lock(s);
        err = write_locked(s, &f, file, off, bytes, size, kill_suidgid);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

// ---- fallocate ----

// Room for `len` bytes at `off` that are not there yet: asked for and let go, since space is
// promised at write.
static int check_room(struct store *s, struct fault *f, uint64_t len)
{
    uint64_t blocks = BLOCKS_OF(len);
    int err = space_reserve(s->space, f, blocks);

    if (err == 0)
        space_unreserve(s->space, blocks);
    return err;
}

static int fallocate_locked(struct store *s, struct fault *f, struct store_file *file, int mode,
                            uint64_t off, uint64_t len)
{
    bool keep_size = mode & FALLOC_FL_KEEP_SIZE;
    struct inode in;
    int err = change_begin(s, f, file, &in);

    if (err < 0)
        return err;
    struct pending *p = file->oi->p;

    if ((mode & FALLOC_FL_PUNCH_HOLE) || (mode & FALLOC_FL_ZERO_RANGE)) {
        uint64_t end = AF_MIN(off + len, AF_ROUND_UP(p->size, BLOCK_BYTES));

        if (off < end)
            err = pending_hole(s, f, file->oi, &in, off, end - off);
    } else {
        err = check_room(s, f, len);
    }
    if (err == 0)
        change_end(s, file, keep_size ? 0 : off + len, false);
    return err;
}

int store_fallocate(struct store *s, enum store_how how, struct store_file *file, int mode,
                    uint64_t off, uint64_t len)
{
    struct fault f;
    int err;

    if (len == 0)
        return -EINVAL;
    if (off > FILE_BYTES_MAX - len)
        return -EFBIG;
    if (mode != 0 && mode != FALLOC_FL_KEEP_SIZE &&
        mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) && mode != FALLOC_FL_ZERO_RANGE &&
        mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
        return -EOPNOTSUPP;
    fault_begin(&f);
    do {
        store_lock(s);
        err = fallocate_locked(s, &f, file, mode, off, len);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

// ---- truncation, from setattr ----

int file_truncate(struct store *s, struct fault *f, uint64_t ino, struct store_file *file,
                  uint64_t size)
{
    struct oinode *oi = oinode_get(s, ino);
    bool alone;
    int err;

    if (!oi)
        return -ENOMEM;
    alone = !file && oi->dirty_handles ==
                         0; // by path on a file that nobody is changing: an operation of its own
    oi->opens++;
    err = truncate_locked(s, f, oi, size);
    if (err == 0 && file)
        mark_dirty(file);
    if (err == 0 && alone)
        err = complete(s, f, oi);
    oi->opens--;
    if (err < 0 && alone && oi->p)
        pending_drop(s, oi);
    if (oi->opens == 0 && oi->p && oi->dirty_handles == 0 && !alone)
        err = complete(s, f, oi);
    oinode_put(s, oi);
    return err;
}

// ---- fsync ----

static int fsync_locked(struct store *s, struct fault *f, uint64_t ino, struct wal_waiter *w)
{
    struct oinode *oi = oinode_find(s, ino);
    int err = s->failed ? -AF_E_LOG_FAILED : 0;

    if (err == 0 && oi && !s->config.read_only)
        err = complete(s, f, oi);
    if (err < 0)
        return err;
    w->lsn = wal_appended_lsn(s->wal);
    return wal_wait_async(s->wal, w);
}

int store_fsync(struct store *s, enum store_how how, uint64_t ino, struct wal_waiter *w)
{
    struct fault f;
    int err;

    if (!s->wal) // opened read-only from a disk that is: nothing can be pending
        return 1;
    fault_begin(&f);
    do {
        store_lock(s);
        err = fsync_locked(s, &f, ino, w);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

int store_sync(struct store *s, struct wal_waiter *w)
{
    int err;

    if (!s->wal)
        return 1;
    store_lock(s);
    err = s->failed ? -AF_E_LOG_FAILED : 0;
    if (err == 0) {
        w->lsn = wal_appended_lsn(s->wal);
        err = wal_wait_async(s->wal, w);
    }
    store_unlock(s);
    return err;
}

void store_kick(struct store *s)
{
    if (s->wal)
        wal_kick(s->wal, false);
}

static int durability_locked(struct store *s, struct fault *f, uint64_t ino, uint64_t *ret_lsn,
                             bool *ret_durable, bool *ret_open)
{
    struct oinode *oi;
    struct inode in;
    int err = inode_current(s, f, ino, &in, &oi);
    bool fresh = err == 0 && oi && oi->p && oi->p->is_new;

    if (err < 0)
        return err;
    *ret_lsn = fresh ? 0 : AF_MAX(AF_MAX(in.content_lsn, in.attr_lsn), in.listing_lsn);
    // What the tree had when the store was opened was made durable by recovery.
    *ret_durable =
        !fresh && (*ret_lsn <= s->checkpoint_lsn || !s->wal || *ret_lsn <= wal_durable_lsn(s->wal));
    *ret_open = fresh || (oi && oi->p && oi->p->content);
    return 0;
}

int store_durability(struct store *s, enum store_how how, uint64_t ino, uint64_t *ret_lsn,
                     bool *ret_durable, bool *ret_open)
{
    struct fault f;
    uint64_t number;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = view_enter(s, &f, ino, &number);
        if (err == 0)
            err = durability_locked(s, &f, number, ret_lsn, ret_durable, ret_open);
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    return err;
}

// ---- close ----

// The content of a closed file could not be completed: it is lost, and that is said.
static void lost_content(struct store *s, struct oinode *oi, int err)
{
    s->errors++;
    message(
        &s->config.sink, MESSAGE_ERROR,
        "inode %llu: what was written and closed could not be made part of the store (%s): %s; it is dropped",
        (unsigned long long)oi->ino, err_name(err), err_text(err));
    pending_drop(s, oi);
}

static void close_handle(struct store *s, struct store_file *file)
{
    struct oinode *oi = file->oi;

    oi->opens--;
    s->open_files--;
    list_remove(&file->link);
    if (oi->opens > 0)
        return;
    if (oi->p) // without a name, or begun by a change that failed: nobody will ask for it
        pending_drop(s, oi);
    if (oi->orphan) {
        oi->orphan = false;
        reap_add(s, oi->ino, ORPHAN_INODE);
    }
    oinode_put(s, oi);
}

// The last handle that changed the content completes it. -AF_E_FAULT: not closed yet; everything
// else: closed.
static int release_locked(struct store *s, struct fault *f, struct store_file *file)
{
    struct oinode *oi = file->oi;
    int err = 0;

    if (file->dirty_epoch == oi->epoch && oi->p) {
        if (oi->dirty_handles == 1)
            err = complete(s, f, oi);
        else
            oi->dirty_handles--;
        if (err == -AF_E_FAULT)
            return err;
        if (err < 0)
            lost_content(s, oi, err);
    }
    close_handle(s, file);
    return err;
}

int store_release(struct store *s, enum store_how how, struct store_file *file)
{
    struct fault f;
    bool closed;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = release_locked(s, &f, file);
        closed = err != -AF_E_FAULT;
        store_unlock(s);
    } while (fault_resolve(s, &f, how, &err));
    if (err == -AF_E_WOULD_BLOCK)
        return err;
    if (!closed) { // what it waited for failed: no space after all, a rotten block, the log
        store_lock(s);
        if (file->oi->p &&
            file->dirty_epoch == file->oi->epoch) { // else somebody has completed it meanwhile
            if (file->oi->dirty_handles == 1)
                lost_content(s, file->oi, err);
            else
                file->oi->dirty_handles--;
        }
        close_handle(s, file);
        store_unlock(s);
    }
    free(file);
    return err;
}
