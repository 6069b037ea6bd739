"""A sound data set, and every kind of defect that can be planted in it, with what a check must say then."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from deeplabv3.data.checking import check_dataset
from deeplabv3.data.labels import CITYSCAPES
from tests.data.pictures import PNG, chunk, png

SIZE = (16, 24)
IDS = np.array([row.id for row in CITYSCAPES.classes], np.uint8)
SUFFIXES = (".png", ".png", ".png", ".jpg", ".webp", ".tif", ".bmp")
DEFECTS: dict[str, Callable[["Tree"], None]] = {}


class Tree:
    """A sound data set of few tiny frames in two splits and three cities, and what was planted in it."""

    def __init__(self, root: Path, rng: np.random.Generator) -> None:
        self.root, self.rng = root, rng
        self.expected: set[tuple[str, str]] = set()
        self.frames = [("train", f"{city}_000000_00000{i}") for city in ("aachen", "bochum") for i in range(3)]
        self.frames += [("val", f"{city}_000001_00000{i}") for city in ("aachen", "ulm") for i in range(2)]
        self.images, self.labels, self.instances, self.untouched = {}, {}, {}, list(self.frames)
        for split, name in self.frames:
            image, label = self.pixels(), self.label_ids()
            suffix = str(rng.choice(SUFFIXES))
            key = (split, name)
            self.images[key] = self.write(f"leftImg8bit/{split}/{{}}/{name}_leftImg8bit{suffix}", image)
            self.labels[key] = self.write(f"gtFine/{split}/{{}}/{name}_gtFine_labelIds.png", label)
            instances = label.astype(np.uint16)
            instances[instances >= 24] = instances[instances >= 24] * 1000 + 3
            self.instances[key] = self.write(f"gtFine/{split}/{{}}/{name}_gtFine_instanceIds.png", instances)

    def pixels(self):
        return self.rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)

    def label_ids(self):
        label = self.rng.choice(IDS, SIZE)
        label[0, :8] = (7, 8, 11, 21, 23, 26, 24, 33)
        return label

    def write(self, pattern, array):
        name = pattern.rsplit("/", 1)[1]
        path = self.root / pattern.format(name.split("_")[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        save(array, path)
        return path

    def take(self, split="train"):
        """A frame that nothing is planted in yet."""
        own = [frame for frame in self.untouched if frame[0] == split]
        frame = own[self.rng.integers(len(own))]
        self.untouched.remove(frame)
        return frame

    def expect(self, path, reason):
        self.expected.add((path.relative_to(self.root).as_posix(), reason))

    def found(self, **options):
        findings = check_dataset(self.root, ("train", "val"), CITYSCAPES, num_workers=0, **options)
        assert len(findings.findings) == len({(f.path, f.reason) for f in findings.findings})
        return {(finding.path.relative_to(self.root).as_posix(), finding.reason) for finding in findings.findings}


def save(array, path):
    options = {".webp": {"lossless": True}}.get(path.suffix, {})
    Image.fromarray(array).save(path, **options)


def raw_png(bits, color, size=SIZE, rows=None):
    header = struct.pack(">IIBBBBB", size[1], size[0], bits, color, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(-(-size[1] * bits // 8)) for _ in range(size[0])) if rows is None else rows
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def defect(function):
    DEFECTS[function.__name__] = function
    return function


def files(tree, split="train"):
    """An image, a label or instance ids of a frame that nothing is planted in, as PNG."""
    frame = tree.take(split)
    kind = int(tree.rng.integers(3))
    path = (tree.images, tree.labels, tree.instances)[kind][frame]
    return as_png(tree, frame) if kind == 0 else path


def as_png(tree, frame):
    path = tree.images[frame]
    if path.suffix != ".png":
        path.unlink()
        path = path.with_suffix(".png")
        save(tree.pixels(), path)
        tree.images[frame] = path
    return path


def in_format(tree, suffix):
    frame = tree.take()
    path = tree.images[frame]
    path.unlink()
    tree.images[frame] = path = path.with_suffix(suffix)
    save(tree.pixels(), path)
    return path


def other_label(tree, array_or_bytes, reason):
    path = tree.labels[tree.take()]
    if isinstance(array_or_bytes, bytes):
        path.write_bytes(array_or_bytes)
    else:
        array_or_bytes.save(path) if isinstance(array_or_bytes, Image.Image) else save(array_or_bytes, path)
    tree.expect(path, reason)


@defect
def image_without_label(tree):
    frame = tree.take()
    tree.labels[frame].unlink()
    tree.expect(tree.images[frame], "no-label")


@defect
def label_without_image(tree):
    frame = tree.take("val")
    tree.images[frame].unlink()
    tree.expect(tree.labels[frame], "no-image")


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
def dangling_link(tree):
    path = files(tree)
    path.unlink()
    path.symlink_to(tree.root / "nowhere.png")
    tree.expect(path, "dangling-link")


@defect
def folder_under_the_name_of_a_file(tree):
    path = files(tree)
    path.unlink()
    path.mkdir()
    tree.expect(path, "not-a-file")


@defect
def pipe_under_the_name_of_a_file(tree):
    path = files(tree)
    path.unlink()
    os.mkfifo(path)
    tree.expect(path, "not-a-file")


@defect
def frame_twice_in_a_split(tree):
    frame = tree.take()
    path = as_png(tree, frame).with_suffix(".jpg")
    save(tree.pixels(), path)
    tree.expect(path, "frame-twice")


@defect
def frame_in_two_splits(tree):
    _, name = frame = tree.take()
    city = name.split("_")[0]
    for path in (tree.images[frame], tree.labels[frame]):
        copy = tree.root / str(path.relative_to(tree.root)).replace("/train/", "/val/")
        copy.parent.mkdir(exist_ok=True)
        array = tree.pixels() if path == tree.images[frame] else tree.label_ids()
        save(array, copy)
    assert city in str(copy)
    tree.expect(tree.images[frame], "in-two-splits")


@defect
def same_file_under_another_name_in_val(tree):
    train, val = tree.take(), tree.take("val")
    path = tree.images[val]
    path.unlink()
    tree.images[val] = path = path.with_suffix(tree.images[train].suffix)
    path.write_bytes(tree.images[train].read_bytes())
    tree.expect(tree.images[train], "same-image")


@defect
def same_pixels_saved_anew_in_val(tree):
    train, val = tree.take(), tree.take("val")
    save(np.asarray(Image.open(as_png(tree, train))), as_png(tree, val))
    tree.expect(tree.images[train], "same-image")


@defect
def more_pixels_than_are_decoded(tree):
    path = files(tree)
    path.write_bytes(raw_png(8, 0, (20000, 20000), rows=bytes(100)))
    tree.expect(path, "too-large")


@defect
def label_among_the_images(tree):
    """The label of a frame, which then lacks none: it only lies in the wrong place."""
    frame = tree.take()
    path = tree.labels[frame].rename(tree.images[frame].parent / tree.labels[frame].name)
    tree.expect(path, "misplaced")


@defect
def image_among_the_labels(tree):
    frame = tree.take()
    path = tree.images[frame].rename(tree.labels[frame].parent / tree.images[frame].name)
    tree.expect(path, "misplaced")


@defect
def label_in_another_city(tree):
    path = tree.labels[tree.take()]
    city = {"aachen": "bochum", "bochum": "aachen"}[path.parent.name]
    tree.expect(path.rename(path.parent.parent / city / path.name), "misplaced")


@defect
def frame_in_another_city(tree):
    frame = tree.take()
    for path in (tree.images[frame], tree.labels[frame], tree.instances[frame]):
        city = {"aachen": "bochum", "bochum": "aachen"}[path.parent.name]
        tree.expect(path.rename(path.parent.parent / city / path.name), "misplaced")


@defect
def labels_in_another_split(tree):
    frame = tree.take()
    for path in (tree.labels[frame], tree.instances[frame]):
        target = tree.root / str(path.relative_to(tree.root)).replace("/train/", "/val/")
        target.parent.mkdir(exist_ok=True)
        tree.expect(path.rename(target), "misplaced")


@defect
def image_without_a_city(tree):
    path = tree.images[tree.take()]
    tree.expect(path.rename(path.parent.parent / path.name), "misplaced")


@defect
def label_too_deep(tree):
    path = tree.labels[tree.take()]
    (path.parent / "more").mkdir(exist_ok=True)
    tree.expect(path.rename(path.parent / "more" / path.name), "misplaced")


@defect
def image_without_the_ending(tree):
    path = tree.images[tree.take()]
    tree.expect(path.rename(path.with_name(path.name.replace("_leftImg8bit", ""))), "bad-name")


@defect
def label_without_the_ending(tree):
    path = tree.labels[tree.take()]
    tree.expect(path.rename(path.with_name(path.name.replace("_gtFine_labelIds", ""))), "bad-name")


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
def suffix_in_capitals(tree):
    frame = tree.take()
    path = (tree.images, tree.labels)[tree.rng.integers(2)][frame]
    tree.expect(path.rename(path.with_suffix(path.suffix.upper())), "wrong-case")


@defect
def ending_in_small_letters(tree):
    frame = tree.take()
    path = (tree.images, tree.labels)[tree.rng.integers(2)][frame]
    name = path.name.replace("_leftImg8bit", "_leftimg8bit").replace("_labelIds", "_labelids")
    tree.expect(path.rename(path.with_name(name)), "wrong-case")


@defect
def system_that_cannot_read(tree):
    """A file of the system that nobody can read, whatever his rights."""
    path = files(tree)
    path.unlink()
    path.symlink_to("/proc/self/mem")
    tree.expect(path, "unreadable")


@defect
def link_to_itself(tree):
    path = files(tree)
    path.unlink()
    path.symlink_to(path.name)
    tree.expect(path, "unreadable")


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


SOUND = {
    "RGBA": lambda image: image.convert("RGBA"),
    "L": lambda image: image.convert("L"),
    "LA": lambda image: image.convert("LA"),
    "P": lambda image: image.convert("P"),
    "1": lambda image: image.convert("1"),
    "I;16": lambda image: Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257),
}


def make_sound(tree):
    """Things that are unusual and no defect."""
    mode = str(tree.rng.choice(list(SOUND)))
    frame = tree.take("val") if tree.rng.random() < 0.5 else tree.take()
    SOUND[mode](Image.fromarray(tree.pixels())).save(as_png(tree, frame))
    tree.instances[tree.take()].unlink()
    gone = tree.take()
    tree.images[gone].unlink()
    tree.labels[gone].unlink()
    for name in (".DS_Store", "._x_leftImg8bit.png", "Thumbs.db", "notes.txt"):
        (tree.images[frame].parent / name).write_text("x")
    stem = tree.labels[frame].name.removesuffix("_labelIds.png")
    for kind in ("color.png", "instanceTrainIds.png", "polygons.json"):
        (tree.labels[frame].parent / f"{stem}_{kind}").write_text("not looked at")
