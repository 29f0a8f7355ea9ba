// SPDX-License-Identifier: MIT
// Verification walks the tree: depth first, with a stack of one node for each level, so that the
// items of the leaves come in key order. Every node is checked against the reference in its parent
// (who it is, its checksum, its generation), and its keys against the range that the parent gives
// it.

#include <inttypes.h>
#include <stdlib.h>

#include "base/err.h"
#include "checkpoint/verify_internal.h"

struct level {
    uint8_t bytes[BLOCK_BYTES];
    struct blkref ref;
    unsigned index;  // of the child that is next
    struct key low;  // no key is below
    struct key high; // all keys are below; when has_high
    bool has_high;
};

struct walk {
    struct verify *v;
    struct level *stack; // [NODE_LEVEL_MAX + 1], by level
    unsigned root_level;
};

static void node_damage(struct verify *v, const struct blkref *ref, int code, const char *what)
{
    struct verify_finding f = {.code = code, .file = "data", .address = ref->address};

    // What hangs below an unreadable node is not seen, so what is missed later may only be there.
    v->result->complete = false;
    verify_found(v, &f,
                 "tree node at block %" PRIu64 " (generation %" PRIu64 ", checksum %016" PRIx64
                 "): %s: %s (%s)",
                 ref->address, ref->generation, ref->checksum, what, err_text(code),
                 err_name(code));
}

static bool read_node(struct verify *v, const struct blkref *ref, unsigned level, uint8_t *bytes)
{
    if (!verify_mark(v, 0, ref->address, 1)) {
        v->result->complete = false;
        return false;
    }
    int err = io_pread(v->data, bytes, BLOCK_BYTES, ref->address * BLOCK_BYTES);
    if (err == 0)
        err = node_validate(bytes, ref, level, v->sb->image.uuid);
    verify_progress(v, 1);
    if (err < 0) {
        node_damage(v, ref, err, "cannot be used");
        return false;
    }
    v->result->nodes++;
    return true;
}

// The keys of a node lie in its range. The first slot of an inner node bounds nothing.
static bool keys_fit(struct verify *v, const struct level *l, unsigned level)
{
    unsigned first = level > 0 ? 1 : 0, count = node_count(l->bytes);

    for (unsigned i = first; i < count; i++) {
        struct key key = node_key(l->bytes, i);

        if (key_compare(&key, &l->low) < 0 || (l->has_high && key_compare(&key, &l->high) >= 0)) {
            node_damage(v, &l->ref, -AF_E_NODE_ORDER,
                        "a key lies outside the range that the parent gives");
            return false;
        }
    }
    return true;
}

// Enters the node of `level` whose range is set; true when it can be used.
static bool enter(struct walk *w, unsigned level, const struct blkref *ref)
{
    struct level *l = &w->stack[level];

    l->ref = *ref;
    l->index = 0;
    if (!read_node(w->v, ref, level, l->bytes))
        return false;
    if (node_count(l->bytes) == 0) {
        node_damage(w->v, ref, -AF_E_NODE_LAYOUT, "a node without items");
        return false;
    }
    return keys_fit(w->v, l, level);
}

static void visit_leaf(struct verify *v, const struct level *l)
{
    unsigned count = node_count(l->bytes);

    v->node_address = l->ref.address;
    for (unsigned i = 0; i < count && v->fatal == 0; i++) {
        size_t len;
        const void *value = node_value(l->bytes, i, &len);

        verify_item(v, node_key(l->bytes, i), value, len);
    }
}

// The next child of the node at `level`: sets its range one level down. False when there is none
// left.
static bool next_child(struct walk *w, unsigned level, struct blkref *ret_ref)
{
    struct level *l = &w->stack[level], *child = &w->stack[level - 1];
    unsigned i = l->index, count = node_count(l->bytes);

    if (i == count)
        return false;
    l->index++;
    *ret_ref = node_child(l->bytes, i);
    child->low = i == 0 ? l->low : node_key(l->bytes, i);
    child->has_high = i + 1 < count || l->has_high;
    if (child->has_high)
        child->high = i + 1 < count ? node_key(l->bytes, i + 1) : l->high;
    return true;
}

static void walk_tree(struct walk *w, const struct tree_root *root)
{
    unsigned level = root->level;
    struct blkref ref;

    w->stack[level].low = key_make(0, 0, 0);
    w->stack[level].has_high = false;
    if (root->ref.generation > w->v->sb->image.generation) {
        node_damage(w->v, &root->ref, -AF_E_BLOCK_GENERATION,
                    "the root is younger than its checkpoint");
        return;
    }
    if (!enter(w, level, &root->ref))
        return;
    while (w->v->fatal == 0) {
        if (level == 0) {
            visit_leaf(w->v, &w->stack[0]);
        } else if (next_child(w, level, &ref)) {
            if (enter(w, level - 1, &ref))
                level--;
            continue;
        }
        if (level == root->level)
            return;
        level++;
    }
}

void verify_tree(struct verify *v)
{
    struct walk w = {.v = v, .stack = malloc((NODE_LEVEL_MAX + 1) * sizeof(struct level))};

    if (!w.stack) {
        v->fatal = -ENOMEM;
        return;
    }
    v->result->complete = true;
    walk_tree(&w, &v->sb->image.root);
    verify_items_end(v);
    free(w.stack);
}
