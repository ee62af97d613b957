/* Paths inside the root: resolution never leaves it, and missing parts are made inside. argv[1]: an empty directory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "tap.h"

/* <fcntl.h> and the kernel's own headers do not go together. */
int open(const char *path, int flags, ...);

static struct child c;

static int is_dir(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int is_file(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static int entries(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int)st.st_nlink - 2 : -1;
}

static int done(int fd)
{
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : fd;
}

int main(int argc, char **argv)
{
    const char *name;
    char long_path[5000];

    if (argc != 2 || chdir(argv[1]) < 0 || mkdir("root", 0755) < 0 || mkdir("canary", 0755) < 0)
        return 2;
    c.report = -1;
    c.root = open("root", O_DIRECTORY | O_RDONLY);

    ok(done(make_dir(&c, "/a/b/c", 0755)) == 0 && is_dir("root/a/b/c"));
    ok(done(make_dir(&c, "/a/b/c", 0755)) == 0);
    ok(done(make_dir(&c, "/", 0755)) == 0);
    ok(done(make_file(&c, "/f/g")) == 0 && is_file("root/f/g"));
    ok(done(make_file(&c, "/f/g")) == 0);
    ok(make_dir(&c, "/f/g", 0755) == -ENOTDIR);
    ok(make_dir(&c, "/f/g/h", 0755) == -ENOTDIR);

    /* symlinks stay inside, absolute or climbing */
    ok(symlink("/../../canary", "root/up") == 0 && symlink("../../../canary/x", "root/deep") == 0);
    ok(done(make_dir(&c, "/up/in", 0755)) == 0 && is_dir("root/canary/in") && !is_dir("canary/in"));
    ok(done(make_dir(&c, "/deep/y", 0755)) == 0 && is_dir("root/canary/x/y"));
    ok(entries("canary") == 0);

    /* dangling ones are followed inside the root too */
    ok(symlink("/run/real", "root/etc-link") == 0 && done(make_file(&c, "/etc-link")) == 0 && is_file("root/run/real"));
    ok(symlink("dir2/sub", "root/rel") == 0 && done(make_dir(&c, "/rel/z", 0755)) == 0 && is_dir("root/dir2/sub/z"));
    ok(symlink("loop-b", "root/loop-a") == 0 && symlink("loop-a", "root/loop-b") == 0);
    ok(make_dir(&c, "/loop-a/x", 0755) == -ELOOP && make_file(&c, "/loop-b") == -ELOOP);

    /* the parent of something the runtime makes itself */
    ok(done(open_parent(&c, "/dev/net/tun", true, &name)) == 0 && strcmp(name, "tun") == 0 && is_dir("root/dev/net"));
    ok(done(open_parent(&c, "/up/own/node", true, &name)) == 0 && is_dir("root/canary/own") && entries("canary") == 0);
    ok(open_parent(&c, "/loop-a/node", true, &name) == -ELOOP);
    ok(open_parent(&c, "/dev/..", true, &name) == -EINVAL && open_parent(&c, "/dev/", true, &name) == -EINVAL);

    memset(long_path, 'a', sizeof(long_path) - 1);
    long_path[0] = '/';
    long_path[sizeof(long_path) - 1] = '\0';
    ok(make_dir(&c, long_path, 0755) == -ENAMETOOLONG && make_file(&c, long_path) == -ENAMETOOLONG);
    long_path[4500] = '/';
    ok(open_parent(&c, long_path, false, &name) == -ENAMETOOLONG);

    /* magic links are never followed */
    ok(in_root(&c, "/proc/self/root", O_RDONLY) < 0);

    ok(decimal(long_path, 0) == 1 && strcmp(long_path, "0") == 0);
    ok(decimal(long_path, 18446744073709551615ULL) == 20 && strcmp(long_path, "18446744073709551615") == 0);
    ok(octal(long_path, 01777) == 4 && strcmp(long_path, "1777") == 0);
    ok(copy_text(long_path, 4, "abcdef") == 6 && strcmp(long_path, "abc") == 0);
    ok(starts_with("PATH=x", "PATH=") && !starts_with("PAT", "PATH=") && equal("", "") && !equal("a", "ab"));
    close(c.root);
    return tap_end();
}
