// SPDX-License-Identifier: MIT
// A store with mutated bytes: opened, listed, changed, closed. The first byte chooses the crashed
// image (bit 0) or one with a snapshot (bit 3) instead of the clean one, and verification before
// and after (bits 1 and 2); the rest is for mutate_image().
//
// What must hold, apart from memory safety:
//   - a refused opening changes nothing
//   - where no checksum was put right, a store that opens and reports no damage shows a moment of
//     its history: for the clean image its tree, for the crashed one a state since the checkpoint
//   - what verification calls sound opens, reads without an error, and is sound after a clean end
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "checkpoint/superblock.h"
#include "tests/fuzz/mutate.h"
#include "tests/lib/golden.h"

#define MOMENTS_MAX 64

static const struct engine_options options = {.cache_bytes = UINT64_C(1) << 20,
                                              .log_bytes = UINT64_C(256) << 10,
                                              .max_bytes = UINT64_C(8) << 20};

struct image {
    struct sim *sim;
    struct mutable_pages pages;
    uint64_t moments[MOMENTS_MAX]; // hashes of the trees that it may show
    size_t moment_count;
};

// ---- what may be seen ----

struct places {
    struct {
        char path[32];
        uint64_t off;
    } list[MOMENTS_MAX];
    size_t count;
};

static int note_place(void *arg, const struct wal_record *record)
{
    struct places *p = arg;

    if (p->count == MOMENTS_MAX)
        abort();
    wal_segment_path(record->segment, p->list[p->count].path);
    p->list[p->count++].off = record->offset;
    return 0;
}

static void add_moment(struct image *image, struct sim *sim)
{
    struct engine_recovery recovery;
    struct canon list;

    if (golden_list(sim, &list, &recovery) < 0 || image->moment_count == MOMENTS_MAX)
        abort();
    image->moments[image->moment_count++] = list.hash;
    canon_free(&list);
    sim_destroy(sim);
}

// The whole log, and the log cut before each of its records.
static void find_moments(struct image *image)
{
    static const uint8_t zeros[1 << 16];
    struct superblock_slots slots;
    struct wal_scan_result result;
    struct places places = {.count = 0};
    uint64_t bytes;

    add_moment(image, sim_clone(image->sim));
    if (superblock_load(sim_io(image->sim), &slots) < 0 ||
        wal_scan(sim_io(image->sim), &slots.sb[slots.chosen].log, note_place, &places, &result) < 0)
        abort();
    superblock_slots_free(&slots);
    for (size_t i = 0; i < places.count; i++) {
        struct sim *cut = sim_clone(image->sim);
        uint64_t off = places.list[i].off;

        if (sim_file_size(cut, places.list[i].path, &bytes) < 0 || bytes > sizeof(zeros) ||
            sim_write_raw(cut, places.list[i].path, off, zeros, bytes - off) < 0)
            abort();
        add_moment(image, cut);
    }
}

static bool is_moment(const struct image *image, uint64_t hash)
{
    for (size_t i = 0; i < image->moment_count; i++)
        if (image->moments[i] == hash)
            return true;
    return false;
}

// The clean one, with a snapshot of it that holds what the live tree has let go of.
static struct sim *with_snapshot(void)
{
    struct fixture fx;

    fixture_adopt(&fx, golden_build(false, options.max_bytes), &options);
    if (fixture_open(&fx) < 0 || store_snapshot_create(fx.store, STORE_BLOCK, "snapshot") < 0 ||
        store_unlink(fx.store, STORE_BLOCK, INO_ROOT, "sparse") < 0 || fixture_close(&fx) < 0)
        abort();
    struct sim *sim = sim_clone(fx.sim);
    fixture_free(&fx);
    return sim;
}

static const struct image *image_of(unsigned flags)
{
    static struct image all[3];
    unsigned which = flags & 1 ? 1 : flags & 8 ? 2 : 0;

    for (unsigned i = 0; i < 3 && !all[i].sim; i++) {
        all[i].sim = i == 2 ? with_snapshot() : golden_build(i == 1, options.max_bytes);
        mutable_pages_find(all[i].sim, &all[i].pages);
        find_moments(&all[i]);
    }
    return &all[which];
}

// ---- one store ----

static int change(struct fixture *fx)
{
    static const struct store_cred cred = {.uid = 1, .gid = 1};
    struct store_attr attr;
    struct store_file *file;
    int err;

    err = store_mknod(fx->store, STORE_BLOCK, INO_ROOT, "new", S_IFDIR | 0755, 0, &cred, &attr);
    if (err == 0)
        err = store_rename(fx->store, STORE_BLOCK, INO_ROOT, "linked", attr.ino, "moved", 0);
    int created =
        store_create(fx->store, STORE_BLOCK, INO_ROOT, "file", 0644, O_RDWR, &cred, &attr, &file);
    if (created == 0) {
        created = store_write(fx->store, STORE_BLOCK, file, 100, "0123456789", 10, false);
        if (created == 0)
            created = fixture_fsync(fx, attr.ino);
        int released = store_release(fx->store, STORE_BLOCK, file);
        err = err ? err : created ? created : released;
    }
    int unlinked = store_unlink(fx->store, STORE_BLOCK, INO_ROOT, "sparse");
    if (store_lookup(fx->store, STORE_BLOCK, INO_ROOT, "replayed", &attr) == 0) {
        attr.size = 10;
        int cut =
            store_setattr(fx->store, STORE_BLOCK, attr.ino, NULL, &attr, STORE_SET_SIZE, &attr);
        err = err ? err : cut;
    }
    int deleted = store_snapshot_delete(fx->store, STORE_BLOCK, "snapshot");
    for (unsigned i = 0; i < 8; i++) {
        sim_advance_ms(fx->sim, 1000);
        engine_tick(fx->engine); // its space comes back
    }
    err = err ? err : deleted == -ENOENT ? 0 : deleted;
    int published = engine_checkpoint(fx->engine);
    return err ? err : created ? created : unlinked && unlinked != -ENOENT ? unlinked : published;
}

static void must(bool holds, const char *what, const char *more)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_image: %s: %s\n", what, more);
    abort();
}

// Whether anything was reported: an error of a call, or damage noted.
static bool damage_noted(struct fixture *fx)
{
    struct store_status status;

    store_get_status(fx->store, &status);
    return status.damage_count > 0 || status.errors > 0 || status.failed < 0;
}

static void open_store(struct fixture *fx, const struct image *image, bool resealed, bool sound)
{
    char where[CANON_WHERE_BYTES], text[1024];
    struct canon list = {0};
    int err = canon_store(fx->store, &list, where);
    bool silent = err == 0 && !damage_noted(fx);

    must(resealed || !silent || is_moment(image, list.hash), "a wrong tree in silence", fx->said);
    must(silent || !sound, "verification found nothing, reading did", where);
    canon_free(&list);
    err = change(fx);
    must(err == 0 || !sound, "a sound store takes no changes", err_name(err));
    err = fixture_close(fx);
    must(err == 0 || !sound, "a sound store cannot be closed", err_name(err));
    must(!sound || verify_text(fx->sim, text, sizeof(text)) == 0, "a sound store was damaged",
         text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[1024];
    struct fixture fx;

    if (size == 0)
        return 0;
    const struct image *image = image_of(data[0]);
    fixture_adopt(&fx, sim_clone(image->sim), &options);
    bool resealed = mutate_image(fx.sim, &image->pages, data + 1, size - 1);
    bool sound = (data[0] & 6) == 6 && verify_text(fx.sim, text, sizeof(text)) == 0;
    int err = fixture_open(&fx);
    if (err == 0)
        open_store(&fx, image, resealed, sound);
    must(err == 0 || !sound, "verification found nothing, opening did", fx.refusal);
    must(err == 0 || sim_event_count(fx.sim) == 0, "a refused opening has written", fx.refusal);
    fixture_free(&fx);
    return 0;
}
