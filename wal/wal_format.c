// SPDX-License-Identifier: MIT
// Encoding and validation of segment headers and log records. Pure; see wal_format.h. Invariant W4
// is decided here.
#include "wal/wal_format.h"

#include <string.h>

#include "base/buf.h"
#include "base/checksum.h"
#include "base/err.h"

uint64_t wal_format_salt(uint64_t log_seed, uint64_t epoch, uint64_t segment)
{
    struct {
        le64 log_seed;
        le64 epoch;
        le64 segment;
    } in;

    in.log_seed = le64_put(log_seed);
    in.epoch = le64_put(epoch);
    in.segment = le64_put(segment);
    // Kind 0 without a salt gives the seed 0: plain XXH3-64, as the format says.
    return checksum((enum checksum_kind)0, 0, &in, sizeof(in));
}

// The checksum of a header block, which stays as it is: the field counts as zero.
static uint64_t segment_checksum(const struct wal_disk_segment *disk, uint64_t salt)
{
    struct wal_disk_segment copy;
    const size_t head = offsetof(struct wal_disk_segment, reserved1);

    memcpy(&copy, disk, head);
    copy.checksum = le64_put(0);
    return checksum2(CSUM_SEGMENT, salt, &copy, head, disk->reserved1, sizeof(disk->reserved1));
}

void wal_segment_encode(uint8_t block[WAL_BLOCK], const struct wal_segment_info *info)
{
    struct wal_disk_segment *disk = (struct wal_disk_segment *)block;

    AF_ASSERT(info->durable_lsn < info->first_lsn && info->prev_lsn < info->first_lsn);
    AF_ASSERT(info->segment_bytes >= 2 * WAL_BLOCK && info->segment_bytes % WAL_BLOCK == 0);
    memset(block, 0, WAL_BLOCK);
    memcpy(disk->magic, WAL_SEGMENT_MAGIC, sizeof(disk->magic));
    disk->version = le32_put(WAL_VERSION);
    memcpy(disk->uuid, info->uuid, sizeof(disk->uuid));
    disk->segment = le64_put(info->segment);
    disk->epoch = le64_put(info->epoch);
    disk->first_lsn = le64_put(info->first_lsn);
    disk->prev_checksum = le64_put(info->prev_checksum);
    disk->durable_lsn = le64_put(info->durable_lsn);
    disk->segment_bytes = le64_put(info->segment_bytes);
    disk->sequence = le64_put(info->sequence);
    disk->log_seed = le64_put(info->log_seed);
    disk->prev_lsn = le64_put(info->prev_lsn);
    disk->checksum = le64_put(
        segment_checksum(disk, wal_format_salt(info->log_seed, info->epoch, info->segment)));
}

int wal_segment_decode(const uint8_t block[WAL_BLOCK], struct wal_segment_info *ret_info)
{
    const struct wal_disk_segment *disk = (const struct wal_disk_segment *)block;
    struct wal_segment_info info = {
        .segment = le64_get(disk->segment),
        .epoch = le64_get(disk->epoch),
        .first_lsn = le64_get(disk->first_lsn),
        .prev_checksum = le64_get(disk->prev_checksum),
        .durable_lsn = le64_get(disk->durable_lsn),
        .sequence = le64_get(disk->sequence),
        .segment_bytes = le64_get(disk->segment_bytes),
        .log_seed = le64_get(disk->log_seed),
        .prev_lsn = le64_get(disk->prev_lsn),
    };
    int r = 0;

    memcpy(info.uuid, disk->uuid, sizeof(info.uuid));
    uint64_t salt = wal_format_salt(info.log_seed, info.epoch, info.segment);
    if (memcmp(disk->magic, WAL_SEGMENT_MAGIC, sizeof(disk->magic)) != 0)
        r = -AF_E_BLOCK_MAGIC;
    else if (le32_get(disk->version) != WAL_VERSION) // before anything whose meaning may differ
        r = -AF_E_VERSION;
    else if (le64_get(disk->checksum) != segment_checksum(disk, salt))
        r = -AF_E_BLOCK_CHECKSUM;
    else if (le32_get(disk->reserved0) != 0 ||
             !all_zero(disk->reserved1, sizeof(disk->reserved1)) ||
             info.durable_lsn >= info.first_lsn || info.prev_lsn >= info.first_lsn ||
             info.segment_bytes < 2 * WAL_BLOCK || info.segment_bytes % WAL_BLOCK != 0)
        r = -AF_E_LOG_RECORD;
    info.valid = r == 0;
    *ret_info = info;
    return r;
}

void wal_record_put(uint8_t *at, uint64_t lsn, enum wal_type type, bool group_start,
                    const void *body, size_t body_bytes)
{
    struct wal_disk_record disk = {
        .magic = le32_put(WAL_RECORD_MAGIC),
        .body_bytes = le32_put((uint32_t)body_bytes),
        .lsn = le64_put(lsn),
        .type = le16_put((uint16_t)type),
        .flags = le16_put(group_start ? WAL_FLAG_GROUP : 0),
    };
    size_t total = wal_record_bytes(body_bytes);

    AF_ASSERT(type >= WAL_OPERATION && type <= WAL_ATTESTATION);
    AF_ASSERT(body_bytes <= WAL_BODY_MAX);
    AF_ASSERT(lsn > 0 && lsn < UINT64_MAX);
    memcpy(at, &disk, sizeof(disk));
    if (body_bytes > 0)
        memcpy(at + sizeof(disk), body, body_bytes);
    memset(at + sizeof(disk) + body_bytes, 0, total - sizeof(disk) - body_bytes);
}

uint64_t wal_record_seal(uint8_t *at, uint64_t salt, uint64_t durable_lsn, uint64_t prev_checksum)
{
    struct wal_disk_record disk;

    memcpy(&disk, at, sizeof(disk));
    AF_ASSERT(durable_lsn < le64_get(disk.lsn));
    disk.durable_lsn = le64_put(durable_lsn);
    disk.prev_checksum = le64_put(prev_checksum);
    disk.checksum = le64_put(0);
    memcpy(at, &disk, sizeof(disk));
    uint64_t sum = checksum(CSUM_RECORD, salt, at, sizeof(disk) + le32_get(disk.body_bytes));
    disk.checksum = le64_put(sum);
    memcpy(at, &disk, sizeof(disk));
    return sum;
}

int wal_frame_decode(const uint8_t *at, uint64_t avail_bytes, struct wal_frame *ret_frame)
{
    struct wal_disk_record disk;

    if (avail_bytes < sizeof(disk))
        return -AF_E_LOG_RECORD;
    memcpy(&disk, at, sizeof(disk));
    if (le32_get(disk.magic) != WAL_RECORD_MAGIC)
        return -AF_E_BLOCK_MAGIC;
    uint32_t body_bytes = le32_get(disk.body_bytes);
    if (body_bytes > WAL_BODY_MAX || body_bytes > avail_bytes - sizeof(disk))
        return -AF_E_LOG_RECORD;
    uint64_t lsn = le64_get(disk.lsn);
    uint16_t type = le16_get(disk.type);
    uint16_t flags = le16_get(disk.flags);
    bool known = type >= WAL_OPERATION && type <= WAL_ATTESTATION &&
                 (flags & ~WAL_FLAG_GROUP) == 0 && le32_get(disk.reserved) == 0;
    // The last number is never given, so that lsn + 1 does not wrap anywhere.
    known = known && lsn != UINT64_MAX && le64_get(disk.durable_lsn) < lsn;
    *ret_frame = (struct wal_frame){
        .body_bytes = body_bytes,
        .lsn = lsn,
        .durable_lsn = le64_get(disk.durable_lsn),
        .prev_checksum = le64_get(disk.prev_checksum),
        .checksum = le64_get(disk.checksum),
        .type = type,
        .group_start = (flags & WAL_FLAG_GROUP) != 0,
        .known = known,
    };
    return 0;
}

bool wal_frame_verify(const uint8_t *at, const struct wal_frame *frame, uint64_t salt)
{
    struct wal_disk_record disk;

    memcpy(&disk, at, sizeof(disk));
    disk.checksum = le64_put(0);
    return frame->checksum ==
           checksum2(CSUM_RECORD, salt, &disk, sizeof(disk), at + sizeof(disk), frame->body_bytes);
}
