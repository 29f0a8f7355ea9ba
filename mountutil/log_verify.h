// SPDX-License-Identifier: MIT
// `aerofs log --verify`: segment files verified without their store.
#ifndef AF_MOUNTUTIL_LOG_VERIFY_H
#define AF_MOUNTUTIL_LOG_VERIFY_H

#include "mountutil/cmd.h"

// Prints a line for each file and a summary. Returns the exit code.
int log_verify(const struct command *command, const char *const *paths, size_t count);

#endif
