"""The service as a process of its own, and many clients at once."""

import http.client
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.serving.conftest import Reply, Running

SMALL = ("--max-body-bytes", "200000", "--max-pixels", "10000", "--device", "cpu")
"""The limits of the tests' own service."""


@contextmanager
def serving(model_path: Path, *words: str):
    """Start `deeplabv3 serve` on a free port; it ends with the `with` statement, if it still runs."""
    command = [sys.executable, "-m", "deeplabv3", "serve", str(model_path), "--port", "0", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        found = re.search(r" at http://127\.0\.0\.1:(\d+)/", line)
        assert found, line + child.communicate()[1]
        served: Any = Running(int(found[1]), None)
        yield child, served
    finally:
        child.kill()
        child.communicate()


def together(num_clients: int, work: Callable[[int], None]) -> None:
    """Call `work` with the number of each client, all at once; the first error is raised here."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def try_segment(served: Running, body: bytes) -> Reply | None:
    """The answer, or None where there is no connection or it ends without one."""
    try:
        return served.segment(body)
    except (OSError, http.client.HTTPException):
        return None


class Usage:
    """What a process holds: of itself its memory, threads and handles, and its children."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")

    def resident_bytes(self) -> int:
        """Memory in use."""
        return int((self._proc / "statm").read_text().split()[1]) * 4096

    def peak_bytes(self) -> int:
        """The most memory that it ever had in use."""
        line = re.search(r"VmHWM:\s+(\d+) kB", (self._proc / "status").read_text())
        assert line
        return int(line[1]) * 1024

    def children(self) -> list["Usage"]:
        """Of the processes that it started and that run."""
        pids = (self._proc / "task" / self._proc.name / "children").read_text().split()
        return [Usage(int(pid)) for pid in pids]

    def held(self) -> tuple[int, int, tuple[str, ...], int]:
        """Handles, threads, children, and open files that were deleted, which are temporary ones."""
        targets = [link.readlink() for link in list((self._proc / "fd").iterdir()) if link.is_symlink()]
        children = (self._proc / "task" / self._proc.name / "children").read_text().split()
        tasks = len(list((self._proc / "task").iterdir()))
        return len(targets), tasks, tuple(children), sum("deleted" in str(target) for target in targets)
