// SPDX-License-Identifier: MIT
// Bitmap and index blocks. The first byte chooses the type; the checksum is always right.
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "store/space.h"
#include "tests/fuzz/mutate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct block_header_disk h;
    uint8_t *bytes = calloc(1, BLOCK_BYTES); // of its own, so that ASan sees its ends

    if (!bytes)
        abort();
    if (size > 1)
        memcpy(bytes, data + 1, size - 1 < BLOCK_BYTES ? size - 1 : BLOCK_BYTES);
    memcpy(&h, bytes, sizeof(h));
    bool bitmap = size > 0 && (data[0] & 1);
    int err =
        space_validate(bytes, bitmap ? BLOCK_TYPE_BITMAP : BLOCK_TYPE_INDEX, le64_get(h.address),
                       checksum(bitmap ? CSUM_BITMAP : CSUM_INDEX, 0, bytes, BLOCK_BYTES), h.uuid);
    if (err == 0 && h.type != (bitmap ? BLOCK_TYPE_BITMAP : BLOCK_TYPE_INDEX))
        abort();
    free(bytes);
    return 0;
}
