"""What one file of a data set holds, and what is wrong with it by itself, whatever its classes are called.

The reader of training decides whether a file can be used; what is done here besides says why it cannot, and finds what
the reader passes over.
"""

from __future__ import annotations

import io
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import UnidentifiedImageError

from deeplabv3.config.checks import MAX_PIXELS
from deeplabv3.data.decoding import content_of
from deeplabv3.data.findings import Fault, Unsound
from deeplabv3.data.formats import FORMATS, format_of
from deeplabv3.data.images import decode_image, read_instances, read_label_values
from deeplabv3.data.packed import image_digest
from deeplabv3.data.pngs import GREY, PALETTE, RGB, Header, require_whole, truncated
from deeplabv3.data.surveying import IMAGE, INSTANCES
from deeplabv3.errors import DatasetError, printable

_FORMAT_OF_SUFFIX = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}


@dataclass(frozen=True)
class Facts:
    """What a file holds.

    Attributes:
        faults: What is wrong with it.
        size: Height and width in pixels, or None if they are not known.
        digest: SHA-256 of an image's size and pixels, or "".
        counts: Each value of a label or of instance ids with the number of its pixels.
    """

    faults: tuple[Fault, ...] = ()
    size: tuple[int, int] | None = None
    digest: str = ""
    counts: tuple[tuple[int, int], ...] = ()

    def to_list(self) -> list[Any]:
        """Plain JSON values; `from_list` reads them back."""
        return [self.faults, self.size, self.digest, self.counts]

    @classmethod
    def from_list(cls, values: list[Any]) -> Facts:
        """The inverse of `to_list`."""
        faults, size, digest, counts = values
        pairs = tuple((int(value), int(pixels)) for value, pixels in counts)
        height_width = None if size is None else (int(size[0]), int(size[1]))
        return cls(tuple(Fault(*fault) for fault in faults), height_width, str(digest), pairs)


def state_of(path: Path) -> tuple[int, int] | Fault:
    """Size in bytes and time of the last change in nanoseconds, or why the file cannot be opened."""
    try:
        status = path.stat()
    except FileNotFoundError:
        target = path.readlink() if path.is_symlink() else "it"
        return Fault("dangling-link", f"{target} does not exist; put it there, or remove the link")
    except OSError as error:
        return _unreadable(error)
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        return Fault("not-a-file", f"it is {what} under the name of a file; put the file there")
    return status.st_size, status.st_mtime_ns


def look_at(item: tuple[Path, str]) -> Facts:
    """Decode a file completely.

    Args:
        item: Its path and what it should be: an image, a label, or instance ids.
    """
    path, kind = item
    try:
        content = content_of(path, MAX_PIXELS)
    except Unsound as error:
        return Facts((error.fault,))
    except OSError as error:
        return Facts((_unreadable(error),))
    if not content:
        return Facts((Fault("empty-file", "it has 0 bytes; copy or download it anew"),))
    found, named = format_of(content), _FORMAT_OF_SUFFIX.get(path.suffix.lower(), "BMP")
    if found and found not in (FORMATS if kind == IMAGE else ("PNG",)):
        allowed = ", ".join(FORMATS) if kind == IMAGE else "PNG"
        text = f"it holds {found}; its name says {named}, and allowed is {allowed}: replace it"
        return Facts((Fault("wrong-format", text),))
    try:
        facts = _look_at_image(path, content) if kind == IMAGE else _look_at_values(path, kind, content)
    except DatasetError as error:
        cause = error.__cause__
        if isinstance(cause, MemoryError):  # says nothing of the file, and must not be remembered of it
            raise
        return Facts((_why(error, content, found),))
    if found == named:
        return facts
    fault = Fault("wrong-format", f"it holds {found} and its name says {named}; give it the ending of {found}")
    return replace(facts, faults=(*facts.faults, fault))


def _look_at_image(path: Path, content: bytes) -> Facts:
    pixels = decode_image(content, path)
    height, width = pixels.shape[:2]
    return Facts(size=(height, width), digest=image_digest(pixels))


def _look_at_values(path: Path, kind: str, content: bytes) -> Facts:
    header = require_whole(io.BytesIO(content))
    wrong_mode = _fault_of_instance_mode(header) if kind == INSTANCES else _fault_of_label_mode(header)
    if wrong_mode:
        shown = decode_image(content, path)  # as any picture, to find out whether it is whole
        return Facts((wrong_mode,), (shown.shape[0], shown.shape[1]))
    read: Callable[[Path, bytes], npt.NDArray[Any]] = read_instances if kind == INSTANCES else read_label_values
    values = read(path, content)
    counts = np.bincount(values.ravel())
    found = ((int(value), int(counts[value])) for value in np.flatnonzero(counts))
    return Facts(size=(values.shape[0], values.shape[1]), counts=tuple(found))


def _fault_of_label_mode(header: Header) -> Fault | None:
    bits, color = header.bits, header.color
    allowed = "a label is a single-channel 8-bit PNG of class numbers: write it so"
    if color == RGB:
        return Fault("label-rgb", f"its mode is RGB, colours instead of numbers; {allowed}")
    if color == PALETTE:
        return Fault("label-palette", f"its mode is a palette of colours; {allowed}, without the palette")
    if color != GREY:
        return Fault("label-alpha", f"it has an alpha channel; {allowed}")
    if bits == 16:
        return Fault("label-16-bit", f"it has 16 bits a pixel; {allowed}")
    if bits < 8:
        return Fault("label-few-bits", f"it has {bits} bits a pixel, which viewers stretch; {allowed}")
    return None


def _fault_of_instance_mode(header: Header) -> Fault | None:
    bits, color = header.bits, header.color
    if color == GREY and bits in (8, 16):
        return None
    seen = {GREY: f"{bits} bits of grey", RGB: "RGB", PALETTE: "a palette"}.get(color, "an alpha channel")
    return Fault("instance-mode", f"it has {seen}; instance ids are a single-channel 16-bit PNG: write it so")


def _unreadable(error: OSError) -> Fault:
    return Fault("unreadable", f"it cannot be opened: {error.strerror}; give yourself the right to read it")


def _why(error: DatasetError, content: bytes, found: str) -> Fault:
    """Why the reader refuses a file."""
    cause = error if isinstance(error, Unsound) else error.__cause__
    if isinstance(cause, Unsound):
        return cause.fault
    if "runcated" in str(cause) or _is_cut(content, found):
        return truncated(io.BytesIO(content)).fault
    detail = (
        f" ({printable(cause)})"
        if isinstance(cause, Exception) and str(cause) and not isinstance(cause, UnidentifiedImageError)
        else ""
    )
    return Fault("damaged", f"it cannot be decoded{detail}; copy or download it anew")


def _is_cut(content: bytes, found: str) -> bool:
    """Whether a file is shorter than its own header says, or lacks its last mark."""
    if found == "WEBP":
        return len(content) < 8 + int(struct.unpack("<I", content[4:8])[0])
    if found == "BMP":
        return len(content) < 6 or len(content) < struct.unpack("<I", content[2:6])[0]
    return found == "JPEG" and b"\xff\xd9" not in content[-64:]
