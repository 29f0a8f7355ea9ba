// SPDX-License-Identifier: MIT
// On-disk structures of the tree, its items and the space map (docs/FORMAT.md). Only layout: what
// may stand in a field is said there and checked by the *_validate functions.
#ifndef AF_STORE_STORE_FORMAT_H
#define AF_STORE_STORE_FORMAT_H

#include <stddef.h>

#include "base/check.h"
#include "base/le.h"

#define BLOCK_BYTES    4096u
#define BLOCK_MAGIC    0x42534641u // "AFSB"
#define FORMAT_VERSION 1u

enum block_type {
    BLOCK_TYPE_NODE = 1,
    BLOCK_TYPE_BITMAP = 2,
    BLOCK_TYPE_INDEX = 3,
    BLOCK_TYPE_SNAPSHOTS = 4,
};

struct block_header_disk {
    le32 magic;
    le16 version;
    uint8_t type;
    uint8_t level;
    uint8_t uuid[16];
    le64 address;
    le64 generation;
    le32 count;
    le32 heap_start;
    uint8_t reserved[16];
};
AF_DISK_SIZE(struct block_header_disk, 64);
AF_DISK_OFFSET(struct block_header_disk, version, 4);
AF_DISK_OFFSET(struct block_header_disk, type, 6);
AF_DISK_OFFSET(struct block_header_disk, level, 7);
AF_DISK_OFFSET(struct block_header_disk, uuid, 8);
AF_DISK_OFFSET(struct block_header_disk, address, 24);
AF_DISK_OFFSET(struct block_header_disk, generation, 32);
AF_DISK_OFFSET(struct block_header_disk, count, 40);
AF_DISK_OFFSET(struct block_header_disk, heap_start, 44);

struct blkref_disk {
    le64 address;
    le64 checksum;
    le64 generation;
};
AF_DISK_SIZE(struct blkref_disk, 24);

#define NODE_LEVEL_MAX 15u
#define ITEM_BYTES_MAX 1320u

struct slot_disk {
    le64 ino;
    le64 off;
    uint8_t kind;
    uint8_t reserved0;
    le16 value_off;
    le16 value_len;
    le16 reserved1;
};
AF_DISK_SIZE(struct slot_disk, 24);
AF_DISK_OFFSET(struct slot_disk, kind, 16);
AF_DISK_OFFSET(struct slot_disk, value_off, 18);
AF_DISK_OFFSET(struct slot_disk, value_len, 20);

enum item_kind {
    KIND_INODE = 1,
    KIND_XATTR = 2,
    KIND_INLINE = 3,
    KIND_EXTENT = 4,
    KIND_DENTRY = 5,
    KIND_ORPHAN = 6,
};

#define INLINE_BYTES_MAX  1024u // content of a file or value of an xattr kept inside the tree
#define EXTENT_BLOCKS_MAX 64u
#define INO_ROOT          1u
#define INO_MAX           ((UINT64_C(1) << 48) - 1)
#define NAME_BYTES_MAX    255u
#define XATTR_VALUE_MAX   65536u
#define FILE_BYTES_MAX    INT64_MAX

struct time_disk {
    le64 sec;
    le32 nsec;
};
AF_DISK_SIZE(struct time_disk, 12);

struct inode_disk {
    le32 mode;
    le32 nlink;
    le32 uid;
    le32 gid;
    le64 rdev;
    le64 size;
    le64 blocks;
    struct time_disk atime, mtime, ctime, btime;
    le32 flags;
    le32 reserved0;
    le64 content_id;
    le64 parent;
    le64 content_lsn;
    le64 attr_lsn;
    le64 listing_lsn;
    le64 reserved1;
};
AF_DISK_SIZE(struct inode_disk, 144);
AF_DISK_OFFSET(struct inode_disk, rdev, 16);
AF_DISK_OFFSET(struct inode_disk, size, 24);
AF_DISK_OFFSET(struct inode_disk, blocks, 32);
AF_DISK_OFFSET(struct inode_disk, atime, 40);
AF_DISK_OFFSET(struct inode_disk, btime, 76);
AF_DISK_OFFSET(struct inode_disk, flags, 88);
AF_DISK_OFFSET(struct inode_disk, content_id, 96);
AF_DISK_OFFSET(struct inode_disk, listing_lsn, 128);

struct extent_disk {
    le64 address;
    le64 birth; // LSN of the record that named the blocks
    le32 count;
    le32 flags;
    le64 checksum[];
};
AF_DISK_SIZE(struct extent_disk, 24);

struct dentry_disk {
    le64 ino;
    uint8_t type;
    uint8_t name_len;
    uint8_t name[];
};
AF_DISK_SIZE(struct dentry_disk, 10);

struct xattr_disk {
    uint8_t flags;
    uint8_t name_len;
    le16 reserved;
    le32 value_len;
    uint8_t
        bytes[]; // name, then the value; or le64 birth and a xattr_block_disk for each block of it
};
AF_DISK_SIZE(struct xattr_disk, 8);
#define XATTR_IN_BLOCKS 1u

struct orphan_disk {
    uint8_t what; // enum orphan_what
    uint8_t reserved[7];
    le64 blocks; // of a content: how many its extents occupy; of an inode: 0
};
AF_DISK_SIZE(struct orphan_disk, 16);

struct xattr_block_disk { // one for each block of a value that is not inside the item
    le64 address;
    le64 checksum;
};
AF_DISK_SIZE(struct xattr_block_disk, 16);

#define ORPHAN_OFF(what, id) (((uint64_t)(what) << 48) | (id)) // the key's offset

enum orphan_what { ORPHAN_INODE = 1, ORPHAN_CONTENT = 2, ORPHAN_STAGED = 3 };

// Snapshots: a block is the header, the reference to the block with older entries, and entries.
#define SNAPSHOT_ENTRIES_OFFSET 88u
#define SNAPSHOT_DELETED        1u

struct snapshot_disk { // padded with zeros to a multiple of 8
    le64 id;
    le64 parent;
    le64 cut_lsn;
    le64 generation;
    le64 inodes;
    le64 created;
    struct blkref_disk root;
    le32 root_level;
    le32 flags;
    uint8_t name_len;
    uint8_t name[];
};
AF_DISK_OFFSET(struct snapshot_disk, root, 48);
AF_DISK_OFFSET(struct snapshot_disk, root_level, 72);
AF_DISK_OFFSET(struct snapshot_disk, name_len, 80);
AF_DISK_OFFSET(struct snapshot_disk, name, 81);

// Space map.
#define GROUP_BLOCKS     32256u
#define GROUPS_PER_INDEX 252u
#define INDEX_MAX        4064u
#define SLOT_NEVER       255u

struct map_ref_disk { // of a bitmap block in an index block, and of an index block in the
                      // superblock
    le64 checksum;
    le32 free;
    uint8_t slot;
    uint8_t reserved[3];
};
AF_DISK_SIZE(struct map_ref_disk, 16);

#endif
