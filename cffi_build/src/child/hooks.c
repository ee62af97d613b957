/*
 * Hooks that run in the container's namespaces. The state goes in as a memfd, not a pipe: a hook that never reads
 * cannot block us, and one that closes early causes no EPIPE.
 */
#include "child.h"

#include <linux/close_range.h>
#include <linux/memfd.h>

#define OUTPUT_KEPT 200

struct hook {
    const char *path;
    const char **argv;
    const char **envp;
    int input;
    int output; /* 1 and 2, unless there are files for them */
    int out;
    int err;
    int failure; /* write end, CLOEXEC: carries errno when execve fails */
};

__attribute__((noreturn)) static void run(const struct hook *hook)
{
    long ret;
    uint64_t none = 0;
    int error;
    SYS2(__NR_setpgid, 0, 0);
    SYS4(__NR_rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof(none));
    SYS3(__NR_dup3, hook->input, 0, 0);
    SYS3(__NR_dup3, hook->out < 0 ? hook->output : hook->out, 1, 0);
    SYS3(__NR_dup3, hook->err < 0 ? hook->output : hook->err, 2, 0);
    SYS3(__NR_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
    set_pdeathsig(SIGKILL);
    ret = SYS3(__NR_execve, hook->path, hook->argv, hook->envp);
    error = (int)-ret;
    sys_write(hook->failure, &error, sizeof(error));
    sys_exit(127);
}

static int64_t now_ms(void)
{
    struct __kernel_timespec t;
    SYS2(__NR_clock_gettime, 1, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Collect output until the hook is gone or the time is up; returns 0, or -ETIMEDOUT after killing its group. */
static int follow(int pid, int pidfd, int output, uint64_t timeout_ms, char *kept, size_t *size)
{
    int64_t deadline = now_ms() + (int64_t)timeout_ms;
    bool open = true;
    for (;;) {
        struct sys_pollfd polls[2] = { { pidfd, SYS_POLLIN, 0 }, { open ? output : -1, SYS_POLLIN, 0 } };
        struct __kernel_timespec left = { 0, 0 };
        int64_t rest = deadline - now_ms();
        long n;
        if (timeout_ms != 0 && rest <= 0)
            break;
        left.tv_sec = rest / 1000;
        left.tv_nsec = rest % 1000 * 1000000;
        n = SYS5(__NR_ppoll, polls, 2, timeout_ms ? &left : NULL, 0, 8);
        if (n == -EINTR)
            continue;
        if (n < 0)
            break;
        if (polls[1].revents) {
            char buffer[512];
            long got = sys_read(output, buffer, sizeof(buffer));
            open = got > 0;
            for (long i = 0; i < got && *size < OUTPUT_KEPT; i++)
                kept[(*size)++] = buffer[i];
        } else if (polls[0].revents) {
            return 0;
        }
    }
    SYS2(__NR_kill, -pid, SIGKILL);
    SYS2(__NR_kill, pid, SIGKILL);
    return -ETIMEDOUT;
}

static int wait_for(int pid)
{
    int status = 0;
    long ret;
    do
        ret = SYS4(__NR_wait4, pid, &status, 0, 0);
    while (ret == -EINTR);
    return ret < 0 ? -1 : status;
}

/* The fd stays open for the hooks that follow; it has CLOEXEC, so the container's program never sees it. */
static int keep_output(struct child *c, const struct plan_op *op)
{
    int fd = op_fd(c, op);
    if (fd < 0)
        return fd;
    *(op->flags & OPF_STDOUT ? &c->hook_stdout : &c->hook_stderr) = fd;
    return 0;
}

int op_hook(struct child *c, const struct plan_op *op)
{
    struct hook hook = { .path = op_string(c, op, 0), .out = c->hook_stdout, .err = c->hook_stderr };
    struct clone_args args = { .flags = CLONE_PIDFD, .exit_signal = SIGCHLD };
    int output[2], failure[2], pidfd = -1, error = 0, ret, status;
    char kept[OUTPUT_KEPT + 1];
    size_t size = 0;
    long pid;

    if (op->flags & (OPF_STDOUT | OPF_STDERR))
        return keep_output(c, op);
    if (op->args[0] > 65536 || op->args[1] > 65536 || op->args[3] > plan_room(&c->plan, op, 3))
        return failed(c, "plan", "hook", -EINVAL);
    hook.argv = arena((op->args[0] + 1) * sizeof(char *));
    hook.envp = arena((op->args[1] + 1) * sizeof(char *)); /* zeroed: an end by itself */
    if (hook.argv == NULL || hook.envp == NULL)
        return failed(c, "mmap", hook.path, -ENOMEM);
    ret = plan_list(&c->plan, op, 1, op->args[0], hook.argv);
    if (ret == 0)
        ret = plan_list(&c->plan, op, 2, op->args[1], hook.envp);
    if ((op->flags & OPF_PROGRAM_ENV) && c->envp != NULL)
        hook.envp = (const char **)(uintptr_t)c->envp;
    if (ret < 0)
        return failed(c, "plan", hook.path, ret);

    hook.input = (int)SYS2(__NR_memfd_create, "state", MFD_CLOEXEC);
    if (hook.input < 0)
        return failed(c, "memfd_create", hook.path, hook.input);
    sys_write(hook.input, op_string(c, op, 3), op->args[3]);
    SYS3(__NR_lseek, hook.input, 0, 0);
    ret = (int)SYS2(__NR_pipe2, output, O_CLOEXEC);
    if (ret == 0)
        ret = (int)SYS2(__NR_pipe2, failure, O_CLOEXEC);
    if (ret < 0)
        return failed(c, "pipe", hook.path, ret);
    hook.output = output[1];
    hook.failure = failure[1];

    args.pidfd = (uint64_t)(uintptr_t)&pidfd;
    pid = sys_clone3(&args);
    if (pid == -ENOSYS || pid == -EPERM) /* what seccomp profiles answer to clone3, whose flags they cannot see */
        pid = SYS5(__NR_clone, CLONE_PIDFD | SIGCHLD, 0, &pidfd, 0, 0);
    if (pid == 0)
        run(&hook);
    sys_close(hook.input);
    sys_close(output[1]);
    sys_close(failure[1]);
    if (pid < 0)
        return failed(c, "clone3", hook.path, pid);

    ret = follow((int)pid, pidfd, output[0], op->args[2], kept, &size);
    status = wait_for((int)pid);
    if (sys_read(failure[0], &error, sizeof(error)) != sizeof(error))
        error = 0;
    sys_close(output[0]);
    sys_close(failure[0]);
    sys_close(pidfd);
    kept[size] = '\0';
    c->value = (uint64_t)(uint32_t)status;
    c->value2 = ret == -ETIMEDOUT;
    if (error != 0)
        return failed(c, "execve", hook.path, -error);
    if (ret == -ETIMEDOUT)
        return failed(c, "hook timeout", kept, -ETIMEDOUT);
    if (status != 0)
        return failed(c, "hook status", kept, -ECHILD);
    return 0;
}
