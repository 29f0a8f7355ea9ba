// SPDX-License-Identifier: MIT
// Making a store (docs/FORMAT.md, "Creation"). `superblock.new` comes first and is renamed last:
// while it stands without a `superblock` beside it there is no store, and what lies there may be
// cleared away. Parts of a store without either file are a store that has lost its superblock: they
// are never touched.

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "checkpoint/engine_internal.h"
#include "checkpoint/superblock_format.h"

#define SEGMENTS_OF_LOG   8u
#define SEGMENT_BYTES_MAX (UINT64_C(16) << 20)

// ---- what is there ----

struct contents {
    bool superblock, half, parts, wal, strangers;
};

static int note_entry(void *arg, const char *name)
{
    struct contents *c = arg;

    if (strcmp(name, SUPERBLOCK_FILE) == 0)
        c->superblock = true;
    else if (strcmp(name, SUPERBLOCK_FILE_NEW) == 0)
        c->half = true;
    else if (strcmp(name, "data") == 0)
        c->parts = true;
    else if (strcmp(name, "wal") == 0)
        c->parts = c->wal = true;
    else if (strcmp(name, "lost+found") != 0 && strcmp(name, "lock") != 0)
        c->strangers = true;
    return 0;
}

static int check_directory(struct io *io, const struct message_sink *sink, struct contents *ret)
{
    struct contents c = {0};
    int err = io_list(io, "", note_entry, &c);

    if (err < 0) {
        message(sink, MESSAGE_ERROR, "cannot list the store directory: %s", err_text(err));
        return err;
    }
    if (c.superblock) {
        message(sink, MESSAGE_ERROR, "the directory holds a store already");
        return -AF_E_STORE_EXISTS;
    }
    if (c.parts && !c.half) {
        message(
            sink, MESSAGE_ERROR,
            "the directory holds parts of a store that has lost its file 'superblock'; nothing was changed; restore "
            "that file, or give an empty directory");
        return -AF_E_SB_NONE;
    }
    if (c.strangers) {
        message(sink, MESSAGE_ERROR, "a new store wants an empty directory; nothing was changed");
        return -ENOTEMPTY;
    }
    *ret = c;
    return 0;
}

// ---- leftovers of an interrupted creation ----

struct numbers {
    uint64_t *list;
    size_t count, cap;
};

static int note_segment(void *arg, const char *name)
{
    struct numbers *n = arg;
    uint64_t segment;

    if (!wal_segment_number(name, &segment))
        return -ENOTEMPTY;
    if (n->count == n->cap) {
        size_t cap = n->cap ? 2 * n->cap : 16;
        uint64_t *list = realloc(n->list, cap * sizeof(*list));

        if (!list)
            return -ENOMEM;
        n->list = list;
        n->cap = cap;
    }
    n->list[n->count++] = segment;
    return 0;
}

static int clear_leftovers(struct io *io, const struct contents *c)
{
    struct numbers n = {0};
    int err = 0;

    if (c->wal)
        err = io_list(io, "wal", note_segment, &n);
    for (size_t i = 0; i < n.count && err == 0; i++) {
        char path[32];

        wal_segment_path(n.list[i], path);
        err = io_unlink(io, path);
    }
    free(n.list);
    if (err == 0 && c->parts) {
        err = io_unlink(io, "data");
        if (err == -ENOENT)
            err = 0;
    }
    return err;
}

// ---- the parts ----

static uint64_t segment_bytes(uint64_t log_bytes)
{
    uint64_t bytes = AF_ROUND_DOWN(log_bytes / SEGMENTS_OF_LOG, (uint64_t)BLOCK_BYTES);

    return AF_MIN(AF_MAX(bytes, SUPERBLOCK_SEGMENT_BYTES_MIN), SEGMENT_BYTES_MAX);
}

static struct wal_start first_epoch(struct io *io, uint64_t log_bytes)
{
    struct wal_start start = {
        .epoch = 1,
        .segment_bytes = segment_bytes(log_bytes),
        .log_segment = 1,
        .next_lsn = 1,
        .log_seed = io->ops->random(io),
    };
    le64 half[2] = {le64_put(io->ops->random(io)), le64_put(io->ops->random(io))};

    memcpy(start.uuid, half, sizeof(start.uuid));
    start.uuid[6] = (uint8_t)((start.uuid[6] & 0x0f) | 0x40); // a random UUID as RFC 9562 has it
    start.uuid[8] = (uint8_t)((start.uuid[8] & 0x3f) | 0x80);
    return start;
}

// Everything but the superblock, whose mark goes up first. The directory is synced behind the last
// entry.
static int make_parts(struct io *io, const struct contents *c, const struct wal_start *start,
                      struct io_file **ret_data)
{
    struct io_file *mark, *data;
    int err = io_file_open(io, SUPERBLOCK_FILE_NEW, IO_WRITE | IO_CREATE, &mark);

    if (err < 0)
        return err;
    io_file_close(mark);
    err = io_sync_dir(io, "");
    if (err == 0)
        err = clear_leftovers(io, c);
    if (err == 0 && !c->wal)
        err = io_mkdir(io, "wal");
    if (err == 0)
        err = wal_create_segments(io, start);
    if (err == 0)
        err = io_file_open(io, "data", IO_WRITE | IO_CREATE | IO_EXCLUSIVE, &data);
    if (err < 0)
        return err;
    err = io_sync_dir(io, "");
    if (err < 0) {
        io_file_close(data);
        return err;
    }
    *ret_data = data;
    return 0;
}

static int no_room(void *arg)
{
    (void)arg;
    return -ENOSPC;
}

static void no_pressure(void *arg)
{
    (void)arg;
}

// The first checkpoint. Its superblock is the commit point of creation.
static int publish_first(struct io *io, const struct engine_options *options,
                         const struct store_cred *cred, const struct wal_start *start,
                         struct io_file *data)
{
    struct store_config config = engine_store_config(options, io, data);
    struct checkpoint c = {.io = io, .start = *start};

    config.read_only = false;
    config.make_room = no_room;
    config.pressure = no_pressure;
    c.newest.created = io->ops->now_ns(io) / 1000000000;
    int err = store_create_empty(&config, start->uuid, io->ops->random(io), cred, &c.store);
    if (err < 0)
        return err;
    err = checkpoint_run(&c);
    if (err == 0 && c.spare_error < 0)
        message(&options->sink, MESSAGE_WARNING,
                "there is no room for the file '" SUPERBLOCK_FILE_RECOVER
                "' (%s), which a recovery on a full disk would need",
                err_name(c.spare_error));
    store_close(c.store);
    checkpoint_free(&c);
    return err;
}

int engine_create(struct io *io, const struct engine_options *options,
                  const struct store_cred *cred)
{
    const struct engine_options o = engine_options_complete(options);
    const struct wal_start start = first_epoch(io, o.log_bytes);
    struct contents contents;
    struct io_file *data;

    if (io->read_only) {
        message(&o.sink, MESSAGE_ERROR, "cannot make a store: the disk is read-only");
        return -AF_E_READ_ONLY;
    }
    int err = check_directory(io, &o.sink, &contents);
    if (err < 0)
        return err;
    err = make_parts(io, &contents, &start, &data);
    if (err == 0) {
        err = publish_first(io, &o, cred, &start, data);
        io_file_close(data);
    }
    if (err < 0)
        message(&o.sink, MESSAGE_ERROR,
                "the store could not be made: %s (%s); --create may be tried again", err_text(err),
                err_name(err));
    return err;
}
