// SPDX-License-Identifier: MIT
// The random calls: what they are made with, and which comes next.
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "tests/lib/world_internal.h"

// ---- choosing ----

struct model_inode *pick_inode(struct world *w, bool (*fits)(const struct model_inode *in))
{
    size_t start = rng_below(&w->r, w->m.count);

    for (size_t i = 0; i < w->m.count; i++) {
        struct model_inode *in = w->m.inodes[(start + i) % w->m.count];

        if (fits(in))
            return in;
    }
    return NULL;
}

bool pick_is_dir(const struct model_inode *in)
{
    return S_ISDIR(in->attr.mode);
}

bool pick_is_file(const struct model_inode *in)
{
    return S_ISREG(in->attr.mode);
}

bool pick_is_symlink(const struct model_inode *in)
{
    return S_ISLNK(in->attr.mode);
}

bool pick_is_any(const struct model_inode *in)
{
    (void)in;
    return true;
}

uint64_t pick_dir(struct world *w)
{
    unsigned dice = (unsigned)rng_below(&w->r, 100);

    if (dice == 0 && w->stale)
        return w->stale;
    if (dice == 1)
        return pick_inode(w, pick_is_any)->ino;
    return dice < 20 ? INO_ROOT : pick_inode(w, pick_is_dir)->ino;
}

void pick_odd_name(struct world *w, char name[WORLD_NAME_BYTES])
{
    static const char *const odd[] = {"", ".", "..", "a/b"};
    size_t len = rng_chance(&w->r, 70) ? NAME_BYTES_MAX - rng_below(&w->r, 3) : NAME_BYTES_MAX + 1;

    if (rng_chance(&w->r, 30)) {
        snprintf(name, WORLD_NAME_BYTES, "%s", odd[rng_below(&w->r, AF_ARRAY_LEN(odd))]);
        return;
    }
    memset(name, (int)('A' + rng_below(&w->r, 4)), len);
    name[len] = 0;
}

void pick_name(struct world *w, char name[WORLD_NAME_BYTES])
{
    if (rng_chance(&w->r, 3))
        pick_odd_name(w, name);
    else
        snprintf(name, WORLD_NAME_BYTES, "n%u", (unsigned)rng_below(&w->r, w->names));
}

void pick_child(struct world *w, uint64_t dir, char name[WORLD_NAME_BYTES])
{
    struct model_inode *in = model_inode(&w->m, dir);

    if (!in || in->name_count == 0 || rng_chance(&w->r, 5))
        pick_name(w, name);
    else
        snprintf(name, WORLD_NAME_BYTES, "%s", in->names[rng_below(&w->r, in->name_count)].name);
}

uint64_t pick_all_bytes(const struct world *w)
{
    uint64_t blocks = 0;

    for (size_t i = 0; i < w->m.count; i++)
        blocks += w->m.inodes[i]->bytes.count;
    return blocks * FILEBYTES_BLOCK;
}

size_t pick_size(struct world *w)
{
    unsigned dice = (unsigned)rng_below(&w->r, 100);

    if (dice < 45 || pick_all_bytes(w) > w->bytes_max)
        return rng_below(&w->r, 200) + 1;
    if (dice < 65)
        return rng_below(&w->r, 2048) + 1;
    if (dice < 75)
        return FILEBYTES_BLOCK * (rng_below(&w->r, 4) + 1);
    if (dice < 90)
        return rng_below(&w->r, 20000) + 1;
    if (dice < 96)
        return rng_below(&w->r, 70000) + 1;
    return rng_below(&w->r, WRITE_BYTES_MAX) + 1;
}

uint64_t pick_offset(struct world *w, uint64_t size)
{
    unsigned dice = (unsigned)rng_below(&w->r, 100);

    if (dice < 25)
        return 0;
    if (dice < 55)
        return size;
    if (dice < 85)
        return rng_below(&w->r, size + 1);
    if (dice < 95)
        return size + rng_below(&w->r, 3 * FILEBYTES_BLOCK);
    if (dice < 99)
        return AF_ROUND_DOWN(rng_below(&w->r, UINT64_C(1) << 23), (uint64_t)FILEBYTES_BLOCK);
    return rng_below(&w->r, UINT64_C(1) << 42); // a sparse file of up to 4 TiB
}

uint8_t *pick_bytes(struct world *w, size_t size)
{
    uint8_t *bytes = malloc(size);
    bool zeros = rng_chance(&w->r, 5);

    AF_ASSERT(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = zeros ? 0 : (uint8_t)rng_next(&w->r);
    return bytes;
}

struct world_handle *pick_handle(struct world *w)
{
    unsigned start = (unsigned)rng_below(&w->r, WORLD_HANDLES);

    for (unsigned i = 0; i < WORLD_HANDLES; i++)
        if (w->handles[(start + i) % WORLD_HANDLES].file)
            return &w->handles[(start + i) % WORLD_HANDLES];
    return NULL;
}

// ---- the mix ----

static void do_tick(struct world *w)
{
    sim_advance_ms(w->fx.sim, rng_below(&w->r, 1000));
    world_tick(w);
}

static void do_pump(struct world *w)
{
    world_begin(w, "pump");
    int err = wal_pump(engine_wal(w->fx.engine), rng_chance(&w->r, 30));

    world_check(w, err < 0 ? err : 0, 0);
}

static const struct world_choice duties[] = {{do_tick, 6}, {do_pump, 8}, {NULL, 0}};

static unsigned weight_of(const struct world_choice *list)
{
    unsigned total = 0;

    for (; list->run; list++)
        total += list->weight;
    return total;
}

// Runs the one that `dice` falls on, which is below the weight of the list; else it gets smaller by
// that.
static bool fell_on(struct world *w, const struct world_choice *list, unsigned *dice)
{
    for (; list->run; list++) {
        if (*dice < list->weight) {
            list->run(w);
            return true;
        }
        *dice -= list->weight;
    }
    return false;
}

void world_random_call(struct world *w)
{
    const struct world_choice *const lists[] = {duties, world_file_choices, world_name_choices};
    size_t body = wal_body_max(engine_wal(w->fx.engine));
    unsigned total = 0, dice;

    if (w->with_snapshots && rng_below(&w->r, 40) == 0) {
        world_snapshot_call(w);
        return;
    }
    world_snapshots_settle(w);
    w->m.xattr_room = 2 * AF_MIN((size_t)65536, body / 4);
    if (rng_chance(&w->r, w->durable)) {
        dice = (unsigned)rng_below(&w->r, weight_of(world_durable_choices));
        (void)fell_on(w, world_durable_choices, &dice);
        return;
    }
    for (unsigned i = 0; i < AF_ARRAY_LEN(lists); i++)
        total += weight_of(lists[i]);
    dice = (unsigned)rng_below(&w->r, total);
    for (unsigned i = 0; i < AF_ARRAY_LEN(lists) && !fell_on(w, lists[i], &dice); i++)
        ;
}
