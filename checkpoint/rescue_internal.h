// SPDX-License-Identifier: MIT
// What rescue.c and rescue_log.c share.
#ifndef AF_CHECKPOINT_RESCUE_INTERNAL_H
#define AF_CHECKPOINT_RESCUE_INTERNAL_H

#include "checkpoint/rescue.h"

void rescue_note(struct rescue *r, const char *fmt, ...) AF_PRINTF(2, 3);
// ---- rescue_log.c ----

// The uuid that the segments of the log carry; false: none can be read.
bool rescue_log_identity(struct rescue *r, uint8_t uuid[16]);
// Sets r->highest_block.
void rescue_log_blocks(struct rescue *r);
// Replays what can be replayed on the base, and counts what cannot.
int rescue_replay(struct rescue *r) AF_NODISCARD;

#endif
