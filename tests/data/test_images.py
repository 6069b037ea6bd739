import itertools
import os
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageOps

from deeplabv3.data.images import as_shown, image_size, read_image, read_instances, read_label, read_label_values
from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX
from deeplabv3.errors import DatasetError
from tests.data.pictures import png


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_formats_are_read_as_they_are(tmp_path, picture, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture).save(path, lossless=True)
    np.testing.assert_array_equal(read_image(path), picture)


def test_jpeg(tmp_path):
    Image.new("RGB", (8, 6), (200, 10, 30)).save(tmp_path / "a.jpg", quality=95)
    assert abs(read_image(tmp_path / "a.jpg").astype(int) - [200, 10, 30]).max() < 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path, picture, mode):
    image = Image.fromarray(picture).convert(mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_transparency_is_laid_over_black(tmp_path):
    Image.fromarray(np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8)).save(
        tmp_path / "a.png"
    )
    assert read_image(tmp_path / "a.png")[0].tolist() == [[200, 100, 50], [0, 0, 0], [40, 20, 10]]


def test_broken_exif_is_one_error(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "a.webp", exif=exif)
    content = (tmp_path / "a.webp").read_bytes()
    for position in range(content.index(b"EXIF"), len(content)):
        (tmp_path / "a.webp").write_bytes(content[:position] + b"\xff" + content[position + 1 :])
        for read in (read_image, image_size):
            with suppress(DatasetError):
                read(tmp_path / "a.webp")


def test_size_is_that_of_the_picture_as_shown(tmp_path, picture):
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
        assert image_size(tmp_path / "a.png") == read_image(tmp_path / "a.png").shape[:2]


def test_sixteen_bits_become_eight(tmp_path):
    Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 255]


def test_image_is_turned_as_a_viewer_turns_it(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(picture, -1))


def test_label_ids_become_train_ids(tmp_path):
    Image.fromarray(np.array([[7, 8, 0, 33]], np.uint8)).save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png", CITYSCAPES).tolist() == [[0, 1, IGNORE_INDEX, 18]]


def test_train_ids_stay(tmp_path):
    Image.fromarray(np.array([[0, 18, 255]], np.uint8)).save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png", CITYSCAPES, train_ids=True).tolist() == [[0, 18, 255]]


@pytest.mark.parametrize("train_ids", [False, True])
def test_classes_left_out_do_not_move_the_files_values(tmp_path, train_ids):
    labels = CITYSCAPES.without(["road", "bicycle"]).without(["building"])
    assert labels.names[:3] == ("sidewalk", "wall", "fence")
    values = [0, 1, 2, 3, 18, 255] if train_ids else [7, 8, 11, 12, 33, 0]
    Image.fromarray(np.array([values], np.uint8)).save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png", labels, train_ids=train_ids).tolist() == [[255, 0, 255, 1, 255, 255]]


@pytest.mark.parametrize(("value", "train_ids", "allowed"), [(34, False, "0-33"), (19, True, "0-18, 255")])
def test_value_outside_the_table_is_named(tmp_path, value, train_ids, allowed):
    Image.fromarray(np.array([[7, value]], np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=rf"a.png holds the value {value}.*\({allowed}\)"):
        read_label(tmp_path / "a.png", CITYSCAPES, train_ids=train_ids)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "LA"])
def test_label_with_another_mode_is_refused(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=f"mode {mode}"):
        read_label(tmp_path / "a.png", CITYSCAPES)


def test_palette_label_is_read_by_its_indices(tmp_path):
    image = Image.fromarray(np.array([[7, 8]], np.uint8), "L")
    image.putpalette([9] * 768)
    image.save(tmp_path / "a.png")
    assert read_label(tmp_path / "a.png", CITYSCAPES).tolist() == [[0, 1]]


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(20)])
def test_broken_file_is_one_error(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DatasetError, match="a.png"):
        read_image(tmp_path / "a.png")


def test_missing_file_says_so(tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        read_image(tmp_path / "a.png")


def test_other_formats_never_reach_a_decoder(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(DatasetError, match="not one of PNG, JPEG"):
        read_image(tmp_path / "a.png")


ALLOWED_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
LABEL = np.random.default_rng(0).integers(0, 34, (12, 24), dtype=np.uint8)


def test_no_flipped_byte_changes_a_label_silently(tmp_path):
    """Not one is even read: each byte is under some checksum."""
    path = tmp_path / "a.png"
    Image.fromarray(LABEL).save(path)
    content = path.read_bytes()
    for position, mask in itertools.product(range(len(content)), (0x01, 0x80, 0xFF)):
        path.write_bytes(content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :])
        with pytest.raises(DatasetError, match="a.png cannot be read: .*; "):
            read_label(path, CITYSCAPES)


def test_every_truncation_of_a_label_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(LABEL).save(path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DatasetError, match="a.png cannot be read: .*; "):
            read_label(path, CITYSCAPES)


@pytest.mark.parametrize("read", [read_label_values, read_instances])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_values_of_few_bits_are_no_class_numbers(tmp_path, read, bits):
    """Pillow would spread them over 0..255."""
    values = np.array([[0, 1], [1, 0]])
    (tmp_path / "a.png").write_bytes(png(values, bits, 0))
    if bits == 8:
        np.testing.assert_array_equal(read(tmp_path / "a.png"), values)
    else:
        with pytest.raises(DatasetError, match=f"a.png has ({bits} bits a pixel|mode 1); "):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_image, read_label_values, read_instances])
def test_huge_file_is_refused_before_it_is_read(tmp_path, read):
    (tmp_path / "a.png").write_bytes(png(LABEL, 8, 0))
    with (tmp_path / "a.png").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(DatasetError, match="a.png cannot be read: it has 1,099,511,627,776 bytes; at most"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("read", [read_image, read_label_values, read_instances])
def test_missing_rows_are_an_error_and_not_black(tmp_path, read, interlaced):
    """Whole rows and parts of them, all checksums being right."""
    whole = png(LABEL + 1, 8, 0, interlaced=interlaced)
    rows = zlib.decompress(b"".join(part[:-8] for part in whole.split(b"IDAT")[1:])[:-8])
    for length in range(len(rows)):
        (tmp_path / "a.png").write_bytes(png(LABEL, 8, 0, rows=rows[:length], interlaced=interlaced))
        with pytest.raises(DatasetError, match="a.png cannot be .*; .*(anew|replace the file)"):
            read(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(whole)
    assert read(tmp_path / "a.png").max() == 34


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("bits", "color"), [(bits, color) for color, allowed in ALLOWED_BITS.items() for bits in allowed]
)
def test_last_row_is_missed_in_every_mode(tmp_path, rng, bits, color, interlaced):
    """And is not missed where it is there, whatever its value."""
    channels = {2: 3, 4: 2, 6: 4}.get(color, 1)
    extra = [(b"PLTE", rng.bytes(3 * 2**bits))] if color == 3 else []
    values = rng.integers(0, 2**bits, (9, 11, channels))
    for number in range(2**bits if bits < 16 else 3):
        values[-1] = number if bits < 16 else (0, 254 * 257, 254)[number]
        content = png(values, bits, color, before=extra, interlaced=interlaced)
        (tmp_path / "a.png").write_bytes(content)
        assert read_image(tmp_path / "a.png").shape == (9, 11, 3)
    rows = zlib.decompress(b"".join(part[:-8] for part in content.split(b"IDAT")[1:])[:-8])
    row = 1 + -(-11 * channels * bits // 8)
    (tmp_path / "a.png").write_bytes(png(values, bits, color, before=extra, rows=rows[:-row], interlaced=interlaced))
    with pytest.raises(DatasetError, match="it holds .* bytes of pixels and should hold|truncated"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 2), (13, 17)])
def test_black_rows_are_no_missing_ones(tmp_path, size, interlaced):
    (tmp_path / "a.png").write_bytes(png(np.zeros(size, np.uint8), 8, 0, interlaced=interlaced))
    assert read_label_values(tmp_path / "a.png").shape == size
    assert read_image(tmp_path / "a.png").max() == 0


def test_size_is_capped_and_the_cap_is_named(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (30, 20)).save(path)
    assert read_image(path, max_pixels=600).shape == (20, 30, 3)
    wanted = (
        r"a.png cannot be read: it has 600 pixels \(20x30, height x width\); at most 599 are decoded: make it smaller"
    )
    with pytest.raises(DatasetError, match=wanted):
        read_image(path, max_pixels=599)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_an_8k_frame_is_decoded_and_more_is_not(tmp_path, suffix):
    for height, width in ((4320, 7680), (4400, 7680)):
        Image.new("1" if suffix in ("png", "tif", "bmp") else "L", (width, height)).save(
            tmp_path / f"{height}.{suffix}"
        )
    assert read_image(tmp_path / f"4320.{suffix}").shape == (4320, 7680, 3)
    for read in (read_image, image_size):
        with pytest.raises(DatasetError, match="33,792,000 pixels"):
            read(tmp_path / f"4400.{suffix}")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    for name, what in (("a", "a device, pipe or socket"), ("b", "a folder")):
        for read in (read_image, read_label_values, read_instances, image_size):
            with pytest.raises(DatasetError, match=f"{name}.png cannot be read: it is {what}; give a file"):
                read(tmp_path / f"{name}.png")


def test_too_little_memory_is_one_error(tmp_path, picture, monkeypatch):
    Image.fromarray(picture).save(tmp_path / "a.png")

    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr("PIL.Image.core.new", refuse)
    with pytest.raises(DatasetError, match="a.png cannot be read: it needs more memory than there is; make it smaller"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["I", "F", "LAB", "HSV"])
def test_numbers_without_a_brightness_are_refused(mode):
    with pytest.raises(DatasetError, match=f"its mode is {mode}, .*; allowed are RGB, grey"):
        as_shown(Image.new(mode, (3, 2)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_pillow_turns_them(picture, orientation):
    image = Image.fromarray(picture)
    image.getexif()[0x0112] = orientation
    shown = as_shown(image)
    np.testing.assert_array_equal(shown, np.asarray(ImageOps.exif_transpose(image)))
    assert shown.flags.c_contiguous


def test_every_alpha_is_laid_over_black_with_the_nearest_value():
    color, alpha = np.meshgrid(np.arange(256), np.arange(256))
    image = Image.fromarray(np.stack([color, color, color, alpha], -1).astype(np.uint8))
    np.testing.assert_array_equal(as_shown(image)[..., 0], (color * alpha * 2 + 255) // 510)
