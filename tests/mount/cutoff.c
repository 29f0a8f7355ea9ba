// SPDX-License-Identifier: MIT
// cutoff DIRECTORY: cuts the power of the file system (ext4, xfs) that is mounted there: its log
// is not flushed, what it had not written is gone with the next unmount, and everything fails until
// then.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
    // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same number, and so is "do not flush the
    // log".
    const unsigned long request = _IOR('X', 125, uint32_t);
    uint32_t no_log_flush = 2;
    int fd = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;

    if (fd < 0 || ioctl(fd, request, &no_log_flush)) {
        perror("cutoff");
        return 1;
    }
    return 0;
}
