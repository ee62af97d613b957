/*
 * probe: the only program in the test root file systems. Static, no arguments of its own: a chain of commands
 * separated by ";;". Every command prints one JSON object on one line and goes on with the next one, also when it
 * failed (key "errno"). Bytes of strings come out as \u00XX, so that a reader decodes them as Latin-1 and has the
 * bytes back. The table at the end lists the commands.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static char **all_argv;
static FILE *out;
static int first_key;

/* ---- JSON ---- */

static void text_n(const char *data, size_t size)
{
    fputc('"', out);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void text(const char *s)
{
    text_n(s, strlen(s));
}

static void key(const char *name)
{
    if (!first_key)
        fputc(',', out);
    first_key = 0;
    text(name);
    fputc(':', out);
}

static void key_int(const char *name, long long value)
{
    key(name);
    fprintf(out, "%lld", value);
}

static void key_text(const char *name, const char *value)
{
    key(name);
    text(value);
}

static void open_object(const char *command)
{
    fputc('{', out);
    first_key = 1;
    key_text("cmd", command);
}

static void close_object(void)
{
    fputs("}\n", out);
    fflush(out);
    first_key = 0;
}

static void done(const char *command, int error)
{
    open_object(command);
    key_int("errno", error);
    close_object();
}

/* ---- small helpers ---- */

static char *slurp(int fd, size_t *size)
{
    size_t have = 0, room = 65536;
    char *data = malloc(room + 1);
    for (;;) {
        if (have == room)
            data = realloc(data, (room *= 2) + 1);
        ssize_t n = read(fd, data + have, room - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            *size = have;
            data[have] = 0;
            if (n < 0) {
                free(data);
                return NULL;
            }
            return data;
        }
        have += (size_t)n;
    }
}

static char *slurp_path(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    char *data = slurp(fd, size);
    int saved = errno;
    close(fd);
    errno = saved;
    return data;
}

static void key_list(const char *name, char **items)
{
    key(name);
    fputc('[', out);
    for (int i = 0; items && items[i]; i++) {
        if (i)
            fputc(',', out);
        text(items[i]);
    }
    fputc(']', out);
}

static void key_file(const char *name, const char *path)
{
    size_t size;
    char *data = slurp_path(path, &size);
    key(name);
    if (!data) {
        fprintf(out, "null");
        return;
    }
    text_n(data, size);
    free(data);
}

static void key_link(const char *name, const char *path)
{
    char target[4096];
    ssize_t n = readlink(path, target, sizeof target);
    key(name);
    if (n < 0)
        fprintf(out, "null");
    else
        text_n(target, (size_t)n);
}

static void report_namespaces(void)
{
    static const char *const names[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts", NULL};
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
    } table[] = {{"RLIMIT_AS", RLIMIT_AS}, {"RLIMIT_CORE", RLIMIT_CORE}, {"RLIMIT_CPU", RLIMIT_CPU},
                 {"RLIMIT_DATA", RLIMIT_DATA}, {"RLIMIT_FSIZE", RLIMIT_FSIZE}, {"RLIMIT_LOCKS", RLIMIT_LOCKS},
                 {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK}, {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
                 {"RLIMIT_NICE", RLIMIT_NICE}, {"RLIMIT_NOFILE", RLIMIT_NOFILE}, {"RLIMIT_NPROC", RLIMIT_NPROC},
                 {"RLIMIT_RSS", RLIMIT_RSS}, {"RLIMIT_RTPRIO", RLIMIT_RTPRIO}, {"RLIMIT_RTTIME", RLIMIT_RTTIME},
                 {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING}, {"RLIMIT_STACK", RLIMIT_STACK}};
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
    static const char *const wanted[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
                                         "Seccomp_filters", "SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd",
                                         "Cpus_allowed_list", "Umask", "Groups", NULL};
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

static unsigned int started_umask;

static void report(const char *name)
{
    struct utsname uts;
    uid_t r, e, s;
    gid_t groups[1024];
    char cwd[4096];

    open_object(name);
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

/* ---- files ---- */

static void stat_path(const char *name, const char *path, int follow)
{
    struct stat st;
    int error = (follow ? stat(path, &st) : lstat(path, &st)) ? errno : 0;
    open_object(name);
    key_text("path", path);
    key_int("errno", error);
    if (!error) {
        const char *type = S_ISREG(st.st_mode) ? "f" : S_ISDIR(st.st_mode) ? "d" : S_ISCHR(st.st_mode) ? "c" :
                           S_ISBLK(st.st_mode) ? "b" : S_ISLNK(st.st_mode) ? "l" : S_ISFIFO(st.st_mode) ? "p" : "s";
        key_text("type", type);
        key_int("mode", st.st_mode & 07777);
        key_int("uid", st.st_uid);
        key_int("gid", st.st_gid);
        key_int("major", major(st.st_rdev));
        key_int("minor", minor(st.st_rdev));
        key_int("ino", (long long)st.st_ino);
        key_int("dev", (long long)st.st_dev);
        key_int("size", st.st_size);
        if (S_ISLNK(st.st_mode))
            key_link("target", path);
    }
    close_object();
}

static void command_stat(char **a)
{
    stat_path("stat", a[0], 0);
}

static void command_statf(char **a)
{
    stat_path("statf", a[0], 1);
}

static void command_read(char **a)
{
    size_t size;
    char *data = slurp_path(a[0], &size);
    int error = data ? 0 : errno;
    open_object("read");
    key_text("path", a[0]);
    key_int("errno", error);
    key("data");
    text_n(data ? data : "", data ? size : 0);
    close_object();
    free(data);
}

static void put(const char *name, const char *path, const char *value, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0644), error = 0;
    if (fd < 0)
        error = errno;
    else {
        if (write(fd, value, strlen(value)) < 0)
            error = errno;
        close(fd);
    }
    open_object(name);
    key_text("path", path);
    key_int("errno", error);
    close_object();
}

static void command_write(char **a)
{
    put("write", a[0], a[1], O_WRONLY);
}

static void command_create(char **a)
{
    put("create", a[0], a[1], O_WRONLY | O_CREAT | O_TRUNC);
}

static void command_open(char **a)
{
    int flags = !strcmp(a[1], "r") ? O_RDONLY : !strcmp(a[1], "w") ? O_WRONLY : O_RDWR;
    int fd = open(a[0], flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    int error = fd < 0 ? errno : 0;
    open_object("open");
    key_text("path", a[0]);
    key_int("errno", error);
    close_object();
    if (fd >= 0)
        close(fd);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void command_ls(char **a)
{
    DIR *dir = opendir(a[0]);
    int error = dir ? 0 : errno;
    char **names = calloc(1, sizeof *names);
    size_t count = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        names = realloc(names, (count + 2) * sizeof *names);
        names[count++] = strdup(e->d_name);
        names[count] = NULL;
    }
    if (dir)
        closedir(dir);
    qsort(names, count, sizeof *names, by_name);
    open_object("ls");
    key_text("path", a[0]);
    key_int("errno", error);
    key_list("names", names);
    close_object();
}

static void command_statfs(char **a)
{
    struct statfs fs;
    int error = statfs(a[0], &fs) ? errno : 0;
    open_object("statfs");
    key_text("path", a[0]);
    key_int("errno", error);
    if (!error) {
        key_int("type", (long long)(uint32_t)fs.f_type);
        key_int("flags", (long long)fs.f_flags);
        key_int("blocks", (long long)fs.f_blocks);
        key_int("bsize", (long long)fs.f_bsize);
    }
    close_object();
}

static void command_mkdir(char **a)
{
    done("mkdir", mkdir(a[0], 0755) ? errno : 0);
}

static void command_unlink(char **a)
{
    done("unlink", unlink(a[0]) ? errno : 0);
}

static void command_mknod(char **a)
{
    mode_t type = a[1][0] == 'b' ? S_IFBLK : a[1][0] == 'p' ? S_IFIFO : S_IFCHR;
    done("mknod", mknod(a[0], type | 0666, makedev(atoi(a[2]), atoi(a[3]))) ? errno : 0);
}

static void command_mount(char **a)
{
    done("mount", mount(a[0], a[1], a[2], 0, NULL) ? errno : 0);
}

static void command_remount_rw(char **a)
{
    done("remount_rw", mount(NULL, a[0], NULL, MS_REMOUNT | MS_BIND, NULL) ? errno : 0);
}

static void command_umount(char **a)
{
    done("umount", umount2(a[0], MNT_DETACH) ? errno : 0);
}

/* ---- processes and signals ---- */

static void command_exit(char **a)
{
    done("exit", 0);
    _exit(atoi(a[0]));
}

static void command_sleep(char **a)
{
    usleep((useconds_t)atoi(a[0]) * 1000);
    done("sleep", 0);
}

static void command_pause(char **a)
{
    (void)a;
    done("pause", 0);
    for (;;)
        pause();
}

static void command_trap(char **a)
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
static void command_signals(char **a)
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

static void command_raise(char **a)
{
    raise(atoi(a[0]));
    done("raise", 0);
}

static void command_crash(char **a)
{
    (void)a;
    signal(SIGSEGV, SIG_DFL);
    *(volatile int *)8 = 0;
}

static void command_fork(char **a)
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
static void command_orphan(char **a)
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

static void command_alloc(char **a)
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
static void command_spin(char **a)
{
    (void)a;
    done("spin", 0);
    for (volatile unsigned long i = 0;; i++)
        ;
}

/* A fork bomb with a fuse: whoever is made goes on making more, until it is refused or `most` have been made. */
static void command_bomb(char **a)
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

static void command_kill(char **a)
{
    done("kill", kill(atoi(a[0]), atoi(a[1])) ? errno : 0);
}

static void command_exec(char **a)
{
    fflush(out);
    execv(a[0], a);
    done("exec", errno);
}

/* ---- the rest ---- */

static void command_echo(char **a)
{
    fflush(out);
    dprintf(1, "%s\n", a[0]);
}

static void command_echoerr(char **a)
{
    fflush(out);
    dprintf(2, "%s\n", a[0]);
}

static void command_cat(char **a)
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

static void command_syscall(char **a)
{
    long v[7] = {0};
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

static void command_clock(char **a)
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

static void command_net(char **a)
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

static void command_tty(char **a)
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
static void command_winch(char **a)
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

static void command_keyring(char **a)
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

/* How the kernel treats this process. */
static void command_treatment(char **a)
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
    unsigned long nodes[16] = {0}; /* 1024 nodes, as many as a kernel can have */
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
static void command_hook(char **a)
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

/* swap A B MS: exchanges two names as fast as possible for MS milliseconds. */
static void command_swap(char **a)
{
    struct timespec now;
    long long end = 0;
    for (long i = 0;; i++) {
        syscall(SYS_renameat2, AT_FDCWD, a[0], AT_FDCWD, a[1], 2 /* RENAME_EXCHANGE */);
        if (i % 64)
            continue;
        clock_gettime(CLOCK_MONOTONIC, &now);
        long long ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
        if (!end)
            end = ms + atoi(a[2]);
        if (ms >= end)
            break;
    }
    done("swap", 0);
}

/* notify TEXT [TIMES]: TEXT as a datagram to the socket of NOTIFY_SOCKET. */
static void command_notify(char **a)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), error = 0;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path ? path : "");
    for (int i = a[1] ? atoi(a[1]) : 1; i > 0 && !error; i--)
        if (sendto(fd, a[0], strlen(a[0]), MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address) < 0)
            error = errno;
    close(fd);
    done("notify", error);
}

static int foreign_exe(int pid, dev_t device, ino_t inode)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    return stat(path, &st) == 0 && (st.st_dev != device || st.st_ino != inode);
}

/*
 * watch COUNT MS: tries to get at every process that comes into view and is not a probe like us, until COUNT of them were
 * seen, MS milliseconds at most. Counts what it got.
 */
static void command_watch(char **a)
{
    struct timespec now, start;
    struct stat exe, root, st;
    long long ms = 0;
    int seen = 0, opened = 0, attached = 0, last = getpid();
    stat("/proc/self/exe", &exe);
    stat("/", &root);
    clock_gettime(CLOCK_MONOTONIC, &start);
    while (seen < atoi(a[0]) && ms < atoi(a[1])) {
        for (int pid = last + 1; pid < last + 64; pid++) {
            static const char *const links[] = {"root", "cwd"};
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

static void command_report(char **a)
{
    (void)a;
    report("report");
}

static const struct {
    const char *name;
    int arguments;
    void (*run)(char **);
} table[] = {
    {"report", 0, command_report}, {"stat", 1, command_stat},     {"statf", 1, command_statf},
    {"read", 1, command_read},     {"write", 2, command_write},   {"create", 2, command_create},
    {"open", 2, command_open},     {"ls", 1, command_ls},         {"statfs", 1, command_statfs},
    {"mkdir", 1, command_mkdir},   {"unlink", 1, command_unlink}, {"mknod", 4, command_mknod},
    {"mount", 3, command_mount},   {"umount", 1, command_umount}, {"remount_rw", 1, command_remount_rw},
    {"exit", 1, command_exit},     {"sleep", 1, command_sleep},   {"pause", 0, command_pause},
    {"trap", 2, command_trap},     {"signals", 0, command_signals}, {"raise", 1, command_raise},
    {"crash", 0, command_crash},   {"fork", 1, command_fork},     {"orphan", 0, command_orphan},
    {"spin", 0, command_spin},     {"bomb", 1, command_bomb},
    {"alloc", 1, command_alloc},   {"kill", 2, command_kill},     {"exec", 1, command_exec},
    {"echo", 1, command_echo},     {"echoerr", 1, command_echoerr}, {"cat", 0, command_cat},
    {"syscall", 1, command_syscall}, {"clock", 0, command_clock}, {"net", 0, command_net},
    {"tty", 0, command_tty},       {"keyring", 0, command_keyring}, {"winch", 0, command_winch}, {"watch", 2, command_watch}, {"hook", 2, command_hook},
    {"swap", 3, command_swap},     {"treatment", 0, command_treatment}, {"notify", 1, command_notify},
};

int main(int argc, char **argv)
{
    /* The own output is buffered so that a report is one write; nothing else is opened. */
    out = stdout;
    static char buffer[1 << 20];
    setvbuf(out, buffer, _IOFBF, sizeof buffer);
    started_umask = umask(0);
    umask(started_umask);
    all_argv = calloc((size_t)argc + 1, sizeof *all_argv);
    memcpy(all_argv, argv, (size_t)argc * sizeof *argv);
    for (int i = 1; i < argc;) {
        int end = i;
        while (end < argc && strcmp(argv[end], ";;"))
            end++;
        char **a = argv + i + 1;
        char *stop = argv[end];
        int given = end - i - 1;
        argv[end] = NULL;
        size_t t = 0;
        for (; t < sizeof table / sizeof *table; t++)
            if (!strcmp(table[t].name, argv[i]) && given >= table[t].arguments)
                break;
        if (t == sizeof table / sizeof *table) {
            dprintf(2, "probe: cannot do '%s' with %d arguments\n", argv[i], given);
            return 125;
        }
        table[t].run(a);
        argv[end] = stop;
        i = end + 1;
    }
    fflush(out);
    return 0;
}
