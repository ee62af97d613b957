/*
 * The terminal of a foreground run or exec: bytes both ways between the caller's terminal and the container's pty,
 * window size, signals. Policy is Python's: which fds, which signals are passed on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "parent.h"

#define BUFFER_SIZE 16384

/* Bytes on their way to an fd that may not take them yet. */
struct flow {
    int from;
    int to;
    size_t start, end;
    char data[BUFFER_SIZE];
};

/* Read what there is room for. 0: go on, 1: the source has ended. */
static int fill(struct flow *flow)
{
    ssize_t n;
    if (flow->end == sizeof(flow->data))
        return 0;
    n = read(flow->from, flow->data + flow->end, sizeof(flow->data) - flow->end);
    if (n > 0)
        flow->end += (size_t)n;
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static int drain(struct flow *flow)
{
    ssize_t n = write(flow->to, flow->data + flow->start, flow->end - flow->start);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    flow->start += (size_t)n;
    if (flow->start == flow->end)
        flow->start = flow->end = 0;
    return 0;
}

static void copy_size(int tty, int master)
{
    struct winsize size;
    if (tty >= 0 && ioctl(tty, TIOCGWINSZ, &size) == 0)
        ioctl(master, TIOCSWINSZ, &size);
}

/* Take one signal. 1: a child has ended. */
static int take_signal(int fd, const struct relay_request *r)
{
    struct signalfd_siginfo info;
    if (read(fd, &info, sizeof(info)) != sizeof(info))
        return 0;
    if (info.ssi_signo == SIGCHLD)
        return 1;
    if (info.ssi_signo == SIGWINCH)
        copy_size(r->tty, r->master);
    else if (info.ssi_signo <= 64 && (r->forward >> (info.ssi_signo - 1) & 1))
        syscall(SYS_pidfd_send_signal, r->pidfd, info.ssi_signo, NULL, 0);
    return 0;
}

/* Whether the process has ended; its wait status then. Other children are left to the caller. */
static int ended(int pid, int *status)
{
    return waitpid(pid, status, WNOHANG) == pid;
}

static int loop(const struct relay_request *r, int signals, struct flow *in, struct flow *out, int *status)
{
    int over = ended(r->pid, status);
    int in_open = 1, out_open = 1;
    while (!over || out_open || out->end > out->start) {
        struct pollfd polls[5] = {
            { signals, POLLIN, 0 },
            { in_open && in->end < sizeof(in->data) ? in->from : -1, POLLIN, 0 },
            { in->end > in->start ? in->to : -1, POLLOUT, 0 },
            { out_open && out->end < sizeof(out->data) ? out->from : -1, POLLIN, 0 },
            { out->end > out->start ? out->to : -1, POLLOUT, 0 },
        };
        /* when the process is over, what it has written is still read; whoever else holds the pty is not waited for */
        int n = poll(polls, 5, over ? 0 : -1);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n <= 0) {
            if (over && n == 0)
                break;
            continue;
        }
        if (polls[0].revents && take_signal(signals, r) && !over)
            over = ended(r->pid, status);
        if (polls[1].revents && fill(in))
            in_open = 0;
        if (polls[2].revents && drain(in) < 0)
            in_open = 0, in->start = in->end = 0;
        if (polls[3].revents && fill(out))
            out_open = 0; /* EIO: every slave is closed */
        if (polls[4].revents && drain(out) < 0)
            out->start = out->end = 0; /* nobody reads: go on, so that the program does not block */
    }
    return 0;
}

int shim_relay(const struct relay_request *r, int *status)
{
    struct termios saved, raw, inner;
    struct flow in = { .from = r->input, .to = r->master }, out = { .from = r->master, .to = r->output };
    sigset_t mask;
    int ret, signals, restore = 0;

    /* the caller has blocked these: they are taken here one by one */
    sigfillset(&mask);
    signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        return -errno;
    if (tcgetattr(r->master, &inner) == 0) {
        inner.c_oflag &= ~(tcflag_t)ONLCR; /* the caller's terminal adds its own carriage returns */
        tcsetattr(r->master, TCSANOW, &inner);
    }
    fcntl(r->master, F_SETFL, O_RDWR | O_NONBLOCK);
    copy_size(r->tty, r->master);
    if (r->tty >= 0 && tcgetattr(r->tty, &saved) == 0) {
        raw = saved;
        cfmakeraw(&raw);
        raw.c_oflag |= OPOST; /* the pty adds no carriage returns (above), so our terminal must */
        restore = tcsetattr(r->tty, TCSANOW, &raw) == 0;
    }
    ret = loop(r, signals, &in, &out, status);
    if (restore)
        tcsetattr(r->tty, TCSANOW, &saved);
    close(signals);
    return ret;
}
