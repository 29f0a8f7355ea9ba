// SPDX-License-Identifier: MIT
// Looking at a store directory before anything is done with it (examine.h).

#include "checkpoint/examine.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "wal/wal_format.h"

#define NEXT_STEP                                                                                  \
    "nothing was changed; `aerofs check STORE` tells what is affected, `aerofs rescue STORE OUT` " \
    "reads out what can be read"

int examine_refuse(struct examination *x, int err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(x->message, sizeof(x->message), fmt, ap); // a cut sentence still tells
    va_end(ap);
    return err;
}

void examine_free(struct examination *x)
{
    superblock_slots_free(&x->slots);
    x->sb = NULL;
}

// ---- what is there ----

struct contents {
    bool parts; // data or wal/
    bool half;  // superblock.new
    bool strangers;
};

static int note_entry(void *arg, const char *name)
{
    struct contents *c = arg;

    if (strcmp(name, "data") == 0 || strcmp(name, "wal") == 0)
        c->parts = true;
    else if (strcmp(name, SUPERBLOCK_FILE_NEW) == 0)
        c->half = true;
    else if (strcmp(name, "lost+found") != 0 && strcmp(name, "lock") != 0 &&
             strcmp(name, SUPERBLOCK_FILE_RECOVER) != 0)
        c->strangers = true;
    return 0;
}

// A missing file never means an empty one: an unmounted disk looks like an empty directory, and a
// lost superblock like a store that never was.
static int refuse_no_superblock(struct examination *x)
{
    struct contents c = {0};
    int err = io_list(x->io, "", note_entry, &c);

    if (err < 0)
        return examine_refuse(x, err, "cannot list the store directory: %s", err_text(err));
    if (c.half)
        return examine_refuse(
            x, -AF_E_SB_NONE,
            "the creation of this store was interrupted: there is no file 'superblock', only "
            "'" SUPERBLOCK_FILE_NEW "'; mounting with --create starts afresh");
    if (c.parts)
        return examine_refuse(
            x, -AF_E_SB_NONE,
            "the file 'superblock' is missing, but other parts of a store are there; restore it from "
            "a backup, or read out what can be read: `aerofs rescue STORE OUT`; nothing was changed");
    if (c.strangers)
        return examine_refuse(
            x, -AF_E_NOT_A_STORE,
            "not an AeroFS store: there is no file 'superblock'; a new store wants an empty directory");
    return examine_refuse(
        x, -AF_E_NOT_A_STORE,
        "the directory is empty, not an AeroFS store; is the disk mounted that belongs there? "
        "(--create makes a new store)");
}

// ---- superblocks ----

static int refuse_slots(struct examination *x)
{
    const int *result = x->slots.result;
    int err = -AF_E_SB_NONE;

    if (result[0] == -AF_E_SB_FIELD || result[1] == -AF_E_SB_FIELD)
        err = -AF_E_SB_FIELD;
    else if (result[0] == result[1] || result[1] == -AF_E_SB_NONE)
        err = result[0];
    else if (result[0] == -AF_E_SB_NONE)
        err = result[1];
    return examine_refuse(
        x, err,
        "the file 'superblock' has no valid slot (offset 0: %s; offset %u: %s); restore it from a "
        "backup, or read out what can be read: `aerofs rescue STORE OUT`; nothing was changed",
        err_text(result[0]), SUPERBLOCK_SLOT_BYTES, err_text(result[1]));
}

static int load_superblock(struct examination *x)
{
    int err = superblock_load(x->io, &x->slots);

    if (err == -ENOENT)
        return refuse_no_superblock(x);
    if (err < 0)
        return examine_refuse(x, err, "cannot read the file 'superblock': %s", err_text(err));
    const int *result = x->slots.result;
    // A newer program has written to this store: then an older slot, although valid, is not its
    // state.
    if (result[0] == -AF_E_VERSION || result[1] == -AF_E_VERSION)
        return examine_refuse(
            x, -AF_E_VERSION,
            "the file 'superblock' was written by a version of AeroFS that this program does not "
            "know; use that version or a newer one");
    if (x->slots.chosen < 0)
        return refuse_slots(x);
    x->sb = &x->slots.sb[x->slots.chosen];
    if (result[0] == 0 && result[1] == 0 &&
        memcmp(x->slots.sb[0].log.uuid, x->slots.sb[1].log.uuid, 16) != 0)
        return examine_refuse(
            x, -AF_E_SB_FIELD,
            "the two slots of the file 'superblock' belong to different stores; restore it from a "
            "backup; nothing was changed");
    return 0;
}

// ---- the other files ----

static int check_data(struct examination *x)
{
    const uint64_t wanted = x->sb->image.space.data_blocks * BLOCK_BYTES;
    struct io_file *file;
    int err = io_file_open(x->io, "data", IO_READ_ONLY, &file);

    if (err == -ENOENT)
        return examine_refuse(
            x, -AF_E_IO_SHORT,
            "the file 'data' is missing; it must have %" PRIu64 " bytes; " NEXT_STEP, wanted);
    if (err == 0) {
        err = io_size(file, &x->data_bytes);
        io_file_close(file);
    }
    if (err < 0)
        return examine_refuse(x, err, "cannot open the file 'data': %s", err_text(err));
    if (x->data_bytes < wanted)
        return examine_refuse(x, -AF_E_IO_SHORT,
                              "the file 'data' has %" PRIu64 " bytes and must have %" PRIu64
                              "; " NEXT_STEP,
                              x->data_bytes, wanted);
    return 0;
}

static int note_nothing(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return 0;
}

// The scan looks at the files in it.
static int check_log_directory(struct examination *x)
{
    int err = io_list(x->io, "wal", note_nothing, NULL);

    if (err == -ENOENT)
        return examine_refuse(
            x, -AF_E_LOG_MISSING,
            "the directory 'wal' is missing; the log goes on in segment %016" PRIx64
            " there; " NEXT_STEP,
            x->sb->log.log_segment);
    if (err < 0)
        return examine_refuse(x, err, "cannot list the directory 'wal': %s", err_text(err));
    return 0;
}

int examine_load(struct examination *x, struct io *io)
{
    *x = (struct examination){.io = io, .slots = {.chosen = -1}};
    int err = load_superblock(x);
    if (err == 0)
        err = check_log_directory(x);
    if (err == 0)
        err = check_data(x);
    return err;
}

// ---- the log ----

struct log_pass {
    int (*each)(void *arg, const struct wal_record *record);
    void *arg;
    int each_result; // what ended the scan, 0: nothing
    uint64_t marker; // highest sequence of one
    uint64_t marker_segment;
    bool bad_marker;
};

static int see_record(void *arg, const struct wal_record *record)
{
    struct log_pass *pass = arg;
    le64 sequence;

    switch (record->type) {
    case WAL_OPERATION:
        pass->each_result = pass->each ? pass->each(pass->arg, record) : 0;
        return pass->each_result;
    case WAL_MARKER:
        if (record->body_bytes != WAL_MARKER_BODY) {
            pass->bad_marker = true;
            return 0;
        }
        memcpy(&sequence, record->body, sizeof(sequence));
        if (le64_get(sequence) >= pass->marker) {
            pass->marker = le64_get(sequence);
            pass->marker_segment = record->segment;
        }
        return 0;
    case WAL_ATTESTATION:
        break;
    }
    return 0;
}

// "knows of": a marker, a header or a record that cannot have been written before a newer
// superblock was durable.
static int refuse_stale(struct examination *x, uint64_t segment, uint64_t sequence, uint64_t epoch)
{
    char newer[64], path[32];

    wal_segment_path(segment, path);
    if (sequence > x->sb->sequence)
        (void)snprintf(newer, sizeof(newer), "superblock %" PRIu64, sequence);
    else
        (void)snprintf(newer, sizeof(newer), "a superblock of epoch %" PRIu64, epoch);
    return examine_refuse(
        x, -AF_E_SB_STALE,
        "%s knows of %s, but the newest valid one in the file 'superblock' is %" PRIu64
        " of epoch %" PRIu64
        " (slot at offset 0: %s; at offset %u: %s): the newer one was lost. Restore "
        "the file 'superblock'; " NEXT_STEP,
        path, newer, x->sb->sequence, x->sb->log.epoch, err_name(x->slots.result[0]),
        SUPERBLOCK_SLOT_BYTES, err_name(x->slots.result[1]));
}

static int judge_age(struct examination *x, const struct log_pass *pass)
{
    if (pass->marker > x->sb->sequence)
        return refuse_stale(x, pass->marker_segment, pass->marker, 0);
    if (x->scan.sequence_max > x->sb->sequence)
        return refuse_stale(x, x->scan.sequence_segment, x->scan.sequence_max, 0);
    if (x->scan.epoch_max > x->sb->log.epoch)
        return refuse_stale(x, x->scan.epoch_segment, 0, x->scan.epoch_max);
    if (pass->bad_marker)
        return examine_refuse(x, -AF_E_LOG_RECORD,
                              "the log holds a marker of a wrong length; " NEXT_STEP);
    return 0;
}

static int judge_end(struct examination *x)
{
    switch (x->scan.end) {
    case WAL_END_CLEAN:
    case WAL_END_TORN:
        return 0;
    case WAL_END_DAMAGED:
        return examine_refuse(x, -AF_E_LOG_DAMAGED,
                              "the acknowledged log is damaged: %s; " NEXT_STEP, x->scan.what);
    case WAL_END_MISSING:
        return examine_refuse(x, -AF_E_LOG_MISSING, "a part of the log is missing: %s; " NEXT_STEP,
                              x->scan.what);
    }
    return examine_refuse(x, -AF_E_LOG_DAMAGED, "the log ends in an unknown way; " NEXT_STEP);
}

int examine_log(struct examination *x, int (*each)(void *arg, const struct wal_record *record),
                void *arg)
{
    struct log_pass pass = {.each = each, .arg = arg};
    int err = wal_scan(x->io, &x->sb->log, see_record, &pass, &x->scan);

    if (pass.each_result != 0)
        return pass.each_result;
    if (err < 0)
        return examine_refuse(x, err, "cannot read the log: %s (%s)", err_text(err), err_name(err));
    // Age before damage: what a superblock that is too old makes of the log may look like damage.
    err = judge_age(x, &pass);
    return err < 0 ? err : judge_end(x);
}
