"""The frames of a run: those of a data set in which nothing is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deeplabv3.config import CheckConfig, TrainConfig
from deeplabv3.data.cityscapes import Sample, find_images, find_labelled
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import DatasetError
from deeplabv3.report.defects import checked, defect_list

SPLITS = ("train", "val")


def sound_frames(config: TrainConfig, label_set: LabelSet) -> tuple[list[Sample], list[Sample]]:
    """The training and the validation frames, after every file of theirs was looked at.

    What has not changed since the last check of the data set is not read again.

    Args:
        config: `data_dir`, `num_workers` and `skip_bad` matter.
        label_set: That of the data set, before the run ignores classes: a frame that shows only those is sound.

    Raises:
        DatasetError: There is a defect and `skip_bad` is not set; all are listed. Or no sound frame is left.
    """
    for split in SPLITS:
        find_images(config.data_dir, split)  # says what is wrong with a folder that holds no data set
    check = CheckConfig(data_dir=config.data_dir, labels=config.labels, splits=SPLITS, num_workers=config.num_workers)
    findings = checked(check, label_set, remembered=True)
    if findings.findings and not config.skip_bad:
        raise DatasetError(f"{defect_list(findings)}\nmend them, or add --skip-bad to leave these files out")
    bad = {finding.path for finding in findings.findings}
    samples = {split: find_labelled(config.data_dir, split, bad) for split in SPLITS}
    if findings.findings:
        _tell_skipped(defect_list(findings), [(split, len(samples[split])) for split in SPLITS])
    for split in SPLITS:
        if not samples[split]:
            raise DatasetError(f"no frame of {split} is without a defect; mend the files that are listed above")
    return samples["train"], samples["val"]


def _tell_skipped(defects: str, left: Sequence[tuple[str, int]]) -> None:
    frames = " and ".join(f"{number:,} {split}" for split, number in left)
    print(f"{defects}\nnote: these files are left out; the run goes on with {frames} frames", file=sys.stderr)
