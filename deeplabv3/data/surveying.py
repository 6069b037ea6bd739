"""Which files a data set has, which frames they belong to, and which are misnamed, misplaced, missing or double.

Nothing is opened here. A file under a wrong name or in a wrong folder still counts as its frame's, so that one mistake
is one finding: the frame does not lack it besides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from deeplabv3.data.cityscapes import IMAGES, LABELS
from deeplabv3.data.findings import Fault, Finding
from deeplabv3.data.images import SUFFIXES
from deeplabv3.files import is_folder

IMAGE, LABEL, TRAIN_IDS, INSTANCES = "image", "labelIds", "labelTrainIds", "instanceIds"

UNLABELLED_SPLITS = ("test",)
"""Splits whose frames need no labels, because a benchmark's server keeps them."""

_OTHER_KINDS = ("color", "polygons", "instanceTrainIds")  # files of Cityscapes that nothing here reads
_OTHER_PICTURES = (".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".pnm", ".tga", ".npy", ".raw")
_IMAGE_NAME = re.compile(rf"(.+)_({IMAGES})(\.[^.]*)?", re.IGNORECASE | re.DOTALL)
_ALL_KINDS = (LABEL, TRAIN_IDS, INSTANCES, *_OTHER_KINDS)
_KINDS = "|".join(_ALL_KINDS)
_LABEL_NAME = re.compile(rf"(.+)_({LABELS})_({_KINDS})(\.[^.]*)?", re.IGNORECASE | re.DOTALL)
_DEPTH = 4  # folders below a split that are looked through for misplaced files


@dataclass(frozen=True)
class Entry:
    """A file of a frame.

    Attributes:
        path: Where it is.
        kind: `IMAGE`, `LABEL`, `TRAIN_IDS` or `INSTANCES`.
        frame: The name of its frame, as far as its own name tells.
        city: Its folder, or "" if it is not in one.
        fault: What is wrong with its name or place.
    """

    path: Path
    kind: str
    frame: str
    city: str
    fault: Fault | None = None


@dataclass
class FrameFiles:
    """The files of one frame.

    Attributes:
        split: Its split.
        name: What all of its files' names begin with.
        files: The file that is read of each kind.
    """

    split: str
    name: str
    files: dict[str, Entry] = field(default_factory=dict)

    @property
    def label(self) -> Entry | None:
        """The label that is read: label ids, or else trainIds."""
        return self.files.get(LABEL) or self.files.get(TRAIN_IDS)


def survey(data_dir: Path, splits: Sequence[str]) -> tuple[list[FrameFiles], list[Finding]]:
    """All frames of some splits, and what is wrong with names and places.

    Args:
        data_dir: Holds leftImg8bit/ and gtFine/.
        splits: Folders of splits.
    """
    frames: dict[str, dict[str, FrameFiles]] = {}
    findings: list[Finding] = []
    for split in splits:
        entries, unreadable = _entries(data_dir, split)
        findings += unreadable
        frames[split], double = _assembled(split, entries)
        findings += double
        findings += [
            Finding(entry.path, entry.fault.reason, entry.fault.text, split, entry.frame)
            for entry in entries
            if entry.fault
        ]
    findings += _in_another_split(frames)
    for split in splits:
        findings += _folders(data_dir, split, frames[split])
        findings += _incomplete(data_dir, split, frames[split])
    findings += _in_two_splits(frames)
    found = [frame for split in splits for _, frame in sorted(frames[split].items())]
    return [frame for frame in found if IMAGE in frame.files or frame.label], findings


def _entries(data_dir: Path, split: str) -> tuple[list[Entry], list[Finding]]:
    """The files of a split that are, or should be, those of frames; and the folders that cannot be read."""
    entries, findings = [], []
    for folder in (IMAGES, LABELS):
        root = data_dir / folder / split
        for path, fault in _walk(root, _DEPTH):
            if fault:
                findings.append(Finding(path, fault.reason, fault.text, split))
            elif entry := (_of_images if folder == IMAGES else _of_labels)(path):
                parents = path.relative_to(root).parts[:-1]
                entry = replace(entry, city=parents[0] if len(parents) == 1 else "")
                if not entry.fault and len(parents) != 1:
                    where = f"lies {'directly in' if not parents else 'too deep below'} {folder}/{split}"
                    wanted = f"{folder}/{split}/<city>/{path.name}"
                    entry = replace(entry, fault=Fault("misplaced", f"{where}; expected is {wanted}: move it there"))
                entries.append(entry)
    cities = {entry.city for entry in entries} - {""}
    return [_in_its_city(entry, cities) for entry in entries], findings


def _walk(root: Path, depth: int) -> Iterator[tuple[Path, Fault | None]]:
    """What lies below a folder, in order: all that is no folder, and folders under the names of frames' files."""
    try:
        inside = sorted(os.scandir(root), key=lambda item: item.name)
    except FileNotFoundError:
        return
    except OSError as error:
        yield root, Fault("unreadable", f"the folder cannot be listed: {error.strerror}; give its owner's rights")
        return
    for item in inside:
        path = root / item.name
        if item.name.startswith("."):
            continue
        frames_name = path.suffix.lower() in SUFFIXES and (
            _IMAGE_NAME.fullmatch(path.name) or _LABEL_NAME.fullmatch(path.name)
        )
        try:
            is_dir = not frames_name and item.is_dir()
        except OSError as error:  # a link that leads to itself
            yield path, Fault("unreadable", f"it cannot be looked at: {error.strerror}; mend or remove the link")
            continue
        if not is_dir:
            yield path, None
        elif depth > 0 and (depth == _DEPTH or not item.is_symlink()):  # the reader follows links to cities alone
            yield from _walk(path, depth - 1)


def _of_images(path: Path) -> Entry | None:
    """What a file below the images' folder is; None for what is no picture."""
    suffix = path.suffix
    if label := _LABEL_NAME.fullmatch(path.name):
        text = f"a file of labels among the images; move it to {LABELS}/, or remove it"
        return Entry(path, _kind(label[3]), label[1], "", Fault("misplaced", text))
    match = _IMAGE_NAME.fullmatch(path.name)
    if suffix.lower() not in SUFFIXES:
        if suffix.lower() not in _OTHER_PICTURES and not (match and not suffix):
            return None
        text = f"the ending is {suffix or 'missing'}; read are {', '.join(SUFFIXES)}: convert it and name it so"
        return Entry(path, IMAGE, match[1] if match else path.stem, "", Fault("bad-name", text))
    if not match:
        text = f"the name does not end in _{IMAGES}{suffix}; rename it, or take it out of the folder"
        return Entry(path, IMAGE, path.stem, "", Fault("bad-name", text))
    wanted = f"{match[1]}_{IMAGES}{suffix.lower()}"
    return Entry(path, IMAGE, match[1], "", _case(path.name, wanted))


def _of_labels(path: Path) -> Entry | None:
    """What a file below the labels' folder is; None for what is no picture or is not read."""
    suffix = path.suffix
    if match := _LABEL_NAME.fullmatch(path.name):
        kind = _kind(match[3])
        if kind in _OTHER_KINDS:
            return None
        if suffix.lower() != ".png":
            text = f"the ending is {suffix or 'missing'}; a label is a .png: write it as one, without loss"
            return Entry(path, kind, match[1], "", Fault("bad-name", text))
        return Entry(path, kind, match[1], "", _case(path.name, f"{match[1]}_{LABELS}_{kind}.png"))
    if suffix.lower() not in (*SUFFIXES, *_OTHER_PICTURES):
        return None
    if image := _IMAGE_NAME.fullmatch(path.name):
        text = f"an image among the labels; move it to {IMAGES}/, or remove it"
        return Entry(path, IMAGE, image[1], "", Fault("misplaced", text))
    text = f"the name does not end in _{LABELS}_{LABEL}.png; rename it, or take it out of the folder"
    stem = re.sub(rf"_({LABELS}|{_KINDS})", "", path.stem, flags=re.IGNORECASE)
    return Entry(path, LABEL, stem, "", Fault("bad-name", text))


def _kind(word: str) -> str:
    """A kind in the letters that are looked for."""
    return next(kind for kind in _ALL_KINDS if kind.lower() == word.lower())


def _case(name: str, wanted: str) -> Fault | None:
    return None if name == wanted else Fault("wrong-case", f"looked for is {wanted}; rename it")


def _in_its_city(entry: Entry, cities: set[str]) -> Entry:
    """The entry, found misplaced if its name begins with another city's and not with its own."""
    if entry.fault or entry.frame.startswith(f"{entry.city}_"):
        return entry
    city = max((city for city in cities if entry.frame.startswith(f"{city}_")), key=len, default="")
    text = f"the name begins with {city} and the folder is {entry.city}; move it to {city}/"
    return replace(entry, fault=Fault("misplaced", text)) if city else entry


def _assembled(split: str, entries: Sequence[Entry]) -> tuple[dict[str, FrameFiles], list[Finding]]:
    """Files by frame, the best of each kind; the others of its kind are there twice."""
    frames: dict[str, FrameFiles] = {}
    findings = []
    for entry in sorted(entries, key=_preference):
        name = entry.frame
        if entry.kind == LABEL and name not in frames and entry.fault and entry.fault.reason == "bad-name":
            name = _begun(entry.path.stem, frames) or name
        files = frames.setdefault(name, FrameFiles(split, name)).files
        image = files.get(IMAGE)
        first = files.setdefault(entry.kind, entry)
        if entry.fault:
            continue
        if first is not entry:
            text = f"the frame is there as {first.path.name} in {first.path.parent} too; remove one of them"
            findings.append(Finding(entry.path, "frame-twice", text, split, entry.frame))
        elif image and entry.kind != IMAGE and not image.fault and image.city != entry.city:
            text = f"its image lies in the folder {image.city}; move it to {image.city}/"
            findings.append(Finding(entry.path, "misplaced", text, split, entry.frame))
    return frames, findings


def _begun(stem: str, frames: Mapping[str, FrameFiles]) -> str:
    """The frame whose name, and more, a file is called by; "" if there is none."""
    while stem and stem not in frames:
        stem = stem.rpartition("_")[0]
    return stem


def _preference(entry: Entry) -> tuple[bool, bool, int, str]:
    """Images first, for the others are compared with theirs; of those, what the reader would take."""
    suffix = entry.path.suffix.lower()
    rank = SUFFIXES.index(suffix) if suffix in SUFFIXES else len(SUFFIXES)
    return entry.kind != IMAGE, entry.fault is not None, rank, str(entry.path)


def _in_another_split(frames: Mapping[str, dict[str, FrameFiles]]) -> list[Finding]:
    """Labels that lie in another split than their images; they are put to their frames."""
    findings = []
    for split, own in frames.items():
        for name in [name for name, frame in own.items() if IMAGE not in frame.files and frame.label]:
            other = next((found[name] for found in frames.values() if _is_unlabelled(found.get(name))), None)
            if other is None or other.split in UNLABELLED_SPLITS:
                continue
            for entry in own.pop(name).files.values():
                other.files[entry.kind] = entry
                text = f"its image lies in the split {other.split} and it in {split}; move it there"
                if not entry.fault:
                    findings.append(Finding(entry.path, "misplaced", text, other.split, name))
    return findings


def _is_unlabelled(frame: FrameFiles | None) -> bool:
    return frame is not None and IMAGE in frame.files and frame.label is None


def _folders(data_dir: Path, split: str, frames: Mapping[str, FrameFiles]) -> list[Finding]:
    """The folders of a split that are missing or empty."""
    images, labels = data_dir / IMAGES / split, data_dir / LABELS / split
    findings = []
    for root in (images, labels):
        if not is_folder(root) and (root == images or split not in UNLABELLED_SPLITS):
            text = f"there is no such folder; expected is {root.parent.name}/{split}/<city>/: put the split there"
            findings.append(Finding(root, "missing-split", text, split))
    if images.is_dir() and not any(IMAGE in frame.files for frame in frames.values()):
        text = f"0 images are in it; expected are files like {split}/<city>/<name>_{IMAGES}.png: put them there"
        findings.append(Finding(images, "empty-split", text, split))
    return findings


def _incomplete(data_dir: Path, split: str, frames: Mapping[str, FrameFiles]) -> list[Finding]:
    """Images without labels, and the other way round; nothing where a whole folder is missing."""
    findings = []
    images, labels = data_dir / IMAGES / split, data_dir / LABELS / split
    has_images = any(IMAGE in frame.files for frame in frames.values())
    for name, frame in frames.items():
        image = frame.files.get(IMAGE)
        if image is None:
            if has_images and frame.label:  # what is left of a frame that was taken out does no harm
                text = f"there is no {IMAGES}/{split}/<city>/{name}_{IMAGES}.png; put it there, or take this out"
                findings.append(Finding(frame.label.path, "no-image", text, split, name))
        elif frame.label is None and labels.is_dir() and split not in UNLABELLED_SPLITS:
            wanted = labels / image.city / f"{name}_{LABELS}_{LABEL}.png"
            text = f"there is no {wanted.relative_to(data_dir)}; put it there, or take the image out"
            findings.append(Finding(image.path, "no-label", text, split, name))
    return findings if images.is_dir() else []


def _in_two_splits(frames: Mapping[str, dict[str, FrameFiles]]) -> list[Finding]:
    """Frames of one name in two splits. The file of the earlier one is named, so that scores stay comparable."""
    findings = []
    for first, second in combinations(frames, 2):
        for name in frames[first].keys() & frames[second].keys():
            one, other = (frames[split][name].files.get(IMAGE) for split in (first, second))
            if one and other:
                text = f"the frame is in {second} too, as {other.path.name}; take it out of one of the splits"
                findings.append(Finding(one.path, "in-two-splits", text, first, name))
    return findings
