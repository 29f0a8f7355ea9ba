// SPDX-License-Identifier: MIT
// Taking, finding, reading and deleting snapshots (snapshot.h).
#include "store/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "store/store_internal.h"

// Of the first one with at least this id.
static size_t position(const struct snapshots *ss, uint64_t id)
{
    size_t lo = 0, hi = ss->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (ss->list[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct snapshot *snapshot_find(struct snapshots *ss, uint64_t id)
{
    size_t at = position(ss, id);

    return at < ss->count && ss->list[at].id == id ? &ss->list[at] : NULL;
}

struct snapshot *snapshot_named(struct snapshots *ss, const char *name)
{
    for (size_t i = 0; i < ss->count; i++)
        if (!ss->list[i].deleted && strcmp(ss->list[i].name, name) == 0)
            return &ss->list[i];
    return NULL;
}

// ---- what the live tree lets go of ----

bool snapshot_keeps_data(struct store *s, uint64_t birth, uint64_t address, uint64_t count)
{
    if (birth > s->snapshots.keep_lsn)
        return false;
    if (s->snapshots.reclaim)
        reclaim_note(s, birth, address, count);
    return true;
}

bool snapshot_keeps_node(void *store, uint64_t generation, uint64_t address)
{
    struct store *s = store;

    if (generation > s->snapshots.keep_generation)
        return false;
    if (s->snapshots.reclaim)
        reclaim_note_node(s, generation, address);
    return true;
}

// ---- taking and deleting ----

static void table_changed(struct store *s, size_t from)
{
    struct snapshots *ss = &s->snapshots;

    ss->changed_from = ss->changed ? AF_MIN(ss->changed_from, from) : from;
    ss->changed = true;
    s->dirty = true;
}

void snapshots_remove(struct store *s, uint64_t id)
{
    struct snapshots *ss = &s->snapshots;
    struct snapshot *sn = snapshot_find(ss, id);
    size_t at;

    AF_ASSERT(sn);
    at = (size_t)(sn - ss->list);
    memmove(sn, sn + 1, (ss->count - at - 1) * sizeof(*sn));
    ss->count--;
    table_changed(s, at);
}

void snapshots_changed(struct store *s, const struct snapshot *sn)
{
    table_changed(s, (size_t)(sn - s->snapshots.list));
}

int snapshot_want(struct store *s, const char *name, uint64_t *ret_id)
{
    struct snapshots *ss = &s->snapshots;
    size_t len;
    int err = name_check(name, &len);

    if (err == 0)
        err = store_writable(s);
    for (size_t i = 0; err == 0 && i < len; i++)
        if ((unsigned char)name[i] < 32) // lists have one a line
            err = -EINVAL;
    if (err == 0 && snapshot_named(ss, name))
        err = -EEXIST;
    if (err < 0)
        return err;
    if (ss->count == ss->cap) {
        size_t cap = ss->cap ? 2 * ss->cap : 16;
        struct snapshot *list = realloc(ss->list, cap * sizeof(*list));

        if (!list)
            return -ENOMEM;
        ss->list = list;
        ss->cap = cap;
    }
    struct snapshot *sn = &ss->list[ss->count];

    *sn = (struct snapshot){.id = ss->next_id++, .wanted = true};
    memcpy(sn->name, name, len);
    ss->count++;
    table_changed(s, ss->count - 1);
    *ret_id = sn->id;
    return 0;
}

int snapshot_publish(struct store *s)
{
    return s->config.make_room ? s->config.make_room(s->config.arg) : -AF_E_READ_ONLY;
}

int store_snapshot_create(struct store *s, enum store_how how, const char *name)
{
    uint64_t id = 0;

    if (how == STORE_NONBLOCK)
        return -AF_E_WOULD_BLOCK;
    store_lock(s);
    int err = snapshot_want(s, name, &id);

    store_unlock(s);
    if (err < 0)
        return err;
    err = snapshot_publish(s);
    store_lock(s);
    struct snapshot *sn = snapshot_find(&s->snapshots, id);

    if (err < 0 && sn && sn->wanted) // no checkpoint could begin
        snapshots_remove(s, id);
    store_unlock(s);
    return err;
}

int store_snapshot_delete(struct store *s, enum store_how how, const char *name)
{
    if (how == STORE_NONBLOCK)
        return -AF_E_WOULD_BLOCK;
    store_lock(s);
    struct snapshot *sn = snapshot_named(&s->snapshots, name);
    int err = store_writable(s);

    if (err == 0 && (!sn || !sn->published))
        err = -ENOENT;
    if (err == 0) {
        sn->deleted = true;
        snapshots_changed(s, sn);
        s->signal = true;
    }
    store_unlock(s);
    return err < 0 ? err : snapshot_publish(s);
}

// ---- finding ----

static void describe(const struct snapshot *sn, struct store_snapshot *ret)
{
    *ret = (struct store_snapshot){
        .id = sn->id,
        .lsn = sn->cut_lsn,
        .inodes = sn->inodes,
        .created = sn->created,
    };
    memcpy(ret->name, sn->name, sizeof(ret->name));
}

bool store_snapshot_next(struct store *s, uint64_t after, struct store_snapshot *ret)
{
    struct snapshots *ss = &s->snapshots;
    bool found = false;

    store_lock(s);
    for (size_t i = position(ss, after + 1); i < ss->count && !found; i++) {
        const struct snapshot *sn = &ss->list[i];

        if (sn->deleted || !sn->published)
            continue;
        describe(sn, ret);
        found = true;
    }
    store_unlock(s);
    return found;
}

// A view number for `id`: the one it has, a new one, or one whose snapshot is gone.
static uint32_t view_for(struct snapshots *ss, uint64_t id)
{
    for (uint32_t v = 1; v <= ss->view_count; v++)
        if (ss->views[v] == id)
            return v;
    if (ss->view_count < SNAPSHOT_VIEWS_MAX) {
        ss->views[++ss->view_count] = id;
        return ss->view_count;
    }
    for (uint32_t i = 0; i < SNAPSHOT_VIEWS_MAX; i++) {
        uint32_t v = 1 + (ss->view_next + i) % SNAPSHOT_VIEWS_MAX;
        const struct snapshot *sn = snapshot_find(ss, ss->views[v]);

        if (sn && !sn->deleted)
            continue;
        ss->views[v] = id;
        ss->view_next = v;
        return v;
    }
    return 0;
}

int store_snapshot_open(struct store *s, const char *name, uint64_t *ret_ino)
{
    struct snapshots *ss = &s->snapshots;
    uint32_t view = 0;
    int err = 0;

    store_lock(s);
    const struct snapshot *sn = snapshot_named(ss, name);

    if (!sn || !sn->published)
        err = -ENOENT;
    if (err == 0 && !ss->views)
        ss->views = calloc(SNAPSHOT_VIEWS_MAX + 1, sizeof(ss->views[0]));
    if (err == 0 && !ss->views)
        err = -ENOMEM;
    if (err == 0)
        view = view_for(ss, sn->id);
    if (err == 0 && view == 0)
        err = -ENFILE;
    store_unlock(s);
    if (err == 0)
        *ret_ino = (uint64_t)view << 48 | INO_ROOT;
    return err;
}

int view_enter(struct store *s, struct fault *f, uint64_t ino, uint64_t *ret_number)
{
    struct snapshots *ss = &s->snapshots;
    uint64_t view = ino >> 48;

    *ret_number = ino & INO_MAX;
    f->in_view = view != 0;
    if (view == 0)
        return 0;
    const struct snapshot *sn = view <= ss->view_count ? snapshot_find(ss, ss->views[view]) : NULL;

    if (!sn || sn->deleted)
        return -ESTALE;
    f->view_root = sn->root;
    return 0;
}
