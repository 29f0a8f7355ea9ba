// SPDX-License-Identifier: MIT
// The random calls: each is made on the engine and on the model.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/lib/world.h"

#define WRITE_BYTES_MAX (300u << 10)
#define DEPTH_MAX 6

static const struct store_cred cred = {.uid = 1000, .gid = 1001};

// ---- choosing ----

static struct model_inode *any_inode(struct world *w, bool (*fits)(const struct model_inode *in))
{
    size_t start = rng_below(&w->r, w->m.count);

    for (size_t i = 0; i < w->m.count; i++) {
        struct model_inode *in = w->m.inodes[(start + i) % w->m.count];

        if (fits(in))
            return in;
    }
    return NULL;
}

static bool is_dir(const struct model_inode *in)
{
    return S_ISDIR(in->attr.mode);
}

static bool is_file(const struct model_inode *in)
{
    return S_ISREG(in->attr.mode);
}

static bool is_symlink(const struct model_inode *in)
{
    return S_ISLNK(in->attr.mode);
}

static bool is_any(const struct model_inode *in)
{
    (void)in;
    return true;
}

// Mostly a directory; sometimes what is none, or is gone.
static uint64_t pick_dir(struct world *w)
{
    unsigned dice = (unsigned)rng_below(&w->r, 100);

    if (dice == 0 && w->stale)
        return w->stale;
    if (dice == 1)
        return any_inode(w, is_any)->ino;
    return dice < 20 ? INO_ROOT : any_inode(w, is_dir)->ino;
}

static unsigned depth(const struct world *w, uint64_t ino)
{
    unsigned n = 0;

    for (const struct model_inode *in = model_inode(&w->m, ino); in && in->ino != INO_ROOT && in->parent; n++)
        in = model_inode(&w->m, in->parent);
    return n;
}

static void odd_name(struct world *w, char name[WORLD_NAME_BYTES])
{
    static const char *const odd[] = {"", ".", "..", "a/b"};
    size_t len = rng_chance(&w->r, 70) ? NAME_BYTES_MAX - rng_below(&w->r, 3) : NAME_BYTES_MAX + 1;

    if (rng_chance(&w->r, 30)) {
        snprintf(name, WORLD_NAME_BYTES, "%s", odd[rng_below(&w->r, AF_ARRAY_LEN(odd))]);
        return;
    }
    memset(name, (int)('A' + rng_below(&w->r, 4)), len);
    name[len] = 0;
}

static void pick_name(struct world *w, char name[WORLD_NAME_BYTES])
{
    if (rng_chance(&w->r, 3))
        odd_name(w, name);
    else
        snprintf(name, WORLD_NAME_BYTES, "n%u", (unsigned)rng_below(&w->r, w->names));
}

// A name that is there, most of the time.
static void pick_child(struct world *w, uint64_t dir, char name[WORLD_NAME_BYTES])
{
    struct model_inode *in = model_inode(&w->m, dir);

    if (!in || in->name_count == 0 || rng_chance(&w->r, 5))
        pick_name(w, name);
    else
        snprintf(name, WORLD_NAME_BYTES, "%s", in->names[rng_below(&w->r, in->name_count)].name);
}

static uint64_t all_bytes(const struct world *w)
{
    uint64_t blocks = 0;

    for (size_t i = 0; i < w->m.count; i++)
        blocks += w->m.inodes[i]->bytes.count;
    return blocks * FILEBYTES_BLOCK;
}

static size_t pick_size(struct world *w)
{
    unsigned dice = (unsigned)rng_below(&w->r, 100);

    if (dice < 45 || all_bytes(w) > w->bytes_max)
        return rng_below(&w->r, 200) + 1;
    if (dice < 65)
        return rng_below(&w->r, 2048) + 1;
    if (dice < 75)
        return FILEBYTES_BLOCK * (rng_below(&w->r, 4) + 1);
    if (dice < 90)
        return rng_below(&w->r, 20000) + 1;
    if (dice < 96)
        return rng_below(&w->r, 70000) + 1;
    return rng_below(&w->r, WRITE_BYTES_MAX) + 1;
}

static uint64_t pick_offset(struct world *w, uint64_t size)
{
    unsigned dice = (unsigned)rng_below(&w->r, 100);

    if (dice < 25)
        return 0;
    if (dice < 55)
        return size;
    if (dice < 85)
        return rng_below(&w->r, size + 1);
    if (dice < 95)
        return size + rng_below(&w->r, 3 * FILEBYTES_BLOCK);
    if (dice < 99)
        return AF_ROUND_DOWN(rng_below(&w->r, UINT64_C(1) << 23), (uint64_t)FILEBYTES_BLOCK);
    return rng_below(&w->r, UINT64_C(1) << 42); // a sparse file of up to 4 TiB
}

static uint8_t *pick_bytes(struct world *w, size_t size)
{
    uint8_t *bytes = malloc(size);
    bool zeros = rng_chance(&w->r, 5);

    AF_ASSERT(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = zeros ? 0 : (uint8_t)rng_next(&w->r);
    return bytes;
}

static struct world_handle *free_handle(struct world *w)
{
    for (unsigned i = 0; i < WORLD_HANDLES; i++)
        if (!w->handles[i].file)
            return &w->handles[i];
    return NULL;
}

static struct world_handle *any_handle(struct world *w)
{
    unsigned start = (unsigned)rng_below(&w->r, WORLD_HANDLES);

    for (unsigned i = 0; i < WORLD_HANDLES; i++)
        if (w->handles[(start + i) % WORLD_HANDLES].file)
            return &w->handles[(start + i) % WORLD_HANDLES];
    return NULL;
}

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

static struct world_handle *make_room(struct world *w)
{
    struct world_handle *h = free_handle(w);

    if (h)
        return h;
    h = any_handle(w);
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
    if (err < 0 && world_dead(w)) {
        h->file = NULL;
        return false;
    }
    if (err == 0 && model_inode(&w->m, attr.ino)) {
        world_fail(w, "an inode number was given twice");
        return false;
    }
    expected = model_create(&w->m, dir, name, mode, flags, &cred, err == 0 ? attr.ino : 0, &h->model);
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
    if (err == 0 || world_dead(w))
        world_check(w, err, model_write(&w->m, &h->model, off, bytes, size, kill));
    else if (off <= (uint64_t)FILE_BYTES_MAX - size || err != -EFBIG)
        world_fail(w, "write of %zu bytes at %llu: %s", size, (unsigned long long)off, err_name(err));
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
    struct model_inode *in = any_inode(w, rng_chance(&w->r, 95) ? is_file : is_any);
    int flags = rng_chance(&w->r, 20) ? O_RDONLY : O_RDWR;

    if (!in)
        return;
    if (flags == O_RDWR)
        flags |= (rng_chance(&w->r, 30) ? O_TRUNC : 0) | (rng_chance(&w->r, 20) ? O_APPEND : 0);
    call_open(w, h, in->ino, flags);
}

static void do_write(struct world *w)
{
    struct world_handle *h = any_handle(w);

    if (!h || (h->model.flags & O_ACCMODE) == O_RDONLY)
        return;
    uint64_t size = model_size(model_inode(&w->m, h->model.ino));

    call_write(w, h, (h->model.flags & O_APPEND) ? size : pick_offset(w, size), pick_size(w));
}

// Many extents of one file: every other block. So it is staged.
static void do_scatter(struct world *w)
{
    struct world_handle *h = any_handle(w);
    uint64_t base = FILEBYTES_BLOCK * rng_below(&w->r, 64);

    if (!h || (h->model.flags & (O_ACCMODE | O_APPEND)) != O_RDWR || all_bytes(w) > w->bytes_max)
        return;
    for (unsigned i = 0; i < 450 && !w->failed && !world_dead(w); i++)
        call_write(w, h, base + 2 * FILEBYTES_BLOCK * i + rng_below(&w->r, 8), FILEBYTES_BLOCK - 8);
}

void world_scatter(struct world *w)
{
    struct world_handle *h = make_room(w);
    char name[WORLD_NAME_BYTES];

    snprintf(name, sizeof(name), "scattered%u", (unsigned)rng_below(&w->r, 3));
    struct model_inode *in = model_child(&w->m, INO_ROOT, name);
    bool open = in ? call_open(w, h, in->ino, O_RDWR) : call_create(w, h, INO_ROOT, name);

    for (unsigned i = 0; open && i < 420 && !w->failed && !world_dead(w); i++)
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

    for (unsigned i = 0; open && i < writes && !w->failed && !world_dead(w); i++)
        call_write(w, h, model_size(model_inode(&w->m, h->model.ino)), pick_size(w));
    if (h->file && !w->failed && !world_dead(w))
        call_release(w, h);
}

static void do_close(struct world *w)
{
    struct world_handle *h = any_handle(w);

    if (h)
        call_release(w, h);
}

static void do_read(struct world *w)
{
    struct world_handle *h = any_handle(w);
    struct model_inode *in = h ? model_inode(&w->m, h->model.ino) : any_inode(w, is_file);

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
        world_fail(w, "%zu bytes at %llu of inode %llu (size %llu) are wrong", want, (unsigned long long)off,
                   (unsigned long long)in->ino, (unsigned long long)size);
    free(seen);
    free(right);
}

static void do_fallocate(struct world *w)
{
    static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, 0x40};
    struct world_handle *h = any_handle(w);
    enum store_how how = world_how(w);
    int err;

    if (!h || (h->model.flags & O_ACCMODE) == O_RDONLY)
        return;
    int mode = modes[rng_below(&w->r, AF_ARRAY_LEN(modes))];
    uint64_t off = pick_offset(w, model_size(model_inode(&w->m, h->model.ino))), len = pick_size(w) - 1;

    world_begin(w, "fallocate");
    do
        err = store_fallocate(w->fx.store, how, h->file, mode, off, len);
    while (world_again(err, &how));
    world_check(w, err, model_fallocate(&w->m, &h->model, mode, off, len));
}

// The blocks that are skipped must be zeros, and what is called a hole must be zeros at its start.
static void do_seek(struct world *w)
{
    struct model_inode *in = any_inode(w, is_file);
    int whence = rng_chance(&w->r, 50) ? SEEK_DATA : SEEK_HOLE, err;
    enum store_how how = world_how(w);

    if (!in)
        return;
    uint64_t size = model_size(in), off = pick_offset(w, size), found = 0, data = filebytes_next(&in->bytes, off);

    world_begin(w, "seek");
    do
        err = store_seek(w->fx.store, how, in->ino, off, whence, &found);
    while (world_again(err, &how));
    if (world_dead(w))
        return;
    if (off >= size) {
        world_check(w, err, -ENXIO);
    } else if (whence == SEEK_DATA) {
        if (err != 0 ? err != -ENXIO || data != UINT64_MAX : found < off || found > data || found >= size)
            world_fail(w, "data from %llu on: %s, %llu; it is at %llu", (unsigned long long)off, err_name(err),
                       (unsigned long long)found, (unsigned long long)data);
    } else if (err != 0 || found < off || found > size ||
               (found < size && filebytes_next(&in->bytes, found) / FILEBYTES_BLOCK == found / FILEBYTES_BLOCK)) {
        world_fail(w, "hole from %llu on: %s, %llu of %llu", (unsigned long long)off, err_name(err),
                   (unsigned long long)found, (unsigned long long)size);
    }
}

// ---- durability ----

static void do_fsync(struct world *w)
{
    struct world_handle *h = any_handle(w);
    struct model_inode *in = h && rng_chance(&w->r, 80) ? model_inode(&w->m, h->model.ino) : any_inode(w, is_any);

    world_begin(w, "fsync");
    model_complete(&w->m, in->ino); // first, so that the answer has its state
    size_t state = w->m.state_count - 1;
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
    if (result == 0)
        world_acknowledge(a->world, a->state);
    else if (!world_dead(a->world))
        world_fail(a->world, "an fsync answered %s", err_name(result));
}

// Answered when the log is pumped, together with others.
static void do_fsync_later(struct world *w)
{
    struct world_handle *h = any_handle(w);
    struct world_ack *a = NULL;

    for (unsigned i = 0; i < WORLD_ACKS && !a; i++)
        a = w->acks[i].busy ? NULL : &w->acks[i];
    if (!a || !h)
        return;
    world_begin(w, "fsync, answered later");
    model_complete(&w->m, h->model.ino);
    *a = (struct world_ack){.world = w, .state = w->m.state_count - 1, .busy = true, .w.done = ack_done};
    int err = store_fsync(w->fx.store, STORE_BLOCK, h->model.ino, &a->w);

    if (err == 1)
        world_acknowledge(w, a->state);
    if (err != 0)
        a->busy = false;
    world_check(w, err == 1 ? 0 : err, 0);
    store_kick(w->fx.store);
}

static void do_pump(struct world *w)
{
    world_begin(w, "pump");
    int err = wal_pump(engine_wal(w->fx.engine), rng_chance(&w->r, 30));

    world_check(w, err < 0 ? err : 0, 0);
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
    world_begin(w, "tick");
    model_tick(&w->m);
    engine_tick(w->fx.engine);
}

// ---- names ----

static void do_mkdir(struct world *w)
{
    char name[WORLD_NAME_BYTES];
    uint64_t dir = pick_dir(w);
    uint32_t mode = S_IFDIR | (uint32_t)(rng_below(&w->r, 01000) | (rng_chance(&w->r, 10) ? S_ISGID : 0));
    struct store_attr attr;
    int err;

    pick_name(w, name);
    if (depth(w, dir) >= DEPTH_MAX)
        return;
    world_begin(w, "mkdir");
    err = store_mknod(w->fx.store, STORE_BLOCK, dir, name, mode, 0, &cred, &attr);
    if (err < 0 && world_dead(w))
        return;
    world_check(w, err, model_mknod(&w->m, dir, name, mode, 0, &cred, err == 0 ? attr.ino : 0));
}

static void do_mknod(struct world *w)
{
    static const uint32_t types[] = {S_IFREG, S_IFIFO, S_IFCHR, S_IFBLK, S_IFSOCK};
    char name[WORLD_NAME_BYTES];
    uint64_t dir = pick_dir(w), rdev = rng_below(&w->r, 70000);
    uint32_t mode = types[rng_below(&w->r, AF_ARRAY_LEN(types))] | (uint32_t)rng_below(&w->r, 01000);
    struct store_attr attr;
    enum store_how how = world_how(w);
    int err;

    pick_name(w, name);
    world_begin(w, "mknod");
    do
        err = store_mknod(w->fx.store, how, dir, name, mode, rdev, &cred, &attr);
    while (world_again(err, &how));
    if (err < 0 && world_dead(w))
        return;
    world_check(w, err, model_mknod(&w->m, dir, name, mode, rdev, &cred, err == 0 ? attr.ino : 0));
}

static void do_symlink(struct world *w)
{
    char name[WORLD_NAME_BYTES], target[5000];
    uint64_t dir = pick_dir(w);
    size_t len = rng_chance(&w->r, 60) ? rng_below(&w->r, 100) : rng_below(&w->r, 4100);
    struct store_attr attr;
    int err;

    pick_name(w, name);
    for (size_t i = 0; i < len; i++)
        target[i] = (char)('a' + rng_below(&w->r, 26));
    target[len] = 0;
    world_begin(w, "symlink");
    err = store_symlink(w->fx.store, STORE_BLOCK, dir, name, target, &cred, &attr);
    if (err < 0 && world_dead(w))
        return;
    world_check(w, err, model_symlink(&w->m, dir, name, target, &cred, err == 0 ? attr.ino : 0));
}

static void do_readlink(struct world *w)
{
    struct model_inode *in = any_inode(w, rng_chance(&w->r, 90) ? is_symlink : is_any);
    char target[4096];

    if (!in)
        return;
    world_begin(w, "readlink");
    int err = store_readlink(w->fx.store, STORE_BLOCK, in->ino, target);

    // A file that is in no tree yet is no symlink either.
    if (in->target ? world_check(w, err, 0) && strcmp(target, in->target) != 0 : err == 0)
        world_fail(w, "a wrong target");
}

static void do_link(struct world *w)
{
    struct model_inode *in = any_inode(w, rng_chance(&w->r, 95) ? is_file : is_any);
    char name[WORLD_NAME_BYTES];
    uint64_t dir = pick_dir(w);
    enum store_how how = world_how(w);
    struct store_attr attr;
    int err;

    if (!in)
        return;
    pick_name(w, name);
    world_begin(w, "link");
    do
        err = store_link(w->fx.store, how, in->ino, dir, name, &attr);
    while (world_again(err, &how));
    world_check(w, err, model_link(&w->m, in->ino, dir, name));
}

static void do_unlink(struct world *w)
{
    char name[WORLD_NAME_BYTES];
    uint64_t dir = pick_dir(w);
    enum store_how how = world_how(w);
    int err;

    pick_child(w, dir, name);
    world_begin(w, "unlink");
    do
        err = store_unlink(w->fx.store, how, dir, name);
    while (world_again(err, &how));
    world_check(w, err, model_unlink(&w->m, dir, name));
}

static void do_rmdir(struct world *w)
{
    char name[WORLD_NAME_BYTES];
    uint64_t dir = pick_dir(w);
    enum store_how how = world_how(w);
    int err;

    pick_child(w, dir, name);
    struct model_inode *in = model_child(&w->m, dir, name);
    uint64_t ino = in ? in->ino : 0;

    world_begin(w, "rmdir");
    do
        err = store_rmdir(w->fx.store, how, dir, name);
    while (world_again(err, &how));
    if (world_check(w, err, model_rmdir(&w->m, dir, name)))
        w->stale = ino;
}

static void do_rename(struct world *w)
{
    static const unsigned flags[] = {0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, 3, 4};
    char name[WORLD_NAME_BYTES], new_name[WORLD_NAME_BYTES];
    uint64_t dir = pick_dir(w), new_dir = rng_chance(&w->r, 40) ? dir : pick_dir(w);
    unsigned flag = flags[rng_below(&w->r, AF_ARRAY_LEN(flags))];
    enum store_how how = world_how(w);
    int err;

    pick_child(w, dir, name);
    if (rng_chance(&w->r, 50))
        pick_child(w, new_dir, new_name);
    else
        pick_name(w, new_name);
    world_begin(w, "rename");
    do
        err = store_rename(w->fx.store, how, dir, name, new_dir, new_name, flag);
    while (world_again(err, &how));
    world_check(w, err, model_rename(&w->m, dir, name, new_dir, new_name, flag));
}

struct batch {
    struct world *w;
    struct model_inode *dir;
    size_t left, seen;
    uint64_t cookie;
};

static int batch_entry(void *arg, const char *name, size_t name_len, uint64_t ino, uint32_t mode,
                       const struct store_attr *attr, uint64_t next_cookie)
{
    struct batch *b = arg;
    struct model_inode *child;

    if (b->left == 0)
        return 1;
    b->left--;
    b->cookie = next_cookie;
    if (name_len <= 2 && memcmp(name, "..", name_len) == 0) {
        if (ino != (name_len == 1 ? b->dir->ino : b->dir->parent))
            world_fail(b->w, "%s is inode %llu", name, (unsigned long long)ino);
        return 0;
    }
    child = model_child(&b->w->m, b->dir->ino, name);
    if (!child || child->ino != ino || (child->attr.mode & S_IFMT) != mode || (attr && attr->ino != ino))
        world_fail(b->w, "the listing has %s, inode %llu", name, (unsigned long long)ino);
    b->seen++;
    return 0;
}

static void do_readdir(struct world *w)
{
    struct batch b = {.w = w, .dir = any_inode(w, is_dir)};
    bool with_attr = rng_chance(&w->r, 50);

    world_begin(w, "readdir");
    for (;;) {
        enum store_how how = world_how(w);
        uint64_t before = b.cookie;
        size_t size = rng_below(&w->r, 10) + 1;
        int err;

        b.left = size;
        do
            err = store_readdir(w->fx.store, how, b.dir->ino, b.cookie, with_attr, batch_entry, &b);
        while (world_again(err, &how));
        if (!world_check(w, err, 0))
            return;
        if (b.cookie == before)
            break;
    }
    if (b.seen != b.dir->name_count)
        world_fail(w, "the listing has %zu names, there are %zu", b.seen, b.dir->name_count);
}

// ---- attributes ----

static struct timespec pick_time(struct world *w)
{
    return (struct timespec){.tv_sec = (time_t)rng_below(&w->r, UINT64_C(1) << 34),
                             .tv_nsec = (long)rng_below(&w->r, 1000000000)};
}

static void call_setattr(struct world *w, const char *what, struct model_inode *in, struct world_handle *h,
                         const struct store_attr *attr, unsigned set)
{
    enum store_how how = world_how(w);
    struct store_attr seen, expected;
    uint64_t ino = in->ino;
    int err;

    world_begin(w, what);
    do
        err = store_setattr(w->fx.store, how, ino, h ? h->file : NULL, attr, set, &seen);
    while (world_again(err, &how));
    int right = model_setattr(&w->m, ino, h ? &h->model : NULL, attr, set);

    if (!world_check(w, err, right) || set == STORE_SET_SIZE)
        return;
    model_attr(in, &expected);
    if (seen.mode != expected.mode || seen.uid != expected.uid || seen.gid != expected.gid ||
        memcmp(&seen.mtime, &expected.mtime, sizeof(seen.mtime)) != 0)
        world_fail(w, "it returns wrong attributes");
}

static void do_truncate(struct world *w)
{
    struct world_handle *h = rng_chance(&w->r, 50) ? any_handle(w) : NULL;
    struct model_inode *in = h ? model_inode(&w->m, h->model.ino) : any_inode(w, is_file);

    if (!in || (h && (h->model.flags & O_ACCMODE) == O_RDONLY))
        return;
    struct store_attr attr = {.size = rng_chance(&w->r, 30) ? 0 : pick_offset(w, model_size(in))};

    call_setattr(w, h ? "ftruncate" : "truncate", in, h, &attr, STORE_SET_SIZE);
}

static void do_chmod(struct world *w)
{
    struct model_inode *in = any_inode(w, is_any);
    struct store_attr attr = {.mode = (uint32_t)rng_below(&w->r, 010000),
                              .uid = (uint32_t)rng_below(&w->r, 5),
                              .gid = (uint32_t)rng_below(&w->r, 5)};
    static const unsigned sets[] = {STORE_SET_MODE, STORE_SET_MODE, STORE_SET_UID | STORE_SET_GID,
                                    STORE_SET_UID | STORE_KILL_SUIDGID, STORE_SET_GID, STORE_SET_MODE | STORE_SET_CTIME,
                                    STORE_SET_MODE | STORE_SET_MTIME | STORE_SET_ATIME};

    if (in->orphan)
        return;
    attr.ctime = pick_time(w);
    attr.mtime = pick_time(w);
    attr.atime = pick_time(w);
    call_setattr(w, "chmod", in, NULL, &attr, sets[rng_below(&w->r, AF_ARRAY_LEN(sets))]);
}

static void do_utimens(struct world *w)
{
    static const unsigned sets[] = {STORE_SET_ATIME | STORE_SET_MTIME, STORE_SET_ATIME_NOW | STORE_SET_MTIME_NOW,
                                    STORE_SET_ATIME, STORE_SET_MTIME, 0};
    struct model_inode *in = any_inode(w, is_any);
    struct store_attr attr = {.atime = pick_time(w), .mtime = pick_time(w)};

    if (!in->orphan)
        call_setattr(w, "utimens", in, NULL, &attr, sets[rng_below(&w->r, AF_ARRAY_LEN(sets))]);
}

static void do_getattr(struct world *w)
{
    struct world_handle *h = any_handle(w);
    struct model_inode *in = h ? model_inode(&w->m, h->model.ino) : any_inode(w, is_any);
    struct store_attr seen, expected;

    world_begin(w, "getattr");
    int err = store_getattr(w->fx.store, STORE_BLOCK, in->ino, &seen);

    if (!world_check(w, err, 0))
        return;
    model_attr(in, &expected);
    if (seen.mode != expected.mode || seen.nlink != expected.nlink || seen.uid != expected.uid ||
        seen.gid != expected.gid || (!is_dir(in) && seen.size != expected.size) ||
        memcmp(&seen.atime, &expected.atime, 4 * sizeof(seen.atime)) != 0)
        world_fail(w, "wrong attributes of inode %llu: links %u/%u, size %llu/%llu", (unsigned long long)in->ino,
                   seen.nlink, expected.nlink, (unsigned long long)seen.size, (unsigned long long)expected.size);
}

// ---- xattrs ----

static void xattr_name(struct world *w, char name[WORLD_NAME_BYTES])
{
    if (rng_chance(&w->r, 2))
        odd_name(w, name);
    else
        snprintf(name, WORLD_NAME_BYTES, "user.x%u", (unsigned)rng_below(&w->r, 5));
}

static void do_setxattr(struct world *w)
{
    static const int flags[] = {0, 0, 0, XATTR_CREATE, XATTR_REPLACE};
    struct model_inode *in = any_inode(w, is_any);
    size_t size = rng_chance(&w->r, 70) ? rng_below(&w->r, 100) : rng_below(&w->r, w->m.xattr_room);
    int flag = flags[rng_below(&w->r, AF_ARRAY_LEN(flags))], err;
    char name[WORLD_NAME_BYTES];
    enum store_how how = world_how(w);

    if (in->orphan)
        return;
    xattr_name(w, name);
    if (rng_chance(&w->r, 1))
        size = XATTR_VALUE_MAX + 1;
    uint8_t *value = pick_bytes(w, size + 1);

    world_begin(w, "setxattr");
    do
        err = store_setxattr(w->fx.store, how, in->ino, name, value, size, flag);
    while (world_again(err, &how));
    world_check(w, err, model_setxattr(&w->m, in->ino, name, value, size, flag));
    free(value);
}

static void do_removexattr(struct world *w)
{
    struct model_inode *in = any_inode(w, is_any);
    char name[WORLD_NAME_BYTES];
    enum store_how how = world_how(w);
    int err;

    if (in->orphan)
        return;
    if (in->xattr_count > 0 && rng_chance(&w->r, 90))
        snprintf(name, sizeof(name), "%s", in->xattrs[rng_below(&w->r, in->xattr_count)].name);
    else
        xattr_name(w, name);
    world_begin(w, "removexattr");
    do
        err = store_removexattr(w->fx.store, how, in->ino, name);
    while (world_again(err, &how));
    world_check(w, err, model_removexattr(&w->m, in->ino, name));
}

// ---- the mix ----

static void do_tick(struct world *w)
{
    sim_advance_ms(w->fx.sim, rng_below(&w->r, 1000));
    world_tick(w);
}

static const struct choice {
    void (*run)(struct world *w);
    unsigned weight;
} choices[] = {
    {do_create, 10},   {do_open, 12},    {do_write, 40},     {do_put, 25},     {do_close, 12},   {do_read, 10},
    {do_fallocate, 6}, {do_seek, 6},     {do_pump, 8},       {do_tick, 6},     {do_mkdir, 4},    {do_mknod, 4},
    {do_symlink, 5},   {do_readlink, 3}, {do_link, 6},       {do_unlink, 14},  {do_rmdir, 3},    {do_rename, 12},
    {do_readdir, 3},   {do_truncate, 8}, {do_chmod, 6},      {do_utimens, 6},  {do_getattr, 5},  {do_setxattr, 8},
    {do_removexattr, 3},
};

static const struct choice durable_choices[] = {{do_fsync, 50}, {do_fsync_later, 40}, {do_sync, 8}, {world_checkpoint, 4}};

static void choose(struct world *w, const struct choice *list, size_t count)
{
    unsigned total = 0, dice;
    size_t i = 0;

    for (size_t k = 0; k < count; k++)
        total += list[k].weight;
    for (dice = (unsigned)rng_below(&w->r, total); dice >= list[i].weight; i++)
        dice -= list[i].weight;
    list[i].run(w);
}

void world_random_call(struct world *w)
{
    size_t body = wal_body_max(engine_wal(w->fx.engine));

    w->m.xattr_room = 2 * AF_MIN((size_t)65536, body / 4);
    if (rng_chance(&w->r, w->durable))
        choose(w, durable_choices, AF_ARRAY_LEN(durable_choices));
    else if (rng_below(&w->r, 400) == 0)
        do_scatter(w);
    else
        choose(w, choices, AF_ARRAY_LEN(choices));
}
