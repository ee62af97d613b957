"""What create is asked for."""


class CreateRequest:
    """One container to be made. bundle: absolute path. config_file: "" means config.json of the bundle.

    pid_file: path or "". preserve_fds: how many fds from 3 on go to the container; the first listen_fds of them are
    sockets of the caller's service manager, listen_names their names. notify_socket: the caller's, or "".
    interruptible: HUP, INT and TERM of the calling thread undo all; final: those that come too late for that stay
    blocked; also_held: bit n-1: signal n too, though the caller has blocked it. trace: collect the time of each op.
    detach: nobody stays to hold a terminal. console_socket, pidfd_socket: paths, or "".
    fail_op, fail_errno: fault injection for tests, see shim.encode.
    """

    __slots__ = (
        "also_held",
        "bundle",
        "config_file",
        "console_socket",
        "container_id",
        "detach",
        "fail_errno",
        "fail_op",
        "final",
        "interruptible",
        "listen_fds",
        "listen_names",
        "no_new_keyring",
        "no_pivot",
        "notify_socket",
        "pid_file",
        "pidfd_socket",
        "preserve_fds",
        "trace",
    )

    def __init__(
        self,
        bundle: str,
        container_id: str,
        *,
        config_file: str = "",
        pid_file: str = "",
        preserve_fds: int = 0,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        detach: bool = True,
        console_socket: str = "",
        pidfd_socket: str = "",
        listen_fds: int = 0,
        listen_names: str = "",
        notify_socket: str = "",
        interruptible: bool = False,
        final: bool = False,
        trace: bool = False,
        fail_op: int = -1,
        fail_errno: int = 5,
    ) -> None:
        self.bundle = bundle
        self.container_id = container_id
        self.config_file = config_file
        self.pid_file = pid_file
        self.preserve_fds = preserve_fds
        self.no_pivot = no_pivot
        self.no_new_keyring = no_new_keyring
        self.detach = detach
        self.console_socket = console_socket
        self.pidfd_socket = pidfd_socket
        self.listen_fds = listen_fds
        self.listen_names = listen_names
        self.notify_socket = notify_socket
        self.interruptible = interruptible
        self.final = final
        self.also_held = 0
        self.trace = trace
        self.fail_op = fail_op
        self.fail_errno = fail_errno

    def add_activation(self, preserve_fds: int, listen_fds: int, listen_names: str, notify_socket: str) -> None:
        """What a service manager has passed: listen_fds sockets from fd 3 on, before the preserve_fds others."""
        self.preserve_fds = listen_fds + preserve_fds
        self.listen_fds = listen_fds
        self.listen_names = listen_names
        self.notify_socket = notify_socket
