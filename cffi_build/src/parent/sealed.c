/*
 * Sealed blocks: the init executable and the plan. A sealed memfd can be changed by nobody, so what a container finds
 * behind /proc/<pid>/exe is neither a host file nor writable (CVE-2019-5736).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/mount.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "parent.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

static int write_all(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

static int memfd(const char *name, unsigned int kind, const void *data, size_t size)
{
    int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    int ret, fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | kind);
    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 there is no kind */
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    ret = write_all(fd, data, size);
    /* F_SEAL_EXEC came with Linux 6.3: the mode cannot be changed either */
    if (ret == 0 && fcntl(fd, F_ADD_SEALS, seals | F_SEAL_EXEC) < 0 && fcntl(fd, F_ADD_SEALS, seals) < 0)
        ret = -errno;
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

/* vm.memfd_noexec=2 forbids executable memfds: a file on a detached tmpfs that is read-only for ever does as well. */
static int detached(const void *data, size_t size)
{
    struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
    int fs, mount, fd = -1, ret;

    fs = KERNEL(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC));
    if (fs < 0)
        return fs;
    ret = KERNEL(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    mount = ret < 0 ? ret : KERNEL(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
    close(fs);
    if (mount < 0)
        return mount;
    fd = openat(mount, "init", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0555);
    ret = fd < 0 ? -errno : write_all(fd, data, size);
    if (fd >= 0)
        close(fd);
    if (ret == 0)
        ret = KERNEL(syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attr, sizeof(attr)));
    if (ret == 0)
        ret = KERNEL(openat(mount, "init", O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    close(mount);
    return ret;
}

int shim_sealed_init(void)
{
    int fd = memfd("ociruntime-init", MFD_EXEC, init_blob, init_blob_size);
    if (fd == -EACCES || fd == -EPERM)
        fd = detached(init_blob, init_blob_size);
    return fd;
}

int shim_sealed_block(const char *name, const void *data, size_t size)
{
    return memfd(name, MFD_NOEXEC_SEAL, data, size);
}

int shim_init_size(void)
{
    return (int)init_blob_size;
}
