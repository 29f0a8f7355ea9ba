// SPDX-License-Identifier: MIT
// What the fuzz targets share: checksums put right again after a mutation, so that the fuzzer gets
// past them, and a walk over an open store.
#ifndef AF_TESTS_FUZZ_MUTATE_H
#define AF_TESTS_FUZZ_MUTATE_H

#include "tests/sim/sim_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The header's checksum, then those of the records and their chain, of a whole segment in memory.
void reseal_segment(uint8_t *bytes, size_t len);
void reseal_superblock(uint8_t slot[65536]);
// After a change of block `address` of `data`: its checksum in its parent, and so on up to both
// superblock slots. Blocks that the newest superblock does not reach stay as they are.
void reseal_block(struct sim *sim, uint64_t address);
// The pages of all files that hold anything but zeros, and one of zeros of each file.
struct mutable_page {
    char path[SIM_PATH_BYTES];
    uint64_t off;
};
struct mutable_pages {
    struct mutable_page *list;
    size_t count, cap;
};
void mutable_pages_find(const struct sim *sim, struct mutable_pages *ret);
// Overwrites numbers, whole pages or nothing but zeros, as the input says, in any of the pages;
// puts checksums right where it says so, and returns whether it did.
bool mutate_image(struct sim *sim, const struct mutable_pages *pages, const uint8_t *input,
                  size_t size);

#endif
