// SPDX-License-Identifier: MIT
// `aerofs torture`: reads what a writer's directory holds after a cut, and finds the moment of its
// history that this is.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mountutil/torture.h"

static bool wrong(struct torture_found *found, const char *path, const char *what)
{
    snprintf(found->text, sizeof(found->text), "%.300s: %s", path, what);
    return false;
}

// ---- content ----

static bool check_chunks(const struct torture_writer *w, const uint8_t *bytes, size_t size,
                         uint64_t *ret_chain)
{
    uint64_t chain = 0;
    size_t at = 0;

    while (at < size) {
        struct torture_chunk c;
        if (size - at < sizeof(c))
            return false;
        memcpy(&c, bytes + at, sizeof(c));
        at += sizeof(c);
        if (c.magic != TORTURE_MAGIC || c.sum != torture_sum(&c) || c.writer != w->number ||
            c.before != chain || c.bytes > size - at)
            return false;
        uint8_t *expected = malloc(c.bytes + 1);
        bool same = expected != NULL;
        if (same) {
            torture_fill(&c, expected);
            same = memcmp(expected, bytes + at, c.bytes) == 0;
        }
        free(expected);
        if (!same)
            return false;
        at += c.bytes;
        chain = c.chain;
    }
    *ret_chain = chain;
    return size > 0;
}

static bool read_file(const struct torture_writer *w, unsigned name, struct torture_state *s,
                      struct torture_found *found)
{
    char path[PATH_MAX];
    struct stat st;
    size_t got = 0;

    torture_path(path, w->dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || wrong(found, path, strerror(errno));
    bool ok = fstat(fd, &st) == 0;
    uint8_t *bytes = ok ? malloc((size_t)st.st_size + 1) : NULL;
    while (bytes && got < (size_t)st.st_size) {
        ssize_t n = read(fd, bytes + got, (size_t)st.st_size - got);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    close(fd);
    if (!bytes || got < (size_t)st.st_size)
        ok = wrong(found, path, "cannot be read to its end");
    else if (!check_chunks(w, bytes, got, &s->chain[name]))
        ok = wrong(found, path, got ? "is a mix: no version that was ever completed" : "is empty");
    s->file[name] = st.st_ino;
    free(bytes);
    return ok;
}

// ---- names ----

static bool is_known(const char *name, bool top, struct torture_state *s)
{
    unsigned n;
    char again[32];

    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (top && strcmp(name, "sub") == 0))
        return true;
    if (sscanf(name, "key%u", &n) == 1 && n < TORTURE_NAMES && top == (n < TORTURE_NAMES / 2)) {
        snprintf(again, sizeof(again), "key%u", n);
        return strcmp(name, again) == 0;
    }
    if (top && sscanf(name, "dir%u", &n) == 1 && n < TORTURE_DIRS) {
        snprintf(again, sizeof(again), "dir%u", n);
        s->dir[n] = true;
        return strcmp(name, again) == 0;
    }
    return false;
}

static bool read_names(const char *path, bool top, struct torture_state *s,
                       struct torture_found *found)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    bool ok = true;

    if (!dir)
        return wrong(found, path, "the directory is lost");
    while (ok && (entry = readdir(dir)))
        if (!is_known(entry->d_name, top, s))
            ok = wrong(found, path, "holds a name that nobody made");
    closedir(dir);
    return ok;
}

static bool read_state(const struct torture_writer *w, struct torture_state *s,
                       struct torture_found *found)
{
    char sub[PATH_MAX];

    snprintf(sub, sizeof(sub), "%s/sub", w->dir);
    *s = (struct torture_state){0};
    bool ok = read_names(w->dir, true, s, found) && read_names(sub, false, s, found);
    for (unsigned i = 0; ok && i < TORTURE_NAMES; i++)
        ok = read_file(w, i, s, found);
    return ok;
}

// ---- history ----

// The first name in which two states differ, for the message.
static void explain(const struct torture_state *is, const struct torture_state *wanted,
                    struct torture_found *found, const struct torture_writer *w)
{
    char what[160] = "the links between names differ";

    for (unsigned i = 0; i < TORTURE_DIRS; i++)
        if (is->dir[i] != wanted->dir[i])
            snprintf(what, sizeof(what), "dir%u is %s", i, is->dir[i] ? "there again" : "lost");
    for (unsigned i = 0; i < TORTURE_NAMES; i++) {
        if (!is->file[i] != !wanted->file[i])
            snprintf(what, sizeof(what), "key%u is %s", i, is->file[i] ? "there again" : "lost");
        else if (is->file[i] && is->chain[i] != wanted->chain[i])
            snprintf(what, sizeof(what), "key%u has another version", i);
    }
    snprintf(
        found->text, sizeof(found->text),
        "%.200s is no moment of its history since the last acknowledgement; compared with that: "
        "%s",
        w->dir, what);
}

static uint64_t last_acknowledged(const struct torture_writer *w, struct torture_found *found)
{
    struct torture_line line;
    uint64_t version = 0;

    for (off_t at = 0; pread(w->journal_fd, &line, sizeof(line), at) == (ssize_t)sizeof(line);
         at += (off_t)sizeof(line)) {
        found->attempted += line.mark == TORTURE_INTENT;
        found->acknowledged += line.mark == TORTURE_ACK;
        found->refused += line.mark == TORTURE_REFUSED;
        if (line.mark == TORTURE_ACK)
            version = line.event.version;
    }
    return version;
}

// The event of the intent at `at` has not happened.
static bool has_failed(const struct torture_writer *w, off_t at)
{
    struct torture_line next;

    return pread(w->journal_fd, &next, sizeof(next), at + (off_t)sizeof(next)) ==
               (ssize_t)sizeof(next) &&
           (next.mark == TORTURE_REFUSED || next.mark == TORTURE_FAILED);
}

bool torture_verify(struct torture_writer *w, struct torture_found *ret_found)
{
    struct torture_state is, state = w->state, wanted = w->state, match = {0};
    struct torture_line line;
    bool found_it = false;

    *ret_found = (struct torture_found){0};
    uint64_t acknowledged = last_acknowledged(w, ret_found), version = w->version;
    if (!read_state(w, &is, ret_found))
        return false;
    if (acknowledged == 0 && torture_same(&is, &state))
        found_it = true, match = state;
    for (off_t at = 0; pread(w->journal_fd, &line, sizeof(line), at) == (ssize_t)sizeof(line);
         at += (off_t)sizeof(line)) {
        if (line.mark != TORTURE_INTENT)
            continue;
        version = line.event.version;
        ret_found->indeterminate += version > acknowledged;
        if (!has_failed(w, at))
            torture_apply(&state, &line.event);
        if (version == acknowledged)
            wanted = state;
        if (version >= acknowledged && torture_same(&is, &state))
            found_it = true, match = state;
    }
    w->version = version;
    if (!found_it)
        explain(&is, &wanted, ret_found, w);
    else
        w->state = match;
    return found_it;
}
