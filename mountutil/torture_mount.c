// SPDX-License-Identifier: MIT
// `aerofs torture`: the life and the end of the daemon.
#include "mountutil/torture_mount.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STOP_MS 60000

int torture_mount_init(void)
{
    return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) ? -errno : 0;
}

static int run_program(char *const argv[], bool quiet)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        // The messages of the daemon go to stderr; its line that it is mounted goes nowhere.
        if (!freopen("/dev/null", "w", stdout) || (quiet && !freopen("/dev/null", "w", stderr)))
            _exit(127);
        execvp(argv[0], argv);
        _exit(127);
    }
    if (pid < 0)
        return -1;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t holder(const struct torture_mount *m)
{
    char path[PATH_MAX];
    int pid = 0;

    snprintf(path, sizeof(path), "%s/lock", m->store);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    if (fscanf(f, "%d", &pid) != 1)
        pid = 0;
    (void)fclose(f); // only read
    return pid;
}

int torture_mount_start(struct torture_mount *m)
{
    char line[PATH_MAX + 64], self[PATH_MAX], superblock[PATH_MAX];
    struct stat st;

    if (!m->known && stat(m->mountpoint, &st) == 0) {
        m->known = true;
        m->under = st.st_dev;
    }
    if (m->mount_command) {
        snprintf(line, sizeof(line), "exec %s \"$@\"", m->mount_command);
    } else {
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        self[n > 0 ? n : 0] = 0;
        char *slash = strrchr(self, '/');
        if (slash)
            *slash = 0;
        setenv("AEROFS_TORTURE_DIR", self, 1);
        snprintf(line, sizeof(line), "exec \"$AEROFS_TORTURE_DIR\"/aerofs-mount \"$@\"");
    }
    snprintf(superblock, sizeof(superblock), "%s/superblock", m->store);
    bool create = stat(superblock, &st) < 0 && errno == ENOENT;
    char *argv[] = {(char[]){"sh"},
                    (char[]){"-c"},
                    line,
                    (char[]){"mount"},
                    strdup(m->store),
                    strdup(m->mountpoint),
                    create ? (char[]){"--create"} : NULL,
                    NULL};
    int code = argv[4] && argv[5] ? run_program(argv, false) : -1;
    free(argv[4]);
    free(argv[5]);
    m->daemon = code == 0 ? holder(m) : 0;
    // A number that is no child of ours must not be killed.
    if (code == 0 && (m->daemon <= 0 || waitpid(m->daemon, NULL, WNOHANG) != 0)) {
        m->daemon = 0;
        return -1;
    }
    return code;
}

// PID STORE MOUNTPOINT are its arguments.
static int run_cut_command(const struct torture_mount *m)
{
    char line[PATH_MAX + 64], pid[24];

    snprintf(line, sizeof(line), "exec %s \"$@\"", m->cut_command);
    snprintf(pid, sizeof(pid), "%d", (int)m->daemon);
    char *argv[] = {(char[]){"sh"},   (char[]){"-c"},        line, (char[]){"cut"}, pid,
                    strdup(m->store), strdup(m->mountpoint), NULL};
    int code = argv[5] && argv[6] ? run_program(argv, false) : -1;
    free(argv[5]);
    free(argv[6]);
    return code;
}

enum torture_cut torture_mount_cut(struct torture_mount *m)
{
    int status = 0;

    if (!m->daemon)
        return TORTURE_CUT_KILLED;
    int code = m->cut_command ? run_cut_command(m) : 0;
    (void)kill(m->daemon, SIGKILL); // a child that has not been waited for: the number is its own
    while (waitpid(m->daemon, &status, 0) < 0 && errno == EINTR)
        ;
    m->daemon = 0;
    if (code)
        return TORTURE_CUT_COMMAND_FAILED;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? TORTURE_CUT_KILLED
                                                              : TORTURE_CUT_ENDED_BY_ITSELF;
}

bool torture_mount_stop(struct torture_mount *m)
{
    const struct timespec step = {.tv_nsec = 10 * 1000000L};
    int status = 0;

    if (!m->daemon)
        return true;
    (void)kill(m->daemon, SIGTERM);
    for (int ms = 0; ms < STOP_MS; ms += 10) {
        if (waitpid(m->daemon, &status, WNOHANG) == m->daemon) {
            m->daemon = 0;
            return WIFEXITED(status) && WEXITSTATUS(status) == 0;
        }
        nanosleep(&step, NULL);
    }
    m->cut_command = NULL;
    (void)torture_mount_cut(m);
    return false;
}

void torture_mount_detach(const struct torture_mount *m)
{
    struct stat st;

    // The kernel may answer for a dead mount from its cache: which device it is tells.
    if (stat(m->mountpoint, &st) == 0 ? !m->known || st.st_dev == m->under : errno != ENOTCONN)
        return;
    if (umount2(m->mountpoint, MNT_DETACH) == 0)
        return;
    char *argv[] = {(char[]){"fusermount3"}, (char[]){"-uz"}, strdup(m->mountpoint), NULL};
    (void)run_program(argv, true); // the next mount tries again
    free(argv[2]);
}
