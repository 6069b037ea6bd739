"""Time to count one 1024x2048 frame pair in memory, against the official script of cityscapesScripts, in one run.

    python benchmarks/scores.py [repetitions]

The frame is a synthetic street with its instances; the prediction is its label, moved and spoilt, so that all classes
are confused with others. Both sides get decoded arrays: the official script's reader is replaced by one that hands them
over. Its NumPy path is measured, which is what `pip install cityscapesscripts` gives. Median and quartiles of the
repetitions, taken in turns. The last line is one JSON object.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.frames import Labelled, read_labels
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.streets import write_streets
from deeplabv3.evaluation.frames import count_frame

if not hasattr(np, "in1d"):
    np.__dict__["in1d"] = np.isin  # NumPy 2 took it away, and the script calls it
script = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")

WARM_UP = 2


def main(repetitions: int = 15) -> None:
    """Measure, and print a table and the JSON line."""
    frame, prediction = example()
    num_objects = len(np.unique(frame.instance_ids[frame.instance_ids > 1000]))  # type: ignore[index,operator]
    print(f"one frame pair of 1024x2048, {num_objects} objects, {repetitions} repetitions, milliseconds")
    rows = []
    pixels = Labelled(frame.name, frame.label_ids)
    noise = np.random.default_rng(0).choice(CITYSCAPES.id_of_train_id, prediction.shape)  # the worst there can be
    cases = {
        "pixels": (pixels, prediction),
        "pixels and instances": (frame, prediction),
        "pixels, noise": (pixels, noise),
    }
    for name, (labelled, guess) in cases.items():
        ours, theirs = in_turns(
            repetitions, partial(count_frame, labelled, guess, CITYSCAPES), official(labelled, guess)
        )
        rows.append(
            {
                "name": name,
                "ours": round(float(np.median(ours)), 2),
                "peer": round(float(np.median(theirs)), 2),
                "unit": "ms a frame",
                "ratio": round(float(np.median(theirs) / np.median(ours)), 1),
            }
        )
        for who, times in (("ours", ours), ("official", theirs)):
            low, middle, high = np.percentile(times, (25, 50, 75))
            print(f"{name:<22}{who:<10}{middle:>9.2f}   ({low:.2f} to {high:.2f})")
        print(f"{name:<22}{'ratio':<10}{rows[-1]['ratio']:>9.1f}")
    machine = {
        "processor": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cityscapesscripts": importlib.metadata.version("cityscapesscripts"),
    }
    print(json.dumps({"machine": machine, "rows": rows}))


def example() -> tuple[Labelled, Pixels]:
    """A frame's labels and a prediction of them that is right for most pixels."""
    with tempfile.TemporaryDirectory() as folder:
        write_streets(Path(folder) / "streets", num_train=0, num_val=1, height=1024, width=2048)
        labelled = read_labels(find_samples(Path(folder) / "streets", "val")[0], CITYSCAPES, instances=True)
    rng = np.random.default_rng(0)
    moved = np.roll(labelled.label_ids, (6, 9), (0, 1))
    spoilt = rng.random(moved.shape) < 0.02
    prediction = np.where(spoilt, rng.choice(CITYSCAPES.id_of_train_id, moved.shape), moved).astype(np.uint8)
    return labelled, prediction


def official(labelled: Labelled, prediction: Pixels) -> Callable[[], object]:
    """A call of the official script for one frame pair."""
    args = script.args
    matrix = script.generateMatrix(args)
    statistics = script.generateInstanceStats(args)
    files = {"labelIds": labelled.label_ids, "prediction": prediction, "instanceIds": labelled.instance_ids}
    images = {name: Image.fromarray(values) for name, values in files.items() if values is not None}

    def call() -> None:
        args.evalInstLevelScore = labelled.instance_ids is not None
        with mock.patch.object(script.Image, "open", images.__getitem__):
            script.evaluatePair("prediction", "labelIds", matrix, statistics, {}, args)

    return call


def in_turns(repetitions: int, *calls: Callable[[], object]) -> list[list[float]]:
    """Milliseconds of each repetition of each call; they alternate, so that other work on the machine hits all."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(WARM_UP + repetitions):
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            own.append(1000 * (time.perf_counter() - start))
    return [own[WARM_UP:] for own in times]


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
