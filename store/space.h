// SPDX-License-Identifier: MIT
// Which blocks of `data` are free: bitmaps on disk (docs/FORMAT.md, "Space map"), loaded group by
// group when used; what changed since the last published checkpoint in memory.
//
// Life of a block:
//   free -> space_alloc() -> allocated, known to nobody (spilled data not yet completed)
//        -> space_log_alloc() when a record names it, or a frozen node is written
//        -> in use, in the next checkpoint's map
//        -> space_free() when the live tree lets go of it: still not to be used
//        -> free again when a superblock with a cut after that and its marker are durable (S2)
//   space_release() gives back what nobody on disk ever named (a dirty node, spilled data dropped),
//   at once.
//
// Counting: used + free = capacity. `reserved` blocks are promised to content in memory. A write is
// admitted only while free - reserved - wanted >= reserve, where `reserve` keeps room for the tree
// nodes of completions, deletes and checkpoints (space_reserve_blocks()). Capacity is what is
// allocated on the host: it grows (FAULT_GROW) before anything is granted on it.
//
// Everything runs under the store lock unless it says otherwise. No I/O under the lock.
#ifndef AF_STORE_SPACE_H
#define AF_STORE_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/io.h"
#include "base/lock.h"
#include "store/fault.h"
#include "store/store_format.h"

struct space;

// What the superblock says of the map.
struct space_image {
    uint64_t data_blocks;
    uint64_t used_blocks;
    uint32_t index_count;
    struct map_ref_disk *refs; // index_count of them
};

struct space_stats {
    uint64_t capacity;   // blocks of data
    uint64_t max_blocks; // cap
    uint64_t used;       // by the live tree, spilled data, the map and what waits to be freed
    uint64_t waiting;    // of these: freed, not yet to be used again
    uint64_t reserved;
    uint64_t reserve;
};

struct space_config {
    struct io_file *data; // borrowed
    struct io *io;
    uint8_t uuid[16];
    uint64_t max_blocks; // cap of the store's data (size=), UINT64_MAX: none
    // In-memory replay of `aerofs check`: capacity grows in memory, the file does not.
    bool read_only;
    // Rescue, with read_only: the map is not read, everything below this block (and in `data`) is
    // in use, and what replay allocates lies behind it, in memory alone. 0: not so.
    uint64_t sealed_blocks;
};

// Reads the index blocks (I/O; not under the lock). `image` is copied; index_count 0 for a new
// store. A map of more than max_blocks opens, but grants nothing above them.
int space_open(const struct space_config *config, const struct space_image *image,
               struct space **ret_space) AF_NODISCARD;
void space_close(struct space *sp); // NULL ok

// While recovery replays (and removes orphans) the whole reserve may be used: live operation kept
// clear of its last eighth, so that a replay that needs a node more than that did cannot fail.
void space_set_recovery(struct space *sp, bool recovering);

// Makes sure that `blocks` can be allocated by following space_alloc() calls (in runs of one block
// at worst) under this lock hold. 0, -AF_E_FAULT (FAULT_GROUP, FAULT_GROW; FAULT_SPACE when only
// waiting blocks would do), -ENOSPC, -ENOMEM. `urgent` may take from the reserve; blocks reserved
// before with space_reserve() are counted by the caller: pass `from_reserved` for those.
int space_prepare(struct space *sp, struct fault *f, uint64_t blocks, uint64_t from_reserved,
                  bool urgent) AF_NODISCARD;
// A run of 1…want blocks, as long as is found near `hint` (0: none). Cannot fail after
// space_prepare(). A run never leaves its group.
uint64_t space_alloc(struct space *sp, uint64_t want, uint64_t hint, uint64_t *ret_count);
// These two cannot fail. What does not fit the map (addresses come from the tree, so from disk) is
// left out and makes space_write_frozen() fail, so that no map is published that is wrong.
void space_log_alloc(struct space *sp, uint64_t address, uint64_t count);
void space_free(struct space *sp, uint64_t address, uint64_t count);
void space_release(struct space *sp, uint64_t address, uint64_t count);
// Promises; with f->urgent from the reserve too. 0, -AF_E_FAULT, -ENOSPC.
int space_reserve(struct space *sp, struct fault *f, uint64_t blocks) AF_NODISCARD;
void space_unreserve(struct space *sp, uint64_t blocks);
// Size of the reserve at the present capacity: a sixteenth of what the store can become, at least
// 256 blocks, at most 256 MiB. What is dirty in memory is bounded by a quarter of it, so that
// completions find room for their nodes.
uint64_t space_reserve_blocks(const struct space *sp);

// Replay: the log names these; they must be free in the map. Grows capacity where needed. May fault
// (FAULT_GROUP). -AF_E_SPACE_CLAIM when they are in use or out of bounds.
int space_claim(struct space *sp, struct fault *f, uint64_t address, uint64_t count) AF_NODISCARD;

// Resolvers; without the lock (taken inside where needed).
// A group that cannot be read is left out from then on, so an operation that only wants space fails
// once and then takes it elsewhere.
int space_load_group(struct space *sp, struct af_mutex *lock, uint64_t group) AF_NODISCARD;
// Allocates on the host and syncs `data` before anything is granted on the new part, since a record
// may name it as soon as it is granted. 0 also when the host has no more room or the cap is
// reached: that is noted, and the repeated space_prepare() decides whether a smaller reserve, or a
// checkpoint, lets the operation pass. -ENOMEM; anything else can be a failed sync of `data`: the
// store must fail, because what was written to it before may be lost.
int space_grow(struct space *sp, struct af_mutex *lock, uint64_t blocks) AF_NODISCARD;
// Growth leaves so much on the host, and a megabyte.
void space_leave_host(struct space *sp, struct af_mutex *lock, uint64_t bytes);

// ---- checkpoint ----
struct space_frozen; // allocs and frees of the interval that ends at the cut

// Reads what the checkpoint of the present interval will need of the map on disk, so that recovery
// meets damage to it before it writes anything. Nobody else uses the store.
int space_check_interval(struct space *sp, struct af_mutex *lock) AF_NODISCARD;
// Memory for the next space_freeze(), which cannot fail then. -ENOMEM
int space_freeze_prepare(struct space *sp) AF_NODISCARD;
// t0, under the lock, O(1): the current interval ends. Not before the last one is published.
struct space_frozen *space_freeze(struct space *sp); // NULL: out of memory
// From the last freeze on nothing that is freed is used anew before space_unhold(), although the
// map on disk has it free as soon as it is published: somebody still reads the tree that was
// frozen. Calls may nest.
void space_hold(struct space *sp);
void space_unhold(struct space *sp);
// Checkpoint thread alone, without the lock: adds a written node (data blocks were logged). Adding
// the same one again, when nodes are written a second time, changes nothing.
int space_frozen_add(struct space_frozen *z, uint64_t address, uint64_t count) AF_NODISCARD;
// t2, without the lock (taken shortly inside): applies the interval to the bitmaps of the groups
// concerned (reads those not in memory), writes them and the index blocks to their other slots.
// *ret_image is what the superblock is to say (refs: malloc, caller frees). May be repeated.
int space_write_frozen(struct space *sp, struct af_mutex *lock, struct space_frozen *z,
                       uint64_t sequence, struct space_image *ret_image) AF_NODISCARD;
// t7, under the lock: the map just written is the published one; the interval's frees become free.
// Frees z.
void space_published(struct space *sp, struct space_frozen *z);
// Of a checkpoint that failed; the interval is lost, so no other can follow. NULL ok.
void space_frozen_free(struct space_frozen *z);

void space_get_stats(struct space *sp, struct space_stats *ret_stats);

// ---- scrub (space_check.c) ----

// A block of the published map that is not what was written.
struct space_bad {
    int code; // 0: none
    uint64_t address, expected, found;
};
// Reads the published bitmap of `group` from `data`, and before it, for the first group of an index
// block, that. Without the lock. *ret_read: bytes. 0, *ret_bad telling; -ENOENT behind the last
// group; -ENOMEM.
int space_check_group(struct space *sp, struct af_mutex *lock, struct io_file *data, uint64_t group,
                      struct space_bad *ret_bad, uint64_t *ret_read) AF_NODISCARD;

// Bitmap and index blocks from disk: pure checks; for verification too. How many blocks the last
// group has they do not know: who knows data_blocks checks that what is free is not more than that.
int space_validate(const uint8_t *bytes, enum block_type type, uint64_t address, uint64_t checksum,
                   const uint8_t uuid[16]) AF_NODISCARD;
uint64_t space_bitmap_address(uint64_t group, unsigned slot);
uint64_t space_index_address(uint64_t index, unsigned slot);
// Blocks at the start of a group that are never free: 2, or 4 where an index lies.
unsigned space_group_reserved(uint64_t group);

#endif
