// SPDX-License-Identifier: MIT
// Superblock slots: what decodes encodes to the same bytes. The first byte: slot (bit 0), and
// whether the checksum stays as it is (bit 1).
#include <stdlib.h>
#include <string.h>

#include "checkpoint/superblock.h"
#include "tests/fuzz/mutate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t again[SUPERBLOCK_SLOT_BYTES];
    uint8_t *bytes = calloc(1, SUPERBLOCK_SLOT_BYTES);
    struct superblock sb;
    unsigned flags = size > 0 ? data[0] : 0;

    if (!bytes)
        abort();
    if (size > 1)
        memcpy(bytes, data + 1,
               size - 1 < SUPERBLOCK_SLOT_BYTES ? size - 1 : SUPERBLOCK_SLOT_BYTES);
    if (!(flags & 2))
        reseal_superblock(bytes);
    if (superblock_decode(bytes, flags & 1, &sb) == 0) {
        uint32_t used = superblock_encode(&sb, flags & 1, again);

        if (memcmp(again, bytes, used) != 0)
            abort();
        superblock_free(&sb);
    }
    free(bytes);
    return 0;
}
