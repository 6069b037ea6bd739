"""What is counted of each frame, and how the frames of all processes become one score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.frames import Labelled
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.distributed import gather, sum_over_processes
from deeplabv3.errors import DatasetError
from deeplabv3.evaluation.confusion import Counts, count_pixels
from deeplabv3.evaluation.instances import InstanceCounts, count_instances, mean_pixels, no_instances
from deeplabv3.evaluation.scores import FrameScore, Scores, frame_score, scores_from


@dataclass(frozen=True)
class FrameRecord:
    """What is kept of one frame besides its pixel counts, which are summed.

    Attributes:
        score: Of the frame by itself.
        instances: Its objects; none where they were not asked for.
        loss: Cross-entropy summed over its pixels, or 0.
    """

    score: FrameScore
    instances: InstanceCounts
    loss: float = 0.0


def count_frame(
    frame: Labelled, prediction_ids: Pixels, label_set: LabelSet, loss: float = 0.0
) -> tuple[Counts, FrameRecord]:
    """Everything that scores are made of, for one frame.

    Args:
        frame: Its labels.
        prediction_ids: Label ids, uint8 `(H, W)`.
        label_set: What the ids mean.
        loss: Passed through.

    Returns:
        int64 `(num_ids, num_ids)` over label ids, and the frame's record.

    Raises:
        InputError: A value is outside the table, or the sizes differ.
    """
    counts = count_pixels(frame.label_ids, prediction_ids, label_set.num_ids)
    instances = no_instances()
    if frame.instance_ids is not None:
        try:
            instances = count_instances(frame.instance_ids, prediction_ids, label_set)
        except DatasetError as error:
            raise DatasetError(f"the instance ids of {frame.name} cannot be used: {error}; correct the file") from error
    return counts, FrameRecord(frame_score(frame.name, counts, label_set), instances, loss)


def combined(
    counts: Counts,
    records: Sequence[FrameRecord],
    label_set: LabelSet,
    *,
    why_no_iiou: str = "",
    with_loss: bool = False,
) -> Scores:
    """The scores of all processes' frames, the same in each.

    Pixel counts are summed as whole numbers. The records come in the order of the split, so that sums of floats do not
    depend on who counted what either.

    Args:
        counts: int64 `(num_ids, num_ids)`, the sum over this process's frames.
        records: Of this process's frames, as `share_of` dealt them out.
        label_set: What the ids mean.
        why_no_iiou: Why instances were not counted, or "".
        with_loss: Whether the records hold losses.
    """
    counts, records = sum_over_processes(counts), gather(records)
    instances = np.concatenate([no_instances(), *(record.instances for record in records)])
    num_pixels = sum(record.score.num_pixels for record in records)
    loss = math.fsum(record.loss for record in records) / num_pixels if num_pixels else math.nan
    return scores_from(
        counts,
        label_set,
        instances=None if why_no_iiou else instances,
        why_no_iiou=why_no_iiou,
        frames=[record.score for record in records],
        loss=loss if with_loss else None,
    )


def why_no_iiou_of(samples: Sequence[Sample], label_set: LabelSet) -> str:
    """Why the instance-weighted scores of these frames cannot be had, or "" if they can."""
    if not mean_pixels(label_set):
        return f"{label_set.name} has no class whose instances have a known mean size"
    missing = sum(sample.instance_path is None for sample in samples)
    return f"{missing} of {len(samples)} frames have no instanceIds.png" if missing else ""
