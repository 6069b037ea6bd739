"""Pixel counts: what all scores but the instance-weighted ones are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import InputError

Counts = npt.NDArray[np.int64]


def no_counts(label_set: LabelSet) -> Counts:
    """Zeros to start adding from, int64 `(num_ids, num_ids)`."""
    return np.zeros((label_set.num_ids, label_set.num_ids), np.int64)


def count_pixels(label_ids: Pixels, prediction_ids: Pixels, num_ids: int) -> Counts:
    """How many pixels of each label id were predicted as each label id, ignored ones included.

    Args:
        label_ids: uint8, any shape, below `num_ids`.
        prediction_ids: uint8, of the same shape, below `num_ids`.
        num_ids: One more than the largest id of the table, at most 256.

    Returns:
        int64 `(num_ids, num_ids)`: row = label, column = prediction; the sum is the number of pixels.

    Raises:
        InputError: The shapes differ, or a value is out of range; never counted in a wrong cell.
    """
    if label_ids.shape != prediction_ids.shape:
        sizes = f"prediction is {prediction_ids.shape} and its label {label_ids.shape}"
        raise InputError(f"{sizes}; both must have one size")
    for what, values in (("label", label_ids), ("prediction", prediction_ids)):
        if values.size and values.max() >= num_ids:
            raise InputError(f"a {what} holds {values.max()}; allowed are the label ids 0..{num_ids - 1}")
    cells = label_ids.astype(np.uint16).ravel()  # two bytes number the at most 256 * 256 cells
    cells *= np.uint16(num_ids)
    cells += prediction_ids.ravel()
    return _occurrences(cells, num_ids**2).reshape(num_ids, num_ids)


def _occurrences(cells: npt.NDArray[np.uint16], num_cells: int) -> Counts:
    """How often each value occurs, int64 `(num_cells,)`.

    Label maps are made of runs of one value, so the runs are found and their lengths added up, which is two to four
    times faster than looking at each pixel. Where they are short, as in noise, each pixel is looked at after all.
    """
    changes = cells[1:] != cells[:-1]
    if np.count_nonzero(changes) >= cells.size // 8:
        return np.bincount(cells, minlength=num_cells)
    last = np.append(np.flatnonzero(changes), cells.size - 1)  # of each run
    lengths = np.diff(last, prepend=-1)
    return np.bincount(cells[last], lengths, num_cells).astype(np.int64)  # float64 is exact far beyond any frame
