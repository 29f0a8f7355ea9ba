// SPDX-License-Identifier: MIT
// The engine: a store directory opened, recovered and running. One object ties the disk interface,
// the log, the store and the checkpoint thread together; fs/ and the tests start here.
#ifndef AF_CHECKPOINT_ENGINE_H
#define AF_CHECKPOINT_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/io.h"
#include "base/message.h"
#include "base/switch.h"
#include "store/store.h"

struct buf;
struct engine;

struct engine_options {
    uint64_t cache_bytes; // 0: 256 MiB
    uint64_t max_bytes;   // size=; 0: no cap
    uint64_t log_bytes;   // log=; 0: 64 MiB. A new store's segments are an eighth of it, 64 KiB to
                          // 16 MiB; existing stores keep theirs, and at least four of them
    uint64_t commit_open_ms; // UINT64_MAX: default 30 s; 0: never
    uint64_t pending_bytes;  // 0: default
    bool read_only; // recovers first (unless the disk is read-only, then only a clean store opens),
                    // then changes nothing
    struct switches switches; // read here only; recovery does not know them
    bool threads; // run the checkpoint thread; false: tests call engine_checkpoint() and
                  // engine_tick() themselves and waiting calls do their own work inline
    struct message_sink sink;
};

// What recovery did; kept for status.
struct engine_recovery {
    bool clean;                   // the store had been closed cleanly
    uint64_t sequence;            // superblock chosen
    uint64_t generation, cut_lsn; // of the checkpoint it started from
    uint64_t last_lsn;            // replayed up to here
    uint64_t records_replayed, bytes_replayed;
    uint64_t proven_lsn; // durable before the end, and so perhaps acknowledged; what follows it
    uint64_t records_unproven; // is kept, and nobody knows whether it was acknowledged
    uint64_t tail_records_dropped, tail_bytes_dropped;
    uint64_t tail_segment, tail_offset;
    uint64_t orphans_removed;
    uint64_t epoch; // the new one
    uint64_t duration_us;
    char text[512]; // all of it in a sentence or two
};

// The scrub that runs, or the last one.
enum engine_scrub_state { ENGINE_SCRUB_NEVER, ENGINE_SCRUB_RUNNING, ENGINE_SCRUB_ENDED };
struct engine_scrub {
    enum engine_scrub_state state;
    uint64_t number;             // since the store was opened
    uint64_t rate;               // bytes a second, 0: no bound
    uint64_t bytes, total_bytes; // read; in use when it began
    uint64_t nodes, data_blocks, map_blocks;
    uint64_t damage; // found, those that were known included
    int result;      // why it ended early: -EINTR, or what kept it from going on; 0
};

#define ENGINE_DAMAGE_LINES 8u
struct engine_status {
    struct store_status store;
    struct engine_recovery recovery;
    uint8_t uuid[16];
    uint64_t checkpoints; // since open
    uint64_t last_checkpoint_us, last_checkpoint_bytes;
    uint64_t segment_bytes;
    const char *io; // io_describe()
    struct switches switches;
    bool read_only;
    char state[24];      // "running", "read-only", "failed"
    size_t damage_count; // lines in use: the first names of what is damaged
    char damage[ENGINE_DAMAGE_LINES][STORE_DAMAGE_LINE];
};

// Makes a store in the directory of `io` (must be empty but for lost+found or the leftovers of an
// interrupted creation). -AF_E_STORE_EXISTS, -ENOTEMPTY, …; docs/FORMAT.md "Creation".
int engine_create(struct io *io, const struct engine_options *options,
                  const struct store_cred *cred) AF_NODISCARD;
// Opens, recovers, starts. `io` is borrowed. On refusal nothing on disk has changed and `message`
// (may be NULL; at least 512 bytes) says what, where and what to do.
int engine_open(struct io *io, const struct engine_options *options, struct engine **ret_engine,
                char *message_text, size_t message_size) AF_NODISCARD;
// Completes, flushes, writes a last checkpoint with the clean flag, stops threads, frees. Returns
// the first error; memory is freed in any case. `crash` leaves everything as it is (tests: as if
// killed).
int engine_close(struct engine *e) AF_NODISCARD;
void engine_abandon(struct engine *e); // as if killed: no I/O

struct store *engine_store(struct engine *e);
struct wal *engine_wal(struct engine *e); // NULL when the store is open read-only: no log runs
void engine_get_status(struct engine *e, struct engine_status *ret_status);
// The same as text ("key: value" lines) or JSON.
void engine_status_text(const struct engine_status *status, bool json, struct buf *out);
// Counters and gauges of it in the text format of Prometheus.
void engine_metrics_text(const struct engine_status *status, struct buf *out);

// Reads everything on disk and compares it with its checksums, in the background (scrub.h):
// superblocks, log, space map, tree, data. `rate`: bytes a second, 0: no bound. -EBUSY when one
// runs. Without threads it runs in the caller.
int engine_scrub(struct engine *e, uint64_t rate) AF_NODISCARD;
void engine_scrub_cancel(struct engine *e);
void engine_get_scrub(struct engine *e, struct engine_scrub *ret_scrub);
// "key: value" lines.
void engine_scrub_text(const struct engine_scrub *scrub, struct buf *out);

// Publishes a checkpoint now (waits for it). Without threads it runs in the caller.
int engine_checkpoint(struct engine *e) AF_NODISCARD;
// Background duties without threads: wal_tick, store_background, checkpoint if wanted.
void engine_tick(struct engine *e);
// Durable up to everything so far: convenience for tests and commands.
int engine_sync(struct engine *e) AF_NODISCARD;

#endif
