"""Which classes were taken for which: the counts that people look at, class by class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deeplabv3.data.labels import LabelSet
from deeplabv3.evaluation.confusion import Counts
from deeplabv3.evaluation.scores import groups

IGNORED_NAME = "an ignored class"
"""What a prediction of an id that is not scored is called."""


class Mistake(NamedTuple):
    """One kind of wrong pixels.

    Attributes:
        label: Their trainId.
        prediction: The trainId they were given, or `num_classes` for an ignored id.
        num_pixels: How many there are.
    """

    label: int
    prediction: int
    num_pixels: int


def class_counts(counts: Counts, label_set: LabelSet) -> Counts:
    """Pixel counts over classes instead of label ids; pixels whose label is ignored are left out.

    Args:
        counts: int64 `(num_ids, num_ids)`: row = label, column = prediction.
        label_set: Which ids are of one class.

    Returns:
        int64 `(K, K + 1)` by trainId; the last column holds the predictions of ignored ids.
    """
    classes, _, ignored = groups(label_set)
    columns = np.stack([counts[:, ids].sum(1) for ids in (*classes.values(), ignored)], axis=1)
    return np.stack([columns[ids].sum(0) for ids in classes.values()])


def occurring(matrix: Counts) -> list[int]:
    """The trainIds that are in a label or in a prediction of what `class_counts` returns: those with an IoU."""
    num_classes = len(matrix)
    places: list[int] = np.flatnonzero(matrix.sum(1) + matrix.sum(0)[:num_classes]).tolist()
    return places


def largest_mistakes(matrix: Counts, number: int) -> list[Mistake]:
    """The kinds of wrong pixels of what `class_counts` returns, the most frequent first; none without pixels."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    places = np.argsort(-wrong, axis=None, kind="stable")[:number].tolist()
    kinds = [(*divmod(place, wrong.shape[1]), int(wrong.flat[place])) for place in places]
    return [Mistake(*kind) for kind in kinds if kind[-1]]


def class_name(train_id: int, label_set: LabelSet) -> str:
    """The name of a class, or that of all ignored ids together."""
    return label_set.names[train_id] if train_id < label_set.num_classes else IGNORED_NAME
