"""Objects that are told apart in the labels: how much of each one was found.

The instance-weighted scores (iIoU) count an object's pixels by `mean size of its class / size of the object`, so that a
small car weighs as much as a large one (cityscapesScripts, evaluation/evalPixelLevelSemanticLabeling.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deeplabv3.data.images import InstanceIds, Pixels
from deeplabv3.data.labels import IGNORE_INDEX, LabelSet
from deeplabv3.errors import DatasetError

InstanceCounts = npt.NDArray[np.int64]
"""`(objects, 4)`: label id, pixels, pixels found as the class, pixels found as any class of its category."""

MEAN_INSTANCE_PIXELS = {
    "bicycle": 4672.3249222261,
    "caravan": 36771.8241758242,
    "motorcycle": 6298.7200839748,
    "rider": 3930.4788056518,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "car": 12794.0202738185,
    "person": 3462.4756337644,
    "truck": 27855.1264367816,
    "trailer": 16926.9763313609,
}
"""Mean size of an object of each class in Cityscapes, in pixels, as the official script has it."""


def mean_pixels(label_set: LabelSet) -> dict[int, float]:
    """Mean size of an object by label id, for the ids whose class has one; ids that are one class have one size."""
    names = {
        row.id: row.name if row.train_id == IGNORE_INDEX else label_set.names[row.train_id] for row in label_set.classes
    }
    rows = [row for row in label_set.classes if row.has_instances and names[row.id] in MEAN_INSTANCE_PIXELS]
    return {row.id: MEAN_INSTANCE_PIXELS[names[row.id]] for row in rows}


_FIRST_OBJECT = 1000  # instance ids up to here are those of pixels where no object is told apart


def no_instances() -> InstanceCounts:
    """Of a frame without any object."""
    return np.zeros((0, 4), np.int64)


def count_instances(instance_ids: InstanceIds, prediction_ids: Pixels, label_set: LabelSet) -> InstanceCounts:
    """How much of each object of a scored class was found.

    Args:
        instance_ids: uint16, label id * 1000 + number of the object.
        prediction_ids: Label ids, uint8, of the same shape, below `label_set.num_ids`.
        label_set: Which ids are of one class, and of one category.

    Returns:
        A row for each object of a class that is scored and whose objects are told apart, by instance id.

    Raises:
        DatasetError: An object's label id is not in the table.
    """
    objects = np.flatnonzero(instance_ids.ravel() > _FIRST_OBJECT)
    ids = instance_ids.ravel()[objects]
    present = np.flatnonzero(np.bincount(ids))
    row_of_id = np.zeros(2**16, np.int64)
    row_of_id[present] = np.arange(len(present)) * label_set.num_ids
    cells = row_of_id[ids] + prediction_ids.ravel()[objects]
    found = np.bincount(cells, minlength=len(present) * label_set.num_ids).reshape(-1, label_set.num_ids)

    rows = {row.id: row for row in label_set.classes}
    counts = []
    for instance_id, found_as in zip(present.tolist(), found, strict=True):
        row = rows.get(instance_id // 1000)
        if row is None:
            seen = f"it holds {instance_id}, an object of label id {instance_id // 1000}"
            raise DatasetError(f"{seen}, which {label_set.name} has not")
        if row.train_id == IGNORE_INDEX or not row.has_instances:
            continue
        as_class = [other.id for other in label_set.classes if other.train_id == row.train_id]
        as_category = [other.id for other in label_set.classes if other.category == row.category]
        counts.append([row.id, found_as.sum(), found_as[as_class].sum(), found_as[as_category].sum()])
    return np.array(counts, np.int64).reshape(-1, 4)
