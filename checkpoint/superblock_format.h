// SPDX-License-Identifier: MIT
// What a superblock slot is on disk (docs/FORMAT.md, "Superblock"). Only layout; superblock.c says
// what may stand in a field.
//
// The first 64 bytes mean the same in every version, so that a program can tell a slot of another
// version (right checksum, other version) from a torn or rotten one (wrong checksum).
#ifndef AF_CHECKPOINT_SUPERBLOCK_FORMAT_H
#define AF_CHECKPOINT_SUPERBLOCK_FORMAT_H

#include <stddef.h>

#include "base/check.h"
#include "base/le.h"
#include "store/store_format.h"

#define SUPERBLOCK_MAGIC       "AEROFSSB" // 8 bytes, no terminator on disk
#define SUPERBLOCK_VERSION     1u
#define SUPERBLOCK_BYTES_MIN   4096u
#define SUPERBLOCK_FIXED_BYTES 512u // index references follow

#define SUPERBLOCK_FEATURE_SNAPSHOTS  UINT64_C(1) // incompat: the store has snapshots
#define SUPERBLOCK_FEATURES_INCOMPAT  SUPERBLOCK_FEATURE_SNAPSHOTS // known ones
#define SUPERBLOCK_FEATURES_RO_COMPAT UINT64_C(0)                  // known ones

// A store's segments; the log itself only wants a multiple of 4096.
#define SUPERBLOCK_SEGMENT_BYTES_MIN (UINT64_C(64) << 10)
#define SUPERBLOCK_SEGMENT_BYTES_MAX (UINT64_C(1) << 30)

struct superblock_disk {
    uint8_t magic[8];
    le32 version;
    le32 bytes; // 4096...65536, what is used of the slot
    le64 features_incompat;
    le64 features_ro_compat;
    uint8_t uuid[16];
    le64 checksum; // over `bytes` bytes with this field zero
    le64 slot;     // own position
    le64 sequence; // >= 1
    le64 epoch;    // >= 1
    le64 cut_lsn;
    le64 cut_checksum;  // 0 if and only if cut_lsn is
    le64 log_segment;   // >= 1
    le64 segment_bytes; // multiple of 4096
    le64 generation;    // >= that of the root
    struct blkref_disk root;
    le32 root_level; // <= 15
    le32 flags;      // SUPERBLOCK_CLEAN
    le64 next_ino;   // 2...2^48
    le64 hash_seed;
    le64 data_blocks; // <= what the index references can speak of
    le64 used_blocks; // <= data_blocks
    le64 inodes;      // >= 1
    le64 created;
    le64 written;
    le32 index_count; // <= 4064
    le32 reserved0;
    struct blkref_disk snapshots;
    uint8_t reserved2[24];
    le64 next_lsn; // >= 1
    le64 log_seed;
    le64 live_parent;   // 0 unless there are snapshots
    le64 next_snapshot; // 0: none was ever taken
    uint8_t reserved1[216];
    struct map_ref_disk refs[];
};
AF_DISK_SIZE(struct superblock_disk, 512);
AF_DISK_OFFSET(struct superblock_disk, magic, 0);
AF_DISK_OFFSET(struct superblock_disk, version, 8);
AF_DISK_OFFSET(struct superblock_disk, bytes, 12);
AF_DISK_OFFSET(struct superblock_disk, features_incompat, 16);
AF_DISK_OFFSET(struct superblock_disk, features_ro_compat, 24);
AF_DISK_OFFSET(struct superblock_disk, uuid, 32);
AF_DISK_OFFSET(struct superblock_disk, checksum, 48);
AF_DISK_OFFSET(struct superblock_disk, slot, 56);
AF_DISK_OFFSET(struct superblock_disk, sequence, 64);
AF_DISK_OFFSET(struct superblock_disk, epoch, 72);
AF_DISK_OFFSET(struct superblock_disk, cut_lsn, 80);
AF_DISK_OFFSET(struct superblock_disk, cut_checksum, 88);
AF_DISK_OFFSET(struct superblock_disk, log_segment, 96);
AF_DISK_OFFSET(struct superblock_disk, segment_bytes, 104);
AF_DISK_OFFSET(struct superblock_disk, generation, 112);
AF_DISK_OFFSET(struct superblock_disk, root, 120);
AF_DISK_OFFSET(struct superblock_disk, root_level, 144);
AF_DISK_OFFSET(struct superblock_disk, flags, 148);
AF_DISK_OFFSET(struct superblock_disk, next_ino, 152);
AF_DISK_OFFSET(struct superblock_disk, hash_seed, 160);
AF_DISK_OFFSET(struct superblock_disk, data_blocks, 168);
AF_DISK_OFFSET(struct superblock_disk, used_blocks, 176);
AF_DISK_OFFSET(struct superblock_disk, inodes, 184);
AF_DISK_OFFSET(struct superblock_disk, created, 192);
AF_DISK_OFFSET(struct superblock_disk, written, 200);
AF_DISK_OFFSET(struct superblock_disk, index_count, 208);
AF_DISK_OFFSET(struct superblock_disk, reserved0, 212);
AF_DISK_OFFSET(struct superblock_disk, snapshots, 216);
AF_DISK_OFFSET(struct superblock_disk, reserved2, 240);
AF_DISK_OFFSET(struct superblock_disk, next_lsn, 264);
AF_DISK_OFFSET(struct superblock_disk, log_seed, 272);
AF_DISK_OFFSET(struct superblock_disk, live_parent, 280);
AF_DISK_OFFSET(struct superblock_disk, next_snapshot, 288);
AF_DISK_OFFSET(struct superblock_disk, reserved1, 296);
AF_DISK_OFFSET(struct superblock_disk, refs, 512);

#endif
