// SPDX-License-Identifier: MIT
// Log segments: wal_read_segment(), wal_scan() and wal_file_verify() over one mutated segment, the
// last one over it and a cut copy of it too. The first byte chooses: bit 0 leaves the checksums as
// they are, bit 1 gives the scan a later start, the others say where the copy is cut.
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/mutate.h"
#include "wal/wal_format.h"
#include "wal/wal_verify.h"

#define SEGMENT_BYTES 65536u

static int touch(void *arg, const struct wal_record *record)
{
    uint64_t *sum = arg;

    for (size_t i = 0; i < record->body_bytes; i++)
        *sum += record->body[i];
    return 0;
}

// The segment as a file from elsewhere, beside a copy cut at `length`.
static uint64_t verify_copies(struct sim *sim, const uint8_t *bytes, size_t length)
{
    struct wal_file files[2] = {{.path = "wal/0000000000000001.seg"}, {.path = "cut"}};
    struct wal_file_set set = {0};
    uint64_t sum = 0;

    sim_put_file(sim, "cut", bytes, length);
    for (size_t i = 0; i < 2; i++)
        if (wal_file_verify(sim_io(sim), &files[i], touch, &sum) < 0)
            abort(); // there are no errors of I/O here
    if (wal_files_order(files, 2, &set) < 0)
        abort();
    sum += set.last_lsn + (unsigned char)files[0].what[0];
    // A cut copy never has more than the whole.
    if (files[1].records > files[0].records)
        abort();
    wal_file_free(&files[0]);
    wal_file_free(&files[1]);
    return sum;
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
    size_t length = (size > 2 ? data[size - 1] * 256u + data[size - 2] : 0) % (SEGMENT_BYTES + 1);
    if (flags & 4)
        length = AF_ROUND_UP(length, (size_t)WAL_BLOCK);
    sink += sum + (uint64_t)err + verify_copies(sim, bytes, length);
    sim_destroy(sim);
    return 0;
}
