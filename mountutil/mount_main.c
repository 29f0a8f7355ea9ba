// SPDX-License-Identifier: MIT
// aerofs-mount: opens a store, recovers it and serves it at a mount point.
//
// In the background the work is done by a child from the start, since threads do not survive a
// fork; the parent waits for the byte that the child sends when the mount is up, and passes on its
// exit code. Until then both have the same stderr.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/version.h"
#include "fs/fs.h"
#include "mountutil/exit_code.h"
#include "mountutil/mount_message.h"
#include "mountutil/mount_opts.h"
#include "mountutil/mount_store.h"
#include "mountutil/notify.h"

struct daemon {
    const struct mount_opts *opts;
    struct mount_place place;
    struct message_sink sink;
    struct io *io;
    struct engine *engine;
    struct fs *fs;
    int report_fd; // -1: foreground, or reported already
};

static int complain(int code, const char *text)
{
    fprintf(stderr, "aerofs-mount: %s\n", text);
    return code;
}

// ---- ready ----

static void detach_from_terminal(void)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = 0; null_fd >= 0 && fd <= 2; fd++)
        (void)dup2(null_fd, fd); // onto open descriptors: cannot fail
    if (null_fd > 2)
        close(null_fd);
}

static void tell_manager(const struct daemon *d, const char *text)
{
    int r = notify_send(text);

    if (r)
        message(&d->sink, MESSAGE_WARNING, "cannot tell the service manager (NOTIFY_SOCKET): %s",
                err_text(r));
}

// No request is read any more. From here on the next mount of the store, and umount, wait for us.
static void on_ending(void *arg)
{
    struct daemon *d = arg;

    mount_place_closing(&d->place);
    tell_manager(d, "STOPPING=1\nSTATUS=Unmounted, closing the store");
}

// The mount answers: say so in one line, let the parent go, and carry on without a terminal.
static void on_ready(void *arg)
{
    struct daemon *d = arg;
    struct engine_status status;
    char line[2 * PATH_MAX + 1024], news[512];
    uint8_t code = EXIT_CODE_OK;

    engine_get_status(d->engine, &status);
    snprintf(line, sizeof(line), "%s is mounted at %s (%s%s); %s", d->place.store,
             d->place.mountpoint, status.io ? status.io : "?",
             status.read_only ? ", read-only" : "", status.recovery.text);
    snprintf(news, sizeof(news), "READY=1\nMAINPID=%d\nSTATUS=%.400s", (int)getpid(), line);
    tell_manager(d, news);
    if (d->report_fd < 0) {
        mount_message_ready(false);
        message(&d->sink, MESSAGE_INFO, "%s", line);
        return;
    }
    printf("aerofs: %s\n", line);
    (void)fflush(stdout); // nobody left to tell
    (void)!write(d->report_fd, &code, sizeof(code));
    close(d->report_fd);
    d->report_fd = -1;
    detach_from_terminal();
    mount_message_ready(true);
    message(&d->sink, MESSAGE_INFO, "%s", line);
}

// ---- up and down ----

// Before the store is touched.
static int check_fuse(void)
{
    char line[256];

    if (access("/dev/fuse", F_OK) != 0)
        return complain(EXIT_CODE_NO_FUSE,
                        "/dev/fuse is not there: the kernel has no FUSE (modprobe fuse), or this "
                        "container was not given it");
    if (geteuid() != 0)
        return 0; // others get it from fusermount3
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return 0;
    }
    snprintf(line, sizeof(line), "/dev/fuse cannot be opened: %s", strerror(errno));
    return complain(EXIT_CODE_NO_FUSE, line);
}

static void engine_options_from(const struct daemon *d, struct engine_options *ret_options)
{
    *ret_options = (struct engine_options){
        .cache_bytes = d->opts->cache_bytes,
        .max_bytes = d->opts->size_bytes,
        .log_bytes = d->opts->log_bytes,
        .commit_open_ms = d->opts->commit_open_ms,
        .read_only = d->opts->read_only,
        .switches = d->opts->io.switches,
        .threads = true,
        .sink = d->sink,
    };
}

struct last_message {
    char text[512];
};

static void keep_message(void *arg, enum message_level level, const char *text)
{
    struct last_message *last = arg;

    if (level <= MESSAGE_WARNING)
        snprintf(last->text, sizeof(last->text), "%s", text); // a cut sentence still tells
}

static int make_store(struct daemon *d)
{
    const struct store_cred cred = {.uid = geteuid(), .gid = getegid()};
    struct last_message last = {""};
    struct engine_options options;
    char line[2 * PATH_MAX];

    engine_options_from(d, &options);
    options.sink = (struct message_sink){.emit = keep_message, .arg = &last};
    int r = engine_create(d->io, &options, &cred);
    if (r == 0)
        return 0;
    snprintf(line, sizeof(line), "cannot make a store in %s: %s", d->place.store,
             last.text[0] ? last.text : err_text(r));
    return complain(exit_code(r), line);
}

static int open_engine(struct daemon *d)
{
    struct engine_options options;
    char text[PATH_MAX + 512] = "";
    char line[2 * PATH_MAX];

    int r = io_open_chosen(d->place.store, &d->opts->io, d->place.disk_read_only, &d->io);
    if (r) {
        const char *insisted = r == -AF_E_IO_UNSUPPORTED && d->opts->io.uring ? "uring"
                               : r == -AF_E_IO_NO_DIRECT                      ? "direct"
                                                                              : NULL;

        d->io = NULL;
        snprintf(line, sizeof(line), "cannot open the store %s%s%s%s: %s", d->place.store,
                 insisted ? " with -o " : "", insisted ? insisted : "",
                 insisted ? " (without that option another way is taken)" : "", err_text(r));
        return complain(exit_code(r), line);
    }
    if (d->place.make_store) {
        r = make_store(d);
        if (r)
            return r;
    }
    engine_options_from(d, &options);
    r = engine_open(d->io, &options, &d->engine, text, sizeof(text));
    if (r) {
        snprintf(line, sizeof(line), "cannot open the store %s: %s", d->place.store,
                 text[0] ? text : err_text(r));
        return complain(exit_code(r), line);
    }
    return 0;
}

static int mount_fs(struct daemon *d)
{
    char text[PATH_MAX + 512] = "cannot mount";
    const struct fs_options options = {
        .engine = d->engine,
        .io = d->io,
        .mountpoint = d->place.mountpoint,
        .fsname = d->opts->fsname ? d->opts->fsname : d->opts->store,
        .kernel_options = d->opts->kernel_options,
        .present = d->opts->present,
        .read_only = d->opts->read_only,
        .switches = d->opts->io.switches,
        .sink = d->sink,
        .store_path = d->place.store,
        .ready = on_ready,
        .ending = on_ending,
        .arg = d,
    };

    return fs_mount(&options, &d->fs, text, sizeof(text)) ? complain(EXIT_CODE_NO_FUSE, text) : 0;
}

// Everything there is, taken down in the reverse order. The lock goes last: until then the files
// are ours.
static int shut_down(struct daemon *d, int code)
{
    fs_unmount(d->fs);
    int r = d->engine ? engine_close(d->engine) : 0;
    if (r) {
        message(&d->sink, MESSAGE_ERROR, "closing the store %s failed: %s", d->place.store,
                err_text(r));
        code = code ? code : exit_code(r);
    }
    if (d->io)
        d->io->ops->destroy(d->io);
    if (d->fs && r == 0)
        message(&d->sink, MESSAGE_INFO, "%s is unmounted, the store %s is closed",
                d->place.mountpoint, d->place.store);
    mount_place_unlock(&d->place);
    return code;
}

static int serve(struct daemon *d)
{
    char text[2 * PATH_MAX + 256];
    int code = check_fuse();

    if (code == 0) {
        code = mount_place_check(d->opts, &d->place, text, sizeof(text));
        if (code == 0)
            code = mount_place_lock(&d->place, text, sizeof(text));
        if (code)
            return complain(code, text);
        // Paths are resolved: from here on no directory but the store and the mount point is held.
        if (chdir("/"))
            return complain(EXIT_CODE_OTHER, "cannot change to /");
        tell_manager(d, "STATUS=Opening the store");
        code = open_engine(d);
    }
    if (code == 0)
        code = mount_fs(d);
    mount_message_opened(code == 0);
    if (code == 0)
        code = exit_code(fs_run(d->fs)); // the reason went to the sink
    return shut_down(d, code);
}

// ---- processes ----

// mount(8) knows us as mount.aerofs; ps shall show one name. And as many open files as we may have:
// few are needed, but the default of some systems is fewer. Where it fails, nothing changes.
static void set_process(void)
{
    struct rlimit files;

    (void)prctl(PR_SET_NAME, "aerofs-mount");
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void set_signals(void)
{
    sigset_t set;

    // Before the first thread, so that all inherit it; fs_run() takes them.
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

// The parent: waits for the byte of on_ready(), or for the end of the child.
static int wait_for_daemon(pid_t pid, int fd)
{
    uint8_t code;
    ssize_t n;
    int status = 0;

    do {
        n = read(fd, &code, sizeof(code));
    } while (n < 0 && errno == EINTR);
    if (n == sizeof(code))
        return code;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return complain(EXIT_CODE_OTHER, "the daemon got lost");
    }
    if (WIFEXITED(status))
        return WEXITSTATUS(status) ? WEXITSTATUS(status) : EXIT_CODE_OTHER;
    return complain(EXIT_CODE_OTHER, "the daemon died before the mount was up");
}

static int run_in_background(struct daemon *d)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC))
        return complain(EXIT_CODE_OTHER, strerror(errno));
    (void)fflush(NULL); // else what is buffered is written twice
    pid_t pid = fork();
    if (pid < 0)
        return complain(EXIT_CODE_OTHER, strerror(errno));
    if (pid > 0) {
        close(fds[1]);
        return wait_for_daemon(pid, fds[0]);
    }
    close(fds[0]);
    d->report_fd = fds[1];
    (void)setsid(); // a new child leads no group: cannot fail
    return serve(d);
}

int main(int argc, char **argv)
{
    struct mount_opts opts;
    char text[512];

    if (!mount_opts_parse(argc, argv, &opts, text, sizeof(text))) {
        mount_opts_free(&opts);
        return complain(EXIT_CODE_USAGE, text);
    }
    int code = 0;
    struct daemon d = {.opts = &opts,
                       .place = {.lock_fd = -1, .dir_fd = -1},
                       .sink = mount_message_sink(),
                       .report_fd = -1};
    set_process();
    set_signals();
    if (opts.help)
        code = fputs(mount_opts_help, stdout) < 0 || fflush(stdout) ? EXIT_CODE_OTHER : 0;
    else if (opts.version)
        code = printf("aerofs-mount %s\n", AF_VERSION) < 0 || fflush(stdout) ? EXIT_CODE_OTHER : 0;
    else if (opts.fake)
        code = EXIT_CODE_OK;
    else if (opts.foreground)
        code = serve(&d);
    else
        code = run_in_background(&d);
    mount_opts_free(&opts);
    return code;
}
