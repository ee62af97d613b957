/* How the kernel treats the process: scheduling policy, I/O priority, execution domain, NUMA memory policy. */
#include "child.h"

#define IOPRIO_WHO_PGRP 2

int op_scheduler(struct child *c, const struct plan_op *op)
{
    const char *attr = op_string(c, op, 0); /* its first member is the size, as sched_setattr(2) wants it */
    uint32_t size;
    long ret;
    if (plan_room(&c->plan, op, 0) < op->args[0] || op->args[0] < sizeof(size))
        return failed(c, "plan", "scheduler", -EINVAL);
    memcpy(&size, attr, sizeof(size));
    if (size != op->args[0])
        return failed(c, "plan", "scheduler", -EINVAL);
    ret = SYS3(__NR_sched_setattr, 0, attr, 0);
    return ret < 0 ? failed(c, "sched_setattr", NULL, ret) : 0;
}

int op_ioprio(struct child *c, const struct plan_op *op)
{
    /* after setsid the process group is this process alone */
    long ret = SYS3(__NR_ioprio_set, IOPRIO_WHO_PGRP, 0, op->args[0]);
    return ret < 0 ? failed(c, "ioprio_set", NULL, ret) : 0;
}

int op_personality(struct child *c, const struct plan_op *op)
{
    long ret = SYS1(__NR_personality, op->args[0]);
    return ret < 0 ? failed(c, "personality", NULL, ret) : 0;
}

int op_mempolicy(struct child *c, const struct plan_op *op)
{
    uint64_t bits = op->args[1];
    long ret;
    if (bits / 8 >= plan_room(&c->plan, op, 0))
        return failed(c, "plan", "nodes", -EINVAL);
    /* the kernel counts one more than it reads */
    ret = SYS3(__NR_set_mempolicy, op->args[0], bits ? op_string(c, op, 0) : NULL, bits ? bits + 1 : 0);
    return ret < 0 ? failed(c, "set_mempolicy", NULL, ret) : 0;
}
