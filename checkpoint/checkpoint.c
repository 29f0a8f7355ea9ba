// SPDX-License-Identifier: MIT
// The checkpoint procedure (checkpoint.h). Each step is one function, so that checkpoint_run()
// reads as the table in docs/FORMAT.md does.

#include "checkpoint/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"

// One checkpoint under way.
struct round {
    struct checkpoint *c;
    struct store_frozen *frozen;
    struct store_checkpoint_stats written;
    struct superblock sb; // to be published; its refs move to c->newest
    uint64_t started_ms;
    uint64_t cut;
    const char *step; // for the message of a failure
};

// ---- the steps ----

// t0: root and cut are taken; writers stop for this moment only.
static int freeze(struct round *r)
{
    r->step = "freezing the tree";
    int err = store_freeze(r->c->store, &r->frozen);
    if (err < 0)
        return err;
    r->cut = store_frozen_cut(r->frozen);
    AF_ASSERT(r->cut >= r->c->newest.image.cut_lsn);
    return 0;
}

// t1: what the superblock will stand for must be history already, or a crash after its publication
// could show operations that the log has lost (K1).
static int wait_durable(struct round *r)
{
    r->step = "waiting for the log";
    if (!r->c->wal)
        return 0;
    int err = wal_wait(r->c->wal, r->cut);
    if (err < 0)
        return err;
    AF_ASSERT(wal_durable_lsn(r->c->wal) >= r->cut);
    return 0;
}

// t2: into blocks and slots that no published superblock refers to.
static int write_blocks(struct round *r)
{
    struct superblock *sb = &r->sb;

    r->step = "writing blocks to data";
    int err = store_write_frozen(r->c->store, r->frozen, sb->sequence, &sb->image, &r->written);
    if (err < 0) {
        sb->image.space.refs = NULL; // nothing was handed out
        return err;
    }
    AF_ASSERT(sb->image.cut_lsn == r->cut);
    AF_ASSERT(memcmp(sb->image.uuid, r->c->start.uuid, sizeof(sb->image.uuid)) == 0);
    return 0;
}

// t3: before the superblock that refers to them.
static int sync_blocks(struct round *r)
{
    r->step = "syncing data";
    return store_sync_data(r->c->store);
}

// Where the log goes on behind the cut. While this epoch has logged nothing up to the cut, that is
// where the epoch starts.
static struct wal_start log_at_cut(const struct checkpoint *c, uint64_t cut)
{
    struct wal_start log = c->start;

    if (cut != c->start.cut_lsn) {
        AF_ASSERT(c->wal && cut >= c->start.next_lsn);
        log.cut_lsn = cut;
        wal_cut_info(c->wal, cut, &log.cut_checksum, &log.log_segment);
    }
    return log;
}

// t4, t5: the commit point. K2: the newest published superblock stays as it is in its own slot.
static int publish(struct checkpoint *c, struct superblock *sb)
{
    sb->created = c->newest.created;
    sb->written = c->io->ops->now_ns(c->io) / 1000000000;
    sb->log = log_at_cut(c, sb->image.cut_lsn);
    AF_ASSERT(sb->sequence == c->newest.sequence + 1);
    AF_ASSERT(!c->wal || wal_durable_lsn(c->wal) >= sb->log.cut_lsn); // K1
    int err = c->file ? superblock_write(c->file, superblock_home(sb->sequence), sb)
                      : superblock_replace(c->io, SUPERBLOCK_FILE_NEW, sb, &c->spare_error);
    if (err < 0)
        return err;
    superblock_free(&c->newest);
    c->newest = *sb;
    *sb = (struct superblock){0};
    return 0;
}

static int publish_superblock(struct round *r)
{
    r->step = "writing the superblock";
    r->sb.clean = r->c->file == NULL;
    return publish(r->c, &r->sb);
}

// t6: from here on a loss of the superblock just written is noticed, so what it does without may
// go.
static int mark(struct round *r)
{
    const struct superblock *sb = &r->c->newest;
    le64 body[2] = {le64_put(sb->sequence), le64_put(sb->log.cut_lsn)};
    uint64_t lsn;

    r->step = "writing the marker into the log";
    if (!r->c->wal)
        return 0;
    int err = wal_append(r->c->wal, WAL_MARKER, body, sizeof(body), 0, &lsn);
    return err < 0 ? err : wal_wait(r->c->wal, lsn);
}

// t7: what only the superblock before this one needed is free, in `data` and in the log.
static void release(struct round *r)
{
    struct checkpoint *c = r->c;
    const struct superblock *sb = &c->newest;

    store_published(c->store, r->frozen, sb->sequence);
    r->frozen = NULL;
    if (c->wal)
        wal_trim(c->wal, sb->sequence, sb->log.cut_lsn, sb->log.log_segment);
    c->stats.count++;
    c->stats.last_us = (c->io->ops->ticks_ms(c->io) - r->started_ms) * 1000;
    c->stats.last_bytes = r->written.bytes_written;
    c->stats.last_freeze_us = r->written.freeze_us;
}

// The store has failed: read-only, loud, and nothing is tried again. What was frozen is only
// memory.
static int fail(struct checkpoint *c, const char *step, int err)
{
    AF_ASSERT(err < 0);
    if (!c->failed) {
        c->failed = err;
        (void)snprintf(c->failed_what, sizeof(c->failed_what), "the checkpoint failed in %s", step);
        if (c->serving)
            store_fail(c->store, err, c->failed_what);
    }
    return err;
}

// ---- the procedure ----

int checkpoint_run(struct checkpoint *c)
{
    struct round r = {
        .c = c,
        .started_ms = c->io->ops->ticks_ms(c->io),
        .sb = {.sequence = c->newest.sequence + 1},
    };

    if (c->failed)
        return c->failed;
    int err = freeze(&r); // t0
    if (err < 0)
        return err == -ENOMEM ? err : fail(c, r.step, err);
    err = wait_durable(&r); // t1
    if (err == 0)
        err = write_blocks(&r); // t2
    if (err == 0)
        err = sync_blocks(&r); // t3
    if (err == 0)
        err = publish_superblock(&r); // t4, t5
    if (err == 0)
        err = mark(&r); // t6
    if (err == 0) {
        release(&r); // t7
        return 0;
    }
    err = fail(c, r.step, err);
    store_frozen_free(c->store, r.frozen);
    superblock_free(&r.sb);
    return err;
}

static int copy_image(const struct store_image *from, struct store_image *ret)
{
    size_t bytes = from->space.index_count * sizeof(struct map_ref_disk);
    struct map_ref_disk *refs = malloc(AF_MAX(bytes, (size_t)1));

    if (!refs)
        return -ENOMEM;
    if (bytes > 0)
        memcpy(refs, from->space.refs, bytes);
    *ret = *from;
    ret->space.refs = refs;
    return 0;
}

int checkpoint_publish_clean(struct checkpoint *c)
{
    struct superblock sb = {.sequence = c->newest.sequence + 1, .clean = true};

    AF_ASSERT(c->file && c->wal);
    if (c->failed)
        return c->failed;
    AF_ASSERT(!store_needs_checkpoint(c->store));
    uint64_t cut = wal_cut(c->wal);
    int err = wal_wait(c->wal, cut);
    if (err == 0)
        err = copy_image(&c->newest.image, &sb.image);
    if (err < 0)
        return fail(c, "closing the log", err);
    sb.image.cut_lsn = cut;
    err = publish(c, &sb);
    superblock_free(&sb);
    return err < 0 ? fail(c, "writing the last superblock", err) : 0;
}

void checkpoint_free(struct checkpoint *c)
{
    superblock_free(&c->newest);
}
