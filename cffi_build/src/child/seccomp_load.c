/* Loads the BPF program that the parent compiled and sent. */
#include "child.h"

#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>

/* Stop and tell the parent which fd the listener will have. From the moment the filter is in force any call of ours may
   wait for an answer of the agent, so nothing must be left to say before the agent has the listener: the parent takes it
   out of our fd table as soon as it appears there. */
static int announce(struct child *c)
{
    struct message m;
    long next, ret;

    next = SYS3(__NR_fcntl, c->sync, F_DUPFD_CLOEXEC, 0); /* the lowest free number, which the listener will get */
    if (next < 0)
        return failed(c, "fcntl", "listener", next);
    sys_close((int)next);
    memset(&m, 0, sizeof(m));
    m.type = MSG_SYNC;
    m.op = c->op;
    m.value = SYNC_LISTENER;
    m.value2 = (uint64_t)next;
    ret = send_message(c->sync, &m, sizeof(m));
    if (ret < 0)
        return failed(c, "send", "sync", ret);
    ret = sys_read(c->sync, &m, sizeof(m));
    if (ret == 0)
        sys_exit(1);
    if (ret != sizeof(m) || m.type != MSG_GO)
        return failed(c, "receive", "sync", ret < 0 ? ret : -EPROTO);
    if (m.value2 != 0)
        sys_prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* execve would do so anyway */
    return (int)next;
}

/* The parent has the listener: ours goes, or nobody would notice the end of the agent. */
static int drop(struct child *c, int listener)
{
    struct message m;
    long ret = sys_read(c->sync, &m, sizeof(m));
    if (ret == 0)
        sys_exit(1);
    if (ret != sizeof(m) || m.type != MSG_GO)
        return failed(c, "receive", "sync", ret < 0 ? ret : -EPROTO);
    sys_close(listener);
    return 0;
}

int op_seccomp(struct child *c, const struct plan_op *op)
{
    struct sock_filter *filter = arena(BPF_MAXINSNS * sizeof(*filter));
    struct sock_fprog program = { 0 };
    bool listener = op->args[0] & SECCOMP_FILTER_FLAG_NEW_LISTENER;
    size_t size = 0;
    long ret = 0;

    if (c->seccomp < 0)
        return failed(c, "plan", "no seccomp program", -EBADF);
    if (filter == NULL)
        return failed(c, "mmap", "seccomp", -ENOMEM);
    while (size < BPF_MAXINSNS * sizeof(*filter)) {
        ret = SYS4(__NR_pread64, c->seccomp, (char *)filter + size, BPF_MAXINSNS * sizeof(*filter) - size, size);
        if (ret <= 0)
            break;
        size += (size_t)ret;
    }
    sys_close(c->seccomp);
    c->seccomp = -1;
    if (ret < 0)
        return failed(c, "read", "seccomp program", ret);
    program.len = (unsigned short)(size / sizeof(*filter));
    program.filter = filter;
    if (listener) {
        ret = announce(c);
        if (ret < 0)
            return (int)ret;
    }
    ret = SYS3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, op->args[0], &program);
    if (ret < 0)
        return failed(c, "seccomp", NULL, ret);
    return listener ? drop(c, (int)ret) : 0;
}
