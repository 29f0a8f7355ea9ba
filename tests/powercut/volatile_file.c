// SPDX-License-Identifier: MIT
// Files of the volatile disk: the overlay of pages over the durable bytes.
#include "tests/powercut/volatile_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

uint64_t volatile_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static int write_real(int fd, const uint8_t *bytes, size_t len, uint64_t off)
{
    while (len) {
        ssize_t n = pwrite(fd, bytes, len, (off_t)off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        bytes += n, len -= (size_t)n, off += (uint64_t)n;
    }
    return 0;
}

// Zeros beyond `valid`, whatever has been leaked to there.
static int read_real(const struct volatile_file *f, uint8_t *bytes, size_t len, uint64_t off)
{
    size_t there = off < f->valid ? (size_t)AF_MIN((uint64_t)len, f->valid - off) : 0;
    size_t got = 0;

    while (got < there) {
        ssize_t n = pread(f->fd, bytes + got, there - got, (off_t)(off + got));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    memset(bytes + got, 0, len - got);
    return 0;
}

static struct volatile_page *page_at(const struct volatile_file *f, uint64_t number)
{
    return number < f->page_count ? f->pages[number] : NULL;
}

static int make_page(struct volatile_file *f, uint64_t number, struct volatile_page **ret_page)
{
    if (number >= f->page_count) {
        size_t count = (size_t)AF_MAX(number + 1, (uint64_t)f->page_count * 2);
        struct volatile_page **pages = realloc(f->pages, count * sizeof(*pages));

        if (!pages)
            return -ENOMEM;
        memset(pages + f->page_count, 0, (count - f->page_count) * sizeof(*pages));
        f->pages = pages;
        f->page_count = count;
    }
    if (!f->pages[number]) {
        struct volatile_page *page = calloc(1, sizeof(*page));
        int r = page ? read_real(f, page->bytes, VOLATILE_PAGE, number * VOLATILE_PAGE) : -ENOMEM;

        if (r) {
            free(page);
            return r;
        }
        f->pages[number] = page;
    }
    *ret_page = f->pages[number];
    return 0;
}

static void drop_page(struct volatile_file *f, uint64_t number)
{
    free(f->pages[number]);
    f->pages[number] = NULL;
}

static uint8_t sectors_of(size_t from, size_t end)
{
    unsigned first = (unsigned)(from / VOLATILE_SECTOR);
    unsigned last = (unsigned)((end - 1) / VOLATILE_SECTOR);

    return (uint8_t)((0xffu << first) & (0xffu >> (7 - last)));
}

int volatile_file_read(struct volatile_file *f, void *bytes, size_t len, uint64_t off)
{
    uint8_t *to = bytes;

    if (off > f->size || len > f->size - off)
        return -AF_E_IO_SHORT;
    while (len) {
        size_t lead = (size_t)(off % VOLATILE_PAGE), n = AF_MIN(len, VOLATILE_PAGE - lead);
        const struct volatile_page *page = page_at(f, off / VOLATILE_PAGE);
        int r = 0;

        if (page)
            memcpy(to, page->bytes + lead, n);
        else
            r = read_real(f, to, n, off);
        if (r)
            return r;
        to += n, len -= n, off += n;
    }
    return 0;
}

int volatile_file_write(struct volatile_file *f, const void *bytes, size_t len, uint64_t off)
{
    const uint8_t *from = bytes;

    while (len) {
        size_t lead = (size_t)(off % VOLATILE_PAGE), n = AF_MIN(len, VOLATILE_PAGE - lead);
        struct volatile_page *page;
        int r = make_page(f, off / VOLATILE_PAGE, &page);

        if (r)
            return r;
        memcpy(page->bytes + lead, from, n);
        page->dirty |= sectors_of(lead, lead + n);
        from += n, len -= n, off += n;
        f->size = AF_MAX(f->size, off);
    }
    return 0;
}

int volatile_file_truncate(struct volatile_file *f, uint64_t bytes)
{
    if (bytes < f->size) {
        uint64_t first = (bytes + VOLATILE_PAGE - 1) / VOLATILE_PAGE;

        for (uint64_t i = first; i < f->page_count; i++)
            drop_page(f, i);
        struct volatile_page *edge = page_at(f, bytes / VOLATILE_PAGE);
        if (edge && bytes % VOLATILE_PAGE)
            memset(edge->bytes + bytes % VOLATILE_PAGE, 0, VOLATILE_PAGE - bytes % VOLATILE_PAGE);
        f->valid = AF_MIN(f->valid, bytes);
    }
    f->size = bytes;
    return 0;
}

// What was leaked or cut off beyond the visible part is gone when the file grows again.
static int cut_real(const struct volatile_file *f)
{
    struct stat st;

    if (fstat(f->fd, &st) < 0)
        return -errno;
    if ((uint64_t)st.st_size > f->valid && ftruncate(f->fd, (off_t)f->valid) < 0)
        return -errno;
    return 0;
}

static int write_sector(const struct volatile_file *f, uint64_t number, unsigned sector)
{
    uint64_t off = number * VOLATILE_PAGE + sector * VOLATILE_SECTOR;
    size_t len = VOLATILE_SECTOR;

    if (off >= f->size)
        return 0;
    len = (size_t)AF_MIN((uint64_t)len, f->size - off);
    return write_real(f->fd, f->pages[number]->bytes + sector * VOLATILE_SECTOR, len, off);
}

// Whole pages at once: a sync writes megabytes.
static int write_page(const struct volatile_file *f, uint64_t number)
{
    const struct volatile_page *page = f->pages[number];
    uint64_t off = number * VOLATILE_PAGE;
    int r = 0;

    if (page->dirty == 0xff && off + VOLATILE_PAGE <= f->size)
        return write_real(f->fd, page->bytes, VOLATILE_PAGE, off);
    for (unsigned s = 0; !r && s < 8; s++)
        if (page->dirty & (1u << s))
            r = write_sector(f, number, s);
    return r;
}

int volatile_file_sync(struct volatile_file *f)
{
    int r = cut_real(f);

    for (uint64_t i = 0; !r && i < f->page_count; i++)
        if (f->pages[i])
            r = write_page(f, i);
    if (!r && ftruncate(f->fd, (off_t)f->size) < 0)
        r = -errno;
    if (!r && fdatasync(f->fd) < 0)
        r = -errno;
    if (r)
        return r;
    f->valid = f->size;
    for (uint64_t i = 0; i < f->page_count; i++)
        drop_page(f, i);
    return 0;
}

int volatile_file_write_durable(struct volatile_file *f, const void *bytes, size_t len,
                                uint64_t off)
{
    int r = off + len > f->valid ? cut_real(f) : 0;

    if (!r)
        r = write_real(f->fd, bytes, len, off);
    if (!r && fdatasync(f->fd) < 0)
        r = -errno;
    if (r)
        return r;
    // Pages in between that are beyond the old end were made of zeros, and so is the gap.
    f->valid = AF_MAX(f->valid, off + len);
    f->size = AF_MAX(f->size, off + len);
    for (uint64_t i = off / VOLATILE_PAGE; i < (off + len) / VOLATILE_PAGE; i++)
        if (page_at(f, i))
            drop_page(f, i);
    return 0;
}

void volatile_file_leak(struct volatile_file *f, uint64_t *rng, unsigned odds)
{
    for (uint64_t i = 0; i < f->page_count; i++)
        for (unsigned s = 0; f->pages[i] && s < 8; s++)
            if ((f->pages[i]->dirty & (1u << s)) && (volatile_random(rng) & 0xff) < odds)
                (void)write_sector(f, i, s); // nobody was promised anything
}

void volatile_file_leak_bytes(struct volatile_file *f, const uint8_t *bytes, size_t len,
                              uint64_t off, uint64_t *rng)
{
    for (size_t at = 0; at < len; at += VOLATILE_SECTOR)
        if (volatile_random(rng) & 1)
            (void)write_real(f->fd, bytes + at, VOLATILE_SECTOR, off + at);
}

void volatile_file_free(struct volatile_file *f)
{
    for (uint64_t i = 0; i < f->page_count; i++)
        free(f->pages[i]);
    free(f->pages);
    if (f->fd >= 0)
        close(f->fd);
    free(f);
}
