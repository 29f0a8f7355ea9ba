// SPDX-License-Identifier: MIT
// The tree of a rescued store, written out (rescue_copy.h): directories in the order in which they
// are met, without recursion; their attributes at the end, since writing into them changes them.
#include "mountutil/rescue_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/err.h"
#include "store/store_format.h"

#define BUFFER_BYTES  (UINT64_C(256) << 10)
#define BATCH_ENTRIES 512u
#define LOST_FOUND    "lost+found"

// ---- what was written ----

static struct rescue_seen *seen_slot(const struct rescue_copy *c, uint64_t ino)
{
    size_t at = (size_t)(ino * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (c->seen_size - 1);

    while (c->seen[at].ino != 0 && c->seen[at].ino != ino)
        at = (at + 1) & (c->seen_size - 1);
    return &c->seen[at];
}

static bool was_seen(const struct rescue_copy *c, uint64_t ino)
{
    return c->seen_size > 0 && seen_slot(c, ino)->ino == ino;
}

static int seen_grow(struct rescue_copy *c)
{
    struct rescue_copy next = {.seen_size = c->seen_size ? 2 * c->seen_size : 1024};

    next.seen = calloc(next.seen_size, sizeof(next.seen[0]));
    if (!next.seen)
        return -ENOMEM;
    for (size_t i = 0; i < c->seen_size; i++)
        if (c->seen[i].ino != 0)
            *seen_slot(&next, c->seen[i].ino) = c->seen[i];
    free(c->seen);
    c->seen = next.seen;
    c->seen_size = next.seen_size;
    return 0;
}

// `path` (may be NULL) is copied.
static int note_seen(struct rescue_copy *c, uint64_t ino, const char *path)
{
    if (2 * (c->seen_count + 1) > c->seen_size && seen_grow(c) < 0)
        return -ENOMEM;
    char *copy = path ? strdup(path) : NULL;
    if (path && !copy)
        return -ENOMEM;
    *seen_slot(c, ino) = (struct rescue_seen){.ino = ino, .path = copy};
    c->seen_count++;
    if (c->progress)
        c->progress(c->arg, c->seen_count, c->total);
    return 0;
}

static int note_dir(struct rescue_copy *c, uint64_t ino, const char *path)
{
    if (c->dir_count == c->dir_cap) {
        size_t cap = c->dir_cap ? 2 * c->dir_cap : 64;
        struct rescue_dir *dirs = realloc(c->dirs, cap * sizeof(dirs[0]));

        if (!dirs)
            return -ENOMEM;
        c->dirs = dirs;
        c->dir_cap = cap;
    }
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    c->dirs[c->dir_count++] = (struct rescue_dir){ino, copy};
    return 0;
}

// ---- one inode ----

static int target_of(const struct rescue_copy *c, const char *path, char target[PATH_MAX])
{
    int len = snprintf(target, PATH_MAX, "%s%s", c->out, path);

    return len < 0 || len >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int write_file(struct rescue_copy *c, const struct store_attr *attr, const char *path,
                      const char *target)
{
    int fd = open(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    int err = rescue_write_content(c, attr, path, fd);
    if (close(fd) < 0 && err == 0)
        err = -errno;
    c->counts.files++;
    return err < 0 ? err : rescue_write_attributes(c, attr, path, target);
}

static int write_symlink(struct rescue_copy *c, const struct store_attr *attr, const char *path,
                         const char *target)
{
    char text[4096];
    int err = store_readlink(c->rescue->store, STORE_BLOCK, attr->ino, text);

    if (err == 0 && text[0] == 0)
        err = -AF_E_ITEM;
    if (err < 0) {
        rescue_lose(c, path, "symbolic link: its target: %s", err_text(err));
        return rescue_is_loss(err) ? 0 : err;
    }
    if (symlink(text, target) < 0)
        return -errno;
    c->counts.symlinks++;
    return rescue_write_attributes(c, attr, path, target);
}

static int write_node(struct rescue_copy *c, const struct store_attr *attr, const char *path,
                      const char *target)
{
    if (mknod(target, (attr->mode & S_IFMT) | 0600, (dev_t)attr->rdev) < 0) {
        if (errno != EPERM)
            return -errno;
        rescue_lose(c, path, "device %u:%u: only root may make it", major((dev_t)attr->rdev),
                    minor((dev_t)attr->rdev));
        return 0;
    }
    c->counts.others++;
    return rescue_write_attributes(c, attr, path, target);
}

static int write_link(struct rescue_copy *c, uint64_t ino, const char *path, const char *target)
{
    const struct rescue_seen *first = seen_slot(c, ino);
    char from[PATH_MAX];

    if (!first->path) {
        rescue_lose(c, path, "leads to inode %" PRIu64 ", which has another name already", ino);
        return 0;
    }
    int err = target_of(c, first->path, from);
    if (err == 0 && linkat(AT_FDCWD, from, AT_FDCWD, target, 0) < 0)
        err = -errno;
    c->counts.links++;
    if (first->lossy)
        rescue_lose(c, path, "the same as of %s, which is another name of it", first->path);
    return err == -ENOENT ? 0 : err; // the first one could not be written, and that was told
}

static int write_new(struct rescue_copy *c, const struct store_attr *attr, const char *path,
                     const char *target)
{
    if (S_ISDIR(attr->mode)) {
        if (mkdir(target, 0700) < 0)
            return -errno;
        c->counts.directories++;
        return note_dir(c, attr->ino, path);
    }
    if (S_ISREG(attr->mode))
        return write_file(c, attr, path, target);
    if (S_ISLNK(attr->mode))
        return write_symlink(c, attr, path, target);
    return write_node(c, attr, path, target);
}

// `directory`: the entry that leads to it says so.
static int write_inode(struct rescue_copy *c, uint64_t ino, const char *path, bool directory)
{
    char target[PATH_MAX];
    struct store_attr attr;
    int err = target_of(c, path, target);

    if (err < 0) {
        rescue_lose(c, path, "its path is too long below '%s'", c->out);
        return 0;
    }
    if (was_seen(c, ino))
        return write_link(c, ino, path, target);
    err = store_getattr(c->rescue->store, STORE_BLOCK, ino, &attr);
    if (err < 0 && !rescue_is_loss(err))
        return err;
    if (err < 0 && !directory) {
        rescue_lose(c, path, "all of it: inode %" PRIu64 " cannot be read%s%s", ino,
                    err == -ENOENT ? "" : ": ", err == -ENOENT ? "" : err_text(err));
        return 0;
    }
    if (err < 0) // its entries stand elsewhere
        attr = (struct store_attr){.ino = ino, .mode = S_IFDIR, .nlink = 2};
    bool several = attr.nlink > 1 && !S_ISDIR(attr.mode);
    uint64_t lost = c->counts.lost;
    err = note_seen(c, ino, several ? path : NULL);
    if (err < 0)
        return err;
    err = write_new(c, &attr, path, target);
    seen_slot(c, ino)->lossy = c->counts.lost > lost;
    if (err == -ENAMETOOLONG) {
        rescue_lose(c, path, "its path is too long below '%s'", c->out);
        err = 0;
    }
    return err;
}

// ---- one directory ----

struct entry {
    uint64_t ino, next;
    bool directory;
    char name[NAME_BYTES_MAX + 1];
};

struct batch {
    struct entry *entries;
    size_t count;
};

static int note_entry(void *arg, const char *name, size_t name_len, uint64_t ino, uint32_t mode,
                      const struct store_attr *attr, uint64_t next_cookie)
{
    struct batch *b = arg;
    struct entry *e = &b->entries[b->count];

    (void)attr;
    *e = (struct entry){.ino = ino, .next = next_cookie, .directory = S_ISDIR(mode)};
    memcpy(e->name, name, name_len);
    return ++b->count == BATCH_ENTRIES ? 1 : 0;
}

static int write_entries(struct rescue_copy *c, const char *dir, const struct batch *b)
{
    char path[PATH_MAX];
    int err = 0;

    for (size_t i = 0; i < b->count && err == 0; i++) {
        const struct entry *e = &b->entries[i];

        if (snprintf(path, sizeof(path), "%s/%s", dir, e->name) >= (int)sizeof(path))
            rescue_lose(c, dir, "the entry %s: its path is too long", e->name);
        else
            err = write_inode(c, e->ino, path, e->directory);
    }
    return err;
}

static int write_dir(struct rescue_copy *c, uint64_t ino, const char *path)
{
    struct batch b = {.entries = malloc(BATCH_ENTRIES * sizeof(struct entry))};
    uint64_t cookie = 0, found = 0;
    struct store_content dir;
    int err = b.entries ? 0 : -ENOMEM;

    while (err == 0) {
        b.count = 0;
        int r = store_each_entry(c->rescue->store, ino, cookie, note_entry, &b);

        if (r < 0 && rescue_is_loss(r))
            rescue_lose(c, path, "entries: %s", err_text(r));
        else if (r < 0)
            err = r;
        found += b.count;
        if (err == 0)
            err = write_entries(c, path, &b);
        if (r < 0 || b.count < BATCH_ENTRIES)
            break;
        cookie = b.entries[b.count - 1].next;
    }
    free(b.entries);
    if (err < 0)
        return err;
    if (store_get_content(c->rescue->store, ino, &dir) < 0)
        rescue_lose(c, path,
                    "its inode %" PRIu64
                    " cannot be read: attributes are lost, entries may be missing; %" PRIu64
                    " were found",
                    ino, found);
    else if (dir.entries != found)
        rescue_lose(c, path, "%" PRIu64 " entries were found, and there should be %" PRIu64, found,
                    dir.entries);
    return 0;
}

// Those that are found on the way come behind.
static int write_dirs(struct rescue_copy *c, size_t from)
{
    int err = 0;

    for (size_t i = from; i < c->dir_count && err == 0; i++) {
        // A list that grows moves; the paths in it do not.
        uint64_t ino = c->dirs[i].ino;
        err = write_dir(c, ino, c->dirs[i].path);
    }
    return err;
}

// ---- what no name leads to any more ----

struct nameless {
    struct rescue_copy *c;
    char dir[32];
    bool made;
    bool directories; // these first: what is in them has its name
};

// The names in the store may hold one of that kind.
static int make_lost_found(struct nameless *n)
{
    char target[PATH_MAX];

    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(n->dir, sizeof(n->dir), i == 0 ? "/" LOST_FOUND : "/" LOST_FOUND "-%u", i);
        int err = target_of(n->c, n->dir, target);
        if (err < 0)
            return err;
        if (mkdir(target, 0700) == 0) {
            n->made = true;
            return 0;
        }
        if (errno != EEXIST)
            return -errno;
    }
    return -EEXIST;
}

static int write_nameless(void *arg, uint64_t ino, uint32_t nlink, bool directory)
{
    struct nameless *n = arg;
    struct rescue_copy *c = n->c;
    char path[64];
    size_t first = c->dir_count;
    int err = 0;

    // Without a link it was unlinked while it was open: it is gone.
    if (nlink == 0 || was_seen(c, ino) || directory != n->directories)
        return 0;
    if (!n->made)
        err = make_lost_found(n);
    if (err < 0)
        return err;
    (void)snprintf(path, sizeof(path), "%s/inode-%" PRIu64, n->dir, ino);
    c->counts.nameless++;
    rescue_lose(c, path, "its name in the store: no entry that can be read leads to inode %" PRIu64,
                ino);
    err = write_inode(c, ino, path, directory);
    return err < 0 ? err : write_dirs(c, first);
}

// ---- the whole ----

static int write_dir_attributes(struct rescue_copy *c)
{
    int err = 0;

    for (size_t i = c->dir_count; i-- > 0 && err == 0;) {
        char target[PATH_MAX];
        struct store_attr attr;

        err = target_of(c, c->dirs[i].path, target);
        if (err == 0 && store_getattr(c->rescue->store, STORE_BLOCK, c->dirs[i].ino, &attr) == 0)
            err = rescue_write_attributes(c, &attr, c->dirs[i].path, target);
    }
    return err;
}

int rescue_copy_all(struct rescue_copy *c)
{
    struct nameless n = {.c = c, .directories = true};

    c->buffer = aligned_alloc(BLOCK_BYTES, BUFFER_BYTES);
    if (!c->buffer)
        return -ENOMEM;
    int err = note_seen(c, INO_ROOT, NULL);
    if (err == 0)
        err = note_dir(c, INO_ROOT, "");
    if (err == 0)
        err = write_dirs(c, 0);
    if (err == 0)
        err = store_each_inode(c->rescue->store, write_nameless, &n);
    n.directories = false;
    if (err == 0)
        err = store_each_inode(c->rescue->store, write_nameless, &n);
    return err < 0 ? err : write_dir_attributes(c);
}

void rescue_copy_free(struct rescue_copy *c)
{
    for (size_t i = 0; i < c->seen_size; i++)
        free(c->seen[i].path);
    for (size_t i = 0; i < c->dir_count; i++)
        free(c->dirs[i].path);
    free(c->seen);
    free(c->dirs);
    free(c->buffer);
}
