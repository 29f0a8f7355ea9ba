// SPDX-License-Identifier: MIT
// aerofs: the commands that look at mounts and stores. This file only finds the command.
#include <stdio.h>
#include <string.h>

#include "base/version.h"
#include "mountutil/cmd.h"
#include "mountutil/cmd_umount.h"
#include "mountutil/exit_code.h"

// clang-format off
static const struct command *const commands[] = {
    &cmd_status,
    &cmd_check,
    &cmd_scrub,
    &cmd_rescue,
    &cmd_log,
    &cmd_dump,
    &cmd_umount,
    &cmd_snapshot,
    &cmd_wait,
    &cmd_torture,
};
// clang-format on

static void print_usage(FILE *out)
{
    fputs("Usage: aerofs COMMAND [OPTION…] ARGUMENT…\n\n", out);
    for (size_t i = 0; i < AF_ARRAY_LEN(commands); i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs(
        "\n`aerofs COMMAND --help` tells more; `man aerofs` everything. Stores are mounted by aerofs-mount.\n",
        out);
}

int main(int argc, char **argv)
{
    if (argc > 0 && umount_helper_is_name(argv[0]))
        return umount_helper(argc, argv);
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_CODE_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return fflush(stdout) == 0 ? EXIT_CODE_OK : EXIT_CODE_IO;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("aerofs %s\n", AF_VERSION);
        return fflush(stdout) == 0 ? EXIT_CODE_OK : EXIT_CODE_IO;
    }
    for (size_t i = 0; i < AF_ARRAY_LEN(commands); i++)
        if (strcmp(argv[1], commands[i]->name) == 0)
            return commands[i]->run(commands[i], argc - 1, argv + 1);
    fprintf(stderr, "aerofs: there is no command '%s'. Try: aerofs --help\n", argv[1]);
    return EXIT_CODE_USAGE;
}
