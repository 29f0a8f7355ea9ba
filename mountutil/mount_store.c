// SPDX-License-Identifier: MIT
// The store's directory and the mount point, looked at by plain system calls.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "fs/mountinfo.h"
#include "mountutil/exit_code.h"
#include "mountutil/mount_store.h"
#include "mountutil/store_dir.h"

// The last component may be missing (a store to be made) or not answer (a dead mount): then it is
// the resolved parent that counts. Returns 0 or an errno.
int mount_place_resolve(const char *path, char ret_path[PATH_MAX])
{
    char parent[PATH_MAX];
    size_t len = strlen(path);

    if (realpath(path, ret_path))
        return 0;
    if (errno != ENOENT && errno != ENOTCONN)
        return errno;
    int first_error = errno;
    while (len > 1 && path[len - 1] == '/')
        len--;
    if (len == 0 || len >= sizeof(parent))
        return len ? ENAMETOOLONG : ENOENT;
    memcpy(parent, path, len);
    parent[len] = '\0';
    char *slash = strrchr(parent, '/');
    const char *name = slash ? slash + 1 : parent;
    char last[NAME_MAX + 1];
    if (*name == '\0' || strlen(name) > NAME_MAX || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0)
        return first_error;
    memcpy(last, name, strlen(name) + 1);
    if (slash)
        slash[slash == parent ? 1 : 0] = '\0';
    char base[PATH_MAX];
    if (!realpath(slash ? parent : ".", base))
        return errno;
    int n = snprintf(ret_path, PATH_MAX, "%s/%s", strcmp(base, "/") == 0 ? "" : base, last);
    return n > 0 && n < PATH_MAX ? 0 : ENAMETOOLONG;
}

// ---- the mount point ----

static int check_mountpoint(char *path, char *text, size_t size)
{
    struct mountinfo info;
    struct statfs fs;
    struct stat st;
    int err = stat(path, &st) ? errno : 0;

    // The kernel may answer that from its cache although the daemon is dead; statfs is never
    // cached.
    if (err == 0 && statfs(path, &fs) && (errno == ENOTCONN || errno == ECONNABORTED))
        err = errno;
    // A mount whose daemon is gone: nothing can be served from it any more, and nobody else removes
    // it.
    if (err == ENOTCONN || err == ECONNABORTED) {
        if (mountinfo_find(path, &info) || strcmp(info.type, MOUNTINFO_TYPE) != 0) {
            snprintf(text, size, "%s is a dead mount, and none of AeroFS: unmount it first", path);
            return EXIT_CODE_NO_FUSE;
        }
        int r = mountinfo_detach(path, true);
        if (r) {
            snprintf(text, size, "cannot detach the dead mount at %s: %s", path, strerror(-r));
            return EXIT_CODE_NO_FUSE;
        }
        err = stat(path, &st) ? errno : 0;
    }
    if (err == 0 && S_ISDIR(st.st_mode))
        return 0;
    snprintf(text, size, "the mount point %s: %s", path,
             err == 0        ? "not a directory"
             : err == ENOENT ? "no such directory (make it first)"
                             : strerror(err));
    return exit_code(err ? -err : -ENOTDIR);
}

static bool contains(const char *outer, const char *inner)
{
    size_t len = strlen(outer);

    if (strcmp(outer, "/") == 0)
        return true;
    return strncmp(outer, inner, len) == 0 && (inner[len] == '\0' || inner[len] == '/');
}

// ---- the store ----

struct listing {
    bool superblock; // a store
    bool half;       // a creation that was interrupted
    bool parts;      // of a store
    bool foreign;    // something else
};

static int list_store(const char *path, struct listing *ret_listing)
{
    static const char *const parts[] = {"data", "wal", "superblock.recover"};
    DIR *dir = opendir(path);
    struct listing l = {0};

    if (!dir)
        return errno;
    errno = 0;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        bool known = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
                     strcmp(e->d_name, "lost+found") == 0 || strcmp(e->d_name, "lock") == 0;
        if (strcmp(e->d_name, "superblock") == 0)
            known = l.superblock = true;
        if (strcmp(e->d_name, "superblock.new") == 0)
            known = l.half = true;
        for (size_t i = 0; i < AF_ARRAY_LEN(parts); i++) {
            if (strcmp(e->d_name, parts[i]) == 0)
                known = l.parts = true;
        }
        l.foreign |= !known;
        errno = 0;
    }
    int err = errno;
    closedir(dir);
    *ret_listing = l;
    return err;
}

static int make_directory(const char *path, char *text, size_t size)
{
    char parent[PATH_MAX];

    if (mkdir(path, 0700)) {
        int err = errno;
        snprintf(text, size, "cannot make the store directory %s: %s", path, strerror(err));
        return exit_code(-err);
    }
    // The entry has to outlast a crash as well as what will be in it.
    snprintf(parent, sizeof(parent), "%s", path); // both PATH_MAX
    char *slash = strrchr(parent, '/');
    slash[slash == parent ? 1 : 0] = '\0';
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = fd < 0 || fsync(fd) ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (err)
        snprintf(text, size, "cannot sync %s: %s", parent, strerror(err));
    return err ? exit_code(-err) : 0;
}

// While the file `superblock.new` is there, a creation has not come to its end, and nothing is
// lost.
static bool has_lost_superblock(const struct listing *l)
{
    return l->parts && !l->half && !l->superblock;
}

static int no_store(const char *path, const struct listing *l, bool missing, char *text,
                    size_t size)
{
    if (missing)
        snprintf(
            text, size,
            "there is no store: %s does not exist (is its disk mounted? --create makes a new one)",
            path);
    else if (has_lost_superblock(l))
        snprintf(
            text, size,
            "%s is a store that has lost its file 'superblock': restore it from a backup, or read out what "
            "can be read: aerofs rescue STORE OUT (nothing was changed)",
            path);
    else if (l->foreign)
        snprintf(text, size, "%s is not an AeroFS store: it has no superblock, but other files",
                 path);
    else if (l->half)
        snprintf(text, size,
                 "%s is not a complete store: its creation was interrupted (--create starts over)",
                 path);
    else
        snprintf(text, size,
                 "there is no store: %s is empty (is its disk mounted? --create makes a new one)",
                 path);
    if (missing)
        return EXIT_CODE_NOT_FOUND;
    return has_lost_superblock(l) ? EXIT_CODE_SUPERBLOCK : EXIT_CODE_NOT_A_STORE;
}

// Permissions and the disk itself.
static int check_access(struct mount_place *place, const struct mount_opts *opts, char *text,
                        size_t size)
{
    struct statvfs sv;

    if (statvfs(place->store, &sv) == 0 && (sv.f_flag & ST_RDONLY))
        place->disk_read_only = true;
    // Not taken for `ro` in silence: whoever mounts for writing must learn that it will not be.
    if (place->disk_read_only && !opts->read_only) {
        snprintf(text, size,
                 "%s is on a read-only disk (-o ro mounts a store that was closed cleanly)",
                 place->store);
        return EXIT_CODE_READ_ONLY;
    }
    if (access(place->store, R_OK | X_OK | (place->disk_read_only ? 0 : W_OK))) {
        int err = errno;
        snprintf(text, size, "no permission for the store directory %s: %s", place->store,
                 strerror(err));
        return exit_code(-err);
    }
    return 0;
}

static int check_store(const struct mount_opts *opts, struct mount_place *place, char *text,
                       size_t size)
{
    struct listing l = {0};
    struct stat st;
    bool missing = stat(place->store, &st) && errno == ENOENT;

    if (!missing && !S_ISDIR(st.st_mode)) {
        snprintf(text, size, "%s is not a directory, so not a store", place->store);
        return EXIT_CODE_NOT_A_STORE;
    }
    if (missing && !opts->create)
        return no_store(place->store, &l, true, text, size);
    if (missing) {
        int r = make_directory(place->store, text, size);
        if (r)
            return r;
    }
    int r = check_access(place, opts, text, size);
    if (r)
        return r;
    int err = list_store(place->store, &l);
    if (err) {
        snprintf(text, size, "cannot read the store directory %s: %s", place->store, strerror(err));
        return exit_code(-err);
    }
    if (!l.superblock && (l.foreign || !opts->create || has_lost_superblock(&l)))
        return no_store(place->store, &l, false, text, size);
    place->make_store = !l.superblock;
    // An empty directory that was there before gets the store's mode too.
    if (place->make_store && chmod(place->store, 0700)) {
        int perm_err = errno;
        snprintf(text, size, "cannot make the store directory %s private: %s", place->store,
                 strerror(perm_err));
        return exit_code(-perm_err);
    }
    return 0;
}

int mount_place_check(const struct mount_opts *opts, struct mount_place *ret_place,
                      char *message_text, size_t message_size)
{
    *ret_place = (struct mount_place){.lock_fd = -1, .dir_fd = -1};
    int err = mount_place_resolve(opts->mountpoint, ret_place->mountpoint);
    if (err) {
        snprintf(message_text, message_size, "the mount point %s: %s", opts->mountpoint,
                 strerror(err));
        return exit_code(-err);
    }
    err = mount_place_resolve(opts->store, ret_place->store);
    if (err) {
        snprintf(message_text, message_size, "the store %s: %s", opts->store, strerror(err));
        return exit_code(-err);
    }
    if (contains(ret_place->store, ret_place->mountpoint) ||
        contains(ret_place->mountpoint, ret_place->store)) {
        snprintf(message_text, message_size,
                 "STORE and MOUNTPOINT may not contain each other: %s, %s", ret_place->store,
                 ret_place->mountpoint);
        return EXIT_CODE_USAGE;
    }
    int r = check_mountpoint(ret_place->mountpoint, message_text, message_size);
    return r ? r : check_store(opts, ret_place, message_text, message_size);
}

// ---- the lock ----

// How long a daemon may take to let go: one that was killed; one that has been unmounted and writes
// its last checkpoint; one that serves, or has been unmounted this very moment. And how often to
// look.
#define DEAD_WAIT_MS    2000
#define CLOSING_WAIT_MS 60000
#define ALIVE_WAIT_MS   500
#define LOCK_STEP_MS    20

static bool line_has_sigkill(const char *line)
{
    unsigned long long set = 0;

    if (sscanf(line, "SigPnd: %llx", &set) != 1 && sscanf(line, "ShdPnd: %llx", &set) != 1)
        return false;
    return set >> (SIGKILL - 1) & 1;
}

// Gone, or on its way: a zombie, or killed and not yet done with dying.
static bool holder_is_dead(pid_t pid)
{
    char path[64], line[256], state = '?';
    bool dying = false;

    if (pid <= 0)
        return true; // the file is being written: look again
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return kill(pid, 0) && errno == ESRCH;
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, "State:", 6) == 0)
            (void)sscanf(line, "State: %c", &state);
        dying |= line_has_sigkill(line);
    }
    (void)fclose(f); // only read
    return dying || state == 'Z' || state == 'X';
}

static void write_holder(int fd, const char *state)
{
    char text[32];
    struct stat st;
    int n = snprintf(text, sizeof(text), "%d%s\n", (int)getpid(), state);

    // In place, so that a full disk takes it too: the block is there, and durable, since the first
    // time; never empty in between, for those who
    // read it. Failing changes nothing.
    bool first = fstat(fd, &st) == 0 && st.st_size == 0;
    if (pwrite(fd, text, (size_t)n, 0) == n && ftruncate(fd, n) == 0 && first)
        (void)fdatasync(fd);
}

// Somebody may have removed the file while we waited for its lock; then the lock protects nothing.
static bool is_still_there(int fd, const char *path)
{
    struct stat held, named;

    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_dev == named.st_dev &&
           held.st_ino == named.st_ino;
}

static int open_lock(const struct mount_place *place, const char *path)
{
    if (place->disk_read_only)
        return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

// 0: locked (or nothing to lock), 1: held by another one, else an errno, negated.
static int try_lock(struct mount_place *place, const char *path, pid_t *ret_holder,
                    bool *ret_closing)
{
    int fd = open_lock(place, path);

    // No file on a read-only disk: never mounted since it was copied there, and nobody can write to
    // it.
    if (fd < 0)
        return errno == ENOENT && place->disk_read_only ? 0 : -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_still_there(fd, path)) {
        if (!place->disk_read_only)
            write_holder(fd, "");
        place->lock_fd = fd;
        return 0;
    }
    *ret_holder = (pid_t)store_dir_holder(fd, ret_closing);
    close(fd);
    return 1;
}

// Somebody may remove the file `lock` of a running daemon: the next one then has a file of its own,
// and the lock on it protects nothing. Nobody can do that to the directory. (Some network file
// systems lock no directories: then the file has to do.)
static int lock_directory(struct mount_place *place, char *text, size_t size)
{
    if (place->dir_fd < 0 || flock(place->dir_fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return 0;
    snprintf(text, size,
             "the store %s is in use, although its file 'lock' is not: somebody has removed that",
             place->store);
    return EXIT_CODE_IN_USE;
}

int mount_place_lock(struct mount_place *place, char *message_text, size_t message_size)
{
    char path[PATH_MAX + 8];
    const struct timespec step = {.tv_nsec = LOCK_STEP_MS * 1000000L};
    pid_t holder = 0;
    bool closing = false;
    int r;

    snprintf(path, sizeof(path), "%s/lock", place->store);
    // Opened before the file, so that a process that dies closes it before.
    place->dir_fd = open(place->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int waited = 0;; waited += LOCK_STEP_MS) {
        r = try_lock(place, path, &holder, &closing);
        int limit = ALIVE_WAIT_MS;
        if (r <= 0)
            limit = 0;
        else if (holder_is_dead(holder))
            limit = DEAD_WAIT_MS;
        else if (closing)
            limit = CLOSING_WAIT_MS;
        if (waited >= limit)
            break;
        nanosleep(&step, NULL);
    }
    if (r == 0)
        return lock_directory(place, message_text, message_size);
    if (r < 0)
        snprintf(message_text, message_size, "cannot open %s: %s", path, strerror(-r));
    else if (holder_is_dead(
                 holder)) // so it is someone who leaves no number: a command that reads the store
        snprintf(message_text, message_size,
                 "the store %s is in use (by aerofs check, or the like)", place->store);
    else
        snprintf(message_text, message_size, "the store %s is in use by PID %d%s", place->store,
                 (int)holder,
                 closing ? ", which has been unmounted and takes long to close it" : "");
    return r < 0 ? exit_code(r) : EXIT_CODE_IN_USE;
}

void mount_place_closing(struct mount_place *place)
{
    if (place->lock_fd >= 0 && !place->disk_read_only)
        write_holder(place->lock_fd, " " STORE_DIR_CLOSING);
}

void mount_place_unlock(struct mount_place *place)
{
    if (place->dir_fd >= 0)
        close(place->dir_fd);
    place->dir_fd = -1;
    // The file stays: removing it would let a second daemon lock another one of the same name.
    if (place->lock_fd >= 0)
        close(place->lock_fd);
    place->lock_fd = -1;
}
