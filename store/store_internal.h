// SPDX-License-Identifier: MIT
// What the files of store/ share: the store itself, inodes in memory, pending content.
//
// One lock, s->lock, guards everything but what is said to be atomic. `_locked` functions want it
// held. Functions that take a `struct fault` may return -AF_E_FAULT, having changed nothing that
// matters (fault.h).
#ifndef AF_STORE_STORE_INTERNAL_H
#define AF_STORE_STORE_INTERNAL_H

#include <stdatomic.h>

#include "base/buf.h"
#include "base/lock.h"
#include "store/acl.h"
#include "store/btree.h"
#include "store/cache.h"
#include "store/damage.h"
#include "store/op.h"
#include "store/snapshot.h"
#include "store/space.h"
#include "store/store.h"
#include "store/store_engine.h"

#define BLOCKS_OF(bytes) (((bytes) + BLOCK_BYTES - 1) / BLOCK_BYTES)
#define NO_BLOCK         UINT64_MAX

// ---- pending content (pending.c): what was written and is not completed, beside the tree ----

enum pend_type { PEND_MEM, PEND_EXTENT, PEND_HOLE };

// A piece covers blocks [block, block + count). MEM pieces are one block each.
struct pend_piece {
    uint64_t block;
    uint64_t count;
    enum pend_type type;
    uint64_t version; // MEM: unique, changes with every write, so that a spill sees that it was
                      // overtaken
    uint8_t *bytes;   // MEM: BLOCK_BYTES, owned
    uint64_t address; // EXTENT: allocated, written, named by no record yet
    le64 *checksums;  // EXTENT: count of them, owned
};

struct pend_xattr { // of a new file, which has no items in the tree
    struct pend_xattr *next;
    uint8_t name_len;
    uint32_t value_len;
    char name[NAME_BYTES_MAX + 1];
    uint8_t value[];
};

struct pending {
    bool is_new;  // the inode is in no tree yet; `fresh` is all of it
    bool content; // content or size was touched
    bool times;   // mtime/ctime (and atime when set) below override the tree's
    bool kill_suidgid;
    bool linkable; // is_new: made without a name, and may get one
    bool
        append_only; // written solely through O_APPEND handles, never truncated: C4's timer applies
    uint64_t since_ms;  // first change
    struct inode fresh; // is_new
    uint64_t parent;    // is_new: directory of the name; 0: the name is gone (unlinked while open)
    uint8_t index;      // collision index of the name
    char *name;         // is_new and named; owned
    struct pend_xattr *xattrs;
    unsigned xattr_count;
    size_t xattr_blocks; // reserved for values that will not fit their item
    uint64_t size;
    struct timespec atime, mtime, ctime;
    bool atime_set;
    uint64_t keep_blocks;      // base content from this block on is hidden; NO_BLOCK: none is
    uint64_t staged_id;        // content id that holds staged extents, 0: none
    struct pend_piece *pieces; // by block, apart
    size_t piece_count, piece_cap;
    size_t mem_blocks, extent_pieces, hole_pieces;
    uint64_t extent_blocks; // of EXTENT pieces
    size_t record_bytes;    // of EXTENT and HOLE pieces in a record
    uint64_t data_number;   // its spilled data was written by data write number …
    uint64_t spill_hint;    // address behind the last spilled run
};

// An inode that somebody has open or that has pending content.
struct oinode {
    struct oinode *hash_next;
    struct list pending_link; // in s->pending while p != NULL
    uint64_t ino;
    uint32_t opens;
    uint32_t dirty_handles;
    uint64_t epoch; // rises with every completion: handles of an older one are clean
    bool orphan;    // unlinked in the tree, removed after the last close
    struct pending *p;
};

struct store_file {
    struct list link; // of files in struct store
    struct oinode *oi;
    int flags;
    uint64_t history;     // of the store when it was opened
    uint64_t dirty_epoch; // == oi->epoch: changed the content since its last completion
};

// Names of new files by directory, sorted by cookie, for lookup and readdir.
struct pend_dir {
    struct pend_dir *hash_next;
    uint64_t ino;
    struct oinode **entries;
    uint64_t *cookies;
    size_t count, cap;
    struct timespec changed; // when the last one came; readers see it as the directory's times
};

struct reap {
    struct list link;
    uint64_t id;
    uint8_t what;
};

#define OINODE_BUCKETS   16384u
#define PEND_DIR_BUCKETS 1024u

struct store {
    struct store_config config;
    // Set once, by store_set_switches() (base/switch.h).
    bool have_switches;
    bool no_record_data, no_large_writes, no_read_ahead, no_read_in_place, no_batching;
    bool closed_checkpoint; // changes wait while one is under way
    struct af_mutex lock;
    struct cache cache;
    struct tree tree;
    struct space *space;
    // `data` once more for each sync that promises something: the kernel reports a failed writeback
    // once for each open file (fsync(2)), so a sync for another purpose must not take the report
    // away. NULL: read-only.
    struct io_file *data_checkpoint, *data_growth;
    struct wal *wal; // NULL until attached
    uint64_t hash_seed;
    uint64_t next_ino;
    uint64_t logged_ino; // next_ino of the last record
    uint64_t inodes;
    uint64_t applied_lsn;
    uint64_t frozen_lsn; // applied_lsn at the last freeze
    uint64_t checkpoint_lsn, checkpoint_sequence;
    bool dirty; // something was applied since the last freeze
    bool replaying;
    uint64_t version; // last given to a MEM piece
    bool frozen;      // a checkpoint is between freeze and publication
    int failed;
    char failed_what[200];
    uint64_t errors;

    struct oinode *oinodes[OINODE_BUCKETS];
    size_t open_files;
    struct list files;   // the handles of those; a mount that is cut off never releases them
    struct list pending; // oinodes with pending content
    size_t pending_count;
    size_t pending_mem_blocks, pending_mem_max;
    struct pend_dir *pend_dirs[PEND_DIR_BUCKETS];
    struct list reap;
    size_t reap_count;
    struct snapshots snapshots;
    bool gate; // changes wait
    struct af_cond gate_opened;
    uint64_t history;  // rises when the live tree is exchanged: handles of an older one are stale
    struct buf encode; // scratch of op_commit
    bool signal;       // call config.pressure after unlocking

    atomic_uint_fast64_t data_number; // spilled writes that have returned
    atomic_uint_fast64_t unsynced_bytes;

    struct damage_list damage;
};

// ---- store.c: locking and faults ----

void store_lock(struct store *s);
// Evicts a little, unlocks, and passes on pressure.
void store_unlock(struct store *s);
void fault_begin(struct fault *f);
// Call without the lock after every attempt with its result. True: the attempt is to be repeated.
// False: *r is final, pins are gone.
bool fault_resolve(struct store *s, struct fault *f, enum store_how how, int *r);
// Refuses changes on a failed or read-only store.
int store_writable(struct store *s);
bool store_wants_checkpoint_locked(struct store *s);
bool store_busy_locked(struct store *s);
// An item of this inode or content is not what can have been written there (store/damage.h).
void store_note_item(struct store *s, int code, uint64_t ino);
// In blocks: what may be dirty in memory before writers wait, and before a checkpoint starts.
size_t store_dirty_hard(const struct store *s);
struct timespec store_now(struct store *s);

// The tree that an operation reads.
static inline const struct tree_root *store_root(const struct store *s, const struct fault *f)
{
    return f->in_view ? &f->view_root : &s->tree.root;
}

// ---- inode.c ----

void inode_encode(const struct inode *in, struct inode_disk *d);
int inode_decode(const void *bytes, size_t len, struct inode *ret);               // validates
int inode_get(struct store *s, struct fault *f, uint64_t ino, struct inode *ret); // from the tree
void inode_put(struct store *s, uint64_t ino, const struct inode *in);
// As readers see it: pending attributes over the tree's, and names that are not in it yet. *ret_oi
// may be NULL after it.
int inode_current(struct store *s, struct fault *f, uint64_t ino, struct inode *ret,
                  struct oinode **ret_oi);
void inode_to_attr(uint64_t ino, const struct inode *in, struct store_attr *ret);
uint64_t ino_new(struct store *s);
// Of an attempt that came to nothing, under the same hold of the lock: the next attempt gets the
// same number, so what is given out does not depend on which blocks were in memory. 0: none.
void ino_return(struct store *s, uint64_t ino);
struct oinode *oinode_find(struct store *s, uint64_t ino);
struct oinode *oinode_get(struct store *s, uint64_t ino); // made when absent; NULL: out of memory
void oinode_put(struct store *s, struct oinode *oi);      // freed when nothing is open or pending

// ---- dentry.c ----

#define DENTRY_INDEX_MAX 128u
struct dentry {
    uint64_t ino;
    uint8_t type; // DT_*
    uint8_t index;
    uint64_t cookie;
    struct oinode *fresh; // a new file's name, not in the tree
};
int name_check(const char *name, size_t *ret_len); // 0, -ENAMETOOLONG, -EINVAL
uint64_t name_hash(const struct store *s, const char *name, size_t len); // low 7 bits clear
int dentry_decode(const void *bytes, size_t len, uint64_t *ret_ino, uint8_t *ret_type,
                  const char **ret_name, size_t *ret_name_len);
// In the tree only / in both. -ENOENT.
int dentry_find_tree(struct store *s, struct fault *f, uint64_t dir, const char *name, size_t len,
                     struct dentry *ret);
int dentry_find(struct store *s, struct fault *f, uint64_t dir, const char *name, size_t len,
                struct dentry *ret);
// A collision index that neither the tree nor pending names use. -ENOSPC when all 128 are taken.
int dentry_free_index(struct store *s, struct fault *f, uint64_t dir, const char *name, size_t len,
                      uint8_t *ret_index);
void dentry_put(struct store *s, uint64_t dir, const char *name, size_t len, uint8_t index,
                uint64_t ino, uint8_t type);
void dentry_delete(struct store *s, uint64_t dir, const char *name, size_t len, uint8_t index);
struct key dentry_key(const struct store *s, uint64_t dir, const char *name, size_t len,
                      uint8_t index);
uint8_t mode_to_type(uint32_t mode);
struct pend_dir *pend_dir_find(struct store *s, uint64_t dir);
// Index of the first entry whose cookie is at least `cookie`.
size_t pend_dir_position(const struct pend_dir *d, uint64_t cookie);
int pend_dir_add(struct store *s, uint64_t dir, uint64_t cookie, struct oinode *oi); // -ENOMEM
void pend_dir_remove(struct store *s, uint64_t dir, struct oinode *oi);
// The directory's times have been set: they count, and not those of its new names.
void pend_dir_unchanged(struct store *s, uint64_t dir);

// ---- content.c: extents and inline content in the tree ----

struct extent {
    uint64_t block;
    uint32_t count;
    uint64_t address;
    uint64_t birth;
    const le64 *checksums; // into the tree node
};
int extent_decode(struct key key, const void *value, size_t len, struct extent *ret);
// The extent that covers `block`, or the first behind it up to `last`. -ENOENT.
int extent_at(struct store *s, struct fault *f, uint64_t content, uint64_t block, uint64_t last,
              struct extent *ret);
int inline_get(struct store *s, struct fault *f, uint64_t content, const void **ret_bytes,
               size_t *ret_len); // -ENOENT
// Touches what content_clear() of the same range will change, and counts it into *need_items /
// *need_bytes.
int content_touch(struct store *s, struct fault *f, uint64_t content, uint64_t first, uint64_t last,
                  size_t *items, size_t *bytes);
// Frees what lies in [first, last], cutting extents at the ends; returns the number of blocks
// freed.
uint64_t content_clear(struct store *s, uint64_t content, uint64_t first, uint64_t last);
void content_put_extent(struct store *s, uint64_t content, uint64_t block, uint64_t address,
                        uint64_t birth, uint64_t count, const uint64_t *checksums);
// Number of extents of the content, counted up to `max`.
int content_count(struct store *s, struct fault *f, uint64_t content, size_t max,
                  size_t *ret_count);

// ---- op_prepare.c, op_apply.c, commit.c ----

// Touches everything op_apply() will change, checks that the operation fits the tree, prepares
// memory and space.
int op_prepare(struct store *s, struct fault *f, const struct op *op);
void op_apply(struct store *s, const struct op *op, uint64_t lsn);
// Fills what every operation carries: next_ino and time.
void op_begin(struct store *s, struct op *op, enum op_kind kind);
// Prepare, append, apply. `data_number`: see wal_append().
int op_commit(struct store *s, struct fault *f, struct op *op, uint64_t data_number);
// Logs the inode counter before it has run too far ahead of the log (docs/FORMAT.md, "Numbers").
int numbers_note(struct store *s, struct fault *f);

// ---- pending.c ----

// The pending content of oi, made from `in` (the inode in the tree) when there is none. -ENOMEM
int pending_begin(struct store *s, struct oinode *oi, const struct inode *in);
void pending_drop(struct store *s, struct oinode *oi); // gives everything back
// Before the first change of content: an inline base moves into a MEM piece.
int pending_content(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in);
// The same after a successful completion: what the log now names stays allocated.
void pending_done(struct store *s, struct oinode *oi);
void reap_add(struct store *s, uint64_t id, uint8_t what); // to be freed by store_background()
// First piece that ends behind `block` (index; piece_count when none).
size_t pending_search(const struct pending *p, uint64_t block);
// Cuts away what lies in [block, block + count) and leaves room for `more` pieces. -ENOMEM
int pending_cut(struct store *s, struct pending *p, uint64_t block, uint64_t count, size_t more);
// Keeps the counters when a piece comes (1) or goes (-1).
void pending_count(struct store *s, struct pending *p, const struct pend_piece *piece, int by);
// Adds a piece into a gap made by pending_cut(); takes ownership of bytes / checksums.
void pending_add(struct store *s, struct pending *p, const struct pend_piece *piece);
// Where the bytes of `block` are below the pieces of `p` (NULL: no pending content): staged, base,
// or a hole
// (*ret_address 0).
int base_find(struct store *s, struct fault *f, const struct inode *in, const struct pending *p,
              uint64_t block, uint64_t *ret_address, uint64_t *ret_sum);
// The MEM piece of `block`, brought in (from what is visible there) when it is not one.
// `whole`: its old content will not be needed.
int pending_block(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in,
                  uint64_t block, bool whole, struct pend_piece **ret_piece);
int pending_truncate(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in,
                     uint64_t size);
int pending_hole(struct store *s, struct fault *f, struct oinode *oi, const struct inode *in,
                 uint64_t off, uint64_t len);
// Drops whole blocks behind the end: what a write that failed had brought in.
int pending_trim(struct store *s, struct pending *p);
// Marks content as changed now.
void pending_touch(struct store *s, struct oinode *oi);

// ---- complete.c ----

// Completes oi's pending content as one operation. 0 also when there is nothing to complete.
int complete(struct store *s, struct fault *f, struct oinode *oi);

// ---- names.c ----

// The inode of a directory; -ENOTDIR when it is none.
int dir_get(struct store *s, struct fault *f, uint64_t dir, struct inode *ret);
// What every new name needs: a directory to stand in, a name that is free, an index. *ret_dir: the
// parent.
int new_name(struct store *s, struct fault *f, uint64_t parent, const char *name,
             struct inode *ret_dir, size_t *ret_len, uint8_t *ret_index);
// A new inode of `cred` in directory `dir`.
struct inode new_inode(const struct inode *dir, uint64_t ino, uint32_t mode, uint64_t rdev,
                       const struct store_cred *cred, struct timespec now);

// ---- create.c ----

// Gives a file without a name the one that was found free, and completes it.
int tmpfile_link(struct store *s, struct fault *f, struct oinode *oi, uint64_t parent,
                 const char *name, uint8_t index);

// ---- xattr.c ----

int xattr_get_locked(struct store *s, struct fault *f, uint64_t ino, const char *name, void *value,
                     size_t size, size_t *ret_size); // as store_getxattr()
// Of a new file, in its pending content.
int xattr_set_pending(struct store *s, struct fault *f, struct oinode *oi, const char *name,
                      const void *value, size_t size);
void xattr_remove_pending(struct store *s, struct oinode *oi, const char *name); // it is there

// ---- acl_change.c ----

// *ret_size 0: there is none.
int acl_get(struct store *s, struct fault *f, uint64_t ino, const char *name,
            uint8_t acl[ACL_BYTES_MAX], size_t *ret_size);
// What a new object in `dir` gets: *mode less the umask, or less what the default ACL denies, and
// ACLs.
struct acl_inherited {
    struct op_xattr x[2];
    uint8_t bytes[2][ACL_BYTES_MAX];
    unsigned count;
};
int acl_inherit(struct store *s, struct fault *f, uint64_t dir, uint32_t umask, uint32_t *mode,
                struct acl_inherited *ret);
// The access ACL, if there is one, follows a new mode by the same operation; `acl` holds it.
int acl_follow_mode(struct store *s, struct fault *f, uint64_t ino, uint32_t mode,
                    uint8_t acl[ACL_BYTES_MAX], struct op *op);

// ---- attr.c ----

// What an operation that changes attributes says of them: `in`, but what is being written keeps its
// times for its own completion, or a crash would leave the old content with the new times.
int attributes_draft(struct store *s, struct fault *f, uint64_t ino, const struct oinode *oi,
                     const struct inode *in, unsigned set, struct op *op);

// ---- walk.c ----

// The root of the live tree (0) or of a published snapshot, NULL when that is gone. Under the lock.
const struct tree_root *walk_root(struct store *s, uint64_t snapshot);

// ---- background.c ----

void reap_some(struct store *s,
               unsigned steps); // without the lock; frees contents nobody can reach

// ---- file.c ----

// Truncation or extension; `file` NULL: by path.
int file_truncate(struct store *s, struct fault *f, uint64_t ino, struct store_file *file,
                  uint64_t size);

// ---- spill.c: pending content to disk, without the lock ----

int spill_inode(struct store *s, uint64_t ino, size_t keep_blocks);
int stage_inode(struct store *s, uint64_t ino);
// Writes whole blocks straight to fresh extents and makes them pending.
// A large write in three steps: runs for whole blocks (under the lock; prepares space), the bytes
// to disk (without it), the runs become pieces (under the lock; all or none). What was not adopted
// is given back by direct_end().
struct direct;
struct direct *direct_begin(void); // NULL: out of memory
int direct_alloc(struct store *s, struct fault *f, struct oinode *oi, uint64_t block,
                 const uint8_t *bytes, uint64_t count, struct direct *d);
int direct_write(struct store *s, struct direct *d);
int direct_adopt(struct store *s, struct oinode *oi, struct direct *d);
void direct_end(struct store *s, struct direct *d);
bool stage_wanted(const struct store *s, const struct pending *p);
// A block of data at `address`: from the cache, or a fault.
int data_block(struct store *s, struct fault *f, uint64_t address, uint64_t sum,
               const uint8_t **ret_bytes);
// A block that rode in a record enters the cache as one to be written; returns its checksum. The
// rest is zeroed.
uint64_t data_put(struct store *s, uint64_t address, const uint8_t *bytes, size_t len);
void data_forget(struct store *s, uint64_t address,
                 uint64_t count); // drops such blocks from the cache
// Bounds of memory.
#define PENDING_MEM_INODE_MAX   256u     // blocks of one inode in memory before it is spilled
#define RECORD_DATA_BYTES_MAX   65536u   // of content that rides in a record
#define PENDING_COUNT_MAX       1000000u // files open and not completed
#define CONTENT_EXTENTS_AT_ONCE 64u      // freed by one operation; larger contents go in steps
#define LINK_COUNT_MAX          1000000u
#define HOLE_PIECES_MAX         1024u          // of one inode, not completed
size_t ride_bytes_max(const struct store *s);  // of content in memory, in one record
size_t record_data_max(const struct store *s); // the same, less where segments are small
size_t inode_mem_max(const struct store *s);   // likewise of PENDING_MEM_INODE_MAX

#endif
