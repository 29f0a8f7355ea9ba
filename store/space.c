// SPDX-License-Identifier: MIT
// The space map: opening, counting what may be granted, growth of `data`, claims of replay.
#include "store/space_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"

#define RESERVE_MIN         256u   // blocks
#define RESERVE_MAX         65536u // 256 MiB
#define GROW_MIN            1024u  // 4 MiB
#define GROW_MAX            16384u // 64 MiB
#define GROW_LEAST          64u    // a host with less room than this is full
#define HOST_RETRY_EVERY    64u    // refusals, until the host is asked again
// What `data` leaves of the host: recovery makes a file of two superblock slots, and a file system
// needs some blocks of its own for anything. ext4 takes these from behind its zero, so that what a
// deletion gives back is not there for others.
#define HOST_LEFT_BYTES     (UINT64_C(1) << 20)
#define SPACE_ROUNDS_MAX    64u   // checkpoints that one operation waits for
#define LOADED_SLACK        1024u // free blocks in loaded groups beyond what is asked for
#define GROUP_WORTH_LOADING 256u  // free blocks
#define BLOCKS_TOO_MANY     (UINT64_C(1) << 48)

bool space_range_ok(const struct space *sp, uint64_t address, uint64_t count)
{
    unsigned bit = group_bit(address);
    return address < sp->capacity && count > 0 && count <= sp->capacity - address &&
           count <= GROUP_BLOCKS - bit && bit >= space_group_reserved(address / GROUP_BLOCKS);
}

void space_count_free(struct space *sp, struct space_group *g, int64_t blocks)
{
    uint64_t delta = (uint64_t)blocks; // modulo 2^64, so that taking is adding too
    g->free += (uint32_t)delta;
    sp->free += delta;
    if (g->bits != NULL)
        sp->loaded_free += delta;
}

// ---- capacity ----

static int add_indexes(struct space *sp, uint64_t blocks)
{
    for (uint64_t i = indexes_of(sp->capacity); i < indexes_of(blocks); i++) {
        if (sp->indexes[i] != NULL) // left by an attempt that ran out of memory
            continue;
        struct space_index *index = calloc(1, sizeof(*index));
        if (index == NULL)
            return -ENOMEM;
        index->slot = SLOT_NEVER;
        sp->indexes[i] = index;
    }
    return 0;
}

// More blocks of a group that had `old` blocks.
static void extend_group(struct space *sp, uint64_t group, unsigned old, unsigned blocks)
{
    struct space_group *g = space_group(sp, group);
    if (g->bad)
        return;
    if (g->bits != NULL) {
        bits_fill(g->bits->used, old, blocks - old, false);
        g->bits->run_max = GROUP_BLOCKS;
    }
    space_count_free(sp, g, blocks - old);
}

int space_set_capacity(struct space *sp, uint64_t blocks)
{
    AF_ASSERT(blocks >= sp->capacity && blocks <= SPACE_BLOCKS_MAX);
    int r = add_indexes(sp, blocks);
    if (r < 0)
        return r;
    uint64_t old_groups = groups_of(sp->capacity);
    if (old_groups > 0) {
        unsigned old = group_blocks(sp->capacity, old_groups - 1);
        extend_group(sp, old_groups - 1, old, group_blocks(blocks, old_groups - 1));
    }
    for (uint64_t i = old_groups; i < groups_of(blocks); i++) {
        struct space_group *g = space_group(sp, i);
        *g = (struct space_group){.ref = {.slot = SLOT_NEVER}};
        space_count_free(sp, g, group_blocks(blocks, i) - space_group_reserved(i));
    }
    sp->capacity = blocks;
    sp->fruitless = UINT64_MAX;
    sp->settled = false;
    return 0;
}

// A last group must at least hold its own map, see GROUP_BLOCKS_MIN.
static uint64_t capacity_limit(uint64_t max_blocks)
{
    uint64_t limit = AF_MIN(max_blocks, SPACE_BLOCKS_MAX);
    unsigned rest = (unsigned)(limit % GROUP_BLOCKS);
    return rest < GROUP_BLOCKS_MIN ? limit - rest : limit;
}

static uint64_t round_capacity(const struct space *sp, uint64_t blocks)
{
    unsigned rest = (unsigned)(blocks % GROUP_BLOCKS);
    if (rest > 0 && rest < GROUP_BLOCKS_MIN)
        blocks += GROUP_BLOCKS_MIN - rest;
    return AF_MIN(blocks, sp->limit);
}

// ---- opening ----

static int read_index(struct space *sp, uint64_t i, const struct map_ref_disk *ref, uint8_t *bytes)
{
    for (size_t r = 0; r < sizeof(ref->reserved); r++)
        if (ref->reserved[r] != 0)
            return -AF_E_SPACE_LAYOUT;
    if (ref->slot > 1)
        return -AF_E_SPACE_LAYOUT;
    uint64_t address = space_index_address(i, ref->slot);
    int r = io_pread(sp->config.data, bytes, BLOCK_BYTES, address * BLOCK_BYTES);
    if (r < 0)
        return r;
    return space_validate(bytes, BLOCK_TYPE_INDEX, address, le64_get(ref->checksum),
                          sp->config.uuid);
}

// One entry of an index block; `*sum` of the free ones rises.
static int open_group(struct space *sp, uint64_t group, const struct space_ref *ref, uint32_t *sum)
{
    struct space_group *g = space_group(sp, group);
    uint32_t most = g->free; // as set_capacity() made it: nothing is in use
    if (ref->free > most || (ref->slot == SLOT_NEVER && ref->free < most))
        return -AF_E_SPACE_LAYOUT;
    if (ref->slot != SLOT_NEVER)
        g->ref = *ref;
    space_count_free(sp, g, (int64_t)ref->free - most);
    *sum += ref->free;
    return 0;
}

static int open_index(struct space *sp, uint64_t i, const struct map_ref_disk *ref, uint8_t *bytes)
{
    int r = read_index(sp, i, ref, bytes);
    if (r < 0)
        return r;
    struct space_ref refs[GROUPS_PER_INDEX];
    unsigned count = space_decode_index(bytes, refs);
    if (count != index_entries(sp->capacity, i))
        return -AF_E_SPACE_LAYOUT;
    uint32_t sum = 0;
    for (unsigned g = 0; g < count && r == 0; g++)
        r = open_group(sp, i * GROUPS_PER_INDEX + g, &refs[g], &sum);
    if (r < 0)
        return r;
    if (sum != le32_get(ref->free))
        return -AF_E_SPACE_LAYOUT;
    sp->indexes[i]->checksum = le64_get(ref->checksum);
    sp->indexes[i]->free = sum;
    sp->indexes[i]->slot = ref->slot;
    return 0;
}

static int check_image(const struct space *sp, const struct space_image *image)
{
    uint64_t blocks = image->data_blocks;
    if (blocks > SPACE_BLOCKS_MAX || image->index_count != indexes_of(blocks))
        return -AF_E_SPACE_LAYOUT;
    if (blocks > 0) {
        uint64_t last = groups_of(blocks) - 1;
        if (group_blocks(blocks, last) <= space_group_reserved(last))
            return -AF_E_SPACE_LAYOUT;
    }
    return blocks > sp->file_blocks ? -AF_E_IO_SHORT : 0;
}

static int open_image(struct space *sp, const struct space_image *image)
{
    uint64_t bytes = 0;
    int r = io_size(sp->config.data, &bytes);
    if (r < 0)
        return r;
    sp->file_blocks = bytes / BLOCK_BYTES;
    r = check_image(sp, image);
    if (r < 0)
        return r;
    r = space_set_capacity(sp, image->data_blocks);
    if (r < 0)
        return r;
    sp->published_blocks = image->data_blocks;
    uint8_t *block = malloc(BLOCK_BYTES);
    if (block == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < image->index_count && r == 0; i++)
        r = open_index(sp, i, &image->refs[i], block);
    free(block);
    if (r == 0 && sp->capacity - sp->free != image->used_blocks)
        r = -AF_E_SPACE_LAYOUT;
    return r;
}

// Of a store that is only read out: nothing of the map is trusted, nothing that may be in use is
// given out.
static int open_sealed(struct space *sp)
{
    uint64_t bytes = 0, blocks;
    int r = io_size(sp->config.data, &bytes);

    if (r < 0)
        return r;
    blocks = AF_MAX(bytes / BLOCK_BYTES, sp->config.sealed_blocks);
    blocks = AF_ROUND_UP(AF_MAX(blocks, (uint64_t)1), (uint64_t)GROUP_BLOCKS);
    if (blocks >= SPACE_BLOCKS_MAX)
        return -AF_E_SPACE_LAYOUT;
    sp->file_blocks = blocks;
    r = space_set_capacity(sp, blocks);
    for (uint64_t g = 0; r == 0 && g < groups_of(blocks); g++) {
        space_count_free(sp, space_group(sp, g), -(int64_t)space_group(sp, g)->free);
        space_group(sp, g)->bad = true;
    }
    return r;
}

int space_open(const struct space_config *config, const struct space_image *image,
               struct space **ret_space)
{
    struct space *sp = calloc(1, sizeof(*sp));
    if (sp == NULL)
        return -ENOMEM;
    sp->config = *config;
    sp->limit = capacity_limit(config->read_only ? UINT64_MAX : config->max_blocks);
    sp->loaded_max = LOADED_MAX;
    sp->fruitless = UINT64_MAX;
    list_init(&sp->loaded);
    af_cond_init(&sp->grown);
    int r = config->sealed_blocks ? open_sealed(sp) : open_image(sp, image);
    if (r < 0) {
        space_close(sp);
        return r;
    }
    *ret_space = sp;
    return 0;
}

void space_close(struct space *sp)
{
    if (sp == NULL)
        return;
    while (!list_empty(&sp->loaded)) {
        struct space_bits *b = list_entry(sp->loaded.next, struct space_bits, link);
        space_unload(sp, space_group(sp, b->group));
    }
    for (size_t i = 0; i < INDEX_MAX; i++)
        free(sp->indexes[i]);
    range_list_free(&sp->allocs);
    range_list_free(&sp->frees);
    range_list_free(&sp->held);
    free(sp->next_frozen);
    while (sp->spare != NULL) {
        struct range_chunk *next = sp->spare->next;
        free(sp->spare);
        sp->spare = next;
    }
    af_cond_destroy(&sp->grown);
    free(sp);
}

void space_set_recovery(struct space *sp, bool recovering)
{
    sp->recovering = recovering;
}

// ---- counting ----

static bool can_grow(const struct space *sp)
{
    return !sp->host_full && sp->capacity < sp->limit;
}

uint64_t space_reserve_blocks(const struct space *sp)
{
    uint64_t becomes = can_grow(sp) ? sp->limit : sp->capacity;
    becomes = AF_MIN(becomes, sp->config.max_blocks);
    return AF_MAX(RESERVE_MIN, AF_MIN(becomes / 16, RESERVE_MAX));
}

// Free blocks that must be left over.
static uint64_t blocks_kept(const struct space *sp, bool urgent)
{
    if (sp->recovering)
        return 0;
    return urgent ? space_reserve_blocks(sp) / 8 : space_reserve_blocks(sp);
}

// Free blocks that may be granted. A cap that was set below the capacity takes away the difference;
// deletes and completions may still have it, or nothing could ever be deleted.
static uint64_t blocks_grantable(const struct space *sp, bool urgent)
{
    uint64_t max = sp->config.max_blocks;
    if (urgent || sp->recovering || sp->config.read_only || sp->capacity <= max)
        return sp->free;
    uint64_t above = sp->capacity - max;
    return sp->free > above ? sp->free - above : 0;
}

// The host is not asked for more room at every write once it has said that there is none.
static void note_refusal(struct space *sp)
{
    if (sp->host_full && ++sp->refused >= HOST_RETRY_EVERY)
        sp->host_full = false;
}

static int check_space(struct space *sp, struct fault *f, uint64_t blocks, uint64_t from_reserved,
                       bool urgent)
{
    AF_ASSERT(from_reserved <= sp->reserved);
    if (blocks >= BLOCKS_TOO_MANY)
        return -ENOSPC;
    uint64_t need = sp->reserved - from_reserved + blocks + blocks_kept(sp, urgent);
    uint64_t have = blocks_grantable(sp, urgent);
    if (have >= need)
        return 0;
    uint64_t missing = need - have;
    if (can_grow(sp) && sp->limit - sp->capacity >= missing) {
        f->kind = FAULT_GROW;
        f->number = missing;
        return -AF_E_FAULT;
    }
    note_refusal(sp);
    if (sp->waiting > 0 && f->waits < SPACE_ROUNDS_MAX) {
        f->kind = FAULT_SPACE;
        f->number = missing;
        return -AF_E_FAULT;
    }
    return -ENOSPC;
}

// Faults until the loaded groups can give `blocks`, and, once for an operation, when another group
// promises longer runs than the remnants in the loaded ones.
static int check_loaded(struct space *sp, struct fault *f, uint64_t blocks)
{
    bool short_of = sp->loaded_free < blocks;
    bool thin = sp->loaded_free < blocks + LOADED_SLACK && !sp->thin_asked && !sp->settled;
    uint64_t group = UINT64_MAX;
    if (short_of || thin)
        group = space_best_unloaded(sp, short_of ? 1 : GROUP_WORTH_LOADING);
    if (group != UINT64_MAX) {
        sp->loaded_want = AF_MAX(sp->loaded_want, blocks);
        sp->thin_asked = !short_of;
        f->kind = FAULT_GROUP;
        f->number = group;
        return -AF_E_FAULT;
    }
    if (short_of)
        return -ENOSPC; // a group that counted has turned out to be damaged just now
    if (thin)
        sp->settled = true;
    sp->loaded_want = 0;
    sp->thin_asked = false;
    return 0;
}

int space_prepare(struct space *sp, struct fault *f, uint64_t blocks, uint64_t from_reserved,
                  bool urgent)
{
    int r = check_space(sp, f, blocks, from_reserved, urgent);
    if (r < 0)
        return r;
    r = space_fill_spares(sp);
    if (r < 0)
        return r;
    return check_loaded(sp, f, blocks);
}

int space_reserve(struct space *sp, struct fault *f, uint64_t blocks)
{
    int r = check_space(sp, f, blocks, 0, f->urgent);
    if (r == 0)
        sp->reserved += blocks;
    return r;
}

void space_unreserve(struct space *sp, uint64_t blocks)
{
    AF_ASSERT(blocks <= sp->reserved);
    sp->reserved -= blocks;
}

void space_get_stats(struct space *sp, struct space_stats *ret_stats)
{
    *ret_stats = (struct space_stats){
        .capacity = sp->capacity,
        .max_blocks = sp->config.max_blocks,
        .used = sp->capacity - sp->free,
        .waiting = sp->waiting,
        .reserved = sp->reserved,
        .reserve = space_reserve_blocks(sp),
    };
}

// ---- growth ----

static bool host_has_no_room(int r)
{
    return r == -ENOSPC || r == -EDQUOT || r == -EFBIG;
}

// Tries `*step` blocks behind `from`, then what is needed, then ever less: any growth helps,
// because the reserve shrinks with what the store can become. *ret_failed: whatever the error says,
// it is no lack of room: the sync of the file that has grown, or the question for the room, failed.
static int allocate_host(struct space *sp, uint64_t from, uint64_t need, uint64_t left,
                         uint64_t *ret_capacity, bool *ret_failed)
{
    uint64_t step = AF_MAX(need, AF_MAX(GROW_MIN, AF_MIN(from / 8, GROW_MAX)));
    struct io_file *data = sp->config.data;
    struct io_space host;
    int asked = io_space(data->io, &host);
    if (asked < 0) {
        *ret_failed = true;
        return asked;
    }
    for (;;) {
        *ret_capacity = round_capacity(sp, from + step);
        if (sp->config.read_only)
            return 0;
        uint64_t bytes = (*ret_capacity - from) * BLOCK_BYTES;
        int r = bytes + HOST_LEFT_BYTES + left > host.avail_bytes
                    ? -ENOSPC
                    : io_allocate(data, from * BLOCK_BYTES, bytes);
        if (r == 0) {
            r = io_sync(data);
            *ret_failed = r < 0;
            return r;
        }
        if (!host_has_no_room(r) || step <= GROW_LEAST)
            return r;
        step = step > need ? need : AF_MAX(step / 2, GROW_LEAST);
    }
}

// `blocks` of free space, and the map of the groups in which they will lie.
static uint64_t with_map(uint64_t blocks)
{
    return blocks + 4 * (blocks / (GROUP_BLOCKS - 4) + 2);
}

void space_leave_host(struct space *sp, struct af_mutex *lock, uint64_t bytes)
{
    af_lock(lock);
    sp->host_left = bytes;
    af_unlock(lock);
}

int space_grow(struct space *sp, struct af_mutex *lock, uint64_t blocks)
{
    int r = 0;
    af_lock(lock);
    if (sp->growing) {
        // Another thread grows; what this one needs is computed anew after it.
        while (sp->growing)
            af_cond_wait(&sp->grown, lock);
        goto unlock;
    }
    if (!can_grow(sp))
        goto unlock;
    sp->growing = true;
    uint64_t from = sp->capacity, room = sp->limit - from, to = from, left = sp->host_left;
    uint64_t need = AF_MIN(with_map(AF_MIN(blocks, room)), room);
    bool failed = false;
    af_unlock(lock);

    r = allocate_host(sp, from, need, left, &to, &failed);

    af_lock(lock);
    if (r == 0) {
        r = space_set_capacity(sp, AF_MAX(to, sp->capacity));
    } else if (host_has_no_room(r) && !failed) {
        sp->host_full = true;
        sp->refused = 0;
        r = 0;
    }
    sp->growing = false;
    af_cond_broadcast(&sp->grown);
unlock:
    af_unlock(lock);
    return r;
}

// ---- replay ----

// The log names blocks behind what the superblock knew of: `data` had grown after it, and was
// synced before they were granted; so behind its end there is nothing that the log can name.
static int claim_capacity(struct space *sp, uint64_t end)
{
    if (end <= sp->capacity)
        return 0;
    return end > sp->file_blocks ? -AF_E_SPACE_CLAIM : space_set_capacity(sp, end);
}

int space_claim(struct space *sp, struct fault *f, uint64_t address, uint64_t count)
{
    unsigned bit = group_bit(address);
    uint64_t group = address / GROUP_BLOCKS;
    if (address >= SPACE_BLOCKS_MAX || bit < space_group_reserved(group) || count == 0 ||
        count > GROUP_BLOCKS - bit)
        return -AF_E_SPACE_CLAIM;
    int r = claim_capacity(sp, address + count);
    if (r < 0)
        return r;
    struct space_group *g = space_group(sp, group);
    if (g->bits == NULL) {
        f->kind = FAULT_GROUP;
        f->number = group;
        return -AF_E_FAULT;
    }
    struct space_bits *b = g->bits;
    if (!bits_all(b->used, bit, (unsigned)count, false))
        return -AF_E_SPACE_CLAIM;
    bits_fill(b->used, bit, (unsigned)count, true);
    b->outstanding += (uint32_t)count;
    space_count_free(sp, g, -(int64_t)count);
    return 0;
}
