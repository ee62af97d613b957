/* Thin system call wrappers that Python has none of. Each returns a value or -errno; returned fds are CLOEXEC. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/mount.h>
#include <linux/nsfs.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "parent.h"

int shim_socketpair(int *parent_end, int *child_end)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    *parent_end = fds[0];
    *child_end = fds[1];
    return 0;
}

int shim_send(int fd, const void *data, size_t size, const int *fds, int n_fds)
{
    struct iovec iov = { (void *)(uintptr_t)data, size };
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * 253)];
    } control;
    struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    if (n_fds < 0 || n_fds > 253)
        return -EINVAL;
    if (n_fds > 0) {
        memset(&control, 0, sizeof(control));
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n_fds);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n_fds);
        memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * (size_t)n_fds);
    }
    do
        n = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int shim_recv(int fd, void *data, size_t size, int *fds, int max_fds, int *n_fds, int timeout_ms, int held)
{
    struct iovec iov = { data, size };
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * 16)];
    } control;
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    struct cmsghdr *header;
    ssize_t n;

    *n_fds = 0;
    if (timeout_ms >= 0 || held >= 0) {
        struct pollfd p[2] = { { fd, POLLIN, 0 }, { held, POLLIN, 0 } };
        int ready = poll(p, 2, timeout_ms);
        if (ready < 0)
            return -errno;
        if (ready == 0)
            return -ETIMEDOUT;
        if (p[0].revents == 0)
            return -ECANCELED;
    }
    n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    for (header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
        int count;
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < count; i++) {
            int received;
            memcpy(&received, CMSG_DATA(header) + sizeof(int) * (size_t)i, sizeof(int));
            if (*n_fds < max_fds)
                fds[(*n_fds)++] = received;
            else
                close(received);
        }
    }
    return message.msg_flags & (MSG_CTRUNC | MSG_TRUNC) ? -EMSGSIZE : (int)n;
}

int shim_open_tree(int dirfd, const char *path, unsigned int flags)
{
    return KERNEL(syscall(SYS_open_tree, dirfd, path, flags | OPEN_TREE_CLOEXEC));
}

int shim_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct open_how how = { .flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve };
    int fd = -EAGAIN;
    for (int i = 0; i < 128 && (fd == -EAGAIN || fd == -EINTR); i++)
        fd = KERNEL(syscall(SYS_openat2, dirfd, path, &how, sizeof(how)));
    return fd;
}

int shim_mount_setattr(int dirfd, const char *path, unsigned int flags, uint64_t set, uint64_t clr,
                       uint64_t propagation, int userns_fd)
{
    struct mount_attr attr = { .attr_set = set,
                               .attr_clr = clr,
                               .propagation = propagation,
                               .userns_fd = userns_fd < 0 ? 0 : (uint64_t)userns_fd };
    return KERNEL(syscall(SYS_mount_setattr, dirfd, path, flags, &attr, sizeof(attr)));
}

int shim_prlimit(int pid, int resource, uint64_t soft, uint64_t hard)
{
    struct rlimit64 limit = { soft, hard };
    return KERNEL(syscall(SYS_prlimit64, pid, resource, &limit, NULL));
}

int shim_set_subreaper(int on)
{
    return KERNEL(prctl(PR_SET_CHILD_SUBREAPER, on, 0, 0, 0));
}

int shim_set_dumpable(int on)
{
    return KERNEL(prctl(PR_SET_DUMPABLE, on, 0, 0, 0));
}

int shim_set_pdeathsig(int signal)
{
    return KERNEL(prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0));
}

int shim_nstype(int fd)
{
    return KERNEL(ioctl(fd, NS_GET_NSTYPE));
}

static int bpf(int command, union bpf_attr *attr)
{
    return KERNEL(syscall(SYS_bpf, command, attr, sizeof(*attr)));
}

int shim_bpf_load_device(const void *program, int n)
{
    struct rlimit64 unlimited = { RLIM64_INFINITY, RLIM64_INFINITY };
    union bpf_attr attr;
    int fd;

    memset(&attr, 0, sizeof(attr));
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = (uint64_t)(uintptr_t)program;
    attr.insn_cnt = (uint32_t)n;
    attr.license = (uint64_t)(uintptr_t) "GPL";
    fd = bpf(BPF_PROG_LOAD, &attr);
    if (fd == -EPERM) { /* before Linux 5.11 programs count as locked memory */
        syscall(SYS_prlimit64, 0, RLIMIT_MEMLOCK, &unlimited, NULL);
        fd = bpf(BPF_PROG_LOAD, &attr);
    }
    return fd;
}

int shim_bpf_attach(int cgroup_fd, int program_fd, int replace_fd)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.target_fd = (uint32_t)cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)program_fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = BPF_F_ALLOW_MULTI;
    if (replace_fd >= 0) {
        attr.attach_flags |= BPF_F_REPLACE;
        attr.replace_bpf_fd = (uint32_t)replace_fd;
    }
    return bpf(BPF_PROG_ATTACH, &attr);
}

int shim_bpf_detach(int cgroup_fd, int program_fd)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.target_fd = (uint32_t)cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)program_fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    return bpf(BPF_PROG_DETACH, &attr);
}

int shim_bpf_query(int cgroup_fd, uint32_t *ids, int max)
{
    union bpf_attr attr;
    int ret;
    memset(&attr, 0, sizeof(attr));
    attr.query.target_fd = (uint32_t)cgroup_fd;
    attr.query.attach_type = BPF_CGROUP_DEVICE;
    attr.query.prog_ids = (uint64_t)(uintptr_t)ids;
    attr.query.prog_cnt = (uint32_t)max;
    ret = bpf(BPF_PROG_QUERY, &attr);
    return ret < 0 ? ret : (int)attr.query.prog_cnt;
}

int shim_bpf_program_by_id(uint32_t id)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.prog_id = id;
    return bpf(BPF_PROG_GET_FD_BY_ID, &attr);
}

int shim_pidfd_getfd(int pidfd, int target)
{
    return KERNEL(syscall(SYS_pidfd_getfd, pidfd, target, 0));
}

int shim_connect_unix(const char *path, int timeout_ms)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct timeval limit = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };
    int file = -1, fd, ret;

    fd = KERNEL(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd < 0)
        return fd;
    if (strlen(path) < sizeof(address.sun_path)) {
        memcpy(address.sun_path, path, strlen(path) + 1);
    } else { /* sun_path is short, paths are not */
        file = KERNEL(open(path, O_PATH | O_CLOEXEC));
        if (file < 0) {
            close(fd);
            return file;
        }
        snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", file);
    }
    ret = KERNEL(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
    if (ret == 0)
        ret = KERNEL(connect(fd, (const struct sockaddr *)&address, sizeof(address)));
    if (file >= 0)
        close(file);
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

int shim_send_stream(int socket, const void *data, size_t size, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    const char *at = data;

    memset(&control, 0, sizeof(control));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
    while (size > 0) {
        struct iovec iov = { (void *)(uintptr_t)at, size };
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t n;
        if (fd >= 0) {
            message.msg_control = &control;
            message.msg_controllen = sizeof(control.space);
        }
        n = sendmsg(socket, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        fd = -1;
        at += n;
        size -= (size_t)n;
    }
    return 0;
}
