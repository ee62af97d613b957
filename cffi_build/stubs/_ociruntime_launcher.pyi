"""The builtin module of the installed command (launcher.c)."""

library: str
"""Directory of the installed package, or the checkout's own."""

inherited_fds: tuple[int, ...] | None
"""The caller's descriptors above 2, as found at the very start; None: nobody asked (--preserve-fds, LISTEN_FDS)."""

def initialize_main() -> None: ...
