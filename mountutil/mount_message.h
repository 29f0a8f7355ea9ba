// SPDX-License-Identifier: MIT
// Where the daemon's messages go: stderr, or syslog once it is in the background. Rate limited.
#ifndef AF_MOUNTUTIL_MOUNT_MESSAGE_H
#define AF_MOUNTUTIL_MOUNT_MESSAGE_H

#include <stdbool.h>

#include "base/message.h"

// One sink a process (syslog is one, too).
struct message_sink mount_message_sink(void);
// From here on to syslog.
void mount_message_to_syslog(void);

#endif
