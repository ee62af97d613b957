"""Labels of mounts: which option carries them, and what is refused."""

from typing import Any

import pytest

from ociruntime import features
from ociruntime.errors import ConfigError
from ociruntime.mounts.lower import LABEL_ANNOTATION
from tests.mounts.conftest import Lower

LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


def config(option: str, *options: str) -> dict[str, Any]:
    return {
        "annotations": {LABEL_ANNOTATION: option},
        "mounts": [{"destination": "/d", "type": "tmpfs", "options": list(options)}],
        "linux": {"mountLabel": LABEL},
    }


@pytest.mark.parametrize("option", ["context", "fscontext", "defcontext", "rootcontext"])
def test_an_annotation_names_the_option(lowered: Lower, option: str) -> None:
    """N5. fsconfig(2) takes the comma of a label as it is: there is nothing to quote."""
    (first, *_) = lowered(config(option), selinux=True).setup
    assert first.strings[3] == f"{option}\0{LABEL}\0".encode()


def test_an_option_of_the_mount_itself_wins(lowered: Lower) -> None:
    (first, *_) = lowered(config("rootcontext", 'rootcontext="a:b:c:s0:c1,c2"'), selinux=True).setup
    assert first.strings[3] == b"rootcontext\0a:b:c:s0:c1,c2\0"


@pytest.mark.parametrize("selinux", [True, False])
@pytest.mark.parametrize("option", ["", "size", "context=x,size"])
def test_other_words_are_refused(lowered: Lower, option: str, selinux: bool) -> None:
    with pytest.raises(ConfigError) as caught:
        lowered(config(option), selinux=selinux)
    assert caught.value.pointer == "/annotations/run.oci.mount_context_type"


def test_without_selinux_there_is_no_label(lowered: Lower) -> None:
    (first, *_) = lowered(config("fscontext")).setup
    assert first.strings[3] == b""


def test_features_list_the_annotation() -> None:
    assert LABEL_ANNOTATION in features.UNSAFE_ANNOTATIONS
