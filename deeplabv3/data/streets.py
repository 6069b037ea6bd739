"""Synthetic street scenes in the folder layout of Cityscapes: data to learn, test and measure with, without a download.

    leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png     8-bit RGB
    gtFine/<split>/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png      8-bit label ids
                                                  ..._gtFine_instanceIds.png 16-bit, id * 1000 + number of the object
                                                  ..._gtFine_color.png       8-bit RGBA of the table's colours
                                                  ..._gtFine_polygons.json   what all three were drawn from

A scene is a street in perspective with houses, traffic and people. No class has a colour of its own: cars, buses, walls
and coats share their paints, roads and pavements their greys, so shape, texture and place have to be learned. Each
scene is a pure function of `(seed, height, width)`.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplabv3.config.checks import MAX_PIXELS
from deeplabv3.cores import given_or_cores
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.scenery.ground import (
    lay_out_street,
    make_camera,
    make_light,
    paint_bonnet,
    paint_ground,
    paint_sky,
)
from deeplabv3.data.scenery.layout import lay_out, paint_items
from deeplabv3.data.scenery.painting import Canvas, LabelledPolygon
from deeplabv3.errors import InputError
from deeplabv3.files import cannot_write

MIN_HEIGHT, MIN_WIDTH = 32, 64
"""The smallest picture, in pixels, in which a street can be told."""

_SPLITS = ("train", "val", "test")
_FEW_SCENES = 16
_MAX_SCENES = 1_000_000  # six digits of a file name


@dataclass(frozen=True)
class Scene:
    """One synthetic photograph and its annotation.

    Attributes:
        image: uint8 RGB `(H, W, 3)`.
        label_ids: uint8 `(H, W)`, label ids of the Cityscapes table.
        instance_ids: uint16 `(H, W)`, `id * 1000 + number` where single objects are told apart, else the label id.
        objects: Labelled polygons far to near; drawn in this order, they give both label maps.
    """

    image: npt.NDArray[np.uint8]
    label_ids: npt.NDArray[np.uint8]
    instance_ids: npt.NDArray[np.uint16]
    objects: tuple[LabelledPolygon, ...]


def draw_scene(seed: int | Sequence[int], *, height: int, width: int) -> Scene:
    """Draw one street scene, a pure function of its arguments.

    Args:
        seed: One or several integers >= 0, as `numpy.random.SeedSequence` takes them.
        height: Rows of the picture, at least 32.
        width: Columns of the picture, at least 64.

    Raises:
        InputError: The picture is too small or a seed is negative.
    """
    if height < MIN_HEIGHT or width < MIN_WIDTH:
        raise InputError(f"a street scene of {height}x{width} (height x width) is too small; use at least "
                         f"{MIN_HEIGHT}x{MIN_WIDTH}")  # fmt: skip
    seeds = [seed] if isinstance(seed, int | np.integer) else list(seed)
    if not seeds or min(seeds) < 0:
        raise InputError(f"seed {seed} cannot be used; give an integer of at least 0")
    rng = np.random.default_rng(np.random.SeedSequence(seeds))
    canvas = Canvas(make_camera(rng, height, width), make_light(rng), rng)
    street = lay_out_street(canvas)
    paint_sky(canvas)
    paint_ground(street)
    paint_items(lay_out(street))
    if rng.random() < 0.3:
        paint_bonnet(canvas)
    return Scene(
        image=canvas.finish(),
        label_ids=np.array(canvas.label_ids, np.uint8),
        instance_ids=np.array(canvas.instance_ids).astype(np.uint16),
        objects=tuple(canvas.objects),
    )


def write_streets(
    root: str | Path,
    *,
    num_train: int,
    num_val: int,
    num_test: int = 0,
    height: int = 256,
    width: int = 512,
    seed: int = 0,
    num_workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Write a data set of street scenes in the folder layout of Cityscapes.

    Scene `index` of a split is drawn from `(seed, split, index)`: the files do not depend on the number of scenes or
    processes, and no two splits share a scene. Unlike the real test split, this one is labelled, too.

    Args:
        root: A folder without `leftImg8bit` and `gtFine`; made where there is none.
        num_train: Scenes of the split "train", 0..1000000.
        num_val: Scenes of the split "val".
        num_test: Scenes of the split "test".
        height: Rows of each picture, at least 32.
        width: Columns of each picture, at least 64.
        seed: An integer >= 0.
        num_workers: Processes that draw; None takes one for each core, 0 and 1 draw in this process. They are spawned,
            so a script that wants several needs the usual `if __name__ == "__main__"`.
        progress: Called in this process with the scenes written so far and in all.

    Raises:
        InputError: A number is out of range, `root` already holds a data set, or it cannot be written to.
    """
    root = Path(root)
    counts = (num_train, num_val, num_test)
    _check(root, counts, height, width, seed)
    names = [(split, index) for split, count in enumerate(counts) for index in range(count)]
    try:
        for split in {split for split, _ in names}:
            for folder in ("leftImg8bit", "gtFine"):
                (root / folder / _SPLITS[split] / f"streets{split}").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(Path(error.filename or root), error) from error
    write = partial(_write_scene, root, seed, height, width)
    for done, _ in enumerate(_in_processes(write, names, given_or_cores(num_workers)), 1):
        if progress is not None:
            progress(done, len(names))


def _in_processes(
    write: Callable[[tuple[int, int]], None], names: list[tuple[int, int]], num_workers: int
) -> Iterator[None]:
    """Write scenes one after the other, or in several processes where starting them pays."""
    if num_workers <= 1 or len(names) <= _FEW_SCENES:
        yield from map(write, names)
        return
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(write, names, chunksize=4)
        except BrokenExecutor as error:
            raise InputError(
                "a process that draws was killed, as the system does where memory runs out; remove what is written, "
                "and end other programs or draw smaller scenes"
            ) from error


def _check(root: Path, counts: tuple[int, int, int], height: int, width: int, seed: int) -> None:
    if min(counts) < 0 or sum(counts) == 0 or max(counts) > _MAX_SCENES:
        raise InputError(f"{counts[0]} train, {counts[1]} val and {counts[2]} test scenes cannot be written; "
                         f"give numbers of 0..{_MAX_SCENES} that are not all 0")  # fmt: skip
    if height < MIN_HEIGHT or width < MIN_WIDTH:
        raise InputError(f"a size of {height}x{width} (height x width) is too small for a street; use at least "
                         f"{MIN_HEIGHT}x{MIN_WIDTH}")  # fmt: skip
    if height * width > MAX_PIXELS:
        raise InputError(f"a size of {height}x{width} (height x width) has more than the {MAX_PIXELS:,} pixels that "
                         "are read; draw smaller scenes")  # fmt: skip
    if seed < 0:
        raise InputError(f"seed {seed} cannot be used; give an integer of at least 0")
    for folder in (root / "leftImg8bit", root / "gtFine"):
        try:
            occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        except OSError as error:
            raise cannot_write(Path(error.filename or root), error) from error
        if occupied:
            raise InputError(f"{root} already holds a data set ({folder.name}); choose an empty folder")


def _write_scene(root: Path, seed: int, height: int, width: int, name: tuple[int, int]) -> None:
    """Draw and write the five files of scene `(split, index)`."""
    split, index = name
    scene = draw_scene((seed, split, index), height=height, width=width)
    city = f"streets{split}"
    stem = f"{city}_{index:06d}_{0:06d}"
    labels = root / "gtFine" / _SPLITS[split] / city
    try:
        photograph = root / "leftImg8bit" / _SPLITS[split] / city / f"{stem}_leftImg8bit.png"
        Image.fromarray(scene.image).save(photograph, compress_level=1)
        Image.fromarray(scene.label_ids).save(labels / f"{stem}_gtFine_labelIds.png", compress_level=1)
        Image.fromarray(scene.instance_ids).save(labels / f"{stem}_gtFine_instanceIds.png", compress_level=1)
        colors = Image.fromarray(_color_table()[scene.label_ids])
        colors.save(labels / f"{stem}_gtFine_color.png", compress_level=1)
        (labels / f"{stem}_gtFine_polygons.json").write_text(_to_json(scene), encoding="utf-8")
    except OSError as error:
        raise cannot_write(Path(error.filename or root), error) from error


def _color_table() -> npt.NDArray[np.uint8]:
    """uint8 `(256, 4)`: RGBA of each label id."""
    table = np.zeros((256, 4), np.uint8)
    table[:, 3] = 255
    for row in CITYSCAPES.classes:
        table[row.id, :3] = row.color
    return table


def _to_json(scene: Scene) -> str:
    height, width = scene.label_ids.shape
    objects = [{"label": item.label, "polygon": item.polygon} for item in scene.objects]
    return json.dumps({"imgHeight": height, "imgWidth": width, "objects": objects})
