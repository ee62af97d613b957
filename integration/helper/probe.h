/*
 * The probe's parts. Every command is a function command_NAME(arguments) in the file of its subject, and has a row in
 * the table of probe.c.
 */
#ifndef PROBE_H
#define PROBE_H

#include <stddef.h>
#include <stdio.h>

/* output.c: an object is opened, gets keys with values, and is closed; what begins with key_ writes both */
extern FILE *out;
extern int first_key;

void text_n(const char *data, size_t size);
void text(const char *s);
void key(const char *name);
void key_int(const char *name, long long value);
void key_text(const char *name, const char *value);
void key_list(const char *name, char **items);
void key_file(const char *name, const char *path);
void key_link(const char *name, const char *path);
void open_object(const char *command);
void close_object(void);
void done(const char *command, int error);

/* all of a file, to be freed; NULL and errno */
char *slurp(int fd, size_t *size);
char *slurp_path(const char *path, size_t *size);

/* report.c: set by main */
extern char **all_argv;
extern unsigned int started_umask;

/* report.c */
void command_report(char **a);
void command_hook(char **a);
void command_treatment(char **a);

/* files.c */
void command_stat(char **a);
void command_statf(char **a);
void command_read(char **a);
void command_write(char **a);
void command_create(char **a);
void command_open(char **a);
void command_ls(char **a);
void command_statfs(char **a);
void command_mkdir(char **a);
void command_unlink(char **a);
void command_chmod(char **a);
void command_mknod(char **a);
void command_mount(char **a);
void command_umount(char **a);
void command_remount_rw(char **a);
void command_swap(char **a);

/* processes.c */
void command_exit(char **a);
void command_sleep(char **a);
void command_pause(char **a);
void command_trap(char **a);
void command_signals(char **a);
void command_raise(char **a);
void command_crash(char **a);
void command_fork(char **a);
void command_orphan(char **a);
void command_spin(char **a);
void command_bomb(char **a);
void command_alloc(char **a);
void command_kill(char **a);
void command_exec(char **a);
void command_watch(char **a);

/* kernel.c */
void command_echo(char **a);
void command_echoerr(char **a);
void command_cat(char **a);
void command_syscall(char **a);
void command_clock(char **a);
void command_net(char **a);
void command_tty(char **a);
void command_keyring(char **a);
void command_winch(char **a);
void command_notify(char **a);

#endif
