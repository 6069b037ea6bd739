"""Time and peak memory of one training step on one core: ours against torchvision's DeepLabV3, from the same weights.

    pip install torchvision
    python benchmarks/train_cpu.py
    python benchmarks/train_cpu.py --backbones resnet50 --precisions float32 --crop 65 --rounds 1 --steps 1   # seconds

A step is forward, loss, backward and update. Ours is `train_step` of the training loop, torchvision's is the one of its
reference without the auxiliary head, as it comes and tuned; `torchvision_peer.py` says what they are. Before anything
is measured, the logits of both networks in training have to be equal within 1e-4 of the largest.

Each measurement is a process of its own with one thread; the ways take turns. Time is what the process took of its
core, so that other work on the machine counts little: median and quartiles over all steps of all rounds but the first
step of each. Memory is the largest resident memory less what the process had before it built a network: weights,
gradients, momentum, features and work space; the median of the rounds. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

import torch
from torchvision_peer import (
    WAYS,
    import_torchvision,
    largest_difference,
    our_step,
    pixels_and_labels,
    their_step,
    torchvision_network,
)

from deeplabv3.model.device import has_native_bfloat16

DIFFERENCE = 1e-4


class Measured(NamedTuple):
    """Seconds of each step, and MiB at the peak of each round."""

    seconds: list[float]
    mib: list[float]


def main(options: argparse.Namespace) -> None:
    """Measure every backbone and precision, and print a table and the JSON line."""
    for backbone in options.backbones:
        difference = in_own_process("difference", backbone, options.output_stride, options.batch, options.crop)
        print(f"{backbone}: logits of the two networks differ by {difference:.1e} of the largest")
        assert difference <= DIFFERENCE, f"they have to be equal within {DIFFERENCE}"
    head = (
        f"{'step':<24}"
        + "".join(f"{f'{way}, s':>26}" for way in WAYS)
        + "".join(f"{f'{way}, MiB':>18}" for way in WAYS)
    )
    print(f"batch {options.batch}, crop {options.crop}, output stride {options.output_stride}\n{head}")
    rows = []
    for backbone in options.backbones:
        for precision in options.precisions:
            found = rounds(backbone, precision, options)
            print(line(f"{backbone}, {precision}", found), flush=True)
            rows += [
                row(f"{backbone}, {precision}", "seconds a step", {way: one.seconds for way, one in found.items()}),
                row(f"{backbone}, {precision}", "MiB at the peak", {way: one.mib for way, one in found.items()}),
            ]
    print(json.dumps({"machine": machine(options), "rows": rows}))


def rounds(backbone: str, precision: str, options: argparse.Namespace) -> dict[str, Measured]:
    """What each way takes; they take turns, each time in a process of its own."""
    found = {way: Measured([], []) for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            sizes = (options.output_stride, options.batch, options.crop, options.steps)
            seconds, mib = in_own_process("step", way, backbone, precision, *sizes)
            found[way].seconds.extend(seconds)
            found[way].mib.append(mib)
    return found


def in_own_process(*words: str | int) -> Any:
    """What a process of its own found out; this one stays small, as its peak would be taken for that of the other."""
    command = [sys.executable, __file__, "--measure", *map(str, words)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def measure(
    way: str, backbone: str, precision: str, output_stride: int, images: int, crop: int, steps: int
) -> tuple[list[float], float]:
    """Train for some steps behind a first one that is not timed.

    Returns:
        Seconds that each step took of the core, and MiB at the peak of all, less those before there was a network.
    """
    torch.manual_seed(0)
    import_torchvision()
    before = peak_mib()
    theirs, batch = torchvision_network(backbone, output_stride), pixels_and_labels(images, crop, torch.device("cpu"))
    if way == "ours":
        step = our_step(theirs, output_stride, batch, precision)
    else:
        step = their_step(theirs, batch, precision, tuned=way == "tuned")
    del theirs, batch  # ours holds weights of its own
    step()
    seconds = []
    for _ in range(steps):
        start = time.process_time()
        step()
        seconds.append(round(time.process_time() - start, 4))
    return seconds, round(peak_mib() - before, 1)


def row(name: str, unit: str, values: dict[str, list[float]]) -> dict[str, Any]:
    """A row of the JSON line; less is better in both units."""
    median = {way: statistics.median(found) for way, found in values.items()}
    return {
        "name": name,
        "ours": round(median["ours"], 4),
        "peer": round(median["torchvision"], 4),
        "unit": unit,
        "ratio": round(median["torchvision"] / median["ours"], 3),
        "tuned_peer": round(median["tuned"], 4),
        "tuned_ratio": round(median["tuned"] / median["ours"], 3),
        "quartiles": {way: [round(value, 4) for value in quartiles(found)] for way, found in values.items()},
    }


def line(name: str, found: dict[str, Measured]) -> str:
    """A row of the table: median with quartiles of the time, median of the memory."""
    cells = ""
    for one in found.values():
        low, high = quartiles(one.seconds)
        cells += f"{f'{statistics.median(one.seconds):.3f} ({low:.3f} to {high:.3f})':>26}"
    return f"{name:<24}{cells}" + "".join(f"{statistics.median(one.mib):>18,.0f}" for one in found.values())


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and the third; of one value, itself."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def peak_mib() -> float:
    """The largest resident memory that this process has had."""
    scale = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Where and how this was measured."""
    import_torchvision()
    from torchvision import __version__ as torchvision_version

    return {
        "processor": platform.machine(),
        "torch": torch.__version__,
        "torchvision": torchvision_version,
        "threads": 1,
        **{name: getattr(options, name) for name in ("batch", "crop", "output_stride", "rounds", "steps")},
    }


def options_of(words: list[str]) -> argparse.Namespace:
    """The command line."""
    native = has_native_bfloat16(torch.device("cpu"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "resnet101"], help="resnet50, 101 or 152")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"] if native else ["float32"])
    parser.add_argument("--output-stride", type=int, default=16, choices=(8, 16))
    parser.add_argument("--batch", type=int, default=2, help="images a step")
    parser.add_argument("--crop", type=int, default=257, help="height and width, in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="processes a way")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a process")
    return parser.parse_args(words)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        torch.set_num_threads(1)
        measurement = measure if sys.argv[2] == "step" else largest_difference
        print(json.dumps(measurement(*(int(word) if word.isdigit() else word for word in sys.argv[3:]))))
    else:
        main(options_of(sys.argv[1:]))
