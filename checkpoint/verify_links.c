// SPDX-License-Identifier: MIT
// Verification of what refers to other numbers, after the tree has been walked: names to inodes,
// inodes to contents, the orphan list to both, directories to their parents. Only for a tree of
// which every node was read: otherwise the other half of a reference may hang below the one that
// was not.

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "checkpoint/verify_internal.h"

enum { UNSEEN, ON_PATH, REACHES_ROOT };

static void link_damage(struct verify *v, uint64_t ino, const char *what, uint64_t expected,
                        uint64_t found)
{
    struct verify_finding f = {.code = -AF_E_ITEM, .file = "data", .ino = ino};

    verify_found(v, &f, "number %" PRIu64 ": %s: %" PRIu64 " expected, %" PRIu64 " found", ino,
                 what, expected, found);
}

static void lone_damage(struct verify *v, uint64_t ino, const char *what)
{
    struct verify_finding f = {.code = -AF_E_ITEM, .file = "data", .ino = ino};

    verify_found(v, &f, "number %" PRIu64 ": %s", ino, what);
}

// ---- searching ----

// All notes begin with the number that they are sorted by.
static int compare_first(const void *a, const void *b)
{
    uint64_t x, y;

    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return x < y ? -1 : x > y;
}

static void *find(const struct pile *p, uint64_t number)
{
    if (p->count == 0)
        return NULL;
    return bsearch(&number, p->list, p->count, p->element_bytes, compare_first);
}

static void sort(struct pile *p)
{
    if (p->count > 1)
        qsort(p->list, p->count, p->element_bytes, compare_first);
}

// ---- contents ----

static void own(struct verify *v, struct content_note *content, uint64_t ino)
{
    if (content->owned)
        lone_damage(v, ino, "its content belongs to another inode or orphan as well");
    content->owned = true;
}

static void check_claims(struct verify *v)
{
    const struct claim_note *claims = v->claims.list;

    sort(&v->claims);
    for (size_t i = 0; i < v->claims.count; i++) {
        const struct claim_note *claim = &claims[i];
        struct content_note none = {.id = claim->id};
        struct content_note *content = find(&v->contents, claim->id);

        if (find(&v->inodes, claim->id))
            lone_damage(v, claim->ino, "its content has the number of another inode");
        if (i > 0 && claims[i - 1].id == claim->id)
            lone_damage(v, claim->ino, "its content id is that of another inode too");
        else if (content)
            own(v, content, claim->ino);
        verify_content(v, claim, content ? content : &none);
    }
}

static void check_orphan(struct verify *v, struct orphan_note *orphan)
{
    const uint64_t id = orphan->what_id & INO_MAX;

    if (orphan->what_id >> 48 == ORPHAN_INODE) {
        const struct inode_note *inode = find(&v->inodes, id);

        if (!inode)
            lone_damage(v, id, "is on the orphan list and does not exist");
        else if (inode->nlink != 0)
            lone_damage(v, id, "is on the orphan list and has links");
        return;
    }
    struct content_note *content = find(&v->contents, id);
    uint64_t blocks = content ? content->blocks : 0;

    if (content)
        own(v, content, id);
    if (blocks != orphan->blocks)
        link_damage(v, id, "blocks of a content on the orphan list", orphan->blocks, blocks);
}

static void check_contents(struct verify *v)
{
    struct orphan_note *orphans = v->orphans.list;
    const struct content_note *contents = v->contents.list;

    check_claims(v);
    for (size_t i = 0; i < v->orphans.count; i++)
        check_orphan(v, &orphans[i]);
    for (size_t i = 0; i < v->contents.count; i++)
        if (!contents[i].owned)
            lone_damage(v, contents[i].id, "a content that no inode and no orphan owns");
}

// ---- names ----

static uint64_t target_of(const struct name_note *n)
{
    return n->target_type >> 8;
}

static void check_inode_names(struct verify *v, const struct inode_note *inode,
                              const struct name_note *names, size_t count)
{
    const bool dir = inode->type == DT_DIR;
    uint64_t links = dir ? (inode->ino == INO_ROOT ? 0 : 1) : inode->nlink;

    for (size_t i = 0; i < count; i++) {
        if ((names[i].target_type & 0xff) != inode->type)
            link_damage(v, inode->ino, "type in a directory entry", inode->type,
                        names[i].target_type & 0xff);
        if (dir && names[i].dir != inode->parent)
            link_damage(v, inode->ino, "the directory that names it", inode->parent, names[i].dir);
    }
    if (count != links)
        link_damage(v, inode->ino, "names", links, count);
    if (inode->nlink == 0 && !find(&v->orphans, ORPHAN_OFF(ORPHAN_INODE, inode->ino)))
        lone_damage(v, inode->ino, "has no links and is not on the orphan list");
}

// Both piles are sorted by inode number; each name meets its inode.
static void check_names(struct verify *v)
{
    const struct inode_note *inodes = v->inodes.list;
    const struct name_note *names = v->names.list;
    size_t at = 0;

    sort(&v->names);
    for (size_t i = 0; i < v->inodes.count; i++) {
        while (at < v->names.count && target_of(&names[at]) < inodes[i].ino) {
            link_damage(v, names[at].dir, "an entry names an inode that does not exist", 0,
                        target_of(&names[at]));
            at++;
        }
        size_t first = at;

        while (at < v->names.count && target_of(&names[at]) == inodes[i].ino)
            at++;
        check_inode_names(v, &inodes[i], names + first, at - first);
    }
    for (; at < v->names.count; at++)
        link_damage(v, names[at].dir, "an entry names an inode that does not exist", 0,
                    target_of(&names[at]));
}

// ---- directories hang together ----

// Follows the parents up to the root or to one known to reach it, then marks the way.
static void check_path(struct verify *v, struct inode_note *from)
{
    struct inode_note *at = from;
    const char *wrong = NULL;

    while (!wrong && at->mark == UNSEEN) {
        at->mark = ON_PATH;
        if (at->ino == INO_ROOT)
            break;
        struct inode_note *parent = find(&v->inodes, at->parent);

        if (!parent || parent->type != DT_DIR)
            wrong = "its parent is no directory";
        else if (parent->mark == ON_PATH)
            wrong = "lies in a circle of directories";
        else
            at = parent;
    }
    if (wrong)
        lone_damage(v, at->ino, wrong);
    // What hangs below a wrong one is not reported again.
    for (at = from; at && at->mark == ON_PATH; at = find(&v->inodes, at->parent))
        at->mark = REACHES_ROOT;
}

static void check_directories(struct verify *v)
{
    struct inode_note *inodes = v->inodes.list;

    for (size_t i = 0; i < v->inodes.count; i++)
        if (inodes[i].type == DT_DIR && inodes[i].mark == UNSEEN)
            check_path(v, &inodes[i]);
    const struct inode_note *root = find(&v->inodes, INO_ROOT);

    if (!root || root->type != DT_DIR)
        lone_damage(v, INO_ROOT, "there is no root directory");
}

void verify_links(struct verify *v)
{
    const struct store_image *image = &v->sb->image;

    if (!v->result->complete) {
        verify_found(
            v, &(struct verify_finding){.severity = VERIFY_NOTE, .file = "data"},
            "names, links and contents were not compared, since a part of the tree cannot be read");
        return;
    }
    check_contents(v);
    check_names(v);
    check_directories(v);
    if (v->result->inodes != image->inodes)
        link_damage(v, 0, "inodes in the superblock", v->result->inodes, image->inodes);
    if (v->highest_id >= image->next_ino)
        link_damage(v, v->highest_id, "the superblock's next inode number, at least",
                    v->highest_id + 1, image->next_ino);
}
