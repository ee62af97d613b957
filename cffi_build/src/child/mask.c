/*
 * Masked and read-only paths. A file is hidden by the host's true /dev/null, a directory by one empty read-only tmpfs
 * that all masks share. The first use attaches the detached mount; later uses clone it from where it is.
 */
#include "child.h"

static int empty_tmpfs(struct child *c)
{
    /* one inode is the root directory; some kernels count one more */
    static const char *const inodes[] = { "1", "2" };
    for (int i = 0; i < 2; i++) {
        long fs, mnt, ret;
        fs = SYS2(__NR_fsopen, "tmpfs", FSOPEN_CLOEXEC);
        if (fs < 0)
            return failed(c, "fsopen", "tmpfs", fs);
        SYS5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "source", "tmpfs", 0);
        ret = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "nr_blocks", "1", 0);
        if (ret == 0)
            ret = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "nr_inodes", inodes[i], 0);
        if (ret == 0)
            ret = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "mode", "0755", 0);
        if (ret == 0)
            ret = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_FLAG, "ro", 0, 0);
        if (ret == 0)
            ret = SYS5(__NR_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0);
        mnt = ret < 0 ? ret
                      : SYS3(__NR_fsmount, fs, FSMOUNT_CLOEXEC,
                             MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
        sys_close((int)fs);
        if (mnt >= 0)
            return (int)mnt;
        if (i == 1 || mnt != -ENOSPC)
            return failed(c, "fsmount", "tmpfs", mnt);
    }
    return -ENOSPC;
}

/* Put *master onto at if it is still detached, a clone of it otherwise. */
static int cover(int *master, int at)
{
    long ret, clone;
    clone = sys_open_tree(*master, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (clone == -EINVAL) /* a detached tree cannot be cloned before Linux 6.15: use it up, clone it from there */
        return (int)sys_move_mount(*master, at);
    if (clone < 0)
        return (int)clone;
    ret = sys_move_mount((int)clone, at);
    sys_close((int)clone);
    return (int)ret;
}

/*
 * The true /dev/null, taken from the host while it can still be named (CVE-2025-31133). It is the host's own node: read-only
 * takes nothing from its use, and a container's root that may change owners or modes cannot change those of the host.
 */
int take_null(struct child *c)
{
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                               .propagation = 1 << 18 }; /* MS_PRIVATE */
    long tree, ret, fd = sys_openat(AT_FDCWD, "/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);

    if (fd < 0 || !is_host_null((int)fd)) {
        if (fd >= 0)
            sys_close((int)fd);
        return 0; /* an error only when something is to be masked */
    }
    tree = sys_open_tree((int)fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    sys_close((int)fd);
    if (tree < 0)
        return 0;
    ret = sys_mount_setattr((int)tree, "", AT_EMPTY_PATH, &attr);
    if (ret < 0) {
        sys_close((int)tree);
        return failed(c, "mount_setattr", "/dev/null", ret);
    }
    c->null_tree = (int)tree;
    return 0;
}

int op_mask(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 0);
    unsigned int mode;
    int ret, at = in_root(c, path, O_PATH);

    if (at == -ENOENT || at == -ENOTDIR)
        return 0;
    if (at < 0)
        return failed(c, "openat2", path, at);
    ret = file_type(at, &mode, NULL, NULL);
    if (ret == 0 && (mode & S_TYPE_MASK) == S_TYPE_DIR) {
        if (c->mask_tree < 0)
            c->mask_tree = empty_tmpfs(c);
        if (c->mask_tree < 0) {
            sys_close(at);
            return c->mask_tree;
        }
        ret = cover(&c->mask_tree, at);
    } else if (ret == 0) {
        ret = c->null_tree < 0 ? -ENODEV : cover(&c->null_tree, at);
    }
    sys_close(at);
    return ret < 0 ? failed(c, "mask", path, ret) : 0;
}

int op_readonly(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 0);
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
    const char *call = "open_tree";
    long tree, ret;
    int at = in_root(c, path, O_PATH);

    if (at == -ENOENT || at == -ENOTDIR)
        return 0;
    if (at < 0)
        return failed(c, "openat2", path, at);
    ret = tree = sys_open_tree(at, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
    if (tree >= 0) {
        call = "mount_setattr";
        ret = sys_mount_setattr((int)tree, "", AT_EMPTY_PATH, &attr);
        if (ret == 0) {
            call = "move_mount";
            ret = sys_move_mount((int)tree, at);
        }
        sys_close((int)tree);
    }
    sys_close(at);
    return ret < 0 ? failed(c, call, path, ret) : 0;
}
