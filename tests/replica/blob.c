// SPDX-License-Identifier: MIT
// Files of a store as one string of bytes.
#include "tests/replica/blob.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/le.h"

#define BLOCK     4096u
#define MAGIC     UINT64_C(0x424F4C4252464101)
#define HEAD      16u
#define FILE_HEAD 48u
#define ENTRY     (8u + BLOCK)

static uint8_t *extend(uint8_t **bytes, size_t *len, size_t more)
{
    *bytes = realloc(*bytes, *len + more);
    AF_ASSERT(*bytes);
    *len += more;
    memset(*bytes + *len - more, 0, more);
    return *bytes + *len - more;
}

static void put64(uint8_t *at, uint64_t value)
{
    le64 v = le64_put(value);

    memcpy(at, &v, sizeof(v));
}

static uint64_t get64(const uint8_t *at)
{
    le64 v;

    memcpy(&v, at, sizeof(v));
    return le64_get(v);
}

// The block of a file, with zeros behind its end. False: there is no such file.
static bool read_block(const struct sim *sim, const char *name, uint64_t block, uint8_t *to)
{
    uint64_t size;

    memset(to, 0, BLOCK);
    if (!sim || sim_file_size(sim, name, &size) < 0)
        return false;
    if (block * BLOCK < size)
        AF_ASSERT(sim_read_raw(sim, name, block * BLOCK, to,
                               (size_t)AF_MIN(size - block * BLOCK, (uint64_t)BLOCK)) == 0);
    return true;
}

static uint64_t put_blocks(const struct sim *sim, const struct sim *older, const char *name,
                           uint64_t length, uint8_t **bytes, size_t *len)
{
    uint8_t now[BLOCK], before[BLOCK];
    uint64_t count = 0;

    for (uint64_t block = 0; block * BLOCK < length; block++) {
        (void)read_block(sim, name, block, now);
        (void)read_block(older, name, block, before); // zeros where there is none
        if (memcmp(now, before, BLOCK) == 0)
            continue;
        uint8_t *at = extend(bytes, len, ENTRY);

        put64(at, block);
        memcpy(at + 8, now, BLOCK);
        count++;
    }
    return count;
}

void blob_make(const struct sim *sim, const struct sim *older, const char *const *names,
               size_t count, uint8_t **bytes, size_t *len)
{
    const size_t start = *len;

    AF_ASSERT(count <= BLOB_FILES_MAX);
    (void)extend(bytes, len, HEAD + count * FILE_HEAD);
    put64(*bytes + start, MAGIC);
    put64(*bytes + start + 8, count);
    for (size_t i = 0; i < count; i++) {
        uint64_t length = 0;

        AF_ASSERT(sim_file_size(sim, names[i], &length) == 0);
        // A superblock file is small, and that of a replica has not the same slots.
        bool whole = strcmp(names[i], "superblock") == 0;
        uint64_t blocks = put_blocks(sim, whole ? NULL : older, names[i], length, bytes, len);
        uint8_t *head = *bytes + start + HEAD + i * FILE_HEAD;

        memcpy(head, names[i], strlen(names[i]));
        put64(head + 32, length);
        put64(head + 40, blocks);
    }
}

bool blob_parse(const uint8_t *bytes, size_t len, struct blob *ret)
{
    size_t at;

    *ret = (struct blob){0};
    if (len < HEAD || get64(bytes) != MAGIC || get64(bytes + 8) > BLOB_FILES_MAX)
        return false;
    ret->count = (size_t)get64(bytes + 8);
    at = HEAD + ret->count * FILE_HEAD;
    if (len < at)
        return false;
    for (size_t i = 0; i < ret->count; i++) {
        const uint8_t *head = bytes + HEAD + i * FILE_HEAD;
        struct blob_file *file = &ret->files[i];

        memcpy(file->name, head, sizeof(file->name) - 1);
        file->length = get64(head + 32);
        file->count = get64(head + 40);
        if (file->count > (len - at) / ENTRY || file->length > UINT64_C(1) << 40)
            return false;
        file->blocks = bytes + at;
        at += (size_t)file->count * ENTRY;
        for (uint64_t b = 0; b < file->count; b++)
            if (get64(file->blocks + b * ENTRY) > file->length / BLOCK)
                return false;
    }
    return at == len;
}

struct blob_file *blob_find(struct blob *blob, const char *name)
{
    for (size_t i = 0; i < blob->count; i++)
        if (strcmp(blob->files[i].name, name) == 0)
            return &blob->files[i];
    return NULL;
}

// What stands there already is not written again: a write that is cut may leave garbage, and a
// record may need the block.
static bool is_there(struct io_file *f, const uint8_t *bytes, size_t len, uint64_t off,
                     uint64_t size)
{
    uint8_t now[BLOCK];

    return off + len <= size && io_pread(f, now, len, off) == 0 && memcmp(now, bytes, len) == 0;
}

int blob_write(struct io *io, const struct blob_file *file, const char *as)
{
    struct io_file *f;
    uint64_t size = 0;
    int r = io_file_open(io, as, IO_WRITE | IO_CREATE, &f);

    if (r < 0)
        return r;
    r = io_size(f, &size);
    if (r == 0 && size < file->length)
        r = io->ops->truncate(f, file->length);
    for (uint64_t i = 0; r == 0 && i < file->count; i++) {
        const uint8_t *entry = file->blocks + i * ENTRY;
        uint64_t off = get64(entry) * BLOCK;

        if (off >= file->length)
            continue;
        size_t len = (size_t)AF_MIN(file->length - off, (uint64_t)BLOCK);
        if (!is_there(f, entry + 8, len, off, size))
            r = io_pwrite(f, entry + 8, len, off);
    }
    if (r == 0)
        r = io_sync(f);
    io_file_close(f);
    return r;
}
