// SPDX-License-Identifier: MIT
// What the kernel says of a mount point, and how to detach it. Neither asks the file system that is
// mounted there, so both work from inside its daemon and on the mount of a dead one.
#ifndef AF_FS_MOUNTINFO_H
#define AF_FS_MOUNTINFO_H

#include <limits.h>
#include <stdbool.h>

#include "base/attr.h"

struct mountinfo {
    unsigned major, minor; // of st_dev
    char type[64];         // "fuse.aerofs"
    char source[PATH_MAX]; // fsname=
};

// What all our mounts have as their type.
#define MOUNTINFO_TYPE "fuse.aerofs"

// The topmost mount at `path` (absolute, resolved). -ENOENT when none is there.
int mountinfo_find(const char *path, struct mountinfo *ret_info) AF_NODISCARD;
// The same file system is mounted, at whatever path of this mount namespace.
bool mountinfo_is_mounted(const struct mountinfo *info);
// Unmounts it: as root by umount2(2), otherwise with fusermount3(1). -EBUSY when something is open
// there, unless `lazy`: then it leaves the name space at once and ends with its last user.
int mountinfo_detach(const char *path, bool lazy) AF_NODISCARD;
// Raises how far the kernel reads ahead on the mount with this device number, where it may be
// raised.
void mountinfo_raise_read_ahead(const struct mountinfo *info, unsigned kib);

#endif
