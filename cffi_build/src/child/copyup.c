/*
 * tmpcopyup: a new tmpfs starts with what it is going to hide. Everything goes through directory fds, nothing follows a
 * symlink, and the tmpfs is still detached: no process of the container can be in the way.
 */
#include "child.h"

#define DEPTH_LIMIT 64
#define BLOCK_SIZE 65536

struct dirent64 {
    uint64_t ino;
    int64_t off;
    unsigned short size;
    unsigned char type;
    char name[];
};

static int copy_tree(struct child *c, int from, int to, int depth);

static int copy_data(int from, int to)
{
    char *block = arena(BLOCK_SIZE);
    long n = block == NULL ? -ENOMEM : 0;
    while (block != NULL && (n = sys_read(from, block, BLOCK_SIZE)) > 0) {
        for (long done = 0; done < n;) {
            long written = sys_write(to, block + done, (size_t)(n - done));
            if (written < 0) {
                SYS2(__NR_munmap, block, BLOCK_SIZE);
                return (int)written;
            }
            done += written;
        }
    }
    if (block != NULL)
        SYS2(__NR_munmap, block, BLOCK_SIZE);
    return n < 0 ? (int)n : 0;
}

static int copy_file(int from_dir, int to_dir, const char *name, const struct statx *st)
{
    long from, to, ret;
    from = open_in(from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
    if (from < 0)
        return (int)from;
    to = sys_openat(to_dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
    ret = to < 0 ? to : copy_data((int)from, (int)to);
    if (ret == 0)
        ret = SYS3(__NR_fchown, to, st->stx_uid, st->stx_gid);
    if (ret == 0)
        ret = SYS2(__NR_fchmod, to, st->stx_mode & 07777);
    if (to >= 0)
        sys_close((int)to);
    sys_close((int)from);
    return (int)ret;
}

static int copy_link(int from_dir, int to_dir, const char *name, const struct statx *st)
{
    char target[4096];
    long n = SYS4(__NR_readlinkat, from_dir, name, target, sizeof(target) - 1);
    if (n < 0)
        return (int)n;
    target[n] = '\0';
    n = SYS3(__NR_symlinkat, target, to_dir, name);
    if (n == 0)
        n = SYS5(__NR_fchownat, to_dir, name, st->stx_uid, st->stx_gid, AT_SYMLINK_NOFOLLOW);
    return (int)n;
}

static int copy_directory(struct child *c, int from_dir, int to_dir, const char *name, const struct statx *st,
                          int depth)
{
    int from, to = -1;
    long ret = SYS3(__NR_mkdirat, to_dir, name, 0700);
    if (ret < 0)
        return (int)ret;
    from = open_in(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
    ret = from;
    if (from >= 0) {
        ret = to = open_in(to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
        if (to >= 0)
            ret = copy_tree(c, from, to, depth + 1);
        if (ret == 0)
            ret = SYS3(__NR_fchown, to, st->stx_uid, st->stx_gid);
        if (ret == 0)
            ret = SYS2(__NR_fchmod, to, st->stx_mode & 07777);
        if (to >= 0)
            sys_close(to);
        sys_close(from);
    }
    return (int)ret;
}

static int copy_entry(struct child *c, int from, int to, const char *name, int depth)
{
    struct statx st;
    long ret = sys_statx(from, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &st);
    if (ret < 0)
        return (int)ret;
    switch (st.stx_mode & S_TYPE_MASK) {
    case S_TYPE_DIR:
        return copy_directory(c, from, to, name, &st, depth);
    case S_TYPE_REG:
        return copy_file(from, to, name, &st);
    case S_TYPE_LNK:
        return copy_link(from, to, name, &st);
    default: /* a node, fifo or socket */
        ret = SYS4(__NR_mknodat, to, name, st.stx_mode, device_number(st.stx_rdev_major, st.stx_rdev_minor));
        if (ret == 0)
            ret = SYS5(__NR_fchownat, to, name, st.stx_uid, st.stx_gid, AT_SYMLINK_NOFOLLOW);
        return (int)ret;
    }
}

static int copy_tree(struct child *c, int from, int to, int depth)
{
    char *buffer;
    long n = 0, ret = 0;
    if (depth > DEPTH_LIMIT)
        return -ELOOP;
    buffer = arena(BLOCK_SIZE);
    if (buffer == NULL)
        return -ENOMEM;
    while (ret == 0 && (n = SYS3(__NR_getdents64, from, buffer, BLOCK_SIZE)) > 0) {
        for (long at = 0; at < n && ret == 0;) {
            const struct dirent64 *entry = (const struct dirent64 *)(buffer + at);
            at += entry->size;
            if (equal(entry->name, ".") || equal(entry->name, ".."))
                continue;
            ret = copy_entry(c, from, to, entry->name, depth);
            if (ret < 0)
                failed(c, "tmpcopyup", entry->name, ret);
        }
    }
    SYS2(__NR_munmap, buffer, BLOCK_SIZE);
    return (int)(ret < 0 ? ret : n);
}

int copy_up(struct child *c, int mount, int hidden, const char *path)
{
    int ret, to, from = open_in(hidden, ".", O_RDONLY | O_DIRECTORY, RESOLVE_BENEATH);
    if (from < 0)
        return failed(c, "openat2", path, from);
    to = open_in(mount, ".", O_RDONLY | O_DIRECTORY, RESOLVE_BENEATH);
    if (to < 0) {
        sys_close(from);
        return failed(c, "openat2", path, to);
    }
    c->call[0] = '\0';
    ret = copy_tree(c, from, to, 0);
    sys_close(from);
    sys_close(to);
    return ret < 0 && c->call[0] == '\0' ? failed(c, "tmpcopyup", path, ret) : ret;
}
