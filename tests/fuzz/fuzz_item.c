// SPDX-License-Identifier: MIT
// Items of the tree, as their decoders get them: inodes, names, extents, xattrs. The first byte
// chooses.
#include <stdlib.h>
#include <string.h>

#include "store/store_internal.h"
#include "store/xattr.h"
#include "tests/fuzz/mutate.h"

static void try_extent(const uint8_t *bytes, size_t len)
{
    struct extent e;
    struct key key = {.ino = 5, .kind = KIND_EXTENT, .off = len > 8 ? bytes[8] : 0};

    if (extent_decode(key, bytes, len, &e) < 0)
        return;
    if (e.count == 0 || e.count > EXTENT_BLOCKS_MAX ||
        (const uint8_t *)(e.checksums + e.count) > bytes + len)
        abort();
}

static void try_xattr(const uint8_t *bytes, size_t len)
{
    struct xattr_item item;
    uint64_t birth, address;

    if (xattr_decode(bytes, len, &item) < 0)
        return;
    if ((item.value == NULL) == (item.blocks == NULL) ||
        (item.value && item.value + item.value_len > bytes + len))
        abort();
    for (size_t i = 0; xattr_block(bytes, len, i, &birth, &address); i++)
        if (i > XATTR_VALUE_MAX / BLOCK_BYTES)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct inode in;
    uint64_t ino;
    uint8_t type;
    size_t len = size > 0 ? size - 1 : 0;
    uint8_t *bytes = malloc(len + 1); // of its own, so that ASan sees its ends

    if (!bytes)
        abort();
    if (len > 0)
        memcpy(bytes, data + 1, len);
    uint8_t *exact = realloc(bytes, len > 0 ? len : 1);
    bytes = exact ? exact : bytes;
    switch (size > 0 ? data[0] & 3 : 0) {
    case 0:
        (void)inode_decode(bytes, len, &in);
        break;
    case 1: {
        const char *name;
        size_t name_len;

        if (dentry_decode(bytes, len, &ino, &type, &name, &name_len) == 0 &&
            (name_len == 0 || (const uint8_t *)name + name_len > bytes + len))
            abort();
        break;
    }
    case 2:
        try_extent(bytes, len);
        break;
    default:
        try_xattr(bytes, len);
    }
    free(bytes);
    return 0;
}
