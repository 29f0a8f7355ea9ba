// SPDX-License-Identifier: MIT
// Files of a store as one string of bytes: their lengths and those of their blocks that are not
// zeros (base), or that differ from an older state (step).
//
//   magic u64, file count u32, reserved u32; for each file: name 32 bytes, length u64, block count
//   u64; then for each file its blocks: number u64, 4096 bytes
//
// It has no checksum of its own: what it says is verified by the store that is made of it.
#ifndef AF_TESTS_REPLICA_BLOB_H
#define AF_TESTS_REPLICA_BLOB_H

#include <stdbool.h>

#include "tests/sim/sim_disk.h"

#define BLOB_FILES_MAX 40u

struct blob_file {
    char name[32];
    uint64_t length, count;
    const uint8_t *blocks; // borrowed
};

struct blob {
    struct blob_file files[BLOB_FILES_MAX];
    size_t count;
};

// Appends to *bytes (malloc'ed). Files of `sim` with these names; of `older`, which may be NULL,
// the blocks that are the same are left out.
void blob_make(const struct sim *sim, const struct sim *older, const char *const *names,
               size_t count, uint8_t **bytes, size_t *len);
// False: cut, or no blob.
bool blob_parse(const uint8_t *bytes, size_t len, struct blob *ret);
// Writes one file of it through `io`, as far as it differs, and syncs it.
int blob_write(struct io *io, const struct blob_file *file, const char *as) AF_NODISCARD;
struct blob_file *blob_find(struct blob *blob, const char *name);

#endif
