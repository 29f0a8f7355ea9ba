// SPDX-License-Identifier: MIT
// Looks at the simulated disk, damages it, and writes it out, past its interface.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/checksum.h"
#include "tests/sim/sim_internal.h"

static struct sim_inode *raw_file(const struct sim *sim, const char *path)
{
    struct sim_inode *inode = sim_lookup(&sim->names, path);

    return inode && !inode->is_dir ? inode : NULL;
}

bool sim_exists(const struct sim *sim, const char *path)
{
    return sim_lookup(&sim->names, path);
}

int sim_file_size(const struct sim *sim, const char *path, uint64_t *ret_bytes)
{
    const struct sim_inode *inode = raw_file(sim, path);

    if (!inode)
        return -ENOENT;
    *ret_bytes = inode->size;
    return 0;
}

int sim_read_raw(const struct sim *sim, const char *path, uint64_t off, void *bytes, size_t len)
{
    const struct sim_inode *inode = raw_file(sim, path);

    if (!inode)
        return -ENOENT;
    if (len > UINT64_MAX - off || off + len > inode->size)
        return -EINVAL;
    content_read(&inode->content, off, bytes, len);
    return 0;
}

int sim_write_raw(struct sim *sim, const char *path, uint64_t off, const void *bytes, size_t len)
{
    struct sim_inode *inode = raw_file(sim, path);

    if (!inode)
        return -ENOENT;
    if (len > UINT64_MAX - off || off + len > inode->size)
        return -EINVAL;
    sim_changes_cover(inode, inode->change_count, off, len);
    content_write(&inode->content, off, bytes, len);
    content_write(&inode->durable, off, bytes, len);
    return 0;
}

int sim_flip_bits(struct sim *sim, const char *path, uint64_t off, uint8_t mask)
{
    uint8_t byte;
    int r = sim_read_raw(sim, path, off, &byte, 1);

    if (r)
        return r;
    byte ^= mask;
    return sim_write_raw(sim, path, off, &byte, 1);
}

int sim_truncate_raw(struct sim *sim, const char *path, uint64_t bytes)
{
    struct sim_inode *inode = raw_file(sim, path);

    if (!inode)
        return -ENOENT;
    // All that readers saw becomes durable at its new size, which is simpler than to cut the
    // journal.
    sim_changes_clear(inode);
    content_truncate(&inode->content, bytes);
    content_free(&inode->durable);
    content_copy(&inode->durable, &inode->content);
    inode->size = inode->durable_size = bytes;
    return 0;
}

int sim_remove_raw(struct sim *sim, const char *path)
{
    struct sim_inode *inode = raw_file(sim, path);

    if (!inode)
        return -ENOENT;
    sim_remove_names(sim, inode, path);
    return 0;
}

void sim_put_file(struct sim *sim, const char *path, const void *bytes, size_t len)
{
    struct sim_inode *inode = raw_file(sim, path);
    char dir[SIM_PATH_BYTES];

    AF_ASSERT(strlen(path) < sizeof(dir));
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        memcpy(dir, path, (size_t)(slash - path));
        dir[slash - path] = 0;
        if (!sim_lookup(&sim->names, dir)) {
            sim_names_set(&sim->names, dir, sim_inode_new(sim, true));
            sim_names_set(&sim->durable_names, dir, sim_lookup(&sim->names, dir));
        }
    }
    if (inode)
        sim_remove_names(sim, inode, path);
    inode = sim_inode_new(sim, false);
    content_write(&inode->content, 0, bytes, len);
    content_copy(&inode->durable, &inode->content);
    inode->size = inode->durable_size = len;
    sim_names_set(&sim->names, path, inode);
    sim_names_set(&sim->durable_names, path, inode);
}

void sim_each_path(const struct sim *sim, void (*each)(void *arg, const char *path, bool is_dir),
                   void *arg)
{
    for (size_t i = 0; i < sim->names.count; i++)
        each(arg, sim->names.entries[i].path, sim->names.entries[i].inode->is_dir);
}

// ---- hash ----

static uint64_t hash_text(const char *text, uint64_t seed)
{
    return checksum(CSUM_NAME, seed, text, strlen(text));
}

static uint64_t hash_inode(const struct sim_inode *inode)
{
    uint64_t sum = sim_mix(inode->size, inode->durable_size);

    sum = sim_mix(sum, content_hash(&inode->content));
    sum = sim_mix(sum, content_hash(&inode->durable));
    for (size_t i = 0; i < inode->change_count; i++) {
        const struct sim_change *change = &inode->changes[i];

        sum = sim_mix(sum, change->kind);
        sum = sim_mix(sum, change->off);
        sum = sim_mix(sum, change->len);
        if (change->blob)
            sum = checksum(CSUM_DATA, sum, change->blob->bytes + change->blob_off, change->len);
    }
    return sum;
}

static uint64_t hash_names(const struct sim_names *names, uint64_t seed)
{
    uint64_t sum = 0;

    // A sum, so that the order of the table does not matter.
    for (size_t i = 0; i < names->count; i++)
        sum +=
            sim_mix(hash_text(names->entries[i].path, seed), hash_inode(names->entries[i].inode));
    return sum;
}

uint64_t sim_hash(const struct sim *sim)
{
    uint64_t sum = sim_mix(hash_names(&sim->names, 1), hash_names(&sim->durable_names, 2));

    for (size_t i = 0; i < sim->name_change_count; i++) {
        const struct sim_name_change *change = &sim->name_changes[i];

        sum = sim_mix(sum, change->kind);
        sum = hash_text(change->path, sum);
        sum = hash_text(change->to, sum);
    }
    for (size_t i = 0; i < sim->flight_count; i++) {
        if (sim->flights[i].is_write)
            sum = checksum(CSUM_DATA, sim_mix(sum, sim->flights[i].off),
                           sim->flights[i].blob->bytes, sim->flights[i].len);
    }
    return sum;
}

// ---- export ----

static size_t path_depth(const char *path)
{
    size_t depth = 0;

    for (; *path; path++)
        depth += *path == '/';
    return depth;
}

static int export_file(int dir_fd, const char *path, const struct sim_inode *inode)
{
    char page[SIM_PAGE_BYTES];
    int fd = openat(dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r = 0;

    if (fd < 0)
        return -errno;
    for (uint64_t off = 0; off < inode->size && !r; off += sizeof(page)) {
        size_t n = (size_t)AF_MIN(inode->size - off, (uint64_t)sizeof(page));

        content_read(&inode->content, off, page, n);
        if (write(fd, page, n) != (ssize_t)n)
            r = errno ? -errno : -EIO;
    }
    if (close(fd) < 0 && !r)
        r = -errno;
    return r;
}

int sim_export(const struct sim *sim, const char *dir)
{
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = 0;

    if (dir_fd < 0)
        return -errno;
    // Directories first, and those above before those below.
    for (size_t depth = 0; depth < SIM_PATH_BYTES / 2 && !r; depth++) {
        for (size_t i = 0; i < sim->names.count && !r; i++) {
            const struct sim_entry *entry = &sim->names.entries[i];

            if (entry->inode->is_dir && path_depth(entry->path) == depth &&
                mkdirat(dir_fd, entry->path, 0700) < 0 && errno != EEXIST)
                r = -errno;
        }
    }
    for (size_t i = 0; i < sim->names.count && !r; i++) {
        if (!sim->names.entries[i].inode->is_dir)
            r = export_file(dir_fd, sim->names.entries[i].path, sim->names.entries[i].inode);
    }
    (void)close(dir_fd);
    return r;
}
