"""A video, frame by frame, as a video of overlays."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deeplabv3.config import PredictConfig
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import DatasetError
from deeplabv3.files import open_whole
from deeplabv3.prediction.clips import ClipWriter, open_clip
from deeplabv3.prediction.pipeline import overlapped
from deeplabv3.prediction.render import colorize, overlay, with_entries
from deeplabv3.progress import Progress


def predict_video(
    path: Path, out: Path, segment: Callable[[Pixels], Pixels], label_set: LabelSet, config: PredictConfig
) -> None:
    """Segment each frame of a video and write the overlays, with a legend of all classes, as a video.

    Decoding, the network and encoding overlap. The file is there when it is complete.

    Args:
        path: The video.
        out: The MP4 file to write.
        segment: From an image, RGB uint8 `(H, W, 3)`, to its trainIds, uint8 `(H, W)`.
        label_set: Its classes.
        config: What the overlays look like, and how large a frame may be.

    Raises:
        DatasetError: The video cannot be read, or not to its end; frames before the damage are written.
        OutputError: The file cannot be written.
    """
    with open_clip(path, config.max_pixels) as clip:
        start = time.monotonic()
        with (
            Progress(path.name, clip.num_frames) as progress,
            open_whole(out) as file,
            ClipWriter(file, clip.rate) as writer,
        ):

            def segmented(image: Pixels) -> tuple[Pixels, Pixels]:
                return image, segment(image)

            def write(result: tuple[Pixels, Pixels]) -> None:
                image, prediction = result
                picture = overlay(image, colorize(prediction, label_set), config.opacity)
                writer.write(with_all_classes(picture, label_set) if config.legend else picture)
                rate = (progress.done + 1) / (time.monotonic() - start)
                progress.advance(note=f"{rate:.1f} frames a second")

            overlapped(clip.frames(), segmented, write)
            if not clip.num_read:
                raise DatasetError(f"{path} holds no frame that can be read ({clip.damage}); nothing is written")
        if clip.damage:
            raise DatasetError(
                f"{path} is damaged: it ends after {clip.num_read} frames ({clip.damage}); these are written to {out}"
            )


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
