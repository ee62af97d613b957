"""``python3 -m ociruntime``: the command line from a checkout or an installed package."""

import sys

from ociruntime.cli.main import main


def script() -> int:
    """Entry point of the console script."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(script())
