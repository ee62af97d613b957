"""Print requirements of setup.py for pip: `build` (cffi and what it compiles with, run), `run`, `dev` (run, dev).

setup.py stays the one place where they are listed. With `run`, cffi is held at the release that the build uses: the
compiled module and its back end must fit together.
"""

import sys
from importlib import metadata
from pathlib import Path
from unittest import mock

import setuptools


def listed() -> "dict[str, list[str]]":
    """What setup.py hands to setup()."""
    path = Path(__file__).resolve().parent.parent / "setup.py"
    with mock.patch.object(setuptools, "setup") as setup:
        code = compile(path.read_text("utf-8"), str(path), "exec")
        exec(code, {"__file__": str(path), "__name__": "__main__"})
    call = setup.call_args.kwargs
    return {"run": call["install_requires"], "dev": call["extras_require"]["dev"]}


def main() -> None:
    """Command line."""
    requirements = listed()
    job = sys.argv[1]
    if job == "build":
        wanted = ["setuptools", *requirements["run"]]
    elif job == "dev":
        wanted = requirements["run"] + requirements["dev"]
    else:
        held = f"cffi=={metadata.version('cffi')}"
        wanted = [held, *(name for name in requirements["run"] if not name.startswith("cffi"))]
    print(*(name.replace(" ", "") for name in wanted))


if __name__ == "__main__":
    main()
