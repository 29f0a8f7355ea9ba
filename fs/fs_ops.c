// SPDX-License-Identifier: MIT
// Session: what is agreed with the kernel, mounting and unmounting; and the table of operations.

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "fs/fs_reply.h"

static void want(struct fuse_conn_info *conn, unsigned capability, bool on)
{
    if (on)
        conn->want |= capability & conn->capable;
    else
        conn->want &= ~capability;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct fs *fs = userdata;

    conn->max_write = FS_PAYLOAD_MAX;
    conn->max_readahead = fs->read_ahead ? FS_PAYLOAD_MAX : 0;
    // RELEASE is a background request: with a full background queue (of read-ahead) the kernel
    // would hold it back, and what the same client does after its close(2) would be read before it
    // (F2). 16 bits; for an unprivileged daemon the kernel takes its own limit,
    // fuse.max_user_bgreq, instead.
    conn->max_background = 65535;
    conn->congestion_threshold = 65535;

    want(conn, FUSE_CAP_ASYNC_READ, fs->read_ahead);
    want(conn, FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS, true);
    want(conn, FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO, fs->kernel_cache);
    // O_TRUNC comes with the open and belongs to the same pending content.
    want(conn, FUSE_CAP_ATOMIC_O_TRUNC, true);
    // Targets never change, so the kernel may keep them.
    want(conn, FUSE_CAP_CACHE_SYMLINKS, fs->kernel_cache);
    // Written bytes are with the daemon when write(2) has returned; the kernel owns no dirty data
    // whose loss it would report once only.
    want(conn, FUSE_CAP_WRITEBACK_CACHE, false);
    // Nothing changes behind the kernel's back: its pages stay valid whatever mtime says.
    want(conn, FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_EXPLICIT_INVAL_DATA, false);
    // The kernel clears set-id bits and security.capability itself, by SETATTR and REMOVEXATTR.
    want(conn, FUSE_CAP_HANDLE_KILLPRIV, false);
    // Requests are read and answered by copy: a copied request can be run twice (fs_request.h).
    want(conn, FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE, false);
    // ACLs: the kernel checks permissions by them, unless all files show the same; the store keeps
    // them, has modes follow them, and applies umask or the default ACL to what is made.
    want(conn, FUSE_CAP_POSIX_ACL, !fs->present.umask_set);
    want(conn, FUSE_CAP_DONT_MASK, true);
    // The kernel keeps locks; exports by handle need lookups of "." and "..".
    want(conn, FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_EXPORT_SUPPORT, false);

    fs->skip_opendir = fs->kernel_cache && (conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT);
    fs->initialized = true;
}

// No `forget`: node ids are the numbers of inodes, which are never reused, so there is no table to
// keep (but see fs_ghost.c). No `access`: default_permissions. No `getlk`, `setlk`, `flock`: the
// kernel's own are right for one host. No `write_buf`: see splice above. O_TMPFILE and statx:
// fs_raw.c.
static const struct fuse_lowlevel_ops fs_ops = {
    .init = op_init,
    .lookup = fs_op_lookup,
    .getattr = fs_op_getattr,
    .setattr = fs_op_setattr,
    .readlink = fs_op_readlink,
    .mknod = fs_op_mknod,
    .mkdir = fs_op_mkdir,
    .unlink = fs_op_unlink,
    .rmdir = fs_op_rmdir,
    .symlink = fs_op_symlink,
    .rename = fs_op_rename,
    .link = fs_op_link,
    .create = fs_op_create,
    .open = fs_op_open,
    .read = fs_op_read,
    .write = fs_op_write,
    .flush = fs_op_flush,
    .release = fs_op_release,
    .fallocate = fs_op_fallocate,
    .copy_file_range = fs_op_copy_file_range,
    .lseek = fs_op_lseek,
    .fsync = fs_op_fsync,
    .fsyncdir = fs_op_fsyncdir,
    .opendir = fs_op_opendir,
    .readdir = fs_op_readdir,
    .readdirplus = fs_op_readdirplus,
    .releasedir = fs_op_releasedir,
    .statfs = fs_op_statfs,
    .setxattr = fs_op_setxattr,
    .getxattr = fs_op_getxattr,
    .listxattr = fs_op_listxattr,
    .removexattr = fs_op_removexattr,
    .ioctl = fs_op_ioctl,
};

// ---- what libfuse says ----

// libfuse explains failures only through a log function without an argument of ours; the last one
// is kept for the message about a mount that failed. One mount a process.
static char fuse_message[400];

static void keep_fuse_message(enum fuse_log_level level, const char *fmt, va_list args)
{
    if (level > FUSE_LOG_ERR)
        return;
    (void)vsnprintf(fuse_message, sizeof(fuse_message), fmt, args); // cut short is fine
    fuse_message[strcspn(fuse_message, "\n")] = '\0';
}

// ---- mounting ----

static int add_option(char **options, const char *key, const char *value)
{
    char *text = NULL;

    if (asprintf(&text, "%s%s%s", key, value ? "=" : "", value ? value : "") < 0)
        return -ENOMEM;
    // Escaped: a comma in a path is no separator.
    int r = fuse_opt_add_opt_escaped(options, text) ? -ENOMEM : 0;
    free(text);
    return r;
}

static int make_args(const struct fs_options *o, struct fuse_args *args)
{
    char *options = NULL;
    int r = add_option(&options, "fsname", o->fsname);

    if (r == 0)
        r = add_option(&options, "subtype", "aerofs");
    // Permissions are the kernel's business, always: the handlers check none.
    if (r == 0)
        r = add_option(&options, "default_permissions", NULL);
    if (r == 0 && o->read_only)
        r = add_option(&options, "ro", NULL);
    if (r == 0 && o->kernel_options && *o->kernel_options)
        r = fuse_opt_add_opt(&options, o->kernel_options) ? -ENOMEM : 0;
    if (r == 0 && (fuse_opt_add_arg(args, "aerofs") || fuse_opt_add_arg(args, "-o") ||
                   fuse_opt_add_arg(args, options)))
        r = -ENOMEM;
    free(options);
    return r;
}

static int mount_session(struct fs *fs, const struct fs_options *o, char *text, size_t size)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    int r = make_args(o, &args);

    fuse_set_log_func(keep_fuse_message);
    if (r == 0) {
        fs->session = fuse_session_new(&args, &fs_ops, sizeof(fs_ops), fs);
        if (!fs->session)
            r = -EINVAL;
        else if (fuse_session_mount(fs->session, fs->mountpoint))
            r = -ENODEV;
    }
    fuse_opt_free_args(&args);
    // For an ordinary user fusermount3 mounts, and writes to stderr by itself.
    const char *why = geteuid() != 0 && r == -ENODEV ? "fusermount3 has said why" : err_text(r);
    if (r)
        snprintf(text, size, "cannot mount at %s: %s", fs->mountpoint,
                 fuse_message[0] ? fuse_message : why);
    return r;
}

static int prepare_device(struct fs *fs)
{
    fs->device_fd = fuse_session_fd(fs->session);
    int flags = fcntl(fs->device_fd, F_GETFL);
    if (flags < 0 || fcntl(fs->device_fd, F_SETFL, flags | O_NONBLOCK))
        return -errno;
    return mountinfo_find(fs->mountpoint, &fs->info);
}

static struct fs *fs_new(const struct fs_options *o)
{
    struct fs *fs = calloc(1, sizeof(*fs));

    if (!fs)
        return NULL;
    fs->engine = o->engine;
    fs->store = engine_store(o->engine);
    fs->wal = engine_wal(o->engine);
    fs->io = o->io;
    fs->sink = o->sink;
    fs->ready = o->ready;
    fs->ending = o->ending;
    fs->callback_arg = o->arg;
    fs->present = o->present;
    fs->read_only = o->read_only;
    fs->kernel_cache = switch_on(o->switches, SWITCH_KERNEL_CACHE);
    fs->read_ahead = switch_on(o->switches, SWITCH_READ_AHEAD);
    fs->device_fd = -1;
    fs->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    fs->mountpoint = strdup(o->mountpoint);
    fs->ghosts = fs_ghosts_create();
    fs->store_path = strdup(o->store_path);
    af_mutex_init(&fs->report_lock, LOCK_RANK_FS);
    if (fs->wake_fd < 0 || !fs->mountpoint || !fs->store_path || !fs->ghosts) {
        fs_unmount(fs);
        return NULL;
    }
    return fs;
}

int fs_mount(const struct fs_options *options, struct fs **ret_fs, char *message_text,
             size_t message_size)
{
    struct fs *fs = fs_new(options);
    int r = fs ? mount_session(fs, options, message_text, message_size) : -ENOMEM;

    if (!fs)
        snprintf(message_text, message_size, "cannot mount: %s", err_text(r));
    if (r) {
        fs_unmount(fs);
        return r;
    }
    fs->mounted = true;
    r = prepare_device(fs);
    if (r) {
        snprintf(message_text, message_size, "cannot use the FUSE device: %s", err_text(r));
        fs_unmount(fs);
        return r;
    }
    *ret_fs = fs;
    return 0;
}

bool fs_is_on_top(const struct fs *fs)
{
    struct mountinfo info;

    return mountinfo_find(fs->mountpoint, &info) == 0 && info.major == fs->info.major &&
           info.minor == fs->info.minor;
}

static bool is_dead(const struct fs *fs)
{
    struct pollfd device = {.fd = fs->device_fd};

    return fs->device_fd >= 0 && poll(&device, 1, 0) == 1 && (device.revents & POLLERR);
}

// fuse_session_unmount() detaches whatever is on top at the path, unless the connection is dead:
// then it only frees, and only then it is called. What is left (our mount was detached lazily and
// is still in use, or is covered by another one) ends when the device is closed.
static void end_session(struct fs *fs)
{
    if (fs->mounted && fs_is_on_top(fs)) {
        if (is_dead(fs))
            message(&fs->sink, MESSAGE_WARNING, "the kernel has cut the connection of %s",
                    fs->mountpoint);
        int r = mountinfo_detach(fs->mountpoint, true);
        if (r)
            message(&fs->sink, MESSAGE_WARNING, "cannot unmount %s: %s", fs->mountpoint,
                    err_text(r));
    }
    if (is_dead(fs))
        fuse_session_unmount(fs->session);
    fuse_session_destroy(fs->session); // closes the device
}

void fs_unmount(struct fs *fs)
{
    if (!fs)
        return;
    if (fs->session)
        end_session(fs);
    if (fs->wake_fd >= 0)
        close(fs->wake_fd);
    af_mutex_destroy(&fs->report_lock);
    fs_ghosts_destroy(fs->ghosts);
    free(fs->mountpoint);
    free(fs->store_path);
    free(fs);
}
