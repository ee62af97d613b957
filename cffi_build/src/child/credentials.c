/* Who the process is: ids, groups, capabilities, no_new_privs. Order: man capabilities(7), "Effect of user ID changes". */
#include "child.h"

#include <linux/prctl.h>

void set_pdeathsig(int signal)
{
    sys_prctl(PR_SET_PDEATHSIG, (unsigned long)signal, 0, 0, 0);
}

int op_no_pdeathsig(struct child *c, const struct plan_op *op)
{
    set_pdeathsig(0);
    if (op->args[0]) {
        close_helpers(c); /* who may look at us from now on finds nothing */
        sys_prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    }
    return 0;
}

int op_no_new_privs(struct child *c, const struct plan_op *op)
{
    long ret = sys_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)op;
    return ret < 0 ? failed(c, "prctl", "PR_SET_NO_NEW_PRIVS", ret) : 0;
}

int op_become_root(struct child *c, const struct plan_op *op)
{
    long ret = SYS3(__NR_setresgid, 0, 0, 0);
    if (ret < 0)
        return failed(c, "setresgid", "0", ret);
    if (!(op->flags & OPF_KEEP_GROUPS)) {
        ret = SYS2(__NR_setgroups, 0, 0);
        if (ret < 0)
            return failed(c, "setgroups", NULL, ret);
    }
    ret = SYS3(__NR_setresuid, 0, 0, 0);
    if (ret < 0)
        return failed(c, "setresuid", "0", ret);
    sys_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    set_pdeathsig(SIGKILL); /* a change of ids clears it */
    return 0;
}

int op_bounding(struct child *c, const struct plan_op *op)
{
    for (unsigned long cap = 0; cap < 64; cap++) {
        long ret = sys_prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
        if (ret == -EINVAL && cap > 0)
            return 0; /* past the last capability of this kernel */
        if (ret < 0)  /* a seccomp filter: the set must not stay as it is */
            return failed(c, "prctl", "PR_CAPBSET_READ", ret);
        if (ret == 0 || (op->args[0] >> cap & 1))
            continue;
        ret = sys_prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
        if (ret < 0)
            return failed(c, "prctl", "PR_CAPBSET_DROP", ret);
    }
    return 0;
}

static bool setgroups_denied(struct child *c)
{
    char text[8] = "";
    int fd = open_in(own_proc(c), "self/setgroups", O_RDONLY, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
    if (fd < 0)
        return false;
    sys_read(fd, text, sizeof(text) - 1);
    sys_close(fd);
    return starts_with(text, "deny");
}

int op_credentials(struct child *c, const struct plan_op *op)
{
    uint32_t uid = (uint32_t)(op->args[0] >> 32), gid = (uint32_t)op->args[0];
    char text[24];
    long ret;

    ret = sys_prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    if (ret < 0)
        return failed(c, "prctl", "PR_SET_KEEPCAPS", ret);
    if (!(op->flags & OPF_KEEP_GROUPS)) {
        uint32_t *groups;
        size_t size = op->args[1] * sizeof(uint32_t);
        if (op->args[1] > 65536 || size > plan_room(&c->plan, op, 0))
            return failed(c, "plan", "groups", -EINVAL);
        groups = arena(size); /* aligned, unlike the string table */
        if (groups == NULL)
            return failed(c, "mmap", "groups", -ENOMEM);
        memcpy(groups, op_string(c, op, 0), size);
        ret = SYS2(__NR_setgroups, op->args[1], groups);
        /* in a user namespace that somebody else made, setgroups may have been denied for good */
        if (ret < 0 && !(ret == -EPERM && op->args[1] == 0 && setgroups_denied(c)))
            return failed(c, "setgroups", NULL, ret);
    }
    ret = SYS3(__NR_setresgid, gid, gid, gid);
    if (ret < 0) {
        decimal(text, gid);
        return failed(c, "setresgid", text, ret);
    }
    ret = SYS3(__NR_setresuid, uid, uid, uid);
    if (ret < 0) {
        decimal(text, uid);
        return failed(c, "setresuid", text, ret);
    }
    ret = sys_prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    if (ret < 0)
        return failed(c, "prctl", "PR_SET_KEEPCAPS", ret);
    sys_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    set_pdeathsig(SIGKILL);
    return 0;
}

int op_capabilities(struct child *c, const struct plan_op *op)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    long ret;
    for (int i = 0; i < 2; i++) {
        data[i].effective = (uint32_t)(op->args[0] >> (32 * i));
        data[i].permitted = (uint32_t)(op->args[1] >> (32 * i));
        data[i].inheritable = (uint32_t)(op->args[2] >> (32 * i));
    }
    ret = SYS2(__NR_capset, &header, data);
    return ret < 0 ? failed(c, "capset", NULL, ret) : 0;
}

int op_ambient(struct child *c, const struct plan_op *op)
{
    sys_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (unsigned long cap = 0; cap < 64; cap++) {
        long ret;
        if (!(op->args[0] >> cap & 1))
            continue;
        ret = sys_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
        if (ret < 0) {
            char text[24];
            decimal(text, cap);
            warn(c, "ambient capability", text, ret);
        }
    }
    return 0;
}

int op_stdio_owner(struct child *c, const struct plan_op *op)
{
    for (int fd = 0; fd <= 2; fd++) {
        struct statx st;
        long ret = sys_statx(fd, "", AT_EMPTY_PATH, STATX_UID | STATX_TYPE, &st);
        if (ret < 0 || st.stx_uid == op->args[0])
            continue;
        if (is_host_null(fd)) /* shared with everyone */
            continue;
        ret = SYS5(__NR_fchownat, fd, "", op->args[0], -1, AT_EMPTY_PATH);
        if (ret < 0 && ret != -EPERM && ret != -EROFS && ret != -EINVAL)
            return failed(c, "fchown", "stdio", ret);
    }
    return 0;
}
