// SPDX-License-Identifier: MIT
// Where the daemon's messages go: stderr, or syslog once it is in the background. Rate limited.
#ifndef AF_MOUNTUTIL_MOUNT_MESSAGE_H
#define AF_MOUNTUTIL_MOUNT_MESSAGE_H

#include <stdbool.h>

#include "base/message.h"

// One sink a process (syslog is one, too).
struct message_sink mount_message_sink(void);
// Until here warnings and errors are kept: `opened`: they go out now; otherwise they are dropped,
// since the one line that says why the mount is refused says it all.
void mount_message_opened(bool opened);
// The mount is up. Until here only warnings and errors go out (what else the start has to say is
// part of the line that says that it is mounted). In the background everything goes to syslog from
// here on.
void mount_message_ready(bool background);

#endif
