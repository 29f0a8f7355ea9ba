// SPDX-License-Identifier: MIT
// Exit codes of aerofs-mount and aerofs: one number for each kind of trouble, so that scripts can
// tell them apart. The man pages list them. `aerofs check` alone keeps to 0, 1 and 2 and puts
// everything below under 2.
#ifndef AF_MOUNTUTIL_EXIT_CODE_H
#define AF_MOUNTUTIL_EXIT_CODE_H

enum exit_code {
    EXIT_CODE_OK = 0,
    EXIT_CODE_DAMAGE = 1,         // a block, an item or the space map is damaged
    EXIT_CODE_USAGE = 2,          // wrong arguments (check: cannot run)
    EXIT_CODE_NOT_FOUND = 3,      // no such file or directory
    EXIT_CODE_NOT_A_STORE = 4,    // there is no store in the directory
    EXIT_CODE_IN_USE = 5,         // another program holds the store
    EXIT_CODE_FORMAT = 6,         // written by a newer version of the program
    EXIT_CODE_SUPERBLOCK = 7,     // no valid superblock, or the newest one was lost
    EXIT_CODE_LOG_DAMAGED = 8,    // acknowledged records of the log are unreadable
    EXIT_CODE_LOG_MISSING = 9,    // a segment of the log is missing or short
    EXIT_CODE_PERMISSION = 10,    // permission denied
    EXIT_CODE_NO_SPACE = 11,      // the disk is full
    EXIT_CODE_READ_ONLY = 12,     // the disk is read-only and the store needs recovery
    EXIT_CODE_NO_FUSE = 13,       // /dev/fuse cannot be used
    EXIT_CODE_NOT_CONNECTED = 14, // the daemon of the mount has ended
    EXIT_CODE_EXISTS = 15,        // a store is there already, or the directory is not empty
    EXIT_CODE_IO = 16,            // the disk reported an error, or a file ends too early
    EXIT_CODE_OTHER = 17,         // anything else: memory, limits of the system
    // aerofs log --verify: what is not whole without being damaged.
    EXIT_CODE_LOG_PARTIAL = 18, // a segment file is cut; the rest of it may still come
    EXIT_CODE_LOG_FOREIGN = 19, // a file is no segment, or of another store or another history
    EXIT_CODE_LOG_ORDER = 20,   // out of order, twice, older copies, or of an epoch given up
};

// The exit code for an error of the engine: a private code of base/err.h or a negated errno; 0 for
// 0.
int exit_code(int error);

#endif
