/*
 * Starting processes: the sealed init, and hooks. Between clone and execve only system calls: no allocation, no stdio,
 * no Python. CLONE_VM | CLONE_VFORK: the child borrows our memory (on a stack of its own) until it execs, so a large
 * or threaded caller costs nothing and no lock can be held across.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "parent.h"

#define STACK_SIZE (64 * 1024)
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif

/* clone3 with a new stack: the child runs function(argument), which must not return. Kernel convention: -errno. */
static long clone3_run(struct clone_args *args, void (*function)(void *), void *argument)
{
#if defined(__x86_64__)
    long ret;
    register void (*fn)(void *) __asm__("r8") = function;
    register void *arg __asm__("r9") = argument;
    __asm__ volatile("syscall\n"
                     "test %%rax, %%rax\n"
                     "jnz 1f\n"
                     "xor %%ebp, %%ebp\n"
                     "mov %%r9, %%rdi\n"
                     "call *%%r8\n"
                     "hlt\n"
                     "1:\n"
                     : "=a"(ret)
                     : "a"(SYS_clone3), "D"(args), "S"(sizeof(*args)), "r"(fn), "r"(arg)
                     : "rcx", "r11", "memory");
    return ret;
#elif defined(__aarch64__)
    register long x0 __asm__("x0") = (long)args;
    register long x1 __asm__("x1") = sizeof(*args);
    register long x8 __asm__("x8") = SYS_clone3;
    register void (*fn)(void *) __asm__("x10") = function;
    register void *arg __asm__("x11") = argument;
    __asm__ volatile("svc 0\n"
                     "cbnz x0, 1f\n"
                     "mov x29, #0\n"
                     "mov x0, x11\n"
                     "blr x10\n"
                     "brk #1\n"
                     "1:\n"
                     : "+r"(x0)
                     : "r"(x1), "r"(x8), "r"(fn), "r"(arg)
                     : "memory", "cc", "x30");
    return x0;
#else
#error "this architecture has no clone3 stub yet"
#endif
}

/* Everything the child touches is on the parent's stack, shared until execve. */
struct init_start {
    const struct spawn_request *request;
    char fd_text[16];
    const char *argv[3];
    const char *envp[1];
    int error;
};

/*
 * A caller whose standard streams are closed has other files of ours under their numbers, marked CLOEXEC. The container
 * gets /dev/null there: it must neither see those files nor have them given away to its user.
 */
static int fill_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        int null, flags = fcntl(fd, F_GETFD);
        if (flags >= 0 && !(flags & FD_CLOEXEC))
            continue;
        null = open("/dev/null", O_RDWR);
        if (null < 0)
            return -1;
        if (null != fd) {
            if (dup2(null, fd) < 0)
                return -1;
            close(null);
        }
    }
    return 0;
}

static void start_init(void *argument)
{
    struct init_start *start = argument;
    const struct spawn_request *r = start->request;
    int first = 3 + (r->preserve_fds > 0 ? r->preserve_fds : 0);
    int sync = r->sync_fd < first ? fcntl(r->sync_fd, F_DUPFD, first) : r->sync_fd;
    int exe = r->exe_fd < first ? fcntl(r->exe_fd, F_DUPFD, first) : r->exe_fd;

    if (sync >= 0 && exe >= 0 && fill_standard_streams() == 0 &&
        syscall(SYS_close_range, first, ~0U, CLOSE_RANGE_CLOEXEC) == 0 && fcntl(sync, F_SETFD, 0) == 0) {
        char *at = start->fd_text + sizeof(start->fd_text) - 1;
        do
            *--at = (char)('0' + sync % 10);
        while ((sync /= 10) > 0);
        start->argv[1] = at;
        syscall(SYS_execveat, exe, "", start->argv, start->envp, AT_EMPTY_PATH);
    }
    start->error = errno;
    syscall(SYS_exit, 127);
}

/* Run function in a vforked child with every signal blocked. error: where the child leaves its errno. */
static int spawn(struct clone_args *args, void (*function)(void *), void *argument, const int *error,
                 struct spawn_result *result)
{
    sigset_t all, old;
    char *stack;
    int pidfd = -1;
    long pid;

    stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;
    args->flags |= CLONE_VM | CLONE_VFORK | CLONE_PIDFD;
    args->pidfd = (uint64_t)(uintptr_t)&pidfd;
    args->exit_signal = SIGCHLD;
    args->stack = (uint64_t)(uintptr_t)stack;
    args->stack_size = STACK_SIZE;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid = clone3_run(args, function, argument);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    munmap(stack, STACK_SIZE);
    if (pid < 0)
        return (int)pid;
    if (*error != 0) {
        while (waitpid((pid_t)pid, NULL, __WALL) < 0 && errno == EINTR)
            ;
        close(pidfd);
        return -*error;
    }
    result->pid = (int32_t)pid;
    result->pidfd = pidfd;
    return 0;
}

int shim_spawn(const struct spawn_request *request, struct spawn_result *result)
{
    struct clone_args args = { .flags = request->clone_flags };
    struct init_start start = { .request = request };

    start.argv[0] = "ociruntime-init";
    if (request->cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)request->cgroup_fd;
    }
    return spawn(&args, start_init, &start, &start.error, result);
}

struct process_start {
    struct process_request *request; /* a copy of the caller's */
    int error;
};

/* dup2 that also works when both are the same fd: CLOEXEC must go. */
static int place(int fd, int at)
{
    if (fd == at)
        return fcntl(fd, F_SETFD, 0);
    return dup2(fd, at);
}

static void start_process(void *argument)
{
    struct process_start *start = argument;
    struct process_request *r = start->request;
    int *streams[] = { &r->stdin_fd, &r->stdout_fd, &r->stderr_fd };
    sigset_t none;
    const unsigned long action[4] = { 0 }; /* the kernel's sigaction: SIG_DFL, no flags, no mask */

    /* not sigaction(3): libc keeps two signals for itself, which a caller may have left ignored all the same */
    for (int signal = 1; signal < 65; signal++)
        syscall(SYS_rt_sigaction, signal, action, NULL, 8); /* EINVAL for KILL and STOP: nothing to do there */
    sigemptyset(&none);
    if (r->new_session)
        setsid();
    /* sources among 0..2 (a caller with closed streams) would be overwritten by one another */
    for (int i = 0; i < 3; i++)
        if (*streams[i] <= 2)
            *streams[i] = fcntl(*streams[i], F_DUPFD_CLOEXEC, 3);
    if ((r->cwd_fd >= 0 && fchdir(r->cwd_fd) < 0) || place(r->stdin_fd, 0) < 0 || place(r->stdout_fd, 1) < 0 ||
        place(r->stderr_fd, 2) < 0 || syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0) {
        start->error = errno;
    } else {
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
        execve(r->path, r->argv, r->envp);
        start->error = errno;
    }
    syscall(SYS_exit, 127);
}

int shim_run_process(const struct process_request *request, struct spawn_result *result)
{
    struct clone_args args = { 0 };
    struct process_request copy = *request;
    struct process_start start = { .request = &copy };
    int null = -1, ret, *fds[] = { &copy.stdin_fd, &copy.stdout_fd, &copy.stderr_fd };

    for (int i = 0; i < 3; i++) {
        if (*fds[i] >= 0)
            continue;
        if (null < 0)
            null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0)
            return -errno;
        *fds[i] = null;
    }
    ret = spawn(&args, start_process, &start, &start.error, result);
    if (null >= 0)
        close(null);
    return ret;
}

struct tree_start {
    const char *path;
    unsigned int flags;
    int fd;
    int error;
};

static void start_tree(void *argument)
{
    struct tree_start *start = argument;
    /* MS_SLAVE alone leaves unbindable mounts as they are (mount_namespaces(7)) */
    if (mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) == 0 && mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) == 0)
        start->fd = (int)syscall(SYS_open_tree, AT_FDCWD, start->path, start->flags | OPEN_TREE_CLOEXEC);
    if (start->fd < 0)
        start->error = errno;
    syscall(SYS_exit, start->error != 0);
}

/* The child shares our files, so what it opens is here when it has ended; its namespace ends with it. */
int shim_open_tree_apart(const char *path, unsigned int flags)
{
    struct clone_args args = { .flags = CLONE_NEWNS | CLONE_FILES };
    struct tree_start start = { .path = path, .flags = flags, .fd = -1 };
    struct spawn_result result = { .pid = -1, .pidfd = -1 };
    int ret = spawn(&args, start_tree, &start, &start.error, &result);
    if (ret < 0)
        return ret;
    while (waitpid(result.pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    close(result.pidfd);
    return start.fd;
}
