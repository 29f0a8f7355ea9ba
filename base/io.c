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

const char *io_describe(const struct io *io)
{
    if (strcmp(io->ops->name, "uring") == 0)
        return io->direct ? "uring, direct" : "uring, cached";
    if (strcmp(io->ops->name, "plain") == 0)
        return io->direct ? "plain, direct" : "plain, cached";
    return io->ops->name;
}
