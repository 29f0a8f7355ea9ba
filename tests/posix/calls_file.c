// SPDX-License-Identifier: MIT
// Commands of the cases: open files.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/posix/posix.h"

static int64_t do_open(struct call *c)
{
    struct at at = arg_at(c, 1);

    return outcome(openat(at.dir, at.path, (int)arg_num(c, 2), (mode_t)arg_num_or(c, 3, 0644)));
}

static int64_t do_creat(struct call *c)
{
    return outcome(creat(c->argv[1], (mode_t)arg_num_or(c, 2, 0644)));
}

static int64_t do_close(struct call *c)
{
    return outcome(close(arg_fd(c, 1)));
}

static int64_t do_dup(struct call *c)
{
    return outcome(dup(arg_fd(c, 1)));
}

// O_DIRECT wants aligned memory.
static char *buffer(size_t size)
{
    void *bytes = NULL;

    if (posix_memalign(&bytes, 4096, size + 4096))
        nonsense("no memory");
    memset(bytes, 0, size + 4096);
    return bytes;
}

static int64_t text_read(struct call *c, char *bytes, ssize_t n)
{
    int64_t r = n < 0 ? -errno : answer_text(c, bytes, (size_t)n);

    free(bytes);
    return r;
}

static int64_t do_read(struct call *c)
{
    char *bytes = buffer((size_t)arg_num(c, 2));

    return text_read(c, bytes, read(arg_fd(c, 1), bytes, (size_t)arg_num(c, 2)));
}

static int64_t do_pread(struct call *c)
{
    char *bytes = buffer((size_t)arg_num(c, 2));

    return text_read(c, bytes, pread(arg_fd(c, 1), bytes, (size_t)arg_num(c, 2), arg_num(c, 3)));
}

// readn FD BYTES [OFFSET]: only how much.
static int64_t do_readn(struct call *c)
{
    size_t size = (size_t)arg_num(c, 2);
    char *bytes = buffer(size);
    ssize_t n = c->argc > 3 ? pread(arg_fd(c, 1), bytes, size, arg_num(c, 3))
                            : read(arg_fd(c, 1), bytes, size);
    int64_t r = outcome(n);

    free(bytes);
    return r;
}

static int64_t do_readv(struct call *c)
{
    char *bytes = buffer(64);
    struct iovec v[2] = {{bytes, (size_t)arg_num(c, 2)},
                         {bytes + arg_num(c, 2), (size_t)arg_num(c, 3)}};

    return text_read(c, bytes, readv(arg_fd(c, 1), v, 2));
}

static int64_t do_preadv2(struct call *c)
{
    char *bytes = buffer((size_t)arg_num(c, 2));
    struct iovec v = {bytes, (size_t)arg_num(c, 2)};

    return text_read(c, bytes, preadv2(arg_fd(c, 1), &v, 1, arg_num(c, 3), (int)arg_num(c, 4)));
}

static int64_t do_write(struct call *c)
{
    return outcome(write(arg_fd(c, 1), c->argv[2], c->lens[2]));
}

static int64_t do_pwrite(struct call *c)
{
    return outcome(pwrite(arg_fd(c, 1), c->argv[2], c->lens[2], arg_num(c, 3)));
}

static int64_t do_writev(struct call *c)
{
    struct iovec v[2] = {{c->argv[2], c->lens[2]}, {c->argv[3], c->lens[3]}};

    return outcome(writev(arg_fd(c, 1), v, 2));
}

static int64_t do_pwritev2(struct call *c)
{
    struct iovec v = {c->argv[2], c->lens[2]};

    return outcome(pwritev2(arg_fd(c, 1), &v, 1, arg_num(c, 3), (int)arg_num(c, 4)));
}

// fill FD BYTES [OFFSET]: letters.
static int64_t do_fill(struct call *c)
{
    size_t size = (size_t)arg_num(c, 2);
    char *bytes = buffer(size);
    ssize_t n;

    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)('a' + i % 23);
    n = c->argc > 3 ? pwrite(arg_fd(c, 1), bytes, size, arg_num(c, 3))
                    : write(arg_fd(c, 1), bytes, size);
    int64_t r = outcome(n);
    free(bytes);
    return r;
}

// filled FD BYTES OFFSET: 1 when `fill` has left its letters there.
static int64_t do_filled(struct call *c)
{
    size_t size = (size_t)arg_num(c, 2);
    char *bytes = buffer(size);
    ssize_t n = pread(arg_fd(c, 1), bytes, size, arg_num(c, 3));
    int64_t r = n == (ssize_t)size;

    for (size_t i = 0; r == 1 && i < size; i++)
        r = bytes[i] == (char)('a' + (i + (size_t)arg_num_or(c, 4, 0)) % 23);
    free(bytes);
    return n < 0 ? -errno : r;
}

// zeros FD BYTES OFFSET: 1 when there are only zeros.
static int64_t do_zeros(struct call *c)
{
    size_t size = (size_t)arg_num(c, 2);
    char *bytes = buffer(size);
    ssize_t n = pread(arg_fd(c, 1), bytes, size, arg_num(c, 3));
    int64_t r = n == (ssize_t)size;

    for (size_t i = 0; r == 1 && i < size; i++)
        r = bytes[i] == 0;
    free(bytes);
    return n < 0 ? -errno : r;
}

static int64_t do_lseek(struct call *c)
{
    return outcome(lseek(arg_fd(c, 1), arg_num(c, 2), (int)arg_num(c, 3)));
}

static int64_t do_truncate(struct call *c)
{
    return outcome(truncate(c->argv[1], arg_num(c, 2)));
}

static int64_t do_ftruncate(struct call *c)
{
    return outcome(ftruncate(arg_fd(c, 1), arg_num(c, 2)));
}

static int64_t do_fallocate(struct call *c)
{
    return outcome(fallocate(arg_fd(c, 1), (int)arg_num(c, 2), arg_num(c, 3), arg_num(c, 4)));
}

static int64_t do_copy(struct call *c)
{
    off_t in = arg_num(c, 2), out = arg_num(c, 4);

    return outcome(copy_file_range(arg_fd(c, 1), &in, arg_fd(c, 3), &out, (size_t)arg_num(c, 5),
                                   (unsigned)arg_num_or(c, 6, 0)));
}

static int64_t do_sendfile(struct call *c)
{
    off_t in = arg_num(c, 3);

    return outcome(sendfile(arg_fd(c, 1), arg_fd(c, 2), &in, (size_t)arg_num(c, 4)));
}

// splice FROM TO BYTES: through a pipe.
static int64_t do_splice(struct call *c)
{
    int p[2];

    if (pipe(p))
        return -errno;
    int64_t r = outcome(splice(arg_fd(c, 1), NULL, p[1], NULL, (size_t)arg_num(c, 3), 0));
    if (r > 0)
        r = outcome(splice(p[0], NULL, arg_fd(c, 2), NULL, (size_t)r, 0));
    close(p[0]);
    close(p[1]);
    return r;
}

static int64_t do_fsync(struct call *c)
{
    return outcome(fsync(arg_fd(c, 1)));
}

static int64_t do_fdatasync(struct call *c)
{
    return outcome(fdatasync(arg_fd(c, 1)));
}

static int64_t do_syncfs(struct call *c)
{
    return outcome(syncfs(arg_fd(c, 1)));
}

static int64_t do_fadvise(struct call *c)
{
    return -posix_fadvise(arg_fd(c, 1), 0, 0, (int)arg_num(c, 2));
}

// fcntl_flags FD FLAGS: F_SETFL.
static int64_t do_setfl(struct call *c)
{
    return outcome(fcntl(arg_fd(c, 1), F_SETFL, (int)arg_num(c, 2)));
}

// ---- mmap ----

static int64_t do_mmap(struct call *c)
{
    size_t len = (size_t)arg_num(c, 2);
    void *at =
        mmap(NULL, len, (int)arg_num(c, 3), (int)arg_num(c, 4), arg_fd(c, 1), arg_num_or(c, 5, 0));

    if (at == MAP_FAILED)
        return -errno;
    c->run->map = at;
    c->run->map_len = len;
    return 0;
}

static int64_t do_mread(struct call *c)
{
    return answer_text(c, c->run->map + arg_num(c, 1), (size_t)arg_num(c, 2));
}

static int64_t do_mwrite(struct call *c)
{
    memcpy(c->run->map + arg_num(c, 1), c->argv[2], c->lens[2]);
    return 0;
}

static int64_t do_msync(struct call *c)
{
    return outcome(msync(c->run->map, c->run->map_len, (int)arg_num(c, 1)));
}

static int64_t do_munmap(struct call *c)
{
    return outcome(munmap(c->run->map, c->run->map_len));
}

// ---- locks ----

static int64_t do_flock(struct call *c)
{
    return outcome(flock(arg_fd(c, 1), (int)arg_num(c, 2)));
}

static struct flock lock_of(struct call *c)
{
    return (struct flock){.l_type = (short)arg_num(c, 2),
                          .l_whence = SEEK_SET,
                          .l_start = arg_num(c, 3),
                          .l_len = arg_num(c, 4)};
}

static int64_t do_lock(struct call *c)
{
    struct flock l = lock_of(c);

    return outcome(fcntl(arg_fd(c, 1), F_SETLK, &l));
}

static int64_t do_ofd_lock(struct call *c)
{
    struct flock l = lock_of(c);

    return outcome(fcntl(arg_fd(c, 1), F_OFD_SETLK, &l));
}

// getlk FD TYPE START LENGTH: the type of the lock that is in the way; F_UNLCK: none.
static int64_t do_getlk(struct call *c)
{
    struct flock l = lock_of(c);
    int r = fcntl(arg_fd(c, 1), F_GETLK, &l);

    return r ? -errno : l.l_type;
}

const struct command file_commands[] = {
    {"open", do_open, 2},           {"creat", do_creat, 1},
    {"close", do_close, 1},         {"dup", do_dup, 1},
    {"read", do_read, 2},           {"pread", do_pread, 3},
    {"readn", do_readn, 2},         {"readv", do_readv, 3},
    {"preadv2", do_preadv2, 4},     {"write", do_write, 2},
    {"pwrite", do_pwrite, 3},       {"writev", do_writev, 3},
    {"pwritev2", do_pwritev2, 4},   {"fill", do_fill, 2},
    {"filled", do_filled, 3},       {"zeros", do_zeros, 3},
    {"lseek", do_lseek, 3},         {"truncate", do_truncate, 2},
    {"ftruncate", do_ftruncate, 2}, {"fallocate", do_fallocate, 4},
    {"copy", do_copy, 5},           {"sendfile", do_sendfile, 4},
    {"splice", do_splice, 3},       {"fsync", do_fsync, 1},
    {"fdatasync", do_fdatasync, 1}, {"syncfs", do_syncfs, 1},
    {"fadvise", do_fadvise, 2},     {"setfl", do_setfl, 2},
    {"mmap", do_mmap, 4},           {"mread", do_mread, 2},
    {"mwrite", do_mwrite, 2},       {"msync", do_msync, 1},
    {"munmap", do_munmap, 0},       {"flock", do_flock, 2},
    {"lock", do_lock, 4},           {"ofd-lock", do_ofd_lock, 4},
    {"getlk", do_getlk, 4},         {NULL, NULL, 0},
};
