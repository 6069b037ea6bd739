"""From a file that cannot be trusted to Pillow's image, or to one error.

Only the allowed decoders ever see a file, and only after its size, its checksums and what its header claims have been
looked at. A picture is decoded whole or not at all: Pillow's option to fill up what is missing stays off.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from deeplabv3.data.findings import Unsound
from deeplabv3.data.formats import START_BYTES, format_of
from deeplabv3.data.headers import require_decodable, require_few_scans, require_modest
from deeplabv3.data.pngs import GREY, PALETTE, RGB, Header, require_rows, require_whole
from deeplabv3.errors import DatasetError, printable

_MAX_BYTES_A_PIXEL = {"WEBP": 1}  # Pillow reads all of it into memory, and libwebp holds three pictures
_MOST_BYTES_A_PIXEL = 8  # four values of 16 bits
_MAX_OTHER_BYTES = 2**24
_MARK = 254  # of grey a value that no label has, of colours a dark red without any green and blue


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file for reading, if it is one: to open a pipe would wait for ever.

    Raises:
        Unsound: It is a folder, a device, a pipe or a socket.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise Unsound("not-a-file", f"it is {what}; give a file")
    with path.open("rb") as file:
        yield file


@contextmanager
def one_error(path: Path) -> Iterator[None]:
    """Turn whatever decoders raise for a file into one `DatasetError` of one line.

    They are written for sound files, so a damaged one may raise anything.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF data is no reason to talk; sizes are looked at here
            yield
    except Unsound as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    except DatasetError:
        raise
    except MemoryError as error:
        raise DatasetError(f"{path} cannot be read: it needs more memory than there is; make it smaller") from error
    except OSError as error:
        detail = error.strerror or printable(error) or type(error).__name__
        raise DatasetError(f"{path} cannot be read: {detail}; replace the file") from error
    except Exception as error:
        raise DatasetError(
            f"{path} is not a sound image ({printable(error) or type(error).__name__}); replace the file"
        ) from error


def content_of(path: Path, max_pixels: int) -> bytes:
    """All of a file, unless it is larger than an image of so many pixels can be.

    Raises:
        Unsound: It is too large, or no file.
        OSError: It cannot be read.
    """
    with opened(path) as file:
        _require_few_bytes(file, format_of(file.read(START_BYTES)), max_pixels)
        file.seek(0)
        return file.read()


def decode(file: BinaryIO, formats: tuple[str, ...], max_pixels: int) -> tuple[Image.Image, Header | None]:
    """Check and decode a file by the allowed decoders alone.

    Args:
        file: Stands anywhere; left anywhere.
        formats: Some of `FORMATS`.
        max_pixels: More are not decoded.

    Returns:
        The image, of which the first one is loaded where there are several, and the header if it is a PNG.

    Raises:
        Unsound: What is wrong is known. Pillow may raise anything else.
    """
    found = _format(file, formats)
    num_bytes = _require_few_bytes(file, found, max_pixels)
    header = None
    if found == "PNG":
        header = require_whole(file)
        require_few_pixels(header.width, header.height, max_pixels)
    require_modest(file, found)
    with _image(file, found, max_pixels) as image:
        require_decodable(image, num_bytes)
        if found == "JPEG":
            require_few_scans(file)
        if header is not None:
            _fit_transparency(image, header)
            _mark_last_row(image)
        image.load()
    if header is not None and (header.interlaced or _ends_marked(image)):
        require_rows(file, header)
    return image, header


@contextmanager
def header_of(file: BinaryIO, formats: tuple[str, ...], max_pixels: int) -> Iterator[Image.Image]:
    """An image whose header alone has been read.

    Args and Raises are those of `decode`.
    """
    found = _format(file, formats)
    require_modest(file, found)
    with _image(file, found, max_pixels) as image:
        yield image


def require_few_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse more pixels than are to be decoded.

    Raises:
        Unsound: There are more.
    """
    if width * height > max_pixels:
        seen = f"it has {width * height:,} pixels ({height:,}x{width:,}, height x width)"
        raise Unsound("too-large", f"{seen}; at most {max_pixels:,} are decoded: make it smaller")


@contextmanager
def _image(file: BinaryIO, found: str, max_pixels: int) -> Iterator[Image.Image]:
    """The image of a file, opened and not loaded."""
    file.seek(0)
    try:
        image = Image.open(file, formats=(found,))
    except Image.DecompressionBombError as error:
        raise Unsound("too-large", f"{error}; make it smaller".replace(".;", ";")) from error
    with image:
        require_few_pixels(*image.size, max_pixels)
        yield image


def _format(file: BinaryIO, formats: tuple[str, ...]) -> str:
    """The format, which is an allowed one."""
    file.seek(0)
    start = file.read(START_BYTES)
    found = format_of(start)
    if found in formats:
        return found
    if not start:
        raise Unsound("empty-file", "it has 0 bytes; copy or download it anew")
    allowed = f"not one of {', '.join(formats)}; save it as one of them, or copy or download it anew"
    if not found:
        raise Unsound("damaged", f"it is damaged, or {allowed}")
    raise Unsound("wrong-format", f"it holds {found} and {allowed}")


def _require_few_bytes(file: BinaryIO, found: str, max_pixels: int) -> int:
    """The size in bytes, which fits to the number of pixels: a decoder may read all of it into memory."""
    num_bytes = file.seek(0, 2)
    allowed = _MAX_OTHER_BYTES + _MAX_BYTES_A_PIXEL.get(found, _MOST_BYTES_A_PIXEL) * max_pixels
    if num_bytes > allowed:
        text = f"it has {num_bytes:,} bytes; at most {allowed:,} are read for {max_pixels:,} pixels: save it anew"
        raise Unsound("too-large", text)
    return num_bytes


def _fit_transparency(image: Image.Image, header: Header) -> None:
    """Bring the transparent colour of a PNG to the range that Pillow's pixels have, which Pillow forgets.

    Raises:
        Unsound: The file has no palette where it needs one, or a transparent colour of 3x16 bits, of which Pillow's
            pixels have lost the lower half.
    """
    if header.color == PALETTE and image.palette is None:
        raise Unsound("damaged", "it has numbers of colours and no palette; save it anew")
    color = image.info.get("transparency")
    if color is None:
        return
    if header.color == GREY and 1 < header.bits < 8:
        image.info["transparency"] = color * 255 // (2**header.bits - 1)
    if header.color == RGB and header.bits == 16:
        text = "it has 16 bits a value and a transparent colour, which is not decoded; save it with an alpha channel"
        raise Unsound("damaged", text)


def _mark_last_row(image: Image.Image) -> None:
    """Give an image that is not loaded the memory for its rows, and its last row a value that few pictures end with."""
    blank = Image.new(image.mode, image.size, None)
    blank.paste(_MARK, (0, image.height - 1, image.width, image.height))
    image.im = blank.im


def _ends_marked(image: Image.Image) -> bool:
    """Whether all of the last row still has that value: it is missing, or the picture really ends so.

    To count the rows means to unpack them once more, which takes as long again for a label, so hardly any picture
    should need it. Black, which Pillow would leave, ends many.
    """
    last = image.crop((0, image.height - 1, image.width, image.height))
    marked = Image.new(image.mode, last.size, None)
    marked.paste(_MARK, (0, 0, *last.size))
    return last.tobytes() == marked.tobytes()
