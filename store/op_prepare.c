// SPDX-License-Identifier: MIT
// First half of an operation: read and check everything that op_apply() will touch, and have memory
// and space ready. Whatever can go wrong (a cold block, a rotten one, no space, a record that does
// not fit the tree) goes wrong here; afterwards nothing does. The same code prepares live
// operations and replayed ones.

#include <dirent.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/err.h"
#include "store/store_internal.h"

// What is to be born, for tree_need().
struct need {
    size_t regions; // puts and deletes at unrelated places
    size_t items;   // further ones beside them
    size_t bytes;   // of values
    size_t data;    // data blocks that enter the cache
};

static int touch(struct store *s, struct fault *f, struct need *n, struct key key, size_t bytes)
{
    n->regions++;
    n->bytes += bytes;
    return tree_touch(&s->tree, f, key);
}

static int touch_inode(struct store *s, struct fault *f, struct need *n, uint64_t ino)
{
    return touch(s, f, n, key_make(ino, KIND_INODE, 0), sizeof(struct inode_disk));
}

// The directory must be one; its item will change.
static int touch_dir(struct store *s, struct fault *f, struct need *n, uint64_t dir)
{
    struct inode in;
    int err = inode_get(s, f, dir, &in);

    if (err < 0)
        return err == -ENOENT ? -AF_E_REPLAY : err;
    if (!S_ISDIR(in.mode))
        return -AF_E_REPLAY;
    return touch_inode(s, f, n, dir);
}

// A name that is to be added: it must not be in the tree, nor its index taken.
static int touch_new_name(struct store *s, struct fault *f, struct need *n, uint64_t dir,
                          const char *name, uint8_t len, uint8_t index)
{
    struct dentry d;
    const void *value;
    size_t value_len;
    struct key key = dentry_key(s, dir, name, len, index);
    int err = dentry_find_tree(s, f, dir, name, len, &d);

    if (err != -ENOENT)
        return err == 0 ? -AF_E_REPLAY : err;
    err = tree_get(&s->tree, &s->tree.root, f, key, &value, &value_len);
    if (err != -ENOENT)
        return err == 0 ? -AF_E_REPLAY : err;
    err = touch_dir(s, f, n, dir);
    if (err < 0)
        return err;
    return touch(s, f, n, key, sizeof(struct dentry_disk) + len);
}

// Reads a range to its end and touches every key in it.
static int touch_range(struct store *s, struct fault *f, struct need *n, struct key first,
                       struct key last)
{
    for (;;) {
        struct key key;
        const void *value;
        size_t len;
        int err = tree_next(&s->tree, &s->tree.root, f, first, last, &key, &value, &len);

        if (err == -ENOENT)
            return 0;
        if (err == 0)
            err = touch(s, f, n, key, 0);
        if (err < 0)
            return err;
        if (key.off == last.off)
            return 0;
        first.off = key.off + 1;
    }
}

// A name that is there and stands for `ino`.
static int touch_old_name(struct store *s, struct fault *f, struct need *n, uint64_t dir,
                          const char *name, uint8_t len, uint64_t ino)
{
    struct dentry d;
    int err = dentry_find_tree(s, f, dir, name, len, &d);

    if (err < 0)
        return err == -ENOENT ? -AF_E_REPLAY : err;
    if (d.ino != ino)
        return -AF_E_REPLAY;
    err = touch_dir(s, f, n, dir);
    if (err < 0)
        return err;
    n->bytes += sizeof(struct dentry_disk) + len;
    return touch_range(s, f, n, dentry_key(s, dir, name, len, 0),
                       dentry_key(s, dir, name, len, DENTRY_INDEX_MAX - 1));
}

static int touch_content(struct store *s, struct fault *f, struct need *n, uint64_t content,
                         uint64_t first, uint64_t last)
{
    return content_touch(s, f, content, first, last, &n->items, &n->bytes);
}

static int touch_all_content(struct store *s, struct fault *f, struct need *n, uint64_t content)
{
    int err = touch(s, f, n, key_make(content, KIND_INLINE, 0), 0);

    n->regions += 2;
    return err < 0 ? err : touch_content(s, f, n, content, 0, NO_BLOCK - 1);
}

// Everything of an inode that goes with it.
static int touch_removal(struct store *s, struct fault *f, struct need *n, uint64_t ino,
                         const struct inode *in, bool content_stays)
{
    int err =
        touch_range(s, f, n, key_make(ino, KIND_XATTR, 0), key_make(ino, KIND_XATTR, UINT64_MAX));

    if (err == 0)
        err = touch_inode(s, f, n, ino);
    if (err < 0 || S_ISDIR(in->mode))
        return err;
    if (content_stays)
        return touch(s, f, n, key_make(0, KIND_ORPHAN, ORPHAN_OFF(ORPHAN_CONTENT, in->content_id)),
                     16);
    return touch_all_content(s, f, n, in->content_id);
}

// A name of a file goes (unlink, rename over it).
static int touch_name_loss(struct store *s, struct fault *f, struct need *n, uint64_t ino,
                           uint8_t flags)
{
    struct inode in;
    int err = inode_get(s, f, ino, &in);

    if (err < 0)
        return err == -ENOENT ? -AF_E_REPLAY : err;
    if (in.nlink == 0)
        return -AF_E_REPLAY;
    if (S_ISDIR(in.mode)) { // rename over an empty directory
        if (in.size != 0)
            return -AF_E_REPLAY;
        return touch_removal(s, f, n, ino, &in, false);
    }
    if (in.nlink > 1)
        return touch_inode(s, f, n, ino);
    if (flags & OP_KEEP_ORPHAN) {
        err = touch(s, f, n, key_make(0, KIND_ORPHAN, ORPHAN_OFF(ORPHAN_INODE, ino)), 16);
        return err < 0 ? err : touch_inode(s, f, n, ino);
    }
    return touch_removal(s, f, n, ino, &in, flags & OP_CONTENT_ORPHAN);
}

static int touch_xattr(struct store *s, struct fault *f, struct need *n, uint64_t ino,
                       const char *name, uint8_t len)
{
    uint64_t hash = name_hash(s, name, len);

    // The whole range of the hash: an old value of the name is replaced, a new one takes a free
    // index.
    n->bytes += ITEM_BYTES_MAX;
    n->data += BLOCKS_OF(XATTR_VALUE_MAX);
    int err = touch_range(s, f, n, key_make(ino, KIND_XATTR, hash),
                          key_make(ino, KIND_XATTR, hash + DENTRY_INDEX_MAX - 1));

    for (unsigned i = 0; err == 0 && i < 2; i++)
        err = touch(s, f, n, key_make(ino, KIND_XATTR, hash + i * (DENTRY_INDEX_MAX - 1)), 0);
    return err;
}

// ---- content of completions ----

static int touch_piece(struct store *s, struct fault *f, struct need *n, uint64_t content,
                       const struct op_piece *p)
{
    int err = touch_content(s, f, n, content, p->block, p->block + p->count - 1);

    if (p->type == PIECE_HOLE)
        return err;
    for (uint64_t at = 0; err == 0 && at < p->count; at += EXTENT_BLOCKS_MAX) {
        err = tree_touch(&s->tree, f, key_make(content, KIND_EXTENT, p->block + at));
        n->items++;
    }
    n->bytes += 8 * p->count + sizeof(struct extent_disk);
    if (p->type == PIECE_DATA)
        n->data += p->count;
    return err;
}

static int touch_pieces(struct store *s, struct fault *f, struct need *n, uint64_t content,
                        const struct op *op)
{
    int err = 0;

    n->regions += 2; // of the whole content: its pieces are neighbours
    if (op->keep_blocks != NO_BLOCK)
        err = touch_content(s, f, n, content, op->keep_blocks, NO_BLOCK - 1);
    for (uint32_t i = 0; err == 0 && i < op->piece_count; i++)
        err = touch_piece(s, f, n, content, &op->pieces[i]);
    return err;
}

static int staged_check(struct store *s, struct fault *f, struct need *n, uint64_t id)
{
    const void *value;
    size_t len;
    struct key key = key_make(0, KIND_ORPHAN, ORPHAN_OFF(ORPHAN_STAGED, id));
    int err = tree_get(&s->tree, &s->tree.root, f, key, &value, &len);

    if (err < 0)
        return err == -ENOENT ? -AF_E_REPLAY : err;
    if (len != sizeof(struct orphan_disk))
        return -AF_E_ITEM;
    return touch(s, f, n, key, sizeof(struct orphan_disk));
}

static int touch_merge(struct store *s, struct fault *f, struct need *n, uint64_t content,
                       uint64_t staged)
{
    struct extent e;
    int err;

    for (uint64_t at = 0; (err = extent_at(s, f, staged, at, NO_BLOCK - 1, &e)) == 0;
         at = e.block + e.count) {
        uint64_t block = e.block, count = e.count;

        n->items += 2;
        n->bytes += 2 * (8 * (size_t)count + sizeof(struct extent_disk));
        err = tree_touch(&s->tree, f, key_make(staged, KIND_EXTENT, block));
        if (err == 0)
            err = content_touch(s, f, content, block, block + count - 1, &n->items, &n->bytes);
        if (err == 0)
            err = tree_touch(&s->tree, f, key_make(content, KIND_EXTENT, block));
        if (err < 0)
            return err;
    }
    n->regions += 4;
    return err == -ENOENT ? 0 : err;
}

static int touch_complete_content(struct store *s, struct fault *f, struct need *n,
                                  const struct op *op, const struct inode *old)
{
    uint64_t content = op->inode.content_id;
    int err;

    if (op->content == CONTENT_KEEP)
        return content == old->content_id ? 0 : -AF_E_REPLAY;
    if (content != old->content_id) { // the old one goes to the orphan list
        err = touch(s, f, n, key_make(0, KIND_ORPHAN, ORPHAN_OFF(ORPHAN_CONTENT, old->content_id)),
                    sizeof(struct orphan_disk));
        if (err < 0)
            return err;
    }
    err = touch(s, f, n, key_make(old->content_id, KIND_INLINE, 0), 0);
    if (op->content == CONTENT_INLINE && err == 0) {
        n->bytes += op->bytes_len;
        return touch_all_content(s, f, n, content);
    }
    if (err == 0 && (op->content == CONTENT_ADOPT || op->content == CONTENT_MERGE))
        err = staged_check(s, f, n, op->staged_id);
    if (err == 0 && op->content == CONTENT_ADOPT && op->staged_id != content)
        return -AF_E_REPLAY;
    if (err == 0 && op->content == CONTENT_MERGE && content != old->content_id)
        return -AF_E_REPLAY;
    if (err == 0 && op->content == CONTENT_MERGE) {
        if (op->keep_blocks != NO_BLOCK)
            err = touch_content(s, f, n, content, op->keep_blocks, NO_BLOCK - 1);
        if (err == 0)
            err = touch_merge(s, f, n, content, op->staged_id);
    }
    return err < 0 ? err : touch_pieces(s, f, n, content, op);
}

static int prepare_complete(struct store *s, struct fault *f, struct need *n, const struct op *op)
{
    struct inode old = op->inode;
    int err = inode_get(s, f, op->ino, &old);

    if (op->flags & OP_NEW) {
        if (err != -ENOENT)
            return err == 0 ? -AF_E_REPLAY : err;
        old.content_id = op->ino;
        err = touch_new_name(s, f, n, op->parent, op->name, op->name_len, op->index);
        for (unsigned i = 0; err == 0 && i < op->xattr_count; i++)
            err = touch_xattr(s, f, n, op->ino, op->xattrs[i].name, op->xattrs[i].name_len);
    } else if (err == -ENOENT) {
        return -AF_E_REPLAY;
    }
    if (err == 0 && !S_ISREG(old.mode))
        return -AF_E_REPLAY;
    if (err == 0)
        err = touch_inode(s, f, n, op->ino);
    return err < 0 ? err : touch_complete_content(s, f, n, op, &old);
}

// ---- the others ----

static int prepare_make(struct store *s, struct fault *f, struct need *n, const struct op *op)
{
    struct inode old;
    int err = inode_get(s, f, op->ino, &old);

    if (err != -ENOENT)
        return err == 0 ? -AF_E_REPLAY : err;
    err = touch_new_name(s, f, n, op->parent, op->name, op->name_len, op->index);
    if (err == 0)
        err = touch_inode(s, f, n, op->ino);
    for (unsigned i = 0; err == 0 && i < op->xattr_count; i++)
        err = touch_xattr(s, f, n, op->ino, op->xattrs[i].name, op->xattrs[i].name_len);
    if (err < 0 || !S_ISLNK(op->inode.mode))
        return err;
    if (op->inode.content_id != op->ino || op->inode.size != op->target_len)
        return -AF_E_REPLAY;
    n->data++;
    err =
        touch(s, f, n, key_make(op->ino, KIND_INLINE, 0), AF_MIN(op->target_len, INLINE_BYTES_MAX));
    return err < 0 ? err : touch(s, f, n, key_make(op->ino, KIND_EXTENT, 0), 24);
}

static int prepare_link(struct store *s, struct fault *f, struct need *n, const struct op *op)
{
    struct inode in;
    int err = inode_get(s, f, op->ino, &in);

    if (err < 0)
        return err == -ENOENT ? -AF_E_REPLAY : err;
    if (S_ISDIR(in.mode) || in.nlink == 0 || in.nlink == UINT32_MAX)
        return -AF_E_REPLAY;
    err = touch_new_name(s, f, n, op->parent, op->name, op->name_len, op->index);
    return err < 0 ? err : touch_inode(s, f, n, op->ino);
}

static int prepare_rmdir(struct store *s, struct fault *f, struct need *n, const struct op *op)
{
    struct inode in;
    int err = inode_get(s, f, op->ino, &in);

    if (err < 0)
        return err == -ENOENT ? -AF_E_REPLAY : err;
    if (!S_ISDIR(in.mode) || in.size != 0 || op->ino == INO_ROOT)
        return -AF_E_REPLAY;
    err = touch_old_name(s, f, n, op->parent, op->name, op->name_len, op->ino);
    return err < 0 ? err : touch_removal(s, f, n, op->ino, &in, false);
}

static int prepare_rename(struct store *s, struct fault *f, struct need *n, const struct op *op)
{
    struct inode in;
    int err = inode_get(s, f, op->ino, &in);

    if (err == 0)
        err = touch_inode(s, f, n, op->ino);
    if (err < 0)
        return err == -ENOENT ? -AF_E_REPLAY : err;
    err = touch_old_name(s, f, n, op->parent, op->name, op->name_len, op->ino);
    if (err < 0)
        return err;
    if (op->replaced == 0)
        return touch_new_name(s, f, n, op->new_parent, op->new_name, op->new_name_len, op->index);
    if (op->replaced == op->ino)
        return -AF_E_REPLAY;
    err = touch_old_name(s, f, n, op->new_parent, op->new_name, op->new_name_len, op->replaced);
    if (err < 0)
        return err;
    if (op->flags & OP_EXCHANGE) {
        err = inode_get(s, f, op->replaced, &in);
        if (err < 0)
            return err == -ENOENT ? -AF_E_REPLAY : err;
        return touch_inode(s, f, n, op->replaced);
    }
    return touch_name_loss(s, f, n, op->replaced, op->flags);
}

static int prepare_inode_change(struct store *s, struct fault *f, struct need *n, uint64_t ino)
{
    struct inode in;
    int err = inode_get(s, f, ino, &in);

    if (err < 0)
        return err == -ENOENT ? -AF_E_REPLAY : err;
    return touch_inode(s, f, n, ino);
}

static int prepare_stage(struct store *s, struct fault *f, struct need *n, const struct op *op)
{
    int err = touch(s, f, n, key_make(0, KIND_ORPHAN, ORPHAN_OFF(ORPHAN_STAGED, op->ino)),
                    sizeof(struct orphan_disk));

    return err < 0 ? err : touch_pieces(s, f, n, op->ino, op);
}

static int prepare_reap(struct store *s, struct fault *f, struct need *n, const struct op *op)
{
    uint64_t content = op->ino;
    struct inode in;
    const void *value;
    size_t len;
    struct key key = key_make(0, KIND_ORPHAN, ORPHAN_OFF(op->what, op->ino));
    int err = tree_get(&s->tree, &s->tree.root, f, key, &value, &len);

    if (err == 0)
        err = touch(s, f, n, key, sizeof(struct orphan_disk));
    if (err < 0)
        return err == -ENOENT ? -AF_E_REPLAY : err;
    if (op->what == ORPHAN_INODE) {
        err = inode_get(s, f, op->ino, &in);
        if (err == 0)
            err = touch_inode(s, f, n, op->ino);
        if (err < 0)
            return err == -ENOENT ? -AF_E_REPLAY : err;
        content = in.content_id;
        if (op->from_block == 0)
            return touch_removal(s, f, n, op->ino, &in, false);
    }
    if (op->from_block == 0)
        return touch_all_content(s, f, n, content);
    n->regions += 2;
    return touch_content(s, f, n, content, op->from_block, NO_BLOCK - 1);
}

static int prepare_kind(struct store *s, struct fault *f, struct need *n, const struct op *op)
{
    int err;

    switch (op->kind) {
    case OP_MAKE:
        return prepare_make(s, f, n, op);
    case OP_COMPLETE:
        return prepare_complete(s, f, n, op);
    case OP_LINK:
        return prepare_link(s, f, n, op);
    case OP_UNLINK:
        err = touch_old_name(s, f, n, op->parent, op->name, op->name_len, op->ino);
        return err < 0 ? err : touch_name_loss(s, f, n, op->ino, op->flags);
    case OP_RMDIR:
        return prepare_rmdir(s, f, n, op);
    case OP_RENAME:
        return prepare_rename(s, f, n, op);
    case OP_ATTRIBUTES:
        err = prepare_inode_change(s, f, n, op->ino);
        if (err < 0 || !(op->flags & OP_AND_XATTR))
            return err;
        return touch_xattr(s, f, n, op->ino, op->xattr.name, op->xattr.name_len);
    case OP_SET_XATTR:
        err = prepare_inode_change(s, f, n, op->ino);
        return err < 0 ? err : touch_xattr(s, f, n, op->ino, op->xattr.name, op->xattr.name_len);
    case OP_REMOVE_XATTR:
        err = prepare_inode_change(s, f, n, op->ino);
        return err < 0 ? err : touch_xattr(s, f, n, op->ino, op->name, op->name_len);
    case OP_STAGE:
        return prepare_stage(s, f, n, op);
    case OP_REAP:
        return prepare_reap(s, f, n, op);
    case OP_NUMBERS:
        return 0;
    }
    return -AF_E_REPLAY;
}

// Operations that give space back, and completions of what was admitted at write, may use the
// reserve; attributes of directories too, since the unlink of a new file changes them.
static bool urgent(const struct store *s, const struct op *op)
{
    switch (op->kind) {
    case OP_COMPLETE:
    case OP_UNLINK:
    case OP_RMDIR:
    case OP_REMOVE_XATTR:
    case OP_STAGE:
    case OP_REAP:
    case OP_NUMBERS:
        return true;
    case OP_ATTRIBUTES:
        return s->replaying || S_ISDIR(op->inode.mode);
    case OP_MAKE:
    case OP_LINK:
    case OP_RENAME:
    case OP_SET_XATTR:
        break;
    }
    return s->replaying;
}

int op_prepare(struct store *s, struct fault *f, const struct op *op)
{
    struct need n = {0};
    int err;

    tree_touch_begin(&s->tree);
    err = prepare_kind(s, f, &n, op);

    if (err < 0)
        return err;
    return tree_prepare(&s->tree, f, tree_need(&s->tree, n.regions, n.items, n.bytes), n.data,
                        urgent(s, op));
}
