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
// Flips bits or overwrites numbers as the input says, `file` after `file`; reseals when it says so.
void mutate_image(struct sim *sim, const uint8_t *input, size_t size);

#endif
