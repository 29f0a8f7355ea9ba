// SPDX-License-Identifier: MIT
// Log segments: wal_read_segment() and wal_scan() over one mutated segment. The first byte chooses:
// bit 0 leaves the checksums as they are, bit 1 gives the scan a later start.
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/mutate.h"
#include "wal/wal_format.h"

#define SEGMENT_BYTES 65536u

static int touch(void *arg, const struct wal_record *record)
{
    uint64_t *sum = arg;

    for (size_t i = 0; i < record->body_bytes; i++)
        *sum += record->body[i];
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[SEGMENT_BYTES];
    static volatile uint64_t sink __attribute__((unused));
    struct wal_segment_info info;
    struct wal_scan_result result;
    uint64_t sum = 0;
    unsigned flags = size > 0 ? data[0] : 0;

    memset(bytes, 0, sizeof(bytes));
    if (size > 1)
        memcpy(bytes, data + 1, size - 1 < sizeof(bytes) ? size - 1 : sizeof(bytes));
    if (!(flags & 1))
        reseal_segment(bytes, sizeof(bytes));
    struct sim *sim = sim_create(1);
    sim_put_file(sim, "wal/0000000000000001.seg", bytes, sizeof(bytes));
    int err = wal_read_segment(sim_io(sim), "wal/0000000000000001.seg", NULL, &info, touch, &sum);
    // The start that goes with the header, as a superblock would have it.
    struct wal_start start = {.epoch = info.epoch,
                              .segment_bytes = SEGMENT_BYTES,
                              .log_segment = 1,
                              .cut_lsn = info.prev_lsn + (flags >> 1 & 1),
                              .cut_checksum = info.prev_checksum,
                              .next_lsn = info.first_lsn,
                              .log_seed = info.log_seed};
    memcpy(start.uuid, info.uuid, sizeof(start.uuid));
    if (err == 0)
        err = wal_scan(sim_io(sim), &start, touch, &sum, &result);
    sink += sum + (uint64_t)err;
    sim_destroy(sim);
    return 0;
}
