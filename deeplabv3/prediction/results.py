"""The files that predictions are kept as, and where they lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from deeplabv3.config import PredictConfig
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import InputError
from deeplabv3.files import MOST_NAME_BYTES
from deeplabv3.prediction.clips import Live
from deeplabv3.prediction.render import colorize, overlay, save_picture, with_legend

KINDS = ("labelIds", "color", "overlay")
"""The folders of the results."""

VIDEO_RESULT = "_overlay.mp4"
"""What a video's result is called behind the video's name."""


class VideoResult:
    """The one file of a video.

    Args:
        folder: Holds it.
        stem: Name of the video without ending, or of what is live.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.overlay = folder / f"{stem}{VIDEO_RESULT}"
        self.paths = (self.overlay,)

    @property
    def is_complete(self) -> bool:
        """Whether it is there; that of a file gets its name last."""
        return self.overlay.is_file()


class Results:
    """The three files of an image, each kind in a folder of its own.

    cityscapesScripts take every PNG of a frame's name for a prediction, so `labelIds` can be handed to them as it is.

    Args:
        folder: Holds the three folders.
        stem: Name of the files without ending.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.label_ids, self.color, self.overlay = (folder / kind / f"{stem}.png" for kind in KINDS)

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """All three."""
        return self.label_ids, self.color, self.overlay

    @property
    def is_complete(self) -> bool:
        """Whether all three are there; each gets its name when it is whole."""
        return all(path.is_file() for path in self.paths)

    def write(
        self,
        image: Pixels,
        prediction: Pixels,
        label_set: LabelSet,
        *,
        opacity: float = PredictConfig.opacity,
        legend: bool = True,
    ) -> None:
        """Write them.

        Args:
            image: RGB uint8 `(H, W, 3)`.
            prediction: trainIds uint8 `(H, W)`.
            label_set: Ids, colours and names.
            opacity: Of the overlay, 0..1.
            legend: Whether the overlay has one below it.

        Raises:
            OutputError: A file cannot be written.
        """
        color = colorize(prediction, label_set)
        picture = overlay(image, color, opacity)
        save_picture(self.label_ids, label_set.id_of_train_id[prediction])
        save_picture(self.color, color)
        save_picture(self.overlay, with_legend(picture, prediction, label_set) if legend else picture)


def require_other_files(sources: Sequence[Path | Live], results: Sequence[Sequence[Path]]) -> None:
    """Refuse results that would replace what is to be predicted, and those whose names no file system takes.

    Args:
        sources: Images and videos.
        results: The files of each.

    Raises:
        InputError: There is such a result.
    """
    files = {path.resolve() for path in sources if isinstance(path, Path)}
    folder_of = cache(Path.resolve)
    for source, paths in zip(sources, results, strict=True):
        for path in paths:
            if folder_of(path.parent) / path.name in files:
                raise InputError(f"{path} is to be predicted, and would be replaced; choose another folder with --out")
            num_bytes = len(os.fsencode(path.name))
            if num_bytes > MOST_NAME_BYTES:
                raise InputError(
                    f"a result of {source} would have a name of {num_bytes} bytes, and a file takes "
                    f"{MOST_NAME_BYTES} at most; rename it"
                )
