"""PNGs are whole before they are decoded."""

import io
import zlib

import numpy as np
import pytest

from deeplabv3.data.findings import Unsound
from deeplabv3.data.pngs import Header, require_rows, require_whole, truncated
from tests.data.pictures import ADAM7, END, PNG, VALUES, chunk, header, png, reason


@pytest.mark.parametrize("color", range(8))
def test_png_has_the_bits_that_its_colours_allow(color):
    allowed = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.get(color, ())
    for bits in range(18):
        wanted = "" if bits in allowed else "damaged"
        assert reason(require_whole, PNG + header(bits=bits, color=color) + END) == wanted, bits


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (header(width=0) + END, "damaged"),
        (header(height=0) + END, "damaged"),
        (header(more=bytes(2**20)) + END, ""),
        (chunk(b"IHDR", bytes(12)) + END, "damaged"),
        (chunk(b"IDAT", bytes(13)) + END, "damaged"),
        (header(), "truncated"),
        (header() + END[:7], "truncated"),
        (header() + END[:-1], "truncated"),
        (header() + chunk(b"IDAT", bytes(9))[:-5], "truncated"),
        (header() + END[:-1] + b"\0", "checksum"),
        (header() + END + b"more", ""),
    ],
)
def test_png_is_whole_from_its_header_to_its_end(content, wanted):
    assert reason(require_whole, PNG + content) == wanted
    assert reason(require_whole, PNG[:-1] + b"\0" + content) == "damaged"


def test_file_that_ends_too_early_says_where():
    assert str(truncated(io.BytesIO(bytes(1_234)))).startswith("it ends too early, after 1,234 bytes; ")


def test_header_of_a_png_is_read():
    assert require_whole(io.BytesIO(png(VALUES, 8, 0, interlaced=True))) == Header(6, 4, 8, 0, True)
    assert require_whole(io.BytesIO(png(VALUES[:, :5], 4, 0))) == Header(5, 4, 4, 0, False)


def test_png_has_few_parts():
    part = chunk(b"IDAT", b"")
    assert reason(require_whole, PNG + header() + part * 199_999 + END) == ""
    assert reason(require_whole, PNG + header() + part * 200_000 + END) == "damaged"


def test_png_has_few_bytes_beside_its_pixels():
    for size, wanted in ((2**24 - 13, ""), (2**24 - 12, "damaged")):
        assert reason(require_whole, PNG + header() + chunk(b"tEXt", bytes(size)) + END) == wanted
        assert reason(require_whole, PNG + header() + chunk(b"IDAT", bytes(size)) + END) == ""


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 2), (13, 17)])
@pytest.mark.parametrize(("bits", "color"), [(1, 0), (16, 0), (8, 2), (4, 3), (16, 4), (8, 6)])
def test_bytes_of_rows_are_counted(size, bits, color, interlaced):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    values = np.zeros((*size, channels), int)
    whole = png(values, bits, color, interlaced=interlaced)
    rows = zlib.decompress(b"".join(part[:-8] for part in whole.split(b"IDAT")[1:])[:-8])
    wanted = Header(size[1], size[0], bits, color, interlaced)
    for more in (b"", b"\0", bytes(2**21)):
        content = png(values, bits, color, interlaced=interlaced, rows=rows + more)
        require_rows(io.BytesIO(content + bytes(13)), wanted)  # what follows its end is none of its parts
    text = f"it holds {len(rows) - 1:,} bytes of pixels and should hold {len(rows):,}; "
    with pytest.raises(Unsound, match=text):
        require_rows(io.BytesIO(png(values, bits, color, interlaced=interlaced, rows=rows[:-1])), wanted)


def test_bytes_of_every_pass_are_counted():
    """In all sizes up to one at which every pass has columns and rows."""
    for height, width in np.ndindex(17, 17):
        size = (height + 1, width + 1)
        content = png(np.zeros(size, int), 8, 0, interlaced=True, rows=b"")
        num_bytes = sum(rows * (columns + 1) for x, y, dx, dy in ADAM7
                        if (columns := len(range(x, size[1], dx))) * (rows := len(range(y, size[0], dy))))  # fmt: skip
        with pytest.raises(Unsound, match=f"it holds 0 bytes of pixels and should hold {num_bytes};"):
            require_rows(io.BytesIO(content), Header(size[1], size[0], 8, 0, True))


@pytest.mark.parametrize("missing", [0, 1, 2**20, 2**20 + 1])
def test_bytes_of_many_rows_are_counted(missing):
    """More than are unpacked at a time; rows of one value are packed so well that the last ones come out late."""
    height, width = 3 * 2**10, 2**10 - 1
    rows = bytes(height * (width + 1) - missing)
    content = png(np.zeros((height, width), np.uint8), 8, 0, rows=rows)
    assert reason(require_rows, content, Header(width, height, 8, 0, False)) == ("truncated" if missing else "")


def test_last_bytes_of_rows_are_counted_without_the_checksum_of_their_packing():
    """They wait within the unpacker where there was no room for them and nothing follows that would fetch them."""
    packed = zlib.compress(bytes(2**20 + 8))[:-4]
    wide = Header(2**17, 8, 8, 0, False)
    assert reason(require_rows, PNG + header(2**17, 8) + chunk(b"IDAT", packed) + END, wide) == ""


def test_rows_that_cannot_be_unpacked_are_an_error():
    content = PNG + header() + chunk(b"IDAT", b"\xff" * 9) + END
    assert reason(require_rows, content, Header(6, 4, 8, 0, False)) == "damaged"


def test_rows_end_with_their_packing():
    """Whatever follows it in the same part or the next one is none of them."""
    packed = zlib.compress(bytes(7))
    content = PNG + header() + chunk(b"IDAT", packed + zlib.compress(bytes(99))) + chunk(b"IDAT", bytes(9)) + END
    with pytest.raises(Unsound, match="it holds 7 bytes of pixels and should hold 28; "):
        require_rows(io.BytesIO(content), Header(6, 4, 8, 0, False))
