// SPDX-License-Identifier: MIT
// Random calls on names, attributes and xattrs: each is made on the engine and on the model.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/lib/world_internal.h"

#define DEPTH_MAX 6

static const struct store_cred cred = {.uid = 1000, .gid = 1001};

// ---- names ----

static unsigned depth(const struct world *w, uint64_t ino)
{
    unsigned n = 0;

    for (const struct model_inode *in = model_inode(&w->m, ino);
         in && in->ino != INO_ROOT && in->parent; n++)
        in = model_inode(&w->m, in->parent);
    return n;
}

static void do_mkdir(struct world *w)
{
    char name[WORLD_NAME_BYTES];
    uint64_t dir = pick_dir(w);
    uint32_t mode =
        S_IFDIR | (uint32_t)(rng_below(&w->r, 01000) | (rng_chance(&w->r, 10) ? S_ISGID : 0));
    struct store_attr attr;
    int err;

    pick_name(w, name);
    if (depth(w, dir) >= DEPTH_MAX)
        return;
    world_begin(w, "mkdir");
    err = store_mknod(w->fx.store, STORE_BLOCK, dir, name, mode, 0, &cred, &attr);
    if (world_broke(w, err))
        return;
    if (err == 0)
        world_new_inode(w, attr.ino);
    if (w->failed)
        return;
    world_check(w, err, model_mknod(&w->m, dir, name, mode, 0, &cred, err == 0 ? attr.ino : 0));
}

static void do_mknod(struct world *w)
{
    static const uint32_t types[] = {S_IFREG, S_IFIFO, S_IFCHR, S_IFBLK, S_IFSOCK};
    char name[WORLD_NAME_BYTES];
    uint64_t dir = pick_dir(w), rdev = rng_below(&w->r, 70000);
    uint32_t mode =
        types[rng_below(&w->r, AF_ARRAY_LEN(types))] | (uint32_t)rng_below(&w->r, 01000);
    struct store_attr attr;
    enum store_how how = world_how(w);
    int err;

    pick_name(w, name);
    world_begin(w, "mknod");
    do
        err = store_mknod(w->fx.store, how, dir, name, mode, rdev, &cred, &attr);
    while (world_again(err, &how));
    if (world_broke(w, err))
        return;
    if (err == 0)
        world_new_inode(w, attr.ino);
    if (w->failed)
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
    if (world_broke(w, err))
        return;
    if (err == 0)
        world_new_inode(w, attr.ino);
    if (w->failed)
        return;
    world_check(w, err, model_symlink(&w->m, dir, name, target, &cred, err == 0 ? attr.ino : 0));
}

static void do_readlink(struct world *w)
{
    struct model_inode *in = pick_inode(w, rng_chance(&w->r, 90) ? pick_is_symlink : pick_is_any);
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
    struct model_inode *in = pick_inode(w, rng_chance(&w->r, 95) ? pick_is_file : pick_is_any);
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
    if (!child || child->ino != ino || (child->attr.mode & S_IFMT) != mode ||
        (attr && attr->ino != ino))
        world_fail(b->w, "the listing has %s, inode %llu", name, (unsigned long long)ino);
    b->seen++;
    return 0;
}

static void do_readdir(struct world *w)
{
    struct batch b = {.w = w, .dir = pick_inode(w, pick_is_dir)};
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

static void call_setattr(struct world *w, const char *what, struct model_inode *in,
                         struct world_handle *h, const struct store_attr *attr, unsigned set)
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
    struct world_handle *h = rng_chance(&w->r, 50) ? pick_handle(w) : NULL;
    struct model_inode *in = h ? model_inode(&w->m, h->model.ino) : pick_inode(w, pick_is_file);

    if (!in || (h && (h->model.flags & O_ACCMODE) == O_RDONLY))
        return;
    struct store_attr attr = {.size = rng_chance(&w->r, 30) ? 0 : pick_offset(w, model_size(in))};

    call_setattr(w, h ? "ftruncate" : "truncate", in, h, &attr, STORE_SET_SIZE);
}

static void do_chmod(struct world *w)
{
    struct model_inode *in = pick_inode(w, pick_is_any);
    struct store_attr attr = {.mode = (uint32_t)rng_below(&w->r, 010000),
                              .uid = (uint32_t)rng_below(&w->r, 5),
                              .gid = (uint32_t)rng_below(&w->r, 5)};
    static const unsigned sets[] = {STORE_SET_MODE,
                                    STORE_SET_MODE,
                                    STORE_SET_UID | STORE_SET_GID,
                                    STORE_SET_UID | STORE_KILL_SUIDGID,
                                    STORE_SET_GID,
                                    STORE_SET_MODE | STORE_SET_CTIME,
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
    static const unsigned sets[] = {STORE_SET_ATIME | STORE_SET_MTIME,
                                    STORE_SET_ATIME_NOW | STORE_SET_MTIME_NOW, STORE_SET_ATIME,
                                    STORE_SET_MTIME, 0};
    struct model_inode *in = pick_inode(w, pick_is_any);
    struct store_attr attr = {.atime = pick_time(w), .mtime = pick_time(w)};

    if (!in->orphan)
        call_setattr(w, "utimens", in, NULL, &attr, sets[rng_below(&w->r, AF_ARRAY_LEN(sets))]);
}

static void do_getattr(struct world *w)
{
    struct world_handle *h = pick_handle(w);
    struct model_inode *in = h ? model_inode(&w->m, h->model.ino) : pick_inode(w, pick_is_any);
    struct store_attr seen, expected;

    world_begin(w, "getattr");
    int err = store_getattr(w->fx.store, STORE_BLOCK, in->ino, &seen);

    if (!world_check(w, err, 0))
        return;
    model_attr(in, &expected);
    if (seen.mode != expected.mode || seen.nlink != expected.nlink || seen.uid != expected.uid ||
        seen.gid != expected.gid || (!pick_is_dir(in) && seen.size != expected.size) ||
        memcmp(&seen.atime, &expected.atime, 4 * sizeof(seen.atime)) != 0)
        world_fail(w, "wrong attributes of inode %llu: links %u/%u, size %llu/%llu",
                   (unsigned long long)in->ino, seen.nlink, expected.nlink,
                   (unsigned long long)seen.size, (unsigned long long)expected.size);
}

// ---- xattrs ----

static void xattr_name(struct world *w, char name[WORLD_NAME_BYTES])
{
    if (rng_chance(&w->r, 2))
        pick_odd_name(w, name);
    else
        snprintf(name, WORLD_NAME_BYTES, "user.x%u", (unsigned)rng_below(&w->r, 5));
}

static void do_setxattr(struct world *w)
{
    static const int flags[] = {0, 0, 0, XATTR_CREATE, XATTR_REPLACE};
    struct model_inode *in = pick_inode(w, pick_is_any);
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
    struct model_inode *in = pick_inode(w, pick_is_any);
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

const struct world_choice world_name_choices[] = {
    {do_mkdir, 4},   {do_mknod, 4},    {do_symlink, 5},     {do_readlink, 3},
    {do_link, 6},    {do_unlink, 14},  {do_rmdir, 3},       {do_rename, 12},
    {do_readdir, 3}, {do_truncate, 8}, {do_chmod, 6},       {do_utimens, 6},
    {do_getattr, 5}, {do_setxattr, 8}, {do_removexattr, 3}, {NULL, 0},
};
