// SPDX-License-Identifier: MIT
// Reading the published space map from disk while the store runs (scrub). A reference is taken
// under the lock, the block read without it; the block counts as bad only when the reference is the
// same afterwards, since a checkpoint may have published another one and written over it.

#include <stdlib.h>

#include "base/checksum.h"
#include "base/err.h"
#include "store/space_internal.h"

struct map_ref {
    uint64_t checksum, address; // address 0: never written
};

// Both under the lock.
static struct map_ref index_ref(struct space *sp, uint64_t group)
{
    uint64_t i = group / GROUPS_PER_INDEX;
    const struct space_index *x = sp->indexes[i];

    if (x->checksum == 0 || x->slot > 1)
        return (struct map_ref){0};
    return (struct map_ref){x->checksum, space_index_address(i, x->slot)};
}

static struct map_ref bitmap_ref(struct space *sp, uint64_t group)
{
    const struct space_ref *ref = &space_group(sp, group)->ref;

    if (ref->slot == SLOT_NEVER)
        return (struct map_ref){0};
    return (struct map_ref){ref->checksum, space_bitmap_address(group, ref->slot)};
}

static bool take_ref(struct space *sp, struct af_mutex *lock, uint64_t group, enum block_type type,
                     struct map_ref *ret)
{
    af_lock(lock);
    bool there = group < groups_of(sp->capacity);

    if (there)
        *ret = type == BLOCK_TYPE_INDEX ? index_ref(sp, group) : bitmap_ref(sp, group);
    af_unlock(lock);
    return there;
}

static int check_block(struct space *sp, struct af_mutex *lock, struct io_file *data,
                       uint64_t group, enum block_type type, struct space_bad *ret_bad,
                       uint64_t *ret_read)
{
    struct map_ref ref, now;
    uint8_t *bytes;

    if (!take_ref(sp, lock, group, type, &ref))
        return -ENOENT;
    if (ref.address == 0 && ref.checksum == 0)
        return 0;
    bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
    if (!bytes)
        return -ENOMEM;
    int err = io_pread(data, bytes, BLOCK_BYTES, ref.address * BLOCK_BYTES);
    if (err == 0)
        err = space_validate(bytes, type, ref.address, ref.checksum, sp->config.uuid);
    *ret_read += BLOCK_BYTES;
    if (err < 0 && take_ref(sp, lock, group, type, &now) && now.checksum == ref.checksum &&
        now.address == ref.address)
        *ret_bad = (struct space_bad){.code = err, .address = ref.address};
    if (ret_bad->code == -AF_E_SPACE_CHECKSUM) {
        ret_bad->expected = ref.checksum;
        ret_bad->found =
            checksum(type == BLOCK_TYPE_INDEX ? CSUM_INDEX : CSUM_BITMAP, 0, bytes, BLOCK_BYTES);
    }
    free(bytes);
    return 0;
}

int space_check_group(struct space *sp, struct af_mutex *lock, struct io_file *data, uint64_t group,
                      struct space_bad *ret_bad, uint64_t *ret_read)
{
    int err = 0;

    *ret_bad = (struct space_bad){0};
    *ret_read = 0;
    if (group % GROUPS_PER_INDEX == 0)
        err = check_block(sp, lock, data, group, BLOCK_TYPE_INDEX, ret_bad, ret_read);
    if (err == 0 && ret_bad->code == 0)
        err = check_block(sp, lock, data, group, BLOCK_TYPE_BITMAP, ret_bad, ret_read);
    return err;
}
