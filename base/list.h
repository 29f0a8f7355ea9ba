// SPDX-License-Identifier: MIT
// Intrusive doubly linked circular list.
#ifndef AF_BASE_LIST_H
#define AF_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attr.h"

struct list {
    struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
static inline void list_insert_before(struct list *at, struct list *n)
{
    n->prev = at->prev;
    n->next = at;
    at->prev->next = n;
    at->prev = n;
}
static inline void list_append(struct list *l, struct list *n)
{
    list_insert_before(l, n);
}
static inline void list_prepend(struct list *l, struct list *n)
{
    list_insert_before(l->next, n);
}
// Takes `n` out and leaves it empty, so that a second removal is harmless.
static inline void list_remove(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}
// Moves all of `from` to the end of `to`; `from` is empty afterwards.
static inline void list_splice(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define list_entry(ptr, type, member) AF_CONTAINER_OF(ptr, type, member)
#define list_for_each(pos, l)         for (struct list *pos = (l)->next; pos != (l); pos = pos->next)
// Safe against removal of `pos`.
#define list_for_each_safe(pos, l)                                          \
    for (struct list *pos = (l)->next, *pos##_next = pos->next; pos != (l); \
         pos = pos##_next, pos##_next = pos->next)

#endif
