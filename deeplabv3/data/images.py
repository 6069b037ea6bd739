"""Images and label maps: read from files that cannot be trusted."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplabv3.config.checks import MAX_PIXELS
from deeplabv3.data.decoding import decode, header_of, one_error, opened
from deeplabv3.data.findings import Unsound
from deeplabv3.data.formats import FORMATS
from deeplabv3.data.headers import grey_levels
from deeplabv3.data.labels import UNKNOWN, LabelSet
from deeplabv3.data.pngs import Header
from deeplabv3.errors import DatasetError

Pixels = npt.NDArray[np.uint8]
InstanceIds = npt.NDArray[np.uint16]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

_ORIENTATION, _SWAPPED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and those of its values that swap height and width
_ORIENTATION_IN_PNG = ("exif", "Raw profile type exif", "XML:com.adobe.xmp")  # where Pillow keeps what may hold it
_STORED: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: np.rot90(shown),
    7: lambda shown: shown[::-1, ::-1].swapaxes(0, 1),
    8: lambda shown: np.rot90(shown, -1),
}
"""The pixels in the order of the file, as a view of those that are shown, by orientation (EXIF 2.32, table 6)."""

_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_TAIL_BYTES = 2**17
_BAND_PIXELS = 2**18


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image as a viewer shows it: turned by its EXIF orientation, transparency over black.

    Of 16 bits the upper 8 are kept; colour profiles are not applied; of several images in a file the first is read.

    Args:
        path: PNG, JPEG, WebP, TIFF or BMP, whatever its ending.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        RGB, uint8, `(H, W, 3)`.

    Raises:
        DatasetError: The file cannot be read, is no whole image of an allowed format, has too many pixels, or numbers
            in them that are no brightness.
    """
    path = Path(path)  # text too: it is the first thing that people try
    with one_error(path), opened(path) as file:
        return as_shown(decode(file, FORMATS, max_pixels)[0])


def decode_image(content: bytes, path: Path, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """`read_image` for a file that has been read; `path` is what errors call it."""
    with one_error(path):
        return as_shown(decode(io.BytesIO(content), FORMATS, max_pixels)[0])


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels of an image as a viewer shows it, from its header alone.

    Raises:
        DatasetError: The header cannot be read, or has more than `MAX_PIXELS`.
    """
    with one_error(path), opened(path) as file, header_of(file, FORMATS, MAX_PIXELS) as image:
        size = image.height, image.width
        if image.format == "TIFF":  # which Pillow turns itself
            return size
        if image.format == "PNG" and not image.info.keys() & {*_ORIENTATION_IN_PNG}:
            place = file.tell()
            file.seek(-min(file.seek(0, 2), _TAIL_BYTES), 2)
            tail = file.read()
            if not any(mark.encode() in tail for mark in ("eXIf", *_ORIENTATION_IN_PNG)):
                return size
            file.seek(place)  # now Pillow decodes the whole PNG to look behind its pixels, where hardly anyone writes
        return size[::-1] if _orientation(image) in _SWAPPED else size


def read_label(path: Path, label_set: LabelSet, *, train_ids: bool = False, content: bytes | None = None) -> Pixels:
    """Read a label PNG as trainIds.

    Args:
        path: A single-channel 8-bit PNG.
        label_set: The table that its values must be in.
        train_ids: The file holds trainIds (`_gtFine_labelTrainIds.png`) instead of label ids.
        content: What the file holds, where it has been read already; then `path` is only what errors call it.

    Returns:
        uint8 `(H, W)`: 0..num_classes - 1, or `IGNORE_INDEX`.

    Raises:
        DatasetError: The file cannot be read, has colours, or holds a value outside the table.
    """
    return read_values_and_label(path, label_set, train_ids=train_ids, content=content)[1]


def read_label_ids(path: Path, label_set: LabelSet, *, train_ids: bool = False, content: bytes | None = None) -> Pixels:
    """Read a label PNG as label ids, which scores are counted over.

    Args and Raises are those of `read_label`.

    Returns:
        uint8 `(H, W)`: ids of the table. What a file of trainIds ignores becomes `label_set.void_id`.
    """
    values, _ = read_values_and_label(path, label_set, train_ids=train_ids, content=content)
    return label_set.id_of_file[values] if train_ids else values


def read_values_and_label(
    path: Path, label_set: LabelSet, *, train_ids: bool = False, content: bytes | None = None
) -> tuple[Pixels, Pixels]:
    """The values of a label PNG as they are, and what `read_label` makes of them; both uint8 `(H, W)`.

    Args and Raises are those of `read_label`.
    """
    values = read_label_values(path, content)
    table = label_set.train_id_of(train_ids=train_ids)
    label = table[values]
    if (label == UNKNOWN).any():
        seen = int(values[label == UNKNOWN][0])
        kind = "trainIds" if train_ids else "label ids"
        raise DatasetError(
            f"{path} holds the value {seen}, which is not among the {kind} of {label_set.name} "
            f"({known_values(table)}); correct the file, or give a model of its classes, or --labels FILE.yaml"
        )
    return values, label


def read_label_values(path: Path, content: bytes | None = None) -> Pixels:
    """The values of a single-channel 8-bit PNG as they are, uint8 `(H, W)`.

    A palette image is read by its indices, which is what annotation tools mean by it.

    Args:
        path: The file.
        content: What it holds, where it has been read already; then `path` is only what errors call it.

    Raises:
        DatasetError: The file cannot be read or is of another mode.
    """
    with one_error(path), _source(path, content) as file:
        image, header = decode(file, ("PNG",), MAX_PIXELS)
    if image.mode not in ("L", "P"):
        raise DatasetError(f"{path} has mode {image.mode}; a label is a single-channel 8-bit PNG of class numbers")
    _require_eight_bits(path, image, header, "a label is a single-channel 8-bit PNG of class numbers")
    return np.asarray(image)


def read_instances(path: Path, content: bytes | None = None) -> InstanceIds:
    """Read an `_instanceIds.png`: label id * 1000 + number of the object; the label id alone where none is told apart.

    Args and Raises are those of `read_label_values`.

    Returns:
        uint16 `(H, W)`.
    """
    with one_error(path), _source(path, content) as file:
        image, header = decode(file, ("PNG",), MAX_PIXELS)
    allowed = "instance ids are a single-channel 16-bit PNG"
    if image.mode not in ("I;16", "L"):
        raise DatasetError(f"{path} has mode {image.mode}; {allowed}")
    _require_eight_bits(path, image, header, allowed)
    return np.asarray(image).astype(np.uint16, copy=False)


def _require_eight_bits(path: Path, image: Image.Image, header: Header | None, allowed: str) -> None:
    """Refuse grey values of 2 or 4 bits, which Pillow would spread over 0..255."""
    if image.mode == "L" and header is not None and header.bits != 8:
        raise DatasetError(f"{path} has {header.bits} bits a pixel; {allowed}")


def _source(path: Path, content: bytes | None) -> AbstractContextManager[BinaryIO]:
    return opened(path) if content is None else io.BytesIO(content)


def require_one_size(path: Path, size: tuple[int, ...], what: str, other: tuple[int, ...]) -> None:
    """Refuse a file whose height and width are not those of what it belongs to.

    Args:
        path: The file.
        size: Its height and width, `(H, W)` or `(H, W, 3)`, as are those of the other.
        what: What errors call the other: "image", "label" or "frame".
        other: The size of the other.

    Raises:
        DatasetError: They differ.
    """
    if size[:2] != other[:2]:
        sizes = f"{size[0]}x{size[1]} and its {what} {other[0]}x{other[1]}"
        raise DatasetError(f"{path} is {sizes} (height x width); both must have one size")


def as_shown(image: Image.Image) -> Pixels:
    """The pixels of an image as a viewer shows it: turned by its EXIF orientation, transparency over black.

    Returns:
        RGB, uint8, `(H, W, 3)`.

    Raises:
        DatasetError: Its mode has numbers that are no brightness, or colours that are not converted.
    """
    image.load()  # a TIFF is turned here, and forgets its orientation
    orientation = _orientation(image)
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode not in _MODES:
        kind = "numbers without a brightness of their own" if image.mode in ("I", "F") else "no RGB or grey"
        text = f"its mode is {image.mode}, {kind}; allowed are RGB, grey, palette or CMYK of up to 16 bits: convert it"
        raise Unsound("damaged", text)
    height, width = (image.width, image.height) if orientation in _SWAPPED else (image.height, image.width)
    pixels = np.empty((height, width, 3), np.uint8)
    stored = _STORED[orientation](pixels) if orientation in _STORED else pixels
    step = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, step):  # some rows at a time: the whole in between would need twice the memory
        bottom = min(top + step, image.height)
        stored[top:bottom] = np.asarray(_over_black(image.crop((0, top, image.width, bottom))))
    return pixels


def _over_black(image: Image.Image) -> Image.Image:
    """An image in RGB."""
    if image.mode == "La":
        image = image.convert("LA")  # there is no direct way to RGBA
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    black = Image.new("RGB", image.size)
    black.paste(image, mask=image)
    return black


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; that of a picture as it is where there is none, or none that can be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # viewers show a picture whose EXIF data is damaged, so that is no reason to refuse it
        return 1
    return value if isinstance(value, int) else 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """The upper 8 bits of grey values of 12 or 16, white the largest, and black where they are transparent."""
    values = np.array(image, np.uint16)
    num_bits, zero_is_white = grey_levels(image)
    if zero_is_white:
        values = np.uint16(2**num_bits - 1) - values
    transparent = image.info.get("transparency")
    if transparent is not None:
        values[values == transparent] = 0
    return Image.fromarray((values >> (num_bits - 8)).astype(np.uint8))


def known_values(table: Pixels) -> str:
    """The values that a table of a label set knows, in short."""
    return ranges([int(value) for value in np.flatnonzero(table != UNKNOWN)])


def ranges(values: list[int]) -> str:
    """Sorted whole numbers in short: 0, 1, 2, 7 becomes "0-2, 7"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
