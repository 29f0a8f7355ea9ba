// SPDX-License-Identifier: MIT
// Changes a field in one slot of a file `superblock` and puts the right checksum over it
// (docs/FORMAT.md), so that what is read is whole and yet wrong: `reseal FILE SLOT OFFSET BYTES
// VALUE`, the value little-endian in so many bytes.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define SLOT_BYTES      65536
#define LENGTH_AT       12
#define CHECKSUM_AT     48
#define SUPERBLOCK_KIND UINT64_C(1)

static void put(uint8_t *at, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

int main(int argc, char **argv)
{
    static uint8_t slot[SLOT_BYTES];

    if (argc != 6) {
        fprintf(stderr, "usage: reseal FILE SLOT OFFSET BYTES VALUE\n");
        return 2;
    }
    long start = strtol(argv[2], NULL, 10) * SLOT_BYTES;
    unsigned long offset = strtoul(argv[3], NULL, 10), bytes = strtoul(argv[4], NULL, 10);
    FILE *f = fopen(argv[1], "r+");
    if (!f || fseek(f, start, SEEK_SET) || fread(slot, 1, SLOT_BYTES, f) != SLOT_BYTES ||
        bytes > 8 || offset > SLOT_BYTES - bytes) {
        perror(argv[1]);
        return 1;
    }
    size_t length =
        slot[LENGTH_AT] | (size_t)slot[LENGTH_AT + 1] << 8 | (size_t)slot[LENGTH_AT + 2] << 16;
    put(slot + offset, (unsigned)bytes, strtoull(argv[5], NULL, 0));
    put(slot + CHECKSUM_AT, 8, 0);
    uint64_t sum =
        XXH3_64bits_withSeed(slot, length, SUPERBLOCK_KIND * UINT64_C(0x9E3779B97F4A7C15));
    put(slot + CHECKSUM_AT, 8, sum ? sum : 1);
    if (fseek(f, start, SEEK_SET) || fwrite(slot, 1, SLOT_BYTES, f) != SLOT_BYTES || fclose(f)) {
        perror(argv[1]);
        return 1;
    }
    return 0;
}
