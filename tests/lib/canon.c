// SPDX-License-Identifier: MIT
// Canonical dumps of a store.
#include "tests/lib/canon.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "tests/lib/filebytes.h"

#define READ_BYTES  (256u << 10)
#define DENSE_BYTES (UINT64_C(4) << 20)  // larger files are read where they have data
#define RUN_BYTES   (UINT64_C(64) << 20) // data without a hole; more of it is in damaged stores only

// ---- lines ----

void canon_free(struct canon *d)
{
    for (size_t i = 0; i < d->count; i++)
        free(d->lines[i]);
    free(d->lines);
    *d = (struct canon){0};
}

uint64_t canon_line_hash(const char *line)
{
    return checksum(CSUM_NAME, 77, line, strlen(line));
}

void canon_add(struct canon *d, const char *line)
{
    if (d->count == d->cap) {
        d->cap = d->cap ? 2 * d->cap : 64;
        d->lines = realloc(d->lines, d->cap * sizeof(d->lines[0]));
        AF_ASSERT(d->lines);
    }
    d->lines[d->count] = strdup(line);
    AF_ASSERT(d->lines[d->count]);
    d->count++;
    d->hash += canon_line_hash(line);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void canon_diff(struct canon *a, const char *a_name, struct canon *b, const char *b_name,
                size_t max, FILE *to)
{
    size_t i = 0, k = 0, shown[2] = {0};

    if (a->count > 0)
        qsort(a->lines, a->count, sizeof(a->lines[0]), compare);
    if (b->count > 0)
        qsort(b->lines, b->count, sizeof(b->lines[0]), compare);
    while (i < a->count || k < b->count) {
        int order = i == a->count ? 1 : k == b->count ? -1 : strcmp(a->lines[i], b->lines[k]);

        if (order == 0) {
            i++;
            k++;
        } else if (order < 0) {
            if (shown[0]++ < max)
                fprintf(to, "  only %s: %s\n", a_name, a->lines[i]);
            i++;
        } else {
            if (shown[1]++ < max)
                fprintf(to, "  only %s: %s\n", b_name, b->lines[k]);
            k++;
        }
    }
}

static int put_time(char *to, size_t size, char name, const struct timespec *t)
{
    return snprintf(to, size, " %c=%lld.%09ld", name, (long long)t->tv_sec, t->tv_nsec);
}

void canon_inode_line(char line[CANON_LINE_BYTES], const struct store_attr *attr, uint64_t parent,
                      uint64_t content, uint64_t xattrs, const char *target)
{
    int n = snprintf(line, CANON_LINE_BYTES, "inode %" PRIu64 " %06o links=%u own=%u:%u", attr->ino,
                     attr->mode, attr->nlink, attr->uid, attr->gid);

    if (S_ISREG(attr->mode))
        n += snprintf(line + n, CANON_LINE_BYTES - (size_t)n, " size=%" PRIu64 " sum=%016" PRIx64,
                      attr->size, content);
    else if (S_ISDIR(attr->mode))
        n += snprintf(line + n, CANON_LINE_BYTES - (size_t)n, " parent=%" PRIu64, parent);
    else if (S_ISLNK(attr->mode))
        n += snprintf(line + n, CANON_LINE_BYTES - (size_t)n, " target=%zu:%016" PRIx64,
                      strlen(target), checksum(CSUM_NAME, 78, target, strlen(target)));
    else
        n += snprintf(line + n, CANON_LINE_BYTES - (size_t)n, " rdev=%" PRIu64, attr->rdev);
    n += snprintf(line + n, CANON_LINE_BYTES - (size_t)n, " xattrs=%016" PRIx64, xattrs);
    n += put_time(line + n, CANON_LINE_BYTES - (size_t)n, 'a', &attr->atime);
    n += put_time(line + n, CANON_LINE_BYTES - (size_t)n, 'm', &attr->mtime);
    n += put_time(line + n, CANON_LINE_BYTES - (size_t)n, 'c', &attr->ctime);
    n += put_time(line + n, CANON_LINE_BYTES - (size_t)n, 'b', &attr->btime);
    AF_ASSERT(n < CANON_LINE_BYTES);
}

void canon_name_line(char line[CANON_LINE_BYTES], uint64_t parent, const char *name, uint64_t ino,
                     uint32_t mode)
{
    int n = snprintf(line, CANON_LINE_BYTES, "name %" PRIu64 "/%s -> %" PRIu64 " %06o", parent,
                     name, ino, mode & S_IFMT);

    AF_ASSERT(n < CANON_LINE_BYTES);
}

uint64_t canon_xattr_sum(const char *name, const void *value, size_t len)
{
    uint64_t h = checksum(CSUM_NAME, 79, name, strlen(name));

    return checksum(CSUM_NAME, h, value, len) + len;
}

// ---- listings ----

struct listed {
    char name[256];
    uint64_t ino;
    uint32_t mode;
};

struct listing {
    struct listed *list;
    size_t count, cap;
};

static int note_entry(void *arg, const char *name, size_t name_len, uint64_t ino, uint32_t mode,
                      const struct store_attr *attr, uint64_t next_cookie)
{
    struct listing *l = arg;

    (void)attr;
    (void)next_cookie;
    if ((name_len == 1 && name[0] == '.') || (name_len == 2 && name[0] == '.' && name[1] == '.'))
        return 0;
    AF_ASSERT(name_len < sizeof(l->list[0].name));
    if (l->count == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 32;
        l->list = realloc(l->list, l->cap * sizeof(l->list[0]));
        AF_ASSERT(l->list);
    }
    struct listed *e = &l->list[l->count++];

    memcpy(e->name, name, name_len);
    e->name[name_len] = 0;
    e->ino = ino;
    e->mode = mode;
    return 0;
}

// ---- the walk ----

struct place {
    uint64_t ino, parent;
};

struct walk {
    const struct canon_visitor *visitor;
    struct store *store;
    char *where;
    struct place *dirs; // still to be listed
    size_t dir_count, dir_cap;
    uint64_t *links; // inodes with several names that were seen
    size_t link_count, link_cap;
};

static int walk_error(struct walk *w, int err, const char *what, uint64_t ino, const char *name)
{
    snprintf(w->where, CANON_WHERE_BYTES, "%s of inode %" PRIu64 "%s%s: %s", what, ino,
             *name ? " / " : "", name, err_name(err));
    return err;
}

static bool seen_before(struct walk *w, const struct store_attr *attr)
{
    if (S_ISDIR(attr->mode) || attr->nlink < 2)
        return false;
    for (size_t i = 0; i < w->link_count; i++)
        if (w->links[i] == attr->ino)
            return true;
    if (w->link_count == w->link_cap) {
        w->link_cap = w->link_cap ? 2 * w->link_cap : 16;
        w->links = realloc(w->links, w->link_cap * sizeof(w->links[0]));
        AF_ASSERT(w->links);
    }
    w->links[w->link_count++] = attr->ino;
    return false;
}

static void push_dir(struct walk *w, uint64_t ino, uint64_t parent)
{
    if (w->dir_count == w->dir_cap) {
        w->dir_cap = w->dir_cap ? 2 * w->dir_cap : 16;
        w->dirs = realloc(w->dirs, w->dir_cap * sizeof(w->dirs[0]));
        AF_ASSERT(w->dirs);
    }
    w->dirs[w->dir_count++] = (struct place){.ino = ino, .parent = parent};
}

static int walk_entry(struct walk *w, uint64_t dir, const struct listed *e)
{
    struct store_attr attr;
    int err = store_lookup(w->store, STORE_BLOCK, dir, e->name, &attr);

    if (err < 0)
        return walk_error(w, err, "lookup", dir, e->name);
    if (attr.ino != e->ino || (attr.mode & S_IFMT) != (e->mode & S_IFMT))
        return walk_error(w, -EUCLEAN, "listing and lookup differ, entry", dir, e->name);
    if (w->visitor->name)
        w->visitor->name(w->visitor->arg, dir, e->name, &attr);
    if (w->visitor->inode && !S_ISDIR(attr.mode) && !seen_before(w, &attr))
        w->visitor->inode(w->visitor->arg, &attr, 0);
    if (S_ISDIR(attr.mode))
        push_dir(w, attr.ino, dir);
    return 0;
}

static int walk_dir(struct walk *w, const struct place *dir)
{
    struct listing l = {0};
    struct store_attr attr;
    int err = store_getattr(w->store, STORE_BLOCK, dir->ino, &attr);

    if (err < 0)
        return walk_error(w, err, "getattr", dir->ino, "");
    if (w->visitor->inode)
        w->visitor->inode(w->visitor->arg, &attr, dir->parent);
    err = store_readdir(w->store, STORE_BLOCK, dir->ino, 0, false, note_entry, &l);
    if (err < 0)
        err = walk_error(w, err, "readdir", dir->ino, "");
    for (size_t i = 0; err == 0 && i < l.count; i++)
        err = walk_entry(w, dir->ino, &l.list[i]);
    free(l.list);
    return err;
}

static int walk_from(struct store *s, uint64_t root, const struct canon_visitor *v,
                     char where[CANON_WHERE_BYTES])
{
    struct walk w = {.visitor = v, .store = s, .where = where};
    int err = 0;

    where[0] = 0;
    push_dir(&w, root, root);
    while (err == 0 && w.dir_count > 0) {
        struct place dir = w.dirs[--w.dir_count];

        err = walk_dir(&w, &dir);
    }
    free(w.dirs);
    free(w.links);
    return err;
}

int canon_walk(struct store *s, const struct canon_visitor *v, char where[CANON_WHERE_BYTES])
{
    return walk_from(s, INO_ROOT, v, where);
}

// ---- the dump of a store ----

struct dumping {
    struct store *store;
    struct canon *dump;
    char *where;
    int error;
};

static int each_range(struct store *s, uint64_t ino, uint64_t from, uint64_t to,
                      canon_bytes_fn each, void *arg)
{
    static uint8_t bytes[READ_BYTES]; // tests that dump do it in one thread
    size_t got;

    if (to > from && to - from > RUN_BYTES)
        return -EFBIG;
    for (uint64_t at = from; at < to; at += READ_BYTES) {
        size_t want = (size_t)AF_MIN(to - at, (uint64_t)READ_BYTES);
        int err = store_read(s, STORE_BLOCK, ino, at, bytes, want, &got);

        if (err < 0)
            return err;
        if (got != want)
            return -ENODATA;
        each(arg, at, bytes, got);
    }
    return 0;
}

int canon_each_bytes(struct store *s, const struct store_attr *attr, canon_bytes_fn each, void *arg)
{
    uint64_t at = 0, end;

    if (attr->size <= DENSE_BYTES)
        return each_range(s, attr->ino, 0, attr->size, each, arg);
    while (at < attr->size) {
        int err = store_seek(s, STORE_BLOCK, attr->ino, at, SEEK_DATA, &at);

        if (err == -ENXIO)
            return 0;
        if (err == 0)
            err = store_seek(s, STORE_BLOCK, attr->ino, at, SEEK_HOLE, &end);
        if (err == 0)
            err = each_range(s, attr->ino, AF_ROUND_DOWN(at, FILEBYTES_BLOCK), end, each, arg);
        if (err < 0)
            return err;
        at = end;
    }
    return 0;
}

static void add_sums(void *arg, uint64_t off, const uint8_t *bytes, size_t len)
{
    uint64_t *sum = arg;

    for (size_t k = 0; k < len; k += FILEBYTES_BLOCK)
        *sum += filebytes_block_sum((off + k) / FILEBYTES_BLOCK, bytes + k,
                                    AF_MIN(len - k, (size_t)FILEBYTES_BLOCK));
}

int canon_each_xattr(struct store *s, uint64_t ino, canon_xattr_fn each, void *arg)
{
    static char names[65536], value[XATTR_VALUE_MAX];
    size_t len, value_len;
    int err = store_listxattr(s, STORE_BLOCK, ino, names, sizeof(names), &len);

    for (size_t at = 0; err == 0 && at < len; at += strlen(names + at) + 1) {
        err = store_getxattr(s, STORE_BLOCK, ino, names + at, value, sizeof(value), &value_len);
        if (err == 0)
            each(arg, names + at, value, value_len);
    }
    return err;
}

static void add_xattr(void *arg, const char *name, const void *value, size_t len)
{
    *(uint64_t *)arg += canon_xattr_sum(name, value, len);
}

static void canon_inode(void *arg, const struct store_attr *attr, uint64_t parent)
{
    struct dumping *d = arg;
    char line[CANON_LINE_BYTES], target[4096] = "";
    uint64_t content = 0, xattrs = 0;
    int err = canon_each_xattr(d->store, attr->ino, add_xattr, &xattrs);

    if (err == 0 && S_ISREG(attr->mode))
        err = canon_each_bytes(d->store, attr, add_sums, &content);
    if (err == 0 && S_ISLNK(attr->mode))
        err = store_readlink(d->store, STORE_BLOCK, attr->ino, target);
    if (err < 0 && d->error == 0) {
        d->error = err;
        snprintf(d->where, CANON_WHERE_BYTES, "reading inode %" PRIu64 ": %s", attr->ino,
                 err_name(err));
    }
    // The same tree in the same lines, whichever view it is seen in.
    struct store_attr number = *attr;

    number.ino &= INO_MAX;
    canon_inode_line(line, &number, parent & INO_MAX, content, xattrs, target);
    canon_add(d->dump, line);
}

static void canon_name(void *arg, uint64_t parent, const char *name, const struct store_attr *attr)
{
    struct dumping *d = arg;
    char line[CANON_LINE_BYTES];

    canon_name_line(line, parent & INO_MAX, name, attr->ino & INO_MAX, attr->mode);
    canon_add(d->dump, line);
}

int canon_store(struct store *s, struct canon *ret, char where[CANON_WHERE_BYTES])
{
    return canon_view(s, INO_ROOT, ret, where);
}

int canon_view(struct store *s, uint64_t root, struct canon *ret, char where[CANON_WHERE_BYTES])
{
    char read_where[CANON_WHERE_BYTES] = "";
    struct dumping d = {.store = s, .dump = ret, .where = read_where};
    struct canon_visitor v = {.inode = canon_inode, .name = canon_name, .arg = &d};
    int err = walk_from(s, root, &v, where);

    if (err == 0 && d.error < 0) {
        memcpy(where, read_where, sizeof(read_where));
        err = d.error;
    }
    return err;
}
