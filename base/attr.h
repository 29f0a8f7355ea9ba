// SPDX-License-Identifier: MIT
// Compiler attributes in one place, so that the rest of the code reads as plain C.
#ifndef AF_BASE_ATTR_H
#define AF_BASE_ATTR_H

#define AF_NODISCARD         __attribute__((warn_unused_result))
#define AF_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define AF_NORETURN          __attribute__((noreturn))
#define AF_UNUSED            __attribute__((unused))

#define AF_ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define AF_CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define AF_MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define AF_MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define AF_ROUND_UP(x, to)                 ((((x) + (to)-1) / (to)) * (to))
#define AF_ROUND_DOWN(x, to)               (((x) / (to)) * (to))

#endif
