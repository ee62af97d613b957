"""The command line as data: one table feeds the parser, ``--help`` and the man pages.

A flag is (name, short, kind, metavar, help). kind: "bool", "value", "int" (not negative) or "repeat" (one value per
use). A flag without help is accepted for callers that send it, and not shown.
A command is (summary, arguments, least, most, interleaved, flags, description); least and most: number of arguments
(most -1: any);
interleaved: flags may follow the arguments.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    Flag = tuple[str, str, str, str, str]
    Command = tuple[str, str, int, int, bool, tuple[Flag, ...], str]

GLOBAL: "tuple[Flag, ...]" = (
    ("root", "", "value", "DIR",
     "directory of the containers' state; default /run/ociruntime, for users $XDG_RUNTIME_DIR/ociruntime"),
    ("log", "", "value", "FILE", "append log lines to FILE instead of stderr"),
    ("log-format", "", "value", "FORMAT", "format of log lines: text (default) or json"),
    ("log-level", "", "value", "LEVEL", "least level that is logged: debug, info (default), warning or error"),
    ("debug", "", "bool", "", "log debug lines too"),
    ("systemd-cgroup", "", "bool", "", "let systemd manage the cgroup; cgroupsPath is then slice:prefix:name"),
    ("cgroup-manager", "", "value", "NAME", "cgroupfs (default), systemd or disabled"),
    ("rootless", "", "value", "BOOL", "ignore missing permissions on cgroups: true, false or auto (default)"),
    ("criu", "", "value", "PATH", ""),
    ("version", "v", "bool", "", "print the version and what this build supports"),
    ("help", "h", "bool", "", "print help; after a command: for that command"),
    ("version", "V", "bool", "", ""),
)  # fmt: skip

_CREATE: "tuple[Flag, ...]" = (
    ("bundle", "b", "value", "DIR", "the bundle: directory with config.json; default the current directory"),
    ("config", "f", "value", "FILE", "read FILE instead of the bundle's config.json"),
    ("pid-file", "", "value", "FILE", "write the PID of the init process to FILE"),
    ("console-socket", "", "value", "SOCKET", "AF_UNIX socket that gets the master end of the container's terminal"),
    ("pidfd-socket", "", "value", "SOCKET", "AF_UNIX socket that gets a pidfd of the init process"),
    ("preserve-fds", "", "int", "N", "keep N file descriptors from 3 on open in the container"),
    ("no-pivot", "", "bool", "", "do not use pivot_root, for a root file system on a ramdisk"),
    ("no-new-keyring", "", "bool", "", "keep the caller's session keyring"),
)

COMMANDS: "dict[str, Command]" = {
    "completion": (
        "print a completion script for a shell", "SHELL", 1, 1, True, (),
        (
            "Prints a script that completes commands, options, files and the IDs of containers. SHELL is bash, zsh or "
            "fish. For bash: source <(ociruntime completion bash)."
        ),
    ),
    "create": (
        "create a container", "ID", 1, 1, True,
        (*_CREATE, ("detach", "d", "bool", "", ""), ("no-subreaper", "", "bool", "", "")),
        (
            "Creates the container ID from a bundle and returns when its init process is ready; the program of "
            "config.json does not run before 'start'. Changes to config.json have no effect afterwards."
        ),
    ),
    "delete": (
        "delete a container", "ID", 1, 1, True,
        (
            ("force", "f", "bool", "", "whatever its status: kill it first, and do not mind if it does not exist"),
            ("regex", "", "bool", "", "ID is a regular expression: every container whose whole ID matches"),
        ),
        (
            "Deletes a container that is stopped or was never started, with its cgroup and all that 'create' made. "
            "A running or paused one is refused unless --force is given."
        ),
    ),
    "events": (
        "print what happens to a container", "ID", 1, 1, True,
        (
            ("stats", "", "bool", "", "print how much it uses now, and nothing else"),
            ("interval", "", "value", "DURATION", "time between two records of usage, such as 1m30s; default 5s"),
        ),
        (
            "Prints one JSON object per line, with type and id, until the last process of the container has ended: "
            "stats (data: usage of cpu, memory, pids, devices and more), every interval; oom, when memory has run out; "
            "memory.high (data: how often), when it was slowed down at that limit of cgroup v2; exit (data: status, "
            "signal, and as reason exited, signal, oom, seccomp or unknown), when its init process has ended."
        ),
    ),
    "exec": (
        "run another process in a container", "ID COMMAND [ARG...]", 1, -1, False,
        (
            ("process", "p", "value", "FILE", "take everything from the process object in FILE instead"),
            ("tty", "t", "bool", "", "give the process a terminal"),
            ("detach", "d", "bool", "", "return when the process runs instead of waiting for its end"),
            ("cwd", "", "value", "DIR", "its working directory"),
            ("env", "e", "repeat", "NAME=VALUE", "add to its environment"),
            ("user", "u", "value", "UID[:GID]", "run it as this user"),
            ("additional-gids", "g", "repeat", "GID", "add a supplementary group"),
            ("cap", "c", "repeat", "CAP", "add a capability to its bounding, effective and permitted sets"),
            ("no-new-privs", "", "bool", "", "set no_new_privs"),
            ("apparmor", "", "value", "PROFILE", "its AppArmor profile"),
            ("process-label", "", "value", "LABEL", "its SELinux label"),
            ("pid-file", "", "value", "FILE", "write its PID to FILE"),
            ("console-socket", "", "value", "SOCKET", "AF_UNIX socket that gets the master end of its terminal"),
            ("pidfd-socket", "", "value", "SOCKET", "AF_UNIX socket that gets a pidfd of it"),
            ("preserve-fds", "", "int", "N", "keep N file descriptors from 3 on open in it"),
            ("cgroup", "", "repeat", "PATH", "a cgroup below the container's; on cgroup v1 CONTROLLER[,...]:PATH"),
            ("ignore-paused", "", "bool", "", "also in a paused container: wait until it goes on"),
            ("no-subreaper", "", "bool", "", ""),
        ),
        (
            "Runs COMMAND in the namespaces and cgroups of a running container, limited as its own program is, and "
            "exits with its exit code: 128 + N if signal N ended it, 255 if it could not be run."
        ),
    ),
    "features": (
        "print what the runtime supports", "", 0, 0, True, (),
        "Prints the features document of the OCI runtime specification as JSON. Needs no privileges and no container.",
    ),
    "install": (
        "tell an engine about this runtime", "", 0, 0, True,
        (
            ("for", "", "value", "ENGINE", "podman, containerd, docker or crio"),
            ("dry-run", "n", "bool", "", "print what would change, and change nothing"),
            ("remove", "", "bool", "", "take out what an earlier install has put in"),
            ("default", "", "bool", "", "also make it the runtime of containers that ask for none (not containerd)"),
            ("name", "", "value", "NAME", "its name in the engine; default ociruntime"),
            ("path", "", "value", "FILE", "its executable; default the one that runs"),
            ("destdir", "", "value", "DIR", "change the files below DIR instead of the machine's own"),
        ),
        (
            "Changes the engine's configuration and prints the change as diff(1) does: for podman and CRI-O a file of "
            "its own in /etc/containers/containers.conf.d or /etc/crio/crio.conf.d, for docker the key runtimes of "
            "/etc/docker/daemon.json, for containerd two tables at the end of /etc/containerd/config.toml. The file is "
            "replaced in one step and keeps its owner and mode; a file that cannot be read as JSON or TOML is refused. "
            "Doing it again changes nothing. No service is restarted: what to do is printed."
        ),
    ),
    "kill": (
        "send a signal to a container", "ID [SIGNAL]", 1, 2, True,
        (
            ("all", "a", "bool", "", "send it to every process of the container; no error if none is left"),
            ("regex", "", "bool", "", "ID is a regular expression: every container whose whole ID matches"),
        ),
        (
            "Sends SIGNAL (default TERM) to the init process. SIGNAL is a name with or without SIG, or a number; "
            "0 only probes. KILL ends every process of a container that has no PID namespace of its own."
        ),
    ),
    "list": (
        "list containers", "", 0, 0, True,
        (
            ("format", "f", "value", "FORMAT", "table (default) or json"),
            ("quiet", "q", "bool", "", "print IDs only"),
        ),
        "Lists the containers of the state root. An entry that cannot be read is reported on stderr and left out.",
    ),
    "ns": (
        "compare a container's namespaces with the caller's", "ID", 1, 1, True,
        (("format", "f", "value", "FORMAT", "table (default) or json"),),
        (
            "Prints the namespaces of a created or running container beside those of the caller, the PID of its init "
            "process at each level of nesting, and in words which users and groups outside those in the container are."
        ),
    ),
    "pause": (
        "freeze a container", "ID", 1, 1, True, (),
        "Freezes all processes of a created or running container.",
    ),
    "ps": (
        "list the processes of a container", "ID [PS-ARGUMENT...]", 1, -1, False,
        (("format", "f", "value", "FORMAT", "table (default) or json"),),
        (
            "Lists the processes of a container: as JSON their PIDs, as a table the lines that the host's ps prints of "
            "them (its arguments: default -ef)."
        ),
    ),
    "resume": (
        "let a paused container go on", "ID", 1, 1, True, (),
        "Thaws all processes of a paused container.",
    ),
    "run": (
        "create and start a container", "ID", 1, 1, True,
        (
            *_CREATE,
            ("detach", "d", "bool", "", "return when the program runs instead of waiting for its end"),
            ("keep", "", "bool", "", "do not delete the container when its program has ended"),
            ("no-subreaper", "", "bool", "", "do not adopt processes that the container leaves behind"),
        ),
        (
            "Creates the container, starts it and, unless --detach is given, passes signals on, waits for its program, "
            "deletes it and exits with the program's exit code (128 + N if signal N ended it)."
        ),
    ),
    "spec": (
        "write a config.json to begin with", "", 0, 0, True,
        (
            ("bundle", "b", "value", "DIR", "directory to write to; default the current directory"),
            ("file", "f", "value", "NAME", "file to write instead of config.json"),
            ("rootless", "", "bool", "", "for a container that is run without privileges"),
        ),
        "Writes a config.json that runs sh in a root file system named rootfs. An existing file is never overwritten.",
    ),
    "start": (
        "start a created container", "ID", 1, 1, True, (),
        "Lets the init process of a created container go on: it runs the startContainer hooks and then the program.",
    ),
    "state": (
        "print the state of a container", "ID", 1, 1, True, (),
        (
            "Prints the state of the OCI runtime specification as JSON, with the keys rootfs, created and owner added. "
            "The status is creating, created, running, paused or stopped."
        ),
    ),
    "update": (
        "change the limits of a container", "ID", 1, 1, True,
        (
            ("resources", "r", "value", "FILE", "take linux.resources from FILE (-: stdin), and nothing from flags"),
            ("blkio-weight", "", "value", "WEIGHT", "weight of block I/O, 10 to 1000"),
            ("cpu-period", "", "value", "USEC", "period of the CPU quota"),
            ("cpu-quota", "", "value", "USEC", "CPU time per period; -1 for no limit"),
            ("cpu-burst", "", "value", "USEC", "CPU time that may be saved up and used beyond the quota"),
            ("cpu-share", "", "value", "SHARES", "share of CPU time compared with others"),
            ("cpu-rt-period", "", "value", "USEC", "period of the realtime CPU limit"),
            ("cpu-rt-runtime", "", "value", "USEC", "realtime CPU time per period"),
            ("cpu-idle", "", "value", "0|1", "1: run only when nobody else wants the CPU"),
            ("cpuset-cpus", "", "value", "LIST", "CPUs to use, such as 0-3,7"),
            ("cpuset-mems", "", "value", "LIST", "memory nodes to use"),
            ("memory", "", "value", "SIZE", "limit of memory, such as 64M; -1 for no limit, of swap neither"),
            ("memory-reservation", "", "value", "SIZE", "memory that is left to it under pressure"),
            ("memory-swap", "", "value", "SIZE", "limit of memory and swap together; -1 for no limit"),
            ("kernel-memory", "", "value", "SIZE", "no effect: obsolete"),
            ("kernel-memory-tcp", "", "value", "SIZE", "no effect: obsolete"),
            ("pids-limit", "", "value", "N", "number of processes; -1 for no limit"),
            ("l3-cache-schema", "", "value", "SCHEMA", "cache line of the container's class of service (intelRdt)"),
            ("mem-bw-schema", "", "value", "SCHEMA", "bandwidth line of the container's class of service (intelRdt)"),
        ),
        (
            "Changes limits of a container that has not stopped; what is not named stays as it is. The file of "
            "--resources has the form of linux.resources in config.json, and every member of it counts; devices is the "
            "whole new list of rules. If one change fails, all others are taken back."
        ),
    ),
    "wait": (
        "wait for the end of a container", "ID", 1, 1, True, (),
        (
            "Waits until the init process of the container has ended and prints its exit status: the program's exit "
            "code, or 128 + N if signal N ended it. The status is kept until 'delete'. Whoever waits only after the "
            "end of the container may be told that the status is unknown: it belongs to the caller of 'create'."
        ),
    ),
}  # fmt: skip
