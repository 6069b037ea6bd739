"""From pixel counts to scores, by the rules of cityscapesScripts (evaluation/evalPixelLevelSemanticLabeling.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplabv3.data.labels import LabelSet
from deeplabv3.evaluation.confusion import Counts


@dataclass(frozen=True)
class Scores:
    """What an evaluation found, over all pixels of a split that are not ignored.

    Attributes:
        class_iou: By class name: fraction 0..1, or NaN for a class that is in no label and no prediction.
        miou: Mean over the classes that are not NaN; NaN if none is left.
        pixel_accuracy: Share of pixels that were predicted right.
        loss: Mean cross-entropy a pixel, or NaN where there were no logits.
        num_frames: Frames that were scored.
        counts: int64 `(K, K)`: row = label, column = prediction.
    """

    class_iou: dict[str, float]
    miou: float
    pixel_accuracy: float
    loss: float
    num_frames: int
    counts: Counts

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is no number (NaN, an infinite loss) becomes null."""
        return {
            "averageScoreClasses": _number(self.miou),
            "classScores": {name: _number(iou) for name, iou in self.class_iou.items()},
            "pixelAccuracy": _number(self.pixel_accuracy),
            "loss": _number(self.loss),
            "numFrames": self.num_frames,
            "confusionMatrix": self.counts.tolist(),
        }


def scores_from(counts: Counts, label_set: LabelSet, *, num_frames: int, loss: float = float("nan")) -> Scores:
    """Scores of a split from its pixel counts.

    Args:
        counts: int64 `(K, K)`: row = label, column = prediction.
        label_set: Names of the K classes.
        num_frames: How many frames the counts are of.
        loss: Mean loss, passed through.
    """
    iou = class_iou(counts)
    present = iou[~np.isnan(iou)]
    total = counts.sum()
    return Scores(
        class_iou=dict(zip(label_set.names, iou.tolist(), strict=True)),
        miou=float(present.mean()) if present.size else float("nan"),
        pixel_accuracy=float(np.trace(counts) / total) if total else float("nan"),
        loss=loss,
        num_frames=num_frames,
        counts=counts,
    )


def class_iou(counts: Counts) -> npt.NDArray[np.float64]:
    """Intersection over union of each class, float64 `(K,)`; NaN where the union is empty."""
    right = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - right
    iou = np.full(len(counts), np.nan)
    np.divide(right, union, out=iou, where=union > 0)
    return iou


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
