"""`python -m deeplabv3` is the command `deeplabv3`."""

from typing import NoReturn

from deeplabv3.cli import main
from deeplabv3.distributed import leave


def run() -> NoReturn:
    """The command, as a program."""
    leave(main())


if __name__ == "__main__":
    run()
