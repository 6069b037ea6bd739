"""`python -m deeplabv3` is the command `deeplabv3`."""

import sys

from deeplabv3.cli import main

if __name__ == "__main__":
    sys.exit(main())
