// SPDX-License-Identifier: MIT
// Bitmap and index blocks as bytes (docs/FORMAT.md, "Space map"): encoding, decoding, checks. Pure.
#include "store/space_internal.h"

#include <string.h>

#include "base/buf.h"
#include "base/checksum.h"
#include "base/err.h"

struct bitmap_disk {
    struct block_header_disk header;
    le64 words[GROUP_WORDS];
};
AF_DISK_SIZE(struct bitmap_disk, 4096);

struct index_disk {
    struct block_header_disk header;
    struct map_ref_disk refs[GROUPS_PER_INDEX];
};
AF_DISK_SIZE(struct index_disk, 4096);

uint64_t space_bitmap_address(uint64_t group, unsigned slot)
{
    return group * GROUP_BLOCKS + slot;
}

uint64_t space_index_address(uint64_t index, unsigned slot)
{
    return index * GROUPS_PER_INDEX * GROUP_BLOCKS + 2 + slot;
}

unsigned space_group_reserved(uint64_t group)
{
    return group % GROUPS_PER_INDEX == 0 ? 4 : 2;
}

void space_fresh_bits(uint64_t group, uint64_t *words)
{
    memset(words, 0, GROUP_WORDS * sizeof(*words));
    bits_fill(words, 0, space_group_reserved(group), true);
}

static void encode_header(struct block_header_disk *h, enum block_type type, const uint8_t uuid[16],
                          uint64_t address, uint64_t sequence, uint32_t count)
{
    *h = (struct block_header_disk){.type = (uint8_t)type};
    h->magic = le32_put(BLOCK_MAGIC);
    h->version = le16_put(FORMAT_VERSION);
    memcpy(h->uuid, uuid, sizeof(h->uuid));
    h->address = le64_put(address);
    h->generation = le64_put(sequence);
    h->count = le32_put(count);
}

uint64_t space_encode_bitmap(uint8_t *bytes, const uint8_t uuid[16], uint64_t group,
                             const struct space_ref *ref, uint64_t sequence, const uint64_t *words)
{
    struct bitmap_disk *b = (struct bitmap_disk *)bytes;
    encode_header(&b->header, BLOCK_TYPE_BITMAP, uuid, space_bitmap_address(group, ref->slot),
                  sequence, ref->free);
    for (unsigned i = 0; i < GROUP_WORDS; i++)
        b->words[i] = le64_put(words[i]);
    return checksum(CSUM_BITMAP, 0, bytes, BLOCK_BYTES);
}

void space_decode_bitmap(const uint8_t *bytes, uint64_t *words)
{
    const struct bitmap_disk *b = (const struct bitmap_disk *)bytes;
    for (unsigned i = 0; i < GROUP_WORDS; i++)
        words[i] = le64_get(b->words[i]);
}

uint64_t space_encode_index(uint8_t *bytes, const uint8_t uuid[16], uint64_t index, unsigned slot,
                            uint64_t sequence, const struct space_ref *refs, unsigned count)
{
    struct index_disk *d = (struct index_disk *)bytes;
    encode_header(&d->header, BLOCK_TYPE_INDEX, uuid, space_index_address(index, slot), sequence,
                  count);
    memset(d->refs, 0, sizeof(d->refs));
    for (unsigned i = 0; i < count; i++) {
        d->refs[i].checksum = le64_put(refs[i].checksum);
        d->refs[i].free = le32_put(refs[i].free);
        d->refs[i].slot = refs[i].slot;
    }
    return checksum(CSUM_INDEX, 0, bytes, BLOCK_BYTES);
}

unsigned space_decode_index(const uint8_t *bytes, struct space_ref *refs)
{
    const struct index_disk *d = (const struct index_disk *)bytes;
    unsigned count = le32_get(d->header.count);
    for (unsigned i = 0; i < count; i++)
        refs[i] = (struct space_ref){.checksum = le64_get(d->refs[i].checksum),
                                     .free = le32_get(d->refs[i].free),
                                     .slot = d->refs[i].slot};
    return count;
}

static int validate_header(const struct block_header_disk *h, enum block_type type,
                           uint64_t address, const uint8_t uuid[16])
{
    if (le32_get(h->magic) != BLOCK_MAGIC || h->type != type)
        return -AF_E_BLOCK_MAGIC;
    if (memcmp(h->uuid, uuid, sizeof(h->uuid)) != 0)
        return -AF_E_BLOCK_UUID;
    if (le64_get(h->address) != address)
        return -AF_E_BLOCK_ADDRESS;
    return 0;
}

static int validate_bitmap(const uint8_t *bytes, uint64_t address)
{
    uint64_t words[GROUP_WORDS];
    space_decode_bitmap(bytes, words);
    uint64_t group = address / GROUP_BLOCKS;
    if (address % GROUP_BLOCKS > 1 || !bits_all(words, 0, space_group_reserved(group), true))
        return -AF_E_SPACE_LAYOUT;
    // What is zero and not counted does not exist, so it lies at the end.
    const struct bitmap_disk *b = (const struct bitmap_disk *)bytes;
    unsigned zeros = bits_count_zeros(words);
    uint32_t counted = le32_get(b->header.count);
    if (counted > zeros)
        return -AF_E_SPACE_LAYOUT;
    unsigned behind = zeros - counted;
    return bits_all(words, GROUP_BLOCKS - behind, behind, false) ? 0 : -AF_E_SPACE_LAYOUT;
}

static int validate_index(const uint8_t *bytes, uint64_t address)
{
    const struct index_disk *d = (const struct index_disk *)bytes;
    uint64_t index = address / GROUP_BLOCKS / GROUPS_PER_INDEX;
    uint32_t count = le32_get(d->header.count);
    if (address != space_index_address(index, 0) && address != space_index_address(index, 1))
        return -AF_E_SPACE_LAYOUT;
    if (count == 0 || count > GROUPS_PER_INDEX)
        return -AF_E_SPACE_LAYOUT;
    for (uint32_t i = 0; i < count; i++) {
        const struct map_ref_disk *ref = &d->refs[i];
        uint64_t group = index * GROUPS_PER_INDEX + i;
        uint32_t most = GROUP_BLOCKS - space_group_reserved(group);
        bool never = ref->slot == SLOT_NEVER;
        if ((!never && ref->slot > 1) || !all_zero(ref->reserved, sizeof(ref->reserved)))
            return -AF_E_SPACE_LAYOUT;
        if (never != (le64_get(ref->checksum) == 0))
            return -AF_E_SPACE_LAYOUT;
        bool whole = i + 1 < count; // the last one may be shorter
        if (le32_get(ref->free) > most || (never && whole && le32_get(ref->free) != most))
            return -AF_E_SPACE_LAYOUT;
    }
    size_t rest = (GROUPS_PER_INDEX - count) * sizeof(struct map_ref_disk);
    return rest == 0 || all_zero(&d->refs[count], rest) ? 0 : -AF_E_SPACE_LAYOUT;
}

int space_validate(const uint8_t *bytes, enum block_type type, uint64_t address, uint64_t sum,
                   const uint8_t uuid[16])
{
    const struct block_header_disk *h = (const struct block_header_disk *)bytes;
    int r = validate_header(h, type, address, uuid);
    if (r < 0)
        return r;
    enum checksum_kind kind = type == BLOCK_TYPE_BITMAP ? CSUM_BITMAP : CSUM_INDEX;
    if (checksum(kind, 0, bytes, BLOCK_BYTES) != sum)
        return -AF_E_SPACE_CHECKSUM;
    // Only whole bytes say of which version they are: else it is damage.
    if (le16_get(h->version) != FORMAT_VERSION)
        return -AF_E_VERSION;
    if (h->level != 0 || le32_get(h->heap_start) != 0 ||
        !all_zero(h->reserved, sizeof(h->reserved)))
        return -AF_E_SPACE_LAYOUT;
    return type == BLOCK_TYPE_BITMAP ? validate_bitmap(bytes, address)
                                     : validate_index(bytes, address);
}
