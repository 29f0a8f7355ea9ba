// SPDX-License-Identifier: MIT
// What the two real back ends share: the system calls of struct io_ops except start, reap, event_fd
// and destroy.
//
// A log file (IO_LOG) is opened with O_DIRECT when the probe found that the directory takes it.
// Then pread() goes past the page cache and copies through an aligned buffer where the caller's is
// not. pwritev() to a log file takes offsets and lengths that are multiples of IO_POSIX_ALIGN, with
// or without O_DIRECT (else -EINVAL), so that a mistake does not wait for another file system to
// show.
//
// Functions that change the disk answer -EROFS on a read-only disk.
#ifndef AF_BASE_IO_POSIX_H
#define AF_BASE_IO_POSIX_H

#include "base/io.h"

#define IO_POSIX_ALIGN 4096u

struct io_posix {
    struct io io; // first, so that a struct io is one of these
    int dir_fd;   // the store directory; -1: none
};

struct io_posix_file {
    struct io_file file; // first
    int fd;
    bool log;    // opened with IO_LOG
    bool direct; // opened with O_DIRECT
    char path[];
};

// Opens the directory and probes O_DIRECT; creates nothing. On failure `p` may be handed to
// io_posix_close(), which accepts one that was zeroed and never opened.
int io_posix_init(struct io_posix *p, const struct io_ops *ops, const char *path,
                  bool read_only) AF_NODISCARD;
void io_posix_close(struct io_posix *p);

// Checks an operation that is to be started: its alignment, its file, the read-only state.
int io_posix_check_async(const struct io *io, const struct io_async *op) AF_NODISCARD;
// Performs an asynchronous operation in the calling thread; the result is for `done`.
int io_posix_run_async(const struct io_async *op);

int io_posix_fd(const struct io_file *f);

// The members of struct io_ops.
int io_posix_open(struct io *io, const char *path, unsigned flags, struct io_file **ret_file);
void io_posix_close_file(struct io_file *f);
int io_posix_pread(struct io_file *f, void *bytes, size_t len, uint64_t off);
int io_posix_pwritev(struct io_file *f, const struct iovec *iov, int iov_count, uint64_t off);
int io_posix_sync(struct io_file *f);
int io_posix_size(struct io_file *f, uint64_t *ret_bytes);
int io_posix_allocate(struct io_file *f, uint64_t off, uint64_t len);
int io_posix_truncate(struct io_file *f, uint64_t bytes);
int io_posix_rename(struct io *io, const char *from, const char *to);
int io_posix_unlink(struct io *io, const char *path);
int io_posix_mkdir(struct io *io, const char *path);
int io_posix_sync_dir(struct io *io, const char *path);
int io_posix_list(struct io *io, const char *path, int (*each)(void *arg, const char *name),
                  void *arg);
int io_posix_space(struct io *io, struct io_space *ret_space);
uint64_t io_posix_now_ns(struct io *io);
uint64_t io_posix_ticks_ms(struct io *io);
uint64_t io_posix_random(struct io *io);

// The initializers that both tables have in common.
#define IO_POSIX_OPS                                                                         \
    .open = io_posix_open, .close = io_posix_close_file, .pread = io_posix_pread,            \
    .pwritev = io_posix_pwritev, .sync = io_posix_sync, .size = io_posix_size,               \
    .allocate = io_posix_allocate, .truncate = io_posix_truncate, .rename = io_posix_rename, \
    .unlink = io_posix_unlink, .mkdir = io_posix_mkdir, .sync_dir = io_posix_sync_dir,       \
    .list = io_posix_list, .space = io_posix_space, .now_ns = io_posix_now_ns,               \
    .ticks_ms = io_posix_ticks_ms, .random = io_posix_random

#endif
