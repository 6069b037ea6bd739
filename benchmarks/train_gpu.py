"""Images a second of training on an accelerator, ours against torchvision's DeepLabV3, and the share of its speed used.

    pip install torchvision
    python benchmarks/train_gpu.py                                       # ResNet-101, stride 16, 8 crops of 769x769
    python benchmarks/train_gpu.py --batch 16 --precisions bfloat16 --compile yes
    python benchmarks/train_gpu.py --device cpu --backbone resnet50 --crop 65 --batch 2 --steps 2 --matrix 512

A step is forward, loss, backward and update, on a batch that is on the device already. Ours is `train_step` of the
training loop, torchvision's is the one of its reference without the auxiliary head, as it comes and tuned;
`torchvision_peer.py` says what they are. Both start from the same weights, and cuDNN may try out its kernels, as in the
reference. Compiled is the network alone, in all of them. float32 is without TF32, tf32 has it in convolutions and
matrices (torch's own default has it in convolutions), bfloat16 is autocast.

Each measurement is a process of its own, which dies alone where the memory is too small; its row then says so. The
device is waited for before and after each step: median and quartiles of the steps behind the first ones. Share is what
the convolutions and matrix products of forward and backward count (torch's FlopCounterMode, two operations a
multiplication) a second, over what one large matrix product of the same type reaches in the same process. Memory is the
most that torch had handed out. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision_peer import WAYS, our_step, pixels_and_labels, their_step, torchvision_network

from deeplabv3.errors import InputError
from deeplabv3.model.device import choose_device

PRECISIONS = ("float32", "tf32", "bfloat16")
RESULT = "result "  # what the line begins with that a measurement's process answers by


def main(options: argparse.Namespace) -> None:
    """Measure every precision, compiled or not, and print a table and the JSON line."""
    try:
        choose_device(options.device)
    except InputError as error:
        raise SystemExit(str(error)) from None
    print(f"{options.backbone}, stride {options.output_stride}, batch {options.batch}, crop {options.crop}: images/s")
    print(f"{'step':<22}" + "".join(f"{f'{way} (quartiles), share, MiB':>44}" for way in WAYS))
    rows = []
    for precision in options.precisions:
        for compiled in options.compile:
            name = f"{precision}, {'compiled' if compiled == 'yes' else 'as it is'}"
            found = {way: in_own_process(way, precision, compiled, options) for way in WAYS}
            print(f"{name:<22}" + "".join(f"{cell(one):>44}" for one in found.values()), flush=True)
            rows.append(row(name, found))
    print(json.dumps({"machine": machine(options), "rows": rows}))


def in_own_process(way: str, precision: str, compiled: str, options: argparse.Namespace) -> dict[str, Any]:
    """What `measure` returns, or {"failed": the last line that the process wrote}."""
    command = [sys.executable, __file__, "--measure", way, precision, compiled, json.dumps(vars(options))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    results = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode == 0 and results:
        found: dict[str, Any] = json.loads(results[-1].removeprefix(RESULT))
        return found
    sys.stderr.write(done.stderr)
    return {"failed": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}


def measure(way: str, precision: str, compiled: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Train for some steps.

    Returns:
        "images_per_second": median, first and third quartile; "flops_per_step"; "matmul_flops_per_second"; "share";
        "mib": most memory handed out by torch on a CUDA device, else None.
    """
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(options.threads)
    set_precision(precision)
    torch.backends.cudnn.benchmark = True
    flops = flops_of_step(options)
    rate = matmul_flops_per_second(precision, options.matrix, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    batch, autocast = pixels_and_labels(options.batch, options.crop, device), autocast_of(precision)
    torch.manual_seed(0)
    theirs = torchvision_network(options.backbone, options.output_stride)
    if way == "ours":
        step = our_step(theirs, options.output_stride, batch, autocast, compiled)
    else:
        step = their_step(theirs, batch, autocast, tuned=way == "tuned", compiled=compiled)
    del theirs
    seconds = timed(step, options.warmup, options.steps, device)
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {
        "images_per_second": [round(options.batch / value, 3) for value in (median, high, low)],
        "flops_per_step": flops,
        "matmul_flops_per_second": round(rate),
        "share": round(flops / median / rate, 4),
        "mib": round(torch.cuda.max_memory_allocated(device) / 2**20, 1) if device.type == "cuda" else None,
    }


def timed(step: Callable[[], object], warmup: int, steps: int, device: torch.device) -> list[float]:
    """Seconds of each step behind the first ones; what it started on the device has ended when the clock is read."""
    for _ in range(warmup):
        step()
    seconds = []
    for _ in range(steps):
        synchronize(device)
        start = time.perf_counter()
        step()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def synchronize(device: torch.device) -> None:
    """Wait until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def set_precision(precision: str) -> None:
    """Let float32 matrices and convolutions be computed in TF32, or not; a device without it takes no notice."""
    is_tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if is_tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = is_tf32


def autocast_of(precision: str) -> str:
    """The precision in the words of `deeplabv3.model.device.autocast`."""
    return "bfloat16" if precision == "bfloat16" else "float32"


def flops_of_step(options: argparse.Namespace) -> int:
    """Operations of convolutions and matrix products in forward and backward, which are the same in ours.

    Everything else (normalisation, interpolation, loss, update) counts nothing. Nothing is computed.
    """
    with torch.device("meta"):
        network = torchvision_network(options.backbone, options.output_stride).train()
        image = torch.empty(options.batch, 3, options.crop, options.crop)
    counter = FlopCounterMode(display=False)
    with counter:
        network(image)["out"].sum().backward()
    return counter.get_total_flops()


def matmul_flops_per_second(precision: str, size: int, device: torch.device) -> float:
    """The most of ten runs of ten products of two square matrices, in operations a second.

    Args:
        precision: float32, tf32 or bfloat16; `set_precision` has been called.
        size: Rows and columns.
        device: Where.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(first)

    def ten() -> None:
        for _ in range(10):
            torch.mm(first, second, out=product)

    return 10 * 2 * size**3 / min(timed(ten, 2, 10, device))


def cell(one: dict[str, Any]) -> str:
    """Of one way, for the table."""
    if "failed" in one:
        return one["failed"][:42]
    median, low, high = one["images_per_second"]
    memory = "-" if one["mib"] is None else f"{one['mib']:,.0f}"
    return f"{median:.2f} ({low:.2f} to {high:.2f}), {one['share']:.1%}, {memory}"


def row(name: str, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A row of the JSON line; more images a second are better."""
    median = {way: one["images_per_second"][0] if "failed" not in one else None for way, one in found.items()}

    def ratio(peer: str) -> float | None:
        ours, theirs = median["ours"], median[peer]
        return round(ours / theirs, 3) if ours and theirs else None

    return {
        "name": name,
        "ours": median["ours"],
        "peer": median["torchvision"],
        "unit": "images a second",
        "ratio": ratio("torchvision"),
        "tuned_peer": median["tuned"],
        "tuned_ratio": ratio("tuned"),
        "details": found,
    }


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Where and how this was measured."""
    device = torch.device(options.device)
    is_cuda = device.type == "cuda"
    return {
        "processor": platform.machine(),
        "device": torch.cuda.get_device_name(device) if is_cuda else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if is_cuda else None,
        "cudnn": torch.backends.cudnn.version() if is_cuda else None,
        **{name: value for name, value in vars(options).items() if name not in ("device", "precisions", "compile")},
    }


def options_of(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--backbone", default="resnet101", help="resnet50, 101 or 152")
    parser.add_argument("--output-stride", type=int, default=16, choices=(8, 16))
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--crop", type=int, default=769, help="height and width, in pixels")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--compile", nargs="+", default=["no", "yes"], choices=("no", "yes"))
    parser.add_argument("--warmup", type=int, default=5, help="steps that are not timed")
    parser.add_argument("--steps", type=int, default=20, help="steps that are")
    parser.add_argument("--matrix", type=int, default=8192, help="rows and columns of the matrix product")
    parser.add_argument("--threads", type=int, default=1, help="of the processor, with --device cpu")
    return parser.parse_args(words)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        way, precision, compiled, given = sys.argv[2:]
        print(RESULT + json.dumps(measure(way, precision, compiled == "yes", argparse.Namespace(**json.loads(given)))))
    else:
        main(options_of(sys.argv[1:]))
