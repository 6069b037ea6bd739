"""Image files written byte by byte, so that the right picture is known without any decoder."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from deeplabv3.data.findings import Unsound

PNG = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
VALUES = np.arange(24, dtype=np.uint8).reshape(4, 6)
_FORMATS_OF_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B"}


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


END = chunk(b"IEND", b"")


def header(width=6, height=4, bits=8, color=0, more=b""):
    """The first chunk of a PNG."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0) + more)


def reason(check, content, *more):
    """Why a check refuses some bytes, or "" if it does not."""
    try:
        check(io.BytesIO(content), *more)
    except Unsound as error:
        return error.fault.reason
    return ""


def png(values, bits, color, *, before=(), after=(), interlaced=False, rows=None, filtered=True):
    """A PNG of `(H, W)` or `(H, W, C)` values; before and after the pixels other chunks, as (name, data)."""
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    parts = [values[y::dy, x::dx] for x, y, dx, dy in passes]
    if rows is None:
        rows = b"".join(_packed_rows(part, bits, filtered) for part in parts if part.size)
    packed = zlib.compress(rows)
    half = len(packed) // 2
    chunks = [(b"IHDR", header), *before, (b"IDAT", packed[:half]), (b"IDAT", packed[half:]), *after, (b"IEND", b"")]
    return PNG + b"".join(chunk(name, data) for name, data in chunks)


def _packed_rows(values, bits, filtered):
    """Rows by the five filters in turn."""
    content, above = b"", None
    flat = values.reshape(values.shape[0], -1)
    step = max(1, bits * (1 if values.ndim == 2 else values.shape[2]) // 8)
    for number, row in enumerate(flat):
        data = np.frombuffer(pack_bits(row, bits), np.uint8).astype(int)
        up = np.zeros_like(data) if above is None else above
        left, corner = (np.concatenate([np.zeros(step, int), line])[: len(data)] for line in (data, up))
        guess = left + up - corner
        distances = np.abs(np.stack([guess - left, guess - up, guess - corner]))
        paeth = np.choose(distances.argmin(0), [left, up, corner])
        kind = number % 5 if filtered else 0
        predicted = (np.zeros_like(data), left, up, (left + up) // 2, paeth)[kind]
        content += bytes([kind]) + ((data - predicted) % 256).astype(np.uint8).tobytes()
        above = data
    return content


def pack_bits(row, bits, order=">"):
    if bits in (8, 16, 32):
        return row.astype(f"{order}u{bits // 8}").tobytes()
    binary = (row[:, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(binary.ravel().astype(np.uint8)).tobytes()


def exif(orientation, order=">", more=b""):
    """The EXIF table of an orientation."""
    start = b"MM\0*" if order == ">" else b"II*\0"
    table = struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return start + table + more


def tiff(values, photometric, bits, *, order="<", compressed=False, planes=1, tiled=False, rows_a_strip=0, **tags):
    """A TIFF of `(H, W)` or `(H, W, C)` values; other tags as t338=(type, values)."""
    height, width = values.shape[:2]
    values = values if values.ndim == 3 else values[..., None]
    if tiled:
        padded = np.zeros((-(-height // 16) * 16, -(-width // 16) * 16, values.shape[2]), values.dtype)
        padded[:height, :width] = values
        blocks = [padded[y : y + 16, x : x + 16] for y in range(0, height, 16) for x in range(0, width, 16)]
    else:
        step = rows_a_strip or height
        blocks = [values[y : y + step] for y in range(0, height, step)]
    if planes == 2:
        blocks = [block[..., band : band + 1] for band in range(values.shape[2]) for block in blocks]
    strips = [b"".join(pack_bits(row.ravel(), bits, order) for row in block) for block in blocks]
    strips = [zlib.compress(strip) if compressed else strip for strip in strips]
    entries = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * values.shape[2]), 262: (3, [photometric]),
               259: (3, [8 if compressed else 1]), 277: (3, [values.shape[2]]), 284: (3, [planes])}  # fmt: skip
    entries |= {322: (3, [16]), 323: (3, [16])} if tiled else {278: (4, [rows_a_strip or height])}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    return tiff_of(entries, strips, order, (324, 325) if tiled else (273, 279))


def tiff_of(entries, strips, order="<", places=(273, 279)):
    """A TIFF of tags and strips; their offsets and sizes are filled in."""
    entries = {places[0]: (4, [0] * len(strips)), places[1]: (4, [len(strip) for strip in strips]), **entries}

    def head():
        table, more = struct.pack(f"{order}H", len(entries)), b""
        begin = 8 + 2 + 12 * len(entries) + 4
        for tag, (kind, numbers) in sorted(entries.items()):
            data = struct.pack(f"{order}{len(numbers)}{_FORMATS_OF_TYPES[kind]}", *numbers)
            place = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(f"{order}I", begin + len(more))
            more += b"" if len(data) <= 4 else data + bytes(len(data) % 2)
            table += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + place
        start = b"II*\0" if order == "<" else b"MM\0*"
        return start + struct.pack(f"{order}I", 8) + table + bytes(4) + more

    first = len(head())
    entries[places[0]] = (4, [first + sum(map(len, strips[:number])) for number in range(len(strips))])
    return head() + b"".join(strips)


def bmp(indices, palette, *, run_lengths=False, bits=8):
    """A BMP of `(H, W)` indices, bottom up; by run lengths if asked for."""
    height, width = indices.shape
    if run_lengths:
        rows = [b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in indices[::-1]]
        pixels = b"".join(rows) + b"\0\1"
    else:
        pixels = b"".join(pack_bits(row, bits).ljust(-(-width * bits // 32) * 4, b"\0") for row in indices[::-1])
    colors = b"".join(bytes((blue, green, red, 0)) for red, green, blue in palette)
    begin = 14 + 40 + len(colors)
    kind = {8: 1, 4: 2}[bits] if run_lengths else 0
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, kind, len(pixels), 0, 0, len(palette), 0)
    return b"BM" + struct.pack("<IHHI", begin + len(pixels), 0, 0, begin) + header + colors + pixels


def saved(image, kind, **options):
    """What Pillow writes."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def with_segments(jpeg, *segments):
    """A JPEG with more parts at its beginning, as (marker, data)."""
    more = b"".join(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments)
    return jpeg[:2] + more + jpeg[2:]


def turned(pixels, orientation):
    """How EXIF orientation 1 to 8 is shown: which side of the stored picture is the top and which the left one."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
