// SPDX-License-Identifier: MIT
// What was found damaged since the store was opened: a bounded list with the names of what is
// affected, and one line for the operator for each damaged thing, at a bounded rate.
//
// Names are not known where damage is met (an inode has no way back to its names), so they are
// looked for afterwards, by a walk over all directory entries (store_damage_locate()). They are
// those of that moment: a file that is renamed later stands there under its old name.
#ifndef AF_STORE_DAMAGE_H
#define AF_STORE_DAMAGE_H

#include <stdatomic.h>

#include "store/btree.h"
#include "store/store.h"

struct buf;

#define DAMAGE_NAMES_MAX 16u    // of one damage; of further ones the number is kept
#define DAMAGE_LINES_MAX 20u    // messages to the operator …
#define DAMAGE_LINES_MS  10000u // … within so many milliseconds

struct damage_name {
    struct damage_name *next;
    char part[64]; // which part of it: "bytes 0-4095", "entries"; "": all of it
    char path[];
};

struct damage_entry {
    struct store_damage d;
    struct key low, next; // of a tree node: what hangs below it; has_range
    bool has_range, last; // last: up to the end
    struct damage_name *names;
    uint64_t more; // names beyond DAMAGE_NAMES_MAX
};

// Guarded by the store's lock.
struct damage_list {
    struct damage_entry *entries[STORE_DAMAGE_MAX];
    size_t count;
    uint64_t unlisted; // met when the list was full; the same thing may count twice
    uint64_t window_ms;
    unsigned lines, suppressed; // within the window
    atomic_bool unnamed;        // something has come since names were last looked for
};

// Under the lock. The first time that this thing is met it is listed and reported. `d`: text and
// count are filled in; `way` (may be NULL): of a node, to know what hangs below it.
void store_damage_note(struct store *s, const struct store_damage *d, const struct tree_way *way);
// The same without the lock, by whoever looks at other files of the store.
void store_note_damage(struct store *s, const struct store_damage *d);
void damage_list_free(struct damage_list *l);

// Looks for the names of everything on the list. Without the lock; reads all leaves of the tree.
// `stop` (may be NULL) ends it early: -EINTR.
int store_damage_locate(struct store *s, const atomic_bool *stop) AF_NODISCARD;
bool store_damage_unnamed(struct store *s);
// Two lines and more for each: what, where, how often, in words; then, indented, each name.
void store_damage_text(struct store *s, struct buf *out);
// Every entry, under the lock.
void store_damage_each(struct store *s, void (*each)(void *arg, const struct damage_entry *entry),
                       void *arg);
// One line for each of the first `max` names; returns how many lines there are.
size_t store_damage_lines(struct store *s, char (*lines)[STORE_DAMAGE_LINE], size_t max);

#endif
