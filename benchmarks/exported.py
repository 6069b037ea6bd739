"""What becomes of a checkpoint's score, size and time when it is exported.

    python benchmarks/exported.py DATA CHECKPOINT FILE.onnx FILE.pt2 INT8.onnx

Each file is scored on the validation split as `deeplabv3 evaluate` does it. Time is what the process took of one core
for a frame, from decoded pixels to classes, the median of the split. The last line is one JSON object; a ratio is that
of the checkpoint's time to the file's.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from deeplabv3.config import EvaluateConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.images import read_image
from deeplabv3.evaluation.evaluate import evaluate
from deeplabv3.prediction.predictor import predict_image
from deeplabv3.prediction.segmenter import load


def main(data_dir: Path, files: list[Path]) -> None:
    """Measure every file, and print a table and the JSON line."""
    torch.set_num_threads(1)
    found = [measure(data_dir, file) for file in files]
    print(f"{'':<28}{'mIoU':>8}{'MB':>8}{'ms':>8}")
    for one in found:
        print(f"{one['name']:<28}{one['miou']:>8.4f}{one['megabytes']:>8.1f}{one['ms']:>8.1f}")
    rows = [
        {"name": one["name"], "ours": one["ms"], "peer": found[0]["ms"], "unit": "ms a frame"}
        | {"ratio": round(found[0]["ms"] / one["ms"], 2), "miou": one["miou"], "megabytes": one["megabytes"]}
        for one in found
    ]
    machine = {"processor": platform.machine(), "torch": torch.__version__, "threads": 1}
    print(json.dumps({"machine": machine, "rows": rows}))


def measure(data_dir: Path, file: Path) -> dict[str, Any]:
    """Score, size and time of one file."""
    scores = evaluate(EvaluateConfig(data_dir=data_dir, model=file, num_workers=0))
    model, times = load(file, device="cpu"), []
    for sample in find_samples(data_dir, "val"):
        image = read_image(sample.image_path)
        start = time.process_time()
        predict_image(model, image)
        times.append(time.process_time() - start)
    ms = round(1000 * statistics.median(times), 2)
    return {"name": file.name, "miou": scores.miou, "megabytes": round(file.stat().st_size / 1e6, 2), "ms": ms}


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
