/* Signals that ask a command to give up, held back while it makes something that must then be undone. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "parent.h"

static const int asking[] = { SIGHUP, SIGINT, SIGTERM };

int shim_hold_signals(uint64_t also, uint64_t *blocked)
{
    sigset_t before, held;
    int fd;

    *blocked = 0;
    sigemptyset(&held);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    for (size_t i = 0; i < sizeof(asking) / sizeof(asking[0]); i++) {
        struct sigaction action;
        uint64_t bit = 1ULL << (asking[i] - 1);
        /* an ignored signal would not be thrown away any more once it is blocked */
        sigaction(asking[i], NULL, &action);
        if (action.sa_handler == SIG_IGN || (sigismember(&before, asking[i]) && !(also & bit)))
            continue;
        sigaddset(&held, asking[i]);
        if (!sigismember(&before, asking[i]))
            *blocked |= bit;
    }
    fd = KERNEL(signalfd(-1, &held, SFD_NONBLOCK | SFD_CLOEXEC));
    if (fd >= 0)
        pthread_sigmask(SIG_BLOCK, &held, NULL);
    return fd;
}

int shim_held_signal(int fd)
{
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

int shim_unblock_signals(uint64_t blocked)
{
    sigset_t free;
    sigemptyset(&free);
    for (size_t i = 0; i < sizeof(asking) / sizeof(asking[0]); i++)
        if (blocked >> (asking[i] - 1) & 1)
            sigaddset(&free, asking[i]);
    return -pthread_sigmask(SIG_UNBLOCK, &free, NULL);
}
