// SPDX-License-Identifier: MIT
// /proc/self/mountinfo read, and mounts detached.

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/mountinfo.h"

extern char **environ;

// The kernel writes space, tab, newline and backslash as \ooo. In place: the text only shrinks.
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
            from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw": ids, device, root, mount point,
// options, optional fields, a dash, type, source, options of the file system.
static bool parse_line(char *line, const char **ret_path, struct mountinfo *ret_info)
{
    struct mountinfo info;
    char *fields = NULL;
    char *dash = strstr(line, " - "); // a blank in a path is written as \040

    _Static_assert(sizeof(info.type) == 64 && sizeof(info.source) == 4096, "in the format below");
    info.source[0] = '\0';
    if (!dash || sscanf(dash, " - %63s %4095s", info.type, info.source) < 1)
        return false;
    unescape(info.source);
    *dash = '\0';
    if (sscanf(line, "%*d %*d %u:%u", &info.major, &info.minor) != 2)
        return false;
    char *field = strtok_r(line, " ", &fields);
    for (int i = 0; field && i < 4; i++)
        field = strtok_r(NULL, " ", &fields);
    if (!field)
        return false;
    unescape(field);
    *ret_path = field;
    *ret_info = info;
    return true;
}

// The last mount at `path`, or, when that is NULL, of the same device as `wanted`. The kernel lists
// mounts in the order they were made: the last one at a path is the one on top.
static int find(const char *path, const struct mountinfo *wanted, struct mountinfo *ret_info)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t line_cap = 0;
    int r = -ENOENT;

    if (!f)
        return -errno;
    while (getline(&line, &line_cap, f) > 0) {
        const char *at;
        struct mountinfo info;
        if (!parse_line(line, &at, &info))
            continue;
        if (path ? strcmp(at, path) == 0
                 : info.major == wanted->major && info.minor == wanted->minor) {
            *ret_info = info;
            r = 0;
        }
    }
    free(line);
    (void)fclose(f); // only read
    return r;
}

int mountinfo_find(const char *path, struct mountinfo *ret_info)
{
    return find(path, NULL, ret_info);
}

bool mountinfo_is_mounted(const struct mountinfo *info)
{
    struct mountinfo found;

    return find(NULL, info, &found) == 0;
}

// fusermount3 is the set-uid helper through which libfuse mounted it for an ordinary user.
static int detach_with_helper(const char *path, bool lazy)
{
    char helper[] = "fusermount3", option[] = "-u", quiet[] = "-q", lazily[] = "-z", end[] = "--";
    char *target = strdup(path);
    char *argv[] = {helper, option, quiet, lazy ? lazily : end, lazy ? end : target, NULL, NULL};
    pid_t pid;
    int status = 0;

    if (!target)
        return -ENOMEM;
    if (lazy)
        argv[5] = target;
    int r = posix_spawnp(&pid, helper, NULL, NULL, argv, environ);
    while (r == 0 && waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            r = errno;
    }
    free(target);
    if (r)
        return -r;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int mountinfo_detach(const char *path, bool lazy)
{
    if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        return 0;
    return errno == EPERM ? detach_with_helper(path, lazy) : -errno;
}

void mountinfo_raise_read_ahead(const struct mountinfo *info, unsigned kib)
{
    char path[64], text[16];

    snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", info->major, info->minor);
    int n = snprintf(text, sizeof(text), "%u\n", kib);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    // Only root may, and not in every container. Without it large reads are slower and nothing
    // else.
    if (fd < 0)
        return;
    (void)!write(fd, text, (size_t)n);
    close(fd);
}
