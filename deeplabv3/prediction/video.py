"""A video, frame by frame, as a video of overlays."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from deeplabv3.config import PredictConfig
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import DatasetError
from deeplabv3.prediction.clips import STREAMS, ClipWriter, Live, open_clip
from deeplabv3.prediction.pipeline import overlapped
from deeplabv3.prediction.render import colorize, overlay, with_entries
from deeplabv3.progress import Progress


def predict_video(
    source: Path | Live, out: Path, segment: Callable[[Pixels], Pixels], label_set: LabelSet, config: PredictConfig
) -> None:
    """Segment each frame of a video and write the overlays, with a legend of all classes, as a video.

    Decoding, the network and encoding overlap. The file is there when it is complete. What is live comes once: its file
    is there from the first frame on and can be played whatever ends the process; SIGINT and SIGTERM end it in order.

    Args:
        source: The video.
        out: The MP4 file to write.
        segment: From an image, RGB uint8 `(H, W, 3)`, to its trainIds, uint8 `(H, W)`.
        label_set: Its classes.
        config: What the overlays look like, and how large a frame may be.

    Raises:
        DatasetError: The video cannot be read, or not to its end; frames before the damage are written.
        OutputError: The file cannot be written.
    """
    stopped, is_live = threading.Event(), isinstance(source, Live)
    with (
        signals_to(stopped.set) if is_live else nullcontext(),
        open_clip(source, config.max_pixels, stopped) as clip,
    ):
        start = time.monotonic()
        with (
            Progress(source.name, clip.num_frames) as progress,
            ClipWriter(out, clip.rate, is_live=is_live) as writer,
        ):

            def segmented(frame: tuple[int, Pixels]) -> tuple[int, Pixels, Pixels]:
                place, image = frame
                return place, image, segment(image)

            def write(result: tuple[int, Pixels, Pixels]) -> None:
                place, image, prediction = result
                picture = overlay(image, colorize(prediction, label_set), config.opacity)
                writer.write(place, with_all_classes(picture, label_set) if config.legend else picture)
                progress.advance(note=f"{(progress.done + 1) / (time.monotonic() - start):.1f} frames a second")

            overlapped(clip.frames(), segmented, write, stopped.set)
            if not clip.num_read:
                wanted = STREAMS if source == Live("stdin") else "nothing is written"
                raise DatasetError(f"{source.name} holds no frame that can be read ({clip.damage}); {wanted}")
        if clip.damage:
            raise DatasetError(
                f"{source.name} is damaged: it ends after {clip.num_read} frames ({clip.damage}); "
                f"these are written to {out}"
            )


@contextmanager
def signals_to(stop: Callable[[], None]) -> Iterator[None]:
    """While in the block, the first SIGINT or SIGTERM calls `stop`; the second does what it does elsewhere.

    Outside the main thread, where Python has no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def receive(*_: object) -> None:
        restore()
        stop()

    for number in before:
        signal.signal(number, receive)
    try:
        yield
    finally:
        restore()


def with_all_classes(picture: Pixels, label_set: LabelSet) -> Pixels:
    """A picture with every class of the label set below it: the same legend for every frame, so that it stands still.

    Args:
        picture: RGB uint8 `(H, W, 3)`.
        label_set: Names and colours.

    Returns:
        RGB uint8, higher than the picture, and wider if the picture is narrower than one entry.
    """
    entries = [(row.color, name) for row, name in zip(label_set.evaluated, label_set.names, strict=True)]
    return np.asarray(with_entries(picture, entries))
