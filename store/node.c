// SPDX-License-Identifier: MIT
// One tree node (node.h): slots rise from byte 64, values grow down from the end. A deleted value
// leaves a gap, which is closed when an insertion finds too little room between slots and heap.
#include "store/node.h"

#include <string.h>

#include "base/buf.h"
#include "base/checksum.h"
#include "base/err.h"
#include "store/blkref.h"

#define HEADER_BYTES   sizeof(struct block_header_disk)
#define SLOT_BYTES     sizeof(struct slot_disk)
#define NODE_COUNT_MAX (NODE_ROOM / SLOT_BYTES)

static const struct block_header_disk *node_header(const uint8_t *node)
{
    return (const struct block_header_disk *)node;
}

static struct block_header_disk *node_header_mut(uint8_t *node)
{
    return (struct block_header_disk *)node;
}

static const struct slot_disk *node_slot(const uint8_t *node, unsigned index)
{
    return (const struct slot_disk *)(node + HEADER_BYTES) + index;
}

static struct slot_disk *node_slot_mut(uint8_t *node, unsigned index)
{
    return (struct slot_disk *)(node + HEADER_BYTES) + index;
}

static unsigned node_heap_start(const uint8_t *node)
{
    return le32_get(node_header(node)->heap_start);
}

static void node_set_count(uint8_t *node, unsigned count)
{
    node_header_mut(node)->count = le32_put(count);
}

static void node_set_heap_start(uint8_t *node, unsigned heap_start)
{
    node_header_mut(node)->heap_start = le32_put(heap_start);
}

unsigned node_count(const uint8_t *bytes)
{
    return le32_get(node_header(bytes)->count);
}

unsigned node_level(const uint8_t *bytes)
{
    return node_header(bytes)->level;
}

static struct key slot_key(const struct slot_disk *slot)
{
    return key_make(le64_get(slot->ino), slot->kind, le64_get(slot->off));
}

struct key node_key(const uint8_t *bytes, unsigned index)
{
    return slot_key(node_slot(bytes, index));
}

const void *node_value(const uint8_t *bytes, unsigned index, size_t *ret_len)
{
    const struct slot_disk *slot = node_slot(bytes, index);
    *ret_len = le16_get(slot->value_len);
    return bytes + le16_get(slot->value_off);
}

struct blkref node_child(const uint8_t *bytes, unsigned index)
{
    const struct blkref_disk *ref =
        (const struct blkref_disk *)(bytes + le16_get(node_slot(bytes, index)->value_off));
    return blkref_get(ref);
}

void node_init(uint8_t *node, const uint8_t uuid[16], uint64_t address, uint64_t generation,
               unsigned level)
{
    AF_ASSERT(level <= NODE_LEVEL_MAX);
    struct block_header_disk *h = node_header_mut(node);
    memset(h, 0, sizeof(*h));
    h->magic = le32_put(BLOCK_MAGIC);
    h->version = le16_put(FORMAT_VERSION);
    h->type = BLOCK_TYPE_NODE;
    h->level = (uint8_t)level;
    memcpy(h->uuid, uuid, sizeof(h->uuid));
    node_set_identity(node, address, generation);
    node_set_heap_start(node, BLOCK_BYTES);
}

void node_set_identity(uint8_t *node, uint64_t address, uint64_t generation)
{
    node_header_mut(node)->address = le64_put(address);
    node_header_mut(node)->generation = le64_put(generation);
}

unsigned node_search(const uint8_t *node, const struct key *key, bool *ret_found)
{
    unsigned low = 0, high = node_count(node);
    *ret_found = false;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        struct key at = slot_key(node_slot(node, middle));
        int order = key_compare(&at, key);
        if (order == 0) {
            *ret_found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

unsigned node_search_child(const uint8_t *node, const struct key *key)
{
    bool found;
    unsigned index = node_search(node, key, &found);
    // Slot 0 bounds nothing, so what is below its key lies in its child too.
    return found || index == 0 ? index : index - 1;
}

size_t node_used_by(const uint8_t *node, unsigned count)
{
    const struct slot_disk *slot = node_slot(node, 0);
    size_t used = count * SLOT_BYTES;
    for (unsigned i = 0; i < count; i++)
        used += le16_get(slot[i].value_len);
    return used;
}

size_t node_used(const uint8_t *node)
{
    return node_used_by(node, node_count(node));
}

// Room between the slots and the heap, without closing gaps.
static size_t node_middle(const uint8_t *node)
{
    return node_heap_start(node) - HEADER_BYTES - node_count(node) * SLOT_BYTES;
}

bool node_fits(const uint8_t *node, size_t len)
{
    return NODE_ITEM_BYTES(len) <= node_middle(node) ||
           node_used(node) + NODE_ITEM_BYTES(len) <= NODE_ROOM;
}

bool node_fits_replaced(const uint8_t *node, unsigned index, size_t len)
{
    size_t old = le16_get(node_slot(node, index)->value_len);
    return len <= old || node_used(node) - old + len <= NODE_ROOM;
}

static void node_compact(uint8_t *node)
{
    uint8_t heap[BLOCK_BYTES];
    unsigned count = node_count(node), at = BLOCK_BYTES;
    for (unsigned i = 0; i < count; i++) {
        struct slot_disk *slot = node_slot_mut(node, i);
        unsigned len = le16_get(slot->value_len);
        at -= len;
        memcpy(heap + at, node + le16_get(slot->value_off), len);
        slot->value_off = le16_put((uint16_t)at);
    }
    memcpy(node + at, heap + at, BLOCK_BYTES - at);
    node_set_heap_start(node, at);
}

// Room for a value of `len` bytes below the heap, when `slots` further slots are to follow.
static unsigned node_take(uint8_t *node, unsigned slots, size_t len)
{
    if (node_middle(node) < slots * SLOT_BYTES + len)
        node_compact(node);
    AF_ASSERT(node_middle(node) >= slots * SLOT_BYTES + len);
    unsigned at = node_heap_start(node) - (unsigned)len;
    node_set_heap_start(node, at);
    return at;
}

void node_insert(uint8_t *node, unsigned index, const struct key *key, const void *value,
                 size_t len)
{
    unsigned count = node_count(node);
    AF_ASSERT(index <= count && len <= ITEM_BYTES_MAX);
    unsigned at = node_take(node, 1, len);
    struct slot_disk *slot = node_slot_mut(node, index);
    memmove(slot + 1, slot, (count - index) * SLOT_BYTES);
    *slot = (struct slot_disk){.value_off = le16_put((uint16_t)at),
                               .value_len = le16_put((uint16_t)len)};
    node_set_key(node, index, key);
    if (len > 0)
        memcpy(node + at, value, len);
    node_set_count(node, count + 1);
}

// The lowest value is gone: the heap starts at the next one.
static void node_raise_heap(uint8_t *node)
{
    unsigned count = node_count(node), start = BLOCK_BYTES;
    for (unsigned i = 0; i < count; i++) {
        unsigned at = le16_get(node_slot(node, i)->value_off);
        start = at < start ? at : start;
    }
    node_set_heap_start(node, start);
}

void node_replace(uint8_t *node, unsigned index, const void *value, size_t len)
{
    struct slot_disk *slot = node_slot_mut(node, index);
    AF_ASSERT(index < node_count(node) && len <= ITEM_BYTES_MAX);
    if (len > le16_get(slot->value_len)) {
        // Without its old value the slot must not keep an offset that compaction would move from.
        slot->value_len = le16_put(0);
        slot->value_off = le16_put(BLOCK_BYTES);
        slot->value_off = le16_put((uint16_t)node_take(node, 0, len));
    }
    slot->value_len = le16_put((uint16_t)len);
    if (len > 0)
        memcpy(node + le16_get(slot->value_off), value, len);
}

void node_delete(uint8_t *node, unsigned index)
{
    unsigned count = node_count(node);
    AF_ASSERT(index < count);
    struct slot_disk *slot = node_slot_mut(node, index);
    bool lowest = le16_get(slot->value_off) == node_heap_start(node);
    memmove(slot, slot + 1, (count - index - 1) * SLOT_BYTES);
    node_set_count(node, count - 1);
    if (lowest)
        node_raise_heap(node);
}

void node_set_key(uint8_t *node, unsigned index, const struct key *key)
{
    struct slot_disk *slot = node_slot_mut(node, index);
    slot->ino = le64_put(key->ino);
    slot->kind = key->kind;
    slot->off = le64_put(key->off);
}

void node_insert_child(uint8_t *node, unsigned index, const struct key *key,
                       const struct blkref *ref)
{
    struct blkref_disk disk = blkref_put(ref);
    node_insert(node, index, key, &disk, sizeof(disk));
}

void node_set_child(uint8_t *node, unsigned index, const struct blkref *ref)
{
    struct blkref_disk disk = blkref_put(ref);
    memcpy(node + le16_get(node_slot(node, index)->value_off), &disk, sizeof(disk));
}

void node_set_child_checksum(uint8_t *node, unsigned index, uint64_t sum)
{
    struct blkref ref = node_child(node, index);
    ref.checksum = sum;
    node_set_child(node, index, &ref);
}

// Items [first, first + count) of `from` go before `index` of `node`.
static void node_copy_items(uint8_t *node, unsigned index, const uint8_t *from, unsigned first,
                            unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        size_t len;
        const void *value = node_value(from, first + i, &len);
        struct key key = node_key(from, first + i);
        node_insert(node, index + i, &key, value, len);
    }
}

// How many items, the new one at `index` counted in, are to stay in the left node.
static unsigned node_split_point(const uint8_t *node, unsigned index, size_t len)
{
    unsigned total_count = node_count(node) + 1;
    size_t total = node_used(node) + NODE_ITEM_BYTES(len);
    size_t left = 0;
    for (unsigned i = 0; i < total_count; i++) {
        size_t item_len = len;
        if (i != index)
            (void)node_value(node, i < index ? i : i - 1, &item_len);
        size_t with = left + NODE_ITEM_BYTES(item_len);
        // The first step past the middle: taken when it comes nearer than what there is.
        if (2 * with >= total)
            return i == 0 || 2 * with - total <= total - 2 * left ? i + 1 : i;
        left = with;
    }
    return total_count - 1;
}

void node_move_tail(uint8_t *left, uint8_t *right, unsigned from)
{
    unsigned count = node_count(left);
    AF_ASSERT(from <= count && node_count(right) == 0);
    node_copy_items(right, 0, left, from, count - from);
    node_set_count(left, from);
    node_raise_heap(left);
}

bool node_split(uint8_t *left, uint8_t *right, unsigned index, size_t len, unsigned *ret_index)
{
    unsigned stay = node_split_point(left, index, len);
    bool to_right = stay <= index;
    AF_ASSERT(stay > 0 && stay <= node_count(left));
    node_move_tail(left, right, to_right ? stay : stay - 1);
    *ret_index = to_right ? index - stay : index;
    return to_right;
}

void node_insert_all(uint8_t *node, unsigned index, const uint8_t *from)
{
    node_copy_items(node, index, from, 0, node_count(from));
}

void node_copy_clean(uint8_t *ret_node, const uint8_t *node)
{
    unsigned count = node_count(node);
    size_t slots_end = HEADER_BYTES + count * SLOT_BYTES;
    memset(ret_node, 0, BLOCK_BYTES);
    memcpy(ret_node, node, slots_end);
    for (unsigned i = 0; i < count; i++) {
        size_t len;
        const void *value = node_value(node, i, &len);
        memcpy(ret_node + le16_get(node_slot(node, i)->value_off), value, len);
    }
}

// Who the block says it is, against what the reference to it says.
static int node_validate_header(const struct block_header_disk *h, const struct blkref *ref,
                                unsigned level, const uint8_t uuid[16])
{
    if (le32_get(h->magic) != BLOCK_MAGIC || h->type != BLOCK_TYPE_NODE)
        return -AF_E_BLOCK_MAGIC;
    if (memcmp(h->uuid, uuid, sizeof(h->uuid)) != 0)
        return -AF_E_BLOCK_UUID;
    if (le64_get(h->address) != ref->address)
        return -AF_E_BLOCK_ADDRESS;
    if (le64_get(h->generation) != ref->generation)
        return -AF_E_BLOCK_GENERATION;
    if (h->level != level || level > NODE_LEVEL_MAX)
        return -AF_E_NODE_LEVEL;
    return 0;
}

// Marks the bytes of a value in `used`; false when some are another value's.
static bool node_mark(uint64_t used[BLOCK_BYTES / 64], unsigned off, unsigned len)
{
    for (unsigned at = off; at < off + len;) {
        unsigned bit = at % 64;
        unsigned bits = AF_MIN(64 - bit, off + len - at);
        uint64_t mask = (bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1) << bit;
        if (used[at / 64] & mask)
            return false;
        used[at / 64] |= mask;
        at += bits;
    }
    return true;
}

// A child was written before its parent, so its reference is complete, and it is not younger.
static bool node_child_possible(const uint8_t *node, unsigned index)
{
    struct blkref ref = node_child(node, index);
    return ref.address != 0 && ref.checksum != 0 &&
           ref.generation <= le64_get(node_header(node)->generation);
}

static int node_validate_slots(const uint8_t *node)
{
    uint64_t used[BLOCK_BYTES / 64] = {0};
    unsigned count = node_count(node), heap_start = node_heap_start(node);
    for (unsigned i = 0; i < count; i++) {
        const struct slot_disk *slot = node_slot(node, i);
        unsigned off = le16_get(slot->value_off), len = le16_get(slot->value_len);
        if (slot->reserved0 != 0 || le16_get(slot->reserved1) != 0)
            return -AF_E_NODE_LAYOUT;
        if (off < heap_start || off > BLOCK_BYTES || len > BLOCK_BYTES - off ||
            !node_mark(used, off, len))
            return -AF_E_NODE_LAYOUT;
        if (node_level(node) == 0 ? len > ITEM_BYTES_MAX : len != sizeof(struct blkref_disk))
            return -AF_E_NODE_LAYOUT;
        if (node_level(node) > 0 && !node_child_possible(node, i))
            return -AF_E_NODE_LAYOUT;
        if (slot->kind < KIND_INODE || slot->kind > KIND_ORPHAN)
            return -AF_E_ITEM;
        struct key key = slot_key(slot);
        struct key before = i > 0 ? node_key(node, i - 1) : key;
        if (i > 0 && key_compare(&before, &key) >= 0)
            return -AF_E_NODE_ORDER;
    }
    return 0;
}

int node_validate(const uint8_t *bytes, const struct blkref *ref, unsigned level,
                  const uint8_t uuid[16])
{
    const struct block_header_disk *h = node_header(bytes);
    int r = node_validate_header(h, ref, level, uuid);
    if (r < 0)
        return r;
    if (checksum(CSUM_NODE, 0, bytes, BLOCK_BYTES) != ref->checksum)
        return -AF_E_BLOCK_CHECKSUM;
    // Only whole bytes say of which version they are: else it is damage.
    if (le16_get(h->version) != FORMAT_VERSION)
        return -AF_E_VERSION;
    unsigned count = node_count(bytes), heap_start = node_heap_start(bytes);
    if (!all_zero(h->reserved, sizeof(h->reserved)))
        return -AF_E_NODE_LAYOUT;
    if (count > NODE_COUNT_MAX || (count == 0 && level > 0))
        return -AF_E_NODE_LAYOUT;
    if (heap_start > BLOCK_BYTES || heap_start < HEADER_BYTES + count * SLOT_BYTES)
        return -AF_E_NODE_LAYOUT;
    return node_validate_slots(bytes);
}
