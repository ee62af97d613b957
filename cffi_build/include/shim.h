/*
 * The boundary between Python and C. Bare declarations only: this file is fed to cffi's cdef unchanged and is
 * included (through shim_guard.h) by every C file, so each number exists once.
 *
 * plan     one flat block: plan_header, n_ops plan_op records, string table. Offsets count from the block's start.
 * op       what the init process (or the intermediate) has to do; args, strings and fd are explained per op.
 * message  one SOCK_SEQPACKET datagram on the sync socket, parent <-> init.
 * report   a message of type MSG_ERROR, MSG_WARNING or MSG_TRACE: (op index, errno, call, detail).
 */

#define PLAN_MAGIC 0x6f63690a
#define PLAN_VERSION 1
#define PLAN_MAX_OPS 8192
#define PLAN_MAX_SIZE 33554432
#define FD_BATCH 64
#define OP_ARGS 4
#define OP_STRINGS 4

/* plan_header.flags */
#define PLAN_TRACE 1

struct plan_header {
    uint32_t magic;
    uint32_t version;
    uint32_t size;         /* of the whole block, bytes */
    uint32_t flags;        /* PLAN_* */
    uint32_t n_ops;
    uint32_t ops_offset;
    uint32_t strings_offset;
    uint32_t strings_size; /* the last byte is NUL */
    uint32_t n_fds;        /* delivered in batches of FD_BATCH */
    uint32_t preserve_fds; /* fds 3 .. 3+n-1 stay open in the container */
    uint32_t fail_op;      /* fault injection: this op fails with fail_errno; PLAN_MAX_OPS = none */
    uint32_t fail_errno;
};

struct plan_op {
    uint16_t kind;   /* enum op_kind */
    uint16_t flags;  /* OPF_* of the kind */
    int32_t fd;      /* index into the plan's fds, or -1; the op owns and closes it */
    uint64_t args[OP_ARGS];
    uint32_t strings[OP_STRINGS]; /* offsets into the string table; 0 is the empty string */
};

enum op_kind {
    OP_NONE = 0,
    OP_CGROUP_JOIN = 1,        /* fd: a v1 "tasks" (or v2 procs) file opened for writing; writes "0". OPF_OPTIONAL */
    OP_UNSHARE = 2,            /* args[0]: CLONE_NEW* */
    OP_SETSID = 3,
    OP_KEYRING = 4,            /* strings[0]: session keyring name; ENOSYS/EPERM is a warning */
    OP_LOOPBACK_UP = 5,
    OP_PROPAGATION = 6,        /* args[0]: MS_SHARED.. | MS_REC; set on the current root mount "/" */
    OP_ROOTFS = 7,             /* strings[0]: host path of the rootfs; args[0], args[1]: its st_dev and st_ino.
                                  Opens, verifies, binds it on itself (recursive), keeps the root fd. fd: a detached tree
                                  (open_tree CLONE) of it, for a path that the init process may not be able to reach */
    OP_MOUNT = 8,              /* a new file system. strings: type, destination, source, fs options
                                  (args[3] times "key\0value\0"; an empty value is a flag. Key "", ":" or "::": value is
                                  a directory; it is opened, and key and fd number are added to the value of the next
                                  other key, which is looked up in /proc/self/fd); or fd: the parent has
                                  made it (id-mapped), detached, and only its place is missing; OPF_MAPPED: fd is the
                                  user namespace by which the IDs of the new one are mapped;
                                  args[0]: attr_set | attr_clr << 32 (MOUNT_ATTR_*), args[1]: the same, recursive,
                                  args[2]: propagation (one MS_*, | MS_REC) or 0 */
    OP_BIND = 9,               /* fd: a detached tree (open_tree CLONE), or -1: the source is opened here, by its host
                                  path (OPF_RECURSIVE, OPF_SOURCE_NO_FOLLOW). strings: -, destination, source path.
                                  args[0]: attr_set | attr_clr << 32 (this mount), args[1]: the same, recursive,
                                  args[2]: propagation (one MS_*, | MS_REC), args[3]: second propagation */
    OP_DEVICE = 10,            /* strings[0]: path; args[0]: S_IF* | mode, args[1]: major << 32 | minor,
                                  args[2]: uid << 32 | gid */
    OP_DEVICE_BIND = 11,       /* the same node bound from the host (user namespaces); strings[1]: host path */
    OP_SYMLINK = 12,           /* strings: path, target; OPF_SAME, OPF_OPTIONAL */
    OP_ATTR = 13,              /* strings[0]: path ("" = the root); args[0]: attr_set | attr_clr << 32;
                                  OPF_RECURSIVE */
    OP_MASK = 14,              /* strings[0]: path; absent is fine */
    OP_READONLY = 15,          /* strings[0]: path; absent is fine */
    OP_PIVOT = 16,             /* pivot_root into the root fd, drop the old root; OPF_NO_PIVOT: move and chroot */
    OP_ROOT_ATTR_PROPAGATION = 17, /* args[0]: MS_* | MS_REC set on the new root */
    OP_CHROOT = 18,            /* no mount namespace: chroot only */
    OP_HOSTNAME = 19,          /* strings[0] */
    OP_DOMAINNAME = 20,        /* strings[0] */
    OP_SYSCTL = 21,            /* strings: path below /proc/sys, value */
    OP_UMASK = 22,             /* args[0] */
    OP_MKDIR = 23,             /* strings[0]: path in the root; args[0]: mode; parents too */
    OP_NO_NEW_PRIVS = 24,
    OP_SYNC = 25,              /* args[0]: enum sync_point; sends MSG_SYNC and waits for MSG_GO (fds may come with it) */
    OP_HOOK = 26,              /* strings: path, argv (args[0] of them), env (args[1] of them), stdin;
                                  args[2]: timeout in ms (0 = none), args[3]: stdin length. OPF_PROGRAM_ENV: env is
                                  what OP_ENVIRONMENT has made. OPF_STDOUT, OPF_STDERR:
                                  no hook; fd is where this stream of the hooks that follow goes */
    OP_SECCOMP = 27,           /* loads the program received with SYNC_READY; args[0]: SECCOMP_FILTER_FLAG_*. With
                                  NEW_LISTENER it stops at SYNC_LISTENER before */
    OP_CHDIR = 28,             /* strings[0]; OPF_RETRY: EACCES is kept for the second OP_CHDIR */
    OP_BOUNDING = 29,          /* args[0]: capability mask to keep in the bounding set */
    OP_CREDENTIALS = 30,       /* args[0]: uid << 32 | gid, args[1]: number of groups, strings[0]: groups as
                                  u32 little endian; keeps capabilities; OPF_KEEP_GROUPS: no setgroups */
    OP_CAPABILITIES = 31,      /* args: effective, permitted, inheritable, ambient; sets the first three */
    OP_AMBIENT = 32,           /* args[0]: mask, raised one by one; a refusal is a warning */
    OP_STDIO_OWNER = 33,       /* args[0]: uid; fchown 0, 1, 2 */
    OP_ENVIRONMENT = 34,       /* args[0]: count, strings[0]: "K=V\0"...; args[1]: uid for HOME if it is missing;
                                  OPF_HOME: look HOME up */
    OP_LOOKUP = 35,            /* args[0]: count, strings[0]: argv; finds the executable by PATH of the environment */
    OP_WAIT_START = 36,        /* sends MSG_SYNC SYNC_CREATED, waits for MSG_GO, closes the sync socket, opens the fifo for
                                  writing (blocks until start), writes one byte. Reports go there from now on, their
                                  op counted from the next one */
    OP_EXEC = 37,              /* execve of what OP_LOOKUP found; OPF_NO_PROCESS: report ENOEXEC instead;
                                  OPF_INIT: in a child, while this process stays its init */
    OP_OOM_SCORE_ADJ = 38,     /* args[0]: int; written to the own oom_score_adj */
    OP_APPARMOR = 39,          /* strings[0]: text for attr/apparmor/exec or attr/exec */
    OP_SELINUX = 40,           /* strings[0]: text for attr/exec */
    OP_BECOME_ROOT = 41,       /* setresgid(0), setresuid(0) in the new user namespace, or after BOOT_KEEP_SAVED_ID;
                                  OPF_KEEP_GROUPS: no setgroups(0) */
    OP_NO_PDEATHSIG = 42,      /* args[0]: be dumpable from now on, so that a runtime without privileges can join the
                                  namespaces before execve does so anyway; what set the container up is closed */
    OP_CHECK_CWD = 43,         /* getcwd must be inside the root */
    OP_AFFINITY = 44,          /* strings[0]: CPU mask of args[0] bytes, little endian; 0: all CPUs that the cpuset allows */
    OP_SCHEDULER = 45,         /* strings[0]: a struct sched_attr, args[0]: its size */
    OP_IOPRIO = 46,            /* args[0]: class << 13 | priority */
    OP_PERSONALITY = 47,       /* args[0]: PER_* */
    OP_MEMPOLICY = 48,         /* args[0]: MPOL_* | MPOL_F_*, strings[0]: node mask, little endian, args[1]: its bits,
                                  a multiple of 64; 0: no mask */
    OP_FIFO = 49,              /* fd: O_PATH of exec.fifo, kept for OP_WAIT_START with the way to open it */
    OP_CONSOLE = 50,           /* a new pty of /dev/pts becomes 0, 1, 2 and the controlling terminal; its master goes to
                                  the parent with SYNC_CONSOLE. args[0]: rows << 16 | columns; OPF_BIND_CONSOLE */
    OP_PIN = 51,               /* strings[0]: source of a bind. Its tree is kept for an OP_BIND with OPF_PINNED: first in, first
                                  out. For what only the caller's own ids reach: before OP_BECOME_ROOT. OPF_RECURSIVE,
                                  OPF_SOURCE_NO_FOLLOW */
    OP_GUARD_NAMES = 52,       /* strings: the host and domain name that somebody else is about to set in this UTS namespace,
                                  "": none. Stops at SYNC_NAMES; GO: exits. The other end is gone: gives those that are set
                                  their value of now back, and exits */
    OP_REMOUNT = 53,           /* strings[1]: path; strings[3], args[3]: fs options as of OP_MOUNT, for the file system that is
                                  mounted there */
    OP_COUNT = 54
};

/* plan_op.flags */
#define OPF_RECURSIVE 1    /* OP_ATTR, OP_PIN, OP_BIND without fd */
#define OPF_STDOUT 1       /* OP_HOOK */
#define OPF_STDERR 2       /* OP_HOOK */
#define OPF_PROGRAM_ENV 4  /* OP_HOOK */
#define OPF_SAME 1         /* OP_SYMLINK: a link that is there already must have this target, anything else is an error;
                              the directories on the way may be symlinks */
#define OPF_FILE 2         /* OP_BIND, OP_MOUNT: a missing destination is created as a file */
#define OPF_PLAIN_DIR 4    /* OP_MOUNT, OP_BIND: the destination must be an ordinary directory, no symlink (proc, sysfs) */
#define OPF_NO_PIVOT 8     /* OP_PIVOT */
#define OPF_BIND_CONSOLE 8 /* OP_CONSOLE: also bound onto /dev/console */
#define OPF_KEEP 8         /* OP_MOUNT, OP_BIND: a later OP_ATTR of the same path means this very mount */
#define OPF_RETRY 16       /* OP_CHDIR */
#define OPF_IN_PROC 16     /* OP_BIND, OP_MOUNT: the destination is a file of /proc that may be covered */
#define OPF_HOME 32        /* OP_ENVIRONMENT */
#define OPF_MAPPED 32      /* OP_MOUNT */
#define OPF_PINNED 64      /* OP_BIND: the tree is the next one of OP_PIN */
#define OPF_KEEP_GROUPS 64 /* OP_CREDENTIALS, OP_BECOME_ROOT */
#define OPF_NO_PROCESS 128 /* OP_EXEC */
#define OPF_INIT 1         /* OP_EXEC */
#define OPF_COPYUP 256     /* OP_MOUNT tmpfs: fill with what it hides */
#define OPF_INHERIT_MODE 512 /* OP_MOUNT tmpfs: take mode, uid and gid of an existing destination */
#define OPF_OPTIONAL 1024  /* OP_SYMLINK: whatever has the name already stays; OP_CGROUP_JOIN: if it is refused, go on */
#define OPF_PROCFS_SOURCE 2048 /* OP_BIND: the tree must be procfs (destination /proc) */
#define OPF_HOST_TREE 4096 /* OP_BIND: make it a slave first (rootfsPropagation is not shared) */
#define OPF_NO_FOLLOW 8192 /* OP_BIND, OP_MOUNT: do not follow a symlink at the destination */
#define OPF_SOURCE_NO_FOLLOW 32768 /* OP_PIN, OP_BIND without fd: the source itself may be a symlink */
#define OPF_NO_PROCFS 8 /* OP_ROOTFS: a process that joins later needs no procfs of its own, and may not get one */
#define OPF_NO_BIND 16384 /* OP_ROOTFS: no mount namespace, so only open the root */

enum sync_point {
    SYNC_NONE = 0,
    SYNC_MAPS = 1,      /* new user namespace: id maps wanted */
    SYNC_HOOKS = 2,     /* mounts and devices are there, before pivot: prestart, createRuntime */
    SYNC_READY = 3,     /* rlimits, limits done; the answer may carry one fd: the BPF program */
    SYNC_SECCOMP = 4,   /* the answer carries one fd: a BPF program */
    SYNC_CREATED = 5,   /* everything is done but execve */
    SYNC_CONSOLE = 7,   /* comes with one fd: the master of the terminal */
    SYNC_NAMES = 8,      /* the names of the UTS namespace are known */
    SYNC_LISTENER = 6   /* a filter with a listener comes next; value2: the fd it will have. The answer's value2: be
                           dumpable, or the parent may not take it. A second GO once the parent has it */
};

enum message_type {
    MSG_NONE = 0,
    MSG_BOOT = 1,    /* parent -> init, first: struct boot */
    MSG_PLAN = 2,    /* parent -> init: fds = plan memfd, then the first batch */
    MSG_FDS = 3,     /* both ways: init asks for batch value, parent answers with the fds */
    MSG_SYNC = 4,    /* init -> parent: op, value = sync_point */
    MSG_GO = 5,      /* parent -> init: go on; value != 0: give up */
    MSG_ERROR = 6,   /* init -> parent: op, error, call, detail; the last one */
    MSG_WARNING = 7, /* init -> parent: the same, init goes on */
    MSG_TRACE = 8,   /* init -> parent: op, value = start ns, value2 = end ns (CLOCK_MONOTONIC) */
    MSG_INIT = 9     /* intermediate -> parent: fds = pidfd of init, value = its pid in the intermediate's view */
};

#define STAGE_OP 0xffffffff /* message.op when no op is being run: boot, join */

struct message {
    uint32_t type;
    uint32_t op;
    int32_t error;     /* positive errno */
    uint32_t detail_size;
    uint64_t value;
    uint64_t value2;
    char call[24];     /* the system call or the check that failed */
    char detail[256];  /* path, name or kernel text; not NUL terminated */
};

#define BOOT_MAX_JOIN 8

/* MSG_BOOT. Without joins and without a time namespace the receiver is already init. fds: join fds in order, then
   (BOOT_TIME_OFFSETS) nothing. */
struct boot {
    uint32_t type;         /* MSG_BOOT */
    uint32_t flags;        /* BOOT_* */
    uint32_t n_join;
    uint32_t join_flags[BOOT_MAX_JOIN]; /* CLONE_NEW* of each fd */
    uint64_t clone_flags;  /* of the second clone */
    uint32_t offsets_size;
    char offsets[160];     /* text for timens_offsets */
    char oom_score_adj[8]; /* text, written before a user namespace is joined: from there nobody could; "": none */
};
#define BOOT_INTERMEDIATE 1
#define BOOT_TIME 2
#define BOOT_CGROUP_FD 4   /* the last fd is a cgroup v2 directory for CLONE_INTO_CGROUP of the second clone */
#define BOOT_KEEP_GROUPS 8 /* joining a user namespace leaves the supplementary groups alone */
#define BOOT_KEEP_SAVED_ID 16 /* ... and the saved user id, until OP_BECOME_ROOT */

/* ---- functions of the compiled module; all return 0 or a value, or -errno ---- */

struct spawn_request {
    uint64_t clone_flags;  /* CLONE_NEW*; CLONE_INTO_CGROUP is set when cgroup_fd >= 0 */
    int32_t exe_fd;        /* from shim_sealed_init */
    int32_t cgroup_fd;     /* v2 directory or -1 */
    int32_t sync_fd;       /* the child's end */
    int32_t preserve_fds;
};

struct spawn_result {
    int32_t pid;
    int32_t pidfd;
};

/* The sealed copy of the init executable: a new fd the caller owns. */
int shim_sealed_init(void);
/* clone3 straight into the sealed init. The caller owns result->pidfd and keeps its own ends of everything. */
int shim_spawn(const struct spawn_request *request, struct spawn_result *result);
/* Two ends of the sync socket (SOCK_SEQPACKET, CLOEXEC). */
int shim_socketpair(int *parent_end, int *child_end);
int shim_send(int fd, const void *data, size_t size, const int *fds, int n_fds);
/* Waits up to timeout_ms (-1: for ever). Returns bytes (0: end of file), -ETIMEDOUT, ... Received fds are CLOEXEC.
   -ECANCELED: nothing was received, and held (from shim_hold_signals, or -1) has a signal. */
int shim_recv(int fd, void *data, size_t size, int *fds, int max_fds, int *n_fds, int timeout_ms, int held);
/* Blocks HUP, INT and TERM, each unless it is ignored, or was blocked before and is not in also (bit n-1: signal n).
   Returns a signalfd that takes them; *blocked: those to unblock afterwards. */
int shim_hold_signals(uint64_t also, uint64_t *blocked);
/* The next signal of such an fd, 0 when there is none. */
int shim_held_signal(int fd);
int shim_unblock_signals(uint64_t blocked);
/* A sealed memfd holding data. */
int shim_sealed_block(const char *name, const void *data, size_t size);
int shim_open_tree(int dirfd, const char *path, unsigned int flags);
/* The same from a copy of our mount namespace in which every mount is a slave: unbindable ones can be cloned there. */
int shim_open_tree_apart(const char *path, unsigned int flags);
int shim_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
int shim_mount_setattr(int dirfd, const char *path, unsigned int flags, uint64_t set, uint64_t clr, uint64_t propagation,
                       int userns_fd);
/* A new file system, mounted nowhere: its fd. parameters: n times "key\0value\0" for fsconfig, an empty value is a flag.
   What failed is left in message ("fsconfig size\0"), the kernel's own words behind it ("Bad value for 'size'\0"). */
int shim_new_filesystem(const char *type, const char *parameters, int n, char *message, size_t size);
/* A user namespace without a process, with these maps (text of uid_map and gid_map): its fd. inside: a child of this
   user namespace, whose IDs the maps speak of, and whose root reaches us meanwhile: it must be nobody else's; -1: of the
   caller's. -errno; *failed: 0 clone, 1 uid_map, 2 gid_map,
   3 the namespace's file, 4 joining inside. */
int shim_new_userns(const char *uid_map, const char *gid_map, int inside, int *failed);
int shim_prlimit(int pid, int resource, uint64_t soft, uint64_t hard);
int shim_set_subreaper(int on);
int shim_set_dumpable(int on);
int shim_set_pdeathsig(int signal);
int shim_nstype(int fd);
/* A copy of fd number target of another process. -EBADF: it has none. Needs the right to ptrace it. */
int shim_pidfd_getfd(int pidfd, int target);
/* How the process of pidfd has ended: 0 and its wait status; -EAGAIN: it has not, or nobody has collected it yet; another
   error: this kernel does not tell (before 6.15). */
int shim_pidfd_exit(int pidfd, int *status);
/* A stream socket connected to the socket file at path, of any length. Sends and the connect itself wait at most
   timeout_ms (then -EAGAIN). */
int shim_connect_unix(const char *path, int timeout_ms);
/* All of data through a stream socket, fd (or -1) with its first byte. */
int shim_send_stream(int socket, const void *data, size_t size, int fd);

/* BPF_CGROUP_DEVICE. program: n instructions of 8 bytes. Loads and returns the program's fd. */
int shim_bpf_load_device(const void *program, int n);
int shim_bpf_attach(int cgroup_fd, int program_fd, int replace_fd);
int shim_bpf_detach(int cgroup_fd, int program_fd);
/* ids of the device programs attached to this cgroup: returns how many were stored. */
int shim_bpf_query(int cgroup_fd, uint32_t *ids, int max);
int shim_bpf_program_by_id(uint32_t id);

/* What a pty needs before a program runs on it whose output is relayed: no ONLCR, the size of tty (-1: none). */
int shim_prepare_terminal(int master, int tty);

struct relay_request {
    int32_t master;     /* the container's pty */
    int32_t tty;        /* the caller's terminal: its size is followed; -1: none */
    int32_t input;      /* read from here (raw meanwhile if it is a terminal) ... */
    int32_t output;     /* ... written to here */
    int32_t pid;        /* the process, a child of ours, and its pidfd */
    int32_t pidfd;
    uint64_t forward;   /* bit n-1: signal n is passed on */
};
/* Copies both ways until the process ends and what it wrote is through; *status: its wait status. All signals must be
   blocked. The terminal is as before afterwards. */
int shim_relay(const struct relay_request *request, int *status);

struct process_request {
    const char *path;
    char *const *argv;
    char *const *envp;
    int32_t cwd_fd;     /* or -1 */
    int32_t stdin_fd;   /* the child's 0, 1, 2; -1: /dev/null */
    int32_t stdout_fd;
    int32_t stderr_fd;
    int32_t new_session; /* setsid first, so that the whole group can be killed */
};
/* vfork + execve for hooks and helpers: no shell, no PATH search, no inherited fds, default signals.
   Returns the pid and a pidfd; an execve failure is returned as its -errno. */
int shim_run_process(const struct process_request *request, struct spawn_result *result);
/* The embedded ELF, for tests. */
int shim_init_size(void);
