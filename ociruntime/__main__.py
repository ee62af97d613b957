"""``python3 -m ociruntime``: the command line from a checkout or an installed package."""

import sys

from ociruntime.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
