// SPDX-License-Identifier: MIT
// The mount: an opened engine served through FUSE. mountutil/ calls fs_mount(), fs_run() and
// fs_unmount(), in this order and from one thread.
#ifndef AF_FS_FS_H
#define AF_FS_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/io.h"
#include "base/message.h"
#include "checkpoint/engine.h"

struct fs;

// Ownership and permissions that are shown, and so checked by the kernel, instead of what is
// stored.
struct fs_present {
    bool uid_set, gid_set, umask_set;
    uint32_t uid, gid;
    uint32_t umask; // permission bits that no file shows; the others every file does
};

struct fs_options {
    struct engine *engine;      // borrowed, outlives the mount
    struct io *io;              // borrowed: the one the engine works on; its event_fd() is polled
    const char *mountpoint;     // absolute and resolved; copied
    const char *store_path;     // absolute: what `.aerofs/store` says; copied
    const char *fsname;         // what mount(8) shows as the source; used by fs_mount() only
    const char *kernel_options; // "nosuid,noexec,allow_other"…, or NULL; used by fs_mount() only
    struct fs_present present;
    bool read_only;
    struct switches switches;
    struct message_sink sink;
    // Called once in fs_run() when the kernel and the daemon have agreed on the protocol: from here
    // on requests are answered. May be NULL.
    void (*ready)(void *arg);
    // Called once in fs_run() when no further request is read: what was read is still answered. May
    // be NULL.
    void (*ending)(void *arg);
    void *arg;
};

// Mounts. Nothing is answered before fs_run(). On failure `message_text` (at least 512 bytes) says
// why.
int fs_mount(const struct fs_options *options, struct fs **ret_fs, char *message_text,
             size_t message_size) AF_NODISCARD;
// Serves until the file system is unmounted, or SIGTERM or SIGINT arrives, which unmount it. The
// caller has blocked both signals before it started any thread. On return every request that was
// read has been answered and no thread is left. 0, or the error that ended it.
int fs_run(struct fs *fs) AF_NODISCARD;
// Detaches the mount if it is still there and frees everything. NULL ok.
void fs_unmount(struct fs *fs);

#endif
