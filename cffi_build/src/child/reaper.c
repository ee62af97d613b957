/*
 * The minimal init, for a program that is none itself: this process stays the container's first one. The program is its
 * child; every signal is handed on to it, orphans are reaped, and this process ends with the program's status.
 *
 * A seccomp filter is in force already: of what it may refuse, clone, wait4, rt_sigprocmask, rt_sigtimedwait, kill and
 * exit_group are needed, the rest is done if it can be.
 */
#include "child.h"

#include <linux/close_range.h>
#include <linux/prctl.h>

#define TIOCSPGRP 0x5410
#define WNOHANG 1
#define STATUS_OF_SIGNAL 128

static long set_mask(uint64_t mask)
{
    return SYS4(__NR_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof(mask));
}

/* LISTEN_PID=1 means the program, which has another PID here (sd_listen_fds(3)). */
static void fix_listen_pid(struct child *c)
{
    const char **entries = (const char **)(uintptr_t)c->envp;
    char *text;
    for (size_t i = 0; entries != NULL && entries[i] != NULL; i++) {
        if (!equal(entries[i], "LISTEN_PID=1"))
            continue;
        text = arena(64);
        if (text == NULL)
            return;
        copy_text(text, 64, "LISTEN_PID=");
        decimal(text + 11, (uint64_t)SYS0(__NR_getpid));
        entries[i] = text;
    }
}

/*
 * The program's side. A process group of its own, which the terminal belongs to: what the keyboard sends reaches the
 * program once, not a second time through its init. The mask is still full, so SIGTTOU cannot stop us.
 */
static int become_program(struct child *c)
{
    int group;
    set_pdeathsig(SIGKILL);
    SYS2(__NR_setpgid, 0, 0);
    group = (int)SYS0(__NR_getpid);
    SYS3(__NR_ioctl, 0, TIOCSPGRP, &group);
    fix_listen_pid(c);
    set_mask(0);
    return run_program(c);
}

/* The program's descriptors are its own: we keep the standard streams, which it shares, and the way to nothing else. */
static void let_go(struct child *c)
{
    int *known[] = { &c->report, &c->fifo, &c->links, &c->hook_stdout, &c->hook_stderr };
    uint32_t last = 3 + c->plan.header->preserve_fds;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (*known[i] >= 0)
            sys_close(*known[i]);
        *known[i] = -1;
    }
    for (uint32_t fd = 3; fd < last; fd++)
        sys_close((int)fd);
    SYS3(__NR_close_range, 3, ~0U, 0);
    SYS2(__NR_munmap, c->plan.header, c->plan.header->size); /* host paths: of no use to us, and of none to others */
}

/* Of the capabilities, the one to signal a program that has changed its user is kept. */
static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];

    memset(data, 0, sizeof(data));
    if (SYS2(__NR_capget, &header, data) < 0)
        return;
    data[0].permitted &= 1U << CAP_KILL;
    data[0].effective = data[0].permitted;
    data[1].permitted = data[1].effective = data[0].inheritable = data[1].inheritable = 0;
    SYS2(__NR_capset, &header, data); /* takes the ambient set along */
}

/* Collect what has ended; the program's exit status as a shell has it, or -1 while it runs. */
static int reap(long program)
{
    int status = 0, code = -1;
    long pid;
    while ((pid = SYS4(__NR_wait4, -1, &status, WNOHANG, 0)) > 0)
        if (pid == program)
            code = (status & 0x7f) != 0 ? STATUS_OF_SIGNAL + (status & 0x7f) : status >> 8 & 0xff;
    return pid == -ECHILD && code < 0 ? 1 : code;
}

int stay_as_init(struct child *c)
{
    uint64_t all = ~0ULL;
    long program, ret = set_mask(all);

    if (ret < 0)
        return failed(c, "rt_sigprocmask", NULL, ret);
    sys_prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* without a PID namespace orphans would pass us by */
    program = SYS5(__NR_clone, SIGCHLD, 0, 0, 0, 0);
    if (program < 0)
        return failed(c, "clone", NULL, program);
    if (program == 0)
        return become_program(c);
    let_go(c);
    drop_capabilities();
    for (;;) {
        int code = reap(program);
        long signal;
        if (code >= 0)
            sys_exit(code);
        signal = SYS4(__NR_rt_sigtimedwait, &all, 0, 0, sizeof(all));
        if (signal > 0 && signal != SIGCHLD)
            SYS2(__NR_kill, program, signal);
        else if (signal < 0 && signal != -EINTR && signal != -EAGAIN)
            sys_exit(1); /* a filter does not let us wait */
    }
}
