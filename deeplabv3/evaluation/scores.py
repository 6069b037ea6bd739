"""From pixel counts to scores, by the rules of cityscapesScripts (evaluation/evalPixelLevelSemanticLabeling.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplabv3.data.labels import IGNORE_INDEX, LabelSet
from deeplabv3.evaluation.confusion import Counts
from deeplabv3.evaluation.instances import InstanceCounts, mean_pixels

Ids = npt.NDArray[np.intp]
"""Label ids that count as one: a class, or all classes of a category."""


@dataclass(frozen=True)
class FrameScore:
    """How well one frame was predicted.

    Attributes:
        name: Of the frame.
        miou: Mean IoU over the classes that are in its label or its prediction; NaN if all of it is ignored.
        num_pixels: Pixels that are not ignored.
        num_right: Those of them that were predicted right.
    """

    name: str
    miou: float
    num_pixels: int
    num_right: int


@dataclass(frozen=True)
class Scores:
    """What an evaluation found, over all pixels of a split that are not ignored. A fraction is 0..1, or NaN.

    Attributes:
        label_set: The classes.
        counts: int64 `(num_ids, num_ids)` over label ids: row = label, column = prediction, ignored rows included.
        class_iou: By name of each class; NaN for one that is in no label and in no prediction.
        category_iou: By name of each category that has a class.
        class_iiou: The same weighted by instances, for the classes that have them; None: not available.
        category_iiou: The same for the categories all of whose classes have them; None: not available.
        why_no_iiou: Why the two are not available, or "".
        pixel_accuracy: Share of pixels that were predicted right.
        frames: Each frame by itself, in order.
        loss: Mean cross-entropy a pixel, or None where it was not asked for.
    """

    label_set: LabelSet
    counts: Counts
    class_iou: dict[str, float]
    category_iou: dict[str, float]
    class_iiou: dict[str, float] | None
    category_iiou: dict[str, float] | None
    why_no_iiou: str
    pixel_accuracy: float
    frames: tuple[FrameScore, ...]
    loss: float | None = None

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that are not NaN."""
        return mean_of_present(self.class_iou)

    @property
    def mean_category_iou(self) -> float:
        """Mean IoU over the categories that are not NaN."""
        return mean_of_present(self.category_iou)

    @property
    def mean_class_iiou(self) -> float | None:
        """Mean instance-weighted IoU over the classes that are not NaN; None: not available."""
        return None if self.class_iiou is None else mean_of_present(self.class_iiou)

    @property
    def mean_category_iiou(self) -> float | None:
        """Mean instance-weighted IoU over the categories that are not NaN; None: not available."""
        return None if self.category_iiou is None else mean_of_present(self.category_iiou)

    def to_json(self) -> dict[str, Any]:
        """The structure of the official `resultPixelLevelSemanticLabeling.json`, and a few keys more.

        What is no number (NaN) or not available is null, which every JSON reader takes.
        """
        rows = self.label_set.classes
        ids = {row.name: row.id for row in rows}
        total = int(self.counts.sum())
        priors = {name: float(self.counts[id_].sum()) / total if total else None for name, id_ in ids.items()}
        categories = dict.fromkeys(row.category for row in rows if row.category)
        return {
            "confMatrix": self.counts.tolist(),
            "priors": priors,
            "labels": ids,
            "classScores": _numbers(ids, self.class_iou),
            "classInstScores": _numbers(ids, self.class_iiou),
            "categoryScores": _numbers(categories, self.category_iou),
            "categoryInstScores": _numbers(categories, self.category_iiou),
            "averageScoreClasses": number(self.miou),
            "averageScoreInstClasses": number(self.mean_class_iiou),
            "averageScoreCategories": number(self.mean_category_iou),
            "averageScoreInstCategories": number(self.mean_category_iiou),
            "perImageScores": {
                frame.name: {
                    "nbNotIgnoredPixels": frame.num_pixels,
                    "nbCorrectPixels": frame.num_right,
                    "averageScoreClasses": number(frame.miou),
                }
                for frame in self.frames
            },
            "pixelAccuracy": number(self.pixel_accuracy),
            "instanceScores": self.why_no_iiou or "available",
        }


def scores_from(
    counts: Counts,
    label_set: LabelSet,
    *,
    instances: InstanceCounts | None = None,
    why_no_iiou: str = "instances were not asked for",
    frames: Sequence[FrameScore] = (),
    loss: float | None = None,
) -> Scores:
    """Scores of a split from what was counted.

    Args:
        counts: int64 `(num_ids, num_ids)` over label ids: row = label, column = prediction.
        label_set: What the ids mean.
        instances: Every object of the split, in any order; None where they are not known.
        why_no_iiou: Said in that case.
        frames: Passed through.
        loss: Passed through.
    """
    classes, categories, ignored = groups(label_set)
    right, total = accuracy(counts, label_set)
    return Scores(
        label_set=label_set,
        counts=counts,
        class_iou={name: iou(counts, ids, ignored) for name, ids in classes.items()},
        category_iou={name: iou(counts, ids, ignored) for name, ids in categories.items()},
        class_iiou=None if instances is None else class_iiou(counts, instances, label_set),
        category_iiou=None if instances is None else category_iiou(counts, instances, label_set),
        why_no_iiou=why_no_iiou if instances is None else "",
        pixel_accuracy=right / total if total else math.nan,
        frames=tuple(frames),
        loss=loss,
    )


@lru_cache
def groups(label_set: LabelSet) -> tuple[dict[str, Ids], dict[str, Ids], Ids]:
    """The ids of each class, of each category that has a class, and all ids that are ignored."""
    rows = [row for row in label_set.classes if row.train_id != IGNORE_INDEX]
    classes = {
        name: np.array([row.id for row in rows if row.train_id == train_id])
        for train_id, name in enumerate(label_set.names)
    }
    categories = {
        name: np.array([row.id for row in rows if row.category == name])
        for name in dict.fromkeys(row.category for row in rows if row.category)
    }
    ignored = np.setdiff1d(np.arange(label_set.num_ids), [row.id for row in rows])
    return classes, categories, ignored


def iou(counts: Counts, ids: Ids, ignored: Ids) -> float:
    """Intersection over union of a group of label ids taken as one; NaN where the union is empty.

    A pixel whose label is ignored is no false positive; one that is predicted as an ignored id is a false negative.
    """
    union = int(counts[ids].sum()) + false_positives(counts, ids, np.union1d(ids, ignored))
    return int(counts[np.ix_(ids, ids)].sum()) / union if union else math.nan


def false_positives(counts: Counts, ids: Ids, left_out: Ids) -> int:
    """Pixels predicted as one of `ids` whose label is none of `left_out`."""
    return int(np.delete(counts[:, ids], left_out, axis=0).sum())


def accuracy(counts: Counts, label_set: LabelSet) -> tuple[int, int]:
    """Pixels that were predicted right, and pixels that are not ignored."""
    classes, _, ignored = groups(label_set)
    right = sum(int(counts[np.ix_(ids, ids)].sum()) for ids in classes.values())
    return right, int(np.delete(counts, ignored, axis=0).sum())


def frame_score(name: str, counts: Counts, label_set: LabelSet) -> FrameScore:
    """The score of one frame from its counts."""
    classes, _, ignored = groups(label_set)
    right, total = accuracy(counts, label_set)
    miou = mean_of_present({name: iou(counts, ids, ignored) for name, ids in classes.items()})
    return FrameScore(name, miou, total, right)


def class_iiou(counts: Counts, instances: InstanceCounts, label_set: LabelSet) -> dict[str, float]:
    """Instance-weighted IoU of each class that has instances; NaN where nothing is labelled or predicted as it."""
    classes, _, ignored = groups(label_set)
    sizes = mean_pixels(label_set)
    found = {
        name: _weighted(instances, ids.tolist(), 2, sizes)
        for name, ids in classes.items()
        if all(id_ in sizes for id_ in ids.tolist())
    }
    return {
        name: _ratio(*weights, false_positives(counts, classes[name], np.union1d(classes[name], ignored)))
        for name, weights in found.items()
    }


def category_iiou(counts: Counts, instances: InstanceCounts, label_set: LabelSet) -> dict[str, float]:
    """Instance-weighted IoU of each category all of whose classes, ignored ones included, have instances.

    As in the official script, an object counts as found where any class of the category is predicted, ignored ones
    included, and such predictions elsewhere are false positives.
    """
    _, categories, ignored = groups(label_set)
    sizes, scores = mean_pixels(label_set), {}
    for name, ids in categories.items():
        members = [row for row in label_set.classes if row.category == name]
        if all(row.id in sizes for row in members):
            columns = np.array([row.id for row in members])
            weights = _weighted(instances, ids.tolist(), 3, sizes)
            scores[name] = _ratio(*weights, false_positives(counts, columns, np.union1d(ids, ignored)))
    return scores


def _weighted(
    instances: InstanceCounts, ids: Sequence[int], column: int, sizes: Mapping[int, float]
) -> tuple[float, float]:
    """Pixels of the objects of some classes that were found and that were missed, weighted.

    The rows are sorted first: a sum of floats depends on its order, and a score must not depend on who counted what.
    """
    rows = instances[np.isin(instances[:, 0], ids)]
    rows = rows[np.lexsort(rows.T)]
    weights = np.array([sizes[id_] for id_ in rows[:, 0].tolist()]) / rows[:, 1]
    return float((rows[:, column] * weights).sum()), float(((rows[:, 1] - rows[:, column]) * weights).sum())


def _ratio(found: float, missed: float, wrong: int) -> float:
    union = found + missed + wrong
    return found / union if union else math.nan


def mean_of_present(scores: Mapping[str, float]) -> float:
    """Mean of those that are not NaN; NaN if none is left."""
    present = [score for score in scores.values() if not math.isnan(score)]
    return sum(present) / len(present) if present else math.nan


def number(value: float | None) -> float | None:
    """A value as JSON has it: what is no number (NaN, an infinite loss) becomes null."""
    return value if value is not None and math.isfinite(value) else None


def _numbers(names: Mapping[str, Any], scores: Mapping[str, float] | None) -> dict[str, float | None]:
    return {name: number((scores or {}).get(name)) for name in names}
