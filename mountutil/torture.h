// SPDX-License-Identifier: MIT
// What the parts of `aerofs torture` share: the state of a writer's directory, the events that
// change it, and its journal.
//
// Each writer works alone in its directory, so its history is a chain of states, one for each event
// (a completion of content, or a change of names). After a cut the directory must be exactly one of
// the states from the last acknowledged event to the last attempted one: that is C1 to C3 at once.
//
// A file is a row of chunks; each says who wrote it, in which version and what the file held before
// (`chain`), and its bytes follow from these, so that a mix, a hole or an old chunk is recognized.
#ifndef AF_MOUNTUTIL_TORTURE_H
#define AF_MOUNTUTIL_TORTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"

#define TORTURE_NAMES 20 // of files; the second half lies in the directory "sub"
#define TORTURE_DIRS  6

struct torture_state {
    uint64_t file[TORTURE_NAMES];  // the object that a name names, 0: none
    uint64_t chain[TORTURE_NAMES]; // its content; the same for all names of an object
    bool dir[TORTURE_DIRS];
};

enum torture_kind {
    TORTURE_WRITE, // a new file, or O_TRUNC and all content anew
    TORTURE_APPEND,
    TORTURE_RENAME,
    TORTURE_LINK,
    TORTURE_UNLINK,
    TORTURE_MKDIR,
    TORTURE_RMDIR,
    TORTURE_KINDS
};

struct torture_event {
    uint64_t version; // rises with each event of a writer
    uint64_t bytes;   // of content
    uint32_t kind;
    uint32_t a, b; // names, or a directory
    uint32_t sync; // an fsync that acknowledges follows
};

// REFUSED (the disk is full) and FAILED follow their INTENT at once: the event has not happened.
enum torture_mark { TORTURE_INTENT = 1, TORTURE_ACK = 2, TORTURE_REFUSED = 3, TORTURE_FAILED = 4 };

// One line of a journal, kept outside of the mount.
struct torture_line {
    uint32_t mark;
    uint32_t writer;
    struct torture_event event;
};

uint64_t torture_random(uint64_t *rng);
void torture_apply(struct torture_state *s, const struct torture_event *e);
bool torture_same(const struct torture_state *a, const struct torture_state *b);

struct torture_writer {
    uint32_t number;
    const char *dir; // in the mount
    int journal_fd;
    uint64_t rng, version;
    struct torture_state state;
};

// Makes an empty directory durable: a writer's, before its first round.
int torture_writer_setup(const char *dir);
// In a process of its own, until a call fails. Returns its errno.
int torture_writer_run(struct torture_writer *w);

struct torture_found {
    uint64_t acknowledged; // events of this journal
    uint64_t attempted;
    uint64_t indeterminate; // attempted and not acknowledged
    uint64_t refused;       // for want of space
    char text[512];         // what is wrong
};

// Compares the directory with the history: the state before the round and the journal. True when it
// is one of the allowed moments, which is then `w->state`.
bool torture_verify(struct torture_writer *w, struct torture_found *ret_found);

// One chunk of content.
#define TORTURE_MAGIC UINT64_C(0x6572757472316661)
struct torture_chunk {
    uint64_t magic;
    uint64_t version, bytes; // of the payload
    uint64_t before, chain;
    uint32_t writer, name;
    uint64_t sum; // of all above
};
uint64_t torture_chain(uint64_t before, uint64_t version);
uint64_t torture_sum(const struct torture_chunk *c);
void torture_fill(const struct torture_chunk *c, uint8_t *bytes);
void torture_path(char *to, const char *dir, unsigned name);

#endif
