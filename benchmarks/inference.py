"""One frame from decoded pixels to the class of each: ours, torchvision's DeepLabV3 and segmentation_models.pytorch's.

    python benchmarks/inference.py
    python benchmarks/inference.py --size 128 256 --backbone resnet50 --matrix 256     # tries it out in a minute

The ways, all with random weights and in evaluation mode, from uint8 RGB `(H, W, 3)` to uint8 `(H, W)`:

    ours         what `deeplabv3 predict` does
    ours, folded the same, batch norms folded into the convolutions beforehand
    ours, onnx   the file that `deeplabv3 export` writes, run as `predict` runs it
    ours, pt2    the same for torch.export
    torchvision  eager: normalised pixels, network, `argmax` over all classes at full size; ours has its weights
    smp          eager, the same, of segmentation_models.pytorch

Each measurement is a process of its own. Time is what the process took of its cores, the median of the frames behind
a small one that sets everything up. Memory is the largest resident memory while frames are segmented, less what the
process held before: the network and its weights are in neither. The share is that of the floating-point operations a
second that this machine reaches in a product of square matrices. bfloat16 is measured where the processor has it. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision_peer import CLASSES, import_torchvision, normalised, our_network, torchvision_network

from deeplabv3.config import InferenceConfig
from deeplabv3.data.images import Pixels
from deeplabv3.model.device import has_native_bfloat16, place
from deeplabv3.model.folding import folded
from deeplabv3.prediction.predictor import predict_image
from deeplabv3.prediction.segmenter import DeepLabV3, load

EAGER, FILES = ("ours", "ours, folded"), {"ours, onnx": "ours.onnx", "ours, pt2": "ours.pt2"}
OURS, PEERS = (*EAGER, *FILES), ("torchvision", "smp")
CHECKPOINT = "ours.safetensors"

Predict = Callable[[Pixels], Pixels]


def main(words: list[str]) -> None:
    """Measure every way, and print a table and the JSON line."""
    options = options_of(words)
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    print(f"{'':<38}{'ms':>10}{'MiB':>10}{'share':>10}")
    for stride in options.output_strides:
        with tempfile.TemporaryDirectory() as folder:
            in_own_process("write", folder, stride, "float32", options)
            for precision in options.precisions:
                ways = [*OURS, *PEERS] if precision == "float32" else [*EAGER, *PEERS]
                found = {way: in_own_process(way, folder, stride, precision, options) for way in ways}
                rate = in_own_process("matrix", folder, stride, precision, options)["rate"]
                for way, one in found.items():
                    one["share"] = one["flops"] / (one["ms"] / 1000) / rate
                    name = f"stride {stride}, {precision}, {way}"
                    print(f"{name:<38}{one['ms']:>10.0f}{one['mib']:>10.0f}{one['share']:>10.2f}", flush=True)
                rows += rows_of(f"stride {stride}, {precision}", found)
    machine = {
        "processor": platform.machine(),
        "torch": torch.__version__,
        **{name: getattr(options, name) for name in ("backbone", "size", "threads", "frames", "matrix")},
    }
    print(json.dumps({"machine": machine, "rows": rows}))


def rows_of(name: str, found: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Each of ours against the better peer, in time and in memory."""
    rows = []
    for way in [way for way in found if way in OURS]:
        for key, unit in (("ms", "ms a frame"), ("mib", "MiB at the peak")):
            ours, peers = found[way][key], {peer: found[peer][key] for peer in PEERS}
            best = min(peers.values())
            details = {other: {k: round(v, 4) for k, v in one.items()} for other, one in found.items()}
            ratio = round(best / max(ours, 1e-9), 2)
            rows.append({"name": f"{name}, {way}", "ours": ours, "peer": best, "unit": unit, "ratio": ratio})
            rows[-1]["details"] = details
    return rows


def in_own_process(way: str, folder: str, stride: int, precision: str, options: argparse.Namespace) -> dict[str, float]:
    """What a process of its own measured."""
    sizes = [options.backbone, *options.size, options.threads, options.frames, options.matrix]
    command = [sys.executable, __file__, "--child", way, folder, stride, precision, *sizes]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(way: str, folder: str, stride: str, precision: str, backbone: str, *numbers: str) -> dict[str, float]:
    """One measurement."""
    height, width, threads, frames, matrix = map(int, numbers)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if way == "write":
        return write(Path(folder), backbone, int(stride))
    if way == "matrix":
        return {"rate": matrix_rate(matrix, precision)}
    predict = predictor(way, Path(folder), backbone, int(stride), precision)
    rng = np.random.default_rng(0)
    predict(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    reset_peak()
    before, times = memory("VmRSS"), []
    for _ in range(frames):
        start = time.process_time()
        prediction = predict(image)
        times.append(time.process_time() - start)
        assert prediction.shape == (height, width)
        assert prediction.dtype == np.uint8
    mib = memory("VmHWM") - before
    flops = num_flops(backbone, int(stride), height, width)
    return {"ms": round(1000 * statistics.median(times) / threads, 1), "mib": round(mib, 1), "flops": flops}


def write(folder: Path, backbone: str, stride: int) -> dict[str, float]:
    """Ours with torchvision's random weights, as a checkpoint and as exported files."""
    from deeplabv3.config import ExportConfig
    from deeplabv3.deployment.export import export

    network = our_network(torchvision_network(backbone, stride), stride)
    model = DeepLabV3(network.config)
    model.load_state_dict(network.state_dict())
    model.save(folder / CHECKPOINT)
    for name in FILES.values():
        export(ExportConfig(model=folder / CHECKPOINT, out=folder / name))
    return {}


def predictor(way: str, folder: Path, backbone: str, stride: int, precision: str) -> Predict:
    """What makes a mask of a frame in one of the ways."""
    if way in OURS:
        model, inference = load(folder / FILES.get(way, CHECKPOINT), device="cpu"), InferenceConfig(precision=precision)
        if way == "ours, folded":
            assert isinstance(model, DeepLabV3)
            model = place(folded(model), model.device)
        return lambda image: predict_image(model, image, inference)
    network = torchvision_network(backbone, stride) if way == "torchvision" else smp_network(backbone, stride)
    return lambda image: plain(network.eval(), image, precision)


def smp_network(backbone: str, stride: int) -> nn.Module:
    """DeepLabV3 of segmentation_models.pytorch with random weights."""
    import_torchvision()
    import segmentation_models_pytorch as smp

    network: nn.Module = smp.DeepLabV3(backbone, encoder_weights=None, classes=CLASSES, encoder_output_stride=stride)
    return network


@torch.inference_mode()
def plain(network: nn.Module, image: Pixels, precision: str) -> Pixels:
    """A mask as the peers' own examples make it."""
    pixels = normalised(torch.from_numpy(image).permute(2, 0, 1)[None])  # (1, 3, H, W)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        output = network(pixels)
    logits: Tensor = output["out"] if isinstance(output, dict) else output  # (1, K, H, W)
    prediction: Pixels = logits.argmax(1)[0].to(torch.uint8).numpy()
    return prediction


def matrix_rate(side: int, precision: str) -> float:
    """Floating-point operations a second of a product of square matrices, the best of five."""
    a = torch.randn(side, side, dtype=getattr(torch, precision))
    times = []
    for _ in range(6):
        start = time.process_time()
        torch.mm(a, a)
        times.append((time.process_time() - start) / torch.get_num_threads())
    return 2 * side**3 / min(times[1:])


def num_flops(backbone: str, stride: int, height: int, width: int) -> int:
    """Of the convolutions of ours, which are those of torchvision; smp's are nearly as many."""
    with torch.device("meta"):
        network = our_network(torchvision_network(backbone, stride), stride).eval()
        image = torch.zeros((1, 3, height, width), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.grid_logits(image)
    return int(counter.get_total_flops())


def reset_peak() -> None:
    """Give back what is free, and let the system forget the largest resident memory up to here (Linux, glibc)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def memory(key: str) -> float:
    """MiB of this process: VmRSS, what is resident now, or VmHWM, the most since `reset_peak` (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def options_of(words: list[str]) -> argparse.Namespace:
    """The command line."""
    native = has_native_bfloat16(torch.device("cpu"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet101", help="resnet50, 101 or 152")
    parser.add_argument("--size", nargs=2, type=int, default=[1024, 2048], help="height and width")
    parser.add_argument("--output-strides", nargs="+", type=int, default=[16, 8])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"] if native else ["float32"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=3, help="a process")
    parser.add_argument("--matrix", type=int, default=2048, help="side of the matrices")
    return parser.parse_args(words)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(*sys.argv[2:])))
    else:
        main(sys.argv[1:])
