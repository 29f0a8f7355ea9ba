// SPDX-License-Identifier: MIT
// Runs the cases of the conformance suite on AeroFS and, for calibration, on a native directory.
//
//   posix [--only NAME] AEROFS-DIR NATIVE-DIR FILE.cases…
//
// Each case runs in a process of its own, in a fresh directory of mode 0777, as root with umask 0.
// The other of the two directories is $OTHER, for EXDEV. Exit code 0: no case differs.

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/posix/posix.h"

#define CASE_SECONDS 30
#define CASES_MAX    4000
#define PROCESSES    4
#define VERDICT_FD   200 // out of the way of the descriptors of a case

struct verdict {
    bool passed;
    char why[500];
};

struct one_case {
    char *file, *name, *script, *extra;
    int line;
    struct verdict on[2]; // native, AeroFS
};

static struct one_case cases[CASES_MAX];
static size_t case_count;
static const char *roots[2];
static bool read_only; // the directories are there and cannot be written to

// ---- reading ----

static char *trim(char *text)
{
    size_t len = strlen(text);

    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' '))
        text[--len] = '\0';
    return text + strspn(text, " ");
}

// CALL: WHAT: SCRIPT. A line "# extra: REASON" says why the next case differs; one that begins with
// a blank goes on with the case before.
static void add_case(char *file, int number, char *line, char **extra)
{
    char *colon = strstr(line, ": ");

    colon = colon ? strstr(colon + 2, ": ") : NULL;
    if (!colon || case_count == CASES_MAX)
        nonsense("%s:%d: no case: %s", file, number, line);
    *colon = '\0';
    cases[case_count++] = (struct one_case){.file = file,
                                            .line = number,
                                            .name = strdup(trim(line)),
                                            .script = strdup(trim(colon + 1)),
                                            .extra = *extra};
    *extra = NULL;
}

static void continue_case(char *file, int number, const char *line)
{
    struct one_case *last = case_count ? &cases[case_count - 1] : NULL;
    char *joined;

    if (!last || asprintf(&joined, "%s %s", last->script, line) < 0)
        nonsense("%s:%d: nothing to go on with", file, number);
    free(last->script);
    last->script = joined;
}

static void read_cases(char *file)
{
    FILE *from = fopen(file, "r");
    static char line[100000];
    char *extra = NULL;

    if (!from)
        nonsense("cannot read %s", file);
    for (int number = 1; fgets(line, sizeof(line), from); number++) {
        bool more = line[0] == ' ';
        char *text = trim(line);

        if (strncmp(text, "# extra: ", 9) == 0)
            extra = strdup(text + 9);
        else if (*text && more)
            continue_case(file, number, text);
        else if (*text && *text != '#')
            add_case(file, number, text, &extra);
    }
    fclose(from);
}

// ---- running ----

static void run_here(const struct one_case *c, int side, const char *dir)
{
    static struct run run;
    struct verdict v = {0};

    run.other = roots[1 - side];
    memset(run.regs, -1, sizeof(run.regs));
    snprintf(run.here, sizeof(run.here), "%s", dir);
    umask(0);
    alarm(CASE_SECONDS);
    v.passed = script_run(&run, c->script, side, v.why, sizeof(v.why));
    if (write(VERDICT_FD, &v, sizeof(v)) != (ssize_t)sizeof(v))
        _exit(1);
    _exit(0);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void run_case(const struct one_case *c, int side, size_t index, struct verdict *ret)
{
    char dir[4096];
    int p[2], status = 0;

    snprintf(dir, sizeof(dir), "%s/case-%d-%zu", roots[side], (int)getpid(), index);
    snprintf(ret->why, sizeof(ret->why), "cannot run: %s", strerror(errno));
    if (read_only)
        snprintf(dir, sizeof(dir), "%s", roots[side]);
    else if (mkdir(dir, 0700) || chmod(dir, 0777))
        return;
    if (pipe(p))
        return;
    pid_t pid = fork();
    if (pid == 0) {
        if (dup2(p[1], VERDICT_FD) < 0 || chdir(dir))
            _exit(98);
        close(p[0]);
        close(p[1]);
        run_here(c, side, dir);
    }
    close(p[1]);
    bool answered = read(p[0], ret, sizeof(*ret)) == (ssize_t)sizeof(*ret);
    close(p[0]);
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 99)
        nonsense("%s:%d: %s: cannot be run", c->file, c->line, c->name);
    if (!answered) {
        ret->passed = false;
        snprintf(ret->why, sizeof(ret->why), "ended with status 0x%x", status);
    }
    if (!read_only && nftw(dir, remove_one, 64, FTW_DEPTH | FTW_PHYS)) {
        ret->passed = false;
        snprintf(ret->why, sizeof(ret->why), "its directory cannot be removed: %s",
                 strerror(errno));
    }
}

// The cases of one process go to the parent as they are done.
struct report {
    size_t index;
    int side;
    struct verdict v;
};

static void run_share(size_t from, int out)
{
    for (size_t i = from; i < case_count; i += PROCESSES) {
        for (int side = 0; side < 2; side++) {
            struct report r = {.index = i, .side = side};
            run_case(&cases[i], side, i, &r.v);
            if (write(out, &r, sizeof(r)) != (ssize_t)sizeof(r))
                _exit(1);
        }
    }
    _exit(0);
}

static bool run_all(void)
{
    bool fine = true;
    struct report r;
    int p[2], status;

    if (pipe(p))
        return false;
    for (size_t i = 0; i < PROCESSES; i++) {
        if (fork() == 0) {
            close(p[0]);
            run_share(i, p[1]);
        }
    }
    close(p[1]);
    size_t got = 0;
    while (read(p[0], &r, sizeof(r)) == (ssize_t)sizeof(r)) {
        cases[r.index].on[r.side] = r.v;
        got++;
    }
    while (wait(&status) > 0)
        fine = fine && status == 0;
    return fine && got == 2 * case_count;
}

// ---- saying ----

static int say_results(void)
{
    size_t native = 0, aerofs = 0, differ = 0, extras = 0;

    for (size_t i = 0; i < case_count; i++) {
        const struct one_case *c = &cases[i];

        native += c->on[0].passed;
        aerofs += c->on[1].passed;
        extras += c->extra != NULL;
        if (!c->on[0].passed)
            printf("%s:%d: %s: native: %s\n", c->file, c->line, c->name, c->on[0].why);
        if (!c->on[1].passed)
            printf("%s:%d: %s: AeroFS: %s\n", c->file, c->line, c->name, c->on[1].why);
        differ += !c->on[1].passed;
    }
    printf("%zu cases, %zu native, %zu AeroFS, %zu differ (and %zu as documented)\n", case_count,
           native, aerofs, differ, extras);
    return native == case_count && aerofs == case_count ? 0 : 1;
}

static void keep_only(const char *name)
{
    size_t kept = 0;

    for (size_t i = 0; i < case_count; i++) {
        if (strstr(cases[i].name, name))
            cases[kept++] = cases[i];
    }
    case_count = kept;
}

int main(int argc, char **argv)
{
    const char *only = NULL;
    int at = 1;

    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "--only") == 0 && at + 1 < argc)
            only = argv[++at];
        else if (strcmp(argv[at], "--read-only") == 0)
            read_only = true;
        else
            nonsense("unknown option %s", argv[at]);
    }
    if (argc - at < 3)
        nonsense("usage: posix [--only NAME] [--read-only] AEROFS-DIR NATIVE-DIR FILE.cases...");
    roots[1] = realpath(argv[at], NULL);
    roots[0] = realpath(argv[at + 1], NULL);
    if (!roots[0] || !roots[1])
        nonsense("no such directory: %s", roots[1] ? argv[at + 1] : argv[at]);
    for (int i = at + 2; i < argc; i++)
        read_cases(argv[i]);
    if (only)
        keep_only(only);
    for (size_t i = 0; i < case_count; i++) {
        if (!cases[i].extra != !strstr(cases[i].script, " / "))
            nonsense("%s:%d: a difference needs a reason, and a reason a difference", cases[i].file,
                     cases[i].line);
    }
    signal(SIGPIPE, SIG_IGN);
    fflush(stdout);
    if (!run_all())
        nonsense("the cases could not be run");
    return say_results();
}
