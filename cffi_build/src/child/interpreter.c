/*
 * Why execve refuses a file that is there and may be executed: the kernel's ENOENT means its interpreter, its ENOEXEC
 * says nothing at all. The file is the container's: every number in it is checked before it is used.
 * Source: man execve(2), elf(5).
 */
#include "child.h"

#include <linux/elf.h>

#define HEAD_SIZE 4096 /* what is looked at: linkers put the headers and the name of the loader first */
#if defined(__x86_64__)
#define OWN_MACHINE 62
#elif defined(__aarch64__)
#define OWN_MACHINE 183
#endif

/* The word after "#!", in head; NULL if there is none. */
static const char *script_interpreter(char *head, size_t size)
{
    size_t at = 2, end;
    while (at < size && (head[at] == ' ' || head[at] == '\t'))
        at++;
    for (end = at; end < size && head[end] != ' ' && head[end] != '\t' && head[end] != '\n' && head[end] != '\0';)
        end++;
    head[end < size ? end : size] = '\0';
    return end > at ? head + at : NULL;
}

/* The text of PT_INTERP of a 64-bit file, in head. */
static const char *elf_interpreter(char *head, size_t size, const Elf64_Ehdr *elf)
{
    if (elf->e_ident[EI_CLASS] != ELFCLASS64 || elf->e_phentsize != sizeof(Elf64_Phdr) || elf->e_phoff > size)
        return NULL;
    for (size_t i = 0; i < elf->e_phnum; i++) {
        Elf64_Phdr header;
        if ((i + 1) * sizeof(header) > size - elf->e_phoff)
            return NULL;
        memcpy(&header, head + elf->e_phoff + i * sizeof(header), sizeof(header));
        if (header.p_type == PT_INTERP)
            return header.p_offset < size && header.p_filesz <= size - header.p_offset ? head + header.p_offset : NULL;
    }
    return NULL;
}

/*
 * The report of a failed execve of c->executable. call "interpreter": the detail is its name, a NUL, and the program;
 * "machine": the program is an ELF file for another one, value is its e_machine; "execve": as it is.
 */
int explain_execve(struct child *c, long error)
{
    char head[HEAD_SIZE + 1];
    const char *name = NULL;
    long n;
    int fd = (int)sys_openat(AT_FDCWD, c->executable, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);

    failed(c, "execve", c->executable, error);
    if (fd < 0)
        return (int)error;
    n = sys_read(fd, head, HEAD_SIZE);
    sys_close(fd);
    if (n < 2)
        return (int)error;
    head[n] = '\0';
    if (head[0] == '#' && head[1] == '!') {
        name = script_interpreter(head, (size_t)n);
    } else if (n >= (long)sizeof(Elf64_Ehdr) && starts_with(head, "\177ELF")) {
        Elf64_Ehdr elf;
        memcpy(&elf, head, sizeof(elf));
        if (elf.e_ident[EI_DATA] == ELFDATA2MSB)
            elf.e_machine = (Elf64_Half)(elf.e_machine >> 8 | elf.e_machine << 8);
        else
            name = elf_interpreter(head, (size_t)n, &elf);
        if (error == -ENOEXEC && elf.e_machine != OWN_MACHINE) {
            c->value = elf.e_machine;
            return failed(c, "machine", c->executable, error);
        }
    }
    if (name != NULL && error != -ENOEXEC) {
        size_t at = length(name) + 1;
        failed(c, "interpreter", name, error);
        at = at < sizeof(c->detail) ? at : sizeof(c->detail) - 1;
        at += copy_text(c->detail + at, sizeof(c->detail) - at, c->executable);
        c->detail_size = (uint32_t)(at < sizeof(c->detail) ? at : sizeof(c->detail) - 1);
    }
    return (int)error;
}
