// SPDX-License-Identifier: MIT
// What the files of the simulated disk share: its structure, and the steps that change it.
#ifndef AF_TESTS_SIM_INTERNAL_H
#define AF_TESTS_SIM_INTERNAL_H

#include "tests/sim/sim_content.h"
#include "tests/sim/sim_disk.h"

#define SIM_FAULTS_MAX 32

// Bytes of a write, shared by clones.
struct sim_blob {
    uint32_t refs;
    uint8_t bytes[];
};

enum sim_change_kind { SIM_CHANGE_DATA, SIM_CHANGE_SIZE, SIM_CHANGE_ALLOCATE };

// One unsynced change of a file.
struct sim_change {
    enum sim_change_kind kind;
    uint64_t seq; // order of all changes of the disk
    uint64_t off; // of SIZE: the new size
    uint64_t len;
    struct sim_blob *blob; // of DATA, from blob_off on
    uint64_t blob_off;
};

// A file or directory. It lives while an entry, an entry change or an open file refers to it.
struct sim_inode {
    uint64_t ino;
    bool is_dir;
    uint32_t open_count;
    uint64_t size, durable_size;
    struct sim_content content, durable;
    struct sim_change *changes; // unsynced, oldest first
    size_t change_count, change_cap;
};

struct sim_entry {
    char path[SIM_PATH_BYTES];
    struct sim_inode *inode;
};

struct sim_names {
    struct sim_entry *entries;
    size_t count, cap;
};

enum sim_name_kind { SIM_NAME_LINK, SIM_NAME_UNLINK, SIM_NAME_RENAME };

// One unsynced change of the entries. A rename waits for both of its directories.
struct sim_name_change {
    enum sim_name_kind kind;
    struct sim_inode *inode;
    char path[SIM_PATH_BYTES]; // RENAME: the old name
    char to[SIM_PATH_BYTES];   // RENAME only
    bool path_synced, to_synced;
};

// An operation that was started. Without `op` nobody waits for it, but its bytes may reach the
// disk.
struct sim_flight {
    struct io_async *op;
    struct sim_inode *inode;
    uint64_t started; // seq at the start
    bool held;
    bool is_write;
    uint64_t off, len;
    struct sim_blob *blob; // of a write
};

struct sim_file {
    struct io_file file; // first
    struct sim *sim;
    struct sim_inode *inode; // NULL once the disk has crashed
    unsigned flags;
    struct sim_file *prev, *next; // all open files
    char path[SIM_PATH_BYTES];
};

struct sim_armed_fault {
    struct sim_fault fault;
    char path[SIM_PATH_BYTES];
    uint64_t seen, hits;
    const char *site;
};

struct sim {
    struct io io; // first
    struct sim_inode **inodes;
    size_t inode_count, inode_cap;
    uint64_t next_ino;
    struct sim_names names, durable_names;
    struct sim_name_change *name_changes; // oldest first
    size_t name_change_count, name_change_cap;
    struct sim_flight *flights; // in the order of their start
    size_t flight_count, flight_cap;
    struct sim_file *files;
    uint64_t seq;
    uint64_t capacity;
    uint64_t choices; // state of the generator for what the disk chooses
    uint64_t randoms; // and of that for io->random
    uint64_t now_ns, ticks_ms;
    bool lazy;

    bool dead;
    uint64_t crash_at;
    enum sim_crash_mode crash_mode;
    const char *site; // of the call that is under way, or at which the disk has crashed
    struct sim_event *events;
    size_t event_count, event_cap;
    const char *tag;
    void (*event_hook)(void *arg, const struct sim_event *event);
    void *event_hook_arg;
    struct sim_armed_fault faults[SIM_FAULTS_MAX];
    unsigned fault_count;
    uint64_t (*now_hook)(void *arg);
    uint64_t (*ticks_hook)(void *arg);
    void *clock_arg;
    uint64_t (*random_hook)(void *arg);
    void *random_arg;
};

static inline struct sim *sim_of(struct io *io)
{
    return (struct sim *)io;
}
static inline struct sim_file *sim_file_of(struct io_file *f)
{
    return (struct sim_file *)f;
}

// ---- sim_fault.c ----

// What becomes of a call.
enum sim_extent { SIM_DO_NOTHING, SIM_DO_PART, SIM_DO_ALL, SIM_DO_LOSE };
struct sim_fate {
    enum sim_extent extent;
    int result;   // what the call returns when what it does succeeds
    bool corrupt; // reads
    bool hold;    // starts
};

// Counts the event, runs the hook, and decides by the crash point and the faults.
struct sim_fate sim_decide(struct sim *sim, enum sim_call call, const char *path, uint64_t off,
                           uint64_t len);
void sim_forget_process(struct sim *sim); // events, faults, hook, tag, crash point, open files

// ---- numbers ----

void *sim_alloc(size_t bytes); // zeroed; never NULL
// Makes room for one more element of an array.
void sim_grow(void *array, size_t *cap, size_t count, size_t element_bytes);
void sim_path_copy(char *to, const char *path); // `to` has SIM_PATH_BYTES
uint64_t sim_next(uint64_t *state);
uint64_t sim_below(uint64_t *state, uint64_t bound); // 0 … bound − 1; 0 for 0
uint64_t sim_mix(uint64_t a, uint64_t b);

// ---- sim_names.c ----

struct sim_inode *sim_lookup(const struct sim_names *names, const char *path);
void sim_names_set(struct sim_names *names, const char *path, struct sim_inode *inode);
// Removes the entry if it names `inode`.
void sim_names_drop(struct sim_names *names, const char *path, const struct sim_inode *inode);
void sim_name_change_apply(struct sim_names *names, const struct sim_name_change *change);
bool sim_parent_exists(const struct sim_names *names, const char *path);
struct sim_inode *sim_inode_new(struct sim *sim, bool is_dir);
void sim_inode_free(struct sim_inode *inode);
// Frees what nothing refers to.
void sim_collect(struct sim *sim);
void sim_remove_names(struct sim *sim, const struct sim_inode *inode, const char *path);

int sim_open_file(struct io *io, const char *path, unsigned flags, struct io_file **ret_file);
void sim_close_file(struct io_file *f);
int sim_rename(struct io *io, const char *from, const char *to);
int sim_unlink(struct io *io, const char *path);
int sim_mkdir(struct io *io, const char *path);
int sim_sync_dir(struct io *io, const char *path);
int sim_list(struct io *io, const char *path, int (*each)(void *arg, const char *name), void *arg);

// ---- sim_file.c ----

struct sim_blob *sim_blob_new(const void *bytes, uint64_t len);
struct sim_blob *sim_blob_get(struct sim_blob *blob);
void sim_blob_put(struct sim_blob *blob);
struct sim_change *sim_change_add(struct sim *sim, struct sim_inode *inode,
                                  enum sim_change_kind kind, uint64_t off, uint64_t len);
// Takes the range out of the first `count` data changes: something newer there is durable.
void sim_changes_cover(struct sim_inode *inode, size_t count, uint64_t off, uint64_t len);
void sim_changes_clear(struct sim_inode *inode);
// A write as the page cache takes it: visible and unsynced. -ENOSPC without effect.
int sim_cache_write(struct sim *sim, struct sim_inode *inode, uint64_t off, const void *bytes,
                    uint64_t len);
void sim_durable_change(struct sim_inode *inode, const struct sim_change *change);

int sim_pread(struct io_file *f, void *bytes, size_t len, uint64_t off);
int sim_pwritev(struct io_file *f, const struct iovec *iov, int iov_count, uint64_t off);
int sim_sync(struct io_file *f);
int sim_size(struct io_file *f, uint64_t *ret_bytes);
int sim_allocate(struct io_file *f, uint64_t off, uint64_t len);
int sim_truncate(struct io_file *f, uint64_t bytes);

// ---- sim_crash.c ----

// The heads wrote something else into the sector at `at`.
void sim_damage_sector(struct sim_inode *inode, uint64_t at, uint64_t sector_bytes,
                       uint64_t *random);
// The ends of a power cut: what is durable is all that there is.
void sim_settle_inode(struct sim_inode *inode);
void sim_settle_names(struct sim *sim);
void sim_forget_flights(struct sim *sim);

// ---- sim_async.c ----

int sim_start(struct io *io, struct io_async *op);
int sim_reap(struct io *io, bool wait);
// Makes the unsynced changes up to `seq` durable, all of them or a part.
void sim_sync_changes(struct sim *sim, struct sim_inode *inode, uint64_t seq,
                      enum sim_extent extent);

#endif
