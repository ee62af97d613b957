/* The entry point: no libc, so the stack is as the kernel left it (argc, argv..., NULL, envp..., NULL, auxv). */
#include "child.h"

__attribute__((noreturn, used)) static void start(const long *stack)
{
    const char *const *argv = (const char *const *)(stack + 1);
    int fd = 0;
    if (stack[0] != 2)
        sys_exit(2); /* run by hand */
    for (const char *at = argv[1]; *at != '\0'; at++) {
        if (*at < '0' || *at > '9' || fd > 1 << 20)
            sys_exit(2);
        fd = fd * 10 + (*at - '0');
    }
    child_main(fd, (char *)(uintptr_t)argv[1]);
}

__asm__(".text\n"
        ".globl _start\n"
        "_start:\n"
#if defined(__x86_64__)
        "xor %ebp, %ebp\n"
        "mov %rsp, %rdi\n"
        "and $-16, %rsp\n"
        "call start\n"
        ".globl end_of_signal\n" /* the vdso has none for this architecture */
        "end_of_signal:\n"
        "mov $15, %eax\n" /* rt_sigreturn */
        "syscall\n"
#elif defined(__aarch64__)
        "mov x29, #0\n"
        "mov x0, sp\n"
        "and sp, x0, #-16\n"
        "bl start\n"
#endif
);
