/*
 * Paths inside the container's root. Nothing else in the child turns a config string into an object of the root:
 * every resolution starts at the pinned root fd, cannot leave it, and follows no magic link.
 * Background: man openat2(2); CVE-2021-30465, CVE-2024-45310 (a component is swapped between check and use).
 */
#include "child.h"

#define EAGAIN_RETRIES                                                                                                 \
    128 /* a rename storm elsewhere makes openat2 give up now and then; it must not stall us for ever */
#define LINK_LIMIT 40
#define PROC_ROOT_INO 1 /* linux/proc_fs.h */

int open_in(int dirfd, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
    long fd = -EAGAIN;
    for (int i = 0; i < EAGAIN_RETRIES && (fd == -EAGAIN || fd == -EINTR); i++)
        fd = SYS4(__NR_openat2, dirfd, path, &how, sizeof(how));
    return (int)fd;
}

int in_root(struct child *c, const char *path, uint64_t flags)
{
    return open_in(c->root, path, flags, RESOLVE_CONTAINER);
}

int file_type(int fd, unsigned int *mode, uint32_t *major, uint32_t *minor)
{
    struct statx st;
    long ret = sys_statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_MODE, &st);
    if (ret < 0)
        return (int)ret;
    *mode = st.stx_mode;
    if (major != NULL) {
        *major = st.stx_rdev_major;
        *minor = st.stx_rdev_minor;
    }
    return 0;
}

bool is_host_null(int fd)
{
    unsigned int mode;
    uint32_t major, minor;
    return file_type(fd, &mode, &major, &minor) == 0 && (mode & S_TYPE_MASK) == S_TYPE_CHR && major == 1 && minor == 3;
}

long file_system(int fd)
{
    struct sys_statfs st;
    long ret = SYS2(__NR_fstatfs, fd, &st);
    return ret < 0 ? ret : st.f_type;
}

/*
 * The target of the symlink name in parent, put in place of the first `used` bytes of path; rest is what follows.
 * Relative targets stay relative to the directory part, so the kernel keeps resolving ".." physically.
 */
static int splice_link(int parent, const char *name, char *path, size_t size, size_t dir_size, const char *rest)
{
    char target[4096], joined[4096];
    long n = SYS4(__NR_readlinkat, parent, name, target, sizeof(target) - 1);
    size_t at = 0, tail = length(rest);
    if (n < 0)
        return (int)n;
    target[n] = '\0';
    if (target[0] != '/') {
        memcpy(joined, path, dir_size);
        at = dir_size;
    }
    if (at + (size_t)n + 1 + tail + 1 > sizeof(joined) || at + (size_t)n + 1 + tail + 1 > size)
        return -ENAMETOOLONG;
    memcpy(joined + at, target, (size_t)n);
    at += (size_t)n;
    joined[at++] = '/';
    memcpy(joined + at, rest, tail + 1);
    memcpy(path, joined, at + tail + 1);
    return 0;
}

/*
 * Walk path component by component, making missing directories; a dangling symlink on the way is followed inside the
 * root, as the kernel would if its target were there. resolve: RESOLVE_NO_XDEV: not out of the root's own mount, or 0.
 * Returns O_PATH of the last directory.
 */
static int walk(struct child *c, char *path, size_t size, unsigned int mode, uint64_t resolve)
{
    int links = 0;
    int fd = open_in(c->root, path[0] ? path : "/", O_PATH | O_DIRECTORY, RESOLVE_CONTAINER | resolve);
    if (fd != -ENOENT)
        return fd;

restart:
    fd = open_in(c->root, "/", O_PATH | O_DIRECTORY, RESOLVE_CONTAINER | resolve);
    for (size_t at = 0; fd >= 0;) {
        size_t start, end;
        char saved;
        int next;
        while (path[at] == '/')
            at++;
        if (path[at] == '\0')
            return fd;
        start = end = at;
        while (path[end] != '\0' && path[end] != '/')
            end++;
        saved = path[end];
        path[end] = '\0';
        next = open_in(c->root, path, O_PATH | O_DIRECTORY, RESOLVE_CONTAINER | resolve);
        if (next == -ENOENT) {
            long made = SYS3(__NR_mkdirat, fd, path + start, mode);
            if (made == -EEXIST) {
                /* someone else made it meanwhile, or it is a dangling symlink */
                next = open_in(c->root, path, O_PATH | O_DIRECTORY, RESOLVE_CONTAINER | resolve);
                if (next == -ENOENT) {
                    char rest[4096];
                    char name[256];
                    int ret;
                    if (++links > LINK_LIMIT || end - start >= sizeof(name)) {
                        sys_close(fd);
                        return -ELOOP;
                    }
                    copy_text(name, sizeof(name), path + start);
                    path[end] = saved;
                    copy_text(rest, sizeof(rest), path + end);
                    ret = splice_link(fd, name, path, size, start, rest);
                    sys_close(fd);
                    if (ret < 0)
                        return ret;
                    goto restart;
                }
            } else if (made < 0) {
                next = (int)made;
            } else {
                next =
                    open_in(fd, path + start, O_PATH | O_DIRECTORY | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
            }
        }
        path[end] = saved;
        sys_close(fd);
        fd = next;
        at = end;
    }
    return fd;
}

int make_dir(struct child *c, const char *path, unsigned int mode)
{
    char buffer[4096];
    int fd;
    if (copy_text(buffer, sizeof(buffer), path) >= sizeof(buffer))
        return failed(c, "mkdir", path, -ENAMETOOLONG);
    fd = walk(c, buffer, sizeof(buffer), mode, 0);
    return fd < 0 ? failed(c, "mkdir", path, fd) : fd;
}

/*
 * A directory for what the runtime makes of its own accord. The image's symlinks are followed as long as they stay in the
 * root's own mount: elsewhere is what the config has put there, a volume of the host perhaps, where no node belongs.
 */
static int open_own(struct child *c, const char *directory, bool *plain)
{
    int fd = open_in(c->root, directory, O_PATH | O_DIRECTORY, RESOLVE_CONTAINER | RESOLVE_NO_SYMLINKS);
    *plain = fd != -ELOOP;
    return *plain ? fd : open_in(c->root, directory, O_PATH | O_DIRECTORY, RESOLVE_CONTAINER | RESOLVE_NO_XDEV);
}

int open_parent(struct child *c, const char *path, bool own, const char **name)
{
    char directory[4096];
    size_t cut = length(path);
    bool plain = true;
    int fd;

    while (cut > 0 && path[cut - 1] != '/')
        cut--;
    *name = path + cut;
    if ((*name)[0] == '\0' || equal(*name, ".") || equal(*name, ".."))
        return failed(c, "open", path, -EINVAL);
    if (cut >= sizeof(directory))
        return failed(c, "open", path, -ENAMETOOLONG);
    memcpy(directory, path, cut);
    directory[cut] = '\0';
    if (own) {
        fd = open_own(c, cut ? directory : "/", &plain);
        if (fd != -ENOENT)
            return fd < 0 ? failed(c, "openat2", directory, fd) : fd;
    }
    fd = walk(c, directory, sizeof(directory), 0755, own && !plain ? RESOLVE_NO_XDEV : 0);
    if (fd >= 0 && own &&
        plain) { /* somebody may have put a symlink there meanwhile; walk has rewritten the path then */
        sys_close(fd);
        memcpy(directory, path, cut);
        directory[cut] = '\0';
        fd = open_in(c->root, directory, O_PATH | O_DIRECTORY, RESOLVE_CONTAINER | RESOLVE_NO_SYMLINKS);
    }
    return fd < 0 ? failed(c, "mkdir", directory, fd) : fd;
}

int make_file(struct child *c, const char *path)
{
    char buffer[4096];

    if (copy_text(buffer, sizeof(buffer), path) >= sizeof(buffer))
        return failed(c, "open", path, -ENAMETOOLONG);
    for (int links = 0; links < LINK_LIMIT; links++) {
        const char *name;
        int parent, ret;
        long made;
        int fd = in_root(c, buffer, O_PATH);
        if (fd != -ENOENT)
            return fd < 0 ? failed(c, "openat2", path, fd) : fd;
        parent = open_parent(c, buffer, false, &name);
        if (parent < 0)
            return parent;
        made = sys_openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0644);
        if (made >= 0)
            sys_close((int)made);
        if (made == -EEXIST) {
            char last[256];
            copy_text(last, sizeof(last), name);
            ret = splice_link(parent, last, buffer, sizeof(buffer), (size_t)(name - buffer), "");
            /* EINVAL: no symlink, so another runtime made the same file meanwhile */
            if (ret < 0 && ret != -EINVAL) {
                sys_close(parent);
                return failed(c, "readlink", path, ret);
            }
            if (ret == 0 && length(buffer) > 1 && buffer[length(buffer) - 1] == '/')
                buffer[length(buffer) - 1] = '\0';
        } else if (made < 0) {
            sys_close(parent);
            return failed(c, "open", path, made);
        }
        sys_close(parent);
    }
    return failed(c, "open", path, -ELOOP);
}

static int mount_proc(struct child *c, bool pid_only)
{
    long fs, mnt, ret = 0;
    fs = SYS2(__NR_fsopen, "proc", FSOPEN_CLOEXEC);
    if (fs < 0)
        return failed(c, "fsopen", "proc", fs);
    if (pid_only)
        ret = SYS5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "subset", "pid", 0);
    if (ret == 0)
        ret = SYS5(__NR_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0);
    if (ret < 0) {
        sys_close((int)fs);
        return failed(c, "fsconfig", "proc", ret);
    }
    mnt = SYS3(__NR_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    sys_close((int)fs);
    return mnt < 0 ? failed(c, "fsmount", "proc", mnt) : (int)mnt;
}

/*
 * A new procfs is refused where the caller sees only part of one (mount_too_revealing: a container in a container) and
 * where the PID namespace is somebody else's. Then the caller's own has to do: pinned while it can still be named, before
 * anything of the image is in view, and its root, not what may be mounted on it. A copy of the mounts, masks and all: from
 * the mount itself ".." may lead to the root of the host, as long as anybody else keeps that (/proc/PID/fd, until start).
 */
static int callers_proc(struct child *c, int refused)
{
    struct statx st;
    long fd, ret, tree;
    if (refused != -EPERM || c->pivoted)
        return refused;
    fd = sys_openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0)
        return refused;
    ret = sys_statx((int)fd, "", AT_EMPTY_PATH, STATX_INO, &st);
    if (ret < 0 || st.stx_ino != PROC_ROOT_INO || file_system((int)fd) != PROC_SUPER_MAGIC) {
        sys_close((int)fd);
        return refused;
    }
    tree = sys_open_tree((int)fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
    c->proc_callers = true;
    if (tree < 0) /* without a mount namespace of our own nothing is out of reach anyway */
        return (int)fd;
    sys_close((int)fd);
    return (int)tree;
}

int own_proc(struct child *c)
{
    if (c->proc < 0) {
        c->proc = mount_proc(c, true);
        if (c->proc < 0)
            c->proc = callers_proc(c, c->proc);
    }
    return c->proc;
}

int own_proc_full(struct child *c)
{
    if (c->proc_full < 0) {
        int ret = mount_proc(c, false);
        if (ret == -EPERM && c->proc_callers) /* sysctls are those of whoever opens them, on any procfs */
            return c->proc;
        c->proc_full = ret;
    }
    return c->proc_full;
}

int write_at(int dirfd, const char *path, const char *text, size_t size)
{
    long n;
    int fd = open_in(dirfd, path, O_WRONLY, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV);
    if (fd < 0)
        return fd;
    n = sys_write(fd, text, size);
    sys_close(fd);
    return n < 0 ? (int)n : 0;
}
