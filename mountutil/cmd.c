// SPDX-License-Identifier: MIT
// Arguments, messages and progress of the commands.
#include "mountutil/cmd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/version.h"
#include "mountutil/exit_code.h"

static int wrong(const struct command *command, const char *what, const char *arg)
{
    cmd_error(command, "%s%s%s%s\nTry: aerofs %s --help", what, arg ? " '" : "", arg ? arg : "",
              arg ? "'" : "", command->name);
    return EXIT_CODE_USAGE;
}

// Handles one option at argv[*at]; moves *at over a value that stands by itself. Returns -1 or an
// exit code.
static int take_option(const struct command *command, int argc, char **argv, int *at,
                       const struct cmd_option *options, size_t option_count)
{
    const char *text = argv[*at] + 2;
    const char *equals = strchr(text, '=');
    size_t len = equals ? (size_t)(equals - text) : strlen(text);

    for (size_t i = 0; i < option_count; i++) {
        if (strlen(options[i].name) != len || strncmp(options[i].name, text, len) != 0)
            continue;
        if (options[i].flag) {
            if (equals)
                return wrong(command, "this option takes no value:", argv[*at]);
            *options[i].flag = true;
            return -1;
        }
        if (!equals && *at + 1 >= argc)
            return wrong(command, "this option needs a value:", argv[*at]);
        *options[i].value = equals ? equals + 1 : argv[++*at];
        return -1;
    }
    return wrong(command, "unknown option", argv[*at]);
}

static int print_help(const struct command *command)
{
    printf("Usage: aerofs %s %s\n\n%s", command->name, command->usage, command->help);
    return cmd_finish(command, EXIT_CODE_OK);
}

int cmd_parse(const struct command *command, int argc, char **argv,
              const struct cmd_option *options, size_t option_count, const char **ret_operands,
              size_t operand_count)
{
    size_t count;

    return cmd_parse_some(command, argc, argv, options, option_count, ret_operands, operand_count,
                          operand_count, &count);
}

int cmd_parse_some(const struct command *command, int argc, char **argv,
                   const struct cmd_option *options, size_t option_count, const char **ret_operands,
                   size_t operand_min, size_t operand_max, size_t *ret_count)
{
    size_t operands = 0;
    bool only_operands = false;

    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (only_operands || arg[0] != '-' || arg[1] == 0) {
            if (operands == operand_max)
                return wrong(command, "unexpected argument", arg);
            ret_operands[operands++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            only_operands = true;
        } else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            return print_help(command);
        } else if (strcmp(arg, "--version") == 0 || strcmp(arg, "-V") == 0) {
            printf("aerofs %s\n", AF_VERSION);
            return cmd_finish(command, EXIT_CODE_OK);
        } else if (arg[1] != '-') {
            return wrong(command, "unknown option", arg);
        } else {
            int code = take_option(command, argc, argv, &i, options, option_count);
            if (code >= 0)
                return code;
        }
    }
    if (operands < operand_min)
        return wrong(command, "an argument is missing; usage:", command->usage);
    *ret_count = operands;
    return -1;
}

bool cmd_parse_number(const char *text, uint64_t *ret_number)
{
    // strtoull() takes signs and leading blanks, which no number of ours has.
    if (text[0] < '0' || text[0] > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long value =
        strtoull(text, &end, text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10);
    if (errno != 0 || *end != 0)
        return false;
    *ret_number = value;
    return true;
}

void cmd_error(const struct command *command, const char *fmt, ...)
{
    va_list args;

    // What was printed so far comes first where both go to one file.
    (void)fflush(stdout);
    fprintf(stderr, "aerofs %s: ", command->name);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

int cmd_finish(const struct command *command, int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    cmd_error(command, "the output could not be written: %s", strerror(errno));
    return EXIT_CODE_IO;
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void cmd_progress_start(struct cmd_progress *p)
{
    *p = (struct cmd_progress){.started_ms = now_ms(), .terminal = isatty(STDERR_FILENO) == 1};
}

void cmd_progress_show(struct cmd_progress *p, const char *what, uint64_t done, uint64_t total)
{
    if (!p->terminal)
        return;
    uint64_t now = now_ms();
    if (now - p->started_ms < 1000 || now - p->shown_ms < 200)
        return;
    p->shown_ms = now;
    if (total)
        fprintf(stderr, "\r%s: %llu of %llu (%llu%%)\033[K", what, (unsigned long long)done,
                (unsigned long long)total,
                (unsigned long long)((double)done * 100 / (double)total));
    else
        fprintf(stderr, "\r%s: %llu\033[K", what, (unsigned long long)done);
}

void cmd_progress_end(struct cmd_progress *p)
{
    if (p->shown_ms)
        fputs("\r\033[K", stderr);
    p->shown_ms = 0;
}
