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
#define WRITE_SIZE 1024

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

/* The caller's output may block (its flags are not ours to change): never more than poll has promised room for. */
static int drain(struct flow *flow)
{
    size_t size = flow->end - flow->start;
    ssize_t n = write(flow->to, flow->data + flow->start, size < WRITE_SIZE ? size : WRITE_SIZE);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    flow->start += (size_t)n;
    if (flow->start == flow->end)
        flow->start = flow->end = 0;
    return 0;
}

static int pending(const struct flow *flow)
{
    return flow->end > flow->start;
}

static void copy_size(int tty, int master)
{
    struct winsize size;
    if (tty >= 0 && ioctl(tty, TIOCGWINSZ, &size) == 0 && size.ws_row != 0 && size.ws_col != 0)
        ioctl(master, TIOCSWINSZ, &size);
}

/* Take one signal and return it. What the kernel sends us for a write of ours is nobody else's business. */
static int take_signal(int fd, const struct relay_request *r)
{
    struct signalfd_siginfo info;
    int number;
    if (read(fd, &info, sizeof(info)) != sizeof(info) || info.ssi_signo < 1 || info.ssi_signo > 64)
        return 0;
    number = (int)info.ssi_signo;
    if (number == SIGWINCH)
        copy_size(r->tty, r->master);
    else if ((r->forward >> (number - 1) & 1) && info.ssi_pid != (uint32_t)getpid())
        syscall(SYS_pidfd_send_signal, r->pidfd, number, NULL, 0);
    else if (number != SIGCHLD)
        return 0;
    return number;
}

/* Whether the process has ended; its wait status then. Other children are left to the caller. */
static int ended(int pid, int *status)
{
    return waitpid(pid, status, WNOHANG) == pid;
}

/*
 * A pty hangs up while nobody has its slave open. A program may close all of it and open /dev/tty again, so we hold a
 * slave of our own; then the end of the process is the end, not a hangup. What it has written by then is there: poll
 * waits for the line discipline's queue.
 */
static int loop(const struct relay_request *r, int signals, struct flow *in, struct flow *out, int *status)
{
    int over = ended(r->pid, status);
    int in_open = 1, out_open = 1;
    while (!over || out_open || pending(out)) {
        struct pollfd polls[5] = {
            { signals, POLLIN, 0 },
            { !over && in_open && in->end < sizeof(in->data) ? in->from : -1, POLLIN, 0 },
            { !over && pending(in) ? in->to : -1, POLLOUT, 0 },
            { out_open && out->end < sizeof(out->data) ? out->from : -1, POLLIN, 0 },
            { pending(out) ? out->to : -1, POLLOUT, 0 },
        };
        /* when the process is over, what it has written is still read; whoever else holds the pty is not waited for */
        int number, n = poll(polls, 5, over && !pending(out) ? 0 : -1);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            break;
        if (n < 0)
            continue;
        number = polls[0].revents ? take_signal(signals, r) : 0;
        if (over && number != 0 && number != SIGCHLD && number != SIGWINCH)
            break; /* nobody to pass it on to, and the reader may never come back */
        if (number == SIGCHLD && !over)
            over = ended(r->pid, status);
        if (polls[1].revents && fill(in))
            in_open = 0;
        if (polls[2].revents && drain(in) < 0)
            in_open = 0, in->start = in->end = 0;
        if (polls[3].revents && fill(out))
            out_open = 0;
        if (polls[4].revents && drain(out) < 0)
            out->start = out->end = 0; /* nobody reads: go on, so that the program does not block */
    }
    return 0;
}

int shim_prepare_terminal(int master, int tty)
{
    struct termios inner;
    if (tcgetattr(master, &inner) < 0)
        return -errno;
    inner.c_oflag &= ~(tcflag_t)ONLCR; /* the caller's terminal adds its own carriage returns */
    if (tcsetattr(master, TCSANOW, &inner) < 0)
        return -errno;
    copy_size(tty, master);
    return 0;
}

int shim_relay(const struct relay_request *r, int *status)
{
    struct termios saved, raw;
    struct flow in = { .from = r->input, .to = r->master }, out = { .from = r->master, .to = r->output };
    sigset_t mask;
    int ret, signals, slave, restore = 0;

    /* the caller has blocked these: they are taken here one by one */
    sigfillset(&mask);
    signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        return -errno;
    slave = ioctl(r->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    fcntl(r->master, F_SETFL, O_RDWR | O_NONBLOCK);
    copy_size(r->tty, r->master);
    /* What is typed goes in as it is. If input comes from elsewhere, the caller's keys (^C) stay the caller's. */
    if (tcgetattr(r->input, &saved) == 0) {
        raw = saved;
        cfmakeraw(&raw);
        raw.c_oflag |= OPOST; /* the pty adds no carriage returns (shim_prepare_terminal), so our terminal must */
        restore = tcsetattr(r->input, TCSANOW, &raw) == 0;
    }
    ret = loop(r, signals, &in, &out, status);
    if (restore)
        tcsetattr(r->input, TCSANOW, &saved);
    if (slave >= 0)
        close(slave);
    close(signals);
    return ret;
}
