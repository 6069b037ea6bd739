"""How a command ends: one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

from deeplabv3.distributed import is_first
from deeplabv3.errors import DeepLabError, DeviceMemoryError, InputError, UnreachableError, is_out_of_memory


def guarded(program: str, run: Callable[[], int | None]) -> int:
    """Call `run` and turn what it raises on purpose, and what the system refuses, into one line and an exit code."""
    _make_streams_usable()
    try:
        code = run()
        sys.stdout.flush()  # short output meets a closed pipe here alone
    except DeepLabError as error:
        of_one = isinstance(error, DeviceMemoryError | UnreachableError)  # each process finds any other mistake
        if is_first() or of_one:
            print(f"{program}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except BrokenPipeError:  # whoever reads what is printed, as `head` does, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 and SIGPIPE, which not every system has
    except OSError as error:
        advice = "; look at the path, its permissions and the disk" if error.filename else ""
        where = error.filename or "the system refuses"
        print(f"{program}: error: {where}: {error.strerror or error}{advice}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"{program}: error: memory ran out; end other programs, or ask for less at once", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if is_first():
            print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except BaseException as error:
        if not hasattr(error, "exit_code"):  # training.stopping.Stopped, whose room imports torch
            raise
        hint = "" if program.endswith("demo") else "; go on with the same command and --resume"
        if is_first():
            print(f"{program}: {error}{hint}", file=sys.stderr)
        return int(error.exit_code)
    return code or 0


def _make_streams_usable() -> None:
    """Print nowhere what is printed to a closed stream, and escape what a stream cannot show."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # as after `>&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
