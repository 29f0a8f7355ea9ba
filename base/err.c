// SPDX-License-Identifier: MIT
// Names, texts and errno values of the error codes.
#include "base/err.h"

#include <stddef.h>
#include <string.h>

#include "base/attr.h"

struct err_info {
    int err;
    const char *name;
    const char *text;
};

// In the order of enum af_error, so that a code is its index.
static const struct err_info errors[] = {
#define X(name, err, text) {err, #name, text},
    AF_ERRORS(X)
#undef X
};

_Static_assert(AF_ARRAY_LEN(errors) == AF_E_END - AF_E_FIRST, "one entry for each code");

// Either sign is taken, because callers hold a code both as a result and as an errno.
static const struct err_info *err_find(int code)
{
    if (code > 0)
        code = -code;
    if (code > -AF_E_FIRST || code <= -AF_E_END)
        return NULL;
    return &errors[-code - AF_E_FIRST];
}

int err_to_errno(int code)
{
    const struct err_info *info = err_find(code);

    if (info)
        return info->err;
    if (code > 0)
        code = -code;
    // A number that is neither ours nor an errno must still be a failure.
    return code > -AF_E_FIRST ? -code : EIO;
}

const char *err_name(int code)
{
    const struct err_info *info = err_find(code);
    const char *name;

    if (code == 0)
        return "OK";
    if (info)
        return info->name;
    name = code > -AF_E_FIRST ? strerrorname_np(code > 0 ? code : -code) : NULL;
    return name ? name : "UNKNOWN";
}

const char *err_text(int code)
{
    const struct err_info *info = err_find(code);
    const char *text;

    if (code == 0)
        return "success";
    if (info)
        return info->text;
    // strerror() is not used: its buffer is shared for numbers that it does not know.
    text = code > -AF_E_FIRST ? strerrordesc_np(code > 0 ? code : -code) : NULL;
    return text ? text : "unknown error";
}

int err_is_corruption(int code)
{
    if (!err_find(code))
        return 0;
    switch ((enum af_error)(code < 0 ? -code : code)) {
    case AF_E_IO_SHORT:
    case AF_E_BLOCK_MAGIC:
    case AF_E_BLOCK_CHECKSUM:
    case AF_E_BLOCK_ADDRESS:
    case AF_E_BLOCK_GENERATION:
    case AF_E_BLOCK_UUID:
    case AF_E_NODE_LAYOUT:
    case AF_E_NODE_ORDER:
    case AF_E_NODE_LEVEL:
    case AF_E_ITEM:
    case AF_E_DATA_CHECKSUM:
    case AF_E_SPACE_CHECKSUM:
    case AF_E_SPACE_LAYOUT:
    case AF_E_SPACE_CLAIM:
    case AF_E_LOG_DAMAGED:
    case AF_E_LOG_MISSING:
    case AF_E_LOG_RECORD:
    case AF_E_SB_NONE:
    case AF_E_SB_STALE:
    case AF_E_SB_FIELD:
    case AF_E_REPLAY:
        return 1;
    case AF_E_FAULT:
    case AF_E_WOULD_BLOCK:
    case AF_E_IO_UNSUPPORTED:
    case AF_E_IO_NO_DIRECT:
    case AF_E_LOG_FAILED:
    case AF_E_LOG_FULL:
    case AF_E_LOG_TOO_BIG:
    case AF_E_VERSION:
    case AF_E_NOT_A_STORE:
    case AF_E_STORE_EXISTS:
    case AF_E_STORE_LOCKED:
    case AF_E_READ_ONLY:
    case AF_E_NEEDS_RECOVERY:
    case AF_E_BEFORE_FIRST:
    case AF_E_END:
        return 0;
    }
    return 0;
}
