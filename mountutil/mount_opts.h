// SPDX-License-Identifier: MIT
// The command line of aerofs-mount: options in any order and position, and -o lists as mount(8)
// passes them.
#ifndef AF_MOUNTUTIL_MOUNT_OPTS_H
#define AF_MOUNTUTIL_MOUNT_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/io.h"
#include "fs/fs.h"

struct mount_opts {
    const char *store;      // as given
    const char *mountpoint; // as given
    bool create;
    bool foreground;
    bool read_only;
    bool help, version;
    bool fake;                 // of mount(8): do all but mount
    uint64_t size_bytes;       // size=; 0: no cap
    uint64_t log_bytes;        // log=; 0: default
    uint64_t cache_bytes;      // cache=; 0: default
    uint64_t commit_open_ms;   // UINT64_MAX: default
    struct io_choice io;       // io=, the switches, and what is insisted on
    struct fs_present present; // uid=, gid=, umask=
    const char *fsname;        // NULL: the store as given
    char kernel_options[512];  // what is passed on to the kernel and libfuse, "nosuid,allow_other"
    char *lists;               // owns the text that fsname points into
};

// False: `message` says what is wrong. The result is to be freed in both cases.
bool mount_opts_parse(int argc, char **argv, struct mount_opts *ret_opts, char *message_text,
                      size_t message_size) AF_NODISCARD;
void mount_opts_free(struct mount_opts *opts);

// The text of --help.
extern const char mount_opts_help[];

#endif
