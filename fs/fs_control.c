// SPDX-License-Identifier: MIT
// `.aerofs` in the root: answers to its name but is not listed, so that copies and deletions of
// everything never meet it. What it holds is text made when a file is opened. Its inodes are
// synthetic; their node ids lie in a view of their own.

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "fs/fs_reply.h"

static void make_status(struct fs *fs, struct buf *out)
{
    struct engine_status status;

    engine_get_status(fs->engine, &status);
    engine_status_text(&status, false, out);
}

static void make_status_json(struct fs *fs, struct buf *out)
{
    struct engine_status status;

    engine_get_status(fs->engine, &status);
    engine_status_text(&status, true, out);
}

// One line for each thing that was met: cause, where, how often, in words.
static void make_damage(struct fs *fs, struct buf *out)
{
    struct store_damage *damage = calloc(STORE_DAMAGE_MAX, sizeof(*damage));

    if (!damage) {
        out->failed = true;
        return;
    }
    size_t count = store_get_damage(fs->store, damage, STORE_DAMAGE_MAX);
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "%s inode=%llu offset=%llu address=%llu count=%llu %.*s\n",
                   err_name(damage[i].code), (unsigned long long)damage[i].ino,
                   (unsigned long long)damage[i].off, (unsigned long long)damage[i].address,
                   (unsigned long long)damage[i].count, (int)sizeof(damage[i].text),
                   damage[i].text);
    free(damage);
}

// Where the store lies, for umount: it waits until the lock there is free.
static void make_store(struct fs *fs, struct buf *out)
{
    buf_printf(out, "%s\n", fs->store_path);
}

#define CONTROL_DIRECTORY 1u

static const struct control_file {
    const char *name;
    unsigned number;
    void (*make)(struct fs *fs, struct buf *out);
} control_files[] = {
    {"status", 2, make_status},
    {"status.json", 3, make_status_json},
    {"damage", 4, make_damage},
    {"store", 5, make_store},
};

static const struct control_file *file_by_ino(fuse_ino_t ino)
{
    for (size_t i = 0; i < AF_ARRAY_LEN(control_files); i++) {
        if (FS_CONTROL_INO(control_files[i].number) == ino)
            return &control_files[i];
    }
    return NULL;
}

bool fs_is_control_name(fuse_ino_t parent, const char *name)
{
    return fs_is_control(parent) || (parent == INO_ROOT && strcmp(name, FS_CONTROL_NAME) == 0);
}

// Owned by the owner of the root, readable like the rest: who may enter the mount may see how it
// fares. The size is 0, as in /proc: the text is made at open.
static int control_attr(struct fs *fs, fuse_ino_t ino, struct store_attr *ret_attr)
{
    struct store_attr attr;
    bool directory = ino == FS_CONTROL_INO(CONTROL_DIRECTORY);

    if (!directory && !file_by_ino(ino))
        return -ENOENT;
    int r = store_getattr(fs->store, fs_how(), INO_ROOT, &attr);
    if (r)
        return r;
    attr.ino = ino;
    attr.mode = directory ? S_IFDIR | 0555u : S_IFREG | 0444u;
    attr.nlink = directory ? 2 : 1;
    attr.size = 0;
    attr.blocks = 0;
    *ret_attr = attr;
    return 0;
}

void fs_control_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fuse_req_userdata(req);
    struct store_attr attr;
    fuse_ino_t ino = 0;

    if (parent == INO_ROOT)
        ino = FS_CONTROL_INO(CONTROL_DIRECTORY);
    for (size_t i = 0; ino == 0 && i < AF_ARRAY_LEN(control_files); i++) {
        if (strcmp(control_files[i].name, name) == 0)
            ino = FS_CONTROL_INO(control_files[i].number);
    }
    if (ino == 0) {
        fs_reply_missing(req);
        return;
    }
    int r = control_attr(fs, ino, &attr);
    if (r)
        fs_reply_result(req, ino, r);
    else
        fs_reply_entry(req, &attr);
}

void fs_control_getattr(fuse_req_t req, fuse_ino_t ino)
{
    struct store_attr attr;
    int r = control_attr(fuse_req_userdata(req), ino, &attr);

    if (r)
        fs_reply_result(req, ino, r);
    else
        fs_reply_attr(req, &attr);
}

void fs_control_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
    struct fs_listing listing = {
        .req = req,
        .bytes = fs_call_buffer(),
        .size = AF_MIN(size, (size_t)FS_PAYLOAD_MAX),
        .plus = plus,
    };
    const uint64_t entries = 2 + AF_ARRAY_LEN(control_files);
    int full = 0;

    if (!listing.bytes || ino != FS_CONTROL_INO(CONTROL_DIRECTORY)) {
        fs_reply_result(req, ino, listing.bytes ? -ENOTDIR : -ENOMEM);
        return;
    }
    // Cookie n continues with the n-th entry.
    for (uint64_t i = (uint64_t)off; i < entries && !full; i++) {
        const char *name = i == 0 ? "." : i == 1 ? ".." : control_files[i - 2].name;
        uint64_t number = i == 0   ? ino
                          : i == 1 ? INO_ROOT
                                   : FS_CONTROL_INO(control_files[i - 2].number);
        full = fs_listing_add(&listing, name, strlen(name), number, i < 2 ? S_IFDIR : S_IFREG, NULL,
                              i + 1);
    }
    fs_reply_bytes(req, listing.bytes, listing.used);
}

void fs_control_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fuse_req_userdata(req);
    const struct control_file *file = file_by_ino(ino);
    struct buf *text = file ? calloc(1, sizeof(*text)) : NULL;
    int r = !file ? -ENOENT : !text ? -ENOMEM : 0;

    // The mode does not keep root from trying.
    if (r == 0 && (fi->flags & (O_ACCMODE | O_TRUNC)) != O_RDONLY)
        r = -EPERM;
    if (r) {
        free(text);
        fs_reply_result(req, ino, r);
        return;
    }
    buf_init(text);
    file->make(fs, text);
    if (text->failed) {
        buf_free(text);
        free(text);
        fs_reply_result(req, ino, -ENOMEM);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)text;
    fi->direct_io = 1; // read to its end, whatever size stat(2) shows, and never from a cache
    if (!fs_reply_open(req, fi)) {
        buf_free(text);
        free(text);
    }
}

void fs_control_read(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi)
{
    const struct buf *text = (const struct buf *)(uintptr_t)fi->fh;
    size_t at = off < 0 || (uint64_t)off > text->len ? text->len : (size_t)off;

    fs_reply_bytes(req, text->bytes + at, AF_MIN(size, text->len - at));
}

void fs_control_release(fuse_req_t req, struct fuse_file_info *fi)
{
    struct buf *text = (struct buf *)(uintptr_t)fi->fh;

    buf_free(text);
    free(text);
    fs_reply_result(req, 0, 0);
}
