/*
 * Mounts, always in the same three moves: make it detached (fsopen .. fsmount, or the parent's open_tree), set its
 * attributes while nobody can see it, put it onto a pinned target with move_mount. No path is resolved twice.
 */
#include "child.h"

#define FS_ERROR_SIZE 256

static int set_attr(int fd, uint64_t packed, bool recursive)
{
    struct mount_attr attr = { .attr_set = packed & 0xffffffff, .attr_clr = packed >> 32 };
    if (packed == 0)
        return 0;
    return (int)sys_mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr);
}

static int set_propagation(int fd, uint64_t flags)
{
    struct mount_attr attr = { .propagation = flags & ~(uint64_t)0x4000 };
    if (flags == 0)
        return 0;
    return (int)sys_mount_setattr(fd, "", AT_EMPTY_PATH | (flags & 0x4000 ? AT_RECURSIVE : 0), &attr);
}

/* The kernel's own words for what fsconfig refused, if it has any: "e tmpfs: Bad value for 'size'". */
static int fs_failed(struct child *c, const char *call, int fs, const char *object, long error)
{
    char text[FS_ERROR_SIZE];
    long n = sys_read(fs, text, sizeof(text) - 1);
    sys_close(fs);
    if (n > 2) {
        if (text[n - 1] == '\n')
            n--;
        text[n] = '\0';
        return failed(c, call, text[0] == 'e' || text[0] == 'w' ? text + 2 : text, error);
    }
    return failed(c, call, object, error);
}

/* Plain directory: no component of the path may be a symlink, so an image cannot lead /proc elsewhere (CVE-2019-19921). */
static int plain_dir(struct child *c, const char *path)
{
    for (int i = 0; i < 2; i++) {
        int fd = open_in(c->root, path, O_PATH | O_DIRECTORY, RESOLVE_CONTAINER | RESOLVE_NO_SYMLINKS);
        if (fd == -ELOOP || fd == -ENOTDIR)
            return failed(c, "ordinary directory", path, fd);
        if (fd != -ENOENT)
            return fd < 0 ? failed(c, "openat2", path, fd) : fd;
        fd = make_dir(c, path, 0755);
        if (fd < 0)
            return fd;
        sys_close(fd);
    }
    return failed(c, "ordinary directory", path, -ELOOP);
}

static int any_target(struct child *c, const struct plan_op *op, const char *path)
{
    if (op->flags & OPF_NO_FOLLOW) {
        int fd = open_in(c->root, path, O_PATH | O_NOFOLLOW, RESOLVE_CONTAINER);
        if (fd != -ENOENT)
            return fd < 0 ? failed(c, "openat2", path, fd) : fd;
    }
    return op->flags & OPF_FILE ? make_file(c, path) : make_dir(c, path, 0755);
}

static int target(struct child *c, const struct plan_op *op, const char *path)
{
    int fd = op->flags & OPF_PLAIN_DIR ? plain_dir(c, path) : any_target(c, op, path);
    /* The config's path was looked at already; where the image's symlinks have led to, only here (CVE-2019-16884). */
    if (fd >= 0 && !(op->flags & (OPF_PLAIN_DIR | OPF_IN_PROC)) && file_system(fd) == PROC_SUPER_MAGIC) {
        sys_close(fd);
        return failed(c, "inside procfs", path, -EPERM);
    }
    return fd;
}

/*
 * A mount that becomes read-only last, when all mount points inside it are made, is remembered by fd: its path could
 * lead to another one by then.
 */
static int keep(struct child *c, const struct plan_op *op, const char *path, int mount)
{
    struct kept *kept;
    if (!(op->flags & OPF_KEEP)) {
        sys_close(mount);
        return 0;
    }
    kept = arena(sizeof(*kept));
    if (kept == NULL)
        return failed(c, "mmap", path, -ENOMEM);
    *kept = (struct kept){ c->kept, path, mount };
    c->kept = kept;
    return 0;
}

static int kept_mount(const struct child *c, const char *path)
{
    for (const struct kept *kept = c->kept; kept != NULL; kept = kept->next)
        if (equal(kept->path, path))
            return kept->mount;
    return -1;
}

static int fs_options(struct child *c, int fs, const struct plan_op *op, struct layers *layers)
{
    const char *at = op_string(c, op, 3);
    const char *end = at + plan_room(&c->plan, op, 3);
    for (uint64_t i = 0; i < op->args[3]; i++) {
        const char *key = at, *value;
        long ret;
        if (at >= end)
            return failed(c, "plan", "options", -EINVAL);
        at += length(at) + 1;
        if (at >= end)
            return failed(c, "plan", key, -EINVAL);
        value = at;
        at += length(at) + 1;
        if (key[0] == '\0' || key[0] == ':') {
            ret = add_layer(c, layers, key, value);
            if (ret < 0) {
                sys_close(fs);
                return (int)ret;
            }
            continue;
        }
        if (layers->used > 0) {
            value = layers->text;
            layers->used = 0;
        }
        if (value[0] == '\0')
            ret = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_FLAG, key, 0, 0);
        else
            ret = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0);
        if (ret < 0)
            return fs_failed(c, "fsconfig", fs, key, ret);
    }
    return 0;
}

/* A tmpfs over an existing directory looks like that directory did, unless the config says otherwise. */
static int inherit_mode(struct child *c, int fs, int destination)
{
    char text[24];
    unsigned int mode;
    long ret = file_type(destination, &mode, NULL, NULL);
    if (ret < 0)
        return failed(c, "statx", "mount destination", ret);
    octal(text, mode & 07777);
    ret = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "mode", text, 0);
    return ret < 0 ? fs_failed(c, "fsconfig", fs, "mode", ret) : 0;
}

static int create_mount(struct child *c, const struct plan_op *op, int mode_of, struct layers *layers)
{
    const char *type = op_string(c, op, 0), *source = op_string(c, op, 2);
    long mnt, ret, fs = SYS2(__NR_fsopen, type, FSOPEN_CLOEXEC);
    if (fs < 0)
        return failed(c, "fsopen", type, fs);
    if (source[0] != '\0') {
        ret = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "source", source, 0);
        if (ret < 0)
            return fs_failed(c, "fsconfig", (int)fs, source, ret);
    }
    ret = fs_options(c, (int)fs, op, layers);
    if (ret == 0 && mode_of >= 0)
        ret = inherit_mode(c, (int)fs, mode_of);
    if (ret < 0)
        return (int)ret;
    ret = SYS5(__NR_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0);
    if (ret < 0)
        return fs_failed(c, "fsconfig", (int)fs, type, ret);
    /* the set bits go with fsmount itself: in a user namespace a proc or sysfs must never be laxer than the host's */
    mnt = SYS3(__NR_fsmount, fs, FSMOUNT_CLOEXEC, op->args[0] & 0xffffffff);
    if (mnt < 0)
        return fs_failed(c, "fsmount", (int)fs, type, mnt);
    sys_close((int)fs);
    return (int)mnt;
}

/* A new file system for op, detached. mode_of: the directory whose mode it inherits, or -1. */
static int new_mount(struct child *c, const struct plan_op *op, int mode_of)
{
    struct layers layers;
    int mnt;
    layers.cwd = -1;
    layers.n = 0;
    layers.used = 0;
    mnt = create_mount(c, op, mode_of, &layers);
    close_layers(&layers);
    return mnt;
}

/* The one that the parent has made: what it must inherit is set now. */
static int given_mount(struct child *c, const struct plan_op *op, int mode_of)
{
    const char *path = op_string(c, op, 1);
    unsigned int mode;
    int root, mnt = op_fd(c, op);
    long ret;
    if (mnt < 0 || mode_of < 0)
        return mnt;
    ret = file_type(mode_of, &mode, NULL, NULL);
    root = ret < 0 ? (int)ret : open_in(mnt, ".", O_RDONLY | O_DIRECTORY, RESOLVE_CONTAINER);
    if (root >= 0) {
        ret = SYS2(__NR_fchmod, root, mode & 07777);
        sys_close(root);
    } else {
        ret = root;
    }
    if (ret < 0) {
        sys_close(mnt);
        return failed(c, "fchmod", path, ret);
    }
    return mnt;
}

/* By a child of the user namespace that the new file system belongs to: to that one itself the kernel maps nothing. */
static int map_ids(struct child *c, const struct plan_op *op, int mnt)
{
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP };
    int userns = op_fd(c, op);
    long ret;
    if (userns < 0)
        return userns;
    attr.userns_fd = (uint64_t)userns;
    ret = sys_mount_setattr(mnt, "", AT_EMPTY_PATH, &attr);
    sys_close(userns);
    return ret < 0 ? failed(c, "id mapping", op_string(c, op, 1), ret) : 0;
}

int op_mount(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 1);
    long ret;
    int at, mnt;
    bool existed = false, mapped = op->flags & OPF_MAPPED, given = op->fd >= 0 && !mapped;

    if (op->flags & OPF_INHERIT_MODE) {
        at = in_root(c, path, O_PATH | O_DIRECTORY);
        existed = at >= 0;
        if (existed)
            sys_close(at);
    }
    at = target(c, op, path);
    if (at < 0)
        return at;
    mnt = given ? given_mount(c, op, existed ? at : -1) : new_mount(c, op, existed ? at : -1);
    if (mnt < 0) {
        sys_close(at);
        return mnt;
    }
    ret = mapped ? map_ids(c, op, mnt) : 0;
    if (ret < 0) {
        sys_close(at);
        sys_close(mnt);
        return (int)ret;
    }
    ret = set_attr(mnt, given ? op->args[0] : op->args[0] & ~(uint64_t)0xffffffff, false);
    if (ret == 0)
        ret = set_attr(mnt, op->args[1], true);
    if (ret < 0)
        failed(c, "mount_setattr", path, ret);
    if (ret == 0 && (op->flags & OPF_COPYUP))
        ret = copy_up(c, mnt, at, path);
    if (ret == 0) {
        ret = sys_move_mount(mnt, at);
        if (ret < 0)
            failed(c, "move_mount", path, ret);
    }
    if (ret == 0) {
        ret = set_propagation(mnt, op->args[2]);
        if (ret < 0)
            failed(c, "mount_setattr", path, ret);
    }
    sys_close(at);
    if (ret < 0)
        sys_close(mnt);
    else
        ret = keep(c, op, path, mnt);
    return (int)ret;
}

static int open_source(struct child *c, const char *source, unsigned int op_flags)
{
    unsigned int flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    long tree;
    if (c->pivoted)
        return failed(c, "open_tree", source, -EXDEV);
    flags |= op_flags & OPF_RECURSIVE ? AT_RECURSIVE : 0;
    flags |= op_flags & OPF_SOURCE_NO_FOLLOW ? AT_SYMLINK_NOFOLLOW : 0;
    tree = sys_open_tree(AT_FDCWD, source, flags);
    return tree < 0 ? failed(c, "open_tree", source, tree) : (int)tree;
}

int op_pin(struct child *c, const struct plan_op *op)
{
    const char *source = op_string(c, op, 0);
    int tree = open_source(c, source, op->flags);
    struct kept *kept, **last = &c->pinned;
    if (tree < 0)
        return tree;
    kept = arena(sizeof(*kept));
    if (kept == NULL)
        return failed(c, "mmap", source, -ENOMEM);
    *kept = (struct kept){ NULL, source, tree };
    while (*last != NULL)
        last = &(*last)->next;
    *last = kept;
    return 0;
}

/*
 * The tree to bind. A user namespace's root cannot reach every source: there the parent opens them, or, where the kernel
 * does not let it, OP_PIN. Otherwise it is done here, in our copy of the host's mounts, before any root change: then mount
 * ids follow the config's order.
 */
static int source_tree(struct child *c, const struct plan_op *op)
{
    struct kept *next = c->pinned;
    if (op->fd >= 0)
        return op_fd(c, op);
    if (!(op->flags & OPF_PINNED))
        return open_source(c, op_string(c, op, 2), op->flags);
    if (next == NULL)
        return failed(c, "plan", "pinned", -EINVAL);
    c->pinned = next->next;
    return next->mount;
}

int op_bind(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 1);
    int tree = source_tree(c, op);
    int at, ret = 0;
    const char *call = "mount_setattr";

    if (tree < 0)
        return tree;
    if ((op->flags & OPF_PROCFS_SOURCE) && file_system(tree) != PROC_SUPER_MAGIC) {
        sys_close(tree);
        return failed(c, "procfs source", path, -EINVAL);
    }
    if (op->flags & OPF_HOST_TREE) {
        struct mount_attr slave = { .propagation = 1 << 19 };
        ret = (int)sys_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &slave);
    }
    /* the whole tree first: what is said of this mount alone wins ("rro,rw") */
    if (ret == 0)
        ret = set_attr(tree, op->args[1], true);
    if (ret == 0)
        ret = set_attr(tree, op->args[0], false);
    if (ret < 0) {
        sys_close(tree);
        return failed(c, call, path, ret);
    }
    at = target(c, op, path);
    if (at < 0) {
        sys_close(tree);
        return at;
    }
    ret = (int)sys_move_mount(tree, at);
    if (ret < 0)
        call = "move_mount";
    if (ret == 0)
        ret = set_propagation(tree, op->args[2]);
    if (ret == 0)
        ret = set_propagation(tree, op->args[3]);
    sys_close(at);
    if (ret < 0) {
        sys_close(tree);
        return failed(c, call, path, ret);
    }
    return keep(c, op, path, tree);
}

int op_attr(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 0);
    bool recursive = op->flags & OPF_RECURSIVE;
    int ret, fd;

    if (path[0] == '\0') {
        ret = set_attr(c->root, op->args[0], recursive);
        return ret < 0 ? failed(c, "mount_setattr", "/", ret) : 0;
    }
    fd = kept_mount(c, path);
    if (fd >= 0) {
        ret = set_attr(fd, op->args[0], recursive);
        return ret < 0 ? failed(c, "mount_setattr", path, ret) : 0;
    }
    fd = in_root(c, path, O_PATH);
    if (fd < 0)
        return failed(c, "openat2", path, fd);
    ret = set_attr(fd, op->args[0], recursive);
    sys_close(fd);
    return ret < 0 ? failed(c, "mount_setattr", path, ret) : 0;
}

/* By descriptor, as everything is: which file system it is was decided when the path was resolved. */
int op_remount(struct child *c, const struct plan_op *op)
{
    const char *path = op_string(c, op, 1);
    struct layers none;
    long ret, fs;
    int kept = kept_mount(c, path), fd = kept >= 0 ? kept : in_root(c, path, O_PATH);

    if (fd < 0)
        return failed(c, "openat2", path, fd);
    fs = SYS3(__NR_fspick, fd, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
    if (fd != kept)
        sys_close(fd);
    if (fs < 0)
        return failed(c, "fspick", path, fs);
    none.cwd = -1;
    none.n = 0;
    none.used = 0;
    ret = fs_options(c, (int)fs, op, &none);
    if (ret < 0)
        return (int)ret;
    ret = SYS5(__NR_fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0);
    if (ret < 0)
        return fs_failed(c, "fsconfig", (int)fs, path, ret);
    sys_close((int)fs);
    return 0;
}
