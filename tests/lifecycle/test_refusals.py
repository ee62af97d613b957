"""Words for what the kernel refuses: (op, call, errno -> hint or error)."""

from errno import EINVAL, ENOENT, EPERM

import pytest

from ociruntime import plan
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


def test_namespaces_that_cannot_be_joined() -> None:
    own = not_joined((plan.CLONE_NEWUSER, "/proc/self/ns/user", "/linux/namespaces/0/path"), EINVAL)
    assert own.pointer == "/linux/namespaces/0/path"
    assert own.path == "/proc/self/ns/user"
    assert "in this user namespace already" in own.hint
    assert not not_joined((plan.CLONE_NEWNET, "/x", "/linux/namespaces/1/path"), EINVAL).hint
    assert not not_joined((plan.CLONE_NEWUSER, "/x", "/linux/namespaces/1/path"), ENOENT).hint
