"""The frames that are used: those of a data set in which nothing is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deeplabv3.config import CheckConfig, TrainConfig
from deeplabv3.data.cityscapes import Sample, find_labelled
from deeplabv3.data.findings import LabelValues
from deeplabv3.data.labels import LabelSet
from deeplabv3.data.surveying import UNLABELLED_SPLITS
from deeplabv3.distributed import is_first
from deeplabv3.errors import DatasetError
from deeplabv3.report.defects import checked, defect_list

SPLITS = ("train", "val")


def sound_frames(config: TrainConfig, label_set: LabelSet) -> tuple[list[Sample], list[Sample], LabelValues]:
    """The training and the validation frames of a run, and what their labels hold.

    Args:
        config: `data_dir`, `num_workers` and `skip_bad` are read.
        label_set: That of the data set, before the run ignores classes.

    Raises:
        DatasetError: As of `sound_samples`.
    """
    check = CheckConfig(data_dir=config.data_dir, splits=SPLITS, num_workers=config.num_workers)
    samples, label_values = sound_samples(check, label_set, skip_bad=config.skip_bad)
    return samples["train"], samples["val"], label_values


def sound_samples(
    check: CheckConfig, label_set: LabelSet, *, skip_bad: bool
) -> tuple[dict[str, list[Sample]], LabelValues]:
    """The frames of each split, after every file of theirs was looked at, and what their labels hold.

    What has not changed since the last check of the data set is not read again.

    Args:
        check: `data_dir`, `splits` and `num_workers` matter.
        label_set: That of the data set, before a run ignores classes: a frame that shows only those is sound.
        skip_bad: Leave frames with a defect out, and say so.

    Raises:
        DatasetError: There is a defect and `skip_bad` is not set; all are listed. Or no sound frame is left.
    """
    for split in check.splits:
        found = find_labelled(check.data_dir, split)  # says what is wrong with a folder that holds no data set
        if not found and split in UNLABELLED_SPLITS:
            raise DatasetError(f"the frames of {split} have no labels, and are of no use without; leave {split} out")
    findings = checked(check, label_set, remembered=True)
    if findings.findings and not skip_bad:
        raise DatasetError(f"{defect_list(findings)}\nmend them, or add --skip-bad to leave these files out")
    bad = {finding.path for finding in findings.findings}
    samples = {split: find_labelled(check.data_dir, split, bad) for split in check.splits}
    if findings.findings:
        _tell_skipped(defect_list(findings), [(split, len(samples[split])) for split in check.splits])
    for split in check.splits:
        if not samples[split]:
            raise DatasetError(f"no frame of {split} is without a defect; mend the files that are listed above")
    return samples, findings.label_values


def _tell_skipped(defects: str, left: Sequence[tuple[str, int]]) -> None:
    if not is_first():
        return
    frames = " and ".join(f"{number:,} {split}" for split, number in left)
    print(f"{defects}\nnote: these files are left out; {frames} frames remain", file=sys.stderr)
