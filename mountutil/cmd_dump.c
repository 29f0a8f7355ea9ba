// SPDX-License-Identifier: MIT
// `aerofs dump`: superblocks, tree and space map as text (checkpoint/dump.h), as far as they can be
// read.
#include <stdio.h>

#include "base/err.h"
#include "checkpoint/dump.h"
#include "mountutil/cmd.h"
#include "mountutil/exit_code.h"
#include "mountutil/store_dir.h"

static int print_line(void *arg, const char *text)
{
    (void)arg;
    // A reader that has gone away needs no more.
    return puts(text) < 0 ? -EPIPE : 0;
}

static int dump(const struct command *command, const struct store_dir *dir,
                const struct dump_options *options)
{
    if (dir->in_use)
        cmd_error(command,
                  "the store is in use by process %ld: what follows may change while it is read",
                  dir->holder);
    // What is wrong stands first; the dump shows what is left.
    if (dir->error)
        cmd_error(command, "'%s': %s", dir->path, dir->x.message);
    int err = dump_store(dir->io, options);
    if (err && err != -ENOENT && err != -EPIPE)
        cmd_error(command, "the dump of '%s' ended early: %s", dir->path, err_text(err));
    return dir->error ? dir->error : err;
}

static int run(const struct command *command, int argc, char **argv)
{
    bool superblocks = false, tree = false, nodes = false, space = false;
    const char *inode = NULL, *path;
    const struct cmd_option known[] = {
        {"superblocks", &superblocks, NULL},
        {"tree", &tree, NULL},
        {"nodes", &nodes, NULL},
        {"space", &space, NULL},
        {"inode", NULL, &inode},
    };
    struct dump_options options = {.line = print_line};
    struct store_dir dir;

    int code = cmd_parse(command, argc, argv, known, AF_ARRAY_LEN(known), &path, 1);
    if (code >= 0)
        return code;
    if (inode && (!cmd_parse_number(inode, &options.ino) || options.ino == 0)) {
        cmd_error(command, "'%s' is no inode number", inode);
        return EXIT_CODE_USAGE;
    }
    if (superblocks)
        options.parts |= DUMP_SUPERBLOCKS;
    if (tree || inode)
        options.parts |= DUMP_TREE;
    if (nodes)
        options.parts |= DUMP_TREE | DUMP_NODES;
    if (space)
        options.parts |= DUMP_SPACE;
    if (options.parts == 0)
        options.parts = DUMP_SUPERBLOCKS | DUMP_TREE | DUMP_SPACE;
    int err = store_dir_open(command, path, STORE_DIR_TEST, &dir);
    if (!err)
        err = dump(command, &dir, &options);
    store_dir_close(&dir);
    return cmd_finish(command, exit_code(err));
}

const struct command cmd_dump = {
    .name = "dump",
    .usage = "[--superblocks] [--tree] [--nodes] [--space] [--inode N] STORE",
    .summary = "print superblocks, tree and space map of a store",
    .help =
        "Prints the structures of the newest checkpoint as text; a block that cannot be used gives a line\n"
        "that says why. What the log holds beyond the checkpoint is not in it: see `aerofs log`. Nothing\n"
        "is changed. Without options: superblocks, tree and space map.\n"
        "\n"
        "  --superblocks   both slots, valid or not\n"
        "  --tree          every item of the tree\n"
        "  --nodes         the tree with its nodes\n"
        "  --space         the space map, group by group\n"
        "  --inode N       of the tree only what stands under this inode (or content) number\n"
        "  --help          print this\n"
        "  --version       print the version\n"
        "\n"
        "Exit codes: 0 printed, with a line for each block that could not be read; 2 wrong arguments;\n"
        "3 not found; 4 not a store; 6 newer format; 7 no valid superblock; 9 a part of the log is\n"
        "missing; 10 permission denied; 16 a file ends too early, or the disk failed; 17 anything else.\n",
    .run = run,
};
