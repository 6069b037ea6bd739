"""Pixel counts: the one thing that all scores are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import IGNORE_INDEX, LabelSet
from deeplabv3.errors import InputError

Counts = npt.NDArray[np.int64]


def count_pixels(label: Pixels, prediction: Pixels, num_classes: int) -> Counts:
    """How many pixels of each class were predicted as each class.

    Args:
        label: trainIds or `IGNORE_INDEX`, uint8, any shape.
        prediction: trainIds, uint8, of the same shape.
        num_classes: Number of trainIds.

    Returns:
        int64 `(num_classes, num_classes)`: row = label, column = prediction, ignored pixels left out.

    Raises:
        InputError: The shapes differ, or a value is out of range; never counted in a wrong cell.
    """
    if label.shape != prediction.shape:
        raise InputError(f"prediction is {prediction.shape} and its label {label.shape}; both must have one size")
    counted = label != IGNORE_INDEX
    rows, columns = label[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for what, values in (("label", rows), ("prediction", columns)):
        if values.size and values.max() >= num_classes:
            raise InputError(f"a {what} holds {values.max()}; allowed are the trainIds 0..{num_classes - 1}")
    cells = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def no_counts(label_set: LabelSet) -> Counts:
    """Zeros to start adding from, int64 `(num_classes, num_classes)`."""
    return np.zeros((label_set.num_classes, label_set.num_classes), np.int64)
