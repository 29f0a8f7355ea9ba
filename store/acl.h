// SPDX-License-Identifier: MIT
// POSIX ACLs as the kernel passes them (struct posix_acl_xattr_header and entries): pure functions
// on the bytes. They are kept as the extended attributes system.posix_acl_access and
// system.posix_acl_default; the kernel checks permissions by them, what changes with them (mode,
// inheritance) is ours.
#ifndef AF_STORE_ACL_H
#define AF_STORE_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACL_ACCESS    "system.posix_acl_access"
#define ACL_DEFAULT   "system.posix_acl_default"
#define ACL_BYTES_MAX 1024u // 127 entries: an ACL lies in the tree like any small value

bool acl_is_name(const char *name); // either of the two

// True for what acl(5) calls a valid ACL. Without it the other functions may not be called.
bool acl_valid(const uint8_t *acl, size_t size);
// The permission bits that the ACL stands for. True when they say all of it: no named users or
// groups and no mask.
bool acl_to_mode(const uint8_t *acl, size_t size, uint32_t *ret_mode);
// chmod(2): the entries of owner, group class and others follow the mode.
void acl_chmod(uint8_t *acl, size_t size, uint32_t mode);
// A new object whose directory has this default ACL, made with *mode: the ACL becomes its access
// ACL, and both are cut down to what the other allows. True when the mode then says all of it.
bool acl_create(uint8_t *acl, size_t size, uint32_t *mode);

#endif
