// SPDX-License-Identifier: MIT
// The state of a running engine as text or JSON: one flat list of names and values, the same in
// both.

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "checkpoint/engine_internal.h"

struct list_out {
    struct buf *out;
    bool json;
    bool some; // a value is out
};

static void key_out(struct list_out *l, const char *key)
{
    if (l->json)
        buf_printf(l->out, "%s\n  \"%s\": ", l->some ? "," : "", key);
    else
        buf_printf(l->out, "%s: ", key);
    l->some = true;
}

static void value_end(struct list_out *l)
{
    if (!l->json)
        buf_put_u8(l->out, '\n');
}

// Texts may hold whatever a message held. Bytes above 127 stand as they are, so that UTF-8 stays
// readable.
static void text_out(struct list_out *l, const char *key, const char *text)
{
    key_out(l, key);
    if (l->json)
        buf_put_u8(l->out, '"');
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (l->json && (*p == '"' || *p == '\\'))
            buf_put_u8(l->out, '\\');
        if (*p < 32 || *p == 127)
            buf_printf(l->out, l->json ? "\\u%04x" : "\\x%02x", *p);
        else
            buf_put_u8(l->out, *p);
    }
    if (l->json)
        buf_put_u8(l->out, '"');
    value_end(l);
}

static void number_out(struct list_out *l, const char *key, uint64_t value)
{
    key_out(l, key);
    buf_printf(l->out, "%llu", (unsigned long long)value);
    value_end(l);
}

static void bool_out(struct list_out *l, const char *key, bool value)
{
    key_out(l, key);
    buf_printf(l->out, "%s", l->json ? (value ? "true" : "false") : (value ? "yes" : "no"));
    value_end(l);
}

static void uuid_out(struct list_out *l, const char *key, const uint8_t uuid[16])
{
    static const char digits[] = "0123456789abcdef";
    char text[37], *p = text;

    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        *p++ = digits[uuid[i] >> 4];
        *p++ = digits[uuid[i] & 15];
    }
    *p = 0;
    text_out(l, key, text);
}

// ---- the groups of values ----

static void engine_out(struct list_out *l, const struct engine_status *s)
{
    char off[SWITCHES_TEXT_BYTES];

    text_out(l, "state", s->state);
    if (s->store.failed) {
        text_out(l, "failure", s->store.failed_what);
        text_out(l, "failure_code", err_name(s->store.failed));
    }
    bool_out(l, "read_only", s->read_only);
    uuid_out(l, "uuid", s->uuid);
    text_out(l, "io", s->io);
    switches_off_text(s->switches, off);
    text_out(l, "switched_off", off);
    number_out(l, "inodes", s->store.inodes);
    number_out(l, "orphans", s->store.orphans);
    number_out(l, "snapshots", s->store.snapshots);
    number_out(l, "errors", s->store.errors);
    number_out(l, "damaged", s->store.damage_count + s->store.damage_unlisted);
    for (size_t i = 0; i < s->damage_count; i++) {
        char key[40];

        snprintf(key, sizeof(key), "damage_%zu", i + 1);
        text_out(l, key, s->damage[i]);
    }
}

static void log_out(struct list_out *l, const struct engine_status *s)
{
    const struct wal_stats *w = &s->store.wal;

    number_out(l, "lsn_appended", w->appended_lsn);
    number_out(l, "lsn_applied", s->store.applied_lsn);
    number_out(l, "lsn_durable", w->durable_lsn);
    number_out(l, "lsn_checkpoint", s->store.checkpoint_lsn);
    number_out(l, "epoch", s->recovery.epoch);
    number_out(l, "log_bytes", w->log_bytes);
    number_out(l, "log_bytes_max", w->log_bytes_max);
    number_out(l, "log_first_segment", w->first_segment);
    number_out(l, "log_current_segment", w->current_segment);
    number_out(l, "log_segment_bytes", s->segment_bytes);
    number_out(l, "log_flushes", w->flushes);
    number_out(l, "log_records", w->records);
    number_out(l, "log_bytes_written", w->bytes_written);
    number_out(l, "log_data_syncs", w->data_syncs);
}

static void checkpoint_out(struct list_out *l, const struct engine_status *s)
{
    number_out(l, "superblock_sequence", s->store.checkpoint_sequence);
    number_out(l, "generation", s->store.generation);
    number_out(l, "checkpoints", s->checkpoints);
    number_out(l, "checkpoint_last_us", s->last_checkpoint_us);
    number_out(l, "checkpoint_last_bytes", s->last_checkpoint_bytes);
}

static void memory_out(struct list_out *l, const struct engine_status *s)
{
    number_out(l, "cache_blocks", s->store.cache_blocks);
    number_out(l, "cache_dirty_blocks", s->store.cache_dirty_blocks);
    number_out(l, "cache_budget_blocks", s->store.cache_budget_blocks);
    number_out(l, "cache_hits", s->store.cache_hits);
    number_out(l, "cache_misses", s->store.cache_misses);
    number_out(l, "pending_files", s->store.pending_files);
    number_out(l, "pending_bytes", s->store.pending_bytes);
    number_out(l, "open_files", s->store.open_files);
    number_out(l, "space_capacity_blocks", s->store.space_capacity_blocks);
    number_out(l, "space_max_blocks", s->store.space_max_blocks);
    number_out(l, "space_used_blocks", s->store.space_used_blocks);
    number_out(l, "space_waiting_blocks", s->store.space_waiting_blocks);
    number_out(l, "space_reserved_blocks", s->store.space_reserved_blocks);
    number_out(l, "space_reserve_blocks", s->store.space_reserve_blocks);
}

static void recovery_out(struct list_out *l, const struct engine_recovery *r)
{
    text_out(l, "recovery", r->text);
    bool_out(l, "recovery_clean", r->clean);
    number_out(l, "recovery_sequence", r->sequence);
    number_out(l, "recovery_generation", r->generation);
    number_out(l, "recovery_cut_lsn", r->cut_lsn);
    number_out(l, "recovery_last_lsn", r->last_lsn);
    number_out(l, "recovery_proven_lsn", r->proven_lsn);
    number_out(l, "recovery_records_unproven", r->records_unproven);
    number_out(l, "recovery_records_replayed", r->records_replayed);
    number_out(l, "recovery_bytes_replayed", r->bytes_replayed);
    number_out(l, "recovery_tail_records_dropped", r->tail_records_dropped);
    number_out(l, "recovery_tail_bytes_dropped", r->tail_bytes_dropped);
    number_out(l, "recovery_tail_segment", r->tail_segment);
    number_out(l, "recovery_tail_offset", r->tail_offset);
    number_out(l, "recovery_orphans_removed", r->orphans_removed);
    number_out(l, "recovery_us", r->duration_us);
}

void engine_status_text(const struct engine_status *status, bool json, struct buf *out)
{
    struct list_out l = {.out = out, .json = json};

    if (json)
        buf_put_u8(out, '{');
    engine_out(&l, status);
    log_out(&l, status);
    checkpoint_out(&l, status);
    memory_out(&l, status);
    recovery_out(&l, &status->recovery);
    if (json)
        buf_printf(out, "\n}\n");
}

// ---- the scrub ----

void engine_scrub_text(const struct engine_scrub *scrub, struct buf *out)
{
    struct list_out l = {.out = out};

    text_out(&l, "state",
             scrub->state == ENGINE_SCRUB_RUNNING ? "running"
             : scrub->state == ENGINE_SCRUB_NEVER ? "never"
             : scrub->result < 0                  ? "ended early"
                                                  : "done");
    number_out(&l, "number", scrub->number);
    number_out(&l, "rate", scrub->rate);
    number_out(&l, "bytes", scrub->bytes);
    number_out(&l, "total_bytes", scrub->total_bytes);
    number_out(&l, "nodes", scrub->nodes);
    number_out(&l, "data_blocks", scrub->data_blocks);
    number_out(&l, "map_blocks", scrub->map_blocks);
    number_out(&l, "damage", scrub->damage);
    text_out(&l, "result", scrub->result < 0 ? err_text(scrub->result) : "");
}

// ---- metrics ----

struct metric {
    const char *name, *type, *help;
    uint64_t value;
};

void engine_metrics_text(const struct engine_status *s, struct buf *out)
{
    const struct store_status *st = &s->store;
    const struct wal_stats *w = &st->wal;
    const struct metric metrics[] = {
        {"up", "gauge", "1 while changes are accepted, 0 when failed or read-only",
         !st->failed && !s->read_only},
        {"lsn_appended", "counter", "last log sequence number given", w->appended_lsn},
        {"lsn_durable", "counter", "last log sequence number known durable", w->durable_lsn},
        {"lsn_checkpoint", "counter", "log sequence number of the last checkpoint",
         st->checkpoint_lsn},
        {"log_bytes", "gauge", "log since the last checkpoint", w->log_bytes},
        {"log_bytes_max", "gauge", "bound of the log", w->log_bytes_max},
        {"log_flushes_total", "counter", "durable writes of the log since the mount", w->flushes},
        {"checkpoints_total", "counter", "checkpoints since the mount", s->checkpoints},
        {"checkpoint_last_microseconds", "gauge", "duration of the last checkpoint",
         s->last_checkpoint_us},
        {"checkpoint_last_bytes", "gauge", "written by the last checkpoint",
         s->last_checkpoint_bytes},
        {"cache_blocks", "gauge", "blocks of 4096 bytes in the cache", st->cache_blocks},
        {"cache_dirty_blocks", "gauge", "of these not on disk", st->cache_dirty_blocks},
        {"cache_hits_total", "counter", "lookups in the cache that found a block", st->cache_hits},
        {"cache_misses_total", "counter", "lookups in the cache that did not", st->cache_misses},
        {"pending_files", "gauge", "files with content that is not completed", st->pending_files},
        {"pending_bytes", "gauge", "content in memory that is not completed", st->pending_bytes},
        {"open_files", "gauge", "open files", st->open_files},
        {"space_capacity_blocks", "gauge", "blocks allocated on the host",
         st->space_capacity_blocks},
        {"space_used_blocks", "gauge", "blocks in use", st->space_used_blocks},
        {"space_waiting_blocks", "gauge", "freed, usable after the next checkpoint",
         st->space_waiting_blocks},
        {"inodes", "gauge", "inodes", st->inodes},
        {"snapshots", "gauge", "snapshots", st->snapshots},
        {"errors_total", "counter", "operations that failed for I/O errors or damage", st->errors},
        {"damaged", "gauge", "places that were found damaged",
         st->damage_count + st->damage_unlisted},
        {"recovery_records", "gauge", "records replayed by the last recovery",
         s->recovery.records_replayed},
        {"recovery_microseconds", "gauge", "duration of the last recovery",
         s->recovery.duration_us},
    };

    for (size_t i = 0; i < AF_ARRAY_LEN(metrics); i++)
        buf_printf(out, "# HELP aerofs_%s %s\n# TYPE aerofs_%s %s\naerofs_%s %llu\n",
                   metrics[i].name, metrics[i].help, metrics[i].name, metrics[i].type,
                   metrics[i].name, (unsigned long long)metrics[i].value);
}
