"""What the reading process may use. A limit that the platform does not have is left out."""

from __future__ import annotations

import importlib
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# torch holds each byte of the file once; copies of tied weights and safetensors' buffers may hold it twice each.
MEMORY_FACTOR = 5
MEMORY_BYTES = 256 << 20
FILE_FACTOR = 2
FILE_BYTES = 16 << 20
NUM_HANDLES = 64
FORBIDDEN_EXIT = 86

FORBIDDEN = (  # audit events, by their beginnings: programs, connections, changes to files
    "ftplib.",
    "http.client.",
    "os.chmod",
    "os.chown",
    "os.exec",
    "os.fork",
    "os.kill",
    "os.link",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.spawn",
    "os.startfile",
    "os.symlink",
    "os.system",
    "os.truncate",
    "pty.spawn",
    "shutil.",
    "smtplib.",
    "socket.",
    "subprocess.",
    "urllib.",
    "webbrowser.",
)


def set_limits(file_bytes: int, cpu_seconds: int) -> None:
    """Limit this process from here on.

    Args:
        file_bytes: Size of the file that will be read; what may be used grows with it.
        cpu_seconds: Computing time from now on.
    """
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # Windows: the time limit of the parent remains
        return
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": int(time.process_time()) + 1 + cpu_seconds,
        "RLIMIT_FSIZE": FILE_FACTOR * file_bytes + FILE_BYTES,
        "RLIMIT_NOFILE": NUM_HANDLES,
    }
    with suppress(OSError):  # what is in use now; where it cannot be known (macOS), a limit would not be kept either
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits["RLIMIT_AS"] = pages * resource.getpagesize() + MEMORY_FACTOR * file_bytes + MEMORY_BYTES
    for name, value in limits.items():
        with suppress(AttributeError, OSError, ValueError):
            key = getattr(resource, name)
            hard = resource.getrlimit(key)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            # The soft limit of time ends the process with a signal that tells why, so the hard one comes later.
            resource.setrlimit(key, (value, value + 1 if name == "RLIMIT_CPU" and value != hard else value))


def forbid_everything_else(target: Path) -> None:
    """End this process at once when it starts a program, opens a connection or writes a file other than `target`.

    Nothing on the way from a file to its tensors does. It is a second line, for the day when the first one has a hole.
    """

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes and str(path) != str(target):
                os._exit(FORBIDDEN_EXIT)
        elif event.startswith(FORBIDDEN):
            os._exit(FORBIDDEN_EXIT)

    sys.addaudithook(watch)
