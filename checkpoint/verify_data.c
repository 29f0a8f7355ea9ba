// SPDX-License-Identifier: MIT
// Verification reads file data: run by run, block by block where a run cannot be read, each block
// against the checksum in its extent.

#include <inttypes.h>
#include <stdio.h>

#include "base/checksum.h"
#include "base/err.h"
#include "checkpoint/verify_internal.h"

// `expected` 0: the block could not be read.
static void data_damage(struct verify *v, uint64_t id, uint64_t block, uint64_t address, int code,
                        uint64_t expected, uint64_t got)
{
    struct verify_finding f = {
        .code = code, .file = "data", .address = address, .ino = id, .off = block * BLOCK_BYTES};
    char detail[96] = "";

    if (expected != 0)
        (void)snprintf(detail, sizeof(detail),
                       ": checksum %016" PRIx64 " expected, %016" PRIx64 " found", expected, got);
    verify_found(v, &f,
                 "content %" PRIu64 ", byte %" PRIu64 ", block %" PRIu64 " of data: %s (%s)%s", id,
                 f.off, address, err_text(code), err_name(code), detail);
}

static uint16_t used_part(const uint8_t *block)
{
    unsigned used = BLOCK_BYTES;

    while (used > 0 && block[used - 1] == 0)
        used--;
    return (uint16_t)used;
}

// The run in one call, or, when that fails, what of it can be read; the rest is reported. So is a
// failure that does not come again: what a disk has refused to read once is not sound.
static void read_run(struct verify *v, uint64_t id, uint64_t first_block, uint64_t address,
                     uint32_t count, bool *ret_bad)
{
    const uint64_t off = address * BLOCK_BYTES;
    bool any = false;
    int err = io_pread(v->data, v->buffer, (size_t)count * BLOCK_BYTES, off);

    for (uint32_t i = 0; i < count; i++) {
        ret_bad[i] = false;
        if (err == 0)
            continue;
        size_t at = (size_t)i * BLOCK_BYTES;
        int block_err = io_pread(v->data, v->buffer + at, BLOCK_BYTES, off + at);

        ret_bad[i] = block_err < 0;
        any = any || ret_bad[i];
        if (block_err < 0)
            data_damage(v, id, first_block + i, address + i, block_err, 0, 0);
    }
    if (err < 0 && !any)
        data_damage(v, id, first_block, address, err, 0, 0);
}

uint16_t verify_data(struct verify *v, uint64_t id, uint64_t first_block, uint64_t address,
                     uint32_t count, const le64 *checksums)
{
    bool bad[EXTENT_BLOCKS_MAX];

    v->result->data_blocks += count;
    verify_progress(v, count);
    if (v->options->skip_data)
        return 0;
    read_run(v, id, first_block, address, count, bad);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t found = checksum(CSUM_DATA, 0, v->buffer + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
        uint64_t expected = le64_get(checksums[i]);

        if (!bad[i] && found != expected) {
            bad[i] = true;
            data_damage(v, id, first_block + i, address + i, -AF_E_DATA_CHECKSUM, expected, found);
        }
    }
    return bad[count - 1] ? 0 : used_part(v->buffer + (size_t)(count - 1) * BLOCK_BYTES);
}
