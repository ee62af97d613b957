"""The builtin module of the installed command (launcher.c)."""

library: str
"""Directory of the installed package, or the checkout's own."""

extensions: dict[str, str]
"""Extension modules that can be imported before the interpreter is complete: dotted name -> shared object."""

inherited_fds: tuple[int, ...] | None
"""The caller's descriptors above 2, as found at the very start; None: nobody asked (--preserve-fds, LISTEN_FDS)."""

def initialize_main() -> None: ...
