// SPDX-License-Identifier: MIT
// `aerofs status`: what a mount says of itself, or what a store directory says when nobody serves
// it.
//
// A mount answers through MOUNTPOINT/.aerofs/status; that text comes from the daemon and is passed
// on as it is. A store is looked at directly: superblocks and a scan of its log, nothing of the
// tree, so the answer costs the same for any size of store.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/le.h"
#include "mountutil/cmd.h"
#include "mountutil/exit_code.h"
#include "mountutil/report.h"
#include "mountutil/store_dir.h"
#include "wal/wal.h"

// ---- a mount ----

// Copies the file to stdout. Returns 1 when it does not exist (so `path` is no mount point), 0, or
// an error.
static int copy_status_file(const char *path, bool json)
{
    char name[PATH_MAX], bytes[8192];

    int len = snprintf(name, sizeof(name), "%s/.aerofs/status%s", path, json ? ".json" : "");
    if (len < 0 || (size_t)len >= sizeof(name))
        return -ENAMETOOLONG;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? 1 : -errno;
    for (;;) {
        ssize_t got = read(fd, bytes, sizeof(bytes));
        if (got < 0) {
            int err = -errno;
            close(fd);
            return err;
        }
        if (got == 0)
            break;
        fwrite(bytes, 1, (size_t)got, stdout);
    }
    close(fd);
    return 0;
}

// ---- a store directory ----

// What the log holds after the cut.
struct log_summary {
    uint64_t operations;
    uint64_t newest_marker; // the highest superblock sequence that the log knows of
};

static int count_record(void *arg, const struct wal_record *record)
{
    struct log_summary *sum = arg;

    if (record->type == WAL_OPERATION)
        sum->operations++;
    if (record->type == WAL_MARKER && record->body_bytes >= sizeof(le64)) {
        le64 sequence;
        memcpy(&sequence, record->body, sizeof(sequence));
        sum->newest_marker = AF_MAX(sum->newest_marker, le64_get(sequence));
    }
    return 0;
}

struct finding {
    int error;         // 0, or why the store cannot be mounted
    const char *state; // "clean", "needs recovery", "damaged"
    char detail[512];
};

static void judge(const struct superblock *sb, const struct wal_scan_result *scan,
                  const struct log_summary *sum, struct finding *ret)
{
    *ret = (struct finding){.state = "damaged"};
    if (scan->end == WAL_END_DAMAGED || scan->end == WAL_END_MISSING) {
        ret->error = scan->end == WAL_END_DAMAGED ? -AF_E_LOG_DAMAGED : -AF_E_LOG_MISSING;
        snprintf(ret->detail, sizeof(ret->detail), "%s; `aerofs log` shows what can be read",
                 scan->what);
    } else if (sum->newest_marker > sb->sequence) {
        ret->error = -AF_E_SB_STALE;
        snprintf(ret->detail, sizeof(ret->detail),
                 "the log knows of superblock %" PRIu64 ", the newest one found is %" PRIu64
                 ": restore the file 'superblock'",
                 sum->newest_marker, sb->sequence);
    } else if (sb->clean && sum->operations == 0 && scan->end == WAL_END_CLEAN) {
        ret->state = "clean";
        snprintf(ret->detail, sizeof(ret->detail), "unmounted cleanly");
    } else {
        ret->state = "needs recovery";
        snprintf(ret->detail, sizeof(ret->detail), "the next mount replays %" PRIu64 " records%s",
                 scan->records,
                 scan->end == WAL_END_TORN ? " and drops an unacknowledged tail" : "");
    }
}

static uint64_t file_bytes(struct io *io, const char *path)
{
    struct io_file *file;
    uint64_t bytes = 0;

    if (io_file_open(io, path, IO_READ_ONLY, &file) != 0)
        return 0;
    if (io_size(file, &bytes) != 0)
        bytes = 0;
    io_file_close(file);
    return bytes;
}

static int count_segment(void *arg, const char *name)
{
    uint64_t *count = arg, segment;

    if (wal_segment_number(name, &segment))
        ++*count;
    return 0;
}

static void report_superblock(struct report *r, const struct store_dir *dir,
                              const struct superblock *sb)
{
    char uuid[37];

    report_uuid(sb->image.uuid, uuid);
    report_text(r, "uuid", uuid);
    report_number(r, "superblock_sequence", sb->sequence);
    report_text(r, "superblock_slot_0", store_dir_slot_text(dir, 0));
    report_text(r, "superblock_slot_1", store_dir_slot_text(dir, 1));
    report_number(r, "epoch", sb->log.epoch);
    report_number(r, "generation", sb->image.generation);
    report_number(r, "checkpoint_lsn", sb->log.cut_lsn);
    report_number(r, "created", sb->created);
    report_number(r, "written", sb->written);
    report_number(r, "inodes", sb->image.inodes);
    report_number(r, "data_bytes", file_bytes(dir->io, "data"));
}

static void report_log(struct report *r, struct io *io, const struct superblock *sb,
                       const struct wal_scan_result *scan)
{
    uint64_t segments = 0;

    // A directory that cannot be listed shows as a log that cannot be scanned, which has been
    // reported.
    (void)io->ops->list(io, "wal", count_segment, &segments);
    report_number(r, "log_segments", segments);
    report_number(r, "log_segment_bytes", sb->log.segment_bytes);
    report_number(r, "log_last_lsn", scan->last_lsn);
    report_number(r, "log_durable_lsn", scan->durable_lsn);
    report_number(r, "log_records", scan->records);
    report_number(r, "log_record_bytes", scan->bytes);
    report_number(r, "log_tail_records", scan->dropped_records);
    report_number(r, "log_tail_bytes", scan->dropped_bytes);
    report_number(r, "log_end_segment", scan->end_segment);
    report_number(r, "log_end_offset", scan->end_offset);
}

static int report_store(const struct command *command, const struct store_dir *dir, bool json)
{
    struct report r;
    struct log_summary sum = {0};
    struct wal_scan_result scan = {0};
    struct finding finding;
    const struct superblock *sb = store_dir_superblock(dir);

    int err = store_dir_superblock_error(dir);
    if (err || !sb)
        return store_dir_refuse_superblock(command, dir);
    err = wal_scan(dir->io, &sb->log, count_record, &sum, &scan);
    if (err) {
        cmd_error(command, "cannot read the log of '%s': %s", dir->path, err_text(err));
        return err;
    }
    judge(sb, &scan, &sum, &finding);
    report_begin(&r, stdout, json);
    report_text(&r, "store", dir->path);
    report_text(&r, "state", finding.state);
    report_text(&r, "detail", finding.detail);
    report_superblock(&r, dir, sb);
    report_log(&r, dir->io, sb, &scan);
    report_end(&r);
    return finding.error;
}

static void report_in_use(const struct store_dir *dir, bool json)
{
    struct report r;

    report_begin(&r, stdout, json);
    report_text(&r, "store", dir->path);
    report_text(&r, "state", "in use");
    if (dir->holder > 0)
        report_number(&r, "pid", (uint64_t)dir->holder);
    report_text(&r, "detail", "a daemon serves it; ask its mount point: aerofs status MOUNTPOINT");
    report_end(&r);
}

static int run(const struct command *command, int argc, char **argv)
{
    bool json = false;
    const char *path;
    const struct cmd_option options[] = {{"json", &json, NULL}};
    struct store_dir dir;

    int code = cmd_parse(command, argc, argv, options, AF_ARRAY_LEN(options), &path, 1);
    if (code >= 0)
        return code;
    int err = copy_status_file(path, json);
    if (err == 0)
        return cmd_finish(command, EXIT_CODE_OK);
    if (err == -ENOTCONN) {
        cmd_error(
            command,
            "the daemon of the mount '%s' has ended. Mount the store again, or detach with: umount -l %s",
            path, path);
        return EXIT_CODE_NOT_CONNECTED;
    }
    if (err < 0 && err != -EACCES) {
        cmd_error(command, "cannot read '%s/.aerofs/status': %s", path, strerror(-err));
        return exit_code(err);
    }
    err = store_dir_open(command, path, STORE_DIR_SHARED, &dir);
    if (!err && dir.in_use)
        report_in_use(&dir, json);
    else if (!err)
        err = report_store(command, &dir, json);
    store_dir_close(&dir);
    return cmd_finish(command, exit_code(err));
}

const struct command cmd_status = {
    .name = "status",
    .usage = "[--json] MOUNTPOINT|STORE",
    .summary = "show the state of a mount or of a store that is not mounted",
    .help =
        "A mount point answers with what its daemon knows: log sequence numbers, cache, space,\n"
        "the last recovery, errors. A store that is not mounted is looked at directly: whether it\n"
        "is clean, needs recovery (the next mount does that) or is damaged, or who holds it.\n"
        "Nothing is changed.\n"
        "\n"
        "  --json      print one JSON object\n"
        "  --help      print this\n"
        "  --version   print the version\n"
        "\n"
        "Exit codes: 0 the state is printed and no damage was met; 2 wrong arguments; 3 not found;\n"
        "4 not a store; 6 newer format; 7 no valid superblock; 8 the log is damaged; 9 a part of the log\n"
        "is missing; 10 permission denied; 14 the daemon of the mount has ended; 16 the disk failed;\n"
        "17 anything else.\n",
    .run = run,
};
