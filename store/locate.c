// SPDX-License-Identifier: MIT
// Names for what is damaged (damage.h). Two walks over all leaves: the first finds what the damaged
// nodes hold (the range of numbers below them) and which inodes have their content under another
// number; the second looks at every directory entry for one that leads to something affected.

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "store/store_internal.h"
#include "store/walk.h"

#define ALIASES_MAX  1024u
#define PATH_BYTES   4096u
#define DEPTH_MAX    2048u // of directories; a path has at most so many names
#define SCAN_ENTRIES 256u  // under one hold of the lock
#define KIND_LAST    UINT8_MAX

struct alias {
    uint64_t content, ino;
};

struct locate {
    struct store *s;
    const atomic_bool *stop;
    struct damage_entry *entries; // copies, without names; they go to the list at the end
    size_t count;
    struct alias *aliases;
    size_t alias_count;
    struct store_leaf *leaf;
    // The path of the directory that was asked for last: entries of one come together.
    uint64_t dir;
    char path[PATH_BYTES];
};

// ---- what is affected ----

static bool before(const struct damage_entry *e, struct key key)
{
    return !e->last && key_compare(&key, &e->next) >= 0;
}

// Whether the range of a damaged node takes in any key of this number and kind.
static bool holds(const struct damage_entry *e, uint64_t id, uint8_t kind, uint64_t *ret_from,
                  uint64_t *ret_to)
{
    struct key first = key_make(id, kind, 0), last = key_make(id, kind, UINT64_MAX);

    *ret_from = 0;
    *ret_to = UINT64_MAX;
    if (key_compare(&last, &e->low) < 0 || before(e, first))
        return false;
    if (e->low.ino == id && e->low.kind == kind)
        *ret_from = e->low.off;
    if (!e->last && e->next.ino == id && e->next.kind == kind)
        *ret_to = e->next.off;
    return true;
}

// Whether anything of a content can lie in extents from block `from` on: its item may be inline, or
// its file end before that.
static bool has_extents(struct locate *l, uint64_t ino, uint64_t content, uint64_t from)
{
    const void *bytes;
    struct inode in;
    struct fault f;
    size_t len;
    int err, inlined = -ENOENT;

    fault_begin(&f);
    do {
        store_lock(l->s);
        err = inode_get(l->s, &f, ino, &in);
        if (err == 0)
            err = inlined = inline_get(l->s, &f, content, &bytes, &len);
        store_unlock(l->s);
    } while (fault_resolve(l->s, &f, STORE_BLOCK, &err));
    return inlined != 0 && (err != -ENOENT || BLOCKS_OF(in.size) > from);
}

// What of `ino`, whose content stands under `content`, the damage affects. False: nothing. An inode
// that cannot be read takes all that is behind it with it.
static bool affects(struct locate *l, const struct damage_entry *e, uint64_t ino, uint64_t content,
                    uint8_t type, char part[64])
{
    uint64_t from, to;

    part[0] = 0;
    if (e->d.in_snapshot)
        return false;
    if (!e->has_range) {
        if (e->d.ino != ino && e->d.ino != content)
            return false;
        if (e->d.bytes)
            snprintf(part, 64, "bytes %" PRIu64 "-%" PRIu64, e->d.off, e->d.off + e->d.bytes - 1);
        return true;
    }
    if (holds(e, ino, KIND_INODE, &from, &to))
        return true;
    if (type == DT_DIR && holds(e, ino, KIND_DENTRY, &from, &to)) {
        snprintf(part, 64, "some of its entries");
        return true;
    }
    if (type != DT_DIR && holds(e, content, KIND_EXTENT, &from, &to) &&
        has_extents(l, ino, content, from)) {
        // An extent that starts before the range may reach into it.
        if (to == UINT64_MAX)
            snprintf(part, 64, "bytes from %" PRIu64 " on", from * BLOCK_BYTES);
        else
            snprintf(part, 64, "bytes %" PRIu64 "-%" PRIu64, from * BLOCK_BYTES,
                     to * BLOCK_BYTES - 1);
        return true;
    }
    if (holds(e, ino, KIND_XATTR, &from, &to)) {
        snprintf(part, 64, "extended attributes");
        return true;
    }
    return false;
}

// ---- the walks ----

static bool stopped(const struct locate *l)
{
    return l->stop && atomic_load(l->stop);
}

// A node that failed: what hangs below it.
static void note_range(struct locate *l, int err)
{
    const struct tree_way *way = &l->leaf->way;

    for (size_t i = 0; i < l->count; i++) {
        struct damage_entry *e = &l->entries[i];

        if (e->d.address == way->ref[way->level].address && e->d.bytes == 0) {
            e->has_range = true;
            e->low = way->low;
            e->next = way->next;
            e->last = way->last;
            return;
        }
    }
    // Met here for the first time: it is listed, and the walk that this brings about names it.
    store_lock(l->s);
    store_damage_note(
        l->s, &(struct store_damage){.code = err, .address = way->ref[way->level].address}, way);
    store_unlock(l->s);
}

static int walk(struct locate *l, bool first, int (*each)(struct locate *l))
{
    struct key at = key_make(0, 0, 0);

    for (;;) {
        int err = stopped(l) ? -EINTR : store_walk(l->s, l->s->config.data, 0, at, l->leaf);

        if (err == 0)
            err = each(l);
        else if (err_is_corruption(err) || err == -EIO)
            err = first ? (note_range(l, err), 0) : 0;
        if (err < 0)
            return err;
        if (l->leaf->way.last)
            return 0;
        at = l->leaf->way.next;
    }
}

static int note_aliases(struct locate *l)
{
    unsigned count = node_count(l->leaf->bytes);

    for (unsigned i = 0; i < count; i++) {
        struct key key = node_key(l->leaf->bytes, i);
        struct inode in;
        size_t len;
        const void *value = node_value(l->leaf->bytes, i, &len);

        if (key.kind == KIND_INODE && inode_decode(value, len, &in) == 0 &&
            in.content_id != key.ino && l->alias_count < ALIASES_MAX)
            l->aliases[l->alias_count++] = (struct alias){in.content_id, key.ino};
    }
    return 0;
}

// ---- paths ----

// The name under which `ino` stands in `dir`: 0, -ENOENT or an error.
static int name_in(struct locate *l, uint64_t dir, uint64_t ino, char *ret_name)
{
    struct key at = key_make(dir, KIND_DENTRY, 0), last = key_make(dir, KIND_DENTRY, UINT64_MAX);
    int err = 0;

    while (err == 0) {
        struct fault f;

        fault_begin(&f);
        do {
            store_lock(l->s);
            err = 0;
            for (unsigned i = 0; i < SCAN_ENTRIES && err == 0; i++) {
                const void *value;
                const char *name;
                size_t len, name_len;
                uint64_t target;
                uint8_t type;

                err = tree_next(&l->s->tree, &l->s->tree.root, &f, at, last, &at, &value, &len);
                if (err == 0)
                    err = dentry_decode(value, len, &target, &type, &name, &name_len);
                if (err == 0 && target == ino) {
                    memcpy(ret_name, name, name_len);
                    ret_name[name_len] = 0;
                    err = 1;
                }
                if (err == 0 && at.off++ == UINT64_MAX)
                    err = -ENOENT;
            }
            store_unlock(l->s);
        } while (fault_resolve(l->s, &f, STORE_BLOCK, &err));
    }
    return err > 0 ? 0 : err;
}

static int parent_of(struct locate *l, uint64_t dir, uint64_t *ret_parent)
{
    struct inode in;
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(l->s);
        err = inode_get(l->s, &f, dir, &in);
        store_unlock(l->s);
    } while (fault_resolve(l->s, &f, STORE_BLOCK, &err));
    if (err == 0)
        *ret_parent = in.parent;
    return err;
}

// l->path becomes the path of the directory, without a / at its end; from where it cannot be known
// on, it begins with the number.
static void find_path(struct locate *l, uint64_t dir)
{
    char *start = l->path + PATH_BYTES - 1, name[NAME_BYTES_MAX + 1];
    uint64_t at = dir, parent = 0;

    *start = 0;
    for (unsigned depth = 0; at != INO_ROOT; depth++) {
        int err = depth < DEPTH_MAX ? parent_of(l, at, &parent) : -ENAMETOOLONG;

        if (err == 0)
            err = name_in(l, parent, at, name);
        size_t len = err == 0 ? strlen(name) : 0;
        if (err == 0 && (size_t)(start - l->path) < len + 64)
            err = -ENAMETOOLONG;
        if (err < 0) {
            len = (size_t)snprintf(name, sizeof(name), "(inode %" PRIu64 ")", at);
            start -= len;
            memcpy(start, name, len);
            break;
        }
        start -= len;
        memcpy(start, name, len);
        *--start = '/';
        at = parent;
    }
    memmove(l->path, start, strlen(start) + 1);
    l->dir = dir;
}

static int add_name(struct damage_entry *e, const char *dir, const char *name, size_t name_len,
                    const char *part)
{
    struct damage_name **end = &e->names;
    unsigned count = 0;

    for (; *end; end = &(*end)->next)
        count++;
    if (count == DAMAGE_NAMES_MAX) {
        e->more++;
        return 0;
    }
    size_t bytes = strlen(dir) + 1 + name_len + 1;
    struct damage_name *n = calloc(1, sizeof(*n) + bytes);

    if (!n)
        return -ENOMEM;
    snprintf(n->path, bytes, "%s/%.*s", dir, (int)name_len, name);
    snprintf(n->part, sizeof(n->part), "%s", part);
    *end = n;
    return 0;
}

static uint64_t content_of(const struct locate *l, uint64_t ino)
{
    for (size_t i = 0; i < l->alias_count; i++)
        if (l->aliases[i].ino == ino)
            return l->aliases[i].content;
    return ino;
}

// One name, against everything that is damaged. `dir` 0: the root itself.
static int match(struct locate *l, uint64_t dir, uint64_t ino, uint8_t type, const char *name,
                 size_t name_len)
{
    uint64_t content = content_of(l, ino);
    char part[64];
    int err = 0;

    for (size_t i = 0; i < l->count && err == 0; i++) {
        struct damage_entry *e = &l->entries[i];

        if (!affects(l, e, ino, content, type, part))
            continue;
        if (dir != 0 && l->dir != dir)
            find_path(l, dir);
        err = add_name(e, dir ? l->path : "", name, name_len, part);
    }
    return err;
}

static int match_names(struct locate *l)
{
    unsigned count = node_count(l->leaf->bytes);

    for (unsigned i = 0; i < count; i++) {
        struct key key = node_key(l->leaf->bytes, i);
        uint64_t ino;
        uint8_t type;
        const char *name;
        size_t len, name_len;
        const void *value = node_value(l->leaf->bytes, i, &len);

        if (key.kind != KIND_DENTRY || dentry_decode(value, len, &ino, &type, &name, &name_len) < 0)
            continue;
        int err = match(l, key.ino, ino, type, name, name_len);
        if (err < 0)
            return err;
    }
    return 0;
}

// ---- the whole ----

static int begin(struct locate *l)
{
    l->entries = calloc(STORE_DAMAGE_MAX, sizeof(*l->entries));
    l->aliases = calloc(ALIASES_MAX, sizeof(*l->aliases));
    l->leaf = calloc(1, sizeof(*l->leaf));
    if (!l->entries || !l->aliases || !l->leaf)
        return -ENOMEM;
    store_lock(l->s);
    atomic_store(&l->s->damage.unnamed, false);
    l->count = l->s->damage.count;
    for (size_t i = 0; i < l->count; i++) {
        l->entries[i] = *l->s->damage.entries[i];
        l->entries[i].names = NULL;
        l->entries[i].more = 0;
    }
    store_unlock(l->s);
    return 0;
}

static void free_names(struct damage_name *n)
{
    while (n) {
        struct damage_name *next = n->next;

        free(n);
        n = next;
    }
}

// What was found takes the place of what was known; names that were known and are no more stay,
// where a rename or an unlink has been quicker.
static void adopt(struct locate *l)
{
    store_lock(l->s);
    for (size_t i = 0; i < l->count; i++) {
        struct damage_entry *e = l->s->damage.entries[i], *found = &l->entries[i];
        struct damage_name *old = e->names;

        if (found->names) {
            e->names = found->names;
            e->more = found->more;
            found->names = old;
        }
        if (found->has_range && !e->has_range) {
            e->has_range = true;
            e->low = found->low;
            e->next = found->next;
            e->last = found->last;
        }
    }
    store_unlock(l->s);
}

int store_damage_locate(struct store *s, const atomic_bool *stop)
{
    struct locate l = {.s = s, .stop = stop};
    int err = begin(&l);

    if (err == 0)
        err = walk(&l, true, note_aliases);
    if (err == 0)
        err = match(&l, 0, INO_ROOT, DT_DIR, "", 0);
    if (err == 0)
        err = walk(&l, false, match_names);
    if (err == 0)
        adopt(&l);
    else
        atomic_store(&s->damage.unnamed, true);
    for (size_t i = 0; l.entries && i < l.count; i++)
        free_names(l.entries[i].names);
    free(l.entries);
    free(l.aliases);
    free(l.leaf);
    return err;
}
