// SPDX-License-Identifier: MIT
// Raw requests: what they are, and the memory that holds them. The only file that reads the
// kernel's protocol itself.

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <linux/fuse.h>

#include "fs/fs_request.h"

// Not in the header of older systems.
#define OPCODE_TMPFILE 51
#define OPCODE_STATX   52

#define WRITE_HEADER_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

// Everything that is not named here counts as a change: the safe side, for what a later kernel may
// send.
static enum fs_kind kind_of(const struct fuse_in_header *in, const void *arg, size_t arg_len)
{
    switch (in->opcode) {
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
        // Numbers of inodes are never reused and the store keeps no lookup counts: fs_forgotten().
    case FUSE_INTERRUPT:
        // Nothing that waits here can be called off: what has been logged cannot be taken back, so
        // an interrupted caller learns the outcome like any other. Without an answer the kernel
        // goes on waiting for the request itself. (An fsync that is called off would be a commit
        // with unknown result.)
        return FS_KIND_SILENT;
    case FUSE_RELEASE:
        return FS_KIND_RELEASE;
    case FUSE_OPEN: {
        const struct fuse_open_in *open = arg;
        return arg_len >= sizeof(*open) && (open->flags & O_TRUNC) ? FS_KIND_CHANGES
                                                                   : FS_KIND_READS;
    }
    case FUSE_INIT:
    case FUSE_DESTROY:
    case FUSE_LOOKUP:
    case FUSE_GETATTR:
    case FUSE_READLINK:
    case FUSE_READ:
    case FUSE_STATFS:
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
    case FUSE_FLUSH:
    case FUSE_OPENDIR:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
    case FUSE_RELEASEDIR:
    case FUSE_ACCESS:
    case FUSE_IOCTL:
    case FUSE_POLL:
    case FUSE_LSEEK:
    case OPCODE_STATX:
        return FS_KIND_READS;
    default:
        return FS_KIND_CHANGES;
    }
}

bool fs_peek(const void *bytes, size_t len, struct fs_peek *ret_peek)
{
    const struct fuse_in_header *in = bytes;

    if (len < sizeof(*in) || in->len != len)
        return false;
    const void *arg = in + 1;
    size_t arg_len = len - sizeof(*in);
    struct fs_peek peek = {.kind = kind_of(in, arg, arg_len)};

    if (in->opcode == FUSE_READ && arg_len >= sizeof(struct fuse_read_in)) {
        const struct fuse_read_in *read = arg;
        peek.payload_bytes = read->size;
        peek.holds_release = (read->flags & O_ACCMODE) != O_RDONLY;
    } else if (in->opcode == FUSE_WRITE && arg_len >= sizeof(struct fuse_write_in)) {
        const struct fuse_write_in *write = arg;
        peek.write = true;
        peek.payload_bytes = write->size;
        peek.kill_suidgid = write->write_flags & FUSE_WRITE_KILL_SUIDGID;
    }
    peek.setattr = in->opcode == FUSE_SETATTR && len <= FS_SETATTR_BYTES_MAX;
    if (in->opcode == OPCODE_TMPFILE)
        peek.raw = FS_RAW_TMPFILE;
    else if (in->opcode == OPCODE_STATX)
        peek.raw = FS_RAW_STATX;
    *ret_peek = peek;
    return true;
}

void fs_forgotten(const struct fs_request *rq, void (*each)(void *arg, uint64_t ino), void *arg)
{
    const struct fuse_in_header *in = (const struct fuse_in_header *)(const void *)rq->bytes;
    const struct fuse_batch_forget_in *batch = (const void *)(in + 1);
    size_t left = rq->size - sizeof(*in);

    if (in->opcode == FUSE_FORGET)
        each(arg, in->nodeid);
    if (in->opcode != FUSE_BATCH_FORGET || left < sizeof(*batch))
        return;
    const struct fuse_forget_one *one = (const void *)(batch + 1);
    size_t count = AF_MIN((size_t)batch->count, (left - sizeof(*batch)) / sizeof(*one));

    for (size_t i = 0; i < count; i++)
        each(arg, one[i].nodeid);
}

struct fs_request *fs_request_new(void)
{
    struct fs_request *rq;
    void *memory;

    // The structure and the header of a WRITE share the first page, so that the payload starts the
    // second one.
    _Static_assert(sizeof(*rq) + WRITE_HEADER_BYTES <= FS_HEADER_MAX, "both fit into one page");
    _Static_assert(WRITE_HEADER_BYTES % 8 == 0, "the kernel's structures need 8");
    if (posix_memalign(&memory, FS_HEADER_MAX, FS_HEADER_MAX + FS_PAYLOAD_MAX + FS_HEADER_MAX))
        return NULL;
    rq = memory;
    *rq = (struct fs_request){
        .large = true,
        .bytes = (uint8_t *)memory + FS_HEADER_MAX - WRITE_HEADER_BYTES,
        .cap = WRITE_HEADER_BYTES + FS_PAYLOAD_MAX + FS_HEADER_MAX,
    };
    list_init(&rq->link);
    list_init(&rq->hold_link);
    return rq;
}

struct fs_request *fs_request_copy(const struct fs_request *from)
{
    struct fs_request *rq = malloc(AF_ROUND_UP(sizeof(*rq), 16) + from->size);

    if (!rq)
        return NULL;
    *rq = (struct fs_request){
        .peek = from->peek,
        .size = from->size,
        .cap = from->size,
        .bytes = (uint8_t *)rq + AF_ROUND_UP(sizeof(*rq), 16),
    };
    list_init(&rq->link);
    list_init(&rq->hold_link);
    memcpy(rq->bytes, from->bytes, from->size);
    return rq;
}

void fs_request_free(struct fs_request *rq)
{
    free(rq);
}
