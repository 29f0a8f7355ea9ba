// SPDX-License-Identifier: MIT
// Messages to the operator. The engine never writes to stderr or syslog itself: it calls the sink
// it was given at open. Sinks are called without locks held where possible and must not call back.
#ifndef AF_BASE_MESSAGE_H
#define AF_BASE_MESSAGE_H

#include "base/attr.h"

enum message_level { MESSAGE_ERROR, MESSAGE_WARNING, MESSAGE_INFO };

struct message_sink {
    void (*emit)(void *arg, enum message_level level, const char *text);
    void *arg;
};

// Formats and emits; a NULL sink or a NULL emit is silence. A failing sink changes nothing.
void message(const struct message_sink *sink, enum message_level level, const char *fmt, ...)
    AF_PRINTF(3, 4);

#endif
