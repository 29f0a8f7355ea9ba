// SPDX-License-Identifier: MIT
// Walking over the live tree (walk.h).

#include "store/walk.h"

#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "store/blkref.h"
#include "store/store_internal.h"

#define TRIES_MAX 1000u // a leaf that moves each time: the bound of what can only be a bug

// Under the lock. A snapshot that no checkpoint has published has no root yet.
const struct tree_root *walk_root(struct store *s, uint64_t snapshot)
{
    const struct snapshot *sn = snapshot ? snapshot_find(&s->snapshots, snapshot) : NULL;

    if (snapshot == 0)
        return &s->tree.root;
    return sn && sn->published && !sn->deleted ? &sn->root : NULL;
}

int store_walk_way(struct store *s, uint64_t snapshot, struct key key, struct store_leaf *ret)
{
    struct block *leaf;
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        const struct tree_root *root = walk_root(s, snapshot);

        err = root ? tree_way(&s->tree, root, &f, key, &ret->way, &leaf) : -ENOENT;
        ret->cached = err == 0 && leaf != NULL;
        if (ret->cached)
            memcpy(ret->bytes, leaf->bytes, BLOCK_BYTES);
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    return err;
}

// Without the cache: a walk over everything would leave nothing else in it. A failure counts when
// the tree still says the same after it.
int store_walk(struct store *s, struct io_file *data, uint64_t snapshot, struct key key,
               struct store_leaf *ret)
{
    struct blkref failed = {0};
    int failure = 0;

    for (unsigned i = 0; i < TRIES_MAX; i++) {
        int err = store_walk_way(s, snapshot, key, ret);
        const struct blkref *ref = &ret->way.ref[0];

        if (err < 0 || ret->cached)
            return err;
        if (failure < 0 && blkref_same(ref, &failed))
            return failure;
        failure = io_pread(data, ret->bytes, BLOCK_BYTES, ref->address * BLOCK_BYTES);
        if (failure == 0)
            failure = node_validate(ret->bytes, ref, 0, s->tree.uuid);
        if (failure == 0)
            return 0;
        failed = *ref;
    }
    return failure;
}

bool store_walk_current(struct store *s, uint64_t snapshot, const struct tree_way *way,
                        unsigned level)
{
    struct tree_way now;
    struct block *leaf;
    struct fault f;
    int err;

    fault_begin(&f);
    do {
        store_lock(s);
        const struct tree_root *root = walk_root(s, snapshot);

        now = (struct tree_way){.level = 1}; // nothing is in it
        err = root ? tree_way(&s->tree, root, &f, way->low, &now, &leaf) : -ENOENT;
        store_unlock(s);
    } while (fault_resolve(s, &f, STORE_BLOCK, &err));
    return level >= now.level && level <= now.root_level &&
           blkref_same(&now.ref[level], &way->ref[level]);
}
