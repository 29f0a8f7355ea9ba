// SPDX-License-Identifier: MIT
// Golden images: how they are made, packed and listed.
#include "tests/lib/golden.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "checkpoint/superblock.h"

#define MAGIC     "AEROGLD1"
#define RUN_BYTES 24u // shorter runs are kept as bytes

enum { RECORD_FILE = 1, RECORD_BYTES = 2, RECORD_FILL = 3 };

static const struct store_cred owner = {.uid = 1000, .gid = 100};

static void ok(int err)
{
    AF_ASSERT(err >= 0);
}

// ---- the store ----

// A file of `len` bytes at `off`, and durable.
static uint64_t put(struct fixture *fx, uint64_t parent, const char *name, uint64_t off, size_t len)
{
    struct store_file *file;
    struct store_attr attr;
    uint8_t *bytes = malloc(len + 1);

    AF_ASSERT(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(1 + i / 512 + strlen(name));
    ok(store_create(fx->store, STORE_BLOCK, parent, name, 0644, O_RDWR, &owner, &attr, &file));
    if (len > 0)
        ok(store_write(fx->store, STORE_BLOCK, file, off, bytes, len, false));
    ok(fixture_fsync(fx, attr.ino));
    ok(store_release(fx->store, STORE_BLOCK, file));
    free(bytes);
    sim_advance_ms(fx->sim, 7);
    return attr.ino;
}

static uint64_t make(struct fixture *fx, uint64_t parent, const char *name, uint32_t mode)
{
    struct store_attr attr;

    ok(store_mknod(fx->store, STORE_BLOCK, parent, name, mode, 0, &owner, &attr));
    return attr.ino;
}

static void fill(struct fixture *fx)
{
    char text[3001], name[32];
    struct store_attr attr;
    uint64_t dir = make(fx, INO_ROOT, "dir", S_IFDIR | 0755);
    uint64_t deep = make(fx, dir, "deep", S_IFDIR | S_ISGID | 02750);
    uint64_t small = put(fx, dir, "inline", 0, 700);
    uint64_t large = put(fx, deep, "extents", 0, 50000);

    put(fx, INO_ROOT, "empty", 0, 0);
    put(fx, INO_ROOT, "sparse", UINT64_C(1) << 32, 5000);
    make(fx, dir, "fifo", S_IFIFO | 0600);
    for (unsigned i = 0; i < 40; i++) {
        snprintf(name, sizeof(name), "many-%02u", i);
        put(fx, deep, name, 0, i * 7);
    }
    memset(text, 'x', sizeof(text));
    text[3000] = 0;
    ok(store_symlink(fx->store, STORE_BLOCK, dir, "long", text, &owner, &attr));
    ok(store_symlink(fx->store, STORE_BLOCK, dir, "short", "deep/extents", &owner, &attr));
    ok(store_link(fx->store, STORE_BLOCK, large, INO_ROOT, "linked", &attr));
    ok(store_setxattr(fx->store, STORE_BLOCK, small, "user.small", "value", 5, 0));
    ok(store_setxattr(fx->store, STORE_BLOCK, small, "user.large", text, 3000, 0));
    ok(fixture_sync(fx));
    ok(engine_checkpoint(fx->engine));
}

// ---- the crash ----

static int keep_last(void *arg, const struct wal_record *record)
{
    *(struct wal_record *)arg = *record;
    return 0;
}

// Damages the last record, of a group that nothing attests.
static void tear(struct sim *sim)
{
    struct superblock_slots slots;
    struct wal_scan_result result;
    struct wal_record last = {0};
    char path[32];

    ok(superblock_load(sim_io(sim), &slots));
    AF_ASSERT(slots.chosen >= 0);
    ok(wal_scan(sim_io(sim), &slots.sb[slots.chosen].log, keep_last, &last, &result));
    AF_ASSERT(last.lsn > 0);
    wal_segment_path(last.segment, path);
    ok(sim_flip_bits(sim, path, last.offset + 50, 0xff));
    superblock_slots_free(&slots);
}

struct sim *golden_build(bool dirty, uint64_t max_bytes)
{
    struct fixture fx;
    struct store_file *open;
    struct sim *sim;

    fixture_init(&fx, 1);
    fx.options.max_bytes = max_bytes;
    ok(fixture_create(&fx));
    ok(fixture_open(&fx));
    fill(&fx);
    if (!dirty) {
        ok(fixture_close(&fx));
        sim = sim_clone(fx.sim);
        fixture_free(&fx);
        return sim;
    }
    uint64_t orphan = put(&fx, INO_ROOT, "orphan", 0, 9000);
    ok(store_open(fx.store, STORE_BLOCK, orphan, O_RDONLY, &open));
    ok(store_unlink(fx.store, STORE_BLOCK, INO_ROOT, "orphan"));
    ok(engine_checkpoint(fx.engine));
    put(&fx, INO_ROOT, "replayed", 0, 6000);
    ok(store_rename(fx.store, STORE_BLOCK, INO_ROOT, "empty", INO_ROOT, "renamed", 0));
    ok(fixture_sync(&fx));
    make(&fx, INO_ROOT, "lost", S_IFDIR | 0755);
    ok(fixture_sync(&fx));
    sim = sim_clone(fx.sim);
    sim_power_cut(sim, SIM_CUT_DROP_ALL, 1);
    ok(store_release(fx.store, STORE_BLOCK, open));
    fixture_free(&fx);
    tear(sim);
    return sim;
}

int golden_list(struct sim *sim, struct canon *ret_list, struct engine_recovery *ret_recovery)
{
    static const struct engine_options options = {.cache_bytes = UINT64_C(1) << 20,
                                                  .log_bytes = UINT64_C(512) << 10};
    char where[CANON_WHERE_BYTES];
    struct engine_status status;
    struct canon none = {0};
    struct fixture fx;

    fixture_adopt(&fx, sim, &options);
    int err = fixture_open(&fx);
    if (err < 0)
        return err;
    engine_get_status(fx.engine, &status);
    *ret_recovery = status.recovery;
    *ret_list = (struct canon){0};
    err = canon_store(fx.store, ret_list, where);
    canon_diff(ret_list, "", &none, "", 0, stderr); // sorts
    int closed = fixture_close(&fx);
    return err < 0 ? err : closed;
}

// ---- the container ----

static void record(struct buf *out, uint8_t kind, size_t len, uint64_t off)
{
    buf_put_u8(out, kind);
    buf_put_u32(out, (uint32_t)len);
    buf_put_u64(out, off);
}

static size_t run_at(const uint8_t *bytes, size_t at, size_t len)
{
    size_t end = at + 1;

    while (end < len && bytes[end] == bytes[at])
        end++;
    return end - at;
}

static void pack_bytes(const uint8_t *bytes, size_t len, struct buf *out)
{
    for (size_t at = 0, run; at < len; at += run) {
        run = run_at(bytes, at, len);
        if (run >= RUN_BYTES) {
            if (bytes[at] != 0) {
                record(out, RECORD_FILL, run, at);
                buf_put_u8(out, bytes[at]);
            }
            continue;
        }
        size_t from = at;
        while (at < len && (run = run_at(bytes, at, len)) < RUN_BYTES)
            at += run;
        record(out, RECORD_BYTES, at - from, from);
        buf_put(out, bytes + from, at - from);
        run = 0;
    }
}

struct packing {
    char paths[32][SIM_PATH_BYTES];
    size_t count;
};

static void note_path(void *arg, const char *path, bool is_dir)
{
    struct packing *p = arg;

    if (is_dir)
        return;
    AF_ASSERT(p->count < AF_ARRAY_LEN(p->paths));
    snprintf(p->paths[p->count++], SIM_PATH_BYTES, "%s", path);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(a, b);
}

void golden_pack(const struct sim *sim, struct buf *out)
{
    struct packing p = {.count = 0};
    uint64_t bytes;

    sim_each_path(sim, note_path, &p);
    qsort(p.paths, p.count, sizeof(p.paths[0]), by_path);
    buf_put(out, MAGIC, 8);
    for (size_t i = 0; i < p.count; i++) {
        ok(sim_file_size(sim, p.paths[i], &bytes));
        uint8_t *all = malloc(bytes + 1);
        AF_ASSERT(all);
        ok(sim_read_raw(sim, p.paths[i], 0, all, bytes));
        record(out, RECORD_FILE, strlen(p.paths[i]), bytes);
        buf_put(out, p.paths[i], strlen(p.paths[i]));
        pack_bytes(all, bytes, out);
        free(all);
    }
    AF_ASSERT(!out->failed);
}

struct sim *golden_unpack(const uint8_t *bytes, size_t len)
{
    struct sim *sim = sim_create(1);
    char path[SIM_PATH_BYTES] = "";
    struct reader r;

    reader_init(&r, bytes, len);
    const uint8_t *magic = reader_take(&r, 8);
    bool good = magic && memcmp(magic, MAGIC, 8) == 0;
    while (good && reader_left(&r) > 0) {
        uint8_t kind = reader_u8(&r);
        uint32_t count = reader_u32(&r);
        uint64_t off = reader_u64(&r);
        const uint8_t *p = reader_take(&r, kind == RECORD_FILL ? 1 : count);
        uint8_t *all = calloc(1, (kind == RECORD_FILE ? off : count) + 1);

        good = p && all && (kind != RECORD_FILE || count < SIM_PATH_BYTES);
        if (good && kind == RECORD_FILE) {
            memcpy(path, p, count);
            path[count] = 0;
            sim_put_file(sim, path, all, off);
        } else if (good && kind == RECORD_FILL) {
            memset(all, *p, count);
            good = sim_write_raw(sim, path, off, all, count) == 0;
        } else if (good) {
            good = kind == RECORD_BYTES && sim_write_raw(sim, path, off, p, count) == 0;
        }
        free(all);
    }
    if (!good)
        sim_destroy(sim);
    return good ? sim : NULL;
}
