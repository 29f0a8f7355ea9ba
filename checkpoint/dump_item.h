// SPDX-License-Identifier: MIT
// One tree item as a line of text. Pure; says what is wrong with an item that cannot be what its
// key says.
#ifndef AF_CHECKPOINT_DUMP_ITEM_H
#define AF_CHECKPOINT_DUMP_ITEM_H

#include <stddef.h>

#include "store/key.h"

struct buf;

void dump_item(struct key key, const void *value, size_t len, struct buf *out);

#endif
