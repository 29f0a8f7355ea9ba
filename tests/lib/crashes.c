// SPDX-License-Identifier: MIT
// The crash matrix: taking images, trying their outcomes.
#include "tests/lib/crashes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "tests/lib/lie.h"
#include "tests/lib/report.h"

#define SITE_POINTS 3 // the first events of each site are crash points, whatever the sample

void crashes_init(struct crashes *c, struct world *w, uint64_t seed)
{
    *c = (struct crashes){
        .r = {rng_mix(seed, 7)},
        .percent = 100,
        .random_cuts = 2,
        .again_percent = 1,
        .verify_percent = 100,
        .kills = true,
        .w = w,
    };
}

static void drop_images(struct crashes *c)
{
    for (size_t i = 0; i < c->image_count; i++)
        sim_destroy(c->images[i].sim);
    c->image_count = 0;
}

void crashes_free(struct crashes *c)
{
    if (c->w->fx.sim)
        sim_set_event_hook(c->w->fx.sim, NULL, NULL);
    c->w->after_step = NULL;
    drop_images(c);
    free(c->images);
    free(c->seen);
}

// ---- violations ----

struct place { // of an outcome, for the message
    const struct crash_image *image;
    enum crash_kind kind;
    uint64_t seed;
    unsigned depth;
    size_t from, to; // states that are allowed
};

static void AF_PRINTF(3, 4)
    violation(struct crashes *c, const struct place *at, const char *fmt, ...)
{
    const struct sim_event *e = &at->image->event;
    char text[700];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (c->violations++ > 0)
        return;
    snprintf(c->why, sizeof(c->why),
             "seed %" PRIu64 ", step %" PRIu64 ", crash before event %" PRIu64 " (%s %s %" PRIu64
             "+%" PRIu64 " in %s), %s (cut seed %" PRIu64 "), depth %u: %s",
             c->w->seed, c->w->step, e->index, sim_call_name(e->call), e->path, e->off, e->len,
             e->tag ? e->tag : "?", crash_name(at->kind), at->seed, at->depth, text);
    if (!c->quiet)
        fprintf(stderr, "VIOLATION: %s\n", c->why);
}

// ---- what was tried already ----

static bool seen_before(struct crashes *c, uint64_t key)
{
    key += key == 0;
    if (2 * (c->seen_count + 1) > c->seen_cap) {
        uint64_t *old = c->seen;
        size_t old_cap = c->seen_cap;

        c->seen_cap = old_cap ? 2 * old_cap : 1024;
        c->seen = calloc(c->seen_cap, sizeof(c->seen[0]));
        AF_ASSERT(c->seen);
        c->seen_count = 0;
        for (size_t i = 0; i < old_cap; i++)
            if (old[i])
                (void)seen_before(c, old[i]);
        free(old);
    }
    size_t i = key & (c->seen_cap - 1);

    while (c->seen[i] && c->seen[i] != key)
        i = (i + 1) & (c->seen_cap - 1);
    if (c->seen[i])
        return true;
    c->seen[i] = key;
    c->seen_count++;
    return false;
}

// ---- one outcome ----

static bool read_tree(struct crashes *c, const struct place *at, struct fixture *fx,
                      struct canon *ret)
{
    char where[CANON_WHERE_BYTES];
    int err = canon_store(fx->store, ret, where);

    if (err < 0)
        violation(c, at, "the recovered tree cannot be read: %s; %s", where, fx->said);
    return err == 0;
}

static void check_image(struct crashes *c, const struct place *at, struct sim *sim,
                        const char *when)
{
    char text[600];
    int64_t damages = verify_text(sim, text, sizeof(text));

    if (damages != 0)
        violation(c, at, "verification %s finds %" PRId64 ": %.500s", when, damages, text);
}

static bool open_outcome(struct crashes *c, const struct place *at, struct fixture *fx,
                         const char *which)
{
    int err = fixture_open(fx);

    if (err < 0)
        violation(c, at, "the %s recovery refuses: %s: %s", which, err_name(err), fx->refusal);
    return err == 0;
}

static void compare_state(struct crashes *c, const struct place *at, struct canon *found)
{
    const struct model *m = &c->w->m;

    if (model_find(m, found->hash, at->from, at->to) >= 0)
        return;
    violation(c, at, "the tree is none of the states %zu to %zu", at->from, at->to);
    if (!c->quiet && c->violations == 1)
        model_explain(m, found, at->from, at->to, stderr);
}

static void compare_snapshots(struct crashes *c, const struct place *at, struct fixture *fx)
{
    char why[200];

    if (!world_snapshots_check(c->w, fx->store, why, sizeof(why)))
        violation(c, at, "%s", why);
}

// What was chosen, from where to where it replayed, what it dropped.
static void compare_report(struct crashes *c, const struct place *at, const struct report *expected,
                           const struct fixture *fx)
{
    struct engine_status st;
    char why[600];

    engine_get_status(fx->engine, &st);
    if (!report_matches(expected, &st.recovery, why, sizeof(why)))
        violation(c, at, "%s", why);
}

// `sim` is a disk after a crash. Recovers, compares, verifies, recovers again.
static void try_outcome(struct crashes *c, const struct place *at, struct sim *sim)
{
    struct fixture fx;
    struct canon first = {0}, second = {0};
    bool whole = rng_chance(&c->r, c->verify_percent);

    struct report report;

    fixture_adopt(&fx, sim, &c->w->fx.options);
    if (whole && at->kind != CRASH_KILL)
        check_image(c, at, sim, "of the crashed image");
    int err = report_expect(sim, &report);

    if (err < 0)
        violation(c, at, "superblock and log cannot be read: %s", err_name(err));
    if (open_outcome(c, at, &fx, "first") && read_tree(c, at, &fx, &first)) {
        compare_state(c, at, &first);
        compare_report(c, at, &report, &fx);
        compare_snapshots(c, at, &fx);
        if (whole) {
            fixture_leave(&fx);
            crash_disk(fx.sim, CRASH_DROP_ALL, 0);
            check_image(c, at, fx.sim, "of the recovered image");
        }
        if (whole && open_outcome(c, at, &fx, "second") && read_tree(c, at, &fx, &second) &&
            second.hash != first.hash)
            violation(c, at, "a second recovery gives another tree");
    }
    canon_free(&first);
    canon_free(&second);
    fixture_free(&fx);
}

// ---- crashes in recovery ----

struct recording {
    struct crashes *c;
    const struct crash_image *image;
    struct sim *sim;
    struct crash_image taken[8];
    size_t count, seen;
};

// A sample of the events, each with the same chance.
static void record_event(void *arg, const struct sim_event *event)
{
    struct recording *rec = arg;
    size_t at = rec->seen++;

    if (rec->count < AF_ARRAY_LEN(rec->taken))
        at = rec->count++;
    else
        at = rng_below(&rec->c->r, at + 1);
    if (at >= AF_ARRAY_LEN(rec->taken))
        return;
    sim_destroy(rec->taken[at].sim);
    rec->taken[at] = (struct crash_image){.sim = sim_clone(rec->sim), .event = *event};
}

static void try_kinds(struct crashes *c, const struct crash_image *image, size_t from, size_t to,
                      unsigned depth);

// `crashed` is a disk after a crash. Its recovery is crashed at some of its events.
static void crash_recovery(struct crashes *c, const struct place *at, const struct sim *crashed)
{
    struct recording rec = {.c = c, .image = at->image, .sim = sim_clone(crashed)};
    size_t from = at->from, to = at->to;
    struct canon d = {0};
    struct fixture fx;

    fixture_adopt(&fx, rec.sim, &c->w->fx.options);
    sim_set_event_hook(rec.sim, record_event, &rec);
    if (open_outcome(c, at, &fx, "crashed") && read_tree(c, at, &fx, &d)) {
        int64_t k = model_find(&c->w->m, d.hash, from, to);

        // After a power cut the disk is in no doubt: the recovery comes to the same state, whenever
        // it is crashed.
        if (k >= 0 && at->kind != CRASH_KILL)
            from = to = (size_t)k;
    }
    canon_free(&d);
    sim_set_event_hook(rec.sim, NULL, NULL);
    fixture_free(&fx);
    for (size_t i = 0; i < rec.count; i++) {
        c->again++;
        c->deepest = AF_MAX(c->deepest, (uint64_t)at->depth + 1);
        try_kinds(c, &rec.taken[i], from, to, at->depth + 1);
        sim_destroy(rec.taken[i].sim);
    }
}

// `sim` is the disk after the crash; it is consumed.
static void try_disk(struct crashes *c, const struct place *at, struct sim *sim)
{
    c->outcomes++;
    if (seen_before(c, rng_mix(sim_hash(sim), at->from * UINT64_C(1000003) + at->to))) {
        sim_destroy(sim);
        return;
    }
    c->states++;
    if (at->depth < 3 && rng_chance(&c->r, at->depth == 0 ? c->again_percent : 12))
        crash_recovery(c, at, sim);
    try_outcome(c, at, sim); // which frees it
}

static void try_kind(struct crashes *c, const struct crash_image *image, size_t from, size_t to,
                     unsigned depth, enum crash_kind kind)
{
    struct place at = {.image = image, .kind = kind, .depth = depth, .from = from, .to = to};
    struct sim *sim = sim_clone(image->sim);

    at.seed = rng_next(&c->r);
    lie_end(sim);
    crash_disk(sim, kind, at.seed);
    try_disk(c, &at, sim);
}

// The parts that bit i of `subset` keeps, or with a number of parts that is too large half of them.
static void try_subset(struct crashes *c, const struct crash_image *image, size_t to, size_t parts,
                       uint64_t subset, bool all)
{
    struct place at = {
        .image = image, .kind = CRASH_SUBSET, .seed = subset, .from = image->from, .to = to};
    struct sim *sim = sim_clone(image->sim);
    bool *keep = calloc(parts + 1, sizeof(*keep)); // never of no bytes
    struct rng drawn = {subset};

    AF_ASSERT(keep);
    for (size_t i = 0; i < parts; i++)
        keep[i] = all ? subset >> i & 1 : rng_next(&drawn) >> 63;
    lie_end(sim);
    crash_subset(sim, keep, !all && subset % 2, subset);
    free(keep);
    try_disk(c, &at, sim);
}

static void try_subsets(struct crashes *c, const struct crash_image *image, size_t to)
{
    size_t parts = sim_cut_parts(image->sim);
    bool all = parts <= c->subset_parts;
    uint64_t count = all ? UINT64_C(1) << parts : c->subset_draws;

    if (c->subset_parts == 0)
        return;
    c->exhausted += all;
    for (uint64_t i = 0; i < count; i++)
        try_subset(c, image, to, parts, all ? i : rng_next(&c->r), all);
}

static void try_kinds(struct crashes *c, const struct crash_image *image, size_t from, size_t to,
                      unsigned depth)
{
    if (depth > 0) { // one outcome each is enough, or it would never end
        try_kind(c, image, from, to, depth, (enum crash_kind)rng_below(&c->r, CRASH_KIND_COUNT));
        return;
    }
    try_kind(c, image, from, to, depth, CRASH_DROP_ALL);
    try_kind(c, image, from, to, depth, CRASH_KEEP_ALL);
    for (unsigned i = 0; i < c->random_cuts; i++)
        try_kind(c, image, from, to, depth, i % 2 ? CRASH_GARBAGE : CRASH_RANDOM);
    if (c->kills && rng_chance(&c->r, 25))
        try_kind(c, image, from, to, depth, CRASH_KILL);
    try_subsets(c, image, to);
}

void crashes_try(struct crashes *c)
{
    for (size_t i = 0; i < c->image_count && !(c->quiet && c->violations > 0); i++)
        try_kinds(c, &c->images[i], c->images[i].from, c->w->m.state_count - 1, 0);
    drop_images(c);
}

// ---- events ----

static struct crash_site *site_of(struct crashes *c, const struct sim_event *event)
{
    for (size_t i = 0; i < c->site_count; i++)
        if (c->sites[i].name == event->site && c->sites[i].call == event->call)
            return &c->sites[i];
    AF_ASSERT(c->site_count < CRASH_SITES);
    struct crash_site *s = &c->sites[c->site_count++];

    *s = (struct crash_site){.name = event->site, .call = event->call, .tag = event->tag};
    memcpy(s->path, event->path, sizeof(s->path));
    return s;
}

static void on_event(void *arg, const struct sim_event *event)
{
    struct crashes *c = arg;
    struct crash_site *site = site_of(c, event);

    c->events++;
    site->events++;
    if (site->points >= SITE_POINTS && !rng_chance(&c->r, c->percent))
        return;
    site->points++;
    c->points++;
    if (c->image_count == c->image_cap) {
        c->image_cap = c->image_cap ? 2 * c->image_cap : 64;
        c->images = realloc(c->images, c->image_cap * sizeof(c->images[0]));
        AF_ASSERT(c->images);
    }
    c->images[c->image_count++] = (struct crash_image){
        .sim = sim_clone(c->w->fx.sim), .event = *event, .from = c->opening ? 0 : c->w->m.acked};
}

static void after_step(void *arg, struct world *w)
{
    (void)w;
    crashes_try(arg);
}

void crashes_watch(struct crashes *c)
{
    sim_set_event_hook(c->w->fx.sim, on_event, c);
    c->w->after_step = after_step;
    c->w->arg = c;
}

bool crashes_all_sites(const struct crashes *c)
{
    for (size_t i = 0; i < c->site_count; i++)
        if (c->sites[i].points == 0)
            return false;
    return c->site_count > 0;
}

void crashes_report(const struct crashes *c, FILE *to)
{
    fprintf(to,
            "%" PRIu64 " events, %" PRIu64 " crash points, %" PRIu64 " outcomes, %" PRIu64
            " distinct states, %" PRIu64 " crashes of recoveries (%" PRIu64
            " deep), %zu call sites\n",
            c->events, c->points, c->outcomes, c->states, c->again, c->deepest, c->site_count);
    for (unsigned call = SIM_CREATE; call < SIM_CALL_COUNT; call++) {
        uint64_t sites = 0, events = 0, points = 0;

        for (size_t i = 0; i < c->site_count; i++) {
            if (c->sites[i].call != (enum sim_call)call)
                continue;
            sites++;
            events += c->sites[i].events;
            points += c->sites[i].points;
        }
        if (sites > 0)
            fprintf(to,
                    "  %-12s %3" PRIu64 " sites %6" PRIu64 " events %6" PRIu64 " crash points\n",
                    sim_call_name((enum sim_call)call), sites, events, points);
    }
}

void crashes_reopen(struct crashes *c)
{
    c->opening = true;
    world_reopen(c->w);
    c->opening = false;
    crashes_try(c);
}

// ---- the work ----

static bool going(const struct crashes *c)
{
    return !world_over(c->w) && c->violations == 0;
}

void crashes_small_work(struct crashes *c, unsigned rounds)
{
    struct world *w = c->w;

    for (unsigned round = 0; round < rounds && going(c); round++) {
        for (unsigned i = 0; i < 15 && going(c); i++)
            world_step(w);
        if (round % 2 == 1 && going(c)) {
            world_checkpoint(w);
            crashes_try(c);
        }
        if (round % 4 == 3 && going(c)) {
            world_close(w);
            crashes_try(c);
            if (going(c))
                crashes_reopen(c);
        }
    }
}

void crashes_work(struct crashes *c, unsigned rounds)
{
    struct world *w = c->w;

    for (unsigned round = 0; round < rounds && going(c); round++) {
        for (unsigned i = 0; i < 60 && going(c); i++)
            world_step(w);
        if (round % 4 == 1 && going(c)) {
            world_scatter(w);
            crashes_try(c);
        }
        if (round % 2 == 1 && going(c)) {
            world_checkpoint(w);
            crashes_try(c);
        }
        if (round % 5 == 4 && going(c)) {
            world_close(w);
            crashes_try(c);
            if (going(c))
                crashes_reopen(c);
        }
    }
}
