"""Peak memory and time of a loss and its gradient, against torch's cross-entropy and the usual formulas over a softmax.

    python benchmarks/losses.py [images height width]

Logits of 19 classes, a tenth of the pixels ignored, 4x512x1024 unless told otherwise, one thread. Everything is
measured in a process of its own: the largest resident memory that the system saw, less what it had seen when logits and
labels were made. The last line is one JSON object.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplabv3.config import LossConfig
from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.training.losses import loss_of

CLASSES = 19
CONFIGS = {
    "cross-entropy": LossConfig(),
    "weights": LossConfig(class_weights=(1.0,) * CLASSES),
    "share": LossConfig(ohem_share=0.2),
    "threshold": LossConfig(ohem_threshold=0.7),
    "with Dice": LossConfig(dice_weight=1.0),
    "with Lovasz": LossConfig(lovasz_weight=1.0),
}
PEERS = ("cross-entropy", "with Dice", "with Lovasz")


def main(*shape: str) -> None:
    """Measure every loss, and print a table and the JSON line."""
    print(f"{'loss':<16}{'ours, MiB':>12}{'torch, MiB':>12}{'ours, s':>10}{'torch, s':>10}")
    rows = []
    for name in CONFIGS:
        ours, our_seconds = in_own_process("ours", name, *shape)
        peer, peer_seconds = in_own_process("torch", name, *shape) if name in PEERS else (None, None)
        print(f"{name:<16}{ours:>12.0f}{peer or 0:>12.0f}{our_seconds:>10.2f}{peer_seconds or 0:>10.2f}", flush=True)
        rows.append(
            {
                "name": name,
                "ours": ours,
                "peer": peer,
                "unit": "MiB at the peak",
                "ratio": None if peer is None else round(peer / ours, 2),
                "seconds": {"ours": our_seconds, "peer": peer_seconds},
            }
        )
    machine = {"processor": platform.machine(), "torch": torch.__version__, "threads": 1}
    print(json.dumps({"machine": machine, "rows": rows}))


def in_own_process(*words: str) -> tuple[float, float]:
    """MiB and seconds that a process of its own measured."""
    command = [sys.executable, __file__, *words]
    mib, seconds = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return mib, seconds


def measure(whose: str, name: str, images: int = 4, height: int = 512, width: int = 1024) -> tuple[float, float]:
    """MiB beyond logits and labels at the peak, and seconds, of one loss and its gradient."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step(
        whose, name, torch.randn(1, CLASSES, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    )  # what a first call sets up
    logits = torch.randn(images, CLASSES, height, width)
    label = torch.randint(0, CLASSES, (images, height, width), dtype=torch.uint8)
    label[:, : height // 10] = IGNORE_INDEX
    before, start = peak_mib(), time.perf_counter()
    step(whose, name, logits, label)
    return round(peak_mib() - before, 1), round(time.perf_counter() - start, 3)


def step(whose: str, name: str, logits: Tensor, label: Tensor) -> None:
    """The loss and its gradient."""
    logits.requires_grad_()
    config = CONFIGS[name]
    if whose == "ours":
        weights = torch.tensor(config.class_weights) if isinstance(config.class_weights, tuple) else None
        loss = loss_of(logits, None, label, config, weights)
    else:
        loss = F.cross_entropy(logits, label.long(), ignore_index=IGNORE_INDEX)
        if config.dice_weight:
            loss = loss + usual_dice(logits, label)
        if config.lovasz_weight:
            loss = loss + usual_lovasz(logits, label)
    loss.backward()


def usual_dice(logits: Tensor, label: Tensor) -> Tensor:
    """Over the whole softmax and labels as one plane a class."""
    labelled = (label != IGNORE_INDEX)[:, None]
    truth = F.one_hot(label.long().where(labelled[:, 0], 0), CLASSES).movedim(-1, 1) * labelled
    softmax = logits.softmax(1) * labelled
    return (1 - 2 * (softmax * truth).sum((0, 2, 3)) / (softmax + truth).sum((0, 2, 3))).mean()


def usual_lovasz(logits: Tensor, label: Tensor) -> Tensor:
    """Over the softmax of the labelled pixels, with the growth of the Jaccard loss as a difference."""
    labelled = label != IGNORE_INDEX
    softmax, classes = logits.softmax(1).movedim(1, -1)[labelled], label[labelled]
    losses = []
    for train_id in range(CLASSES):
        truth = (classes == train_id).float()
        error, order = (truth - softmax[:, train_id]).abs().sort(descending=True)
        own = truth[order]
        jaccard = 1 - (own.sum() - own.cumsum(0)) / (own.sum() + (1 - own).cumsum(0))
        losses.append(error @ jaccard.diff(prepend=jaccard.new_zeros(1)))
    return torch.stack(losses).mean()


def peak_mib() -> float:
    """The largest resident memory that this process has had."""
    scale = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


if __name__ == "__main__":
    if len(sys.argv) in (1, 4):
        main(*sys.argv[1:])
    else:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], *(int(word) for word in sys.argv[3:]))))
