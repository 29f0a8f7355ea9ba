// SPDX-License-Identifier: MIT
// The conformance suite: cases are lines of text (tests/posix/README.md), each a few system calls
// with what they must answer. This header is what the parts of the interpreter share.
#ifndef AF_TESTS_POSIX_POSIX_H
#define AF_TESTS_POSIX_POSIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define ARGS_MAX  12
#define TEXT_MAX  70000
#define REGS      26
#define NO_RESULT INT64_MIN

// What a call answered: a number, -errno, or text.
struct result {
    int64_t value;
    bool is_text;
    char text[TEXT_MAX];
    size_t len;
};

// A path as the *at() calls take it.
struct at {
    int dir;
    const char *path;
    bool bare; // the descriptor itself, not a path
};

struct run {           // one case on one file system, in a process of its own
    const char *other; // a directory on another file system
    int regs[REGS];    // descriptors
    char *map;         // the last mmap
    size_t map_len;
    struct stat mark;
    char here[4096]; // the directory of the case
};

struct call {
    struct run *run;
    unsigned argc;
    char *argv[ARGS_MAX]; // expanded; argv[0] is the name
    size_t lens[ARGS_MAX];
    struct result *ret;
};

struct command {
    const char *name;
    int64_t (*run)(struct call *c); // the number or -errno; text goes to c->ret by answer_text()
    unsigned args;                  // at least
};

extern const struct command file_commands[], name_commands[], attr_commands[], more_commands[];

// ---- arguments (script.c); nonsense ends the program ----

int64_t arg_num(struct call *c, unsigned i);
int64_t arg_num_or(struct call *c, unsigned i, int64_t otherwise);
int arg_fd(struct call *c, unsigned i);
struct at arg_at(struct call *c, unsigned i); // ":a" is the descriptor itself, ":a/x" below it
int64_t constant(const char *text);           // "O_CREAT|0644", "4K"
int64_t answer_text(struct call *c, const void *text, size_t len);
// -errno after a call that returned -1.
int64_t outcome(int64_t r);
_Noreturn void nonsense(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// ---- script.c ----

// Runs a case. True when every answer was the expected one; else `why` says which was not. `side`
// 0: what a native file system answers, 1: AeroFS, where the case says that they differ.
bool script_run(struct run *run, const char *script, int side, char *why, size_t why_size);
// Runs one command line, without an expectation: for the command `other`.
void script_command(struct run *run, char *const *argv, const size_t *lens, unsigned argc,
                    struct result *ret);

#endif
