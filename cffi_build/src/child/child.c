/*
 * The init process: the ordered table of ops, and the loop that runs a plan. It decides nothing: the order is the
 * plan's (runtime-spec runtime.md "Lifecycle"; SPEC order O1..O9 in ociruntime/lifecycle/lower.py).
 */
#include "child.h"

#include <linux/close_range.h>
#include <linux/mman.h>
#include <linux/prctl.h>

static const op_handler handlers[OP_COUNT] = {
    [OP_CGROUP_JOIN] = op_cgroup_join,
    [OP_UNSHARE] = op_unshare,
    [OP_SETSID] = op_setsid,
    [OP_KEYRING] = op_keyring,
    [OP_LOOPBACK_UP] = op_loopback_up,
    [OP_PROPAGATION] = op_propagation,
    [OP_ROOTFS] = op_rootfs,
    [OP_MOUNT] = op_mount,
    [OP_BIND] = op_bind,
    [OP_PIN] = op_pin,
    [OP_GUARD_NAMES] = op_guard_names,
    [OP_DEVICE] = op_device,
    [OP_DEVICE_BIND] = op_device_bind,
    [OP_SYMLINK] = op_symlink,
    [OP_ATTR] = op_attr,
    [OP_REMOUNT] = op_remount,
    [OP_MASK] = op_mask,
    [OP_READONLY] = op_readonly,
    [OP_PIVOT] = op_pivot,
    [OP_ROOT_ATTR_PROPAGATION] = op_root_attr_propagation,
    [OP_CHROOT] = op_chroot,
    [OP_HOSTNAME] = op_hostname,
    [OP_DOMAINNAME] = op_domainname,
    [OP_SYSCTL] = op_sysctl,
    [OP_UMASK] = op_umask,
    [OP_MKDIR] = op_mkdir,
    [OP_NO_NEW_PRIVS] = op_no_new_privs,
    [OP_HOOK] = op_hook,
    [OP_SECCOMP] = op_seccomp,
    [OP_CHDIR] = op_chdir,
    [OP_BOUNDING] = op_bounding,
    [OP_CREDENTIALS] = op_credentials,
    [OP_CAPABILITIES] = op_capabilities,
    [OP_AMBIENT] = op_ambient,
    [OP_STDIO_OWNER] = op_stdio_owner,
    [OP_ENVIRONMENT] = op_environment,
    [OP_LOOKUP] = op_lookup,
    [OP_CONSOLE] = op_console,
    [OP_FIFO] = op_fifo,
    [OP_WAIT_START] = op_wait_start,
    [OP_EXEC] = op_exec,
    [OP_OOM_SCORE_ADJ] = op_oom_score_adj,
    [OP_APPARMOR] = op_apparmor,
    [OP_SELINUX] = op_selinux,
    [OP_BECOME_ROOT] = op_become_root,
    [OP_NO_PDEATHSIG] = op_no_pdeathsig,
    [OP_CHECK_CWD] = op_check_cwd,
    [OP_AFFINITY] = op_affinity,
    [OP_SCHEDULER] = op_scheduler,
    [OP_IOPRIO] = op_ioprio,
    [OP_PERSONALITY] = op_personality,
    [OP_MEMPOLICY] = op_mempolicy,
};

const char *op_string(const struct child *c, const struct plan_op *op, int i)
{
    return plan_string(&c->plan, op, i);
}

static int next_batch(struct child *c, uint32_t batch)
{
    struct message m;
    int n_fds, ret;

    for (int i = 0; i < FD_BATCH; i++)
        if (c->fds[i] >= 0)
            sys_close(c->fds[i]);
    memset(&m, 0, sizeof(m));
    m.type = MSG_FDS;
    m.op = c->op;
    m.value = batch;
    ret = send_message(c->sync, &m, sizeof(m));
    if (ret < 0)
        return failed(c, "send", "fds", ret);
    for (int i = 0; i < FD_BATCH; i++)
        c->fds[i] = -1;
    ret = receive_message(c->sync, &m, sizeof(m), c->fds, FD_BATCH, &n_fds);
    if (ret == 0)
        sys_exit(1); /* the parent is gone: nobody to report to */
    if (ret != sizeof(m) || m.type != MSG_FDS || m.value != batch)
        return failed(c, "receive", "fds", ret < 0 ? ret : -EPROTO);
    c->batch = batch;
    return 0;
}

int op_fd(struct child *c, const struct plan_op *op)
{
    uint32_t batch, slot;
    int fd, ret;
    if (op->fd < 0)
        return failed(c, "plan", "fd", -EBADF);
    batch = (uint32_t)op->fd / FD_BATCH;
    slot = (uint32_t)op->fd % FD_BATCH;
    if (batch != c->batch) {
        ret = next_batch(c, batch);
        if (ret < 0)
            return ret;
    }
    fd = c->fds[slot];
    c->fds[slot] = -1;
    return fd < 0 ? failed(c, "plan", "fd", -EBADF) : fd;
}

static void fill_sync(const struct child *c, struct message *m, uint32_t point)
{
    memset(m, 0, sizeof(*m));
    m->type = MSG_SYNC;
    m->op = c->op;
    m->value = point;
}

/* Wait for MSG_GO; *fd (if wanted) receives the one fd that may come with it. */
static int await_go(struct child *c, int *fd)
{
    struct message m;
    int fds[1] = { -1 }, n_fds = 0;
    long ret;

    if (fd != NULL)
        ret = receive_message(c->sync, &m, sizeof(m), fds, 1, &n_fds);
    else
        ret = sys_read(c->sync, &m, sizeof(m));
    if (ret == 0)
        sys_exit(1);
    if (ret != sizeof(m) || m.type != MSG_GO)
        return failed(c, "receive", "sync", ret < 0 ? ret : -EPROTO);
    if (m.value != 0)
        sys_exit(1); /* the parent has given up and knows why */
    if (fd != NULL)
        *fd = n_fds == 1 ? fds[0] : -1;
    return 0;
}

int send_sync(struct child *c, uint32_t point)
{
    struct message m;
    int ret;
    fill_sync(c, &m, point);
    ret = send_message(c->sync, &m, sizeof(m));
    return ret < 0 ? failed(c, "send", "sync", ret) : 0;
}

int sync_with_parent(struct child *c, uint32_t point, int *fd)
{
    int ret = send_sync(c, point);
    return ret < 0 ? ret : await_go(c, fd);
}

int sync_with_fd(struct child *c, uint32_t point, int passed)
{
    struct message m;
    int ret;
    fill_sync(c, &m, point);
    ret = send_message_fd(c->sync, &m, sizeof(m), passed);
    return ret < 0 ? failed(c, "send", "sync", ret) : await_go(c, NULL);
}

static int op_sync(struct child *c, const struct plan_op *op)
{
    if (op->args[0] == SYNC_READY)
        close_mount_helpers(c);
    bool may_bring_fd = op->args[0] == SYNC_READY || op->args[0] == SYNC_SECCOMP;
    return sync_with_parent(c, (uint32_t)op->args[0], may_bring_fd ? &c->seccomp : NULL);
}

static uint64_t now(void)
{
    struct __kernel_timespec t;
    SYS2(__NR_clock_gettime, 1, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void trace(struct child *c, uint64_t start)
{
    struct message m;
    if (c->sync < 0)
        return;
    memset(&m, 0, sizeof(m));
    m.type = MSG_TRACE;
    m.op = c->op;
    m.value = start;
    m.value2 = now();
    send_message(c->sync, &m, sizeof(m));
}

static int run_plan(struct child *c)
{
    const struct plan_header *header = c->plan.header;
    bool filtered = false;

    for (uint32_t i = 0; i < header->n_ops; i++) {
        const struct plan_op *op = &c->plan.ops[i];
        bool traced = (header->flags & PLAN_TRACE) && !filtered;
        uint64_t start = traced ? now() : 0;
        int ret;
        c->op = i - c->first_op;
        c->value = c->value2 = 0;
        if (i == header->fail_op)
            ret = failed(c, "fault injection", NULL, -(long)header->fail_errno);
        else if (op->kind == OP_SYNC)
            ret = op_sync(c, op);
        else if (handlers[op->kind] != NULL)
            ret = handlers[op->kind](c, op);
        else
            ret = failed(c, "plan", "unknown op", -ENOSYS);
        if (ret < 0)
            return ret;
        filtered = filtered || op->kind == OP_SECCOMP;
        if (traced && !filtered)
            trace(c, start);
    }
    return failed(c, "plan", "no exec", -EINVAL);
}

/* MSG_PLAN: the block, mapped read-only, and the first batch of fds. */
static int receive_plan(struct child *c)
{
    int fds[FD_BATCH + 1], n_fds, ret;
    struct message m;
    struct statx st;
    long at;

    ret = receive_message(c->sync, &m, sizeof(m), fds, FD_BATCH + 1, &n_fds);
    if (ret == 0)
        sys_exit(1);
    if (ret != sizeof(m) || m.type != MSG_PLAN || n_fds < 1)
        return failed(c, "receive", "plan", ret < 0 ? ret : -EPROTO);
    for (int i = 0; i < FD_BATCH; i++)
        c->fds[i] = i + 1 < n_fds ? fds[i + 1] : -1;
    at = sys_statx(fds[0], "", AT_EMPTY_PATH, STATX_SIZE, &st);
    if (at < 0)
        return failed(c, "statx", "plan", at);
    at = SYS6(__NR_mmap, 0, st.stx_size, PROT_READ, MAP_PRIVATE, fds[0], 0);
    sys_close(fds[0]);
    if (IS_ERR(at))
        return failed(c, "mmap", "plan", at);
    ret = plan_open(&c->plan, (const void *)at, st.stx_size);
    return ret < 0 ? failed(c, "plan", "check", ret) : 0;
}

/* The kernel's struct sigaction. */
struct action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

/* What a caller may have left ignored or blocked must not reach the container. */
static void reset_signals(void)
{
    struct action action;
    uint64_t none = 0;
    memset(&action, 0, sizeof(action));
    for (int signal = 1; signal <= 64; signal++)
        SYS4(__NR_rt_sigaction, signal, &action, 0, sizeof(none));
    SYS4(__NR_rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof(none));
}

static void no_action(int signal)
{
    (void)signal;
}

void outlive_sigpipe(void)
{
    struct action action;
    memset(&action, 0, sizeof(action));
    action.handler = no_action;
#if defined(__x86_64__)
    action.flags = 0x04000000; /* SA_RESTORER */
    action.restorer = end_of_signal;
#endif
    SYS4(__NR_rt_sigaction, SIGPIPE, &action, 0, sizeof(action.mask));
}

void child_main(int sync, char *waits)
{
    struct child c;
    struct boot request;
    int fds[BOOT_MAX_JOIN + 1], n_fds, ret;

    memset(&c, 0, sizeof(c));
    c.sync = c.report = sync;
    c.op = STAGE_OP;
    c.fifo = c.links = -1;
    c.waits = waits;
    c.root = c.proc = c.proc_full = c.null_tree = c.mask_tree = c.seccomp = -1;
    c.hook_stdout = c.hook_stderr = -1;
    for (int i = 0; i < FD_BATCH; i++)
        c.fds[i] = -1;

    sys_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    set_pdeathsig(SIGKILL);
    SYS3(__NR_fcntl, sync, F_SETFD, 1 /* FD_CLOEXEC */);
    reset_signals();
    SYS1(__NR_umask, 0); /* nodes and directories get exactly the mode the plan says */

    ret = receive_message(sync, &request, sizeof(request), fds, BOOT_MAX_JOIN + 1, &n_fds);
    if (ret == 0)
        sys_exit(1);
    if (ret != sizeof(request) || request.type != MSG_BOOT)
        ret = failed(&c, "receive", "boot", ret < 0 ? ret : -EPROTO);
    else
        ret = boot(&c, &request, fds, n_fds);
    if (ret == 0)
        ret = receive_plan(&c);
    if (ret == 0)
        ret = run_plan(&c);
    report(&c, MSG_ERROR, ret);
    sys_exit(1);
}
