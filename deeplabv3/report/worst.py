"""The frames that were predicted worst, as pictures: image, label, prediction, and where the two differ."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.frames import read_image_of
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import IGNORE_INDEX, LabelSet
from deeplabv3.errors import DatasetError
from deeplabv3.evaluation.scores import FrameScore
from deeplabv3.prediction.render import BACKGROUND, FONT_PIXELS, INK, colorize, font_for, with_entries
from deeplabv3.report.markup import drawable, percents

PAGE_SIDE, FILE_SIDE, LEAST_FILE_SIDE = 640, 1024, 480
"""Longest side of a picture in the page, of one in a file, and what a small frame is at least enlarged to there."""

WRONG = (200, 38, 44)
IGNORED = (96, 106, 120), (134, 144, 157)
"""Colours of the error map: wrong pixels, and the two of the hatching over pixels whose label is ignored."""

_GHOST = 196, 250  # what black and white of the image become where it was predicted right
_HATCH_PIXELS = 10
CAPTIONS = ("image", "label", "prediction", "errors")


@dataclass(frozen=True)
class ShownFrame:
    """A frame with all that is shown of it.

    Attributes:
        score: Its name and scores.
        image: RGB uint8 `(H, W, 3)`.
        label_ids: uint8 `(H, W)`.
        prediction_ids: Label ids, uint8 `(H, W)`.
    """

    score: FrameScore
    image: Pixels
    label_ids: Pixels
    prediction_ids: Pixels


class Panels(NamedTuple):
    """The four pictures of a frame, at one size.

    Attributes:
        image: RGB uint8 `(h, w, 3)`.
        label: trainIds uint8 `(h, w)`, `IGNORE_INDEX` included.
        prediction: The same; an ignored id is `IGNORE_INDEX`.
        errors: RGB uint8 `(h, w, 3)`, see `error_map`.
    """

    image: Pixels
    label: Pixels
    prediction: Pixels
    errors: Pixels


def lowest(frames: Sequence[FrameScore], number: int) -> list[int]:
    """Positions of the frames with the lowest mIoU, the lowest first; those without any counted pixel are left out."""
    scored = [place for place, frame in enumerate(frames) if not math.isnan(frame.miou)]
    return sorted(scored, key=lambda place: (frames[place].miou, place))[:number]


def image_or_grey(sample: Sample, label_ids: Pixels) -> Pixels:
    """A frame's image, RGB uint8 `(H, W, 3)`; grey where it cannot be read or does not fit its label.

    A page must not fail for want of a picture: what it is about was counted before.
    """
    try:
        image = read_image_of(sample)
    except DatasetError:
        image = None
    fits = image is not None and image.shape[:2] == label_ids.shape
    return image if image is not None and fits else np.full((*label_ids.shape, 3), 128, np.uint8)


def panels_of(frame: ShownFrame, label_set: LabelSet, longest: int, at_least: int = 1) -> Panels:
    """The four pictures of a frame.

    Args:
        frame: Of any size.
        label_set: What its ids mean.
        longest: Frames are made smaller until no side is longer, in pixels.
        at_least: Frames whose longer side is shorter are enlarged by a whole number, to about this.
    """
    height, width = frame.label_ids.shape
    scale = min(1.0, longest / max(height, width))
    if max(height, width) < at_least:
        scale = at_least // max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = np.asarray(Image.fromarray(frame.image).resize(size, Image.Resampling.LANCZOS))
    label, prediction = (
        np.asarray(Image.fromarray(label_set.train_id_or_ignored[ids]).resize(size, Image.Resampling.NEAREST))
        for ids in (frame.label_ids, frame.prediction_ids)
    )
    return Panels(image, label, prediction, error_map(image, label, prediction))


def error_map(image: Pixels, label: Pixels, prediction: Pixels) -> Pixels:
    """Red where the prediction is wrong, a pale ghost of the image where it is right, hatching over ignored labels.

    Args:
        image: RGB uint8 `(H, W, 3)`.
        label: trainIds uint8 `(H, W)`.
        prediction: The same; `IGNORE_INDEX` is wrong wherever the label is not ignored.

    Returns:
        RGB uint8 `(H, W, 3)`.
    """
    black, white = _GHOST
    grey = np.asarray(Image.fromarray(image).convert("L")) / 255 * (white - black) + black
    pixels = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    ignored = label == IGNORE_INDEX
    pixels[(label != prediction) & ~ignored] = WRONG
    diagonal = np.add.outer(np.arange(label.shape[0]), np.arange(label.shape[1]))
    pixels[ignored] = IGNORED[0]
    pixels[ignored & (diagonal % _HATCH_PIXELS < _HATCH_PIXELS // 2)] = IGNORED[1]
    return pixels


def mask_png(prediction: Pixels, label_set: LabelSet) -> bytes:
    """TrainIds as a small PNG in the label set's colours; ignored pixels are black."""
    picture = Image.fromarray(prediction)
    picture.putpalette(colorize(np.arange(256, dtype=np.uint8), label_set).tobytes())
    return _encoded(picture, "PNG", optimize=True)


def photo_jpeg(picture: Pixels) -> bytes:
    """RGB `(H, W, 3)` as a JPEG whose colours keep their edges."""
    return _encoded(Image.fromarray(picture), "JPEG", quality=84, subsampling=0)


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def strip(frame: ShownFrame, label_set: LabelSet) -> Pixels:
    """A frame as one picture for a talk: name and scores, the four pictures two by two, and the classes in them.

    Returns:
        RGB uint8 `(H, W, 3)`; each of the four is at most `FILE_SIDE` pixels wide.
    """
    panels = panels_of(frame, label_set, FILE_SIDE, LEAST_FILE_SIDE)
    pictures = (panels.image, *(colorize(ids, label_set) for ids in panels[1:3]), panels.errors)
    height, width = panels.label.shape
    font_pixels = max(FONT_PIXELS, max(height, width) // 36)
    font, title_font = font_for("", font_pixels), font_for(frame.score.name, font_pixels * 4 // 3)
    gap, line, margin = font_pixels // 2, font_pixels * 3 // 2, font_pixels
    title = f"{drawable(frame.score.name)}   mIoU {percents(frame.score.miou)} %"
    column = max(width, *(math.ceil(font.getlength(caption)) for caption in CAPTIONS))
    needed = max(2 * column + gap, math.ceil(title_font.getlength(title)))
    top = margin + 2 * line
    canvas = Image.new("RGB", (needed + 2 * margin, top + 2 * (line + height + gap)), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((margin, margin), title, fill=INK, font=title_font)
    for place, (caption, picture) in enumerate(zip(CAPTIONS, pictures, strict=True)):
        x, y = margin + place % 2 * (column + gap), top + place // 2 * (line + height + gap)
        draw.text((x, y), caption, fill=INK, font=font)
        canvas.paste(Image.fromarray(picture), (x, y + line))
    seen = np.union1d(panels.label, panels.prediction).tolist()
    entries = [(row.color, drawable(row.name)) for row in label_set.evaluated if row.train_id in seen]
    keys = [(WRONG, "wrong"), (IGNORED[0], "label ignored")]
    return with_entries(np.asarray(canvas), entries + keys, font_pixels)
