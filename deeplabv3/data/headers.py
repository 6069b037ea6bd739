"""What the headers of JPEG, TIFF and BMP files claim, looked at before a decoder spends time and memory on it.

A file of a few bytes can ask for much: a JPEG for thousands of passes over all of its pixels, a TIFF for millions of
numbers, each of which becomes an object of Python. The limits are far above what sound files have. PNG has its own
module, `pngs`; of WebP the size in pixels limits all.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from deeplabv3.data.findings import Unsound

_MAX_SEGMENTS = 1000  # of up to 64 KiB each before the pixels of a JPEG; colour profiles and previews take some tens
_MAX_JUNK_BYTES = 2**16  # between them, which Pillow skips byte by byte
_MAX_SCANS = 40  # passes over the pixels of a JPEG; progressive ones have about 10, and a file may hold two or three
_MAX_NUMBERS = 300_000  # in a TIFF's tags: 33 million pixels in tiles of 16x16 need 262,144
_MAX_RUN_LENGTH_BYTES = 2**22  # Pillow decodes run lengths of BMP in Python: a second for 4 MiB
_PIECE_BYTES = 2**20

_SCAN = 0xDA
_ALONE = (0x01, *range(0xD0, 0xDA))  # markers of JPEG without a length
_INTERNAL_TAGS = (34665, 34853, 40965)  # EXIF, GPS and interoperability: offsets of further tables of tags
_NOT_NUMBERS = (1, 2, 7)  # types of tags that stay bytes
_BITS, _PHOTOMETRIC, _PLANES = 258, 262, 284
_WHITE_IS_ZERO, _SEPARATE = 0, 2


def require_modest(file: BinaryIO, found: str) -> None:
    """Refuse headers that cost more to read than any picture is worth.

    Args:
        file: Left anywhere.
        found: Its format.

    Raises:
        Unsound: There is too much in it.
    """
    if found == "JPEG":
        _require_few_segments(file)
    if found == "TIFF":
        _require_few_numbers(file)


def require_few_scans(file: BinaryIO) -> None:
    """Refuse a JPEG that goes over its pixels again and again.

    Raises:
        Unsound: There are more passes than any program writes.
    """
    file.seek(0)
    num_scans, last = 0, b""
    while piece := file.read(_PIECE_BYTES):
        num_scans += (last + piece).count(bytes((0xFF, _SCAN)))  # within pixels, a zero follows every 0xFF
        last = piece[-1:] if piece.endswith(b"\xff") else b""
    if num_scans > _MAX_SCANS:
        text = f"it goes {num_scans:,} times over its pixels; at most {_MAX_SCANS} are decoded: save it anew"
        raise Unsound("damaged", text)


def require_decodable(image: Image.Image, num_bytes: int) -> None:
    """Refuse what Pillow would decode wrongly, without a word, or too slowly.

    Args:
        image: A file that is opened and not loaded.
        num_bytes: Its size.

    Raises:
        Unsound: It is such a file.
    """
    tiles = image.tile if hasattr(image, "tile") else []
    if tiles and tiles[0].codec_name == "bmp_rle":
        if max(num_bytes, image.width * image.height) > _MAX_RUN_LENGTH_BYTES:
            text = f"it is a BMP of run lengths with more than {_MAX_RUN_LENGTH_BYTES:,} pixels or bytes, "
            raise Unsound("too-large", text + "which take too long; save it as PNG")
    if image.format == "PNG" and tiles and tiles[0].extents != (0, 0, *image.size):
        raise Unsound(
            "damaged", "it is an animation whose first picture is smaller than the whole; save it as one picture"
        )
    if isinstance(image, TiffImageFile) and tiles and tiles[0].codec_name == "raw":
        separate = image.tag_v2.get(_PLANES) == _SEPARATE and len(image.getbands()) > 1
        if separate and max(image.tag_v2.get(_BITS, (1,))) > 8:
            text = "it is a TIFF of 16 bits with each colour in a plane of its own, without compression, "
            raise Unsound("damaged", text + "which is not decoded; save it as PNG")
        covered = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in tiles if right > left)
        if covered < image.width * image.height * (len(image.getbands()) if separate else 1):
            raise Unsound("truncated", "some of its strips or tiles are missing; copy or download it anew")


def grey_levels(image: Image.Image) -> tuple[int, bool]:
    """How many bits a grey value of more than 8 has, and whether zero is white, which Pillow leaves to its user."""
    if not isinstance(image, TiffImageFile):
        return 16, False
    return image.tag_v2.get(_BITS, (16,))[0], image.tag_v2.get(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO


def _require_few_segments(file: BinaryIO) -> None:
    """Walk from marker to marker, as far as the pixels."""
    file.seek(2)
    num_segments = num_junk = 0
    while byte := file.read(1):
        marker = file.read(1) if byte == b"\xff" else b""
        if not marker or marker in (b"\0", b"\xff"):
            num_junk += 1
            if marker == b"\xff":
                file.seek(-1, 1)  # it may begin a marker
        elif marker[0] not in _ALONE:
            length = int.from_bytes(file.read(2), "big")
            if marker[0] == _SCAN or length < 2:
                return
            file.seek(length - 2, 1)
            num_segments += 1
        if num_segments > _MAX_SEGMENTS or num_junk > _MAX_JUNK_BYTES:
            text = f"it has more than {_MAX_SEGMENTS:,} parts, or {_MAX_JUNK_BYTES:,} stray bytes, before its pixels"
            raise Unsound("damaged", f"{text}; save it anew")


def _require_few_numbers(file: BinaryIO) -> None:
    """Add up how many numbers the tags claim, those of EXIF tables included."""
    file.seek(0)
    start = file.read(16)
    order, is_big = ("<" if start.startswith(b"II") else ">"), b"+" in start[2:4]
    number, table, entry = (order + form for form in (("Q", "Q", "HHQQ") if is_big else ("I", "H", "HHII")))
    size, num_numbers = struct.calcsize(entry), 0
    offsets = list(struct.unpack_from(number, start, 8 if is_big else 4))
    for offset in offsets:
        file.seek(min(offset, 2**62))
        head = file.read(struct.calcsize(table))
        num_tags = struct.unpack(table, head)[0] if len(head) == struct.calcsize(table) else 0
        content = file.read(min(num_tags, 2**16) * size)
        for tag, kind, count, value in struct.iter_unpack(entry, content[: len(content) // size * size]):
            num_numbers += 0 if kind in _NOT_NUMBERS else count
            if tag in _INTERNAL_TAGS and len(offsets) <= len(_INTERNAL_TAGS):
                offsets.append(value)
    if num_numbers > _MAX_NUMBERS:
        text = f"its tags hold {num_numbers:,} numbers; at most {_MAX_NUMBERS:,} are read: save it anew"
        raise Unsound("damaged", text)
