// SPDX-License-Identifier: MIT
// What checkpoint/ needs of the store: opening at a checkpoint, replay, freezing and writing a
// checkpoint, background duties. The store knows nothing of superblocks.
#ifndef AF_STORE_STORE_ENGINE_H
#define AF_STORE_STORE_ENGINE_H

#include "base/io.h"
#include "base/message.h"
#include "base/switch.h"
#include "store/btree.h"
#include "store/space.h"
#include "store/store.h"

// A state of the store as a superblock names it.
struct store_image {
    uint8_t uuid[16];
    uint64_t cut_lsn;
    uint64_t generation;
    struct tree_root root;
    uint64_t next_ino;
    uint64_t hash_seed;
    uint64_t inodes;
    struct space_image space;
    struct blkref snapshots; // newest block of the table; address 0: there are none
    uint64_t live_parent;    // id of the snapshot that the tree descends from; 0: none
    uint64_t next_snapshot;  // id of the next one
};

struct store_config {
    struct io *io;        // borrowed
    struct io_file *data; // borrowed; opened for writing unless read_only
    struct message_sink sink;
    uint64_t cache_bytes;    // budget of the block cache; at least 1 MiB
    uint64_t max_bytes;      // cap of `data` (size=), 0: none
    uint64_t pending_bytes;  // bound of file content held in memory (default 64 MiB when 0)
    uint64_t commit_open_ms; // C4's timer for appenders; 0: never
    bool read_only;          // no changes by callers (replay still applies in memory)
    uint64_t sealed_blocks;  // store_open_rescue(): see space.h
    // Called without locks by a thread that may wait: return when a checkpoint that started after
    // the call has been published (0), or an error. What it frees is then usable.
    int (*make_room)(void *arg);
    // Called from anywhere, must not block: the log or dirty memory has passed its soft bound;
    // something for store_background() has come up.
    void (*pressure)(void *arg);
    // Called without locks by a thread that may wait: return when no checkpoint is under way.
    void (*await_checkpoint)(void *arg);
    void *arg;
};

// A new, empty store in memory (root directory owned by `cred`, mode 0755), everything dirty;
// followed by a checkpoint.
int store_create_empty(const struct store_config *config, const uint8_t uuid[16],
                       uint64_t hash_seed, const struct store_cred *cred,
                       struct store **ret_store) AF_NODISCARD;
// Opens at an image: reads the root and the index blocks.
int store_open_image(const struct store_config *config, const struct store_image *image,
                     struct store **ret_store) AF_NODISCARD;
// Drops everything in memory, pending content included; no I/O. NULL ok.
void store_close(struct store *s);

// ---- replay: first every record is claimed, then every record is replayed, in order ----

int store_claim(struct store *s, const void *body, size_t body_bytes) AF_NODISCARD;
int store_replay(struct store *s, uint64_t lsn, const void *body, size_t body_bytes) AF_NODISCARD;
// After the last record: inode numbers are moved on after a crash (`crashed`).
void store_replay_end(struct store *s, uint64_t last_lsn, bool crashed);
// Removes all orphans in memory without the log (recovery, before its checkpoint): number of inodes
// and contents.
int store_remove_orphans(struct store *s, uint64_t *ret_count) AF_NODISCARD;
// Reads what the checkpoint that follows will need of the space map: damage to it is met before
// anything is written.
int store_check_space(struct store *s) AF_NODISCARD;
// From here on operations are logged. Before it, changes answer -EROFS.
void store_attach_wal(struct store *s, struct wal *wal);
// Once, after recovery and before the first request is served: until then the store does as if all
// were on.
void store_set_switches(struct store *s, struct switches switches);
// The number of the last write to `data` that has returned: wal_config.data_written.
uint64_t store_data_written(void *store);
// The log or a checkpoint failed: every later change answers the error's errno (EROFS for later
// ones, EIO for those under way).
void store_fail(struct store *s, int error, const char *what);

// ---- checkpoint: t0 to t7 of docs/FORMAT.md; one at a time, by one thread ----

struct store_frozen; // opaque
struct store_checkpoint_stats {
    uint64_t nodes, data_blocks, map_blocks, bytes_written;
    uint64_t freeze_us; // time under the lock
};
bool store_needs_checkpoint(struct store *s); // something was applied since the last freeze
int store_freeze(struct store *s, struct store_frozen **ret_frozen) AF_NODISCARD; // t0
uint64_t store_frozen_cut(const struct store_frozen *z);                          // its cut
int store_write_frozen(struct store *s, struct store_frozen *z, uint64_t sequence,
                       struct store_image *ret_image, struct store_checkpoint_stats *ret_stats)
    AF_NODISCARD;                                  // t2; image->space.refs: caller frees
int store_sync_data(struct store *s) AF_NODISCARD; // t3
void store_published(struct store *s, struct store_frozen *z, uint64_t sequence); // t7, frees z
void store_frozen_free(struct store *s,
                       struct store_frozen *z); // after a failure (the store has failed); NULL ok

// Duties that may be late, called every 100 to 500 ms while store_busy(): completion of appenders
// (C4), freeing of contents on the orphan list in bounded steps, eviction. May block. now_ms: io
// ticks.
void store_background(struct store *s, uint64_t now_ms);
bool store_busy(struct store *s);
// True when dirty memory or the log has passed the soft bound at which a checkpoint should start.
bool store_wants_checkpoint(struct store *s);
// Completes all pending content that still has a name or an open handle? No: unmount completes what
// closed handles left; what is still open at shutdown counts as closed by its owner's end:
// completed.
int store_complete_all(struct store *s) AF_NODISCARD;

// Text of a record body for `aerofs log`; never fails on garbage. Declared here since only the
// store knows bodies.
struct buf;
void op_to_text(const void *body, size_t body_bytes, struct buf *out);

#endif
