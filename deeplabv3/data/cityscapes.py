"""The folder layout of Cityscapes: which image belongs to which label.

<data>/leftImg8bit/<split>/<city>/<name>_leftImg8bit.png      or .jpg and others of images.SUFFIXES
<data>/gtFine/<split>/<city>/<name>_gtFine_labelIds.png       label ids, or
<data>/gtFine/<split>/<city>/<name>_gtFine_labelTrainIds.png  trainIds, where there are no label ids
<data>/gtFine/<split>/<city>/<name>_gtFine_instanceIds.png    single objects, which only some scores need

or a packed data set (see `packed`), whose frames have the paths that they would have in this layout.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deeplabv3.data.images import SUFFIXES
from deeplabv3.data.packed import Place, packed_splits, read_index
from deeplabv3.errors import DatasetError
from deeplabv3.files import is_file, is_folder

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
        instance_path: The instance ids, or None where there are none.
        place: Where the frame is in a packed split; its paths are then those that it would be unpacked to.
    """

    name: str
    image_path: Path
    label_path: Path
    train_ids: bool
    instance_path: Path | None = None
    place: Place | None = None


def require_data_dir(data_dir: Path) -> None:
    """Refuse a data set that is not there.

    Raises:
        DatasetError: There is no such folder.
    """
    if not is_folder(data_dir):
        raise DatasetError(f"there is no folder {data_dir}; give the one that holds {IMAGES}/ and {LABELS}/")


def find_images(data_dir: Path, split: str) -> list[Path]:
    """All image files of a split, labelled or not, sorted by name.

    Raises:
        DatasetError: The folder is not there, the split has no image, or it is packed.
    """
    if packed_splits(data_dir):
        raise DatasetError(
            f"{data_dir} is a packed data set and image files are wanted; give the plain one, or get it back with "
            f"deeplabv3 unpack {data_dir} FOLDER"
        )
    require_data_dir(data_dir)
    root = data_dir / IMAGES / split
    if not is_folder(root):
        raise DatasetError(f"there is no folder {root}; {_expected(split)}")
    images = sorted(path for path in _in_cities(root) if _is_image(path))
    if not images:
        raise DatasetError(f"0 images in {root}; {_expected(split)}")
    return images


def find_samples(data_dir: Path, split: str) -> list[Sample]:
    """All labelled frames of a split, sorted by name.

    Raises:
        DatasetError: The folder is not there, the split has no image, or an image has no label.
    """
    if packed := _packed_samples(data_dir, split):
        return packed
    images = find_images(data_dir, split)
    samples = [_sample(path, data_dir / LABELS / split) for path in images]
    missing = [image for image, sample in zip(images, samples, strict=True) if sample is None]
    if missing:
        more = f" ({len(missing)} of {len(images)} images lack theirs)" if len(missing) > 1 else ""
        wanted = (
            f"{frame_name(missing[0])}_{LABELS}_labelIds.png in {data_dir / LABELS / split / missing[0].parent.name}"
        )
        raise DatasetError(f"{missing[0]} has no label{more}; put {wanted}, or take the image out")
    return [sample for sample in samples if sample is not None]


def find_labelled(data_dir: Path, split: str, left_out: Collection[Path] = ()) -> list[Sample]:
    """The frames of a split that have an image and a label, sorted by name, without those that some files are of.

    Args:
        data_dir: The data set.
        split: The folder of the split.
        left_out: Images and labels whose frames are left out, and instance ids, without which their frames stay.

    Raises:
        DatasetError: The folder is not there, or the split has no image.
    """
    samples: Sequence[Sample | None] = _packed_samples(data_dir, split)
    if not samples:
        samples = [_sample(path, data_dir / LABELS / split) for path in find_images(data_dir, split)]
    return [
        replace(sample, instance_path=None) if sample.instance_path in left_out else sample
        for sample in samples
        if sample is not None and sample.image_path not in left_out and sample.label_path not in left_out
    ]


def find_labels(data_dir: Path, split: str) -> list[Sample]:
    """All labelled frames of a split, sorted by name, whether their images are there or not.

    Raises:
        DatasetError: The folder is not there, or the split has no label.
    """
    if packed := _packed_samples(data_dir, split):
        return packed
    require_data_dir(data_dir)
    root = data_dir / LABELS / split
    endings = [f"_{LABELS}_{kind}.png" for kind in ("labelIds", "labelTrainIds")]
    stems = {path.parent / path.name.removesuffix(ending) for ending in endings for path in _in_cities(root, ending)}
    if not stems:
        wanted = f"{LABELS}/{split}/<city>/<name>_{LABELS}_labelIds.png"
        raise DatasetError(f"0 labels in {root}; expected are files like {wanted} below the data folder")
    images = [data_dir / IMAGES / split / stem.parent.name / f"{stem.name}_{IMAGES}" for stem in sorted(stems)]
    samples = [_sample(_with_suffix(image), root) for image in images]
    return [sample for sample in samples if sample is not None]


def _packed_samples(data_dir: Path, split: str) -> list[Sample]:
    """The frames of a packed split, under the paths that they would be unpacked to; none if the data set is plain.

    Raises:
        DatasetError: The data set is packed and the split is damaged or not among what was packed.
    """
    splits = packed_splits(data_dir)
    if not splits:
        return []
    if split not in splits:
        raise DatasetError(
            f"{data_dir} holds no packed split {split}; it holds {', '.join(splits)}: add --splits '[{split}]' to "
            "deeplabv3 pack"
        )
    packed = read_index(data_dir / split)
    return [
        Sample(
            place.frame.name,
            data_dir / place.frame.image.path,
            data_dir / place.frame.label.path,
            place.frame.train_ids,
            data_dir / place.frame.instances.path if place.frame.instances else None,
            place,
        )
        for place in packed.places()
    ]


def _with_suffix(image: Path) -> Path:
    """The image of that name, whatever its format; as PNG where there is none."""
    paths = [image.with_name(image.name + suffix) for suffix in SUFFIXES]
    return next((path for path in paths if is_file(path)), paths[0])


def require_unique_names(images: Sequence[Path]) -> None:
    """Refuse frames of one name in different folders, where files are told apart by their frames' names alone.

    Raises:
        DatasetError: Two have one name.
    """
    seen: dict[str, Path] = {}
    for image in images:
        other = seen.setdefault(frame_name(image), image)
        if other is not image:
            raise DatasetError(
                f"{other} and {image} are frames of one name, so their predictions cannot be told apart; rename one"
            )


def frame_name(image_path: Path) -> str:
    """`<city>_<sequence>_<frame>` of an image: what the names of all files of its frame begin with."""
    return image_path.stem.removesuffix(f"_{IMAGES}")


def _sample(image_path: Path, label_root: Path) -> Sample | None:
    stem = frame_name(image_path)
    label_path, train_ids_path, instance_path = (
        label_root / image_path.parent.name / f"{stem}_{LABELS}_{kind}.png"
        for kind in ("labelIds", "labelTrainIds", "instanceIds")
    )
    instances = instance_path if is_file(instance_path) else None
    if is_file(label_path):
        return Sample(stem, image_path, label_path, train_ids=False, instance_path=instances)
    if is_file(train_ids_path):
        return Sample(stem, image_path, train_ids_path, train_ids=True, instance_path=instances)
    return None


def _in_cities(root: Path, ending: str = "") -> Iterator[Path]:
    """Files of the cities of a split, but for hidden ones and those of hidden folders, which the check leaves alone.

    Not by `Path.glob`, which is silent about a city that may not be looked into.
    """
    for city in root.iterdir() if is_folder(root) else ():
        if not city.name.startswith(".") and is_folder(city):
            for path in city.iterdir():
                if path.name.endswith(ending) and not path.name.startswith("."):
                    yield path


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.stem.endswith(f"_{IMAGES}")


def _expected(split: str) -> str:
    return f"expected are images like {IMAGES}/{split}/<city>/<name>_{IMAGES}.png below the data folder"
