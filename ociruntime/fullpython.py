"""The rest of the interpreter, for those who need the standard library.

The installed command starts with the core of the interpreter only: builtin modules and what is frozen into it. Whoever
is about to import something else asks for the rest first. In an ordinary interpreter that is already there.
"""

_done = False


def full_interpreter() -> None:
    """Complete the interpreter, so that import finds the standard library and site packages. Repeating it is free."""
    global _done
    if _done:
        return
    _done = True
    try:
        import _ociruntime_launcher
    except ImportError:
        return
    _ociruntime_launcher.initialize_main()
