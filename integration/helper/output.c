/* What the probe prints: one JSON object on one line. */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

FILE *out;
int first_key;

void text_n(const char *data, size_t size)
{
    fputc('"', out);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

void text(const char *s)
{
    text_n(s, strlen(s));
}

void key(const char *name)
{
    if (!first_key)
        fputc(',', out);
    first_key = 0;
    text(name);
    fputc(':', out);
}

void key_int(const char *name, long long value)
{
    key(name);
    fprintf(out, "%lld", value);
}

void key_text(const char *name, const char *value)
{
    key(name);
    text(value);
}

void open_object(const char *command)
{
    fputc('{', out);
    first_key = 1;
    key_text("cmd", command);
}

void close_object(void)
{
    fputs("}\n", out);
    fflush(out);
    first_key = 0;
}

void done(const char *command, int error)
{
    open_object(command);
    key_int("errno", error);
    close_object();
}

char *slurp(int fd, size_t *size)
{
    size_t have = 0, room = 65536;
    char *data = malloc(room + 1);
    for (;;) {
        if (have == room)
            data = realloc(data, (room *= 2) + 1);
        ssize_t n = read(fd, data + have, room - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            *size = have;
            data[have] = 0;
            if (n < 0) {
                free(data);
                return NULL;
            }
            return data;
        }
        have += (size_t)n;
    }
}

char *slurp_path(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    char *data = slurp(fd, size);
    int saved = errno;
    close(fd);
    errno = saved;
    return data;
}

void key_list(const char *name, char **items)
{
    key(name);
    fputc('[', out);
    for (int i = 0; items && items[i]; i++) {
        if (i)
            fputc(',', out);
        text(items[i]);
    }
    fputc(']', out);
}

void key_file(const char *name, const char *path)
{
    size_t size;
    char *data = slurp_path(path, &size);
    key(name);
    if (!data) {
        fprintf(out, "null");
        return;
    }
    text_n(data, size);
    free(data);
}

void key_link(const char *name, const char *path)
{
    char target[4096];
    ssize_t n = readlink(path, target, sizeof target);
    key(name);
    if (n < 0)
        fprintf(out, "null");
    else
        text_n(target, (size_t)n);
}
