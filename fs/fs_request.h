// SPDX-License-Identifier: MIT
// A request as it was read from the device: raw bytes that libfuse decodes, as often as it takes.
//
// A request that would block on the loop is processed a second time, from the same bytes, by a
// worker. libfuse keeps that sound: it makes a request object for each fuse_session_process_buf()
// and frees it at the reply (fuse_reply_none() sends nothing), it writes into the bytes of a
// SETATTR only (which is therefore given to it as a copy, fs_run_request()), and the kernel knows
// the request only by the `unique` in them, which it forgets with the first real reply. INTERRUPTs
// never reach libfuse (see fs_peek()).
#ifndef AF_FS_FS_REQUEST_H
#define AF_FS_FS_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/list.h"

enum fs_kind {
    FS_KIND_SILENT,  // no answer is expected and nothing is to be done
    FS_KIND_READS,   // leaves the tree alone
    FS_KIND_CHANGES, // changes the tree or makes it durable: keeps its place behind a waiting
                     // release
    FS_KIND_RELEASE, // the last close: nobody waits for it, yet it comes before everything read
                     // later
};

// A request that is decoded and answered by fs_raw.c.
enum fs_raw { FS_RAW_NONE, FS_RAW_TMPFILE, FS_RAW_STATX };

// What the loop must know before libfuse decodes a request.
struct fs_peek {
    enum fs_kind kind;
    uint32_t payload_bytes; // of a READ or WRITE
    enum fs_raw raw;
    bool setattr;
    // A READ by a descriptor that may have changed the file. If it is read-ahead, the kernel sends
    // the RELEASE of the descriptor only when it has been answered, however long ago close(2)
    // returned.
    bool holds_release;
    bool write;
    bool kill_suidgid; // a WRITE that the kernel leaves it to us to clear set-id bits for
};

// False when the bytes are no request.
bool fs_peek(const void *bytes, size_t len, struct fs_peek *ret_peek) AF_NODISCARD;

// The largest WRITE and READ. The kernel's own limit is 256 pages.
#define FS_PAYLOAD_MAX (1024u * 1024u)
// What may stand before the payload. The kernel wants as much room beyond the payload as its
// headers need.
#define FS_HEADER_MAX  4096u

struct fs_request {
    struct list link;
    // With holds_release, while a worker has it: its place among those; else: it waits for those up
    // to this one.
    struct list hold_link;
    uint64_t hold_number;
    struct fs_peek peek;
    size_t size;    // of the request
    size_t cap;     // of bytes[]
    bool large;     // holds a full-sized buffer
    uint8_t *bytes; // 8-aligned; the payload of a WRITE lies on a page boundary
};

// A full-sized one, empty. NULL: out of memory.
struct fs_request *fs_request_new(void);
// One that is just large enough. NULL: out of memory.
struct fs_request *fs_request_copy(const struct fs_request *from);
void fs_request_free(struct fs_request *rq); // NULL ok
#define FS_SETATTR_BYTES_MAX 256u
// Calls `each` for every inode that the request says is forgotten; for none if it is no FORGET.
void fs_forgotten(const struct fs_request *rq, void (*each)(void *arg, uint64_t ino), void *arg);

#endif
