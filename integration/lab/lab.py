"""The lab's command line: python -m integration.lab.lab build | run -- COMMAND... | test [PYTEST ARGUMENT...]."""

from __future__ import annotations

import argparse
import sys

from integration.lab import image
from integration.lab.machine import LabError, Machine, to_streams


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build", help="make the image, if it is not there")
    run = verbs.add_parser("run", help="run a command in a fresh machine")
    run.add_argument("command", nargs="+")
    run.add_argument("--timeout", type=float, default=600)
    options = parser.parse_args()
    try:
        built = image.build()
        if options.verb == "build":
            print(built.directory)
            return 0
        with Machine(built) as machine:
            status = machine.run(options.command, timeout=options.timeout, sink=to_streams).status
            if status is None:
                print(f"lab: timeout after {options.timeout:g} s", file=sys.stderr)
            return 124 if status is None else status
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
