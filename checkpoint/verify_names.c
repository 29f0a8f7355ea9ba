// SPDX-License-Identifier: MIT
// Names of what verification has found damaged, in the store as the log left it: whatever of it
// could be opened in memory for the replay.

#include "base/err.h"
#include "checkpoint/verify_internal.h"
#include "store/damage.h"

void verify_affected(struct verify *v, const struct verify_finding *f)
{
    bool data = f->code == -AF_E_DATA_CHECKSUM || (f->ino != 0 && f->code == -EIO);
    struct store_damage d = {
        .code = f->code,
        .ino = f->ino,
        .off = data ? f->off : 0,
        .bytes = data ? BLOCK_BYTES : 0,
        // Of an item the block is where it stands, which is not damaged itself.
        .address = f->code == -AF_E_ITEM ? 0 : f->address,
    };

    // With a part of the tree missing, what the rest says of it is no damage of its own.
    if (v->in_snapshot)
        return;
    if (f->code == -AF_E_ITEM && !v->result->complete)
        return;
    if ((d.ino != 0 || d.address != 0) && v->affected.count < STORE_DAMAGE_MAX && v->fatal == 0)
        pile_add(v, &v->affected, &d);
}

static void show(void *arg, const struct damage_entry *e)
{
    struct verify *v = arg;
    const struct verify_options *o = v->options;

    for (const struct damage_name *n = e->names; n; n = n->next)
        o->affected(o->arg, n->path, n->part, &e->d);
    if (o->affected_more && (e->more > 0 || !e->names))
        o->affected_more(o->arg, e->more, &e->d);
}

void verify_names(struct verify *v)
{
    const struct store_damage *list = v->affected.list;

    if (v->affected.count == 0 || !v->options->affected)
        return;
    if (!v->replayed) {
        verify_found(
            v, &(struct verify_finding){.severity = VERIFY_NOTE, .file = "data"},
            "the root of the tree or the space map cannot be used, so the names of what is "
            "affected are not known; aerofs rescue reads out what can be read");
        return;
    }
    for (size_t i = 0; i < v->affected.count; i++)
        store_note_damage(v->replayed, &list[i]);
    int err = store_damage_locate(v->replayed, NULL);
    // Damage that the search itself has met is new to the list: its names are found the next time.
    if (err == 0 && store_damage_unnamed(v->replayed))
        err = store_damage_locate(v->replayed, NULL);
    if (err < 0)
        verify_found(v, &(struct verify_finding){.severity = VERIFY_NOTE, .file = "data"},
                     "the names of what is affected could not be looked for: %s", err_text(err));
    store_damage_each(v->replayed, show, v);
}
