// SPDX-License-Identifier: MIT
// From error codes to exit codes.
#include "mountutil/exit_code.h"

#include "base/err.h"

int exit_code(int error)
{
    switch (-error) {
    case 0:
        return EXIT_CODE_OK;
    case ENOENT:
    case ENOTDIR:
        return EXIT_CODE_NOT_FOUND;
    case AF_E_NOT_A_STORE:
        return EXIT_CODE_NOT_A_STORE;
    case AF_E_STORE_LOCKED:
        return EXIT_CODE_IN_USE;
    case AF_E_VERSION:
        return EXIT_CODE_FORMAT;
    case AF_E_SB_NONE:
    case AF_E_SB_STALE:
    case AF_E_SB_FIELD:
        return EXIT_CODE_SUPERBLOCK;
    case AF_E_LOG_DAMAGED:
    case AF_E_LOG_RECORD:
        return EXIT_CODE_LOG_DAMAGED;
    case AF_E_LOG_MISSING:
        return EXIT_CODE_LOG_MISSING;
    case EACCES:
    case EPERM:
        return EXIT_CODE_PERMISSION;
    case ENOSPC:
    case EDQUOT:
        return EXIT_CODE_NO_SPACE;
    case EROFS:
    case AF_E_READ_ONLY:
    case AF_E_NEEDS_RECOVERY:
        return EXIT_CODE_READ_ONLY;
    case ENOTCONN:
        return EXIT_CODE_NOT_CONNECTED;
    case AF_E_STORE_EXISTS:
    case EEXIST:
    case ENOTEMPTY:
        return EXIT_CODE_EXISTS;
    case EIO:
    case AF_E_IO_SHORT:
    case AF_E_LOG_FAILED:
        return EXIT_CODE_IO;
    default:
        return err_is_corruption(error) ? EXIT_CODE_DAMAGE : EXIT_CODE_OTHER;
    }
}
