#ifndef OCIRUNTIME_SYS_H
#define OCIRUNTIME_SYS_H
/*
 * System calls for code without a libc: each returns the kernel's value, a failure is -errno.
 * Structures come from the kernel's own uapi headers; the few that those hide behind libc are declared here.
 */
#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/stat.h>
#include <linux/time_types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Error numbers: asm-generic/errno.h is the same on x86_64 and aarch64. */
#include <asm/errno.h>

#ifndef __NR_mount_setattr
#error "kernel headers of Linux 5.12 or later are needed"
#endif

#if defined(__x86_64__)
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}
#elif defined(__aarch64__)
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
    return x0;
}
#else
#error "this architecture has no system call stubs yet"
#endif

#define SYS_ARG(x) ((long)(x))
#define SYS0(n) sys6(n, 0, 0, 0, 0, 0, 0)
#define SYS1(n, a) sys6(n, SYS_ARG(a), 0, 0, 0, 0, 0)
#define SYS2(n, a, b) sys6(n, SYS_ARG(a), SYS_ARG(b), 0, 0, 0, 0)
#define SYS3(n, a, b, c) sys6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), 0, 0, 0)
#define SYS4(n, a, b, c, d) sys6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), 0, 0)
#define SYS5(n, a, b, c, d, e) sys6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), SYS_ARG(e), 0)
#define SYS6(n, a, b, c, d, e, f) sys6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), SYS_ARG(e), SYS_ARG(f))

/* What <sys/...> would have given. */
#define S_TYPE_MASK 0170000
#define S_TYPE_DIR 0040000
#define S_TYPE_CHR 0020000
#define S_TYPE_BLK 0060000
#define S_TYPE_REG 0100000
#define S_TYPE_LNK 0120000
#define IS_ERR(x) ((long)(x) < 0 && (long)(x) > -4096)

#define PROC_SUPER_MAGIC 0x9fa0
#define CGROUP_SUPER_MAGIC 0x27e0eb
#define CGROUP2_SUPER_MAGIC 0x63677270

#define MNT_DETACH 2
#define SIGKILL 9
#define SIGPIPE 13
#define SIGCHLD 17
#define SIG_BLOCK 0
#define SIG_SETMASK 2

/* asm-generic struct statfs, as both architectures have it. */
struct sys_statfs {
    long f_type;
    long f_bsize;
    uint64_t f_rest[14];
};

struct sys_iovec {
    void *base;
    size_t len;
};

struct sys_msghdr {
    void *name;
    int namelen;
    struct sys_iovec *iov;
    size_t iovlen;
    void *control;
    size_t controllen;
    unsigned int flags;
};

struct sys_cmsghdr {
    size_t len;
    int level;
    int type;
};

struct sys_pollfd {
    int fd;
    short events;
    short revents;
};

#define SYS_POLLIN 1
#define SYS_SCM_RIGHTS 1
#define SYS_SOL_SOCKET 1
#define SYS_MSG_CTRUNC 8
#define SYS_MSG_NOSIGNAL 0x4000
#define SYS_MSG_CMSG_CLOEXEC 0x40000000

static inline long sys_openat(int dirfd, const char *path, int flags, unsigned int mode)
{
    return SYS4(__NR_openat, dirfd, path, flags, mode);
}

static inline long sys_close(int fd)
{
    return SYS1(__NR_close, fd);
}

static inline long sys_read(int fd, void *buffer, size_t size)
{
    long n;
    do
        n = SYS3(__NR_read, fd, buffer, size);
    while (n == -EINTR);
    return n;
}

static inline long sys_write(int fd, const void *data, size_t size)
{
    long n;
    do
        n = SYS3(__NR_write, fd, data, size);
    while (n == -EINTR);
    return n;
}

static inline long sys_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
    return SYS5(__NR_prctl, option, a, b, c, d);
}

static inline long sys_statx(int dirfd, const char *path, int flags, unsigned int mask, struct statx *st)
{
    return SYS5(__NR_statx, dirfd, path, flags, mask, st);
}

static inline long sys_mount_setattr(int dirfd, const char *path, unsigned int flags, struct mount_attr *attr)
{
    return SYS5(__NR_mount_setattr, dirfd, path, flags, attr, sizeof(*attr));
}

static inline long sys_open_tree(int dirfd, const char *path, unsigned int flags)
{
    return SYS3(__NR_open_tree, dirfd, path, flags);
}

/* Mount from_fd (a mount or detached tree) onto what to_fd refers to. */
static inline long sys_move_mount(int from_fd, int to_fd)
{
    return SYS5(__NR_move_mount, from_fd, "", to_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static inline long sys_clone3(struct clone_args *args)
{
    return SYS2(__NR_clone3, args, sizeof(*args));
}

__attribute__((noreturn)) static inline void sys_exit(int status)
{
    for (;;)
        SYS1(__NR_exit_group, status);
}
#endif
