// SPDX-License-Identifier: MIT
// Short ways to say what tests of the simulated disk do again and again; failures end the test.
#include "tests/sim/help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/check.h"

struct io_file *help_open(struct sim *sim, const char *path, unsigned flags)
{
    struct io_file *file = NULL;

    assert_int_equal(io_file_open(sim_io(sim), path, flags, &file), 0);
    return file;
}

void help_fill(struct io_file *file, uint64_t off, size_t len, int fill)
{
    uint8_t *bytes = malloc(len);

    assert_non_null(bytes);
    memset(bytes, fill, len);
    assert_int_equal(io_pwrite(file, bytes, len, off), 0);
    free(bytes);
}

int help_sync_dir(struct sim *sim, const char *path)
{
    struct io *io = sim_io(sim);

    return io->ops->sync_dir(io, path);
}

struct io_file *help_make_durable(struct sim *sim, const char *path, size_t len, int fill)
{
    struct io_file *file = help_open(sim, path, IO_WRITE | IO_CREATE);

    help_fill(file, 0, len, fill);
    assert_int_equal(io_sync(file), 0);
    assert_int_equal(help_sync_dir(sim, ""), 0);
    return file;
}

uint8_t help_byte_at(const struct sim *sim, const char *path, uint64_t off)
{
    uint8_t b = 0;

    assert_int_equal(sim_read_raw(sim, path, off, &b, 1), 0);
    return b;
}

uint64_t help_size_of(const struct sim *sim, const char *path)
{
    uint64_t size = 0;

    assert_int_equal(sim_file_size(sim, path, &size), 0);
    return size;
}

struct sim *help_cut_clone(const struct sim *sim, enum sim_cut_policy policy, uint64_t seed)
{
    struct sim *clone = sim_clone(sim);

    sim_power_cut(clone, policy, seed);
    return clone;
}

unsigned help_outcome(const struct sim *sim, const char *path, size_t len, uint8_t old, uint8_t new)
{
    size_t olds = 0, news = 0, sectors = len / SIM_SECTOR_BYTES;
    uint8_t sector[SIM_SECTOR_BYTES];

    for (size_t i = 0; i < sectors; i++) {
        size_t first = 0;

        assert_int_equal(sim_read_raw(sim, path, i * sizeof(sector), sector, sizeof(sector)), 0);
        for (size_t k = 0; k < sizeof(sector); k++)
            first += sector[k] == sector[0];
        // Within a sector there is one or the other, never a mix.
        if (first != sizeof(sector) || (sector[0] != old && sector[0] != new))
            return HELP_DAMAGED;
        olds += sector[0] == old;
        news += sector[0] == new;
    }
    return olds == sectors ? HELP_OLD : news == sectors ? HELP_NEW : HELP_TORN;
}

void help_note_done(struct io_async *op, int result)
{
    struct help_done *d = op->arg;

    d->count++;
    d->result = result;
}

uint8_t *help_aligned(size_t len, int fill)
{
    uint8_t *p = aligned_alloc(HELP_BLOCK, len);

    assert_non_null(p);
    memset(p, fill, len);
    return p;
}

void help_async_begin(struct help_async *a)
{
    *a = (struct help_async){.sim = sim_create(1), .bytes = help_aligned(HELP_BLOCK, 'w')};
    a->io = sim_io(a->sim);
    a->file = help_make_durable(a->sim, "log", 4 * HELP_BLOCK, 'a');
    a->write = (struct io_async){.kind = IO_OP_WRITE_DURABLE,
                                 .file = a->file,
                                 .bytes = a->bytes,
                                 .len = HELP_BLOCK,
                                 .off = HELP_BLOCK,
                                 .done = help_note_done,
                                 .arg = &a->done};
    a->sync = (struct io_async){
        .kind = IO_OP_SYNC, .file = a->file, .done = help_note_done, .arg = &a->done};
}

void help_async_end(struct help_async *a)
{
    io_file_close(a->file);
    sim_destroy(a->sim);
    free(a->bytes);
}
