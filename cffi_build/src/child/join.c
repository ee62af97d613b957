/*
 * From the first instruction to "this process is the container's init".
 * Common case: clone3 made all namespaces, nothing is left to do. Otherwise the process is the intermediate: it joins
 * namespaces by fd, makes a time namespace, clones init with CLONE_PARENT (so init is the runtime's child) and exits.
 */
#include "child.h"

#include <linux/prctl.h>

static int join(struct child *c, const struct boot *b, const int *fds)
{
    bool done[BOOT_MAX_JOIN] = { false };
    long ret;

    /* All but user first; then user; then what only the user namespace's root was allowed to join. */
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < b->n_join; i++) {
            bool user = b->join_flags[i] & CLONE_NEWUSER; /* alone, or with the others through one pidfd */
            if (done[i] || user != (round == 1))
                continue;
            ret = SYS2(__NR_setns, fds[i], b->join_flags[i]);
            if (ret == -EPERM && round == 0)
                continue;
            if (ret < 0) {
                c->value = i;
                return failed(c, "setns", NULL, ret);
            }
            done[i] = true;
            if (user) {
                if (!(b->flags & BOOT_KEEP_GROUPS))
                    SYS2(__NR_setgroups, 0, 0); /* may be denied there; the process's own groups are set later */
                ret = SYS3(__NR_setresgid, 0, 0, 0);
                if (ret == 0) /* cgroup v1 asks whether the caller's id is one of ours, and the saved one will do */
                    ret = SYS3(__NR_setresuid, 0, 0, b->flags & BOOT_KEEP_SAVED_ID ? -1 : 0);
                if (ret < 0)
                    return failed(c, "setresuid", "0", ret);
                sys_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
                set_pdeathsig(SIGKILL);
            }
        }
    }
    return 0;
}

static int new_time(struct child *c, const struct boot *b)
{
    long ret, fd;
    ret = SYS1(__NR_unshare, CLONE_NEWTIME);
    if (ret < 0)
        return failed(c, "unshare", "time", ret);
    fd = sys_openat(AT_FDCWD, "/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return failed(c, "open", "timens_offsets", fd);
    if (file_system((int)fd) != PROC_SUPER_MAGIC)
        return failed(c, "verify", "timens_offsets", -EXDEV);
    if (b->offsets_size > 0)
        ret = sys_write((int)fd, b->offsets, b->offsets_size);
    sys_close((int)fd);
    return ret < 0 ? failed(c, "write", "timens_offsets", ret) : 0;
}

static int send_init(struct child *c, int pid, int pidfd)
{
    struct message m;
    memset(&m, 0, sizeof(m));
    m.type = MSG_INIT;
    m.op = STAGE_OP;
    m.value = (uint64_t)pid;
    return send_message_fd(c->sync, &m, sizeof(m), pidfd);
}

/* The file of a process that is not dumpable belongs to root; so early, nobody in a container can see this one. */
static int early_score(struct child *c, const struct boot *b)
{
    long fd, ret;
    sys_prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    fd = sys_openat(AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC, 0);
    sys_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (fd < 0)
        return failed(c, "open", "oom_score_adj", fd);
    if (file_system((int)fd) != PROC_SUPER_MAGIC)
        return failed(c, "verify", "oom_score_adj", -EXDEV);
    ret = sys_write((int)fd, b->oom_score_adj, length(b->oom_score_adj));
    sys_close((int)fd);
    return ret < 0 ? failed(c, "write", "oom_score_adj", ret) : 0;
}

int boot(struct child *c, const struct boot *b, const int *fds, int n_fds)
{
    struct clone_args args = { .flags = b->clone_flags | CLONE_PARENT | CLONE_PIDFD };
    int pidfd = -1, ret;
    long pid;
    uint32_t expected = b->n_join + (b->flags & BOOT_CGROUP_FD ? 1 : 0);

    if (b->n_join > BOOT_MAX_JOIN || b->offsets_size > sizeof(b->offsets) || b->oom_score_adj[7] != '\0' ||
        (uint32_t)n_fds != expected)
        return failed(c, "boot", NULL, -EINVAL);
    if (!(b->flags & BOOT_INTERMEDIATE))
        return 0;
    if (b->oom_score_adj[0] != '\0') {
        ret = early_score(c, b);
        if (ret < 0)
            return ret;
    }
    /*
     * An unprivileged parent may write the id maps of a dumpable process only, and may do so as soon as it exists. Nothing
     * of a container is joined here, so nobody can reach it yet; OP_BECOME_ROOT takes it back.
     */
    if ((b->clone_flags & CLONE_NEWUSER) && b->n_join == 0 && SYS0(__NR_geteuid) != 0) {
        sys_prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
        if (b->flags & BOOT_TIME) { /* only the new user namespace gives the right to a time namespace */
            ret = (int)SYS1(__NR_unshare, CLONE_NEWUSER);
            if (ret < 0)
                return failed(c, "unshare", "user", ret);
            args.flags &= ~(uint64_t)CLONE_NEWUSER;
        }
    }
    if (b->flags & BOOT_TIME) {
        ret = new_time(c, b);
        if (ret < 0)
            return ret;
    }
    ret = join(c, b, fds);
    if (ret < 0)
        return ret;
    if (b->flags & BOOT_CGROUP_FD) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)fds[b->n_join];
    }
    args.pidfd = (uint64_t)(uintptr_t)&pidfd;
    pid = sys_clone3(&args);
    if (pid < 0)
        return failed(c, "clone3", NULL, pid);
    if (pid > 0) {
        ret = send_init(c, (int)pid, pidfd);
        sys_exit(ret < 0);
    }
    for (int i = 0; i < n_fds; i++)
        sys_close(fds[i]);
    set_pdeathsig(SIGKILL);
    return 0;
}
