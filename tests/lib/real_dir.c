// SPDX-License-Identifier: MIT
// Removing a directory with what is in it (real_dir.h).
#include "tests/lib/real_dir.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void real_dir_remove(const char *dir)
{
    char path[700];
    DIR *d = opendir(dir);

    for (struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (unlink(path) < 0)
            real_dir_remove(path);
    }
    if (d)
        closedir(d);
    rmdir(dir);
}
