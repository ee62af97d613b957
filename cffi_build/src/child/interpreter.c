/*
 * Why execve refuses a file that is there and may be executed: the kernel's ENOENT means its interpreter, its ENOEXEC
 * says nothing at all. The file is the container's: every number in it is checked before it is used.
 * Source: man execve(2), elf(5).
 */
#include "child.h"

#include <linux/elf.h>

#define HEAD_SIZE 256
#define MAX_HEADERS 64
#if defined(__x86_64__)
#define OWN_MACHINE 62
#elif defined(__aarch64__)
#define OWN_MACHINE 183
#endif

static long read_at(int fd, void *to, size_t size, uint64_t offset)
{
    return SYS4(__NR_pread64, fd, to, size, offset);
}

/* The word after "#!". */
static bool script_interpreter(const char *head, long n, char *name)
{
    long at = 2, size = 0;
    while (at < n && (head[at] == ' ' || head[at] == '\t'))
        at++;
    while (at < n && head[at] != ' ' && head[at] != '\t' && head[at] != '\n' && head[at] != '\0')
        name[size++] = head[at++];
    name[size] = '\0';
    return size > 0;
}

/* The text of PT_INTERP of a 64-bit file. */
static bool elf_interpreter(int fd, const Elf64_Ehdr *elf, char *name)
{
    if (elf->e_ident[EI_CLASS] != ELFCLASS64 || elf->e_phentsize != sizeof(Elf64_Phdr))
        return false;
    for (unsigned int i = 0; i < elf->e_phnum && i < MAX_HEADERS; i++) {
        Elf64_Phdr header;
        long n = read_at(fd, &header, sizeof(header), elf->e_phoff + i * sizeof(header));
        if (n != sizeof(header))
            return false;
        if (header.p_type != PT_INTERP)
            continue;
        n = read_at(fd, name, header.p_filesz < HEAD_SIZE - 1 ? header.p_filesz : HEAD_SIZE - 1, header.p_offset);
        if (n <= 0)
            return false;
        name[n] = '\0';
        return true;
    }
    return false;
}

/*
 * The report of a failed execve of c->executable. call "interpreter": the detail is its name, a NUL, and the program;
 * "machine": the program is an ELF file for another one, value is its e_machine; "execve": as it is.
 */
int explain_execve(struct child *c, long error)
{
    char head[HEAD_SIZE], name[HEAD_SIZE];
    bool found = false;
    long n;
    int fd = (int)sys_openat(AT_FDCWD, c->executable, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);

    failed(c, "execve", c->executable, error);
    if (fd < 0)
        return (int)error;
    n = read_at(fd, head, sizeof(head), 0);
    if (n >= 2 && head[0] == '#' && head[1] == '!') {
        found = error != -ENOEXEC && script_interpreter(head, n, name);
    } else if (n >= (long)sizeof(Elf64_Ehdr) && starts_with(head, "\177ELF")) {
        Elf64_Ehdr elf;
        memcpy(&elf, head, sizeof(elf));
        /* only our own byte order is looked at: the field of the other one reads as a machine that nobody has */
        if (error == -ENOEXEC && elf.e_machine != OWN_MACHINE) {
            c->value = elf.e_ident[EI_DATA] == ELFDATA2MSB ? (uint64_t)(elf.e_machine >> 8 | (elf.e_machine & 0xff) << 8)
                                                           : elf.e_machine;
            failed(c, "machine", c->executable, error);
        }
        found = error != -ENOEXEC && elf_interpreter(fd, &elf, name);
    }
    sys_close(fd);
    if (found) {
        size_t at = length(name) + 1;
        failed(c, "interpreter", name, error);
        at = at < sizeof(c->detail) ? at : sizeof(c->detail) - 1;
        at += copy_text(c->detail + at, sizeof(c->detail) - at, c->executable);
        c->detail_size = (uint32_t)(at < sizeof(c->detail) ? at : sizeof(c->detail) - 1);
    }
    return (int)error;
}
