// SPDX-License-Identifier: MIT
// Comparing two trees (diff.h): two cursors, each at a subtree not yet entered or at an item of a
// leaf. Where both are at the same subtree both step over it; otherwise the higher one is entered,
// so that they meet at what they share.
#include "store/diff.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/err.h"
#include "base/io.h"
#include "store/node.h"
#include "store/blkref.h"
#include "store/store_internal.h"

struct level {
    uint8_t bytes[BLOCK_BYTES];
    unsigned index; // of the child or item that the cursor is at
};

struct cursor {
    struct level *stack; // by level
    unsigned top;
    unsigned at;      // level of the node whose index counts
    bool before_root; // the root has not been entered
    bool end;
    struct tree_root root;
};

// The subtree or item that the cursor is at has been dealt with.
static void step_over(struct cursor *c)
{
    if (c->before_root) {
        c->end = true;
        return;
    }
    c->stack[c->at].index++;
    while (c->stack[c->at].index == node_count(c->stack[c->at].bytes)) {
        if (c->at == c->top) {
            c->end = true;
            return;
        }
        c->at++;
        c->stack[c->at].index++;
    }
}

static bool at_item(const struct cursor *c)
{
    return !c->before_root && c->at == 0;
}

// Where the cursor is at a subtree: its reference; *ret_level is that of its root.
static struct blkref subtree(const struct cursor *c, unsigned *ret_level)
{
    if (c->before_root) {
        *ret_level = c->root.level;
        return c->root.ref;
    }
    *ret_level = c->at - 1;
    return node_child(c->stack[c->at].bytes, c->stack[c->at].index);
}

static int enter(struct store *s, struct cursor *c)
{
    unsigned level;
    struct blkref ref = subtree(c, &level);
    uint8_t *bytes = c->stack[level].bytes;
    int err = io_pread(s->config.data, bytes, BLOCK_BYTES, ref.address * BLOCK_BYTES);

    if (err == 0)
        err = node_validate(bytes, &ref, level, s->tree.uuid);
    if (err == 0 && node_count(bytes) == 0)
        err = -AF_E_NODE_LAYOUT;
    if (err < 0)
        return err;
    c->before_root = false;
    c->at = level;
    c->stack[level].index = 0;
    return 0;
}

// Brings both cursors to an item or their end; steps over what they share.
static int meet(struct store *s, struct cursor *a, struct cursor *b)
{
    int err = 0;

    while (err == 0) {
        bool enter_a = !a->end && !at_item(a), enter_b = !b->end && !at_item(b);
        unsigned level_a = 0, level_b = 0;

        if (!enter_a && !enter_b)
            return 0;
        struct blkref ref_a = enter_a ? subtree(a, &level_a) : (struct blkref){0};
        struct blkref ref_b = enter_b ? subtree(b, &level_b) : (struct blkref){0};

        if (enter_a && enter_b && level_a == level_b && blkref_same(&ref_a, &ref_b)) {
            step_over(a);
            step_over(b);
            continue;
        }
        if (enter_a && (!enter_b || level_a >= level_b))
            err = enter(s, a);
        if (err == 0 && enter_b && (!enter_a || level_b >= level_a))
            err = enter(s, b);
    }
    return err;
}

// The items at the cursors: tells of a difference, steps on.
static int compare(struct cursor *a, struct cursor *b, diff_fn each, void *arg)
{
    const struct level *la = &a->stack[0], *lb = &b->stack[0];
    struct key key_a, key_b;
    const void *value_a = NULL, *value_b = NULL;
    size_t len_a = 0, len_b = 0;
    int order = a->end ? 1 : b->end ? -1 : 0, result = 0;

    if (!a->end)
        key_a = node_key(la->bytes, la->index);
    if (!b->end)
        key_b = node_key(lb->bytes, lb->index);
    if (order == 0)
        order = key_compare(&key_a, &key_b);
    if (order <= 0)
        value_a = node_value(la->bytes, la->index, &len_a);
    if (order >= 0)
        value_b = node_value(lb->bytes, lb->index, &len_b);
    if (order != 0 || len_a != len_b || memcmp(value_a, value_b, len_a) != 0)
        result = each(arg, order <= 0 ? key_a : key_b, value_a, len_a, value_b, len_b);
    if (order <= 0)
        step_over(a);
    if (order >= 0)
        step_over(b);
    return result;
}

int diff_trees(struct store *s, const struct tree_root *a, const struct tree_root *b, diff_fn each,
               void *arg)
{
    struct cursor ca = {.root = *a, .top = a->level, .before_root = true};
    struct cursor cb = {.root = *b, .top = b->level, .before_root = true};
    int r = 0;

    ca.stack = malloc((a->level + 1) * sizeof(ca.stack[0]));
    cb.stack = malloc((b->level + 1) * sizeof(cb.stack[0]));
    if (!ca.stack || !cb.stack)
        r = -ENOMEM;
    while (r == 0) {
        r = meet(s, &ca, &cb);
        if (r != 0 || (ca.end && cb.end))
            break;
        r = compare(&ca, &cb, each, arg);
    }
    free(ca.stack);
    free(cb.stack);
    return r;
}
