"""The text of ``--version``."""


def commit() -> str:
    """Return the revision this build was made from (COMMIT of _build.py, which the build may write), or "unknown"."""
    try:
        build = __import__("ociruntime._build", None, None, ("COMMIT",))
    except ImportError:
        return "unknown"
    return str(build.COMMIT)


def libraries() -> "list[tuple[str, str]]":
    """Return (name, release) of what the runtime uses and finds here."""
    import sys

    found = []
    try:
        from ociruntime.features import libseccomp_release

        found.append(("libseccomp", libseccomp_release()))
    except ImportError:
        pass
    found.append(("python", sys.version.partition(" ")[0]))
    return [(name, release) for name, release in found if release]


def text() -> str:
    """Return the lines of --version.

    The form is a contract: engines take name and release from the last line that contains "version", which therefore
    must be the first and only one, and look for the prefix "commit:".
    """
    from ociruntime import __version__
    from ociruntime.state.model import OCI_VERSION

    lines = [f"ociruntime version {__version__}", f"commit: {commit()}", f"spec: {OCI_VERSION}"]
    lines.extend(f"{name}: {release}" for name, release in libraries())
    return "\n".join(lines) + "\n"
