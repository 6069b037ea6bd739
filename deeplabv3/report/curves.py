"""A run's history as a table for programs and a picture for people."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from deeplabv3.errors import InputError
from deeplabv3.files import write_whole
from deeplabv3.report.charts import GRID, INK, MIOU, MUTED, TRAIN, VALIDATION, as_png, bare, new_figure

COLUMNS = ("epoch", "step", "learning_rate", "train_loss", "val_loss", "miou")

_NEEDED = ("learning_rate", "train_loss")
_COUNTS = ("num_overflowed", "num_skipped")
_NUMBERS = (*_NEEDED, "val_loss", "miou", "unaveraged_miou", "images_per_second", "waiting_share", *_COUNTS)
_MOST_STEPS, _LARGEST = 2**53, 1e300  # of any number a float can be made

History = Sequence[Mapping[str, Any]]
"""One entry an epoch, as `log.jsonl` has them; None where an epoch was not validated."""


def require_history(history: Any) -> None:
    """Refuse a history, read from a file, that could not be drawn or gone on with.

    Raises:
        InputError: An entry is missing, or a value is of another type.
    """
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise InputError(f"history is {short(history)}; it is a list of an entry for each epoch")
    last = 0
    for place, entry in enumerate(history, 1):
        step, class_iou = entry.get("step"), entry.get("class_iou")
        if entry.get("epoch") != place or type(step) is not int or not last < step <= _MOST_STEPS:
            seen = f"epoch {short(entry.get('epoch'))} and step {short(step)}"
            raise InputError(f"history has {seen} as entry {place}; epochs and steps go up from 1")
        values = [(name, entry.get(name)) for name in _NUMBERS]
        values += class_iou.items() if isinstance(class_iou, dict) else [("class_iou", class_iou)]
        for name, value in values:
            ok = value is None or (type(value) in (int, float) and abs(value) <= _LARGEST)
            if not ok or (value is None and name in _NEEDED):
                raise InputError(f"history has {short(value)} as {name} of epoch {place}; it is a number")
        last = step


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


def points_of(history: History, name: str) -> list[tuple[float, float]]:
    """Epoch and value, where there is a finite one."""
    values = [(entry["epoch"], entry.get(name)) for entry in history]
    return [(epoch, value) for epoch, value in values if value is not None and math.isfinite(value)]


def loss_limit(history: History) -> float:
    """Up to where losses are drawn.

    Batch norm's statistics of a first epoch can make a validation loss a thousand times as high as all that follow.
    Twice the highest training loss is shown, and the last validation loss in any case.
    """
    train, val = ([value for _, value in points_of(history, name)] for name in ("train_loss", "val_loss"))
    highest = max([*train, *val], default=1.0)
    return min(highest, max(2 * max(train, default=highest), 1.1 * val[-1] if val else 0.0)) or 1.0


def nice_step(limit: float, number: int) -> float:
    """The distance of ticks, 1, 2 or 5 times a power of ten, that divides 0 to `limit` into at most `number` parts."""
    if not limit > 0:
        return 1.0
    rough = limit / number
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def epoch_ticks(first: int, last: int) -> list[int]:
    """Round epochs between the two, at most about ten, and the first one."""
    step = max(1, round(nice_step(last - first, 10)))
    return sorted({first, *(epoch for epoch in range(step, last + 1, step) if epoch - first >= step / 2)})


def plot_losses(history: History, path: Path) -> None:
    """Draw training and validation loss, and beside them mIoU in percent, over epochs.

    Losses above `loss_limit` are drawn at the upper edge, as triangles.
    """
    figure = new_figure(11, 4.2, is_laid_out=False)  # a run draws it often
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.05, right=0.985, top=0.87, bottom=0.13, wspace=0.12)
    limit, is_cut = loss_limit(history), False
    for name, label, color in (("train_loss", "training", TRAIN), ("val_loss", "validation", VALIDATION)):
        points = points_of(history, name)
        epochs, values = [epoch for epoch, _ in points], [min(value, limit) for _, value in points]
        left.plot(epochs, values, color=color, marker=".", markersize=7, label=label)
        cut = [epoch for epoch, value in points if value > limit]
        left.plot(cut, [limit] * len(cut), color=color, linestyle="", marker="^", markersize=8)
        is_cut |= bool(cut)
    left.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.02, 0.99), ncols=4, labelcolor=INK)
    left.set(ylim=(0, 1.05 * limit))
    points = [(epoch, 100 * value) for epoch, value in points_of(history, "miou")]
    if points:
        right.plot([epoch for epoch, _ in points], [value for _, value in points], color=MIOU, marker=".", markersize=7)
        best = max(points, key=lambda point: point[1])
        right.annotate(
            f"{best[1]:.2f}", best, (0, 7), textcoords="offset points", ha="center", color=MIOU, weight="bold"
        )
        right.set(ylim=(0, 1.15 * best[1] or 100.0))
    for axes, title in ((left, "cross-entropy a pixel"), (right, "validation mIoU, %")):
        bare(axes)
        axes.set_title(title, loc="left", color=INK, size=11, weight="bold", pad=10)
        note = " (\N{BLACK UP-POINTING TRIANGLE}: above the scale)" if is_cut and axes is left else ""
        axes.set_xlabel(f"epoch{note}", color=MUTED)
        axes.set_xticks(epoch_ticks(history[0]["epoch"], history[-1]["epoch"]))
        axes.grid(axis="y", color=GRID)
    write_whole(path, as_png(figure))
