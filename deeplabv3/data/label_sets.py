"""Label sets of published checkpoints besides Cityscapes: PASCAL VOC, and whatever a file's own class names say."""

from __future__ import annotations

from collections.abc import Sequence

from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX, LabelClass, LabelSet

_VOC_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv monitor",
)


def voc_color(index: int) -> tuple[int, int, int]:
    """The colour that the PASCAL VOC development kit gives an index: its bits dealt out to red, green and blue."""
    rgb = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            rgb[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return rgb[0], rgb[1], rgb[2]


def _numbered(name: str, names: Sequence[str]) -> LabelSet:
    """Classes whose label id is their trainId, with VOC's colours; 255 is ignored."""
    rows = [LabelClass(label, index, index, voc_color(index)) for index, label in enumerate(names)]
    ignored = "ignored" if "ignored" not in names else "no class"
    return LabelSet(name, (*rows, LabelClass(ignored, IGNORE_INDEX, IGNORE_INDEX, (0, 0, 0))))


PASCAL_VOC = _numbered("pascal-voc", _VOC_NAMES)
"""The 21 classes of PASCAL VOC 2012, background included, as torchvision's and VainF's checkpoints number them."""


def label_set_of_names(num_classes: int, names: Sequence[str] = ()) -> LabelSet:
    """The label set that a checkpoint of that many classes most probably has.

    Args:
        num_classes: Channels of its logits, below 254.
        names: What the file itself calls its classes; any other number of names is not trusted.

    Returns:
        Cityscapes for its 19 classes, PASCAL VOC for 21, else one of these names, or of "class 0" and so on.
    """
    if num_classes == CITYSCAPES.num_classes and (not names or tuple(names) == CITYSCAPES.names):
        return CITYSCAPES
    if num_classes == PASCAL_VOC.num_classes and len(names) != num_classes:
        return PASCAL_VOC
    if not len(set(names)) == len(names) == num_classes or {"ignored", "no class"} <= set(names):
        names = [f"class {index}" for index in range(num_classes)]
    return _numbered("imported", names)
