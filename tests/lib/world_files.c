// SPDX-License-Identifier: MIT
// Random calls on files: each is made on the engine and on the model. And what makes them durable.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/lib/world_internal.h"

static const struct store_cred cred = {.uid = 1000, .gid = 1001};

// ---- open, write, close ----

static void call_release(struct world *w, struct world_handle *h)
{
    enum store_how how = world_how(w);
    int err;

    world_begin(w, "close");
    do
        err = store_release(w->fx.store, how, h->file);
    while (world_again(err, &how));
    h->file = NULL;
    model_release(&w->m, &h->model);
    world_check(w, err, 0);
}

static struct world_handle *free_handle(struct world *w)
{
    for (unsigned i = 0; i < WORLD_HANDLES; i++)
        if (!w->handles[i].file)
            return &w->handles[i];
    return NULL;
}

static struct world_handle *make_room(struct world *w)
{
    struct world_handle *h = free_handle(w);

    if (h)
        return h;
    h = pick_handle(w);
    call_release(w, h);
    return h;
}

static bool call_create(struct world *w, struct world_handle *h, uint64_t dir, const char *name)
{
    uint32_t mode = (uint32_t)rng_below(&w->r, 010000);
    int flags = O_RDWR | (rng_chance(&w->r, 30) ? O_APPEND : 0);
    enum store_how how = world_how(w);
    struct store_attr attr;
    int err, expected;

    world_begin(w, "create");
    do
        err = store_create(w->fx.store, how, dir, name, mode, flags, &cred, &attr, &h->file);
    while (world_again(err, &how));
    if (world_broke(w, err)) {
        h->file = NULL;
        return false;
    }
    if (err == 0)
        world_new_inode(w, attr.ino);
    if (w->failed)
        return false;
    expected =
        model_create(&w->m, dir, name, mode, flags, &cred, err == 0 ? attr.ino : 0, &h->model);
    if (!world_check(w, err, expected))
        h->file = NULL;
    return h->file != NULL;
}

static bool call_open(struct world *w, struct world_handle *h, uint64_t ino, int flags)
{
    struct model_inode *in = model_inode(&w->m, ino);
    enum store_how how = world_how(w);
    int err, expected;

    // Whether an empty file that has blocks is truncated once more is left open.
    if (in && model_size(in) == 0)
        flags &= ~O_TRUNC;
    world_begin(w, "open");
    do
        err = store_open(w->fx.store, how, ino, flags, &h->file);
    while (world_again(err, &how));
    expected = model_open(&w->m, ino, flags, &h->model);
    if (!world_check(w, err, expected))
        h->file = NULL;
    return h->file != NULL;
}

static void call_write(struct world *w, struct world_handle *h, uint64_t off, size_t size)
{
    uint8_t *bytes = pick_bytes(w, size);
    bool kill = rng_chance(&w->r, 10);
    enum store_how how = world_how(w);
    int err;

    world_begin(w, "write");
    do
        err = store_write(w->fx.store, how, h->file, off, bytes, size, kill);
    while (world_again(err, &how));
    if (err == 0 || world_broke(w, err))
        world_check(w, err, model_write(&w->m, &h->model, off, bytes, size, kill));
    else if (off <= (uint64_t)FILE_BYTES_MAX - size || err != -EFBIG)
        world_fail(w, "write of %zu bytes at %llu: %s", size, (unsigned long long)off,
                   err_name(err));
    free(bytes);
}

static void do_create(struct world *w)
{
    struct world_handle *h = make_room(w);
    char name[WORLD_NAME_BYTES];

    pick_name(w, name);
    call_create(w, h, pick_dir(w), name);
}

static void do_open(struct world *w)
{
    struct world_handle *h = make_room(w); // first: the close may be the end of an inode
    struct model_inode *in = pick_inode(w, rng_chance(&w->r, 95) ? pick_is_file : pick_is_any);
    int flags = rng_chance(&w->r, 20) ? O_RDONLY : O_RDWR;

    if (!in)
        return;
    if (flags == O_RDWR)
        flags |= (rng_chance(&w->r, 30) ? O_TRUNC : 0) | (rng_chance(&w->r, 20) ? O_APPEND : 0);
    call_open(w, h, in->ino, flags);
}

static void do_write(struct world *w)
{
    struct world_handle *h = pick_handle(w);

    if (!h || (h->model.flags & O_ACCMODE) == O_RDONLY)
        return;
    uint64_t size = model_size(model_inode(&w->m, h->model.ino));

    call_write(w, h, (h->model.flags & O_APPEND) ? size : pick_offset(w, size), pick_size(w));
}

// Many extents of one file: every other block. So it is staged.
static void do_scatter(struct world *w)
{
    struct world_handle *h = pick_handle(w);
    uint64_t base = FILEBYTES_BLOCK * rng_below(&w->r, 64);

    if (!h || (h->model.flags & (O_ACCMODE | O_APPEND)) != O_RDWR ||
        pick_all_bytes(w) > w->bytes_max)
        return;
    for (unsigned i = 0; i < 450 && !world_over(w); i++)
        call_write(w, h, base + 2 * FILEBYTES_BLOCK * i + rng_below(&w->r, 8), FILEBYTES_BLOCK - 8);
}

void world_scatter(struct world *w)
{
    struct world_handle *h = make_room(w);
    char name[WORLD_NAME_BYTES];

    snprintf(name, sizeof(name), "scattered%u", (unsigned)rng_below(&w->r, 3));
    struct model_inode *in = model_child(&w->m, INO_ROOT, name);
    bool open = in ? call_open(w, h, in->ino, O_RDWR) : call_create(w, h, INO_ROOT, name);

    for (unsigned i = 0; open && i < 420 && !world_over(w); i++)
        call_write(w, h, 2 * FILEBYTES_BLOCK * (uint64_t)i, 300);
}

// The everyday life of a key: written whole and closed.
static void do_put(struct world *w)
{
    struct world_handle *h = make_room(w);
    char name[WORLD_NAME_BYTES];
    uint64_t dir = pick_dir(w);
    unsigned writes = (unsigned)rng_below(&w->r, 4);

    pick_name(w, name);
    struct model_inode *in = model_child(&w->m, dir, name);
    bool open = in ? call_open(w, h, in->ino, O_RDWR | O_TRUNC) : call_create(w, h, dir, name);

    for (unsigned i = 0; open && i < writes && !world_over(w); i++)
        call_write(w, h, model_size(model_inode(&w->m, h->model.ino)), pick_size(w));
    if (h->file && !world_over(w))
        call_release(w, h);
}

static void do_close(struct world *w)
{
    struct world_handle *h = pick_handle(w);

    if (h)
        call_release(w, h);
}

static void do_read(struct world *w)
{
    struct world_handle *h = pick_handle(w);
    struct model_inode *in = h ? model_inode(&w->m, h->model.ino) : pick_inode(w, pick_is_file);

    if (!in)
        return;
    uint64_t size = model_size(in), off = rng_below(&w->r, size + 100);
    size_t want = rng_below(&w->r, WRITE_BYTES_MAX) + 1, got;
    size_t expected = off >= size ? 0 : AF_MIN(want, size - off);
    uint8_t *seen = malloc(want), *right = malloc(want);
    enum store_how how = world_how(w);
    int err;

    world_begin(w, "read");
    do
        err = store_read(w->fx.store, how, in->ino, off, seen, want, &got);
    while (world_again(err, &how));
    filebytes_read(&in->bytes, off, right, want);
    if (world_check(w, err, 0) && (got != expected || memcmp(seen, right, got) != 0))
        world_fail(w, "%zu bytes at %llu of inode %llu (size %llu) are wrong", want,
                   (unsigned long long)off, (unsigned long long)in->ino, (unsigned long long)size);
    free(seen);
    free(right);
}

static void do_fallocate(struct world *w)
{
    static const int modes[] = {0,
                                FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_PUNCH_HOLE,
                                0x40};
    struct world_handle *h = pick_handle(w);
    enum store_how how = world_how(w);
    int err;

    if (!h || (h->model.flags & O_ACCMODE) == O_RDONLY)
        return;
    int mode = modes[rng_below(&w->r, AF_ARRAY_LEN(modes))];
    uint64_t off = pick_offset(w, model_size(model_inode(&w->m, h->model.ino))),
             len = pick_size(w) - 1;

    world_begin(w, "fallocate");
    do
        err = store_fallocate(w->fx.store, how, h->file, mode, off, len);
    while (world_again(err, &how));
    world_check(w, err, model_fallocate(&w->m, &h->model, mode, off, len));
}

// The blocks that are skipped must be zeros, and what is called a hole must be zeros at its start.
static void do_seek(struct world *w)
{
    struct model_inode *in = pick_inode(w, pick_is_file);
    int whence = rng_chance(&w->r, 50) ? SEEK_DATA : SEEK_HOLE, err;
    enum store_how how = world_how(w);

    if (!in)
        return;
    uint64_t size = model_size(in), off = pick_offset(w, size), found = 0,
             data = filebytes_next(&in->bytes, off);

    world_begin(w, "seek");
    do
        err = store_seek(w->fx.store, how, in->ino, off, whence, &found);
    while (world_again(err, &how));
    if (world_broke(w, err) || world_dead(w))
        return;
    if (off >= size) {
        world_check(w, err, -ENXIO);
    } else if (whence == SEEK_DATA) {
        if (err != 0 ? err != -ENXIO || data != UINT64_MAX
                     : found < off || found > data || found >= size)
            world_fail(w, "data from %llu on: %s, %llu; it is at %llu", (unsigned long long)off,
                       err_name(err), (unsigned long long)found, (unsigned long long)data);
    } else if (err != 0 || found < off || found > size ||
               (found < size &&
                filebytes_next(&in->bytes, found) / FILEBYTES_BLOCK == found / FILEBYTES_BLOCK)) {
        world_fail(w, "hole from %llu on: %s, %llu of %llu", (unsigned long long)off, err_name(err),
                   (unsigned long long)found, (unsigned long long)size);
    }
}

// ---- durability ----

static void do_fsync(struct world *w)
{
    struct world_handle *h = pick_handle(w);
    struct model_inode *in =
        h && rng_chance(&w->r, 80) ? model_inode(&w->m, h->model.ino) : pick_inode(w, pick_is_any);

    world_begin(w, "fsync");
    model_complete(&w->m, in->ino); // first, so that the answer has its state
    size_t state = w->m.state_count - 1;

    if (w->ack_early)
        world_acknowledge(w, state);
    int err = fixture_fsync(&w->fx, in->ino);

    if (err == 0)
        world_acknowledge(w, state);
    world_check(w, err, 0);
}

static void ack_done(struct wal_waiter *waiter, int result)
{
    struct world_ack *a = AF_CONTAINER_OF(waiter, struct world_ack, w);

    a->busy = false;
    if (!a->world)
        return;
    for (unsigned i = 0; a->world->ack_joiners && i < WORLD_ACKS; i++)
        if (a->world->acks[i].busy)
            world_acknowledge(a->world, a->world->acks[i].state);
    if (result == 0)
        world_acknowledge(a->world, a->state);
    else if (!world_broke(a->world, result))
        world_fail(a->world, "an fsync answered %s", err_name(result));
}

// Answered when the log is pumped, together with others.
static void do_fsync_later(struct world *w)
{
    struct world_handle *h = pick_handle(w);
    struct world_ack *a = NULL;

    for (unsigned i = 0; i < WORLD_ACKS && !a; i++)
        a = w->acks[i].busy ? NULL : &w->acks[i];
    if (!a || !h)
        return;
    world_begin(w, "fsync, answered later");
    model_complete(&w->m, h->model.ino);
    *a = (struct world_ack){
        .world = w, .state = w->m.state_count - 1, .busy = true, .w.done = ack_done};
    int err = store_fsync(w->fx.store, STORE_BLOCK, h->model.ino, &a->w);

    if (err == 1)
        world_acknowledge(w, a->state);
    if (err != 0)
        a->busy = false;
    world_check(w, err == 1 ? 0 : err, 0);
    store_kick(w->fx.store);
}

static void do_sync(struct world *w)
{
    size_t state = w->m.state_count - 1;

    world_begin(w, "sync");
    int err = fixture_sync(&w->fx);

    if (err == 0)
        world_acknowledge(w, state);
    world_check(w, err, 0);
}

void world_checkpoint(struct world *w)
{
    size_t state = w->m.state_count - 1;

    world_begin(w, "checkpoint");
    int err = engine_checkpoint(w->fx.engine);

    if (err == 0)
        world_acknowledge(w, state);
    world_check(w, err, 0);
}

void world_tick(struct world *w)
{
    if (w->idle)
        return;
    world_begin(w, "tick");
    model_tick(&w->m);
    engine_tick(w->fx.engine);
}

const struct world_choice world_file_choices[] = {
    {do_create, 10}, {do_open, 12}, {do_write, 40},    {do_put, 25},    {do_close, 12},
    {do_read, 10},   {do_seek, 6},  {do_fallocate, 6}, {do_scatter, 1}, {NULL, 0},
};

const struct world_choice world_durable_choices[] = {
    {do_fsync, 50}, {do_fsync_later, 40}, {do_sync, 8}, {world_checkpoint, 4}, {NULL, 0},
};
