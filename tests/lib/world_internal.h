// SPDX-License-Identifier: MIT
// What the random calls share: choosing what to call with, and the tables of calls.
#ifndef AF_TESTS_WORLD_INTERNAL_H
#define AF_TESTS_WORLD_INTERNAL_H

#include "tests/lib/canon.h"
#include "tests/lib/world.h"

#define WRITE_BYTES_MAX (300u << 10)

struct world_choice {
    void (*run)(struct world *w);
    unsigned weight;
};

// Each ends with a NULL.
extern const struct world_choice world_file_choices[], world_name_choices[],
    world_durable_choices[];

// An inode that fits, NULL: there is none.
struct model_inode *pick_inode(struct world *w, bool (*fits)(const struct model_inode *in));
bool pick_is_dir(const struct model_inode *in);
bool pick_is_file(const struct model_inode *in);
bool pick_is_symlink(const struct model_inode *in);
bool pick_is_any(const struct model_inode *in);
// Mostly a directory; sometimes what is none, or is gone.
uint64_t pick_dir(struct world *w);
void pick_name(struct world *w, char name[WORLD_NAME_BYTES]);
void pick_odd_name(struct world *w,
                   char name[WORLD_NAME_BYTES]); // too long, nearly so, or impossible
// A name that is there, most of the time.
void pick_child(struct world *w, uint64_t dir, char name[WORLD_NAME_BYTES]);
size_t pick_size(struct world *w);
uint64_t pick_offset(struct world *w, uint64_t size);
uint8_t *pick_bytes(struct world *w, size_t size); // malloc
struct world_handle *pick_handle(struct world *w); // an open one, NULL: none
uint64_t pick_all_bytes(const struct world *w);    // of all files together

#endif
