// SPDX-License-Identifier: MIT
// What test_btree.c runs the tree in: a disk in memory, a space that keeps book of every block, a
// sorted array as the model, resolved faults and a cache that holds almost nothing, so that
// everything is read again.
//
// Checked besides the items: that no block is written or overwritten that a published or frozen
// root reaches (what becomes free is poisoned), that no more is born than was prepared, and that
// what was frozen can be opened from its reference alone. Included by one source only: it defines
// the functions of space.h.
#ifndef AF_TESTS_UNIT_TREE_WORLD_H
#define AF_TESTS_UNIT_TREE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "base/io.h"
#include "base/lock.h"
#include "store/btree.h"
#include "store/node.h"
#include "store/space.h"

#define DISK_BLOCKS 65536u
#define GROUP_MAX   24u

static const uint8_t uuid[16] = "test of the tree";
static const struct key key_min = {0, 0, 0};
static const struct key key_max = {UINT64_MAX, UINT8_MAX, UINT64_MAX};

static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t random_below(uint64_t n)
{
    return (random_next() >> 11) % n;
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

// ---- a space that keeps book ----

enum { FREE, USED, WAITING };

struct block_list {
    uint64_t *address;
    size_t count;
};

struct space {
    uint8_t state[DISK_BLOCKS];
    uint32_t born[DISK_BLOCKS]; // the interval, from freeze to freeze
    uint32_t interval;
    uint64_t used, prepared;
    struct block_list freed;  // since the last freeze
    struct block_list frozen; // before it: free when it is published
};

int space_prepare(struct space *sp, struct fault *f, uint64_t blocks, uint64_t from_reserved,
                  bool urgent)
{
    (void)f;
    assert_int_equal(from_reserved, 0);
    sp->prepared = blocks;
    return urgent ? 0 : -ENOSPC;
}

uint64_t space_alloc(struct space *sp, uint64_t want, uint64_t hint, uint64_t *ret_count)
{
    assert_int_equal(want, 1);
    assert_true(sp->prepared > 0); // else tree_need() was no bound
    sp->prepared--;
    uint64_t at = hint;
    for (size_t looked = 0; looked <= DISK_BLOCKS; looked++, at++) {
        if (at < 2 || at >= DISK_BLOCKS)
            at = 2;
        if (sp->state[at] != FREE)
            continue;
        sp->state[at] = USED;
        sp->born[at] = sp->interval;
        sp->used++;
        *ret_count = 1;
        return at;
    }
    fail_msg("the test's disk is full");
    return 0;
}

void space_free(struct space *sp, uint64_t address, uint64_t count)
{
    assert_int_equal(count, 1);
    assert_int_equal(sp->state[address], USED);
    assert_true(sp->born[address] < sp->interval);
    sp->state[address] = WAITING;
    sp->used--;
    sp->freed.address[sp->freed.count++] = address;
}

void space_release(struct space *sp, uint64_t address, uint64_t count)
{
    assert_int_equal(count, 1);
    assert_int_equal(sp->state[address], USED);
    assert_int_equal(sp->born[address], sp->interval);
    sp->state[address] = FREE;
    sp->used--;
}

static struct space *fake_space_new(void)
{
    struct space *sp = calloc(1, sizeof(*sp));
    assert_non_null(sp);
    sp->freed.address = malloc(DISK_BLOCKS * sizeof(uint64_t));
    sp->frozen.address = malloc(DISK_BLOCKS * sizeof(uint64_t));
    return sp;
}

static void fake_space_free(struct space *sp)
{
    free(sp->freed.address);
    free(sp->frozen.address);
    free(sp);
}

// ---- the model: a sorted array; a value is made from its number and length ----

struct item {
    struct key key;
    uint32_t len;
    uint32_t number;
};

struct model {
    struct item *items;
    size_t count;
};

static void value_make(uint8_t *bytes, const struct item *it)
{
    uint64_t x = it->number * UINT64_C(0x9E3779B97F4A7C15) + it->len;
    for (uint32_t i = 0; i < it->len; i++) {
        bytes[i] = (uint8_t)(x >> 56);
        x = x * 6364136223846793005u + 1442695040888963407u;
    }
}

// Index of the first item with a key >= `key`.
static size_t model_search(const struct model *m, const struct key *key)
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (key_compare(&m->items[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const struct item *model_find(const struct model *m, const struct key *key)
{
    size_t at = model_search(m, key);
    return at < m->count && key_compare(&m->items[at].key, key) == 0 ? &m->items[at] : NULL;
}

static void model_put(struct model *m, const struct item *it)
{
    size_t at = model_search(m, &it->key);
    if (at >= m->count || key_compare(&m->items[at].key, &it->key) != 0) {
        if ((m->count & (m->count - 1)) == 0)
            m->items = realloc(m->items, (m->count == 0 ? 1 : 2 * m->count) * sizeof(*it));
        assert_non_null(m->items);
        memmove(m->items + at + 1, m->items + at, (m->count - at) * sizeof(*it));
        m->count++;
    }
    m->items[at] = *it;
}

static void model_delete(struct model *m, const struct key *key)
{
    size_t at = model_search(m, key);
    memmove(m->items + at, m->items + at + 1, (m->count - at - 1) * sizeof(m->items[0]));
    m->count--;
    // model_put() grows at powers of two only, so what is there must not be given back.
}

static void model_copy(struct model *to, const struct model *from)
{
    size_t cap = 1;
    while (cap < from->count)
        cap *= 2;
    free(to->items);
    to->items = malloc(cap * sizeof(from->items[0]));
    assert_non_null(to->items);
    if (from->count > 0)
        memcpy(to->items, from->items, from->count * sizeof(from->items[0]));
    to->count = from->count;
}

// ---- the world ----

enum phase { IDLE, FROZEN, WRITTEN };

struct world {
    struct io io;
    struct io_file file;
    struct tree tree;
    struct cache cache;
    struct space *space;
    struct af_mutex lock;
    uint8_t *disk;
    struct model live, cut; // `cut` is what the frozen root must hold
    enum phase phase;
    uint64_t offs, deletes_in_100, big_in_100; // width of the key space; how the tree tends; values
    uint64_t faults, logged;
    bool change_while_writing;
    unsigned fail_write_in; // 0: never
    struct block *pins[4096];
};

static void fault_start(struct world *w, struct fault *f)
{
    memset(f, 0, sizeof(*f));
    f->pins = w->pins;
}

static void fault_finish(struct world *w, struct fault *f)
{
    while (f->pin_count > 0)
        cache_unpin(&w->cache, f->pins[--f->pin_count]);
    for (unsigned i = 0; i < 4; i++)
        cache_evict(&w->cache, 1000);
}

// True when a call that returned `r` is to be made again.
static bool fault_resolve(struct world *w, struct fault *f, int r)
{
    if (r != -AF_E_FAULT)
        return false;
    assert_int_equal(f->kind, FAULT_NODE);
    assert_true(f->ref.checksum != 0);
    assert_true(w->space->state[f->ref.address] != FREE);
    uint8_t *bytes = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
    assert_non_null(bytes);
    memcpy(bytes, w->disk + f->ref.address * BLOCK_BYTES, BLOCK_BYTES);
    f->kind = FAULT_NONE;
    f->bad_error = node_validate(bytes, &f->ref, f->level, uuid);
    f->bad = f->ref;
    w->faults++;
    if (f->bad_error < 0) {
        free(bytes);
        return true;
    }
    struct block *b = cache_insert(&w->cache, &f->ref, BLOCK_NODE, f->level, bytes);
    assert_non_null(b);
    cache_pin(&w->cache, b);
    assert_true(f->pin_count < 4096);
    f->pins[f->pin_count++] = b;
    return true;
}

// Puts (len <= ITEM_BYTES_MAX) and deletes (len above) as one operation.
static int world_change(struct world *w, const struct item *changes, size_t count, bool neighbours)
{
    struct fault f;
    size_t bytes = 0;
    int r;
    fault_start(w, &f);
    for (size_t i = 0; i < count; i++)
        bytes += changes[i].len <= ITEM_BYTES_MAX ? changes[i].len : 0;
    do {
        r = 0;
        for (size_t i = 0; r == 0 && i < count; i++)
            r = tree_touch(&w->tree, &f, changes[i].key);
    } while (fault_resolve(w, &f, r));
    if (r < 0) {
        fault_finish(w, &f);
        return r;
    }
    size_t need = neighbours ? tree_need(&w->tree, 1, count - 1, bytes)
                             : tree_need(&w->tree, count, 0, bytes);
    assert_int_equal(tree_prepare(&w->tree, &f, need, 0, true), 0);
    assert_null(w->tree.emptied);
    for (size_t i = 0; i < count; i++) {
        const struct item *it = &changes[i];
        uint8_t value[ITEM_BYTES_MAX];
        if (it->len <= ITEM_BYTES_MAX) {
            value_make(value, it);
            tree_put(&w->tree, it->key, value, it->len);
            model_put(&w->live, it);
        } else if (model_find(&w->live, &it->key)) {
            tree_delete(&w->tree, it->key);
            model_delete(&w->live, &it->key);
        }
    }
    w->space->prepared = 0;
    fault_finish(w, &f);
    return 0;
}

static struct key random_key(const struct world *w)
{
    uint64_t off = random_below(w->offs);
    return key_make(1 + random_below(8), (uint8_t)(1 + random_below(6)),
                    off == 0 ? UINT64_MAX : off);
}

static void world_change_randomly(struct world *w)
{
    struct item changes[GROUP_MAX];
    size_t count = 1 + random_below(random_below(4) == 0 ? GROUP_MAX : 4);
    bool neighbours = random_below(2) == 0;
    size_t from = w->live.count > 0 ? random_below(w->live.count) : 0;
    for (size_t i = 0; i < count; i++) {
        struct item *it = &changes[i];
        it->key = random_key(w);
        // A run of what is there, replaced or deleted, with new keys right behind some of it.
        if (neighbours && from + i < w->live.count) {
            it->key = w->live.items[from + i].key;
            if (random_below(4) == 0)
                it->key.off++;
        } else if (neighbours && i > 0) {
            it->key = changes[i - 1].key;
            it->key.off++;
        }
        it->number = (uint32_t)random_next();
        it->len = (uint32_t)random_below(200);
        if (random_below(100) < w->big_in_100)
            it->len = ITEM_BYTES_MAX - it->len * (uint32_t)random_below(7);
        if (random_below(100) < w->deletes_in_100)
            it->len = UINT32_MAX;
    }
    assert_int_equal(world_change(w, changes, count, neighbours), 0);
}

static int fake_pwritev(struct io_file *f, const struct iovec *iov, int count, uint64_t off)
{
    struct world *w = AF_CONTAINER_OF(f, struct world, file);
    assert_false(af_is_locked(&w->lock));
    if (w->fail_write_in > 0 && --w->fail_write_in == 0)
        return -EIO;
    assert_true(count <= 256);
    af_lock(&w->lock); // the book is kept under it
    for (int i = 0; i < count; i++) {
        assert_int_equal(iov[i].iov_len, BLOCK_BYTES);
        assert_true(off % BLOCK_BYTES == 0 && off < (uint64_t)DISK_BLOCKS * BLOCK_BYTES);
        assert_true(w->space->state[off / BLOCK_BYTES] != FREE);
        memcpy(w->disk + off, iov[i].iov_base, BLOCK_BYTES);
        off += BLOCK_BYTES;
    }
    af_unlock(&w->lock);
    for (uint64_t n = w->change_while_writing ? random_below(3) : 0; n > 0; n--) {
        af_lock(&w->lock);
        world_change_randomly(w);
        af_unlock(&w->lock);
    }
    return 0;
}

static const struct io_ops fake_ops = {.name = "test", .pwritev = fake_pwritev};

static struct world *world_new(uint64_t budget_blocks)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->io.ops = &fake_ops;
    w->file.io = &w->io;
    w->disk = calloc(DISK_BLOCKS, BLOCK_BYTES);
    assert_non_null(w->disk);
    w->space = fake_space_new();
    assert_int_equal(cache_init(&w->cache, budget_blocks * BLOCK_BYTES), 0);
    af_mutex_init(&w->lock, LOCK_RANK_STORE);
    w->offs = 60;
    w->deletes_in_100 = 20;
    w->big_in_100 = 20;
    w->tree = (struct tree){.cache = &w->cache, .space = w->space, .generation = 1};
    memcpy(w->tree.uuid, uuid, sizeof(uuid));
    assert_int_equal(tree_prepare(&w->tree, NULL, 1, 0, true), 0);
    tree_create(&w->tree);
    return w;
}

static void world_free(struct world *w)
{
    cache_destroy(&w->cache);
    af_mutex_destroy(&w->lock);
    fake_space_free(w->space);
    free(w->live.items);
    free(w->cut.items);
    free(w->disk);
    free(w);
}

// ---- checks ----

static void expect_item(const struct item *it, const void *value, size_t len)
{
    uint8_t want[ITEM_BYTES_MAX];
    assert_int_equal(len, it->len);
    value_make(want, it);
    assert_memory_equal(value, want, len);
}

static void check_get(struct world *w, const struct tree_root *root, const struct model *m,
                      struct key key)
{
    struct fault f;
    const void *value;
    size_t len;
    int r;
    fault_start(w, &f);
    do
        r = tree_get(&w->tree, root, &f, key, &value, &len);
    while (fault_resolve(w, &f, r));
    const struct item *it = model_find(m, &key);
    assert_int_equal(r, it ? 0 : -ENOENT);
    if (it)
        expect_item(it, value, len);
    fault_finish(w, &f);
}

static void check_range(struct world *w, const struct tree_root *root, const struct model *m,
                        struct key first, struct key last, bool forward)
{
    struct fault f;
    struct key key;
    const void *value;
    size_t len;
    int r;
    fault_start(w, &f);
    do
        r = forward ? tree_next(&w->tree, root, &f, first, last, &key, &value, &len)
                    : tree_prev(&w->tree, root, &f, first, last, &key, &value, &len);
    while (fault_resolve(w, &f, r));
    size_t at = model_search(m, forward ? &first : &last);
    if (!forward && !(at < m->count && key_compare(&m->items[at].key, &last) == 0))
        at--; // wraps around below the first
    const struct item *it = at < m->count ? &m->items[at] : NULL;
    if (it && (key_compare(&it->key, &first) < 0 || key_compare(&it->key, &last) > 0))
        it = NULL;
    assert_int_equal(r, it ? 0 : -ENOENT);
    if (it) {
        assert_int_equal(key_compare(&key, &it->key), 0);
        expect_item(it, value, len);
    }
    fault_finish(w, &f);
}

static void check_some(struct world *w, const struct tree_root *root, const struct model *m)
{
    for (unsigned i = 0; i < 3; i++) {
        struct key a = random_key(w), b = random_key(w);
        if (random_below(3) == 0)
            a = key_min;
        if (random_below(3) == 0)
            b = key_max;
        check_get(w, root, m, a);
        check_range(w, root, m, a, b, true);
        check_range(w, root, m, a, b, false);
    }
}

static void check_all(struct world *w, const struct tree_root *root, const struct model *m)
{
    struct key from = key_min;
    uint64_t items;
    for (size_t i = 0; i < m->count; i++) {
        check_range(w, root, m, from, key_max, true);
        from = m->items[i].key;
        if (++from.off == 0)
            from = key_make(from.ino, (uint8_t)(from.kind + 1), 0);
    }
    check_range(w, root, m, from, key_max, true);
    assert_int_equal(tree_check(&w->tree, root, &items), 0);
}

// Nodes that a root reaches on disk, each valid and in use.
static uint64_t disk_count(const struct world *w, const struct tree_root *root)
{
    struct blkref refs[NODE_LEVEL_MAX + 1];
    unsigned next[NODE_LEVEL_MAX + 1] = {0};
    unsigned level = root->level;
    uint64_t count = 0;
    refs[level] = root->ref;
    while (level <= root->level) {
        const uint8_t *bytes = w->disk + refs[level].address * BLOCK_BYTES;
        if (next[level] == 0) {
            assert_int_equal(node_validate(bytes, &refs[level], level, uuid), 0);
            assert_true(w->space->state[refs[level].address] != FREE);
            count++;
        }
        if (level == 0 || next[level] == node_count(bytes)) {
            next[level] = 0;
            level++;
            continue;
        }
        refs[level - 1] = node_child(bytes, next[level]++);
        level--;
    }
    return count;
}

// Opens the frozen root from its reference with nothing in memory and compares it with the cut.
static void check_disk(struct world *w)
{
    struct world *fresh = calloc(1, sizeof(*fresh));
    assert_non_null(fresh);
    assert_int_equal(cache_init(&fresh->cache, 8 * BLOCK_BYTES), 0);
    fresh->disk = w->disk;
    fresh->space = w->space;
    fresh->tree = (struct tree){
        .cache = &fresh->cache, .root = w->tree.frozen_root, .generation = w->tree.generation};
    check_all(fresh, &fresh->tree.root, &w->cut);
    assert_true(disk_count(w, &w->tree.frozen_root) > 0);
    cache_destroy(&fresh->cache);
    free(fresh);
}

// ---- the steps of a checkpoint ----

static void world_freeze(struct world *w)
{
    struct block_list freed = w->space->frozen;
    assert_int_equal(freed.count, 0);
    model_copy(&w->cut, &w->live);
    tree_sweep(&w->tree);
    w->space->frozen = w->space->freed;
    w->space->freed = freed;
    w->space->interval++;
    tree_freeze(&w->tree);
    w->phase = FROZEN;
}

static void count_logged(void *arg, uint64_t address, uint64_t count)
{
    struct world *w = arg;
    assert_false(af_is_locked(&w->lock));
    assert_true(address > 0 && count <= 256);
    w->logged += count;
}

static void world_write(struct world *w)
{
    struct tree_write_stats stats = {0};
    size_t frozen = w->cache.frozen_count;
    w->logged = 0;
    int r = tree_write_frozen(&w->tree, &w->lock, &w->file, count_logged, w, &stats);
    if (r == -EIO) {
        w->fail_write_in = 0;
        w->logged = 0;
        r = tree_write_frozen(&w->tree, &w->lock, &w->file, count_logged, w, &stats);
    }
    assert_int_equal(r, 0);
    assert_int_equal(stats.nodes + stats.data_blocks, frozen);
    assert_int_equal(w->logged, stats.nodes);
    assert_true(stats.writes <= frozen);
    assert_true(w->tree.frozen_root.ref.checksum != 0);
    w->phase = WRITTEN;
}

// One call of the thaw; when it is done, what was freed before the freeze becomes free.
static void world_thaw(struct world *w, size_t limit)
{
    if (!tree_thaw(&w->tree, limit))
        return;
    check_disk(w);
    for (size_t i = 0; i < w->space->frozen.count; i++) {
        uint64_t address = w->space->frozen.address[i];
        assert_int_equal(w->space->state[address], WAITING);
        w->space->state[address] = FREE;
        memset(w->disk + address * BLOCK_BYTES, 0xDD, BLOCK_BYTES);
    }
    w->space->frozen.count = 0;
    check_disk(w);
    w->phase = IDLE;
}

static void world_checkpoint(struct world *w)
{
    world_freeze(w);
    world_write(w);
    while (w->phase != IDLE)
        world_thaw(w, 100);
    assert_int_equal(disk_count(w, &w->tree.root), w->space->used);
}

#endif
