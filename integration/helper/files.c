/* Files and mounts. */
#define _GNU_SOURCE
#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

static void stat_path(const char *name, const char *path, int follow)
{
    struct stat st;
    int error = (follow ? stat(path, &st) : lstat(path, &st)) ? errno : 0;
    open_object(name);
    key_text("path", path);
    key_int("errno", error);
    if (!error) {
        const char *type = S_ISREG(st.st_mode)    ? "f"
                           : S_ISDIR(st.st_mode)  ? "d"
                           : S_ISCHR(st.st_mode)  ? "c"
                           : S_ISBLK(st.st_mode)  ? "b"
                           : S_ISLNK(st.st_mode)  ? "l"
                           : S_ISFIFO(st.st_mode) ? "p"
                                                  : "s";
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

void command_stat(char **a)
{
    stat_path("stat", a[0], 0);
}

void command_statf(char **a)
{
    stat_path("statf", a[0], 1);
}

void command_read(char **a)
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

void command_write(char **a)
{
    put("write", a[0], a[1], O_WRONLY);
}

void command_create(char **a)
{
    put("create", a[0], a[1], O_WRONLY | O_CREAT | O_TRUNC);
}

void command_open(char **a)
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

void command_ls(char **a)
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

void command_statfs(char **a)
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

void command_mkdir(char **a)
{
    done("mkdir", mkdir(a[0], 0755) ? errno : 0);
}

/* chmod PATH MODE: octal. */
void command_chmod(char **a)
{
    done("chmod", chmod(a[0], (mode_t)strtol(a[1], NULL, 8)) ? errno : 0);
}

void command_unlink(char **a)
{
    done("unlink", unlink(a[0]) ? errno : 0);
}

void command_mknod(char **a)
{
    mode_t type = a[1][0] == 'b' ? S_IFBLK : a[1][0] == 'p' ? S_IFIFO : S_IFCHR;
    done("mknod", mknod(a[0], type | 0666, makedev(atoi(a[2]), atoi(a[3]))) ? errno : 0);
}

void command_mount(char **a)
{
    done("mount", mount(a[0], a[1], a[2], 0, NULL) ? errno : 0);
}

void command_remount_rw(char **a)
{
    done("remount_rw", mount(NULL, a[0], NULL, MS_REMOUNT | MS_BIND, NULL) ? errno : 0);
}

void command_umount(char **a)
{
    done("umount", umount2(a[0], MNT_DETACH) ? errno : 0);
}

/* swap A B MS: exchanges two names as fast as possible for MS milliseconds. */
void command_swap(char **a)
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
