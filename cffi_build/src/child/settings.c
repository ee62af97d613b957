/* Ops that set one thing of the process or of its namespaces. */
#include "child.h"

#include <linux/if.h>
#include <linux/keyctl.h>
#include <linux/prctl.h>
#include <linux/utsname.h>

#define DATAGRAM 2
#define CLOEXEC 02000000
#define SIOCGIFFLAGS 0x8913
#define SIOCSIFFLAGS 0x8914
#define KEY_USR_SEARCH 0x00080000

int op_cgroup_join(struct child *c, const struct plan_op *op)
{
    int fd = op_fd(c, op);
    long ret = -EINVAL;
    if (fd < 0)
        return fd;
    /*
     * "0" is ourselves. A thread that moves itself through v1 "tasks" takes no lock that waits for an RCU grace
     * period (kernel/cgroup/cgroup.c, cgroup_procs_write_start); the parent doing it costs 10 ms and more.
     */
    for (int i = 0; i < 5 && ret == -EINVAL; i++) {
        if (i > 0) {
            struct __kernel_timespec pause = { 0, 30 * 1000 * 1000 };
            SYS2(__NR_nanosleep, &pause, 0);
        }
        ret = sys_write(fd, "0", 1);
    }
    sys_close(fd);
    return ret < 0 && !(op->flags & OPF_OPTIONAL) ? failed(c, "write", "cgroup tasks", ret) : 0;
}

int op_unshare(struct child *c, const struct plan_op *op)
{
    long ret = SYS1(__NR_unshare, op->args[0]);
    return ret < 0 ? failed(c, "unshare", NULL, ret) : 0;
}

int op_affinity(struct child *c, const struct plan_op *op)
{
    unsigned char all[8192 / 8]; /* the kernel takes of it what exists and what the cpuset has */
    if (op->args[0] != 0) {
        const char *mask = op_string(c, op, 0);
        long ret;
        if (op->args[0] > sizeof(all) || op->args[0] > plan_room(&c->plan, op, 0))
            return failed(c, "plan", "CPUs", -EINVAL);
        ret = SYS3(__NR_sched_setaffinity, 0, op->args[0], mask);
        return ret < 0 ? failed(c, "sched_setaffinity", NULL, ret) : 0;
    }
    memset(all, 0xff, sizeof(all));
    /* a mask that shrank meanwhile, or a seccomp profile around us: then it stays as it is */
    SYS3(__NR_sched_setaffinity, 0, sizeof(all), all);
    return 0;
}

int op_setsid(struct child *c, const struct plan_op *op)
{
    long ret = SYS0(__NR_setsid);
    (void)op;
    /* EPERM: we lead a process group already, so nobody's session is shared */
    return ret < 0 && ret != -EPERM ? failed(c, "setsid", NULL, ret) : 0;
}

/* "type;uid;gid;perm;description": the hexadecimal perm. */
static uint32_t key_permissions(long key)
{
    char text[512];
    long n = SYS4(__NR_keyctl, KEYCTL_DESCRIBE, key, text, sizeof(text) - 1);
    uint32_t value = 0;
    int field = 0;
    if (n <= 0 || n > (long)sizeof(text) - 1) /* too long: nothing was copied */
        return 0;
    text[sizeof(text) - 1] = '\0';
    for (const char *at = text; *at != '\0' && field < 4; at++) {
        if (*at == ';')
            field++;
        else if (field == 3)
            value = value << 4 | (uint32_t)(*at <= '9' ? *at - '0' : (*at | 0x20) - 'a' + 10);
    }
    return value;
}

int op_keyring(struct child *c, const struct plan_op *op)
{
    const char *name = op_string(c, op, 0);
    long key = SYS2(__NR_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name);
    uint32_t permissions;
    if (key == -ENOSYS || key == -EPERM) { /* a kernel without keyrings, or a seccomp profile around us */
        warn(c, "keyctl", name, key);
        return 0;
    }
    if (key < 0)
        return failed(c, "keyctl", name, key);
    permissions = key_permissions(key);
    if (permissions != 0)
        SYS3(__NR_keyctl, KEYCTL_SETPERM, key, permissions | KEY_USR_SEARCH);
    return 0;
}

int op_loopback_up(struct child *c, const struct plan_op *op)
{
    struct ifreq request;
    long ret, fd = SYS3(__NR_socket, AF_INET, DATAGRAM | CLOEXEC, 0);
    (void)op;
    if (fd < 0)
        return failed(c, "socket", "lo", fd);
    memset(&request, 0, sizeof(request));
    copy_text(request.ifr_name, sizeof(request.ifr_name), "lo");
    ret = SYS3(__NR_ioctl, fd, SIOCGIFFLAGS, &request);
    if (ret == 0) {
        request.ifr_flags |= IFF_UP;
        ret = SYS3(__NR_ioctl, fd, SIOCSIFFLAGS, &request);
    }
    sys_close((int)fd);
    return ret < 0 ? failed(c, "ioctl", "lo", ret) : 0;
}

int op_hostname(struct child *c, const struct plan_op *op)
{
    const char *name = op_string(c, op, 0);
    long ret = SYS2(__NR_sethostname, name, length(name));
    return ret < 0 ? failed(c, "sethostname", name, ret) : 0;
}

int op_domainname(struct child *c, const struct plan_op *op)
{
    const char *name = op_string(c, op, 0);
    long ret = SYS2(__NR_setdomainname, name, length(name));
    return ret < 0 ? failed(c, "setdomainname", name, ret) : 0;
}

/*
 * Beside an init process that joins a UTS namespace of others: what it sets there would outlive its failure. The end of
 * the conversation decides, so whatever ends the runtime leaves no name behind either.
 */
int op_guard_names(struct child *c, const struct plan_op *op)
{
    const char *host = op_string(c, op, 0), *domain = op_string(c, op, 1);
    struct new_utsname before, now;
    struct message m;
    unsigned long all = ~0UL;
    long ret = SYS1(__NR_uname, &before);
    if (ret < 0)
        return failed(c, "uname", NULL, ret);
    /* what ends the runtime may go to its whole process group or cgroup, and so here */
    SYS4(__NR_rt_sigprocmask, SIG_SETMASK, &all, 0, sizeof(all));
    set_pdeathsig(0);
    ret = send_sync(c, SYNC_NAMES);
    if (ret < 0)
        return (int)ret;
    do
        ret = sys_read(c->sync, &m, sizeof(m));
    while (ret == -EINTR);
    if (ret == sizeof(m) || SYS1(__NR_uname, &now) < 0)
        sys_exit(0);
    if (host[0] != '\0' && equal(now.nodename, host))
        SYS2(__NR_sethostname, before.nodename, length(before.nodename));
    if (domain[0] != '\0' && equal(now.domainname, domain))
        SYS2(__NR_setdomainname, before.domainname, length(before.domainname));
    sys_exit(0);
}

int op_sysctl(struct child *c, const struct plan_op *op)
{
    char path[512] = "sys/";
    const char *name = op_string(c, op, 0), *value = op_string(c, op, 1);
    int ret, proc = own_proc_full(c);
    if (proc < 0)
        return proc;
    if (copy_text(path + 4, sizeof(path) - 4, name) >= sizeof(path) - 4)
        return failed(c, "open", name, -ENAMETOOLONG);
    ret = write_at(proc, path, value, length(value));
    return ret < 0 ? failed(c, "write", name, ret) : 0;
}

int op_umask(struct child *c, const struct plan_op *op)
{
    (void)c;
    SYS1(__NR_umask, op->args[0]);
    return 0;
}

int op_oom_score_adj(struct child *c, const struct plan_op *op)
{
    char text[24];
    int64_t value = (int64_t)op->args[0];
    size_t at = 0;
    int ret, proc = own_proc(c);
    if (proc < 0)
        return proc;
    if (value < 0)
        text[at++] = '-';
    at += decimal(text + at, (uint64_t)(value < 0 ? -value : value));
    ret = write_at(proc, "self/oom_score_adj", text, at);
    return ret < 0 ? failed(c, "write", "oom_score_adj", ret) : 0;
}

static int write_attr(struct child *c, const char *const *files, const char *text)
{
    int ret = -ENOENT, proc = own_proc(c);
    if (proc < 0)
        return proc;
    /* "self" is a symlink inside this procfs: write_at allows it, it is no magic link */
    for (int i = 0; files[i] != NULL && ret == -ENOENT; i++)
        ret = write_at(proc, files[i], text, length(text));
    return ret < 0 ? failed(c, "write", "/proc/self/attr/exec", ret) : 0;
}

int op_apparmor(struct child *c, const struct plan_op *op)
{
    static const char *const files[] = { "self/attr/apparmor/exec", "self/attr/exec", NULL };
    return write_attr(c, files, op_string(c, op, 0));
}

int op_selinux(struct child *c, const struct plan_op *op)
{
    static const char *const files[] = { "self/attr/exec", NULL };
    return write_attr(c, files, op_string(c, op, 0));
}
