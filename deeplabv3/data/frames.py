"""The pixels of a frame, whether its data set is plain or packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.images import (
    InstanceIds,
    Pixels,
    image_size,
    read_image,
    read_instances,
    read_label,
    read_label_ids,
    require_one_size,
)
from deeplabv3.data.labels import CITYSCAPES, UNKNOWN, LabelSet, read_label_set
from deeplabv3.data.packed import (
    Place,
    packed_splits,
    read_index,
    read_packed_file,
    read_packed_image,
    read_packed_label,
)
from deeplabv3.errors import DatasetError


@dataclass(frozen=True)
class Labelled:
    """The labels that a prediction is scored against.

    Attributes:
        name: That of the frame.
        label_ids: uint8 `(H, W)`.
        instance_ids: uint16 `(H, W)`, or None where they are not needed or not there.
    """

    name: str
    label_ids: Pixels
    instance_ids: InstanceIds | None = None


@dataclass(frozen=True, kw_only=True)
class Frame(Labelled):
    """A frame to be scored.

    Attributes:
        image: RGB uint8 `(H, W, 3)`.
    """

    image: Pixels


def label_set_of(data_dir: Path, labels: Path | None) -> LabelSet:
    """The label set of a data set: that of a YAML file, or the one that it was packed with, or Cityscapes.

    Raises:
        DatasetError: The file or the packed data set cannot be used.
    """
    if labels is not None:
        return read_label_set(labels)
    packed = {split: read_index(data_dir / split).label_set for split in packed_splits(data_dir)}
    found = list(dict.fromkeys(packed.values())) or [CITYSCAPES]
    if len(found) > 1:
        listed = ", ".join(f"{split} with {label_set.name}" for split, label_set in packed.items())
        raise DatasetError(f"{data_dir} was packed with several label sets ({listed}); give one with --labels")
    return found[0]


def check_sizes(samples: Sequence[Sample]) -> None:
    """Compare the sizes of all images, labels and instance ids by their headers: a fraction of a millisecond a file.

    Raises:
        DatasetError: A header cannot be read, or the two sizes of a frame differ.
    """
    for sample in samples:
        if sample.place is not None:  # the packing has compared them
            continue
        size = image_size(sample.label_path)
        require_one_size(sample.label_path, size, "image", image_size(sample.image_path))
        if sample.instance_path is not None:
            require_one_size(sample.instance_path, image_size(sample.instance_path), "label", size)


def read_sample(sample: Sample, label_set: LabelSet) -> tuple[Pixels, Pixels]:
    """Decode a frame.

    Returns:
        The image, RGB uint8 `(H, W, 3)`, and its label, trainIds uint8 `(H, W)`.

    Raises:
        DatasetError: A file cannot be used, or the two have different sizes.
    """
    image = read_image_of(sample)
    label = _packed_label(sample.place, label_set) if sample.place else None
    if label is None:
        label = read_label(
            sample.label_path, label_set, train_ids=sample.train_ids, content=_packed_file(sample, sample.label_path)
        )
    require_one_size(sample.label_path, label.shape, "image", image.shape)
    return image, label


def _packed_label(place: Place, label_set: LabelSet) -> Pixels | None:
    """The trainIds of a packed frame in a label set; None where the packed ones cannot be turned into its."""
    if label_set == place.label_set:
        return read_packed_label(place)
    table = train_id_table(place.label_set, label_set, place.frame.train_ids)
    return None if table is None else table[read_packed_label(place)]


@lru_cache(maxsize=8)
def train_id_table(packed: LabelSet, wanted: LabelSet, of_train_ids: bool) -> npt.NDArray[np.uint8] | None:
    """How the trainIds of one label set become those of another.

    Args:
        packed: The label set of what is there.
        wanted: The other one.
        of_train_ids: Whether the label files hold trainIds: then what these mean is another thing in each label set.

    Returns:
        uint8 `(256,)`, or None where trainIds alone do not tell: several values were one class and no longer are, or
        values were ignored that are a class now, or are not in the label set now.
    """
    table = np.full(256, UNKNOWN, np.uint8)
    tables = (label_set.train_id_of(train_ids=of_train_ids) for label_set in (packed, wanted))
    for before, now in zip(*tables, strict=True):
        if before != UNKNOWN:
            if now == UNKNOWN or table[before] not in (UNKNOWN, now):
                return None
            table[before] = now
    return table


def _packed_file(sample: Sample, path: Path | None) -> bytes | None:
    """The content of a packed frame's label or instance file; None where the frame is not packed."""
    if sample.place is None:
        return None
    file = sample.place.frame.label if path == sample.label_path else sample.place.frame.instances
    assert file is not None
    return read_packed_file(sample.place, file)


def read_image_of(sample: Sample) -> Pixels:
    """The image of a frame, RGB uint8 `(H, W, 3)`.

    Raises:
        DatasetError: It cannot be used.
    """
    return read_packed_image(sample.place) if sample.place else read_image(sample.image_path)


def size_of(sample: Sample) -> tuple[int, int]:
    """Height and width of a frame's label.

    Raises:
        DatasetError: Its header cannot be read.
    """
    return (sample.place.frame.height, sample.place.frame.width) if sample.place else image_size(sample.label_path)


def read_frame(sample: Sample, label_set: LabelSet, *, instances: bool) -> Frame:
    """Decode a frame that is to be scored, with its instance ids if they are asked for and there.

    Raises:
        DatasetError: A file cannot be used, or two have different sizes.
    """
    image = read_image_of(sample)
    labelled = read_labels(sample, label_set, instances=instances)
    require_one_size(sample.label_path, labelled.label_ids.shape, "image", image.shape)
    return Frame(labelled.name, labelled.label_ids, labelled.instance_ids, image=image)


def read_labels(sample: Sample, label_set: LabelSet, *, instances: bool = False) -> Labelled:
    """The labels of a frame, with its instance ids if they are asked for and there.

    Raises:
        DatasetError: A file cannot be used, or the two have different sizes.
    """
    label_ids = read_label_ids(
        sample.label_path, label_set, train_ids=sample.train_ids, content=_packed_file(sample, sample.label_path)
    )
    if not instances or sample.instance_path is None:
        return Labelled(sample.name, label_ids)
    instance_ids = read_instances(sample.instance_path, _packed_file(sample, sample.instance_path))
    require_one_size(sample.instance_path, instance_ids.shape, "label", label_ids.shape)
    return Labelled(sample.name, label_ids, instance_ids)
