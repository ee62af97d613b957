/* Loads the BPF program that the parent compiled and sent. */
#include "child.h"

#include <linux/filter.h>
#include <linux/seccomp.h>

int op_seccomp(struct child *c, const struct plan_op *op)
{
    struct sock_filter *filter = arena(BPF_MAXINSNS * sizeof(*filter));
    struct sock_fprog program = { 0 };
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
    ret = SYS3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, op->args[0], &program);
    return ret < 0 ? failed(c, "seccomp", NULL, ret) : 0;
}
