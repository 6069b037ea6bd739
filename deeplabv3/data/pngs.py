"""What a PNG is made of: chunks with checksums, and packed rows (https://www.w3.org/TR/png-3, sections 5 and 10)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from deeplabv3.data.findings import Unsound
from deeplabv3.data.formats import PNG_SIGNATURE

GREY, RGB, PALETTE = 0, 2, 3
"""Colour types; the others have an alpha channel."""

_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, 4: 2, 6: 4}
_BITS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row and the steps of each pass of an interlaced PNG."""

_PIXELS = (b"IDAT", b"fdAT")
_MAX_CHUNKS = 200_000  # half a second of reading; 1.6 GB in the chunks of 8 KiB that libpng writes
_MAX_OTHER_BYTES = 2**24  # texts, colour profile, EXIF data: each is read into memory as a whole
_PIECE_BYTES = 2**20


class Header(NamedTuple):
    """What the first chunk says.

    Attributes:
        width: In pixels.
        height: In pixels.
        bits: Of one value of a pixel: 1, 2, 4, 8 or 16.
        color: The colour type: `GREY`, `RGB`, `PALETTE`, 4 (grey with alpha) or 6 (RGBA).
        interlaced: Whether the rows come in seven passes.
    """

    width: int
    height: int
    bits: int
    color: int
    interlaced: bool


def require_whole(file: BinaryIO) -> Header:
    """Read all chunks of a PNG and compare their checksums; what decoders do not look at, the end chunk, included.

    Raises:
        Unsound: A checksum is wrong, the file ends too early, its header is none, or there is more beside its pixels
            than a decoder should be given.
    """
    file.seek(0)
    if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
        raise Unsound("damaged", "it does not begin as a PNG does; copy or download it anew")
    header: Header | None = None
    other_bytes = 0
    for number, (name, length, data) in enumerate(_chunks(file)):
        checksum = zlib.crc32(name)
        other_bytes += 0 if name in _PIXELS else length
        if number > _MAX_CHUNKS or other_bytes > _MAX_OTHER_BYTES:
            text = f"it has more than {_MAX_CHUNKS:,} parts, or {_MAX_OTHER_BYTES:,} bytes beside its pixels"
            raise Unsound("damaged", f"{text}; save it anew")
        first = b""
        for piece in data:
            checksum = zlib.crc32(piece, checksum)
            first = first or piece[:13]
        if checksum != _number(file):
            text = f"the part {name.decode('latin-1')!r} does not fit its checksum; copy or download it anew"
            raise Unsound("checksum", text)
        if header is None:
            header = _header(name, first)
        if name == b"IEND":
            return header
    raise truncated(file)


def require_rows(file: BinaryIO, header: Header) -> None:
    """Unpack the rows of a PNG to count them, without keeping them: Pillow leaves out what is missing.

    Raises:
        Unsound: There are fewer than its header says, or they are wrongly packed.
    """
    width, height, bits, color, interlaced = header
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-((x - width) // dx), -((y - height) // dy)) for x, y, dx, dy in passes]
    wanted = sum(rows * (1 + -(-columns * bits * _CHANNELS[color] // 8)) for columns, rows in sizes if columns > 0)
    unpacker, seen = zlib.decompressobj(), 0
    try:
        for name, _, data in _chunks(file):
            for piece in data:
                while name == b"IDAT" and piece and not unpacker.eof and seen < wanted:
                    seen += len(unpacker.decompress(piece, _PIECE_BYTES))
                    piece = unpacker.unconsumed_tail
            file.seek(4, 1)
            if name == b"IEND":
                break
        if seen < wanted:
            seen += len(unpacker.flush())  # what the last call had no room for
    except zlib.error as error:
        text = f"its pixels cannot be unpacked ({error}); copy or download it anew"
        raise Unsound("damaged", text) from error
    if seen < wanted:
        text = f"it holds {seen:,} bytes of pixels and should hold {wanted:,}; copy or download it anew"
        raise Unsound("truncated", text)


def truncated(file: BinaryIO) -> Unsound:
    """What a file is that ends before its end."""
    return Unsound("truncated", f"it ends too early, after {file.seek(0, 2):,} bytes; copy or download it anew")


def _header(name: bytes, data: bytes) -> Header:
    if name != b"IHDR" or len(data) < 13:
        raise Unsound("damaged", "its header is missing; copy or download it anew")
    width, height, bits, color, _, _, interlaced = struct.unpack(">IIBBBBB", data)
    if bits not in _BITS.get(color, ()) or 0 in (width, height):
        text = f"its header says {width}x{height} pixels of {bits} bits and colour type {color}, which no PNG has"
        raise Unsound("damaged", f"{text}; save it anew")
    return Header(width, height, bits, color, interlaced != 0)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, Iterator[bytes]]]:
    """Name, length and data of each chunk; the data must be read up, and then stands the file at the checksum."""
    file.seek(len(PNG_SIGNATURE))
    while start := file.read(8):
        if len(start) < 8:
            raise truncated(file)
        length, name = struct.unpack(">I4s", start)
        yield name, length, _pieces(file, length)


def _pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    """So many bytes of a file, in pieces that fit into any memory."""
    while length:
        piece = file.read(min(length, _PIECE_BYTES))
        if not piece:
            raise truncated(file)
        length -= len(piece)
        yield piece


def _number(file: BinaryIO) -> int:
    if len(data := file.read(4)) < 4:
        raise truncated(file)
    return int.from_bytes(data, "big")
