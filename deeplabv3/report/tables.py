"""Scores as a table for people."""

from __future__ import annotations

import math

from deeplabv3.evaluation.scores import Scores


def score_table(scores: Scores) -> str:
    """IoU of each class and the means, in percent, as text; "-" stands for a class that does not occur."""
    width = max(len(name) for name in (*scores.class_iou, "pixel accuracy"))
    rule = "-" * (width + 9)
    rows = [f"{'class':<{width}}    IoU %", rule]
    rows += [f"{name:<{width}}  {percent(iou):>7}" for name, iou in scores.class_iou.items()]
    present = sum(not math.isnan(iou) for iou in scores.class_iou.values())
    rows += [
        rule,
        f"{'mIoU':<{width}}  {percent(scores.miou):>7}  over {present} classes, {scores.num_frames} frames",
        f"{'pixel accuracy':<{width}}  {percent(scores.pixel_accuracy):>7}",
    ]
    return "\n".join(rows)


def percent(fraction: float) -> str:
    """A fraction in percent with two digits, or "-"."""
    return "-" if math.isnan(fraction) else f"{100 * fraction:.2f}"
