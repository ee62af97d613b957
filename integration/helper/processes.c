/* Processes and signals. */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void command_exit(char **a)
{
    done("exit", 0);
    _exit(atoi(a[0]));
}

void command_sleep(char **a)
{
    usleep((useconds_t)atoi(a[0]) * 1000);
    done("sleep", 0);
}

void command_pause(char **a)
{
    (void)a;
    done("pause", 0);
    for (;;)
        pause();
}

void command_trap(char **a)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, atoi(a[0]));
    sigprocmask(SIG_BLOCK, &one, NULL);
    done("trap", 0);
    int got = 0;
    while (sigwait(&one, &got) != 0)
        ;
    _exit(atoi(a[1]));
}

/* Prints every signal that comes; SIGTERM ends it with status 0. */
void command_signals(char **a)
{
    (void)a;
    sigset_t every;
    sigfillset(&every);
    sigprocmask(SIG_BLOCK, &every, NULL);
    done("signals", 0);
    for (;;) {
        int got = 0;
        if (sigwait(&every, &got) != 0)
            continue;
        open_object("signal");
        key_int("errno", 0);
        key_int("number", got);
        close_object();
        if (got == SIGTERM)
            _exit(0);
    }
}

void command_raise(char **a)
{
    raise(atoi(a[0]));
    done("raise", 0);
}

void command_crash(char **a)
{
    (void)a;
    signal(SIGSEGV, SIG_DFL);
    *(volatile int *)8 = 0;
}

void command_fork(char **a)
{
    int wanted = atoi(a[0]), made = 0, error = 0;
    for (; made < wanted; made++) {
        pid_t pid = fork();
        if (pid < 0) {
            error = errno;
            break;
        }
        if (pid == 0) {
            for (;;)
                pause();
        }
    }
    open_object("fork");
    key_int("errno", error);
    key_int("made", made);
    close_object();
}

/* One child in its own session whose parent is gone: it is left behind when this process ends. */
void command_orphan(char **a)
{
    (void)a;
    pid_t pid = fork();
    if (pid == 0) {
        if (fork() == 0) {
            setsid();
            for (;;)
                pause();
        }
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    done("orphan", 0);
}

void command_alloc(char **a)
{
    size_t size = (size_t)atol(a[0]) << 20;
    char *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int error = data == MAP_FAILED ? errno : 0;
    if (!error)
        for (size_t i = 0; i < size; i += 4096)
            data[i] = 1;
    done("alloc", error);
}

/* Use a CPU for ever. */
void command_spin(char **a)
{
    (void)a;
    done("spin", 0);
    for (volatile unsigned long i = 0;; i++)
        ;
}

/* A fork bomb with a fuse: whoever is made goes on making more, until it is refused or `most` have been made. */
void command_bomb(char **a)
{
    int most = atoi(a[0]);
    int *count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t first = getpid();
    while (__atomic_fetch_add(&count[0], 1, __ATOMIC_SEQ_CST) < most) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (pid > 0)
            __atomic_fetch_add(&count[1], 1, __ATOMIC_SEQ_CST);
    }
    if (getpid() != first)
        for (;;)
            pause();
    open_object("bomb");
    key_int("made", __atomic_load_n(&count[1], __ATOMIC_SEQ_CST));
    close_object();
}

void command_kill(char **a)
{
    done("kill", kill(atoi(a[0]), atoi(a[1])) ? errno : 0);
}

void command_exec(char **a)
{
    fflush(out);
    execv(a[0], a);
    done("exec", errno);
}

static int foreign_exe(int pid, dev_t device, ino_t inode)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    return stat(path, &st) == 0 && (st.st_dev != device || st.st_ino != inode);
}

/* The PID of the process made last in our namespace: the last word of /proc/loadavg. */
static int newest_pid(void)
{
    char text[128];
    int fd = open("/proc/loadavg", O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    char *last = strrchr(text, ' ');
    return last ? atoi(last) : 0;
}

/*
 * watch COUNT MS: tries to get at every process that comes into view and is not a probe like us, until COUNT of them were
 * seen, MS milliseconds at most. Counts what it got.
 */
void command_watch(char **a)
{
    struct timespec now, start;
    struct stat exe, root, st;
    long long ms = 0;
    int seen = 0, opened = 0, attached = 0, last = getpid();
    stat("/proc/self/exe", &exe);
    stat("/", &root);
    clock_gettime(CLOCK_MONOTONIC, &start);
    while (seen < atoi(a[0]) && ms < atoi(a[1])) {
        int newest = newest_pid();
        if (newest > last + 32) /* some came and went while we had no CPU */
            last = newest - 32;
        for (int pid = last + 1; pid < last + 64; pid++) {
            static const char *const links[] = { "root", "cwd" };
            char path[64];
            snprintf(path, sizeof path, "/proc/%d", pid);
            if (stat(path, &st) < 0)
                continue;
            for (int tries = 0; tries < 200 && stat(path, &st) == 0; tries++) {
                for (int i = 0; i < 2; i++) {
                    snprintf(path, sizeof path, "/proc/%d/%s", pid, links[i]);
                    if (stat(path, &st) == 0 && (st.st_dev != root.st_dev || st.st_ino != root.st_ino))
                        opened++;
                }
                for (int fd = 3; fd < 12; fd++) {
                    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
                    int got = open(path, O_PATH);
                    if (got >= 0) {
                        opened++;
                        close(got);
                    }
                }
                opened += foreign_exe(pid, exe.st_dev, exe.st_ino);
                if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
                    attached += foreign_exe(pid, exe.st_dev, exe.st_ino);
                    waitpid(pid, NULL, __WALL); /* it cannot end before its tracer has seen that */
                    break;
                }
                snprintf(path, sizeof path, "/proc/%d", pid);
            }
            seen++;
            last = pid;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
        ms = (now.tv_sec - start.tv_sec) * 1000LL + (now.tv_nsec - start.tv_nsec) / 1000000;
    }
    open_object("watch");
    key_int("errno", 0);
    key_int("seen", seen);
    key_int("opened", opened);
    key_int("attached", attached);
    close_object();
}
