"""A run's history as a table for programs and a picture for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deeplabv3.files import write_whole

COLUMNS = ("epoch", "step", "learning_rate", "train_loss", "val_loss", "miou")

History = Sequence[Mapping[str, Any]]
"""One entry an epoch, as `log.jsonl` has them; None where an epoch was not validated."""


def write_log(history: History, path: Path) -> None:
    """Write `log.jsonl`: one JSON object an epoch."""
    write_whole(path, "".join(json.dumps(entry) + "\n" for entry in history))


def write_losses(history: History, path: Path) -> None:
    """Write `losses.csv`: the losses (mean cross-entropy a pixel, in nats) and mIoU (0..1) of each epoch."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    write_whole(path, text.getvalue())


def plot_losses(history: History, path: Path) -> None:
    """Draw training and validation loss, and mIoU in percent where it was measured, over epochs."""
    from matplotlib.figure import Figure  # no pyplot: no window system, no global state
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    epochs = [entry["epoch"] for entry in history]
    validated = [entry for entry in history if entry["val_loss"] is not None]
    axes.plot(epochs, [entry["train_loss"] for entry in history], color="#3b6fb6", label="training loss")
    xs = [entry["epoch"] for entry in validated]
    axes.plot(xs, [entry["val_loss"] for entry in validated], color="#d1603d", marker=".", label="validation loss")
    axes.set(xlabel="epoch", ylabel="cross-entropy a pixel", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    right = axes.twinx()
    miou = [float("nan") if entry["miou"] is None else 100 * entry["miou"] for entry in validated]
    right.plot(xs, miou, color="#4a9a5b", marker=".", linestyle="--", label="mIoU")
    right.set(ylabel="mIoU, %", ylim=(0, 100))
    lines = [*axes.get_lines(), *right.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="upper center", ncols=3, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    write_whole(path, picture.getvalue())
