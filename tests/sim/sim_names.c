// SPDX-License-Identifier: MIT
// Directory entries of the simulated disk: what readers see, what is durable, and the changes
// between.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/sim/sim_internal.h"

// ---- tables of entries ----

struct sim_inode *sim_lookup(const struct sim_names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->entries[i].path, path) == 0)
            return names->entries[i].inode;
    }
    return NULL;
}

void sim_names_set(struct sim_names *names, const char *path, struct sim_inode *inode)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->entries[i].path, path) == 0) {
            names->entries[i].inode = inode;
            return;
        }
    }
    sim_grow(&names->entries, &names->cap, names->count, sizeof(*names->entries));
    names->entries[names->count] = (struct sim_entry){.inode = inode};
    sim_path_copy(names->entries[names->count].path, path);
    names->count++;
}

void sim_names_drop(struct sim_names *names, const char *path, const struct sim_inode *inode)
{
    for (size_t i = 0; i < names->count; i++) {
        struct sim_entry *entry = &names->entries[i];

        if (entry->inode == inode && strcmp(entry->path, path) == 0) {
            names->count--;
            memmove(entry, entry + 1, (names->count - i) * sizeof(*entry));
            return;
        }
    }
}

// Works on any table, also where an earlier change was lost: the file that a kept change names is
// there.
void sim_name_change_apply(struct sim_names *names, const struct sim_name_change *change)
{
    switch (change->kind) {
    case SIM_NAME_LINK:
        sim_names_set(names, change->path, change->inode);
        break;
    case SIM_NAME_UNLINK:
        sim_names_drop(names, change->path, change->inode);
        break;
    case SIM_NAME_RENAME:
        sim_names_drop(names, change->path, change->inode);
        sim_names_set(names, change->to, change->inode);
        break;
    }
}

// Length of the directory part of a path; 0 for what lies in the store directory.
static size_t parent_len(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? (size_t)(slash - path) : 0;
}

static bool is_parent(const char *dir, const char *path)
{
    size_t len = parent_len(path);

    return strlen(dir) == len && memcmp(dir, path, len) == 0;
}

bool sim_parent_exists(const struct sim_names *names, const char *path)
{
    char parent[SIM_PATH_BYTES] = "";
    const struct sim_inode *inode;

    memcpy(parent, path, parent_len(path));
    if (!*parent)
        return true;
    inode = sim_lookup(names, parent);
    return inode && inode->is_dir;
}

// ---- inodes ----

struct sim_inode *sim_inode_new(struct sim *sim, bool is_dir)
{
    struct sim_inode *inode = sim_alloc(sizeof(*inode));

    inode->ino = sim->next_ino++;
    inode->is_dir = is_dir;
    sim_grow(&sim->inodes, &sim->inode_cap, sim->inode_count, sizeof(struct sim_inode *));
    sim->inodes[sim->inode_count++] = inode;
    return inode;
}

void sim_inode_free(struct sim_inode *inode)
{
    sim_changes_clear(inode);
    free(inode->changes);
    content_free(&inode->content);
    content_free(&inode->durable);
    free(inode);
}

static bool names_have(const struct sim_names *names, const struct sim_inode *inode)
{
    for (size_t i = 0; i < names->count; i++) {
        if (names->entries[i].inode == inode)
            return true;
    }
    return false;
}

static bool sim_is_referred(const struct sim *sim, const struct sim_inode *inode)
{
    if (inode->open_count || names_have(&sim->names, inode) ||
        names_have(&sim->durable_names, inode))
        return true;
    for (size_t i = 0; i < sim->name_change_count; i++) {
        if (sim->name_changes[i].inode == inode)
            return true;
    }
    for (size_t i = 0; i < sim->flight_count; i++) {
        if (sim->flights[i].inode == inode)
            return true;
    }
    return false;
}

void sim_collect(struct sim *sim)
{
    size_t kept = 0;

    for (size_t i = 0; i < sim->inode_count; i++) {
        if (sim_is_referred(sim, sim->inodes[i]))
            sim->inodes[kept++] = sim->inodes[i];
        else
            sim_inode_free(sim->inodes[i]);
    }
    sim->inode_count = kept;
}

// Takes a name out of both tables and its changes out of the journal.
void sim_remove_names(struct sim *sim, const struct sim_inode *inode, const char *path)
{
    size_t kept = 0;

    sim_names_drop(&sim->names, path, inode);
    for (size_t i = sim->durable_names.count; i > 0; i--) {
        struct sim_entry entry = sim->durable_names.entries[i - 1];

        if (entry.inode == inode || strcmp(entry.path, path) == 0)
            sim_names_drop(&sim->durable_names, entry.path, entry.inode);
    }
    for (size_t i = 0; i < sim->name_change_count; i++) {
        if (sim->name_changes[i].inode != inode)
            sim->name_changes[kept++] = sim->name_changes[i];
    }
    sim->name_change_count = kept;
    sim_collect(sim);
}

static void sim_name_change(struct sim *sim, enum sim_name_kind kind, struct sim_inode *inode,
                            const char *path, const char *to)
{
    struct sim_name_change change = {.kind = kind, .inode = inode, .to_synced = !to};

    sim_path_copy(change.path, path);
    sim_path_copy(change.to, to ? to : "");
    sim_name_change_apply(&sim->names, &change);
    sim_grow(&sim->name_changes, &sim->name_change_cap, sim->name_change_count, sizeof(change));
    sim->name_changes[sim->name_change_count++] = change;
}

// Whether a change of one entry happens: wholly, or in part, which for an entry is a throw of the
// coin.
static bool sim_happens(struct sim *sim, enum sim_extent extent)
{
    return extent == SIM_DO_ALL || (extent == SIM_DO_PART && sim_below(&sim->choices, 2));
}

static int sim_check_path(const char *path)
{
    return strlen(path) < SIM_PATH_BYTES ? 0 : -ENAMETOOLONG;
}

// ---- open and close ----

static void sim_file_new(struct sim *sim, struct sim_inode *inode, const char *path, unsigned flags,
                         struct io_file **ret_file)
{
    struct sim_file *file = sim_alloc(sizeof(*file));

    sim_path_copy(file->path, path);
    file->file = (struct io_file){.io = &sim->io, .path = file->path};
    file->sim = sim;
    file->inode = inode;
    file->flags = flags;
    file->next = sim->files;
    if (sim->files)
        sim->files->prev = file;
    sim->files = file;
    inode->open_count++;
    *ret_file = &file->file;
}

int sim_open_file(struct io *io, const char *path, unsigned flags, struct io_file **ret_file)
{
    struct sim *sim = sim_of(io);
    int r = sim_check_path(path);
    struct sim_inode *inode;
    struct sim_fate fate;
    bool creates;

    if (r)
        return r;
    inode = sim_lookup(&sim->names, path);
    if (io->read_only && (flags & (IO_WRITE | IO_CREATE)))
        return -EROFS;
    creates = !inode && (flags & IO_CREATE) && sim_parent_exists(&sim->names, path);
    fate = sim_decide(sim, creates ? SIM_CREATE : SIM_OPEN, path, 0, 0);
    if (creates && sim_happens(sim, fate.extent)) {
        inode = sim_inode_new(sim, false);
        sim_name_change(sim, SIM_NAME_LINK, inode, path, NULL);
    }
    if (fate.result)
        return fate.result;
    if (!inode)
        return -ENOENT;
    if (!creates && (flags & IO_CREATE) && (flags & IO_EXCLUSIVE))
        return -EEXIST;
    if (inode->is_dir)
        return -EISDIR;
    sim_file_new(sim, inode, path, flags, ret_file);
    return 0;
}

void sim_close_file(struct io_file *f)
{
    struct sim_file *file;

    if (!f)
        return;
    file = sim_file_of(f);
    if (file->sim) {
        struct sim *sim = file->sim;

        for (size_t i = 0; i < sim->flight_count; i++)
            AF_ASSERT(!sim->flights[i].op || sim->flights[i].op->file != f);
        if (file->prev)
            file->prev->next = file->next;
        else
            sim->files = file->next;
        if (file->next)
            file->next->prev = file->prev;
        if (file->inode && --file->inode->open_count == 0)
            sim_collect(sim);
    }
    free(file);
}

// ---- changes of entries ----

int sim_rename(struct io *io, const char *from, const char *to)
{
    struct sim *sim = sim_of(io);
    int r = sim_check_path(from) ? sim_check_path(from) : sim_check_path(to);
    struct sim_inode *inode, *replaced;
    struct sim_fate fate;

    if (r || io->read_only)
        return r ? r : -EROFS;
    inode = sim_lookup(&sim->names, from);
    replaced = sim_lookup(&sim->names, to);
    if (!sim->dead && (!inode || !sim_parent_exists(&sim->names, to)))
        return -ENOENT;
    // Directories are not renamed by the engine, and not modelled.
    if (!sim->dead && (inode->is_dir || (replaced && replaced->is_dir)))
        return -EISDIR;
    fate = sim_decide(sim, SIM_RENAME, from, 0, 0);
    if (sim_happens(sim, fate.extent) && inode != replaced)
        sim_name_change(sim, SIM_NAME_RENAME, inode, from, to);
    return fate.result;
}

int sim_unlink(struct io *io, const char *path)
{
    struct sim *sim = sim_of(io);
    struct sim_inode *inode = sim_lookup(&sim->names, path);
    struct sim_fate fate;

    if (io->read_only)
        return -EROFS;
    if (!sim->dead && (!inode || inode->is_dir))
        return inode ? -EISDIR : -ENOENT;
    fate = sim_decide(sim, SIM_UNLINK, path, 0, 0);
    if (sim_happens(sim, fate.extent))
        sim_name_change(sim, SIM_NAME_UNLINK, inode, path, NULL);
    return fate.result;
}

int sim_mkdir(struct io *io, const char *path)
{
    struct sim *sim = sim_of(io);
    int r = sim_check_path(path);
    struct sim_fate fate;

    if (r || io->read_only)
        return r ? r : -EROFS;
    if (!sim->dead && sim_lookup(&sim->names, path))
        return -EEXIST;
    if (!sim->dead && !sim_parent_exists(&sim->names, path))
        return -ENOENT;
    fate = sim_decide(sim, SIM_MKDIR, path, 0, 0);
    if (sim_happens(sim, fate.extent))
        sim_name_change(sim, SIM_NAME_LINK, sim_inode_new(sim, true), path, NULL);
    return fate.result;
}

// Makes the first changes of a directory durable, all or (in part) some of them.
static void sim_sync_names(struct sim *sim, const char *dir, enum sim_extent extent)
{
    size_t kept = 0, count = sim->name_change_count;
    size_t bound = extent == SIM_DO_ALL ? count : sim_below(&sim->choices, count + 1);

    for (size_t i = 0; i < count; i++) {
        struct sim_name_change *change = &sim->name_changes[i];

        if (i < bound && is_parent(dir, change->path))
            change->path_synced = true;
        if (i < bound && change->kind == SIM_NAME_RENAME && is_parent(dir, change->to))
            change->to_synced = true;
        if (change->path_synced && change->to_synced)
            sim_name_change_apply(&sim->durable_names, change);
        else
            sim->name_changes[kept++] = *change;
    }
    sim->name_change_count = kept;
    sim_collect(sim);
}

int sim_sync_dir(struct io *io, const char *path)
{
    struct sim *sim = sim_of(io);
    const struct sim_inode *inode = sim_lookup(&sim->names, path);
    struct sim_fate fate;

    if (io->read_only)
        return -EROFS;
    if (!sim->dead && *path && !(inode && inode->is_dir))
        return inode ? -ENOTDIR : -ENOENT;
    fate = sim_decide(sim, SIM_SYNC_DIR, path, 0, 0);
    if (fate.extent == SIM_DO_ALL || fate.extent == SIM_DO_PART)
        sim_sync_names(sim, path, fate.extent);
    return fate.result;
}

int sim_list(struct io *io, const char *path, int (*each)(void *arg, const char *name), void *arg)
{
    struct sim *sim = sim_of(io);
    struct sim_fate fate = sim_decide(sim, SIM_LIST, path, 0, 0);
    char(*names)[SIM_PATH_BYTES];
    size_t count = 0;
    int r = 0;

    if (fate.result)
        return fate.result;
    if (*path && !sim_lookup(&sim->names, path))
        return -ENOENT;
    // The walk is over a copy, because `each` may remove what it is shown.
    names = sim_alloc(sim->names.count * sizeof(*names));
    for (size_t i = 0; i < sim->names.count; i++) {
        const char *entry = sim->names.entries[i].path;

        if (is_parent(path, entry))
            sim_path_copy(names[count++], entry + (*path ? strlen(path) + 1 : 0));
    }
    // A real directory has no order to rely on.
    for (size_t i = count; i > 1; i--) {
        char swap[SIM_PATH_BYTES];
        size_t other = sim_below(&sim->choices, i);

        memcpy(swap, names[i - 1], sizeof(swap));
        memcpy(names[i - 1], names[other], sizeof(swap));
        memcpy(names[other], swap, sizeof(swap));
    }
    for (size_t i = 0; i < count && !r; i++)
        r = each(arg, names[i]);
    free(names);
    return r;
}
