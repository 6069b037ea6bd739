"""How long `deeplabv3 check` takes for a data set of Cityscapes' size: 3,475 frames of 2048x1024.

    python benchmarks/checking.py [number of frames]

A sample is generated: images with the noise of a camera, whose PNGs are larger than Cityscapes' own (2.3 MB on
average), labels and instance ids of synthetic streets. A quarter and the whole of it are checked by as many processes
as there are cores; the difference, which is free of what starting them takes, is extrapolated. Files are in the
system's cache; a disk that reads 100 MB a second would need 80 s for Cityscapes' 8 GB. Then as many frames are made,
most of them small, and the check that `train` makes of files that have not changed is timed. The peer is the figure
that was asked for. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from deeplabv3.cores import num_cores
from deeplabv3.data.checking import check_dataset
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.streets import write_streets

NUM_FRAMES = 3475
WANTED_MINUTES = 8.0
WANTED_SECONDS_AGAIN = 1.0
NOISE = 1.0
"""Standard deviation, in grey values."""


def main(num_frames: int = 64) -> None:
    """Measure, and print a table and the JSON line."""
    cores = num_cores()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DEEPLABV3_CACHE"] = str(Path(folder) / "cache")
        data = Path(folder) / "streets"
        num_bytes = generate(data, num_frames)
        num_few = num_frames // 4
        start, seconds = (timed(data, cores, split) for split in (("val",), ("train", "val")))
        minutes = (seconds - start) * NUM_FRAMES / (num_frames - num_few) / 60
        multiply(data, -(-NUM_FRAMES // num_frames))
        timed(data, cores)
        again = timed(data, cores, remembered=True)
    print(f"{num_frames} frames, {num_bytes / num_frames / 1e6:.2f} MB an image, {cores} processes: {seconds:.1f} s")
    print(f"{'':<36}{'measured':>10}{'asked for':>12}")
    print(f"{f'{NUM_FRAMES:,} frames, extrapolated, minutes':<36}{minutes:>10.2f}{WANTED_MINUTES:>12.0f}")
    print(f"{'the same unchanged, seconds':<36}{again:>10.2f}{WANTED_SECONDS_AGAIN:>12.0f}")
    machine = {"processor": platform.machine(), "cores": cores, "pillow": PIL.__version__, "numpy": np.__version__}
    rows = [
        row("check of 3,475 frames of 2048x1024", minutes, WANTED_MINUTES, "minutes"),
        row("check of as many unchanged frames", again, WANTED_SECONDS_AGAIN, "seconds"),
    ]
    print(json.dumps({"machine": machine, "rows": rows}))


def row(name: str, ours: float, wanted: float, unit: str) -> dict[str, object]:
    """A row of the JSON line."""
    return {"name": name, "ours": round(ours, 3), "peer": wanted, "unit": unit, "ratio": round(wanted / ours, 2)}


def generate(data: Path, num_frames: int) -> int:
    """Write streets, add noise to their images, and return how many bytes the images have."""
    write_streets(data, num_train=num_frames - num_frames // 4, num_val=num_frames // 4, height=1024, width=2048)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, NOISE, (1024 + 64, 2048, 3)).round().astype(np.int16)
    paths = [sample.image_path for split in ("train", "val") for sample in find_samples(data, split)]
    for index, path in enumerate(paths):
        image = np.asarray(Image.open(path)).astype(np.int16) + noise[index % 64 :][:1024]
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return sum(path.stat().st_size for path in paths)


def multiply(data: Path, times: int) -> None:
    """Add small frames under new names until there are as many as in Cityscapes: remembering is independent of size."""
    rng = np.random.default_rng(1)
    for sample in (sample for split in ("train", "val") for sample in find_samples(data, split)):
        for copy in range(1, times):
            for path in (sample.image_path, sample.label_path, sample.instance_path):
                assert path is not None
                kind = path.name.removeprefix(sample.name)
                small = path.with_name(f"{sample.name}{copy:04d}{kind}")
                grey = np.full((8, 8), 7, np.uint8)
                color = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(color if path == sample.image_path else grey).save(small)


def timed(data: Path, cores: int, splits: tuple[str, ...] = ("train", "val"), *, remembered: bool = False) -> float:
    """Seconds of a check that finds nothing."""
    start = time.perf_counter()
    findings = check_dataset(data, splits, CITYSCAPES, num_workers=cores, remembered=remembered)
    assert not findings.findings, findings.findings[:3]
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
