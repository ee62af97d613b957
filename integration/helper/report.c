/* What a process sees of itself: report, hook, treatment. */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

extern char **environ;

char **all_argv;
unsigned int started_umask;

static void report_namespaces(void)
{
    static const char *const names[] = { "cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts", NULL };
    key("namespaces");
    fputc('{', out);
    first_key = 1;
    for (int i = 0; names[i]; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        key_link(names[i], path);
    }
    fputc('}', out);
    first_key = 0;
}

static void report_fds(void)
{
    key("fds");
    fputc('{', out);
    first_key = 1;
    for (int fd = 0; fd < 4096; fd++) {
        if (fd == fileno(out) && fd > 2)
            continue;
        if (fcntl(fd, F_GETFD) < 0)
            continue;
        char name[16], path[64];
        snprintf(name, sizeof name, "%d", fd);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        char target[4096];
        ssize_t n = readlink(path, target, sizeof target);
        key(name);
        text_n(target, n < 0 ? 0 : (size_t)n);
    }
    fputc('}', out);
    first_key = 0;
}

static void report_limits(void)
{
    static const struct {
        const char *name;
        int number;
    } table[] = { { "RLIMIT_AS", RLIMIT_AS },
                  { "RLIMIT_CORE", RLIMIT_CORE },
                  { "RLIMIT_CPU", RLIMIT_CPU },
                  { "RLIMIT_DATA", RLIMIT_DATA },
                  { "RLIMIT_FSIZE", RLIMIT_FSIZE },
                  { "RLIMIT_LOCKS", RLIMIT_LOCKS },
                  { "RLIMIT_MEMLOCK", RLIMIT_MEMLOCK },
                  { "RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE },
                  { "RLIMIT_NICE", RLIMIT_NICE },
                  { "RLIMIT_NOFILE", RLIMIT_NOFILE },
                  { "RLIMIT_NPROC", RLIMIT_NPROC },
                  { "RLIMIT_RSS", RLIMIT_RSS },
                  { "RLIMIT_RTPRIO", RLIMIT_RTPRIO },
                  { "RLIMIT_RTTIME", RLIMIT_RTTIME },
                  { "RLIMIT_SIGPENDING", RLIMIT_SIGPENDING },
                  { "RLIMIT_STACK", RLIMIT_STACK } };
    key("rlimits");
    fputc('{', out);
    first_key = 1;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct rlimit limit;
        if (getrlimit(table[i].number, &limit) < 0)
            continue;
        key(table[i].name);
        fprintf(out, "[%llu,%llu]", (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max);
    }
    fputc('}', out);
    first_key = 0;
}

static void report_status(void)
{
    static const char *const wanted[] = {
        "CapInh",          "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
        "Seccomp_filters", "SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd",     "Cpus_allowed_list",
        "Umask",           "Groups", NULL
    };
    size_t size;
    char *data = slurp_path("/proc/self/status", &size);
    key("status");
    fputc('{', out);
    first_key = 1;
    for (char *line = data ? strtok(data, "\n") : NULL; line; line = strtok(NULL, "\n")) {
        char *colon = strchr(line, ':');
        if (!colon)
            continue;
        *colon = 0;
        char *value = colon + 1;
        while (*value == ' ' || *value == '\t')
            value++;
        for (int i = 0; wanted[i]; i++)
            if (!strcmp(line, wanted[i]))
                key_text(line, value);
    }
    fputc('}', out);
    first_key = 0;
    free(data);
}

void command_report(char **a)
{
    struct utsname uts;
    uid_t r, e, s;
    gid_t groups[1024];
    char cwd[4096];

    (void)a;
    open_object("report");
    key_int("errno", 0);
    key_int("pid", getpid());
    key_int("ppid", getppid());
    key_int("sid", getsid(0));
    key_int("pgid", getpgrp());
    uname(&uts);
    key_text("hostname", uts.nodename);
    key_text("domainname", uts.domainname);
    key_text("machine", uts.machine);
    long n = syscall(SYS_getcwd, cwd, sizeof cwd);
    key_text("cwd", n > 0 ? cwd : "");
    key_list("args", all_argv);
    key_list("env", environ);
    getresuid(&r, &e, &s);
    key("uids");
    fprintf(out, "[%u,%u,%u]", r, e, s);
    gid_t rg, eg, sg;
    getresgid(&rg, &eg, &sg);
    key("gids");
    fprintf(out, "[%u,%u,%u]", rg, eg, sg);
    int count = getgroups(1024, groups);
    key("groups");
    fputc('[', out);
    for (int i = 0; i < count; i++)
        fprintf(out, "%s%u", i ? "," : "", groups[i]);
    fputc(']', out);
    key_int("umask", started_umask);
    key_int("nnp", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    key_int("dumpable", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
    int death = -1;
    prctl(PR_GET_PDEATHSIG, &death, 0, 0, 0);
    key_int("pdeathsig", death);
    key_int("securebits", prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
    key_int("nice", getpriority(PRIO_PROCESS, 0));
    key_int("timerslack", prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
    cpu_set_t cpus;
    key_int("cpus", sched_getaffinity(0, sizeof cpus, &cpus) ? -1 : CPU_COUNT(&cpus));
    key_file("oom_score_adj", "/proc/self/oom_score_adj");
    key_file("cgroup", "/proc/self/cgroup");
    key_file("mountinfo", "/proc/self/mountinfo");
    key_file("uid_map", "/proc/self/uid_map");
    key_file("gid_map", "/proc/self/gid_map");
    key_file("setgroups", "/proc/self/setgroups");
    report_status();
    report_namespaces();
    report_limits();
    report_fds();
    close_object();
}

/* How the kernel treats this process. */
void command_treatment(char **a)
{
    (void)a;
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
        uint32_t util_min, util_max;
    } attr;
    unsigned long nodes[16] = { 0 }; /* 1024 nodes, as many as a kernel can have */
    int mode = -1;
    struct utsname names;
    memset(&attr, 0, sizeof attr);
    open_object("treatment");
    key_int("errno", syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) ? errno : 0);
    key_int("policy", attr.policy);
    key_int("flags", (long long)attr.flags);
    key_int("nice", attr.nice);
    key_int("priority", attr.priority);
    key_int("runtime", (long long)attr.runtime);
    key_int("deadline", (long long)attr.deadline);
    key_int("period", (long long)attr.period);
    key_int("ioprio", syscall(SYS_ioprio_get, 1 /* IOPRIO_WHO_PROCESS */, 0));
    key_int("personality", syscall(SYS_personality, 0xffffffffUL));
    key_int("mempolicy_errno", syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8, NULL, 0) ? errno : 0);
    key_int("mempolicy", mode);
    key_int("nodes", (long long)nodes[0]);
    uname(&names);
    key_text("machine", names.machine);
    close_object();
}

/* hook FILE NAME [STATUS [MILLISECONDS]]: appends what it sees to FILE, sleeps, prints, ends with STATUS. */
void command_hook(char **a)
{
    size_t size = 0;
    char cwd[4096];
    char *data = slurp(0, &size);
    FILE *saved = out;
    out = fopen(a[0], "ae");
    if (!out) {
        dprintf(2, "hook: %s: %s\n", a[0], strerror(errno));
        _exit(99);
    }
    open_object("hook");
    key_int("errno", 0);
    key_text("name", a[1]);
    key("stdin");
    text_n(data ? data : "", size);
    key_list("args", all_argv);
    key_list("env", environ);
    key_text("cwd", syscall(SYS_getcwd, cwd, sizeof cwd) > 0 ? cwd : "");
    key_int("pid", getpid());
    report_namespaces();
    report_fds();
    report_status();
    key_file("mountinfo", "/proc/self/mountinfo");
    close_object();
    fclose(out);
    out = saved;
    if (a[2] && a[3])
        usleep((useconds_t)atoi(a[3]) * 1000);
    if (a[2] && atoi(a[2])) {
        dprintf(2, "hook %s says no\n", a[1]);
        _exit(atoi(a[2]));
    }
}
