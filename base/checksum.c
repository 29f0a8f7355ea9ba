// SPDX-License-Identifier: MIT
// Seeded XXH3-64 (docs/FORMAT.md, "Checksums").
#include "base/checksum.h"

// Inlined, because the state of the streaming form is not part of the library's ABI, and because
// short inputs (names, records) then cost no call.
#define XXH_INLINE_ALL
#include <xxhash.h>

// The golden ratio: neighbouring kinds get seeds that differ in about half of their bits.
#define CHECKSUM_KIND_FACTOR UINT64_C(0x9E3779B97F4A7C15)

static uint64_t checksum_seed(enum checksum_kind kind, uint64_t salt)
{
    return ((uint64_t)kind * CHECKSUM_KIND_FACTOR) ^ salt;
}

static uint64_t checksum_not_zero(uint64_t sum)
{
    return sum ? sum : 1;
}

uint64_t checksum(enum checksum_kind kind, uint64_t salt, const void *bytes, size_t len)
{
    return checksum_not_zero(XXH3_64bits_withSeed(bytes, len, checksum_seed(kind, salt)));
}

uint64_t checksum2(enum checksum_kind kind, uint64_t salt, const void *a, size_t a_len,
                   const void *b, size_t b_len)
{
    XXH3_state_t state;

    // xxHash refuses a NULL piece even when it is empty, hence the tests of the lengths.
    XXH3_INITSTATE(&state);
    (void)XXH3_64bits_reset_withSeed(&state, checksum_seed(kind, salt));
    if (a_len)
        (void)XXH3_64bits_update(&state, a, a_len);
    if (b_len)
        (void)XXH3_64bits_update(&state, b, b_len);
    return checksum_not_zero(XXH3_64bits_digest(&state));
}
