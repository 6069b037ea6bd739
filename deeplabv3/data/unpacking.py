"""A packed split as plain files again: the same pixels, and the same label files byte for byte."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path

from PIL import Image

from deeplabv3.cores import given_or_cores
from deeplabv3.data.cityscapes import IMAGES, LABELS
from deeplabv3.data.images import read_image
from deeplabv3.data.loading import read_in_order
from deeplabv3.data.packed import PackedSplit, Place, image_digest, read_packed_file, read_packed_image
from deeplabv3.errors import DatasetError, OutputError
from deeplabv3.files import write_whole


def unpack_split(
    packed: PackedSplit, out: Path, *, num_workers: int | None = None, progress: Callable[[int], None] | None = None
) -> None:
    """Write the files that a packed split was made from; those that are there and hold the same stay.

    Images become PNGs, whatever they were. What packing leaves behind (colours, polygons) does not come back.

    Args:
        packed: The split.
        out: The plain data set.
        num_workers: Processes that encode; None takes one for each core.
        progress: Called with 1 after each frame.

    Raises:
        DatasetError: A frame is damaged.
        OutputError: A file is there and holds something else, or cannot be written.
    """
    workers = given_or_cores(num_workers)
    for _ in read_in_order(partial(unpack_frame, out=out), packed.places(), workers, attrgetter("frame.name")):
        if progress is not None:
            progress(1)


def require_own_folder(splits: Sequence[PackedSplit], out: Path) -> None:
    """Refuse to unpack into a folder in which a split has other frames, which would be mixed with those.

    Args:
        splits: All that will be unpacked there.
        out: The plain data set.

    Raises:
        OutputError: A file of another data set is there.
    """
    for packed in splits:
        own = {out / file.path for frame in packed.frames for file in frame.files}
        own |= {path.with_suffix(".png") for path in own}
        kinds = [(IMAGES, "*"), *((LABELS, f"*{kind}.png") for kind in ("labelIds", "labelTrainIds", "instanceIds"))]
        for folder, pattern in kinds:
            for path in sorted((out / folder / packed.folder.name).rglob(pattern)):
                if path not in own and path.is_file() and not path.name.startswith("."):
                    raise OutputError(f"{path} is there already, of another data set; choose a folder of its own")


def unpack_frame(place: Place, out: Path) -> None:
    """Write the files of one frame.

    Raises:
        DatasetError: It is damaged.
        OutputError: A file is there and holds something else, or cannot be written.
    """
    frame = place.frame
    image = read_packed_image(place)
    original, path = out / frame.image.path, (out / frame.image.path).with_suffix(".png")
    if image_digest(image) != frame.image_digest:
        raise DatasetError(
            f"the pixels of {frame.name} in {place.folder} do not fit their checksum; pack it again with --overwrite"
        )
    if original != path and original.exists():  # a PNG beside it would be the same frame twice
        if hashlib.sha256(original.read_bytes()).hexdigest() != frame.image.sha256:
            raise _holds_something_else(original)
    elif not path.exists():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        write_whole(path, file.getvalue())
    elif image_digest(read_image(path)) != frame.image_digest:
        raise _holds_something_else(path)
    for stored in frame.files[1:]:
        content = read_packed_file(place, stored)
        path = out / stored.path
        if hashlib.sha256(content).hexdigest() != stored.sha256:
            raise DatasetError(
                f"{stored.path} in {place.folder} does not fit its checksum; pack it again with --overwrite"
            )
        if not path.exists():
            write_whole(path, content)
        elif path.read_bytes() != content:
            raise _holds_something_else(path)


def _holds_something_else(path: Path) -> OutputError:
    return OutputError(f"{path} is there already and holds something else; remove it, or choose another folder")
