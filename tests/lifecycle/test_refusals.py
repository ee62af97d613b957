"""Words for what the kernel refuses: (op, call, errno -> hint or error)."""

from errno import EINVAL, ENOENT, ENOSPC, EOVERFLOW, EPERM

import pytest

from ociruntime import plan
from ociruntime.errors import StepError
from ociruntime.host import Host
from ociruntime.lifecycle import refusals
from ociruntime.namespaces import lower, not_joined

MAPS = {f"{kind}Mappings": [{"containerID": 0, "hostID": 0, "size": 1}] for kind in ("uid", "gid")}


@pytest.mark.parametrize(
    ("kind", "call", "words"),
    [
        ("ext4", "fsconfig", "does not let a user namespace mount the file system type 'ext4'"),
        ("nfs", "fsopen", "'nfs'"),
        ("tmpfs", "fsconfig", ""),
        ("mqueue", "fsconfig", "the owner of the IPC namespace"),
        ("sysfs", "fsmount", "bind '/sys' instead"),
    ],
)
def test_new_mounts(kind: str, call: str, words: str) -> None:
    op = plan.op("mount", "/mounts/0", strings=(kind, "/x"), args=(0, 0, 0))
    found = refusals.hint(op, call, EPERM)
    assert words in found if words else not found


def test_a_mapping_without_the_root_of_the_file_system() -> None:
    op = plan.op("mount", "/mounts/0", strings=("tmpfs", "/x"), args=(0, 0, 0))
    assert "belongs to 0" in refusals.hint(op, "fchmod", EOVERFLOW)
    assert not refusals.hint(op, "fchmod", EINVAL)


@pytest.mark.parametrize(
    ("euid", "user", "errno", "words"),
    [
        (0, False, ENOSPC, "user.max_*_namespaces"),
        (1000, True, ENOSPC, "user.max_*_namespaces"),
        (1000, False, EPERM, "needs a new user namespace"),
        (1000, True, EPERM, "not mapped"),
        (0, True, EPERM, "in a chroot"),
        (0, False, EPERM, ""),
    ],
)
def test_new_namespaces(euid: int, user: bool, errno: int, words: str) -> None:
    host = Host(euid=euid)
    spaces = lower({"linux": {"namespaces": [{"type": "user"}], **MAPS} if user else {}}, host)
    found = refusals.of_clone(StepError("", call="clone3", errno=errno), host, spaces)
    assert found.pointer == "/linux/namespaces"
    assert words in found.hint if words else not found.hint


@pytest.mark.parametrize(("recursive", "words"), [(True, "unbindable"), (False, "use rbind")])
def test_sources_that_cannot_be_bound(recursive: bool, words: str) -> None:
    op = plan.op("bind", "/mounts/0", strings=("", "/x"), args=(0, 0, 0, 0), fd=plan.FdSource("tree", "/s", recursive))
    assert words in refusals.hint(op, "open_tree", EINVAL)
    op = plan.op("pin", "/mounts/0", strings=("/s",), flags=plan.RECURSIVE if recursive else 0)
    assert words in refusals.hint(op, "open_tree", EINVAL)


@pytest.mark.parametrize(("uid_map", "told"), [(b"         0          0 4294967295\n", False), (b"0 1000 1\n", True)])
def test_rights_over_files(monkeypatch: pytest.MonkeyPatch, uid_map: bytes, told: bool) -> None:
    """Where all IDs are mapped, EACCES comes from elsewhere: a security module, a file system of the network."""
    monkeypatch.setattr(refusals, "read_if_possible", lambda _path: uid_map)
    assert bool(refusals.no_rights(1)) is told


def test_namespaces_that_cannot_be_joined() -> None:
    own = not_joined((plan.CLONE_NEWUSER, "/proc/self/ns/user", "/linux/namespaces/0/path"), EINVAL)
    assert own.pointer == "/linux/namespaces/0/path"
    assert own.path == "/proc/self/ns/user"
    assert "in this user namespace already" in own.hint
    assert not not_joined((plan.CLONE_NEWNET, "/x", "/linux/namespaces/1/path"), EINVAL).hint
    assert not not_joined((plan.CLONE_NEWUSER, "/x", "/linux/namespaces/1/path"), ENOENT).hint
