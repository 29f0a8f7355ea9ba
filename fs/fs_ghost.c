// SPDX-License-Identifier: MIT
// Inodes that have lost their last name while the kernel may still ask for their attributes: the
// working directory of a process, an O_PATH descriptor. The store has forgotten them (it keeps only
// what is open), so their last attributes stay here until the kernel forgets them too, which it
// does at once unless somebody holds them. Bounded: beyond FS_GHOSTS_MAX the oldest goes, and its
// fstat(2) then fails with ENOENT.

#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/fs_reply.h"

#define FS_GHOSTS_MAX 16384u
#define BUCKETS       1024u

struct ghost {
    struct ghost *hash_next;
    struct list link; // by age
    struct store_attr attr;
};

struct fs_ghosts {
    struct af_mutex lock;
    // Guarded by lock:
    struct ghost *buckets[BUCKETS];
    struct list all;
    size_t count;
};

struct fs_ghosts *fs_ghosts_create(void)
{
    struct fs_ghosts *g = calloc(1, sizeof(*g));

    if (g) {
        af_mutex_init(&g->lock, LOCK_RANK_FS);
        list_init(&g->all);
    }
    return g;
}

static struct ghost **find_locked(struct fs_ghosts *g, uint64_t ino)
{
    struct ghost **at = &g->buckets[ino % BUCKETS];

    while (*at && (*at)->attr.ino != ino)
        at = &(*at)->hash_next;
    return at;
}

static void remove_locked(struct fs_ghosts *g, struct ghost **at)
{
    struct ghost *ghost = *at;

    *at = ghost->hash_next;
    list_remove(&ghost->link);
    g->count--;
    free(ghost);
}

void fs_ghosts_destroy(struct fs_ghosts *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < BUCKETS; i++) {
        while (g->buckets[i])
            remove_locked(g, &g->buckets[i]);
    }
    af_mutex_destroy(&g->lock);
    free(g);
}

void fs_ghost_add(struct fs *fs, const struct store_attr *attr)
{
    struct fs_ghosts *g = fs->ghosts;
    struct ghost *ghost = malloc(sizeof(*ghost));

    if (!ghost) // its attributes are not known any more, that is all
        return;
    ghost->attr = *attr;
    ghost->attr.nlink = 0;
    clock_gettime(CLOCK_REALTIME, &ghost->attr.ctime);
    af_lock(&g->lock);
    struct ghost **at = find_locked(g, attr->ino);
    if (*at)
        remove_locked(g, at);
    if (g->count == FS_GHOSTS_MAX) {
        const struct ghost *oldest = list_entry(g->all.next, struct ghost, link);
        remove_locked(g, find_locked(g, oldest->attr.ino));
    }
    at = &g->buckets[attr->ino % BUCKETS];
    ghost->hash_next = *at;
    *at = ghost;
    list_append(&g->all, &ghost->link);
    g->count++;
    af_unlock(&g->lock);
}

bool fs_ghost_find(struct fs *fs, uint64_t ino, struct store_attr *ret_attr)
{
    struct fs_ghosts *g = fs->ghosts;

    af_lock(&g->lock);
    const struct ghost *ghost = *find_locked(g, ino);
    if (ghost)
        *ret_attr = ghost->attr;
    af_unlock(&g->lock);
    return ghost != NULL;
}

void fs_ghost_forget(void *arg, uint64_t ino)
{
    struct fs_ghosts *g = ((struct fs *)arg)->ghosts;

    af_lock(&g->lock);
    struct ghost **at = find_locked(g, ino);
    if (*at)
        remove_locked(g, at);
    af_unlock(&g->lock);
}
