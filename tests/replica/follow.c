// SPDX-License-Identifier: MIT
// A primary that works, and the invariants of its replicas.
#include "tests/replica/follow.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/err.h"
#include "wal/wal_format.h"

static const struct store_cred cred = {.uid = 1, .gid = 2};

#define MUST(call)                                                                             \
    do {                                                                                       \
        int must_err = (call);                                                                 \
        if (must_err < 0) {                                                                    \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, err_name(must_err)); \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

// ---- the primary ----

static uint64_t tree_hash(struct store *s)
{
    char where[CANON_WHERE_BYTES];
    struct canon c = {0};

    MUST(canon_store(s, &c, where));
    uint64_t hash = c.hash;
    canon_free(&c);
    return hash;
}

void primary_note(struct primary *p)
{
    AF_ASSERT(p->states < FOLLOW_STATES_MAX);
    p->lsn[p->states] = wal_appended_lsn(engine_wal(p->fx.engine));
    p->hash[p->states++] = tree_hash(p->fx.store);
    if (!p->alone)
        archive_update(&p->a, &p->fx);
}

void primary_init(struct primary *p, uint64_t seed)
{
    memset(p, 0, sizeof(*p));
    p->r.state = rng_mix(seed, 89);
    p->large = 15;
    fixture_init(&p->fx, seed);
    MUST(fixture_create(&p->fx));
    MUST(fixture_open(&p->fx));
    archive_watch(&p->a, p->fx.sim);
    archive_update(&p->a, &p->fx);
    archive_rebase(&p->a, &p->fx);
    primary_note(p);
}

void primary_free(struct primary *p)
{
    archive_free(&p->a);
    fixture_free(&p->fx);
}

static void random_name(struct primary *p, char name[24])
{
    (void)snprintf(name, 24, "name-%u", (unsigned)rng_below(&p->r, 20));
}

static size_t random_size(struct primary *p)
{
    if (rng_chance(&p->r, p->large))
        return p->large_bytes ? p->large_bytes : 70000 + rng_below(&p->r, 200000);
    return rng_chance(&p->r, 60) ? rng_below(&p->r, 1000) : rng_below(&p->r, 20000);
}

static void put(struct primary *p, const char *name)
{
    static uint8_t bytes[300000];
    struct store_file *file;
    struct store_attr attr;
    size_t size = random_size(p);
    uint8_t fill = (uint8_t)(rng_next(&p->r) | 1);

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(fill + i / 512);
    if (store_lookup(p->fx.store, STORE_BLOCK, INO_ROOT, name, &attr) == 0) {
        if (!S_ISREG(attr.mode))
            return;
        MUST(store_open(p->fx.store, STORE_BLOCK, attr.ino, O_RDWR | O_TRUNC, &file));
    } else {
        MUST(store_create(p->fx.store, STORE_BLOCK, INO_ROOT, name, 0644, O_RDWR, &cred, &attr,
                          &file));
    }
    for (size_t off = 0; off < size; off += 100000)
        MUST(store_write(p->fx.store, STORE_BLOCK, file, off, bytes + off,
                         AF_MIN(size - off, (size_t)100000), false));
    MUST(store_release(p->fx.store, STORE_BLOCK, file));
}

static void other(struct primary *p, const char *name)
{
    struct store_attr attr;
    char to[24];
    int err;

    random_name(p, to);
    switch (rng_below(&p->r, 6)) {
    case 0:
        err =
            store_mknod(p->fx.store, STORE_BLOCK, INO_ROOT, name, S_IFDIR | 0755, 0, &cred, &attr);
        break;
    case 1:
        err =
            store_symlink(p->fx.store, STORE_BLOCK, INO_ROOT, name, "somewhere/else", &cred, &attr);
        break;
    case 2:
        err = store_unlink(p->fx.store, STORE_BLOCK, INO_ROOT, name);
        break;
    case 3:
        err = store_rmdir(p->fx.store, STORE_BLOCK, INO_ROOT, name);
        break;
    case 4:
        err = store_lookup(p->fx.store, STORE_BLOCK, INO_ROOT, name, &attr);
        if (err == 0)
            err = store_setxattr(p->fx.store, STORE_BLOCK, attr.ino, "user.k", to, sizeof(to), 0);
        break;
    default:
        err = store_rename(p->fx.store, STORE_BLOCK, INO_ROOT, name, INO_ROOT, to, 0);
    }
    // Random names do not always allow it.
    AF_ASSERT(err <= 0 && err > -AF_E_FIRST && err != -EIO && err != -ENOSPC);
}

void primary_step(struct primary *p)
{
    char name[24];

    p->steps++;
    random_name(p, name);
    if (rng_chance(&p->r, 60))
        put(p, name);
    else
        other(p, name);
    sim_advance_ms(p->fx.sim, rng_below(&p->r, 400));
    if (rng_chance(&p->r, 20))
        engine_tick(p->fx.engine);
    MUST(engine_sync(p->fx.engine));
    primary_note(p);
}

void primary_checkpoint(struct primary *p)
{
    MUST(engine_checkpoint(p->fx.engine));
    primary_note(p);
}

static uint64_t recovered_lsn(struct engine *e)
{
    struct engine_status status;

    engine_get_status(e, &status);
    return status.recovery.last_lsn;
}

static void open_again(struct primary *p)
{
    archive_watch(&p->a, p->fx.sim); // recovery publishes a checkpoint
    MUST(fixture_open(&p->fx));
    // What the crash has taken never was durable, so no replica has it.
    while (p->states > 0 && p->lsn[p->states - 1] > recovered_lsn(p->fx.engine))
        p->states--;
    primary_note(p);
}

void primary_crash(struct primary *p, enum crash_kind kind, uint64_t seed)
{
    fixture_leave(&p->fx);
    crash_disk(p->fx.sim, kind, seed);
    open_again(p);
}

void primary_reopen(struct primary *p)
{
    MUST(fixture_close(&p->fx));
    archive_update(&p->a, &p->fx);
    open_again(p);
}

// ---- the invariants ----

static void broken(const struct replica *r, const char *when, const char *what, uint64_t a,
                   uint64_t b)
{
    fprintf(stderr,
            "%s: replica at LSN %" PRIu64 ", superblock %" PRIu64 " (%s): %s (%" PRIu64 ", %" PRIu64
            ")\n",
            when, r->lsn, r->sequence, r->why, what, a, b);
    abort();
}

static void check_bytes(struct primary *p, const struct replica *r, const char *when)
{
    for (size_t i = 0; i < p->a.count; i++) {
        const struct archive_file *file = &p->a.files[i];
        uint64_t number, size;
        char path[32];

        if (!wal_segment_number(file->name, &number) || number > r->segment)
            continue;
        wal_segment_path(number, path);
        if (sim_file_size(r->sim, path, &size) < 0)
            continue; // before the base
        uint64_t len = number == r->segment ? r->end : file->len;
        uint8_t *bytes = malloc(AF_MAX(len, (uint64_t)1));

        AF_ASSERT(bytes);
        if (len > file->len || len > size)
            broken(r, when, "more of a segment than was durable", len, file->len);
        MUST(sim_read_raw(r->sim, path, 0, bytes, len));
        if (memcmp(bytes, file->bytes, len) != 0)
            broken(r, when, "other bytes than the primary's in segment", number, len);
        free(bytes);
    }
}

void check_replica(struct primary *p, struct replica *r, const char *when)
{
    struct canon c = {0};
    size_t i = p->states;

    if (!r->ready)
        return;
    uint64_t durable = p->fx.engine ? wal_durable_lsn(engine_wal(p->fx.engine)) : p->a.lsn;
    if (r->lsn > durable || r->lsn > p->a.lsn)
        broken(r, when, "ahead of the primary", durable, p->a.lsn);
    check_bytes(p, r, when);
    replica_apply(r, &c);
    while (i > 0 && p->lsn[i - 1] > r->lsn)
        i--;
    bool exact = i > 0 && (p->lsn[i - 1] == r->lsn || i == p->states);
    bool fits =
        (i > 0 && c.hash == p->hash[i - 1]) || (!exact && i < p->states && c.hash == p->hash[i]);
    if (!fits)
        broken(r, when, "the tree is not that of the primary at this LSN", i, p->states);
    canon_free(&c);
}

// ---- the way ----

void send_all(struct primary *p, struct replica *r)
{
    for (size_t i = 0; i < p->a.count; i++) {
        const struct archive_file *file = &p->a.files[i];
        uint64_t have = replica_received(r, file->name);

        if (have < file->len)
            replica_receive(r, file->name, have, file->bytes + have, file->len - have);
    }
}

void catch_up(struct primary *p, struct replica *r)
{
    send_all(p, r);
    (void)replica_place(r);
    if (!r->ready || r->lsn != p->a.lsn || r->sequence != p->a.sequence)
        broken(r, "catching up", "it does not come to where the archive is", p->a.lsn,
               p->a.sequence);
    check_replica(p, r, "caught up");
}
