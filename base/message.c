// SPDX-License-Identifier: MIT
// Formats a message and hands it to the sink.
#include "base/message.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void message(const struct message_sink *sink, enum message_level level, const char *fmt, ...)
{
    char text[1024], *longer = NULL;
    va_list args;
    int len;

    if (!sink || !sink->emit)
        return;
    va_start(args, fmt);
    len = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (len < 0)
        return;
    // The exact place of a damage may stand at the end, so a long message is not cut; only when
    // memory is short the beginning has to do.
    if ((size_t)len >= sizeof(text)) {
        va_start(args, fmt);
        if (vasprintf(&longer, fmt, args) < 0)
            longer = NULL;
        va_end(args);
    }
    sink->emit(sink->arg, level, longer ? longer : text);
    free(longer);
}
