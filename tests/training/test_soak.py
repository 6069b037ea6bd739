"""A long run needs no more of the machine in its last epochs than in its first."""

import gc
import os
import sys
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from deeplabv3.config import Phase, TrainConfig
from deeplabv3.model.strips import give_back
from deeplabv3.training import loop
from deeplabv3.training.state import write_history

WARM_UP = 8
"""Epochs until allocators and caches have what they need."""


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def held():
    """Handles, processes, threads and temporary files, memory that processes share among them."""
    names = {str(path) for path in Path(tempfile.gettempdir()).rglob("*")}
    names |= {str(path) for path in Path("/dev/shm").glob(f"torch_{os.getpid()}_*")}
    threads = sorted(
        thread.name for thread in threading.enumerate() if thread.name != "limit"
    )  # ends when a batch comes
    return len(list(Path("/proc/self/fd").iterdir())), len(active_children()), threads, names


def epochs_of(config: TrainConfig, temporary: Path, leak: int) -> list[tuple[int, object]]:
    """What a run has and holds after each of its epochs, in each of which it loses some bytes."""
    seen: list[tuple[int, object]] = []
    leaked = []
    tempfile.tempdir = str(temporary)

    def noted(*arguments):
        write_history(*arguments)
        leaked.append(np.ones(leak, np.uint8))
        gc.collect()  # plots are garbage in circles, 5 MB each, which Python removes now and then
        give_back()  # and what is free, the C library
        seen.append((resident_bytes(), held()))

    with mock.patch.object(loop, "write_history", noted):
        loop.train(config)
    return seen


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("num_workers", "epochs", "leak"),
    [
        (0, 20, 0),
        pytest.param(1, 40, 0, marks=pytest.mark.slow),
        pytest.param(0, 20, 500_000, marks=pytest.mark.slow),  # bytes an epoch, which have to be seen
    ],
)
def test_nothing_grows(train_config, tmp_path, num_workers, epochs, leak):
    """In a process of its own: the gaps that other tests leave in memory say nothing of this run."""
    (tmp_path / "temporary").mkdir()
    phases = (Phase(epochs=epochs, learning_rate=0.01),)
    config = replace(train_config, phases=phases, average_decay=0.9, num_workers=num_workers)
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        seen = process.submit(epochs_of, config, tmp_path / "temporary", leak).result()
    seen = seen[WARM_UP : epochs - 1]  # behind the last, the processes that read have ended
    slope = np.polyfit(range(len(seen)), [memory for memory, _ in seen], 1)[0]
    print(f"{slope / 1e3:.0f} kB an epoch", [memory // 1000 for memory, _ in seen])
    assert all(later == seen[0][1] for _, later in seen)
    assert (slope < 200_000) == (leak == 0)
