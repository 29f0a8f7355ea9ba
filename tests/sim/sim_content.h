// SPDX-License-Identifier: MIT
// The bytes of one simulated file: pages shared between copies until they are written.
#ifndef AF_TESTS_SIM_CONTENT_H
#define AF_TESTS_SIM_CONTENT_H

#include <stddef.h>
#include <stdint.h>

#define SIM_PAGE_BYTES 4096u

struct sim_chunk;

// Pages that were never written or allocated are holes and read as zeros. There is no size here: a
// reader keeps to the size of the file, and whoever shrinks a file calls content_truncate().
struct sim_content {
    struct sim_chunk **chunks; // NULL: all holes
    size_t chunk_count;
    uint64_t page_count; // pages that are no holes
};

void content_init(struct sim_content *c);
void content_free(struct sim_content *c); // leaves it empty
// `to` is overwritten without being freed.
void content_copy(struct sim_content *to, const struct sim_content *from);
void content_read(const struct sim_content *c, uint64_t off, void *bytes, size_t len);
void content_write(struct sim_content *c, uint64_t off, const void *bytes, size_t len);
// Makes holes in the range into pages of zeros; returns nothing else changed.
void content_allocate(struct sim_content *c, uint64_t off, uint64_t len);
// How many pages a write or an allocation of the range would add.
uint64_t content_holes(const struct sim_content *c, uint64_t off, uint64_t len);
// Forgets all from `size` on.
void content_truncate(struct sim_content *c, uint64_t size);
uint64_t content_hash(const struct sim_content *c);

#endif
