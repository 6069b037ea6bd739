"""Predictions that any program wrote: label-id PNGs, found by their frames' names, checked, and only then scored."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np

from deeplabv3.config.checks import MAX_PIXELS
from deeplabv3.cores import num_cores
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.decoding import content_of, one_error
from deeplabv3.data.frames import read_labels
from deeplabv3.data.images import Pixels, known_values, ranges, read_label_values, require_one_size
from deeplabv3.data.labels import UNKNOWN, LabelSet
from deeplabv3.data.loading import read_in_order
from deeplabv3.data.numbering import looks_like_train_ids
from deeplabv3.distributed import ending_together, gather, is_first, num_processes, share_of
from deeplabv3.errors import DatasetError
from deeplabv3.evaluation.confusion import Counts, no_counts
from deeplabv3.evaluation.frames import FrameRecord, combined, count_frame, why_no_iiou_of
from deeplabv3.evaluation.scores import Scores
from deeplabv3.files import is_folder
from deeplabv3.prediction.sources import files_below
from deeplabv3.progress import Progress

SUFFIX = ".png"


def files_of_frames(files: Iterable[Path], names: Sequence[str]) -> tuple[dict[str, list[Path]], list[Path]]:
    """Which files are predictions of which frame.

    As in the official evaluation, a prediction is a PNG in any folder whose name begins with its frame's. Where one
    frame's name begins with another's, a file belongs to the longest that fits.

    Args:
        files: Any files; hidden ones and those that are no PNG are left alone.
        names: `<city>_<sequence>_<frame>` of every frame.

    Returns:
        The files of each frame, and the PNGs that belong to none.
    """
    found: dict[str, list[Path]] = {name: [] for name in names}
    strange = []
    lengths = sorted({len(name) for name in names}, reverse=True)
    for file in sorted(files):
        if file.suffix != SUFFIX or file.name.startswith("."):
            continue
        fitting = (file.name[:length] for length in lengths if file.name[:length] in found)
        name = next(fitting, None)
        if name is None:
            strange.append(file)
        else:
            found[name].append(file)
    return found, strange


def count_faults(found: dict[str, list[Path]]) -> list[str]:
    """The frames without a prediction and with more than one, each in a line."""
    faults = [f"{name}: missing, there is no {name}*{SUFFIX}" for name, files in found.items() if not files]
    faults += [
        f"{name}: given {len(files)} times, as {', '.join(map(str, files))}"
        for name, files in found.items()
        if len(files) > 1
    ]
    return faults


def read_prediction(content: bytes, path: Path, size: tuple[int, ...], label_set: LabelSet) -> Pixels:
    """Decode a prediction and check it.

    Args:
        content: Of the PNG.
        path: What errors call it.
        size: Height and width of its label.
        label_set: Which ids there are.

    Returns:
        Label ids, uint8 `(H, W)`.

    Raises:
        DatasetError: It is no single-channel 8-bit PNG, has another size, or holds an id outside the table.
    """
    values = read_label_values(path, content)
    require_one_size(path, values.shape, "frame", size)
    seen = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    unknown = seen[label_set.train_id_of_id[seen] == UNKNOWN]
    if unknown.size:
        hint = "; it looks like trainIds, and label ids are wanted" if looks_like_train_ids(seen, label_set) else ""
        raise DatasetError(
            f"{path} holds {ranges(unknown.tolist())}, outside the label ids of {label_set.name} "
            f"({known_values(label_set.train_id_of_id)}){hint}"
        )
    return values


def read_prediction_file(path: Path, size: tuple[int, ...], label_set: LabelSet) -> Pixels:
    """`read_prediction` of a file, whose size is looked at before it is read."""
    with one_error(path):
        content = content_of(path, MAX_PIXELS)
    return read_prediction(content, path, size, label_set)


def prediction_files(folder: Path, samples: Iterable[Sample]) -> dict[str, list[Path]]:
    """The predictions of each frame in a folder, which is searched through.

    Raises:
        DatasetError: There is no such folder.
    """
    if not is_folder(folder):
        raise DatasetError(f"there is no folder {folder}; give the one that holds the predictions")
    return files_of_frames(files_below(folder), [sample.name for sample in samples])[0]


def score_files(
    folder: Path, samples: Sequence[Sample], label_set: LabelSet, *, num_workers: int | None = None
) -> Scores:
    """Score label-id PNGs, each named for its frame.

    Args:
        folder: Searched through.
        samples: The frames.
        label_set: Which ids there are.
        num_workers: Processes that read and count; None chooses.

    Raises:
        DatasetError: A label cannot be read; or predictions are missing, given twice, of another size, no
            single-channel 8-bit PNG, or hold an id outside the table: all are listed, and nothing is scored.
    """
    files = prediction_files(folder, samples)
    faults = count_faults(files)
    why_no_iiou = why_no_iiou_of(samples, label_set)
    counts, records = no_counts(label_set), []
    workers = num_workers
    if workers is None:  # processes may have cores of their own, as under srun, or share those of the machine
        workers = min(num_cores(), max(1, (os.cpu_count() or 1) // num_processes()))
    own = [(sample, files[sample.name][0]) for sample in share_of(samples) if len(files[sample.name]) == 1]
    count = partial(_count_file, label_set=label_set, instances=not why_no_iiou)
    own_faults = []
    with Progress("scoring", len(own)) as progress, ending_together():
        for outcome in read_in_order(count, own, workers if len(own) > 1 else 0, itemgetter(1)):
            if isinstance(outcome, str):
                own_faults.append(outcome)
            else:
                counts += outcome[0]
                records.append(outcome[1])
            progress.advance()
    faults += gather(own_faults)
    with ending_together():
        if faults:
            head = f"{len(faults)} of {len(samples)} predictions in {folder} cannot be scored:"
            raise DatasetError("\n  ".join([head, *faults]))
    scores = combined(counts, records, label_set, why_no_iiou=why_no_iiou)
    if is_first() and looks_like_train_ids(np.flatnonzero(scores.counts.sum(0)), label_set):
        print(
            f"note: the predictions in {folder} look like trainIds; the scores are those of label ids", file=sys.stderr
        )
    return scores


def _count_file(item: tuple[Sample, Path], label_set: LabelSet, instances: bool) -> tuple[Counts, FrameRecord] | str:
    """Count one prediction; what is wrong with it comes back as text, to be listed with the others."""
    sample, path = item
    labelled = read_labels(sample, label_set, instances=instances)
    try:
        prediction_ids = read_prediction_file(path, labelled.label_ids.shape, label_set)
    except DatasetError as error:
        return str(error)
    return count_frame(labelled, prediction_ids, label_set)
