"""An OCI-compatible low-level container runtime: ``ociruntime.Runtime`` is what the command line itself calls.

Importing this package is cheap and does nothing; the names below load their rooms on first use.
"""

__all__ = ("ExecRequest", "OCIError", "Runtime", "__version__")
__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ociruntime.errors import OCIError
    from ociruntime.lifecycle.exec import ExecRequest
    from ociruntime.lifecycle.runtime import Runtime


def __getattr__(name: str) -> object:
    if name == "Runtime":
        from ociruntime.lifecycle.runtime import Runtime

        return Runtime
    if name == "ExecRequest":
        from ociruntime.lifecycle.exec import ExecRequest

        return ExecRequest
    if name == "OCIError":
        from ociruntime.errors import OCIError

        return OCIError
    raise AttributeError(f"module 'ociruntime' has no attribute {name!r}")
