#ifndef OCIRUNTIME_CHILD_H
#define OCIRUNTIME_CHILD_H
/*
 * What every file of the init process shares. No libc, no allocation but arena(), no globals: one context,
 * on the stack of main. Functions return 0 (or a value) or -errno; the one that fails notes the call and the
 * object with failed(), which the report carries to the parent.
 */
#include "plan.h"
#include "sys.h"

struct kept {
    struct kept *next;
    const char *path; /* as the plan names it */
    int mount;
};

struct child {
    int sync;   /* SOCK_SEQPACKET to the parent; -1 once started */
    int report; /* where MSG_ERROR goes: sync, later the exec fifo */
    struct plan plan;
    uint32_t op;       /* index of the op that runs, STAGE_OP before; once started, counted from the next op */
    uint32_t first_op; /* what op counts from */
    int fds[FD_BATCH]; /* the batch of plan fds that is here; -1 = taken */
    uint32_t batch;
    int root;        /* O_PATH of the container's root; AT_FDCWD-like -1 before OP_ROOTFS */
    int proc;        /* private procfs, subset=pid; -1 until needed */
    int proc_full;   /* private procfs with sysctl; -1 until needed */
    int null_tree;   /* the host's /dev/null, detached and read-only, for file masks */
    int mask_tree;   /* the empty read-only tmpfs, for directory masks */
    int fifo;        /* O_PATH of exec.fifo */
    int links;       /* O_PATH of our own /proc/self/fd, to open the fifo by */
    char *waits;     /* our argument: emptied by start, so that /proc/PID/cmdline shows who still waits for it */
    int seccomp;     /* fd of the BPF program */
    int hook_stdout; /* files for the output of hooks; -1: it is collected */
    int hook_stderr;
    struct kept *kept;   /* mounts that a later OP_ATTR finishes */
    struct kept *pinned; /* trees for OP_BIND, in their order */
    bool proc_callers;   /* proc is the caller's: that of another PID namespace, or a part of it is hidden */
    bool pivoted;        /* host paths cannot be named any more */
    char *const *argv;
    char *const *envp;
    const char *executable;
    bool cwd_checked; /* getcwd was asked since the last chdir */
    int chdir_error;  /* EACCES of the first OP_CHDIR, to be tried again with the user's credentials */
    char call[24];
    char detail[256];
    uint32_t detail_size;
    uint64_t value;
    uint64_t value2;
};

typedef int (*op_handler)(struct child *c, const struct plan_op *op);

/* child.c */
const char *op_string(const struct child *c, const struct plan_op *op, int i);
/* Take the op's plan fd (the caller owns it now), asking the parent for its batch if need be. */
int op_fd(struct child *c, const struct plan_op *op);
/* Send MSG_SYNC. */
int send_sync(struct child *c, uint32_t point);
/* Send MSG_SYNC and wait for MSG_GO; *fd receives the one fd that may come with it (pass NULL for none). */
int sync_with_parent(struct child *c, uint32_t point, int *fd);
/* The same, giving the parent a copy of an fd. */
int sync_with_fd(struct child *c, uint32_t point, int passed);
__attribute__((noreturn)) void child_main(int sync, char *waits);

/* start.c, in assembler: where a signal handler returns to on x86_64. */
__attribute__((visibility("hidden"))) void end_of_signal(void);

/*
 * From now to execve SIGPIPE does nothing, whether or not the kernel takes us for an init: a start that is killed when
 * it has let us go does not read our first word, and the container runs nevertheless. Not ignored but caught by nothing,
 * as execve resets only that. A filter that forbids rt_sigreturn lets it end us, as it would the program's signals.
 */
void outlive_sigpipe(void);

/* report.c */
/* Note where it failed and pass error on (negative errno). call is a literal, object may be NULL. */
int failed(struct child *c, const char *call, const char *object, long error);
void report(struct child *c, uint32_t type, int error);
void warn(struct child *c, const char *call, const char *object, long error);

/* memory.c */
void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t length(const char *s);
bool equal(const char *a, const char *b);
bool starts_with(const char *s, const char *prefix);
/* Copies as much of from as fits, NUL-terminated; returns the length of from. */
size_t copy_text(char *to, size_t size, const char *from);
/* Decimal (or octal) text of value; returns its length. */
size_t decimal(char *to, uint64_t value);
size_t octal(char *to, uint64_t value);
/* Zeroed pages that live until execve; NULL when there is no memory. */
void *arena(size_t size);

/* message.c */
int send_message(int fd, const void *data, size_t size);
/* The same with one fd; the caller keeps its own. */
int send_message_fd(int fd, const void *data, size_t size, int passed);
/* One datagram; fds get CLOEXEC. Returns its size (0: the other end is gone) or -errno. */
int receive_message(int fd, void *data, size_t size, int *fds, int max_fds, int *n_fds);

/* join.c: never returns in the intermediate; in the init process it returns 0. */
int boot(struct child *c, const struct boot *request, const int *fds, int n_fds);

/* path.c */
#define RESOLVE_CONTAINER (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
int open_in(int dirfd, const char *path, uint64_t flags, uint64_t resolve);
int in_root(struct child *c, const char *path, uint64_t flags);
/* O_PATH of a directory in the root, made with its parents if missing. */
int make_dir(struct child *c, const char *path, unsigned int mode);
/* O_PATH of an existing object, or of a new empty file. */
int make_file(struct child *c, const char *path);
/* O_PATH of the parent directory (made if missing); *name is the last component. own: symlinks lead nowhere but in the
   mount of the root. */
int open_parent(struct child *c, const char *path, bool own, const char **name);
int file_type(int fd, unsigned int *mode, uint32_t *major, uint32_t *minor);
bool is_host_null(int fd);
int take_null(struct child *c);
int own_proc(struct child *c);
int own_proc_full(struct child *c);
int write_at(int dirfd, const char *path, const char *text, size_t size);
long file_system(int fd);

/* the op handlers, by file */
int op_propagation(struct child *c, const struct plan_op *op); /* rootfs.c */
int op_rootfs(struct child *c, const struct plan_op *op);
int op_pivot(struct child *c, const struct plan_op *op);
int op_chroot(struct child *c, const struct plan_op *op);
int op_root_attr_propagation(struct child *c, const struct plan_op *op);
int op_mkdir(struct child *c, const struct plan_op *op);
int op_mount(struct child *c, const struct plan_op *op); /* mount.c */
int op_bind(struct child *c, const struct plan_op *op);
int op_pin(struct child *c, const struct plan_op *op);
int op_attr(struct child *c, const struct plan_op *op);
int op_remount(struct child *c, const struct plan_op *op);
int copy_up(struct child *c, int mount, int hidden, const char *path); /* copyup.c */

/* layers.c: {.cwd = -1} before the first one. */
#define LAYERS_MAX 128
struct layers {
    int cwd; /* what relative paths count from: ours is /proc/self/fd meanwhile */
    unsigned int n;
    int fds[LAYERS_MAX];
    size_t used;
    char text[256]; /* their numbers with separators: what fsconfig takes */
};
/* Opens path, and adds separator and number to the text. */
int add_layer(struct child *c, struct layers *layers, const char *separator, const char *path);
void close_layers(struct layers *layers);

int op_mask(struct child *c, const struct plan_op *op); /* mask.c */
int op_readonly(struct child *c, const struct plan_op *op);
/* The kernel's 32-bit encoding of a device number, what mknod takes. */
uint64_t device_number(uint32_t major, uint32_t minor);
int op_device(struct child *c, const struct plan_op *op); /* devices.c */
int op_device_bind(struct child *c, const struct plan_op *op);
int op_symlink(struct child *c, const struct plan_op *op);
int op_cgroup_join(struct child *c, const struct plan_op *op); /* settings.c */
int op_unshare(struct child *c, const struct plan_op *op);
int op_affinity(struct child *c, const struct plan_op *op);
int op_guard_names(struct child *c, const struct plan_op *op);
int op_setsid(struct child *c, const struct plan_op *op);
int op_keyring(struct child *c, const struct plan_op *op);
int op_loopback_up(struct child *c, const struct plan_op *op);
int op_hostname(struct child *c, const struct plan_op *op);
int op_domainname(struct child *c, const struct plan_op *op);
int op_sysctl(struct child *c, const struct plan_op *op);
int op_umask(struct child *c, const struct plan_op *op);
int op_oom_score_adj(struct child *c, const struct plan_op *op);
int op_apparmor(struct child *c, const struct plan_op *op);
int op_selinux(struct child *c, const struct plan_op *op);
int op_scheduler(struct child *c, const struct plan_op *op); /* scheduling.c */
int op_ioprio(struct child *c, const struct plan_op *op);
int op_personality(struct child *c, const struct plan_op *op);
int op_mempolicy(struct child *c, const struct plan_op *op);
int op_no_new_privs(struct child *c, const struct plan_op *op); /* credentials.c */
int op_no_pdeathsig(struct child *c, const struct plan_op *op);
int op_become_root(struct child *c, const struct plan_op *op);
int op_bounding(struct child *c, const struct plan_op *op);
int op_credentials(struct child *c, const struct plan_op *op);
int op_capabilities(struct child *c, const struct plan_op *op);
int op_ambient(struct child *c, const struct plan_op *op);
int op_stdio_owner(struct child *c, const struct plan_op *op);
int op_seccomp(struct child *c, const struct plan_op *op); /* seccomp_load.c */
int op_console(struct child *c, const struct plan_op *op); /* console.c */
int op_hook(struct child *c, const struct plan_op *op);    /* hooks.c */
int op_chdir(struct child *c, const struct plan_op *op);   /* exec.c */
int op_check_cwd(struct child *c, const struct plan_op *op);
int op_environment(struct child *c, const struct plan_op *op);
int op_lookup(struct child *c, const struct plan_op *op);
int op_fifo(struct child *c, const struct plan_op *op);
int op_wait_start(struct child *c, const struct plan_op *op);
int op_exec(struct child *c, const struct plan_op *op);
int explain_execve(struct child *c, long error); /* interpreter.c */
/* execve of the program: returns only when that fails. */
int run_program(struct child *c);
/* reaper.c: runs the program in a child and ends as it does. Returns only when that fails, in either process. */
int stay_as_init(struct child *c);
/* What only mounts, masks and sysctls need: closed before anything of the container's user runs. */
void close_mount_helpers(struct child *c);
void close_helpers(struct child *c);
void set_pdeathsig(int signal);
/* stdio on the host's /dev/null goes to the container's own, if that is a true one. */
void reopen_null(struct child *c);
#endif
