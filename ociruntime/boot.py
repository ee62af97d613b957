"""First module of the installed command: lets import find the extension modules while only the core is there.

The launcher imports it before anything else. It goes by a table of fixed absolute paths, made when the launcher was
linked; nothing is searched for. The module is its own finder and loader: no class to build at each start.
"""

import _imp
import sys

import _frozen_importlib
import _ociruntime_launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_extensions: "dict[str, str]" = _ociruntime_launcher.extensions


def find_spec(name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None) -> "ModuleSpec | None":
    """Finder: the spec of a module that has an entry in the table. Source: importlib.abc.MetaPathFinder."""
    origin = _extensions.get(name)
    if origin is None:
        return None
    spec: "ModuleSpec" = _frozen_importlib.ModuleSpec(name, _this, origin=origin)
    spec.has_location = True
    return spec


def create_module(spec: "ModuleSpec") -> "ModuleType":
    """Loader: open the shared object. ImportError if it cannot be."""
    module: "ModuleType" = _imp.create_dynamic(spec)
    return module


def exec_module(module: "ModuleType") -> None:
    """Loader: run the module's second phase, if it has one."""
    _imp.exec_dynamic(module)


_this = sys.modules[__name__]
sys.meta_path.append(_this)  # type: ignore[arg-type]
