/*
 * The root: propagation, the bind of the rootfs on itself, pivot_root, or its stand-ins.
 * pivot_root(".", ".") needs no directory for the old root: it ends up stacked below, and is detached at once
 * (man pivot_root(2), "pivot_root(".", ".")").
 */
#include "child.h"

#define MS_SLAVE_REC (1 << 19 | 0x4000)

static int set_propagation(int fd, uint64_t flags, const char *path)
{
    struct mount_attr attr = { .propagation = flags & ~(uint64_t)0x4000 };
    unsigned int at = fd >= 0 ? AT_EMPTY_PATH : 0;
    if (flags & 0x4000) /* MS_REC */
        at |= AT_RECURSIVE;
    return (int)sys_mount_setattr(fd >= 0 ? fd : AT_FDCWD, path, at, &attr);
}

int op_propagation(struct child *c, const struct plan_op *op)
{
    int ret = set_propagation(-1, op->args[0], "/");
    return ret < 0 ? failed(c, "mount_setattr", "/", ret) : 0;
}

int op_root_attr_propagation(struct child *c, const struct plan_op *op)
{
    int ret = set_propagation(c->root, op->args[0], "");
    return ret < 0 ? failed(c, "mount_setattr", "/", ret) : 0;
}

/* The root of the mount that holds fd: climb until statx says so. The caller keeps fd; a new fd is returned. */
static int mount_root(int fd)
{
    long at = SYS3(__NR_fcntl, fd, F_DUPFD_CLOEXEC, 3);
    while (at >= 0) {
        struct statx st;
        long up = sys_statx((int)at, "", AT_EMPTY_PATH, STATX_TYPE, &st);
        if (up < 0 || (st.stx_attributes & STATX_ATTR_MOUNT_ROOT)) {
            if (up < 0) {
                sys_close((int)at);
                return (int)up;
            }
            return (int)at;
        }
        up = sys_openat((int)at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        sys_close((int)at);
        at = up;
    }
    return (int)at;
}

/*
 * Put the tree of the rootfs where pivot_root can take it from: onto path. Where that cannot be reached (the directories of
 * somebody whose ID the user namespace lacks), over "/", of which pivot_root thinks no less.
 */
static int place_root(struct child *c, const char *path, int fd, int tree)
{
    struct mount_attr slave = { .propagation = 1 << 19 }; /* MS_SLAVE */
    long at = fd, top = fd < 0 ? fd : mount_root(fd), ret;

    if (top == -EACCES) {
        at = sys_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        top = at < 0 ? at : mount_root((int)at);
    }
    if (top < 0)
        return failed(c, "statx", path, top);
    /*
     * pivot_root refuses a new root whose parent mount is shared, and the bind must not travel to the host. A slave is
     * enough, and no less is right: binds whose source is beside the root file system are copies of this mount.
     */
    ret = sys_mount_setattr((int)top, "", AT_EMPTY_PATH, &slave);
    sys_close((int)top);
    if (ret < 0) {
        failed(c, "mount_setattr", path, ret);
    } else {
        ret = sys_move_mount(tree, (int)at);
        if (ret < 0)
            failed(c, "move_mount", path, ret);
    }
    if (at != fd)
        sys_close((int)at);
    return (int)ret;
}

int op_rootfs(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 0);
    int given = op->fd >= 0 ? op_fd(c, op) : -1;
    struct statx st;
    long fd, tree = given, ret;

    if (op->fd >= 0 && given < 0)
        return given;
    fd = sys_openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0 && given < 0)
        return failed(c, "open", path, fd);
    ret = sys_statx(given >= 0 ? given : (int)fd, "", AT_EMPTY_PATH, STATX_INO, &st);
    if (ret < 0)
        return failed(c, "statx", path, ret);
    if (op->args[1] != 0 &&
        (st.stx_ino != op->args[1] || ((uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor) != op->args[0]))
        return failed(c, "verify rootfs", path, -ESTALE); /* not the directory that the parent has seen */
    if (op->flags & OPF_NO_BIND) {
        c->root = (int)fd;
        if (op->flags & OPF_NO_PROCFS)
            return 0;
        ret = own_proc(c);
        return ret < 0 ? (int)ret : 0;
    }

    if (given < 0)
        tree = sys_open_tree((int)fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
    if (tree < 0)
        return failed(c, "open_tree", path, tree);
    if (given >= 0) { /* it comes from the host's mounts, ours were made slaves already */
        ret = set_propagation(given, MS_SLAVE_REC, "");
        if (ret < 0)
            return failed(c, "mount_setattr", path, ret);
    }
    ret = place_root(c, path, (int)fd, (int)tree);
    if (fd >= 0)
        sys_close((int)fd);
    if (ret < 0)
        return (int)ret;
    c->root = (int)tree;

    ret = take_null(c);
    if (ret < 0)
        return (int)ret;
    /* Needed after the capabilities are gone (the exec fifo); in a user namespace only while a full /proc is in view. */
    ret = own_proc(c);
    return ret < 0 ? (int)ret : 0;
}

static bool is_below(const char *path, const char *directory)
{
    size_t size = length(directory);
    return starts_with(path, directory) && (path[size] == '/' || path[size] == '\0');
}

/* mountinfo writes blanks, tabs, newlines and backslashes as three octal digits. Source: proc_pid_mountinfo(5). */
static void unescape(char *text)
{
    char *to = text;
    for (const char *at = text; *at != '\0'; at++) {
        if (at[0] == '\\' && at[1] >= '0' && at[1] <= '3' && at[2] >= '0' && at[2] <= '7' && at[3] >= '0' &&
            at[3] <= '7') {
            *to++ = (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0'));
            at += 3;
        } else {
            *to++ = *at;
        }
    }
    *to = '\0';
}

/* Without pivot_root the old root stays below ours: what could still be mounted anew from there goes away first. */
static int hide_kernel_mounts(struct child *c)
{
    static const size_t capacity = 1 << 20;
    char own_root[4096], link[32] = "self/fd/";
    char *text = arena(capacity);
    long fd = sys_openat(AT_FDCWD, "/proc/self/mountinfo", O_RDONLY | O_CLOEXEC, 0);
    size_t size = 0;
    long n;
    if (fd < 0 || text == NULL)
        return failed(c, "open", "/proc/self/mountinfo", fd < 0 ? fd : -ENOMEM);
    decimal(link + 8, (uint64_t)c->root);
    n = SYS4(__NR_readlinkat, c->proc, link, own_root, sizeof(own_root) - 1);
    if (n < 0)
        return failed(c, "readlink", "rootfs", n);
    own_root[n] = '\0';
    while (size < capacity - 1 && (n = sys_read((int)fd, text + size, capacity - 1 - size)) > 0)
        size += (size_t)n;
    sys_close((int)fd);
    for (char *line = text; line < text + size;) {
        char *end = line, *field[5], *type, *at;
        int i = 0;
        while (*end != '\n' && *end != '\0')
            end++;
        *end = '\0';
        for (at = line; i < 5; i++) {
            field[i] = at;
            while (*at != ' ' && *at != '\0')
                at++;
            if (*at == ' ')
                *at++ = '\0';
        }
        unescape(field[4]);
        type = at;
        while (*type != '\0' && !starts_with(type, " - "))
            type++;
        if ((starts_with(type, " - proc ") || starts_with(type, " - sysfs ")) && equal(field[3], "/") &&
            !is_below(field[4], own_root) && SYS2(__NR_umount2, field[4], MNT_DETACH) < 0) {
            long ret =
                SYS5(__NR_mount, "none", field[4], "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k");
            /* a mount that another one hides cannot be named any more: neither by us nor by the container */
            if (ret < 0 && ret != -ENOENT && ret != -EACCES)
                return failed(c, "mount", field[4], ret);
        }
        line = end + 1;
    }
    return 0;
}

static int move_root(struct child *c)
{
    long ret, slash;
    ret = hide_kernel_mounts(c);
    if (ret < 0)
        return (int)ret;
    ret = SYS1(__NR_fchdir, c->root);
    if (ret < 0)
        return failed(c, "fchdir", "rootfs", ret);
    slash = sys_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (slash < 0)
        return failed(c, "open", "/", slash);
    ret = sys_move_mount(c->root, (int)slash);
    sys_close((int)slash);
    if (ret < 0)
        return failed(c, "move_mount", "/", ret);
    ret = SYS1(__NR_chroot, ".");
    return ret < 0 ? failed(c, "chroot", ".", ret) : 0;
}

static int pivot(struct child *c)
{
    struct mount_attr slave = { .propagation = 1 << 19 }; /* MS_SLAVE: the umount below must not reach the host */
    long old = sys_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    long ret;
    if (old < 0)
        return failed(c, "open", "/", old);
    ret = SYS1(__NR_fchdir, c->root);
    if (ret < 0)
        return failed(c, "fchdir", "rootfs", ret);
    ret = SYS2(__NR_pivot_root, ".", ".");
    if (ret < 0)
        return failed(c, "pivot_root", ".", ret);
    ret = SYS1(__NR_fchdir, old);
    if (ret == 0)
        ret = sys_mount_setattr((int)old, "", AT_EMPTY_PATH | AT_RECURSIVE, &slave);
    sys_close((int)old);
    if (ret < 0)
        return failed(c, "mount_setattr", "old root", ret);
    ret = SYS2(__NR_umount2, ".", MNT_DETACH);
    return ret < 0 ? failed(c, "umount", "old root", ret) : 0;
}

int op_pivot(struct child *c, const struct plan_op *op)
{
    long ret = op->flags & OPF_NO_PIVOT ? move_root(c) : pivot(c);
    if (ret < 0)
        return (int)ret;
    c->pivoted = true;
    ret = SYS1(__NR_chdir, "/");
    if (ret < 0)
        return failed(c, "chdir", "/", ret);
    reopen_null(c);
    return 0;
}

int op_chroot(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 0);
    long ret = SYS1(__NR_fchdir, c->root);
    if (ret == 0)
        ret = SYS1(__NR_chroot, ".");
    if (ret == 0)
        ret = SYS1(__NR_chdir, "/");
    if (ret < 0)
        return failed(c, "chroot", path, ret);
    c->pivoted = true;
    reopen_null(c);
    return 0;
}

void reopen_null(struct child *c)
{
    int null = -1;
    for (int fd = 0; fd <= 2; fd++) {
        if (!is_host_null(fd))
            continue;
        if (null < 0) {
            int path = open_in(c->root, "/dev/null", O_PATH | O_NOFOLLOW, RESOLVE_CONTAINER | RESOLVE_NO_SYMLINKS);
            bool right = path >= 0 && is_host_null(path);
            if (path >= 0)
                sys_close(path);
            if (!right)
                return;
            null = open_in(c->root, "/dev/null", O_RDWR | O_NOFOLLOW | O_NONBLOCK,
                           RESOLVE_CONTAINER | RESOLVE_NO_SYMLINKS);
            if (null < 0 || !is_host_null(null))
                return;
            SYS3(__NR_fcntl, null, F_SETFL, 0);
        }
        SYS3(__NR_dup3, null, fd, 0);
    }
    if (null >= 0)
        sys_close(null);
}

int op_mkdir(struct child *c, const struct plan_op *op)
{
    int fd = make_dir(c, op_string(c, op, 0), (unsigned int)op->args[0]);
    if (fd >= 0)
        sys_close(fd);
    return fd < 0 ? fd : 0;
}
