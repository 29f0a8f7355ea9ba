// SPDX-License-Identifier: MIT
// The language of the cases: COMMAND ARGUMENT… [=> EXPECTED [/ EXPECTED-ON-AEROFS]]; …

#include "tests/posix/posix.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

// clang-format off
#define C(x) {#x, x}
static const struct { const char *name; int64_t value; } constants[] = {
    C(O_RDONLY), C(O_WRONLY), C(O_RDWR), C(O_CREAT), C(O_EXCL), C(O_TRUNC), C(O_APPEND), C(O_NOFOLLOW),
    C(O_DIRECTORY), C(O_SYNC), C(O_DSYNC), C(O_DIRECT), C(O_PATH), C(O_TMPFILE), C(O_NONBLOCK),
    C(O_CLOEXEC), C(O_NOATIME), C(O_LARGEFILE), C(O_NOCTTY),
    C(SEEK_SET), C(SEEK_CUR), C(SEEK_END), C(SEEK_DATA), C(SEEK_HOLE),
    C(FALLOC_FL_KEEP_SIZE), C(FALLOC_FL_PUNCH_HOLE), C(FALLOC_FL_ZERO_RANGE),
    C(FALLOC_FL_COLLAPSE_RANGE), C(FALLOC_FL_INSERT_RANGE), C(FALLOC_FL_UNSHARE_RANGE),
    C(RENAME_NOREPLACE), C(RENAME_EXCHANGE), C(RENAME_WHITEOUT),
    C(AT_EMPTY_PATH), C(AT_SYMLINK_FOLLOW), C(AT_SYMLINK_NOFOLLOW), C(AT_REMOVEDIR), C(AT_EACCESS),
    C(S_IFREG), C(S_IFDIR), C(S_IFCHR), C(S_IFBLK), C(S_IFIFO), C(S_IFSOCK), C(S_IFLNK),
    C(XATTR_CREATE), C(XATTR_REPLACE), C(R_OK), C(W_OK), C(X_OK), C(F_OK),
    C(LOCK_SH), C(LOCK_EX), C(LOCK_UN), C(LOCK_NB), C(F_RDLCK), C(F_WRLCK), C(F_UNLCK),
    C(RWF_APPEND), C(RWF_SYNC), C(RWF_DSYNC), C(RWF_HIPRI), C(RWF_NOWAIT),
    C(PROT_READ), C(PROT_WRITE), C(MAP_SHARED), C(MAP_PRIVATE), C(MS_SYNC), C(MS_ASYNC), C(MS_INVALIDATE),
    C(POSIX_FADV_DONTNEED), C(POSIX_FADV_WILLNEED),
};
static const struct { const char *name; int value; } errnos[] = {
    C(EPERM), C(ENOENT), C(EIO), C(ENXIO), C(EBADF), C(EAGAIN), C(EACCES), C(EBUSY), C(EEXIST), C(EXDEV),
    C(ENODEV), C(ENOTDIR), C(EISDIR), C(EINVAL), C(ENOTTY), C(ETXTBSY), C(EFBIG), C(ENOSPC), C(ESPIPE),
    C(EROFS), C(EMLINK), C(ERANGE), C(ENAMETOOLONG), C(ENOTEMPTY), C(ELOOP), C(ENODATA), C(EOVERFLOW),
    C(EOPNOTSUPP), C(E2BIG), C(ESTALE), C(ENOSYS), C(EDQUOT), C(ECANCELED),
};
#undef C
// clang-format on

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

void nonsense(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    _exit(99);
}

int64_t outcome(int64_t r)
{
    return r == -1 ? -errno : r;
}

int64_t answer_text(struct call *c, const void *text, size_t len)
{
    if (len >= TEXT_MAX)
        nonsense("an answer of %zu bytes", len);
    memcpy(c->ret->text, text, len);
    c->ret->text[len] = '\0';
    c->ret->len = len;
    c->ret->is_text = true;
    return 0;
}

// ---- numbers ----

static int64_t one_constant(const char *text, size_t len)
{
    char copy[64], *end;

    if (len == 0 || len >= sizeof(copy))
        nonsense("no number: %.*s", (int)len, text);
    memcpy(copy, text, len);
    copy[len] = '\0';
    for (size_t i = 0; i < COUNT(constants); i++) {
        if (strcmp(constants[i].name, copy) == 0)
            return constants[i].value;
    }
    for (size_t i = 0; copy[0] == '-' && i < COUNT(errnos); i++) {
        if (strcmp(errnos[i].name, copy + 1) == 0)
            return -errnos[i].value;
    }
    int64_t value = strtoll(copy, &end, 0);
    static const char units[] = "KMGT";
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (end == copy || (*end && (!unit || end[1])))
        nonsense("no number: %s", copy);
    return unit ? value << 10 * (unit - units + 1) : value;
}

int64_t constant(const char *text)
{
    int64_t value = 0;

    for (;;) {
        size_t len = strcspn(text, "|");
        value |= one_constant(text, len);
        if (!text[len])
            return value;
        text += len + 1;
    }
}

int64_t arg_num(struct call *c, unsigned i)
{
    if (i >= c->argc)
        nonsense("%s: argument %u is missing", c->argv[0], i);
    return constant(c->argv[i]);
}

int64_t arg_num_or(struct call *c, unsigned i, int64_t otherwise)
{
    return i < c->argc ? constant(c->argv[i]) : otherwise;
}

static int reg_of(const char *text)
{
    if (text[0] != ':' || !islower((unsigned char)text[1]))
        nonsense("no descriptor: %s", text);
    return text[1] - 'a';
}

int arg_fd(struct call *c, unsigned i)
{
    if (i < c->argc && strcmp(c->argv[i], ":bad") == 0)
        return 9999;
    if (i >= c->argc || c->argv[i][2] != '\0')
        nonsense("%s: argument %u is no descriptor", c->argv[0], i);
    return c->run->regs[reg_of(c->argv[i])];
}

struct at arg_at(struct call *c, unsigned i)
{
    struct at at = {.dir = AT_FDCWD};

    if (i >= c->argc)
        nonsense("%s: argument %u is missing", c->argv[0], i);
    at.path = c->argv[i];
    if (at.path[0] == ':') {
        at.dir = c->run->regs[reg_of(at.path)];
        at.path += at.path[2] == '/' ? 3 : 2;
        at.bare = !*at.path;
    }
    return at;
}

// ---- words ----

struct words {
    unsigned count;
    char *text[ARGS_MAX];
    size_t lens[ARGS_MAX];
    bool quoted[ARGS_MAX];
    char store[TEXT_MAX * 2];
    size_t used;
};

static void put(struct words *w, char byte)
{
    if (w->used + 1 >= sizeof(w->store))
        nonsense("a word is too long");
    w->store[w->used++] = byte;
}

static int hex(char digit)
{
    return isdigit((unsigned char)digit) ? digit - '0' : tolower((unsigned char)digit) - 'a' + 10;
}

// One character of a word, or what stands for several: \n, \xNN, @N (N times 'a'), @Nc, @./N (N
// bytes of
// "./").
static const char *expand(struct words *w, const char *at, const struct run *run)
{
    if (at[0] == '\\' && at[1] == 'x') {
        put(w, (char)(hex(at[2]) << 4 | hex(at[3])));
        return at + 4;
    }
    if (at[0] == '\\') {
        put(w, at[1] == 'n' ? '\n' : at[1]);
        return at + 2;
    }
    if (at[0] == '@' && isdigit((unsigned char)at[1])) {
        char *end, letter = 'a';
        long times = strtol(at + 1, &end, 10);
        if (islower((unsigned char)*end))
            letter = *end++;
        for (long i = 0; i < times; i++)
            put(w, letter);
        return end;
    }
    if (strncmp(at, "@./", 3) == 0) {
        char *end;
        long bytes = strtol(at + 3, &end, 10);
        for (long i = 0; i < bytes; i++)
            put(w, i % 2 ? '/' : '.');
        return end;
    }
    if (at[0] == '$') {
        bool other = strncmp(at, "$OTHER", 6) == 0;
        if (!other && strncmp(at, "$HERE", 5) != 0)
            nonsense("unknown variable: %s", at);
        for (const char *p = other ? run->other : run->here; *p; p++)
            put(w, *p);
        return at + (other ? 6 : 5);
    }
    put(w, *at);
    return at + 1;
}

// Takes one command apart, to its end at ';' or the end of the line.
static const char *take_words(struct words *w, const char *at, const struct run *run)
{
    w->count = 0;
    w->used = 0;
    for (;;) {
        while (isspace((unsigned char)*at))
            at++;
        if (*at == '\0' || *at == ';')
            return *at ? at + 1 : at;
        if (w->count == ARGS_MAX)
            nonsense("too many words: %s", at);
        bool quoted = *at == '"';
        size_t start = w->used;
        w->text[w->count] = w->store + start;
        w->quoted[w->count] = quoted;
        at += quoted;
        while (*at && (quoted ? *at != '"' : !isspace((unsigned char)*at) && *at != ';'))
            at = expand(w, at, run);
        at += quoted;
        w->lens[w->count++] = w->used - start;
        put(w, '\0');
    }
}

// ---- running ----

static const struct command *find_command(const char *name)
{
    const struct command *const tables[] = {file_commands, name_commands, attr_commands,
                                            more_commands};

    for (size_t t = 0; t < COUNT(tables); t++) {
        for (const struct command *c = tables[t]; c->name; c++) {
            if (strcmp(c->name, name) == 0)
                return c;
        }
    }
    nonsense("unknown command: %s", name);
}

void script_command(struct run *run, char *const *argv, const size_t *lens, unsigned argc,
                    struct result *ret)
{
    struct call c = {.run = run, .argc = argc, .ret = ret};
    int reg = -1;

    memcpy(c.argv, argv, argc * sizeof(argv[0]));
    memcpy(c.lens, lens, argc * sizeof(lens[0]));
    if (islower((unsigned char)argv[0][0]) && argv[0][1] == '=') {
        reg = argv[0][0] - 'a';
        c.argv[0] += 2;
    }
    const struct command *command = find_command(c.argv[0]);
    if (argc < command->args + 1)
        nonsense("%s wants %u arguments", command->name, command->args);
    ret->is_text = false;
    errno = 0;
    ret->value = command->run(&c);
    if (reg >= 0)
        run->regs[reg] = (int)ret->value;
}

static void describe(const struct result *r, char *text, size_t size)
{
    if (r->is_text) {
        snprintf(text, size, "\"%.200s\"", r->text);
        return;
    }
    for (size_t i = 0; i < COUNT(errnos); i++) {
        if (r->value == -errnos[i].value) {
            snprintf(text, size, "-%s", errnos[i].name);
            return;
        }
    }
    snprintf(text, size, "%lld", (long long)r->value);
}

// The index of the word that holds what is expected here; 0: nothing is.
static unsigned expected_at(const struct words *w, int side, unsigned *ret_argc)
{
    for (unsigned i = 1; i + 1 < w->count; i++) {
        if (w->quoted[i] || strcmp(w->text[i], "=>") != 0)
            continue;
        *ret_argc = i;
        if (side == 1 && i + 3 < w->count && strcmp(w->text[i + 2], "/") == 0)
            return i + 3;
        return i + 1;
    }
    *ret_argc = w->count;
    return 0;
}

static bool as_expected(const struct words *w, unsigned at, const struct result *r)
{
    if (at == 0)
        return r->is_text || r->value >= 0;
    if (w->quoted[at])
        return r->is_text && r->len == w->lens[at] && memcmp(r->text, w->text[at], r->len) == 0;
    return !r->is_text && r->value == constant(w->text[at]);
}

bool script_run(struct run *run, const char *script, int side, char *why, size_t why_size)
{
    static struct words w;
    static struct result r;

    for (const char *at = script, *next; *at; at = next) {
        unsigned argc, expected;

        next = take_words(&w, at, run);
        if (w.count == 0)
            continue;
        expected = expected_at(&w, side, &argc);
        script_command(run, w.text, w.lens, argc, &r);
        if (!as_expected(&w, expected, &r)) {
            char found[256];
            describe(&r, found, sizeof(found));
            snprintf(why, why_size, "%s at: %.*s", found, (int)strcspn(at, ";"), at);
            return false;
        }
    }
    return true;
}
