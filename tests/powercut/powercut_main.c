// SPDX-License-Identifier: MIT
// powercut-mount: serves a store as aerofs-mount does, on a disk with a volatile cache
// (io_volatile.h), so that kill -9 of it is a power cut: everything that was not synced is lost.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "fs/fs.h"
#include "mountutil/exit_code.h"
#include "mountutil/mount_message.h"
#include "mountutil/mount_opts.h"
#include "mountutil/mount_store.h"
#include "tests/powercut/io_volatile.h"

static const char usage[] =
    "Usage: powercut-mount [--create] [-f] [--survive SEED] [--delay-us N] STORE MOUNTPOINT\n"
    "\n"
    "Mounts a store like aerofs-mount, on a disk that loses everything unsynced when this program is\n"
    "killed with SIGKILL. Takes the options of aerofs-mount, and\n"
    "\n"
    "  --survive SEED   random sectors of what is not synced reach the disk early\n"
    "  --delay-us N     writes of the log and syncs in the background take this much longer\n"
    "  --slow-sync-us N syncs of checkpoints take this much longer\n"
    "  --lie WHAT       log, data or superblock: its syncs succeed without effect (a broken disk)\n";

struct powercut {
    struct mount_opts opts;
    struct mount_place place;
    struct io_volatile_options disk;
    struct message_sink sink;
    struct io *io;
    struct engine *engine;
    struct fs *fs;
    int report_fd; // -1: foreground, or reported already
};

static int complain(int code, const char *what, const char *why)
{
    fprintf(stderr, "powercut-mount: %s%s%s\n", what, why ? ": " : "", why ? why : "");
    return code;
}

static void on_ready(void *arg)
{
    struct powercut *p = arg;
    uint8_t code = EXIT_CODE_OK;

    io_volatile_start_lying(p->io);
    if (p->report_fd < 0) {
        mount_message_ready(false);
        return;
    }
    (void)!write(p->report_fd, &code, sizeof(code));
    close(p->report_fd);
    p->report_fd = -1;
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null_fd >= 0 && fd <= 2; fd++)
        (void)dup2(null_fd, fd);
    mount_message_ready(true);
}

static void on_ending(void *arg)
{
    struct powercut *p = arg;

    mount_place_closing(&p->place);
}

static int open_store(struct powercut *p)
{
    char text[PATH_MAX + 512] = "";
    struct engine_options options = {
        .cache_bytes = p->opts.cache_bytes,
        .max_bytes = p->opts.size_bytes,
        .log_bytes = p->opts.log_bytes,
        .commit_open_ms = p->opts.commit_open_ms,
        .switches = p->opts.io.switches,
        .threads = true,
        .sink = p->sink,
    };
    const struct store_cred cred = {.uid = geteuid(), .gid = getegid()};

    int r = io_volatile_open(p->place.store, &p->disk, &p->io);
    if (!r && p->place.make_store)
        r = engine_create(p->io, &options, &cred);
    if (r)
        return complain(exit_code(r), p->place.store, err_text(r));
    r = engine_open(p->io, &options, &p->engine, text, sizeof(text));
    return r ? complain(exit_code(r), p->place.store, *text ? text : err_text(r)) : 0;
}

static int serve(struct powercut *p)
{
    char text[PATH_MAX + 512] = "cannot mount";

    int code = mount_place_check(&p->opts, &p->place, text, sizeof(text));
    if (code == 0)
        code = mount_place_lock(&p->place, text, sizeof(text));
    if (code)
        return complain(code, text, NULL);
    code = chdir("/") ? EXIT_CODE_OTHER : open_store(p);
    if (code)
        return code; // the end of the process takes down the rest
    const struct fs_options options = {
        .engine = p->engine,
        .io = p->io,
        .mountpoint = p->place.mountpoint,
        .fsname = p->opts.store,
        .kernel_options = p->opts.kernel_options,
        .present = p->opts.present,
        .switches = p->opts.io.switches,
        .sink = p->sink,
        .store_path = p->place.store,
        .ready = on_ready,
        .ending = on_ending,
        .arg = p,
    };
    if (fs_mount(&options, &p->fs, text, sizeof(text)))
        return complain(EXIT_CODE_NO_FUSE, text, NULL);
    mount_message_opened(true);
    code = exit_code(fs_run(p->fs));
    fs_unmount(p->fs);
    int r = engine_close(p->engine);
    p->io->ops->destroy(p->io);
    mount_place_unlock(&p->place);
    return code ? code : exit_code(r);
}

static int run_in_background(struct powercut *p)
{
    int fds[2];
    uint8_t code = EXIT_CODE_OTHER;

    if (pipe2(fds, O_CLOEXEC))
        return EXIT_CODE_OTHER;
    pid_t pid = fork();
    if (pid < 0)
        return EXIT_CODE_OTHER;
    if (pid == 0) {
        close(fds[0]);
        p->report_fd = fds[1];
        (void)setsid();
        code = (uint8_t)serve(p);
        if (p->report_fd >= 0)
            (void)!write(p->report_fd, &code, sizeof(code));
        return code;
    }
    close(fds[1]);
    return read(fds[0], &code, sizeof(code)) == sizeof(code) ? code : EXIT_CODE_OTHER;
}

// Takes this program's own options out of argv. False when one is wrong.
static bool take_options(struct powercut *p, int *argc, char **argv)
{
    int kept = 1;

    for (int i = 1; i < *argc; i++) {
        const char *value = i + 1 < *argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--survive") == 0 && value) {
            p->disk.survive = true;
            // The process number makes each mount of one seed another one.
            p->disk.seed = strtoull(value, NULL, 0) * 1000003u + (uint64_t)(unsigned)getpid();
        } else if (strcmp(argv[i], "--delay-us") == 0 && value) {
            p->disk.delay_us = (unsigned)strtoul(value, NULL, 0);
        } else if (strcmp(argv[i], "--slow-sync-us") == 0 && value) {
            p->disk.slow_sync_us = (unsigned)strtoul(value, NULL, 0);
        } else if (strcmp(argv[i], "--lie") == 0 && value) {
            p->disk.lie = strcmp(value, "log") == 0 ? "wal/" : value;
            if (strcmp(value, "log") != 0 && strcmp(value, "data") != 0 &&
                strcmp(value, "superblock") != 0)
                return false;
        } else {
            argv[kept++] = argv[i];
            continue;
        }
        i++;
    }
    *argc = kept;
    return true;
}

int main(int argc, char **argv)
{
    struct powercut p = {.place.lock_fd = -1, .report_fd = -1};
    char text[512] = "";
    sigset_t set;

    bool ok = take_options(&p, &argc, argv);
    if (!ok || !mount_opts_parse(argc, argv, &p.opts, text, sizeof(text)) || p.opts.help) {
        fputs(usage, p.opts.help ? stdout : stderr);
        return p.opts.help ? EXIT_CODE_OK : complain(EXIT_CODE_USAGE, text, NULL);
    }
    p.sink = mount_message_sink();
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    int code = p.opts.foreground ? serve(&p) : run_in_background(&p);
    mount_opts_free(&p.opts);
    return code;
}
