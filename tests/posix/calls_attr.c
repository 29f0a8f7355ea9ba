// SPDX-License-Identifier: MIT
// Commands of the cases: attributes, extended attributes, ACLs.

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "tests/posix/posix.h"

// ---- stat ----

static int64_t stat_of(struct call *c, unsigned i, int flags, struct stat *st)
{
    struct at at = arg_at(c, i);

    return outcome(fstatat(at.dir, at.path, st, flags | (at.bare ? AT_EMPTY_PATH : 0)));
}

static int64_t field(const struct stat *st, const char *name)
{
    if (strcmp(name, "mode") == 0)
        return st->st_mode & 07777;
    if (strcmp(name, "type") == 0)
        return st->st_mode & S_IFMT;
    if (strcmp(name, "nlink") == 0)
        return (int64_t)st->st_nlink;
    if (strcmp(name, "uid") == 0)
        return st->st_uid;
    if (strcmp(name, "gid") == 0)
        return st->st_gid;
    if (strcmp(name, "size") == 0)
        return st->st_size;
    if (strcmp(name, "blocks") == 0)
        return st->st_blocks;
    if (strcmp(name, "blksize") == 0)
        return st->st_blksize;
    if (strcmp(name, "major") == 0)
        return major(st->st_rdev);
    if (strcmp(name, "minor") == 0)
        return minor(st->st_rdev);
    nonsense("no field of stat: %s", name);
}

// stat PATH FIELD; lstat likewise
static int64_t do_stat(struct call *c)
{
    struct stat st;
    int64_t r = stat_of(c, 1, 0, &st);

    return r < 0 ? r : field(&st, c->argv[2]);
}

static int64_t do_lstat(struct call *c)
{
    struct stat st;
    int64_t r = stat_of(c, 1, AT_SYMLINK_NOFOLLOW, &st);

    return r < 0 ? r : field(&st, c->argv[2]);
}

// same PATH PATH: 1 for one and the same inode.
static int64_t do_same(struct call *c)
{
    struct stat a, b;
    int64_t r = stat_of(c, 1, 0, &a);

    if (r == 0)
        r = stat_of(c, 2, 0, &b);
    return r < 0 ? r : a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

// ---- times ----

static int64_t time_text(struct call *c, const struct timespec *t)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "%lld.%09ld", (long long)t->tv_sec, t->tv_nsec);

    return answer_text(c, text, (size_t)n);
}

static int64_t do_atime(struct call *c)
{
    struct stat st;
    int64_t r = stat_of(c, 1, AT_SYMLINK_NOFOLLOW, &st);

    return r < 0 ? r : time_text(c, &st.st_atim);
}

static int64_t do_mtime(struct call *c)
{
    struct stat st;
    int64_t r = stat_of(c, 1, AT_SYMLINK_NOFOLLOW, &st);

    return r < 0 ? r : time_text(c, &st.st_mtim);
}

// mark PATH: for `moved`. Waits first and after, so that clocks of any grain move.
static int64_t do_mark(struct call *c)
{
    struct timespec ms = {.tv_nsec = 12000000};

    nanosleep(&ms, NULL);
    int64_t r = stat_of(c, 1, AT_SYMLINK_NOFOLLOW, &c->run->mark);
    nanosleep(&ms, NULL);
    return r;
}

static bool later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

// moved PATH: which times are later than at the mark, of "m" and "c".
static int64_t do_moved(struct call *c)
{
    char text[4];
    struct stat st;
    size_t n = 0;
    int64_t r = stat_of(c, 1, AT_SYMLINK_NOFOLLOW, &st);

    if (r < 0)
        return r;
    if (later(&st.st_mtim, &c->run->mark.st_mtim))
        text[n++] = 'm';
    if (later(&st.st_ctim, &c->run->mark.st_ctim))
        text[n++] = 'c';
    return answer_text(c, text, n);
}

// atime-moved PATH: 1 when it is later than at the mark.
static int64_t do_atime_moved(struct call *c)
{
    struct stat st;
    int64_t r = stat_of(c, 1, AT_SYMLINK_NOFOLLOW, &st);

    return r < 0 ? r : later(&st.st_atim, &c->run->mark.st_atim);
}

static struct timespec time_arg(const char *text)
{
    struct timespec t = {0};
    char *end;

    if (strcmp(text, "now") == 0)
        return (struct timespec){.tv_nsec = UTIME_NOW};
    if (strcmp(text, "omit") == 0)
        return (struct timespec){.tv_nsec = UTIME_OMIT};
    t.tv_sec = strtoll(text, &end, 10);
    if (*end == '.')
        t.tv_nsec = strtol(end + 1, NULL, 10); // nine digits, or more for what is no time
    return t;
}

// utimens PATH ATIME MTIME [FLAGS]; a bare descriptor: futimens.
static int64_t do_utimens(struct call *c)
{
    struct at at = arg_at(c, 1);
    struct timespec t[2] = {time_arg(c->argv[2]), time_arg(c->argv[3])};

    if (at.bare)
        return outcome(futimens(at.dir, t));
    return outcome(utimensat(at.dir, at.path, t, (int)arg_num_or(c, 4, 0)));
}

// btime PATH: 1 when statx(2) knows a time of birth that is between the last minute and now.
static int64_t do_btime(struct call *c)
{
    struct at at = arg_at(c, 1);
    struct timespec now;
    struct statx st;

    if (statx(at.dir, at.path, AT_SYMLINK_NOFOLLOW | (at.bare ? AT_EMPTY_PATH : 0),
              STATX_BASIC_STATS | STATX_BTIME, &st))
        return -errno;
    clock_gettime(CLOCK_REALTIME, &now);
    return (st.stx_mask & STATX_BTIME) && st.stx_btime.tv_sec <= now.tv_sec &&
           st.stx_btime.tv_sec >= now.tv_sec - 60;
}

// statx-mtime PATH: 1 when statx(2) and stat(2) say the same of everything.
static int64_t do_statx_same(struct call *c)
{
    struct at at = arg_at(c, 1);
    struct statx x;
    struct stat st;

    if (statx(at.dir, at.path, AT_SYMLINK_NOFOLLOW, STATX_ALL, &x))
        return -errno;
    if (fstatat(at.dir, at.path, &st, AT_SYMLINK_NOFOLLOW))
        return -errno;
    return x.stx_ino == st.st_ino && x.stx_mode == st.st_mode && x.stx_uid == st.st_uid &&
           x.stx_gid == st.st_gid && x.stx_nlink == st.st_nlink &&
           x.stx_size == (uint64_t)st.st_size && x.stx_blocks == (uint64_t)st.st_blocks &&
           x.stx_mtime.tv_sec == st.st_mtim.tv_sec &&
           x.stx_mtime.tv_nsec == (uint32_t)st.st_mtim.tv_nsec &&
           x.stx_ctime.tv_nsec == (uint32_t)st.st_ctim.tv_nsec &&
           x.stx_rdev_major == major(st.st_rdev) && x.stx_rdev_minor == minor(st.st_rdev);
}

// ---- mode and owner ----

static int64_t do_chmod(struct call *c)
{
    struct at at = arg_at(c, 1);

    if (at.bare)
        return outcome(fchmod(at.dir, (mode_t)arg_num(c, 2)));
    return outcome(fchmodat(at.dir, at.path, (mode_t)arg_num(c, 2), 0));
}

static int64_t do_chown(struct call *c)
{
    struct at at = arg_at(c, 1);
    uid_t uid = (uid_t)arg_num(c, 2);
    gid_t gid = (gid_t)arg_num(c, 3);

    if (at.bare)
        return outcome(fchown(at.dir, uid, gid));
    return outcome(fchownat(at.dir, at.path, uid, gid, (int)arg_num_or(c, 4, 0)));
}

static int64_t do_access(struct call *c)
{
    struct at at = arg_at(c, 1);

    return outcome(faccessat(at.dir, at.path, (int)arg_num(c, 2), AT_EACCESS));
}

// ---- extended attributes ----

static int64_t do_setxattr(struct call *c)
{
    struct at at = arg_at(c, 1);
    int flags = (int)arg_num_or(c, 4, 0);

    if (at.bare)
        return outcome(fsetxattr(at.dir, c->argv[2], c->argv[3], c->lens[3], flags));
    return outcome(setxattr(at.path, c->argv[2], c->argv[3], c->lens[3], flags));
}

static int64_t do_lsetxattr(struct call *c)
{
    return outcome(lsetxattr(c->argv[1], c->argv[2], c->argv[3], c->lens[3], 0));
}

// getxattr PATH NAME [SIZE]: the value; with a size of 0 its length.
static int64_t do_getxattr(struct call *c)
{
    struct at at = arg_at(c, 1);
    static char value[TEXT_MAX];
    size_t size = (size_t)arg_num_or(c, 3, TEXT_MAX - 1);
    ssize_t n = at.bare ? fgetxattr(at.dir, c->argv[2], value, size)
                        : getxattr(at.path, c->argv[2], value, size);

    if (n < 0 || size == 0)
        return outcome(n);
    return answer_text(c, value, (size_t)n);
}

static int64_t do_removexattr(struct call *c)
{
    struct at at = arg_at(c, 1);

    return outcome(at.bare ? fremovexattr(at.dir, c->argv[2]) : removexattr(at.path, c->argv[2]));
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// listxattr PATH: sorted, with a comma between.
static int64_t do_listxattr(struct call *c)
{
    static char names[TEXT_MAX], text[TEXT_MAX];
    const char *sorted[1000];
    ssize_t n = listxattr(c->argv[1], names, (size_t)arg_num_or(c, 2, sizeof(names)));
    size_t count = 0, len = 0;

    if (n < 0)
        return -errno;
    if (c->argc > 2)
        return n;
    for (ssize_t at = 0; at < n && count < 1000; at += (ssize_t)strlen(names + at) + 1)
        sorted[count++] = names + at;
    qsort(sorted, count, sizeof(sorted[0]), by_text);
    text[0] = '\0';
    for (size_t i = 0; i < count; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i ? "," : "", sorted[i]);
    return answer_text(c, text, len);
}

// ---- ACLs: "u6,U1000:6,g4,G100:7,m6,o0" stands for user::rw-,user:1000:rw-,… ----

struct acl_entry {
    uint16_t tag, perm;
    uint32_t id;
};

static const char acl_letters[] = "uUgGmo";
static const uint16_t acl_tags[] = {1, 2, 4, 8, 16, 32};

static size_t acl_encode(const char *text, unsigned char *bytes)
{
    uint32_t version = 2;
    size_t len = sizeof(version);

    memcpy(bytes, &version, sizeof(version));
    while (*text) {
        const char *letter = strchr(acl_letters, *text++);
        struct acl_entry e = {.id = UINT32_MAX};
        char *end = NULL;

        if (!letter)
            nonsense("no ACL");
        e.tag = acl_tags[letter - acl_letters];
        if (isupper((unsigned char)*letter)) {
            e.id = (uint32_t)strtoul(text, &end, 10);
            text = end + 1;
        }
        e.perm = (uint16_t)strtoul(text, &end, 8);
        text = end + (*end == ',');
        memcpy(bytes + len, &e, sizeof(e));
        len += sizeof(e);
    }
    return len;
}

static const char *acl_name(const char *type)
{
    return strcmp(type, "default") == 0 ? "system.posix_acl_default" : "system.posix_acl_access";
}

static int64_t do_setacl(struct call *c)
{
    static unsigned char bytes[65536];
    size_t len = acl_encode(c->argv[3], bytes);

    return outcome(setxattr(c->argv[1], acl_name(c->argv[2]), bytes, len, 0));
}

// acl-many PATH COUNT: an ACL with so many named users.
static int64_t do_acl_many(struct call *c)
{
    static char text[60000];
    static unsigned char bytes[65536];
    size_t len = (size_t)snprintf(text, sizeof(text), "u7");

    for (int64_t i = 0; i < arg_num(c, 2); i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, ",U%lld:6", (long long)(2000 + i));
    snprintf(text + len, sizeof(text) - len, ",g4,m7,o0");
    return outcome(setxattr(c->argv[1], acl_name("access"), bytes, acl_encode(text, bytes), 0));
}

static int64_t do_getacl(struct call *c)
{
    static unsigned char bytes[65536];
    static char text[TEXT_MAX];
    ssize_t n = getxattr(c->argv[1], acl_name(c->argv[2]), bytes, sizeof(bytes));
    size_t len = 0;

    if (n < 0)
        return -errno;
    for (size_t at = 4; at + 8 <= (size_t)n; at += 8) {
        struct acl_entry e;
        unsigned i = 0;

        memcpy(&e, bytes + at, sizeof(e));
        while (i < 5 && acl_tags[i] != e.tag)
            i++;
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%c", at > 4 ? "," : "",
                                acl_letters[i]);
        if (isupper((unsigned char)acl_letters[i]))
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%u:", e.id);
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%o", e.perm);
    }
    return answer_text(c, text, len);
}

static int64_t do_delacl(struct call *c)
{
    return outcome(removexattr(c->argv[1], acl_name(c->argv[2])));
}

// ---- statfs ----

static int64_t do_namemax(struct call *c)
{
    struct statvfs s;

    return statvfs(c->argv[1], &s) ? -errno : (int64_t)s.f_namemax;
}

// statfs-sane PATH: 1 when the numbers can be true.
static int64_t do_statfs_sane(struct call *c)
{
    struct statvfs s;

    if (statvfs(c->argv[1], &s))
        return -errno;
    return s.f_blocks > 0 && s.f_bfree <= s.f_blocks && s.f_bavail <= s.f_bfree && s.f_files > 0 &&
           s.f_ffree <= s.f_files && s.f_bsize >= 512 && s.f_frsize >= 512;
}

// statfs-less PATH BYTES: 1 when a file of so many synced bytes is seen in the free space.
static int64_t do_statfs_less(struct call *c)
{
    struct statvfs before, after;
    size_t size = (size_t)arg_num(c, 2);
    char *bytes = calloc(1, size);
    int fd = open(c->argv[1], O_CREAT | O_WRONLY, 0644);

    if (!bytes || fd < 0 || fstatvfs(fd, &before))
        return -errno;
    memset(bytes, 'x', size);
    ssize_t n = write(fd, bytes, size);
    free(bytes);
    if (n != (ssize_t)size || fsync(fd) || fstatvfs(fd, &after))
        return -errno;
    close(fd);
    return (before.f_bfree - after.f_bfree) * before.f_frsize >= size / 2;
}

const struct command attr_commands[] = {
    {"stat", do_stat, 2},
    {"lstat", do_lstat, 2},
    {"same", do_same, 2},
    {"atime", do_atime, 1},
    {"mtime", do_mtime, 1},
    {"mark", do_mark, 1},
    {"moved", do_moved, 1},
    {"atime-moved", do_atime_moved, 1},
    {"utimens", do_utimens, 3},
    {"btime", do_btime, 1},
    {"statx-same", do_statx_same, 1},
    {"chmod", do_chmod, 2},
    {"chown", do_chown, 3},
    {"access", do_access, 2},
    {"setxattr", do_setxattr, 3},
    {"lsetxattr", do_lsetxattr, 3},
    {"getxattr", do_getxattr, 2},
    {"removexattr", do_removexattr, 2},
    {"listxattr", do_listxattr, 1},
    {"setacl", do_setacl, 3},
    {"acl-many", do_acl_many, 2},
    {"getacl", do_getacl, 2},
    {"delacl", do_delacl, 2},
    {"namemax", do_namemax, 1},
    {"statfs-sane", do_statfs_sane, 1},
    {"statfs-less", do_statfs_less, 2},
    {NULL, NULL, 0},
};
