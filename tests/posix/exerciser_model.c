// SPDX-License-Identifier: MIT
// What the exerciser knows of contents and of their history.

#include "tests/posix/exerciser.h"

#include <stdlib.h>
#include <string.h>

uint64_t rnd(struct exerciser *x, uint64_t below)
{
    x->rng = x->rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (x->rng >> 33) % below;
}

void content_free(struct content *c)
{
    free(c->bytes);
    *c = (struct content){0};
}

void content_resize(struct content *c, size_t size)
{
    if (!c->bytes)
        c->bytes = calloc(1, BYTES_MAX);
    if (!c->bytes)
        abort();
    if (size < c->size)
        memset(c->bytes + size, 0, c->size - size);
    c->size = size;
}

void content_copy(struct content *to, const struct content *from)
{
    free(to->bytes);
    *to = *from;
    to->bytes = malloc(from->size + 1);
    if (!to->bytes)
        abort();
    if (from->size > 0)
        memcpy(to->bytes, from->bytes, from->size);
}

bool content_same(const struct content *a, const struct content *b)
{
    return a->there == b->there && a->size == b->size &&
           (a->size == 0 || memcmp(a->bytes, b->bytes, a->size) == 0);
}

static void push(struct exerciser *x, struct file *f, bool sure)
{
    if (f->count == HISTORY_MAX)
        abort(); // acknowledge() comes long before
    struct moment *m = &f->history[f->count++];
    *m = (struct moment){.number = x->number, .sure = sure};
    content_copy(&m->content, &f->now);
}

void completed(struct exerciser *x, struct file *f, bool sure)
{
    x->number++;
    push(x, f, sure);
}

void completed_both(struct exerciser *x, struct file *a, struct file *b, bool sure)
{
    x->number++;
    push(x, a, sure);
    push(x, b, sure);
}

static void drop_before(struct file *f, unsigned first)
{
    for (unsigned i = 0; i < first; i++)
        content_free(&f->history[i].content);
    memmove(f->history, f->history + first, (f->count - first) * sizeof(f->history[0]));
    f->count -= first;
}

void acknowledged(struct exerciser *x)
{
    x->acked = x->number;
    for (unsigned k = 0; k < FILES; k++) {
        struct file *f = &x->files[k];
        unsigned last = 0;

        for (unsigned i = 0; i < f->count; i++)
            last = f->history[i].sure ? i : last;
        drop_before(f, last);
    }
}

// Whether a crash with this cut may leave the content: the last sure one up to it, or one of the
// unsure ones behind that.
static bool allowed(const struct file *f, uint64_t cut, const struct content *found)
{
    bool yes = false;

    for (unsigned i = 0; i < f->count && f->history[i].number <= cut; i++) {
        const struct moment *m = &f->history[i];
        bool same = content_same(&m->content, found);

        yes = m->sure ? same : yes || same;
    }
    return yes;
}

int64_t find_cut(const struct exerciser *x, const struct content found[FILES])
{
    for (uint64_t cut = x->number + 1; cut-- > x->acked;) {
        bool all = true;

        for (unsigned k = 0; all && k < FILES; k++)
            all = allowed(&x->files[k], cut, &found[k]);
        if (all)
            return (int64_t)cut;
    }
    return -1;
}

void restart_from(struct exerciser *x, struct content found[FILES])
{
    x->number++;
    for (unsigned k = 0; k < FILES; k++) {
        struct file *f = &x->files[k];

        drop_before(f, f->count);
        content_free(&f->now);
        if (found[k].there) {
            content_resize(&f->now, found[k].size);
            memcpy(f->now.bytes, found[k].bytes, found[k].size);
            f->now.there = true;
        }
        content_free(&found[k]);
        f->maps_wrote = false;
        push(x, f, true);
    }
    x->acked = x->number;
}
