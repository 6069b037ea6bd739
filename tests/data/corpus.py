"""Image files of every kind, sound and hostile, and what must come of each: always the same, none of them stored."""

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.data.pictures import PNG, bmp, chunk, exif, pack_bits, png, saved, tiff, turned, with_segments

SIZES = ((7, 9), (1, 1), (17, 5), (33, 40))
FULL = 5792
"""A side of the largest square that is decoded."""


class Specimen(NamedTuple):
    """A file.

    Attributes:
        name: Its name, whose ending may lie.
        content: Its bytes, or what makes them.
        right: The picture; None where nobody knows.
        wanted: "right", "error", "either" (right or error), or "any" (a picture or an error: without a checksum, a
            changed byte may be another picture).
        tolerance: How far values may be away, where a format loses something.
    """

    name: str
    content: bytes | Callable[[], bytes]
    right: Any = None
    wanted: str = "right"
    tolerance: int = 0


def corpus(*, everyday: bool = False) -> Iterator[Specimen]:
    """All specimens, or every twentieth of the small ones."""
    small = itertools.chain(sound(), foreign(), mutated(), hostile())
    yield from itertools.islice(small, 0, None, 20 if everyday else 1)
    if not everyday:
        yield from large()


def sound() -> Iterator[Specimen]:
    """Pictures of all modes, whose values are known."""
    for number, size in enumerate(SIZES):
        rng = np.random.default_rng([1, number])
        for source in (png_pictures, tiff_pictures, bmp_pictures, webp_pictures, jpeg_pictures):
            for index, (suffix, content, right, tolerance) in enumerate(source(rng, size)):
                name = f"{source.__name__}-{number}-{index}.{suffix}"
                yield Specimen(name, content, right, tolerance=tolerance)


def grey(values):
    return np.repeat(values.astype(np.uint8)[..., None], 3, 2)


def over_black(color, alpha):
    return ((color.astype(int) * alpha.astype(int)[..., None] * 2 + 255) // 510).astype(np.uint8)


def png_pictures(rng, size):
    """Every bit depth and colour type, interlaced and not, with and without a transparent colour, all orientations."""
    for bits, interlaced in itertools.product((1, 2, 4, 8, 16), (False, True)):
        values = rng.integers(0, 2**bits, size)
        shown = values >> 8 if bits == 16 else values * 255 // (2**bits - 1)
        yield "png", png(values, bits, 0, interlaced=interlaced), grey(shown), 0
        gap = int(values[0, 0])
        content = png(values, bits, 0, before=[(b"tRNS", struct.pack(">H", gap))], interlaced=interlaced)
        yield "png", content, grey(np.where(values == gap, 0, shown)), 0
        if bits <= 8:
            palette = rng.integers(0, 256, (2**bits, 3), dtype=np.uint8)
            plte = (b"PLTE", palette.tobytes())
            yield "png", png(values, bits, 3, before=[plte], interlaced=interlaced), palette[values], 0
            alpha = rng.integers(0, 256, 2**bits, dtype=np.uint8)
            content = png(values, bits, 3, before=[plte, (b"tRNS", alpha.tobytes())], interlaced=interlaced)
            yield "png", content, over_black(palette[values], alpha[values]), 0
        if bits >= 8:
            shift = bits - 8
            for color, channels in ((2, 3), (4, 2), (6, 4)):
                values = rng.integers(0, 2**bits, (*size, channels))
                shown = (values >> shift).astype(np.uint8)
                right = grey(shown[..., 0]) if color == 4 else shown[..., :3]
                right = right if color == 2 else over_black(right, shown[..., -1])
                yield "png", png(values, bits, color, interlaced=interlaced), right, 0
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    key = (b"tRNS", struct.pack(">HHH", *map(int, pixels[0, 0])))
    hidden = (pixels == pixels[0, 0]).all(-1)
    yield "png", png(pixels, 8, 2, before=[key]), np.where(hidden[..., None], 0, pixels).astype(np.uint8), 0
    for orientation, order in itertools.product(range(1, 9), "<>"):
        extra = [(b"eXIf", exif(orientation, order))]
        yield "png", png(pixels, 8, 2, before=extra), turned(pixels, orientation), 0
        yield "png", png(pixels, 8, 2, after=extra), turned(pixels, orientation), 0
    profile = (b"iCCP", b"a\0\0" + zlib.compress(b"profile"))
    nonsense = ((b"eXIf", b"nonsense"), (b"eXIf", exif(9)), (b"gAMA", bytes(4)), (b"prVt", b"x" * 99))
    for part in (*nonsense, profile, (b"tEXt", b"a\0b"), (b"IDAT", b"")):
        yield "png", png(pixels, 8, 2, before=[part]), pixels, 0
    xmp = (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="8">')
    yield "png", png(pixels, 8, 2, before=[xmp]), turned(pixels, 8), 0
    yield "png", png(pixels, 8, 2, after=[xmp]), turned(pixels, 8), 0
    yield "png", png(pixels, 8, 2) + b"PK\x03\x04 what follows is another file", pixels, 0
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels), Image.fromarray(pixels // 2)]
    yield "png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), pixels, 0
    yield "png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True), pixels, 0


def tiff_pictures(rng, size):
    """Layouts of TIFF, of both byte orders, with and without compression."""
    for order, compressed in itertools.product("<>", (False, True)):
        kind = {"order": order, "compressed": compressed}
        pixels = rng.integers(0, 256, (*size, 4), dtype=np.uint8)
        wide = pixels.astype(np.uint16) * 257 - (pixels > 128) * 3
        color, alpha, first = pixels[..., :3], pixels[..., 3], pixels[..., 0]
        top = (wide >> 8).astype(np.uint8)
        for layout in ({}, {"planes": 2}, {"tiled": True}, {"rows_a_strip": 2}, {"planes": 2, "rows_a_strip": 3}):
            yield "tiff", tiff(color, 2, 8, **kind, **layout), color, 0
            yield "tiff", tiff(pixels, 2, 8, t338=(3, [2]), **kind, **layout), over_black(color, alpha), 0
            if "planes" not in layout:
                yield "tiff", tiff(wide[..., :3], 2, 16, **kind, **layout), top[..., :3], 0
                yield "tiff", tiff(first, 1, 8, **kind, **layout), grey(first), 0
                yield "tiff", tiff(wide[..., 0], 1, 16, **kind, **layout), grey(top[..., 0]), 0
        yield "tiff", tiff(first, 0, 8, **kind), grey(255 - first), 0
        if order == "<":
            yield "tiff", tiff(wide[..., 0], 0, 16, **kind), grey((65535 - wide[..., 0]) >> 8), 0
            if size[1] % 2 == 0:
                yield "tiff", tiff(wide[..., 0] >> 4, 1, 12, **kind), grey(top[..., 0]), 0
        for bits in (1, 4):
            values = rng.integers(0, 2**bits, size)
            yield "tiff", tiff(values, 1, bits, **kind), grey(values * 255 // (2**bits - 1)), 0
            yield "tiff", tiff(values, 0, bits, **kind), grey(255 - values * 255 // (2**bits - 1)), 0
        palette = rng.integers(0, 256, (256, 3), dtype=np.uint8)
        map_ = (3, [int(value) * 257 for value in palette.T.ravel()])
        yield "tiff", tiff(first, 3, 8, t320=map_, **kind), palette[first], 0
        yield "tiff", tiff(pixels, 5, 8, **kind), from_cmyk(pixels), 1
        yield "tiff", tiff(wide, 5, 16, **kind), from_cmyk(top), 1
        yield "tiff", tiff(pixels, 2, 8, t338=(3, [0]), **kind), color, 0
        for orientation in range(1, 9):
            yield "tif", tiff(color, 2, 8, t274=(3, [orientation]), **kind), turned(color, orientation), 0
    frames = [Image.fromarray(color), Image.fromarray(255 - color)]
    for compression in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma", "zstd", None):
        yield (
            "tif",
            saved(frames[0], "TIFF", save_all=True, append_images=frames[1:], compression=compression),
            color,
            0,
        )
    bits = rng.integers(0, 2, size).astype(bool)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield "tif", saved(Image.fromarray(bits), "TIFF", compression=compression), grey(bits * 255), 0


def from_cmyk(values):
    """Ink as colour: (1 - C)(1 - K)."""
    free = 255 - values.astype(int)
    return ((free[..., :3] * free[..., 3:] * 2 + 255) // 510).astype(np.uint8)


def bmp_pictures(rng, size):
    """Palettes by bits and run lengths, and colours."""
    for bits in (1, 4, 8):
        palette = rng.integers(0, 256, (2**bits, 3), dtype=np.uint8)
        palette[0] = (1, 2, 3)
        indices = rng.integers(0, 2**bits, size)
        yield "bmp", bmp(indices, palette, bits=bits), palette[indices], 0
    yield "bmp", bmp(indices, palette, run_lengths=True), palette[indices], 0
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    yield "bmp", saved(pixels, "BMP"), pixels, 0
    yield "bmp", saved(pixels[..., 0], "BMP"), grey(pixels[..., 0]), 0


def webp_pictures(rng, size):
    """Without and with loss, with transparency, animated, turned."""
    pixels = rng.integers(0, 256, (*size, 4), dtype=np.uint8)
    color, right = pixels[..., :3], over_black(pixels[..., :3], pixels[..., 3])
    for method in (0, 6):
        yield "webp", saved(color, "WEBP", lossless=True, method=method), color, 0
        yield "webp", saved(pixels, "WEBP", lossless=True, exact=True, method=method), right, 0
    for orientation in range(1, 9):
        yield "webp", saved(color, "WEBP", lossless=True, exif=exif(orientation)), turned(color, orientation), 0
    frames = [Image.fromarray(color), Image.fromarray(255 - color)]
    yield "webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True), color, 0
    yield "webp", saved(smooth(size), "WEBP", quality=95), smooth(size), 24


def smooth(size):
    """A picture that loses little."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([40 + 2 * x, 90 + 2 * y, 130 + x + y], -1).astype(np.uint8)


def jpeg_pictures(rng, size):
    """Grey, colour, CMYK, YCCK, progressive, turned, in parts, several in one file."""
    del rng
    color = smooth(size)
    ink = np.concatenate([color, color[..., :1] // 2], -1)
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}, {"icc_profile": b"x" * 99_000},
                    {"comment": b"x" * 999}, {"restart_marker_blocks": 1}, {"keep_rgb": True}):  # fmt: skip
        yield "jpg", saved(color, "JPEG", quality=95, **options), color, 12
    yield "jpg", saved(color[..., 0], "JPEG", quality=95), grey(color[..., 0]), 12
    cmyk = saved(cmyk_image(ink), "JPEG", quality=95)
    yield "jpg", cmyk, from_cmyk(ink), 12
    yield "jpg", ycck(ink), from_cmyk(ink), 16
    content = saved(color, "JPEG", quality=95)
    for orientation, order in itertools.product(range(1, 9), "<>"):
        part = (0xE1, b"Exif\0\0" + exif(orientation, order))
        yield "jpeg", with_segments(content, part), turned(color, orientation), 12
    for part in (
        (0xE1, b"Exif\0\0nonsense"),
        (0xE1, b"Exif\0\0" + exif(77)),
        (0xE2, b"MPF\0nonsense"),
        (0xED, b"Photoshop 3.0\0"),
    ):
        yield "jpg", with_segments(content, part), color, 12
    frames = [Image.fromarray(color), Image.fromarray(255 - color)]
    yield "jpg", saved(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95), color, 12
    yield "jpg", content + b"<html>another file</html>", color, 12


def cmyk_image(ink):
    return Image.merge("CMYK", [Image.fromarray(np.ascontiguousarray(ink[..., band])) for band in range(4)])


def ycck(ink):
    """A JPEG whose inks are stored as brightness and colour, marked as Adobe's: the mark of a CMYK file is changed."""
    red, green, blue = (ink[..., band].astype(float) for band in range(3))
    stored = [0.299 * red + 0.587 * green + 0.114 * blue, 128 - 0.168736 * red - 0.331264 * green + 0.5 * blue,
              128 + 0.5 * red - 0.418688 * green - 0.081312 * blue]  # fmt: skip
    bands = [255 - np.clip(np.round(band), 0, 255) for band in stored]
    content = saved(cmyk_image(np.stack([*bands, ink[..., 3]], -1).astype(np.uint8)), "JPEG", quality=95)
    place = content.index(b"Adobe") + 11
    return content[:place] + b"\2" + content[place + 1 :]


def foreign() -> Iterator[Specimen]:
    """Files of other formats under the names of allowed ones."""
    image = Image.fromarray(smooth((9, 12)))
    kinds = ("GIF", "EPS", "PDF", "PPM", "TGA", "PCX", "ICO", "ICNS", "SGI", "IM", "JPEG2000", "AVIF", "DDS", "SPIDER")
    contents = [saved(image.convert("F") if kind == "SPIDER" else image, kind) for kind in kinds]
    contents += [
        saved(image, "GIF", save_all=True, append_images=[image]),
        b"SIMPLE  =" + b" " * 5751,  # FITS
        b"8BPS" + bytes(99),  # PSD
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(999),  # FPX
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        *(b"", b"\0", b"text\n", b"<html>", bytes(4096)),
        *(b"PK\x03\x04" + bytes(50), b"\x1f\x8b\x08" + bytes(9)),
    ]
    for (number, content), suffix in itertools.product(enumerate(contents), ("png", "jpg", "webp", "tif", "bmp")):
        yield Specimen(f"foreign-{number}.{suffix}", content, wanted="error")


def mutated() -> Iterator[Specimen]:
    """Sound files with changed, missing and added bytes. Only PNG has checksums, so only there is every change seen."""
    rng = np.random.default_rng(2)
    seeds = [specimen for number, specimen in enumerate(sound()) if number % 7 == 0]
    for number, seed in enumerate(seeds):
        assert isinstance(seed.content, bytes)
        content, wanted = seed.content, "either" if seed.content.startswith(PNG) else "any"
        changes = []
        for _ in range(7):
            place = int(rng.integers(len(content)))
            changes.append(content[:place] + bytes([content[place] ^ 1 << int(rng.integers(8))]) + content[place + 1 :])
        changes += [content[: rng.integers(len(content))] for _ in range(4)]
        start, stop = sorted(int(place) for place in rng.integers(0, len(content) + 1, 2))
        changes.append(content[:start] + rng.bytes(stop - start) + content[stop:])
        changes.append(content[:start] + content[stop:])
        for index, changed in enumerate(changes):
            yield Specimen(f"mutated-{number}-{index}-{seed.name}", changed, seed.right, wanted, seed.tolerance)
        other = {"png": "jpg", "jpg": "png"}.get(seed.name.rsplit(".")[-1], "bmp")
        yield Specimen(f"misnamed-{number}.{other}", content, seed.right, tolerance=seed.tolerance)
        yield Specimen(f"polyglot-{number}.{other}", b"GIF89a" + content, wanted="error")


def hostile() -> Iterator[Specimen]:
    """Small files that ask for much, or that say one thing and are another."""
    values = np.random.default_rng(3).integers(1, 256, (8, 8))
    right = grey(values)
    rows = b"".join(b"\0" + pack_bits(row, 8) for row in values)
    huge = zlib.compress(bytes(2**26))
    profile, text, words = b"a\0\0" + huge, b"a\0\0" + huge, b"a\0\1\0\0\0" + huge
    for name, chunks in {"profile": [(b"iCCP", profile)], "text": [(b"zTXt", text)], "unicode": [(b"iTXt", words)],
                         "texts": [(b"zTXt", text)] * 40, "size": [(b"eXIf", exif(6, more=bytes(2**24)))],
                         "chunks": [(b"tEXt", b"")] * 100_000}.items():  # fmt: skip
        yield Specimen(f"{name}.png", png(values, 8, 0, before=chunks), right, "either")
    for count in range(8):
        cut = rows[: count * 9]
        yield Specimen(f"rows-{count}.png", png(values, 8, 0, rows=cut), wanted="error")
        yield Specimen(f"rows-{count}-interlaced.png", png(values, 8, 0, rows=cut, interlaced=True), wanted="error")
    for bits, color in itertools.product((0, 3, 8, 16, 255), (1, 3, 5, 7)):
        yield Specimen(f"mode-{bits}-{color}.png", png(values, 8, 0)[:24] + bytes((bits, color)) + b"", wanted="error")
    yield Specimen("no-palette.png", png(values, 8, 3), wanted="error")
    part = struct.pack(">IIIIIHHBB", 0, 8, 4, 0, 4, 1, 1, 0, 0)  # the lower half
    content = png(values[4:], 8, 0, before=[(b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", part)])
    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    yield Specimen("part.png", PNG + chunk(b"IHDR", head) + content[33:], wanted="error")
    wide = np.random.default_rng(4).integers(0, 65536, (8, 8, 3))
    yield Specimen("deep-key.png", png(wide, 16, 2, before=[(b"tRNS", bytes(6))]), wanted="error")
    for kind, bits, form in ((1, 32, 3), (1, 32, 2), (1, 16, 2), (1, 32, 1)):
        content = tiff(values.astype(np.uint32), kind, bits, t339=(3, [form]))
        yield Specimen(f"numbers-{bits}-{form}.tif", content, wanted="error")
    yield Specimen("lab.tif", tiff(wide >> 8, 8, 8), wanted="error")
    yield Specimen("planes.tif", tiff(wide, 2, 16, planes=2), wanted="error")
    yield Specimen("strip.tif", tiff(values, 1, 8, rows_a_strip=4, t257=(4, [12])), wanted="error")
    many = (4, list(range(500_000)))
    yield Specimen("numbers.tif", tiff(values, 1, 8, t40000=many), wanted="error")
    yield Specimen("strips.tif", tiff(values, 1, 8, t273=many), wanted="error")
    jpeg = saved(smooth((9, 12)), "JPEG", quality=95)
    parts = {"stray": jpeg[:2] + bytes(5_000_000) + jpeg[2:], "comments": with_segments(jpeg, *[(0xFE, b"")] * 500_000),
             "exif": with_segments(jpeg, *[(0xE1, b"Exif\0\0" + exif(6, more=bytes(60_000)))] * 400)}  # fmt: skip
    for name, content in parts.items():
        wanted = "any" if name == "exif" else "error"
        yield Specimen(f"{name}.jpg", content, wanted=wanted)
    for height, width in ((2**31 - 1, 2**31 - 1), (13_000, 13_000), (0, 5), (5, 0), (65_535, 65_535)):
        head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        content = PNG + chunk(b"IHDR", head) + chunk(b"IDAT", huge) + chunk(b"IEND", b"")
        yield Specimen(f"bomb-{height}-{width}.png", content, wanted="error")
        place = jpeg.index(b"\xff\xc0") + 5
        size = struct.pack(">HH", height % 65536, width % 65536)
        yield Specimen(f"bomb-{height}-{width}.jpg", jpeg[:place] + size + jpeg[place + 4 :], wanted="error")
        head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        yield Specimen(f"bomb-{height}-{width}.bmp", b"BM" + struct.pack("<IHHI", 99, 0, 0, 54) + head, wanted="error")
        tags = {"t256": (4, [width]), "t257": (4, [height])}
        yield Specimen(f"bomb-{height}-{width}.tif", tiff(values, 1, 8, **tags), wanted="error")


def large() -> Iterator[Specimen]:
    """As large as is allowed, and long and narrow; of one colour. They are made when they are wanted."""
    for height, width in ((1, 20_000), (20_000, 1), (FULL, FULL)):
        name, size = f"{height}x{width}", (height, width, 3)
        bright, dark = (np.broadcast_to(np.array(color, np.uint8), size) for color in ((200, 100, 50), (100, 50, 25)))
        side = {"exif": exif(6)}
        fast = {"compress_level": 1}
        files: list[tuple[str, str, str, dict[str, Any], Any, int]] = [
            ("rgb.png", "RGB", "PNG", {**fast, **side}, turned(bright, 6), 0),
            ("rgba.png", "RGBA", "PNG", {**fast, **side}, turned(dark, 6), 0),
            ("palette.png", "P", "PNG", fast, bright, 0),
            ("rgba.tif", "RGBA", "TIFF", {"compression": "tiff_adobe_deflate"}, dark, 0),
            ("cmyk.tif", "CMYK", "TIFF", {}, bright, 2),
            ("rgb.bmp", "RGB", "BMP", {}, bright, 0),
            ("rgb.jpg", "RGB", "JPEG", {}, bright, 6),
            ("cmyk.jpg", "CMYK", "JPEG", {}, bright, 6),
            ("steps.jpg", "RGB", "JPEG", {"progressive": True, "exif": b"Exif\0\0" + exif(6)}, turned(bright, 6), 6),
        ]
        if max(height, width) < 16_384:  # WebP has no more
            lossless = {"lossless": True, "quality": 0, "method": 0}
            files += [(f"{mode}.webp", mode, "WEBP", {**lossless, **side}, turned(right, 6), 0)
                      for mode, right in (("RGB", bright), ("RGBA", dark))]  # fmt: skip
            files.append(("loss.webp", "RGB", "WEBP", {"method": 0}, bright, 12))
        for ending, mode, kind, options, right, tolerance in files:
            make = partial(one_color, mode, (width, height), kind, **options)
            yield Specimen(f"{name}-{ending}", make, right, tolerance=tolerance)
        for times in (25, 5000):
            make = partial(many_scans, (width, height), times)
            yield Specimen(f"{name}-{times}-scans.jpg", make, bright, "either", 6)
        deep = (16, 6, b"\xc8\0d\x002\0\x80\x80", 0)
        for bits, color_type, value, level in (deep, (16, 0, b"\xc8\0", 200), (1, 0, b"", 255)):
            right = np.broadcast_to(np.uint8(level), size) if level else dark
            make = partial(rows_of_one, height, width, bits, color_type, value)
            yield Specimen(f"{name}-{bits}-{color_type}.png", make, right)


def one_color(mode, size, kind, **options):
    image = Image.new("RGBA", size, (200, 100, 50, 128))
    if mode == "P":
        image = Image.new("P", size, 7)
        image.putpalette([200, 100, 50] * 256)
    return saved(image if image.mode == mode else image.convert(mode), kind, **options)


def many_scans(size, times):
    """A progressive JPEG whose last pass is there many times."""
    content: bytes = one_color("RGB", size, "JPEG", progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * times + content[-2:]


def rows_of_one(height, width, bits, color_type, value):
    """A PNG whose pixels all have the same bytes."""
    row = b"\0" + (value * width if value else b"\xff" * -(-width // 8))
    packer = zlib.compressobj(1)
    packed = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    return PNG + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
