"""The command of one of several processes, in which something goes wrong at a chosen place; run by torchrun too.

    torchrun --nproc-per-node N -m tests.training.faults OUT FAULT train DATA RUN ...

FAULT is JSON, null for none: `rank`, `place`, `which` (the how many-th time, from 1), `action`, `broken` (a frame).
At the place "disk" the action is one of `tests.disk.Disk`, and what counts is the run's folder. A fault may have
`limits` alone, of `resource` by name, those of address space beyond what is used; or a `cgroup` to join.
Each process writes its exit code to OUT, since torchrun's own does not tell it.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from deeplabv3.cli import main
from deeplabv3.data import loading
from deeplabv3.distributed import leave, rank
from deeplabv3.errors import DatasetError
from deeplabv3.evaluation import evaluate
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training import beginning, loop, step
from tests.disk import Disk


def run(out: Path, fault: dict[str, Any] | None, words: list[str]) -> int:
    torch.set_num_threads(1)
    fault = fault or {}
    confine(fault)
    if fault.get("place") == "disk":
        Disk(words[2], out / "calls", fault["which"], fault["action"]).install()
    elif fault.get("rank") in (rank(), -1):
        PLACES[fault["place"]](Counter(fault["which"], ACTIONS[fault["action"]]))
        break_frame(fault.get("broken"))
    code = main(words)
    (out / f"{rank()}.code").write_text(str(code))
    return code


def confine(fault):
    """Less of what the system gives."""
    for name, most in fault.get("limits", {}).items():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit, most = getattr(resource, name), most + used * (name == "RLIMIT_AS")
        resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))
    if "cgroup" in fault:
        Path(fault["cgroup"], "cgroup.procs").write_text(str(os.getpid()))


class Counter:
    """Acts at the `which`-th call."""

    def __init__(self, which, action):
        self.left, self.action = which, action

    def __call__(self, *_):
        self.left -= 1
        if self.left == 0:
            self.action()


def in_forward(due):
    real = DeepLabV3._grid_logits

    def grid_logits(self, features):
        if self.training:
            due()
        return real(self, features)

    setattr(DeepLabV3, "_grid_logits", grid_logits)  # noqa: B010


def in_backward(due):
    real = DeepLabV3._grid_logits

    def grid_logits(self, features):
        if self.training:
            features.last.register_hook(due)
        return real(self, features)

    setattr(DeepLabV3, "_grid_logits", grid_logits)  # noqa: B010


def in_update(due):
    before(step, "_update", due)


def in_save(due):
    """When the first process has written the file and not renamed it yet; the others when they are about to wait."""
    if rank() == 0:
        before(os, "fsync", due, is_checkpoint)
    else:
        before(loop, "by_the_first", due, lambda what, *_: what.__name__ == "save")


def is_checkpoint(handle):
    return Path(f"/proc/self/fd/{handle}").readlink().name == ".last.safetensors.partial"


def in_evaluation(due):
    before(evaluate, "_predict", due)


def in_read(due):
    before(step, "_importance", due)


def in_end(due):
    """When the run is written and its last log is not."""
    before(loop, "by_the_first", due, lambda what, *_: what.__name__ == "write_history")


def in_set_up(due):
    before(beginning, "completed", due)


def before(module, name, due, applies=lambda *_, **__: True):
    real = getattr(module, name)

    def replaced(*arguments, **options):
        if applies(*arguments, **options):
            due()
        return real(*arguments, **options)

    setattr(module, name, replaced)


def break_frame(path):
    """A frame that was whole when it was checked cannot be read any more."""

    for name in ("read_sample", "read_frame"):
        before(
            loading,
            name,
            fail(DatasetError(f"{path} cannot be read: it is broken")),
            lambda sample, *_, **__: str(sample.image_path) == path,
        )


def fail(error):
    def action():
        raise error

    return action


def send(*numbers):
    def action():
        for number in numbers:
            os.kill(os.getpid(), number)

    return action


PLACES = {
    "forward": in_forward,
    "backward": in_backward,
    "update": in_update,
    "save": in_save,
    "evaluation": in_evaluation,
    "end": in_end,
    "set up": in_set_up,
    "read": in_read,
    "frame": lambda due: None,
}

ACTIONS = {
    "kill": send(signal.SIGKILL),
    "term": send(signal.SIGTERM),
    "interrupt": send(signal.SIGINT),
    "interrupt twice": send(signal.SIGINT, signal.SIGINT),
    "memory": fail(torch.OutOfMemoryError("memory")),
    "full": fail(OSError(28, "No space left on device")),
    "defect": fail(ValueError("a defect of the program")),
    "none": lambda: None,
}

if __name__ == "__main__":
    leave(run(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]))
