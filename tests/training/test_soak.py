"""A long run needs no more of the machine in its last epochs than in its first."""

import gc
import os
import sys
import tempfile
import threading
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from deeplabv3.config import Phase
from deeplabv3.model.strips import give_back
from deeplabv3.training import loop
from deeplabv3.training.loop import train
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("num_workers", "epochs", "leak"),
    [
        (0, 20, 0),
        pytest.param(1, 40, 0, marks=pytest.mark.slow),
        pytest.param(0, 20, 500_000, marks=pytest.mark.slow),  # bytes an epoch, which have to be seen
    ],
)
def test_nothing_grows(train_config, tmp_path, monkeypatch, num_workers, epochs, leak):
    seen, leaked = [], []
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def noted(*arguments):
        write_history(*arguments)
        leaked.append(np.ones(leak, np.uint8))
        gc.collect()  # plots are garbage in circles, 5 MB each, which Python removes now and then
        give_back()  # and what is free, the C library
        seen.append((resident_bytes(), held()))

    monkeypatch.setattr(loop, "write_history", noted)
    phases = (Phase(epochs=epochs, learning_rate=0.01),)
    train(replace(train_config, phases=phases, average_decay=0.9, num_workers=num_workers))
    seen = seen[WARM_UP : epochs - 1]  # behind the last, the processes that read have ended
    slope = np.polyfit(range(len(seen)), [memory for memory, _ in seen], 1)[0]
    print(f"{slope / 1e3:.0f} kB an epoch")
    assert all(later == seen[0][1] for _, later in seen)
    assert (slope < 200_000) == (leak == 0)
