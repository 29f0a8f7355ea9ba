// SPDX-License-Identifier: MIT
// The superblock: two slots (docs/FORMAT.md, "Superblock"). Encoding and validation are pure.
//
// A superblock of sequence S is published in slot S mod 2, its home; so the next one never
// overwrites the newest published. Creation and recovery (r1) put one into both slots of a new
// file.
#ifndef AF_CHECKPOINT_SUPERBLOCK_H
#define AF_CHECKPOINT_SUPERBLOCK_H

#include "base/io.h"
#include "store/store_engine.h"
#include "wal/wal.h"

#define SUPERBLOCK_SLOT_BYTES   65536u
#define SUPERBLOCK_CLEAN        1u
#define SUPERBLOCK_FILE         "superblock"
#define SUPERBLOCK_FILE_NEW     "superblock.new"     // creation is under way
#define SUPERBLOCK_FILE_RECOVER "superblock.recover" // recovery's step r1 is

// A superblock in memory.
struct superblock {
    uint64_t sequence;
    uint64_t created, written;
    uint64_t features_ro_compat; // those that this program does not know forbid writing
    bool clean;
    struct store_image image; // image.space.refs is owned by this superblock
    struct wal_start
        log; // uuid, epoch, segment_bytes, log_segment, cut_lsn, cut_checksum, next_lsn
};

static inline unsigned superblock_home(uint64_t sequence)
{
    return (unsigned)(sequence & 1);
}

void superblock_free(struct superblock *sb); // the refs; accepts a zeroed one
// Encodes for `slot` into bytes[SUPERBLOCK_SLOT_BYTES]; returns the used length. The rest is
// zeroed.
uint32_t superblock_encode(const struct superblock *sb, unsigned slot, uint8_t *bytes);
// Validates and decodes one slot: 0, -AF_E_SB_NONE (magic, length, checksum), -AF_E_VERSION (right
// checksum, unknown version or feature), -AF_E_SB_FIELD, -ENOMEM.
int superblock_decode(const uint8_t *bytes, unsigned slot, struct superblock *ret_sb) AF_NODISCARD;

struct superblock_slots {
    int result[2];           // of reading and decoding each slot
    struct superblock sb[2]; // where the result is 0
    int chosen;              // the newest valid one (of two copies the one at home), -1: none
};
// -ENOENT when there is no superblock file. An unreadable slot is a result, not an error.
int superblock_load(struct io *io, struct superblock_slots *ret_slots) AF_NODISCARD;
int superblock_load_disk(struct io *io,
                         struct superblock_slots *ret_slots) AF_NODISCARD; // past the page cache
void superblock_slots_free(struct superblock_slots *slots);
// Writes into `slot` of the open file and syncs.
int superblock_write(struct io_file *file, unsigned slot, const struct superblock *sb) AF_NODISCARD;
// A file with `sb` in both slots in place of the present one, if any: written under the name
// `temporary`, synced, renamed, the directory synced. At every instant the old file or the new one
// stands, whole. Leaves a spare file under SUPERBLOCK_FILE_RECOVER, for the next time;
// *ret_spare_error says that the disk had no room for it (-ENOSPC, -EDQUOT), which is no failure.
int superblock_replace(struct io *io, const char *temporary, const struct superblock *sb,
                       int *ret_spare_error) AF_NODISCARD;

#endif
