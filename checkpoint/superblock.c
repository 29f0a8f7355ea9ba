// SPDX-License-Identifier: MIT
// Superblock slots: pure encoding and validation, reading both, writing one.
//
// Encoding asserts what decoding validates, so nothing is ever published that could not be read
// back.

#include "checkpoint/superblock.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/checksum.h"
#include "base/err.h"
#include "checkpoint/superblock_format.h"
#include "store/blkref.h"

#define CHECKSUM_AT  offsetof(struct superblock_disk, checksum)
#define CHECKSUM_END (CHECKSUM_AT + sizeof(le64))

void superblock_free(struct superblock *sb)
{
    free(sb->image.space.refs);
    *sb = (struct superblock){0};
}

static uint32_t used_bytes(uint64_t index_count)
{
    return (uint32_t)AF_ROUND_UP(SUPERBLOCK_FIXED_BYTES + index_count * sizeof(struct map_ref_disk),
                                 (uint64_t)SUPERBLOCK_BYTES_MIN);
}

// With the checksum field taken as zero.
static uint64_t slot_checksum(const uint8_t *bytes, size_t len)
{
    uint8_t head[CHECKSUM_END];

    memcpy(head, bytes, CHECKSUM_AT);
    memset(head + CHECKSUM_AT, 0, sizeof(le64));
    return checksum2(CSUM_SUPERBLOCK, 0, head, sizeof(head), bytes + CHECKSUM_END,
                     len - CHECKSUM_END);
}

// ---- validation ----

// Is it a whole slot of some version, and of one that this program knows?
static int check_identity(const uint8_t *bytes, const struct superblock_disk *d)
{
    uint32_t len = le32_get(d->bytes);

    if (memcmp(d->magic, SUPERBLOCK_MAGIC, sizeof(d->magic)) != 0 || len < SUPERBLOCK_BYTES_MIN ||
        len > SUPERBLOCK_SLOT_BYTES || len % SUPERBLOCK_BYTES_MIN != 0)
        return -AF_E_SB_NONE;
    if (slot_checksum(bytes, len) != le64_get(d->checksum))
        return -AF_E_SB_NONE;
    if (le32_get(d->version) != SUPERBLOCK_VERSION ||
        (le64_get(d->features_incompat) & ~SUPERBLOCK_FEATURES_INCOMPAT) != 0)
        return -AF_E_VERSION;
    return 0;
}

static bool log_fields_fit(const struct superblock_disk *d)
{
    uint64_t segment_bytes = le64_get(d->segment_bytes);
    uint64_t cut = le64_get(d->cut_lsn), next = le64_get(d->next_lsn);

    return le64_get(d->sequence) >= 1 && le64_get(d->epoch) >= 1 && le64_get(d->log_segment) >= 1 &&
           (cut == 0) == (le64_get(d->cut_checksum) == 0) && next >= 1 && cut < UINT64_MAX / 2 &&
           next < UINT64_MAX / 2 && segment_bytes >= SUPERBLOCK_SEGMENT_BYTES_MIN &&
           segment_bytes <= SUPERBLOCK_SEGMENT_BYTES_MAX && segment_bytes % BLOCK_BYTES == 0;
}

static bool tree_fields_fit(const struct superblock_disk *d)
{
    uint64_t next_ino = le64_get(d->next_ino), data_blocks = le64_get(d->data_blocks);
    uint64_t address = le64_get(d->root.address);
    uint64_t spoken_of = (uint64_t)le32_get(d->index_count) * GROUPS_PER_INDEX * GROUP_BLOCKS;

    return address != 0 && address < data_blocks && le64_get(d->root.checksum) != 0 &&
           le64_get(d->root.generation) >= 1 &&
           le64_get(d->root.generation) <= le64_get(d->generation) &&
           le32_get(d->root_level) <= NODE_LEVEL_MAX && next_ino > INO_ROOT &&
           next_ino <= INO_MAX + 1 && data_blocks <= spoken_of &&
           le64_get(d->used_blocks) <= data_blocks && le64_get(d->inodes) >= 1;
}

// A table of snapshots and its feature go together.
static bool snapshots_fit(const struct superblock_disk *d)
{
    bool feature = (le64_get(d->features_incompat) & SUPERBLOCK_FEATURE_SNAPSHOTS) != 0;
    uint64_t address = le64_get(d->snapshots.address), next = le64_get(d->next_snapshot);

    if (!feature)
        return all_zero((const uint8_t *)&d->snapshots, sizeof(d->snapshots)) &&
               le64_get(d->live_parent) == 0;
    return address != 0 && address < le64_get(d->data_blocks) &&
           le64_get(d->snapshots.checksum) != 0 && next > 1 && le64_get(d->live_parent) < next;
}

static bool refs_fit(const struct map_ref_disk *refs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct map_ref_disk *r = &refs[i];

        if (r->slot > 1 && r->slot != SLOT_NEVER)
            return false;
        if ((r->slot == SLOT_NEVER) != (le64_get(r->checksum) == 0) ||
            le32_get(r->free) > GROUPS_PER_INDEX * GROUP_BLOCKS ||
            !all_zero(r->reserved, sizeof(r->reserved)))
            return false;
    }
    return true;
}

static int check_slot(const uint8_t *bytes, unsigned slot)
{
    struct superblock_disk d;

    memcpy(&d, bytes, sizeof(d));
    int err = check_identity(bytes, &d);
    if (err < 0)
        return err;
    uint32_t count = le32_get(d.index_count), len = le32_get(d.bytes);
    size_t end = SUPERBLOCK_FIXED_BYTES + count * sizeof(struct map_ref_disk);

    if (count > INDEX_MAX || len != used_bytes(count) || le64_get(d.slot) != slot ||
        (le32_get(d.flags) & ~SUPERBLOCK_CLEAN) != 0)
        return -AF_E_SB_FIELD;
    if (!log_fields_fit(&d) || !tree_fields_fit(&d) ||
        !refs_fit((const struct map_ref_disk *)(bytes + SUPERBLOCK_FIXED_BYTES), count))
        return -AF_E_SB_FIELD;
    if (le32_get(d.reserved0) != 0 || !all_zero(d.reserved1, sizeof(d.reserved1)) ||
        !snapshots_fit(&d) || !all_zero(d.reserved2, sizeof(d.reserved2)) ||
        !all_zero(bytes + end, len - end))
        return -AF_E_SB_FIELD;
    return 0;
}

// ---- encode, decode ----

static void encode_log(struct superblock_disk *d, const struct wal_start *log)
{
    memcpy(d->uuid, log->uuid, sizeof(d->uuid));
    d->epoch = le64_put(log->epoch);
    d->cut_lsn = le64_put(log->cut_lsn);
    d->cut_checksum = le64_put(log->cut_checksum);
    d->log_segment = le64_put(log->log_segment);
    d->segment_bytes = le64_put(log->segment_bytes);
    d->next_lsn = le64_put(log->next_lsn);
    d->log_seed = le64_put(log->log_seed);
}

static void encode_image(struct superblock_disk *d, const struct store_image *image)
{
    d->generation = le64_put(image->generation);
    d->root = blkref_put(&image->root.ref);
    d->root_level = le32_put(image->root.level);
    d->next_ino = le64_put(image->next_ino);
    d->hash_seed = le64_put(image->hash_seed);
    d->inodes = le64_put(image->inodes);
    d->data_blocks = le64_put(image->space.data_blocks);
    d->used_blocks = le64_put(image->space.used_blocks);
    d->index_count = le32_put(image->space.index_count);
    d->snapshots = blkref_put(&image->snapshots);
    d->features_incompat = le64_put(image->snapshots.address ? SUPERBLOCK_FEATURE_SNAPSHOTS : 0);
    d->live_parent = le64_put(image->live_parent);
    d->next_snapshot = le64_put(image->next_snapshot);
}

uint32_t superblock_encode(const struct superblock *sb, unsigned slot, uint8_t *bytes)
{
    struct superblock_disk d;
    const struct space_image *space = &sb->image.space;
    uint32_t len = used_bytes(space->index_count);

    AF_ASSERT(slot <= 1 && space->index_count <= INDEX_MAX);
    AF_ASSERT(memcmp(sb->image.uuid, sb->log.uuid, sizeof(sb->log.uuid)) == 0);
    AF_ASSERT(sb->image.cut_lsn == sb->log.cut_lsn);
    memset(bytes, 0, SUPERBLOCK_SLOT_BYTES);
    memset(&d, 0, sizeof(d));
    memcpy(d.magic, SUPERBLOCK_MAGIC, sizeof(d.magic));
    d.version = le32_put(SUPERBLOCK_VERSION);
    d.bytes = le32_put(len);
    d.features_ro_compat = le64_put(sb->features_ro_compat);
    d.slot = le64_put(slot);
    d.sequence = le64_put(sb->sequence);
    d.flags = le32_put(sb->clean ? SUPERBLOCK_CLEAN : 0);
    d.created = le64_put(sb->created);
    d.written = le64_put(sb->written);
    encode_log(&d, &sb->log);
    encode_image(&d, &sb->image);
    memcpy(bytes, &d, sizeof(d));
    if (space->index_count > 0)
        memcpy(bytes + sizeof(d), space->refs, space->index_count * sizeof(struct map_ref_disk));
    d.checksum = le64_put(slot_checksum(bytes, len));
    memcpy(bytes, &d, sizeof(d));
    AF_ASSERT(check_slot(bytes, slot) == 0);
    return len;
}

static int decode_space(const uint8_t *bytes, const struct superblock_disk *d,
                        struct space_image *ret)
{
    uint32_t count = le32_get(d->index_count);

    *ret = (struct space_image){
        .data_blocks = le64_get(d->data_blocks),
        .used_blocks = le64_get(d->used_blocks),
        .index_count = count,
    };
    if (count == 0)
        return 0;
    ret->refs = malloc(count * sizeof(struct map_ref_disk));
    if (!ret->refs)
        return -ENOMEM;
    memcpy(ret->refs, bytes + SUPERBLOCK_FIXED_BYTES, count * sizeof(struct map_ref_disk));
    return 0;
}

int superblock_decode(const uint8_t *bytes, unsigned slot, struct superblock *ret_sb)
{
    struct superblock_disk d;
    struct superblock sb;
    int err = check_slot(bytes, slot);

    if (err < 0)
        return err;
    memcpy(&d, bytes, sizeof(d));
    sb = (struct superblock){
        .sequence = le64_get(d.sequence),
        .created = le64_get(d.created),
        .written = le64_get(d.written),
        .features_ro_compat = le64_get(d.features_ro_compat),
        .clean = (le32_get(d.flags) & SUPERBLOCK_CLEAN) != 0,
        .image =
            {
                .cut_lsn = le64_get(d.cut_lsn),
                .generation = le64_get(d.generation),
                .root = {.ref = blkref_get(&d.root), .level = le32_get(d.root_level)},
                .next_ino = le64_get(d.next_ino),
                .hash_seed = le64_get(d.hash_seed),
                .inodes = le64_get(d.inodes),
                .snapshots = blkref_get(&d.snapshots),
                .live_parent = le64_get(d.live_parent),
                .next_snapshot = le64_get(d.next_snapshot),
            },
        .log =
            {
                .epoch = le64_get(d.epoch),
                .segment_bytes = le64_get(d.segment_bytes),
                .log_segment = le64_get(d.log_segment),
                .cut_lsn = le64_get(d.cut_lsn),
                .cut_checksum = le64_get(d.cut_checksum),
                .next_lsn = le64_get(d.next_lsn),
                .log_seed = le64_get(d.log_seed),
            },
    };
    memcpy(sb.image.uuid, d.uuid, sizeof(d.uuid));
    memcpy(sb.log.uuid, d.uuid, sizeof(d.uuid));
    err = decode_space(bytes, &d, &sb.image.space);
    if (err < 0)
        return err;
    *ret_sb = sb;
    return 0;
}

// ---- the file ----

static uint8_t *slot_buffer(size_t slots)
{
    return aligned_alloc(BLOCK_BYTES, slots * SUPERBLOCK_SLOT_BYTES);
}

// A short file is as good as zeros in the slot: it does not validate.
static int load_slot(struct io_file *file, uint64_t file_bytes, unsigned slot, uint8_t *bytes,
                     struct superblock *ret_sb)
{
    uint64_t off = (uint64_t)slot * SUPERBLOCK_SLOT_BYTES;
    size_t len =
        file_bytes <= off ? 0 : (size_t)AF_MIN(file_bytes - off, (uint64_t)SUPERBLOCK_SLOT_BYTES);

    memset(bytes, 0, SUPERBLOCK_SLOT_BYTES);
    if (len > 0) {
        int err = io_pread(file, bytes, len, off);
        if (err < 0)
            return err;
    }
    return superblock_decode(bytes, slot, ret_sb);
}

static int choose(const struct superblock_slots *slots)
{
    if (slots->result[0] < 0 || slots->result[1] < 0)
        return slots->result[0] == 0 ? 0 : slots->result[1] == 0 ? 1 : -1;
    if (slots->sb[0].sequence == slots->sb[1].sequence)
        return (int)superblock_home(slots->sb[0].sequence);
    return slots->sb[0].sequence > slots->sb[1].sequence ? 0 : 1;
}

static int load_with(struct io *io, unsigned open_flags, struct superblock_slots *ret_slots)
{
    struct superblock_slots slots = {.chosen = -1};
    struct io_file *file;
    uint64_t file_bytes;
    uint8_t *bytes = slot_buffer(1);

    if (!bytes)
        return -ENOMEM;
    int err = io_file_open(io, SUPERBLOCK_FILE, IO_READ_ONLY | open_flags, &file);
    if (err < 0)
        goto out_bytes;
    err = io_size(file, &file_bytes);
    if (err < 0)
        goto out_file;
    for (unsigned i = 0; i < 2; i++)
        slots.result[i] = load_slot(file, file_bytes, i, bytes, &slots.sb[i]);
    if (slots.result[0] == -ENOMEM || slots.result[1] == -ENOMEM) {
        superblock_slots_free(&slots);
        err = -ENOMEM;
        goto out_file;
    }
    slots.chosen = choose(&slots);
    *ret_slots = slots;
out_file:
    io_file_close(file);
out_bytes:
    free(bytes);
    return err;
}

int superblock_load(struct io *io, struct superblock_slots *ret_slots)
{
    return load_with(io, IO_READ_ONLY, ret_slots);
}

int superblock_load_disk(struct io *io, struct superblock_slots *ret_slots)
{
    return load_with(io, IO_LOG, ret_slots);
}

void superblock_slots_free(struct superblock_slots *slots)
{
    superblock_free(&slots->sb[0]);
    superblock_free(&slots->sb[1]);
    slots->chosen = -1;
}

int superblock_write(struct io_file *file, unsigned slot, const struct superblock *sb)
{
    uint8_t *bytes = slot_buffer(1);

    if (!bytes)
        return -ENOMEM;
    uint32_t len = superblock_encode(sb, slot, bytes);
    int err = io_pwrite(file, bytes, len, (uint64_t)slot * SUPERBLOCK_SLOT_BYTES);
    if (err == 0)
        err = io_sync(file);
    free(bytes);
    return err;
}

// The file that the next recovery writes its superblock into, at full length: so recovery finds
// room on a full disk too. What it holds means nothing. A disk that has no room for it now has lost
// only this precaution.
static int make_spare(struct io *io, uint8_t *bytes, int *ret_spare_error)
{
    struct io_file *file;
    int err = io_file_open(io, SUPERBLOCK_FILE_RECOVER, IO_WRITE | IO_CREATE, &file);

    if (err == 0) {
        memset(bytes, 0, 2 * SUPERBLOCK_SLOT_BYTES);
        err = io_pwrite(file, bytes, 2 * SUPERBLOCK_SLOT_BYTES, 0);
        if (err == 0)
            err = io_sync(file);
        io_file_close(file);
    }
    if (err != -ENOSPC && err != -EDQUOT)
        return err;
    *ret_spare_error = err;
    return 0;
}

int superblock_replace(struct io *io, const char *temporary, const struct superblock *sb,
                       int *ret_spare_error)
{
    struct io_file *file;
    uint8_t *bytes = slot_buffer(2);

    if (!bytes)
        return -ENOMEM;
    superblock_encode(sb, 0, bytes);
    superblock_encode(sb, 1, bytes + SUPERBLOCK_SLOT_BYTES);
    // What is left of an earlier attempt under that name is written over: it was never in force.
    int err = io_file_open(io, temporary, IO_WRITE | IO_CREATE, &file);
    if (err == 0) {
        err = io_pwrite(file, bytes, 2 * SUPERBLOCK_SLOT_BYTES, 0);
        if (err == 0)
            err = io_sync(file);
        io_file_close(file);
    }
    if (err == 0)
        err = io_rename(io, temporary, SUPERBLOCK_FILE);
    if (err == 0)
        err = io_sync_dir(io, "");
    if (err == 0)
        err = make_spare(io, bytes, ret_spare_error);
    free(bytes);
    return err;
}
