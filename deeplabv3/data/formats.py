"""The formats that are decoded, told by their first bytes."""

from __future__ import annotations

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
"""The decoders that may see a file; others (EPS, FITS, ...) never do, whatever the file's name."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_FORMAT_OF_START = {
    PNG_SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"8BPS": "PSD",
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"SIMPLE  =": "FITS",
    b"\xd0\xcf\x11\xe0": "FPX, or another file of Microsoft's compound format",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\x01\0": "ICO",
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "GZIP",
    b"version https://git-lfs": "a pointer of Git LFS instead of the file",
}

START_BYTES = 256
"""How much of a file's beginning tells its format."""


def format_of(content: bytes) -> str:
    """What a file is by its first bytes: a format, something else in words, or "" if that is not known."""
    for start, name in _FORMAT_OF_START.items():
        if content.startswith(start):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[4:8] == b"ftyp":
        return "HEIF, AVIF or a film"
    start = content[:START_BYTES].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "HTML, perhaps a page that asks to log in"
    printable = all(byte >= 32 or byte in b"\t\n\r" for byte in content[:START_BYTES])
    return "text" if printable and content and content[:START_BYTES].isascii() else ""
