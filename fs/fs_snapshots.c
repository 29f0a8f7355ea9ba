// SPDX-License-Identifier: MIT
// `.aerofs/snapshots`: mkdir takes a snapshot, rmdir deletes it, and each is a directory that shows
// the whole tree as it was. Below that directory everything goes the way of the live tree: the view
// stands in the node id.

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "fs/fs_reply.h"

static int root_attr(struct fs *fs, const char *name, struct store_attr *ret_attr)
{
    uint64_t ino;
    int r = store_snapshot_open(fs->store, name, &ino);

    return r < 0 ? r : store_getattr(fs->store, fs_how(), ino, ret_attr);
}

void fs_snapshots_lookup(fuse_req_t req, const char *name)
{
    struct store_attr attr;
    int r = root_attr(fuse_req_userdata(req), name, &attr);

    if (r == -ENOENT)
        fs_reply_missing(req); // nobody takes one but through the kernel
    else if (r)
        fs_reply_result(req, FS_SNAPSHOTS_INO, r);
    else
        fs_reply_entry(req, &attr);
}

void fs_snapshots_mkdir(fuse_req_t req, const char *name)
{
    struct fs *fs = fuse_req_userdata(req);
    struct store_attr attr;
    int r = store_snapshot_create(fs->store, fs_how(), name);

    if (r == 0)
        r = root_attr(fs, name, &attr);
    if (r)
        fs_reply_result(req, FS_SNAPSHOTS_INO, r);
    else
        fs_reply_entry(req, &attr);
}

void fs_snapshots_rmdir(fuse_req_t req, const char *name)
{
    struct fs *fs = fuse_req_userdata(req);

    fs_reply_result(req, FS_SNAPSHOTS_INO, store_snapshot_delete(fs->store, fs_how(), name));
}

void fs_snapshots_readdir(fuse_req_t req, size_t size, off_t off, bool plus)
{
    struct fs *fs = fuse_req_userdata(req);
    struct fs_listing listing = {
        .req = req,
        .bytes = fs_call_buffer(),
        .size = AF_MIN(size, (size_t)FS_PAYLOAD_MAX),
        .plus = plus,
    };
    struct store_snapshot s = {.id = off > 2 ? (uint64_t)off - 2 : 0};
    int full = 0;

    if (!listing.bytes) {
        fs_reply_result(req, FS_SNAPSHOTS_INO, -ENOMEM);
        return;
    }
    // Cookie n continues behind "." (1), ".." (2), the snapshot with id n - 2.
    if (off < 1)
        full = fs_listing_add(&listing, ".", 1, FS_SNAPSHOTS_INO, S_IFDIR, NULL, 1);
    if (off < 2 && !full)
        full = fs_listing_add(&listing, "..", 2, FS_CONTROL_INO(1), S_IFDIR, NULL, 2);
    while (!full && store_snapshot_next(fs->store, s.id, &s))
        full = fs_listing_add(&listing, s.name, strlen(s.name), s.id, S_IFDIR, NULL, s.id + 2);
    fs_reply_bytes(req, listing.bytes, listing.used);
}

void fs_snapshots_text(struct fs *fs, struct buf *out)
{
    struct store_snapshot s = {0};

    while (store_snapshot_next(fs->store, s.id, &s))
        buf_printf(out, "%llu %lld %llu %s\n", (unsigned long long)s.lsn, (long long)s.created,
                   (unsigned long long)s.inodes, s.name);
}

// ---- going back ----

void fs_rollback_text(struct fs *fs, struct buf *out)
{
    (void)fs;
    buf_printf(
        out,
        "write two lines: the name of the snapshot to go back to, and one for the present state\n");
}

// The kernel keeps what it was told for ever: it is told of everything that is not what it was.
// What it does not know is an error that means nothing.
static void invalidate(void *arg, uint64_t ino, const char *name, size_t name_len)
{
    struct fs *fs = arg;

    if (name)
        (void)fuse_lowlevel_notify_inval_entry(fs->session, ino, name, name_len);
    else
        (void)fuse_lowlevel_notify_inval_inode(fs->session, ino, 0, 0);
}

int fs_rollback(struct fs *fs, const char *text, uint64_t *ret_bound)
{
    char name[NAME_BYTES_MAX + 1], keep[NAME_BYTES_MAX + 1];
    const char *line = strchr(text, '\n');
    size_t name_len = line ? (size_t)(line - text) : 0;
    size_t keep_len = line ? strcspn(line + 1, "\n") : 0;

    (void)ret_bound;
    if (name_len == 0 || name_len > NAME_BYTES_MAX || keep_len == 0 || keep_len > NAME_BYTES_MAX)
        return -EINVAL;
    memcpy(name, text, name_len);
    memcpy(keep, line + 1, keep_len);
    name[name_len] = keep[keep_len] = 0;
    int r = store_snapshot_rollback(fs->store, fs_how(), name, keep, invalidate, fs);
    if (r == 0) // a name that the kernel knows to be absent
        (void)fuse_lowlevel_notify_inval_entry(fs->session, FS_SNAPSHOTS_INO, keep, keep_len);
    if (r == 0)
        (void)fuse_lowlevel_notify_inval_inode(fs->session, FS_SNAPSHOTS_INO, 0, 0);
    return r;
}
