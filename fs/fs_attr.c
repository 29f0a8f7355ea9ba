// SPDX-License-Identifier: MIT
// Attributes of inodes, and of the file system.

#include <errno.h>
#include <string.h>

#include "base/check.h"
#include "fs/fs_reply.h"

#define PERMISSION_BITS 0777u

static uint32_t shown_permissions(const struct fs_present *present)
{
    return PERMISSION_BITS & ~present->umask;
}

// uid=, gid= and umask=. Set-id and sticky bits are shown as they are stored, whatever umask= says:
// the kernel clears set-id bits at a write only where it sees them.
static void present_attr(const struct fs_present *present, struct stat *st)
{
    if (present->uid_set)
        st->st_uid = present->uid;
    if (present->gid_set)
        st->st_gid = present->gid;
    if (present->umask_set)
        st->st_mode = (st->st_mode & ~(mode_t)PERMISSION_BITS) | shown_permissions(present);
}

void fs_attr_to_stat(const struct fs *fs, const struct store_attr *attr, struct stat *ret_stat)
{
    *ret_stat = (struct stat){
        .st_ino = attr->ino,
        .st_mode = attr->mode,
        .st_nlink = attr->nlink,
        .st_uid = attr->uid,
        .st_gid = attr->gid,
        .st_rdev = attr->rdev,
        .st_size = (off_t)attr->size,
        .st_blksize = BLOCK_BYTES,
        .st_blocks = (blkcnt_t)(attr->blocks * (BLOCK_BYTES / 512)),
        .st_atim = attr->atime,
        .st_mtim = attr->mtime,
        .st_ctim = attr->ctime,
    };
    present_attr(&fs->present, ret_stat);
}

int fs_attr_of(struct fs *fs, fuse_ino_t ino, struct store_attr *ret_attr)
{
    if (fs_is_control(ino))
        return fs_control_attr(fs, ino, ret_attr);
    int r = store_getattr(fs->store, fs_how(), ino, ret_attr);

    return r == -ENOENT && fs_ghost_find(fs, ino, ret_attr) ? 0 : r;
}

void fs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_enter(req);
    struct store_attr attr;

    (void)fi;
    int r = fs_attr_of(fs, ino, &attr);
    if (r)
        fs_reply_result(req, ino, r);
    else
        fs_reply_attr(req, &attr);
}

static unsigned set_from_fuse(int to_set)
{
    static const struct {
        int fuse;
        unsigned store;
    } map[] = {
        {FUSE_SET_ATTR_MODE, STORE_SET_MODE},
        {FUSE_SET_ATTR_UID, STORE_SET_UID},
        {FUSE_SET_ATTR_GID, STORE_SET_GID},
        {FUSE_SET_ATTR_SIZE, STORE_SET_SIZE},
        {FUSE_SET_ATTR_ATIME, STORE_SET_ATIME},
        {FUSE_SET_ATTR_MTIME, STORE_SET_MTIME},
        {FUSE_SET_ATTR_ATIME_NOW, STORE_SET_ATIME_NOW},
        {FUSE_SET_ATTR_MTIME_NOW, STORE_SET_MTIME_NOW},
        {FUSE_SET_ATTR_CTIME, STORE_SET_CTIME},
    };
    unsigned set = 0;

    for (size_t i = 0; i < AF_ARRAY_LEN(map); i++) {
        if (to_set & map[i].fuse)
            set |= map[i].store;
    }
    // "Now" is told by the daemon's clock; the kernel sends its own time beside it.
    if (set & STORE_SET_ATIME_NOW)
        set &= ~(unsigned)STORE_SET_ATIME;
    if (set & STORE_SET_MTIME_NOW)
        set &= ~(unsigned)STORE_SET_MTIME;
    return set;
}

// With umask=, a new mode with just the permissions that are shown changes none of them: so the
// kernel clears set-id bits, and so does a program that sets a sticky bit. The stored ones stay.
static int keep_permissions(const struct fs *fs, fuse_ino_t ino, unsigned set,
                            struct store_attr *attr)
{
    struct store_attr stored;

    if (!fs->present.umask_set || !(set & STORE_SET_MODE) ||
        (attr->mode & PERMISSION_BITS) != shown_permissions(&fs->present))
        return 0;
    int r = store_getattr(fs->store, fs_how(), ino, &stored);
    if (r == 0)
        attr->mode = (attr->mode & ~PERMISSION_BITS) | (stored.mode & PERMISSION_BITS);
    return r;
}

void fs_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
                   struct fuse_file_info *fi)
{
    struct fs *fs = fs_enter(req);
    struct store_attr attr = {
        .mode = st->st_mode & 07777u,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .size = (uint64_t)st->st_size,
        .atime = st->st_atim,
        .mtime = st->st_mtim,
        .ctime = st->st_ctim,
    };

    if (fs_refuse(ino)) {
        fs_reply_result(req, ino, fs_refuse(ino));
        return;
    }
    if ((to_set & FUSE_SET_ATTR_SIZE) && st->st_size < 0) {
        fs_reply_result(req, ino, -EINVAL);
        return;
    }
    // Set-id bits: the kernel sends the mode without them beside a new owner or size (op_init()).
    struct store_file *file = fi ? fs_file(fi) : NULL;
    unsigned set = set_from_fuse(to_set);
    int r = keep_permissions(fs, ino, set, &attr);
    if (r == 0)
        r = store_setattr(fs->store, fs_how(), ino, file, &attr, set, &attr);
    if (r)
        fs_reply_result(req, ino, r);
    else
        fs_reply_attr(req, &attr);
}

void fs_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct fs *fs = fs_enter(req);
    struct store_statfs sf;
    int r = store_statfs(fs->store, &sf);

    if (r) {
        fs_reply_result(req, ino, r);
        return;
    }
    struct statvfs st = {
        .f_bsize = BLOCK_BYTES,
        .f_frsize = BLOCK_BYTES,
        .f_blocks = sf.blocks,
        .f_bfree = sf.free_blocks,
        .f_bavail = sf.avail_blocks,
        .f_files = sf.inodes + sf.free_inodes,
        .f_ffree = sf.free_inodes,
        .f_favail = sf.free_inodes,
        .f_namemax = NAME_BYTES_MAX,
    };
    fs_reply_statfs(req, &st);
}
