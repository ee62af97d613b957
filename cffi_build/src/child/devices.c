/*
 * Device nodes and links. Made as parent fd + last component, never through a symlink of that name or into another mount
 * (path.c), then looked at again.
 */
#include "child.h"

uint64_t device_number(uint32_t major, uint32_t minor)
{
    return (minor & 0xff) | ((uint64_t)major << 8) | ((uint64_t)(minor & ~0xffU) << 12);
}

/* O_PATH of name in parent when that is a node of this type and number. */
static int verified_node(int parent, const char *name, unsigned int want_type, uint32_t major, uint32_t minor)
{
    unsigned int mode;
    uint32_t have_major, have_minor;
    int fd = open_in(parent, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH);
    int ret;
    if (fd < 0)
        return fd;
    ret = file_type(fd, &mode, &have_major, &have_minor);
    if (ret == 0 && (mode & S_TYPE_MASK) != want_type)
        ret = -EEXIST;
    if (ret == 0 && want_type != 0010000 && (have_major != major || have_minor != minor))
        ret = -EEXIST;
    if (ret < 0)
        sys_close(fd);
    return ret < 0 ? ret : fd;
}

int op_device(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 0), *name;
    unsigned int mode = (unsigned int)op->args[0], type = mode & S_TYPE_MASK;
    uint32_t major = (uint32_t)(op->args[1] >> 32), minor = (uint32_t)op->args[1];
    uint32_t uid = (uint32_t)(op->args[2] >> 32), gid = (uint32_t)op->args[2];
    const char *call = "mknod";
    long made, ret;
    int fd, parent = open_parent(c, path, true, &name);

    if (parent < 0)
        return parent;
    made = SYS4(__NR_mknodat, parent, name, mode, device_number(major, minor));
    ret = made;
    if (made == 0 || made == -EEXIST) {
        if (made == -EEXIST)
            call = "existing node";
        ret = fd = verified_node(parent, name, type, major, minor);
        if (fd >= 0 && made == 0 && (uid != 0 || gid != 0)) {
            call = "chown";
            ret = SYS5(__NR_fchownat, fd, "", uid, gid, AT_EMPTY_PATH);
        }
        if (fd >= 0)
            sys_close(fd);
    }
    sys_close(parent);
    return ret < 0 ? failed(c, call, path, ret) : 0;
}

/* O_PATH of a plain file to bind a node onto, made if missing; it must not be a symlink itself. */
static int plain_file(struct child *c, const char *path)
{
    const char *name;
    unsigned int mode;
    long made;
    int fd, ret, parent = open_parent(c, path, true, &name);
    if (parent < 0)
        return parent;
    made = sys_openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0644);
    if (made >= 0)
        sys_close((int)made);
    fd = made < 0 && made != -EEXIST ? (int)made : open_in(parent, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH);
    sys_close(parent);
    ret = fd < 0 ? fd : file_type(fd, &mode, NULL, NULL);
    if (ret == 0 && ((mode & S_TYPE_MASK) == S_TYPE_LNK || file_system(fd) == PROC_SUPER_MAGIC))
        ret = -ELOOP;
    if (ret < 0 && fd >= 0)
        sys_close(fd);
    return ret < 0 ? failed(c, "open", path, ret) : fd;
}

/* What a node may cover: an empty file, made for it now or for an earlier container, or the same node. */
static int may_cover(int fd, unsigned int type, uint32_t major, uint32_t minor)
{
    struct statx st;
    long ret = sys_statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_SIZE, &st);
    if (ret < 0)
        return (int)ret;
    if ((st.stx_mode & S_TYPE_MASK) == S_TYPE_REG && st.stx_size == 0)
        return 0;
    return (st.stx_mode & S_TYPE_MASK) == type && st.stx_rdev_major == major && st.stx_rdev_minor == minor ? 0
                                                                                                           : -EEXIST;
}

int op_device_bind(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 0), *host = op_string(c, op, 1);
    uint32_t major = (uint32_t)(op->args[1] >> 32), minor = (uint32_t)op->args[1], have_major = 0, have_minor = 0;
    struct mount_attr private = { .propagation = 1 << 18 }; /* MS_PRIVATE */
    unsigned int mode = 0;
    long source, tree, ret;
    int at;

    if (c->pivoted)
        return failed(c, "open", host, -EXDEV);
    source = sys_openat(AT_FDCWD, host, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    if (source < 0)
        return failed(c, "open", host, source);
    ret = file_type((int)source, &mode, &have_major, &have_minor);
    if (ret == 0 && ((mode & S_TYPE_MASK) != (op->args[0] & S_TYPE_MASK) || have_major != major || have_minor != minor))
        ret = -ENODEV;
    if (ret < 0) {
        sys_close((int)source);
        return failed(c, "verify device", host, ret);
    }
    tree = sys_open_tree((int)source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    sys_close((int)source);
    if (tree < 0)
        return failed(c, "open_tree", host, tree);
    /* nothing of the host's propagation, not even the number of its peer group */
    ret = sys_mount_setattr((int)tree, "", AT_EMPTY_PATH, &private);
    if (ret < 0) {
        sys_close((int)tree);
        return failed(c, "mount_setattr", host, ret);
    }
    at = plain_file(c, path);
    ret = at;
    if (at >= 0) {
        ret = may_cover(at, (unsigned int)op->args[0] & S_TYPE_MASK, major, minor);
        if (ret < 0) {
            failed(c, "existing node", path, ret);
        } else {
            ret = sys_move_mount((int)tree, at);
            if (ret < 0)
                failed(c, "move_mount", path, ret);
        }
        sys_close(at);
    }
    sys_close((int)tree);
    return (int)ret;
}

static bool same_link(int parent, const char *name, const char *to)
{
    char target[4096];
    long n = SYS4(__NR_readlinkat, parent, name, target, sizeof(target));
    return n == (long)length(to) && memcmp(target, to, (size_t)n) == 0;
}

int op_symlink(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 0), *to = op_string(c, op, 1), *name;
    long ret;
    int parent = open_parent(c, path, !(op->flags & OPF_SAME), &name);

    if (parent < 0)
        return parent;
    ret = SYS3(__NR_symlinkat, to, parent, name);
    if (ret == -EEXIST && (op->flags & OPF_OPTIONAL)) {
        ret = 0;
    } else if (ret == -EEXIST && (op->flags & OPF_SAME)) {
        ret = same_link(parent, name, to) ? 0 : -EEXIST;
    } else if (ret == -EEXIST) {
        ret = SYS3(__NR_unlinkat, parent, name, 0);
        if (ret == 0)
            ret = SYS3(__NR_symlinkat, to, parent, name);
    }
    sys_close(parent);
    return ret < 0 ? failed(c, "symlink", path, ret) : 0;
}
