// SPDX-License-Identifier: MIT
// What the tests of the space map share: a sparse file in memory, and a map on it with the image
// that its superblock would hold. A write to a slot that the published map refers to fails the
// test.
#ifndef AF_TESTS_UNIT_TEST_SPACE_RIG_H
#define AF_TESTS_UNIT_TEST_SPACE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka wants the headers above first.
#include <cmocka.h>

#include "base/checksum.h"
#include "base/err.h"
#include "store/space_internal.h"

// ---- a sparse file in memory ----

#define DISK_BUCKETS 4096u

struct disk_block {
    struct disk_block *next;
    uint64_t address;
    uint8_t bytes[BLOCK_BYTES];
};

struct disk {
    struct io_file file;
    struct io io;
    struct disk_block *buckets[DISK_BUCKETS];
    uint64_t blocks;        // length
    uint64_t host_blocks;   // allocate() fails beyond
    uint64_t host_other;    // bytes that the host has besides
    uint64_t synced_blocks; // length at the last sync
    unsigned allocate_calls, writes;
    int fail_write; // the write that makes it 0 fails
    int read_error;
    int allocate_error, sync_error, space_error;
    uint64_t *forbidden; // must not be written
    size_t forbidden_count;
};

static inline struct disk_block *disk_find(struct disk *d, uint64_t address)
{
    struct disk_block *b = d->buckets[address % DISK_BUCKETS];
    while (b != NULL && b->address != address)
        b = b->next;
    return b;
}

static inline uint8_t *disk_block(struct disk *d, uint64_t address)
{
    struct disk_block *b = disk_find(d, address);
    if (b == NULL) {
        b = calloc(1, sizeof(*b));
        assert_non_null(b);
        b->address = address;
        b->next = d->buckets[address % DISK_BUCKETS];
        d->buckets[address % DISK_BUCKETS] = b;
    }
    return b->bytes;
}

static inline int disk_pread(struct io_file *f, void *bytes, size_t len, uint64_t off)
{
    struct disk *d = (struct disk *)f;
    assert_true(len == BLOCK_BYTES && off % BLOCK_BYTES == 0);
    if (d->read_error != 0)
        return d->read_error;
    if (off / BLOCK_BYTES >= d->blocks)
        return -AF_E_IO_SHORT;
    const struct disk_block *b = disk_find(d, off / BLOCK_BYTES);
    if (b != NULL)
        memcpy(bytes, b->bytes, len);
    else
        memset(bytes, 0, len);
    return 0;
}

static inline int disk_pwritev(struct io_file *f, const struct iovec *iov, int count, uint64_t off)
{
    struct disk *d = (struct disk *)f;
    uint64_t address = off / BLOCK_BYTES;
    assert_true(count == 1 && iov->iov_len == BLOCK_BYTES && off % BLOCK_BYTES == 0);
    assert_true(address < d->blocks);
    for (size_t i = 0; i < d->forbidden_count; i++)
        assert_int_not_equal(d->forbidden[i], address);
    d->writes++;
    if (d->fail_write > 0 && --d->fail_write == 0) {
        memcpy(disk_block(d, address), iov->iov_base, 512); // torn
        return -EIO;
    }
    memcpy(disk_block(d, address), iov->iov_base, BLOCK_BYTES);
    return 0;
}

static inline int disk_size(struct io_file *f, uint64_t *ret)
{
    *ret = ((struct disk *)f)->blocks * BLOCK_BYTES;
    return 0;
}

static inline int disk_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
    struct disk *d = (struct disk *)f;
    d->allocate_calls++;
    if (d->allocate_error != 0)
        return d->allocate_error;
    if ((off + len) / BLOCK_BYTES > d->host_blocks)
        return -ENOSPC;
    d->blocks = AF_MAX(d->blocks, (off + len) / BLOCK_BYTES);
    return 0;
}

static inline int disk_space(struct io *io, struct io_space *ret_space)
{
    const struct disk *d = AF_CONTAINER_OF(io, struct disk, io);
    uint64_t left = d->host_blocks - AF_MIN(d->host_blocks, d->blocks);

    *ret_space = (struct io_space){
        .avail_bytes = AF_MIN(left, UINT64_MAX / 2 / BLOCK_BYTES) * BLOCK_BYTES + d->host_other};
    return d->space_error;
}

static inline int disk_sync(struct io_file *f)
{
    struct disk *d = (struct disk *)f;
    if (d->sync_error == 0)
        d->synced_blocks = d->blocks;
    return d->sync_error;
}

static const struct io_ops disk_ops = {.name = "memory",
                                       .sync = disk_sync,
                                       .pread = disk_pread,
                                       .pwritev = disk_pwritev,
                                       .size = disk_size,
                                       .space = disk_space,
                                       .allocate = disk_allocate};

// ---- one store: the disk, what its superblock says, and the map in memory ----

struct fix {
    struct disk disk;
    struct af_mutex lock;
    struct space_config config;
    struct space_image image; // published
    struct space *sp;
    struct space_frozen *z;
    uint64_t sequence;
};

static inline struct fix *fix_new(uint64_t max_blocks)
{
    struct fix *x = calloc(1, sizeof(*x));
    assert_non_null(x);
    x->disk.io.ops = &disk_ops;
    x->disk.file.io = &x->disk.io;
    x->disk.host_blocks = UINT64_MAX;
    x->disk.host_other = UINT64_C(2) << 20;
    af_mutex_init(&x->lock, LOCK_RANK_STORE);
    x->config = (struct space_config){.data = &x->disk.file,
                                      .io = &x->disk.io,
                                      .uuid = "0123456789abcde",
                                      .max_blocks = max_blocks};
    assert_int_equal(space_open(&x->config, &x->image, &x->sp), 0);
    return x;
}

static inline void fix_free(struct fix *x)
{
    space_frozen_free(x->z);
    space_close(x->sp);
    for (size_t i = 0; i < DISK_BUCKETS; i++) {
        while (x->disk.buckets[i] != NULL) {
            struct disk_block *next = x->disk.buckets[i]->next;
            free(x->disk.buckets[i]);
            x->disk.buckets[i] = next;
        }
    }
    free(x->disk.forbidden);
    free(x->image.refs);
    af_mutex_destroy(&x->lock);
    free(x);
}

// Every slot that the published map refers to.
static inline void forbid_published(struct fix *x)
{
    struct disk *d = &x->disk;
    d->forbidden_count = 0;
    for (uint32_t i = 0; i < x->image.index_count; i++) {
        d->forbidden = realloc(d->forbidden,
                               (d->forbidden_count + GROUPS_PER_INDEX + 1) * sizeof(*d->forbidden));
        assert_non_null(d->forbidden);
        uint64_t address = space_index_address(i, x->image.refs[i].slot);
        struct space_ref refs[GROUPS_PER_INDEX];
        d->forbidden[d->forbidden_count++] = address;
        unsigned count = space_decode_index(disk_block(d, address), refs);
        for (unsigned g = 0; g < count; g++)
            if (refs[g].slot != SLOT_NEVER)
                d->forbidden[d->forbidden_count++] =
                    space_bitmap_address((uint64_t)i * GROUPS_PER_INDEX + g, refs[g].slot);
    }
}

static inline void freeze(struct fix *x)
{
    af_lock(&x->lock);
    x->z = space_freeze(x->sp);
    af_unlock(&x->lock);
    assert_non_null(x->z);
}

static inline int write_frozen(struct fix *x, struct space_image *ret)
{
    forbid_published(x);
    int r = space_write_frozen(x->sp, &x->lock, x->z, x->sequence + 1, ret);
    return r;
}

static inline void adopt(struct fix *x, const struct space_image *image)
{
    af_lock(&x->lock);
    space_published(x->sp, x->z);
    af_unlock(&x->lock);
    x->z = NULL;
    free(x->image.refs);
    x->image = *image;
    x->sequence++;
}

static inline void publish(struct fix *x)
{
    struct space_image image;
    assert_int_equal(write_frozen(x, &image), 0);
    adopt(x, &image);
}

static inline void checkpoint(struct fix *x)
{
    freeze(x);
    publish(x);
}

static inline void reopen(struct fix *x)
{
    space_frozen_free(x->z);
    x->z = NULL;
    space_close(x->sp);
    x->sp = NULL;
    assert_int_equal(space_open(&x->config, &x->image, &x->sp), 0);
}

// Resolves one fault but for FAULT_SPACE, which is an answer here.
static inline int resolve(struct fix *x, struct fault *f)
{
    assert_true(++f->rounds < 5000);
    if (f->kind == FAULT_GROUP)
        return space_load_group(x->sp, &x->lock, f->number);
    assert_int_equal(f->kind, FAULT_GROW);
    return space_grow(x->sp, &x->lock, f->number);
}

enum { WAITS = 1 }; // FAULT_SPACE

static inline int prepare(struct fix *x, uint64_t blocks, uint64_t from_reserved, bool urgent)
{
    struct fault f = {0};
    for (;;) {
        int r = space_prepare(x->sp, &f, blocks, from_reserved, urgent);
        if (r != -AF_E_FAULT)
            return r;
        if (f.kind == FAULT_SPACE)
            return WAITS;
        r = resolve(x, &f);
        if (r < 0)
            return r;
    }
}

static inline int reserve(struct fix *x, uint64_t blocks)
{
    struct fault f = {0};
    for (;;) {
        int r = space_reserve(x->sp, &f, blocks);
        if (r != -AF_E_FAULT)
            return r;
        if (f.kind == FAULT_SPACE)
            return WAITS;
        assert_int_equal(resolve(x, &f), 0);
    }
}

static inline int claim(struct fix *x, uint64_t address, uint64_t count)
{
    struct fault f = {0};
    for (;;) {
        int r = space_claim(x->sp, &f, address, count);
        if (r != -AF_E_FAULT)
            return r;
        r = resolve(x, &f);
        if (r < 0)
            return r;
    }
}

static inline uint64_t alloc(struct fix *x, uint64_t want, uint64_t *ret_count)
{
    assert_int_equal(prepare(x, want, 0, false), 0);
    return space_alloc(x->sp, want, 0, ret_count);
}

static inline struct space_stats stats(struct fix *x)
{
    struct space_stats s;
    space_get_stats(x->sp, &s);
    assert_true(s.capacity <= x->disk.synced_blocks || x->config.read_only);
    return s;
}

static inline bool is_free(struct fix *x, uint64_t address)
{
    struct space_group *g = space_group(x->sp, address / GROUP_BLOCKS);
    assert_non_null(g->bits);
    return bits_all(g->bits->used, group_bit(address), 1, false);
}

#endif
