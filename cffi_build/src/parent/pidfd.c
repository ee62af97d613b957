/*
 * How a process has ended, asked of a pidfd that was opened before: pidfs keeps the status (PIDFD_GET_INFO with
 * PIDFD_INFO_EXIT, Linux 6.15) once the parent has collected it. Kernel headers of that age are rare: the numbers of
 * include/uapi/linux/pidfd.h stand here.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "parent.h"

struct pidfd_information {
    uint64_t mask;
    uint64_t cgroup;
    uint32_t ids[11]; /* pid, tgid, ppid, and the four pairs of user and group */
    int32_t exit_code;
};
_Static_assert(sizeof(struct pidfd_information) == 64, "PIDFD_INFO_SIZE_VER0");

#define GET_INFORMATION _IOWR(0xFF, 11, struct pidfd_information)
#define INFORMATION_EXIT (1UL << 3)

int shim_pidfd_exit(int pidfd, int *status)
{
    struct pidfd_information information;
    int ret;

    memset(&information, 0, sizeof(information));
    information.mask = INFORMATION_EXIT;
    ret = KERNEL(ioctl(pidfd, GET_INFORMATION, &information));
    if (ret < 0)
        return ret;
    if (!(information.mask & INFORMATION_EXIT))
        return -EAGAIN;
    *status = information.exit_code;
    return 0;
}
