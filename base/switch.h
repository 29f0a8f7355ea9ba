// SPDX-License-Identifier: MIT
// The optimizations that can be switched off, and the one table of them: options of the mount
// (`no-NAME`, `NAME`, `baseline`), help, status, the equivalence test and scripts/proofs-check all
// read it. Each has its proof in docs/proofs/NAME.md.
//
// A switch is read when the store opens and never changes afterwards. Recovery and replay run
// before the log and the store are told of them (engine.c), so they cannot depend on one;
// scripts/proofs-check sees to it that no object of theirs refers to switch_on(). Formats are the
// same with each on and off.
#ifndef AF_BASE_SWITCH_H
#define AF_BASE_SWITCH_H

#include <stdbool.h>
#include <stdint.h>

// Name, and what it does when on. The baseline is what docs/proofs/NAME.md says.
// clang-format off
#define SWITCHES(X)                                                                                \
    X(GROUP_COMMIT,     "group-commit",     "records that gather behind a flush share the next one") \
    X(WRITE_BATCHING,   "write-batching",   "neighbouring blocks are written with one call")       \
    X(RECORD_DATA,      "record-data",      "small contents ride in the log record")               \
    X(LARGE_WRITES,     "large-writes",     "writes of 64 KiB and more go straight to fresh blocks") \
    X(OPEN_CHECKPOINT,  "open-checkpoint",  "changes go on while a checkpoint is written")         \
    X(BLOCK_CACHE,      "block-cache",      "clean blocks of the tree stay in memory")             \
    X(READ_AHEAD,       "read-ahead",       "what will be read next is read along")                \
    X(READ_IN_PLACE,    "read-in-place",    "whole blocks are read into the caller's buffer")      \
    X(URING,            "uring",            "log writes and data syncs go through io_uring")       \
    X(DIRECT,           "direct",           "the log is written with O_DIRECT")                    \
    X(KERNEL_CACHE,     "kernel-cache",     "the kernel keeps pages, names and attributes")
// clang-format on

enum switch_id {
#define X(id, name, help) SWITCH_##id,
    SWITCHES(X)
#undef X
        SWITCH_COUNT
};

// Zeroed: all on.
struct switches {
    uint32_t off; // bits by enum switch_id
};

bool switch_on(struct switches s, enum switch_id id);
void switch_set(struct switches *s, enum switch_id id, bool on);
struct switches switches_baseline(void); // all off
const char *switch_name(enum switch_id id);
const char *switch_help(enum switch_id id);
// False: there is none of that name.
bool switch_find(const char *name, enum switch_id *ret_id);

#define SWITCHES_TEXT_BYTES 256
// The names of those that are off, "uring,direct", or "none".
void switches_off_text(struct switches s, char text[SWITCHES_TEXT_BYTES]);

#endif
