/*
 * probe: the only program in the test root file systems. Static, no arguments of its own: a chain of commands
 * separated by ";;". Every command prints one JSON object on one line and goes on with the next one, also when it
 * failed (key "errno"). Bytes of strings come out as \u00XX, so that a reader decodes them as Latin-1 and has the
 * bytes back. The table at the end lists the commands.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct {
    const char *name;
    int arguments;
    void (*run)(char **);
} table[] = {
    { "report", 0, command_report }, { "hook", 2, command_hook },       { "treatment", 0, command_treatment },
    { "stat", 1, command_stat },     { "statf", 1, command_statf },     { "read", 1, command_read },
    { "write", 2, command_write },   { "create", 2, command_create },   { "open", 2, command_open },
    { "ls", 1, command_ls },         { "statfs", 1, command_statfs },   { "mkdir", 1, command_mkdir },
    { "unlink", 1, command_unlink }, { "chmod", 2, command_chmod },     { "mknod", 4, command_mknod },
    { "mount", 3, command_mount },   { "umount", 1, command_umount },   { "remount_rw", 1, command_remount_rw },
    { "swap", 3, command_swap },     { "exit", 1, command_exit },       { "sleep", 1, command_sleep },
    { "pause", 0, command_pause },   { "trap", 2, command_trap },       { "signals", 0, command_signals },
    { "raise", 1, command_raise },   { "crash", 0, command_crash },     { "fork", 1, command_fork },
    { "orphan", 0, command_orphan }, { "spin", 0, command_spin },       { "bomb", 1, command_bomb },
    { "alloc", 1, command_alloc },   { "kill", 2, command_kill },       { "exec", 1, command_exec },
    { "watch", 2, command_watch },   { "echo", 1, command_echo },       { "echoerr", 1, command_echoerr },
    { "cat", 0, command_cat },       { "syscall", 1, command_syscall }, { "clock", 0, command_clock },
    { "net", 0, command_net },       { "tty", 0, command_tty },         { "keyring", 0, command_keyring },
    { "winch", 0, command_winch },   { "notify", 1, command_notify },
};

int main(int argc, char **argv)
{
    /* The own output is buffered so that a report is one write; nothing else is opened. */
    out = stdout;
    static char buffer[1 << 20];
    setvbuf(out, buffer, _IOFBF, sizeof buffer);
    started_umask = umask(0);
    umask(started_umask);
    all_argv = calloc((size_t)argc + 1, sizeof *all_argv);
    memcpy(all_argv, argv, (size_t)argc * sizeof *argv);
    for (int i = 1; i < argc;) {
        int end = i;
        while (end < argc && strcmp(argv[end], ";;"))
            end++;
        char **a = argv + i + 1;
        char *stop = argv[end];
        int given = end - i - 1;
        argv[end] = NULL;
        size_t t = 0;
        for (; t < sizeof table / sizeof *table; t++)
            if (!strcmp(table[t].name, argv[i]) && given >= table[t].arguments)
                break;
        if (t == sizeof table / sizeof *table) {
            dprintf(2, "probe: cannot do '%s' with %d arguments\n", argv[i], given);
            return 125;
        }
        table[t].run(a);
        argv[end] = stop;
        i = end + 1;
    }
    fflush(out);
    return 0;
}
