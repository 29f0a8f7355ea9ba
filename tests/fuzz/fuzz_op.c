// SPDX-License-Identifier: MIT
// Bodies of operation records: what decodes encodes to the same bytes, and everything has a text.
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "store/op.h"
#include "store/store_engine.h"
#include "tests/fuzz/mutate.h"

// op_encode() takes the blocks of a DATA piece by pointers, op_decode() gives them in one run.
static const uint8_t **point_at_blocks(struct op *op)
{
    size_t total = 0, at = 0;

    for (uint32_t i = 0; i < op->piece_count; i++)
        total += op->pieces[i].type == PIECE_DATA ? op->pieces[i].count : 0;
    const uint8_t **blocks = calloc(total + 1, sizeof(*blocks));
    if (!blocks)
        abort();
    for (uint32_t i = 0; i < op->piece_count; i++) {
        struct op_piece *p = &op->pieces[i];

        if (p->type != PIECE_DATA)
            continue;
        p->blocks = blocks + at;
        for (uint64_t b = 0; b < p->count; b++)
            blocks[at++] = p->data + b * BLOCK_BYTES;
    }
    return blocks;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct op op;
    struct buf out, text;

    buf_init(&text);
    op_to_text(data, size, &text);
    buf_free(&text);
    if (op_decode(data, size, &op) < 0)
        return 0;
    const uint8_t **blocks = point_at_blocks(&op);
    buf_init(&out);
    op_encode(&op, &out);
    if (!out.failed && (out.len != size || memcmp(out.bytes, data, size) != 0))
        abort();
    buf_free(&out);
    free(blocks);
    op_free(&op);
    return 0;
}
