// SPDX-License-Identifier: MIT
// `aerofs log --verify SEGMENT…`: segment files in any place, copied away from their store, cut or
// not. wal/wal_verify.h judges; this prints, and turns the worst of it into an exit code.
#include "mountutil/log_verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/io.h"
#include "mountutil/exit_code.h"
#include "mountutil/report.h"
#include "wal/wal_verify.h"

struct verification {
    struct wal_file *files;
    int *errors; // of reading each
    size_t count;
};

// ---- reading ----

static int check_regular(const struct command *command, const char *path)
{
    struct stat st;
    int err = stat(path, &st) < 0 ? -errno : 0;

    if (err == 0 && !S_ISREG(st.st_mode))
        err = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
    if (err < 0)
        cmd_error(command, "cannot read '%s': %s. Give the files of segments, such as wal/*.seg",
                  path, err == -EINVAL ? "it is no regular file" : strerror(-err));
    return err;
}

// The disk interface opens files below a directory; so the directory of the file is opened.
static int open_parent(const char *path, struct io **ret_io, const char **ret_name)
{
    const char *slash = strrchr(path, '/');
    char *dir;

    if (!slash)
        dir = strdup(".");
    else if (slash == path)
        dir = strdup("/");
    else
        dir = strndup(path, (size_t)(slash - path));
    if (!dir)
        return -ENOMEM;
    int err = io_plain_open(dir, true, ret_io);
    free(dir);
    *ret_name = slash ? slash + 1 : path;
    return err;
}

static int read_one(const struct command *command, const char *path, struct wal_file *file)
{
    struct io *io;
    const char *name;
    int err = check_regular(command, path);

    if (err < 0)
        return err;
    err = open_parent(path, &io, &name);
    if (err == 0) {
        file->path = name;
        err = wal_file_verify(io, file, NULL, NULL);
        io->ops->destroy(io);
    }
    if (err < 0)
        cmd_error(command, "cannot read '%s': %s", path, err_text(err));
    return err;
}

// ---- printing ----

static void print_place(const struct wal_file *file, const char *const *paths)
{
    printf(", %s", wal_place_name(file->place));
    switch (file->place) {
    case WAL_PLACE_GAP:
        printf(": lsn %" PRIu64 " to %" PRIu64 " before it are missing", file->missing_from,
               file->missing_to);
        break;
    case WAL_PLACE_DUPLICATE:
    case WAL_PLACE_STALE:
    case WAL_PLACE_OTHER_EPOCH:
    case WAL_PLACE_FORKED:
        printf(": compare %s", paths[file->other]);
        break;
    case WAL_PLACE_NONE:
    case WAL_PLACE_FIRST:
    case WAL_PLACE_CONTINUES:
    case WAL_PLACE_REORDERED:
    case WAL_PLACE_RECYCLED:
    case WAL_PLACE_FOREIGN:
    case WAL_PLACE_COUNT:
        break;
    }
}

static void print_file(const struct wal_file *file, const char *path, const char *const *paths)
{
    printf("%s: %s", path, wal_file_state_name(file->state));
    if (file->info.valid) {
        print_place(file, paths);
        printf("; segment 0x%" PRIx64 ", epoch %" PRIu64, file->info.segment, file->info.epoch);
        if (file->records > 0)
            printf(", lsn %" PRIu64 " to %" PRIu64, file->info.first_lsn, file->last_lsn);
        else
            printf(", no record");
        printf(", durable %" PRIu64 ", ends at offset %" PRIu64, file->durable_lsn,
               file->end_offset);
    }
    printf(", %" PRIu64 " bytes", file->bytes);
    if (file->state == WAL_FILE_PREFIX)
        printf(" of %" PRIu64, file->info.segment_bytes);
    printf("%s%s\n", file->what[0] ? "; " : "", file->what);
}

static void print_count(size_t count, const char *name, bool *some)
{
    if (count > 0)
        printf("%s%zu %s", *some ? ", " : "", count, name);
    *some = *some || count > 0;
}

static void print_summary(const struct verification *v, const struct wal_file_set *set)
{
    bool some = false;
    char uuid[37];

    printf("files: ");
    for (unsigned s = 0; s < WAL_FILE_STATE_COUNT; s++)
        print_count(set->states[s], wal_file_state_name((enum wal_file_state)s), &some);
    printf("\n");
    if (!set->any)
        return;
    printf("order: ");
    some = false;
    for (unsigned p = 0; p < WAL_PLACE_COUNT; p++)
        print_count(set->places[p], wal_place_name((enum wal_place)p), &some);
    report_uuid(v->files[set->reference].info.uuid, uuid);
    printf("\nstore: %s\n", uuid);
    if (set->last_lsn >= set->first_lsn && set->first_lsn > 0)
        printf("usable: lsn %" PRIu64 " to %" PRIu64 ", known durable to %" PRIu64
               ", epoch %" PRIu64 " to %" PRIu64 "\n",
               set->first_lsn, set->last_lsn, set->durable_lsn, set->epoch_first, set->epoch_last);
    else
        printf("usable: nothing\n");
}

static int verdict(const struct wal_file_set *set)
{
    const size_t *states = set->states, *places = set->places;

    if (states[WAL_FILE_DAMAGED])
        return EXIT_CODE_LOG_DAMAGED;
    if (states[WAL_FILE_UNKNOWN] || places[WAL_PLACE_FOREIGN] || places[WAL_PLACE_FORKED])
        return EXIT_CODE_LOG_FOREIGN;
    if (places[WAL_PLACE_GAP])
        return EXIT_CODE_LOG_MISSING;
    if (places[WAL_PLACE_REORDERED] || places[WAL_PLACE_DUPLICATE] || places[WAL_PLACE_STALE] ||
        places[WAL_PLACE_OTHER_EPOCH])
        return EXIT_CODE_LOG_ORDER;
    return states[WAL_FILE_PARTIAL] ? EXIT_CODE_LOG_PARTIAL : EXIT_CODE_OK;
}

// ---- the whole ----

static int verify_all(const struct command *command, struct verification *v,
                      const char *const *paths)
{
    struct wal_file_set set;
    int failed = 0;

    for (size_t i = 0; i < v->count; i++) {
        int err = read_one(command, paths[i], &v->files[i]);
        // One that cannot be read hides nothing of the others; the first error is the exit code.
        if (err < 0 && failed == 0)
            failed = err;
        if (err < 0)
            v->files[i].state = WAL_FILE_UNKNOWN;
        v->errors[i] = err;
    }
    int err = wal_files_order(v->files, v->count, &set);
    if (err < 0) {
        cmd_error(command, "cannot put the segments in order: %s", err_text(err));
        return exit_code(err);
    }
    for (size_t i = 0; i < v->count; i++)
        if (v->errors[i] == 0)
            print_file(&v->files[i], paths[i], paths);
    print_summary(v, &set);
    return failed < 0 ? exit_code(failed) : verdict(&set);
}

int log_verify(const struct command *command, const char *const *paths, size_t count)
{
    struct verification v = {
        .files = calloc(count, sizeof(*v.files)),
        .errors = calloc(count, sizeof(*v.errors)),
        .count = count,
    };
    int code = EXIT_CODE_OTHER;

    if (v.files && v.errors)
        code = verify_all(command, &v, paths);
    else
        cmd_error(command, "out of memory");
    for (size_t i = 0; v.files && i < count; i++)
        wal_file_free(&v.files[i]);
    free(v.files);
    free(v.errors);
    return code;
}
