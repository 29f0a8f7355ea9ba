// SPDX-License-Identifier: MIT
// The version of the programs, in one place. The format on disk has its own (store/store_format.h).
#ifndef AF_BASE_VERSION_H
#define AF_BASE_VERSION_H

#define AF_VERSION "0.1.0"

#endif
