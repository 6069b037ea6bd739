"""The process that decodes images: `python -m deeplabv3.serving.decoding MAX_PIXELS CPU_SECONDS`.

It reads images from its standard input, each behind its length (8 bytes), and answers each with a header and what the
header tells of: pixels, RGB uint8 `(H, W, 3)`, or the text of a refusal. Numbers are in network order. Whatever a
decoder does to it, a crash or a hang, costs one image.
"""

from __future__ import annotations

import importlib
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

from deeplabv3.data.findings import Unsound
from deeplabv3.data.images import decode_image
from deeplabv3.errors import DatasetError
from deeplabv3.model.unpickling.limits import forbid_everything_else

LENGTH = struct.Struct("!Q")
ANSWER = struct.Struct("!HII")
"""Status 200, height and width; or the status of a refusal, the length of its text in bytes, and 0."""

BYTES_A_PIXEL = 24  # decoders were measured to take up to 17
LEAST_MEMORY_BYTES = 256 << 20


def main(max_pixels: int, cpu_seconds: int) -> None:
    """Decode until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of a terminal's processes; the service ends this
    sys.dont_write_bytecode = True  # what is imported late would be written, which is forbidden
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not be taken for an answer
    limit_memory(max_pixels)
    forbid_everything_else(Path(os.devnull))
    while header := requests.read(LENGTH.size):
        content = requests.read(LENGTH.unpack(header)[0])
        limit_time(cpu_seconds)
        try:
            pixels = decode_image(content, Path("the image"), max_pixels=max_pixels)
        except DatasetError as error:
            status, text = refusal_of(error)
            answers.write(ANSWER.pack(status, len(text.encode()), 0) + text.encode())
        else:
            answers.write(ANSWER.pack(200, *pixels.shape[:2]))
            answers.write(pixels.reshape(-1).data)
            del pixels
        answers.flush()
        del content


def refusal_of(error: DatasetError) -> tuple[int, str]:
    """The status and the text for a client: without what other libraries say, which may name parts of this process."""
    cause = error.__cause__
    if not isinstance(cause, Unsound):
        return 422, "the image cannot be read: it is damaged or of a rare kind; save it anew as PNG or JPEG"
    status = {"too-large": 413, "wrong-format": 415}.get(cause.fault.reason, 422)
    return status, f"the image cannot be read: {cause.fault.text}"


def limit_memory(max_pixels: int) -> None:
    """Limit this process's memory, files and handles, where the system can."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # Windows: the time limit of the parent remains
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        most = used + max(LEAST_MEMORY_BYTES, BYTES_A_PIXEL * max_pixels)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def limit_time(cpu_seconds: int) -> None:
    """Limit the computing time from now on; at its end the system ends this process."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + cpu_seconds, hard))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
