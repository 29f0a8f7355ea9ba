// SPDX-License-Identifier: MIT
// The thread that looks after damage: it scrubs the store when it is asked to, and finds the names
// of what was met as damaged. Both may take long; nobody waits for it, and it holds no lock while
// it reads.
//
// A scrub: a checkpoint, so that the disk is the newest state; superblocks and log, while no
// checkpoint runs; the space map; the tree and all data. What it finds goes to the list of the
// store.
#ifndef AF_CHECKPOINT_SCRUB_H
#define AF_CHECKPOINT_SCRUB_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "base/message.h"
#include "checkpoint/checkpointer.h"
#include "checkpoint/engine.h"

struct scrub {
    struct checkpointer *checkpointer; // borrowed, as all pointers here
    struct store *store;
    struct io *io;
    struct message_sink sink;
    bool have_thread;
    pthread_t thread;
    atomic_bool cancel; // ends the scrub, or the search for names, at its next step
    atomic_bool look;   // damage has come whose names are not known

    struct af_mutex lock;
    struct af_cond wake;
    // Guarded by `lock`.
    bool stop;
    bool wanted;
    struct engine_scrub status;
    // Of the scrub that runs; used by it alone.
    uint64_t started_ms, paced_bytes;
};

void scrub_init(struct scrub *sc, struct checkpointer *p, const struct message_sink *sink);
void scrub_destroy(struct scrub *sc);
// From here on `store` is looked after.
int scrub_start(struct scrub *sc, struct store *store, struct io *io) AF_NODISCARD;
void scrub_stop(struct scrub *sc); // ends what runs, joins; harmless without a thread
// Damage may have come. From anywhere, does not wait.
void scrub_kick(struct scrub *sc);
// A scrub with at most `rate` bytes a second (0: no bound). -EBUSY when one runs.
int scrub_want(struct scrub *sc, uint64_t rate) AF_NODISCARD;
void scrub_cancel(struct scrub *sc);
void scrub_get(struct scrub *sc, struct engine_scrub *ret_status);
// One scrub in the calling thread; for stores without threads.
void scrub_run(struct scrub *sc, struct store *store, struct io *io, uint64_t rate);

#endif
