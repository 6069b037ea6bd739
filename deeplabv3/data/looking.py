"""What one file of a data set holds, and what is wrong with it by itself, whatever its classes are called.

The reader of training decides whether a file can be used; what is done here besides says why it cannot, and finds what
the reader passes over.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from deeplabv3.data.findings import Fault
from deeplabv3.data.images import FORMATS, read_image, read_instances, read_label_values
from deeplabv3.data.packed import image_digest
from deeplabv3.data.surveying import IMAGE, INSTANCES
from deeplabv3.errors import DatasetError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FORMAT_OF_SUFFIX = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
_FORMAT_OF_START = {
    _PNG_SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "GZIP",
    b"version https://git-lfs": "a pointer of Git LFS instead of the file",
}
_GREY, _RGB, _PALETTE = 0, 2, 3  # the colour types of a PNG; the others have an alpha channel
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row and the steps of each pass of an interlaced PNG."""

_TEXT_SEEN = 256  # bytes looked at to tell text


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
        content = path.read_bytes()
    except OSError as error:
        return Facts((_unreadable(error),))
    if not content:
        return Facts((Fault("empty-file", "it has 0 bytes; copy or download it anew"),))
    found, named = _format_of(content), _FORMAT_OF_SUFFIX.get(path.suffix.lower(), "BMP")
    if found and found not in (FORMATS if kind == IMAGE else ("PNG",)):
        allowed = ", ".join(FORMATS) if kind == IMAGE else "PNG"
        text = f"it holds {found}; its name says {named}, and allowed is {allowed}: replace it"
        return Facts((Fault("wrong-format", text),))
    try:
        facts = _look_at_image(path, content) if kind == IMAGE else _look_at_values(path, kind, content)
    except DatasetError as error:
        return Facts((_why(error, content, found),))
    if found == named:
        return facts
    fault = Fault("wrong-format", f"it holds {found} and its name says {named}; give it the ending of {found}")
    return replace(facts, faults=(*facts.faults, fault))


def _look_at_image(path: Path, content: bytes) -> Facts:
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    if fault := _passed_over(content, pixels):
        return Facts((fault,), (height, width))
    return Facts(size=(height, width), digest=image_digest(pixels))


def _look_at_values(path: Path, kind: str, content: bytes) -> Facts:
    wrong_mode = _fault_of_instance_mode(content) if kind == INSTANCES else _fault_of_label_mode(content)
    values: npt.NDArray[Any]
    if wrong_mode:
        values = read_image(path)  # as any picture, to find out whether it is whole
    else:
        values = read_instances(path) if kind == INSTANCES else read_label_values(path)
    size = (values.shape[0], values.shape[1])
    if fault := _passed_over(content, values) or wrong_mode:
        return Facts((fault,), size)
    counts = np.bincount(values.ravel())
    found = ((int(value), int(counts[value])) for value in np.flatnonzero(counts))
    return Facts(size=size, counts=tuple(found))


def _passed_over(content: bytes, pixels: npt.NDArray[Any]) -> Fault | None:
    """What the reader does not mind in a PNG: the last checksum, and missing rows, which it leaves black.

    To unpack the rows once more takes half as long as the reader does. A missing last row makes an edge of the picture
    even, in whatever way it is turned and coloured, so only pictures with such an edge are looked at again.
    """
    if not content.startswith(_PNG_SIGNATURE):
        return None
    if fault := _fault_of_png(content):
        return fault
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    interlaced = content[28] != 0
    if interlaced or any((edge == edge[0]).all() for edge in edges):
        return _fault_of_rows(content)
    return None


def _mode_of_png(content: bytes) -> tuple[int, int]:
    """Bits a value and colour type, from the header."""
    if len(content) < 26 or content[12:16] != b"IHDR":
        raise DatasetError("a PNG without a header")
    return content[24], content[25]


def _fault_of_label_mode(content: bytes) -> Fault | None:
    bits, color = _mode_of_png(content)
    allowed = "a label is a single-channel 8-bit PNG of class numbers: write it so"
    if color == _RGB:
        return Fault("label-rgb", f"its mode is RGB, colours instead of numbers; {allowed}")
    if color == _PALETTE:
        return Fault("label-palette", f"its mode is a palette of colours; {allowed}, without the palette")
    if color != _GREY:
        return Fault("label-alpha", f"it has an alpha channel; {allowed}")
    if bits == 16:
        return Fault("label-16-bit", f"it has 16 bits a pixel; {allowed}")
    if bits < 8:
        return Fault("label-few-bits", f"it has {bits} bits a pixel, which viewers stretch; {allowed}")
    return None


def _fault_of_instance_mode(content: bytes) -> Fault | None:
    bits, color = _mode_of_png(content)
    if color == _GREY and bits in (8, 16):
        return None
    seen = {_GREY: f"{bits} bits of grey", _RGB: "RGB", _PALETTE: "a palette"}.get(color, "an alpha channel")
    return Fault("instance-mode", f"it has {seen}; instance ids are a single-channel 16-bit PNG: write it so")


def _format_of(content: bytes) -> str:
    """What a file is by its first bytes: a format, something else in words, or "" if that is not known."""
    for start, name in _FORMAT_OF_START.items():
        if content.startswith(start):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    start = content[:_TEXT_SEEN].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "HTML, perhaps a page that asks to log in"
    printable = all(byte >= 32 or byte in b"\t\n\r" for byte in content[:_TEXT_SEEN])
    return "text" if printable and content[:_TEXT_SEEN].isascii() else ""


def _unreadable(error: OSError) -> Fault:
    return Fault("unreadable", f"it cannot be opened: {error.strerror}; give yourself the right to read it")


def _why(error: DatasetError, content: bytes, found: str) -> Fault:
    """Why the reader refuses a file."""
    cause = error.__cause__
    if isinstance(cause, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return Fault("too-large", f"{cause}; make it smaller".replace(".;", ";"))
    if found == "PNG" and (fault := _fault_of_png(content)):
        return fault
    if "runcated" in str(cause) or _is_cut(content, found):
        return _truncated(content)
    detail = f" ({cause})" if cause and not isinstance(cause, UnidentifiedImageError) else ""
    return Fault("damaged", f"it cannot be decoded{detail}; copy or download it anew")


def _is_cut(content: bytes, found: str) -> bool:
    """Whether a file is shorter than its own header says, or lacks its last mark."""
    if found == "WEBP":
        return len(content) < 8 + int(struct.unpack("<I", content[4:8])[0])
    if found == "BMP":
        return len(content) < 6 or len(content) < struct.unpack("<I", content[2:6])[0]
    return found == "JPEG" and b"\xff\xd9" not in content[-64:]


def _truncated(content: bytes) -> Fault:
    return Fault("truncated", f"it ends too early, after {len(content):,} bytes; copy or download it anew")


def _fault_of_png(content: bytes) -> Fault | None:
    """The first fault in the chunks of a PNG: a wrong checksum, or an end before the end."""
    try:
        for name, data, checksum in _chunks(content):
            if zlib.crc32(data, zlib.crc32(name)) != checksum:
                text = f"the part {name.decode('latin-1')!r} does not fit its checksum; copy or download it anew"
                return Fault("checksum", text)
            if name == b"IEND":
                return None
    except struct.error:
        pass
    return _truncated(content)


def _fault_of_rows(content: bytes) -> Fault | None:
    """What is wrong with the packed rows of a PNG that can be read: fewer than its header says, or wrongly packed."""
    width, height, bits, color, *_, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-((x - width) // dx), -((y - height) // dy)) for x, y, dx, dy in passes]
    wanted = sum(rows * (1 + -(-columns * bits * _CHANNELS[color] // 8)) for columns, rows in sizes if columns > 0)
    unpacker = zlib.decompressobj()
    try:
        seen = len(unpacker.decompress(b"".join(data for name, data, _ in _chunks(content) if name == b"IDAT"), wanted))
    except zlib.error as error:
        return Fault("damaged", f"its pixels cannot be unpacked ({error}); copy or download it anew")
    if seen == wanted:
        return None
    return Fault("truncated", f"it holds {seen:,} bytes of pixels and should hold {wanted:,}; copy or download it anew")


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Name, data and stored checksum of each chunk of a PNG; struct.error where the file ends within one."""
    view, place = memoryview(content), len(_PNG_SIGNATURE)
    while place < len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        (checksum,) = struct.unpack_from(">I", content, place + 8 + length)
        yield name, view[place + 8 : place + 8 + length], checksum
        place += 12 + length
