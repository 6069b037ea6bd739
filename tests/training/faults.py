"""The command of one of several processes, in which something goes wrong at a chosen place; run by torchrun too.

    torchrun --nproc-per-node N -m tests.training.faults OUT FAULT train DATA RUN ...

FAULT is JSON: `rank`, `place`, `which` (the how many-th time, from 1), `action`; null for none. Each process writes its
exit code to OUT, which torchrun's own does not tell.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from deeplabv3 import files
from deeplabv3.cli import main
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.distributed import rank
from deeplabv3.errors import OutputError
from deeplabv3.evaluation import evaluate
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training import beginning, loop, step


def run(out: Path, fault: dict | None, words: list[str]) -> int:
    torch.set_num_threads(1)
    if fault and fault["rank"] in (rank(), -1):
        PLACES[fault["place"]](Counter(fault["which"], ACTIONS[fault["action"]]))
    if fault and fault["place"] == "read":
        take_unchecked()
    code = main(words)
    (out / f"{rank()}.code").write_text(str(code))
    return code


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

    DeepLabV3._grid_logits = grid_logits


def in_backward(due):
    real = DeepLabV3._grid_logits

    def grid_logits(self, features):
        if self.training:
            features.last.register_hook(due)
        return real(self, features)

    DeepLabV3._grid_logits = grid_logits


def in_update(due):
    before(step, "_update", due)


def in_save(due):
    """When the first process has written the file and not renamed it yet; the others when they are about to wait."""
    if rank() == 0:
        real = os.fsync
        files.os.fsync = lambda handle: (due() if is_checkpoint(handle) else None, real(handle))[1]
    else:
        real_by = loop.by_the_first

        def by_the_first(what, *arguments):
            if what.__name__ == "save":
                due()
            return real_by(what, *arguments)

        loop.by_the_first = by_the_first


def is_checkpoint(handle):
    return os.readlink(f"/proc/self/fd/{handle}").endswith(".last.safetensors.partial")


def in_evaluation(due):
    before(evaluate, "_predict", due)


def in_read(due):
    """A frame that was whole when it was checked: what is read is half of it."""
    before(step, "_importance", due)


def in_page(due):
    before(loop, "write_run_page", due)


def in_set_up(due):
    before(beginning, "completed", due)


def before(module, name, due):
    real = getattr(module, name)

    def replaced(*arguments, **options):
        due()
        return real(*arguments, **options)

    replaced.__name__ = name
    setattr(module, name, replaced)


def take_unchecked():
    def samples(config, _):
        return *(find_samples(config.data_dir, split) for split in ("train", "val")), {}

    beginning.sound_frames = samples


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
    "page": in_page,
    "set up": in_set_up,
    "read": lambda due: None,
}

ACTIONS = {
    "kill": send(signal.SIGKILL),
    "term": send(signal.SIGTERM),
    "interrupt": send(signal.SIGINT),
    "interrupt twice": send(signal.SIGINT, signal.SIGINT),
    "memory": fail(torch.OutOfMemoryError("memory")),
    "full": fail(OSError(28, "No space left on device")),
    "unwritable": fail(OutputError("PATH cannot be written")),
    "defect": fail(ValueError("a defect of the program")),
    "sleep": lambda: time.sleep(600),
    "none": lambda: None,
}

if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]))
