// SPDX-License-Identifier: MIT
// The thread that scrubs and names damage (scrub.h).

#include "checkpoint/scrub.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "store/damage.h"
#include "store/scrub.h"
#include "store/store_engine.h"

#define NAMES_AGAIN_MS 2000u // damage comes in numbers: names are not looked for after each

static uint64_t ticks(const struct scrub *sc)
{
    return sc->io->ops->ticks_ms(sc->io);
}

void scrub_init(struct scrub *sc, struct checkpointer *p, const struct message_sink *sink)
{
    *sc = (struct scrub){.checkpointer = p, .sink = *sink};
    atomic_init(&sc->cancel, false);
    atomic_init(&sc->look, false);
    af_mutex_init(&sc->lock, LOCK_RANK_CKPT);
    af_cond_init(&sc->wake);
}

void scrub_destroy(struct scrub *sc)
{
    AF_ASSERT(!sc->have_thread);
    af_cond_destroy(&sc->wake);
    af_mutex_destroy(&sc->lock);
}

// ---- pace ----

// After each read: counts, and sleeps as long as the rate asks for.
static bool pace(void *arg, uint64_t bytes)
{
    struct scrub *sc = arg;
    bool go_on;

    sc->paced_bytes += bytes;
    af_lock(&sc->lock);
    sc->status.bytes = sc->paced_bytes;
    sc->status.total_bytes = AF_MAX(sc->status.total_bytes, sc->paced_bytes);
    for (;;) {
        uint64_t rate = sc->status.rate, due_ms;

        go_on = !atomic_load(&sc->cancel) && !sc->stop;
        due_ms = rate ? sc->paced_bytes / rate * 1000 + sc->paced_bytes % rate * 1000 / rate : 0;
        uint64_t gone = ticks(sc) - sc->started_ms;
        // Short debts are let grow, since a sleep has its own length.
        if (!go_on || due_ms < gone + 5)
            break;
        (void)af_cond_wait_ms(&sc->wake, &sc->lock, due_ms - gone); // why it ended is looked at
    }
    af_unlock(&sc->lock);
    return go_on;
}

// ---- superblocks and log: while no checkpoint runs ----

struct fixed_part {
    struct scrub *sc;
    uint64_t durable; // LSN, before
    uint64_t bytes, damage;
    int err;
};

static void found(struct fixed_part *f, const struct store_damage *d)
{
    f->damage++;
    store_note_damage(f->sc->store, d);
}

// Both slots are written in turn, and the older one is what a torn write of the newer leaves.
static void check_superblocks(struct fixed_part *f, const struct checkpoint *c)
{
    struct superblock_slots slots;
    int err = superblock_load_disk(c->io, &slots);

    if (err < 0) {
        found(f, &(struct store_damage){.code = err, .file = SUPERBLOCK_FILE});
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        struct store_damage d = {.code = slots.result[i],
                                 .file = SUPERBLOCK_FILE,
                                 .off = (uint64_t)i * SUPERBLOCK_SLOT_BYTES};

        if (d.code == 0 && i == superblock_home(c->newest.sequence) &&
            slots.sb[i].sequence != c->newest.sequence)
            d.code = -AF_E_SB_STALE;
        if (d.code < 0)
            found(f, &d);
    }
    f->bytes += UINT64_C(2) * SUPERBLOCK_SLOT_BYTES;
    superblock_slots_free(&slots);
}

// What was durable before the scan must be found by it, whatever is being written behind it.
static void check_log(struct fixed_part *f, const struct checkpoint *c)
{
    struct wal_scan_result scan;
    struct store_damage d = {.code = -AF_E_LOG_DAMAGED};
    int err = wal_scan_disk(c->io, &c->newest.log, &scan);

    if (err < 0) {
        f->err = err;
        return;
    }
    f->bytes += scan.bytes;
    if (scan.last_lsn >= f->durable)
        return;
    wal_segment_path(scan.end_segment, d.file);
    d.off = scan.end_offset;
    (void)snprintf(d.text, sizeof(d.text),
                   "%s, offset %llu: LSN %llu is durable, and what is read there ends at %llu; "
                   "the next checkpoint makes this part of the log unnecessary",
                   d.file, (unsigned long long)scan.end_offset, (unsigned long long)f->durable,
                   (unsigned long long)scan.last_lsn);
    found(f, &d);
}

static void check_fixed(void *arg, struct checkpoint *c)
{
    struct fixed_part *f = arg;

    f->durable = wal_durable_lsn(c->wal);
    check_superblocks(f, c);
    check_log(f, c);
}

// A store that is open read-only has no log, and its superblocks were read when it was opened.
static int scrub_fixed(struct scrub *sc)
{
    struct fixed_part f = {.sc = sc};

    if (!sc->checkpointer->checkpoint->wal)
        return 0;
    int err = checkpointer_run(sc->checkpointer);
    if (err < 0)
        return err;
    checkpointer_between(sc->checkpointer, check_fixed, &f);
    af_lock(&sc->lock);
    sc->status.damage += f.damage;
    af_unlock(&sc->lock);
    return f.err < 0 ? f.err : pace(sc, f.bytes) ? 0 : -EINTR;
}

// ---- one scrub ----

static int scrub_data(struct scrub *sc)
{
    struct store_scrub part = {.store = sc->store, .pace = pace, .arg = sc};
    int err = io_file_open(sc->io, "data", IO_READ_ONLY | IO_LOG, &part.data);

    if (err < 0)
        return err;
    err = store_scrub_begin(&part);
    if (err == 0)
        err = store_scrub_map(&part);
    if (err == 0)
        err = store_scrub_tree(&part);
    store_scrub_end(&part);
    io_file_close(part.data);
    af_lock(&sc->lock);
    sc->status.damage += part.damage;
    sc->status.nodes = part.nodes;
    sc->status.data_blocks = part.data_blocks;
    sc->status.map_blocks = part.map_blocks;
    af_unlock(&sc->lock);
    return err;
}

static void look_for_names(struct scrub *sc)
{
    atomic_store(&sc->look, false);
    if (!store_damage_unnamed(sc->store))
        return;
    int err = store_damage_locate(sc->store, &sc->cancel);

    // Without the root of the tree no name is known; the next damage tries again.
    if (err < 0 && err != -EINTR && !err_is_corruption(err))
        message(&sc->sink, MESSAGE_WARNING,
                "the names of what is damaged could not be looked for: %s (%s)", err_text(err),
                err_name(err));
}

static void tell(struct scrub *sc, const struct engine_scrub *s)
{
    enum message_level level = s->damage ? MESSAGE_ERROR : MESSAGE_INFO;

    if (s->result < 0)
        message(&sc->sink, MESSAGE_WARNING, "scrub: ended after %llu bytes: %s",
                (unsigned long long)s->bytes, err_text(s->result));
    else
        message(
            &sc->sink, level,
            "scrub: %llu bytes read (%llu tree nodes, %llu data blocks, %llu of the space map), "
            "%llu damaged",
            (unsigned long long)s->bytes, (unsigned long long)s->nodes,
            (unsigned long long)s->data_blocks, (unsigned long long)s->map_blocks,
            (unsigned long long)s->damage);
}

static void run_one(struct scrub *sc)
{
    struct store_status st;
    struct engine_scrub end;

    store_get_status(sc->store, &st);
    sc->paced_bytes = 0;
    sc->started_ms = ticks(sc);
    af_lock(&sc->lock);
    sc->status.total_bytes = st.space_used_blocks * BLOCK_BYTES;
    af_unlock(&sc->lock);
    int err = scrub_fixed(sc);
    if (err == 0)
        err = scrub_data(sc);
    af_lock(&sc->lock);
    if (!sc->stop)
        atomic_store(&sc->cancel, false); // a scrub that was ended has its names looked for
    af_unlock(&sc->lock);
    look_for_names(sc);
    af_lock(&sc->lock);
    sc->status.state = ENGINE_SCRUB_ENDED;
    sc->status.result = err;
    end = sc->status;
    af_unlock(&sc->lock);
    tell(sc, &end);
}

// ---- the thread ----

static void *thread_main(void *arg)
{
    struct scrub *sc = arg;
    uint64_t looked_ms = 0;

    af_lock(&sc->lock);
    while (!sc->stop) {
        bool look = atomic_load(&sc->look);
        uint64_t now = ticks(sc);

        if (sc->wanted) {
            sc->wanted = false;
            af_unlock(&sc->lock);
            run_one(sc);
            af_lock(&sc->lock);
        } else if (look && (looked_ms == 0 || now - looked_ms >= NAMES_AGAIN_MS)) {
            af_unlock(&sc->lock);
            look_for_names(sc);
            looked_ms = ticks(sc);
            af_lock(&sc->lock);
        } else if (look) {
            (void)af_cond_wait_ms(&sc->wake, &sc->lock, NAMES_AGAIN_MS - (now - looked_ms));
        } else {
            af_cond_wait(&sc->wake, &sc->lock);
        }
    }
    af_unlock(&sc->lock);
    return NULL;
}

int scrub_start(struct scrub *sc, struct store *store, struct io *io)
{
    AF_ASSERT(!sc->have_thread);
    sc->store = store;
    sc->io = io;
    atomic_store(&sc->look, store_damage_unnamed(store)); // met by recovery
    int err = pthread_create(&sc->thread, NULL, thread_main, sc);
    sc->have_thread = err == 0;
    return -err;
}

void scrub_stop(struct scrub *sc)
{
    if (!sc->have_thread)
        return;
    af_lock(&sc->lock);
    sc->stop = true;
    atomic_store(&sc->cancel, true);
    af_cond_broadcast(&sc->wake);
    af_unlock(&sc->lock);
    int err = pthread_join(sc->thread, NULL);
    AF_ASSERT(err == 0);
    sc->have_thread = false;
}

void scrub_kick(struct scrub *sc)
{
    if (!sc->store || !store_damage_unnamed(sc->store) || atomic_exchange(&sc->look, true))
        return;
    af_lock(&sc->lock);
    af_cond_broadcast(&sc->wake);
    af_unlock(&sc->lock);
}

int scrub_want(struct scrub *sc, uint64_t rate)
{
    int err = 0;

    af_lock(&sc->lock);
    if (sc->status.state == ENGINE_SCRUB_RUNNING)
        err = -EBUSY;
    else if (!sc->have_thread)
        err = -EOPNOTSUPP;
    if (err == 0) {
        sc->status = (struct engine_scrub){
            .state = ENGINE_SCRUB_RUNNING, .rate = rate, .number = sc->status.number + 1};
        atomic_store(&sc->cancel, false);
        sc->wanted = true;
        af_cond_broadcast(&sc->wake);
    }
    af_unlock(&sc->lock);
    return err;
}

void scrub_cancel(struct scrub *sc)
{
    af_lock(&sc->lock);
    if (sc->status.state == ENGINE_SCRUB_RUNNING) {
        atomic_store(&sc->cancel, true);
        af_cond_broadcast(&sc->wake);
    }
    af_unlock(&sc->lock);
}

void scrub_get(struct scrub *sc, struct engine_scrub *ret_status)
{
    af_lock(&sc->lock);
    *ret_status = sc->status;
    af_unlock(&sc->lock);
}

void scrub_run(struct scrub *sc, struct store *store, struct io *io, uint64_t rate)
{
    AF_ASSERT(!sc->have_thread);
    sc->store = store;
    sc->io = io;
    sc->status = (struct engine_scrub){
        .state = ENGINE_SCRUB_RUNNING, .rate = rate, .number = sc->status.number + 1};
    atomic_store(&sc->cancel, false);
    run_one(sc);
}
