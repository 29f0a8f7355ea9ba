// SPDX-License-Identifier: MIT
// The list of what was found damaged (damage.h).

#include "store/damage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "store/store_internal.h"

static void names_free(struct damage_entry *e)
{
    while (e->names) {
        struct damage_name *n = e->names;

        e->names = n->next;
        free(n);
    }
    e->more = 0;
}

void damage_list_free(struct damage_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        names_free(l->entries[i]);
        free(l->entries[i]);
    }
    l->count = 0;
}

// ---- noting ----

// The same thing: the same block of the disk, or, where none is known, the same inode.
static struct damage_entry *find(struct damage_list *l, const struct store_damage *d)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct store_damage *o = &l->entries[i]->d;

        if (o->code == d->code && o->address == d->address &&
            (d->address != 0 ||
             (o->ino == d->ino && o->off == d->off && strcmp(o->file, d->file) == 0)))
            return l->entries[i];
    }
    return NULL;
}

static void describe(struct store_damage *d)
{
    char where[96] = "", sums[64] = "", block[40] = "";

    if (d->text[0])
        return;
    if (d->file[0]) {
        snprintf(d->text, sizeof(d->text), "%s, offset %" PRIu64 ": %s", d->file, d->off,
                 err_text(d->code));
        return;
    }
    if (d->ino && d->bytes)
        snprintf(where, sizeof(where), "content of inode %" PRIu64 ", bytes %" PRIu64 "-%" PRIu64,
                 d->ino, d->off, d->off + d->bytes - 1);
    else if (d->ino)
        snprintf(where, sizeof(where), "inode %" PRIu64, d->ino);
    if (d->address)
        snprintf(block, sizeof(block), "%sblock %" PRIu64 " of data", where[0] ? ", " : "",
                 d->address);
    if (d->expected || d->found)
        snprintf(sums, sizeof(sums), ": %016" PRIx64 " expected, %016" PRIx64 " found", d->expected,
                 d->found);
    snprintf(d->text, sizeof(d->text), "%s%s%s: %s%s", d->in_snapshot ? "in a snapshot, " : "",
             where, block, err_text(d->code), sums);
}

// One line for each damaged thing, and when there are too many at once, their number. The sink runs
// under the lock of the store, as all messages from below do.
static void tell(struct store *s, const struct store_damage *d)
{
    struct damage_list *l = &s->damage;
    uint64_t now = s->config.io->ops->ticks_ms(s->config.io);

    if (l->lines > 0 && now - l->window_ms >= DAMAGE_LINES_MS) {
        if (l->suppressed > 0)
            message(&s->config.sink, MESSAGE_ERROR,
                    "damage: %u more damaged blocks in the last seconds; .aerofs/damage lists them",
                    l->suppressed);
        l->lines = l->suppressed = 0;
    }
    if (l->lines == 0)
        l->window_ms = now;
    if (l->lines == DAMAGE_LINES_MAX) {
        l->suppressed++;
        return;
    }
    l->lines++;
    message(
        &s->config.sink, MESSAGE_ERROR,
        "damage: %s (%s); the rest of the store keeps working; .aerofs/damage and `aerofs check` "
        "tell the names",
        d->text, err_name(d->code));
}

void store_damage_note(struct store *s, const struct store_damage *d, const struct tree_way *way)
{
    struct damage_list *l = &s->damage;
    struct damage_entry *e = find(l, d);

    if (e) {
        e->d.count++;
        // Met again by someone who knows more of whose block it is.
        if ((e->d.ino == 0 && d->ino != 0) || (e->d.in_snapshot && !d->in_snapshot)) {
            e->d.in_snapshot = d->in_snapshot;
            e->d.ino = d->ino;
            e->d.off = d->off;
            e->d.bytes = d->bytes;
            e->d.text[0] = 0;
            describe(&e->d);
            atomic_store(&l->unnamed, true);
            s->signal = true;
        }
    } else if (l->count == STORE_DAMAGE_MAX || !(e = calloc(1, sizeof(*e)))) {
        struct store_damage told = *d;

        l->unlisted++;
        describe(&told);
        tell(s, &told);
        return;
    } else {
        l->entries[l->count++] = e;
        e->d = *d;
        e->d.count = 1;
        describe(&e->d);
        tell(s, &e->d);
        atomic_store(&l->unnamed, true);
        s->signal = true;
    }
    if (way && !e->has_range) {
        e->has_range = true;
        e->low = way->low;
        e->next = way->next;
        e->last = way->last;
    }
}

void store_note_damage(struct store *s, const struct store_damage *d)
{
    store_lock(s);
    s->errors++;
    store_damage_note(s, d, NULL);
    store_unlock(s);
}

void store_note_item(struct store *s, int code, uint64_t ino)
{
    store_damage_note(s, &(struct store_damage){.code = code, .ino = ino}, NULL);
}

// ---- showing ----

void store_damage_each(struct store *s, void (*each)(void *arg, const struct damage_entry *entry),
                       void *arg)
{
    store_lock(s);
    for (size_t i = 0; i < s->damage.count; i++)
        each(arg, s->damage.entries[i]);
    store_unlock(s);
}

bool store_damage_unnamed(struct store *s)
{
    return atomic_load(&s->damage.unnamed);
}

// Names may hold any byte but / and 0; a list goes to terminals and to scripts that read lines.
static void put_path(struct buf *out, const char *path)
{
    for (const unsigned char *p = (const unsigned char *)path; *p; p++)
        if (*p < 32 || *p == 127 || *p == '\\')
            buf_printf(out, "\\x%02x", *p);
        else
            buf_put_u8(out, *p);
}

static void put_entry(const struct damage_entry *e, struct buf *out)
{
    buf_printf(out,
               "%s file=%s inode=%" PRIu64 " offset=%" PRIu64 " bytes=%" PRIu64 " address=%" PRIu64
               " count=%" PRIu64 " %s\n",
               err_name(e->d.code), e->d.file[0] ? e->d.file : "data", e->d.ino, e->d.off,
               e->d.bytes, e->d.address, e->d.count, e->d.text);
    for (const struct damage_name *n = e->names; n; n = n->next) {
        buf_printf(out, "  ");
        put_path(out, n->path);
        buf_printf(out, n->part[0] ? " (%s)\n" : "\n", n->part);
    }
    if (e->more > 0)
        buf_printf(out, "  and %" PRIu64 " more\n", e->more);
}

void store_damage_text(struct store *s, struct buf *out)
{
    store_lock(s);
    for (size_t i = 0; i < s->damage.count; i++)
        put_entry(s->damage.entries[i], out);
    if (s->damage.unlisted > 0)
        buf_printf(out, "%" PRIu64 " more were met and not kept: the list is full\n",
                   s->damage.unlisted);
    store_unlock(s);
}

// A line that does not fit ends in "…": the file .aerofs/damage has all of it.
static void fill_line(char *line, const struct damage_entry *e, const struct damage_name *n)
{
    struct buf text;

    buf_init(&text);
    buf_printf(&text, "%s ", err_name(e->d.code));
    if (n)
        put_path(&text, n->path);
    else
        buf_printf(&text, "%s", e->d.text);
    if (n && n->part[0])
        buf_printf(&text, " (%s)", n->part);
    bool whole = !text.failed && text.len < STORE_DAMAGE_LINE;

    snprintf(line, STORE_DAMAGE_LINE, "%.*s%s",
             (int)AF_MIN(text.len, (size_t)STORE_DAMAGE_LINE - 5), (const char *)text.bytes,
             whole && text.len < STORE_DAMAGE_LINE - 4 ? "" : "...");
    buf_free(&text);
}

size_t store_damage_lines(struct store *s, char (*lines)[STORE_DAMAGE_LINE], size_t max)
{
    size_t count = 0;

    store_lock(s);
    for (size_t i = 0; i < s->damage.count; i++) {
        const struct damage_entry *e = s->damage.entries[i];
        const struct damage_name *n = e->names;

        do {
            if (count < max)
                fill_line(lines[count], e, n);
            count++;
            n = n ? n->next : NULL;
        } while (n);
    }
    store_unlock(s);
    return AF_MIN(count, max);
}
