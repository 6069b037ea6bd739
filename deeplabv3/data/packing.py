"""Packing a split of a plain data set; `packed` says what the files hold.

All is written into a hidden folder beside the packed split, which takes its name once everything is on the disk. A
journal in it says which frames are done, so that an interrupted packing goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deeplabv3.cores import given_or_cores
from deeplabv3.data.changes import changed_files
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.images import decode_image, image_size, read_values_and_label, require_one_size
from deeplabv3.data.labels import LabelSet
from deeplabv3.data.loading import read_in_order
from deeplabv3.data.packed import (
    FILES_FILE,
    IMAGES_FILE,
    INDEX,
    LABELS_FILE,
    PackedFrame,
    PackedSplit,
    SourceFile,
    image_digest,
    label_digest,
    read_index,
)
from deeplabv3.errors import DatasetError, OutputError
from deeplabv3.files import cannot_write, flush_dir, is_file, is_there, make_dir, only_writer, partial_of, write_whole

JOURNAL = "journal.jsonl"
_FRAMES_A_FLUSH = 64  # brought to the disk together: a flush for each frame would take longer than the packing
_FEW_PIXELS = 4_000_000  # up to which starting processes takes longer than they save

Advance = Callable[[int], None]
"""Called with a number of frames that are done, besides those of earlier calls."""


def pack_split(
    data_dir: Path,
    out: Path,
    split: str,
    samples: Sequence[Sample],
    label_set: LabelSet,
    *,
    num_workers: int | None = None,
    overwrite: bool = False,
    progress: Advance = lambda _: None,
    skipped: Advance = lambda _: None,
) -> bool:
    """Write a split as flat files, or go on writing it.

    Args:
        data_dir: The plain data set.
        out: The packed data set; the split becomes a folder in it.
        split: The split's name.
        samples: Its frames, which have no defect.
        label_set: What trainIds are.
        num_workers: Processes that decode; None takes one for each core where that pays.
        overwrite: Replace a packed split that is there, once the new one is whole.
        progress: Told of each frame, as one more.
        skipped: Told first how many were done before.

    Returns:
        Whether it was written; not if the same frames, unchanged, are packed there already.

    Raises:
        InputError: A file cannot be used, something else is there, or it cannot be written.
    """
    target, hidden = out / split, out / f".{split}.partial"
    planned = _planned(data_dir, samples)
    wanted = PackedSplit(target, split, data_dir.resolve(), label_set, _num_bytes(planned), planned)
    make_dir(out)
    with only_writer(out, is_shared=True):
        if is_there(target):
            _require_packed(target)
            if not overwrite:
                _require_same(target, wanted)
                _tidy(target, hidden)
                return False
        frames = _packed(data_dir, hidden, wanted, num_workers, progress, skipped)
        write_whole(hidden / INDEX, replace(wanted, frames=tuple(frames)).to_json())
        _put_in_place(hidden, target)
    return True


def _packed(
    data_dir: Path, hidden: Path, wanted: PackedSplit, num_workers: int | None, progress: Advance, skipped: Advance
) -> list[PackedFrame]:
    """The frames that are wanted, once their pixels are on the disk."""
    plan = hashlib.sha256(wanted.to_json().encode()).hexdigest()
    done = _read_journal(hidden / JOURNAL, plan, wanted.frames)
    _make_room(hidden, wanted, is_new=not done)
    left = wanted.frames[len(done) :]
    with _Journal(hidden, plan, done) as journal:
        skipped(len(done))
        work = partial(pack_frame, data_dir=data_dir, folder=hidden, label_set=wanted.label_set)
        num_pixels = sum(frame.height * frame.width for frame in left)
        workers = given_or_cores(num_workers, pays=num_pixels > _FEW_PIXELS)
        for frame in read_in_order(work, left, workers, attrgetter("name")):
            journal.add(frame)
            progress(1)
    return journal.frames


def _planned(data_dir: Path, samples: Sequence[Sample]) -> tuple[PackedFrame, ...]:
    """The index as far as headers and the file system tell."""
    frames = []
    pixels = stored = 0
    for sample in samples:
        height, width = image_size(sample.image_path)
        image, label = _source(sample.image_path, data_dir), _source(sample.label_path, data_dir, stored)
        stored += label.num_bytes
        instances = _source(sample.instance_path, data_dir, stored) if sample.instance_path else None
        stored += instances.num_bytes if instances else 0
        frames.append(PackedFrame(sample.name, height, width, pixels, sample.train_ids, image, label, instances))
        pixels += height * width
    return tuple(frames)


def _source(path: Path, data_dir: Path, offset: int = -1) -> SourceFile:
    status = path.stat()
    return SourceFile(path.relative_to(data_dir).as_posix(), status.st_size, status.st_mtime_ns, offset=offset)


def _num_bytes(frames: Sequence[PackedFrame]) -> dict[str, int]:
    pixels = sum(frame.height * frame.width for frame in frames)
    stored = sum(file.num_bytes for frame in frames for file in frame.files if file is not frame.image)
    return {IMAGES_FILE: 3 * pixels, LABELS_FILE: pixels, FILES_FILE: stored}


def _require_packed(target: Path) -> None:
    """Refuse to touch what packing did not write; a packed split may be damaged."""
    if not is_file(target / INDEX):
        raise OutputError(f"{target} is there already and is no packed split; choose another folder")
    own = {INDEX, JOURNAL, IMAGES_FILE, LABELS_FILE, FILES_FILE}
    own |= {partial_of(target / name).name for name in own}
    if others := sorted(path.name for path in target.iterdir() if path.name not in own):
        raise OutputError(
            f"{target / others[0]} is nothing that packing wrote; move it elsewhere, or choose another folder"
        )


def _require_same(target: Path, wanted: PackedSplit) -> None:
    """Refuse to replace what is there, unless it is what would be written."""
    there = read_index(target)
    paths = [{file.path for frame in split.frames for file in frame.files} for split in (there, wanted)]
    if there.source != wanted.source:
        what = f"packed from {there.source}"
    elif there.label_set != wanted.label_set:
        what = f"packed with another label set, {there.label_set.name}"
    elif len(there.frames) != len(wanted.frames):
        what = f"packed from {len(there.frames)} frames, and there are {len(wanted.frames)} now"
    elif others := sorted(paths[0] ^ paths[1]):
        what = f"packed before {there.source / others[0]} {'came' if others[0] in paths[1] else 'went'}"
    elif changed := changed_files(there):
        more = f" and {len(changed) - 1} more have" if len(changed) > 1 else " has"
        what = f"packed before {there.source / changed[0].path}{more} changed"
    else:
        return
    raise OutputError(f"{target} is there already, {what}; add --overwrite to replace it, or choose another folder")


def pack_frame(frame: PackedFrame, data_dir: Path, folder: Path, label_set: LabelSet) -> PackedFrame:
    """Decode a frame, write it to its place in the flat files, and return it with its checksums.

    Raises:
        DatasetError: A file cannot be used, or is not as it was when the packing began.
        OutputError: A flat file cannot be written.
    """
    contents = [_unchanged(file, data_dir) for file in frame.files]
    image_path, label_path = (data_dir / file.path for file in (frame.image, frame.label))
    image = np.ascontiguousarray(decode_image(contents[0], image_path))
    values, label = read_values_and_label(label_path, label_set, train_ids=frame.train_ids, content=contents[1])
    if image.shape[:2] != (frame.height, frame.width):  # it has another place in the flat file
        sizes = f"{image.shape[0]}x{image.shape[1]} and was taken for {frame.height}x{frame.width} (height x width)"
        raise DatasetError(f"{image_path} is {sizes}, for it says behind its pixels that it is turned; save it anew")
    require_one_size(label_path, label.shape, "image", image.shape)
    counts = np.bincount(values.ravel())
    _write_at(folder / IMAGES_FILE, 3 * frame.offset, image.data)
    _write_at(folder / LABELS_FILE, frame.offset, np.ascontiguousarray(label).data)
    for file, content in zip(frame.files[1:], contents[1:], strict=True):
        _write_at(folder / FILES_FILE, file.offset, content)
    image_file, label_file, *instances = (
        replace(file, sha256=hashlib.sha256(content).hexdigest())
        for file, content in zip(frame.files, contents, strict=True)
    )
    return replace(
        frame,
        image=image_file,
        label=label_file,
        instances=instances[0] if instances else None,
        image_digest=image_digest(image),
        label_digest=label_digest(label),
        values=tuple((int(value), int(counts[value])) for value in np.flatnonzero(counts)),
    )


def _unchanged(file: SourceFile, data_dir: Path) -> bytes:
    path = data_dir / file.path
    try:
        content = path.read_bytes() if _is_as_planned(path, file) else b""
        is_same = _is_as_planned(path, file) and len(content) == file.num_bytes
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}; put it back and go on") from error
    if not is_same:
        raise DatasetError(f"{path} changed while the data set was packed; start again with the same command")
    return content


def _is_as_planned(path: Path, file: SourceFile) -> bool:
    status = path.stat()
    return (status.st_size, status.st_mtime_ns) == (file.num_bytes, file.modified_ns)


def _write_at(path: Path, offset: int, content: bytes | memoryview) -> None:
    try:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{cannot_write(path, error)}; the same command goes on in this one")


class _Journal:
    """The frames that are done, on the disk before anything says so."""

    def __init__(self, folder: Path, plan: str, done: Sequence[PackedFrame]) -> None:
        self._folder = folder
        self.frames = list(done)
        self._waiting: list[str] = []
        lines = [{"plan": plan}, *(asdict(frame) for frame in done)]  # without a last line that was cut off
        write_whole(folder / JOURNAL, "".join(json.dumps(line) + "\n" for line in lines))

    def __enter__(self) -> _Journal:
        self._file: BinaryIO = (self._folder / JOURNAL).open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._flush()

    def add(self, frame: PackedFrame) -> None:
        """A frame whose pixels have been written."""
        self.frames.append(frame)
        self._waiting.append(json.dumps(asdict(frame)))
        if len(self._waiting) >= _FRAMES_A_FLUSH:
            self._flush()

    def _flush(self) -> None:
        # What fails once is told once: a second flush succeeds, and what it was asked for may be lost all the same.
        lines, self._waiting = self._waiting, []
        try:
            for name in (IMAGES_FILE, LABELS_FILE, FILES_FILE):
                with (self._folder / name).open("r+b") as file:
                    os.fsync(file.fileno())
            self._file.writelines(f"{line}\n".encode() for line in lines)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self._folder, error) from error


def _read_journal(path: Path, plan: str, wanted: Sequence[PackedFrame]) -> list[PackedFrame]:
    """The frames that an interrupted packing of the same files has done: the first of those that are wanted."""
    frames = []
    with suppress(OSError, ValueError, KeyError, TypeError):  # a last line that was cut off is not read
        with path.open(encoding="utf-8") as lines:
            if json.loads(next(lines, "{}")).get("plan") == plan:
                for line, planned in zip(lines, wanted, strict=False):
                    frame = PackedFrame.from_dict(json.loads(line))
                    if (frame.name, frame.offset) != (planned.name, planned.offset):
                        break
                    frames.append(frame)
    return frames


def _make_room(hidden: Path, wanted: PackedSplit, *, is_new: bool) -> None:
    """The flat files at their full size, empty where nothing is written yet."""
    if is_new and hidden.exists():
        shutil.rmtree(hidden)
    make_dir(hidden)
    num_bytes = sum(wanted.num_bytes.values())
    there = sum(path.stat().st_blocks * 512 for path in hidden.iterdir())
    free = shutil.disk_usage(hidden).free
    if num_bytes > there + free:
        raise OutputError(
            f"{hidden.parent} has {free:,} bytes free and {wanted.split} needs {num_bytes - there:,}; make room, or "
            "choose another folder"
        )
    for name, size in wanted.num_bytes.items():
        try:
            with (hidden / name).open("ab") as file:
                file.truncate(size)
        except OSError as error:  # a file system that knows no files of that size, for instance
            raise _unwritable(hidden / name, error) from error


def _put_in_place(hidden: Path, target: Path) -> None:
    """Give a whole packed split its name; what had it before goes only then."""
    old = _old(target)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    hidden.rename(target)
    flush_dir(target.parent)
    _tidy(target, hidden)


def _tidy(target: Path, hidden: Path) -> None:
    """Remove what a whole packed split needs no longer; a process that was killed may have left it."""
    (target / JOURNAL).unlink(missing_ok=True)
    for folder in (_old(target), hidden):
        shutil.rmtree(folder, ignore_errors=True)


def _old(target: Path) -> Path:
    """Where a packed split that is replaced lies in the meantime."""
    return target.with_name(f".{target.name}.old")
