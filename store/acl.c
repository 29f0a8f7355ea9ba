// SPDX-License-Identifier: MIT
// POSIX ACLs: bytes and permission bits.

#include "store/acl.h"

#include <string.h>

#include "base/le.h"

enum tag { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

#define ACL_VERSION 2u

struct header {
    le32 version;
};
struct entry {
    le16 tag;
    le16 perm;
    le32 id;
};
_Static_assert(sizeof(struct entry) == 8, "as in the kernel's linux/posix_acl_xattr.h");

static size_t count_of(size_t size)
{
    return (size - sizeof(struct header)) / sizeof(struct entry);
}

static struct entry entry_get(const uint8_t *acl, size_t i)
{
    struct entry e;

    memcpy(&e, acl + sizeof(struct header) + i * sizeof(e), sizeof(e));
    return e;
}

static void perm_put(uint8_t *acl, size_t i, uint32_t perm)
{
    struct entry e = entry_get(acl, i);

    e.perm = le16_put((uint16_t)perm);
    memcpy(acl + sizeof(struct header) + i * sizeof(e), &e, sizeof(e));
}

// Index of the entry that there is one of at most; the number of entries when there is none.
static size_t find(const uint8_t *acl, size_t size, enum tag tag)
{
    size_t i = 0;

    while (i < count_of(size) && le16_get(entry_get(acl, i).tag) != tag)
        i++;
    return i;
}

// The entry that the group bits of the mode stand for.
static size_t group_class(const uint8_t *acl, size_t size)
{
    size_t mask = find(acl, size, MASK);

    return mask < count_of(size) ? mask : find(acl, size, GROUP_OBJ);
}

bool acl_is_name(const char *name)
{
    return strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0;
}

bool acl_valid(const uint8_t *acl, size_t size)
{
    unsigned previous = 0;
    bool named = false, mask = false;

    if (size < sizeof(struct header) || size > ACL_BYTES_MAX ||
        (size - sizeof(struct header)) % sizeof(struct entry) != 0)
        return false;
    struct header h;

    memcpy(&h, acl, sizeof(h));
    if (le32_get(h.version) != ACL_VERSION)
        return false;
    // In the order of their tags, each of the first four needed once but for the named ones.
    for (size_t i = 0; i < count_of(size); i++) {
        struct entry e = entry_get(acl, i);
        unsigned tag = le16_get(e.tag);
        bool many = tag == USER || tag == GROUP;

        if (le16_get(e.perm) > 7 || tag < previous || (tag == previous && !many))
            return false;
        if (tag != USER_OBJ && tag != USER && tag != GROUP_OBJ && tag != GROUP && tag != MASK &&
            tag != OTHER)
            return false;
        named = named || many;
        mask = mask || tag == MASK;
        previous = tag;
    }
    size_t n = count_of(size);

    return find(acl, size, USER_OBJ) < n && find(acl, size, GROUP_OBJ) < n &&
           find(acl, size, OTHER) < n && (mask || !named);
}

static uint32_t perm_get(const uint8_t *acl, size_t i)
{
    return le16_get(entry_get(acl, i).perm);
}

bool acl_to_mode(const uint8_t *acl, size_t size, uint32_t *ret_mode)
{
    *ret_mode = perm_get(acl, find(acl, size, USER_OBJ)) << 6 |
                perm_get(acl, group_class(acl, size)) << 3 | perm_get(acl, find(acl, size, OTHER));
    return count_of(size) == 3;
}

void acl_chmod(uint8_t *acl, size_t size, uint32_t mode)
{
    perm_put(acl, find(acl, size, USER_OBJ), mode >> 6 & 7);
    perm_put(acl, group_class(acl, size), mode >> 3 & 7);
    perm_put(acl, find(acl, size, OTHER), mode & 7);
}

bool acl_create(uint8_t *acl, size_t size, uint32_t *mode)
{
    uint32_t allowed;

    acl_to_mode(acl, size, &allowed);
    *mode &= ~UINT32_C(0777) | allowed;
    acl_chmod(acl, size, *mode);
    return count_of(size) == 3;
}
