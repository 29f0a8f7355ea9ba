// SPDX-License-Identifier: MIT
// Verification of the items of the tree, as they pass in key order: each on its own, and against
// the others under the same number (docs/FORMAT.md, "Tree" and "Inode").

#include <dirent.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/checksum.h"
#include "base/err.h"
#include "checkpoint/verify_internal.h"

#define COLLISION_MASK    UINT64_C(127)
#define FILE_BLOCKS_MAX   ((uint64_t)FILE_BYTES_MAX / BLOCK_BYTES + 1)
#define SYMLINK_BYTES_MAX 4095u

static uint64_t blocks_of(uint64_t bytes)
{
    return bytes / BLOCK_BYTES + (bytes % BLOCK_BYTES != 0);
}

static void damage(struct verify *v, const char *what)
{
    verify_item_damage(v, -AF_E_ITEM, v->id, "number %" PRIu64 ": %s", v->id, what);
}

static void damage_numbers(struct verify *v, const char *what, uint64_t expected, uint64_t found)
{
    verify_item_damage(v, -AF_E_ITEM, v->id,
                       "number %" PRIu64 ": %s: %" PRIu64 " expected, %" PRIu64 " found", v->id,
                       what, expected, found);
}

static void note_id(struct verify *v, uint64_t id)
{
    v->highest_id = AF_MAX(v->highest_id, id);
}

// ---- inodes ----

static bool times_fit(const struct inode_disk *d)
{
    const struct time_disk *times[] = {&d->atime, &d->mtime, &d->ctime, &d->btime};

    for (size_t i = 0; i < AF_ARRAY_LEN(times); i++)
        if (le32_get(times[i]->nsec) >= 1000000000)
            return false;
    return true;
}

static void count_inode(struct verify_result *r, uint32_t mode)
{
    r->inodes++;
    if (S_ISDIR(mode))
        r->directories++;
    else if (S_ISREG(mode))
        r->files++;
    else if (S_ISLNK(mode))
        r->symlinks++;
    else
        r->others++;
}

static bool mode_known(uint32_t mode)
{
    return (mode & ~(uint32_t)(S_IFMT | 07777)) == 0 &&
           (S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
            S_ISFIFO(mode) || S_ISSOCK(mode));
}

static void check_inode_fields(struct verify *v, const struct inode_disk *d)
{
    const uint32_t mode = le32_get(d->mode);
    const uint64_t cut = v->sb->log.cut_lsn;

    if (!mode_known(mode))
        damage(v, "the mode of the inode is impossible");
    if (!times_fit(d))
        damage(v, "a time of the inode has more than a second of nanoseconds");
    if (le64_get(d->size) > FILE_BYTES_MAX)
        damage(v, "the size of the inode is impossible");
    if (le32_get(d->flags) != 0 || le32_get(d->reserved0) != 0 || le64_get(d->reserved1) != 0)
        damage(v, "reserved bytes of the inode are not zero");
    if (le64_get(d->content_lsn) > cut || le64_get(d->attr_lsn) > cut ||
        le64_get(d->listing_lsn) > cut)
        damage(v, "the inode was changed after the cut of its checkpoint");
    if (le64_get(d->content_id) == 0 || le64_get(d->content_id) > INO_MAX)
        damage(v, "the content id of the inode is impossible");
    if (S_ISDIR(mode) != (le64_get(d->parent) != 0) || le64_get(d->parent) > INO_MAX ||
        (v->id == INO_ROOT && (le64_get(d->parent) != INO_ROOT || !S_ISDIR(mode))))
        damage(v, "the parent of the inode is impossible");
}

static void item_inode(struct verify *v, struct key key, const void *value, size_t len)
{
    struct inode_disk d;

    if (key.off != 0 || len != sizeof(d) || key.ino > INO_MAX) {
        damage(v, "an inode item has a wrong key or length");
        return;
    }
    memcpy(&d, value, sizeof(d));
    check_inode_fields(v, &d);
    count_inode(v->result, le32_get(d.mode));
    note_id(v, key.ino);
    note_id(v, le64_get(d.content_id));
    v->has_inode = true;
    v->inode = (struct inode_note){
        .ino = key.ino,
        .parent = le64_get(d.parent),
        .nlink = le32_get(d.nlink),
        .type = (uint8_t)IFTODT(le32_get(d.mode)),
    };
    v->claim = (struct claim_note){
        .id = le64_get(d.content_id),
        .ino = key.ino,
        .size = le64_get(d.size),
        .blocks = le64_get(d.blocks),
        .type = v->inode.type,
    };
}

// ---- names in general: directory entries and xattrs ----

// The hash is right, and no other item of the same hash has the name.
static void check_name(struct verify *v, struct key key, const uint8_t *name, uint8_t len)
{
    uint64_t hash = checksum(CSUM_NAME, v->sb->image.hash_seed, name, len) >> 1;
    uint64_t base = key.off & ~COLLISION_MASK;

    hash &= ~COLLISION_MASK;
    hash = hash == 0 ? COLLISION_MASK + 1 : hash;
    if (base != hash)
        verify_item_damage(v, -AF_E_ITEM, v->id,
                           "number %" PRIu64 ": the name '%.*s' stands under hash %016" PRIx64
                           ", expected %016" PRIx64,
                           v->id, (int)len, (const char *)name, base, hash);
    if (v->range_kind != key.kind || v->range_base != base || v->range_count > COLLISION_MASK) {
        v->range_kind = key.kind;
        v->range_base = base;
        v->range_count = 0;
    }
    for (unsigned i = 0; i < v->range_count; i++)
        if (v->range_lens[i] == len && memcmp(v->range_names[i], name, len) == 0)
            verify_item_damage(v, -AF_E_ITEM, v->id,
                               "number %" PRIu64 ": the name '%.*s' stands there twice", v->id,
                               (int)len, (const char *)name);
    memcpy(v->range_names[v->range_count], name, len);
    v->range_lens[v->range_count++] = len;
}

static void item_dentry(struct verify *v, struct key key, const void *value, size_t len)
{
    const struct dentry_disk *d = value;
    struct name_note note = {.dir = key.ino};

    v->has_attachments = true;
    v->entries++;
    if (len < sizeof(*d) || d->name_len == 0 || len != sizeof(*d) + d->name_len ||
        le64_get(d->ino) == 0 || le64_get(d->ino) > INO_MAX) {
        damage(v, "a directory entry has an impossible length or number");
        return;
    }
    if (memchr(d->name, 0, d->name_len) || memchr(d->name, '/', d->name_len) ||
        (d->name_len == 1 && d->name[0] == '.') ||
        (d->name_len == 2 && memcmp(d->name, "..", 2) == 0))
        damage(v, "a directory entry has an impossible name");
    check_name(v, key, d->name, d->name_len);
    v->result->names++;
    v->subdirs += d->type == DT_DIR;
    note.target_type = le64_get(d->ino) << 8 | d->type;
    pile_add(v, &v->names, &note);
}

// ---- xattrs ----

// Blocks of a large value: each is a data block of its own.
static void xattr_blocks(struct verify *v, const uint8_t *bytes, uint32_t value_len)
{
    const uint64_t count = blocks_of(value_len);
    le64 birth;

    memcpy(&birth, bytes, sizeof(birth));
    if (le64_get(birth) > v->sb->log.cut_lsn)
        damage(v, "an xattr was born after the cut of its checkpoint");
    for (uint64_t i = 0; i < count && v->fatal == 0; i++) {
        struct xattr_block_disk b;
        uint16_t used = 0;

        memcpy(&b, bytes + sizeof(birth) + i * sizeof(b), sizeof(b));
        if (le64_get(b.checksum) == 0)
            damage(v, "a block of an xattr has no checksum");
        else if (verify_mark(v, v->id, le64_get(b.address), 1))
            used = verify_data(v, v->id, i, le64_get(b.address), 1, &b.checksum);
        if (i + 1 == count && used > value_len - i * BLOCK_BYTES)
            damage(v, "bytes behind the value of an xattr are not zero");
    }
}

static void item_xattr(struct verify *v, struct key key, const void *value, size_t len)
{
    struct xattr_disk d;
    const uint8_t *bytes = (const uint8_t *)value + sizeof(d);

    v->has_attachments = true;
    v->result->xattrs++;
    if (len < sizeof(d)) {
        damage(v, "an xattr item is too short");
        return;
    }
    memcpy(&d, value, sizeof(d));
    const uint32_t value_len = le32_get(d.value_len);
    size_t rest = len - sizeof(d);
    if (d.flags > XATTR_IN_BLOCKS || le16_get(d.reserved) != 0 || d.name_len == 0 ||
        d.name_len > rest || memchr(bytes, 0, d.name_len) || value_len > XATTR_VALUE_MAX) {
        damage(v, "an xattr item has an impossible value");
        return;
    }
    rest -= d.name_len;
    check_name(v, key, bytes, d.name_len);
    if (d.flags == 0) {
        if (value_len > INLINE_BYTES_MAX || rest != value_len)
            damage(v, "an xattr item has a wrong length");
    } else if (value_len <= INLINE_BYTES_MAX ||
               rest != sizeof(le64) + blocks_of(value_len) * sizeof(struct xattr_block_disk)) {
        damage(v, "an xattr item has a wrong length");
    } else {
        xattr_blocks(v, bytes + d.name_len, value_len);
    }
}

// ---- content ----

static void item_inline(struct verify *v, struct key key, size_t len)
{
    note_id(v, key.ino);
    v->content.has_inline = true;
    v->content.inline_len = (uint32_t)len;
    if (key.off != 0 || len == 0 || len > INLINE_BYTES_MAX || key.ino > INO_MAX)
        damage(v, "inline content has an impossible key or length");
}

static void item_extent(struct verify *v, struct key key, const void *value, size_t len)
{
    struct extent_disk d;
    const le64 *checksums = (const le64 *)((const uint8_t *)value + sizeof(d));

    note_id(v, key.ino);
    v->result->extents++;
    if (len < sizeof(d)) {
        damage(v, "an extent item is too short");
        return;
    }
    memcpy(&d, value, sizeof(d));
    const uint32_t count = le32_get(d.count);
    if (count == 0 || count > EXTENT_BLOCKS_MAX || len != sizeof(d) + 8 * (size_t)count ||
        le32_get(d.flags) != 0 || key.off > FILE_BLOCKS_MAX - count || key.ino > INO_MAX) {
        damage(v, "an extent item has an impossible value");
        return;
    }
    if (le64_get(d.birth) > v->sb->log.cut_lsn)
        damage(v, "an extent was born after the cut of its checkpoint");
    if (key.off < v->content.end_block)
        damage_numbers(v, "extents overlap: first block free", v->content.end_block, key.off);
    v->content.end_block = AF_MAX(v->content.end_block, key.off + count);
    v->content.blocks += count;
    v->content.tail_bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        if (le64_get(checksums[i]) == 0)
            damage(v, "a block of an extent has no checksum");
    if (verify_mark(v, v->id, le64_get(d.address), count))
        v->content.tail_bytes =
            verify_data(v, v->id, key.off, le64_get(d.address), count, checksums);
}

static void check_symlink(struct verify *v, const struct claim_note *claim,
                          const struct content_note *content)
{
    bool in_extent = claim->size > INLINE_BYTES_MAX;

    if (claim->size == 0 || claim->size > SYMLINK_BYTES_MAX || in_extent == content->has_inline ||
        content->end_block != (in_extent ? 1 : 0))
        verify_item_damage(v, -AF_E_ITEM, claim->ino,
                           "symlink %" PRIu64 " of %" PRIu64
                           " bytes has its target in a wrong place",
                           claim->ino, claim->size);
}

void verify_content(struct verify *v, const struct claim_note *claim,
                    const struct content_note *content)
{
    const uint64_t ino = claim->ino, tail = claim->size % BLOCK_BYTES;

    if (claim->type != DT_REG && claim->type != DT_LNK) {
        if (content->has_inline || content->blocks > 0)
            verify_item_damage(v, -AF_E_ITEM, ino, "inode %" PRIu64 " is no file and has content",
                               ino);
        return;
    }
    if (content->has_inline && content->blocks > 0)
        verify_item_damage(v, -AF_E_ITEM, ino, "inode %" PRIu64 " has inline content and extents",
                           ino);
    if (content->blocks != claim->blocks)
        verify_item_damage(v, -AF_E_ITEM, ino,
                           "inode %" PRIu64 ": %" PRIu64
                           " blocks expected, its extents have %" PRIu64,
                           ino, claim->blocks, content->blocks);
    if (content->has_inline && content->inline_len != claim->size)
        verify_item_damage(v, -AF_E_ITEM, ino,
                           "inode %" PRIu64 ": size %" PRIu64 ", but %" PRIu32
                           " bytes of inline content",
                           ino, claim->size, content->inline_len);
    if (content->end_block > blocks_of(claim->size))
        verify_item_damage(v, -AF_E_ITEM, ino,
                           "inode %" PRIu64 ": size %" PRIu64
                           ", but an extent reaches to block %" PRIu64,
                           ino, claim->size, content->end_block);
    else if (tail != 0 && content->end_block == blocks_of(claim->size) &&
             content->tail_bytes > tail)
        verify_item_damage(v, -AF_E_ITEM, ino,
                           "inode %" PRIu64 ": bytes behind the size %" PRIu64 " are not zero", ino,
                           claim->size);
    if (claim->type == DT_LNK)
        check_symlink(v, claim, content);
}

// ---- orphans ----

static void item_orphan(struct verify *v, struct key key, const void *value, size_t len)
{
    struct orphan_disk d;
    struct orphan_note note = {.what_id = key.off};

    v->result->orphans++;
    if (key.ino != 0 || len != sizeof(d)) {
        damage(v, "an orphan item has a wrong key or length");
        return;
    }
    memcpy(&d, value, sizeof(d));
    if (d.what < ORPHAN_INODE || d.what > ORPHAN_STAGED || key.off >> 48 != d.what ||
        (key.off & INO_MAX) == 0 || !all_zero(d.reserved, sizeof(d.reserved)) ||
        (d.what == ORPHAN_INODE && le64_get(d.blocks) != 0)) {
        damage(v, "an orphan item has an impossible value");
        return;
    }
    note_id(v, key.off & INO_MAX);
    note.blocks = le64_get(d.blocks);
    pile_add(v, &v->orphans, &note);
}

// ---- everything under one number ----

static void finish_directory(struct verify *v)
{
    if (v->entries != v->claim.size)
        damage_numbers(v, "entries of the directory", v->claim.size, v->entries);
    if (v->inode.nlink != 2 + v->subdirs && v->inode.nlink != 0)
        damage_numbers(v, "links of the directory", 2 + v->subdirs, v->inode.nlink);
}

static void finish_content(struct verify *v)
{
    const struct content_note *c = &v->content;
    bool some = c->has_inline || c->blocks > 0;

    if (v->has_inode && v->claim.id == v->id) {
        verify_content(v, &v->claim, c);
        return;
    }
    if (some)
        pile_add(v, &v->contents, c);
    if (v->has_inode)
        pile_add(v, &v->claims, &v->claim);
}

static void finish_number(struct verify *v)
{
    if (v->has_inode) {
        pile_add(v, &v->inodes, &v->inode);
        if (v->inode.type == DT_DIR)
            finish_directory(v);
        else if (v->entries > 0)
            damage(v, "directory entries below what is no directory");
    } else if (v->has_attachments && v->id != 0) {
        damage(v, "entries or xattrs of an inode that does not exist");
    }
    finish_content(v);
}

static void begin_number(struct verify *v, uint64_t id)
{
    v->id = id;
    v->has_inode = v->has_attachments = false;
    v->content = (struct content_note){.id = id};
    v->claim = (struct claim_note){0};
    v->entries = v->subdirs = 0;
    v->range_kind = 0;
    v->range_count = 0;
}

void verify_item(struct verify *v, struct key key, const void *value, size_t len)
{
    if (v->result->items == 0) {
        begin_number(v, key.ino);
    } else if (key.ino != v->id) {
        finish_number(v);
        begin_number(v, key.ino);
    }
    v->result->items++;
    if (key.ino == 0 && key.kind != KIND_ORPHAN) {
        damage(v, "an item stands under number 0");
        return;
    }
    switch ((enum item_kind)key.kind) {
    case KIND_INODE:
        item_inode(v, key, value, len);
        return;
    case KIND_XATTR:
        item_xattr(v, key, value, len);
        return;
    case KIND_INLINE:
        item_inline(v, key, len);
        return;
    case KIND_EXTENT:
        item_extent(v, key, value, len);
        return;
    case KIND_DENTRY:
        item_dentry(v, key, value, len);
        return;
    case KIND_ORPHAN:
        item_orphan(v, key, value, len);
        return;
    }
    damage(v, "an item of an unknown kind");
}

void verify_items_end(struct verify *v)
{
    if (v->result->items > 0 && v->fatal == 0)
        finish_number(v);
}
