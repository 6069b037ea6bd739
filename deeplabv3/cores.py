"""How many processes are worth starting."""

from __future__ import annotations

import os


def num_cores() -> int:
    """Cores that this process may use: fewer than the machine has under taskset, Slurm or a container's set of cores.

    A container's limit of CPU time (`docker run --cpus`) does not show here.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def given_or_cores(num_workers: int | None, *, pays: bool = True) -> int:
    """The number of processes that was asked for; if none was, one for each core where that pays, and else 0.

    Args:
        num_workers: What the caller gave, or None.
        pays: Whether there is more to do than it takes to start processes.
    """
    if num_workers is not None:
        return num_workers
    return num_cores() if pays else 0
