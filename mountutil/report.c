// SPDX-License-Identifier: MIT
// Named values as text or JSON.
#include "mountutil/report.h"

#include <inttypes.h>
#include <stdarg.h>

void report_begin(struct report *r, FILE *out, bool json)
{
    *r = (struct report){.out = out, .json = json};
    if (json)
        fputc('{', out);
}

static void key_out(struct report *r, const char *key)
{
    if (r->json)
        fprintf(r->out, "%s\n  \"%s\": ", r->some ? "," : "", key);
    else
        fprintf(r->out, "%s: ", key);
    r->some = true;
}

static void value_end(struct report *r)
{
    if (!r->json)
        fputc('\n', r->out);
}

// Paths are bytes; those that are no printable ASCII go out as escapes. In JSON a byte above 127
// stands as it is, so that UTF-8 stays readable.
static void string_out(struct report *r, const char *s)
{
    for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
        if (r->json && (*p == '"' || *p == '\\'))
            fprintf(r->out, "\\%c", *p);
        else if (*p < 32 || *p == 127)
            fprintf(r->out, r->json ? "\\u%04x" : "\\x%02x", *p);
        else
            fputc(*p, r->out);
    }
}

void report_text(struct report *r, const char *key, const char *value)
{
    key_out(r, key);
    if (r->json)
        fputc('"', r->out);
    string_out(r, value);
    if (r->json)
        fputc('"', r->out);
    value_end(r);
}

void report_format(struct report *r, const char *key, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    report_text(r, key, text);
}

void report_number(struct report *r, const char *key, uint64_t value)
{
    key_out(r, key);
    fprintf(r->out, "%" PRIu64, value);
    value_end(r);
}

void report_bool(struct report *r, const char *key, bool value)
{
    key_out(r, key);
    if (r->json)
        fputs(value ? "true" : "false", r->out);
    else
        fputs(value ? "yes" : "no", r->out);
    value_end(r);
}

void report_end(struct report *r)
{
    if (r->json)
        fputs("\n}\n", r->out);
}

void report_uuid(const uint8_t uuid[16], char text[37])
{
    static const char digits[] = "0123456789abcdef";
    char *p = text;

    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        *p++ = digits[uuid[i] >> 4];
        *p++ = digits[uuid[i] & 15];
    }
    *p = 0;
}
