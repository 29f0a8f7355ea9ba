// SPDX-License-Identifier: MIT
// Chooses and describes a back end of the disk interface.
#include "base/io.h"

#include <string.h>

#include "base/err.h"

_Thread_local const char *io_site;

int io_open(const char *path, const char *method, bool read_only, struct io **ret_io)
{
    int r;

    if (method && strcmp(method, "plain") == 0)
        return io_plain_open(path, read_only, ret_io);
    if (method && strcmp(method, "uring") != 0)
        return -AF_E_IO_UNSUPPORTED;
    r = io_uring_open(path, read_only, ret_io);
    // The choice is made here once, and only because the kernel has no io_uring: any other failure
    // is the caller's to see, and a method that was asked for by name is never replaced.
    if (!method && r == -AF_E_IO_UNSUPPORTED)
        r = io_plain_open(path, read_only, ret_io);
    return r;
}

int io_open_chosen(const char *path, const struct io_choice *choice, bool read_only,
                   struct io **ret_io)
{
    bool uring = switch_on(choice->switches, SWITCH_URING);
    struct io *io;
    int r = io_open(path, !uring ? "plain" : choice->uring ? "uring" : NULL, read_only, &io);

    if (r < 0)
        return r;
    io->direct = io->direct && switch_on(choice->switches, SWITCH_DIRECT);
    // On a read-only disk no log is written, so there is nothing to insist on.
    if (choice->direct && !io->direct && !read_only) {
        io->ops->destroy(io);
        return -AF_E_IO_NO_DIRECT;
    }
    *ret_io = io;
    return 0;
}

const char *io_describe(const struct io *io)
{
    if (strcmp(io->ops->name, "uring") == 0)
        return io->direct ? "uring, direct" : "uring, cached";
    if (strcmp(io->ops->name, "plain") == 0)
        return io->direct ? "plain, direct" : "plain, cached";
    return io->ops->name;
}
