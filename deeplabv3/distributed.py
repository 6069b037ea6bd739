"""Several processes that work on one thing, as torchrun starts them; plain and harmless in a single one.

    torchrun --nproc-per-node 4 -m deeplabv3 train DATA RUN
    torchrun --nproc-per-node 4 -m deeplabv3 evaluate DATA --model MODEL

Besides gradients and the statistics of batch norm, only whole numbers and small records travel between them. What
there is once is printed and written by rank 0; the files of a frame by the process that has it.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from deeplabv3.errors import DeepLabError, DeviceMemoryError, InputError, ProcessError, UnreachableError, printable

Item = TypeVar("Item")

PATIENCE = timedelta(days=1)
"""How long a process waits for the others; one that died is noticed at once."""

_TELLING_SECONDS = 10.0
"""How long the others leave the first to tell a mistake; torchrun ends them as soon as it has."""

_ENDED: list[Any] = []
"""Groups that were left. Gloo's destructor waits for threads that may be waiting for the interpreter's lock, and
gradient exchange, if it frees a group last, holds that (pytorch/pytorch issue 56297). So they live until the process
exits, and not longer: a thread that waits for the lock of an interpreter that is gone aborts the process."""
atexit.register(_ENDED.clear)


def leave(code: int) -> NoReturn:
    """End the program.

    An interpreter that ends looks for garbage among all that torch has imported, for a second or more. The system
    takes it all anyway, so this is left out.

    One of several processes ends without taking the interpreter apart: gloo's threads outlive their group, and one that
    meets an interpreter that is half gone aborts the process ("terminate called without an active exception"; 6 of 24
    runs of three processes on a busy machine). torchrun takes that for a failure of the run.

    torchrun also ends all others when one has failed. A user's mistake, which all find and the first tells, therefore
    lets the first go ahead.

    Args:
        code: The exit code; 2 is a user's mistake.
    """
    if num_processes() == 1:
        gc.freeze()
        sys.exit(code)
    if code == 2 and not is_first():
        time.sleep(_TELLING_SECONDS)
    atexit.unregister(_ENDED.clear)
    atexit._run_exitfuncs()  # what others want done at the end, readers and temporary files
    with suppress(OSError):  # whoever reads what is printed may have gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _of_torchrun(name: str, alone: int) -> int:
    """A number that torchrun sets; `alone` where not all are set that belong together."""
    values = [os.environ.get(other, "") for other in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")]
    whole = all(value.isdecimal() for value in values) and bool(os.environ.get("MASTER_ADDR"))
    return int(os.environ[name]) if whole else alone


def rank() -> int:
    """Number of this process, 0 for a single one."""
    return _of_torchrun("RANK", 0)


def local_rank() -> int:
    """Number of this process on its machine, which is that of its accelerator."""
    return _of_torchrun("LOCAL_RANK", 0)


def num_processes() -> int:
    """How many processes work together."""
    return _of_torchrun("WORLD_SIZE", 1)


def is_first() -> bool:
    """Whether this process prints and writes."""
    return rank() == 0


def require_single(what: str) -> None:
    """Refuse several processes where the work is not shared among them.

    Raises:
        InputError: There are several.
    """
    if num_processes() > 1:
        raise InputError(f"{what} was started in {num_processes()} processes; it runs in one, so leave torchrun out")


@contextmanager
def ending_together() -> Iterator[None]:
    """Let all processes end where a user's mistake stops one of them; the first of them tells it.

    Raises:
        InputError: The first error of any, in all of them.
    """
    error: InputError | None = None
    try:
        yield
    except InputError as own:
        error = own
    for one in gather([error]):
        if one is not None:
            raise one


def by_the_first(run: Callable[..., object], *arguments: Any) -> None:
    """Let the first process do something; the others wait for it, and end where it fails.

    Raises:
        InputError: What it raised, in all processes.
    """
    with ending_together():
        if is_first():
            run(*arguments)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes for the time of a `with` statement; nothing where there are none.

    Raises:
        UnreachableError: They cannot reach each other.
        ProcessError: Another process has ended.
    """
    import torch
    import torch.distributed as dist

    if num_processes() == 1 or dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        advice = "see that each machine knows the name of the first, or set GLOO_SOCKET_IFNAME"
        raise UnreachableError(f"the processes cannot reach each other ({printable(error)}); {advice}") from error
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        if isinstance(error, dist.DistBackendError):  # NCCL's, which no process may have another message of
            cause = printable(error)
            raise ProcessError(f"another process has ended, or they cannot reach each other ({cause})") from error
        raise ProcessError("another process has ended; its own message says why") from error
    finally:
        _ENDED.append(dist.group.WORLD)
        # NCCL would wait for an exchange that others are in; the end of the process ends it.
        if not (torch.cuda.is_available() and _is_of_one_process(sys.exc_info()[1])):
            dist.destroy_process_group()


def _is_of_one_process(error: BaseException | None) -> bool:
    """Whether the other processes may be in the middle of a step, and not raise the same."""
    if isinstance(error, DeepLabError):
        return isinstance(error, DeviceMemoryError | ProcessError)
    return isinstance(error, Exception | KeyboardInterrupt)


def everyones(values: Sequence[float]) -> list[list[float]]:
    """A few numbers of every process, in the order of their ranks, the same in each of them."""
    import torch
    import torch.distributed as dist

    if num_processes() == 1:
        return [list(values)]
    own = torch.tensor(values, dtype=torch.float64)
    rows = [torch.empty_like(own) for _ in range(num_processes())]
    dist.all_gather(rows, own)
    return [row.tolist() for row in rows]


def tell(note: str) -> None:
    """Say something on standard error once, whatever the number of processes."""
    if is_first():
        print(f"note: {note}", file=sys.stderr)


def share_of(items: Sequence[Item]) -> Sequence[Item]:
    """The items that are this process's: each belongs to exactly one, and nothing is added to make shares equal."""
    return items[rank() :: num_processes()]


def sum_over_processes(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The sum of every process's counts, the same in each of them."""
    import torch
    import torch.distributed as dist

    if num_processes() == 1:
        return counts
    total = torch.from_numpy(counts.copy())
    dist.all_reduce(total)
    summed: npt.NDArray[np.int64] = total.numpy()
    return summed


def gather(records: Sequence[Item]) -> list[Item]:
    """The records of all processes in the order that `share_of` dealt their items out in, in each of them."""
    import torch.distributed as dist

    if num_processes() == 1:
        return list(records)
    shares: list[Any] = [None] * num_processes()
    dist.all_gather_object(shares, list(records))
    return [share[place] for place in range(max(map(len, shares))) for share in shares if place < len(share)]
