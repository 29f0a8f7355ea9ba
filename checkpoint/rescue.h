// SPDX-License-Identifier: MIT
// Opening what is left of a damaged store, in memory, so that it can be read out through the
// store's own calls (store/store.h). Changes nothing on disk.
//
// The base is the newest superblock that validates. Where the log says that a newer one was lost,
// or none validates, `data` is searched for the root that was written last. Nodes that cannot be
// read are replaced in memory: an inner one by one that leads to what a search of `data` finds of
// its children, a leaf by an empty one; what is missing then is known as ranges of keys. On that
// the log is replayed as far as it goes; a record that does not fit what is left is passed over.
//
// What comes out is therefore the newest state that can be had, and, where anything was given up,
// no moment of the history: the notes say what.
#ifndef AF_CHECKPOINT_RESCUE_H
#define AF_CHECKPOINT_RESCUE_H

#include "checkpoint/examine.h"
#include "checkpoint/node_search.h"
#include "store/rescue.h"

struct rescue_options {
    bool no_search; // never read all of `data`
    // One sentence for each thing that was given up or taken on trust.
    void (*note)(void *arg, const char *text);
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total); // may be NULL
    void *arg;
};

struct rescue_range { // of keys: low <= key < next, or to the end
    struct key low, next;
    bool last;
    bool certain; // something was there: else only what a search did not find, if anything
};

struct rescue {
    struct io *io;
    const struct rescue_options *options;
    struct io_file *data;
    struct examination *x; // borrowed, from examine_load()
    struct store *store;   // what is read out; NULL before it is open

    uint64_t base_lsn;    // the tree was complete up to here …
    uint64_t last_lsn;    // … and the log was replayed up to here
    uint64_t generation;  // of the tree
    bool searched_root;   // no superblock says that this root is the newest
    bool stale;           // the newest superblock is lost: the log may go on in later epochs
    uint64_t lost_nodes;  // could not be read
    uint64_t found_nodes; // of these, led to again by the search
    uint64_t records;     // replayed
    uint64_t misfits;     // records passed over
    uint64_t dropped;     // whole records behind the end of what could be replayed
    uint64_t dropped_lsn; // the highest of them
    uint64_t given_up;    // notes
    uint64_t placed;      // nodes that stand nowhere on disk

    struct rescue_range *lost; // by key
    size_t lost_count, lost_cap;

    struct wal_segment_info header; // of the segment that is being read
    struct node_search search;
    bool searched;
    uint64_t highest_block; // behind every block that the log names
    uint64_t map_group;     // whose bitmap is in `map`; UINT64_MAX: none
    bool map_known;
    uint8_t *map;
};

// `x` is what examine_load() said of `io` (io->read_only is set), whatever its result. 0: `store`
// is open; else nothing of the tree could be had, and the last note says why. rescue_close() is to
// be called in any case.
int rescue_open(struct rescue *r, struct io *io, struct examination *x,
                const struct rescue_options *options) AF_NODISCARD;
void rescue_close(struct rescue *r);

// Whether keys of this number and kind from `*off` on may be lost: then *off is where that begins
// (at least what was given) and *end where it ends. `certain`: of a node that is gone only, not
// between those that a search has found.
bool rescue_lost(const struct rescue *r, uint64_t id, uint8_t kind, bool certain, uint64_t *off,
                 uint64_t *end);

#endif
