// SPDX-License-Identifier: MIT
// A flat list of named values, printed as lines of "key: value" or as one JSON object with the same
// keys.
#ifndef AF_MOUNTUTIL_REPORT_H
#define AF_MOUNTUTIL_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/attr.h"

struct report {
    FILE *out; // borrowed
    bool json;
    bool some; // a value has been printed
};

void report_begin(struct report *r, FILE *out, bool json);
void report_text(struct report *r, const char *key, const char *value);
void report_format(struct report *r, const char *key, const char *fmt, ...) AF_PRINTF(3, 4);
void report_number(struct report *r, const char *key, uint64_t value);
void report_bool(struct report *r, const char *key, bool value); // "yes" and "no" in text
void report_end(struct report *r);

// 8-4-4-4-12 hexadecimal digits.
void report_uuid(const uint8_t uuid[16], char text[37]);

#endif
