// SPDX-License-Identifier: MIT
// Blocks of the table of snapshots: what validates can be read entry by entry, as many as it says.
// The checksum is always right.
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "store/snapshot.h"
#include "tests/fuzz/mutate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct block_header_disk h;
    struct snapshot entry;
    size_t at = 0;
    uint32_t count = 0;
    uint8_t *bytes = calloc(1, BLOCK_BYTES); // of its own, so that ASan sees its ends

    if (!bytes)
        abort();
    memcpy(bytes, data, size < BLOCK_BYTES ? size : BLOCK_BYTES);
    memcpy(&h, bytes, sizeof(h));
    const struct blkref ref = {.address = le64_get(h.address),
                               .generation = le64_get(h.generation),
                               .checksum = checksum(CSUM_NODE, 0, bytes, BLOCK_BYTES)};
    if (snapshot_block_validate(bytes, &ref, h.uuid) == 0) {
        while (snapshot_block_entry(bytes, &at, &entry)) {
            if (entry.name[0] == 0 || entry.parent >= entry.id)
                abort();
            count++;
        }
        if (count != le32_get(h.count))
            abort();
        (void)snapshot_block_next(bytes);
    }
    free(bytes);
    return 0;
}
