"""Every defect of a data set, found in one pass before it is used.

First comes what names and places tell (`surveying`), then every file is decoded once, by all cores (`looking`,
`remembering`), and last what needs the label set or several files: values outside the table, sizes that differ,
pictures that are in two splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from deeplabv3.data.cityscapes import IMAGES, LABELS, require_data_dir
from deeplabv3.data.findings import Finding, Findings, SplitCounts, in_order
from deeplabv3.data.images import known_values, ranges
from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX, UNKNOWN, LabelSet
from deeplabv3.data.looking import Facts
from deeplabv3.data.numbering import may_be_train_ids
from deeplabv3.data.official import note_on_number
from deeplabv3.data.packed import packed_splits
from deeplabv3.data.remembering import Told, facts_of
from deeplabv3.data.surveying import IMAGE, INSTANCES, LABEL, TRAIN_IDS, UNLABELLED_SPLITS, Entry, FrameFiles, survey
from deeplabv3.data.verifying import packed_frames
from deeplabv3.errors import DatasetError
from deeplabv3.files import is_folder

OBJECTS = 1000
"""An instance id is a label id, or a label id times this plus the number of the object."""

FactsByPath = Mapping[Path, Facts]


def check_dataset(
    data_dir: Path,
    splits: Sequence[str],
    label_set: LabelSet,
    *,
    num_workers: int | None = None,
    progress: Told | None = None,
    remembered: bool = False,
) -> Findings:
    """Find every defect of a data set.

    Args:
        data_dir: Holds leftImg8bit/ and gtFine/, or is packed.
        splits: Folders of splits, each once. Of what is in two of them, the earlier one's file is named.
        label_set: Which values labels may hold.
        num_workers: Processes that decode; None takes one for each core where that pays.
        progress: Called after each file with the number of those that are read and of those to be read.
        remembered: Believe of files that have not changed what the last check saw in them.

    Raises:
        DatasetError: There is no such folder, or it holds neither images nor labels.
    """
    require_data_dir(data_dir)
    is_packed = bool(packed_splits(data_dir))
    if not is_packed and not any(is_folder(data_dir / folder) for folder in (IMAGES, LABELS)):
        raise DatasetError(f"{data_dir} holds neither {IMAGES}/ nor {LABELS}/; give the folder that holds both")
    if is_packed:
        frames, facts, findings, num_read = packed_frames(data_dir, splits, num_workers, progress, remembered)
    else:
        frames, findings = survey(data_dir, splits)
        kinds = {entry.path: entry.kind for frame in frames for entry in _decoded(frame)}
        facts, num_read = facts_of(data_dir, kinds, num_workers, progress, remembered)
    counts, notes = {}, {}
    for split in splits:
        own = [frame for frame in frames if frame.split == split]
        swapped = _swapped(own, facts, label_set)
        for frame in own:
            findings += _of_files(frame, facts)
            findings += _of_sizes(frame, facts)
            findings += _of_values(frame, facts, label_set, swapped)
        sound = [frame for frame in own if frame.label is not None and frame.label.path not in swapped]
        names = [frame.name for frame in own if IMAGE in frame.files]
        if note := note_on_number(split, names):
            notes[split] = note
        counts[split] = _counts(len(names), [frame.label for frame in sound if frame.label], facts, label_set)
    findings += _of_pictures(frames, facts)
    labels = [frame.label.path for frame in frames if frame.label and frame.label.path in facts]
    label_values = {path: facts[path].counts for path in labels}
    return Findings(data_dir, label_set, in_order(findings, splits), counts, num_read, label_values, notes)


def _decoded(frame: FrameFiles) -> list[Entry]:
    """The files of a frame whose content matters; one with a strange name may be anything."""
    entries = (frame.files.get(IMAGE), frame.label, frame.files.get(INSTANCES))
    return [entry for entry in entries if entry and not (entry.fault and entry.fault.reason == "bad-name")]


def _finding(frame: FrameFiles, entry: Entry, reason: str, text: str) -> Finding:
    return Finding(entry.path, reason, text, frame.split, frame.name)


def _of_files(frame: FrameFiles, facts: FactsByPath) -> list[Finding]:
    """What is wrong with each file by itself."""
    return [_finding(frame, entry, *fault) for entry in _decoded(frame) for fault in facts[entry.path].faults]


def _of_sizes(frame: FrameFiles, facts: FactsByPath) -> list[Finding]:
    """The files whose size is another than that of the first that has one, which is the image if it can be read."""
    sized = [(entry, size) for entry in _decoded(frame) if (size := facts[entry.path].size)]
    findings = []
    for entry, size in sized[1:]:
        first, wanted = sized[0]
        if size != wanted:
            what = "image" if first.kind == IMAGE else "label"
            sizes = f"{size[0]}x{size[1]} and its {what} {wanted[0]}x{wanted[1]}"
            text = f"it is {sizes} (height x width); all must have one size: replace the wrong one"
            findings.append(_finding(frame, entry, "size-differs", text))
    return findings


def _of_values(frame: FrameFiles, facts: FactsByPath, label_set: LabelSet, swapped: set[Path]) -> list[Finding]:
    """Values that are not in the table, the other numbering, and labels that teach nothing."""
    findings = []
    for entry in _decoded(frame):
        values = [value for value, _ in facts[entry.path].counts]
        of_train_ids = entry.kind == TRAIN_IDS
        table, what = label_set.train_id_of(train_ids=of_train_ids), "trainIds" if of_train_ids else "label ids"
        if entry.path in swapped:
            text = f"it holds {ranges(values)}, which look like trainIds; wanted are label ids of {label_set.name} "
            text += f"({known_values(table)}): "
            text += f"write those, or name the file _{LABELS}_{TRAIN_IDS}.png"
            text += _OWN_CLASSES if label_set == CITYSCAPES else ""
            findings.append(_finding(frame, entry, "train-ids", text))
            continue
        if entry.kind == INSTANCES:
            values = sorted({value // OBJECTS if value >= OBJECTS else value for value in values})
        unknown = [value for value in values if value > 255 or table[value] == UNKNOWN]
        if unknown:
            text = f"it holds {ranges(unknown)}, which {'is' if len(unknown) == 1 else 'are'} not among the {what} "
            text += f"of {label_set.name} ({known_values(table)}): correct it, or "
            is_own = label_set != CITYSCAPES
            text += "add to classes or ignored_ids" if is_own else "name the classes with --labels FILE.yaml"
            findings.append(_finding(frame, entry, "unknown-id", text))
        elif entry.kind in (LABEL, TRAIN_IDS) and values and frame.split not in UNLABELLED_SPLITS:
            if (table[values] == IGNORE_INDEX).all():
                text = f"it holds only {ranges(values)}, which {label_set.name} ignores; draw its classes, or take "
                text += "the frame out" + (_OWN_CLASSES if label_set == CITYSCAPES else "")
                findings.append(_finding(frame, entry, "all-ignored", text))
    return findings


_OWN_CLASSES = "; classes of your own are named with --labels FILE.yaml"
"""What may be meant where labels do not fit and no table was given."""


def _swapped(frames: Sequence[FrameFiles], facts: FactsByPath, label_set: LabelSet) -> set[Path]:
    """The labels of a split that hold trainIds under the name of label ids.

    The numberings overlap, so values alone do not always tell. A label holds trainIds if its values can be theirs, some
    are no id that is ever trained, and one of these is true: 255 is among them and no id of the table; or, with the ids
    of Cityscapes, less than half of its pixels would be trained, read as ids, or that is so of all pixels of the split.
    Whoever gives a table of their own has said which ids are ignored, however many pixels these have.
    """
    labels = {entry.path: dict(facts[entry.path].counts) for frame in frames for entry in _decoded(frame)
              if entry.kind == LABEL}  # fmt: skip
    suspicious = {path: counts for path, counts in labels.items() if may_be_train_ids(counts, label_set)}
    if not suspicious:
        return set()
    together: dict[int, int] = {}
    for counts in labels.values():
        for value, pixels in counts.items():
            together[value] = together.get(value, 0) + pixels
    if label_set == CITYSCAPES and may_be_train_ids(together, label_set) and _hardly_trained(together, label_set):
        return set(suspicious)
    return {path for path, counts in suspicious.items() if _surely_train_ids(counts, label_set)}


def _surely_train_ids(counts: Mapping[int, int], label_set: LabelSet) -> bool:
    """Whether the suspicious values of one label are hardly those of label ids."""
    without_ignored = counts.keys() - {IGNORE_INDEX}
    if IGNORE_INDEX in counts and label_set.train_id_of_id[IGNORE_INDEX] == UNKNOWN:
        return may_be_train_ids(without_ignored, label_set)
    return label_set == CITYSCAPES and _hardly_trained(counts, label_set)


def _hardly_trained(counts: Mapping[int, int], label_set: LabelSet) -> bool:
    """Whether less than half of the pixels are trained if they are label ids, yet some would be, or none is known."""
    table = label_set.train_id_of_id
    known = [value for value in counts if value != IGNORE_INDEX]
    total = sum(counts[value] for value in known)
    trained = sum(counts[value] for value in known if table[value] < label_set.num_classes)
    only_ignored = all(table[value] == IGNORE_INDEX for value in counts)
    return not only_ignored and 2 * trained < total


def _of_pictures(frames: Sequence[FrameFiles], facts: FactsByPath) -> list[Finding]:
    """Pictures that a later split has too, under whatever name: what is trained on them is scored on them."""
    later: dict[str, tuple[Entry, str]] = {}
    findings = []
    for frame in reversed(frames):
        image = frame.files.get(IMAGE)
        digest = facts[image.path].digest if image and image.path in facts else ""
        if not image or not digest:
            continue
        twin, split = later.setdefault(digest, (image, frame.split))
        if split != frame.split:
            text = f"pixel by pixel it is {twin.path.name} of {split}; take it out of one of the splits"
            findings.append(_finding(frame, image, "same-image", text))
    return findings


def _counts(num_frames: int, labels: Iterable[Entry], facts: FactsByPath, label_set: LabelSet) -> SplitCounts:
    """Pixels and labels of each class."""
    pixels = np.zeros(256, np.int64)
    frames = np.zeros(256, np.int64)
    for entry in labels:
        if entry.path not in facts:
            continue
        table = label_set.train_id_of(train_ids=entry.kind == TRAIN_IDS)
        seen = set()
        for value, count in facts[entry.path].counts:
            pixels[table[value]] += count
            seen.add(int(table[value]))
        frames[sorted(seen)] += 1
    classes = range(label_set.num_classes)
    return SplitCounts(
        num_frames,
        tuple(int(pixels[train_id]) for train_id in classes),
        tuple(int(frames[train_id]) for train_id in classes),
        int(pixels[IGNORE_INDEX]),
    )
