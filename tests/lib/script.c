// SPDX-License-Identifier: MIT
// Scripts: making them, and running their steps.
#include "tests/lib/script.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "tests/lib/canon.h"

#define NAMES       7u
#define DIRS        3u // besides the root
#define CHUNK_BYTES (160u << 10)

static const struct store_cred cred = {.uid = 1000, .gid = 1000};

const char *script_kind_name(enum script_kind kind)
{
    static const char *const names[SCRIPT_KIND_COUNT] = {
        "put",       "patch", "append",  "cut",   "mkdir",      "rmdir", "unlink",
        "rename",    "link",  "symlink", "xattr", "chmod",      "read",  "list",
        "keep-open", "fsync", "sync",    "batch", "checkpoint", "tick"};

    return names[kind];
}

// ---- making ----

static uint64_t some_size(struct rng *r)
{
    unsigned dice = (unsigned)rng_below(r, 100);

    if (dice < 35)
        return 1 + rng_below(r, 900);
    if (dice < 60)
        return 1025 + rng_below(r, 7000);
    if (dice < 85)
        return 4096 * (1 + rng_below(r, 12));
    return 65536 + rng_below(r, 130000);
}

static enum script_kind some_kind(struct rng *r)
{
    static const unsigned weights[SCRIPT_KIND_COUNT] = {
        [SCRIPT_PUT] = 20,  [SCRIPT_PATCH] = 8,   [SCRIPT_APPEND] = 5,     [SCRIPT_CUT] = 4,
        [SCRIPT_MKDIR] = 5, [SCRIPT_RMDIR] = 3,   [SCRIPT_UNLINK] = 5,     [SCRIPT_RENAME] = 6,
        [SCRIPT_LINK] = 3,  [SCRIPT_SYMLINK] = 3, [SCRIPT_SETXATTR] = 4,   [SCRIPT_CHMOD] = 3,
        [SCRIPT_READ] = 6,  [SCRIPT_LIST] = 3,    [SCRIPT_KEEP_OPEN] = 3,  [SCRIPT_FSYNC] = 8,
        [SCRIPT_SYNC] = 4,  [SCRIPT_BATCH] = 6,   [SCRIPT_CHECKPOINT] = 4, [SCRIPT_TICK] = 4,
    };
    unsigned total = 0, at = 0;

    for (unsigned i = 0; i < SCRIPT_KIND_COUNT; i++)
        total += weights[i];
    unsigned dice = (unsigned)rng_below(r, total);
    while (dice >= weights[at])
        dice -= weights[at++];
    return (enum script_kind)at;
}

void script_make(struct script *s, uint64_t seed, size_t count)
{
    struct rng r = {rng_mix(seed, 77)};

    AF_ASSERT(count <= SCRIPT_STEPS_MAX);
    *s = (struct script){.seed = seed, .count = count};
    for (size_t i = 0; i < count; i++) {
        s->steps[i] = (struct script_step){
            // The first ones make something to work on; each kind occurs.
            .kind = i < DIRS                       ? SCRIPT_MKDIR
                    : i < DIRS + SCRIPT_KIND_COUNT ? (enum script_kind)(i - DIRS)
                                                   : some_kind(&r),
            .dir = (unsigned)rng_below(&r, DIRS + 1),
            .name = (unsigned)rng_below(&r, NAMES),
            .to_dir = (unsigned)rng_below(&r, DIRS + 1),
            .to_name = (unsigned)rng_below(&r, NAMES),
            .off = rng_chance(&r, 50) ? 4096 * rng_below(&r, 20) : rng_below(&r, 70000),
            .size = some_size(&r),
            .seed = rng_next(&r),
        };
        if (i < DIRS) {
            s->steps[i].dir = 0;
            s->steps[i].name = NAMES + (unsigned)i;
        }
    }
}

// ---- what a step works on ----

static int find_dir(struct script_run *r, unsigned dir, uint64_t *ret_ino)
{
    struct store_attr attr;
    char name[16];
    int err;

    *ret_ino = INO_ROOT;
    if (dir == 0)
        return 0;
    snprintf(name, sizeof(name), "n%u", NAMES + dir - 1);
    err = store_lookup(r->fx.store, STORE_BLOCK, INO_ROOT, name, &attr);
    *ret_ino = err == 0 ? attr.ino : 0;
    return err == 0 && !S_ISDIR(attr.mode) ? -ENOTDIR : err;
}

static int find(struct script_run *r, unsigned dir, const char *name, uint64_t *ret_ino)
{
    struct store_attr attr;
    uint64_t parent;
    int err = find_dir(r, dir, &parent);

    if (err == 0)
        err = store_lookup(r->fx.store, STORE_BLOCK, parent, name, &attr);
    *ret_ino = err == 0 ? attr.ino : 0;
    return err;
}

uint64_t script_tree_hash(struct store *s)
{
    char where[CANON_WHERE_BYTES];
    struct canon c = {0};
    int err = canon_store(s, &c, where);
    uint64_t hash = c.hash;

    canon_free(&c);
    return err == 0 ? hash : 0;
}

// An operation may have come to its end, and nothing is pending: what readers see is history.
static void mark(struct script_run *r)
{
    if (r->known && r->step < r->known_steps)
        return;
    uint64_t hash = script_tree_hash(r->fx.store);

    if (hash == 0 || (r->state_count > 0 && r->states[r->state_count - 1] == hash))
        return;
    AF_ASSERT(r->state_count < SCRIPT_STATES_MAX);
    r->states[r->state_count++] = hash;
}

static int keep(int first, int err)
{
    return first < 0 ? first : err;
}

static int write_bytes(struct script_run *r, struct store_file *file, uint64_t off, uint64_t size,
                       uint64_t seed)
{
    static uint8_t bytes[CHUNK_BYTES];
    struct rng g = {seed};
    int err = 0;

    for (uint64_t at = 0; at < size && err == 0; at += CHUNK_BYTES) {
        size_t n = (size_t)AF_MIN(size - at, (uint64_t)CHUNK_BYTES);

        for (size_t i = 0; i < n; i += 8) {
            uint64_t v = rng_next(&g);

            memcpy(bytes + i, &v, AF_MIN(n - i, sizeof(v)));
        }
        err = store_write(r->fx.store, STORE_BLOCK, file, off + at, bytes, n, false);
    }
    return err;
}

static int open_new(struct script_run *r, unsigned dir, const char *name, int flags,
                    struct store_file **ret_file)
{
    struct store_attr attr;
    uint64_t parent;
    int err = find_dir(r, dir, &parent);

    if (err < 0)
        return err;
    err = store_create(r->fx.store, STORE_BLOCK, parent, name, 0644, flags, &cred, &attr, ret_file);
    if (err != -EEXIST)
        return err;
    err = store_lookup(r->fx.store, STORE_BLOCK, parent, name, &attr);
    return err < 0 ? err : store_open(r->fx.store, STORE_BLOCK, attr.ino, flags, ret_file);
}

static int put(struct script_run *r, unsigned dir, const char *name, uint64_t off, uint64_t size,
               int flags, uint64_t seed)
{
    struct store_file *file;
    int err = open_new(r, dir, name, flags, &file);

    if (err < 0)
        return err;
    if (flags & O_APPEND) {
        struct store_attr attr;

        err = store_getattr(r->fx.store, STORE_BLOCK, store_file_ino(file), &attr);
        off = err == 0 ? attr.size : 0;
    }
    if (err == 0)
        err = write_bytes(r, file, off, size, seed);
    err = keep(err, store_release(r->fx.store, STORE_BLOCK, file));
    mark(r);
    return err;
}

// ---- waiting ----

static void answered(struct wal_waiter *w, int result)
{
    struct script_ack *a = AF_CONTAINER_OF(w, struct script_ack, w);

    a->result = result;
    if (result == 0) {
        a->run->acked = AF_MAX(a->run->acked, a->state);
        if (a->run->acknowledged)
            a->run->acknowledged(a->run->arg);
    }
}

// Asks for durability of what is there. 0: it will be answered.
static int ask(struct script_run *r, unsigned i, uint64_t ino)
{
    struct script_ack *a = &r->acks[i];

    *a =
        (struct script_ack){.w.done = answered, .run = r, .state = r->state_count - 1, .result = 1};
    list_init(&a->w.link);
    int err =
        ino ? store_fsync(r->fx.store, STORE_BLOCK, ino, &a->w) : store_sync(r->fx.store, &a->w);
    if (err != 0)
        answered(&a->w, err > 0 ? 0 : err);
    return err < 0 ? err : 0;
}

static int await(struct script_run *r, unsigned count)
{
    int err = 0;

    store_kick(r->fx.store);
    for (unsigned i = 0; i < count; i++) {
        if (r->acks[i].result == 1)
            (void)!wal_wait(engine_wal(r->fx.engine), r->acks[i].w.lsn); // its answer is `result`
        AF_ASSERT(r->acks[i].result != 1);
        err = keep(err, r->acks[i].result);
    }
    return err;
}

static int durable(struct script_run *r, uint64_t ino)
{
    int err = ask(r, 0, ino);

    return err < 0 ? err : await(r, 1);
}

// Each client writes a file of its own; their fsyncs wait together. Every second batch has its
// first flush under way when the others come.
static int batch(struct script_run *r, const struct script_step *s)
{
    unsigned count = 2 + (unsigned)(s->seed % (SCRIPT_BATCH_MAX - 1)), asked = 0;
    char name[16];
    int err = durable(r, 0);

    for (unsigned i = 0; i < count && err == 0; i++) {
        uint64_t ino;

        snprintf(name, sizeof(name), "b%u", (s->name + i) % (NAMES + 4));
        // In line in its record, which is longer than a sector: a tear can come between any two.
        err = put(r, s->dir, name, 0, 560 + 70 * i, O_RDWR | O_TRUNC, s->seed + i);
        if (err == 0)
            err = find(r, s->dir, name, &ino);
        if (err == 0)
            err = ask(r, asked, ino);
        asked += err == 0;
        if (i == 0 && s->seed & 64)
            store_kick(r->fx.store);
    }
    return keep(err, await(r, asked));
}

// ---- the steps ----

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t len)
{
    return rng_mix(hash, checksum(CSUM_DATA, 1, bytes, len));
}

static int read_step(struct script_run *r, const struct script_step *s, uint64_t ino)
{
    static uint8_t bytes[CHUNK_BYTES];
    size_t got = 0;
    // Whole blocks, or not.
    uint64_t off = s->seed & 1 ? AF_ROUND_DOWN(s->off, UINT64_C(4096)) : s->off;
    size_t size = (size_t)(s->seed & 1 ? 4096 * (1 + s->size % 30) : 1 + s->size % CHUNK_BYTES);
    int err = store_read(r->fx.store, STORE_BLOCK, ino, off, bytes, size, &got);

    if (err == 0)
        r->reads[r->step] = hash_bytes(got, bytes, got);
    return err;
}

struct listing {
    uint64_t sum, cookie;
};

static int list_entry_of(void *arg, const char *name, size_t name_len, uint64_t ino, uint32_t mode,
                         const struct store_attr *attr, uint64_t next_cookie)
{
    struct listing *l = arg;

    (void)attr;
    l->sum = rng_mix(hash_bytes(l->sum, name, name_len), rng_mix(ino, mode));
    l->cookie = next_cookie;
    return 0;
}

static int list_step(struct script_run *r, const struct script_step *s)
{
    struct listing l = {0};
    uint64_t dir;
    int err = find_dir(r, s->dir, &dir);

    if (err == 0)
        err = store_readdir(r->fx.store, STORE_BLOCK, dir, 0, true, list_entry_of, &l);
    r->reads[r->step] = l.sum;
    return err;
}

static int keep_open(struct script_run *r, const struct script_step *s, const char *name)
{
    struct store_file *file;
    struct store_attr attr;
    uint64_t parent;
    int err = open_new(r, s->dir, name, O_RDWR | O_TRUNC, &file);

    if (err < 0)
        return err;
    err = write_bytes(r, file, 0, s->size, s->seed);
    if (err == 0) {
        err = ask(r, 0, store_file_ino(file));
        mark(r);
        r->acks[0].state = r->state_count - 1; // the fsync has completed the content
        err = err < 0 ? err : await(r, 1);
    }
    if (err == 0)
        err = write_bytes(r, file, s->off, 5000, s->seed + 1);
    if (err == 0)
        err = find_dir(r, s->dir, &parent);
    if (err == 0)
        err = store_getattr(r->fx.store, STORE_BLOCK, store_file_ino(file), &attr);
    // With another name left, history would hold a state that no reader sees: unlinked, but without
    // what is pending.
    if (err == 0 && s->seed & 1 && attr.nlink == 1)
        err = store_unlink(r->fx.store, STORE_BLOCK, parent, name);
    err = keep(err, store_release(r->fx.store, STORE_BLOCK, file));
    mark(r);
    return err;
}

static int rename_step(struct script_run *r, const struct script_step *s, const char *name,
                       const char *to)
{
    uint64_t from_dir, to_dir;
    int err = find_dir(r, s->dir, &from_dir);

    if (err == 0)
        err = find_dir(r, s->to_dir, &to_dir);
    if (err == 0)
        err = store_rename(r->fx.store, STORE_BLOCK, from_dir, name, to_dir, to, 0);
    return err;
}

static int name_step(struct script_run *r, const struct script_step *s, const char *name)
{
    struct store *st = r->fx.store;
    struct store_attr attr;
    uint64_t dir;
    int err = find_dir(r, s->dir, &dir);

    if (err < 0)
        return err;
    if (s->kind == SCRIPT_MKDIR)
        return store_mknod(st, STORE_BLOCK, dir, name, S_IFDIR | 0755, 0, &cred, &attr);
    if (s->kind == SCRIPT_RMDIR)
        return store_rmdir(st, STORE_BLOCK, dir, name);
    if (s->kind == SCRIPT_UNLINK)
        return store_unlink(st, STORE_BLOCK, dir, name);
    return store_symlink(st, STORE_BLOCK, dir, name, "somewhere/else", &cred, &attr);
}

static int inode_step(struct script_run *r, const struct script_step *s, uint64_t ino)
{
    struct store *st = r->fx.store;
    struct store_attr attr = {.mode = 0600 + (uint32_t)(s->seed % 64), .size = s->off};
    uint64_t dir;
    char name[16];
    int err;

    switch ((int)s->kind) {
    case SCRIPT_CUT:
        return store_setattr(st, STORE_BLOCK, ino, NULL, &attr, STORE_SET_SIZE, &attr);
    case SCRIPT_CHMOD:
        return store_setattr(st, STORE_BLOCK, ino, NULL, &attr, STORE_SET_MODE, &attr);
    case SCRIPT_SETXATTR:
        return store_setxattr(st, STORE_BLOCK, ino, "user.x", &s->seed, 1 + s->seed % 8, 0);
    case SCRIPT_READ:
        return read_step(r, s, ino);
    case SCRIPT_FSYNC:
        return durable(r, ino);
    case SCRIPT_LINK:
        snprintf(name, sizeof(name), "n%u", s->to_name);
        err = find_dir(r, s->to_dir, &dir);
        return err < 0 ? err : store_link(st, STORE_BLOCK, ino, dir, name, &attr);
    default:
        AF_ASSERT(!"a step without a call");
    }
    return -EINVAL;
}

static int run_step(struct script_run *r, const struct script_step *s)
{
    char name[16], to[16];
    uint64_t ino;

    snprintf(name, sizeof(name), "n%u", s->name);
    snprintf(to, sizeof(to), "n%u", s->to_name);
    switch ((int)s->kind) {
    case SCRIPT_PUT:
        return put(r, s->dir, name, 0, s->size, O_RDWR | O_TRUNC, s->seed);
    case SCRIPT_PATCH:
        return put(r, s->dir, name, s->off, s->size, O_RDWR, s->seed);
    case SCRIPT_APPEND:
        return put(r, s->dir, name, 0, s->size, O_RDWR | O_APPEND, s->seed);
    case SCRIPT_KEEP_OPEN:
        return keep_open(r, s, name);
    case SCRIPT_LIST:
        return list_step(r, s);
    case SCRIPT_BATCH:
        return batch(r, s);
    case SCRIPT_SYNC:
        return durable(r, 0);
    case SCRIPT_CHECKPOINT:
        return engine_checkpoint(r->fx.engine);
    case SCRIPT_TICK:
        sim_advance_ms(r->fx.sim, 600);
        engine_tick(r->fx.engine);
        while (wal_pump(engine_wal(r->fx.engine), true) > 0)
            ;
        return 0;
    case SCRIPT_RENAME:
        return rename_step(r, s, name, to);
    case SCRIPT_MKDIR:
    case SCRIPT_RMDIR:
    case SCRIPT_UNLINK:
    case SCRIPT_SYMLINK:
        return name_step(r, s, name);
    default: {
        int err = find(r, s->dir, name, &ino);

        return err < 0 ? err : inode_step(r, s, ino);
    }
    }
}

void script_step(struct script_run *r)
{
    const struct script_step *s = &r->script->steps[r->step];

    AF_ASSERT(r->step < r->script->count);
    sim_advance_ms(r->fx.sim, 3);
    sim_set_tag(r->fx.sim, script_kind_name(s->kind));
    r->replies[r->step] = run_step(r, s);
    mark(r);
    if (r->known && r->step < r->known_steps) {
        r->state_count = r->known->counts[r->step];
        memcpy(r->states, r->known->states, r->state_count * sizeof(r->states[0]));
        r->acked = r->known->ackeds[r->step];
    }
    r->visible[r->step] = r->states[r->state_count - 1];
    r->counts[r->step] = r->state_count;
    r->ackeds[r->step] = r->acked;
    r->step++;
}

// ---- life ----

void script_begin(struct script_run *r, const struct script *s, struct switches switches)
{
    script_begin_on(r, s, switches, NULL, sim_create(rng_mix(s->seed, 3)));
}

void script_begin_on(struct script_run *r, const struct script *s, struct switches switches,
                     struct io *io, struct sim *clock)
{
    struct fixture plain;

    *r = (struct script_run){.script = s};
    fixture_init(&plain, 1); // for its options
    fixture_adopt(&r->fx, clock, &plain.options);
    fixture_free(&plain);
    r->fx.io = io;
    r->fx.options.switches = switches;
    // Without group commit a record takes a block of the log: no choice may run out of it and into
    // a checkpoint of its own.
    // (A real disk takes its time to fill a large one with zeros.)
    if (!io)
        r->fx.options.log_bytes = UINT64_C(8) << 20;
    int err = fixture_create(&r->fx);
    if (err == 0)
        err = fixture_open(&r->fx);
    AF_ASSERT(err == 0);
    mark(r);
}

void script_end(struct script_run *r)
{
    fixture_free(&r->fx);
}

int64_t script_find(const struct script_run *r, uint64_t hash, size_t from, size_t to)
{
    for (size_t i = to + 1; i-- > from;)
        if (r->states[i] == hash)
            return (int64_t)i;
    return -1;
}

// What is found after it goes on as history.
static int go_on(struct script_run *r, struct switches switches)
{
    r->fx.options.switches = switches;
    int err = fixture_open(&r->fx);
    if (err < 0)
        return err;
    uint64_t hash = script_tree_hash(r->fx.store);
    int64_t found = hash ? script_find(r, hash, r->acked, r->state_count - 1) : -1;

    if (found < 0)
        return -ENODATA;
    mark(r);
    r->acked = r->state_count - 1;
    return 0;
}

int script_crash(struct script_run *r, enum crash_kind kind, struct switches switches)
{
    fixture_leave(&r->fx);
    crash_disk(r->fx.sim, kind, r->step);
    return go_on(r, switches);
}

int script_kill(struct script_run *r, struct switches switches)
{
    fixture_abandon(&r->fx);
    return go_on(r, switches);
}

int script_reopen(struct script_run *r, struct switches switches)
{
    int err = fixture_close(&r->fx);

    if (err < 0)
        return err;
    r->acked = r->state_count - 1;
    return go_on(r, switches);
}
