// SPDX-License-Identifier: MIT
// The contract in plain memory: a tree of files in two layers.
//
//   visible   what readers see: every call counts at once
//   history   what a crash may leave: the completed operations, in their order (contract C2, C3)
//
// Content enters history when it is completed: by fsync, by the last close of the handles that
// changed it, by rename or link of the file, by a truncation by path of a file that nobody changes.
// The name of a new file enters with its first completion, and so do the attributes and xattrs that
// it has got until then. All other calls are operations at once.
//
// Every change of history is a state: a hash of its canonical lines (canon.h) and the lines that
// came and went, so that any state can be printed. After a crash the tree must be one of the states
// from the last acknowledged one on.
//
// Calls mirror store.h and return what the store must return.
#ifndef AF_TESTS_MODEL_H
#define AF_TESTS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "store/store.h"
#include "tests/lib/canon.h"
#include "tests/lib/filebytes.h"

struct model_inode;

struct model_name {
    char *name;
    struct model_inode *inode;
    bool in_history;
};

struct model_xattr {
    char *name;
    uint8_t *value;
    size_t len;
};

// Beside history: what was changed and is not completed. `active` as long as there is something.
struct model_pending {
    bool active, is_new, named, content, times, atime_set, kill_suidgid, append_only;
    uint64_t since_ms, order;
    uint64_t size;
    struct timespec atime, mtime, ctime;
    uint64_t parent; // is_new and named
};

struct model_inode {
    uint64_t ino;
    struct store_attr attr; // of history; of a new file: its own, which is nowhere yet
    uint64_t sum;           // of the content in history
    bool in_history, orphan;
    struct model_pending p;
    struct filebytes bytes; // visible
    struct model_xattr *xattrs;
    size_t xattr_count;
    char *target;
    uint64_t parent; // directories
    struct model_name *names;
    size_t name_count, name_cap;
    struct timespec names_changed; // a new file came, whose name is not in history yet
    unsigned opens, dirty_handles;
    uint64_t epoch; // rises with each completion
    char *line;     // in history
};

struct model_file {
    uint64_t ino;
    int flags;
    uint64_t dirty_epoch;
};

struct model_state {
    uint64_t hash;
    uint64_t lsn;     // of the log when it came about; for messages
    char *delta;      // "+line\n" and "-line\n"
    const char *what; // the call
};

struct model {
    struct model_inode **inodes;
    size_t count, cap;
    struct timespec now; // set before each call
    uint64_t ticks_ms;
    uint64_t order;
    uint64_t commit_open_ms;
    size_t xattr_room; // of a new file: bytes of values
    uint64_t lsn;      // set before each call
    const char *what;  // likewise
    uint64_t hash;     // of history now
    char *delta;       // of the call so far
    size_t delta_len, delta_cap;
    struct model_state *states;
    size_t state_count, state_cap;
    size_t acked;      // index of the last state that must survive
    struct canon base; // lines of states[0]
};

void model_init(struct model *m);
void model_free(struct model *m);
// Takes the tree of a store that has just been opened as the only state.
int model_load(struct model *m, struct store *s, char where[CANON_WHERE_BYTES]) AF_NODISCARD;

// The last of the states lo…hi with this hash, or -1.
int64_t model_find(const struct model *m, uint64_t hash, size_t lo, size_t hi);
// The lines of one state.
void model_state_dump(const struct model *m, size_t index, struct canon *ret);
// The state among lo…hi that differs least from `found`, with the differences.
void model_explain(const struct model *m, struct canon *found, size_t lo, size_t hi, FILE *to);
void model_visible_dump(const struct model *m, struct canon *ret);

struct model_inode *model_inode(const struct model *m, uint64_t ino); // NULL: none
struct model_inode *model_child(const struct model *m, uint64_t dir, const char *name);
void model_attr(const struct model_inode *in, struct store_attr *ret); // visible; without blocks
uint64_t model_size(const struct model_inode *in);

// ---- the calls ----

int model_create(struct model *m, uint64_t parent, const char *name, uint32_t mode, int flags,
                 const struct store_cred *cred, uint64_t ino, struct model_file *ret_file);
int model_mknod(struct model *m, uint64_t parent, const char *name, uint32_t mode, uint64_t rdev,
                const struct store_cred *cred, uint64_t ino);
int model_symlink(struct model *m, uint64_t parent, const char *name, const char *target,
                  const struct store_cred *cred, uint64_t ino);
int model_link(struct model *m, uint64_t ino, uint64_t parent, const char *name);
int model_unlink(struct model *m, uint64_t parent, const char *name);
int model_rmdir(struct model *m, uint64_t parent, const char *name);
int model_rename(struct model *m, uint64_t parent, const char *name, uint64_t new_parent,
                 const char *new_name, unsigned flags);
int model_open(struct model *m, uint64_t ino, int flags, struct model_file *ret_file);
int model_write(struct model *m, struct model_file *file, uint64_t off, const void *bytes,
                size_t size, bool kill_suidgid);
int model_fallocate(struct model *m, struct model_file *file, int mode, uint64_t off, uint64_t len);
int model_setattr(struct model *m, uint64_t ino, struct model_file *file,
                  const struct store_attr *attr, unsigned set);
void model_complete(struct model *m, uint64_t ino); // fsync, but for the acknowledgement
void model_release(struct model *m, struct model_file *file);
int model_setxattr(struct model *m, uint64_t ino, const char *name, const void *value, size_t size,
                   int flags);
int model_removexattr(struct model *m, uint64_t ino, const char *name);
void model_tick(struct model *m);         // C4's timer
void model_complete_all(struct model *m); // a clean end

#endif
