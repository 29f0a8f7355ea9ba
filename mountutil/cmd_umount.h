// SPDX-License-Identifier: MIT
// `aerofs` under the names umount.fuse and umount.fuse.aerofs: the helper that umount(8) calls as
//   umount.TYPE MOUNTPOINT [-n] [-l] [-f] [-v] [-r] [-N NAMESPACE] [-t TYPE]
#ifndef AF_MOUNTUTIL_CMD_UMOUNT_H
#define AF_MOUNTUTIL_CMD_UMOUNT_H

#include <stdbool.h>

// What umount(8) can pass is fewer.
#define UMOUNT_HELPER_ARGS_MAX 32

// The program was called by one of these names.
bool umount_helper_is_name(const char *name);
// Returns the exit code. Does not return for mounts of other types: umount(8) takes over.
int umount_helper(int argc, char **argv);

#endif
