// SPDX-License-Identifier: MIT
// `aerofs log`: the log as text, record by record.
//
// Two ways to read. The scan is what recovery would do: from the superblock's cut along the chain
// of records to the end of the log, which it then names. Reading a segment looks at one file and
// prints whatever validates in it, also before the cut and behind damage; it needs no superblock.
// Where the scan cannot be had, or ends in damage, the segments are read as well, so that a damaged
// log shows all that is left of it.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/le.h"
#include "mountutil/cmd.h"
#include "mountutil/exit_code.h"
#include "mountutil/log_verify.h"
#include "mountutil/report.h"
#include "mountutil/store_dir.h"
#include "store/store_engine.h"
#include "wal/wal.h"

struct printer {
    struct buf text; // of one record
};

// ---- one record ----

static const char *type_name(enum wal_type type)
{
    switch (type) {
    case WAL_OPERATION:
        return "operation";
    case WAL_MARKER:
        return "marker";
    case WAL_ATTESTATION:
        return "attestation";
    }
    return "unknown";
}

static void marker_to_text(const struct wal_record *record, struct buf *out)
{
    struct reader r;

    reader_init(&r, record->body, record->body_bytes);
    uint64_t sequence = reader_u64(&r), cut = reader_u64(&r);
    if (r.failed)
        buf_printf(out, "too short");
    else
        buf_printf(out, "superblock %" PRIu64 " is durable, cut %" PRIu64, sequence, cut);
}

static int print_record(void *arg, const struct wal_record *record)
{
    struct printer *p = arg;

    buf_reset(&p->text);
    if (record->type == WAL_OPERATION)
        op_to_text(record->body, record->body_bytes, &p->text);
    else if (record->type == WAL_MARKER)
        marker_to_text(record, &p->text);
    else if (record->type == WAL_ATTESTATION)
        buf_printf(&p->text, "all up to %" PRIu64 " is durable", record->durable_lsn);
    printf("%c lsn %" PRIu64 "  segment 0x%" PRIx64 "+%" PRIu64 "  durable %" PRIu64
           "  %zu bytes  %s: %.*s\n",
           record->group_start ? '*' : ' ', record->lsn, record->segment, record->offset,
           record->durable_lsn, record->body_bytes, type_name(record->type), (int)p->text.len,
           (const char *)p->text.bytes);
    // A reader that has gone away (| head) needs no more.
    return ferror(stdout) ? -EPIPE : 0;
}

// ---- along the chain ----

static const char *end_name(enum wal_end end)
{
    switch (end) {
    case WAL_END_CLEAN:
        return "clean";
    case WAL_END_TORN:
        return "torn";
    case WAL_END_DAMAGED:
        return "damaged";
    case WAL_END_MISSING:
        return "missing segment";
    }
    return "unknown";
}

static void print_end(const struct wal_scan_result *scan)
{
    printf("end: %s, segment 0x%" PRIx64 "+%" PRIu64 ", last lsn %" PRIu64 ", durable lsn %" PRIu64
           ", %" PRIu64 " records, %" PRIu64 " bytes\n",
           end_name(scan->end), scan->end_segment, scan->end_offset, scan->last_lsn,
           scan->durable_lsn, scan->records, scan->bytes);
    if (scan->end == WAL_END_TORN)
        printf("the tail behind it was never acknowledged: %" PRIu64 " bytes, %" PRIu64
               " records; the next mount drops it\n",
               scan->dropped_bytes, scan->dropped_records);
    if (scan->end == WAL_END_DAMAGED && scan->proof_lsn)
        printf("proof: lsn %" PRIu64 " in segment 0x%" PRIx64 "+%" PRIu64 "\n", scan->proof_lsn,
               scan->proof_segment, scan->proof_offset);
}

// Returns 0, or what is wrong with the log.
static int print_chain(const struct command *command, struct store_dir *dir, struct printer *p)
{
    const struct superblock *sb = dir->x.sb;
    struct wal_scan_result scan = {0};

    printf("superblock %" PRIu64 ": cut lsn %" PRIu64 ", epoch %" PRIu64
           ", log from segment 0x%" PRIx64 "\n",
           sb->sequence, sb->log.cut_lsn, sb->log.epoch, sb->log.log_segment);
    int err = wal_scan(dir->io, &sb->log, print_record, p, &scan);
    if (err) {
        if (err != -EPIPE)
            cmd_error(command, "cannot read the log of '%s': %s", dir->path, err_text(err));
        return err;
    }
    print_end(&scan);
    // The judgement is recovery's own; it knows more than the end, such as whether a superblock was
    // lost.
    err = dir->error ? dir->error : examine_log(&dir->x, NULL, NULL);
    if (err)
        printf("a mount would refuse: %s\n", dir->x.message);
    return err;
}

// ---- segment by segment ----

struct segment_list {
    uint64_t *numbers;
    size_t count, cap;
};

static int collect_segment(void *arg, const char *name)
{
    struct segment_list *list = arg;
    uint64_t number;

    if (!wal_segment_number(name, &number))
        return 0;
    if (list->count == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 16;
        uint64_t *numbers = realloc(list->numbers, cap * sizeof(*numbers));
        if (!numbers)
            return -ENOMEM;
        list->numbers = numbers;
        list->cap = cap;
    }
    list->numbers[list->count++] = number;
    return 0;
}

static int compare_numbers(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void print_header(const struct wal_segment_info *info)
{
    char text[37];

    if (!info->valid) {
        printf("  no valid header\n");
        return;
    }
    report_uuid(info->uuid, text);
    printf("  header: segment 0x%" PRIx64 ", epoch %" PRIu64 ", first lsn %" PRIu64
           ", durable lsn %" PRIu64 ", superblock %" PRIu64 ", %" PRIu64 " bytes, store %s\n",
           info->segment, info->epoch, info->first_lsn, info->durable_lsn, info->sequence,
           info->segment_bytes, text);
}

static int pass_over(void *arg, const struct wal_record *record)
{
    (void)arg;
    (void)record;
    return 0;
}

static int print_segment(const struct store_dir *dir, uint64_t number, struct printer *p)
{
    const struct wal_start *start = dir->x.sb ? &dir->x.sb->log : NULL;
    struct wal_segment_info info = {0};
    char path[32];

    wal_segment_path(number, path);
    printf("%s\n", path);
    // Read twice, since the header is known at the end of a reading only and is to stand first.
    int err = wal_read_segment(dir->io, path, start, &info, pass_over, NULL);
    if (!err) {
        print_header(&info);
        err = wal_read_segment(dir->io, path, start, &info, print_record, p);
    }
    if (err && err != -EPIPE)
        printf("  cannot be read: %s\n", err_text(err));
    return err;
}

static int print_segments(const struct command *command, const struct store_dir *dir,
                          struct printer *p)
{
    struct segment_list list = {0};

    int err = io_list(dir->io, "wal", collect_segment, &list);
    if (err) {
        cmd_error(command, "cannot list '%s/wal': %s", dir->path, err_text(err));
        free(list.numbers);
        return err;
    }
    if (list.count)
        qsort(list.numbers, list.count, sizeof(*list.numbers), compare_numbers);
    for (size_t i = 0; i < list.count; i++) {
        // One unreadable segment does not hide the others; the last error stays.
        int one = print_segment(dir, list.numbers[i], p);
        if (one == -EPIPE) {
            err = one;
            break;
        }
        err = one ? one : err;
    }
    free(list.numbers);
    return err;
}

// ---- the command ----

static int print_log(const struct command *command, struct store_dir *dir, bool all,
                     const uint64_t *segment)
{
    struct printer p;
    int err, more = 0;

    buf_init(&p.text);
    if (dir->in_use)
        cmd_error(command,
                  "the store is in use by process %ld: what follows may change while it is read",
                  dir->holder);
    if (segment) {
        err = print_segment(dir, *segment, &p);
    } else if (!dir->x.sb || dir->error == -AF_E_VERSION) {
        cmd_error(command, "'%s': %s", dir->path, dir->x.message);
        err = dir->error;
        // Of another version nothing more is known, not even the format of the log.
        if (err != -AF_E_VERSION)
            more = print_segments(command, dir, &p);
    } else if (dir->error == -AF_E_LOG_MISSING) {
        // No directory of segments at all.
        cmd_error(command, "'%s': %s", dir->path, dir->x.message);
        err = dir->error;
    } else {
        err = all ? 0 : print_chain(command, dir, &p);
        if (all || (err && err != -EPIPE)) {
            if (!all)
                printf("\nwhat validates in each segment:\n");
            more = print_segments(command, dir, &p);
        }
    }
    buf_free(&p.text);
    return err ? err : more;
}

static int verify(const struct command *command, const char *const *paths, size_t count, bool all,
                  const char *segment)
{
    if (all || segment) {
        cmd_error(command, "--verify goes with neither --all nor --segment");
        return EXIT_CODE_USAGE;
    }
    return cmd_finish(command, log_verify(command, paths, count));
}

static int run_on(const struct command *command, const char *const *paths, size_t count, bool all,
                  const char *segment)
{
    uint64_t number;
    struct store_dir dir;

    if (count > 1) {
        cmd_error(command,
                  "unexpected argument '%s': only --verify takes several files\n"
                  "Try: aerofs log --help",
                  paths[1]);
        return EXIT_CODE_USAGE;
    }
    if (segment && !wal_segment_number(segment, &number) && !cmd_parse_number(segment, &number)) {
        cmd_error(command,
                  "'%s' is no segment. Give a number (0x for hexadecimal) or a file name from wal/",
                  segment);
        return EXIT_CODE_USAGE;
    }
    int err = store_dir_open(command, paths[0], STORE_DIR_TEST, &dir);
    if (!err)
        err = print_log(command, &dir, all, segment ? &number : NULL);
    store_dir_close(&dir);
    return cmd_finish(command, exit_code(err));
}

static int run(const struct command *command, int argc, char **argv)
{
    bool all = false, verifying = false;
    const char *segment = NULL;
    const struct cmd_option options[] = {
        {"all", &all, NULL}, {"segment", NULL, &segment}, {"verify", &verifying, NULL}};
    const char **paths = calloc((size_t)argc, sizeof(*paths));
    size_t count;

    if (!paths) {
        cmd_error(command, "out of memory");
        return EXIT_CODE_OTHER;
    }
    int code = cmd_parse_some(command, argc, argv, options, AF_ARRAY_LEN(options), paths, 1,
                              (size_t)argc, &count);
    if (code < 0)
        code = verifying ? verify(command, paths, count, all, segment)
                         : run_on(command, paths, count, all, segment);
    free(paths);
    return code;
}

const struct command cmd_log = {
    .name = "log",
    .usage = "[--all | --segment N] STORE\n       aerofs log --verify SEGMENT…",
    .summary = "print the log of a store, record by record, or verify segment files",
    .help =
        "Prints the records that the next mount would replay, in order, then where and how the log\n"
        "ends. `*` marks the first record of each group that was written at once. When the log is\n"
        "damaged, everything that still validates follows, segment by segment. Nothing is changed.\n"
        "\n"
        "  --all         print every record that validates in every segment, also those that a\n"
        "                checkpoint has made unnecessary\n"
        "  --segment N   print one segment: its number, or the name of its file\n"
        "  --verify      verify segment files, wherever they lie and without their store: each by\n"
        "                itself, then their order\n"
        "  --help        print this\n"
        "  --version     print the version\n"
        "\n"
        "With --verify each file is called whole, prefix (cut behind a group: its records are whole\n"
        "up to the LSN named), partial (cut within a record or a block), damaged, unused, or no\n"
        "segment; and in its order first, continues, gap, reordered, duplicate, stale (an older\n"
        "copy), recycled (under the name of a later segment, not written yet), other epoch (given up\n"
        "by a recovery), forked or foreign. The first segment given names the store.\n"
        "\n"
        "Exit codes: 0 the log is whole (a torn tail was never acknowledged and is no damage);\n"
        "2 wrong arguments; 3 not found; 4 not a store; 6 newer format; 7 no valid superblock;\n"
        "8 the log is damaged; 9 a part of the log is missing; 10 permission denied; 16 the disk failed;\n"
        "17 anything else. With --verify 0 means: every file is whole, prefix, unused or recycled, and\n"
        "they follow each other in the order given; otherwise the first of these that is true:\n"
        "8 damaged, 19 foreign, forked or no segment, 9 gap, 20 reordered, duplicate, stale or other\n"
        "epoch, 18 partial.\n",
    .run = run,
};
