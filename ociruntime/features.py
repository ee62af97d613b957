"""The features document: what this build supports, whatever the machine at hand offers.

Source: runtime-spec features.md, features-linux.md.
"""

import posix
import sys

from ociruntime.state.model import OCI_VERSION

OCI_VERSION_MIN = "1.0.0"
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")

# Annotations of config.json that change what the runtime does; a trailing dot is a prefix.
UNSAFE_ANNOTATIONS = (
    "org.ociruntime.init",
    "org.systemd.property.",
    "run.oci.delegate-cgroup",
    "run.oci.hooks.stderr",
    "run.oci.hooks.stdout",
    "run.oci.keep_original_groups",
    "run.oci.mount_context_type",
    "run.oci.seccomp_bpf_data",
    "run.oci.seccomp_fail_unknown_syscall",
    "run.oci.systemd.subgroup",
)

CGROUP = {"v1": True, "v2": True, "rdma": True}
IDMAP = True
NET_DEVICES = True
INTEL_RDT = True
INTEL_RDT_MONITORING = True
SELINUX = False
APPARMOR = True
SECCOMP_NOTIFY = True
CHECKPOINT = False


def libseccomp_release() -> str:
    """Return the release of libseccomp found here, such as "2.5.4"; "" when there is none."""
    return _release_in_name() or _release_said()


def _release_in_name() -> str:
    """From the file that the library's name leads to: asking the library itself takes three times a whole --version."""
    multiarch = getattr(sys.implementation, "_multiarch", "")
    for directory in (f"/usr/lib/{multiarch}", "/usr/lib64", "/usr/lib"):
        try:
            name = posix.readlink(f"{directory}/libseccomp.so.2")
        except OSError:
            continue
        release = name.rpartition("libseccomp.so.")[2]
        if release.count(".") == 2 and release.replace(".", "").isdecimal():
            return release
    return ""


def _release_said() -> str:
    from ociruntime.fullpython import full_interpreter

    full_interpreter()
    try:
        import ctypes

        library = ctypes.CDLL("libseccomp.so.2")
    except (ImportError, OSError):
        return ""

    class Release(ctypes.Structure):
        """struct scmp_version of seccomp.h."""

        _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))

    library.seccomp_version.restype = ctypes.POINTER(Release)
    found = library.seccomp_version().contents
    return f"{found.major}.{found.minor}.{found.micro}"


def seccomp_binding() -> bool:
    """Tell whether a Python binding of libseccomp can be loaded: without one, profiles cannot be compiled."""
    from ociruntime.fullpython import full_interpreter

    full_interpreter()
    from importlib import import_module

    for name in ("seccomp", "pyseccomp"):
        try:
            import_module(name)
        except (ImportError, RuntimeError, OSError):
            continue
        return True
    return False


def cgroup() -> "dict[str, bool]":
    """Return linux.cgroup: systemd and systemdUser only where the D-Bus library for them is found."""
    from ociruntime.fullpython import full_interpreter

    full_interpreter()
    from importlib.util import find_spec

    systemd = find_spec("jeepney") is not None
    return {"v1": CGROUP["v1"], "v2": CGROUP["v2"], "systemd": systemd, "systemdUser": systemd, "rdma": CGROUP["rdma"]}


def seccomp() -> "dict[str, object]":
    """Return linux.seccomp: enabled only where libseccomp and its Python binding are found."""
    from posix import uname

    from ociruntime.host import parse_release
    from ociruntime.seccomp import compile

    if not seccomp_binding():
        return {"enabled": False}
    kernel = parse_release(uname().release)
    return {
        "enabled": True,
        "actions": [name for name in compile.ACTIONS if SECCOMP_NOTIFY or name != "SCMP_ACT_NOTIFY"],
        "operators": list(compile.OPERATORS),
        "archs": list(compile.ARCHITECTURES),
        "knownFlags": list(compile.FLAGS),
        "supportedFlags": compile.supported_flags(kernel),
    }


def maps_binds() -> bool:
    """Tell whether the kernel lets this caller map the IDs of the host's file systems.

    Others, and root of another user namespace, may do so with what was mounted in a user namespace of theirs, such as a
    tmpfs of the container.
    """
    from posix import geteuid

    from ociruntime.host import probe

    return geteuid() == 0 and not probe().in_userns


def document() -> "dict[str, object]":
    """Return the document. Needs no privileges, no container and no configuration."""
    from ociruntime import __version__
    from ociruntime.capabilities import NUMBERS
    from ociruntime.mounts.options import names
    from ociruntime.scheduling import MEMORY_FLAGS, MEMORY_MODES

    annotations = {
        "org.opencontainers.runc.checkpoint.enabled": "true" if CHECKPOINT else "false",
        "org.ociruntime.idmap.binds": "true" if maps_binds() else "false",
        "org.ociruntime.version": __version__,
    }
    libseccomp = libseccomp_release()
    if libseccomp:
        annotations["io.github.seccomp.libseccomp.version"] = libseccomp
    return {
        "ociVersionMin": OCI_VERSION_MIN,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOKS),
        "mountOptions": names(),
        "linux": {
            "namespaces": list(NAMESPACES),
            "capabilities": list(NUMBERS),
            "cgroup": cgroup(),
            "seccomp": seccomp(),
            "apparmor": {"enabled": APPARMOR},
            "selinux": {"enabled": SELINUX},
            "intelRdt": {"enabled": INTEL_RDT, "schemata": INTEL_RDT, "monitoring": INTEL_RDT_MONITORING},
            "memoryPolicy": {"modes": list(MEMORY_MODES), "flags": list(MEMORY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": IDMAP}},
            "netDevices": {"enabled": NET_DEVICES},
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": list(UNSAFE_ANNOTATIONS),
    }
