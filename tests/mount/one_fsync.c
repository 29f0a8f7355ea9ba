// SPDX-License-Identifier: MIT
// one_fsync DIRECTORY: changes a file through several descriptors and a mapping, then one fsync;
// ends with exit code 0 when that returned 0. Afterwards DIRECTORY/name holds "AAAABBBBCCCCDDDD"
// and eight more bytes, DIRECTORY/temporary is gone.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    must(argc == 2 && chdir(argv[1]) == 0, "directory");
    int one = open("temporary", O_RDWR | O_CREAT | O_EXCL, 0644);
    int two = open("temporary", O_RDWR);
    int three = open("temporary", O_WRONLY | O_APPEND);
    must(one >= 0 && two >= 0 && three >= 0, "open");
    must(pwrite(one, "AAAA", 4, 0) == 4, "write");
    must(pwrite(two, "BBBB", 4, 4) == 4, "write by another descriptor");
    must(write(three, "CCCCxxxxxxxxxxxx", 16) == 16, "append");
    must(ftruncate(two, 12) == 0 && ftruncate(one, 24) == 0, "truncate");
    char *map = mmap(NULL, 24, PROT_READ | PROT_WRITE, MAP_SHARED, one, 0);
    must(map != MAP_FAILED, "mmap");
    memcpy(map + 12, "DDDD", 4);
    must(msync(map, 24, MS_SYNC) == 0, "msync");
    memcpy(map + 16, "mapped", 6); // not synced by itself: the fsync takes it along
    must(rename("temporary", "name") == 0, "rename");
    must(fsync(three) == 0, "fsync");
    return 0;
}
