/* Datagrams on the sync socket. Plain read and write where no fds travel: a harsh seccomp profile allows those. */
#include "child.h"

int send_message(int fd, const void *data, size_t size)
{
    long n = sys_write(fd, data, size);
    return n < 0 ? (int)n : 0;
}

int send_message_fd(int fd, const void *data, size_t size, int passed)
{
    struct sys_iovec iov = { (void *)(uintptr_t)data, size };
    struct {
        struct sys_cmsghdr header;
        int fd;
        int pad;
    } control = { { sizeof(struct sys_cmsghdr) + sizeof(int), SYS_SOL_SOCKET, SYS_SCM_RIGHTS }, passed, 0 };
    struct sys_msghdr message = { .iov = &iov, .iovlen = 1, .control = &control, .controllen = sizeof(control) };
    long n = SYS3(__NR_sendmsg, fd, &message, SYS_MSG_NOSIGNAL);
    return n < 0 ? (int)n : 0;
}

int receive_message(int fd, void *data, size_t size, int *fds, int max_fds, int *n_fds)
{
    union {
        struct sys_cmsghdr header;
        char space[sizeof(struct sys_cmsghdr) + sizeof(int) * (FD_BATCH + 2)];
    } control;
    struct sys_iovec iov = { data, size };
    struct sys_msghdr message = { 0 };
    long n;

    message.iov = &iov;
    message.iovlen = 1;
    message.control = &control;
    message.controllen = sizeof(control);
    do
        n = SYS3(__NR_recvmsg, fd, &message, SYS_MSG_CMSG_CLOEXEC);
    while (n == -EINTR);
    *n_fds = 0;
    if (n <= 0)
        return (int)n;
    if (message.flags & SYS_MSG_CTRUNC)
        return -EMFILE;
    if (message.controllen >= sizeof(control.header) && control.header.level == SYS_SOL_SOCKET &&
        control.header.type == SYS_SCM_RIGHTS) {
        int count = (int)((control.header.len - sizeof(control.header)) / sizeof(int));
        const char *at = control.space + sizeof(control.header);
        if (count > max_fds)
            return -EPROTO;
        memcpy(fds, at, sizeof(int) * (size_t)count);
        *n_fds = count;
    }
    return (int)n;
}
