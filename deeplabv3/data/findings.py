"""What can be wrong with a data set, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import DatasetError

REASONS = {
    "missing-split": "there is no folder of the split",
    "empty-split": "the split has no image",
    "no-label": "an image without a label",
    "no-image": "a label without an image",
    "bad-name": "a name that is not looked for",
    "wrong-case": "a name in other letters, capital or small, than are looked for",
    "misplaced": "a file in a folder where it does not belong",
    "frame-twice": "a frame that is there twice in its split",
    "in-two-splits": "a frame that is in two splits",
    "same-image": "the same picture in two splits",
    "dangling-link": "a link to nothing",
    "not-a-file": "a folder or a device under the name of a file",
    "unreadable": "a file that the system does not let be read",
    "empty-file": "a file of zero bytes",
    "wrong-format": "a file of another format than its name says",
    "truncated": "a file that ends too early",
    "checksum": "a file whose content does not fit its checksum",
    "damaged": "a file that cannot be decoded",
    "source-changed": "a file that has changed since it was packed",
    "too-large": "an image of more pixels than are decoded",
    "label-rgb": "a label of colours",
    "label-alpha": "a label with an alpha channel",
    "label-palette": "a label with a palette",
    "label-16-bit": "a label of 16 bits a pixel",
    "label-few-bits": "a label of fewer than 8 bits a pixel",
    "instance-mode": "instance ids that are not grey values",
    "size-differs": "files of one frame that differ in size",
    "unknown-id": "a value that is not in the table",
    "train-ids": "trainIds where label ids are wanted",
    "all-ignored": "a label without any pixel that is trained or scored",
}
"""Every reason's code, in the order in which they are told, and what it is for a headline."""


class Fault(NamedTuple):
    """What is wrong with a file by itself.

    Attributes:
        reason: One of `REASONS`.
        text: The value seen, what is allowed, the next step, as a clause without a full stop.
    """

    reason: str
    text: str


class Unsound(DatasetError):
    """A file that cannot be used, told where nobody knows yet what it is called.

    Args:
        reason: As in `Fault`.
        text: As in `Fault`.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.fault = Fault(reason, text)


@dataclass(frozen=True)
class Finding:
    """A defect of one file.

    Attributes:
        path: The file, or the folder of a split.
        reason: One of `REASONS`.
        text: The value seen, what is allowed, the next step.
        split: That of the frame.
        frame: The frame that it belongs to, or "".
    """

    path: Path
    reason: str
    text: str
    split: str
    frame: str = ""


@dataclass(frozen=True)
class SplitCounts:
    """What a split holds, over the labels that can be used.

    Attributes:
        num_frames: Its images, defective ones included.
        pixels: How many pixels each class has, by trainId.
        frames: How many labels each class is in, by trainId.
        ignored_pixels: How many pixels are neither trained nor scored.
    """

    num_frames: int
    pixels: tuple[int, ...]
    frames: tuple[int, ...]
    ignored_pixels: int


LabelValues = Mapping[Path, tuple[tuple[int, int], ...]]
"""Each value of each label with the number of its pixels."""


@dataclass(frozen=True)
class Findings:
    """What a check found.

    Attributes:
        data_dir: The data set.
        label_set: Its table.
        findings: All defects, in the order of splits, then paths, then reasons.
        splits: What each split holds, in the order asked for.
        num_read: How many files were decoded; the others were as they were at the last check.
        label_values: What each label that can be read holds.
        notes: By split, what is worth knowing and no defect of a file.
    """

    data_dir: Path
    label_set: LabelSet
    findings: tuple[Finding, ...]
    splits: Mapping[str, SplitCounts]
    num_read: int
    label_values: LabelValues
    notes: Mapping[str, str] = field(default_factory=dict)


def in_order(findings: Sequence[Finding], splits: Sequence[str]) -> tuple[Finding, ...]:
    """Findings sorted by split, path and reason, each once."""
    reasons = list(REASONS)

    def key(finding: Finding) -> tuple[int, str, int, str]:
        return splits.index(finding.split), str(finding.path), reasons.index(finding.reason), finding.text

    return tuple(sorted(set(findings), key=key))
