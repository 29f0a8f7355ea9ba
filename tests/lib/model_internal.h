// SPDX-License-Identifier: MIT
// What model.c (layers, history) and model_calls.c (what each call does) share.
#ifndef AF_TESTS_MODEL_INTERNAL_H
#define AF_TESTS_MODEL_INTERNAL_H

#include "tests/lib/model.h"

struct model_inode *model_inode_new(struct model *m, uint64_t ino, const struct store_attr *attr);
// Frees what neither a name nor a handle refers to.
void model_inode_drop(struct model *m, struct model_inode *in);
struct model_name *model_name_find(struct model_inode *dir, const char *name);
void model_name_add(struct model_inode *dir, const char *name, struct model_inode *in);
void model_name_remove(struct model *m, struct model_inode *dir, const char *name);
struct model_xattr *model_xattr_find(struct model_inode *in, const char *name);
void model_xattr_put(struct model_inode *in, const char *name, const void *value, size_t len);
void model_xattr_drop(struct model_inode *in, struct model_xattr *x);

// History: the lines of what changed, then the state.
void model_note_inode(struct model *m,
                      struct model_inode *in); // its line now; none when it is not in history
void model_note_name(struct model *m, struct model_inode *dir, struct model_name *n, bool present);
void model_push(struct model *m); // a new state, if a line has changed

// The directory's times become those that readers have seen since a new file came.
void model_names_seen(struct model_inode *dir);

#endif
