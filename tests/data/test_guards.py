"""Where the guards before a decoder draw the line: the last that passes, and the first that does not."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from deeplabv3.data.decoding import decode, header_of, one_error
from deeplabv3.data.findings import Unsound
from deeplabv3.data.formats import FORMATS, format_of
from deeplabv3.data.headers import grey_levels, require_decodable, require_few_scans, require_modest
from deeplabv3.data.images import read_image
from deeplabv3.errors import DatasetError
from tests.data.pictures import END, PNG, VALUES, bmp, exif, header, png, reason, saved, tiff, tiff_of

SCAN = b"\xff\xda\0\2"
COMMENT = b"\xff\xfe\0\2"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (PNG, "PNG"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"II*\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"BM", "BMP"),
        (b"RIFF1234WEBP", "WEBP"),
        (b"RIFF1234WAVE\0", ""),
        (b"RIFX1234WEBP\0", ""),
        (b"\0\0\0\x20ftypheic", "HEIF, AVIF or a film"),
        (b"\0\0\0\x20 ftypheic", ""),
        (b" " * 250 + b"<html>", "HTML, perhaps a page that asks to log in"),
        (b"<!DocType HTML>\0", "HTML, perhaps a page that asks to log in"),
        (b" \t\n\rabc~", "text"),
        (b"a" * 256 + b"\0\xff", "text"),
        (b"a" * 255 + b"\0", ""),
        (b"a\x1f", ""),
        (b"a\xc3\xa4", ""),
        (b"", ""),
    ],
)
def test_format_is_told_by_the_first_bytes(content, found):
    assert format_of(content) == found


def jpeg_start(*parts):
    return b"\xff\xd8" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (jpeg_start(COMMENT * 1000, SCAN), ""),
        (jpeg_start(COMMENT * 1001, SCAN), "damaged"),
        (jpeg_start(SCAN, COMMENT * 1001), ""),
        (jpeg_start(b"\xff\xfe\0\1", COMMENT * 1001), ""),
        (jpeg_start(b"\xff\xfe\0\6" + SCAN, COMMENT * 1000), "damaged"),
        (jpeg_start(b"\xff\xfe\0\6" + SCAN, COMMENT * 999), ""),
        (jpeg_start((b"\xff" + COMMENT) * 1001), "damaged"),
        (jpeg_start((b"\xff" + COMMENT) * 1000), ""),
        (jpeg_start(bytes(2**16)), ""),
        (jpeg_start(bytes(2**16 + 1)), "damaged"),
        (jpeg_start(bytes(2**16), COMMENT, SCAN), ""),
        (jpeg_start(b"\xff\0" * 2**16), ""),
        (jpeg_start(b"\xff\0" * (2**16 + 1)), "damaged"),
        (jpeg_start(b"\xff"), ""),
    ],
)
def test_jpeg_has_few_parts_before_its_pixels(content, wanted):
    assert reason(require_modest, content, "JPEG") == wanted
    assert reason(require_modest, content, "WEBP") == ""


@pytest.mark.parametrize("marker", [0x01, *range(0xD0, 0xDA)])
def test_markers_without_a_length_are_stepped_over(marker):
    assert reason(require_modest, jpeg_start(bytes((0xFF, marker)) * 2000, COMMENT * 1000), "JPEG") == ""
    assert reason(require_modest, jpeg_start(bytes((0xFF, marker)), COMMENT * 1001), "JPEG") == "damaged"


@pytest.mark.parametrize("marker", [0x02, 0xCF, 0xDB])
def test_other_markers_have_a_length(marker):
    content = jpeg_start(bytes((0xFF, marker, 0, 6)) + SCAN, COMMENT * 1000)
    assert reason(require_modest, content, "JPEG") == "damaged"


@pytest.mark.parametrize("before", [b"", bytes(2**20 - 1), bytes(2**20 - 2)])
def test_jpeg_has_few_scans(before):
    """Also where one begins at the end of what is read at a time."""
    assert reason(require_few_scans, before + SCAN * 40) == ""
    assert reason(require_few_scans, before + SCAN * 41) == "damaged"


def test_scans_are_counted_once():
    content = SCAN * 21
    assert reason(require_few_scans, content + bytes(2**20 - 1 - len(content)) + b"\xff\0") == ""


def ifd(entries, order="<", big=False):
    head, entry = ("Q", "HHQQ") if big else ("H", "HHII")
    return struct.pack(order + head, len(entries)) + b"".join(struct.pack(order + entry, *item) for item in entries)


def tiff_start(order, big):
    start = b"II" if order == "<" else b"MM"
    if big:
        return start + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    return start + struct.pack(order + "HI", 42, 8)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_of_a_tiff_hold_few_numbers(order, big):
    def found(*entries):
        return reason(require_modest, tiff_start(order, big) + ifd(entries, order, big), "TIFF")

    assert found((40000, 3, 300_000, 0)) == ""
    assert found((40000, 3, 300_001, 0)) == "damaged"
    assert found((40000, 4, 200_000, 0), (40001, 5, 100_001, 0)) == "damaged"
    for kind in range(14):
        assert found((40000, kind, 2**32 - 1, 0)) == ("" if kind in (1, 2, 7) else "damaged"), kind


def test_first_table_of_a_tiff_may_be_anywhere():
    """Even where its place looks like the mark of a large TIFF."""
    content = b"II*\0" + struct.pack("<I", ord("+")) + bytes(ord("+") - 8) + ifd([(40000, 3, 300_001, 0)])
    assert reason(require_modest, content, "TIFF") == "damaged"


def test_tags_of_exif_tables_are_counted():
    """Four tables, whatever refers to whom."""

    def chain(*counts, tag=34665):
        size = len(ifd([(0, 0, 0, 0)] * 2))
        tables = [ifd([(40000, 3, count, 0), (tag, 7, 1, 8 + (number + 1) * size)]) for number, count in
                  enumerate(counts)]  # fmt: skip
        return reason(require_modest, tiff_start("<", False) + b"".join(tables), "TIFF")

    for tag in (34665, 34853, 40965):
        assert chain(0, 300_000, tag=tag) == ""
        assert chain(0, 300_001, tag=tag) == "damaged"
    for tag in (34664, 34666, 34852, 34854, 40964, 40966):
        assert chain(0, 300_001, tag=tag) == ""
    assert chain(0, 0, 0, 300_001) == "damaged"
    assert chain(0, 0, 0, 0, 300_001) == ""


def test_table_that_is_cut_before_its_first_tag_has_none():
    assert reason(require_modest, tiff_start("<", False) + b"\1", "TIFF") == ""
    content = tiff_start("<", True) + struct.pack("<Q", 1)[:7]
    assert reason(require_modest, content, "TIFF") == ""


def test_tiles_of_a_tiff_are_all_there():
    content = tiff(np.zeros((32, 48), np.uint8), 1, 8, tiled=True)
    entry = struct.pack("<HHI", 324, 4, 6)
    assert content.count(entry) == 1
    assert undecodable(content) == ""
    assert undecodable(content.replace(entry, struct.pack("<HHI", 324, 4, 5))) == "truncated"


def test_strips_are_counted_where_pillow_would_leave_them_black():
    """What is packed has a length of its own, which its decoder looks at."""
    values = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    content = tiff(values, 2, 8, compressed=True, rows_a_strip=1)
    entry = struct.pack("<HHI", 273, 4, 4)
    assert undecodable(content.replace(entry, struct.pack("<HHI", 273, 4, 3))) == ""


def test_tags_beyond_the_end_of_a_tiff_are_none():
    full = tiff_start("<", False) + ifd([(40000, 3, 9, 0), (40000, 3, 300_001, 0)])
    assert reason(require_modest, full[:-1], "TIFF") == ""
    assert reason(require_modest, full[:9] + b"\0" * 0, "TIFF") == ""
    big = tiff_start("<", True)
    assert reason(require_modest, big + struct.pack("<Q", 2**62), "TIFF") == ""
    assert reason(require_modest, big[:8] + struct.pack("<Q", 2**64 - 1), "TIFF") == ""


def undecodable(content, num_bytes=0):
    with Image.open(io.BytesIO(content)) as image:
        return reason(lambda _: require_decodable(image, num_bytes or len(content)), b"")


def test_run_lengths_of_a_bmp_are_short():
    content = bmp(VALUES, np.zeros((256, 3), np.uint8), run_lengths=True)
    for size, num_bytes, wanted in (((2048, 2048), 2**22, ""), ((2048, 2049), 9, "too-large"),
                                    ((2048, 2048), 2**22 + 1, "too-large")):  # fmt: skip
        assert undecodable(content[:18] + struct.pack("<ii", *size) + content[26:], num_bytes) == wanted
    assert undecodable(bmp(VALUES, np.zeros((256, 3), np.uint8)), 2**22 + 1) == ""


def test_animation_is_as_large_as_its_first_picture():
    values = np.arange(64).reshape(8, 8)
    for part, wanted in (((0, 8, 8, 0, 0), ""), ((0, 8, 4, 0, 4), "damaged")):
        control = struct.pack(">IIIIIHHBB", *part, 1, 1, 0, 0)
        before = [(b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", control)]
        content = png(values[: part[2]], 8, 0, before=before)
        assert undecodable(PNG + header(8, 8) + content[33:]) == wanted


def test_sixteen_bits_in_planes_are_refused():
    wide = np.arange(4 * 6 * 3, dtype=np.uint16).reshape(4, 6, 3)
    assert undecodable(tiff(wide, 2, 16, planes=2)) == "damaged"
    assert undecodable(tiff(wide, 2, 16)) == undecodable(tiff(wide, 2, 16, planes=2, compressed=True)) == ""
    assert undecodable(tiff(wide, 2, 8, planes=2)) == ""
    assert undecodable(tiff(wide[..., 0], 1, 16, planes=2)) == ""


@pytest.mark.parametrize("planes", [1, 2])
def test_strips_of_a_tiff_are_all_there(planes):
    values = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    content = tiff(values, 2, 8, planes=planes, rows_a_strip=1)
    count = 4 if planes == 1 else 12
    entry = struct.pack("<HHI", 273, 4, count)
    assert content.count(entry) == 1
    assert undecodable(content) == ""
    assert undecodable(content.replace(entry, struct.pack("<HHI", 273, 4, count - 1))) == "truncated"


@pytest.mark.parametrize("content", [saved(VALUES, "PNG"), saved(VALUES, "BMP"), tiff(VALUES, 1, 8)])
def test_picture_that_is_loaded_is_decodable(content):
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        image.tile = []
        require_decodable(image, 2**30)


def test_grey_levels_are_those_of_the_file():
    wide = np.arange(24, dtype=np.uint16).reshape(4, 6)
    for content, wanted in ((tiff(wide, 1, 12), (12, False)), (tiff(wide, 0, 16), (16, True)),
                            (png(wide, 16, 0), (16, False))):  # fmt: skip
        with Image.open(io.BytesIO(content)) as image:
            assert grey_levels(image) == wanted


@pytest.mark.parametrize(("kind", "factor"), [("PNG", 8), ("BMP", 8), ("WEBP", 1)])
def test_file_has_bytes_for_its_pixels(kind, factor):
    content = saved(VALUES, kind)
    content += bytes(2**24 + factor * 24 - len(content))
    assert reason(decode, content, FORMATS, 24) == ""
    assert reason(decode, content + b"\0", FORMATS, 24) == "too-large"
    assert reason(decode, saved(VALUES, kind), FORMATS, 23) == "too-large"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "empty-file"),
        (b"GIF89a", "wrong-format"),
        (b"\0\1\2", "damaged"),
        (jpeg_start(COMMENT * 1001), "damaged"),
        (b"BM" + struct.pack("<IHHI", 99, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 20_000, 20_000, 1, 24, *[0] * 6),
         "too-large"),
    ],
)  # fmt: skip
def test_file_is_looked_at_before_it_is_decoded(content, wanted):
    def open_header(file):
        with header_of(file, FORMATS, 2**25):
            pass

    assert reason(open_header, content) == reason(decode, content, FORMATS, 2**25) == wanted


def test_huge_png_is_refused_in_our_words_and_not_in_pillows():
    with pytest.raises(Unsound, match=r"it has 400,000,000 pixels \(20,000x20,000, height x width\); at most 24 are"):
        decode(io.BytesIO(PNG + header(20_000, 20_000) + END), FORMATS, 24)


def test_jpeg_with_many_scans_is_not_decoded():
    content = saved(np.zeros((8, 8, 3), np.uint8), "JPEG", progressive=True)
    scan = content[content.rindex(b"\xff\xda") : -2]
    assert reason(decode, content[:-2] + scan * 40 + content[-2:], FORMATS, 64) == "damaged"


@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_transparent_grey_is_that_of_the_file(tmp_path, bits, gap):
    values = np.array([[0, 1]])
    (tmp_path / "a.png").write_bytes(png(values, bits, 0, before=[(b"tRNS", struct.pack(">H", gap))]))
    shown = values * 255 // (2**bits - 1)
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == np.where(values == gap, 0, shown)[0].tolist()


@pytest.mark.parametrize(
    ("bits", "color", "before", "wanted"),
    [
        (16, 2, [(b"tRNS", bytes(6))], "damaged"),
        (16, 2, [], ""),
        (8, 2, [(b"tRNS", bytes(6))], ""),
        (8, 3, [], "damaged"),
        (8, 3, [(b"PLTE", bytes(768))], ""),
        (4, 3, [(b"PLTE", bytes(48)), (b"tRNS", bytes(16))], ""),
    ],
)
def test_colours_that_pillow_would_mix_up_are_refused(bits, color, before, wanted):
    values = np.zeros((4, 6, 3) if color == 2 else (4, 6), np.uint16)
    assert reason(decode, png(values, bits, color, before=before), FORMATS, 24) == wanted


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Unsound("damaged", "it is odd; mend it"), "a.png cannot be read: it is odd; mend it"),
        (DatasetError("a.png holds 3; mend it"), "a.png holds 3; mend it"),
        (MemoryError(), "a.png cannot be read: it needs more memory than there is; make it smaller"),
        (OSError(13, "Permission denied"), "a.png cannot be read: Permission denied; replace the file"),
        (OSError("cut \n off"), "a.png cannot be read: cut off; replace the file"),
        (ValueError("cut \n off"), "a.png is not a sound image (cut off); replace the file"),
        (IndexError(), "a.png is not a sound image (IndexError); replace the file"),
    ],
)
def test_whatever_a_decoder_raises_is_one_line(tmp_path, error, text):
    with pytest.raises(DatasetError) as caught, one_error(tmp_path / "a.png"):
        raise error
    assert str(caught.value).removeprefix(f"{tmp_path}/") == text
    assert caught.value.__cause__ is (None if caught.value is error else error)


def test_exif_behind_the_pixels_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(png(VALUES, 8, 0, after=[(b"eXIf", exif(6))]))
    assert read_image(tmp_path / "a.png").shape == (6, 4, 3)


def test_tiff_without_strips_is_refused():
    assert undecodable(tiff_of({256: (4, [6]), 257: (4, [4]), 258: (3, [8]), 262: (3, [1]), 277: (3, [1]),
                                278: (4, [1])}, [bytes(6)])) == "truncated"  # fmt: skip
