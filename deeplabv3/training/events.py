"""What a run writes for TensorBoard: the curves of its log, and how a few frames are predicted as it goes on.

The history in the checkpoint stays the truth. A run that goes on hides whatever lies beyond it, and writes anew what a
crash, or a stretch without TensorBoard, left out. It needs the extra `tensorboard`, of which only the format of
records and TensorBoard's own protocol buffers are used: a call writes its records before it returns, so an error is one
of that call, and no thread and no open file outlives it, as they would with `torch.utils.tensorboard.SummaryWriter`.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplabv3.config import InferenceConfig, PredictConfig
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.frames import read_image_of
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import InputError, OutputError
from deeplabv3.files import cannot_write, make_dir
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.prediction.predictor import predict_image
from deeplabv3.prediction.render import colorize, overlay, with_entries
from deeplabv3.report.curves import History
from deeplabv3.report.markup import drawable
from deeplabv3.report.worst import photo_jpeg

NUM_PICTURES, PICTURE_WIDTH = 4, 512
"""Frames that are shown, and the most pixels that they are wide."""

TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "learning_rate": "rate",
    "miou": "miou/val",
    "unaveraged_miou": "miou/val_unaveraged",
    "images_per_second": "speed/images_per_second",
    "waiting_share": "speed/waiting_share",
}
"""The names that values of a history have in TensorBoard; the IoU of a class is `iou/<class>`."""

_PREFIX = "events.out.tfevents."  # TensorBoard knows its files by it
_VERSION = "brain.Event:2"  # the version of the format in which a start hides what lies beyond it


def require_tensorboard() -> None:
    """Find out whether the extra is installed.

    Raises:
        InputError: It is not.
    """
    try:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise InputError("events for TensorBoard need an extra: pip install 'deeplabv3[tensorboard]'") from error


def event_files(folder: Path) -> list[Path]:
    """The event files of a run in the order that TensorBoard reads them; none if there is no such folder."""
    return sorted(folder.glob(f"{_PREFIX}*"))


class Events:
    """A run's events. Each time that a run begins or goes on it writes one more file, when it has something to write.

    Args:
        folder: Of this run's events alone; it is made when something is written.
        history: What the run has reached. Events beyond its last step are hidden; epochs of it that have none are
            written at once, with the time of now.

    Raises:
        OutputError: The folder cannot be read or written.
    """

    def __init__(self, folder: Path, history: History = ()) -> None:
        self.folder = folder
        self._path: Path | None = None
        written = _steps_written(folder)
        gap = next((place for place, entry in enumerate(history) if entry["step"] not in written), len(history))
        left_out = history[gap:]
        # The step from which on nothing counts that is in files so far.
        self._start = left_out[0]["step"] if left_out else history[-1]["step"] + 1 if history else 0
        for entry in left_out:
            self.epoch(entry)

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Write the curves of an epoch, at its step.

        Args:
            entry: An epoch of a run's history, as `log.jsonl` has it; what is None or not there is left out.

        Raises:
            OutputError: It cannot be written; nothing of it was.
        """
        scalars = {tag: entry.get(name) for name, tag in TAGS.items()}
        scalars |= {f"iou/{name}": iou for name, iou in (entry.get("class_iou") or {}).items()}
        values = [{"tag": drawable(tag), "simple_value": value} for tag, value in scalars.items() if value is not None]
        self._append({"step": entry["step"], "summary": {"value": values}})

    def pictures(
        self,
        step: int,
        model: DeepLabV3,
        samples: Sequence[Sample],
        label_set: LabelSet,
        inference: InferenceConfig,
    ) -> None:
        """Predict a few frames, the same each time, and write them overlaid with their classes, above a legend.

        Args:
            step: Updates of the weights so far.
            model: The plain network in any mode, on any device; the mode of each of its modules and the random state
                are as before.
            samples: The validation split; `NUM_PICTURES` frames spread evenly over it are taken.
            label_set: Its classes.
            inference: How to predict.

        Raises:
            DatasetError: A frame cannot be read any more.
            OutputError: They cannot be written; none of them was.
        """
        values = []
        with _evaluating(model):
            for sample in (samples[place] for place in spread(len(samples))):
                image = read_image_of(sample)
                picture = _picture(image, predict_image(model, image, inference), label_set)
                height, width = picture.shape[:2]
                content = {
                    "height": height,
                    "width": width,
                    "colorspace": 3,
                    "encoded_image_string": photo_jpeg(picture),
                }
                values.append({"tag": f"frames/{drawable(sample.name)}", "image": content})
        self._append({"step": step, "summary": {"value": values}})

    def _append(self, event: dict[str, Any]) -> None:
        """Write an event, as one record, so that an epoch is there whole or not at all."""
        events, path = [event], self._path
        if path is None:
            make_dir(self.folder)
            # Numbers, where TensorBoard's own names have the time: the order of files must not depend on a clock.
            parts = [path.name.split(".")[3] for path in event_files(self.folder)]
            number = 1 + max((int(part) for part in parts if part.isdecimal()), default=0)
            path = self.folder / f"{_PREFIX}{number:010d}.deeplabv3"
            events = [{"file_version": _VERSION}, {"step": self._start, "session_log": {"status": "START"}}, event]
        _append_records(path, [{"wall_time": time.time(), **event} for event in events])
        self._path = path


def spread(number: int) -> list[int]:
    """`NUM_PICTURES` positions in a list of `number`, the first among them, evenly apart; all where they are fewer."""
    shown = min(NUM_PICTURES, number)
    return [place * number // shown for place in range(shown)]


def _picture(image: Pixels, prediction: Pixels, label_set: LabelSet) -> Pixels:
    """The overlay that `predict` draws, made smaller, above all classes, so that its size never changes.

    Args:
        image: RGB uint8 `(H, W, 3)`.
        prediction: trainIds uint8 `(H, W)`.
        label_set: Names and colours.

    Returns:
        RGB uint8 `(h, w, 3)`, `w` at most `PICTURE_WIDTH` unless a class's name is longer.
    """
    full = overlay(image, colorize(prediction, label_set), PredictConfig.opacity)
    height, width = full.shape[:2]
    scale = min(1.0, PICTURE_WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(full).resize(size, Image.Resampling.LANCZOS))
    return with_entries(small, [(row.color, drawable(row.name)) for row in label_set.evaluated])


@contextmanager
def _evaluating(model: DeepLabV3) -> Iterator[None]:
    """Evaluation mode for a while; then each module has its own again: frozen batch norm is not in that of the rest."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _append_records(path: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """Add events to a file, and take off again what was written of them if not all could be.

    Args:
        path: The file, which may not be there yet.
        events: Fields of TensorBoard's `Event`.

    Raises:
        OutputError: They cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = io.BytesIO()
    for event in events:
        RecordWriter(records).write(Event(**event).SerializeToString())
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(records.getvalue())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            os.truncate(path, size)
        refusal = cannot_write(path, error, len(records.getvalue()))
        raise OutputError(f"{refusal}, or leave out --tensorboard") from error


def _steps_written(folder: Path) -> set[int]:
    """The steps of the epochs that TensorBoard would show.

    Raises:
        OutputError: A file cannot be read.
    """
    steps: set[int] = set()
    for path in event_files(folder):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise OutputError(f"{path} cannot be read: {error.strerror}; remove it to write a new one") from error
        for event in _events_in(content):
            if event.HasField("session_log"):
                steps = {step for step in steps if step < event.step}
            if any(value.tag == TAGS["train_loss"] for value in event.summary.value):
                steps.add(event.step)
    return steps


def _events_in(content: bytes) -> Iterator[Any]:
    """The events of a file, up to the first record that is torn.

    A record is its length in 8 bytes, a checksum of these in 4, the event, and a checksum of that in 4. The second one
    is not looked at: a writer that is stopped leaves a shorter file, and the checksum of a picture takes 30 ms.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    start = 0
    while start + 12 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 8], "little")
        if end + 4 > len(content):
            return
        try:
            yield Event.FromString(content[start + 12 : end])
        except DecodeError:
            return
        start = end + 4
