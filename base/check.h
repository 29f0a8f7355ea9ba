// SPDX-License-Identifier: MIT
// Assertions on our own state. They stay on in release builds: an abort costs one recovery, running
// on with a broken state costs data. Bytes from disk or from the kernel are never asserted, they
// are validated and lead to an error.
#ifndef AF_BASE_CHECK_H
#define AF_BASE_CHECK_H

#include "base/attr.h"

AF_NORETURN void af_assert_fail(const char *expr, const char *file, int line);

#define AF_ASSERT(expr) ((expr) ? (void)0 : af_assert_fail(#expr, __FILE__, __LINE__))

// Pins the size of an on-disk structure and the offset of its fields.
#define AF_DISK_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "disk size of " #type)
#define AF_DISK_OFFSET(type, field, off) \
    _Static_assert(offsetof(type, field) == (off), "disk offset of " #type "." #field)

#endif
