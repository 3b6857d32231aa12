"""``python -m sdd`` is ``sdd``."""

import sys

from sdd.cli import main

if __name__ == "__main__":
    sys.exit(main())
