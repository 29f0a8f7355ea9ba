// SPDX-License-Identifier: MIT
// A disk in memory with the failures of a real one: struct io_ops (base/io.h) for tests.
//
// What it models
//   Each file has two states: what readers see, and what would survive a power cut. A write changes
//   the first and joins the file's journal of unsynced changes (data, sizes, allocations); sync
//   moves the journal into the second state. IO_OP_WRITE_DURABLE moves its own bytes (and the size
//   of the file) at its completion. Until then its bytes are not visible, and may or may not be on
//   the disk. Directory entries (create, rename, unlink, mkdir) have their own journal, emptied by
//   sync_dir of every directory that an entry change concerns; syncing a file never makes its name
//   durable.
//
// Crashes
//   1. sim_crash_at() chooses an event. When it is reached, it happens not at all, in part, or
//   wholly but without an
//      answer; it and all later calls return -EIO (the disk is "dead"), operations under way finish
//      with -EIO in the next reap, and so the engine unwinds.
//   2. sim_power_cut() or sim_kill() turns the disk into what the next start finds, and revives it.
//   To try several
//      outcomes of one crash, cut clones.
//   A test that wants every crash point of a run can instead clone from the event hook: the clone
//   is the disk as it is before that event.
//
// Rules that a real disk enforces less visibly are asserted: the buffer of an operation does not
// change while it is under way. Writes to log files must be aligned, as with O_DIRECT.
//
// One thread at a time uses a disk and its clones (they share pages). All is deterministic by the
// seeds.
#ifndef AF_TESTS_SIM_DISK_H
#define AF_TESTS_SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/io.h"

#define SIM_PATH_BYTES       64 // longest path, with its terminator
#define SIM_SECTOR_BYTES     512
#define SIM_SECTOR_BYTES_MAX 4096
#define SIM_NEVER            UINT64_MAX
#define SIM_FOREVER          UINT64_MAX

struct sim;

// ---- life ----

// An empty store directory. Never NULL: a test that is out of memory aborts.
struct sim *sim_create(uint64_t seed);
// The interface; borrowed. io->read_only may be set, then changes are refused with -EROFS.
// Its destroy() is sim_destroy().
struct io *sim_io(struct sim *sim);
// A deep copy that shares pages until they are written. It carries the state of the disk
// (operations under way as bytes that may reach it), the clock, the random numbers and the
// capacity; but no open files, events, faults, hooks or crash point, and it is not dead.
struct sim *sim_clone(const struct sim *sim);
// Files are closed before. Accepts NULL.
void sim_destroy(struct sim *sim);

// ---- events ----

enum sim_call {
    SIM_OPEN, // without creation
    SIM_READ,
    SIM_SIZE,
    SIM_LIST,
    SIM_SPACE,
    // The calls from here on are events: they change the disk or make something durable.
    SIM_CREATE,
    SIM_WRITE,
    SIM_SYNC,
    SIM_ALLOCATE,
    SIM_TRUNCATE,
    SIM_RENAME,
    SIM_UNLINK,
    SIM_MKDIR,
    SIM_SYNC_DIR,
    SIM_START_WRITE, // io_start() of IO_OP_WRITE_DURABLE
    SIM_DONE_WRITE,  // its completion, in io_reap()
    SIM_START_SYNC,
    SIM_DONE_SYNC,
    SIM_CALL_COUNT
};

#define SIM_BIT(call)  (UINT32_C(1) << (call))
#define SIM_ALL_EVENTS ((SIM_BIT(SIM_CALL_COUNT) - 1) & ~(SIM_BIT(SIM_CREATE) - 1))

struct sim_event {
    uint64_t index; // from 0; starts again at sim_power_cut() and sim_kill()
    enum sim_call call;
    char path[SIM_PATH_BYTES]; // a rename's old name
    uint64_t off, len;         // of data; otherwise 0 (truncate: off is the new size)
    const char *tag;           // what sim_set_tag() said last, or NULL
    const char *site;          // call site in the engine (base/io.h), or NULL; not part of the dump
};

const char *sim_call_name(enum sim_call call);
uint64_t sim_event_count(const struct sim *sim);
const struct sim_event *sim_event(const struct sim *sim, uint64_t index); // NULL: not yet
// One line for each event; the same for the same seed and calls.
void sim_dump_events(const struct sim *sim, FILE *to);
// Marks the events that follow, for the dump; `tag` is borrowed.
void sim_set_tag(struct sim *sim, const char *tag);
// Called at each event before anything of it happened. May clone the disk and ask it things; must
// not call its struct io.
void sim_set_event_hook(struct sim *sim, void (*hook)(void *arg, const struct sim_event *event),
                        void *arg);

// ---- crashes ----

enum sim_crash_mode {
    SIM_CRASH_BEFORE,  // nothing of the event happens
    SIM_CRASH_PARTIAL, // a seeded part of it: a write cut short, a sync that made some writes
                       // durable
    SIM_CRASH_AFTER,   // all of it happens, but nobody is told
};

// SIM_NEVER disarms.
void sim_crash_at(struct sim *sim, uint64_t event_index, enum sim_crash_mode mode);
void sim_crash_now(struct sim *sim);
bool sim_is_dead(const struct sim *sim);

enum sim_cut_policy {
    SIM_CUT_DROP_ALL, // only what was synced survives
    SIM_CUT_KEEP_ALL, // everything survives
    // Each write on its own is kept, dropped or torn by sectors, with odds drawn for each file. The
    // sectors of a cut have 512 or 4096 bytes, by its seed.
    // Sizes of a file: some number of its first changes. Entry changes: either some number of the
    // first ones (a file system with a journal) or each on its own; an entry never names two files,
    // and one whose directory is gone is gone.
    SIM_CUT_RANDOM,
    // As SIM_CUT_RANDOM; sectors of unsynced writes may also hold random bytes, or those of another
    // sector.
    SIM_CUT_GARBAGE,
};

// The power fails; the disk is what the next start finds. Open files become useless (-EIO; they
// must still be closed), operations under way are forgotten without `done`, events, faults, tag,
// hook and crash point are cleared, the disk is alive.
void sim_power_cut(struct sim *sim, enum sim_cut_policy policy, uint64_t seed);
// A power cut in which the test decides about each part of what is unsynced: a sector that a write
// would change, a size, a change of an entry. Parts are numbered in an order that is fixed for a
// disk.
size_t sim_cut_parts(const struct sim *sim);
// `keep` says of each part whether it survives; of the sizes of a file all up to the last one that
// does. With `garbage`, the other sectors hold random bytes or those of another sector, else what
// was there before.
void sim_power_cut_parts(struct sim *sim, const bool *keep, bool garbage, uint64_t seed);
// To be said of a disk after a crash that is now recovered and checked: its state is counted, and
// the call at which it crashed, if it was one, is a crash point (tests/sim/census.h).
void sim_count_crash(const struct sim *sim);
// The process ends, the machine goes on: unsynced changes stay visible and stay unsynced. Of the
// operations under way, each happened, in part or not (by the seed). The rest as with
// sim_power_cut().
void sim_kill(struct sim *sim, uint64_t seed);

// ---- faults ----

enum sim_fault_effect {
    SIM_FAULT_FAIL,    // nothing happens, the call returns the error
    SIM_FAULT_PARTIAL, // a part happens (a short write), the call returns the error
    SIM_FAULT_AFTER,   // all happens, and yet the call returns the error
    // A sync (or a durable write) fails and leaves a clean-looking cache: what was unsynced stays
    // visible, some of it may be on the disk, and the rest will never be, whatever is synced later;
    // only writing it again helps.
    SIM_FAULT_LOST,
    SIM_FAULT_CORRUPT, // a read succeeds with a flipped bit; the disk itself is sound
    SIM_FAULT_HOLD, // with SIM_START_…: it starts, but does not finish before sim_release_held()
};

// Of the calls that match, `skip` pass, then `times` fail, then all pass.
struct sim_fault {
    uint32_t calls; // SIM_BIT() of each
    const char
        *path; // a pattern of fnmatch(3), copied; NULL: any. A rename matches by its old name
    uint64_t skip;
    uint64_t times; // SIM_FOREVER
    enum sim_fault_effect effect;
    int error; // negative; what the call returns
};

// Returns the number of the fault, for sim_fault_hits().
unsigned sim_fault_add(struct sim *sim, const struct sim_fault *fault);
uint64_t sim_fault_hits(const struct sim *sim, unsigned fault); // how often it has acted
// The call site (base/io.h) at which it acted last; NULL: none.
const char *sim_fault_site(const struct sim *sim, unsigned fault);
void sim_faults_clear(struct sim *sim); // releases nothing that is held
void sim_release_held(struct sim *sim);

// With `lazy`, io_reap(false) finishes a seeded choice of the operations under way, in any order,
// and io_reap(true) at least one; otherwise (as created) each finishes all, in the order of their
// start. When all that is under way is held, io_reap(true) answers -AF_E_WOULD_BLOCK instead of
// hanging the test.
void sim_set_lazy(struct sim *sim, bool lazy);

// ---- space and time ----

// Bytes for the contents of files, in pages of 4096; writes and allocations that need more answer
// -ENOSPC.
void sim_set_capacity(struct sim *sim, uint64_t bytes);
uint64_t sim_used_bytes(const struct sim *sim);
// Other choices of the disk from here on: the order of listings, of completions, parts.
void sim_reseed(struct sim *sim, uint64_t seed);
// The clock stands still but for this. Created at 2020-01-01, 1 s after the start.
void sim_set_now_ns(struct sim *sim, uint64_t now_ns);
void sim_set_ticks_ms(struct sim *sim, uint64_t ticks_ms);
void sim_advance_ms(struct sim *sim, uint64_t ms); // both
// Hooks in the place of the above; NULL for none.
void sim_set_clock_hooks(struct sim *sim, uint64_t (*now_ns)(void *arg),
                         uint64_t (*ticks_ms)(void *arg), void *arg);
void sim_set_random_hook(struct sim *sim, uint64_t (*random)(void *arg), void *arg);

// ---- looking and damaging; no events, and durable at once ----

bool sim_exists(const struct sim *sim, const char *path);
int sim_file_size(const struct sim *sim, const char *path, uint64_t *ret_bytes) AF_NODISCARD;
// As readers see it. All but _put_file: -ENOENT when there is no such file.
int sim_read_raw(const struct sim *sim, const char *path, uint64_t off, void *bytes,
                 size_t len) AF_NODISCARD;
// Overwrites inside the file (-EINVAL beyond its end).
int sim_write_raw(struct sim *sim, const char *path, uint64_t off, const void *bytes,
                  size_t len) AF_NODISCARD;
int sim_flip_bits(struct sim *sim, const char *path, uint64_t off, uint8_t mask) AF_NODISCARD;
int sim_truncate_raw(struct sim *sim, const char *path, uint64_t bytes) AF_NODISCARD;
int sim_remove_raw(struct sim *sim, const char *path) AF_NODISCARD;
// Makes or replaces the whole file, and the directories above it.
void sim_put_file(struct sim *sim, const char *path, const void *bytes, size_t len);
// The paths of all files and directories, as readers see them, in no particular order.
void sim_each_path(const struct sim *sim, void (*each)(void *arg, const char *path, bool is_dir),
                   void *arg);

// A number for the complete state: names, bytes, sizes and allocation, visible and durable, and
// what is unsynced. Equal before and after means that nothing was changed.
uint64_t sim_hash(const struct sim *sim);
// What readers see, as real files below the existing directory `dir`, for inspection.
int sim_export(const struct sim *sim, const char *dir) AF_NODISCARD;

#endif
