// SPDX-License-Identifier: MIT
// What a primary has made durable, as files. See archive.h.
#include "tests/replica/archive.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"
#include "checkpoint/superblock.h"
#include "store/op.h"
#include "tests/replica/blob.h"
#include "wal/wal_format.h"
#include "wal/wal_verify.h"

#define SEGMENTS_MAX 32u

void archive_free(struct archive *a)
{
    for (size_t i = 0; i < a->count; i++)
        free(a->files[i].bytes);
    free(a->files);
    sim_destroy(a->published);
    *a = (struct archive){0};
}

struct archive_file *archive_find(struct archive *a, const char *name)
{
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->files[i].name, name) == 0)
            return &a->files[i];
    return NULL;
}

static struct archive_file *file_named(struct archive *a, uint64_t number, const char *kind)
{
    char name[ARCHIVE_NAME_BYTES];

    (void)snprintf(name, sizeof(name), "%016llx.%s", (unsigned long long)number, kind);
    struct archive_file *file = archive_find(a, name);
    if (file)
        return file;
    if (a->count == a->cap) {
        a->cap = a->cap ? 2 * a->cap : 16;
        a->files = realloc(a->files, a->cap * sizeof(a->files[0]));
        AF_ASSERT(a->files);
    }
    file = &a->files[a->count++];
    *file = (struct archive_file){0};
    memcpy(file->name, name, sizeof(name));
    return file;
}

static void append(struct archive_file *file, const void *bytes, size_t len)
{
    while (file->len + len > file->cap) {
        file->cap = file->cap ? 2 * file->cap : 8192;
        file->bytes = realloc(file->bytes, file->cap);
        AF_ASSERT(file->bytes);
    }
    memcpy(file->bytes + file->len, bytes, len);
    file->len += len;
}

static void fall_behind(struct archive *a, const char *why)
{
    if (!a->behind)
        (void)snprintf(a->why, sizeof(a->why), "%s", why);
    a->behind = true;
}

// ---- checkpoints ----

static uint64_t sequence_of(struct sim *image)
{
    struct superblock_slots slots;
    uint64_t sequence = 0;

    if (superblock_load(sim_io(image), &slots) < 0)
        return 0;
    if (slots.chosen >= 0)
        sequence = slots.sb[slots.chosen].sequence;
    superblock_slots_free(&slots);
    return sequence;
}

// What would be there after a power cut now.
static struct sim *durable_image(const struct sim *sim)
{
    struct sim *image = sim_clone(sim);

    sim_power_cut(image, SIM_CUT_DROP_ALL, 0);
    return image;
}

static void take_step(struct archive *a, struct sim *image, uint64_t sequence)
{
    const char *const names[] = {"superblock", "data"};

    if (a->sequence != 0 && sequence != a->sequence + 1)
        fall_behind(a, "a checkpoint was published that nobody has seen");
    if (a->sequence != 0 && !a->behind) {
        struct archive_file *file = file_named(a, sequence, "step");
        uint8_t *bytes = NULL;
        size_t len = 0;

        blob_make(image, a->published, names, 2, &bytes, &len);
        file->len = 0;
        append(file, bytes, len);
        free(bytes);
        a->steps++;
    }
    sim_destroy(a->published);
    a->published = image;
    a->sequence = sequence;
}

static void look_for_step(struct archive *a)
{
    struct sim *image = durable_image(a->watched);
    uint64_t sequence = sequence_of(image);

    if (sequence > a->sequence)
        take_step(a, image, sequence);
    else
        sim_destroy(image);
}

// Called before each event: what the one before has made durable is on the disk now.
static void on_event(void *arg, const struct sim_event *event)
{
    struct archive *a = arg;

    if (a->synced)
        look_for_step(a);
    a->synced = event->call == SIM_SYNC && strcmp(event->path, "superblock") == 0;
}

void archive_watch(struct archive *a, struct sim *primary)
{
    a->watched = primary;
    a->synced = false;
    sim_set_event_hook(primary, on_event, a);
}

// ---- the log ----

struct segments {
    uint64_t numbers[SEGMENTS_MAX];
    size_t count;
};

static void note_segment(void *arg, const char *path, bool is_dir)
{
    struct segments *s = arg;
    uint64_t number;

    if (is_dir || strncmp(path, "wal/", 4) != 0 || !wal_segment_number(path + 4, &number))
        return;
    AF_ASSERT(s->count < SEGMENTS_MAX);
    size_t at = s->count++;
    while (at > 0 && s->numbers[at - 1] > number) {
        s->numbers[at] = s->numbers[at - 1];
        at--;
    }
    s->numbers[at] = number;
}

struct pass { // over one segment
    struct archive *a;
    struct sim *image;
    struct archive_file *ext;
    uint64_t durable_lsn;
    uint64_t end; // of the last group that is durable
};

static void take_extent(struct pass *p, const struct op_piece *piece)
{
    for (uint64_t i = 0; i < piece->count; i++) {
        uint8_t block[4096];
        le64 address = le64_put(piece->address + i);

        int r = sim_read_raw(p->image, "data", (piece->address + i) * sizeof(block), block,
                             sizeof(block));
        if (r < 0 || checksum(CSUM_DATA, 0, block, sizeof(block)) != op_le64(piece->checksums, i)) {
            fall_behind(p->a, "a block that a record names has been used again");
            return;
        }
        append(p->ext, &address, sizeof(address));
        append(p->ext, block, sizeof(block));
        p->a->extents++;
    }
}

static int take_record(void *arg, const struct wal_record *record)
{
    struct pass *p = arg;
    struct op op;

    if (record->lsn > p->durable_lsn)
        return 0;
    p->end =
        AF_ROUND_UP(record->offset + wal_record_bytes(record->body_bytes), (uint64_t)WAL_BLOCK);
    if (record->lsn <= p->a->lsn)
        return 0;
    if (record->type == WAL_OPERATION) {
        AF_ASSERT(op_decode(record->body, record->body_bytes, &op) == 0);
        for (uint32_t i = 0; i < op.piece_count; i++)
            if (op.pieces[i].type == PIECE_EXTENT)
                take_extent(p, &op.pieces[i]);
        op_free(&op);
    }
    p->a->lsn = record->lsn;
    p->a->checksum = record->checksum;
    p->a->records++;
    return 0;
}

// Appends what is new of a segment. What was archived before is still the same: no byte of the log
// that was durable is ever written again.
static void take_bytes(struct archive *a, const struct sim *image, const char *path,
                       uint64_t number, uint64_t end)
{
    struct archive_file *file = file_named(a, number, "seg");
    uint8_t *bytes = malloc(AF_MAX(end, (uint64_t)1));

    AF_ASSERT(bytes);
    AF_ASSERT(sim_read_raw(image, path, 0, bytes, end) == 0);
    AF_ASSERT(file->len <= end && (file->len == 0 || memcmp(file->bytes, bytes, file->len) == 0));
    append(file, bytes + file->len, end - file->len);
    free(bytes);
}

static void take_segment(struct archive *a, struct sim *image, uint64_t number, uint64_t durable)
{
    char path[32];
    wal_segment_path(number, path);
    struct wal_file file = {.path = path};
    struct wal_file_set set;

    AF_ASSERT(wal_file_verify(sim_io(image), &file, NULL, NULL) == 0);
    AF_ASSERT(wal_files_order(&file, 1, &set) == 0);
    // Unused ones, and those that recycling or a recovery has not written yet.
    bool ours = file.info.valid && file.place != WAL_PLACE_RECYCLED && file.records > 0 &&
                file.last_lsn > a->lsn;
    if (ours && file.info.prev_lsn > a->lsn && a->lsn != 0) {
        fall_behind(a, "the primary has trimmed records that nobody has archived");
    } else if (ours) {
        struct pass p = {.a = a, .image = image, .durable_lsn = durable};

        p.ext = file_named(a, number, "ext");
        wal_file_free(&file);
        AF_ASSERT(wal_file_verify(sim_io(image), &file, take_record, &p) == 0);
        if (p.end > 0)
            take_bytes(a, image, path, number, p.end);
    }
    wal_file_free(&file);
}

void archive_update(struct archive *a, struct fixture *primary)
{
    struct wal *wal = primary->engine ? engine_wal(primary->engine) : NULL;
    uint64_t durable = wal ? wal_durable_lsn(wal) : UINT64_MAX;
    struct segments s = {0};

    look_for_step(a);
    struct sim *image = durable_image(primary->sim);
    sim_each_path(image, note_segment, &s);
    for (size_t i = 0; i < s.count && !a->behind; i++)
        take_segment(a, image, s.numbers[i], durable);
    sim_destroy(image);
}

// ---- the base ----

void archive_rebase(struct archive *a, struct fixture *primary)
{
    struct archive fresh = {.watched = a->watched};
    const char *names[BLOB_FILES_MAX] = {"superblock", "data"};
    static char paths[SEGMENTS_MAX][32];
    struct superblock_slots slots;
    struct segments s = {0};
    size_t count = 2;

    look_for_step(a);
    fresh.published = sim_clone(a->published);
    fresh.sequence = a->sequence;
    AF_ASSERT(superblock_load(sim_io(fresh.published), &slots) == 0);
    const struct wal_start *log = &slots.sb[slots.chosen].log;
    sim_each_path(fresh.published, note_segment, &s);
    for (size_t i = 0; i < s.count; i++) {
        if (s.numbers[i] < log->log_segment)
            continue;
        wal_segment_path(s.numbers[i], paths[i]);
        names[count++] = paths[i];
    }
    // The log of the base is archived again from its cut on, with the blocks that it names.
    fresh.lsn = log->cut_lsn;
    superblock_slots_free(&slots);
    archive_free(a);
    *a = fresh;
    struct archive_file *file = file_named(a, a->sequence, "base");
    uint8_t *bytes = NULL;
    size_t len = 0;

    blob_make(a->published, NULL, names, count, &bytes, &len);
    append(file, bytes, len);
    free(bytes);
    archive_update(a, primary);
}
