// SPDX-License-Identifier: MIT
// `.aerofs` in the root: answers to its name but is not listed, so that copies and deletions of
// everything never meet it. What it holds is text made when a file is opened; one file takes
// commands. Its inodes are
// synthetic; their node ids lie in a view of their own.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "fs/fs_reply.h"
#include "store/damage.h"

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

static void make_damage(struct fs *fs, struct buf *out)
{
    store_damage_text(fs->store, out);
}

static void make_scrub(struct fs *fs, struct buf *out)
{
    struct engine_scrub scrub;

    engine_get_scrub(fs->engine, &scrub);
    engine_scrub_text(&scrub, out);
}

// What is written to .aerofs/scrub is a command:
//   start [RATE]   scrub with at most RATE bytes a second
//   run [RATE]     the same, and end it when this descriptor is closed: who asked has gone
//   stop           end it
static int command_scrub(struct fs *fs, const char *text, uint64_t *ret_bound)
{
    unsigned long long rate = 0;
    char word[8], rest;
    int words = sscanf(text, "%7s %llu %c", word, &rate, &rest);
    struct engine_scrub scrub;

    if (words == 1 && strcmp(word, "stop") == 0) {
        engine_scrub_cancel(fs->engine);
        return 0;
    }
    bool bound = words > 0 && strcmp(word, "run") == 0;
    if (words < 1 || words > 2 || (!bound && strcmp(word, "start") != 0))
        return -EINVAL;
    int r = engine_scrub(fs->engine, rate);
    if (r == 0 && bound) {
        engine_get_scrub(fs->engine, &scrub);
        *ret_bound = scrub.number;
    }
    return r;
}

static void make_metrics(struct fs *fs, struct buf *out)
{
    struct engine_status status;

    engine_get_status(fs->engine, &status);
    engine_metrics_text(&status, out);
}

// Where the store lies, for umount: it waits until the lock there is free.
static void make_store(struct fs *fs, struct buf *out)
{
    buf_printf(out, "%s\n", fs->store_path);
}

#define CONTROL_DIRECTORY 1u
#define COMMAND_BYTES     1024u

static const struct control_file {
    const char *name;
    unsigned number;
    void (*make)(struct fs *fs, struct buf *out);
    // NULL: it cannot be written to. *ret_bound: the scrub that ends with this descriptor.
    int (*command)(struct fs *fs, const char *text, uint64_t *ret_bound);
} control_files[] = {
    {"status", 2, make_status, NULL},        {"status.json", 3, make_status_json, NULL},
    {"damage", 4, make_damage, NULL},        {"store", 5, make_store, NULL},
    {"scrub", 6, make_scrub, command_scrub}, {"snapshots.list", 17, fs_snapshots_text, NULL},
    {"metrics", 18, make_metrics, NULL},     {"rollback", 19, fs_rollback_text, fs_rollback},
};

// An open control file.
struct control_handle {
    const struct control_file *file;
    struct buf text;
    uint64_t bound; // number of the scrub that ends when this is closed; 0: none
};

static const struct control_file *file_by_ino(fuse_ino_t ino)
{
    for (size_t i = 0; i < AF_ARRAY_LEN(control_files); i++) {
        if (FS_CONTROL_INO(control_files[i].number) == ino)
            return &control_files[i];
    }
    return NULL;
}

int fs_refuse(fuse_ino_t ino)
{
    return fs_is_control(ino) ? -EPERM : fs_is_snapshot(ino) ? -EROFS : 0;
}

int fs_refuse_name(fuse_ino_t parent, const char *name)
{
    return fs_is_control_name(parent, name) ? -EPERM : fs_refuse(parent);
}

bool fs_is_control_name(fuse_ino_t parent, const char *name)
{
    return fs_is_control(parent) || (parent == INO_ROOT && strcmp(name, FS_CONTROL_NAME) == 0);
}

// Owned by the owner of the root, readable like the rest: who may enter the mount may see how it
// fares. The size is 0, as in /proc: the text is made at open.
int fs_control_attr(struct fs *fs, fuse_ino_t ino, struct store_attr *ret_attr)
{
    struct store_attr attr;
    bool snapshots = ino == FS_SNAPSHOTS_INO;
    bool directory = snapshots || ino == FS_CONTROL_INO(CONTROL_DIRECTORY);
    const struct control_file *file = file_by_ino(ino);

    if (!directory && !file)
        return -ENOENT;
    int r = store_getattr(fs->store, fs_how(), INO_ROOT, &attr);
    if (r)
        return r;
    attr.ino = ino;
    attr.mode = snapshots   ? S_IFDIR | 0755u
                : directory ? S_IFDIR | 0555u
                            : S_IFREG | (file->command ? 0644u : 0444u);
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

    if (parent == FS_SNAPSHOTS_INO) {
        fs_snapshots_lookup(req, name);
        return;
    }
    if (parent != INO_ROOT && strcmp(name, FS_SNAPSHOTS_NAME) == 0)
        ino = FS_SNAPSHOTS_INO;
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
    int r = fs_control_attr(fs, ino, &attr);
    if (r)
        fs_reply_result(req, ino, r);
    else
        fs_reply_entry(req, &attr);
}

void fs_control_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
    struct fs_listing listing = {
        .req = req,
        .bytes = fs_call_buffer(),
        .size = AF_MIN(size, (size_t)FS_PAYLOAD_MAX),
        .plus = plus,
    };
    const uint64_t entries = 3 + AF_ARRAY_LEN(control_files);
    int full = 0;

    if (ino == FS_SNAPSHOTS_INO) {
        fs_snapshots_readdir(req, size, off, plus);
        return;
    }
    if (!listing.bytes || ino != FS_CONTROL_INO(CONTROL_DIRECTORY)) {
        fs_reply_result(req, ino, listing.bytes ? -ENOTDIR : -ENOMEM);
        return;
    }
    // Cookie n continues with the n-th entry.
    for (uint64_t i = (uint64_t)off; i < entries && !full; i++) {
        const char *name = i == 0 ? "." : i == 1 ? ".." : FS_SNAPSHOTS_NAME;
        uint64_t number = i == 0 ? ino : i == 1 ? INO_ROOT : FS_SNAPSHOTS_INO;

        if (i > 2) {
            name = control_files[i - 3].name;
            number = FS_CONTROL_INO(control_files[i - 3].number);
        }
        full = fs_listing_add(&listing, name, strlen(name), number, i < 3 ? S_IFDIR : S_IFREG, NULL,
                              i + 1);
    }
    fs_reply_bytes(req, listing.bytes, listing.used);
}

static struct control_handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct control_handle *)(uintptr_t)fi->fh;
}

static void handle_free(struct control_handle *h)
{
    buf_free(&h->text);
    free(h);
}

void fs_control_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fuse_req_userdata(req);
    const struct control_file *file = file_by_ino(ino);
    struct control_handle *h = file ? calloc(1, sizeof(*h)) : NULL;
    int r = !file ? -ENOENT : !h ? -ENOMEM : 0;

    // The mode does not keep root from trying.
    if (r == 0 && !file->command && (fi->flags & (O_ACCMODE | O_TRUNC)) != O_RDONLY)
        r = -EPERM;
    if (r) {
        free(h);
        fs_reply_result(req, ino, r);
        return;
    }
    h->file = file;
    buf_init(&h->text);
    file->make(fs, &h->text);
    if (h->text.failed) {
        handle_free(h);
        fs_reply_result(req, ino, -ENOMEM);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)h;
    fi->direct_io = 1; // read to its end, whatever size stat(2) shows, and never from a cache
    if (!fs_reply_open(req, fi))
        handle_free(h);
}

void fs_control_read(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi)
{
    const struct buf *text = &handle_of(fi)->text;
    size_t at = off < 0 || (uint64_t)off > text->len ? text->len : (size_t)off;

    fs_reply_bytes(req, text->bytes + at, AF_MIN(size, text->len - at));
}

void fs_control_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size,
                      struct fuse_file_info *fi)
{
    struct control_handle *h = handle_of(fi);
    char text[COMMAND_BYTES];
    int r = h->file->command ? 0 : -EPERM;

    if (r == 0 && (size == 0 || size >= sizeof(text)))
        r = -EINVAL;
    if (r == 0) {
        memcpy(text, bytes, size);
        text[size] = 0;
        r = h->file->command(fuse_req_userdata(req), text, &h->bound);
    }
    if (r)
        fs_reply_result(req, ino, r);
    else
        fs_reply_written(req, size);
}

void fs_control_release(fuse_req_t req, struct fuse_file_info *fi)
{
    struct fs *fs = fuse_req_userdata(req);
    struct control_handle *h = handle_of(fi);
    struct engine_scrub scrub;

    engine_get_scrub(fs->engine, &scrub);
    if (h->bound && scrub.number == h->bound)
        engine_scrub_cancel(fs->engine);
    handle_free(h);
    fs_reply_result(req, 0, 0);
}
