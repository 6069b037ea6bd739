"""Which images are meant by what a user typed, and what their results are called."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from deeplabv3.data.cityscapes import IMAGES, frame_name
from deeplabv3.data.images import SUFFIXES
from deeplabv3.errors import InputError
from deeplabv3.files import is_file, is_folder
from deeplabv3.prediction.clips import SUFFIXES as VIDEO_SUFFIXES
from deeplabv3.prediction.clips import Live


def find_images(inputs: Sequence[str], leave_out: Sequence[Path] = ()) -> list[Path]:
    """All images that files, folders and glob patterns name, each once, those of a folder or pattern sorted.

    Args:
        inputs: Image files of any name, folders that are searched through, or patterns such as "clips/*/*.jpg".
        leave_out: Folders whose files are no inputs unless they are named themselves: those of the results.

    Raises:
        InputError: One of them names nothing.
    """
    results = {folder.resolve() for folder in leave_out}
    found: dict[Path, Path] = {}
    for text in inputs:
        path = Path(text)
        if is_folder(path):
            own = path / IMAGES  # of a data set, whose labels are no photos
            matches = sorted(file for file in files_below(own if own.is_dir() else path) if _is_input(file, results))
        elif is_file(path):
            matches = [path]
        else:
            matches = sorted(file for file in map(Path, glob.glob(text, recursive=True)) if _is_input(file, results))
        if not matches:
            what = "no image is found for" if glob.has_magic(text) or path.is_dir() else "there is no file or folder"
            endings = sorted({file.suffix for file in path.glob("*")} & set(VIDEO_SUFFIXES) if path.is_dir() else ())
            also = f", or '{text}/*{endings[0]}' for its videos" if endings else ""
            raise InputError(f"{what} {text!r}; give a file, a folder or a pattern of {', '.join(SUFFIXES)}{also}")
        for match in matches:
            found.setdefault(match.resolve(), match)
    return list(found.values())


def files_below(folder: Path) -> Iterator[Path]:
    """All files in a folder and those below, links to folders followed once each, hidden folders left out.

    Raises:
        InputError: A folder may not be looked into.
    """

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename} cannot be looked into: {error.strerror}; give yourself the right to read it"
        )

    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(root)
        if real in seen:  # a link leads to it, or round in a circle
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(root) / name for name in files)


def find_videos(
    inputs: Sequence[str], leave_out: tuple[Path, str] | None = None
) -> tuple[list[Path | Live], list[str]]:
    """The videos among what was typed, each once, and the rest, which means images.

    A video is named by its ending, in a path or a pattern; folders are searched for images alone. `-` is standard
    input, and a number that names no file is a camera.

    Args:
        inputs: What was typed.
        leave_out: Folder and ending of files that are no inputs unless they are named themselves: those of results.

    Raises:
        InputError: A name with the ending of a video names nothing, or nothing is sent to standard input.
    """
    videos: dict[Path | Live, Path | Live] = {}
    others = []
    for text in inputs:
        live = _live(text)
        if live is not None:
            videos[live] = live
            continue
        if Path(text).suffix.lower() not in VIDEO_SUFFIXES or is_folder(Path(text)):
            others.append(text)
            continue
        matches = [Path(text)]
        if not is_file(matches[0]):
            matches = sorted(
                path for path in map(Path, glob.glob(text, recursive=True)) if not _is_result(path, leave_out)
            )
        if not matches:
            raise InputError(f"no video is found for {text!r}; give a file or a pattern of {', '.join(VIDEO_SUFFIXES)}")
        for match in matches:
            videos.setdefault(match.resolve(), match)
    return list(videos.values()), others


def _live(text: str) -> Live | None:
    if text == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError(
                "nothing is sent to standard input; send images or a video, as in: "
                "ffmpeg -i drive.mp4 -f mpegts - | deeplabv3 predict - --model MODEL"
            )
        return Live("stdin")
    if text.isascii() and text.isdecimal() and not Path(text).exists():
        return Live(f"camera{int(text)}", int(text))
    return None


def result_stems(images: Sequence[Path], ending: str = ".png") -> list[str]:
    """What the results of each image are called: its name without ending and `_leftImg8bit`, which is unique.

    Images of one name in different folders get their folder's name before theirs.

    Args:
        images: Their paths.
        ending: What follows in the names of their results, for the error.

    Raises:
        InputError: Two results would still have one name.
    """
    stems = [frame_name(path) for path in images]
    counts = Counter(stems)
    stems = [
        stem if counts[stem] == 1 else f"{path.resolve().parent.name}_{stem}"
        for stem, path in zip(stems, images, strict=True)
    ]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        first, second = [path for stem, path in zip(stems, images, strict=True) if stem == twice[0]][:2]
        raise InputError(f"{first} and {second} would both be written as {twice[0]}{ending}; predict them separately")
    return stems


def _is_result(path: Path, results: tuple[Path, str] | None) -> bool:
    return results is not None and path.name.endswith(results[1]) and path.resolve().parent == results[0].resolve()


def _is_input(path: Path, results: set[Path]) -> bool:
    is_image = path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    return is_image and results.isdisjoint(path.resolve().parents)
