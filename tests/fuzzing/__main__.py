"""Read damaged files of every kind, each kind in a process of its own, so that a crash is seen and memory is its own.

    python -m tests.fuzzing SEED (seconds NUMBER | trials NUMBER) [FOLDER]

A file that made something else happen than a right result or the documented error is kept in FOLDER. The last line is
one JSON object: for each target trials, what came of them, failures, and the most MB that reading took beyond twice
the file.
"""

import contextlib
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

from tests.fuzzing.targets import TARGETS, Target, outcome

MOST_BYTES = 6 * 2**30  # of address space, so that a huge allocation fails and does not take the machine's memory
MOST_FAILURES = 20
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def fuzz(target: Target, seed: int, seconds: float, trials: int, folder: Path) -> dict[str, object]:
    """Trials until the time or their number is over."""
    outcomes: Counter[str] = Counter()
    failures: dict[str, str] = {}
    path, start, most_mb = folder / target.name, time.monotonic(), 0.0
    while outcomes.total() < trials and time.monotonic() - start < seconds and len(failures) < MOST_FAILURES:
        number = outcomes.total()
        content = target.damaged(random.Random(f"{seed} {target.name} {number}"))
        path.write_bytes(content)
        size, before = len(content), memory_mb(reset=True)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                found = outcome(target, path)
        except BaseException as error:  # the reader's own panics are no Exception
            found = "failure"
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {str(error)[:200]}"
            if not any(kind[:60] == seen[:60] for seen in failures):
                failures[kind] = str(number)
                path.with_name(f"{number}-{target.name}").write_bytes(content)
        outcomes[found] += 1
        most_mb = max(most_mb, memory_mb() - before - 2 * size / 1e6)
    return {"trials": outcomes.total(), **outcomes, "failures": failures, "spare_mb": round(most_mb, 1)}


def memory_mb(*, reset: bool = False) -> float:
    """The most memory that this process has had since the last reset; of its whole life where Linux is not there."""
    if reset and CLEAR.exists():
        CLEAR.write_text("5")
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def in_a_process(make, seed: int, seconds: float, trials: int, folder: Path) -> dict[str, object]:
    """One target's figures, its memory, and how its process ended."""
    folder.mkdir(parents=True, exist_ok=True)
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
            target = make()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff talks
            figures = fuzz(target, seed, seconds, trials, folder)
            os.write(sender, json.dumps(figures).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(answer) if status == 0 and answer else {"trials": 0, "crash": status}


def main(seed: int, unit: str, number: float, folder: Path) -> dict[str, dict[str, object]]:
    """All targets; seconds are shared out among them."""
    torch.set_num_threads(1)
    seconds, trials = (number / len(TARGETS), 10**9) if unit == "seconds" else (10**9, int(number))
    return {make.__name__: in_a_process(make, seed, seconds, trials, folder / make.__name__) for make in TARGETS}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as own:
        words = sys.argv[1:]
        found = main(int(words[0]), words[1], float(words[2]), Path(words[3] if len(words) > 3 else own))
        print(json.dumps(found))
