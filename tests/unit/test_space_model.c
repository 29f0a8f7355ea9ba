// SPDX-License-Identifier: MIT
// The space map against a model of every block: random allocations, records, frees, checkpoints,
// failed writes and crashes. The environment may give SEED and STEPS.
#include "tests/unit/test_space_rig.h"

#define MODEL_BLOCKS (3 * GROUP_BLOCKS + 777)
#define MODEL_RUNS   40000u
#define LOG_MAX      200000u

enum model_state { M_FREE, M_MAP, M_SPILLED, M_NODE, M_USED, M_WAITS, M_WAITS_FROZEN };

struct run {
    uint64_t address, count;
    uint8_t state; // M_SPILLED, M_NODE, M_USED
};

struct log_entry {
    uint64_t address, count;
    bool freed;
};

struct model {
    struct fix *x;
    uint64_t random;
    uint8_t state[MODEL_BLOCKS];
    uint8_t published[MODEL_BLOCKS], frozen[MODEL_BLOCKS]; // in use in the map
    struct run runs[MODEL_RUNS];
    size_t run_count;
    struct log_entry log[LOG_MAX]; // since the published cut; [0, cut) before that of the freeze
    size_t log_count, cut;
    uint64_t hint;
    unsigned step, refused, waited, crashed; // how often
};

static uint64_t rnd(struct model *m, uint64_t below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (m->random >> 11) % below;
}

static void model_set(struct model *m, uint64_t address, uint64_t count, uint8_t from, uint8_t to)
{
    for (uint64_t i = address; i < address + count; i++) {
        assert_true(i < MODEL_BLOCKS);
        assert_int_equal(m->state[i], from);
        m->state[i] = to;
    }
}

static void model_log(struct model *m, uint64_t address, uint64_t count, bool freed)
{
    assert_true(m->log_count < LOG_MAX);
    m->log[m->log_count++] = (struct log_entry){.address = address, .count = count, .freed = freed};
}

static void model_freeze(struct model *m)
{
    freeze(m->x);
    m->cut = m->log_count;
    for (size_t i = 0; i < m->run_count; i++) {
        struct run *r = &m->runs[i];
        if (r->state != M_NODE)
            continue;
        model_set(m, r->address, r->count, M_NODE, M_USED);
        r->state = M_USED;
        assert_int_equal(space_frozen_add(m->x->z, r->address, r->count), 0);
        if (rnd(m, 4) == 0) // written once more
            assert_int_equal(space_frozen_add(m->x->z, r->address, 1), 0);
    }
    for (uint64_t i = 0; i < MODEL_BLOCKS; i++) {
        m->frozen[i] = m->state[i] == M_USED || m->state[i] == M_MAP;
        if (m->state[i] == M_WAITS)
            m->state[i] = M_WAITS_FROZEN;
    }
}

static void check_image(struct model *m, const struct space_image *image)
{
    uint64_t used = 0;
    for (uint64_t g = 0; g < groups_of(image->data_blocks); g++) {
        struct space_ref refs[GROUPS_PER_INDEX];
        uint64_t words[GROUP_WORDS];
        (void)space_decode_index(
            disk_block(&m->x->disk, space_index_address(0, image->refs[0].slot)), refs);
        unsigned blocks = group_blocks(image->data_blocks, g);
        assert_int_equal(space_read_bitmap(m->x->sp, g, &refs[g], blocks, words), 0);
        if (refs[g].slot == SLOT_NEVER)
            assert_int_equal(refs[g].free, blocks - space_group_reserved(g));
        for (unsigned bit = 0; bit < GROUP_BLOCKS; bit++) {
            uint64_t address = g * GROUP_BLOCKS + bit;
            bool expected =
                bit < space_group_reserved(g) || (address < MODEL_BLOCKS && m->frozen[address]);
            assert_int_equal(bits_all(words, bit, 1, true), expected);
            used += expected;
        }
    }
    assert_int_equal(used, image->used_blocks);
}

static void model_publish(struct model *m)
{
    struct fix *x = m->x;
    struct space_image image;
    if (rnd(m, 4) == 0) { // a write fails; the same again
        x->disk.fail_write = 1 + (int)rnd(m, 3);
        int r = write_frozen(x, &image);
        x->disk.fail_write = 0;
        assert_true(r == 0 || r == -EIO);
        if (r == 0)
            free(image.refs);
    }
    assert_int_equal(write_frozen(x, &image), 0);
    check_image(m, &image);
    adopt(x, &image);
    memcpy(m->published, m->frozen, sizeof(m->published));
    for (uint64_t i = 0; i < MODEL_BLOCKS; i++)
        if (m->state[i] == M_WAITS_FROZEN)
            m->state[i] = M_FREE;
    m->log_count -= m->cut;
    memmove(m->log, m->log + m->cut, m->log_count * sizeof(*m->log));
}

// What is waited for when space is short.
static void model_make_room(struct model *m)
{
    if (m->x->z == NULL)
        model_freeze(m);
    model_publish(m);
}

static void model_alloc(struct model *m)
{
    uint64_t want = rnd(m, 2) ? 1 : 1 + rnd(m, 300);
    uint64_t hint = rnd(m, 3) == 0 ? 0 : m->hint;
    if (m->run_count + want > MODEL_RUNS)
        return;
    int r = prepare(m->x, want, 0, rnd(m, 8) == 0);
    if (r == WAITS) {
        m->waited++;
        model_make_room(m);
        return;
    }
    if (r == -ENOSPC) {
        m->refused++;
        return;
    }
    assert_int_equal(r, 0);
    uint8_t state = rnd(m, 2) ? M_NODE : M_SPILLED;
    for (uint64_t done = 0; done < want;) {
        uint64_t count = 0;
        uint64_t address = space_alloc(m->x->sp, want - done, hint, &count);
        assert_true(count > 0 && count <= want - done);
        assert_true(address + count <= stats(m->x).capacity);
        for (uint64_t i = address; i < address + count; i++)
            assert_true(group_bit(i) >= space_group_reserved(i / GROUP_BLOCKS));
        model_set(m, address, count, M_FREE, state);
        m->runs[m->run_count++] = (struct run){.address = address, .count = count, .state = state};
        done += count;
        m->hint = hint = address + count;
    }
}

// Takes a random part of a random run out of the list.
static bool model_pick(struct model *m, struct run *ret)
{
    if (m->run_count == 0)
        return false;
    struct run *r = &m->runs[rnd(m, m->run_count)];
    *ret = *r;
    ret->count = 1 + rnd(m, r->count);
    if (ret->count < r->count && rnd(m, 2)) {
        r->address += ret->count;
        r->count -= ret->count;
    } else if (ret->count < r->count) {
        ret->address = r->address + r->count - ret->count;
        r->count -= ret->count;
    } else {
        *r = m->runs[--m->run_count];
    }
    return true;
}

static void model_change(struct model *m)
{
    struct run r;
    if (!model_pick(m, &r))
        return;
    if (r.state == M_SPILLED && rnd(m, 4) != 0) {
        space_log_alloc(m->x->sp, r.address, r.count);
        model_set(m, r.address, r.count, M_SPILLED, M_USED);
        model_log(m, r.address, r.count, false);
        r.state = M_USED;
        m->runs[m->run_count++] = r;
    } else if (r.state == M_USED) {
        space_free(m->x->sp, r.address, r.count);
        model_set(m, r.address, r.count, M_USED, M_WAITS);
        model_log(m, r.address, r.count, true);
    } else {
        space_release(m->x->sp, r.address, r.count);
        model_set(m, r.address, r.count, r.state, M_FREE);
    }
}

static void model_check_stats(struct model *m)
{
    struct space_stats s = stats(m->x);
    uint64_t used = 0, waiting = 0;
    for (uint64_t i = 0; i < s.capacity; i++) {
        used += m->state[i] != M_FREE;
        waiting += m->state[i] == M_WAITS || m->state[i] == M_WAITS_FROZEN;
    }
    assert_int_equal(s.used, used);
    assert_int_equal(s.waiting, waiting);
}

// The process dies: what is not in the published map or the log is forgotten.
static void model_crash(struct model *m)
{
    struct fix *x = m->x;
    m->crashed++;
    reopen(x);
    x->sp->loaded_max = 2;
    space_set_recovery(x->sp, true);
    m->run_count = 0;
    for (uint64_t i = 0; i < MODEL_BLOCKS; i++)
        if (m->state[i] != M_MAP)
            m->state[i] = m->published[i] ? M_USED : M_FREE;
    for (size_t i = 0; i < m->log_count; i++)
        if (!m->log[i].freed)
            assert_int_equal(claim(x, m->log[i].address, m->log[i].count), 0);
    for (size_t i = 0; i < m->log_count; i++) {
        const struct log_entry *e = &m->log[i];
        if (e->freed) {
            // Nodes that were born after the cut and freed are in no map and no record.
            if (m->state[e->address] != M_USED)
                continue;
            space_free(x->sp, e->address, e->count);
            model_set(m, e->address, e->count, M_USED, M_WAITS);
        } else {
            space_log_alloc(x->sp, e->address, e->count);
            model_set(m, e->address, e->count, M_FREE, M_USED);
        }
    }
    space_set_recovery(x->sp, false);
    for (uint64_t i = 0; i < MODEL_BLOCKS; i++) {
        struct run *last = m->run_count > 0 ? &m->runs[m->run_count - 1] : NULL;
        if (m->state[i] != M_USED)
            continue;
        if (last != NULL && last->address + last->count == i && i % 64 != 0)
            last->count++;
        else
            m->runs[m->run_count++] = (struct run){.address = i, .count = 1, .state = M_USED};
        assert_true(m->run_count < MODEL_RUNS);
    }
}

static void model_step(struct model *m)
{
    bool filling = m->step++ / 3000 % 2 == 0; // until there is no more space, then mostly empty
    switch (rnd(m, 200)) {
    case 0:
        if (m->x->z == NULL)
            model_freeze(m);
        break;
    case 1:
        if (m->x->z != NULL)
            model_publish(m);
        break;
    case 2:
        model_check_stats(m);
        break;
    case 3:
        if (rnd(m, 4) == 0)
            model_crash(m);
        break;
    default:
        if (rnd(m, 10) < (filling ? 7u : 3u))
            model_alloc(m);
        else
            model_change(m);
    }
}

static uint64_t test_seed(void)
{
    const char *text = getenv("SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;
    print_message("SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static void test_space_agrees_with_a_model_of_every_block(void **state)
{
    (void)state;
    struct model *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    m->x = fix_new(MODEL_BLOCKS);
    m->x->sp->loaded_max = 2;
    m->random = test_seed() * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (uint64_t g = 0; g <= MODEL_BLOCKS / GROUP_BLOCKS; g++)
        memset(m->state + g * GROUP_BLOCKS, M_MAP, space_group_reserved(g));
    const char *steps = getenv("STEPS");
    for (uint64_t i = steps != NULL ? strtoull(steps, NULL, 0) : 30000; i > 0; i--)
        model_step(m);
    model_make_room(m);
    model_make_room(m);
    model_check_stats(m);
    assert_true(steps != NULL || (m->refused > 0 && m->waited > 0 && m->crashed > 0));
    print_message("%u refused, %u waited, %u crashes, %u writes\n", m->refused, m->waited,
                  m->crashed, m->x->disk.writes);
    fix_free(m->x);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_space_agrees_with_a_model_of_every_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
