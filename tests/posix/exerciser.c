// SPDX-License-Identifier: MIT
// Random work on several files by several descriptors and maps, every byte compared with a copy in
// memory; with remounts in between, and kills of the daemon, after which the files must hold what
// one moment of their history says (exerciser.h).
//
//   exerciser [--seed N] [--seconds N] [--remount COMMAND] [--kill COMMAND] [--mount COMMAND] DIR
//
// --kill ends the daemon, --mount mounts again, --remount unmounts and mounts; without them there
// is none of it, and DIR may lie on any file system. The mount must complete nothing by time
// (-o commit_open=0). Exit code 1: a difference, and how it came about.

#include "tests/posix/exerciser.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINES 60

static char log_lines[LOG_LINES][160];
static uint64_t log_count;
static uint64_t seed;
static uint8_t *scratch; // BYTES_MAX, aligned

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(log_lines[log_count++ % LOG_LINES], sizeof(log_lines[0]), fmt, args);
    va_end(args);
}

__attribute__((format(printf, 1, 2))) static _Noreturn void wrong(const char *fmt, ...)
{
    va_list args;

    for (uint64_t i = log_count > LOG_LINES ? log_count - LOG_LINES : 0; i < log_count; i++)
        fprintf(stderr, "%" PRIu64 ": %s\n", i, log_lines[i % LOG_LINES]);
    fprintf(stderr, "seed %" PRIu64 ": ", seed);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, "\n");
    exit(1);
}

// True when the call may go on. A daemon that was killed ends the round; anything else is wrong.
static bool went(struct exerciser *x, bool ok, const char *what)
{
    int err = errno;

    if (ok)
        return true;
    if (x->killed && (err == ENOTCONN || err == ECONNABORTED || err == EIO))
        return false;
    wrong("%s: %s", what, strerror(err));
}

static const char *path_of(const struct exerciser *x, unsigned k)
{
    static char paths[2][4096];
    static unsigned turn;
    char *path = paths[turn++ % 2];

    snprintf(path, sizeof(paths[0]), "%s/f%u", x->dir, k);
    return path;
}

static unsigned number_of(const struct exerciser *x, const struct file *f)
{
    return (unsigned)(f - x->files);
}

// ---- what the calls do to the copy ----

static bool somebody_dirty(const struct file *f)
{
    for (unsigned i = 0; i < FDS; i++) {
        if (f->fds[i].fd >= 0 && f->fds[i].dirty)
            return true;
    }
    return false;
}

static bool somebody_writes(const struct file *f)
{
    for (unsigned i = 0; i < FDS; i++) {
        if (f->fds[i].fd >= 0 && (f->fds[i].flags & O_ACCMODE) != O_RDONLY)
            return true;
    }
    return false;
}

static void clean(struct file *f)
{
    for (unsigned i = 0; i < FDS; i++)
        f->fds[i].dirty = false;
    f->maps_wrote = false;
}

// fsync and what is like it: the content is completed, and everything so far acknowledged.
static void synced(struct exerciser *x, struct file *f)
{
    if (somebody_dirty(f) || f->maps_wrote)
        completed(x, f, true);
    clean(f);
    acknowledged(x);
}

static void put_bytes(struct file *f, size_t off, const uint8_t *bytes, size_t len)
{
    if (off + len > f->now.size)
        content_resize(&f->now, off + len);
    memcpy(f->now.bytes + off, bytes, len);
}

static void fill(struct exerciser *x, uint8_t *bytes, size_t len)
{
    uint64_t word = x->rng | 1;

    for (size_t i = 0; i < len; i++) {
        word = word * UINT64_C(6364136223846793005) + 12345;
        bytes[i] = (uint8_t)(word >> 56);
    }
    rnd(x, 2);
}

static void check_bytes(struct exerciser *x, const struct file *f, size_t off, size_t len,
                        const uint8_t *found, const char *how)
{
    x->bytes_checked += len;
    if (memcmp(f->now.bytes + off, found, len) == 0)
        return;
    size_t i = 0;
    while (f->now.bytes[off + i] == found[i])
        i++;
    wrong("f%u read by %s from %zu: byte %zu is %02x and should be %02x", number_of(x, f), how, off,
          off + i, found[i], f->now.bytes[off + i]);
}

// ---- choosing ----

static size_t some_offset(struct exerciser *x, size_t below)
{
    size_t off = rnd(x, below + 1);

    if (rnd(x, 3) == 0)
        off = off / 4096 * 4096;
    return off;
}

static size_t some_length(struct exerciser *x, size_t most)
{
    static const size_t bounds[] = {16, 1000, 4096, 9000, 70000, 300000};
    size_t bound = bounds[rnd(x, sizeof(bounds) / sizeof(bounds[0]))];
    size_t len = 1 + rnd(x, bound);

    if (rnd(x, 4) == 0)
        len = (len + 4095) / 4096 * 4096;
    return len < most ? len : most;
}

static struct open_fd *some_fd(struct exerciser *x, struct file *f, bool writes)
{
    unsigned first = (unsigned)rnd(x, FDS);

    for (unsigned i = 0; i < FDS; i++) {
        struct open_fd *o = &f->fds[(first + i) % FDS];
        if (o->fd >= 0 && (!writes || (o->flags & O_ACCMODE) != O_RDONLY))
            return o;
    }
    return NULL;
}

// ---- the calls ----

static bool do_open(struct exerciser *x, struct file *f)
{
    static const int kinds[] = {O_RDWR,          O_RDWR,   O_RDWR | O_APPEND, O_RDWR | O_DIRECT,
                                O_RDWR | O_SYNC, O_RDONLY, O_RDWR | O_TRUNC};
    struct open_fd *o = &f->fds[rnd(x, FDS)];
    int flags = kinds[rnd(x, sizeof(kinds) / sizeof(kinds[0]))];

    if (o->fd >= 0)
        return true;
    if (!f->now.there)
        flags = (flags & ~O_ACCMODE) | O_RDWR | O_CREAT | O_EXCL;
    note("open f%u flags %o", number_of(x, f), (unsigned)flags);
    int fd = open(path_of(x, number_of(x, f)), flags | O_CLOEXEC, 0644);
    if (!went(x, fd >= 0, "open"))
        return false;
    *o = (struct open_fd){.fd = fd, .flags = flags, .dirty = flags & (O_CREAT | O_TRUNC)};
    if (flags & (O_CREAT | O_TRUNC))
        content_resize(&f->now, 0);
    f->now.there = true;
    return true;
}

// The close itself is not answered: it is in the history, and a kill may come before it.
static void do_close_fd(struct exerciser *x, struct file *f, struct open_fd *o)
{
    bool dirty = o->dirty, writer = (o->flags & O_ACCMODE) != O_RDONLY;

    note("close f%u", number_of(x, f));
    close(o->fd);
    o->fd = -1;
    o->dirty = false;
    if (!dirty && !(writer && f->maps_wrote))
        return;
    if (somebody_dirty(f))
        return;
    // The last that has changed it; where maps have, the kernel may have named another one.
    bool sure = !f->maps_wrote || !somebody_writes(f);
    completed(x, f, sure);
    if (sure)
        clean(f);
    else
        f->maps_wrote = true;
}

static bool do_close(struct exerciser *x, struct file *f)
{
    struct open_fd *o = some_fd(x, f, false);

    if (o)
        do_close_fd(x, f, o);
    return true;
}

static bool do_write(struct exerciser *x, struct file *f)
{
    struct open_fd *o = some_fd(x, f, true);

    if (!o)
        return true;
    bool append = o->flags & O_APPEND;
    size_t off = append ? f->now.size : some_offset(x, f->now.size + 5000);
    if (off >= BYTES_MAX - 4096)
        off = append ? off : 0;
    size_t room = BYTES_MAX - off, len = some_length(x, room);
    if (o->flags & O_DIRECT) {
        off = off / 4096 * 4096;
        len = (len + 4095) / 4096 * 4096;
        len = off + len > BYTES_MAX ? 4096 : len;
    }
    if (off + len > BYTES_MAX)
        return true;
    fill(x, scratch, len);
    note("write f%u %zu+%zu flags %o", number_of(x, f), off, len, (unsigned)o->flags);
    ssize_t n = append ? write(o->fd, scratch, len) : pwrite(o->fd, scratch, len, (off_t)off);
    bool sync = o->flags & O_SYNC & ~O_DSYNC;
    if (n < 0 && x->killed && sync) { // some of it may have come, and the sync with it
        put_bytes(f, off, scratch, len);
        o->dirty = true;
        completed(x, f, false);
    }
    if (!went(x, n >= 0, "write"))
        return false;
    if ((size_t)n != len && !x->killed)
        wrong("write of %zu bytes returned %zd", len, n);
    put_bytes(f, off, scratch, (size_t)n);
    o->dirty = true;
    if (sync)
        synced(x, f);
    return (size_t)n == len;
}

static bool do_read(struct exerciser *x, struct file *f)
{
    struct open_fd *o = some_fd(x, f, false);

    if (!o || f->now.size == 0)
        return true;
    size_t off = some_offset(x, f->now.size - 1), len = some_length(x, BYTES_MAX - off);
    if (o->flags & O_DIRECT) {
        off = off / 4096 * 4096;
        len = (len + 4095) / 4096 * 4096;
        len = off + len > BYTES_MAX ? 4096 : len;
    }
    size_t expected = off + len > f->now.size ? f->now.size - off : len;
    note("read f%u %zu+%zu", number_of(x, f), off, len);
    ssize_t n = pread(o->fd, scratch, len, (off_t)off);
    if (!went(x, n >= 0, "read"))
        return false;
    if ((size_t)n < expected && x->killed) // the rest was not to be had any more
        return false;
    if ((size_t)n != expected)
        wrong("read of f%u at %zu returned %zd, not %zu", number_of(x, f), off, n, expected);
    check_bytes(x, f, off, expected, scratch, o->flags & O_DIRECT ? "O_DIRECT" : "read");
    return true;
}

static bool do_map_read(struct exerciser *x, struct file *f)
{
    struct open_fd *o = some_fd(x, f, false);

    if (!o || f->now.size == 0)
        return true;
    note("map-read f%u", number_of(x, f));
    uint8_t *map = mmap(NULL, f->now.size, PROT_READ, MAP_SHARED, o->fd, 0);
    if (map == MAP_FAILED)
        wrong("mmap: %s", strerror(errno));
    if (!x->killed) // a page that cannot be read any more is a signal
        check_bytes(x, f, 0, f->now.size, map, "mmap");
    munmap(map, f->now.size);
    return true;
}

static bool do_map_write(struct exerciser *x, struct file *f)
{
    struct open_fd *o = some_fd(x, f, true);

    if (!o || f->now.size == 0 || x->killed)
        return true;
    size_t off = rnd(x, f->now.size), len = some_length(x, f->now.size - off);
    bool sync = rnd(x, 2);
    note("map-write f%u %zu+%zu%s", number_of(x, f), off, len, sync ? " msync" : "");
    uint8_t *map = mmap(NULL, f->now.size, PROT_READ | PROT_WRITE, MAP_SHARED, o->fd, 0);
    if (map == MAP_FAILED)
        wrong("mmap: %s", strerror(errno));
    fill(x, map + off, len);
    put_bytes(f, off, map + off, len);
    f->maps_wrote = true;
    int r = sync ? msync(map, f->now.size, MS_SYNC) : 0;
    if (r == 0 && sync)
        synced(x, f);
    munmap(map, f->now.size); // the kernel writes back what is left
    return went(x, r == 0, "msync");
}

static bool do_truncate(struct exerciser *x, struct file *f)
{
    struct open_fd *o = rnd(x, 3) ? some_fd(x, f, true) : NULL;
    size_t size = rnd(x, 4) == 0 ? 0 : some_offset(x, f->now.size + 20000);

    if (!f->now.there || size > BYTES_MAX)
        return true;
    note("truncate f%u %zu%s", number_of(x, f), size, o ? " by descriptor" : "");
    bool alone = !o && !somebody_dirty(f) && !f->maps_wrote;
    int r = o ? ftruncate(o->fd, (off_t)size) : truncate(path_of(x, number_of(x, f)), (off_t)size);
    if (r < 0 && x->killed && alone) {
        content_resize(&f->now, size);
        completed(x, f, false);
    }
    if (!went(x, r == 0, "truncate"))
        return false;
    content_resize(&f->now, size);
    if (o)
        o->dirty = true;
    else if (alone)
        completed(x, f, true);
    else if (!somebody_dirty(f)) // what maps wrote may count as nobody's
        completed(x, f, false);
    return true;
}

static bool do_fallocate(struct exerciser *x, struct file *f)
{
    static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE, 0,
                                FALLOC_FL_KEEP_SIZE};
    int mode = modes[rnd(x, sizeof(modes) / sizeof(modes[0]))];
    struct open_fd *o = some_fd(x, f, true);
    size_t off = some_offset(x, f->now.size + 1000), len;

    if (!o || off >= BYTES_MAX)
        return true;
    len = some_length(x, BYTES_MAX - off);
    note("fallocate f%u mode %d %zu+%zu", number_of(x, f), mode, off, len);
    if (!went(x, fallocate(o->fd, mode, (off_t)off, (off_t)len) == 0, "fallocate"))
        return false;
    if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > f->now.size)
        content_resize(&f->now, off + len);
    if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && off < f->now.size)
        memset(f->now.bytes + off, 0, off + len > f->now.size ? f->now.size - off : len);
    o->dirty = true;
    return true;
}

static bool do_copy(struct exerciser *x, struct file *to)
{
    struct file *from = &x->files[rnd(x, FILES)];
    struct open_fd *in = some_fd(x, from, false), *out = some_fd(x, to, true);

    if (!in || !out || from == to || from->now.size == 0 || (out->flags & (O_APPEND | O_DIRECT)) ||
        (in->flags & O_DIRECT))
        return true;
    size_t off_in = some_offset(x, from->now.size - 1), off_out = some_offset(x, to->now.size);
    size_t len = some_length(x, from->now.size - off_in);
    if (off_out + len > BYTES_MAX)
        return true;
    loff_t a = (loff_t)off_in, b = (loff_t)off_out;
    note("copy f%u %zu to f%u %zu, %zu", number_of(x, from), off_in, number_of(x, to), off_out,
         len);
    ssize_t n = copy_file_range(in->fd, &a, out->fd, &b, len, 0);
    if (!went(x, n >= 0, "copy_file_range"))
        return false;
    if (n == 0)
        wrong("copy_file_range copied nothing");
    put_bytes(to, off_out, from->now.bytes + off_in, (size_t)n);
    out->dirty = true;
    if (out->flags & O_SYNC & ~O_DSYNC)
        completed(x, to, false); // the kernel may sync after it
    return true;
}

static bool do_fsync(struct exerciser *x, struct file *f)
{
    struct open_fd *o = some_fd(x, f, false);

    if (!o)
        return true;
    note("fsync f%u", number_of(x, f));
    int r = rnd(x, 2) ? fsync(o->fd) : fdatasync(o->fd);
    if (r < 0 && x->killed)
        completed(x, f, false);
    if (!went(x, r == 0, "fsync"))
        return false;
    synced(x, f);
    return true;
}

static bool do_sync_dir(struct exerciser *x, struct file *f)
{
    (void)f;
    int fd = open(x->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    note("fsync of the directory");
    if (!went(x, fd >= 0, "open of the directory"))
        return false;
    int r = fsync(fd);
    close(fd);
    if (!went(x, r == 0, "fsync of the directory"))
        return false;
    acknowledged(x);
    return true;
}

static void close_all(struct exerciser *x, struct file *f)
{
    for (unsigned i = 0; i < FDS; i++) {
        if (f->fds[i].fd >= 0)
            do_close_fd(x, f, &f->fds[i]);
    }
}

static bool do_rename(struct exerciser *x, struct file *f)
{
    struct file *to = &x->files[rnd(x, FILES)];
    struct open_fd fds[FDS];

    if (to == f || !f->now.there)
        return true;
    close_all(x, to);
    note("rename f%u f%u", number_of(x, f), number_of(x, to));
    int r = rename(path_of(x, number_of(x, f)), path_of(x, number_of(x, to)));
    if (!went(x, r == 0 || x->killed, "rename"))
        return false;
    // It is completed first: one moment, then the move.
    if (somebody_dirty(f) || f->maps_wrote)
        completed(x, f, r == 0);
    clean(f);
    struct content was = to->now;
    to->now = f->now;
    f->now = (struct content){0};
    completed_both(x, f, to, r == 0);
    content_free(&was);
    memcpy(fds, f->fds, sizeof(fds)); // the descriptors go with it
    memcpy(f->fds, to->fds, sizeof(fds));
    memcpy(to->fds, fds, sizeof(fds));
    return r == 0;
}

static bool do_exchange(struct exerciser *x, struct file *f)
{
    struct file *to = &x->files[rnd(x, FILES)];

    if (to == f || !f->now.there || !to->now.there)
        return true;
    close_all(x, f);
    close_all(x, to);
    note("exchange f%u f%u", number_of(x, f), number_of(x, to));
    int r = renameat2(AT_FDCWD, path_of(x, number_of(x, f)), AT_FDCWD, path_of(x, number_of(x, to)),
                      RENAME_EXCHANGE);
    struct content was = to->now;
    if (!went(x, r == 0 || x->killed, "exchange"))
        return false;
    to->now = f->now;
    f->now = was;
    completed_both(x, f, to, r == 0);
    return r == 0;
}

static bool do_unlink(struct exerciser *x, struct file *f)
{
    if (!f->now.there || rnd(x, 3))
        return true;
    close_all(x, f);
    note("unlink f%u", number_of(x, f));
    int r = unlink(path_of(x, number_of(x, f)));
    if (r < 0 && x->killed) {
        content_free(&f->now);
        completed(x, f, false);
    }
    if (!went(x, r == 0, "unlink"))
        return false;
    content_free(&f->now);
    clean(f);
    completed(x, f, true);
    return true;
}

// A file without a name takes the place of one that is not there.
static bool do_tmpfile(struct exerciser *x, struct file *f)
{
    char by_fd[64];

    if (f->now.there || x->killed)
        return true;
    size_t len = some_length(x, BYTES_MAX);
    note("tmpfile to f%u, %zu", number_of(x, f), len);
    int fd = open(x->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
    fill(x, scratch, len);
    if (!went(x, fd >= 0, "O_TMPFILE"))
        return false;
    ssize_t n = write(fd, scratch, len);
    snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
    int r = n < 0
                ? -1
                : linkat(AT_FDCWD, by_fd, AT_FDCWD, path_of(x, number_of(x, f)), AT_SYMLINK_FOLLOW);
    int err = errno;
    close(fd);
    errno = err;
    if (r == 0 || x->killed) {
        put_bytes(f, 0, scratch, len);
        f->now.there = true;
        completed(x, f, r == 0);
    }
    return went(x, r == 0, "linkat");
}

static bool do_stat(struct exerciser *x, struct file *f)
{
    struct stat st;
    int r = stat(path_of(x, number_of(x, f)), &st);

    if (r < 0 && errno == ENOENT && !f->now.there)
        return true;
    if (!went(x, r == 0, "stat"))
        return false;
    if (!f->now.there || st.st_size != (off_t)f->now.size)
        wrong("f%u has %lld bytes, and should have %zu", number_of(x, f), (long long)st.st_size,
              f->now.size);
    return true;
}

static const struct {
    bool (*run)(struct exerciser *x, struct file *f);
    unsigned weight;
} calls[] = {
    {do_open, 12},    {do_close, 8},     {do_write, 22},   {do_read, 16},
    {do_map_read, 4}, {do_map_write, 6}, {do_truncate, 5}, {do_fallocate, 6},
    {do_copy, 5},     {do_fsync, 5},     {do_sync_dir, 1}, {do_rename, 2},
    {do_exchange, 1}, {do_unlink, 2},    {do_tmpfile, 3},  {do_stat, 2},
};

static bool one_call(struct exerciser *x)
{
    struct file *f = &x->files[rnd(x, FILES)];
    unsigned total = 0, i = 0;

    for (unsigned k = 0; k < FILES; k++) {
        if (x->files[k].count > HISTORY_MAX / 2)
            return do_sync_dir(x, f);
    }
    for (unsigned k = 0; k < sizeof(calls) / sizeof(calls[0]); k++)
        total += calls[k].weight;
    unsigned at = (unsigned)rnd(x, total);
    while (at >= calls[i].weight)
        at -= calls[i++].weight;
    x->ops++;
    return calls[i].run(x, f);
}

// ---- the whole ----

static void read_file(struct exerciser *x, unsigned k, struct content *ret)
{
    int fd = open(path_of(x, k), O_RDONLY);

    if (fd < 0 && errno == ENOENT)
        return;
    if (fd < 0)
        wrong("open of f%u after mounting: %s", k, strerror(errno));
    content_resize(ret, 0);
    ssize_t n = read(fd, ret->bytes, BYTES_MAX);
    if (n < 0)
        wrong("read of f%u after mounting: %s", k, strerror(errno));
    ret->size = (size_t)n;
    ret->there = true;
    close(fd);
}

static void command(const char *text)
{
    int r = system(text);

    if (r != 0)
        wrong("'%s' ended with status 0x%x", text, (unsigned)r);
}

static void explain(const struct exerciser *x, const struct content found[FILES])
{
    for (unsigned k = 0; k < FILES; k++) {
        const struct file *f = &x->files[k];

        fprintf(stderr, "f%u: found %s of %zu bytes; may be", k,
                found[k].there ? "a file" : "nothing", found[k].size);
        for (unsigned i = 0; i < f->count; i++)
            fprintf(stderr, " %" PRIu64 "%s:%s%zu%s", f->history[i].number,
                    f->history[i].sure ? "" : "?", f->history[i].content.there ? "" : "nothing ",
                    f->history[i].content.size,
                    content_same(&f->history[i].content, &found[k]) ? "(this)" : "");
        fprintf(stderr, "\n");
    }
}

// `what` NULL: takes what is there.
static void compare(struct exerciser *x, const char *what)
{
    struct content found[FILES] = {0};

    for (unsigned k = 0; k < FILES; k++)
        read_file(x, k, &found[k]);
    if (what && find_cut(x, found) < 0) {
        explain(x, found);
        wrong("after %s the files are no moment of their history", what);
    }
    restart_from(x, found);
}

// A killer that strikes while calls are under way.
static void kill_round(struct exerciser *x, const char *kill_command, const char *mount_command)
{
    char line[4096], sh[] = "/bin/sh", minus_c[] = "-c";
    char *args[] = {sh, minus_c, line, NULL};
    pid_t pid;

    // Not by fork(): the killer must hold none of the descriptors, or a close would be no last
    // close.
    snprintf(line, sizeof(line), "sleep 0.%03u; exec %s", (unsigned)rnd(x, 150), kill_command);
    if (posix_spawn(&pid, sh, NULL, NULL, args, environ) != 0)
        wrong("cannot start the killer");
    x->killed = true;
    note("kill");
    while (one_call(x))
        ;
    for (unsigned k = 0; k < FILES; k++) {
        for (unsigned i = 0; i < FDS; i++) {
            struct open_fd *o = &x->files[k].fds[i];
            if (o->fd >= 0)
                close(o->fd);
            o->fd = -1;
            o->dirty = false;
        }
    }
    int status;
    waitpid(pid, &status, 0);
    if (status != 0)
        wrong("the daemon could not be killed");
    command(mount_command);
    x->killed = false;
    x->kills++;
    compare(x, "a kill");
}

static void remount(struct exerciser *x, const char *remount_command)
{
    for (unsigned k = 0; k < FILES; k++)
        close_all(x, &x->files[k]);
    note("remount");
    acknowledged(x);
    command(remount_command);
    x->remounts++;
    compare(x, "a clean remount");
}

int main(int argc, char **argv)
{
    static struct exerciser x;
    const char *kill_command = NULL, *mount_command = NULL, *remount_command = NULL;
    struct timespec start, now;
    long seconds = 20;
    int at = 1;

    clock_gettime(CLOCK_REALTIME, &now);
    seed = (uint64_t)now.tv_nsec / 1000;
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        if (strcmp(argv[at], "--seed") == 0)
            seed = strtoull(argv[at + 1], NULL, 10);
        else if (strcmp(argv[at], "--seconds") == 0)
            seconds = strtol(argv[at + 1], NULL, 10);
        else if (strcmp(argv[at], "--kill") == 0)
            kill_command = argv[at + 1];
        else if (strcmp(argv[at], "--mount") == 0)
            mount_command = argv[at + 1];
        else if (strcmp(argv[at], "--remount") == 0)
            remount_command = argv[at + 1];
    }
    if (at + 1 != argc || !kill_command != !mount_command) {
        fprintf(stderr, "usage: exerciser [--seed N] [--seconds N] [--remount COMMAND] "
                        "[--kill COMMAND --mount COMMAND] DIR\n");
        return 2;
    }
    x.dir = argv[at];
    x.rng = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    void *memory;
    if (posix_memalign(&memory, 4096, BYTES_MAX))
        return 2;
    scratch = memory;
    for (unsigned k = 0; k < FILES; k++) {
        for (unsigned i = 0; i < FDS; i++)
            x.files[k].fds[i].fd = -1;
    }
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);
    compare(&x, NULL);
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (uint64_t n = 200 + rnd(&x, 1500); n > 0 && one_call(&x); n--)
            ;
        if (kill_command && rnd(&x, 4) != 0)
            kill_round(&x, kill_command, mount_command);
        else if (remount_command)
            remount(&x, remount_command);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - start.tv_sec < seconds);
    printf("%" PRIu64 " calls, %" PRIu64 " MiB compared, %" PRIu64 " kills, %" PRIu64
           " remounts, no difference (seed %" PRIu64 ")\n",
           x.ops, x.bytes_checked >> 20, x.kills, x.remounts, seed);
    return 0;
}
