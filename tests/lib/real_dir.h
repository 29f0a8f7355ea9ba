// SPDX-License-Identifier: MIT
// Directories of tests that work on the real file system.
#ifndef AF_TESTS_REAL_DIR_H
#define AF_TESTS_REAL_DIR_H

// Removes it with everything in it; what is not there is no error.
void real_dir_remove(const char *dir);

#endif
