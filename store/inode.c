// SPDX-License-Identifier: MIT
// Inodes: their item in the tree, as a reader sees them (pending attributes over the tree's), and
// the table of those that are open or have pending content.

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/err.h"
#include "store/store_internal.h"

static struct time_disk time_encode(const struct timespec *t)
{
    return (struct time_disk){.sec = le64_put((uint64_t)t->tv_sec),
                              .nsec = le32_put((uint32_t)t->tv_nsec)};
}

static bool time_decode(const struct time_disk *d, struct timespec *ret)
{
    ret->tv_sec = (time_t)le64_get(d->sec);
    ret->tv_nsec = le32_get(d->nsec);
    return ret->tv_nsec < 1000000000;
}

void inode_encode(const struct inode *in, struct inode_disk *d)
{
    memset(d, 0, sizeof(*d));
    d->mode = le32_put(in->mode);
    d->nlink = le32_put(in->nlink);
    d->uid = le32_put(in->uid);
    d->gid = le32_put(in->gid);
    d->rdev = le64_put(in->rdev);
    d->size = le64_put(in->size);
    d->blocks = le64_put(in->blocks);
    d->atime = time_encode(&in->atime);
    d->mtime = time_encode(&in->mtime);
    d->ctime = time_encode(&in->ctime);
    d->btime = time_encode(&in->btime);
    d->content_id = le64_put(in->content_id);
    d->parent = le64_put(in->parent);
    d->content_lsn = le64_put(in->content_lsn);
    d->attr_lsn = le64_put(in->attr_lsn);
    d->listing_lsn = le64_put(in->listing_lsn);
}

static bool type_known(uint32_t mode)
{
    return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
           S_ISFIFO(mode) || S_ISSOCK(mode);
}

int inode_decode(const void *bytes, size_t len, struct inode *ret)
{
    struct inode_disk d;
    struct inode in;

    if (len != sizeof(d))
        return -AF_E_ITEM;
    memcpy(&d, bytes, sizeof(d));
    in = (struct inode){
        .mode = le32_get(d.mode),
        .nlink = le32_get(d.nlink),
        .uid = le32_get(d.uid),
        .gid = le32_get(d.gid),
        .rdev = le64_get(d.rdev),
        .size = le64_get(d.size),
        .blocks = le64_get(d.blocks),
        .content_id = le64_get(d.content_id),
        .parent = le64_get(d.parent),
        .content_lsn = le64_get(d.content_lsn),
        .attr_lsn = le64_get(d.attr_lsn),
        .listing_lsn = le64_get(d.listing_lsn),
    };
    if (!time_decode(&d.atime, &in.atime) || !time_decode(&d.mtime, &in.mtime) ||
        !time_decode(&d.ctime, &in.ctime) || !time_decode(&d.btime, &in.btime))
        return -AF_E_ITEM;
    if (!type_known(in.mode) || (in.mode & ~(uint32_t)(S_IFMT | 07777)) ||
        in.size > FILE_BYTES_MAX || in.content_id == 0 || in.content_id > INO_MAX ||
        in.parent > INO_MAX || S_ISDIR(in.mode) != (in.parent != 0) || le32_get(d.flags) != 0 ||
        le32_get(d.reserved0) != 0 || le64_get(d.reserved1) != 0)
        return -AF_E_ITEM;
    *ret = in;
    return 0;
}

int inode_get(struct store *s, struct fault *f, uint64_t ino, struct inode *ret)
{
    const void *value;
    size_t len;
    int err = tree_get(&s->tree, store_root(s, f), f, key_make(ino, KIND_INODE, 0), &value, &len);

    if (err == 0) {
        err = inode_decode(value, len, ret);
        if (err < 0)
            store_note_item(s, err, ino);
    }
    return err;
}

void inode_put(struct store *s, uint64_t ino, const struct inode *in)
{
    struct inode_disk d;

    inode_encode(in, &d);
    tree_put(&s->tree, key_make(ino, KIND_INODE, 0), &d, sizeof(d));
}

static bool later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

// A new file has changed its directory for readers; in the tree that comes with its completion.
static void dir_current(struct store *s, uint64_t ino, struct inode *in)
{
    const struct pend_dir *d = pend_dir_find(s, ino);

    if (d && later(&d->changed, &in->mtime))
        in->mtime = d->changed;
    if (d && later(&d->changed, &in->ctime))
        in->ctime = d->changed;
}

int inode_current(struct store *s, struct fault *f, uint64_t ino, struct inode *ret,
                  struct oinode **ret_oi)
{
    struct oinode *oi = f->in_view ? NULL : oinode_find(s, ino);
    struct pending *p = oi ? oi->p : NULL;
    int err = 0;

    *ret_oi = oi;
    if (p && p->is_new)
        *ret = p->fresh;
    else
        err = inode_get(s, f, ino, ret);
    if (err == 0 && S_ISDIR(ret->mode) && !f->in_view)
        dir_current(s, ino, ret);
    if (err < 0 || !p)
        return err;
    if (p->content) {
        ret->size = p->size;
        ret->blocks += p->mem_blocks + p->extent_blocks;
    }
    if (p->times) {
        ret->mtime = p->mtime;
        ret->ctime = p->ctime;
    }
    if (p->atime_set)
        ret->atime = p->atime;
    if (p->kill_suidgid)
        ret->mode &= ~(uint32_t)(S_ISUID | ((ret->mode & S_IXGRP) ? S_ISGID : 0));
    return 0;
}

void inode_to_attr(uint64_t ino, const struct inode *in, struct store_attr *ret)
{
    *ret = (struct store_attr){
        .ino = ino,
        .mode = in->mode,
        .nlink = in->nlink,
        .uid = in->uid,
        .gid = in->gid,
        .rdev = in->rdev,
        .size = in->size,
        .blocks = in->blocks,
        .atime = in->atime,
        .mtime = in->mtime,
        .ctime = in->ctime,
        .btime = in->btime,
    };
    if (S_ISDIR(in->mode)) { // the item counts entries; programs expect a size in bytes
        ret->size = BLOCK_BYTES * (1 + in->size / 64);
        ret->blocks = ret->size / BLOCK_BYTES;
    } else if (S_ISREG(in->mode) && ret->blocks == 0 && in->size > 0 &&
               in->size <= INLINE_BYTES_MAX) {
        ret->blocks = 1; // in line: du should not call it a hole
    }
}

uint64_t ino_new(struct store *s)
{
    return s->next_ino++;
}

void ino_return(struct store *s, uint64_t ino)
{
    if (ino != 0 && s->next_ino == ino + 1)
        s->next_ino = ino;
}

// ---- the table of open inodes ----

static size_t ino_bucket(uint64_t ino, size_t buckets)
{
    return (size_t)((ino * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % buckets;
}

struct oinode *oinode_find(struct store *s, uint64_t ino)
{
    struct oinode *oi = s->oinodes[ino_bucket(ino, OINODE_BUCKETS)];

    while (oi && oi->ino != ino)
        oi = oi->hash_next;
    return oi;
}

struct oinode *oinode_get(struct store *s, uint64_t ino)
{
    struct oinode *oi = oinode_find(s, ino);

    if (oi)
        return oi;
    oi = calloc(1, sizeof(*oi));
    if (!oi)
        return NULL;
    struct oinode **bucket = &s->oinodes[ino_bucket(ino, OINODE_BUCKETS)];

    oi->ino = ino;
    oi->epoch = 1; // a handle that has changed nothing says 0
    list_init(&oi->pending_link);
    oi->hash_next = *bucket;
    *bucket = oi;
    return oi;
}

void oinode_put(struct store *s, struct oinode *oi)
{
    if (oi->opens > 0 || oi->p || oi->orphan)
        return;
    struct oinode **at = &s->oinodes[ino_bucket(oi->ino, OINODE_BUCKETS)];

    while (*at != oi)
        at = &(*at)->hash_next;
    *at = oi->hash_next;
    list_remove(&oi->pending_link);
    free(oi);
}

// ---- names of new files, by directory ----

struct pend_dir *pend_dir_find(struct store *s, uint64_t dir)
{
    struct pend_dir *d = s->pend_dirs[ino_bucket(dir, PEND_DIR_BUCKETS)];

    while (d && d->ino != dir)
        d = d->hash_next;
    return d;
}

static struct pend_dir *pend_dir_get(struct store *s, uint64_t dir)
{
    struct pend_dir *d = pend_dir_find(s, dir);
    struct pend_dir **bucket = &s->pend_dirs[ino_bucket(dir, PEND_DIR_BUCKETS)];

    if (d)
        return d;
    d = calloc(1, sizeof(*d));
    if (d) {
        d->ino = dir;
        d->hash_next = *bucket;
        *bucket = d;
    }
    return d;
}

static void pend_dir_free_if_empty(struct store *s, struct pend_dir *d)
{
    struct pend_dir **at = &s->pend_dirs[ino_bucket(d->ino, PEND_DIR_BUCKETS)];

    if (d->count > 0)
        return;
    while (*at != d)
        at = &(*at)->hash_next;
    *at = d->hash_next;
    free(d->entries);
    free(d->cookies);
    free(d);
}

size_t pend_dir_position(const struct pend_dir *d, uint64_t cookie)
{
    size_t lo = 0, hi = d->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (d->cookies[mid] < cookie)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int pend_dir_add(struct store *s, uint64_t dir, uint64_t cookie, struct oinode *oi)
{
    struct pend_dir *d = pend_dir_get(s, dir);

    if (!d)
        return -ENOMEM;
    if (d->count == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 4;
        struct oinode **entries = realloc(d->entries, cap * sizeof(*entries));

        if (entries)
            d->entries = entries;
        uint64_t *cookies = realloc(d->cookies, cap * sizeof(*cookies));

        if (cookies)
            d->cookies = cookies;
        if (!entries || !cookies) {
            pend_dir_free_if_empty(s, d);
            return -ENOMEM;
        }
        d->cap = cap;
    }
    size_t at = pend_dir_position(d, cookie);

    memmove(&d->entries[at + 1], &d->entries[at], (d->count - at) * sizeof(d->entries[0]));
    memmove(&d->cookies[at + 1], &d->cookies[at], (d->count - at) * sizeof(d->cookies[0]));
    d->entries[at] = oi;
    d->cookies[at] = cookie;
    d->count++;
    d->changed = store_now(s);
    return 0;
}

void pend_dir_remove(struct store *s, uint64_t dir, struct oinode *oi)
{
    struct pend_dir *d = pend_dir_find(s, dir);
    AF_ASSERT(d);
    size_t at = pend_dir_position(d, name_hash(s, oi->p->name, strlen(oi->p->name)) + oi->p->index);

    AF_ASSERT(at < d->count && d->entries[at] == oi);
    d->count--;
    memmove(&d->entries[at], &d->entries[at + 1], (d->count - at) * sizeof(d->entries[0]));
    memmove(&d->cookies[at], &d->cookies[at + 1], (d->count - at) * sizeof(d->cookies[0]));
    pend_dir_free_if_empty(s, d);
}

void pend_dir_unchanged(struct store *s, uint64_t dir)
{
    struct pend_dir *d = pend_dir_find(s, dir);

    if (d)
        d->changed = (struct timespec){0};
}

uint8_t mode_to_type(uint32_t mode)
{
    return (uint8_t)IFTODT(mode);
}
