// SPDX-License-Identifier: MIT
// One inode of a rescued store: its bytes, its attributes (rescue_copy.h).
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/err.h"
#include "mountutil/rescue_copy.h"
#include "store/store_format.h"

#define CHUNK_BYTES (UINT64_C(256) << 10)
#define NAMES_BYTES 65536u

void rescue_lose(struct rescue_copy *c, const char *path, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap); // a cut sentence still tells
    va_end(ap);
    c->counts.lost++;
    c->lose(c->arg, path[0] ? path : "/", text);
}

bool rescue_is_loss(int err)
{
    return err_is_corruption(err) || err == -EIO || err == -ENOENT || err == -ENODATA;
}

// ---- content ----

// A run of bytes that could not be read, told when it ends.
struct hole {
    uint64_t from, to;
    int err;
};

static void tell_hole(struct rescue_copy *c, const char *path, struct hole *h)
{
    if (h->to > h->from)
        rescue_lose(c, path, "bytes %" PRIu64 "-%" PRIu64 ": %s (%s); zeros stand there", h->from,
                    h->to - 1, err_text(h->err), err_name(h->err));
    *h = (struct hole){0};
}

static int write_all(int fd, const uint8_t *bytes, size_t len, uint64_t off)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, bytes, len, (off_t)off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        bytes += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

// [from, to), which holds data: in large pieces, and where one fails, block by block.
static int copy_range(struct rescue_copy *c, uint64_t ino, const char *path, int fd, uint64_t from,
                      uint64_t to)
{
    struct store *s = c->rescue->store;
    struct hole h = {0};
    int err = 0;

    while (from < to && err == 0) {
        uint64_t piece = AF_MIN(to - from, CHUNK_BYTES - from % CHUNK_BYTES);
        size_t got = 0;
        int r = store_read(s, STORE_BLOCK, ino, from, c->buffer, piece, &got);

        if (r < 0 && piece > BLOCK_BYTES) {
            piece = AF_MIN(piece, BLOCK_BYTES - from % BLOCK_BYTES);
            r = store_read(s, STORE_BLOCK, ino, from, c->buffer, piece, &got);
        }
        if (r < 0 && !rescue_is_loss(r))
            return r;
        if (r < 0 && h.err == r && h.to == from) {
            h.to = from + piece;
        } else {
            tell_hole(c, path, &h);
            if (r < 0)
                h = (struct hole){from, from + piece, r};
        }
        if (r == 0)
            err = write_all(fd, c->buffer, got, from);
        c->counts.bytes += r == 0 ? got : 0;
        from += piece;
    }
    tell_hole(c, path, &h);
    return err;
}

// What may be missing where the file seems to have a hole. The inode says how many blocks it has,
// so a file of which all are there has lost nothing.
static void tell_missing(struct rescue_copy *c, const struct store_attr *attr, const char *path)
{
    struct store_content content;
    int err = store_get_content(c->rescue->store, attr->ino, &content);
    uint64_t off = 0, end = 0;
    bool told = false;

    if (err < 0) {
        rescue_lose(c, path, "its content cannot be found: %s", err_text(err));
        return;
    }
    if (content.inlined || attr->size == 0)
        return;
    if (content.blocks == 0 && content.blocks_found == 0) {
        if (attr->size <= INLINE_BYTES_MAX &&
            rescue_lost(c->rescue, content.id, KIND_INLINE, false, &off, &end))
            rescue_lose(c, path,
                        "all of its %" PRIu64 " bytes: the tree node with them cannot be read",
                        attr->size);
        return;
    }
    if (content.blocks == content.blocks_found)
        return;
    while (off * BLOCK_BYTES < attr->size &&
           rescue_lost(c->rescue, content.id, KIND_EXTENT, false, &off, &end)) {
        uint64_t last = end > attr->size / BLOCK_BYTES ? attr->size : end * BLOCK_BYTES;

        if (off * BLOCK_BYTES >= attr->size)
            break;
        rescue_lose(
            c, path,
            "bytes %" PRIu64 "-%" PRIu64
            ": the tree node that tells where they lie cannot be read; zeros stand where nothing was found",
            off * BLOCK_BYTES, last - 1);
        told = true;
        if (end == UINT64_MAX)
            break;
        off = end;
    }
    if (!told)
        rescue_lose(c, path,
                    "%" PRIu64 " blocks of content were found, and there should be %" PRIu64
                    "; zeros stand where nothing was found",
                    content.blocks_found, content.blocks);
}

int rescue_write_content(struct rescue_copy *c, const struct store_attr *attr, const char *path,
                         int fd)
{
    struct store *s = c->rescue->store;
    uint64_t at = 0, from, to;
    int err = 0;

    tell_missing(c, attr, path);
    if (ftruncate(fd, (off_t)attr->size) < 0)
        return -errno;
    while (at < attr->size && err == 0) {
        int r = store_seek(s, STORE_BLOCK, attr->ino, at, SEEK_DATA, &from);

        if (r == 0)
            r = store_seek(s, STORE_BLOCK, attr->ino, from, SEEK_HOLE, &to);
        if (r == -ENXIO)
            return 0;
        if (r < 0) {
            rescue_lose(c, path, "bytes from %" PRIu64 " on: %s", at, err_text(r));
            return rescue_is_loss(r) ? 0 : r;
        }
        err = copy_range(c, attr->ino, path, fd, from, AF_MIN(to, attr->size));
        at = to;
    }
    return err;
}

// ---- attributes ----

static int write_xattr(struct rescue_copy *c, uint64_t ino, const char *path, const char *target,
                       const char *name)
{
    size_t len = 0;
    int err =
        store_getxattr(c->rescue->store, STORE_BLOCK, ino, name, c->buffer, XATTR_VALUE_MAX, &len);

    if (err < 0) {
        rescue_lose(c, path, "extended attribute %s: %s", name, err_text(err));
        return rescue_is_loss(err) ? 0 : err;
    }
    if (lsetxattr(target, name, c->buffer, len, 0) < 0)
        rescue_lose(c, path, "extended attribute %s: cannot be written: %s", name, strerror(errno));
    return 0;
}

static int write_xattrs(struct rescue_copy *c, uint64_t ino, const char *path, const char *target)
{
    uint64_t off = 0, end;
    size_t len = 0;
    char *names = malloc(NAMES_BYTES);
    int err = names ? store_listxattr(c->rescue->store, STORE_BLOCK, ino, names, NAMES_BYTES, &len)
                    : -ENOMEM;

    if (names && err < 0) {
        rescue_lose(c, path, "its extended attributes: %s", err_text(err));
        err = rescue_is_loss(err) || err == -ERANGE ? 0 : err;
        len = 0;
    } else if (err == 0 && rescue_lost(c->rescue, ino, KIND_XATTR, true, &off, &end)) {
        rescue_lose(c, path, "extended attributes may be missing: their tree node cannot be read");
    }
    for (size_t at = 0; err == 0 && at < len; at += strlen(names + at) + 1)
        err = write_xattr(c, ino, path, target, names + at);
    free(names);
    return err;
}

// Without the rights of root, owners and some modes cannot be given: told once for each.
int rescue_write_attributes(struct rescue_copy *c, const struct store_attr *attr, const char *path,
                            const char *target)
{
    const struct timespec times[2] = {attr->atime, attr->mtime};
    int err = write_xattrs(c, attr->ino, path, target);

    if (err < 0)
        return err;
    if (lchown(target, attr->uid, attr->gid) < 0)
        rescue_lose(c, path, "owner %" PRIu32 ":%" PRIu32 ": cannot be given: %s", attr->uid,
                    attr->gid, strerror(errno));
    if (!S_ISLNK(attr->mode) && chmod(target, attr->mode & 07777) < 0)
        rescue_lose(c, path, "mode %o: cannot be given: %s", attr->mode & 07777, strerror(errno));
    if (utimensat(AT_FDCWD, target, times, AT_SYMLINK_NOFOLLOW) < 0)
        rescue_lose(c, path, "times: cannot be given: %s", strerror(errno));
    return 0;
}
