// SPDX-License-Identifier: MIT
// `aerofs rescue`: reads out of a damaged store what can be read, into a directory of files. The
// store is opened for reading only and locked shared meanwhile.
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "mountutil/cmd.h"
#include "mountutil/exit_code.h"
#include "mountutil/rescue_copy.h"
#include "mountutil/store_dir.h"

struct job {
    const struct command *command;
    FILE *report; // OUT.report; what goes there goes to stdout too
    struct cmd_progress progress;
};

// ---- the report ----

static void line_out(struct job *j, const char *kind, const char *path, const char *text)
{
    FILE *const to[] = {stdout, j->report};

    cmd_progress_end(&j->progress);
    for (size_t i = 0; i < AF_ARRAY_LEN(to); i++) {
        fprintf(to[i], "%s: ", kind);
        // Names may hold any byte but / and 0, and a line of the report is one thing.
        for (const unsigned char *p = (const unsigned char *)path; path && *p; p++)
            if (*p < 32 || *p == 127 || *p == '\\')
                fprintf(to[i], "\\x%02x", *p);
            else
                fputc(*p, to[i]);
        fprintf(to[i], "%s%s\n", path ? ": " : "", text);
    }
}

static void note(void *arg, const char *text)
{
    line_out(arg, "given up", NULL, text);
}

static void lose(void *arg, const char *path, const char *text)
{
    line_out(arg, "lost", path, text);
}

static void say(struct job *j, const char *fmt, ...) AF_PRINTF(2, 3);
static void say(struct job *j, const char *fmt, ...)
{
    char text[600];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap); // a cut sentence still tells
    va_end(ap);
    line_out(j, "rescue", NULL, text);
}

static void show_search(void *arg, const char *what, uint64_t done, uint64_t total)
{
    struct job *j = arg;

    cmd_progress_show(&j->progress, what, done, total);
}

static void show_copy(void *arg, uint64_t done, uint64_t total)
{
    struct job *j = arg;

    cmd_progress_show(&j->progress, "writing, inodes", done, total);
}

// ---- OUT ----

static int check_empty(const char *out)
{
    DIR *dir = opendir(out);
    const struct dirent *e;
    int err = 0;

    if (!dir)
        return -errno;
    while (err == 0 && (e = readdir(dir)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            err = -ENOTEMPTY;
    closedir(dir);
    return err;
}

static int open_report(struct job *j, const char *out)
{
    char path[PATH_MAX];
    size_t len = strlen(out);

    while (len > 1 && out[len - 1] == '/')
        len--;
    if (snprintf(path, sizeof(path), "%.*s.report", (int)len, out) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    j->report = fopen(path, "wxe");
    if (j->report)
        return 0;
    int err = -errno;
    cmd_error(j->command, "cannot make the report '%s': %s", path, strerror(-err));
    return err;
}

// Made where it is not there, and only then; its parent exists. Returns an exit code, 0 to go on.
static int prepare_out(struct job *j, const char *out)
{
    bool made = mkdir(out, 0700) == 0;
    int err = made ? 0 : -errno;

    if (err == -EEXIST)
        err = check_empty(out);
    if (err == -ENOTEMPTY) {
        cmd_error(j->command, "'%s' is not empty; give a new directory, so that nothing is mixed",
                  out);
        return EXIT_CODE_EXISTS;
    }
    if (err < 0) {
        cmd_error(j->command, "cannot make or read the directory '%s': %s", out, strerror(-err));
        return exit_code(err);
    }
    err = open_report(j, out);
    if (err < 0 && made)
        (void)rmdir(out); // it is empty; if it stays, that is harmless
    return exit_code(err);
}

// ---- the work ----

static void tell_state(struct job *j, const struct rescue *r)
{
    if (r->given_up == 0) {
        say(j, "the newest state of the store, LSN %" PRIu64 ": nothing of it had to be given up",
            r->last_lsn);
        return;
    }
    say(j,
        "the state is that of LSN %" PRIu64 " (tree of generation %" PRIu64
        ", complete up to LSN %" PRIu64 "; %" PRIu64 " log records replayed, %" PRIu64
        " passed over, %" PRIu64 " given up behind it), less what is listed here",
        r->last_lsn, r->generation, r->base_lsn, r->records, r->misfits, r->dropped);
    if (r->lost_nodes > 0)
        say(j,
            "%" PRIu64 " tree nodes could not be read; %" PRIu64
            " below them were found by a search",
            r->lost_nodes, r->found_nodes);
}

static int copy_out(struct job *j, struct rescue *r, const char *out)
{
    struct rescue_copy copy = {
        .rescue = r, .out = out, .lose = lose, .progress = show_copy, .arg = j};
    struct store_status st;

    store_get_status(r->store, &st);
    copy.total = st.inodes;
    int err = rescue_copy_all(&copy);
    const struct rescue_counts *n = &copy.counts;

    say(j,
        "written to '%s': %" PRIu64 " directories, %" PRIu64 " files with %" PRIu64
        " bytes, %" PRIu64 " symbolic links, %" PRIu64 " others, %" PRIu64
        " further hard links; %" PRIu64 " without a name; %" PRIu64 " losses",
        out, n->directories, n->files, n->bytes, n->symlinks, n->others, n->links, n->nameless,
        n->lost);
    rescue_copy_free(&copy);
    if (err < 0) {
        cmd_error(j->command, "cannot go on writing to '%s': %s", out, err_text(err));
        say(j, "ended early: %s", err_text(err));
        return err == -ENOMEM ? EXIT_CODE_OTHER : exit_code(err);
    }
    return r->given_up > 0 || n->lost > 0 ? EXIT_CODE_DAMAGE : EXIT_CODE_OK;
}

static int rescue(struct job *j, struct store_dir *dir, const char *out, bool no_search)
{
    const struct rescue_options options = {
        .no_search = no_search, .note = note, .progress = show_search, .arg = j};
    struct rescue r;
    int code;

    dir->io->read_only = true;
    cmd_progress_start(&j->progress);
    say(j, "store '%s'", dir->path);
    int err = rescue_open(&r, dir->io, &dir->x, &options);
    if (err == 0) {
        tell_state(j, &r);
        code = copy_out(j, &r, out);
    } else {
        cmd_error(j->command, "nothing can be read out of '%s': %s", dir->path, err_text(err));
        code = exit_code(err);
    }
    rescue_close(&r);
    cmd_progress_end(&j->progress);
    return code;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct job j = {.command = command};
    const char *operands[2];
    bool no_search = false;
    const struct cmd_option options[] = {{"no-search", &no_search, NULL}};
    struct store_dir dir;

    int code = cmd_parse(command, argc, argv, options, AF_ARRAY_LEN(options), operands, 2);
    if (code >= 0)
        return code;
    int err = store_dir_open(command, operands[0], STORE_DIR_PATIENT, &dir);
    if (err == 0 && dir.in_use)
        err = store_dir_refuse_in_use(command, &dir);
    if (err == 0 && dir.error == -AF_E_VERSION) {
        cmd_error(command, "'%s': %s", dir.path, dir.x.message);
        err = dir.error;
    }
    code = exit_code(err);
    if (err == 0)
        code = prepare_out(&j, operands[1]);
    if (err == 0 && code == 0)
        code = rescue(&j, &dir, operands[1], no_search);
    if (j.report && (ferror(j.report) | fclose(j.report)) && code <= EXIT_CODE_DAMAGE) {
        cmd_error(command, "the report beside '%s' could not be written", operands[1]);
        code = EXIT_CODE_IO;
    }
    store_dir_close(&dir);
    return cmd_finish(command, code);
}

const struct command cmd_rescue = {
    .name = "rescue",
    .usage = "[--no-search] STORE OUT",
    .summary = "read out of a damaged store what can be read",
    .help =
        "Writes what can be read of STORE, which is not mounted, into the directory OUT (new or empty):\n"
        "files with their holes, directories, links, modes, owners, times, extended attributes. Nothing in\n"
        "STORE is changed. The newest superblock that is valid is the base; where the newest one is lost, the\n"
        "whole file `data` is searched for the root written last, and for what hung below tree nodes that\n"
        "cannot be read. The log is replayed in memory as far as it goes. What has to be given up, and what is\n"
        "lost, with path, range and reason, is listed on the standard output and in the file OUT.report; bytes\n"
        "that are lost are zeros in OUT. What no name leads to any more is in OUT/lost+found.\n"
        "\n"
        "  --no-search   do not read all of `data`: quicker, and nothing is taken on trust\n"
        "  --help        print this\n"
        "  --version     print the version\n"
        "\n"
        "Exit codes: 0 everything was there; 1 something was given up or lost, see the report; 2 wrong\n"
        "arguments; 3 not found; 4 not a store; 5 in use; 6 newer format; 7 no valid superblock, and no root\n"
        "was found; 10 permission denied; 11 OUT is full; 15 OUT is not empty; 16 the disk failed; 17 anything\n"
        "else.\n",
    .run = run,
};
