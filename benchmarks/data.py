"""How many training samples a second one core makes: ours, from plain and from packed files, against two peers.

    pip install albumentations
    python benchmarks/data.py [number of frames] [seconds of each measurement] [rounds]

Frames of 2048x1024 are generated, PNGs with the noise of a camera. All pipelines do what the recipes do: decode, scale
by 0.5 to 2, cut a crop of 769x769, flip, and make a batch. The peers are the reference transforms of torchvision
(references/segmentation: PIL, resize with antialiasing, then crop) and albumentations (OpenCV); both end with
normalised float32, ours with uint8, because pixels are normalised on the device. A row of its own does that on the same
core. The peers take the label file as it is; ours turns ids into trainIds and, where it decodes, verifies checksums.

Each measurement is a process of its own with one thread; pipelines take turns, files are in the system's cache, and the
median of the rounds counts. The last line is one JSON object.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from checking import generate
from PIL import Image
from torchvision_peer import import_torchvision

from deeplabv3.config import TrainConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.loading import train_batches
from deeplabv3.data.packing import pack_split

CROP, BATCH = 769, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(num_frames: int = 32, seconds: float = 8.0, rounds: int = 3) -> None:
    """Measure, and print a table and the JSON line."""
    left_out = {name for name in PEERS if find_spec(name) is None}
    for name in left_out:
        print(f"{name} is not installed, so its row is left out: pip install {name}")
    speeds: dict[str, list[float]] = {name: [] for name in PIPELINES if name not in left_out}
    with tempfile.TemporaryDirectory() as folder:
        data, packed = Path(folder) / "plain", Path(folder) / "packed"
        num_bytes = generate(data, num_frames)
        pack_split(data, packed, "train", find_samples(data, "train"), CITYSCAPES)
        for _ in range(rounds):
            for name in speeds:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    speeds[name].append(pool.apply(measured, (name, data, packed, seconds)))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    peer = medians.get("torchvision", math.nan)
    print(
        f"{num_frames} frames of 2048x1024, {num_bytes / num_frames / 1e6:.2f} MB an image, one core, {rounds} rounds"
    )
    print(f"{'':<32}{'samples/s':>10}{'slowest':>10}{'fastest':>10}{'to torchvision':>16}")
    for name, speed in medians.items():
        low, high = min(speeds[name]), max(speeds[name])
        print(f"{name:<32}{speed:>10.1f}{low:>10.1f}{high:>10.1f}{speed / peer:>15.1f}x")
    peers = [name for name in PEERS if name in medians]
    rows = [row(name, other, medians) for name in medians if name.startswith("ours") for other in peers]
    versions = {name: metadata.version(name) for name in ("torch", "pillow", "numpy", *peers)}
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), **versions}
    print(json.dumps({"machine": machine, "rows": rows}))


def row(name: str, peer: str, speeds: dict[str, float]) -> dict[str, object]:
    """A row of the JSON line."""
    ours, theirs = speeds[name], speeds[peer]
    return {
        "name": f"{name}, against {peer}",
        "ours": round(ours, 2),
        "peer": round(theirs, 2),
        "unit": "samples a second and core",
        "ratio": round(ours / theirs, 2),
    }


def measured(name: str, data: Path, packed: Path, seconds: float) -> float:
    """Samples a second of a pipeline, after its first two batches."""
    torch.set_num_threads(1)
    batches = PIPELINES[name](data, packed)
    for _ in range(2):
        next(batches)
    start, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < seconds:
        assert next(batches)[0].shape == (BATCH, 3, CROP, CROP)
        done += BATCH
    return done / taken


Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def ours(data: Path) -> Batches:
    """The product's own stream of batches, in this process."""
    config = TrainConfig(data_dir=data, run_dir=data, crop_size=(CROP, CROP), batch_size=BATCH, num_workers=0)
    stream = train_batches(find_samples(data, "train"), CITYSCAPES, config, range(10**6))
    return ((batch.image, batch.label) for batch in stream)


def ours_normalised(packed: Path) -> Batches:
    """The same with what the model does first, which belongs on the device."""
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (((image.float() - mean) / std, label) for image, label in ours(packed))


def stacked(data: Path, sample: Callable[[Path, Path], tuple[torch.Tensor, torch.Tensor]]) -> Batches:
    """Batches of a peer's samples, frames in a random order."""
    frames = find_samples(data, "train")
    while True:
        chosen = [random.choice(frames) for _ in range(BATCH)]
        images, labels = zip(*(sample(frame.image_path, frame.label_path) for frame in chosen), strict=True)
        yield torch.stack(images), torch.stack(labels)


def torchvision_pipeline(data: Path) -> Batches:
    """Torchvision's references/segmentation: RandomResize, RandomHorizontalFlip, RandomCrop, to float, Normalize."""
    import_torchvision()
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    def sample(image_path: Path, label_path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = Image.open(image_path).convert("RGB"), Image.open(label_path)
        size = random.randint(512, 2048)  # of the shorter side, 1024
        image = F.resize(image, size, antialias=True)
        label = F.resize(label, size, interpolation=InterpolationMode.NEAREST)
        if random.random() < 0.5:
            image, label = F.hflip(image), F.hflip(label)
        short = max(0, CROP - min(image.size))
        image, label = (F.pad(item, [0, 0, short, short], fill) for item, fill in ((image, 0), (label, 255)))
        window = transforms.RandomCrop.get_params(image, (CROP, CROP))
        image, label = F.crop(image, *window), F.crop(label, *window)
        pixels = F.convert_image_dtype(F.pil_to_tensor(image), torch.float32)
        return F.normalize(pixels, MEAN, STD), torch.as_tensor(np.array(label), dtype=torch.int64)

    return stacked(data, sample)


def albumentations_pipeline(data: Path) -> Batches:
    """The same steps by albumentations and OpenCV."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations
    import cv2
    from albumentations.pytorch import ToTensorV2

    cv2.setNumThreads(0)
    steps = albumentations.Compose(
        [
            albumentations.RandomScale((-0.5, 1.0), p=1),
            albumentations.PadIfNeeded(CROP, CROP, border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=255),
            albumentations.RandomCrop(CROP, CROP),
            albumentations.HorizontalFlip(p=0.5),
            albumentations.Normalize(MEAN, STD),
            ToTensorV2(),
        ]
    )

    def sample(image_path: Path, label_path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        image = cv2.cvtColor(cv2.imread(str(image_path)), cv2.COLOR_BGR2RGB)
        made = steps(image=image, mask=cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED))
        return made["image"], made["mask"].long()

    return stacked(data, sample)


PEERS = ("torchvision", "albumentations")
PIPELINES: dict[str, Callable[[Path, Path], Batches]] = {
    "torchvision": lambda data, packed: torchvision_pipeline(data),
    "albumentations": lambda data, packed: albumentations_pipeline(data),
    "ours, PNG": lambda data, packed: ours(data),
    "ours, packed": lambda data, packed: ours(packed),
    "ours, packed, normalised here": lambda data, packed: ours_normalised(packed),
}

if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((int, float, int), sys.argv[1:], strict=False)))
