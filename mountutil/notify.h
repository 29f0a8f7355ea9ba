// SPDX-License-Identifier: MIT
// The service manager told how the daemon fares: sd_notify(3), whose protocol is one datagram.
#ifndef AF_MOUNTUTIL_NOTIFY_H
#define AF_MOUNTUTIL_NOTIFY_H

// Sends "READY=1", "STATUS=…" and the like, one assignment a line, to the socket that NOTIFY_SOCKET
// names. Without one nothing happens. Returns 0 or a negated errno; serving goes on in any case.
int notify_send(const char *text);

#endif
