/* Streams, terminals, sockets, clocks, keys, and any system call. */
#define _GNU_SOURCE
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

void command_echo(char **a)
{
    fflush(out);
    dprintf(1, "%s\n", a[0]);
}

void command_echoerr(char **a)
{
    fflush(out);
    dprintf(2, "%s\n", a[0]);
}

void command_cat(char **a)
{
    (void)a;
    static char block[1 << 16];
    fflush(out);
    for (ssize_t n; (n = read(0, block, sizeof block)) > 0;)
        for (ssize_t sent = 0; sent < n;) {
            ssize_t w = write(1, block + sent, (size_t)(n - sent));
            if (w < 0)
                _exit(1);
            sent += w;
        }
}

void command_syscall(char **a)
{
    long v[7] = { 0 };
    int n = 0;
    for (; n < 7 && a[n]; n++)
        v[n] = strtol(a[n], NULL, 0);
    errno = 0;
    long result = syscall(v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
    int error = result == -1 ? errno : 0;
    open_object("syscall");
    key_int("number", v[0]);
    key_int("result", result);
    key_int("errno", error);
    close_object();
}

void command_clock(char **a)
{
    (void)a;
    struct timespec mono, boot;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    open_object("clock");
    key_int("errno", 0);
    key_int("monotonic", mono.tv_sec);
    key_int("boottime", boot.tv_sec);
    close_object();
}

void command_net(char **a)
{
    (void)a;
    struct if_nameindex *list = if_nameindex();
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    open_object("net");
    key_int("errno", 0);
    key("up");
    fputc('{', out);
    first_key = 1;
    for (int i = 0; list && list[i].if_index; i++) {
        struct ifreq request;
        memset(&request, 0, sizeof request);
        strncpy(request.ifr_name, list[i].if_name, IFNAMSIZ - 1);
        int up = fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP);
        key_int(list[i].if_name, up);
    }
    fputc('}', out);
    first_key = 0;
    close_object();
    if (fd >= 0)
        close(fd);
}

void command_tty(char **a)
{
    (void)a;
    struct winsize size;
    struct termios modes;
    struct stat st;
    char name[256] = "";
    memset(&size, 0, sizeof size);
    memset(&modes, 0, sizeof modes);
    open_object("tty");
    key_int("errno", 0);
    key("isatty");
    fprintf(out, "[%d,%d,%d]", isatty(0), isatty(1), isatty(2));
    ioctl(0, TIOCGWINSZ, &size);
    key("size");
    fprintf(out, "[%d,%d]", size.ws_row, size.ws_col);
    key_int("onlcr", tcgetattr(0, &modes) ? -1 : (modes.c_oflag & ONLCR) != 0);
    key_int("session", tcgetsid(0)); /* -1: not the controlling terminal */
    key_int("foreground", tcgetpgrp(0));
    key_int("pgid", getpgrp());
    key_int("owner", fstat(0, &st) ? -1 : (long long)st.st_uid);
    key_text("name", ttyname_r(0, name, sizeof name) ? "" : name);
    close_object();
}

/* Waits for a change of the window's size. */
void command_winch(char **a)
{
    (void)a;
    sigset_t one;
    int got = 0;
    sigemptyset(&one);
    sigaddset(&one, SIGWINCH);
    sigprocmask(SIG_BLOCK, &one, NULL);
    done("winch", 0);
    while (sigwait(&one, &got) != 0)
        ;
    command_tty(a);
}

void command_keyring(char **a)
{
    (void)a;
    char name[256] = "";
    long n = syscall(SYS_keyctl, 6 /* KEYCTL_DESCRIBE */, -3 /* KEY_SPEC_SESSION_KEYRING */, name, sizeof name);
    int error = n < 0 ? errno : 0;
    open_object("keyring");
    key_int("errno", error);
    key_text("name", name);
    key_int("serial", syscall(SYS_keyctl, 0 /* KEYCTL_GET_KEYRING_ID */, -3, 0));
    close_object();
}

/* notify TEXT [TIMES]: TEXT as a datagram to the socket of NOTIFY_SOCKET. */
void command_notify(char **a)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), error = 0;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path ? path : "");
    for (int i = a[1] ? atoi(a[1]) : 1; i > 0 && !error; i--)
        if (sendto(fd, a[0], strlen(a[0]), MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address) < 0)
            error = errno;
    close(fd);
    done("notify", error);
}
