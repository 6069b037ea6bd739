"""What a second process is worth: training images a second of 1 process on one core and of 2 on two.

    python benchmarks/scaling.py [batch size] [crop size] [backbone ...]
    SECONDS_A_ROUND=1 python benchmarks/scaling.py 2 65 resnet18                   # tries it out in two minutes

Each process is pinned to a core of its own and computes with one thread. All else is the same: the network, the global
batch, the step of a run with its exchange of gradients and synchronised batch norm; images and labels are noise that
lies in memory, so that reading has no part in it. The speed of a round is that of its slowest process; rounds of 1 and
of 2 processes alternate, and the figure is the median of 3. `frozen` has frozen batch norm, whose difference to the
line before is what synchronising costs. The last line is one JSON object: `ours` is 2 processes, `peer` 1, and the
ratio is 2.0 where nothing is lost. Both cores have to be idle otherwise.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from deeplabv3.config import ModelConfig, Phase, TrainConfig
from deeplabv3.data.batches import Batch
from deeplabv3.distributed import leave, num_processes, process_group, rank
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training.learner import Learner, enter_phase, make_learner
from deeplabv3.training.step import StepBatch, train_step

ROUNDS = 3
SECONDS = float(os.environ.get("SECONDS_A_ROUND", "8"))
"""A round lasts about so long, and two steps at least."""


def main(batch_size: int = 4, crop_size: int = 257, *backbones: str) -> None:
    """Measure, and print a table and the JSON line."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed")
    print(f"batch {batch_size}, crops of {crop_size}x{crop_size}, float32, images a second, median of {ROUNDS}")
    print(f"{'':<24}{'1 process':>12}{'2 processes':>14}{'ratio':>8}{'slowest, fastest':>20}")
    rows = []
    for backbone in backbones or ("resnet18", "resnet50"):
        for norm in ("synchronised", "frozen"):
            speeds: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(ROUNDS):
                for number, found in speeds.items():
                    found.append(start(number, cores, [str(batch_size), str(crop_size), backbone, norm]))
            one, two = (statistics.median(found) for found in speeds.values())
            ratios = [b / a for a, b in zip(*speeds.values(), strict=True)]
            name = f"{backbone}, {norm}"
            print(f"{name:<24}{one:>12.3f}{two:>14.3f}{two / one:>8.2f}{min(ratios):>13.2f}, {max(ratios):.2f}")
            speeds_of = {"ours": round(two, 4), "peer": round(one, 4)}
            rows.append({"name": name, **speeds_of, "unit": "images a second", "ratio": round(two / one, 3)})
    machine = {"processor": platform.machine(), "cores": len(cores), "torch": torch.__version__}
    print(json.dumps({"machine": machine, "rows": rows}))


def start(number: int, cores: list[int], words: list[str]) -> float:
    """Start so many processes, each on its core, and give the images that all of them take a second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank_, core in enumerate(cores[:number]):
        environment = {"RANK": str(rank_), "LOCAL_RANK": str(rank_), "WORLD_SIZE": str(number)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "CORE": str(core)}
        command = [sys.executable, str(Path(__file__)), "one", *words]
        processes.append(
            subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
        )
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a process has failed")
    return min(map(float, outputs))


def measure(batch_size: int, crop_size: int, backbone: str, norm: str) -> float:
    """Images a second that all processes take together, as this one sees it."""
    os.sched_setaffinity(0, {int(os.environ["CORE"])})
    torch.set_num_threads(1)
    device = torch.device("cpu")
    config = TrainConfig(
        data_dir=Path("DATA"),
        run_dir=Path("RUN"),
        model=ModelConfig(backbone=backbone),
        phases=(Phase(epochs=1, learning_rate=0.01, frozen_batch_norm=norm == "frozen"),),
        batch_size=batch_size,
        crop_size=(crop_size, crop_size),
    )
    own = batch_size // num_processes()
    generator = torch.Generator().manual_seed(rank())
    image = torch.randint(0, 256, (own, crop_size, crop_size, 3), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 19, (own, crop_size, crop_size), generator=generator, dtype=torch.uint8)
    part = Batch(image.permute(0, 3, 1, 2), label, ("noise",) * own)  # (N, 3, H, W)
    batch = StepBatch([part], [1 / num_processes()], is_empty=False)
    with process_group():
        torch.manual_seed(0)
        learner = make_learner(DeepLabV3(config.model), config, device)
        enter_phase(learner, config.phases[0], config)
        seconds = [timed_step(learner, batch, number, config) for number in range(2)]  # the first makes buffers
        steps = torch.tensor(max(2, round(SECONDS / seconds[-1])))
        if num_processes() > 1:
            dist.broadcast(steps, 0)
        total = sum(timed_step(learner, batch, 2 + number, config) for number in range(int(steps)))
    return batch_size * int(steps) / total


def timed_step(learner: Learner, batch: StepBatch, number: int, config: TrainConfig) -> float:
    """Seconds of a step of a run."""
    begin = time.perf_counter()
    train_step(learner, batch, 0.01, number, config).value()
    return time.perf_counter() - begin


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["one"]:
        print(measure(int(words[1]), int(words[2]), words[3], words[4]), flush=True)
        leave(0)
    else:
        main(*map(int, words[:2]), *words[2:])
