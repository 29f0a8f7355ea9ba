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

static int count_operation(void *arg, const struct wal_record *record)
{
    uint64_t *operations = arg;

    (void)record;
    ++*operations;
    return 0;
}

// `err`: what the examination of the store, its log included, has said.
static const char *state_name(const struct examination *x, int err, uint64_t operations)
{
    switch (-err) {
    case 0:
        return x->sb->clean && operations == 0 && x->scan.end == WAL_END_CLEAN ? "clean"
                                                                               : "needs recovery";
    case AF_E_VERSION:
        return "newer format";
    default:
        return err_is_corruption(err) ? "damaged" : "unreadable";
    }
}

static void report_state(struct report *r, const struct store_dir *dir, int err,
                         uint64_t operations)
{
    const struct examination *x = &dir->x;
    const char *state = state_name(x, err, operations);

    report_text(r, "store", dir->path);
    report_text(r, "state", state);
    if (err)
        report_text(r, "detail", x->message);
    else if (strcmp(state, "clean") == 0)
        report_text(r, "detail", "unmounted cleanly");
    else
        report_format(r, "detail", "the next mount replays %" PRIu64 " operations%s", operations,
                      x->scan.end == WAL_END_TORN ? " and drops a tail that was never acknowledged"
                                                  : "");
}

static int count_segment(void *arg, const char *name)
{
    uint64_t *count = arg, segment;

    if (wal_segment_number(name, &segment))
        ++*count;
    return 0;
}

static const char *slot_text(const struct examination *x, unsigned slot)
{
    return x->slots.result[slot] == 0 ? "valid" : err_text(x->slots.result[slot]);
}

// The keys that a mount has as well are the same here (checkpoint/status.c).
static void report_superblock(struct report *r, const struct examination *x)
{
    const struct superblock *sb = x->sb;
    char uuid[37];

    // Without a file there are no slots to speak of; their results are not set then.
    if (sb || x->slots.result[0] || x->slots.result[1]) {
        report_text(r, "superblock_slot_0", slot_text(x, 0));
        report_text(r, "superblock_slot_1", slot_text(x, 1));
    }
    if (!sb)
        return;
    report_uuid(sb->image.uuid, uuid);
    report_text(r, "uuid", uuid);
    report_number(r, "superblock_sequence", sb->sequence);
    report_number(r, "epoch", sb->log.epoch);
    report_number(r, "generation", sb->image.generation);
    report_number(r, "lsn_checkpoint", sb->log.cut_lsn);
    report_number(r, "created", sb->created);
    report_number(r, "written", sb->written);
    report_number(r, "inodes", sb->image.inodes);
    report_number(r, "data_bytes", x->data_bytes);
    report_number(r, "log_segment_bytes", sb->log.segment_bytes);
}

static void report_log(struct report *r, const struct examination *x, uint64_t operations)
{
    uint64_t segments = 0;

    // A directory that cannot be listed shows as a log that cannot be scanned, which is in the
    // state.
    (void)io_list(x->io, "wal", count_segment, &segments);
    report_number(r, "log_segments", segments);
    report_number(r, "lsn_last", x->scan.last_lsn);
    report_number(r, "lsn_durable", x->scan.durable_lsn);
    report_number(r, "log_operations", operations);
    report_number(r, "log_records", x->scan.records);
    report_number(r, "log_bytes", x->scan.bytes);
    report_number(r, "log_end_segment", x->scan.end_segment);
    report_number(r, "log_end_offset", x->scan.end_offset);
    report_number(r, "log_tail_records", x->scan.dropped_records);
    report_number(r, "log_tail_bytes", x->scan.dropped_bytes);
}

static int report_store(struct store_dir *dir, bool json)
{
    struct report r;
    uint64_t operations = 0;
    bool scanned = dir->error == 0;
    int err = scanned ? examine_log(&dir->x, count_operation, &operations) : dir->error;

    report_begin(&r, stdout, json);
    report_state(&r, dir, err, operations);
    report_superblock(&r, &dir->x);
    if (scanned)
        report_log(&r, &dir->x, operations);
    report_end(&r);
    return err;
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
        err = report_store(&dir, json);
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
