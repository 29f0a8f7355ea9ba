// SPDX-License-Identifier: MIT
// The commands of `aerofs`: one file and one entry in the table of aerofs_main.c for each. What
// they share is here: arguments, messages, progress.
#ifndef AF_MOUNTUTIL_CMD_H
#define AF_MOUNTUTIL_CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

struct command {
    const char *name;
    const char *usage;   // what follows the name: "[--json] MOUNTPOINT|STORE"
    const char *summary; // one line for the list of commands
    const char *help;    // what --help prints below the usage; ends with the exit codes
    int (*run)(const struct command *command, int argc,
               char **argv); // argv[0] is the name; returns the exit code
};

extern const struct command cmd_snapshot;
extern const struct command cmd_status;
extern const struct command cmd_check;
extern const struct command cmd_log;
extern const struct command cmd_dump;
extern const struct command cmd_torture;
extern const struct command cmd_wait;
extern const struct command cmd_umount;
extern const struct command cmd_scrub;
extern const struct command cmd_rescue;

// ---- arguments ----

struct cmd_option {
    const char *name;   // without the dashes
    bool *flag;         // set to true, for an option without a value
    const char **value; // or: where its value goes, borrowed from argv
};

// Options may stand anywhere, as --NAME, --NAME=VALUE or --NAME VALUE; `--` ends them. --help and
// --version are known to every command. Exactly `operand_count` operands are wanted. Returns -1
// when the command is to go on, or the exit code: 0 after --help and --version, 2 with a message
// when the arguments are wrong.
int cmd_parse(const struct command *command, int argc, char **argv,
              const struct cmd_option *options, size_t option_count, const char **ret_operands,
              size_t operand_count);
// The same for `operand_min` to `operand_max` operands; *ret_count tells how many there are.
int cmd_parse_some(const struct command *command, int argc, char **argv,
                   const struct cmd_option *options, size_t option_count, const char **ret_operands,
                   size_t operand_min, size_t operand_max, size_t *ret_count);
// Numbers in options: decimal, or hexadecimal with 0x. False when it is none.
bool cmd_parse_number(const char *text, uint64_t *ret_number);

// ---- messages ----

// "aerofs NAME: …" to stderr. Says what happened, to what, and what to do.
void cmd_error(const struct command *command, const char *fmt, ...) AF_PRINTF(2, 3);
// Flushes stdout; EXIT_CODE_IO with a message when what was printed did not reach its end, else
// `code`.
int cmd_finish(const struct command *command, int code);

// ---- progress ----

// A line on stderr that is rewritten in place, when that is a terminal and the work takes more than
// a second.
struct cmd_progress {
    uint64_t started_ms;
    uint64_t shown_ms; // 0: never
    bool terminal;
};

void cmd_progress_start(struct cmd_progress *p);
// `total` 0: not known.
void cmd_progress_show(struct cmd_progress *p, const char *what, uint64_t done, uint64_t total);
void cmd_progress_end(struct cmd_progress *p); // wipes the line; before anything else is printed

#endif
