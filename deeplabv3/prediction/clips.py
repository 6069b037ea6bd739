"""Videos in and out, by FFmpeg's libraries (PyAV, the extra `video`): files, standard input, cameras."""

from __future__ import annotations

import os
import re
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from deeplabv3.data.images import Pixels
from deeplabv3.errors import DatasetError, InputError, OutputError, printable
from deeplabv3.files import open_growing, open_whole
from deeplabv3.prediction.render import BACKGROUND

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm")
"""Endings of files that are read as video."""

FALLBACK_RATE = Fraction(25)
"""Frames a second where the input does not say."""

STREAMS = "send PNG, JPEG or PPM images one after another, or a video as MPEG-TS or Matroska"
"""What standard input may hold; an MP4 need not be readable from front to back."""

_LOOK_SECONDS = 0.1

# A second's frames can be played as soon as they are written; at the end the index of an ordinary file is added.
_PLAYABLE_SO_FAR = {"movflags": "hybrid_fragmented", "frag_duration": "1000000"}


class Live(NamedTuple):
    """A source without an end of its own: standard input, or a camera.

    Attributes:
        name: What its result is called, and errors call it.
        camera: Its number; None for standard input.
    """

    name: str
    camera: int | None = None


class Clip:
    """A video that is read once, frame by frame.

    Args:
        container: As PyAV opened it.
        source: Where it came from.
        stopped: Set when a camera's next frame is to be its last.

    Attributes:
        rate: Frames a second on average; those of a file are taken to be evenly apart.
        num_frames: How many the file announces; None if it does not.
        num_read: How many were read so far.
        damage: Why `frames` ended before the end; None while all is well.
    """

    def __init__(self, container: Any, source: Path | Live, stopped: threading.Event) -> None:
        self._container, self._stopped = container, stopped
        self._is_camera = isinstance(source, Live) and source.camera is not None
        self._stream = container.streams.video[0]
        self.rate = Fraction(self._stream.average_rate or FALLBACK_RATE)
        self.num_frames: int | None = self._stream.frames or None
        self.num_read = 0
        self.damage: str | None = None

    def frames(self) -> Iterator[tuple[int, Pixels]]:
        """Frames, each with its place in a video of `rate`.

        What is too slow for a camera misses some of its frames: their places stay free, so that time goes on as it did.

        Yields:
            Place, growing from 0, and RGB uint8 `(H, W, 3)`, upright. Where the source is damaged, those before, and
            `damage` is set.
        """
        size, place, first, last, end = None, -1, None, 0.0, 0.0
        unreadable = _av().FFmpegError  # here, because nothing can be imported while the interpreter ends
        try:
            for frame in self._container.decode(self._stream):
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                size = size or pixels.shape
                if pixels.shape != size:
                    self.damage = "the next one has another size"
                    return
                place += 1
                if frame.time is not None:
                    first = frame.time if first is None else first
                    last = frame.time - first
                    end = frame.time + float(
                        (getattr(frame, "duration", None) or 0) * frame.time_base
                    )  # PyAV 14 has none
                    place = max(place, round(last * self.rate)) if self._is_camera else place
                self.num_read += 1
                yield place, pixels
                if self._is_camera and self._stopped.is_set():
                    return
        except unreadable as error:
            self.damage = None if self._stopped.is_set() else error.strerror
            return
        # A clip that was trimmed announces frames that are not to be shown, and the time without them.
        seconds = float((self._stream.duration or 0) * (self._stream.time_base or 0))
        if self.num_frames and self.num_read < self.num_frames and last + float(2 / self.rate) < seconds:
            self.damage = f"{self.num_frames} are announced"
        seconds = _tagged_seconds(self._stream.metadata.get("DURATION", ""))
        if not self.num_frames and not self._stopped.is_set() and end + float(2 / self.rate) < seconds:
            self.damage = f"{seconds:.1f} seconds are announced"


def _tagged_seconds(text: str) -> float:
    """Where Matroska says that a stream ends, `00:00:02.400000000`, in its tags; 0 if it does not."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)
    return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3]) if found else 0.0


@contextmanager
def open_clip(source: Path | Live, max_pixels: int, stopped: threading.Event | None = None) -> Iterator[Clip]:
    """Open a video for reading.

    Args:
        source: A file, or what is live.
        max_pixels: Frames of more are refused before they are decoded.
        stopped: Ends what is live when it is set, from any thread: of standard input, all is seen that came until then.

    Raises:
        InputError: The extra is not installed, or there are no cameras on this system.
        DatasetError: The source is no video, or its frames are too large.
    """
    stopped = stopped or threading.Event()
    with _container(source, stopped) as container:
        name = source.name if isinstance(source, Live) else source
        if not container.streams.video:
            raise DatasetError(f"{name} has no pictures in it; give a video")
        stream = container.streams.video[0]
        # Several images decoded at once would be lost where one is damaged.
        stream.thread_type = "SLICE" if container.format.name.endswith("_pipe") else "AUTO"
        if stream.width * stream.height > max_pixels:
            raise DatasetError(
                f"{name} has frames of {stream.height}x{stream.width} pixels; at most {max_pixels:,} are read: "
                "raise --max-pixels or make it smaller"
            )
        yield Clip(container, source, stopped)


def _container(source: Path | Live, stopped: threading.Event) -> Any:
    av = _av()
    try:
        if isinstance(source, Path):
            return av.open(f"file:{source}")  # a name with a colon is no protocol
        if source.camera is None:
            return av.open(_StandardInput(stopped))
        address, device = _address(source.camera)
        return av.open(address, format=device)
    except av.FFmpegError as error:
        why = error.strerror
        if isinstance(source, Path):
            message = f"{source} is no video that can be read ({why}); convert it to mp4"
        elif source.camera is None:
            message = f"standard input holds no video that can be read ({why}); {STREAMS}"
        else:
            message = f"{source.name} cannot be used ({address}: {why}); connect it, or end what else uses it"
        raise DatasetError(message) from error
    except ValueError as error:  # av.FFmpegError is one for some reasons
        raise InputError(f"this PyAV reads no cameras ({error}); give a file or a stream on standard input") from error


def _address(camera: int) -> tuple[str, str]:
    """What FFmpeg calls a camera, and the device that it reads it by."""
    return (str(camera), "avfoundation") if sys.platform == "darwin" else (f"/dev/video{camera}", "v4l2")


class _StandardInput:
    """Standard input as a file that ends when reading is stopped, even while nothing comes."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped, self._handle = stopped, sys.stdin.fileno()

    def read(self, size: int) -> bytes:
        """The next bytes, `size` at most; none at the end."""
        while not self._stopped.is_set():
            if sys.platform == "win32" or select.select([self._handle], [], [], _LOOK_SECONDS)[0]:
                return os.read(self._handle, size)
        return b""


class ClipWriter:
    """Writes an MP4 file of H.264, yuv420p, which every player takes; use it in a `with` statement.

    Args:
        path: The file, which is there when it is complete; nothing is written without a frame.
        rate: Frames a second.
        is_live: Whether it is there from the first frame on instead, and can be played whatever happens: up to its last
            whole second and some frames that the encoder holds, and after an error up to that.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(self, path: Path, rate: Fraction, *, is_live: bool = False) -> None:
        self._path, self._rate, self._is_live = path, rate, is_live
        self._output = ExitStack()
        self._file: BinaryIO | None = None
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> ClipWriter:
        """Ready for the first frame."""
        return self

    def __exit__(self, *raised: Any) -> bool | None:
        """Make the file complete; after an error it is removed, or what is live is kept."""
        return self._output.__exit__(*raised)

    def write(self, place: int, picture: Pixels) -> None:
        """Append a frame, which is shown until the place of the next one.

        Args:
            place: Of the frame, counted at the rate; larger than those before.
            picture: RGB uint8 `(H, W, 3)`, all of one size; an odd side gets one line of background more.
        """
        height, width = picture.shape[:2]
        if height % 2 or width % 2:  # a pixel of colour stands for 2x2 in yuv420p
            even = np.full((height + height % 2, width + width % 2, 3), BACKGROUND, np.uint8)
            even[:height, :width] = picture
            picture = even
        if self._file is None:
            self._file = self._begin(*picture.shape[:2])
        frame = _av().VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = place, 1 / self._rate
        with self._one_error(*picture.shape[:2]):
            self._container.mux(self._stream.encode(frame))
        if self._is_live:
            self._file.flush()

    def _begin(self, height: int, width: int) -> BinaryIO:
        file = self._output.enter_context((open_growing if self._is_live else open_whole)(self._path))
        self._container = _av().open(file, "w", format="mp4", options=_PLAYABLE_SO_FAR if self._is_live else {})
        held = {"rc-lookahead": "5"} if self._is_live else {}  # frames; 40 are 20 s of a network of 2 a second
        with self._one_error(height, width):
            self._stream = self._container.add_stream(
                "libx264", rate=self._rate, options={"crf": "18", **_COLORS, **held}
            )
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._output.push(self._end)
        return file

    @contextmanager
    def _one_error(self, height: int, width: int) -> Iterator[None]:
        """Turn what the encoder refuses into an `OutputError`; what the system refuses stays an OSError."""
        try:
            yield
        except OSError:
            raise
        except (_av().FFmpegError, ValueError) as error:  # the latter of an FFmpeg that was built without it
            raise OutputError(
                f"{self._path} cannot be written: H.264 cannot be made of frames of {height}x{width} "
                f"({printable(error)}); it takes up to 16384 pixels a side, and PyAV as pip installs it"
            ) from error

    def _end(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and not self._is_live:
            return
        with suppress(OSError, _av().FFmpegError) if kind else nullcontext():
            self._container.mux(self._stream.encode())
            self._container.close()


_COLORS = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
"""What the stream says of itself; players guess otherwise, by its size."""


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise InputError("videos need PyAV; install it with: pip install 'deeplabv3[video]'") from error
    return av
