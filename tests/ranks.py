"""Processes that work together, forked from one that has imported everything; nothing watches them, as torchrun would.

    python -m tests.ranks

It answers each line of JSON on standard input, a start, with a line of JSON: how each process ended, and what it said.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo
import torch.distributed

from deeplabv3.cli import parse
from deeplabv3.report.curves import plot_losses
from tests.conftest import REPOSITORY, free_port
from tests.evaluation import sharded
from tests.training import faults, together

FUNCTIONS: dict[str, Callable[..., int | None]] = {
    "command": faults.run,
    "evaluate": sharded.run,
    "learn": together.learn,
    "normalise": together.normalise,
}


class Ranks:
    """Starts processes; use it in a `with` statement."""

    def __enter__(self):
        self.server = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.ranks"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_):
        self.server.stdin.close()
        self.server.kill()  # its own end takes seconds
        self.server.wait()
        self.server.stdout.close()

    def __call__(self, processes, function, out, *arguments, timeout=60, signal_after=None):
        """What became of processes that call a function: `codes` (None: still there), `out`, `err`, `seconds`.

        `signal_after` is a number of seconds, and the signal that the first of them gets then.
        """
        start = {"processes": processes, "function": function, "out": str(out), "timeout": timeout}
        self.server.stdin.write(json.dumps({**start, "signal_after": signal_after, "arguments": arguments}) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())


def serve():
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)


def answer(processes, function, out, timeout, signal_after, arguments):
    out, start = Path(out), time.monotonic()
    port = free_port()
    children = [fork(rank, processes, port, function, out, arguments) for rank in range(processes)]
    codes: dict[int, int | None] = dict.fromkeys(children)
    while None in codes.values() and time.monotonic() - start < timeout:
        for child in [child for child, code in codes.items() if code is None]:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                codes[child] = os.waitstatus_to_exitcode(status)
        if signal_after and codes[children[0]] is None and time.monotonic() - start >= signal_after[0]:
            os.kill(children[0], signal_after[1])
            signal_after = None
        time.sleep(0.002)
    for child in [child for child, code in codes.items() if code is None]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    out_err = {kind: [(out / f"{rank}.{kind}").read_text() for rank in range(processes)] for kind in ("out", "err")}
    return {"codes": list(codes.values()), "seconds": time.monotonic() - start, **out_err}


def fork(rank, processes, port, function, out, arguments):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for number, kind in ((1, "out"), (2, "err")):
            handle = os.open(out / f"{rank}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        code = FUNCTIONS[function](out, *arguments) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parse("train", ["DATA", "RUN"])  # imports what it needs, as do the two modules above
    with tempfile.TemporaryDirectory() as folder:  # and the first picture, which is four times as slow as the second
        plot_losses([{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "miou": 0.5}], Path(folder) / "losses.png")
    serve()
