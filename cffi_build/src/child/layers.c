/*
 * Directories of an overlay whose names are too long for fsconfig: they are opened, and called by the numbers of their
 * fds, from inside our own /proc/self/fd. The kernel looks a number up as it would any name; before Linux 6.5 only
 * when the file system is created, so fds and working directory stay until then.
 */
#include "child.h"

static int enter_links(struct child *c, struct layers *layers)
{
    int proc = own_proc(c), links;
    long ret, cwd = sys_openat(AT_FDCWD, ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (cwd < 0)
        return failed(c, "open", "working directory", cwd);
    layers->cwd = (int)cwd;
    if (proc < 0)
        return proc;
    links = open_in(proc, "self/fd", O_PATH | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
    if (links < 0)
        return failed(c, "openat2", "/proc/self/fd", links);
    ret = SYS1(__NR_fchdir, links);
    sys_close(links);
    return ret < 0 ? failed(c, "fchdir", "/proc/self/fd", ret) : 0;
}

int add_layer(struct child *c, struct layers *layers, const char *separator, const char *path)
{
    char number[24];
    size_t size = length(separator), digits;
    long fd;
    int ret = layers->cwd < 0 ? enter_links(c, layers) : 0;
    if (ret < 0)
        return ret;
    fd = sys_openat(layers->cwd, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return failed(c, "open", path, fd);
    digits = decimal(number, (uint64_t)fd);
    if (layers->n == LAYERS_MAX || layers->used + size + digits >= sizeof(layers->text)) {
        sys_close((int)fd);
        return failed(c, "layers", path, -E2BIG);
    }
    layers->fds[layers->n++] = (int)fd;
    memcpy(layers->text + layers->used, separator, size);
    memcpy(layers->text + layers->used + size, number, digits + 1);
    layers->used += size + digits;
    return 0;
}

void close_layers(struct layers *layers)
{
    for (unsigned int i = 0; i < layers->n; i++)
        sys_close(layers->fds[i]);
    if (layers->cwd >= 0) {
        SYS1(__NR_fchdir, layers->cwd);
        sys_close(layers->cwd);
    }
}
