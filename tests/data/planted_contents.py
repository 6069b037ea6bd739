"""Files whose content is damaged, of another kind or not what a label may hold."""

import struct
import zlib

import numpy as np
from PIL import Image

from deeplabv3.data.labels import CITYSCAPES
from tests.data.pictures import PNG, chunk, png
from tests.data.tree import SIZE, as_png, defect, files, in_format, other_label, raw_png, save


@defect
def zero_bytes(tree):
    path = files(tree)
    path.write_bytes(b"")
    tree.expect(path, "empty-file")


@defect
def truncated_png(tree):
    path = files(tree)
    content = path.read_bytes()
    path.write_bytes(content[: tree.rng.integers(len(PNG) + 1, len(content))])
    tree.expect(path, "truncated")


@defect
def truncated_jpeg(tree):
    path = in_format(tree, ".jpg")
    content = path.read_bytes()
    path.write_bytes(content[: tree.rng.integers(30, len(content) - 2)])
    tree.expect(path, "truncated")


@defect
def truncated_webp(tree):
    path = in_format(tree, ".webp")
    content = path.read_bytes()
    path.write_bytes(content[: tree.rng.integers(20, len(content))])
    tree.expect(path, "truncated")


@defect
def truncated_tiff(tree):
    path = in_format(tree, ".tif")
    path.write_bytes(path.read_bytes()[:-40])
    tree.expect(path, "truncated")


@defect
def truncated_bmp(tree):
    path = in_format(tree, ".bmp")
    content = path.read_bytes()
    path.write_bytes(content[: tree.rng.integers(20, len(content))])
    tree.expect(path, "truncated")


@defect
def bad_checksum_of_the_pixels(tree):
    path = files(tree)
    content = bytearray(path.read_bytes())
    place = content.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", content[place - 8 : place - 4])
    content[place + int(tree.rng.integers(length))] ^= 1 << int(tree.rng.integers(8))
    path.write_bytes(content)
    tree.expect(path, "checksum")


@defect
def bad_checksum_of_the_header(tree):
    path = files(tree)
    content = bytearray(path.read_bytes())
    content[16 + int(tree.rng.integers(17))] ^= 1 << int(tree.rng.integers(8))
    path.write_bytes(content)
    tree.expect(path, "checksum")


@defect
def bad_checksum_of_the_end(tree):
    path = files(tree)
    content = bytearray(path.read_bytes())
    content[-1] ^= 16
    path.write_bytes(content)
    tree.expect(path, "checksum")


@defect
def pixels_that_cannot_be_unpacked(tree):
    path = files(tree)
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 8, 0, 0, 0, 0)
    path.write_bytes(PNG + chunk(b"IHDR", header) + chunk(b"IDAT", b"\xff" * 40) + chunk(b"IEND", b""))
    tree.expect(path, "damaged")


@defect
def too_few_pixels(tree):
    path = files(tree)
    path.write_bytes(raw_png(8, 0, rows=bytes(3 * (SIZE[1] + 1))))
    tree.expect(path, "truncated")


@defect
def random_bytes(tree):
    path = files(tree)
    path.write_bytes(b"\0\xfe" + tree.rng.bytes(300))
    tree.expect(path, "damaged")


@defect
def label_of_another_size(tree):
    frame = tree.take()
    save(tree.label_ids()[:-1], tree.labels[frame])
    tree.expect(tree.labels[frame], "size-differs")


@defect
def image_turned(tree):
    """Height and width swapped: the labels, which come second, are named."""
    frame = tree.take()
    save(tree.pixels().swapaxes(0, 1).copy(), tree.images[frame])
    tree.expect(tree.labels[frame], "size-differs")
    tree.expect(tree.instances[frame], "size-differs")


@defect
def instances_of_another_size(tree):
    path = tree.instances[tree.take()]
    save(np.full((3, 5), 26003, np.uint16), path)
    tree.expect(path, "size-differs")


@defect
def label_rgb(tree):
    other_label(tree, tree.pixels(), "label-rgb")


@defect
def label_rgba(tree):
    other_label(tree, Image.fromarray(tree.pixels()).convert("RGBA"), "label-alpha")


@defect
def label_grey_with_alpha(tree):
    other_label(tree, Image.fromarray(tree.label_ids()).convert("LA"), "label-alpha")


@defect
def label_palette(tree):
    label = Image.fromarray(tree.label_ids())
    label.putpalette(list(range(256)) * 3)
    other_label(tree, label, "label-palette")


@defect
def label_16_bit(tree):
    other_label(tree, tree.label_ids().astype(np.uint16), "label-16-bit")


@defect
def label_1_bit(tree):
    other_label(tree, Image.new("1", SIZE[::-1]), "label-few-bits")


@defect
def label_4_bit(tree):
    other_label(tree, raw_png(int(tree.rng.choice((2, 4))), 0), "label-few-bits")


@defect
def instances_rgb(tree):
    path = tree.instances[tree.take()]
    save(tree.pixels(), path)
    tree.expect(path, "instance-mode")


@defect
def instances_of_an_unknown_class(tree):
    path = tree.instances[tree.take()]
    save(np.full(SIZE, 40007, np.uint16), path)
    tree.expect(path, "unknown-id")


@defect
def one_unknown_id(tree):
    label = tree.label_ids()
    label[tree.rng.integers(1, 16), tree.rng.integers(24)] = tree.rng.integers(34, 256)
    other_label(tree, label, "unknown-id")


@defect
def many_unknown_ids(tree):
    label = tree.label_ids()
    label[2:5] = tree.rng.integers(34, 256, label[2:5].shape)
    other_label(tree, label, "unknown-id")


@defect
def ignored_as_255(tree):
    label = tree.rng.choice(np.array((7, 8, 11, 255), np.uint8), SIZE)
    other_label(tree, label, "unknown-id")


@defect
def train_ids_as_ids(tree):
    label = tree.label_ids()
    label[5, :3] = (7, 8, 0)
    other_label(tree, CITYSCAPES.train_id_of_id[label], "train-ids")


@defect
def train_ids_as_ids_without_255(tree):
    label = tree.rng.choice(np.array((0, 1, 2, 5, 10, 13), np.uint8), SIZE, p=(0.4, 0.1, 0.2, 0.1, 0.1, 0.1))
    label[0, 0] = 13
    other_label(tree, label, "train-ids")


@defect
def all_ignored(tree):
    other_label(tree, np.full(SIZE, tree.rng.integers(7), np.uint8), "all-ignored")


@defect
def all_ignored_of_many_ids(tree):
    other_label(tree, tree.rng.integers(0, 7, SIZE).astype(np.uint8), "all-ignored")


@defect
def gif_named_png(tree):
    path = files(tree)
    Image.new("L", SIZE[::-1]).save(path, "GIF")
    tree.expect(path, "wrong-format")


@defect
def jpeg_named_png(tree):
    path = files(tree)
    Image.fromarray(tree.pixels()).save(path, "JPEG")
    tree.expect(path, "wrong-format")


@defect
def png_named_jpg(tree):
    frame = tree.take()
    path = as_png(tree, frame).rename(tree.images[frame].with_suffix(".jpg"))
    tree.expect(path, "wrong-format")


@defect
def text_named_png(tree):
    path = files(tree)
    path.write_text("not found\n")
    tree.expect(path, "wrong-format")


@defect
def page_named_png(tree):
    path = files(tree)
    path.write_text("\n<!DOCTYPE html><html>log in, ä</html>", encoding="utf-8")
    tree.expect(path, "wrong-format")


@defect
def git_lfs_pointer(tree):
    path = files(tree)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n")
    tree.expect(path, "wrong-format")


@defect
def more_pixels_than_are_decoded(tree):
    path = files(tree)
    path.write_bytes(raw_png(8, 0, (20000, 20000), rows=bytes(100)))
    tree.expect(path, "too-large")


@defect
def more_bytes_than_are_read(tree):
    path = tree.labels[tree.take()]
    with path.open("r+b") as file:
        file.truncate(2**40)
    tree.expect(path, "too-large")


@defect
def label_as_jpeg(tree):
    path = tree.labels[tree.take()]
    path.unlink()
    path = path.with_suffix(".jpg")
    save(tree.label_ids(), path)
    tree.expect(path, "bad-name")


@defect
def image_as_gif(tree):
    path = tree.images[tree.take()]
    path.unlink()
    path = path.with_suffix(".gif")
    Image.fromarray(tree.pixels()).save(path)
    tree.expect(path, "bad-name")


@defect
def last_rows_missing(tree):
    """All checksums are right, and a decoder leaves the rows black."""
    path = files(tree)
    num_rows = int(tree.rng.integers(1, SIZE[0]))
    path.write_bytes(raw_png(8, 0, rows=(b"\0" + b"\7" * SIZE[1]) * num_rows))
    tree.expect(path, "truncated")


@defect
def rows_of_a_pass_missing(tree):
    path = files(tree)
    content = png(tree.label_ids(), 8, 0, interlaced=True)
    rows = zlib.decompress(b"".join(part[:-8] for part in content.split(b"IDAT")[1:])[:-8])
    path.write_bytes(png(tree.label_ids(), 8, 0, rows=rows[: -SIZE[1] - 1], interlaced=True))
    tree.expect(path, "truncated")


@defect
def image_of_floats(tree):
    path = in_format(tree, ".tif")
    Image.fromarray(tree.rng.random(SIZE, np.float32)).save(path)
    tree.expect(path, "damaged")


@defect
def strip_of_a_tiff_missing(tree):
    path = in_format(tree, ".tif")
    image = Image.fromarray(tree.pixels())
    image.save(path, tiffinfo={278: 4})
    content = path.read_bytes()
    entry = struct.pack("<HHII", 257, 4, 1, SIZE[0])
    assert entry in content
    path.write_bytes(content.replace(entry, struct.pack("<HHII", 257, 4, 1, SIZE[0] + 1)))
    tree.expect(path, "truncated")


@defect
def header_without_sense(tree):
    """Sixteen bits of a palette, under a right checksum."""
    path = files(tree)
    content = png(tree.label_ids(), 8, 0)
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 16, 3, 0, 0, 0)
    path.write_bytes(PNG + chunk(b"IHDR", header) + content[len(PNG) + 25 :])
    tree.expect(path, "damaged")


@defect
def psd_named_png(tree):
    path = files(tree)
    path.write_bytes(b"8BPS\0\1" + bytes(40))
    tree.expect(path, "wrong-format")
