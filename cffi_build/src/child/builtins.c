/*
 * What the compiler may call without being asked. Plain loops: -fno-builtin and the attribute keep it from turning them
 * into calls of themselves. The C tests leave this file out: there the sanitizers bring their own.
 */
#include "child.h"

__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memcpy(void *to, const void *from, size_t size)
{
    char *t = to;
    const char *f = from;
    while (size--)
        *t++ = *f++;
    return to;
}

__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memmove(void *to, const void *from, size_t size)
{
    char *t = to;
    const char *f = from;
    if (t < f)
        return memcpy(to, from, size);
    while (size--)
        t[size] = f[size];
    return to;
}

__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memset(void *to, int byte, size_t size)
{
    char *t = to;
    while (size--)
        *t++ = (char)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const unsigned char *x = a, *y = b;
    for (; size--; x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}
