// SPDX-License-Identifier: MIT
// Extended attributes. The kernel checks permissions for each name space; what is left are the name
// spaces that we hold, and what an ordinary user may see in a list.

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <linux/limits.h>

#include "base/check.h"
#include "fs/fs_reply.h"

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_acl(const char *name)
{
    return starts_with(name, "system.posix_acl_");
}

// Never stored, never listed: made when it is asked for.
#define STATE_NAME "user.aerofs.state"

// Of system.* there are POSIX ACLs only.
static int name_check(fuse_ino_t ino, const char *name)
{
    if (fs_is_control(ino))
        return -EOPNOTSUPP;
    if (!starts_with(name, "user.") && !starts_with(name, "trusted.") &&
        !starts_with(name, "security.") && !is_acl(name))
        return -EOPNOTSUPP;
    // A name space alone is no name.
    return strchr(name, '.')[1] ? 0 : -EINVAL;
}

// Whoever sets an ACL keeps the set-gid bit when privileged or in the group, as with chmod(2).
static int may_keep_setgid(struct fs *fs, fuse_req_t req, fuse_ino_t ino, bool *ret_may)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    gid_t groups[256];
    struct store_attr attr;

    *ret_may = true;
    if (ctx->uid == 0)
        return 0;
    int r = store_getattr(fs->store, fs_how(), ino, &attr);
    if (r || !(attr.mode & S_ISGID) || ctx->gid == attr.gid)
        return r;
    // Not known, or more than fit: then not.
    int count = fuse_req_getgroups(req, AF_ARRAY_LEN(groups), groups);
    *ret_may = false;
    for (int i = 0; i < count && i < (int)AF_ARRAY_LEN(groups); i++)
        *ret_may = *ret_may || groups[i] == attr.gid;
    return 0;
}

static int set_acl(struct fs *fs, fuse_req_t req, fuse_ino_t ino, const char *name,
                   const char *value, size_t size)
{
    bool keep;
    int r = may_keep_setgid(fs, req, ino, &keep);

    return r ? r : store_set_acl(fs->store, fs_how(), ino, name, value, size, keep);
}

void fs_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                    size_t size, int flags)
{
    struct fs *fs = fs_enter(req);
    int r = strcmp(name, STATE_NAME) == 0 ? -EPERM : name_check(ino, name);

    if (r == 0)
        r = fs_refuse(ino);
    if (r == 0 && is_acl(name))
        r = size > 0 ? set_acl(fs, req, ino, name, value, size) : -EINVAL;
    else if (r == 0)
        r = store_setxattr(fs->store, fs_how(), ino, name, value, size, flags);
    fs_reply_result(req, ino, r);
}

void fs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct fs *fs = fs_enter(req);
    int r = strcmp(name, STATE_NAME) == 0 ? -EPERM : name_check(ino, name);

    if (r == 0)
        r = fs_refuse(ino);
    if (r == 0 && is_acl(name))
        r = store_set_acl(fs->store, fs_how(), ino, name, NULL, 0, true);
    else if (r == 0)
        r = store_removexattr(fs->store, fs_how(), ino, name);
    fs_reply_result(req, ino, r);
}

// `size` 0 asks for the size alone.
static void reply_value(fuse_req_t req, fuse_ino_t ino, int r, const void *value, size_t got,
                        size_t size)
{
    if (r == 0 && size > 0 && got > size)
        r = -ERANGE;
    if (r)
        fs_reply_result(req, ino, r);
    else if (size == 0)
        fs_reply_size(req, got);
    else
        fs_reply_bytes(req, value, got);
}

// "durable lsn=N"; "pending lsn=N" while the log has not got so far; "pending open", with the LSN
// of what is in history, while written content is not completed.
static int state_text(struct fs *fs, fuse_ino_t ino, char *text, size_t *ret_len)
{
    bool durable, open;
    uint64_t lsn;
    int r = store_durability(fs->store, fs_how(), ino, &lsn, &durable, &open);

    if (r == 0)
        *ret_len = (size_t)snprintf(text, 64, "%s lsn=%llu",
                                    open      ? "pending open"
                                    : durable ? "durable"
                                              : "pending",
                                    (unsigned long long)lsn);
    return r;
}

void fs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct fs *fs = fs_enter(req);
    void *value = fs_call_buffer();
    size_t got = 0;
    int r = name_check(ino, name);

    if (r == 0 && !value)
        r = -ENOMEM;
    if (r == 0 && strcmp(name, STATE_NAME) == 0)
        r = state_text(fs, ino, value, &got);
    else if (r == 0)
        r = store_getxattr(fs->store, fs_how(), ino, name, value,
                           AF_MIN(size, (size_t)XATTR_VALUE_MAX), &got);
    reply_value(req, ino, r, value, got, size);
}

// trusted.* is for the privileged only, its names too. Returns what is left.
static size_t without_trusted(char *names, size_t size)
{
    size_t kept = 0;

    for (size_t at = 0; at < size;) {
        size_t len = strnlen(names + at, size - at) + 1;
        if (at + len > size)
            break;
        if (!starts_with(names + at, "trusted.")) {
            memmove(names + kept, names + at, len);
            kept += len;
        }
        at += len;
    }
    return kept;
}

void fs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct fs *fs = fs_enter(req);
    char *names = fs_call_buffer();
    size_t got = 0;
    int r = names ? 0 : -ENOMEM;

    // The whole list, also when the size alone is asked for: it depends on who asks.
    if (r == 0 && !fs_is_control(ino))
        r = store_listxattr(fs->store, fs_how(), ino, names, FS_PAYLOAD_MAX, &got);
    if (r == 0 && fuse_req_ctx(req)->uid != 0)
        got = without_trusted(names, got);
    if (r == 0 && got > XATTR_LIST_MAX)
        r = -E2BIG;
    reply_value(req, ino, r, names, got, size);
}
