// SPDX-License-Identifier: MIT
// Parsing of the command line of aerofs-mount.

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mountutil/mount_opts.h"

const char mount_opts_help[] =
    "Usage: aerofs-mount [options] STORE MOUNTPOINT\n"
    "Mounts the AeroFS store in the directory STORE at the directory MOUNTPOINT.\n"
    "\n"
    "  -o OPTION[,OPTION...]  mount options, see below\n"
    "  -f, --foreground       stay in the foreground, messages to stderr\n"
    "      --create           the same as -o create\n"
    "  -r, --read-only        the same as -o ro\n"
    "  -h, --help             this text\n"
    "  -V, --version          version of the program\n"
    "\n"
    "Options:\n"
    "  create             make a store where none is (STORE missing or empty)\n"
    "  ro                 recover, then change nothing\n"
    "  size=SIZE          cap of the store (default: what the disk has)\n"
    "  log=SIZE           bound of the log (default 64M)\n"
    "  cache=SIZE         memory for blocks of the tree (default 256M)\n"
    "  commit_open=SECS   complete what loggers append every SECS seconds (default 30, 0: never)\n"
    "  io=uring|plain     uring: insists on it; plain: the same as no-uring\n"
    "  baseline           all optimizations off; after it, those that are named are on:\n"
#define X(id, name, help) "  [no-]" name ": " help "\n"
    SWITCHES(X)
#undef X
        "                     uring and direct insist: that way, or the mount is refused\n"
        "  allow_other        other users may use the mount (default: only who mounted it)\n"
        "  allow_root         root may use it besides who mounted it\n"
        "  uid=N, gid=N       show every file as owned by N\n"
        "  umask=OCTAL        show every file with all permissions but these\n"
        "  fsname=NAME        source shown by mount(8) (default: STORE)\n"
        "  nosuid, nodev (default), suid, dev, noexec, exec, noatime, sync,\n"
        "  and what fstab holds for mount(8)\n"
        "SIZE takes K, M, G or T (powers of 1024).\n"
        "\n"
        "Exit status:\n"
        "   0 mounted, recovered and running (-f: ended cleanly)    1 damaged\n"
        "   2 usage                3 STORE or MOUNTPOINT missing    4 no store, or an empty directory\n"
        "   5 in use by another    6 newer format                   7 no valid superblock\n"
        "   8 log damaged          9 log segment missing           10 no permission\n"
        "  11 no space            12 disk is read-only             13 no FUSE, or mounting failed\n"
        "  15 STORE not empty     16 I/O error                     17 anything else\n";

struct parser {
    struct mount_opts *opts;
    char *message;
    size_t message_size;
    bool is_helper; // called by mount(8), as mount.aerofs
};

static bool is_helper_name(const char *name)
{
    const char *slash = name ? strrchr(name, '/') : NULL;

    return name && strncmp(slash ? slash + 1 : name, "mount.", 6) == 0;
}

static bool parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char suffixes[] = "KMGT";
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (errno)
        return false;
    if (*end) {
        const char *at = strchr(suffixes, *end >= 'a' ? *end - 'a' + 'A' : *end);
        if (!at || end[1])
            return false;
        shift = 10 * (unsigned)(at - suffixes + 1);
    }
    // Larger than any file can be means a slip of the keyboard.
    if (value == 0 || value > (uint64_t)INT64_MAX >> shift)
        return false;
    *ret_bytes = (uint64_t)value << shift;
    return true;
}

static bool parse_seconds(const char *text, uint64_t *ret_ms)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || value > UINT32_MAX)
        return false;
    *ret_ms = value * 1000;
    return true;
}

// A number of an owner, or a mask in octal; no name: mount(8) has translated those.
static bool parse_u32(const char *text, int base, uint32_t max, uint32_t *ret_value)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, base);
    if (errno || *end || value > max)
        return false;
    *ret_value = (uint32_t)value;
    return true;
}

static bool fail(struct parser *p, const char *fmt, const char *what)
{
    // The formats are literals of this file with one %s.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(p->message, p->message_size, fmt, what);
#pragma GCC diagnostic pop
    return false;
}

// ---- names without a value ----

static bool pass_on(struct parser *p, const char *name)
{
    char *options = p->opts->kernel_options;
    size_t used = strlen(options), room = sizeof(p->opts->kernel_options) - used;
    int n = snprintf(options + used, room, "%s%s", used ? "," : "", name);

    return n > 0 && (size_t)n < room ? true : fail(p, "too many options at '%s'", name);
}

static bool is_one_of(const char *name, const char *const *names)
{
    for (; *names; names++) {
        if (strcmp(name, *names) == 0)
            return true;
    }
    return false;
}

// "no-NAME", "NAME" and "baseline". The last word counts.
static bool take_optimization(struct parser *p, const char *name)
{
    struct io_choice *io = &p->opts->io;
    bool on = strncmp(name, "no-", 3) != 0;
    enum switch_id id;

    if (strcmp(name, "baseline") == 0) {
        *io = (struct io_choice){.switches = switches_baseline()};
        return true;
    }
    if (!switch_find(on ? name : name + 3, &id))
        return false;
    switch_set(&io->switches, id, on);
    if (id == SWITCH_URING)
        io->uring = on;
    if (id == SWITCH_DIRECT)
        io->direct = on;
    return true;
}

static bool take_flag(struct parser *p, const char *name)
{
    static const char *const passed_on[] = {"allow_other", "allow_root", "dev",    "nodev", "suid",
                                            "nosuid",      "exec",       "noexec", "sync",  "async",
                                            "dirsync",     "noatime",    NULL};
    // What fstab holds for mount(8) and the boot, and what is so here in any case: permissions are
    // always checked, and reading changes no access time. (noatime goes to the kernel all the same,
    // so that it shows.)
    static const char *const ignored[] = {
        "defaults",    "default_permissions",
        "auto",        "noauto",
        "nofail",      "_netdev",
        "user",        "nouser",
        "users",       "nousers",
        "owner",       "group",
        "atime",       "nolazytime",
        "relatime",    "norelatime",
        "strictatime", "nostrictatime",
        "lazytime",    "silent",
        "diratime",    "nodiratime",
        "nonempty",    "mand",
        "nomand",      "loud",
        NULL,
    };

    if (strcmp(name, "create") == 0)
        p->opts->create = true;
    else if (strcmp(name, "ro") == 0)
        p->opts->read_only = true;
    else if (strcmp(name, "rw") == 0)
        p->opts->read_only = false;
    else if (is_one_of(name, passed_on))
        return pass_on(p, name);
    else if (take_optimization(p, name))
        return true;
    else if (!is_one_of(name, ignored) && strncmp(name, "x-", 2) != 0)
        return fail(p, "unknown option '%s' (aerofs-mount --help lists them)", name);
    return true;
}

// ---- names with a value ----

// uid=, gid= and umask=. The largest number stands for "no change" in chown(2).
static bool take_present(struct parser *p, const char *name, const char *value)
{
    struct fs_present *present = &p->opts->present;

    if (strcmp(name, "uid") == 0) {
        present->uid_set = parse_u32(value, 10, UINT32_MAX - 1, &present->uid);
        return present->uid_set ? true : fail(p, "uid=%s is no number of a user", value);
    }
    if (strcmp(name, "gid") == 0) {
        present->gid_set = parse_u32(value, 10, UINT32_MAX - 1, &present->gid);
        return present->gid_set ? true : fail(p, "gid=%s is no number of a group", value);
    }
    present->umask_set = parse_u32(value, 8, 0777, &present->umask);
    return present->umask_set ? true : fail(p, "umask=%s is no octal number up to 777", value);
}

static bool take_value(struct parser *p, const char *name, const char *value)
{
    struct mount_opts *o = p->opts;

    if (strcmp(name, "size") == 0)
        return parse_size(value, &o->size_bytes) ? true : fail(p, "size=%s is no size", value);
    if (strcmp(name, "log") == 0)
        return parse_size(value, &o->log_bytes) ? true : fail(p, "log=%s is no size", value);
    if (strcmp(name, "cache") == 0)
        return parse_size(value, &o->cache_bytes) ? true : fail(p, "cache=%s is no size", value);
    if (strcmp(name, "commit_open") == 0)
        return parse_seconds(value, &o->commit_open_ms)
                   ? true
                   : fail(p, "commit_open=%s is no number of seconds", value);
    if (strcmp(name, "io") == 0) {
        if (strcmp(value, "uring") == 0 || strcmp(value, "plain") == 0)
            return take_optimization(p, strcmp(value, "uring") == 0 ? "uring" : "no-uring");
        return fail(p, "io=%s is none of uring, plain", value);
    }
    if (strcmp(name, "fsname") == 0) {
        o->fsname = value;
        return true;
    }
    if (strcmp(name, "subtype") == 0 || strcmp(name, "comment") == 0 || strncmp(name, "x-", 2) == 0)
        return true; // subtype: always aerofs, by which the mount is known
    if (strcmp(name, "uid") == 0 || strcmp(name, "gid") == 0 || strcmp(name, "umask") == 0)
        return take_present(p, name, value);
    return fail(p, "unknown option '%s=' (aerofs-mount --help lists them)", name);
}

// "a,b=c": cut in place. A backslash keeps the comma behind it, as in fsname=/a\,b.
static bool take_list(struct parser *p, char *list)
{
    while (*list) {
        char *to = list, *from = list;
        while (*from && *from != ',') {
            if (*from == '\\' && from[1])
                from++;
            *to++ = *from++;
        }
        char *next = *from ? from + 1 : from;
        *to = '\0';
        char *equals = strchr(list, '=');
        if (equals)
            *equals = '\0';
        if (*list && !(equals ? take_value(p, list, equals + 1) : take_flag(p, list)))
            return false;
        list = next;
    }
    return true;
}

// ---- the command line ----

static bool take_word(struct parser *p, const char *word)
{
    if (!p->opts->store)
        p->opts->store = word;
    else if (!p->opts->mountpoint)
        p->opts->mountpoint = word;
    else
        return fail(p, "one STORE and one MOUNTPOINT, please: '%s' is too much", word);
    return true;
}

// What needs no argument. False: unknown; the message says so.
static bool take_switch(struct parser *p, const char *word)
{
    struct mount_opts *o = p->opts;

    if (strcmp(word, "-f") == 0 && p->is_helper)
        o->fake = true;
    else if (strcmp(word, "-f") == 0 || strcmp(word, "--foreground") == 0)
        o->foreground = true;
    else if (strcmp(word, "--create") == 0)
        o->create = true;
    else if (strcmp(word, "-r") == 0 || strcmp(word, "--read-only") == 0)
        o->read_only = true;
    else if (strcmp(word, "-w") == 0)
        o->read_only = false;
    else if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0)
        o->help = true;
    else if (strcmp(word, "-V") == 0 || strcmp(word, "--version") == 0)
        o->version = true;
    else if (strcmp(word, "-n") != 0 && strcmp(word, "-v") != 0 &&
             strcmp(word, "-s") != 0) // of mount(8)
        return fail(p, "unknown option '%s' (aerofs-mount --help lists them)", word);
    return true;
}

bool mount_opts_parse(int argc, char **argv, struct mount_opts *ret_opts, char *message_text,
                      size_t message_size)
{
    struct parser p = {.opts = ret_opts, .message = message_text, .message_size = message_size};
    bool only_words = false, ok = true;
    size_t bytes = 0;

    p.is_helper = argc > 0 && is_helper_name(argv[0]);
    *ret_opts = (struct mount_opts){.commit_open_ms = UINT64_MAX};
    for (int i = 1; i < argc; i++)
        bytes += strlen(argv[i]) + 1;
    char *at = ret_opts->lists = malloc(bytes + 1);
    if (!at)
        return fail(&p, "%s", "out of memory");
    for (int i = 1; ok && i < argc; i++) {
        const char *word = argv[i], *list = NULL;
        if (only_words || word[0] != '-' || word[1] == '\0') {
            ok = take_word(&p, word);
        } else if (strcmp(word, "--") == 0) {
            only_words = true;
        } else if (strncmp(word, "-o", 2) == 0) {
            list = word[2] ? word + 2 : argv[++i];
            ok = list ? true : fail(&p, "%s needs a list of options", word);
        } else if (p.is_helper && strcmp(word, "-t") == 0 && argv[i + 1]) {
            i++; // the type, which is part of our name
        } else {
            ok = take_switch(&p, word);
        }
        if (ok && list) {
            size_t len = strlen(list) + 1;
            memcpy(at, list, len); // fits: `bytes` counts all words
            ok = take_list(&p, at);
            at += len;
        }
    }
    if (ok && !ret_opts->help && !ret_opts->version && !ret_opts->mountpoint)
        ok = fail(&p, "%s is missing", ret_opts->store ? "MOUNTPOINT" : "STORE");
    return ok;
}

void mount_opts_free(struct mount_opts *opts)
{
    free(opts->lists);
    opts->lists = NULL;
}
