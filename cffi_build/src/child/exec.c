/* The last part: working directory, environment, finding the program, waiting for start, execve. */
#include "child.h"

#include <linux/close_range.h>

#define PASSWD_LIMIT (1 << 20)
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

int op_chdir(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 0);
    bool first = op->flags & OPF_RETRY;
    long ret;

    if (!first && c->chdir_error == 0)
        return 0; /* done with root's rights already */
    c->chdir_error = 0;
    c->cwd_checked = false;
    ret = SYS1(__NR_chdir, path);
    if (ret == -EACCES && first) {
        c->chdir_error = -EACCES; /* a directory that only the user may enter: tried again after the change of ids */
        return 0;
    }
    return ret < 0 ? failed(c, "chdir", path, ret) : 0;
}

int op_check_cwd(struct child *c, const struct plan_op *op)
{
    char text[4096];
    long ret;
    (void)op;
    if (c->cwd_checked)
        return 0; /* before a filter was loaded, which may not allow it */
    ret = SYS2(__NR_getcwd, text, sizeof(text));
    /* a directory outside the root reads "(unreachable)...": a leaked fd led us there (CVE-2024-21626) */
    if (ret < 0)
        return failed(c, "getcwd", "cwd is outside the container's root", ret);
    if (text[0] != '/')
        return failed(c, "getcwd", "cwd is outside the container's root", -EXDEV);
    c->cwd_checked = c->chdir_error == 0;
    return 0;
}

/* The home directory of uid in the container's own /etc/passwd into home ("HOME=" is there already). */
static void look_up_home(struct child *c, uint64_t uid, char *home, size_t size)
{
    char wanted[24], *text;
    size_t have = 0, digits = decimal(wanted, uid);
    unsigned int mode;
    long n;
    int fd = in_root(c, "/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY);

    copy_text(home, size, "/");
    if (fd < 0)
        return;
    text = arena(PASSWD_LIMIT);
    if (text == NULL || file_type(fd, &mode, NULL, NULL) < 0 || (mode & S_TYPE_MASK) != S_TYPE_REG) {
        sys_close(fd);
        return;
    }
    while (have < PASSWD_LIMIT - 1 && (n = sys_read(fd, text + have, PASSWD_LIMIT - 1 - have)) > 0)
        have += (size_t)n;
    sys_close(fd);
    for (char *line = text; *line != '\0';) {
        char *field[7] = { line }, *at = line;
        int i = 0;
        while (*at != '\n' && *at != '\0') {
            if (*at == ':' && i < 6) {
                *at = '\0';
                field[++i] = at + 1;
            }
            at++;
        }
        if (*at == '\n')
            *at++ = '\0';
        if (i == 6 && length(field[2]) == digits && equal(field[2], wanted)) {
            if (field[5][0] != '\0')
                copy_text(home, size, field[5]);
            break;
        }
        line = at;
    }
    SYS2(__NR_munmap, text, PASSWD_LIMIT);
}

int op_environment(struct child *c, const struct plan_op *op)
{
    uint64_t count = op->args[0];
    const char **vector;
    int ret;

    if (count > PLAN_MAX_SIZE / 8)
        return failed(c, "plan", "env", -EINVAL);
    vector = arena((count + 2) * sizeof(char *));
    if (vector == NULL)
        return failed(c, "mmap", "env", -ENOMEM);
    ret = plan_list(&c->plan, op, 0, count, vector);
    if (ret < 0)
        return failed(c, "plan", "env", ret);
    if (op->flags & OPF_HOME) {
        char *home = arena(4096);
        if (home == NULL)
            return failed(c, "mmap", "env", -ENOMEM);
        copy_text(home, 4096, "HOME=");
        look_up_home(c, op->args[1], home + 5, 4096 - 5);
        vector[count] = home;
        vector[count + 1] = NULL;
    }
    c->envp = (char *const *)vector;
    return 0;
}

/* 0 when path is a regular file that we may execute. A seccomp filter that is loaded by now (no noNewPrivileges) may be
   older than statx and faccessat2: then the type is left to execve, and faccessat does, as all ids are equal here. */
static int executable(const char *path)
{
    struct statx st;
    long ret = sys_statx(AT_FDCWD, path, 0, STATX_TYPE, &st);
    if (ret < 0 && ret != -ENOSYS && ret != -EPERM)
        return (int)ret;
    if (ret == 0 && (st.stx_mode & S_TYPE_MASK) != S_TYPE_REG)
        return -EACCES; /* what execve says of directories and nodes too */
    ret = SYS4(__NR_faccessat2, AT_FDCWD, path, 1 /* X_OK */, AT_EACCESS);
    if (ret == -ENOSYS || ret == -EPERM)
        ret = SYS3(__NR_faccessat, AT_FDCWD, path, 1 /* X_OK */);
    return (int)ret;
}

static int search(struct child *c, const char *name, const char *path)
{
    char *candidate = arena(8192);
    int best = -ENOENT;
    if (candidate == NULL)
        return -ENOMEM;
    for (const char *at = path;; at++) {
        const char *end = at;
        size_t size;
        int ret;
        while (*end != ':' && *end != '\0')
            end++;
        size = (size_t)(end - at);
        if (size + length(name) + 3 <= 8192) {
            memcpy(candidate, at, size);
            if (size == 0)
                candidate[size++] = '.'; /* an empty element is the working directory */
            candidate[size] = '/';
            copy_text(candidate + size + 1, 8192 - size - 1, name);
            ret = executable(candidate);
            if (ret == 0) {
                c->executable = candidate;
                return 0;
            }
            if (ret == -EACCES)
                best = ret;
        }
        at = end;
        if (*at == '\0')
            return best;
    }
}

int op_lookup(struct child *c, const struct plan_op *op)
{
    const char **vector;
    const char *name, *path = DEFAULT_PATH;
    bool plain = true;
    int ret;

    if (op->args[0] == 0 || op->args[0] > PLAN_MAX_SIZE / 8)
        return failed(c, "plan", "args", -EINVAL);
    vector = arena((op->args[0] + 1) * sizeof(char *));
    if (vector == NULL)
        return failed(c, "mmap", "args", -ENOMEM);
    ret = plan_list(&c->plan, op, 0, op->args[0], vector);
    if (ret < 0)
        return failed(c, "plan", "args", ret);
    c->argv = (char *const *)vector;
    name = vector[0];
    for (const char *at = name; *at != '\0'; at++)
        plain = plain && *at != '/';
    if (!plain) {
        c->executable = name;
        ret = executable(name);
    } else {
        for (int i = 0; c->envp != NULL && c->envp[i] != NULL; i++)
            if (starts_with(c->envp[i], "PATH="))
                path = c->envp[i];
        ret = name[0] == '\0' ? -ENOENT : search(c, name, path + 5);
    }
    return ret < 0 ? failed(c, plain ? "PATH search" : "exec", name, ret) : 0;
}

/* A container may wait for its start for days: what set it up is closed, what cannot be closed has CLOEXEC. */
static void close_fd(int *fd)
{
    if (*fd >= 0)
        sys_close(*fd);
    *fd = -1;
}

void close_mount_helpers(struct child *c)
{
    close_fd(&c->proc_full);
    close_fd(&c->null_tree);
    close_fd(&c->mask_tree);
    for (; c->kept != NULL; c->kept = c->kept->next)
        close_fd(&c->kept->mount);
}

void close_helpers(struct child *c)
{
    close_mount_helpers(c);
    close_fd(&c->root);
    close_fd(&c->proc);
}

int op_fifo(struct child *c, const struct plan_op *op)
{
    c->fifo = op_fd(c, op);
    if (c->fifo < 0)
        return c->fifo;
    outlive_sigpipe();
    c->links = open_in(c->proc, "self/fd", O_PATH | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
    return c->links < 0 ? failed(c, "openat2", "/proc/self/fd", c->links) : 0;
}

int op_wait_start(struct child *c, const struct plan_op *op)
{
    char number[24];
    int ret;
    long fd;

    /* A seccomp profile may be in force: only read, write, openat, close and execve, here and to the end. */
    (void)op;
    close_helpers(c);
    close_fd(&c->seccomp);
    decimal(number, (uint64_t)c->fifo);
    do
        fd = sys_openat(c->links, number, O_PATH | O_CLOEXEC, 0); /* may fail for want of fds: then now, not at start */
    while (fd == -EINTR);
    if (fd < 0)
        return failed(c, "open", "exec.fifo", fd);
    sys_close((int)fd);
    ret = sync_with_parent(c, SYNC_CREATED, NULL);
    if (ret < 0)
        return ret;
    c->report = -1;
    sys_close(c->sync);
    c->sync = -1;
    do
        fd = sys_openat(c->links, number, O_WRONLY | O_CLOEXEC, 0); /* a link to the fd that the parent gave us */
    while (fd == -EINTR);
    if (fd < 0)
        return failed(c, "open", "exec.fifo", fd);
    *c->waits = '\0'; /* before the first word to start: if that is dead by now, a second one need not wait for any */
    sys_write((int)fd, "0", 1);
    c->report = (int)fd; /* start reads until execve closes it; it knows no plan, only the order of what is left */
    c->first_op = c->op + 1;
    return 0;
}

int run_program(struct child *c)
{
    return explain_execve(c, SYS3(__NR_execve, c->executable, c->argv, c->envp));
}

int op_exec(struct child *c, const struct plan_op *op)
{
    if (op->flags & OPF_NO_PROCESS)
        return failed(c, "exec", "the config has no process", -ENOEXEC);
    if (c->executable == NULL)
        return failed(c, "plan", "no executable", -EINVAL);
    return op->flags & OPF_INIT ? stay_as_init(c) : run_program(c);
}
