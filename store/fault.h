// SPDX-License-Identifier: MIT
// How the store reads from disk without ever doing I/O under its lock. A function that needs
// something that is not in memory notes in a `struct fault` what it is and returns -AF_E_FAULT;
// everything on the way up returns it unchanged, having changed nothing. The caller at the top
// releases the lock, resolves the fault (reads the block and pins it, loads a bitmap, grows the
// data file, waits for a checkpoint), and runs the operation again from the start. Pinned blocks
// stay until the operation is over, so it comes to an end.
//
// A block that fails its checks may only have been freed and used anew since the fault was noted
// (the lock was released); so a failure counts only when the second run asks for the very same
// reference again.
#ifndef AF_STORE_FAULT_H
#define AF_STORE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

struct block;

struct blkref {
    uint64_t address;
    uint64_t checksum;
    uint64_t generation;
};

// Where a tree begins.
struct tree_root {
    struct blkref ref; // checksum 0 while the root is dirty
    unsigned level;
};

#define FAULT_AHEAD_MAX 64

enum fault_kind {
    FAULT_NONE,
    FAULT_NODE,   // tree node `ref` of `level`
    FAULT_DATA,   // one block of file data: ref.address and ref.checksum
    FAULT_GROUP,  // bitmap of group `number`
    FAULT_GROW,   // data file must have `number` more free blocks
    FAULT_SPACE,  // a checkpoint would free space
    FAULT_LOG,    // the log or dirty memory is at its bound: a flush and segments, or a checkpoint
    FAULT_FROZEN, // a checkpoint is under way, and changes are to wait for its end
    FAULT_GATE,   // changes wait: the tree is being exchanged (rollback.c)
    FAULT_SPILL,  // pending content of inode `number` must be written out first
};

struct fault {
    enum fault_kind kind;
    // Which tree is read: the live one, or that of a view (view_enter() in snapshot.c), in which
    // nothing is pending.
    bool in_view;
    struct tree_root view_root;
    struct blkref ref;
    unsigned level;
    uint64_t number;
    // What was read and failed: the same reference asked for again is that error.
    struct blkref bad;
    int bad_error;
    uint64_t bad_found;  // its checksum, when that was it
    struct block **pins; // pinned by the resolver, unpinned by fault_end()
    unsigned pin_count, pin_cap;
    unsigned rounds; // how often it was resolved
    unsigned spills; // by FAULT_SPILL
    bool urgent;     // space_reserve() may take from the reserve: a truncation gives space back
    bool refilled;   // FAULT_LOG: segments were made and the log flushed, it was not that
    bool reaping;    // the caller frees what others wait for
    unsigned waits;  // how often it has waited for space; space_prepare() gives up at a bound
    // Leaves that a walk over a range will want next: read along with `ref`, so that a long walk
    // over cold leaves does not start over for each of them. A hint: they are not pinned, and a
    // failure shows when one is asked for.
    unsigned ahead_count;
    struct blkref ahead[FAULT_AHEAD_MAX];
};

#endif
