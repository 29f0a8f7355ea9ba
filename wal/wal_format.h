// SPDX-License-Identifier: MIT
// What a log segment is on disk (docs/FORMAT.md, "Log"), and the pure functions that encode, decode
// and validate it: no I/O, no allocation, no globals. Encoders assert what decoders validate.
//
// A segment file:
//   | header block 4096 | group | 0 | group | 0 | ... | bytes of an earlier use, or zeros |
//   a group starts at a multiple of 4096, its records at multiples of 8.
//
// Invariant W4 rests on the salt: (epoch, segment) is never used twice and the seed is the store's
// secret, so nothing that was written under another pair, by another store, or into a file by a
// user validates.
#ifndef AF_WAL_WAL_FORMAT_H
#define AF_WAL_WAL_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/check.h"
#include "base/le.h"
#include "wal/wal.h"

#define WAL_BLOCK         4096u
#define WAL_ALIGN         8u
#define WAL_VERSION       1u
#define WAL_RECORD_MAGIC  0x52534641u     // "AFSR"
#define WAL_SEGMENT_MAGIC "AEROFSWS"      // 8 bytes, no terminator on disk
#define WAL_FLAG_GROUP    1u              // first record of a group
#define WAL_BODY_MAX      (1024u * 1024u) // and at most half of what a segment holds

struct wal_disk_segment {
    uint8_t magic[8];
    le32 version;
    le32 reserved0;
    uint8_t uuid[16];
    le64 checksum;
    le64 segment;       // equals the number in the file's name
    le64 epoch;         // of every record in it
    le64 first_lsn;     // > durable_lsn
    le64 prev_checksum; // of record first_lsn - 1, or the cut's; 0: none
    le64 durable_lsn;
    le64 segment_bytes;
    le64 sequence;
    le64 log_seed;
    le64 prev_lsn; // < first_lsn
    uint8_t reserved1[3984];
};
AF_DISK_SIZE(struct wal_disk_segment, 4096);
AF_DISK_OFFSET(struct wal_disk_segment, magic, 0);
AF_DISK_OFFSET(struct wal_disk_segment, version, 8);
AF_DISK_OFFSET(struct wal_disk_segment, reserved0, 12);
AF_DISK_OFFSET(struct wal_disk_segment, uuid, 16);
AF_DISK_OFFSET(struct wal_disk_segment, checksum, 32);
AF_DISK_OFFSET(struct wal_disk_segment, segment, 40);
AF_DISK_OFFSET(struct wal_disk_segment, epoch, 48);
AF_DISK_OFFSET(struct wal_disk_segment, first_lsn, 56);
AF_DISK_OFFSET(struct wal_disk_segment, prev_checksum, 64);
AF_DISK_OFFSET(struct wal_disk_segment, durable_lsn, 72);
AF_DISK_OFFSET(struct wal_disk_segment, segment_bytes, 80);
AF_DISK_OFFSET(struct wal_disk_segment, sequence, 88);
AF_DISK_OFFSET(struct wal_disk_segment, log_seed, 96);
AF_DISK_OFFSET(struct wal_disk_segment, prev_lsn, 104);
AF_DISK_OFFSET(struct wal_disk_segment, reserved1, 112);

struct wal_disk_record {
    le32 magic;
    le32 body_bytes;
    le64 lsn;
    le64 durable_lsn; // < lsn
    le64 prev_checksum;
    le64 checksum;
    le16 type;
    le16 flags;
    le32 reserved;
};
AF_DISK_SIZE(struct wal_disk_record, 48);
AF_DISK_OFFSET(struct wal_disk_record, magic, 0);
AF_DISK_OFFSET(struct wal_disk_record, body_bytes, 4);
AF_DISK_OFFSET(struct wal_disk_record, lsn, 8);
AF_DISK_OFFSET(struct wal_disk_record, durable_lsn, 16);
AF_DISK_OFFSET(struct wal_disk_record, prev_checksum, 24);
AF_DISK_OFFSET(struct wal_disk_record, checksum, 32);
AF_DISK_OFFSET(struct wal_disk_record, type, 40);
AF_DISK_OFFSET(struct wal_disk_record, flags, 42);
AF_DISK_OFFSET(struct wal_disk_record, reserved, 44);

#define WAL_RECORD_HEADER sizeof(struct wal_disk_record)

// A record's header in memory.
struct wal_frame {
    uint32_t body_bytes;
    uint64_t lsn;
    uint64_t durable_lsn;
    uint64_t prev_checksum;
    uint64_t checksum;
    uint16_t type; // enum wal_type, when `known`
    bool group_start;
    bool known; // type, flags, reserved bytes and numbers are such as this version writes
};

// The salt of segment `segment` in `epoch` of the store with the seed `log_seed`.
uint64_t wal_format_salt(uint64_t log_seed, uint64_t epoch, uint64_t segment);

// Bytes that a record with such a body takes: header, body, zeros to a multiple of 8.
static inline size_t wal_record_bytes(size_t body_bytes)
{
    return AF_ROUND_UP(WAL_RECORD_HEADER + body_bytes, (size_t)WAL_ALIGN);
}

// Fills the header block from `info` (all fields but `valid`).
void wal_segment_encode(uint8_t block[WAL_BLOCK], const struct wal_segment_info *info);
// Decodes a header block on its own: magic, version, reserved bytes, checksum under the salt that
// its own fields give, durable and previous before first. *ret_info gets the fields, with `valid`
// set when all of that holds; the caller compares number, uuid, epoch and size with what it
// expects. Returns 0 or -AF_E_BLOCK_MAGIC, -AF_E_VERSION, -AF_E_LOG_RECORD, -AF_E_BLOCK_CHECKSUM.
int wal_segment_decode(const uint8_t block[WAL_BLOCK],
                       struct wal_segment_info *ret_info) AF_NODISCARD;

// Writes the parts of a record that are known when it is appended: everything but durable_lsn,
// prev_checksum, checksum. `at` has room for wal_record_bytes(body_bytes).
void wal_record_put(uint8_t *at, uint64_t lsn, enum wal_type type, bool group_start,
                    const void *body, size_t body_bytes);
// Fills in the rest when the group is sealed and returns the record's checksum.
uint64_t wal_record_seal(uint8_t *at, uint64_t salt, uint64_t durable_lsn, uint64_t prev_checksum);

// Decodes a record's header alone: magic, and that the body is no larger than allowed and fits into
// `avail_bytes` (counted from the header). 0, -AF_E_BLOCK_MAGIC or -AF_E_LOG_RECORD. A record is
// valid when it is `known` and wal_frame_verify() agrees; one that verifies and is not known was
// not made by a tear.
int wal_frame_decode(const uint8_t *at, uint64_t avail_bytes,
                     struct wal_frame *ret_frame) AF_NODISCARD;
// True when the checksum of the record at `at`, wholly in memory, is the one that its header names.
bool wal_frame_verify(const uint8_t *at, const struct wal_frame *frame, uint64_t salt);

// Body of a marker.
#define WAL_MARKER_BODY 16u

#endif
