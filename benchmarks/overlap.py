"""How much of a training run's time is spent waiting for data, with a model as fast as the loader allows.

    python benchmarks/overlap.py [number of worker processes] [frames an epoch]

Frames of 2048x1024 are generated and packed; the index lists each of them many times, so that an epoch is as long as
Cityscapes' own. First the loader's own speed is measured: crops of 769x769, batches of 8. Then the product's own
training runs, its step replaced by a pause, as an accelerator computes while the processor only waits: as long as the
step of a model that is as fast as the loader, or slower by a given factor. The share of waiting is the progress bar's
own figure, of the second epoch and of the first, in which the processes start. The same is done with plain PNGs, in
shorter epochs. The last line is one JSON object; its peer is the plain data.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from checking import generate

from deeplabv3.config import ModelConfig, Phase, TrainConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.loading import train_batches
from deeplabv3.data.packed import INDEX, read_index
from deeplabv3.data.packing import pack_split
from deeplabv3.training import loop
from deeplabv3.training.step import Outcome

NUM_FRAMES = 2975
"""The training frames of Cityscapes."""

NUM_PLAIN = 480

LOADS = (1.0, 0.95, 0.8, 0.5)
"""Speed of the model as a share of the loader's."""


def main(num_workers: int = 1, num_frames: int = NUM_FRAMES) -> None:
    """Measure, and print a table and the JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DEEPLABV3_CACHE"] = str(Path(folder) / "cache")
        plain, packed = Path(folder) / "plain", Path(folder) / "packed"
        generate(plain, 32)
        for split, number in (("train", 24), ("val", 1)):
            pack_split(plain, packed, split, find_samples(plain, split)[:number], CITYSCAPES)
        lengthen(packed / "train", num_frames)
        config = TrainConfig(
            data_dir=packed,
            run_dir=Path(folder) / "run",
            model=ModelConfig(backbone="resnet18", width=16, aspp_channels=8),
            backbone_weights="none",
            phases=(Phase(epochs=2, learning_rate=0.01),),
            crop_size=(769, 769),
            num_workers=num_workers,
            report=False,
        )
        seconds = seconds_a_batch(config)
        print(f"{num_workers} processes read {config.batch_size / seconds:.0f} samples a second from packed data")
        print(f"{'model':<32}{'waiting':>10}{'first epoch':>14}")
        rows = []
        for load in LOADS:
            first, then = waiting_shares(replace(config, run_dir=Path(folder) / f"run{load}"), seconds / load)
            print(f"{f'{load:.0%} of the speed of the loader':<32}{then:>10.2%}{first:>14.2%}")
            rows.append({"name": f"waiting, model at {load:.0%} of the loader's speed", "ours": then})
        link(plain, min(num_frames, NUM_PLAIN))
        _, then = waiting_shares(replace(config, data_dir=plain, run_dir=Path(folder) / "plain_run"), seconds)
        print(f"{'plain PNGs, at 100%':<32}{then:>10.2%}")
    for row in rows:
        row |= {"peer": then, "unit": "share of the time", "ratio": round(then / max(1e-4, row["ours"]), 1)}
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    print(json.dumps({"machine": machine, "rows": rows}))


def lengthen(split_dir: Path, num_frames: int) -> None:
    """List the frames of a packed split under other names until there are so many."""
    split = read_index(split_dir)
    frames = []
    for number in range(num_frames):
        frame = split.frames[number % len(split.frames)]
        files = {
            kind: replace(getattr(frame, kind), path=f"{number:06d}_{getattr(frame, kind).path}")
            for kind in ("image", "label")
        }
        frames.append(replace(frame, name=f"{number:06d}", instances=None, **files))
    longer = replace(split, frames=tuple(frames), source=Path("/nowhere"))
    (split_dir / INDEX).write_text(longer.to_json())


def link(data: Path, num_frames: int) -> None:
    """List plain frames under other names too; fewer, since the check before training decodes each."""
    for sample in find_samples(data, "train"):
        for number in range(1, num_frames // 24):
            for path in (sample.image_path, sample.label_path):
                path.with_name(path.name.replace(sample.name, f"{sample.name}{number:04d}")).hardlink_to(path)


def seconds_a_batch(config: TrainConfig) -> float:
    """What the loader alone takes for a batch, after the first ones."""
    stream = train_batches(find_samples(config.data_dir, "train"), CITYSCAPES, config, range(1))
    for _ in range(8):
        next(stream)
    start = time.perf_counter()
    done = sum(1 for _ in stream)
    return (time.perf_counter() - start) / done


def waiting_shares(config: TrainConfig, seconds: float) -> tuple[float, float]:
    """The shares of the first and the last epoch of a run whose steps are pauses."""

    def step(_learner: object, _batch: object, rate: float, number: int, *_: object) -> Outcome:
        time.sleep(seconds)
        return Outcome(number, rate, (), torch.zeros(3))

    with patch.object(loop, "train_step", step):
        history = loop.train(config)
    return history[0]["waiting_share"], history[-1]["waiting_share"]


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
