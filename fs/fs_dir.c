// SPDX-License-Identifier: MIT
// Listings of directories.

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "fs/fs_reply.h"

int fs_listing_add(void *listing, const char *name, size_t name_len, uint64_t ino, uint32_t mode,
                   const struct store_attr *attr, uint64_t next_cookie)
{
    struct fs_listing *l = listing;
    char text[NAME_BYTES_MAX + 1];
    size_t need;

    if (name_len > NAME_BYTES_MAX)
        return -ENAMETOOLONG;
    memcpy(text, name, name_len);
    text[name_len] = '\0';
    if (l->plus) {
        struct fuse_entry_param entry = {.attr = {.st_ino = ino, .st_mode = mode}};
        // Number 0 says: look it up when it is needed. The kernel wants no attributes of "." and
        // "..".
        if (attr && strcmp(text, ".") != 0 && strcmp(text, "..") != 0)
            fs_entry(fuse_req_userdata(l->req), attr, &entry);
        need = fuse_add_direntry_plus(l->req, l->bytes + l->used, l->size - l->used, text, &entry,
                                      (off_t)next_cookie);
    } else {
        struct stat st = {.st_ino = ino, .st_mode = mode};
        need = fuse_add_direntry(l->req, l->bytes + l->used, l->size - l->used, text, &st,
                                 (off_t)next_cookie);
    }
    if (need > l->size - l->used)
        return 1;
    l->used += need;
    return 0;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
    struct fs *fs = fs_enter(req);
    struct fs_listing listing = {
        .req = req,
        .bytes = fs_call_buffer(),
        .size = AF_MIN(size, (size_t)FS_PAYLOAD_MAX),
        .plus = plus,
    };

    if (fs_is_control(ino)) {
        fs_control_readdir(req, ino, size, off, plus);
        return;
    }
    int r = listing.bytes ? 0 : -ENOMEM;
    if (r == 0)
        r = store_readdir(fs->store, fs_how(), ino, (uint64_t)off, plus, fs_listing_add, &listing);
    // What came before an error (or a cold block) is answered; the next call meets it again.
    if (r < 0 && listing.used == 0)
        fs_reply_result(req, ino, r);
    else
        fs_reply_bytes(req, listing.bytes, listing.used);
}

void fs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                   struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, off, false);
}

void fs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                       struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, off, true);
}

void fs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_enter(req);

    // There is nothing to open. Where the kernel knows how, it sends neither this nor the release
    // from now on, and keeps listings; otherwise it is told the same for this one.
    if (fs->skip_opendir) {
        fs_reply_result(req, ino, -ENOSYS);
        return;
    }
    fi->keep_cache = fs->kernel_cache;
    fi->cache_readdir = fs->kernel_cache;
    (void)!fs_reply_open(req, fi); // no handle that could be lost
}

void fs_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fs_enter(req);
    (void)fi;
    fs_reply_result(req, ino, 0);
}
