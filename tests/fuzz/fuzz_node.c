// SPDX-License-Identifier: MIT
// Tree nodes: what validates can be read in every place. The first byte is the level that the
// parent expects; the checksum is always right.
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "store/btree.h"
#include "store/store_format.h"
#include "tests/fuzz/mutate.h"

static unsigned sum_of(const uint8_t *bytes, size_t len)
{
    unsigned sum = 0;

    for (size_t i = 0; i < len; i++)
        sum += bytes[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static volatile unsigned sink __attribute__((unused));
    struct block_header_disk h;
    uint8_t *bytes = calloc(1, BLOCK_BYTES); // of its own, so that ASan sees its ends

    if (!bytes)
        abort();
    if (size > 1)
        memcpy(bytes, data + 1, size - 1 < BLOCK_BYTES ? size - 1 : BLOCK_BYTES);
    memcpy(&h, bytes, sizeof(h));
    const struct blkref ref = {.address = le64_get(h.address),
                               .generation = le64_get(h.generation),
                               .checksum = checksum(CSUM_NODE, 0, bytes, BLOCK_BYTES)};
    unsigned level = size > 0 ? data[0] & 15 : 0;
    if (node_validate(bytes, &ref, level, h.uuid) == 0) {
        if (node_level(bytes) != level)
            abort();
        for (unsigned i = 0; i < node_count(bytes); i++) {
            size_t len;
            const uint8_t *value = node_value(bytes, i, &len);
            const struct key key = node_key(bytes, i);

            if (value < bytes || value + len > bytes + BLOCK_BYTES)
                abort();
            sink += sum_of(value, len) + (unsigned)key.ino;
            if (level > 0)
                sink += (unsigned)node_child(bytes, i).address;
        }
    }
    free(bytes);
    return 0;
}
