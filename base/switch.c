// SPDX-License-Identifier: MIT
// The table of switches (switch.h).
#include "base/switch.h"

#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/check.h"

static const struct {
    const char *name, *help;
} switches[] = {
#define X(id, name, help) {name, help},
    SWITCHES(X)
#undef X
};

_Static_assert(AF_ARRAY_LEN(switches) == SWITCH_COUNT, "one entry for each switch");
_Static_assert(SWITCH_COUNT <= 32, "one bit for each switch");

bool switch_on(struct switches s, enum switch_id id)
{
    AF_ASSERT(id < SWITCH_COUNT);
    return !(s.off >> id & 1);
}

void switch_set(struct switches *s, enum switch_id id, bool on)
{
    AF_ASSERT(id < SWITCH_COUNT);
    if (on)
        s->off &= ~(UINT32_C(1) << id);
    else
        s->off |= UINT32_C(1) << id;
}

struct switches switches_baseline(void)
{
    struct switches s = {0};

    for (unsigned id = 0; id < SWITCH_COUNT; id++)
        switch_set(&s, (enum switch_id)id, false);
    return s;
}

const char *switch_name(enum switch_id id)
{
    AF_ASSERT(id < SWITCH_COUNT);
    return switches[id].name;
}

const char *switch_help(enum switch_id id)
{
    AF_ASSERT(id < SWITCH_COUNT);
    return switches[id].help;
}

bool switch_find(const char *name, enum switch_id *ret_id)
{
    for (unsigned id = 0; id < SWITCH_COUNT; id++) {
        if (strcmp(switches[id].name, name) == 0) {
            *ret_id = (enum switch_id)id;
            return true;
        }
    }
    return false;
}

void switches_off_text(struct switches s, char text[SWITCHES_TEXT_BYTES])
{
    size_t len = 0;

    (void)snprintf(text, SWITCHES_TEXT_BYTES, "none");
    for (unsigned id = 0; id < SWITCH_COUNT; id++) {
        if (switch_on(s, (enum switch_id)id))
            continue;
        int n = snprintf(text + len, SWITCHES_TEXT_BYTES - len, "%s%s", len ? "," : "",
                         switches[id].name);
        AF_ASSERT(n > 0 && (size_t)n < SWITCHES_TEXT_BYTES - len);
        len += (size_t)n;
    }
}
