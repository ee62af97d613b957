"""Words for what the kernel refuses: (op, call, errno -> hint or error)."""

from errno import EINVAL, ENOENT, ENOSPC, EPERM

import pytest

from ociruntime import plan
from ociruntime.errors import StepError
from ociruntime.host import Host
from ociruntime.lifecycle import refusals
from ociruntime.namespaces import not_joined


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


@pytest.mark.parametrize(
    ("euid", "errno", "words"),
    [(0, ENOSPC, "user.max_*_namespaces"), (1000, EPERM, "needs a new user namespace"), (0, EPERM, "")],
)
def test_new_namespaces(euid: int, errno: int, words: str) -> None:
    found = refusals.of_clone(StepError("", call="clone3", errno=errno), Host(euid=euid))
    assert found.pointer == "/linux/namespaces"
    assert words in found.hint if words else not found.hint


def test_namespaces_that_cannot_be_joined() -> None:
    own = not_joined((plan.CLONE_NEWUSER, "/proc/self/ns/user", "/linux/namespaces/0/path"), EINVAL)
    assert own.pointer == "/linux/namespaces/0/path"
    assert own.path == "/proc/self/ns/user"
    assert "in this user namespace already" in own.hint
    assert not not_joined((plan.CLONE_NEWNET, "/x", "/linux/namespaces/1/path"), EINVAL).hint
    assert not not_joined((plan.CLONE_NEWUSER, "/x", "/linux/namespaces/1/path"), ENOENT).hint
