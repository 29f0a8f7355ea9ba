// SPDX-License-Identifier: MIT
// Snapshots: roots with a name (docs/FORMAT.md, "Snapshots"). One is taken by a checkpoint: the
// root that it freezes is kept, so taking one costs no more than what has changed since the last
// checkpoint.
//
// A snapshot is a state of the tree from which the live tree (and later snapshots) descend. What
// the live tree lets go of and its nearest snapshot still has, which its age tells (`birth` of
// extents, generation of nodes), is not freed. Only when a snapshot is deleted, is what nobody else
// has looked for, in the background (reclaim.c).
//
// Everything here runs under the store lock unless it says otherwise.
#ifndef AF_STORE_SNAPSHOT_H
#define AF_STORE_SNAPSHOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/fault.h"
#include "store/store_format.h"

struct store;
struct space;
struct reclaim;

struct snapshot {
    uint64_t id;     // rising, never given twice
    uint64_t parent; // the one it descends from; 0: none
    uint64_t cut_lsn, generation, inodes;
    struct tree_root root;
    int64_t created; // seconds since 1970; a label
    bool deleted;    // nobody sees it any more; its blocks are to be reclaimed
    bool wanted;     // in memory: the next freeze takes it
    bool published;  // in memory: a superblock names it
    char name[NAME_BYTES_MAX + 1];
};

struct snapshot_block { // of the table on disk
    struct blkref ref;
    size_t first, count; // entries
};

#define SNAPSHOT_VIEWS_MAX 0xfffeu // view numbers are 1 to this one; 0xffff is not ours (fs/)

struct snapshots {
    struct snapshot *list; // by id
    size_t count, cap;
    uint64_t next_id;
    uint64_t live_parent;               // the one that the live tree descends from
    uint64_t keep_lsn, keep_generation; // its cut and generation: nothing as old is freed
    bool changed;
    size_t changed_from;           // entries from here on are not on disk as they are here
    struct snapshot_block *blocks; // the table on disk, oldest first
    size_t block_count;
    uint64_t *views; // [view]: id; made when the first one is opened
    uint32_t view_count, view_next;
    struct reclaim *reclaim; // under way; NULL: none
};

// A table as a checkpoint will write it.
struct snapshots_frozen {
    struct snapshot *list; // copies of the entries from `first` on
    size_t first, count;
    struct snapshot_block *blocks; // all of the table
    size_t block_count, kept;      // the first `kept` ones stay as they are
    struct blkref head;            // newest block, once written; address 0: the table is empty
    uint64_t live_parent, next_id;
    uint64_t stamped; // entries with an id of at least this one are taken by this checkpoint
    bool changed;
};

// ---- table on disk ----

// Reads the table (I/O, without the lock; nobody else uses the store yet).
int snapshots_load(struct store *s, const struct blkref *head, uint64_t live_parent,
                   uint64_t next_id) AF_NODISCARD;
void snapshots_free(struct snapshots *ss);
// Pure check of one block: 0 or a code.
int snapshot_block_validate(const uint8_t *bytes, const struct blkref *ref,
                            const uint8_t uuid[16]) AF_NODISCARD;
// Entry `*at` (0: the first) of a validated block; *at moves on. False at the end.
bool snapshot_block_entry(const uint8_t *bytes, size_t *at, struct snapshot *ret);
struct blkref snapshot_block_next(const uint8_t *bytes); // address 0: none

// ---- checkpoint ----

// Before the freeze, in the same hold of the lock: memory and space for the table. 0, -AF_E_FAULT,
// -ENOSPC, -ENOMEM.
int snapshots_prepare(struct store *s, struct fault *f, struct snapshots_frozen *z) AF_NODISCARD;
// t0, before tree and space are frozen: wanted snapshots get the present root, the table its new
// blocks.
void snapshots_freeze(struct store *s, struct snapshots_frozen *z, uint64_t cut_lsn);
// t2, without the lock, when the frozen root is complete: writes the table.
int snapshots_write(struct store *s, struct snapshots_frozen *z, const struct tree_root *root,
                    uint64_t sequence) AF_NODISCARD;
// t7: what was written is published.
void snapshots_published(struct store *s, struct snapshots_frozen *z);
void snapshots_frozen_free(struct snapshots_frozen *z);

// ---- use ----

struct snapshot *snapshot_find(struct snapshots *ss, uint64_t id); // NULL: there is none
void snapshots_remove(struct store *s, uint64_t id);
void snapshots_changed(struct store *s, const struct snapshot *sn);      // the entry, in memory
struct snapshot *snapshot_named(struct snapshots *ss, const char *name); // not deleted ones
// The next freeze takes one of that name. -EEXIST, -EINVAL, -ENAMETOOLONG, -AF_E_READ_ONLY.
int snapshot_want(struct store *s, const char *name, uint64_t *ret_id) AF_NODISCARD;
// Without the lock: waits for a checkpoint that begins now.
int snapshot_publish(struct store *s) AF_NODISCARD;
// True when a snapshot still has what the live tree lets go of; then it is not freed. `birth`: LSN.
bool snapshot_keeps_data(struct store *s, uint64_t birth, uint64_t address, uint64_t count);
// The same for nodes; the tree calls it (btree.h, `keeps`).
bool snapshot_keeps_node(void *store, uint64_t generation, uint64_t address);
// The tree in which a caller's inode number lies: sets the tree that f reads, and takes the view
// off the number. -ESTALE: there is no such view (any more).
int view_enter(struct store *s, struct fault *f, uint64_t ino, uint64_t *ret_number) AF_NODISCARD;
#define VIEW_BITS(ino) ((ino) & ~INO_MAX)

// ---- reclaim.c: what a deleted snapshot alone had ----

// One bounded step, without the lock. Waits for checkpoints.
void reclaim_step(struct store *s);
// A deleted snapshot waits and can be reclaimed.
bool reclaim_wanted(struct store *s);
// At a freeze: what was found is freed, its snapshot leaves the table. Before snapshots_prepare().
void reclaim_apply(struct store *s);
// At a freeze, after the space map's: the tree that is frozen is the one to compare with.
void reclaim_frozen(struct store *s);
void reclaim_published(struct store *s, const struct tree_root *root);
// The live tree lets go of something that a snapshot keeps.
void reclaim_note(struct store *s, uint64_t birth, uint64_t address, uint64_t count);
void reclaim_note_node(struct store *s, uint64_t generation, uint64_t address);
// A snapshot is taken: what the live tree lets go of from here on is that one's too.
void reclaim_overtaken(struct store *s);
void reclaim_free(struct store *s, struct reclaim *r); // NULL ok

#endif
