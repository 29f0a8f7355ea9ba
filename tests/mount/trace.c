// SPDX-License-Identifier: MIT
// Watches the system calls of a daemon by ptrace, and kills it, fails it or stops it at a chosen
// one.
//
//   trace run    [OPTION…] COMMAND…              starts COMMAND and follows it into the background
//   trace attach [OPTION…] PID [STORE MOUNTPOINT]   a daemon that runs (for `aerofs torture
//   --cut-command`) trace stop   [--seed S] PID [STORE MOUNTPOINT]  stops its threads one by one in
//   random order, then SIGKILL
//
// A call counts when it is one of --calls and its file (or directory) lies below --store; calls
// without a file always count. What happens at call number --at (or a random one up to --random):
//
//   --kill entry|exit   SIGKILL before the call, or when it has been done and has not returned
//   --step N            SIGKILL after up to N instructions of that thread behind the call
//   --fail ERRNO        it is not done and fails, and so do the next --count - 1 (0: all further
//   ones)
//   --hold MS           it begins so much later; 0: never, SIGKILL after --hold-kill MS
//
// and without a --kill or --step the daemon goes on. `run`: when COMMAND has exited with 0, --work
// (a shell command) runs; at its end the daemon gets SIGTERM. --log FILE: one line for each call
// that counts, and for each FUSE request and answer:
//
//   R UNIQUE OPCODE | A UNIQUE ERROR | B TID CALL FILE | E TID CALL FILE RESULT
//
// The last line of stdout says what was done: "killed at CALL FILE, HOW (N)" or "ended after N";
// --note FILE gets the same line appended.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef __x86_64__
#error "registers are known for x86-64 only"
#endif

#define THREADS_MAX 64

enum file_of { NO_FILE, FILE_OF_FD, FILE_BELOW_FD };

static const struct call {
    const char *name;
    long number;
    enum file_of file;
} calls[] = {
    {"pwrite64", SYS_pwrite64, FILE_OF_FD},
    {"pwritev", SYS_pwritev, FILE_OF_FD},
    {"pwritev2", SYS_pwritev2, FILE_OF_FD},
    {"fsync", SYS_fsync, FILE_OF_FD},
    {"fdatasync", SYS_fdatasync, FILE_OF_FD},
    {"fallocate", SYS_fallocate, FILE_OF_FD},
    {"ftruncate", SYS_ftruncate, FILE_OF_FD},
    {"pread64", SYS_pread64, FILE_OF_FD},
    {"openat", SYS_openat, FILE_BELOW_FD},
    {"renameat", SYS_renameat, FILE_BELOW_FD},
    {"renameat2", SYS_renameat2, FILE_BELOW_FD},
    {"unlinkat", SYS_unlinkat, FILE_BELOW_FD},
    {"mkdirat", SYS_mkdirat, FILE_BELOW_FD},
    {"io_uring_enter", SYS_io_uring_enter, NO_FILE},
    {"sync_file_range", SYS_sync_file_range, FILE_OF_FD},
};

struct thread {
    pid_t tid;
    bool seized_new; // its first stop has not been seen
    bool in_call;
    int call; // index in calls, -1: none that counts
    char file[256];
    bool failing;
    int fuse; // 1: reads the device
    uint64_t buffer;
    uint64_t held_until;     // 0: not held
    uint64_t steps, stepped; // goal, 0: runs; and how far it has come
};

static struct options {
    const char *calls, *store, *kill, *work, *path, *note;
    uint64_t at, random, step, count, hold, hold_kill, seed, ms;
    int fail;
    bool holds;
    FILE *log;
} o = {.count = 1};

static struct thread threads[THREADS_MAX];
static size_t thread_count;
static pid_t daemon_pid, root_pid, work_pid;
static uint64_t seen, started_ms, held_ms;
static bool killed, done, ended_by_hold, stepping;
static char killed_at[320];

static void die(const char *what)
{
    fprintf(stderr, "trace: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void sleep_us(unsigned us)
{
    struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L};

    nanosleep(&t, NULL);
}

static uint64_t next_random(void)
{
    uint64_t z = o.seed += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

// ---- threads ----

static struct thread *thread_of(pid_t tid)
{
    for (size_t i = 0; i < thread_count; i++)
        if (threads[i].tid == tid)
            return &threads[i];
    if (thread_count == THREADS_MAX) {
        fputs("trace: too many threads\n", stderr);
        exit(2);
    }
    threads[thread_count] = (struct thread){.tid = tid, .call = -1};
    return &threads[thread_count++];
}

static void forget(pid_t tid)
{
    for (size_t i = 0; i < thread_count; i++)
        if (threads[i].tid == tid)
            threads[i] = threads[--thread_count];
}

static void go_on(pid_t tid, int signal_number)
{
    // It may have been killed in the meantime.
    (void)ptrace(PTRACE_SYSCALL, tid, NULL, (void *)(intptr_t)signal_number);
}

// ---- what a call is about ----

static bool is_listed(const char *list, const char *name)
{
    size_t len = strlen(name);

    if (!list)
        return true;
    for (const char *at = strstr(list, name); at; at = strstr(at + 1, name))
        if ((at == list || at[-1] == ',') && (at[len] == ',' || at[len] == 0))
            return true;
    return false;
}

static void fd_path(pid_t tid, int fd, char path[PATH_MAX])
{
    char link[64];

    snprintf(link, sizeof(link), "/proc/%d/%s%d", (int)tid, fd == AT_FDCWD ? "cwd" : "fd/",
             fd == AT_FDCWD ? 0 : fd);
    if (fd == AT_FDCWD)
        link[strlen(link) - 1] = 0;
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    path[n > 0 ? n : 0] = 0;
}

static void peek(pid_t tid, uint64_t address, void *to, size_t size)
{
    struct iovec local = {to, size}, remote = {(void *)(uintptr_t)address, size};

    memset(to, 0, size);
    (void)process_vm_readv(tid, &local, 1, &remote, 1, 0); // what could not be read stays zero
}

// Index of the call when it counts, else -1.
static int match(struct thread *t, const struct __ptrace_syscall_info *info)
{
    char path[PATH_MAX], name[128] = "";
    size_t below = o.store ? strlen(o.store) : 0;

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        const struct call *c = &calls[i];
        if (c->number != (long)info->entry.nr || !is_listed(o.calls, c->name))
            continue;
        t->file[0] = 0;
        if (c->file == NO_FILE)
            return (int)i;
        fd_path(t->tid, (int)info->entry.args[0], path);
        if (c->file == FILE_BELOW_FD)
            peek(t->tid, info->entry.args[1], name, sizeof(name) - 1);
        if (o.store && (strncmp(path, o.store, below) != 0 || (path[below] && path[below] != '/')))
            return -1;
        const char *rest = path + below + (path[below] == '/');
        snprintf(t->file, sizeof(t->file), "%.120s%s%.120s", rest, *rest && *name ? "/" : "", name);
        return o.path && !strstr(t->file, o.path) ? -1 : (int)i;
    }
    return -1;
}

// ---- the log ----

static bool is_fuse(pid_t tid, int fd)
{
    char path[PATH_MAX];

    fd_path(tid, fd, path);
    return strcmp(path, "/dev/fuse") == 0;
}

static void log_fuse_entry(struct thread *t, const struct __ptrace_syscall_info *info)
{
    const __typeof__(info->entry.args[0]) *args = info->entry.args;
    uint32_t head[4];
    struct iovec iov;

    t->fuse = 0;
    if (info->entry.nr == SYS_read && is_fuse(t->tid, (int)args[0])) {
        t->fuse = 1;
        t->buffer = args[1];
    } else if ((info->entry.nr == SYS_writev || info->entry.nr == SYS_write) &&
               is_fuse(t->tid, (int)args[0])) {
        iov.iov_base = (void *)(uintptr_t)args[1];
        if (info->entry.nr == SYS_writev)
            peek(t->tid, args[1], &iov, sizeof(iov));
        peek(t->tid, (uint64_t)(uintptr_t)iov.iov_base, head, sizeof(head));
        fprintf(o.log, "A %llu %d\n",
                (unsigned long long)head[2] | (unsigned long long)head[3] << 32, (int)head[1]);
    }
}

static void log_fuse_exit(struct thread *t, int64_t result)
{
    uint32_t head[4];

    if (t->fuse && result > 0) {
        peek(t->tid, t->buffer, head, sizeof(head));
        fprintf(o.log, "R %llu %u\n",
                (unsigned long long)head[2] | (unsigned long long)head[3] << 32, head[1]);
    }
    t->fuse = 0;
}

// ---- what is done at the chosen call ----

static void kill_daemon(const struct thread *t, const char *how)
{
    if (!killed)
        snprintf(killed_at, sizeof(killed_at), "%s %s, %s (%llu)",
                 t->call >= 0 ? calls[t->call].name : "no call", t->file, how,
                 (unsigned long long)seen);
    killed = true;
    kill(daemon_pid, SIGKILL);
}

// The number of the call becomes none, so the kernel does nothing.
static void skip_call(struct thread *t)
{
    struct user_regs_struct regs;

    if (ptrace(PTRACE_GETREGS, t->tid, NULL, &regs))
        return;
    regs.orig_rax = (unsigned long long)-1;
    t->failing = ptrace(PTRACE_SETREGS, t->tid, NULL, &regs) == 0;
}

static void set_result(struct thread *t)
{
    struct user_regs_struct regs;

    if (ptrace(PTRACE_GETREGS, t->tid, NULL, &regs) == 0) {
        regs.rax = (unsigned long long)(long long)-o.fail;
        (void)ptrace(PTRACE_SETREGS, t->tid, NULL, &regs); // it may be dead
    }
    t->failing = false;
}

static bool is_chosen(void)
{
    return o.at && (o.count ? seen >= o.at && seen < o.at + o.count : seen >= o.at);
}

// False when the thread is not to go on now.
static bool on_entry(struct thread *t, const struct __ptrace_syscall_info *info)
{
    t->in_call = true;
    t->call = match(t, info);
    if (o.log)
        log_fuse_entry(t, info);
    if (t->call < 0)
        return true;
    seen++;
    if (o.log)
        fprintf(o.log, "B %d %s %s\n", (int)t->tid, calls[t->call].name, t->file);
    if (!is_chosen())
        return true;
    if (o.kill && strcmp(o.kill, "entry") == 0)
        kill_daemon(t, "at its entry");
    else if (o.fail)
        skip_call(t);
    else if (o.holds && !held_ms) {
        held_ms = now_ms();
        t->held_until = o.hold ? held_ms + o.hold : UINT64_MAX;
        fprintf(stderr, "trace: holds %s %s\n", calls[t->call].name, t->file);
        return false;
    }
    return true;
}

// Single steps of this thread; the others run.
static void step(struct thread *t)
{
    char text[48];

    if (t->stepped < t->steps) {
        t->stepped++;
        (void)ptrace(PTRACE_SINGLESTEP, t->tid, NULL, NULL); // it may have been killed
        return;
    }
    snprintf(text, sizeof(text), "%llu instructions behind it", (unsigned long long)t->stepped);
    kill_daemon(t, text);
}

static void on_exit_of_call(struct thread *t, int64_t result)
{
    bool chosen = t->call >= 0 && is_chosen();

    t->in_call = false;
    if (t->failing) {
        set_result(t);
        result = -o.fail;
    }
    if (o.log) {
        log_fuse_exit(t, result);
        if (t->call >= 0)
            fprintf(o.log, "E %d %s %s %lld\n", (int)t->tid, calls[t->call].name, t->file,
                    (long long)result);
    }
    if (!chosen)
        return;
    if (o.kill && strcmp(o.kill, "exit") == 0)
        kill_daemon(t, "at its exit");
    else if (o.step && !stepping)
        t->steps = 1 + next_random() % o.step;
}

static void on_syscall_stop(struct thread *t)
{
    struct __ptrace_syscall_info info;
    bool run = true;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, t->tid, sizeof(info), &info) <= 0)
        return;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
        run = on_entry(t, &info);
    else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
        on_exit_of_call(t, info.exit.rval);
    stepping |= t->steps != 0;
    if (t->steps)
        step(t);
    else if (run)
        go_on(t->tid, 0);
}

// ---- events ----

static void start_work(void)
{
    work_pid = fork();
    if (work_pid == 0) {
        execl("/bin/sh", "sh", "-c", o.work, (char *)NULL);
        _exit(127);
    }
}

static void on_end(pid_t pid, int status)
{
    if (pid == work_pid) {
        work_pid = 0;
        done = true;
        if (!killed && daemon_pid)
            kill(daemon_pid, SIGTERM);
        if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && !killed)) {
            fprintf(stderr, "trace: the work failed (%#x)\n", (unsigned)status);
            exit(1);
        }
        return;
    }
    forget(pid);
    if (pid == daemon_pid) {
        daemon_pid = 0;
    } else if (pid == root_pid) {
        root_pid = 0;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && !killed && o.work)
            start_work();
        else if (!killed && daemon_pid)
            kill(daemon_pid, SIGTERM);
    }
}

static void on_stop(pid_t pid, int status)
{
    struct thread *t = thread_of(pid);
    int signal_number = WSTOPSIG(status), event = status >> 16;
    unsigned long child;

    if (signal_number == (SIGTRAP | 0x80)) {
        on_syscall_stop(t);
        return;
    }
    if (t->steps && !event && signal_number == SIGTRAP) {
        step(t);
        return;
    }
    if (event == PTRACE_EVENT_FORK && !daemon_pid &&
        ptrace(PTRACE_GETEVENTMSG, pid, NULL, &child) == 0)
        daemon_pid = (pid_t)child; // the one that goes into the background
    // The stops of attaching and of new threads are no signals.
    go_on(pid, event || signal_number == SIGSTOP || signal_number == SIGTRAP ? 0 : signal_number);
}

static void release_held(void)
{
    uint64_t now = now_ms();

    if (o.holds && held_ms && !o.hold && now >= held_ms + o.hold_kill && !ended_by_hold) {
        for (size_t i = 0; i < thread_count; i++)
            if (threads[i].held_until)
                kill_daemon(&threads[i], "while it was held");
        ended_by_hold = true;
    }
    for (size_t i = 0; i < thread_count; i++) {
        if (threads[i].held_until && now >= threads[i].held_until) {
            threads[i].held_until = 0;
            go_on(threads[i].tid, 0);
        }
    }
    if (o.ms && !killed && daemon_pid && now >= started_ms + o.ms) {
        snprintf(killed_at, sizeof(killed_at), "no call: after %llu ms and %llu calls",
                 (unsigned long long)o.ms, (unsigned long long)seen);
        killed = true;
        kill(daemon_pid, SIGKILL);
    }
}

static void watch(void)
{
    bool polls = o.holds || o.ms;
    int status;

    while (daemon_pid || root_pid || work_pid) {
        pid_t pid = waitpid(-1, &status, __WALL | (polls ? WNOHANG : 0));
        if (polls)
            release_held();
        if (pid == 0) {
            sleep_us(200);
            continue;
        }
        if (pid < 0 && errno == ECHILD)
            break;
        if (pid < 0)
            continue;
        if (WIFSTOPPED(status))
            on_stop(pid, status);
        else
            on_end(pid, status);
    }
    if (o.log)
        fclose(o.log);
}

// ---- the three ways ----

#define TRACE_OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK)

static int run(char **argv)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        (void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        execvp(argv[0], argv);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFSTOPPED(status))
        die("cannot start");
    if (ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(intptr_t)TRACE_OPTIONS))
        die("PTRACE_SETOPTIONS");
    root_pid = pid;
    go_on(pid, 0);
    watch();
    return 0;
}

// All threads of the process, which may be making more. Kernel threads of io_uring are not for us.
static size_t seize_all(pid_t pid, pid_t tids[THREADS_MAX])
{
    char path[64];
    size_t count = 0;
    bool more = true;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    while (more) {
        DIR *dir = opendir(path);
        const struct dirent *e;
        more = false;
        while (dir && (e = readdir(dir))) {
            pid_t tid = (pid_t)strtol(e->d_name, NULL, 10);
            bool known = tid <= 0;
            for (size_t i = 0; i < count; i++)
                known |= tids[i] == tid;
            if (known || count == THREADS_MAX)
                continue;
            if (ptrace(PTRACE_SEIZE, tid, NULL,
                       (void *)(intptr_t)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE)))
                continue;
            tids[count++] = tid;
            more = true;
        }
        if (dir)
            closedir(dir);
    }
    return count;
}

static int attach(pid_t pid)
{
    pid_t tids[THREADS_MAX];
    size_t count = seize_all(pid, tids);

    daemon_pid = pid;
    for (size_t i = 0; i < count; i++) {
        (void)thread_of(tids[i]);
        (void)ptrace(PTRACE_INTERRUPT, tids[i], NULL, NULL); // a dead one has nothing to say
    }
    if (count)
        watch();
    return 0;
}

static int stop(pid_t pid)
{
    pid_t tids[THREADS_MAX];
    size_t count = seize_all(pid, tids), stopped = 0, goal = 1 + next_random() % (count + 1);

    for (size_t i = count; i > 1; i--) {
        size_t j = next_random() % i;
        pid_t t = tids[i - 1];
        tids[i - 1] = tids[j];
        tids[j] = t;
    }
    char *at = killed_at, *end = killed_at + sizeof(killed_at);
    for (; stopped < count && stopped < goal; stopped++) {
        int status;
        if (ptrace(PTRACE_INTERRUPT, tids[stopped], NULL, NULL) == 0)
            (void)waitpid(tids[stopped], &status, __WALL);
        at += snprintf(at, (size_t)(end - at), "%d ", (int)(tids[stopped] - pid));
        if (at > end - 64)
            at = end - 64; // enough is said
        sleep_us((unsigned)(next_random() % 30000));
    }
    snprintf(at, (size_t)(end - at), "stopped, of %zu threads", count);
    killed = true;
    kill(pid, SIGKILL);
    daemon_pid = pid;
    watch();
    return 0;
}

// ---- arguments ----

static int errno_of(const char *name)
{
    static const struct {
        const char *name;
        int number;
    } names[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EACCES", EACCES},
                 {"EPERM", EPERM},   {"EROFS", EROFS},   {"ENOMEM", ENOMEM}, {"EAGAIN", EAGAIN},
                 {"EMFILE", EMFILE}, {"EINTR", EINTR}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i].name, name) == 0)
            return names[i].number;
    fprintf(stderr, "trace: no errno %s\n", name);
    exit(2);
}

static void take_option(const char *name, const char *value)
{
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = {{"--at", &o.at},       {"--random", &o.random}, {"--step", &o.step},
                   {"--count", &o.count}, {"--hold", &o.hold},     {"--hold-kill", &o.hold_kill},
                   {"--seed", &o.seed},   {"--ms", &o.ms}};
    const struct {
        const char *name;
        const char **to;
    } texts[] = {{"--calls", &o.calls}, {"--store", &o.store}, {"--kill", &o.kill},
                 {"--work", &o.work},   {"--path", &o.path},   {"--note", &o.note}};

    if (!value) {
        fprintf(stderr, "trace: %s needs a value\n", name);
        exit(2);
    }
    o.holds |= strcmp(name, "--hold") == 0;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (strcmp(numbers[i].name, name) == 0) {
            *numbers[i].to = strtoull(value, NULL, 0);
            return;
        }
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (strcmp(texts[i].name, name) == 0) {
            *texts[i].to = value;
            return;
        }
    if (strcmp(name, "--fail") == 0) {
        o.fail = errno_of(value);
    } else if (strcmp(name, "--log") == 0) {
        o.log = fopen(value, "we");
        if (!o.log)
            die(value);
    } else {
        fprintf(stderr, "trace: unknown option %s\n", name);
        exit(2);
    }
}

static void say_result(FILE *to)
{
    if (killed && killed_at[0])
        fprintf(to, "killed at %s\n", killed_at);
    else if (!killed)
        fprintf(to, "ended after %llu\n", (unsigned long long)seen);
}

int main(int argc, char **argv)
{
    int i = 2;

    if (argc < 3)
        return 2;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i += 2)
        take_option(argv[i], i + 1 < argc ? argv[i + 1] : NULL);
    if (i >= argc)
        return 2;
    pid_t pid = (pid_t)strtol(argv[i], NULL, 10);
    o.seed = o.seed * 1000003 + (uint64_t)(unsigned)pid;
    if (o.random)
        o.at = 1 + next_random() % o.random;
    started_ms = now_ms();
    if (strcmp(argv[1], "run") == 0)
        run(argv + i);
    else if (strcmp(argv[1], "attach") == 0)
        attach(pid);
    else if (strcmp(argv[1], "stop") == 0)
        stop(pid);
    else
        return 2;
    say_result(stdout);
    FILE *note = o.note ? fopen(o.note, "ae") : NULL;
    if (note) {
        say_result(note);
        fclose(note);
    }
    return 0;
}
