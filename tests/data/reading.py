"""Read the corpus, each file in a process of its own, so that a crash is seen and its memory is its own.

    python -m tests.data.reading [everyday]

The last line is one JSON object: how many files there were, what came of them, what should not have, and the most
seconds of the processor and MB that one took, the comparison with the right picture included.
"""

import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deeplabv3.data.images import image_size, read_image
from deeplabv3.errors import DatasetError
from tests.data.corpus import Specimen, corpus

MOST_BYTES = 4 * 2**30  # of address space, which is more than is used; beyond it memory errors would be seen
ROWS = 256


def outcome(path: Path, specimen: Specimen) -> str:
    """ "right", "error", "another picture", or what else happened, which should not."""
    try:
        pixels = read_image(path)
    except DatasetError as error:
        line = str(error)
        readable = line.startswith(str(path)) and line.isprintable() and "; " in line and len(line) < 500
        return "error" if readable else f"an error that is not one readable line: {line!r}"
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        return f"pixels of {pixels.dtype} {pixels.shape}"
    if image_size(path) != pixels.shape[:2]:
        return f"a header of {image_size(path)} and pixels of {pixels.shape}"
    right = specimen.right
    if right is None or right.shape != pixels.shape:
        return "another picture"
    for top in range(0, len(pixels), ROWS):
        band, wanted = pixels[top : top + ROWS].astype(np.int16), right[top : top + ROWS]
        if np.abs(band - wanted).max() > specimen.tolerance:
            return "another picture"
    return "right"


def in_a_process(path: Path, specimen: Specimen) -> tuple[str, float, float]:
    """The outcome, the seconds of the processor and the peak of memory in MB of reading a file."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        start = time.process_time()
        try:
            found = outcome(path, specimen)
        except BaseException:
            found = traceback.format_exc(limit=-3)
        os.write(sender, json.dumps([found, time.process_time() - start]).encode())
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        answer = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if status != 0 or not answer:
        return f"crash {status}", usage.ru_utime, usage.ru_maxrss / 1000
    found, seconds = json.loads(answer)
    return found, seconds, usage.ru_maxrss / 1000


def write_elsewhere(path: Path, make: Callable[[], bytes]) -> None:
    """Write a large file in a process of its own, whose memory those of the readers do not inherit."""
    child = os.fork()
    if child == 0:
        path.write_bytes(make())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, path


def main(*, everyday: bool) -> dict[str, object]:
    """Read all specimens."""
    allowed = {"right": ("right",), "error": ("error",), "either": ("right", "error"),
               "any": ("right", "error", "another picture")}  # fmt: skip
    outcomes: Counter[str] = Counter()
    wrong, slowest, largest = [], (0.0, ""), (0.0, "")
    with tempfile.TemporaryDirectory() as folder:
        for specimen in corpus(everyday=everyday):
            path = Path(folder) / specimen.name
            if isinstance(specimen.content, bytes):
                path.write_bytes(specimen.content)
            else:
                write_elsewhere(path, specimen.content)
            found, seconds, megabytes = in_a_process(path, specimen)
            path.unlink()
            outcomes[f"{specimen.wanted}: {found.splitlines()[-1] if found not in allowed['any'] else found}"] += 1
            if found not in allowed[specimen.wanted]:
                wrong.append([specimen.name, specimen.wanted, found])
            slowest, largest = max(slowest, (seconds, specimen.name)), max(largest, (megabytes, specimen.name))
    return {"files": outcomes.total(), "outcomes": outcomes, "wrong": wrong, "slowest": slowest, "largest": largest}


if __name__ == "__main__":
    print(json.dumps(main(everyday="everyday" in sys.argv)))
