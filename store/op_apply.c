// SPDX-License-Identifier: MIT
// Second half of an operation: the change of the tree, in memory, in one place for live operations
// and for replay. op_prepare() ran under this lock hold, so nothing is missing and nothing can
// fail; what would fail is a broken promise of op_prepare() and is asserted.
//
// T2: replay of a prefix of the log gives the tree that living it gave. So nothing is chosen here:
// numbers, times and addresses of data come from the operation, LSNs from its record.

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "store/store_internal.h"
#include "store/xattr.h"

static struct inode must_get(struct store *s, uint64_t ino)
{
    struct fault f;
    struct inode in;

    fault_begin(&f);
    int err = inode_get(s, &f, ino, &in);

    AF_ASSERT(err == 0);
    return in;
}

// One entry more or less, and a subdirectory more or less.
static void dir_change(struct store *s, const struct op *op, uint64_t dir, int entries, int subdirs,
                       uint64_t lsn)
{
    struct inode in = must_get(s, dir);

    in.size += (uint64_t)(int64_t)entries;
    in.nlink += (uint32_t)subdirs;
    in.mtime = in.ctime = op->time;
    in.listing_lsn = lsn;
    inode_put(s, dir, &in);
}

static bool later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

// An entry that readers have seen for a while: the times are those that they saw.
static void dir_seen(struct store *s, const struct op *op, uint64_t dir, uint64_t lsn)
{
    struct inode in = must_get(s, dir);

    in.size++;
    if (later(&op->time, &in.mtime))
        in.mtime = op->time;
    if (later(&op->time, &in.ctime))
        in.ctime = op->time;
    in.listing_lsn = lsn;
    inode_put(s, dir, &in);
}

static uint8_t index_of(struct store *s, uint64_t dir, const char *name, size_t len)
{
    struct fault f;
    struct dentry d;

    fault_begin(&f);
    int err = dentry_find_tree(s, &f, dir, name, len, &d);

    AF_ASSERT(err == 0);
    return d.index;
}

static void remove_name(struct store *s, uint64_t dir, const char *name, size_t len)
{
    dentry_delete(s, dir, name, len, index_of(s, dir, name, len));
}

// ---- orphans ----

static void orphan_put(struct store *s, enum orphan_what what, uint64_t id, uint64_t blocks)
{
    struct orphan_disk d = {.what = (uint8_t)what, .blocks = le64_put(blocks)};

    tree_put(&s->tree, key_make(0, KIND_ORPHAN, ORPHAN_OFF(what, id)), &d, sizeof(d));
}

static bool orphan_get(struct store *s, enum orphan_what what, uint64_t id, struct orphan_disk *ret)
{
    struct fault f;
    const void *value;
    size_t len;

    fault_begin(&f);
    int err = tree_get(&s->tree, &s->tree.root, &f, key_make(0, KIND_ORPHAN, ORPHAN_OFF(what, id)),
                       &value, &len);

    AF_ASSERT(err == 0 || err == -ENOENT);
    if (err == 0) {
        AF_ASSERT(len == sizeof(*ret));
        memcpy(ret, value, sizeof(*ret));
    }
    return err == 0;
}

static void orphan_delete(struct store *s, enum orphan_what what, uint64_t id)
{
    struct orphan_disk d;

    if (orphan_get(s, what, id, &d))
        tree_delete(&s->tree, key_make(0, KIND_ORPHAN, ORPHAN_OFF(what, id)));
}

static void inline_delete(struct store *s, uint64_t content)
{
    struct fault f;
    const void *value;
    size_t len;

    fault_begin(&f);
    int err = inline_get(s, &f, content, &value, &len);

    AF_ASSERT(err == 0 || err == -ENOENT);
    if (err == 0)
        tree_delete(&s->tree, key_make(content, KIND_INLINE, 0));
}

static void remove_content(struct store *s, uint64_t content)
{
    inline_delete(s, content);
    content_clear(s, content, 0, NO_BLOCK - 1);
}

static void remove_inode(struct store *s, uint64_t ino, const struct inode *in, bool content_stays)
{
    xattr_remove_all(s, ino);
    if (!S_ISDIR(in->mode)) {
        if (content_stays)
            orphan_put(s, ORPHAN_CONTENT, in->content_id, in->blocks);
        else
            remove_content(s, in->content_id);
    }
    tree_delete(&s->tree, key_make(ino, KIND_INODE, 0));
    s->inodes--;
}

// A file loses a name, or an empty directory that is renamed over goes.
static void lose_name(struct store *s, const struct op *op, uint64_t ino, uint64_t lsn)
{
    struct inode in = must_get(s, ino);

    if (S_ISDIR(in.mode)) {
        remove_inode(s, ino, &in, false);
        return;
    }
    in.nlink--;
    in.ctime = op->time;
    in.attr_lsn = lsn;
    if (in.nlink > 0) {
        inode_put(s, ino, &in);
    } else if (op->flags & OP_KEEP_ORPHAN) {
        inode_put(s, ino, &in);
        orphan_put(s, ORPHAN_INODE, ino, 0);
    } else {
        remove_inode(s, ino, &in, op->flags & OP_CONTENT_ORPHAN);
    }
}

// ---- content ----

// A block that rode in the record: into the cache, to be written by the next checkpoint.
uint64_t data_put(struct store *s, uint64_t address, const uint8_t *bytes, size_t len)
{
    struct block *b = cache_new(&s->cache, address, s->tree.generation, BLOCK_DATA, 0);

    memcpy(b->bytes, bytes, len);
    memset(b->bytes + len, 0, BLOCK_BYTES - len);
    b->checksum = checksum(CSUM_DATA, 0, b->bytes, BLOCK_BYTES);
    return b->checksum;
}

static void put_piece(struct store *s, uint64_t content, const struct op_piece *p, uint64_t lsn)
{
    uint64_t sums[EXTENT_BLOCKS_MAX];

    for (uint64_t done = 0; done < p->count;) {
        uint64_t n = AF_MIN(p->count - done, (uint64_t)EXTENT_BLOCKS_MAX);

        for (uint64_t i = 0; i < n; i++) {
            uint64_t at = done + i;

            if (p->type == PIECE_EXTENT)
                sums[i] = op_le64(p->checksums, at);
            else
                sums[i] =
                    data_put(s, p->address + at,
                             p->data ? p->data + at * BLOCK_BYTES : p->blocks[at], BLOCK_BYTES);
        }
        content_put_extent(s, content, p->block + done, p->address + done, lsn, n, sums);
        done += n;
    }
    space_log_alloc(s->space, p->address, p->count);
}

// Lays the pieces over the content; *blocks follows.
static void put_pieces(struct store *s, uint64_t content, const struct op *op, uint64_t lsn,
                       uint64_t *blocks)
{
    if (op->keep_blocks != NO_BLOCK)
        *blocks -= content_clear(s, content, op->keep_blocks, NO_BLOCK - 1);
    for (uint32_t i = 0; i < op->piece_count; i++) {
        const struct op_piece *p = &op->pieces[i];

        *blocks -= content_clear(s, content, p->block, p->block + p->count - 1);
        if (p->type == PIECE_HOLE)
            continue;
        put_piece(s, content, p, lsn);
        *blocks += p->count;
    }
}

// Staged extents move over to the content.
static void merge_staged(struct store *s, uint64_t content, uint64_t staged, uint64_t *blocks)
{
    struct fault f;
    struct extent e;

    fault_begin(&f);
    while (extent_at(s, &f, staged, 0, NO_BLOCK - 1, &e) == 0) {
        struct extent moved = e;
        uint64_t sums[EXTENT_BLOCKS_MAX];

        for (uint32_t i = 0; i < e.count; i++)
            sums[i] = le64_get(e.checksums[i]);
        tree_delete(&s->tree, key_make(staged, KIND_EXTENT, moved.block));
        *blocks -= content_clear(s, content, moved.block, moved.block + moved.count - 1);
        content_put_extent(s, content, moved.block, moved.address, moved.birth, moved.count, sums);
        *blocks += moved.count;
    }
    AF_ASSERT(f.kind == FAULT_NONE);
    orphan_delete(s, ORPHAN_STAGED, staged);
}

static void apply_content(struct store *s, const struct op *op, const struct inode *old,
                          struct inode *in, uint64_t lsn)
{
    struct orphan_disk staged;
    bool exchanged = in->content_id != old->content_id;

    in->blocks = exchanged ? 0 : old->blocks;
    if (op->content == CONTENT_KEEP)
        return;
    inline_delete(s, old->content_id);
    if (exchanged && old->blocks > 0)
        orphan_put(s, ORPHAN_CONTENT, old->content_id, old->blocks);
    switch (op->content) {
    case CONTENT_KEEP:
    case CONTENT_PIECES:
        break;
    case CONTENT_INLINE:
        content_clear(s, in->content_id, 0, NO_BLOCK - 1);
        tree_put(&s->tree, key_make(in->content_id, KIND_INLINE, 0), op->bytes, op->bytes_len);
        in->blocks = 0;
        return;
    case CONTENT_ADOPT:
        AF_ASSERT(orphan_get(s, ORPHAN_STAGED, op->staged_id, &staged));
        in->blocks = le64_get(staged.blocks);
        orphan_delete(s, ORPHAN_STAGED, op->staged_id);
        break;
    case CONTENT_MERGE:
        if (op->keep_blocks != NO_BLOCK)
            in->blocks -= content_clear(s, in->content_id, op->keep_blocks, NO_BLOCK - 1);
        merge_staged(s, in->content_id, op->staged_id, &in->blocks);
        break;
    }
    struct op pieces = *op;

    if (op->content != CONTENT_PIECES)
        pieces.keep_blocks = NO_BLOCK; // done above, before the staged extents were laid over
    put_pieces(s, in->content_id, &pieces, lsn, &in->blocks);
}

static void apply_complete(struct store *s, const struct op *op, uint64_t lsn)
{
    struct inode in = op->inode;
    struct inode old = {.content_id = op->ino};

    if (op->flags & OP_NEW) {
        in.attr_lsn = lsn;
        s->inodes++;
        dentry_put(s, op->parent, op->name, op->name_len, op->index, op->ino, DT_REG);
        if (op->flags & OP_NAME_SEEN)
            dir_seen(s, op, op->parent, lsn);
        else
            dir_change(s, op, op->parent, 1, 0, lsn);
        for (unsigned i = 0; i < op->xattr_count; i++)
            xattr_put(s, op->ino, &op->xattrs[i], lsn);
    } else {
        old = must_get(s, op->ino);
        in.attr_lsn = old.attr_lsn;
        in.nlink = old.nlink;
    }
    in.content_lsn = lsn;
    apply_content(s, op, &old, &in, lsn);
    inode_put(s, op->ino, &in);
}

// ---- names ----

static void apply_make(struct store *s, const struct op *op, uint64_t lsn)
{
    struct inode in = op->inode;
    bool dir = S_ISDIR(in.mode);

    in.content_lsn = in.attr_lsn = in.listing_lsn = lsn;
    if (op->target_len > INLINE_BYTES_MAX) {
        uint64_t sum = data_put(s, op->target_address, op->target, op->target_len);

        content_put_extent(s, in.content_id, 0, op->target_address, lsn, 1, &sum);
        space_log_alloc(s->space, op->target_address, 1);
        in.blocks = 1;
    } else if (op->target_len > 0) {
        tree_put(&s->tree, key_make(in.content_id, KIND_INLINE, 0), op->target, op->target_len);
    }
    for (unsigned i = 0; i < op->xattr_count; i++)
        xattr_put(s, op->ino, &op->xattrs[i], lsn);
    inode_put(s, op->ino, &in);
    s->inodes++;
    dentry_put(s, op->parent, op->name, op->name_len, op->index, op->ino, mode_to_type(in.mode));
    dir_change(s, op, op->parent, 1, dir ? 1 : 0, lsn);
}

static void apply_link(struct store *s, const struct op *op, uint64_t lsn)
{
    struct inode in = must_get(s, op->ino);

    in.nlink++;
    in.ctime = op->time;
    in.attr_lsn = lsn;
    inode_put(s, op->ino, &in);
    dentry_put(s, op->parent, op->name, op->name_len, op->index, op->ino, mode_to_type(in.mode));
    dir_change(s, op, op->parent, 1, 0, lsn);
}

static void apply_unlink(struct store *s, const struct op *op, uint64_t lsn)
{
    remove_name(s, op->parent, op->name, op->name_len);
    dir_change(s, op, op->parent, -1, 0, lsn);
    lose_name(s, op, op->ino, lsn);
}

static void apply_rmdir(struct store *s, const struct op *op, uint64_t lsn)
{
    struct inode in = must_get(s, op->ino);

    remove_name(s, op->parent, op->name, op->name_len);
    dir_change(s, op, op->parent, -1, -1, lsn);
    remove_inode(s, op->ino, &in, false);
}

// The inode has come to lie in `dir` under a name; ctime moves, ".." of a directory too.
static void moved_to(struct store *s, const struct op *op, uint64_t ino, uint64_t dir, uint64_t lsn)
{
    struct inode in = must_get(s, ino);

    if (S_ISDIR(in.mode))
        in.parent = dir;
    in.ctime = op->time;
    in.attr_lsn = lsn;
    inode_put(s, ino, &in);
}

static void apply_exchange(struct store *s, const struct op *op, uint64_t lsn)
{
    struct inode a = must_get(s, op->ino), b = must_get(s, op->replaced);
    int dirs = (S_ISDIR(b.mode) ? 1 : 0) - (S_ISDIR(a.mode) ? 1 : 0); // what the old parent gains

    dentry_put(s, op->parent, op->name, op->name_len,
               index_of(s, op->parent, op->name, op->name_len), op->replaced, mode_to_type(b.mode));
    dentry_put(s, op->new_parent, op->new_name, op->new_name_len,
               index_of(s, op->new_parent, op->new_name, op->new_name_len), op->ino,
               mode_to_type(a.mode));
    dir_change(s, op, op->parent, 0, dirs, lsn);
    dir_change(s, op, op->new_parent, 0, -dirs, lsn);
    moved_to(s, op, op->ino, op->new_parent, lsn);
    moved_to(s, op, op->replaced, op->parent, lsn);
}

static void apply_rename(struct store *s, const struct op *op, uint64_t lsn)
{
    struct inode in = must_get(s, op->ino);
    int dir = S_ISDIR(in.mode) ? 1 : 0;
    uint8_t index = op->index;

    if (op->flags & OP_EXCHANGE) {
        apply_exchange(s, op, lsn);
        return;
    }
    if (op->replaced != 0) {
        struct inode replaced = must_get(s, op->replaced);

        index = index_of(s, op->new_parent, op->new_name, op->new_name_len);
        dir_change(s, op, op->new_parent, -1, S_ISDIR(replaced.mode) ? -1 : 0, lsn);
        lose_name(s, op, op->replaced, lsn);
    }
    remove_name(s, op->parent, op->name, op->name_len);
    dentry_put(s, op->new_parent, op->new_name, op->new_name_len, index, op->ino,
               mode_to_type(in.mode));
    dir_change(s, op, op->parent, -1, -dir, lsn);
    dir_change(s, op, op->new_parent, 1, dir, lsn);
    moved_to(s, op, op->ino, op->new_parent, lsn);
}

// ---- the others ----

static void apply_attributes(struct store *s, const struct op *op, uint64_t lsn)
{
    struct inode in = must_get(s, op->ino);

    in.mode = (in.mode & S_IFMT) | (op->inode.mode & 07777);
    in.uid = op->inode.uid;
    in.gid = op->inode.gid;
    in.atime = op->inode.atime;
    in.mtime = op->inode.mtime;
    in.ctime = op->inode.ctime;
    in.attr_lsn = lsn;
    inode_put(s, op->ino, &in);
    if (op->kind == OP_ATTRIBUTES && (op->flags & OP_AND_XATTR))
        xattr_put(s, op->ino, &op->xattr, lsn);
}

static void touch_ctime(struct store *s, const struct op *op, uint64_t lsn)
{
    struct inode in = must_get(s, op->ino);

    in.ctime = op->time;
    in.attr_lsn = lsn;
    inode_put(s, op->ino, &in);
}

static void apply_stage(struct store *s, const struct op *op, uint64_t lsn)
{
    struct orphan_disk d = {.what = ORPHAN_STAGED};
    uint64_t blocks = 0;

    if (orphan_get(s, ORPHAN_STAGED, op->ino, &d))
        blocks = le64_get(d.blocks);
    put_pieces(s, op->ino, op, lsn, &blocks);
    orphan_put(s, ORPHAN_STAGED, op->ino, blocks);
}

static void apply_reap(struct store *s, const struct op *op)
{
    struct inode in = {0};
    struct orphan_disk d;

    if (op->what == ORPHAN_INODE)
        in = must_get(s, op->ino);
    if (op->from_block > 0) {
        uint64_t content = op->what == ORPHAN_INODE ? in.content_id : op->ino;
        uint64_t freed = content_clear(s, content, op->from_block, NO_BLOCK - 1);

        if (op->what == ORPHAN_INODE) {
            in.blocks -= freed;
            inode_put(s, op->ino, &in);
        } else if (orphan_get(s, (enum orphan_what)op->what, op->ino, &d)) {
            orphan_put(s, (enum orphan_what)op->what, op->ino, le64_get(d.blocks) - freed);
        }
        return;
    }
    if (op->what == ORPHAN_INODE)
        remove_inode(s, op->ino, &in, false);
    else
        remove_content(s, op->ino);
    orphan_delete(s, (enum orphan_what)op->what, op->ino);
}

void op_apply(struct store *s, const struct op *op, uint64_t lsn)
{
    switch (op->kind) {
    case OP_MAKE:
        apply_make(s, op, lsn);
        break;
    case OP_COMPLETE:
        apply_complete(s, op, lsn);
        break;
    case OP_LINK:
        apply_link(s, op, lsn);
        break;
    case OP_UNLINK:
        apply_unlink(s, op, lsn);
        break;
    case OP_RMDIR:
        apply_rmdir(s, op, lsn);
        break;
    case OP_RENAME:
        apply_rename(s, op, lsn);
        break;
    case OP_ATTRIBUTES:
        apply_attributes(s, op, lsn);
        break;
    case OP_SET_XATTR:
        xattr_put(s, op->ino, &op->xattr, lsn);
        if (op->flags & OP_AND_INODE)
            apply_attributes(s, op, lsn);
        else
            touch_ctime(s, op, lsn);
        break;
    case OP_REMOVE_XATTR:
        xattr_delete(s, op->ino, op->name, op->name_len);
        if (op->flags & OP_AND_INODE)
            apply_attributes(s, op, lsn);
        else
            touch_ctime(s, op, lsn);
        break;
    case OP_STAGE:
        apply_stage(s, op, lsn);
        break;
    case OP_REAP:
        apply_reap(s, op);
        break;
    case OP_NUMBERS:
        break;
    }
    s->next_ino = AF_MAX(s->next_ino, op->next_ino);
    s->logged_ino = op->next_ino;
    s->applied_lsn = lsn;
    s->dirty = true;
}
