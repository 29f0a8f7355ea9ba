// SPDX-License-Identifier: MIT
// What the files of whole-image verification share. Items come in key order, so everything that
// stands under one number (an inode with its xattrs and names, a content with its extents) is
// checked while it passes; what refers to other numbers is collected and checked at the end:
//
//   names      of directory entries:  each must name an inode of its type, as often as nlink says
//   contents   not under their inode's own number, against the inodes that claim them and the
//   orphan list
#ifndef AF_CHECKPOINT_VERIFY_INTERNAL_H
#define AF_CHECKPOINT_VERIFY_INTERNAL_H

#include <stddef.h>

#include "checkpoint/superblock.h"
#include "checkpoint/verify.h"
#include "store/btree.h"

#define DIFFERENCES_SHOWN 16u // runs of wrongly marked blocks that are named for each group

// A growing array of fixed elements.
struct pile {
    void *list;
    size_t count, cap;
    size_t element_bytes;
};

struct inode_note { // sorted by ino, as they come
    uint64_t ino;
    uint64_t parent; // of directories
    uint32_t nlink;
    uint8_t type; // DT_*
    uint8_t mark; // of the search for cycles
    uint8_t reserved[2];
};

struct name_note {
    uint64_t target_type; // ino << 8 | DT_*
    uint64_t dir;
};

// What stands under a content id.
struct content_note {
    uint64_t id;
    uint64_t blocks;
    uint64_t end_block; // behind the last extent
    uint32_t inline_len;
    uint16_t tail_bytes; // of the last extent block: up to its last byte that is not zero
    bool has_inline;
    bool owned;
};

// What an inode says of its content.
struct claim_note {
    uint64_t id; // content id
    uint64_t ino, size, blocks;
    uint8_t type; // DT_*
};

struct orphan_note {  // sorted by (what, id), as they come
    uint64_t what_id; // the key's offset
    uint64_t blocks;
    bool seen;
};

struct verify {
    const struct verify_options *options;
    struct verify_result *result;
    struct io *io;
    struct io_file *data;
    const struct superblock *sb;
    int fatal; // -ENOMEM: stop

    uint64_t *bits;      // one for each block of data
    uint64_t read;       // blocks, for progress
    uint8_t *buffer;     // EXTENT_BLOCKS_MAX blocks
    uint64_t highest_id; // inode or content

    struct pile inodes, names, contents, claims, orphans;
    bool in_snapshot;       // what passes: the numbers there are not those of live names
    struct pile affected;   // struct store_damage: what was found in `data`, to be named
    struct store *replayed; // opened by the replay, as far as that came; NULL: it cannot be

    // Of the number whose items pass.
    uint64_t id;
    uint64_t node_address; // leaf they come from
    bool has_inode, has_attachments;
    struct claim_note claim;
    struct inode_note inode;
    struct content_note content;
    uint64_t entries, subdirs;
    // Names whose hash is the same, of the present directory or set of xattrs.
    uint8_t range_kind;
    uint64_t range_base;
    unsigned range_count;
    char (*range_names)[NAME_BYTES_MAX + 1];
    uint8_t *range_lens;
};

// ---- verify.c ----

void pile_init(struct pile *p, size_t element_bytes);
void pile_free(struct pile *p);
// A copy of `element` joins; out of memory sets v->fatal.
void pile_add(struct verify *v, struct pile *p, const void *element);

void verify_found(struct verify *v, const struct verify_finding *finding, const char *fmt, ...)
    AF_PRINTF(3, 4);
// Damage of an inode or content, known from the leaf that passes.
void verify_item_damage(struct verify *v, int code, uint64_t ino, const char *fmt, ...)
    AF_PRINTF(4, 5);
void verify_progress(struct verify *v, uint64_t blocks);

// ---- verify_names.c ----

// Notes a damage whose names are to be looked for.
void verify_affected(struct verify *v, const struct verify_finding *finding);
void verify_names(struct verify *v);

// ---- verify_tree.c ----

// Reads every node from the root on and hands the items to verify_item().
void verify_tree(struct verify *v);

// ---- verify_snapshots.c ----

// The table, and of each snapshot what the live tree and those walked before do not share with it.
void verify_snapshots(struct verify *v);

// ---- verify_items.c ----

void verify_item(struct verify *v, struct key key, const void *value, size_t len);
void verify_items_end(struct verify *v);
void verify_content(struct verify *v, const struct claim_note *claim,
                    const struct content_note *content);

// ---- verify_data.c ----

// Reads `count` blocks of file data and checks them; checksums[i] is that of block i. Returns the
// number of bytes of the last one up to its last that is not zero (0 when it was not read).
uint16_t verify_data(struct verify *v, uint64_t id, uint64_t first_block, uint64_t address,
                     uint32_t count, const le64 *checksums);

// ---- verify_links.c ----

void verify_links(struct verify *v);

// ---- verify_space.c ----

int verify_space_begin(struct verify *v); // memory; marks the map's own blocks
// Notes blocks as in use; false, with a finding, when they cannot be: outside, the map's own, or in
// use already.
bool verify_mark(struct verify *v, uint64_t ino, uint64_t address, uint64_t count);
bool verify_marked(const struct verify *v, uint64_t address); // inside, and noted as in use
void verify_space(struct verify *v);

#endif
