"""Packed splits: frames as plain pixels in flat files, read through memory maps.

A packed data set is a folder with one folder a split. A packed split is these files:

    index.json   one JSON object in UTF-8:
        format     "deeplabv3 packed split"
        version    1
        split      its name, as in "train"
        source     the data set that it was made from, as an absolute path
        labels     the label set of its trainIds, as `LabelSet.to_dict` writes it
        bytes      the size of each of the files below
        frames     one object a frame, in the order of their images' paths:
            name, height, width
            offset           pixels of all frames before it
            image_digest     SHA-256 of height and width, little-endian uint32, and of its bytes in images.bin
            label_digest     SHA-256 of its bytes in labels.bin
            values           [value, pixels] of each value of its label file
            train_ids        whether its label file holds trainIds and not label ids
            image, label, instances    the files that it was made from, the last one null where there is none:
                path         relative to the source
                num_bytes, modified_ns, sha256
                offset       its first byte in files.bin, -1 for images
        digest     SHA-256 of the JSON of all the other keys, sorted and without spaces
    images.bin   RGB, one byte a channel, row by row: 3 * height * width bytes a frame, from byte 3 * offset on
    labels.bin   trainIds, one byte a pixel, row by row: height * width bytes a frame, from byte offset on
    files.bin    the label and instance files, byte for byte: scores are counted over label ids

There is nothing between frames and nothing behind the last one.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX, UNKNOWN, LabelSet
from deeplabv3.errors import DatasetError

INDEX, IMAGES_FILE, LABELS_FILE, FILES_FILE = "index.json", "images.bin", "labels.bin", "files.bin"
FORMAT, VERSION = "deeplabv3 packed split", 1


@dataclass(frozen=True)
class SourceFile:
    """A file that a frame was made from.

    Attributes:
        path: Relative to the source, with slashes.
        num_bytes: Its size.
        modified_ns: The time of its last change, in nanoseconds.
        sha256: Of its content, in hexadecimal digits.
        offset: Its first byte in files.bin; -1 for images, which are kept as pixels.
    """

    path: str
    num_bytes: int
    modified_ns: int
    sha256: str = ""
    offset: int = -1


@dataclass(frozen=True)
class PackedFrame:
    """One frame of a packed split; what its attributes are stands at the top of this module."""

    name: str
    height: int
    width: int
    offset: int
    train_ids: bool
    image: SourceFile
    label: SourceFile
    instances: SourceFile | None = None
    image_digest: str = ""
    label_digest: str = ""
    values: tuple[tuple[int, int], ...] = ()

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """The files that it was made from."""
        return (self.image, self.label) if self.instances is None else (self.image, self.label, self.instances)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PackedFrame:
        """The inverse of `dataclasses.asdict`, of plain JSON values."""
        files = {name: values[name] and SourceFile(**values[name]) for name in ("image", "label", "instances")}
        pairs = tuple((int(value), int(pixels)) for value, pixels in values["values"])
        return cls(**{**values, **files, "values": pairs})


@dataclass(frozen=True)
class PackedSplit:
    """The index of a packed split.

    Attributes:
        folder: Where it is.
        split: Its name.
        source: The data set that it was made from.
        label_set: That of its trainIds.
        num_bytes: The size of each flat file.
        frames: In the order of their images' paths.
    """

    folder: Path
    split: str
    source: Path
    label_set: LabelSet
    num_bytes: Mapping[str, int]
    frames: tuple[PackedFrame, ...]

    def to_json(self) -> str:
        """The content of index.json."""
        values = {
            "format": FORMAT,
            "version": VERSION,
            "split": self.split,
            "source": str(self.source),
            "labels": self.label_set.to_dict(),
            "bytes": dict(self.num_bytes),
            "frames": [asdict(frame) for frame in self.frames],
        }
        return json.dumps({**values, "digest": _digest(values)}) + "\n"


@dataclass(frozen=True)
class Place:
    """Where a frame is.

    Attributes:
        folder: Its packed split.
        frame: Its entry in the index.
        label_set: That of the split's trainIds.
    """

    folder: Path
    frame: PackedFrame
    label_set: LabelSet


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def packed_splits(data_dir: Path) -> tuple[str, ...]:
    """The names of the packed splits in a folder, sorted; none for any other folder."""
    return tuple(sorted(path.parent.name for path in data_dir.glob(f"[!.]*/{INDEX}")))


def read_index(folder: Path) -> PackedSplit:
    """Read the index of a packed split, and find out whether its files have their sizes.

    Raises:
        DatasetError: It is damaged, of another version, or a flat file is missing or of another size.
    """
    path = folder / INDEX
    again = "pack the data set again with deeplabv3 pack"
    try:
        values = json.loads(path.read_bytes())
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}")
        if values["version"] != VERSION:
            raise DatasetError(f"{path} has version {values['version']} and this program reads {VERSION}; {again}")
        if values.pop("digest") != _digest(values):
            raise ValueError("it does not fit its checksum")
        label_set = LabelSet.from_dict(values["labels"])
        label_set = (
            CITYSCAPES if label_set == CITYSCAPES else label_set
        )  # compared for each sample, fastest with itself
        frames = tuple(PackedFrame.from_dict(frame) for frame in values["frames"])
        _require_inside(frames)
        split = PackedSplit(folder, values["split"], Path(values["source"]), label_set, values["bytes"], frames)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; {again}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is no sound index ({error}); {again}") from error
    for name, wanted in split.num_bytes.items():
        seen = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if seen != wanted:
            raise DatasetError(f"{folder / name} has {seen:,} bytes and its index says {wanted:,}; {again}")
    return split


def _require_inside(frames: tuple[PackedFrame, ...]) -> None:
    """Refuse paths that `unpack` would write outside its folder."""
    for path in (PurePosixPath(file.path) for frame in frames for file in frame.files):
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"the path {str(path)!r} leads out of the data set")


def read_packed_image(place: Place) -> Pixels:
    """The image of a frame, RGB uint8 `(H, W, 3)`: pages of the file, read where they are looked at.

    Raises:
        DatasetError: The file is gone or shorter.
    """
    frame = place.frame
    return _mapped(f"{place.folder}/{IMAGES_FILE}", 3 * frame.offset, (frame.height, frame.width, 3))


def read_packed_label(place: Place) -> Pixels:
    """The label of a frame, trainIds of the split's label set, uint8 `(H, W)`: pages of the file.

    Raises:
        DatasetError: The file is gone or shorter.
    """
    return _mapped(f"{place.folder}/{LABELS_FILE}", place.frame.offset, (place.frame.height, place.frame.width))


def read_packed_file(place: Place, file: SourceFile) -> bytes:
    """The label or instance file of a frame as it was.

    Raises:
        DatasetError: The file is gone or shorter.
    """
    return _mapped(f"{place.folder}/{FILES_FILE}", file.offset, (file.num_bytes,)).tobytes()


def _mapped(path: str, offset: int, shape: tuple[int, ...]) -> Pixels:
    """Bytes of a file as they are in the system's memory."""
    try:
        state = os.stat(path)  # noqa: PTH116  a Path would take as long as all the rest
        pages = _pages(path, state.st_ino, state.st_size, state.st_mtime_ns)
        return np.frombuffer(pages, np.uint8, math.prod(shape), offset).reshape(shape)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); pack the data set again with deeplabv3 pack") from error


@lru_cache(maxsize=12)
def _pages(path: str, inode: int, num_bytes: int, modified_ns: int) -> mmap.mmap:
    """A whole file, opened once as long as it is the same: to map it anew for each frame costs a third of a sample."""
    with Path(path).open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def changed_files(split: PackedSplit) -> list[SourceFile]:
    """The files of the source that are not as they were when it was packed; none if the source is gone as a whole.

    A file of the same size and another time is read: to copy a data set changes times and nothing else.
    """
    if not split.source.is_dir():
        return []
    return [file for frame in split.frames for file in frame.files if _has_changed(split.source / file.path, file)]


def _has_changed(path: Path, file: SourceFile) -> bool:
    try:
        status = path.stat()
        if status.st_size != file.num_bytes or status.st_mtime_ns == file.modified_ns:
            return status.st_size != file.num_bytes
        return hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256
    except OSError:
        return True


def image_digest(image: Pixels) -> str:
    """SHA-256 of an image's size and pixels, RGB uint8 `(H, W, 3)`, by which equal pictures are found."""
    digest = hashlib.sha256(struct.pack("<II", *image.shape[:2]))
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def label_digest(label: Pixels) -> str:
    """SHA-256 of a map of trainIds, uint8 `(H, W)`."""
    return hashlib.sha256(np.ascontiguousarray(label).data).hexdigest()


@lru_cache(maxsize=8)
def train_id_table(packed: LabelSet, wanted: LabelSet) -> npt.NDArray[np.uint8] | None:
    """How the trainIds of one label set become those of another.

    Returns:
        uint8 `(256,)`, or None where trainIds alone do not tell: several ids were one class and no longer are, or ids
        were ignored that are a class now.
    """
    table = np.full(256, UNKNOWN, np.uint8)
    for row in packed.classes:
        now = wanted.train_id_of_id[row.id]
        if table[row.train_id] not in (UNKNOWN, now):
            return None
        table[row.train_id] = now
    table[IGNORE_INDEX] = IGNORE_INDEX if table[IGNORE_INDEX] == UNKNOWN else table[IGNORE_INDEX]
    return None if (table[[row.train_id for row in packed.classes]] == UNKNOWN).any() else table
