// SPDX-License-Identifier: MIT
// The content of one file of the volatile disk: a real file that holds what is durable, and an
// overlay of pages that are not. All functions are called under the lock of the disk.
#ifndef AF_TESTS_POWERCUT_VOLATILE_FILE_H
#define AF_TESTS_POWERCUT_VOLATILE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/attr.h"

#define VOLATILE_PAGE   4096u
#define VOLATILE_SECTOR 512u

struct volatile_page {
    uint8_t dirty; // a bit for each sector that is not durable; never 0
    uint8_t bytes[VOLATILE_PAGE];
};

struct volatile_file {
    int fd;         // the durable content; -1: not opened yet
    unsigned refs;  // open files, the visible name, the durable name and journal entries
    uint64_t size;  // as readers see it
    uint64_t valid; // this much of the real file is visible; the rest is zeros, or leaked
    struct volatile_page **pages;
    size_t page_count;
};

int volatile_file_read(struct volatile_file *f, void *bytes, size_t len, uint64_t off);
int volatile_file_write(struct volatile_file *f, const void *bytes, size_t len, uint64_t off);
int volatile_file_truncate(struct volatile_file *f, uint64_t bytes);
// Makes everything durable.
int volatile_file_sync(struct volatile_file *f);
// Writes through: these bytes are durable, and the size as far as they need it.
int volatile_file_write_durable(struct volatile_file *f, const void *bytes, size_t len,
                                uint64_t off);
// Writes each unsynced sector early with the odds of `odds` in 256.
void volatile_file_leak(struct volatile_file *f, uint64_t *rng, unsigned odds);
// Some sectors of a write that is under way reach the disk.
void volatile_file_leak_bytes(struct volatile_file *f, const uint8_t *bytes, size_t len,
                              uint64_t off, uint64_t *rng);
void volatile_file_free(struct volatile_file *f);

uint64_t volatile_random(uint64_t *state);

#endif
