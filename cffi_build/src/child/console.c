/*
 * The terminal: a pty of the container's own devpts, opened and verified inside its root; the slave becomes the standard
 * streams and the controlling terminal, the master goes to the parent. The slave's name is never looked up: TIOCGPTPEER
 * gives the peer of this very master (CVE-2025-52565).
 */
#include "child.h"

#define TIOCSPTLCK 0x40045431
#define TIOCGPTPEER 0x5441
#define TIOCSWINSZ 0x5414
#define TIOCSCTTY 0x540e
#define DEVPTS_SUPER_MAGIC 0x1cd1
#define PTMX_INODE 2

struct window {
    unsigned short rows, columns, x, y;
};

/* The multiplexer of a devpts, whatever the image has put in its place. */
static int open_master(struct child *c)
{
    struct statx st;
    long ret;
    int fd = open_in(c->root, "dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK,
                     RESOLVE_CONTAINER | RESOLVE_NO_SYMLINKS);
    if (fd < 0)
        return failed(c, "openat2", "/dev/pts/ptmx", fd);
    ret = sys_statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO, &st);
    if (ret == 0 && (file_system(fd) != DEVPTS_SUPER_MAGIC || (st.stx_mode & S_TYPE_MASK) != S_TYPE_CHR ||
                     st.stx_rdev_major != 5 || st.stx_rdev_minor != 2 || st.stx_ino != PTMX_INODE))
        ret = -ENODEV;
    if (ret == 0)
        ret = SYS3(__NR_fcntl, fd, F_SETFL, O_RDWR);
    if (ret < 0) {
        sys_close(fd);
        return failed(c, "verify", "/dev/pts/ptmx", ret);
    }
    return fd;
}

/* The slave bound onto /dev/console: an existing or new plain file, never through a symlink. */
static int bind_console(struct child *c, int slave)
{
    const char *name;
    unsigned int mode;
    long made, ret;
    int at, tree, parent = open_parent(c, "/dev/console", true, &name);

    if (parent < 0)
        return parent;
    made = sys_openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0666);
    if (made >= 0)
        sys_close((int)made);
    at = made < 0 && made != -EEXIST ? (int)made : open_in(parent, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH);
    sys_close(parent);
    ret = at < 0 ? at : file_type(at, &mode, NULL, NULL);
    if (ret == 0 && ((mode & S_TYPE_MASK) == S_TYPE_LNK || (mode & S_TYPE_MASK) == S_TYPE_DIR))
        ret = -ELOOP;
    if (ret == 0) {
        ret = tree = (int)sys_open_tree(slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        if (tree >= 0) {
            ret = sys_move_mount(tree, at);
            sys_close(tree);
        }
    }
    if (at >= 0)
        sys_close(at);
    return ret < 0 ? failed(c, "move_mount", "/dev/console", ret) : 0;
}

int op_console(struct child *c, const struct plan_op *op)
{
    struct window size = { (unsigned short)(op->args[0] >> 16), (unsigned short)op->args[0], 0, 0 };
    int unlock = 0, ret, master = open_master(c);
    long slave;

    if (master < 0)
        return master;
    ret = (int)SYS3(__NR_ioctl, master, TIOCSPTLCK, &unlock);
    if (ret < 0) {
        sys_close(master);
        return failed(c, "ioctl", "TIOCSPTLCK", ret);
    }
    slave = SYS3(__NR_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0) {
        sys_close(master);
        return failed(c, "ioctl", "TIOCGPTPEER", slave);
    }
    if (size.rows != 0 || size.columns != 0)
        SYS3(__NR_ioctl, master, TIOCSWINSZ, &size);
    ret = op->flags & OPF_BIND_CONSOLE ? bind_console(c, (int)slave) : 0;
    if (ret == 0) {
        ret = sync_with_fd(c, SYNC_CONSOLE, master);
    }
    sys_close(master);
    for (int fd = 0; fd <= 2 && ret == 0; fd++) {
        ret = (int)SYS3(__NR_dup3, slave, fd, 0);
        ret = ret < 0 ? failed(c, "dup", "console", ret) : 0;
    }
    sys_close((int)slave);
    if (ret == 0) {
        ret = (int)SYS3(__NR_ioctl, 0, TIOCSCTTY, 0);
        if (ret < 0)
            failed(c, "ioctl", "TIOCSCTTY", ret);
    }
    return ret;
}
