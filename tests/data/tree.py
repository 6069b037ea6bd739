"""A small sound data set to plant defects in."""

import struct
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from deeplabv3.data.checking import check_dataset
from deeplabv3.data.labels import CITYSCAPES
from tests.data.pictures import PNG, chunk

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


@contextmanager
def refused(monkeypatch, path):
    """While in the block, the system refuses to open a file."""
    whole = Path.open

    def refuse(self, *options):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return whole(self, *options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        yield
