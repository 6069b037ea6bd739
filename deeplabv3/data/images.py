"""Images and label maps: read from files that cannot be trusted."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from deeplabv3.data.labels import UNKNOWN, LabelSet
from deeplabv3.errors import DatasetError

Pixels = npt.NDArray[np.uint8]
InstanceIds = npt.NDArray[np.uint16]

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
"""The decoders that may see a file; others (EPS, FITS, ...) never do, whatever the file's name."""

_ORIENTATION, _FIRST_TURNED = 0x0112, 5  # the EXIF tag, and the first of its values that swap height and width
_BIT_DEPTH = 24  # where a PNG says how many bits a pixel has
_DAMAGE = (SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def read_image(path: Path) -> Pixels:
    """Decode an image as a viewer shows it: turned by its EXIF orientation, transparency over black.

    Returns:
        RGB, uint8, `(H, W, 3)`.

    Raises:
        DatasetError: The file cannot be read or is no image of an allowed format.
    """
    with _errors(path, FORMATS):
        return np.asarray(as_shown(_decode(path, FORMATS)))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels of an image as a viewer shows it, from its header alone.

    Raises:
        DatasetError: The header cannot be read.
    """
    with _errors(path, FORMATS), Image.open(path, formats=FORMATS) as image:
        in_header = image.format != "PNG" or "exif" in image.info  # else Pillow would decode the whole PNG to look
        turned = in_header and image.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED
        return (image.width, image.height) if turned else (image.height, image.width)


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
    values = read_label_values(path) if content is None else decode_label_values(content, path)
    table = label_set.train_id_of_file if train_ids else label_set.train_id_of_id
    label = table[values]
    if (label == UNKNOWN).any():
        seen = int(values[label == UNKNOWN][0])
        kind = "trainIds" if train_ids else "label ids"
        allowed = sorted({int(value) for value in np.flatnonzero(table != UNKNOWN)})
        raise DatasetError(
            f"{path} holds the value {seen}, which is not among the {kind} of {label_set.name} ({ranges(allowed)}); "
            "correct the file, or name its classes with --labels FILE.yaml"
        )
    return values, label


def read_label_values(path: Path) -> Pixels:
    """The values of a single-channel 8-bit PNG as they are, uint8 `(H, W)`.

    A palette image is read by its indices, which is what annotation tools mean by it.

    Raises:
        DatasetError: The file cannot be read or is of another mode.
    """
    with _errors(path, ("PNG",)):
        content = path.read_bytes()
    return decode_label_values(content, path)


def decode_label_values(content: bytes, path: Path) -> Pixels:
    """`read_label_values` for a file that has been read; `path` is what errors call it."""
    with _errors(path, ("PNG",)):
        image = _decode(io.BytesIO(content), ("PNG",))
    if image.mode not in ("L", "P"):
        raise DatasetError(f"{path} has mode {image.mode}; a label is a single-channel 8-bit PNG of class numbers")
    if image.mode == "L" and content[_BIT_DEPTH] != 8:  # which Pillow would spread over 0..255
        depth = content[_BIT_DEPTH]
        raise DatasetError(f"{path} has {depth} bits a pixel; a label is a single-channel 8-bit PNG of class numbers")
    return np.asarray(image)


def read_instances(path: Path, content: bytes | None = None) -> InstanceIds:
    """Read an `_instanceIds.png`: label id * 1000 + number of the object; the label id alone where none is told apart.

    Args:
        path: The file.
        content: What it holds, where it has been read already; then `path` is only what errors call it.

    Returns:
        uint16 `(H, W)`.

    Raises:
        DatasetError: The file cannot be read or is of another mode.
    """
    with _errors(path, ("PNG",)):
        image = _decode(path if content is None else io.BytesIO(content), ("PNG",))
    if image.mode not in ("I;16", "L"):
        raise DatasetError(f"{path} has mode {image.mode}; instance ids are a single-channel 16-bit PNG")
    return np.asarray(image).astype(np.uint16, copy=False)


def _decode(file: Path | io.BytesIO, formats: tuple[str, ...]) -> Image.Image:
    """Open, check the checksums (PNG), and decode a file by the allowed decoders alone."""
    with Image.open(file, formats=formats) as image:
        image.verify()  # Pillow's load alone accepts PNG data whose checksum is wrong
    with Image.open(file, formats=formats) as image:
        image.load()
        return image


def as_shown(image: Image.Image) -> Image.Image:
    """An image as a viewer shows it, in RGB of 8 bits: turned by its EXIF orientation, transparency over black."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        flat = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(flat, image.convert("RGBA"))
    return image.convert("RGB")


@contextmanager
def _errors(path: Path, formats: tuple[str, ...]) -> Iterator[None]:
    """Turn whatever Pillow raises for a file into one `DatasetError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # damaged EXIF data is no reason to talk
            yield
    except OSError as error:
        detail = error.strerror or f"it is damaged or not one of {', '.join(formats)}"
        raise DatasetError(f"{path} cannot be read: {detail}; replace the file") from error
    except (*_DAMAGE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(f"{path} is not a sound image ({error}); replace the file") from error


def ranges(values: list[int]) -> str:
    """Sorted whole numbers in short: 0, 1, 2, 7 becomes "0-2, 7"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
