// SPDX-License-Identifier: MIT
// A full disk (contract C5): it is met by the write, never by fsync or close; reading, unlinking
// and truncating go on; what was freed can be used again; a crash at any moment of it loses
// nothing; and a store that is full to the brim opens.
//
//   SEED=n  RUNS=n
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/err.h"
#include "tests/lib/world.h"

#define FILES 3000

static const struct store_cred cred = {.uid = 1, .gid = 1};

// The result of a call that may find no space. True: it came through.
static bool passed(struct world *w, int err)
{
    if (err != 0 && err != -ENOSPC)
        world_fail(w, "%s", err_name(err));
    return err == 0;
}

// A call that must not find that there is no space.
static void must(struct world *w, int err)
{
    if (err != 0)
        world_fail(w, "on a full disk: %s", err_name(err));
}

static void number_name(char name[32], uint64_t number)
{
    snprintf(name, 32, "file%llu", (unsigned long long)number);
}

// Writes a file until it is done or the disk is full; closes it. False: full.
static bool put_file(struct world *w, uint64_t number)
{
    size_t size = rng_chance(&w->r, 50) ? rng_below(&w->r, 3000) + 1 : rng_below(&w->r, 100000) + 1;
    uint8_t *bytes = malloc(size);
    unsigned writes = (unsigned)rng_below(&w->r, 6) + 1;
    struct world_handle h;
    struct store_attr attr;
    char name[32];
    bool ok;

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)rng_next(&w->r);
    number_name(name, number);
    world_begin(w, "create");
    ok = passed(w, store_create(w->fx.store, STORE_BLOCK, INO_ROOT, name, 0644, O_RDWR, &cred,
                                &attr, &h.file));
    if (ok) {
        must(w, model_create(&w->m, INO_ROOT, name, 0644, O_RDWR, &cred, attr.ino, &h.model));
        for (unsigned i = 0; i < writes && ok && !w->failed; i++) {
            world_begin(w, "write");
            ok = passed(
                w, store_write(w->fx.store, STORE_BLOCK, h.file, i * size, bytes, size, false));
            if (ok)
                must(w, model_write(&w->m, &h.model, i * size, bytes, size, false));
        }
        if (rng_chance(&w->r, 30)) {
            world_begin(w, "fsync");
            model_complete(&w->m, attr.ino);
            must(w, fixture_fsync(&w->fx, attr.ino));
            world_acknowledge(w, w->m.state_count - 1);
        }
        world_begin(w, "close");
        must(w, store_release(w->fx.store, STORE_BLOCK, h.file));
        model_release(&w->m, &h.model);
    }
    free(bytes);
    return ok;
}

// Fills until several calls in a row have found no space. Returns the number of files made.
static unsigned fill(struct world *w)
{
    unsigned made = 0, full = 0;

    for (unsigned i = 0; i < FILES && full < 5 && !w->failed; i++) {
        uint64_t number = rng_below(&w->r, 100000);
        char name[32];

        number_name(name, number);
        if (model_child(&w->m, INO_ROOT, name))
            continue;
        if (put_file(w, number))
            made++;
        else
            full++;
        if (rng_chance(&w->r, 10))
            world_tick(w);
    }
    if (full == 0)
        world_fail(w, "the disk does not get full");
    return made;
}

// Overwriting and truncating a full store's files in place, which needs new blocks and gives old
// ones back.
static void change_some(struct world *w)
{
    struct model_inode *root = model_inode(&w->m, INO_ROOT);
    struct store_attr attr = {0};

    for (unsigned i = 0; i < 10 && root->name_count > 0 && !w->failed; i++) {
        uint64_t ino = root->names[rng_below(&w->r, root->name_count)].inode->ino;

        world_begin(w, "truncate");
        attr.size = 0;
        must(w, store_setattr(w->fx.store, STORE_BLOCK, ino, NULL, &attr, STORE_SET_SIZE, &attr));
        attr.size = 0;
        must(w, model_setattr(&w->m, ino, NULL, &attr, STORE_SET_SIZE));
    }
}

static void remove_some(struct world *w, unsigned percent)
{
    struct model_inode *root = model_inode(&w->m, INO_ROOT);
    size_t count = root->name_count * percent / 100;

    for (size_t i = 0; i < count && !w->failed; i++) {
        char name[64];

        snprintf(name, sizeof(name), "%s", root->names[rng_below(&w->r, root->name_count)].name);
        world_begin(w, "unlink");
        must(w, store_unlink(w->fx.store, STORE_BLOCK, INO_ROOT, name));
        must(w, model_unlink(&w->m, INO_ROOT, name));
    }
}

static void crash_and_verify(struct world *w)
{
    enum crash_kind kind = (enum crash_kind)rng_below(&w->r, CRASH_KIND_COUNT);
    char text[600];

    if (w->failed)
        return;
    world_crash(w, kind, rng_next(&w->r));
    world_recover(w); // on the full disk
    if (w->failed)
        return;
    world_crash(w, CRASH_DROP_ALL, 0);
    if (verify_text(w->fx.sim, text, sizeof(text)) != 0)
        world_fail(w, "verification finds: %.500s", text);
    world_recover(w);
}

// `room`: bytes that the host has beside what the empty store takes; `cap`: of the store.
static void run(uint64_t seed, uint64_t room, uint64_t cap)
{
    struct world w;
    unsigned first = 0, again = 0;

    world_init(&w, seed);
    world_close(&w);
    sim_set_capacity(w.fx.sim, sim_used_bytes(w.fx.sim) + room);
    w.fx.options.max_bytes = cap;
    world_recover(&w);
    for (unsigned round = 0; round < 4 && !w.failed; round++) {
        unsigned made = fill(&w);

        first = round == 0 ? made : first;
        again = round == 0 ? 0 : AF_MAX(again, made);
        world_compare(&w);
        if (rng_chance(&w.r, 50))
            crash_and_verify(&w);
        change_some(&w);
        remove_some(&w, 50);
        world_compare(&w);
        if (!w.failed && rng_chance(&w.r, 50))
            must(&w, engine_checkpoint(w.fx.engine));
    }
    crash_and_verify(&w);
    world_compare(&w);
    world_close(&w);
    if (!w.failed && again < first / 6)
        world_fail(&w, "%u files fitted at first, only %u after half of them were removed", first,
                   again);
    printf("  seed %llu: %u files until full, %u when half of them had gone\n",
           (unsigned long long)seed, first, again);
    bool failed = w.failed;

    world_free(&w);
    if (failed)
        fail_msg("repeat with SEED=%llu RUNS=1", (unsigned long long)seed);
}

static void test_a_full_host_is_met_at_the_write(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 6);

    (void)state;
    for (uint64_t i = 0; i < runs; i++)
        run(seed + i, (UINT64_C(1) << 19) * ((seed + i) % 12), 0);
}

static void test_a_full_store_is_met_at_the_write(void **state)
{
    uint64_t seed = env_number("SEED", 1), runs = env_number("RUNS", 6);

    (void)state;
    for (uint64_t i = 0; i < runs; i++)
        run(seed + i, UINT64_C(1) << 40, (UINT64_C(8) + 3 * ((seed + i) % 12)) << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_host_is_met_at_the_write),
        cmocka_unit_test(test_a_full_store_is_met_at_the_write),
    };

    return cmocka_run_group_tests_name("full", tests, NULL, NULL);
}
