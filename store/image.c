// SPDX-License-Identifier: MIT
// Opening a store at an image, replaying the log onto it, and handing a frozen image to the
// checkpoint: what checkpoint/ needs.

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/err.h"
#include "store/rescue.h"
#include "store/store_internal.h"

#define CACHE_BYTES_MIN       (UINT64_C(1) << 20)
#define PENDING_BYTES_DEFAULT (UINT64_C(64) << 20)
#define NUMBERS_JUMP          (UINT64_C(1) << 20) // after a crash: numbers that nobody may get again

static int store_new(const struct store_config *config, const uint8_t uuid[16], uint64_t hash_seed,
                     struct store **ret)
{
    struct store *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->config = *config;
    s->hash_seed = hash_seed;
    s->pending_mem_max =
        (config->pending_bytes ? config->pending_bytes : PENDING_BYTES_DEFAULT) / BLOCK_BYTES;
    list_init(&s->pending);
    list_init(&s->reap);
    list_init(&s->files);
    buf_init(&s->encode);
    af_mutex_init(&s->lock, LOCK_RANK_STORE);
    af_cond_init(&s->gate_opened);
    memcpy(s->tree.uuid, uuid, 16);
    int err = cache_init(&s->cache, AF_MAX(config->cache_bytes, CACHE_BYTES_MIN));

    if (err < 0) {
        af_cond_destroy(&s->gate_opened);
        af_mutex_destroy(&s->lock);
        free(s);
        return err;
    }
    s->tree.cache = &s->cache;
    s->tree.keeps = snapshot_keeps_node;
    s->tree.keeps_arg = s;
    if (!config->read_only) {
        err = io_file_open(config->io, config->data->path, IO_WRITE, &s->data_checkpoint);
        if (err == 0)
            err = io_file_open(config->io, config->data->path, IO_WRITE, &s->data_growth);
    }
    if (err < 0)
        store_close(s);
    else
        *ret = s;
    return err;
}

static int open_space(struct store *s, const struct space_image *image)
{
    struct space_config config = {
        .data = s->data_growth ? s->data_growth : s->config.data,
        .io = s->config.io,
        .max_blocks = s->config.max_bytes ? s->config.max_bytes / BLOCK_BYTES : UINT64_MAX,
        .read_only = s->config.read_only && s->config.io->read_only,
        .sealed_blocks = s->config.sealed_blocks,
    };

    memcpy(config.uuid, s->tree.uuid, 16);
    int err = space_open(&config, image, &s->space);

    s->tree.space = s->space;
    return err;
}

// The tree of a new store: its root directory.
static int create_locked(struct store *s, struct fault *f, const struct store_cred *cred)
{
    struct timespec now = store_now(s);
    struct inode root = {
        .mode = S_IFDIR | 0755,
        .nlink = 2,
        .uid = cred->uid,
        .gid = cred->gid,
        .atime = now,
        .mtime = now,
        .ctime = now,
        .btime = now,
        .content_id = INO_ROOT,
        .parent = INO_ROOT,
    };
    int err = tree_prepare(&s->tree, f, 8, 0, true);

    if (err < 0)
        return err;
    tree_create(&s->tree);
    inode_put(s, INO_ROOT, &root);
    s->next_ino = s->logged_ino = INO_ROOT + 1;
    s->inodes = 1;
    s->dirty = true;
    return 0;
}

int store_create_empty(const struct store_config *config, const uint8_t uuid[16],
                       uint64_t hash_seed, const struct store_cred *cred, struct store **ret_store)
{
    struct space_image none = {0};
    struct store *s;
    struct fault f;
    int err = store_new(config, uuid, hash_seed, &s);

    if (err < 0)
        return err;
    s->tree.generation = 1;
    s->snapshots.next_id = 1;
    err = open_space(s, &none);
    if (err == 0) {
        fault_begin(&f);
        do {
            store_lock(s);
            err = create_locked(s, &f, cred);
            store_unlock(s);
        } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    }
    if (err < 0) {
        store_close(s);
        return err;
    }
    *ret_store = s;
    return 0;
}

static int check_root(struct store *s)
{
    struct inode root;
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = inode_get(s, &f, INO_ROOT, &root);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    if (err == -ENOENT || (err == 0 && !S_ISDIR(root.mode)))
        return -AF_E_ITEM;
    return err;
}

static int open_at(const struct store_config *config, const struct store_image *image,
                   struct store **ret_store)
{
    struct store *s;
    int err = store_new(config, image->uuid, image->hash_seed, &s);

    if (err < 0)
        return err;
    s->tree.root = image->root;
    s->tree.generation =
        image->generation + 1; // the frozen one is on disk; what is born now is younger
    s->next_ino = s->logged_ino = image->next_ino;
    s->inodes = image->inodes;
    s->applied_lsn = s->frozen_lsn = s->checkpoint_lsn = image->cut_lsn;
    err = open_space(s, &image->space);
    if (err < 0) {
        store_close(s);
        return err;
    }
    *ret_store = s;
    return 0;
}

int store_open_image(const struct store_config *config, const struct store_image *image,
                     struct store **ret_store)
{
    struct store *s;
    int err = open_at(config, image, &s);

    if (err < 0)
        return err;
    err = check_root(s);
    if (err == 0)
        err = snapshots_load(s, &image->snapshots, image->live_parent, image->next_snapshot);
    if (err < 0) {
        store_close(s);
        return err;
    }
    *ret_store = s;
    return 0;
}

int store_open_rescue(const struct store_config *config, const struct store_image *image,
                      struct store **ret_store)
{
    AF_ASSERT(config->read_only && config->io->read_only && config->sealed_blocks > 0);
    return open_at(config, image, ret_store);
}

static void free_oinodes(struct store *s)
{
    for (size_t i = 0; i < OINODE_BUCKETS; i++) {
        while (s->oinodes[i]) {
            struct oinode *oi = s->oinodes[i];

            if (oi->p)
                pending_drop(s, oi);
            s->oinodes[i] = oi->hash_next;
            free(oi);
        }
    }
}

void store_close(struct store *s)
{
    if (!s)
        return;
    if (s->space)
        free_oinodes(s);
    while (!list_empty(&s->reap)) {
        struct reap *r = list_entry(s->reap.next, struct reap, link);

        list_remove(&r->link);
        free(r);
    }
    while (!list_empty(&s->files)) {
        struct store_file *file = list_entry(s->files.next, struct store_file, link);

        list_remove(&file->link);
        free(file);
    }
    damage_list_free(&s->damage);
    reclaim_free(s, s->snapshots.reclaim);
    snapshots_free(&s->snapshots);
    space_close(s->space);
    io_file_close(s->data_checkpoint);
    io_file_close(s->data_growth);
    cache_destroy(&s->cache);
    buf_free(&s->encode);
    af_cond_destroy(&s->gate_opened);
    af_mutex_destroy(&s->lock);
    free(s);
}

// ---- replay ----

static int claim_run(void *arg, uint64_t address, uint64_t count)
{
    struct store *s = arg;
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        err = space_claim(s->space, &f, address, count);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    return err;
}

int store_claim(struct store *s, const void *body, size_t body_bytes)
{
    struct op op;
    int err = op_decode(body, body_bytes, &op);

    if (err < 0)
        return err;
    err = op_addresses(&op, claim_run, s);
    op_free(&op);
    return err;
}

int store_replay(struct store *s, uint64_t lsn, const void *body, size_t body_bytes)
{
    struct op op;
    struct fault f;
    int err = op_decode(body, body_bytes, &op);

    if (err < 0)
        return err;
    fault_begin(&f);
    do {
        store_lock(s);
        s->replaying = true;
        space_set_recovery(s->space, true);
        err = op_prepare(s, &f, &op);
        if (err == 0)
            op_apply(s, &op, lsn);
        s->replaying = false;
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    op_free(&op);
    return err;
}

void store_replay_end(struct store *s, uint64_t last_lsn, bool crashed)
{
    store_lock(s);
    s->applied_lsn = AF_MAX(s->applied_lsn, last_lsn);
    if (crashed) {
        s->next_ino += NUMBERS_JUMP;
        s->dirty = true;
    }
    s->logged_ino = s->next_ino; // the checkpoint that follows carries it
    store_unlock(s);
}

void store_attach_wal(struct store *s, struct wal *wal)
{
    store_lock(s);
    s->wal = wal;
    space_set_recovery(s->space, false);
    store_unlock(s);
}

void store_set_switches(struct store *s, struct switches switches)
{
    store_lock(s);
    AF_ASSERT(!s->have_switches);
    s->have_switches = true;
    s->no_record_data = !switch_on(switches, SWITCH_RECORD_DATA);
    s->no_large_writes = !switch_on(switches, SWITCH_LARGE_WRITES);
    s->no_read_ahead = !switch_on(switches, SWITCH_READ_AHEAD);
    s->no_read_in_place = !switch_on(switches, SWITCH_READ_IN_PLACE);
    s->no_batching = !switch_on(switches, SWITCH_WRITE_BATCHING);
    s->tree.single_writes = s->no_batching;
    s->closed_checkpoint = !switch_on(switches, SWITCH_OPEN_CHECKPOINT);
    s->cache.keeps_nothing = !switch_on(switches, SWITCH_BLOCK_CACHE);
    store_unlock(s);
}

uint64_t store_data_written(void *store)
{
    struct store *s = store;

    return atomic_load(&s->data_number);
}

// ---- checkpoint ----

struct store_frozen {
    struct store_image image; // complete but for checksums of the root and the space map
    struct space_frozen *space;
    struct snapshots_frozen snapshots;
    uint64_t freeze_us;
};

static uint64_t ticks_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

int store_check_space(struct store *s)
{
    store_lock(s);
    tree_sweep(&s->tree); // as the freeze will: what it frees counts
    store_unlock(s);
    return space_check_interval(s->space, &s->lock);
}

static int freeze_locked(struct store *s, struct fault *f, struct store_frozen *z)
{
    uint64_t start = ticks_us();

    AF_ASSERT(!s->frozen); // one checkpoint at a time
    if (s->failed)         // what a failed disk says of later syncs is worth nothing
        return s->failed;
    tree_sweep(&s->tree); // what it frees belongs to the interval that ends here
    reclaim_apply(s);
    int err = snapshots_prepare(s, f, &z->snapshots);
    if (err == 0)
        err = space_freeze_prepare(s->space);
    if (err < 0)
        return err;
    // From here on nothing fails.
    memcpy(z->image.uuid, s->tree.uuid, 16);
    z->image.cut_lsn = s->wal ? wal_cut(s->wal) : s->applied_lsn;
    snapshots_freeze(s, &z->snapshots, z->image.cut_lsn);
    z->space = space_freeze(s->space);
    z->image.generation = s->tree.generation;
    z->image.next_ino = s->next_ino;
    z->image.hash_seed = s->hash_seed;
    z->image.inodes = s->inodes;
    z->image.live_parent = z->snapshots.live_parent;
    z->image.next_snapshot = z->snapshots.next_id;
    tree_freeze(&s->tree);
    reclaim_frozen(s);
    s->frozen = true;
    s->dirty = false;
    s->frozen_lsn = s->applied_lsn;
    z->freeze_us = ticks_us() - start;
    return 0;
}

int store_freeze(struct store *s, struct store_frozen **ret_frozen)
{
    struct store_frozen *z = calloc(1, sizeof(*z));
    struct fault f;
    int err;

    if (!z)
        return -ENOMEM;
    fault_begin(&f);
    f.reaping = true; // it is the checkpoint that others wait for
    do {
        store_lock(s);
        err = freeze_locked(s, &f, z);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    if (err < 0) {
        store_frozen_free(s, z);
        return err;
    }
    *ret_frozen = z;
    return 0;
}

uint64_t store_frozen_cut(const struct store_frozen *z)
{
    return z->image.cut_lsn;
}

struct adder {
    struct space_frozen *z;
    int err;
};

static void add_written(void *arg, uint64_t address, uint64_t count)
{
    struct adder *a = arg;

    if (a->err == 0)
        a->err = space_frozen_add(a->z, address, count);
}

int store_write_frozen(struct store *s, struct store_frozen *z, uint64_t sequence,
                       struct store_image *ret_image, struct store_checkpoint_stats *ret_stats)
{
    struct adder adder = {.z = z->space};
    struct tree_write_stats w = {0};
    int err = tree_write_frozen(&s->tree, &s->lock, s->config.data, add_written, &adder, &w);

    if (err == 0)
        err = adder.err;
    if (err == 0)
        err = snapshots_write(s, &z->snapshots, &s->tree.frozen_root, sequence);
    if (err == 0)
        err = space_write_frozen(s->space, &s->lock, z->space, sequence, &z->image.space);
    if (err < 0)
        return err;
    z->image.root = s->tree.frozen_root; // only this thread changes it
    z->image.snapshots = z->snapshots.head;
    *ret_image = z->image;
    z->image.space.refs = NULL; // the caller's from here on
    *ret_stats = (struct store_checkpoint_stats){
        .nodes = w.nodes,
        .data_blocks = w.data_blocks,
        .map_blocks = z->image.space.index_count,
        .bytes_written = (w.nodes + w.data_blocks) * BLOCK_BYTES,
        .freeze_us = z->freeze_us,
    };
    return 0;
}

int store_sync_data(struct store *s)
{
    return io_sync(s->data_checkpoint);
}

#define THAW_AT_ONCE 4096

void store_published(struct store *s, struct store_frozen *z, uint64_t sequence)
{
    bool done;

    do { // in chunks: a large checkpoint does not hold up the others at its end
        store_lock(s);
        done = tree_thaw(&s->tree, THAW_AT_ONCE);
        store_unlock(s);
    } while (!done);
    store_lock(s);
    space_published(s->space, z->space);
    snapshots_published(s, &z->snapshots);
    reclaim_published(s, &z->image.root);
    s->checkpoint_lsn = z->image.cut_lsn;
    s->checkpoint_sequence = sequence;
    s->frozen = false;
    store_unlock(s);
    snapshots_frozen_free(&z->snapshots);
    free(z);
}

void store_frozen_free(struct store *s, struct store_frozen *z)
{
    (void)s; // the store has failed: what is frozen stays so until it is closed
    if (!z)
        return;
    space_frozen_free(z->space);
    snapshots_frozen_free(&z->snapshots);
    free(z->image.space.refs);
    free(z);
}
