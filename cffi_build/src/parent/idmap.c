/* What an id-mapped mount needs: a user namespace that carries the mapping, and new file systems made by the parent. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "parent.h"

/* object is what was given to call; the kernel's own words, if it has any, follow: "e tmpfs: Bad value for 'size'". */
static int fs_failed(const char *call, const char *object, int fs, int error, char *message, size_t size)
{
    size_t used = (size_t)snprintf(message, size, "%s %s", call, object) + 1;
    if (fs >= 0 && used < size) {
        ssize_t n = read(fs, message + used, size - used - 1);
        if (n > 2) {
            message[used + (size_t)n] = '\0';
            memmove(message + used, message + used + 2, (size_t)n - 1);
        }
    }
    if (fs >= 0)
        close(fs);
    return error;
}

int shim_new_filesystem(const char *type, const char *parameters, int n, char *message, size_t size)
{
    const char *key = parameters;
    int fs, mnt, ret;

    memset(message, 0, size);
    fs = KERNEL(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
    if (fs < 0)
        return fs_failed("fsopen", type, -1, fs, message, size);
    for (int i = 0; i < n; i++) {
        const char *value = key + strlen(key) + 1;
        if (value[0] == '\0')
            ret = KERNEL(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, key, NULL, 0));
        else
            ret = KERNEL(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0));
        if (ret < 0)
            return fs_failed("fsconfig", key, fs, ret, message, size);
        key = value + strlen(value) + 1;
    }
    ret = KERNEL(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    if (ret < 0)
        return fs_failed("fsconfig", type, fs, ret, message, size);
    mnt = KERNEL(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0));
    if (mnt < 0)
        return fs_failed("fsmount", type, fs, mnt, message, size);
    close(fs);
    return mnt;
}

static int open_of(int pid, const char *name, int flags)
{
    char path[48];
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    return KERNEL(open(path, flags | O_CLOEXEC));
}

static int write_map(int pid, const char *name, const char *text)
{
    int ret, fd = open_of(pid, name, O_WRONLY);
    if (fd < 0)
        return fd;
    ret = KERNEL(write(fd, text, strlen(text)));
    close(fd);
    return ret < 0 ? ret : 0;
}

/*
 * A namespace needs a process to be made with, not to live: the child only waits for its end. It shares our files
 * (nothing is inherited, nothing kept open), blocks every signal, and has no exit signal, so that neither a handler of
 * the caller nor its wait() can come across it.
 */
static int new_userns(const char *uid_map, const char *gid_map, int *failed)
{
    struct clone_args args = { .flags = CLONE_NEWUSER | CLONE_FILES };
    pid_t parent = getpid();
    sigset_t all, old;
    long pid;
    int ret;

    *failed = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid = syscall(SYS_clone3, &args, sizeof(args));
    if (pid == 0) {
        syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        while (syscall(SYS_getppid) == parent) /* it may have died just before */
            syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
        syscall(SYS_exit_group, 1);
    }
    ret = pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (ret < 0)
        return ret;
    *failed = 1;
    ret = write_map((int)pid, "uid_map", uid_map);
    if (ret == 0) {
        *failed = 2;
        ret = write_map((int)pid, "gid_map", gid_map);
    }
    if (ret == 0) {
        *failed = 3;
        ret = open_of((int)pid, "ns/user", O_RDONLY);
    }
    kill((pid_t)pid, SIGKILL);
    while (waitpid((pid_t)pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    return ret;
}

struct outcome {
    int ret;
    int failed;
};

/*
 * As root of that namespace: only there is the right to map its IDs. Dumpable, because the files of our child in /proc
 * would belong to root of the namespace that our executable was started in.
 */
static int new_userns_inside(const char *uid_map, const char *gid_map, int inside, int *failed)
{
    int ret;

    *failed = 4;
    ret = KERNEL(setns(inside, CLONE_NEWUSER));
    if (ret == 0)
        ret = KERNEL(syscall(SYS_setresgid, 0, 0, 0));
    if (ret == 0)
        ret = KERNEL(syscall(SYS_setresuid, 0, 0, 0));
    if (ret < 0)
        return ret;
    syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
    return new_userns(uid_map, gid_map, failed);
}

/* A process that has joined a user namespace cannot come back: a child does, which shares our files and tells the rest. */
int shim_new_userns(const char *uid_map, const char *gid_map, int inside, int *failed)
{
    struct clone_args args = { .flags = CLONE_FILES };
    struct outcome outcome = { -EIO, 0 };
    int ends[2];
    long pid;
    ssize_t n;

    if (inside < 0)
        return new_userns(uid_map, gid_map, failed);
    *failed = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pid = syscall(SYS_clone3, &args, sizeof(args));
    if (pid == 0) {
        outcome.ret = new_userns_inside(uid_map, gid_map, inside, &outcome.failed);
        n = write(ends[1], &outcome, sizeof(outcome));
        syscall(SYS_exit_group, n != sizeof(outcome));
    }
    if (pid < 0) {
        outcome.ret = -errno;
    } else {
        while (waitpid((pid_t)pid, NULL, __WALL) < 0 && errno == EINTR)
            ;
        fcntl(ends[0], F_SETFL, O_NONBLOCK); /* it may have been killed before it wrote */
        n = read(ends[0], &outcome, sizeof(outcome));
        if (n != sizeof(outcome))
            outcome.ret = -EIO;
    }
    close(ends[0]);
    close(ends[1]);
    *failed = outcome.failed;
    return outcome.ret;
}
