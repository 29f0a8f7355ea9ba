// SPDX-License-Identifier: MIT
// The model's inodes and names, and its history.
#include "tests/lib/model.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "tests/lib/model_internal.h"

static void *grow(void *array, size_t *cap, size_t count, size_t element_bytes)
{
    if (count < *cap)
        return array;
    *cap = *cap ? 2 * *cap : 8;
    array = realloc(array, *cap * element_bytes);
    AF_ASSERT(array);
    return array;
}

// ---- inodes ----

struct model_inode *model_inode(const struct model *m, uint64_t ino)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->inodes[i]->ino == ino)
            return m->inodes[i];
    return NULL;
}

struct model_inode *model_inode_new(struct model *m, uint64_t ino, const struct store_attr *attr)
{
    struct model_inode *in = calloc(1, sizeof(*in));

    AF_ASSERT(in && !model_inode(m, ino)); // numbers are never given twice
    in->ino = ino;
    in->attr = *attr;
    in->attr.ino = ino;
    in->epoch = 1;
    m->inodes = grow(m->inodes, &m->cap, m->count, sizeof(m->inodes[0]));
    m->inodes[m->count++] = in;
    return in;
}

static void inode_free(struct model_inode *in)
{
    for (size_t i = 0; i < in->xattr_count; i++) {
        free(in->xattrs[i].name);
        free(in->xattrs[i].value);
    }
    for (size_t i = 0; i < in->name_count; i++)
        free(in->names[i].name);
    free(in->xattrs);
    free(in->names);
    free(in->target);
    free(in->line);
    filebytes_free(&in->bytes);
    free(in);
}

void model_inode_drop(struct model *m, struct model_inode *in)
{
    if (in->in_history || in->opens > 0 || (in->p.active && in->p.named))
        return;
    for (size_t i = 0; i < m->count; i++) {
        if (m->inodes[i] == in) {
            m->inodes[i] = m->inodes[--m->count];
            inode_free(in);
            return;
        }
    }
    AF_ASSERT(!"an inode outside of the table");
}

// ---- names ----

struct model_name *model_name_find(struct model_inode *dir, const char *name)
{
    for (size_t i = 0; i < dir->name_count; i++)
        if (strcmp(dir->names[i].name, name) == 0)
            return &dir->names[i];
    return NULL;
}

struct model_inode *model_child(const struct model *m, uint64_t dir, const char *name)
{
    struct model_inode *in = model_inode(m, dir);
    struct model_name *n = in ? model_name_find(in, name) : NULL;

    return n ? n->inode : NULL;
}

void model_name_add(struct model_inode *dir, const char *name, struct model_inode *in)
{
    dir->names = grow(dir->names, &dir->name_cap, dir->name_count, sizeof(dir->names[0]));
    dir->names[dir->name_count] = (struct model_name){.name = strdup(name), .inode = in};
    AF_ASSERT(dir->names[dir->name_count].name);
    dir->name_count++;
}

void model_name_remove(struct model *m, struct model_inode *dir, const char *name)
{
    struct model_name *n = model_name_find(dir, name);

    AF_ASSERT(n);
    model_note_name(m, dir, n, false);
    free(n->name);
    *n = dir->names[--dir->name_count];
}

// ---- xattrs ----

struct model_xattr *model_xattr_find(struct model_inode *in, const char *name)
{
    for (size_t i = 0; i < in->xattr_count; i++)
        if (strcmp(in->xattrs[i].name, name) == 0)
            return &in->xattrs[i];
    return NULL;
}

void model_xattr_put(struct model_inode *in, const char *name, const void *value, size_t len)
{
    struct model_xattr *x = model_xattr_find(in, name);

    if (!x) {
        in->xattrs = realloc(in->xattrs, (in->xattr_count + 1) * sizeof(*x));
        AF_ASSERT(in->xattrs);
        x = &in->xattrs[in->xattr_count++];
        *x = (struct model_xattr){.name = strdup(name)};
    }
    free(x->value);
    x->value = malloc(len + 1);
    AF_ASSERT(x->name && x->value);
    memcpy(x->value, value, len);
    x->len = len;
}

void model_xattr_drop(struct model_inode *in, struct model_xattr *x)
{
    free(x->name);
    free(x->value);
    *x = in->xattrs[--in->xattr_count];
}

static uint64_t xattr_sum(const struct model_inode *in)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < in->xattr_count; i++)
        sum += canon_xattr_sum(in->xattrs[i].name, in->xattrs[i].value, in->xattrs[i].len);
    return sum;
}

// ---- what readers see ----

uint64_t model_size(const struct model_inode *in)
{
    return in->p.active && in->p.content ? in->p.size : in->attr.size;
}

static bool later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

static void names_seen(const struct model_inode *dir, struct store_attr *attr)
{
    if (later(&dir->names_changed, &attr->mtime))
        attr->mtime = dir->names_changed;
    if (later(&dir->names_changed, &attr->ctime))
        attr->ctime = dir->names_changed;
}

void model_names_seen(struct model_inode *dir)
{
    names_seen(dir, &dir->attr);
}

// Readers see a directory change when a new file comes.
static void with_new_names(const struct model_inode *dir, struct store_attr *ret)
{
    bool some = false;

    for (size_t k = 0; k < dir->name_count; k++) {
        const struct model_inode *in = dir->names[k].inode;

        some = some || (in->p.active && in->p.is_new && in->p.named);
    }
    if (some)
        names_seen(dir, ret);
}

void model_attr(const struct model_inode *in, struct store_attr *ret)
{
    *ret = in->attr;
    ret->size = model_size(in);
    if (S_ISDIR(in->attr.mode))
        with_new_names(in, ret);
    if (!in->p.active)
        return;
    if (in->p.times) {
        ret->mtime = in->p.mtime;
        ret->ctime = in->p.ctime;
    }
    if (in->p.atime_set)
        ret->atime = in->p.atime;
    if (in->p.kill_suidgid)
        ret->mode &= ~(uint32_t)(S_ISUID | ((ret->mode & S_IXGRP) ? S_ISGID : 0));
}

void model_visible_dump(const struct model *m, struct canon *ret)
{
    char line[CANON_LINE_BYTES];

    for (size_t i = 0; i < m->count; i++) {
        const struct model_inode *in = m->inodes[i];
        struct store_attr attr;

        if (!in->in_history && !(in->p.active && in->p.named))
            continue;
        model_attr(in, &attr);
        canon_inode_line(line, &attr, in->parent, in->bytes.sum, xattr_sum(in), in->target);
        canon_add(ret, line);
        for (size_t k = 0; k < in->name_count; k++) {
            const struct model_name *n = &in->names[k];

            canon_name_line(line, in->ino, n->name, n->inode->ino, n->inode->attr.mode);
            canon_add(ret, line);
        }
    }
}

// ---- history ----

static void delta_add(struct model *m, char sign, const char *line)
{
    size_t len = strlen(line);

    while (m->delta_len + len + 3 > m->delta_cap) {
        m->delta_cap = m->delta_cap ? 2 * m->delta_cap : 4096;
        m->delta = realloc(m->delta, m->delta_cap);
        AF_ASSERT(m->delta);
    }
    m->delta_len += (size_t)snprintf(m->delta + m->delta_len, m->delta_cap - m->delta_len, "%c%s\n",
                                     sign, line);
    m->hash += sign == '+' ? canon_line_hash(line) : -canon_line_hash(line);
}

void model_note_inode(struct model *m, struct model_inode *in)
{
    char line[CANON_LINE_BYTES];

    if (in->in_history)
        canon_inode_line(line, &in->attr, in->parent, in->sum, xattr_sum(in), in->target);
    if (in->line && in->in_history && strcmp(in->line, line) == 0)
        return;
    if (in->line)
        delta_add(m, '-', in->line);
    free(in->line);
    in->line = NULL;
    if (!in->in_history)
        return;
    delta_add(m, '+', line);
    in->line = strdup(line);
    AF_ASSERT(in->line);
}

void model_note_name(struct model *m, struct model_inode *dir, struct model_name *n, bool present)
{
    char line[CANON_LINE_BYTES];

    if (n->in_history == present)
        return;
    n->in_history = present;
    canon_name_line(line, dir->ino, n->name, n->inode->ino, n->inode->attr.mode);
    delta_add(m, present ? '+' : '-', line);
}

void model_push(struct model *m)
{
    if (m->delta_len == 0)
        return;
    m->states = grow(m->states, &m->state_cap, m->state_count, sizeof(m->states[0]));
    m->states[m->state_count++] = (struct model_state){
        .hash = m->hash, .lsn = m->lsn, .delta = strdup(m->delta), .what = m->what};
    AF_ASSERT(m->states[m->state_count - 1].delta);
    m->delta_len = 0;
}

int64_t model_find(const struct model *m, uint64_t hash, size_t lo, size_t hi)
{
    for (size_t k = hi + 1; k-- > lo;)
        if (k < m->state_count && m->states[k].hash == hash)
            return (int64_t)k;
    return -1;
}

// ---- states as text ----

static void remove_line(struct canon *d, const char *line)
{
    for (size_t i = 0; i < d->count; i++) {
        if (strcmp(d->lines[i], line) == 0) {
            d->hash -= canon_line_hash(line);
            free(d->lines[i]);
            d->lines[i] = d->lines[--d->count];
            return;
        }
    }
    AF_ASSERT(!"a line that was not there");
}

void model_state_dump(const struct model *m, size_t index, struct canon *ret)
{
    for (size_t i = 0; i < m->base.count; i++)
        canon_add(ret, m->base.lines[i]);
    for (size_t k = 1; k <= index; k++) {
        char *copy = strdup(m->states[k].delta), *save = NULL;

        AF_ASSERT(copy);
        for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            if (line[0] == '+')
                canon_add(ret, line + 1);
            else
                remove_line(ret, line + 1);
        }
        free(copy);
    }
    AF_ASSERT(ret->hash == m->states[index].hash);
}

static bool has_line(const struct canon *d, const char *line)
{
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->lines[i], line) == 0)
            return true;
    return false;
}

static size_t distance(const struct canon *a, const struct canon *b)
{
    size_t common = 0;

    for (size_t i = 0; i < a->count; i++)
        common += has_line(b, a->lines[i]);
    return a->count + b->count - 2 * common;
}

void model_explain(const struct model *m, struct canon *found, size_t lo, size_t hi, FILE *to)
{
    size_t best = 0, best_distance = SIZE_MAX, from = hi > lo + 300 ? hi - 300 : lo;
    struct canon d = {0};
    int64_t exact = model_find(m, found->hash, 0, m->state_count - 1);

    fprintf(to, "  states %zu to %zu were allowed", lo, hi);
    if (exact >= 0)
        fprintf(to, "; it is state %" PRId64 " (after %s, LSN %" PRIu64 ")", exact,
                m->states[exact].what, m->states[exact].lsn);
    fprintf(to, "\n");
    for (size_t k = from; k <= hi && k < m->state_count; k++) {
        model_state_dump(m, k, &d);
        size_t dist = distance(&d, found);

        if (dist < best_distance) {
            best_distance = dist;
            best = k;
        }
        canon_free(&d);
    }
    fprintf(to, "  the nearest is %zu, after %s, LSN %" PRIu64 "; differences:\n", best,
            m->states[best].what, m->states[best].lsn);
    model_state_dump(m, best, &d);
    canon_diff(&d, "expected", found, "found", 12, to);
    canon_free(&d);
    for (size_t k = lo; k <= hi && k < m->state_count && k < lo + 12; k++)
        fprintf(to, "  state %zu: %s (LSN %" PRIu64 ")\n", k, m->states[k].what, m->states[k].lsn);
}

// ---- life ----

static void clear(struct model *m)
{
    for (size_t i = 0; i < m->count; i++)
        inode_free(m->inodes[i]);
    m->count = 0;
    for (size_t i = 0; i < m->state_count; i++)
        free(m->states[i].delta);
    m->state_count = 0;
    m->delta_len = 0;
    m->hash = 0;
    m->acked = 0;
    canon_free(&m->base);
}

void model_init(struct model *m)
{
    *m = (struct model){.what = "opening"};
}

void model_free(struct model *m)
{
    clear(m);
    free(m->inodes);
    free(m->states);
    free(m->delta);
    *m = (struct model){0};
}

// ---- loading ----

struct loading {
    struct model *m;
    struct store *store;
    int error;
};

static void load_bytes(void *arg, uint64_t off, const uint8_t *bytes, size_t len)
{
    struct model_inode *in = arg;

    filebytes_write(&in->bytes, off, bytes, len);
}

static void load_xattr(void *arg, const char *name, const void *value, size_t len)
{
    model_xattr_put(arg, name, value, len);
}

static struct model_inode *load_known(struct loading *l, const struct store_attr *attr)
{
    struct model_inode *in = model_inode(l->m, attr->ino);

    return in ? in : model_inode_new(l->m, attr->ino, attr);
}

static void load_inode(void *arg, const struct store_attr *attr, uint64_t parent)
{
    struct loading *l = arg;
    struct model_inode *in = load_known(l, attr);
    char target[4096];
    int err = canon_each_xattr(l->store, attr->ino, load_xattr, in);

    in->parent = parent;
    in->in_history = true;
    if (err == 0 && S_ISREG(attr->mode))
        err = canon_each_bytes(l->store, attr, load_bytes, in);
    if (err == 0 && S_ISLNK(attr->mode)) {
        err = store_readlink(l->store, STORE_BLOCK, attr->ino, target);
        in->target = err == 0 ? strdup(target) : NULL;
    }
    in->sum = in->bytes.sum;
    if (err < 0 && l->error == 0)
        l->error = err;
}

static void load_name(void *arg, uint64_t parent, const char *name, const struct store_attr *attr)
{
    struct loading *l = arg;

    model_name_add(model_inode(l->m, parent), name, load_known(l, attr));
}

int model_load(struct model *m, struct store *s, char where[CANON_WHERE_BYTES])
{
    struct loading l = {.m = m, .store = s};
    struct canon_visitor v = {.inode = load_inode, .name = load_name, .arg = &l};

    clear(m);
    m->what = "opening";
    int err = canon_walk(s, &v, where);

    if (err == 0)
        err = l.error;
    if (err < 0)
        return err;
    for (size_t i = 0; i < m->count; i++) {
        struct model_inode *in = m->inodes[i];

        model_note_inode(m, in);
        for (size_t k = 0; k < in->name_count; k++)
            model_note_name(m, in, &in->names[k], true);
    }
    model_push(m);
    model_visible_dump(m, &m->base); // nothing is pending: the same lines
    AF_ASSERT(m->base.hash == m->hash);
    return 0;
}
