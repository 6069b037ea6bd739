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
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any

import numpy as np

from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import CITYSCAPES, LabelSet
from deeplabv3.errors import DatasetError, printable

INDEX, IMAGES_FILE, LABELS_FILE, FILES_FILE = "index.json", "images.bin", "labels.bin", "files.bin"
_FLAT_FILES = (IMAGES_FILE, LABELS_FILE, FILES_FILE)
FORMAT, VERSION = "deeplabv3 packed split", 1
_AGAIN = "pack the data set again with deeplabv3 pack --overwrite"

FileState = tuple[int, int, int]
"""Inode, size and time of change of a file: another one under its name is told from it."""


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
        states: Each flat file as it was when the index was read.
    """

    folder: Path
    split: str
    source: Path
    label_set: LabelSet
    num_bytes: Mapping[str, int]
    frames: tuple[PackedFrame, ...]
    states: Mapping[str, FileState] = field(default_factory=dict, compare=False)

    def places(self) -> list[Place]:
        """Where each frame is."""
        return [Place(self.folder, frame, self.label_set, self.states) for frame in self.frames]

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
        states: The split's flat files, as they were when the index was read.
    """

    folder: Path
    frame: PackedFrame
    label_set: LabelSet
    states: Mapping[str, FileState] = field(compare=False)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def packed_splits(data_dir: Path) -> tuple[str, ...]:
    """The names of the packed splits in a folder, sorted; none for any other folder, whatever indices it has."""
    folders = [path.parent for path in data_dir.glob(f"[!.]*/{INDEX}")]
    return tuple(sorted(folder.name for folder in folders if any((folder / name).exists() for name in _FLAT_FILES)))


def read_index(folder: Path) -> PackedSplit:
    """Read the index of a packed split, and find out whether its files have their sizes.

    Raises:
        DatasetError: It is damaged, of another version, or a flat file is missing or of another size.
    """
    path = folder / INDEX
    try:
        values = json.loads(path.read_bytes())
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {short(values['format'])}")
        if values["version"] != VERSION:
            seen = short(values["version"])
            raise DatasetError(f"{path} has version {seen} and this program reads {VERSION}; {_AGAIN}")
        if values.pop("digest") != _digest(values):
            raise ValueError("it does not fit its checksum")
        label_set = LabelSet.from_dict(values["labels"])
        if label_set == CITYSCAPES:
            label_set = CITYSCAPES  # it is compared for each sample, fastest with itself
        frames = tuple(PackedFrame.from_dict(frame) for frame in values["frames"])
        split = PackedSplit(folder, values["split"], Path(values["source"]), label_set, values["bytes"], frames)
        _require_sound(split)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; {_AGAIN}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path} is no sound index ({printable(error)}); {_AGAIN}") from error
    return replace(split, states={name: _state(folder / name, split.num_bytes[name]) for name in _FLAT_FILES})


def _state(path: Path, wanted: int) -> FileState:
    """A flat file as it is; an error if it has not the size that is wanted."""
    seen = path.stat() if path.is_file() else None
    if seen is None or seen.st_size != wanted:
        num_bytes = seen.st_size if seen else 0
        raise DatasetError(f"{path} has {num_bytes:,} bytes and its index says {wanted:,}; {_AGAIN}")
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


def _require_sound(split: PackedSplit) -> None:
    """Refuse what everything else takes for granted, since a checksum tells damage and no intent.

    Raises:
        ValueError: A value is of another type, lies outside its flat file, or a path leads out of the data set.
    """
    ends = {name: _whole(name, split.num_bytes[name]) for name in _FLAT_FILES}
    if len({frame.image.path for frame in split.frames}) != len(split.frames):
        raise ValueError("it has a frame twice")
    _text("split", split.split)
    _text("source", str(split.source))
    for frame in split.frames:
        _text("name", frame.name)
        num_pixels = _whole("height", frame.height, 1) * _whole("width", frame.width, 1)
        _whole("offset", frame.offset, 0, min(ends[LABELS_FILE], ends[IMAGES_FILE] // 3) - num_pixels)
        for value, pixels in frame.values:
            _whole("value", value, 0, 255)
            _whole("pixels", pixels, 1, num_pixels)
        if not isinstance(frame.train_ids, bool):
            raise ValueError(f"train_ids is {frame.train_ids!r} and not true or false")
        digests = [frame.image_digest, frame.label_digest, *(file.sha256 for file in frame.files)]
        if not all(isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
            raise ValueError(f"a checksum of {frame.name} is none of SHA-256")
        for file in frame.files:
            path = PurePosixPath(_text("path", file.path))
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"the path {file.path!r} leads out of the data set")
            _whole("modified_ns", file.modified_ns)
            num_bytes = _whole("num_bytes", file.num_bytes)
            if file is not frame.image:
                _whole("offset", file.offset, 0, ends[FILES_FILE] - num_bytes)


def _whole(name: str, value: object, low: int = 0, high: int = 2**63 - 1) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {value!r:.40} and not a whole number of {low} to {high}")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{name} is {value!r:.40} and not a name")
    return value


def read_packed_image(place: Place) -> Pixels:
    """The image of a frame, RGB uint8 `(H, W, 3)`: pages of the file, read where they are looked at.

    Raises:
        DatasetError: The file is gone or another one.
    """
    frame = place.frame
    return _mapped(place, IMAGES_FILE, 3 * frame.offset, (frame.height, frame.width, 3))


def read_packed_label(place: Place) -> Pixels:
    """The label of a frame, trainIds of the split's label set, uint8 `(H, W)`: pages of the file.

    Raises:
        DatasetError: The file is gone or another one.
    """
    return _mapped(place, LABELS_FILE, place.frame.offset, (place.frame.height, place.frame.width))


def read_packed_file(place: Place, file: SourceFile) -> bytes:
    """The label or instance file of a frame as it was.

    Raises:
        DatasetError: The file is gone or another one.
    """
    return _mapped(place, FILES_FILE, file.offset, (file.num_bytes,)).tobytes()


def _mapped(place: Place, name: str, offset: int, shape: tuple[int, ...]) -> Pixels:
    """Bytes of a flat file as they are in the system's memory."""
    path = f"{place.folder}/{name}"
    try:
        status = os.stat(path)  # noqa: PTH116  a Path would take as long as all the rest
        state = status.st_ino, status.st_size, status.st_mtime_ns
        if state != place.states[name]:
            raise DatasetError(
                f"{path} has changed since its index was read; let it be, or begin again with what it is"
            )
        return np.frombuffer(_pages(path, state), np.uint8, math.prod(shape), offset).reshape(shape)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); {_AGAIN}") from error


@lru_cache(maxsize=12)
def _pages(path: str, state: FileState) -> mmap.mmap:
    """A whole file, opened once as long as it is the same: to map it anew for each frame costs a third of a sample."""
    with Path(path).open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def image_digest(image: Pixels) -> str:
    """SHA-256 of an image's size and pixels, RGB uint8 `(H, W, 3)`, by which equal pictures are found."""
    digest = hashlib.sha256(struct.pack("<II", *image.shape[:2]))
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def label_digest(label: Pixels) -> str:
    """SHA-256 of a map of trainIds, uint8 `(H, W)`."""
    return hashlib.sha256(np.ascontiguousarray(label).data).hexdigest()
