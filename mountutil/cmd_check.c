// SPDX-License-Identifier: MIT
// `aerofs check`: whole-image verification of a store that is not mounted (checkpoint/verify.h),
// with its findings as text. Changes nothing. The lock is kept shared meanwhile, so that no daemon
// changes what is being read.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "checkpoint/verify.h"
#include "mountutil/cmd.h"
#include "mountutil/exit_code.h"
#include "mountutil/report.h"
#include "mountutil/store_dir.h"

// The three exit codes of this command, whatever the trouble is.
enum { CHECK_CLEAN = 0, CHECK_DAMAGE = 1, CHECK_CANNOT_RUN = 2 };

struct check {
    struct cmd_progress progress;
    bool quiet; // no notes
};

static void show_progress(void *arg, uint64_t done, uint64_t total)
{
    struct check *c = arg;

    cmd_progress_show(&c->progress, "checking, blocks", done, total);
}

// The sentence of a finding names block, inode and offset itself.
static void print_finding(void *arg, const struct verify_finding *f)
{
    struct check *c = arg;

    if (f->severity == VERIFY_NOTE && c->quiet)
        return;
    cmd_progress_end(&c->progress);
    printf("%s: %s: %s", f->severity == VERIFY_DAMAGE ? "damage" : "note", f->file, f->text);
    if (f->code && !strstr(f->text, err_name(f->code)))
        printf(" (%s)", err_name(f->code));
    putchar('\n');
}

// Names may hold any byte but / and 0.
static void print_path(const char *path)
{
    for (const unsigned char *p = (const unsigned char *)path; *p; p++)
        if (*p < 32 || *p == 127 || *p == '\\')
            printf("\\x%02x", *p);
        else
            putchar(*p);
}

static void print_affected(void *arg, const char *path, const char *part,
                           const struct store_damage *damage)
{
    struct check *c = arg;

    cmd_progress_end(&c->progress);
    printf("affected: ");
    print_path(path);
    if (part[0])
        printf(" (%s)", part);
    if (damage->address)
        printf(": block %" PRIu64 " of data", damage->address);
    putchar('\n');
}

static void print_affected_more(void *arg, uint64_t names, const struct store_damage *damage)
{
    (void)arg;
    if (names > 0)
        printf("affected: %" PRIu64 " more names: block %" PRIu64 " of data\n", names,
               damage->address);
    else if (damage->ino)
        printf("affected: a file whose name is not known, inode or content %" PRIu64 "\n",
               damage->ino);
}

static void print_counts(const struct verify_result *r)
{
    printf("inodes %" PRIu64 " (directories %" PRIu64 ", files %" PRIu64 ", symlinks %" PRIu64
           ", others %" PRIu64 "), names %" PRIu64 ", xattrs %" PRIu64 ", orphans %" PRIu64 "\n",
           r->inodes, r->directories, r->files, r->symlinks, r->others, r->names, r->xattrs,
           r->orphans);
    printf("tree nodes %" PRIu64 ", items %" PRIu64 ", extents %" PRIu64 ", data blocks %" PRIu64
           "\n",
           r->nodes, r->items, r->extents, r->data_blocks);
    printf("blocks in use %" PRIu64 ", marked %" PRIu64 ", leaked %" PRIu64 ", missing %" PRIu64
           "\n",
           r->blocks_reached, r->blocks_marked, r->blocks_leaked, r->blocks_missing);
    if (r->log_scanned)
        printf("log records %" PRIu64 ", bytes %" PRIu64 ", last lsn %" PRIu64
               ", %s; tail records %" PRIu64 ", bytes %" PRIu64 "\n",
               r->log_records, r->log_bytes, r->log_last_lsn,
               r->log_replayed ? "replayed" : "not replayed", r->tail_records, r->tail_bytes);
}

static int print_result(const struct store_dir *dir, const struct verify_result *r, bool quiet)
{
    if (!quiet) {
        char uuid[37];
        report_uuid(r->uuid, uuid);
        if (dir->x.sb)
            printf("store %s, superblock %" PRIu64 ", epoch %" PRIu64 ", generation %" PRIu64
                   ", cut lsn %" PRIu64 ", %s\n",
                   uuid, r->sequence, r->epoch, r->generation, r->cut_lsn,
                   r->clean ? "unmounted cleanly" : "not unmounted cleanly");
        print_counts(r);
    }
    if (r->damage == 0) {
        printf("'%s' is whole: no damage\n", dir->path);
        return CHECK_CLEAN;
    }
    printf("'%s' is damaged: %" PRIu64 " finding%s%s. Nothing was changed\n", dir->path, r->damage,
           r->damage == 1 ? "" : "s",
           r->complete ? "" : "; parts of the tree could not be read, there may be more");
    return CHECK_DAMAGE;
}

static int check_store(const struct command *command, const struct store_dir *dir,
                       struct verify_options *options, struct check *c)
{
    struct verify_result result = {0};

    // Both say that this program cannot judge the directory, not that something in it is damaged.
    if (dir->error == -AF_E_VERSION || (dir->error && !err_is_corruption(dir->error))) {
        cmd_error(command, "'%s': %s", dir->path, dir->x.message);
        return CHECK_CANNOT_RUN;
    }
    options->progress = show_progress;
    options->finding = print_finding;
    options->affected = print_affected;
    options->affected_more = print_affected_more;
    options->arg = c;
    cmd_progress_start(&c->progress);
    int err = verify_image(dir->io, options, &result);
    cmd_progress_end(&c->progress);
    if (err) {
        cmd_error(command, "the check of '%s' could not be finished: %s", dir->path, err_text(err));
        return CHECK_CANNOT_RUN;
    }
    return print_result(dir, &result, c->quiet);
}

static int run(const struct command *command, int argc, char **argv)
{
    struct verify_options verify = {0};
    struct check check = {0};
    const char *path;
    const struct cmd_option options[] = {
        {"quiet", &check.quiet, NULL},
        {"skip-data", &verify.skip_data, NULL},
    };
    struct store_dir dir;

    int code = cmd_parse(command, argc, argv, options, AF_ARRAY_LEN(options), &path, 1);
    if (code >= 0)
        return code;
    code = CHECK_CANNOT_RUN;
    if (store_dir_open(command, path, STORE_DIR_PATIENT, &dir) == 0) {
        if (dir.in_use)
            (void)store_dir_refuse_in_use(command, &dir); // its code stands for what is printed
        else
            code = check_store(command, &dir, &verify, &check);
    }
    store_dir_close(&dir);
    // A report that did not reach its reader is no report.
    return cmd_finish(command, code) == EXIT_CODE_IO ? CHECK_CANNOT_RUN : code;
}

const struct command cmd_check = {
    .name = "check",
    .usage = "[--quiet] [--skip-data] STORE",
    .summary = "verify everything in a store that is not mounted",
    .help =
        "Reads everything that the newest superblock reaches, with the log replayed in memory, and\n"
        "verifies every checksum, the order of the tree, the counts of links and the space map; finds\n"
        "leaked blocks. What a crash leaves behind (a log to be replayed, a torn tail) is a note, no\n"
        "damage. The names of what damage affects follow its findings, as far as they are known.\n"
        "Nothing is changed. The store cannot be mounted meanwhile.\n"
        "\n"
        "  --quiet       print damage and the verdict only\n"
        "  --skip-data   do not read the data of files, only the structures\n"
        "  --help        print this\n"
        "  --version     print the version\n"
        "\n"
        "Exit codes: 0 the store is whole; 1 damage was found; 2 the check could not run or not finish.\n",
    .run = run,
};
