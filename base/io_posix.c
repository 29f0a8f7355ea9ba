// SPDX-License-Identifier: MIT
// The system calls behind the disk interface, shared by io_plain.c and io_uring.c.
//
// EINTR is repeated, since it says that nothing happened. A short count without an error is
// continued. No other failure is retried or hidden: after a failed write or sync nobody knows what
// is on the disk, and only the layers above know what that means.
#include "base/io_posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/err.h"

// Reads of a direct file into unaligned memory are copied in pieces of at most this size.
#define BOUNCE_BYTES_MAX (1u << 20)
// The kernel reports the end of a direct file by a count that is no multiple of the smallest
// sector.
#define DIRECT_SECTOR    512

static struct io_posix *posix_of(struct io *io)
{
    return AF_CONTAINER_OF(io, struct io_posix, io);
}

static const struct io_posix_file *posix_file_of(const struct io_file *f)
{
    return (const struct io_posix_file *)f; // The file is the first member.
}

int io_posix_fd(const struct io_file *f)
{
    return posix_file_of(f)->fd;
}

static bool is_aligned(uint64_t v)
{
    return v % IO_POSIX_ALIGN == 0;
}

// off_t is signed; a range that passes its end is refused before the kernel sees a negative offset.
static bool range_fits(uint64_t off, uint64_t len)
{
    uint64_t end;

    return !__builtin_add_overflow(off, len, &end) && end <= INT64_MAX;
}

// ---- opening the directory ----

// True when the directory takes O_DIRECT. The probe writes to a file without a name, which leaves
// the directory as it is and vanishes with the process. Where such files are not supported, the
// cache is used: it costs speed only.
static bool posix_probe_direct(int dir_fd)
{
    void *block;
    bool works;
    int fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

    if (fd < 0)
        return false;
    block = aligned_alloc(IO_POSIX_ALIGN, IO_POSIX_ALIGN);
    works = block != NULL;
    if (works) {
        memset(block, 0, IO_POSIX_ALIGN);
        works = pwrite(fd, block, IO_POSIX_ALIGN, 0) == (ssize_t)IO_POSIX_ALIGN;
    }
    free(block);
    (void)close(fd); // Nothing was kept in this file.
    return works;
}

int io_posix_init(struct io_posix *p, const struct io_ops *ops, const char *path, bool read_only)
{
    *p = (struct io_posix){.io = {.ops = ops, .read_only = read_only}, .dir_fd = -1};
    do
        p->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (p->dir_fd < 0 && errno == EINTR);
    if (p->dir_fd < 0)
        return -errno;
    p->io.direct = !read_only && posix_probe_direct(p->dir_fd);
    return 0;
}

void io_posix_close(struct io_posix *p)
{
    if (p->dir_fd > 0)
        (void)close(p->dir_fd); // A directory that was only read has nothing to lose.
    p->dir_fd = -1;
}

// ---- files ----

int io_posix_open(struct io *io, const char *path, unsigned flags, struct io_file **ret_file)
{
    struct io_posix *p = posix_of(io);
    int how = O_CLOEXEC | O_NOFOLLOW | O_NOCTTY;
    size_t path_size = strlen(path) + 1;
    struct io_posix_file *file;

    if (io->read_only && (flags & (IO_WRITE | IO_CREATE)))
        return -EROFS;
    how |= flags & IO_WRITE ? O_RDWR : O_RDONLY;
    if (flags & IO_CREATE)
        how |= O_CREAT | (flags & IO_EXCLUSIVE ? O_EXCL : 0);
    file = calloc(1, sizeof(*file) + path_size);
    if (!file)
        return -ENOMEM;
    file->log = flags & IO_LOG;
    file->direct = file->log && io->direct;
    if (file->direct)
        how |= O_DIRECT;
    do
        file->fd = openat(p->dir_fd, path, how, 0600);
    while (file->fd < 0 && errno == EINTR);
    if (file->fd < 0) {
        int r = -errno;

        free(file);
        return r;
    }
    memcpy(file->path, path, path_size);
    file->file = (struct io_file){.io = io, .path = file->path};
    *ret_file = &file->file;
    return 0;
}

void io_posix_close_file(struct io_file *f)
{
    if (!f)
        return;
    // What close() reports is not durability: whoever needs that has called sync and seen its
    // result.
    (void)close(io_posix_fd(f));
    free(AF_CONTAINER_OF(f, struct io_posix_file, file));
}

static int posix_read_all(const struct io_posix_file *file, void *bytes, size_t len, uint64_t off)
{
    size_t got = 0;

    while (got < len) {
        ssize_t n = pread(file->fd, (char *)bytes + got, len - got, (off_t)(off + got));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        got += (size_t)n;
        // A direct read may not go on at an odd offset, and such a count occurs at the end only.
        if (n == 0 || (file->direct && n % DIRECT_SECTOR && got < len))
            return -AF_E_IO_SHORT;
    }
    return 0;
}

// Reads whole blocks into an aligned buffer and copies what was asked for. Only this much of the
// last block has to exist, because the file may end inside it.
static int posix_read_bounced(const struct io_posix_file *file, void *bytes, size_t len,
                              uint64_t off)
{
    size_t size =
        AF_MIN(AF_ROUND_UP(len, (size_t)IO_POSIX_ALIGN) + IO_POSIX_ALIGN, (size_t)BOUNCE_BYTES_MAX);
    char *bounce = aligned_alloc(IO_POSIX_ALIGN, size);
    size_t done = 0;
    int r = 0;

    if (!bounce)
        return -ENOMEM;
    while (done < len) {
        size_t lead = (size_t)((off + done) % IO_POSIX_ALIGN);
        size_t want = AF_MIN(len - done, size - lead);
        ssize_t n = pread(file->fd, bounce, AF_ROUND_UP(lead + want, (size_t)IO_POSIX_ALIGN),
                          (off_t)(off + done - lead));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || (size_t)n <= lead) {
            r = n < 0 ? -errno : -AF_E_IO_SHORT;
            break;
        }
        want = AF_MIN(want, (size_t)n - lead);
        memcpy((char *)bytes + done, bounce + lead, want);
        done += want;
    }
    free(bounce);
    return r;
}

int io_posix_pread(struct io_file *f, void *bytes, size_t len, uint64_t off)
{
    const struct io_posix_file *file = posix_file_of(f);

    if (!range_fits(off, len))
        return -EINVAL;
    if (file->direct && !(is_aligned((uintptr_t)bytes) && is_aligned(len) && is_aligned(off)))
        return posix_read_bounced(file, bytes, len, off);
    return posix_read_all(file, bytes, len, off);
}

static size_t iov_bytes(const struct iovec *iov, int iov_count)
{
    size_t sum = 0;

    for (int i = 0; i < iov_count; i++)
        AF_ASSERT(!__builtin_add_overflow(sum, iov[i].iov_len, &sum));
    return sum;
}

static int posix_write_all(int fd, const struct iovec *iov, int iov_count, uint64_t off,
                           int rw_flags)
{
    size_t skip = 0; // bytes of iov[0] that are written already

    while (iov_count > 0) {
        struct iovec rest;
        ssize_t n;

        if (skip == iov->iov_len) {
            iov++, iov_count--, skip = 0;
            continue;
        }
        if (skip) {
            rest = (struct iovec){(char *)iov->iov_base + skip, iov->iov_len - skip};
            n = pwritev2(fd, &rest, 1, (off_t)off, rw_flags);
        } else {
            n = pwritev2(fd, iov, AF_MIN(iov_count, IOV_MAX), (off_t)off, rw_flags);
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        off += (uint64_t)n;
        skip += (size_t)n;
        for (; iov_count > 0 && skip >= iov->iov_len; iov++, iov_count--)
            skip -= iov->iov_len;
    }
    return 0;
}

// Writes to a direct file what does not lie in aligned memory.
static int posix_write_bounced(int fd, const struct iovec *iov, int iov_count, size_t len,
                               uint64_t off)
{
    char *bounce = aligned_alloc(IO_POSIX_ALIGN, len);
    size_t at = 0;
    int r;

    if (!bounce)
        return -ENOMEM;
    for (int i = 0; i < iov_count; i++) {
        if (iov[i].iov_len)
            memcpy(bounce + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    r = posix_write_all(fd, &(struct iovec){bounce, len}, 1, off, 0);
    free(bounce);
    return r;
}

int io_posix_pwritev(struct io_file *f, const struct iovec *iov, int iov_count, uint64_t off)
{
    const struct io_posix_file *file = posix_file_of(f);
    size_t len = iov_bytes(iov, iov_count);
    bool aligned = true;

    if (f->io->read_only)
        return -EROFS;
    if (!range_fits(off, len) || (file->log && !(is_aligned(off) && is_aligned(len))))
        return -EINVAL;
    if (!len)
        return 0;
    for (int i = 0; i < iov_count; i++)
        aligned = aligned && is_aligned((uintptr_t)iov[i].iov_base) && is_aligned(iov[i].iov_len);
    if (file->direct && !aligned)
        return posix_write_bounced(file->fd, iov, iov_count, len, off);
    return posix_write_all(file->fd, iov, iov_count, off, 0);
}

int io_posix_sync(struct io_file *f)
{
    int r;

    if (f->io->read_only)
        return -EROFS;
    do
        r = fdatasync(io_posix_fd(f));
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int io_posix_size(struct io_file *f, uint64_t *ret_bytes)
{
    struct stat st;

    if (fstat(io_posix_fd(f), &st) < 0)
        return -errno;
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

int io_posix_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
    int r;

    if (f->io->read_only)
        return -EROFS;
    if (!range_fits(off, len))
        return -EINVAL;
    do
        r = fallocate(io_posix_fd(f), 0, (off_t)off, (off_t)len);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int io_posix_truncate(struct io_file *f, uint64_t bytes)
{
    int r;

    if (f->io->read_only)
        return -EROFS;
    if (!range_fits(bytes, 0))
        return -EINVAL;
    do
        r = ftruncate(io_posix_fd(f), (off_t)bytes);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

// ---- names ----

int io_posix_rename(struct io *io, const char *from, const char *to)
{
    int dir_fd = posix_of(io)->dir_fd;

    if (io->read_only)
        return -EROFS;
    return renameat(dir_fd, from, dir_fd, to) < 0 ? -errno : 0;
}

int io_posix_unlink(struct io *io, const char *path)
{
    if (io->read_only)
        return -EROFS;
    return unlinkat(posix_of(io)->dir_fd, path, 0) < 0 ? -errno : 0;
}

int io_posix_mkdir(struct io *io, const char *path)
{
    if (io->read_only)
        return -EROFS;
    return mkdirat(posix_of(io)->dir_fd, path, 0700) < 0 ? -errno : 0;
}

static int posix_open_dir(struct io *io, const char *path)
{
    int fd;

    do
        fd = openat(posix_of(io)->dir_fd, *path ? path : ".",
                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

int io_posix_sync_dir(struct io *io, const char *path)
{
    int fd, r;

    if (io->read_only)
        return -EROFS;
    fd = posix_open_dir(io, path);
    if (fd < 0)
        return fd;
    do
        r = fsync(fd);
    while (r < 0 && errno == EINTR);
    r = r < 0 ? -errno : 0;
    (void)close(fd); // The result of the sync is what counts.
    return r;
}

int io_posix_list(struct io *io, const char *path, int (*each)(void *arg, const char *name),
                  void *arg)
{
    int r = 0, fd = posix_open_dir(io, path);
    DIR *dir;

    if (fd < 0)
        return fd;
    dir = fdopendir(fd);
    if (!dir) {
        r = -errno;
        (void)close(fd);
        return r;
    }
    while (!r) {
        struct dirent *entry;

        errno = 0;
        entry = readdir(dir);
        if (!entry) {
            // A listing that broke off must not pass for a complete one.
            r = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = each(arg, entry->d_name);
    }
    (void)closedir(dir);
    return r;
}

// ---- the rest ----

int io_posix_space(struct io *io, struct io_space *ret_space)
{
    struct statvfs st;

    if (fstatvfs(posix_of(io)->dir_fd, &st) < 0)
        return -errno;
    *ret_space = (struct io_space){
        .total_bytes = (uint64_t)st.f_blocks * st.f_frsize,
        .avail_bytes = (uint64_t)st.f_bavail * st.f_frsize,
    };
    return 0;
}

static struct timespec posix_clock(clockid_t clock)
{
    struct timespec t;

    AF_ASSERT(clock_gettime(clock, &t) == 0);
    return t;
}

uint64_t io_posix_now_ns(struct io *io)
{
    struct timespec t = posix_clock(CLOCK_REALTIME);

    (void)io;
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t io_posix_ticks_ms(struct io *io)
{
    struct timespec t = posix_clock(CLOCK_MONOTONIC);

    (void)io;
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t io_posix_random(struct io *io)
{
    uint64_t v;
    ssize_t n;

    (void)io;
    do
        n = getrandom(&v, sizeof(v), 0);
    while (n < 0 && errno == EINTR);
    // Salts and UUIDs are made of this, so there is no substitute for it, and eight bytes never
    // come in part.
    AF_ASSERT(n == (ssize_t)sizeof(v));
    return v;
}

int io_posix_check_async(const struct io *io, const struct io_async *op)
{
    AF_ASSERT(op->file && op->file->io == io && op->done);
    if (io->read_only)
        return -EROFS;
    if (op->kind == IO_OP_SYNC)
        return 0;
    // The length bound is what one call can write, and what an io_uring entry can say.
    if (!op->len || op->len > INT32_MAX - IO_POSIX_ALIGN || !range_fits(op->off, op->len) ||
        !is_aligned(op->off) || !is_aligned(op->len) || !is_aligned((uintptr_t)op->bytes))
        return -EINVAL;
    return 0;
}

int io_posix_run_async(const struct io_async *op)
{
    struct iovec iov;

    if (op->kind == IO_OP_SYNC)
        return io_posix_sync(op->file);
    iov = (struct iovec){(void *)(uintptr_t)op->bytes, op->len};
    // Each piece of a continued write carries the flag, so all of it is durable at the end.
    return posix_write_all(io_posix_fd(op->file), &iov, 1, op->off, RWF_DSYNC);
}
