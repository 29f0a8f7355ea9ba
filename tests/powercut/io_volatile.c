// SPDX-License-Identifier: MIT
// The volatile disk: names, their journal, and operations (volatile_file.c has the contents).
//
// A new file is made without a name (O_TMPFILE) and linked into the directory when the creation
// becomes durable. Changes of directories are applied in their order: sync_dir applies those of its
// directory, the leaker some number of the first ones of all. Those of a directory that is not
// durable itself wait until it is.
//
// One lock guards everything, held while the real disk is written too.
#include "tests/powercut/io_volatile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/err.h"
#include "base/io_posix.h"
#include "base/lock.h"
#include "tests/powercut/volatile_file.h"

#define PATH_BYTES 64
#define LEAK_MS    3

struct entry {
    struct entry *next;
    char path[PATH_BYTES];
    struct volatile_file *file; // NULL: a directory
};

enum change_kind { CHANGE_CREATE, CHANGE_RENAME, CHANGE_UNLINK, CHANGE_MKDIR };

struct change {
    struct change *next;
    enum change_kind kind;
    bool synced; // but its directory is not durable yet
    char path[PATH_BYTES];
    char to[PATH_BYTES];
    struct volatile_file *file; // of a creation
};

struct io_volatile {
    struct io_posix posix; // first
    struct io_volatile_options options;
    int event_fd;
    pthread_t helper, leaker;
    struct af_mutex lock;
    struct af_cond changed;
    // Under `lock`:
    struct entry *entries;
    struct change *changes;
    struct io_async *waiting, *finished;
    size_t in_flight;
    uint64_t rng;
    bool lying, stopping;
    atomic_bool up; // the mount is
};

struct open_file {
    struct io_file io; // first
    struct volatile_file *file;
    char path[PATH_BYTES];
};

static struct io_volatile *disk_of(struct io *io)
{
    return AF_CONTAINER_OF(io, struct io_volatile, posix.io);
}

static struct open_file *open_of(struct io_file *f)
{
    return AF_CONTAINER_OF(f, struct open_file, io);
}

static bool is_lie(const struct io_volatile *d, const char *path)
{
    return d->lying && d->options.lie && strncmp(path, d->options.lie, strlen(d->options.lie)) == 0;
}

// ---- names ----

static struct entry **find(struct io_volatile *d, const char *path)
{
    struct entry **e = &d->entries;

    while (*e && strcmp((*e)->path, path) != 0)
        e = &(*e)->next;
    return e;
}

static bool set_path(char to[PATH_BYTES], const char *path)
{
    int n = snprintf(to, PATH_BYTES, "%s", path);

    return n > 0 && n < PATH_BYTES;
}

static void unref(struct volatile_file *f)
{
    if (f && --f->refs == 0)
        volatile_file_free(f);
}

static int add_entry(struct io_volatile *d, const char *path, struct volatile_file *file)
{
    struct entry *e = calloc(1, sizeof(*e));

    if (!e || !set_path(e->path, path)) {
        free(e);
        return e ? -ENAMETOOLONG : -ENOMEM;
    }
    if (file)
        file->refs++;
    e->file = file;
    e->next = d->entries;
    d->entries = e;
    return 0;
}

static void remove_entry(struct entry **at)
{
    struct entry *e = *at;

    *at = e->next;
    unref(e->file);
    free(e);
}

static int add_change(struct io_volatile *d, enum change_kind kind, const char *path,
                      const char *to, struct volatile_file *file)
{
    struct change *c = calloc(1, sizeof(*c)), **at = &d->changes;

    if (!c)
        return -ENOMEM;
    c->kind = kind;
    if (!set_path(c->path, path) || (to && !set_path(c->to, to))) {
        free(c);
        return -ENAMETOOLONG;
    }
    c->file = file;
    if (file)
        file->refs++;
    while (*at)
        at = &(*at)->next;
    *at = c;
    return 0;
}

static bool is_in(const char *path, const char *dir)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;

    return strlen(dir) == len && strncmp(path, dir, len) == 0;
}

static bool concerns(const struct change *c, const char *dir)
{
    return is_in(c->path, dir) || (c->kind == CHANGE_RENAME && is_in(c->to, dir));
}

// The directory of `path` is there for real.
static bool parent_is_real(const struct io_volatile *d, const char *path)
{
    char dir[PATH_BYTES];
    const char *slash = strrchr(path, '/');

    if (!slash)
        return true;
    snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
    return faccessat(d->posix.dir_fd, dir, F_OK, 0) == 0;
}

static int apply_real(const struct io_volatile *d, const struct change *c)
{
    int dir_fd = d->posix.dir_fd, r = -1;
    char self[64];

    switch (c->kind) {
    case CHANGE_CREATE:
        snprintf(self, sizeof(self), "/proc/self/fd/%d", c->file->fd);
        r = linkat(AT_FDCWD, self, dir_fd, c->path, AT_SYMLINK_FOLLOW);
        break;
    case CHANGE_RENAME:
        r = renameat(dir_fd, c->path, dir_fd, c->to);
        break;
    case CHANGE_UNLINK:
        r = unlinkat(dir_fd, c->path, 0);
        break;
    case CHANGE_MKDIR:
        r = mkdirat(dir_fd, c->path, 0700);
        break;
    }
    return r < 0 ? -errno : 0;
}

// Of `dir` (NULL: of all), at most `max` changes, in their order.
static int apply_changes(struct io_volatile *d, const char *dir, unsigned max)
{
    struct change **at = &d->changes;

    while (*at && max) {
        struct change *c = *at;
        if (dir && concerns(c, dir))
            c->synced = true;
        if ((dir && !c->synced) || !parent_is_real(d, c->path)) {
            at = &c->next;
            continue;
        }
        int r = apply_real(d, c);
        if (r)
            return r;
        *at = c->next;
        unref(c->file);
        free(c);
        max--;
    }
    return 0;
}

// ---- files ----

static struct volatile_file *new_file(const struct io_volatile *d)
{
    struct volatile_file *f = calloc(1, sizeof(*f));

    if (!f)
        return NULL;
    f->fd = openat(d->posix.dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (f->fd < 0) {
        free(f);
        return NULL;
    }
    return f;
}

static int create_locked(struct io_volatile *d, const char *path, struct volatile_file **ret_file)
{
    struct volatile_file *f = new_file(d);

    if (!f)
        return -errno;
    f->refs = 1;
    int r = add_entry(d, path, f);
    if (!r)
        r = add_change(d, CHANGE_CREATE, path, NULL, f);
    *ret_file = f;
    unref(f);
    return r;
}

static int open_locked(struct io_volatile *d, const char *path, unsigned flags,
                       struct volatile_file **ret_file)
{
    struct entry *e = *find(d, path);

    if (!e)
        return flags & IO_CREATE ? create_locked(d, path, ret_file) : -ENOENT;
    if ((flags & IO_CREATE) && (flags & IO_EXCLUSIVE))
        return -EEXIST;
    if (!e->file)
        return -EISDIR;
    *ret_file = e->file;
    return 0;
}

static int volatile_open(struct io *io, const char *path, unsigned flags, struct io_file **ret_file)
{
    struct io_volatile *d = disk_of(io);
    struct open_file *f = calloc(1, sizeof(*f));
    int r;

    if (!f || !set_path(f->path, path)) {
        free(f);
        return f ? -ENAMETOOLONG : -ENOMEM;
    }
    af_lock(&d->lock);
    r = open_locked(d, path, flags, &f->file);
    if (!r)
        f->file->refs++;
    af_unlock(&d->lock);
    if (r) {
        free(f);
        return r;
    }
    f->io = (struct io_file){.io = io, .path = f->path};
    *ret_file = &f->io;
    return 0;
}

static void volatile_close(struct io_file *f)
{
    if (!f)
        return;
    struct io_volatile *d = disk_of(f->io);
    af_lock(&d->lock);
    unref(open_of(f)->file);
    af_unlock(&d->lock);
    free(open_of(f));
}

static int volatile_pread(struct io_file *f, void *bytes, size_t len, uint64_t off)
{
    struct io_volatile *d = disk_of(f->io);

    af_lock(&d->lock);
    int r = volatile_file_read(open_of(f)->file, bytes, len, off);
    af_unlock(&d->lock);
    return r;
}

static int volatile_pwritev(struct io_file *f, const struct iovec *iov, int count, uint64_t off)
{
    struct io_volatile *d = disk_of(f->io);
    int r = 0;

    af_lock(&d->lock);
    for (int i = 0; !r && i < count; off += iov[i].iov_len, i++)
        r = volatile_file_write(open_of(f)->file, iov[i].iov_base, iov[i].iov_len, off);
    af_unlock(&d->lock);
    return r;
}

static void wait_us(unsigned us)
{
    const struct timespec time = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L};

    if (us)
        nanosleep(&time, NULL);
}

static int sync_locked(struct io_volatile *d, struct io_file *f)
{
    return is_lie(d, f->path) ? 0 : volatile_file_sync(open_of(f)->file);
}

static int volatile_sync(struct io_file *f)
{
    struct io_volatile *d = disk_of(f->io);

    if (atomic_load(&d->up))
        wait_us(d->options.slow_sync_us);
    af_lock(&d->lock);
    int r = sync_locked(d, f);
    af_unlock(&d->lock);
    return r;
}

static int volatile_size(struct io_file *f, uint64_t *ret_bytes)
{
    struct io_volatile *d = disk_of(f->io);

    af_lock(&d->lock);
    *ret_bytes = open_of(f)->file->size;
    af_unlock(&d->lock);
    return 0;
}

// The blocks themselves are taken when the bytes become durable: this disk does not fill up.
static int volatile_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
    struct io_volatile *d = disk_of(f->io);
    struct volatile_file *file = open_of(f)->file;

    af_lock(&d->lock);
    int r = off + len > file->size ? volatile_file_truncate(file, off + len) : 0;
    af_unlock(&d->lock);
    return r;
}

static int volatile_truncate(struct io_file *f, uint64_t bytes)
{
    struct io_volatile *d = disk_of(f->io);

    af_lock(&d->lock);
    int r = volatile_file_truncate(open_of(f)->file, bytes);
    af_unlock(&d->lock);
    return r;
}

// ---- directories ----

static int volatile_rename(struct io *io, const char *from, const char *to)
{
    struct io_volatile *d = disk_of(io);
    int r = -ENOENT;

    af_lock(&d->lock);
    if (*find(d, from)) {
        struct entry **old = find(d, to);
        if (*old)
            remove_entry(old);
        r = set_path((*find(d, from))->path, to) ? 0 : -ENAMETOOLONG;
        if (!r)
            r = add_change(d, CHANGE_RENAME, from, to, NULL);
    }
    af_unlock(&d->lock);
    return r;
}

static int volatile_unlink(struct io *io, const char *path)
{
    struct io_volatile *d = disk_of(io);
    int r = -ENOENT;

    af_lock(&d->lock);
    struct entry **e = find(d, path);
    if (*e) {
        remove_entry(e);
        r = add_change(d, CHANGE_UNLINK, path, NULL, NULL);
    }
    af_unlock(&d->lock);
    return r;
}

static int volatile_mkdir(struct io *io, const char *path)
{
    struct io_volatile *d = disk_of(io);
    int r = -EEXIST;

    af_lock(&d->lock);
    if (!*find(d, path)) {
        r = add_entry(d, path, NULL);
        if (!r)
            r = add_change(d, CHANGE_MKDIR, path, NULL, NULL);
    }
    af_unlock(&d->lock);
    return r;
}

static int volatile_sync_dir(struct io *io, const char *path)
{
    struct io_volatile *d = disk_of(io);

    af_lock(&d->lock);
    int r = *path && !*find(d, path) ? -ENOENT : apply_changes(d, path, UINT32_MAX);
    if (!r && (!*path || faccessat(d->posix.dir_fd, path, F_OK, 0) == 0))
        r = io_posix_sync_dir(io, path);
    af_unlock(&d->lock);
    return r;
}

static int volatile_list(struct io *io, const char *path, int (*each)(void *arg, const char *name),
                         void *arg)
{
    struct io_volatile *d = disk_of(io);
    char(*names)[PATH_BYTES];
    size_t count = 0, n = 0;
    int r = 0;

    af_lock(&d->lock);
    for (const struct entry *e = d->entries; e; e = e->next)
        n++;
    names = calloc(n + 1, sizeof(*names));
    for (const struct entry *e = d->entries; names && e; e = e->next)
        if (is_in(e->path, path))
            memcpy(names[count++], e->path + (*path ? strlen(path) + 1 : 0),
                   PATH_BYTES - (*path ? strlen(path) + 1 : 0));
    if (*path && !*find(d, path))
        r = -ENOENT;
    af_unlock(&d->lock);
    if (!names)
        return -ENOMEM;
    for (size_t i = 0; !r && i < count; i++)
        r = each(arg, names[i]);
    free(names);
    return r;
}

// ---- asynchronous operations ----

static void perform(struct io_volatile *d, struct io_async *op)
{
    struct volatile_file *f = open_of(op->file)->file;
    bool write = op->kind == IO_OP_WRITE_DURABLE;

    if (write && d->options.survive && !is_lie(d, op->file->path)) {
        af_lock(&d->lock);
        volatile_file_leak_bytes(f, op->bytes, op->len, op->off, &d->rng);
        af_unlock(&d->lock);
    }
    wait_us(d->options.delay_us);
    af_lock(&d->lock);
    if (!write)
        op->result = sync_locked(d, op->file);
    else if (is_lie(d, op->file->path))
        op->result = volatile_file_write(f, op->bytes, op->len, op->off);
    else
        op->result = volatile_file_write_durable(f, op->bytes, op->len, op->off);
    af_unlock(&d->lock);
}

static void append(struct io_async **at, struct io_async *op)
{
    while (*at)
        at = &(*at)->next;
    op->next = NULL;
    *at = op;
}

static void *help(void *arg)
{
    struct io_volatile *d = arg;

    af_lock(&d->lock);
    while (d->waiting || !d->stopping) {
        struct io_async *op = d->waiting;
        if (!op) {
            af_cond_wait(&d->changed, &d->lock);
            continue;
        }
        d->waiting = op->next;
        af_unlock(&d->lock);
        perform(d, op);
        af_lock(&d->lock);
        append(&d->finished, op);
        uint64_t one = 1;
        AF_ASSERT(write(d->event_fd, &one, sizeof(one)) == sizeof(one));
        af_cond_broadcast(&d->changed);
    }
    af_unlock(&d->lock);
    return NULL;
}

static int volatile_start(struct io *io, struct io_async *op)
{
    struct io_volatile *d = disk_of(io);
    int r = io_posix_check_async(io, op);

    if (r)
        return r;
    af_lock(&d->lock);
    d->in_flight++;
    append(&d->waiting, op);
    af_cond_broadcast(&d->changed);
    af_unlock(&d->lock);
    return 0;
}

static int volatile_reap(struct io *io, bool wait)
{
    struct io_volatile *d = disk_of(io);
    struct io_async *op, *next;
    uint64_t signals;
    int count = 0;

    if (read(d->event_fd, &signals, sizeof(signals)) < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    af_lock(&d->lock);
    while (wait && !d->finished && d->in_flight)
        af_cond_wait(&d->changed, &d->lock);
    op = d->finished;
    d->finished = NULL;
    for (next = op; next; next = next->next)
        count++;
    d->in_flight -= (size_t)count;
    af_unlock(&d->lock);
    for (; op; op = next) {
        next = op->next;
        op->done(op, op->result);
    }
    return count;
}

static int volatile_event_fd(struct io *io)
{
    return disk_of(io)->event_fd;
}

// ---- what survives ----

// Bursts at random, so that long and short gaps between a write and its early arrival occur.
static void *leak(void *arg)
{
    struct io_volatile *d = arg;

    af_lock(&d->lock);
    while (!d->stopping) {
        unsigned odds = (unsigned)(volatile_random(&d->rng) % 3) * 40;
        for (struct entry *e = d->entries; odds && e; e = e->next)
            if (e->file && e->file->fd >= 0 && !is_lie(d, e->path))
                volatile_file_leak(e->file, &d->rng, odds);
        if (volatile_random(&d->rng) % 8 == 0)
            (void)apply_changes(d, NULL, 1); // nobody was promised anything
        (void)af_cond_wait_ms(&d->changed, &d->lock, LEAK_MS);
    }
    af_unlock(&d->lock);
    return NULL;
}

// ---- life ----

// The machine goes on when the daemon ends in order: everything reaches the disk.
static void write_back_all(struct io_volatile *d)
{
    for (struct entry *e = d->entries; e; e = e->next)
        if (e->file && e->file->refs && volatile_file_sync(e->file))
            fprintf(stderr, "powercut-mount: cannot write back %s\n", e->path);
    if (apply_changes(d, NULL, UINT32_MAX))
        fprintf(stderr, "powercut-mount: cannot write back directories\n");
}

static void volatile_destroy(struct io *io)
{
    if (!io)
        return;
    struct io_volatile *d = disk_of(io);
    af_lock(&d->lock);
    d->stopping = true;
    af_cond_broadcast(&d->changed);
    af_unlock(&d->lock);
    AF_ASSERT(pthread_join(d->helper, NULL) == 0);
    if (d->options.survive)
        AF_ASSERT(pthread_join(d->leaker, NULL) == 0);
    write_back_all(d);
    while (d->entries)
        remove_entry(&d->entries);
    af_cond_destroy(&d->changed);
    af_mutex_destroy(&d->lock);
    close(d->event_fd);
    io_posix_close(&d->posix);
    free(d);
}

static int load_one(struct io_volatile *d, const char *path)
{
    struct stat st;
    int r;

    if (fstatat(d->posix.dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return add_entry(d, path, NULL);
    struct volatile_file *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->refs = 1;
    f->fd = openat(d->posix.dir_fd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    f->size = f->valid = (uint64_t)st.st_size;
    r = f->fd < 0 ? -errno : add_entry(d, path, f);
    unref(f);
    return r;
}

struct load {
    struct io_volatile *disk;
    const char *dir;
};

static int load_each(void *arg, const char *name)
{
    const struct load *load = arg;
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof(path), "%s%s%s", load->dir, *load->dir ? "/" : "", name);

    return n < PATH_BYTES ? load_one(load->disk, path) : -ENAMETOOLONG;
}

static int load_names(struct io_volatile *d)
{
    struct load load = {d, ""};
    int r = io_posix_list(&d->posix.io, "", load_each, &load);

    load.dir = "wal";
    if (!r && *find(d, "wal"))
        r = io_posix_list(&d->posix.io, "wal", load_each, &load);
    return r;
}

void io_volatile_start_lying(struct io *io)
{
    struct io_volatile *d = disk_of(io);

    atomic_store(&d->up, true);
    af_lock(&d->lock);
    d->lying = true;
    af_unlock(&d->lock);
}

static const struct io_ops volatile_ops = {
    .name = "volatile",
    .open = volatile_open,
    .close = volatile_close,
    .pread = volatile_pread,
    .pwritev = volatile_pwritev,
    .sync = volatile_sync,
    .size = volatile_size,
    .allocate = volatile_allocate,
    .truncate = volatile_truncate,
    .rename = volatile_rename,
    .unlink = volatile_unlink,
    .mkdir = volatile_mkdir,
    .sync_dir = volatile_sync_dir,
    .list = volatile_list,
    .space = io_posix_space,
    .now_ns = io_posix_now_ns,
    .ticks_ms = io_posix_ticks_ms,
    .random = io_posix_random,
    .start = volatile_start,
    .reap = volatile_reap,
    .event_fd = volatile_event_fd,
    .destroy = volatile_destroy,
};

int io_volatile_open(const char *path, const struct io_volatile_options *options,
                     struct io **ret_io)
{
    struct io_volatile *d = calloc(1, sizeof(*d));
    int r;

    if (!d)
        return -ENOMEM;
    r = io_posix_init(&d->posix, &volatile_ops, path, false);
    if (!r) {
        d->posix.io.direct = false;
        d->options = *options;
        d->rng = options->seed;
        r = load_names(d);
    }
    // A failure ends the program: nothing is taken down piece by piece.
    d->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!r && d->event_fd < 0)
        r = -errno;
    af_mutex_init(&d->lock, LOCK_RANK_IO);
    af_cond_init(&d->changed);
    if (!r)
        r = -pthread_create(&d->helper, NULL, help, d);
    if (!r && options->survive)
        r = -pthread_create(&d->leaker, NULL, leak, d);
    *ret_io = &d->posix.io;
    return r;
}
