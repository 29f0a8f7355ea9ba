// SPDX-License-Identifier: MIT
// `aerofs torture`: what a writer does, and the chain of states that follows from it.
#include "mountutil/torture.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/checksum.h"

#define SMALL_BYTES 6000u
#define LARGE_BYTES (6u << 20)

uint64_t torture_random(uint64_t *rng)
{
    uint64_t z = *rng += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

// ---- content ----

uint64_t torture_chain(uint64_t before, uint64_t version)
{
    const uint64_t both[2] = {before, version};

    return checksum(CSUM_DATA, 1, both, sizeof(both)) | 1;
}

uint64_t torture_sum(const struct torture_chunk *c)
{
    return checksum(CSUM_DATA, 2, c, offsetof(struct torture_chunk, sum));
}

void torture_fill(const struct torture_chunk *c, uint8_t *bytes)
{
    uint64_t rng = c->chain ^ c->writer;

    for (uint64_t at = 0; at < c->bytes; at += sizeof(uint64_t)) {
        uint64_t word = torture_random(&rng);
        memcpy(bytes + at, &word, (size_t)AF_MIN(c->bytes - at, (uint64_t)sizeof(word)));
    }
}

void torture_path(char *to, const char *dir, unsigned name)
{
    snprintf(to, PATH_MAX, "%s/%skey%u", dir, name < TORTURE_NAMES / 2 ? "" : "sub/", name);
}

// ---- states ----

static void set_content(struct torture_state *s, const struct torture_event *e, uint64_t before)
{
    uint64_t object = s->file[e->a] ? s->file[e->a] : e->version;
    uint64_t chain = torture_chain(before, e->version);

    s->file[e->a] = object;
    for (unsigned i = 0; i < TORTURE_NAMES; i++)
        if (s->file[i] == object)
            s->chain[i] = chain;
}

void torture_apply(struct torture_state *s, const struct torture_event *e)
{
    switch ((enum torture_kind)e->kind) {
    case TORTURE_WRITE:
        set_content(s, e, 0);
        break;
    case TORTURE_APPEND:
        set_content(s, e, s->file[e->a] ? s->chain[e->a] : 0);
        break;
    case TORTURE_RENAME:
    case TORTURE_LINK:
        s->file[e->b] = s->file[e->a];
        s->chain[e->b] = s->chain[e->a];
        if (e->kind == TORTURE_RENAME)
            s->file[e->a] = 0;
        break;
    case TORTURE_UNLINK:
        s->file[e->a] = 0;
        break;
    case TORTURE_MKDIR:
    case TORTURE_RMDIR:
        s->dir[e->a] = e->kind == TORTURE_MKDIR;
        break;
    case TORTURE_KINDS:
        break;
    }
}

// Objects may have other numbers, but the same names must share one.
bool torture_same(const struct torture_state *a, const struct torture_state *b)
{
    for (unsigned i = 0; i < TORTURE_NAMES; i++) {
        if (!a->file[i] != !b->file[i] || (a->file[i] && a->chain[i] != b->chain[i]))
            return false;
        for (unsigned j = 0; a->file[i] && j < i; j++)
            if ((a->file[i] == a->file[j]) != (b->file[i] == b->file[j]))
                return false;
    }
    return memcmp(a->dir, b->dir, sizeof(a->dir)) == 0;
}

// ---- calls; all return 0 or an errno ----

static int note(const struct torture_writer *w, enum torture_mark mark,
                const struct torture_event *e)
{
    const struct torture_line line = {.mark = mark, .writer = w->number, .event = *e};

    return write(w->journal_fd, &line, sizeof(line)) == (ssize_t)sizeof(line) ? 0 : EIO;
}

static int sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = fd < 0 || fsync(fd) ? errno : 0;

    if (fd >= 0)
        close(fd);
    return err;
}

static int write_chunk(int fd, const struct torture_chunk *c)
{
    size_t size = sizeof(*c) + c->bytes, done = 0;
    uint8_t *bytes = malloc(size);
    int err = bytes ? 0 : ENOMEM;

    if (bytes) {
        memcpy(bytes, c, sizeof(*c));
        torture_fill(c, bytes + sizeof(*c));
    }
    while (!err && done < size) {
        ssize_t n = write(fd, bytes + done, size - done);
        if (n < 0)
            err = errno;
        else
            done += (size_t)n;
    }
    free(bytes);
    return err;
}

// What cannot be written does not happen. What was written of it must not be completed by the
// close, so every name of the file goes first; on a full disk that always works (the reserve).
static int give_up(struct torture_writer *w, const struct torture_event *e, enum torture_mark mark)
{
    const uint64_t object = w->state.file[e->a];
    char path[PATH_MAX];
    int err = note(w, mark, e);

    for (unsigned i = 0; !err && i < TORTURE_NAMES; i++) {
        if (i != e->a && (!object || w->state.file[i] != object))
            continue;
        const struct torture_event gone = {.version = ++w->version, .kind = TORTURE_UNLINK, .a = i};
        err = note(w, TORTURE_INTENT, &gone);
        torture_path(path, w->dir, i);
        if (!err && unlink(path))
            err = errno;
        if (!err)
            torture_apply(&w->state, &gone);
    }
    return err;
}

static int do_content(struct torture_writer *w, const struct torture_event *e, bool *ret_refused)
{
    const struct torture_state *s = &w->state;
    struct torture_chunk c = {.magic = TORTURE_MAGIC, .version = e->version, .bytes = e->bytes};
    int how = e->kind == TORTURE_APPEND ? O_APPEND : O_TRUNC;
    char path[PATH_MAX];

    c.before = e->kind == TORTURE_APPEND && s->file[e->a] ? s->chain[e->a] : 0;
    c.chain = torture_chain(c.before, e->version);
    c.writer = w->number;
    c.name = e->a;
    c.sum = torture_sum(&c);
    torture_path(path, w->dir, e->a);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | how, 0644);
    if (fd < 0) {
        *ret_refused = errno == ENOSPC;
        return *ret_refused ? note(w, TORTURE_REFUSED, e) : errno;
    }
    int err = write_chunk(fd, &c);
    if (err) {
        *ret_refused = err == ENOSPC;
        int r = give_up(w, e, *ret_refused ? TORTURE_REFUSED : TORTURE_FAILED);
        err = *ret_refused ? r : err;
        return close(fd) && !err ? errno : err;
    }
    if (!err && e->sync && (e->version & 1 ? fsync(fd) : fdatasync(fd)))
        err = errno;
    if (!err && e->sync)
        err = note(w, TORTURE_ACK, e);
    if (close(fd) && !err)
        err = errno;
    return err;
}

static int do_names(const struct torture_writer *w, const struct torture_event *e,
                    bool *ret_refused)
{
    char a[PATH_MAX], b[PATH_MAX];
    int r = 0;

    torture_path(a, w->dir, e->a);
    torture_path(b, w->dir, e->b);
    if (e->kind == TORTURE_MKDIR || e->kind == TORTURE_RMDIR)
        snprintf(a, sizeof(a), "%s/dir%u", w->dir, e->a);
    if (e->kind == TORTURE_RENAME)
        r = rename(a, b);
    else if (e->kind == TORTURE_LINK)
        r = link(a, b);
    else if (e->kind == TORTURE_UNLINK)
        r = unlink(a);
    else
        r = e->kind == TORTURE_MKDIR ? mkdir(a, 0755) : rmdir(a);
    // What gives space back is never refused for want of it.
    if (r && errno == ENOSPC && e->kind != TORTURE_UNLINK && e->kind != TORTURE_RMDIR) {
        *ret_refused = true;
        return note(w, TORTURE_REFUSED, e);
    }
    if (r)
        return errno;
    int err = e->sync ? sync_dir(w->dir) : 0;
    return err || !e->sync ? err : note(w, TORTURE_ACK, e);
}

// ---- choices ----

static uint32_t below(struct torture_writer *w, uint32_t n)
{
    return (uint32_t)(torture_random(&w->rng) % n);
}

// Turns what makes no sense in this state into a write.
static struct torture_event choose(struct torture_writer *w)
{
    static const uint8_t kinds[16] = {
        TORTURE_WRITE,  TORTURE_WRITE,  TORTURE_WRITE,  TORTURE_WRITE,
        TORTURE_WRITE,  TORTURE_APPEND, TORTURE_APPEND, TORTURE_APPEND,
        TORTURE_RENAME, TORTURE_RENAME, TORTURE_LINK,   TORTURE_UNLINK,
        TORTURE_UNLINK, TORTURE_MKDIR,  TORTURE_RMDIR,  TORTURE_RENAME};
    const struct torture_state *s = &w->state;
    struct torture_event e = {.version = ++w->version,
                              .kind = kinds[below(w, 16)],
                              .a = below(w, TORTURE_NAMES),
                              .b = below(w, TORTURE_NAMES),
                              .sync = below(w, 3) != 0};

    e.bytes = below(w, 40) == 0 ? 1 + below(w, LARGE_BYTES) : 1 + below(w, SMALL_BYTES);
    if (e.kind == TORTURE_MKDIR || e.kind == TORTURE_RMDIR) {
        e.a = below(w, TORTURE_DIRS);
        e.kind = s->dir[e.a] ? TORTURE_RMDIR : TORTURE_MKDIR;
        return e;
    }
    bool two = e.kind == TORTURE_RENAME || e.kind == TORTURE_LINK;
    bool same = two && (e.a == e.b || (s->file[e.b] && s->file[e.a] == s->file[e.b]));
    if ((e.kind >= TORTURE_RENAME && !s->file[e.a]) || same ||
        (e.kind == TORTURE_LINK && s->file[e.b]))
        e.kind = TORTURE_WRITE;
    if (e.kind == TORTURE_APPEND)
        e.bytes = 1 + e.bytes % SMALL_BYTES; // one call, so that no timer can part it
    return e;
}

int torture_writer_setup(const char *dir)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/sub", dir);
    if (mkdir(dir, 0755) || mkdir(path, 0755))
        return errno;
    return sync_dir(dir);
}

// The kernel answers EIO to a call whose request it was just copying to the daemon when that was
// killed (fuse_dev_do_read()); the mount is dead a moment later. EIO of a living mount stays EIO.
static int tell_death(const struct torture_writer *w, int err)
{
    const struct timespec step = {.tv_nsec = 10000000};
    struct statvfs sv;

    for (int i = 0; err == EIO && i < 200; i++) {
        if (statvfs(w->dir, &sv) && (errno == ENOTCONN || errno == ECONNABORTED))
            return ENOTCONN;
        nanosleep(&step, NULL);
    }
    return err;
}

int torture_writer_run(struct torture_writer *w)
{
    for (;;) {
        struct torture_event e = choose(w);
        bool refused = false;
        int err = note(w, TORTURE_INTENT, &e);
        if (!err)
            err =
                e.kind <= TORTURE_APPEND ? do_content(w, &e, &refused) : do_names(w, &e, &refused);
        if (err)
            return tell_death(w, err);
        if (!refused)
            torture_apply(&w->state, &e);
    }
}
