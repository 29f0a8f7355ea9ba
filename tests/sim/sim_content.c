// SPDX-License-Identifier: MIT
// Copy-on-write pages in chunks: copying a file costs one count for each 256 KiB.
#include "tests/sim/sim_content.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/checksum.h"

#define CHUNK_PAGES 64u

struct sim_page {
    uint32_t refs;
    uint64_t sum; // of the bytes; 0: not known
    uint8_t bytes[SIM_PAGE_BYTES];
};

struct sim_chunk {
    uint32_t refs;
    uint64_t sum;                        // of the pages and their places; 0: not known
    struct sim_page *pages[CHUNK_PAGES]; // NULL: hole
};

// Stands for every page that was allocated and not written. Its count is never looked at.
static struct sim_page zero_page;

static void *alloc(size_t bytes)
{
    void *p = malloc(bytes);

    AF_ASSERT(p);
    return p;
}

static void page_put(struct sim_page *page)
{
    if (page && page != &zero_page && --page->refs == 0)
        free(page);
}

static struct sim_page *page_get(struct sim_page *page)
{
    if (page && page != &zero_page)
        page->refs++;
    return page;
}

static void chunk_put(struct sim_chunk *chunk)
{
    if (!chunk || --chunk->refs)
        return;
    for (unsigned i = 0; i < CHUNK_PAGES; i++)
        page_put(chunk->pages[i]);
    free(chunk);
}

void content_init(struct sim_content *c)
{
    *c = (struct sim_content){0};
}

void content_free(struct sim_content *c)
{
    for (size_t i = 0; i < c->chunk_count; i++)
        chunk_put(c->chunks[i]);
    free(c->chunks);
    content_init(c);
}

void content_copy(struct sim_content *to, const struct sim_content *from)
{
    *to = *from;
    if (!from->chunk_count)
        return;
    to->chunks = alloc(from->chunk_count * sizeof(struct sim_chunk *));
    for (size_t i = 0; i < from->chunk_count; i++) {
        to->chunks[i] = from->chunks[i];
        if (to->chunks[i])
            to->chunks[i]->refs++;
    }
}

static const struct sim_page *content_page(const struct sim_content *c, uint64_t page_no)
{
    uint64_t chunk_no = page_no / CHUNK_PAGES;

    if (chunk_no >= c->chunk_count || !c->chunks[chunk_no])
        return NULL;
    return c->chunks[chunk_no]->pages[page_no % CHUNK_PAGES];
}

// Makes the chunk of a page exist and belong to this content alone; returns the place of the page.
static struct sim_page **content_slot(struct sim_content *c, uint64_t page_no)
{
    size_t chunk_no = page_no / CHUNK_PAGES;
    struct sim_chunk *chunk, *shared;

    if (chunk_no >= c->chunk_count) {
        size_t count = AF_MAX(chunk_no + 1, c->chunk_count * 2);

        c->chunks = realloc(c->chunks, count * sizeof(struct sim_chunk *));
        AF_ASSERT(c->chunks);
        memset(c->chunks + c->chunk_count, 0,
               (count - c->chunk_count) * sizeof(struct sim_chunk *));
        c->chunk_count = count;
    }
    shared = c->chunks[chunk_no];
    if (!shared || shared->refs > 1) {
        chunk = alloc(sizeof(*chunk));
        memset(chunk, 0, sizeof(*chunk));
        chunk->refs = 1;
        for (unsigned i = 0; shared && i < CHUNK_PAGES; i++)
            chunk->pages[i] = page_get(shared->pages[i]);
        chunk_put(shared);
        c->chunks[chunk_no] = chunk;
    }
    c->chunks[chunk_no]->sum = 0;
    return &c->chunks[chunk_no]->pages[page_no % CHUNK_PAGES];
}

static uint8_t *content_page_for_write(struct sim_content *c, uint64_t page_no)
{
    struct sim_page **slot = content_slot(c, page_no), *page = *slot;

    if (page && page != &zero_page && page->refs == 1) {
        page->sum = 0;
        return page->bytes;
    }
    page = alloc(sizeof(*page));
    page->refs = 1;
    page->sum = 0;
    if (*slot)
        memcpy(page->bytes, (*slot)->bytes, SIM_PAGE_BYTES);
    else
        memset(page->bytes, 0, SIM_PAGE_BYTES);
    c->page_count += !*slot;
    page_put(*slot);
    *slot = page;
    return page->bytes;
}

void content_read(const struct sim_content *c, uint64_t off, void *bytes, size_t len)
{
    uint8_t *to = bytes;

    while (len) {
        const struct sim_page *page = content_page(c, off / SIM_PAGE_BYTES);
        size_t at = off % SIM_PAGE_BYTES;
        size_t n = AF_MIN(len, SIM_PAGE_BYTES - at);

        if (page)
            memcpy(to, page->bytes + at, n);
        else
            memset(to, 0, n);
        to += n;
        off += n;
        len -= n;
    }
}

void content_write(struct sim_content *c, uint64_t off, const void *bytes, size_t len)
{
    const uint8_t *from = bytes;

    while (len) {
        size_t at = off % SIM_PAGE_BYTES;
        size_t n = AF_MIN(len, SIM_PAGE_BYTES - at);

        memcpy(content_page_for_write(c, off / SIM_PAGE_BYTES) + at, from, n);
        from += n;
        off += n;
        len -= n;
    }
}

void content_allocate(struct sim_content *c, uint64_t off, uint64_t len)
{
    if (!len)
        return;
    for (uint64_t no = off / SIM_PAGE_BYTES; no <= (off + len - 1) / SIM_PAGE_BYTES; no++) {
        if (!content_page(c, no)) {
            *content_slot(c, no) = &zero_page;
            c->page_count++;
        }
    }
}

uint64_t content_holes(const struct sim_content *c, uint64_t off, uint64_t len)
{
    uint64_t holes = 0;

    if (!len)
        return 0;
    for (uint64_t no = off / SIM_PAGE_BYTES; no <= (off + len - 1) / SIM_PAGE_BYTES; no++)
        holes += !content_page(c, no);
    return holes;
}

void content_truncate(struct sim_content *c, uint64_t size)
{
    size_t tail = size % SIM_PAGE_BYTES;
    uint64_t first = size / SIM_PAGE_BYTES + (tail != 0);

    if (tail && content_page(c, size / SIM_PAGE_BYTES))
        memset(content_page_for_write(c, size / SIM_PAGE_BYTES) + tail, 0, SIM_PAGE_BYTES - tail);
    for (uint64_t no = first; no < (uint64_t)c->chunk_count * CHUNK_PAGES; no++) {
        struct sim_page **slot;

        if (!c->chunks[no / CHUNK_PAGES]) {
            no |= CHUNK_PAGES - 1; // Nothing here; on with the next chunk.
            continue;
        }
        if (!content_page(c, no))
            continue;
        slot = content_slot(c, no);
        page_put(*slot);
        *slot = NULL;
        c->page_count--;
    }
}

// Sums are kept, because most pages are the same from one state of a disk to the next.
static uint64_t page_sum(struct sim_page *page)
{
    if (!page->sum)
        page->sum = checksum(CSUM_DATA, 0, page->bytes, SIM_PAGE_BYTES);
    return page->sum;
}

static uint64_t chunk_sum(struct sim_chunk *chunk)
{
    uint64_t sums[CHUNK_PAGES], any = 0;

    if (chunk->sum)
        return chunk->sum;
    // Holes and allocated zeros differ, because allocation is a state of the disk too.
    for (unsigned i = 0; i < CHUNK_PAGES; i++) {
        struct sim_page *page = chunk->pages[i];

        sums[i] = !page ? 0 : page == &zero_page ? 1 : page_sum(page);
        any |= sums[i];
    }
    if (any)
        chunk->sum = checksum(CSUM_DATA, 1, sums, sizeof(sums));
    return chunk->sum; // 0 where there are only holes, which count for nothing
}

uint64_t content_hash(const struct sim_content *c)
{
    uint64_t sum = c->page_count;

    for (size_t i = 0; i < c->chunk_count; i++) {
        const uint64_t place[2] = {i, c->chunks[i] ? chunk_sum(c->chunks[i]) : 0};

        if (place[1])
            sum += checksum(CSUM_DATA, 2, place, sizeof(place));
    }
    return sum;
}
