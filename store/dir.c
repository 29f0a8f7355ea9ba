// SPDX-License-Identifier: MIT
// Listing of directories. The cookie of an entry is its place in the order of name hashes, so it
// means the same for ever: entries that come and go between two calls do not move the others. Names
// of new files are merged in from beside the tree.

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "store/store_internal.h"

#define COOKIE_DOT    1u
#define COOKIE_DOTDOT 2u
#define BATCH         64 // entries looked up under one hold of the lock

struct entry {
    uint64_t cookie, ino;
    uint8_t type;
    uint8_t name_len;
    char name[NAME_BYTES_MAX + 1];
};

// The next entry with a cookie of at least `from`. -ENOENT at the end.
static int next_entry(struct store *s, struct fault *f, uint64_t dir, uint64_t from,
                      struct entry *ret)
{
    struct pend_dir *d = f->in_view ? NULL : pend_dir_find(s, dir);
    size_t at = d ? pend_dir_position(d, from) : 0;
    struct key key;
    const void *value;
    const char *name;
    size_t len, name_len;
    int err = tree_next(&s->tree, store_root(s, f), f, key_make(dir, KIND_DENTRY, from),
                        key_make(dir, KIND_DENTRY, UINT64_MAX), &key, &value, &len);

    if (err < 0 && err != -ENOENT)
        return err;
    if (d && at < d->count && (err == -ENOENT || d->cookies[at] < key.off)) {
        const struct oinode *oi = d->entries[at];

        ret->cookie = d->cookies[at];
        ret->ino = oi->ino;
        ret->type = DT_REG;
        ret->name_len = (uint8_t)strlen(oi->p->name);
        memcpy(ret->name, oi->p->name, ret->name_len + 1u);
        return 0;
    }
    if (err < 0)
        return err;
    err = dentry_decode(value, len, &ret->ino, &ret->type, &name, &name_len);
    if (err < 0) {
        store_note_item(s, err, dir);
        return err;
    }
    ret->cookie = key.off;
    ret->name_len = (uint8_t)name_len;
    memcpy(ret->name, name, name_len);
    ret->name[name_len] = 0;
    return 0;
}

struct listing {
    uint64_t cookie; // where to go on
    bool with_attr;
    store_dirent_fn each;
    void *arg;
    uint64_t view; // its bits of inode numbers
    bool full;
};

static int give(struct store *s, struct fault *f, struct listing *l, const char *name, size_t len,
                uint64_t ino, uint8_t type, uint64_t next)
{
    struct store_attr attr;
    struct oinode *oi;
    struct inode in;
    int err = 0;

    if (l->with_attr) {
        err = inode_current(s, f, ino, &in, &oi);
        if (err == -AF_E_FAULT)
            return err;
        if (err == 0)
            inode_to_attr(l->view | ino, &in, &attr);
        // A rotten inode does not hide its name: the entry is given without attributes.
    }
    if (l->each(l->arg, name, len, l->view | ino, (uint32_t)DTTOIF(type),
                l->with_attr && err == 0 ? &attr : NULL, next))
        l->full = true;
    else
        l->cookie = next;
    return 0;
}

static int readdir_locked(struct store *s, struct fault *f, uint64_t dir, struct listing *l,
                          bool *ret_end)
{
    struct inode in;
    struct entry e;
    int err = inode_get(s, f, dir, &in);

    if (err == 0 && !S_ISDIR(in.mode))
        err = -ENOTDIR;
    if (err == 0 && l->cookie < COOKIE_DOT)
        err = give(s, f, l, ".", 1, dir, DT_DIR, COOKIE_DOT);
    if (err == 0 && !l->full && l->cookie < COOKIE_DOTDOT)
        err = give(s, f, l, "..", 2, in.parent, DT_DIR, COOKIE_DOTDOT);
    for (unsigned i = 0; err == 0 && !l->full && i < BATCH; i++) {
        err = next_entry(s, f, dir, AF_MAX(l->cookie + 1, (uint64_t)COOKIE_DOTDOT + 1), &e);
        if (err == 0)
            err = give(s, f, l, e.name, e.name_len, e.ino, e.type, e.cookie);
    }
    *ret_end = l->full || err == -ENOENT;
    return err == -ENOENT ? 0 : err;
}

int store_readdir(struct store *s, enum store_how how, uint64_t ino, uint64_t cookie,
                  bool with_attr, store_dirent_fn each, void *arg)
{
    struct listing l = {
        .cookie = cookie, .with_attr = with_attr, .each = each, .arg = arg, .view = VIEW_BITS(ino)};
    uint64_t number;
    bool end = false;
    struct fault f;
    int err;

    fault_begin(&f);
    do { // in batches, so that a long listing does not hold up the others
        struct blkref bad = f.bad;
        int bad_error = f.bad_error;
        uint64_t bad_found = f.bad_found;

        fault_begin(&f);
        f.bad = bad; // what was read ahead and failed is not read again
        f.bad_error = bad_error;
        f.bad_found = bad_found;
        do {
            store_lock(s);
            err = view_enter(s, &f, ino, &number);
            if (err == 0)
                err = readdir_locked(s, &f, number, &l, &end);
            store_unlock(s);
        } while (fault_resolve(s, &f, how, &err));
    } while (err == 0 && !end);
    // What was given before a block turned out cold is a good answer by itself; the rest comes with
    // the next call.
    if (err == -AF_E_WOULD_BLOCK && l.cookie != cookie)
        return 0;
    return err;
}
