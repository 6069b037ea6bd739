"""Which recipe learns most in the same time: variants of a recipe, each trained for the same wall-clock, scored on val.

    python benchmarks/recipes.py DATA --minutes 5 '{}' '{"width": 32}' '{"width": 32, "learning_rate": 0.1}'

A variant is a JSON object of options that replace the recipe's; `learning_rate` is the first rate of its only phase.
How many epochs fit is measured beforehand: a few steps and a few validated frames. The clock runs from the call of
`train` to its end, the one validation included. With `taskset -c 1` in front everything has one core, which ranks
variants as two do in half the time. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml

from deeplabv3.arguments import RECIPES_DIR
from deeplabv3.config import TrainConfig
from deeplabv3.data.cityscapes import find_labelled
from deeplabv3.records import from_record
from deeplabv3.training import loop
from deeplabv3.training.validation import Validation, validate

MEASURED_STEPS = 8
MEASURED_FRAMES = 16

NEVER = 10**6
"""An interval in epochs that no run reaches; its last epoch is validated and kept all the same."""


def main() -> None:
    """Train every variant, and print a table and the JSON line."""
    parser = argparse.ArgumentParser(description="Compare variants of a recipe at the same wall-clock.")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("variants", nargs="+", type=json.loads)
    parser.add_argument("--recipe", default="camvid")
    parser.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    recipe = yaml.safe_load((RECIPES_DIR / f"{arguments.recipe}.yaml").read_text(encoding="utf-8"))
    rows = []
    for variant in arguments.variants:
        with tempfile.TemporaryDirectory() as folder:
            row = compared(recipe, variant, arguments.data_dir, Path(folder), 60 * arguments.minutes)
        classes = ", ".join(f"{name} {100 * iou:.0f}" for name, iou in row["class_iou"].items() if iou is not None)
        print(f"mIoU {row['ours']:.4f}, {row['epochs']} epochs in {row['seconds']:.0f} s: {json.dumps(variant)}")
        print(f"    {classes}", flush=True)
        rows.append(row)
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    print(json.dumps({"machine": {"processor": platform.machine(), "cores": cores, **versions}, "rows": rows}))


def compared(
    recipe: dict[str, Any], variant: dict[str, Any], data: Path, folder: Path, seconds: float
) -> dict[str, Any]:
    """Train a variant for as many epochs as fit into the time, and say what it reached."""
    epoch_seconds, validation_seconds = measured(recipe, variant, data, folder)
    epochs = max(1, int((seconds - validation_seconds) / epoch_seconds))
    start = time.perf_counter()
    entry = loop.train(configured(recipe, variant, data, folder / "run", epochs))[-1]
    row = {"name": json.dumps(variant), "ours": entry["miou"], "peer": None, "unit": "val mIoU", "ratio": None}
    row |= {"epochs": epochs, "seconds": round(time.perf_counter() - start, 1), "val_loss": entry["val_loss"]}
    return row | {"class_iou": entry["class_iou"]}


def measured(recipe: dict[str, Any], variant: dict[str, Any], data: Path, folder: Path) -> tuple[float, float]:
    """Seconds that an epoch takes, and that a validation takes, each from a few steps or frames."""
    small, batch_size = folder / "small", configured(recipe, variant, data, folder, 1).step_images
    samples = {split: find_labelled(data, split) for split in ("train", "val")}
    for split, number in (("train", MEASURED_STEPS * batch_size), ("val", MEASURED_FRAMES)):
        for sample in samples[split][:number]:
            for path in (sample.image_path, sample.label_path):
                link = small / path.relative_to(data)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())
    validations = []

    def timed(*arguments: Any) -> Validation:
        start = time.perf_counter()
        validation = validate(*arguments)
        validations.append(time.perf_counter() - start)
        return validation

    with patch.object(loop, "validate", timed):
        entries = loop.train(configured(recipe, variant, small, folder / "measured", epochs=2))
    steps = len(samples["train"]) // batch_size
    frames = len(samples["val"])
    return entries[1]["seconds"] / MEASURED_STEPS * steps, validations[-1] / MEASURED_FRAMES * frames


def configured(recipe: dict[str, Any], variant: dict[str, Any], data: Path, run_dir: Path, epochs: int) -> TrainConfig:
    """The recipe with the variant's options, in one phase of so many epochs, validated at its end alone."""
    phase = recipe["phases"][0] | {"epochs": epochs}
    phase.pop("steps", None)
    if "learning_rate" in variant:
        phase["learning_rate"] = variant["learning_rate"]
    places = {"data_dir": data, "run_dir": run_dir, "report": False, "eval_interval": NEVER}
    return from_record(TrainConfig, {**recipe, **variant, **places, "save_checkpoint_index": NEVER, "phases": [phase]})


if __name__ == "__main__":
    main()
