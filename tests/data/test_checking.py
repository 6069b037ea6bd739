"""Planted defects: exactly the planted files are named, with the right reason, and nothing else."""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplabv3.data import looking, pngs, remembering
from deeplabv3.data.checking import check_dataset
from deeplabv3.data.cityscapes import find_labelled, read_sample
from deeplabv3.data.findings import REASONS
from deeplabv3.data.labels import CITYSCAPES, LabelSet
from deeplabv3.data.remembering import memory_path
from deeplabv3.errors import DatasetError
from deeplabv3.report.balance import balance_png
from deeplabv3.report.defects import balance_table, defect_list, to_json
from tests.conftest import REPOSITORY

SIZE = (16, 24)
IDS = np.array([row.id for row in CITYSCAPES.classes], np.uint8)
PNG = b"\x89PNG\r\n\x1a\n"
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


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


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


def test_there_are_enough_kinds():
    assert len(DEFECTS) >= 40


@pytest.mark.parametrize("name", DEFECTS)
def test_planted_defect_is_found_and_nothing_else(tmp_path, name):
    for seed in range(4):
        tree = Tree(tmp_path / str(seed), np.random.default_rng([seed, len(name)]))
        DEFECTS[name](tree)
        assert tree.found() == tree.expected != set(), (name, seed)


@pytest.mark.parametrize("seed", range(60))
def test_several_defects_are_all_found_in_one_pass(tmp_path, seed):
    rng = np.random.default_rng([7, seed])
    tree = Tree(tmp_path, rng)
    make_sound(tree)
    assert tree.found() == set()
    for name in rng.choice(sorted(DEFECTS), 3, replace=False):
        DEFECTS[name](tree)
    assert tree.found() == tree.found(remembered=True) == tree.expected
    bad = {tmp_path / path for path, _ in tree.expected}
    for split in ("train", "val"):
        for sample in find_labelled(tmp_path, split, bad):
            read_sample(sample, CITYSCAPES)


def test_interlaced_png_is_sound(tmp_path):
    """Every pass of it is counted, in sizes at which some passes are empty."""
    for height, width in ((1, 1), (1, 9), (5, 2), (13, 17)):
        rows = sum(-((y - height) // dy) * (1 + -((x - width) // dx)) for x, y, dx, dy in pngs._ADAM7 if width > x)
        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
        content = PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(content)
        facts = looking.look_at((tmp_path / "a.png", "labelIds"))
        assert (facts.faults, facts.size, facts.counts) == ((), (height, width), ((0, height * width),))


def test_every_truncation_of_a_png_is_found(tmp_path, rng):
    path = tmp_path / "a.png"
    Image.fromarray(rng.choice(IDS, (5, 7))).save(path)
    content = path.read_bytes()
    for length in range(len(PNG), len(content)):
        path.write_bytes(content[:length])
        assert [fault.reason for fault in looking.look_at((path, "labelIds")).faults] == ["truncated"], length


def test_every_flipped_bit_of_a_label_is_found(tmp_path, rng):
    path = tmp_path / "a.png"
    Image.fromarray(rng.choice(IDS, (5, 7))).save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (1, 16, 128):
            changed = bytearray(content)
            changed[place] ^= bit
            path.write_bytes(changed)
            assert looking.look_at((path, "labelIds")).faults, (place, bit)


@pytest.mark.parametrize("folder", ["leftImg8bit", "gtFine"])
def test_missing_split_is_one_finding(tmp_path, rng, folder):
    tree = Tree(tmp_path, rng)
    (tmp_path / folder / "val").rename(tmp_path / "elsewhere")
    tree.expect(tmp_path / folder / "val", "missing-split")
    assert tree.found() == tree.expected


def test_empty_split_is_one_finding(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    for split, name in tree.frames:
        if split == "val":
            tree.images[split, name].unlink()
    tree.expect(tmp_path / "leftImg8bit" / "val", "empty-split")
    assert tree.found() == tree.expected


def test_split_without_public_labels_needs_none(tmp_path, rng):
    for name in ("a_0", "a_1"):
        path = tmp_path / "leftImg8bit" / "test" / "a" / f"{name}_leftImg8bit.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), path)
    assert check_dataset(tmp_path, ("test",), CITYSCAPES).findings == ()
    label = tmp_path / "gtFine" / "test" / "a" / "a_0_gtFine_labelIds.png"
    label.parent.mkdir(parents=True)
    save(np.full((4, 6), 3, np.uint8), label)
    assert check_dataset(tmp_path, ("test",), CITYSCAPES).findings == ()


def test_file_that_may_not_be_read(tmp_path, rng, monkeypatch):
    """The system lets root read everything, so that it is made to refuse; and it is asked again the next time."""
    tree = Tree(tmp_path, rng)
    path = tree.labels[tree.take()]
    read = Path.read_bytes

    def refuse(self):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert tree.found() == {(path.relative_to(tmp_path).as_posix(), "unreadable")}
    assert tree.found(remembered=True) == set()


def test_folder_that_may_not_be_listed(tmp_path, rng, monkeypatch):
    tree = Tree(tmp_path, rng)
    folder, scandir = tmp_path / "gtFine" / "val" / "ulm", os.scandir

    def refuse(path):
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    images = {tree.images[frame] for frame in tree.frames if frame[1].startswith("ulm")}
    for path in images:
        tree.expect(path, "no-label")
    tree.expect(folder, "unreadable")
    assert tree.found() == tree.expected


def test_real_cities_may_be_links(tmp_path, rng):
    tree = Tree(tmp_path / "d", rng)
    city = tmp_path / "d" / "leftImg8bit" / "train" / "aachen"
    city.rename(tmp_path / "aachen")
    city.symlink_to(tmp_path / "aachen")
    assert tree.found() == set()


def test_whole_split_of_train_ids(tmp_path, rng):
    """Even labels whose values could be those of ids, because the others cannot."""
    tree = Tree(tmp_path, rng)
    for split, name in tree.frames:
        if split == "val":
            values = (0, 1, 2, 4) if name.endswith("0") else (0, 2, 8, 10)
            save(rng.choice(np.array(values, np.uint8), SIZE), tree.labels[split, name])
            tree.expect(tree.labels[split, name], "train-ids")
    assert tree.found() == tree.expected


@pytest.mark.parametrize("ids", [(7, 8), (1, 7, 8, 11), (0, 3, 7, 8, 11, 17), (7, 11, 12, 13)])
def test_few_label_ids_are_not_taken_for_train_ids(tmp_path, rng, ids):
    tree = Tree(tmp_path, rng)
    for path in tree.labels.values():
        save(rng.choice(np.array(ids, np.uint8), SIZE, p=[0.3 / (len(ids) - 2)] * (len(ids) - 2) + [0.4, 0.3])
             if len(ids) > 2 else rng.choice(np.array(ids, np.uint8), SIZE), path)  # fmt: skip
    assert tree.found() == set()


def test_train_id_files_and_own_classes(tmp_path, rng):
    labels = LabelSet.from_dict(
        {
            "classes": [{"name": "a", "id": 4, "color": [1, 2, 3]}, {"name": "b", "id": 9, "color": [3, 2, 1]}],
            "ignored_ids": [0],
        }
    )
    for index, (kind, values) in enumerate((("labelIds", (0, 4, 9)), ("labelTrainIds", (0, 1, 255)))):
        for folder, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", f"gtFine_{kind}")):
            path = tmp_path / folder / "train" / "x" / f"f{index}_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(rng.integers(0, 9, (6, 8), dtype=np.uint8), path)
        label = np.full((6, 8), values[0], np.uint8)
        label[0, :3] = values
        label[1, :] = values[1]
        save(label, path)
    findings = check_dataset(tmp_path, ("train",), labels)
    assert findings.findings == ()
    counts = findings.splits["train"]
    assert (counts.num_frames, counts.frames, counts.ignored_pixels) == (2, (2, 2), 39)
    assert counts.pixels == (9 + 38, 1 + 9)


def test_counts_are_those_of_the_labels(streets):
    findings = check_dataset(streets, ("train", "val"), CITYSCAPES)
    for split, counts in findings.splits.items():
        labels = [read_sample(sample, CITYSCAPES)[1] for sample in find_labelled(streets, split)]
        pixels = sum(np.bincount(label.ravel(), minlength=256) for label in labels)
        assert counts.pixels == tuple(pixels[:19])
        assert counts.ignored_pixels == pixels[255]
        assert counts.frames == tuple(sum((label == k).any() for label in labels) for k in range(19))
        assert counts.num_frames == len(labels)


def test_workers_change_nothing(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    for name in ("zero_bytes", "label_rgb", "one_unknown_id"):
        DEFECTS[name](tree)
    alone, helped = (check_dataset(tmp_path, ("train", "val"), CITYSCAPES, num_workers=n) for n in (0, 2))
    assert alone == helped


def test_progress_counts_up_to_the_end(streets):
    told = []
    check_dataset(streets, ("val",), CITYSCAPES, progress=lambda *numbers: told.append(numbers))
    assert told == [(number, 9) for number in range(1, 10)]


def test_unchanged_file_is_not_read_again(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    assert check_dataset(tmp_path, ("train", "val"), CITYSCAPES, remembered=True).num_read == 30
    DEFECTS["zero_bytes"](tree)
    DEFECTS["one_unknown_id"](tree)
    for number in (2, 0):
        findings = check_dataset(tmp_path, ("train", "val"), CITYSCAPES, remembered=True)
        assert findings.num_read <= number
        assert {(f.path.relative_to(tmp_path).as_posix(), f.reason) for f in findings.findings} == tree.expected
    assert check_dataset(tmp_path, ("train", "val"), CITYSCAPES).num_read == 30


def test_changed_time_alone_is_looked_at(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    tree.found()
    path = tree.labels[tree.frames[0]]
    os.utime(path, ns=(1, 1))
    assert check_dataset(tmp_path, ("train", "val"), CITYSCAPES, remembered=True).num_read == 1


@pytest.mark.parametrize("damage", ["cut", "text", "flip", "list"])
def test_damaged_memory_is_not_believed(tmp_path, rng, damage):
    tree = Tree(tmp_path, rng)
    tree.found()
    path = memory_path(tmp_path)
    content = path.read_text()
    changed = {"cut": content[:-9], "text": "{}", "flip": content.replace(", 24]", ", 25]", 1), "list": "[]"}[damage]
    assert changed != content
    path.write_text(changed)
    findings = check_dataset(tmp_path, ("train", "val"), CITYSCAPES, remembered=True)
    assert (findings.num_read, findings.findings) == (30, ())


def test_memory_that_cannot_be_written_only_costs_time(tmp_path, rng, monkeypatch):
    tree = Tree(tmp_path / "d", rng)
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEEPLABV3_CACHE", str(tmp_path / "file"))
    assert tree.found() == tree.found(remembered=True) == set()


def test_second_look_opens_no_file(tmp_path, rng, monkeypatch):
    tree = Tree(tmp_path, rng)
    tree.found()
    monkeypatch.setattr(remembering, "look_at", None)
    assert tree.found(remembered=True) == set()


def test_label_set_may_change_without_reading(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    tree.found()
    own = LabelSet.from_dict({"classes": [{"name": "road", "id": 7, "color": [1, 2, 3]}]})
    findings = check_dataset(tmp_path, ("train", "val"), own, remembered=True)
    assert findings.num_read == 0
    assert {finding.reason for finding in findings.findings} == {"unknown-id"}


def test_folder_without_a_data_set_is_the_users_mistake(tmp_path):
    with pytest.raises(DatasetError, match="there is no folder"):
        check_dataset(tmp_path / "none", ("train",), CITYSCAPES)
    with pytest.raises(DatasetError, match="holds neither leftImg8bit/ nor gtFine/"):
        check_dataset(tmp_path, ("train",), CITYSCAPES)


def test_list_names_every_file_once_under_its_reason(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    for name in ("zero_bytes", "label_rgb", "many_unknown_ids"):
        DEFECTS[name](tree)
    findings = check_dataset(tmp_path, ("train", "val"), CITYSCAPES)
    text = defect_list(findings)
    assert text.startswith(f"3 defects in 3 files of {tmp_path} (6 train, 4 val frames)\n")
    for path, reason in tree.expected:
        assert text.count(f"  {path}: ") == 1
        assert text.count(f"\n{reason}: {REASONS[reason]} (1)\n") == 1
    assert len(json.dumps(to_json(findings))) > 100
    assert balance_table(findings).splitlines()[2].startswith("road ")


def test_every_reason_is_planted_and_documented():
    source, page = Path(__file__).read_text(), (REPOSITORY / "docs/data.md").read_text()
    assert all(f'"{reason}"' in source for reason in REASONS)
    rows = [line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")]
    assert rows == list(REASONS)


@pytest.mark.parametrize("splits", [("train",), ("train", "val", "more")])
@pytest.mark.parametrize("defects", [0, 1])
def test_balance_is_drawn_whatever_there_is(tmp_path, rng, splits, defects):
    """One split or several, and one in which no label can be used."""
    tree = Tree(tmp_path, rng)
    if defects:
        for path in tree.labels.values():
            path.write_bytes(b"")
    picture = balance_png(check_dataset(tmp_path, splits, CITYSCAPES))
    assert Image.open(io.BytesIO(picture)).size == (1500, 1066)


def test_name_that_cannot_be_printed_is_one_line(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    path = tree.images[tree.take()]
    path.rename(path.with_name("a\nb\x1b[31m.png"))
    findings = check_dataset(tmp_path, ("train", "val"), CITYSCAPES)
    assert "\x1b" not in defect_list(findings)
    assert r"a\nb\x1b[31m.png" in defect_list(findings)
