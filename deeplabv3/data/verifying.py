"""What a packed data set holds, and whether it still does: the check of it, in the terms of that of a plain one.

The checksums of a split are remembered as sound until one of its files has another size or time, in
`checks/<digits of the split's path>.json` in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

from deeplabv3.cores import given_or_cores
from deeplabv3.data.changes import changed_files
from deeplabv3.data.findings import Fault, Finding
from deeplabv3.data.loading import read_in_order
from deeplabv3.data.looking import Facts
from deeplabv3.data.packed import (
    PackedSplit,
    Place,
    image_digest,
    label_digest,
    packed_splits,
    read_index,
    read_packed_file,
    read_packed_image,
    read_packed_label,
)
from deeplabv3.data.remembering import Told, memory_path
from deeplabv3.data.surveying import IMAGE, INSTANCES, LABEL, TRAIN_IDS, Entry, FrameFiles
from deeplabv3.errors import OutputError
from deeplabv3.files import write_whole

_FEW_BYTES = 500_000_000  # up to which starting processes takes longer than they save


def packed_frames(
    data_dir: Path, splits: Sequence[str], num_workers: int | None, progress: Told | None, remembered: bool
) -> tuple[list[FrameFiles], dict[Path, Facts], list[Finding], int]:
    """The frames of packed splits, under the paths that they would be unpacked to.

    Args:
        data_dir: The packed data set.
        splits: Those that are asked for.
        num_workers: Processes that compute checksums; None takes one for each core where that pays.
        progress: Told after each frame.
        remembered: Believe the memory of checksums while no file has changed.

    Returns:
        The frames, the facts of each of their files, the splits that are missing, and how many frames were read.

    Raises:
        DatasetError: A split is damaged as a whole.
    """
    there = packed_splits(data_dir)
    packed = [read_index(data_dir / split) for split in splits if split in there]
    text = f"it is not among what was packed ({', '.join(there)}); name it to deeplabv3 pack with --splits"
    missing = [Finding(data_dir / name, "missing-split", text, name) for name in splits if name not in there]
    unread = [split for split in packed if not (remembered and _is_remembered(split))]
    places = [place for split in unread for place in split.places()]
    num_bytes = sum(sum(split.num_bytes.values()) for split in unread)
    workers = given_or_cores(num_workers, pays=num_bytes > _FEW_BYTES)
    damaged: dict[Path, list[str]] = {split.folder: [] for split in packed}
    read = read_in_order(damaged_files, places, workers, attrgetter("frame.name"))
    for done, (place, paths) in enumerate(zip(places, read, strict=True), 1):
        damaged[place.folder] += paths
        if progress is not None:
            progress(done, len(places))
    frames: list[FrameFiles] = []
    facts: dict[Path, Facts] = {}
    for split in packed:
        frames += _files_of(data_dir, split)
        facts |= _facts_of(data_dir, split, damaged[split.folder])
        if split in unread and not damaged[split.folder]:
            _remember(split)
    return frames, facts, missing, len(places)


def _files_of(data_dir: Path, packed: PackedSplit) -> list[FrameFiles]:
    """The frames of a packed split under the paths that they would be unpacked to."""
    found = []
    for frame in packed.frames:
        kinds = {
            IMAGE: frame.image,
            TRAIN_IDS if frame.train_ids else LABEL: frame.label,
            INSTANCES: frame.instances,
        }
        city = Path(frame.image.path).parent.name
        files = {kind: Entry(data_dir / file.path, kind, frame.name, city) for kind, file in kinds.items() if file}
        found.append(FrameFiles(packed.split, frame.name, files))
    return found


def _facts_of(data_dir: Path, packed: PackedSplit, damaged: Sequence[str]) -> dict[Path, Facts]:
    """What the index says of each file, and what is wrong with it now."""
    changed = {file.path for file in changed_files(packed)}
    facts: dict[Path, Facts] = {}
    for frame in packed.frames:
        for file in frame.files:
            faults = []
            if file.path in damaged:
                faults.append(
                    Fault("checksum", "its packed content does not fit its checksum; pack it again with --overwrite")
                )
            if file.path in changed:
                text = f"{packed.source / file.path} has changed since it was packed; pack it again with --overwrite"
                faults.append(Fault("source-changed", text))
            digest = frame.image_digest if file is frame.image else ""
            values = frame.values if file is frame.label else ()
            facts[data_dir / file.path] = Facts(tuple(faults), (frame.height, frame.width), digest, values)
    return facts


def damaged_files(place: Place) -> list[str]:
    """The files of a frame whose packed content does not fit its checksum."""
    frame = place.frame
    whole = {
        frame.image.path: image_digest(read_packed_image(place)) == frame.image_digest,
        frame.label.path: label_digest(read_packed_label(place)) == frame.label_digest,
    }
    for file in frame.files[1:]:
        digest = hashlib.sha256(read_packed_file(place, file)).hexdigest()
        whole[file.path] = whole.get(file.path, True) and digest == file.sha256
    return [path for path, is_whole in whole.items() if not is_whole]


def _states(packed: PackedSplit) -> dict[str, list[int]]:
    """Size and time of every file of a packed split."""
    paths = sorted(packed.folder.iterdir())
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}


def _is_remembered(packed: PackedSplit) -> bool:
    with suppress(OutputError, OSError, ValueError):
        return bool(json.loads(memory_path(packed.folder).read_bytes()) == {"sound": _states(packed)})
    return False


def _remember(packed: PackedSplit) -> None:
    with suppress(OutputError, OSError):
        write_whole(memory_path(packed.folder), json.dumps({"sound": _states(packed)}))
