// SPDX-License-Identifier: MIT
// The disk as the engine sees it: a directory of files, reached through a table of functions. Two
// back ends are real (io_plain.c: system calls and one helper thread; io_uring.c: io_uring for the
// log) and one is simulated (tests/sim). Everything that touches the disk goes through here, so
// every call is a point where a test can crash or fail.
//
// Paths are relative to the store directory ("data", "wal/0000000000000001.seg"). All calls return
// 0 or -errno / -AF_E_…; reads and writes are all or error: a short read is -AF_E_IO_SHORT, a short
// write is continued by the back end only where nothing was reported failed, and EINTR is repeated
// (it says that nothing happened). No other failure is retried.
//
// Threading: every call may come from any thread. io_start() and io_reap() say more.
#ifndef AF_BASE_IO_H
#define AF_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/attr.h"
#include "base/switch.h"

struct io;

// One open file. Back ends embed it at the start of their own structure.
struct io_file {
    struct io *io;
    const char *path; // owned by the back end; for messages
};

enum {
    IO_READ_ONLY = 0,
    IO_WRITE = 1,     // read and write
    IO_CREATE = 2,    // create when absent (mode 0600)
    IO_EXCLUSIVE = 4, // with IO_CREATE: fail with -EEXIST when there
    IO_LOG = 8, // written by io_start(IO_OP_WRITE_DURABLE) with aligned buffers; may be O_DIRECT;
                // pwritev takes offsets and total lengths that are multiples of 4096 only
};

enum io_op_kind {
    IO_OP_WRITE_DURABLE, // write `len` bytes at `off`; done means: these bytes are durable
    IO_OP_SYNC,          // done means: everything written to the file before the start is durable
};

// An asynchronous operation; the caller owns it and leaves it and the buffer alone until `done`
// ran.
struct io_async {
    enum io_op_kind kind;
    struct io_file *file;
    const void *bytes; // 4096-aligned, for WRITE_DURABLE
    size_t len;        // multiple of 4096
    uint64_t off;      // multiple of 4096
    // Runs in io_reap() of whichever thread reaps; result is 0 or an error code. No lock is held.
    void (*done)(struct io_async *op, int result);
    void *arg;
    struct io_async *next; // for the back end
    int result;            // for the back end, until `done` is told
};

struct io_space {
    uint64_t total_bytes; // of the file system that holds the store
    uint64_t avail_bytes; // available to this user
};

struct io_ops {
    const char *name; // "uring", "plain", "sim"
    int (*open)(struct io *io, const char *path, unsigned flags, struct io_file **ret_file);
    void (*close)(struct io_file *f); // accepts NULL
    int (*pread)(struct io_file *f, void *bytes, size_t len, uint64_t off);
    int (*pwritev)(struct io_file *f, const struct iovec *iov, int iov_count, uint64_t off);
    int (*sync)(struct io_file *f); // as fdatasync(2)
    int (*size)(struct io_file *f, uint64_t *ret_bytes);
    int (*allocate)(struct io_file *f, uint64_t off,
                    uint64_t len); // as fallocate(2), grows the file
    int (*truncate)(struct io_file *f, uint64_t bytes);
    int (*rename)(struct io *io, const char *from, const char *to);
    int (*unlink)(struct io *io, const char *path);
    int (*mkdir)(struct io *io, const char *path);    // 0700
    int (*sync_dir)(struct io *io, const char *path); // "" is the store directory
    // Calls `each` for every entry but "." and ".."; a non-zero return ends the walk and is
    // returned.
    int (*list)(struct io *io, const char *path, int (*each)(void *arg, const char *name),
                void *arg);
    int (*space)(struct io *io, struct io_space *ret_space);
    uint64_t (*now_ns)(struct io *io);   // CLOCK_REALTIME; labels only, never decides anything
    uint64_t (*ticks_ms)(struct io *io); // CLOCK_MONOTONIC; drives only work that may be late
    uint64_t (*random)(struct io *io);
    // Starts `op`. Fails only when it could not be started (then `done` never runs). `done` may
    // call it. The thread that starts an operation must live until it has finished: with io_uring,
    // the kernel cancels what an exiting thread left behind.
    int (*start)(struct io *io, struct io_async *op);
    // Runs `done` of finished operations; with `wait`, waits until at least one has finished.
    // One thread at a time (wal.c sees to it). Returns how many ran, or an error; 0 at once when
    // nothing is under way.
    int (*reap)(struct io *io, bool wait);
    int (*event_fd)(struct io *io); // readable when reap(false) has something to do; -1: none
    // Waits until the disk has let go of all that was started (`done` does not run), then frees
    // `io`. Files are closed before, and a file only when nothing started on it is under way.
    // Accepts NULL.
    void (*destroy)(struct io *io);
};

struct io {
    const struct io_ops *ops;
    bool direct;    // log files are opened with O_DIRECT
    bool read_only; // opened for reading: every change answers -EROFS
};

// Opens the directory `path` (it must exist) with the system-call back end.
//   io_plain_open: one helper thread serves io_start().
//   io_uring_open: io_start() goes through io_uring; -AF_E_IO_UNSUPPORTED when the kernel has none.
// Both probe once at open whether the directory takes O_DIRECT and note it in `direct`.
int io_plain_open(const char *path, bool read_only, struct io **ret_io) AF_NODISCARD;
int io_uring_open(const char *path, bool read_only, struct io **ret_io) AF_NODISCARD;
// `method`: "uring", "plain", or NULL: the first that works, probed once here.
int io_open(const char *path, const char *method, bool read_only, struct io **ret_io) AF_NODISCARD;
// As the switches of the mount want it. `uring`, `direct`: that way, or -AF_E_IO_UNSUPPORTED and
// -AF_E_IO_NO_DIRECT; otherwise what works of what is switched on, found out once, here.
struct io_choice {
    struct switches switches;
    bool uring, direct;
};
int io_open_chosen(const char *path, const struct io_choice *choice, bool read_only,
                   struct io **ret_io) AF_NODISCARD;
// "uring, direct" and so on, for messages and status; static storage.
const char *io_describe(const struct io *io);

// Thin callers, so that code reads io_pread(f, …).
static inline int io_file_open(struct io *io, const char *path, unsigned flags,
                               struct io_file **ret)
{
    return io->ops->open(io, path, flags, ret);
}
static inline void io_file_close(struct io_file *f)
{
    if (f)
        f->io->ops->close(f);
}
static inline int io_pread(struct io_file *f, void *bytes, size_t len, uint64_t off)
{
    return f->io->ops->pread(f, bytes, len, off);
}
static inline int io_pwritev(struct io_file *f, const struct iovec *iov, int n, uint64_t off)
{
    return f->io->ops->pwritev(f, iov, n, off);
}
static inline int io_pwrite(struct io_file *f, const void *bytes, size_t len, uint64_t off)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    return f->io->ops->pwritev(f, &iov, 1, off);
}
static inline int io_sync(struct io_file *f)
{
    return f->io->ops->sync(f);
}
static inline int io_size(struct io_file *f, uint64_t *ret)
{
    return f->io->ops->size(f, ret);
}
static inline int io_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
    return f->io->ops->allocate(f, off, len);
}
static inline int io_rename(struct io *io, const char *from, const char *to)
{
    return io->ops->rename(io, from, to);
}
static inline int io_unlink(struct io *io, const char *path)
{
    return io->ops->unlink(io, path);
}
static inline int io_mkdir(struct io *io, const char *path)
{
    return io->ops->mkdir(io, path);
}
static inline int io_sync_dir(struct io *io, const char *path)
{
    return io->ops->sync_dir(io, path);
}
static inline int io_list(struct io *io, const char *path, int (*each)(void *arg, const char *name),
                          void *arg)
{
    return io->ops->list(io, path, each, arg);
}
static inline int io_space(struct io *io, struct io_space *ret)
{
    return io->ops->space(io, ret);
}
static inline int io_start(struct io *io, struct io_async *op)
{
    return io->ops->start(io, op);
}
static inline int io_reap(struct io *io, bool wait)
{
    return io->ops->reap(io, wait);
}

// ---- call sites ----
//
// Each call of the above is a call site: a place where the tests crash the disk or let it fail. Its
// text ("wal/wal_segment.c:98 sync") is put into the section "io_sites" of the object file, so that
// the list of all sites can be read from the libraries, those that were never reached included; and
// it is what `io_site` points to during the call. `scripts/io-sites` compares the list with what
// the simulated disk has seen. Calls through `ops` would escape it; `scripts/tidy` forbids them.
extern _Thread_local const char *io_site;

#define IO_SITE_STRING_(x) #x
#define IO_SITE_STRING(x)  IO_SITE_STRING_(x)
#define IO_SITE(call)                                                                 \
    __extension__({                                                                   \
        static const char io_site_text[] __attribute__((section("io_sites"), used)) = \
            __FILE__ ":" IO_SITE_STRING(__LINE__) " " call;                           \
        io_site = io_site_text;                                                       \
    })

// A macro is not expanded inside of itself: what stands behind the comma is the function above.
#define io_file_open(io, path, flags, ret) \
    (IO_SITE("open " #flags), io_file_open(io, path, flags, ret))
#define io_pread(f, bytes, len, off)  (IO_SITE("read"), io_pread(f, bytes, len, off))
#define io_pwritev(f, iov, n, off)    (IO_SITE("write"), io_pwritev(f, iov, n, off))
#define io_pwrite(f, bytes, len, off) (IO_SITE("write"), io_pwrite(f, bytes, len, off))
#define io_sync(f)                    (IO_SITE("sync"), io_sync(f))
#define io_size(f, ret)               (IO_SITE("size"), io_size(f, ret))
#define io_allocate(f, off, len)      (IO_SITE("allocate"), io_allocate(f, off, len))
#define io_rename(io, from, to)       (IO_SITE("rename"), io_rename(io, from, to))
#define io_unlink(io, path)           (IO_SITE("unlink"), io_unlink(io, path))
#define io_mkdir(io, path)            (IO_SITE("mkdir"), io_mkdir(io, path))
#define io_sync_dir(io, path)         (IO_SITE("sync_dir"), io_sync_dir(io, path))
#define io_list(io, path, each, arg)  (IO_SITE("list"), io_list(io, path, each, arg))
#define io_space(io, ret)             (IO_SITE("space"), io_space(io, ret))
#define io_start(io, op)              (IO_SITE("start"), io_start(io, op))
#define io_reap(io, wait)             (IO_SITE("reap"), io_reap(io, wait))

#endif
