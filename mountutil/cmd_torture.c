// SPDX-License-Identifier: MIT
// `aerofs torture`: rounds of writing, cutting and verifying on a mount (torture.h says how).
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "checkpoint/verify.h"
#include "mountutil/exit_code.h"
#include "mountutil/store_dir.h"
#include "mountutil/torture.h"
#include "mountutil/torture_mount.h"

enum { TORTURE_NONE_LOST = 0, TORTURE_LOSS = 1, TORTURE_CANNOT_RUN = 2 };

#define WRITERS_MAX 64
#define CHECK_EVERY 4
#define CUT_MS      1200
#define END_WAIT_MS 30000

struct torture {
    const struct command *command;
    struct torture_mount mount;
    struct torture_writer writers[WRITERS_MAX];
    pid_t pids[WRITERS_MAX];
    uint64_t writer_count, rounds, seconds, seed, cut_ms, rng;
    uint64_t round, cuts, checks, acknowledged, indeterminate, refused, losses;
    char journal[PATH_MAX];
    bool own_journal;
    char work[PATH_MAX]; // the directory in the mount
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static uint64_t ticks_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void sleep_ms(uint64_t ms)
{
    struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&t, NULL);
}

static void loss(struct torture *t, const char *text)
{
    t->losses++;
    printf("round %" PRIu64 ": LOSS: %s\n", t->round, text);
    (void)fflush(stdout);
}

// ---- writers ----

static int start_writer(struct torture *t, unsigned i)
{
    struct torture_writer *w = &t->writers[i];

    if (ftruncate(w->journal_fd, 0))
        return -errno;
    w->rng = t->seed * 1000003 + t->round * 257 + i;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(0);
        signal(SIGINT, SIG_IGN); // the parent decides
        _exit(torture_writer_run(w) & 0xff);
    }
    t->pids[i] = pid > 0 ? pid : 0;
    return pid < 0 ? -errno : 0;
}

// Nothing but the cut ends a writer. Returns the number of one that has ended, or -1.
static int ended_early(const struct torture *t)
{
    for (unsigned i = 0; i < t->writer_count; i++) {
        siginfo_t info = {0};
        if (t->pids[i] &&
            waitid(P_PID, (id_t)t->pids[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
            return (int)i;
    }
    return -1;
}

static bool is_cut(const struct torture *t, int err)
{
    if (err == ENOTCONN || err == ECONNABORTED || err == EINTR)
        return true;
    // A cut command may let the disk fail before it kills.
    return t->mount.cut_command && (err == EIO || err == EROFS);
}

// Returns the number of a writer that has ended by another error than the cut, or -1.
static int end_writers(struct torture *t, int *ret_errno)
{
    uint64_t end = ticks_ms() + END_WAIT_MS;
    int bad = -1;

    for (unsigned i = 0; i < t->writer_count; i++) {
        int status = 0;
        while (t->pids[i] && waitpid(t->pids[i], &status, WNOHANG) == 0) {
            if (ticks_ms() > end)
                (void)kill(t->pids[i], SIGKILL);
            sleep_ms(2);
        }
        int err = WIFEXITED(status) ? WEXITSTATUS(status) : ETIMEDOUT;
        if (t->pids[i] && !is_cut(t, err)) {
            bad = (int)i;
            *ret_errno = err;
        }
        t->pids[i] = 0;
    }
    return bad;
}

// ---- verifying ----

static void print_damage(void *arg, const struct verify_finding *f)
{
    if (f->severity == VERIFY_DAMAGE)
        loss(arg, f->text);
}

// The image as it lies on the disk, with nobody serving it.
static int check_image(struct torture *t)
{
    const struct verify_options options = {.finding = print_damage, .arg = t};
    struct verify_result result = {0};
    struct store_dir dir;

    int r = store_dir_open(t->command, t->mount.store, STORE_DIR_PATIENT, &dir);
    if (!r && dir.in_use)
        r = store_dir_refuse_in_use(t->command, &dir);
    else if (!r)
        r = verify_image(dir.io, &options, &result);
    store_dir_close(&dir);
    t->checks++;
    return r;
}

static void verify(struct torture *t)
{
    struct torture_found found;

    for (unsigned i = 0; i < t->writer_count; i++) {
        if (!torture_verify(&t->writers[i], &found))
            loss(t, found.text);
        t->acknowledged += found.acknowledged;
        t->indeterminate += found.indeterminate;
        t->refused += found.refused;
    }
}

// A store that was acknowledged and cannot be mounted any more is lost as a whole.
static bool mount_again(struct torture *t)
{
    int code = torture_mount_start(&t->mount);

    if (code == 0)
        return true;
    char text[96];
    snprintf(text, sizeof(text), "the store cannot be mounted after the cut (exit code %d)", code);
    loss(t, text);
    return false;
}

// ---- rounds ----

// False when there is no point in going on.
static bool run_round(struct torture *t)
{
    bool idle = torture_random(&t->rng) % 8 == 0; // a cut right after a recovery
    uint64_t ms = torture_random(&t->rng) % t->cut_ms;
    int err = 0, writer_errno = 0;

    if (torture_random(&t->rng) % 4 == 0)
        ms /= 20;
    for (unsigned i = 0; i < t->writer_count; i++) {
        err = idle ? -ftruncate(t->writers[i].journal_fd, 0) : start_writer(t, i);
        if (err) {
            cmd_error(t->command, "cannot start a writer: %s", strerror(errno));
            break;
        }
    }
    sleep_ms(idle ? ms / 20 : ms);
    int bad = ended_early(t);
    enum torture_cut cut = torture_mount_cut(&t->mount);
    int ended = end_writers(t, &writer_errno);
    bad = bad >= 0 ? bad : ended;
    torture_mount_detach(&t->mount);
    if (cut == TORTURE_CUT_COMMAND_FAILED)
        cmd_error(t->command, "the cut command failed");
    if (err || cut == TORTURE_CUT_COMMAND_FAILED)
        return false;
    t->cuts++;
    if (cut == TORTURE_CUT_ENDED_BY_ITSELF)
        loss(t, "the daemon had ended by itself before the cut");
    if (bad >= 0)
        cmd_error(t->command, "writer %d ended before the cut: %s", bad, strerror(writer_errno));
    if (t->round % CHECK_EVERY == 0 && check_image(t))
        return false;
    if (!mount_again(t))
        return false;
    verify(t);
    printf("round %" PRIu64 ": cut after %" PRIu64 " ms, %" PRIu64 " acknowledged so far, %" PRIu64
           " losses\n",
           t->round, ms, t->acknowledged, t->losses);
    (void)fflush(stdout);
    return t->losses == 0 && bad < 0;
}

static int set_up(struct torture *t)
{
    char path[PATH_MAX];

    snprintf(t->work, sizeof(t->work), "%.3900s/torture-%ld", t->mount.mountpoint, (long)getpid());
    if (mkdir(t->work, 0755))
        return errno;
    for (unsigned i = 0; i < t->writer_count; i++) {
        struct torture_writer *w = &t->writers[i];
        snprintf(path, sizeof(path), "%.4000s/w%u", t->work, i);
        w->number = i;
        w->dir = strdup(path);
        int err = w->dir ? torture_writer_setup(w->dir) : ENOMEM;
        if (err)
            return err;
        snprintf(path, sizeof(path), "%.4000s/w%u.journal", t->journal, i);
        w->journal_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
        if (w->journal_fd < 0)
            return errno;
    }
    return 0;
}

// Takes away what this run has made; after a loss everything stays as it is.
static void remove_work(struct torture *t)
{
    char path[PATH_MAX];

    for (unsigned i = 0; i < t->writer_count && t->writers[i].dir; i++) {
        const char *dir = t->writers[i].dir;
        for (unsigned n = 0; n < TORTURE_NAMES; n++) {
            torture_path(path, dir, n);
            (void)unlink(path);
        }
        for (unsigned n = 0; n < TORTURE_DIRS; n++) {
            snprintf(path, sizeof(path), "%.4000s/dir%u", dir, n);
            (void)rmdir(path);
        }
        snprintf(path, sizeof(path), "%.4000s/sub", dir);
        (void)rmdir(path);
        (void)rmdir(dir);
    }
    (void)rmdir(t->work); // what cannot be removed stays, and is seen
}

static void remove_journals(const struct torture *t)
{
    char path[PATH_MAX];

    for (unsigned i = 0; i < t->writer_count; i++) {
        snprintf(path, sizeof(path), "%.4000s/w%u.journal", t->journal, i);
        (void)unlink(path);
    }
    if (t->own_journal)
        (void)rmdir(t->journal);
}

static int torture(struct torture *t)
{
    uint64_t end = ticks_ms() + t->seconds * 1000;
    bool go_on = true;

    int code = torture_mount_start(&t->mount);
    if (code) {
        cmd_error(t->command, "the mount command failed with %d", code);
        return TORTURE_CANNOT_RUN;
    }
    int err = set_up(t);
    if (err)
        cmd_error(t->command, "cannot prepare '%s': %s", t->work, strerror(err));
    while (!err && go_on && !interrupted) {
        if ((t->rounds && t->round >= t->rounds) || (t->seconds && ticks_ms() >= end))
            break;
        t->round++;
        go_on = run_round(t);
    }
    if (!err && t->losses == 0 && t->mount.daemon)
        remove_work(t);
    bool ended = torture_mount_stop(&t->mount);
    torture_mount_detach(&t->mount);
    if (!ended && t->losses == 0)
        loss(t, "the daemon did not end well when asked to");
    if (!err && go_on && check_image(t))
        err = EIO;
    printf("rounds %" PRIu64 ", cuts %" PRIu64 ", acknowledged %" PRIu64 ", indeterminate %" PRIu64
           ", refused %" PRIu64 ", checks %" PRIu64 ", losses %" PRIu64 "; seed %" PRIu64 "\n",
           t->round, t->cuts, t->acknowledged, t->indeterminate, t->refused, t->checks, t->losses,
           t->seed);
    if (t->losses) {
        printf("the journals are kept in '%s'\n", t->journal);
        return TORTURE_LOSS;
    }
    remove_journals(t);
    return err || (!go_on && !interrupted) ? TORTURE_CANNOT_RUN : TORTURE_NONE_LOST;
}

// ---- arguments ----

static int make_journal(struct torture *t, const char *journal)
{
    const char *tmp = getenv("TMPDIR");

    t->own_journal = !journal;
    if (journal) {
        snprintf(t->journal, sizeof(t->journal), "%s", journal);
        return mkdir(t->journal, 0700) && errno != EEXIST ? errno : 0;
    }
    snprintf(t->journal, sizeof(t->journal), "%.3900s/aerofs-torture.XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(t->journal) ? 0 : errno;
}

static bool take_number(const struct command *command, const char *name, const char *text,
                        uint64_t max, uint64_t *ret)
{
    if (!text || (cmd_parse_number(text, ret) && *ret <= max))
        return true;
    cmd_error(command, "--%s needs a number up to %" PRIu64 ", not '%s'", name, max, text);
    return false;
}

static int run(const struct command *command, int argc, char **argv)
{
    static struct torture t;
    const char *rounds = NULL, *seconds = NULL, *writers = NULL, *seed = NULL, *journal = NULL;
    const char *cut_ms = NULL;
    const char *paths[2];
    const struct cmd_option options[] = {
        {"rounds", NULL, &rounds},   {"seconds", NULL, &seconds},
        {"writers", NULL, &writers}, {"seed", NULL, &seed},
        {"journal", NULL, &journal}, {"mount-command", NULL, &t.mount.mount_command},
        {"cut-ms", NULL, &cut_ms},   {"cut-command", NULL, &t.mount.cut_command},
    };

    int code = cmd_parse(command, argc, argv, options, AF_ARRAY_LEN(options), paths, 2);
    if (code >= 0)
        return code;
    t.command = t.mount.command = command;
    t.mount.store = paths[0];
    t.mount.mountpoint = paths[1];
    t.writer_count = 4;
    t.cut_ms = CUT_MS;
    t.seed = ticks_ms() ^ (uint64_t)getpid();
    if (!take_number(command, "rounds", rounds, UINT32_MAX, &t.rounds) ||
        !take_number(command, "seconds", seconds, UINT32_MAX, &t.seconds) ||
        !take_number(command, "writers", writers, WRITERS_MAX, &t.writer_count) ||
        !take_number(command, "cut-ms", cut_ms, UINT32_MAX, &t.cut_ms) ||
        !take_number(command, "seed", seed, UINT64_MAX, &t.seed))
        return TORTURE_CANNOT_RUN;
    if (!rounds && !seconds)
        t.rounds = 10;
    t.cut_ms += t.cut_ms == 0;
    t.rng = t.seed;
    int err = torture_mount_init();
    if (!err)
        err = make_journal(&t, journal);
    if (err) {
        cmd_error(command, "cannot make the directory of the journals: %s", strerror(abs(err)));
        return TORTURE_CANNOT_RUN;
    }
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    printf("torture: seed %" PRIu64 ", %" PRIu64 " writers\n", t.seed, t.writer_count);
    (void)fflush(stdout);
    code = torture(&t);
    return cmd_finish(command, code) == EXIT_CODE_IO ? TORTURE_CANNOT_RUN : code;
}

const struct command cmd_torture = {
    .name = "torture",
    .usage = "[--rounds N] [--seconds S] [--writers N] [--cut-ms N] [--seed X] [--journal DIR] "
             "[--mount-command CMD] [--cut-command CMD] STORE MOUNTPOINT",
    .summary = "kill the daemon under load again and again, and see that nothing is lost",
    .help =
        "Mounts the store (a new one is made where none is) and, in each round, lets parallel writers\n"
        "create, overwrite, append, rename, link and remove, with and without fsync, kills the daemon\n"
        "with SIGKILL at a random instant, mounts again and verifies: everything acknowledged is there,\n"
        "every file is whole, and what each writer left is a moment of its own history.\n"
        "Works in a directory of its own in the mount, and removes it unless something was lost.\n"
        "\n"
        "  --rounds N           end after N rounds (10 unless --seconds is given)\n"
        "  --seconds S          end after S seconds\n"
        "  --writers N          parallel writers, 4 unless given\n"
        "  --cut-ms N           the longest time until a cut, 1200 unless given\n"
        "  --seed X             repeat the choices of an earlier run\n"
        "  --journal DIR        where writers note what was acknowledged; not in the mount\n"
        "  --mount-command CMD  mounts instead of aerofs-mount; for the shell, gets STORE MOUNTPOINT\n"
        "  --cut-command CMD    makes the cut before SIGKILL does, for instance fails the disk; for the\n"
        "                       shell, gets PID STORE MOUNTPOINT\n"
        "  --help               print this\n"
        "  --version            print the version\n"
        "\n"
        "Exit codes: 0 nothing was lost; 1 something was lost; 2 the test could not run.\n",
    .run = run,
};
