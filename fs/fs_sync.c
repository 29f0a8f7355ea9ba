// SPDX-License-Identifier: MIT
// fsync and fsyncdir: the commits (contract C1). A request that waits for the log is a small
// structure in the log's list of waiters and holds no thread; its answer goes out when the log is
// pumped, in the order of the log.

#include <errno.h>
#include <stdlib.h>

#include "base/check.h"
#include "fs/fs_reply.h"

struct sync {
    struct wal_waiter waiter;
    struct fs *fs;
    fuse_req_t req;
    fuse_ino_t ino;
};

static void sync_done(struct wal_waiter *w, int result)
{
    struct sync *sync = AF_CONTAINER_OF(w, struct sync, waiter);
    struct fs *fs = sync->fs;

    fs_reply_later(fs, sync->req, sync->ino, result);
    free(sync);
    atomic_fetch_sub(&fs->unanswered, 1);
}

static void sync_request(fuse_req_t req, fuse_ino_t ino, bool directory)
{
    struct fs *fs = fs_enter(req);
    struct sync *sync = calloc(1, sizeof(*sync));

    if (!sync) {
        fs_reply_result(req, ino, -ENOMEM);
        return;
    }
    *sync = (struct sync){.waiter.done = sync_done, .fs = fs, .req = req, .ino = ino};
    list_init(&sync->waiter.link);
    // Counted before: in a worker, the loop may run sync_done() before the next call has returned.
    atomic_fetch_add(&fs->unanswered, 1);
    int r = directory ? store_sync(fs->store, &sync->waiter)
                      : store_fsync(fs->store, fs_how(), ino, &sync->waiter);
    if (r == 0) {
        fs_defer();
        return;
    }
    atomic_fetch_sub(&fs->unanswered, 1);
    free(sync);
    fs_reply_result(req, ino, r > 0 ? 0 : r);
}

void fs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    // fdatasync(2) saves nothing: attributes ride in the same record.
    (void)datasync, (void)fi;
    sync_request(req, ino, fs_is_control(ino));
}

void fs_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)datasync, (void)fi;
    sync_request(req, ino, true);
}
