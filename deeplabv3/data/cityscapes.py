"""The folder layout of Cityscapes: which image belongs to which label.

<data>/leftImg8bit/<split>/<city>/<name>_leftImg8bit.png      or .jpg and others of images.SUFFIXES
<data>/gtFine/<split>/<city>/<name>_gtFine_labelIds.png       label ids, or
<data>/gtFine/<split>/<city>/<name>_gtFine_labelTrainIds.png  trainIds, where there are no label ids
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deeplabv3.data.images import SUFFIXES, Pixels, image_size, read_image, read_label
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import DatasetError

IMAGES = "leftImg8bit"
LABELS = "gtFine"


@dataclass(frozen=True)
class Sample:
    """One frame of a split.

    Attributes:
        name: `<city>_<sequence>_<frame>`, the stem that all of a frame's files share.
        image_path: The image.
        label_path: The label.
        train_ids: Whether the label holds trainIds and not label ids.
    """

    name: str
    image_path: Path
    label_path: Path
    train_ids: bool


def find_samples(data_dir: Path, split: str) -> list[Sample]:
    """All labelled frames of a split, sorted by name.

    Raises:
        DatasetError: The folder is not there, the split has no image, or an image has no label.
    """
    root = data_dir / IMAGES / split
    if not data_dir.is_dir():
        raise DatasetError(f"there is no folder {data_dir}; give the one that holds {IMAGES}/ and {LABELS}/")
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}; {_expected(split)}")
    images = sorted(path for path in root.glob("*/*") if _is_image(path))
    if not images:
        raise DatasetError(f"0 images in {root}; {_expected(split)}")
    samples = [_sample(path, data_dir / LABELS / split) for path in images]
    missing = [image for image, sample in zip(images, samples, strict=True) if sample is None]
    if missing:
        more = f" ({len(missing)} of {len(images)} images lack theirs)" if len(missing) > 1 else ""
        wanted = f"{_stem(missing[0])}_{LABELS}_labelIds.png in {data_dir / LABELS / split / missing[0].parent.name}"
        raise DatasetError(f"{missing[0]} has no label{more}; put {wanted}, or take the image out")
    return [sample for sample in samples if sample is not None]


def check_sizes(samples: Sequence[Sample]) -> None:
    """Compare the sizes of all images and labels by their headers alone: a fraction of a millisecond a file.

    Raises:
        DatasetError: A header cannot be read, or the two sizes of a frame differ.
    """
    for sample in samples:
        _require_one_size(sample, image_size(sample.image_path), image_size(sample.label_path))


def read_sample(sample: Sample, label_set: LabelSet) -> tuple[Pixels, Pixels]:
    """Decode a frame.

    Returns:
        The image, RGB uint8 `(H, W, 3)`, and its label, trainIds uint8 `(H, W)`.

    Raises:
        DatasetError: A file cannot be used, or the two have different sizes.
    """
    image = read_image(sample.image_path)
    label = read_label(sample.label_path, label_set, train_ids=sample.train_ids)
    _require_one_size(sample, image.shape[:2], label.shape)
    return image, label


def _require_one_size(sample: Sample, image: tuple[int, ...], label: tuple[int, ...]) -> None:
    if image != label:
        sizes = f"{label[0]}x{label[1]} and its image {image[0]}x{image[1]}"
        raise DatasetError(f"{sample.label_path} is {sizes} (height x width); both must have one size")


def _sample(image_path: Path, label_root: Path) -> Sample | None:
    stem = _stem(image_path)
    for kind in ("labelIds", "labelTrainIds"):
        label_path = label_root / image_path.parent.name / f"{stem}_{LABELS}_{kind}.png"
        if label_path.is_file():
            return Sample(stem, image_path, label_path, train_ids=kind == "labelTrainIds")
    return None


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.stem.endswith(f"_{IMAGES}") and not path.name.startswith(".")


def _stem(image_path: Path) -> str:
    return image_path.stem.removesuffix(f"_{IMAGES}")


def _expected(split: str) -> str:
    return f"expected are images like {IMAGES}/{split}/<city>/<name>_{IMAGES}.png below the data folder"
