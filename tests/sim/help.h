// SPDX-License-Identifier: MIT
// Short ways to say what tests of the simulated disk do again and again; a failure ends the test.
#ifndef AF_TESTS_SIM_HELP_H
#define AF_TESTS_SIM_HELP_H

#include "tests/sim/sim_disk.h"

#define HELP_BLOCK 4096u

struct io_file *help_open(struct sim *sim, const char *path, unsigned flags);
void help_fill(struct io_file *file, uint64_t off, size_t len, int fill);
int help_sync_dir(struct sim *sim, const char *path);
// A file in the store directory whose name and bytes are durable; open for writing.
struct io_file *help_make_durable(struct sim *sim, const char *path, size_t len, int fill);
uint8_t help_byte_at(const struct sim *sim, const char *path, uint64_t off);
uint64_t help_size_of(const struct sim *sim, const char *path);
struct sim *help_cut_clone(const struct sim *sim, enum sim_cut_policy policy, uint64_t seed);

// How a range that was `old` and had an unsynced write of `new` came out: its sectors are all old,
// all new, or of both kinds, or there is one that is neither.
enum help_outcome { HELP_OLD = 1, HELP_NEW = 2, HELP_TORN = 4, HELP_DAMAGED = 8 };
// For the first `len` bytes of the file.
unsigned help_outcome(const struct sim *sim, const char *path, size_t len, uint8_t old,
                      uint8_t new);

struct help_done {
    int count, result;
};

// For io_async.done; `arg` is a struct help_done.
void help_note_done(struct io_async *op, int result);
uint8_t *help_aligned(size_t len, int fill); // for free()

// A durable file of 4 blocks of 'a', and operations on it: a write of block 1 with 'w', and a sync.
struct help_async {
    struct sim *sim;
    struct io *io;
    struct io_file *file;
    uint8_t *bytes;
    struct help_done done;
    struct io_async write, sync;
};

void help_async_begin(struct help_async *a);
void help_async_end(struct help_async *a);

#endif
