"""Peak memory of segmenting whole frames with a ResNet-18: class by class, against `interpolate(...).argmax(1)`.

    python benchmarks/memory.py [height width]

Everything is measured in a process of its own: the largest resident memory that the system saw, less what the process
had before. "Network" stops at the logits of the feature grid; "whole" goes on to the class of each pixel; "last step"
starts from logits that are there. With 19 classes and with 150. Where all classes at once would not fit into half of
the machine's memory, plain is left out. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor

from deeplabv3.config import ModelConfig
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import place
from deeplabv3.prediction.upsampling import upsampled_argmax

SIZES = ((1024, 2048), (2160, 4096), (4320, 7680))
CLASSES = (19, 150)
WAYS = ("network", "whole ours", "whole plain", "last step ours", "last step plain")
STRIDE = 16


def main(*size: int) -> None:
    """Measure every size or the one given, number of classes and way, and print a table and the JSON line."""
    print("MiB at the peak, and seconds")
    print(f"{'frame':<11}{'classes':>8}" + "".join(f"{way:>24}" for way in WAYS))
    rows = []
    for height, width in (size,) if size else SIZES:
        for num_classes in CLASSES:
            ways = [way for way in WAYS if "plain" not in way or fits(height, width, num_classes)]
            found = {way: in_own_process(way, height, width, num_classes) for way in ways}
            cells = "".join(
                f"{found[way][0]:>16,.0f}{found[way][1]:>8.2f}" if way in found else f"{'-':>24}" for way in WAYS
            )
            print(f"{f'{height}x{width}':<11}{num_classes:>8}{cells}", flush=True)
            for part in ("whole", "last step"):
                (ours, our_seconds), (plain, plain_seconds) = (
                    found[f"{part} ours"],
                    found.get(f"{part} plain", (None, None)),
                )
                rows.append(
                    {
                        "name": f"{part}, {height}x{width}, {num_classes} classes",
                        "ours": ours,
                        "peer": plain,
                        "unit": "MiB at the peak",
                        "ratio": None if plain is None else round(plain / max(1.0, ours), 2),
                        "seconds": {"ours": our_seconds, "peer": plain_seconds},
                    }
                )
    machine = {"processor": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps({"machine": machine, "rows": rows}))


def fits(height: int, width: int, num_classes: int) -> bool:
    """Whether all classes at full size, and as much again, are in half of the machine's memory."""
    return 2 * 4 * num_classes * height * width < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2


def in_own_process(way: str, height: int, width: int, num_classes: int) -> tuple[float, float]:
    """MiB and seconds that a process of its own measured."""
    command = [sys.executable, __file__, way, str(height), str(width), str(num_classes)]
    mib, seconds = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return mib, seconds


@torch.inference_mode()
def measure(way: str, height: int, width: int, num_classes: int) -> tuple[float, float]:
    """Segment one frame, or do a part of it, and say how much memory that took, in MiB, and how long."""
    torch.manual_seed(0)
    model = place(DeepLabV3(ModelConfig(backbone="resnet18", num_classes=num_classes)).eval(), torch.device("cpu"))
    small = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    last_step(way, model.grid_logits(small), 64, 64)  # what the first call sets up is not the frame's
    image = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    grid_logits = torch.randn(1, num_classes, -(-height // STRIDE), -(-width // STRIDE))
    before, start = peak_mib(), time.perf_counter()
    if not way.startswith("last step"):
        grid_logits = model.grid_logits(image)
    last_step(way, grid_logits, height, width)
    return round(peak_mib() - before, 1), round(time.perf_counter() - start, 3)


def last_step(way: str, grid_logits: Tensor, height: int, width: int) -> None:
    """From the logits of the feature grid to the class of each pixel."""
    if way.endswith("plain"):
        size = (height, width)
        torch.nn.functional.interpolate(grid_logits, size, mode="bilinear").argmax(1).to(torch.uint8)
    elif way.endswith("ours"):
        upsampled_argmax(grid_logits[0], (height, width))


def peak_mib() -> float:
    """The largest resident memory that this process has had."""
    scale = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


if __name__ == "__main__":
    if len(sys.argv) in (1, 3):
        main(*(int(word) for word in sys.argv[1:]))
    else:
        print(json.dumps(measure(sys.argv[1], *(int(word) for word in sys.argv[2:]))))
