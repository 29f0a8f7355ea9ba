// SPDX-License-Identifier: MIT
// How the engine behaves with very many keys: `scale DIR KEYS` makes a store in the empty directory
// DIR with KEYS keys of 100 bytes, then prints what must not grow with their number: time to open
// after a clean close and after a kill with a full log, memory, time and bytes of a checkpoint
// after 1000 keys chosen at random have changed.
//
// A kill is engine_abandon(): everything in memory is dropped, nothing is written. The log is made
// as full as a checkpoint lets it become by changing keys until it is close to the bound, in the
// moment before the next one would start.

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "base/err.h"
#include "checkpoint/engine.h"

#define VALUE_BYTES 100u
#define CHANGES     1000u

static const struct store_cred CRED = {0, 0};

static void emit(void *arg, enum message_level level, const char *text)
{
    (void)arg;
    if (level != MESSAGE_INFO)
        fprintf(stderr, "scale: %s\n", text);
}

static void check(int err, const char *what)
{
    if (err >= 0)
        return;
    fprintf(stderr, "scale: %s: %s (%s)\n", what, err_text(err), err_name(err));
    exit(1);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct engine *open_engine(struct io *io, const char *what)
{
    struct engine_options o = {
        .commit_open_ms = UINT64_MAX, .threads = true, .sink = {.emit = emit}};
    struct engine_status st;
    struct engine *e;
    char text[1024] = "";
    double start = now();
    int err = engine_open(io, &o, &e, text, sizeof(text));

    if (err < 0)
        fprintf(stderr, "scale: %s\n", text);
    check(err, "open");
    engine_get_status(e, &st);
    printf("open %-22s %8.3f s  (%" PRIu64 " records, %" PRIu64 " bytes replayed)\n", what,
           now() - start, st.recovery.records_replayed, st.recovery.bytes_replayed);
    return e;
}

static void put(struct store *s, uint64_t dir, uint64_t key, char letter, bool create)
{
    char name[32], value[VALUE_BYTES];
    struct store_file *file;
    struct store_attr attr;

    snprintf(name, sizeof(name), "key%" PRIu64, key);
    memset(value, letter, sizeof(value));
    if (create) {
        check(store_create(s, STORE_BLOCK, dir, name, 0644, O_WRONLY, &CRED, &attr, &file),
              "create");
    } else {
        check(store_lookup(s, STORE_BLOCK, dir, name, &attr), "lookup");
        check(store_open(s, STORE_BLOCK, attr.ino, O_WRONLY | O_TRUNC, &file), "open");
    }
    check(store_write(s, STORE_BLOCK, file, 0, value, sizeof(value), false), "write");
    check(store_release(s, STORE_BLOCK, file), "release");
}

static uint64_t xorshift(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

static void memory(const char *what)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (!f || fscanf(f, "%*s %ld", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    printf("memory %-20s %8.1f MiB resident\n", what, (double)pages * 4096 / (1 << 20));
}

static void checkpoint_after_changes(struct engine *e, uint64_t dir, uint64_t keys, uint64_t *seed)
{
    struct engine_status st;

    check(engine_checkpoint(e), "checkpoint");
    for (unsigned i = 0; i < CHANGES; i++)
        put(engine_store(e), dir, xorshift(seed) % keys, 'b', false);
    double start = now();

    check(engine_checkpoint(e), "checkpoint");
    engine_get_status(e, &st);
    printf("checkpoint after %u changes %6.3f s, %.1f MiB written\n", CHANGES, now() - start,
           (double)st.last_checkpoint_bytes / (1 << 20));
}

// Until the log has come close to where a checkpoint would start, or one has started. A few keys,
// changed again and again: so the log is what fills, and not the memory for dirty blocks.
static void fill_log(struct engine *e, uint64_t dir, uint64_t keys, uint64_t *seed)
{
    struct engine_status st;
    uint64_t before;

    check(engine_checkpoint(e), "checkpoint");
    engine_get_status(e, &st);
    before = st.checkpoints;
    do {
        for (unsigned i = 0; i < 200; i++)
            put(engine_store(e), dir, xorshift(seed) % AF_MIN(keys, (uint64_t)5000), 'c', false);
        engine_get_status(e, &st);
    } while (st.checkpoints == before &&
             st.store.wal.log_bytes + st.segment_bytes <= st.store.wal.log_bytes_max / 2);
    check(engine_sync(e), "sync");
    engine_get_status(e, &st);
    printf("log filled to %.1f MiB of %.1f MiB\n", (double)st.store.wal.log_bytes / (1 << 20),
           (double)st.store.wal.log_bytes_max / (1 << 20));
}

int main(int argc, char **argv)
{
    struct engine_options o = {.commit_open_ms = UINT64_MAX, .sink = {.emit = emit}};
    struct store_attr dir;
    struct io *io;
    uint64_t keys, seed = 88172645463325252u;
    double start;

    if (argc != 3 || (keys = strtoull(argv[2], NULL, 10)) == 0) {
        fprintf(stderr, "usage: scale DIR KEYS\n");
        return 2;
    }
    check(io_open(argv[1], NULL, false, &io), "open directory");
    check(engine_create(io, &o, &CRED), "create store");
    struct engine *e = open_engine(io, "new");

    check(
        store_mknod(engine_store(e), STORE_BLOCK, INO_ROOT, "keys", S_IFDIR | 0755, 0, &CRED, &dir),
        "mkdir");
    start = now();
    for (uint64_t i = 0; i < keys; i++)
        put(engine_store(e), dir.ino, i, 'a', true);
    check(engine_sync(e), "sync");
    printf("made %" PRIu64 " keys in %.1f s\n", keys, now() - start);
    memory("after making them");
    checkpoint_after_changes(e, dir.ino, keys, &seed);
    check(engine_close(e), "close");
    e = open_engine(io, "after a clean close");
    memory("after opening");
    fill_log(e, dir.ino, keys, &seed);
    engine_abandon(e);
    e = open_engine(io, "after a kill");
    memory("after recovery");
    check(engine_close(e), "close");
    io->ops->destroy(io);
    return 0;
}
