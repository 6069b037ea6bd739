"""Scores as a table for people."""

from __future__ import annotations

import math
from collections.abc import Mapping

from deeplabv3.evaluation.scores import Scores

_NUMBER = 9  # characters of a column of percents


def score_table(scores: Scores) -> str:
    """IoU and instance-weighted IoU of each class and category and the means, in percent, as text.

    "-" stands for what does not occur, and an empty place for what has no instances. Where the instance-weighted scores
    are not available, there is no column for them and the last line says why.
    """
    titles = ("class", "mIoU", *(["category"] if scores.category_iou else []))
    width = max(len(name) for name in (*scores.class_iou, *scores.category_iou, *titles))
    lines = _block("class", scores.class_iou, scores.class_iiou, ("mIoU", scores.miou, scores.mean_class_iiou), width)
    if scores.category_iou:
        means = ("mean", scores.mean_category_iou, scores.mean_category_iiou)
        lines += ["", *_block("category", scores.category_iou, scores.category_iiou, means, width)]
    lines += ["", f"pixel accuracy {percent(scores.pixel_accuracy)} %, {len(scores.frames)} frames"]
    if scores.why_no_iiou:
        lines.append(f"iIoU is not available: {scores.why_no_iiou}")
    return "\n".join(lines)


def _block(
    title: str,
    ious: Mapping[str, float],
    iious: Mapping[str, float] | None,
    means: tuple[str, float, float | None],
    width: int,
) -> list[str]:
    """A headed table with its means below it."""

    def row(name: str, *cells: str) -> str:
        return (f"{name:<{width}}" + "".join(f"{cell:>{_NUMBER}}" for cell in cells)).rstrip()

    def cells(iou: float, iiou: float | None) -> list[str]:
        return [percent(iou), "" if iiou is None else percent(iiou)]

    head = row(title, "IoU %", *(["iIoU %"] if iious is not None else []))
    rule = "-" * len(head)
    mean_name, mean_iou, mean_iiou = means
    present = sum(not math.isnan(iou) for iou in ious.values())
    rows = [row(name, *cells(iou, (iious or {}).get(name))) for name, iou in ious.items()]
    mean_row = row(mean_name, *cells(mean_iou, mean_iiou))
    return [head, rule, *rows, rule, f"{mean_row}  over {present} of {len(ious)}"]


def percent(fraction: float) -> str:
    """A fraction in percent with two digits, or "-"."""
    return "-" if math.isnan(fraction) else f"{100 * fraction:.2f}"
