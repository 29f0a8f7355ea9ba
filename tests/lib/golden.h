// SPDX-License-Identifier: MIT
// Golden images: small stores made by a fixed program on a simulated disk, and the container that
// keeps them in tests/golden/.
//
// The container: "AEROGLD1", then records of `kind u8, length u32, offset u64` and, by kind:
//   1 file     offset: its size; `length` bytes of its path follow. What comes next is in it
//   2 bytes    `length` bytes follow, for `offset`
//   3 fill     one byte follows, which stands `length` times from `offset` on
// All else is zeros. Numbers are little-endian.
#ifndef AF_TESTS_GOLDEN_H
#define AF_TESTS_GOLDEN_H

#include "base/buf.h"
#include "tests/lib/canon.h"
#include "tests/lib/fixture.h"

// The store, closed cleanly; or, with `dirty`, as a crash leaves it: an open file that was
// unlinked, records after the checkpoint, and a last group that is torn. `max_bytes`: cap of the
// store, 0: none.
struct sim *golden_build(bool dirty, uint64_t max_bytes);
void golden_pack(const struct sim *sim, struct buf *out);
// NULL: not a container.
struct sim *golden_unpack(const uint8_t *bytes, size_t len);
// Opens a store, lists it (sorted), closes it. 0 or an error.
int golden_list(struct sim *sim, struct canon *ret_list, struct engine_recovery *ret_recovery);

#endif
