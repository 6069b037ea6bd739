"""Scores as a table for people."""

from __future__ import annotations

import math

from deeplabv3.evaluation.scores import Scores

NOT_AVAILABLE = "n/a"


def score_table(scores: Scores) -> str:
    """IoU and instance-weighted IoU of each class and category and the means, in percent, as text.

    "-" stands for a class that does not occur, "n/a" for what cannot be had, and empty is what has no instances.
    """
    width = max(len(name) for name in (*scores.class_iou, *scores.category_iou, "pixel accuracy"))
    rule = "-" * (width + 18)

    def row(name: str, iou: float, iiou: float | str | None, note: str = "") -> str:
        right = iiou if isinstance(iiou, str) else NOT_AVAILABLE if iiou is None else percent(iiou)
        return f"{name:<{width}}  {percent(iou):>7}  {right:>7}{note}".rstrip()

    def block(title: str, ious: dict[str, float], iious: dict[str, float] | None, means: str) -> list[str]:
        weighted = {} if iious is None else iious
        return [
            f"{title:<{width}}    IoU %   iIoU %",
            rule,
            *(row(name, ious[name], weighted.get(name, "")) for name in ious),
            rule,
            means,
        ]

    def over(ious: dict[str, float], what: str) -> str:
        return f"  over {sum(not math.isnan(iou) for iou in ious.values())} {what}"

    class_means = row("mIoU", scores.miou, scores.mean_class_iiou, over(scores.class_iou, "classes"))
    lines = block("class", scores.class_iou, scores.class_iiou, class_means)
    if scores.category_iou:
        note = over(scores.category_iou, "categories")
        category_means = row("mean", scores.mean_category_iou, scores.mean_category_iiou, note)
        lines += ["", *block("category", scores.category_iou, scores.category_iiou, category_means)]
    lines += ["", f"pixel accuracy {percent(scores.pixel_accuracy)} %, {len(scores.frames)} frames"]
    if scores.why_no_iiou:
        lines.append(f"iIoU is not available: {scores.why_no_iiou}")
    return "\n".join(lines)


def percent(fraction: float) -> str:
    """A fraction in percent with two digits, or "-"."""
    return "-" if math.isnan(fraction) else f"{100 * fraction:.2f}"
