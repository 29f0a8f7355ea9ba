// SPDX-License-Identifier: MIT
// `aerofs torture`: mounts, kills and ends the daemon, and only the one that it has mounted.
#ifndef AF_MOUNTUTIL_TORTURE_MOUNT_H
#define AF_MOUNTUTIL_TORTURE_MOUNT_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/attr.h"
#include "mountutil/cmd.h"

struct torture_mount {
    const struct command *command;
    const char *mount_command; // for the shell; NULL: aerofs-mount beside this program
    const char *cut_command;   // for the shell; NULL: SIGKILL alone
    const char *store, *mountpoint;
    pid_t daemon; // 0: not mounted
    dev_t under;  // the file system below the mount point, when `known`
    bool known;
};

// Daemons that lose their parent become children of this process, so that their end can be awaited.
int torture_mount_init(void);
// Returns the exit code of the mount command, -1 when it could not run.
int torture_mount_start(struct torture_mount *m);
enum torture_cut { TORTURE_CUT_KILLED, TORTURE_CUT_ENDED_BY_ITSELF, TORTURE_CUT_COMMAND_FAILED };

// The cut command, if there is one; then SIGKILL, and waits until the process is gone.
enum torture_cut torture_mount_cut(struct torture_mount *m);
// In order. False when the daemon did not end well.
bool torture_mount_stop(struct torture_mount *m);
void torture_mount_detach(const struct torture_mount *m); // what a cut leaves behind

#endif
