/* Strings and memory without a libc. */
#include "child.h"

#include <linux/mman.h>

size_t length(const char *s)
{
    size_t n = 0;
    while (s[n] != '\0')
        n++;
    return n;
}

bool equal(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

bool starts_with(const char *s, const char *prefix)
{
    while (*prefix != '\0')
        if (*s++ != *prefix++)
            return false;
    return true;
}

size_t copy_text(char *to, size_t size, const char *from)
{
    size_t n = length(from);
    size_t fit = n < size ? n : size - 1;
    memcpy(to, from, fit);
    to[fit] = '\0';
    return n;
}

static size_t digits(char *to, uint64_t value, unsigned int base)
{
    char reversed[24];
    size_t n = 0, size;
    do {
        reversed[n++] = (char)('0' + value % base);
        value /= base;
    } while (value != 0);
    size = n;
    for (size_t i = 0; i < size; i++)
        to[i] = reversed[--n];
    to[size] = '\0';
    return size;
}

size_t decimal(char *to, uint64_t value)
{
    return digits(to, value, 10);
}

size_t octal(char *to, uint64_t value)
{
    return digits(to, value, 8);
}

void *arena(size_t size)
{
    long at = SYS6(__NR_mmap, 0, size ? size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return IS_ERR(at) ? NULL : (void *)at;
}
