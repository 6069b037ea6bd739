"""Video files in and out, by FFmpeg's libraries (PyAV, the extra `video`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deeplabv3.data.images import Pixels
from deeplabv3.errors import DatasetError, InputError
from deeplabv3.prediction.render import BACKGROUND

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm")
"""Endings of files that are read as video."""

FALLBACK_RATE = Fraction(25)
"""Frames a second where the input does not say."""


class Clip:
    """A video that is read once, frame by frame.

    Args:
        container: As PyAV opened it.
        name: What errors call it.

    Attributes:
        rate: Frames a second on average; the frames are taken to be evenly apart.
        num_frames: How many the file announces; None if it does not.
        num_read: How many were read so far.
        damage: Why `frames` ended before the end; None while all is well.
    """

    def __init__(self, container: Any, name: str) -> None:
        self._container, self.name = container, name
        self._stream = container.streams.video[0]
        self.rate = Fraction(self._stream.average_rate or FALLBACK_RATE)
        self.num_frames: int | None = self._stream.frames or None
        self.num_read = 0
        self.damage: str | None = None

    def frames(self) -> Iterator[Pixels]:
        """RGB uint8 `(H, W, 3)`, upright; where the file is damaged, those before, and `damage` is set."""
        size = None
        try:
            for frame in self._container.decode(self._stream):
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                size = size or pixels.shape
                if pixels.shape != size:
                    self.damage = "the next one has another size"
                    return
                self.num_read += 1
                yield pixels
        except _av().FFmpegError as error:
            self.damage = error.strerror
            return
        if self.num_frames and self.num_read < self.num_frames:
            self.damage = f"{self.num_frames} are announced"


@contextmanager
def open_clip(path: Path, max_pixels: int) -> Iterator[Clip]:
    """Open a video for reading.

    Args:
        path: The file.
        max_pixels: Frames of more are refused before they are decoded.

    Raises:
        InputError: The extra is not installed.
        DatasetError: The file is no video, or its frames are too large.
    """
    av = _av()
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise DatasetError(f"{path} is no video that can be read ({error.strerror}); convert it to mp4") from error
    with container:
        if not container.streams.video:
            raise DatasetError(f"{path} has no pictures in it; give a video")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if stream.width * stream.height > max_pixels:
            raise DatasetError(
                f"{path} has frames of {stream.height}x{stream.width} pixels; at most {max_pixels:,} are read: "
                "raise --max-pixels or make it smaller"
            )
        yield Clip(container, str(path))


class ClipWriter:
    """Writes an MP4 file of H.264, yuv420p, which every player takes; use it in a `with` statement.

    Args:
        file: Open for writing, and seekable.
        rate: Frames a second.
    """

    def __init__(self, file: BinaryIO, rate: Fraction) -> None:
        self._container = _av().open(file, "w", format="mp4")
        self._rate = rate
        self._stream: Any = None

    def __enter__(self) -> ClipWriter:
        """Ready for the first frame."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what makes the file complete, unless there was an error."""
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode())
            self._container.close()

    def write(self, picture: Pixels) -> None:
        """Append a frame, RGB uint8 `(H, W, 3)`, all of one size; an odd side gets one line of background more."""
        height, width = picture.shape[:2]
        if height % 2 or width % 2:  # a pixel of colour stands for 2x2 in yuv420p
            even = np.full((height + height % 2, width + width % 2, 3), BACKGROUND, np.uint8)
            even[:height, :width] = picture
            picture = even
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": "18"})
            self._stream.height, self._stream.width = picture.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        frame = _av().VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        self._container.mux(self._stream.encode(frame))


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise InputError("videos need PyAV; install it with: pip install 'deeplabv3[video]'") from error
    return av
