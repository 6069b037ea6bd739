"""Predictions as pictures: colour mask, overlay, legend."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import IGNORE_INDEX, LabelSet
from deeplabv3.files import write_whole

_FONT_PIXELS = 13
_ROW_PIXELS = 20
_SWATCH_PIXELS = 12
_LEAST_SHARE = 0.0005  # what would be written as 0.0 %
_BACKGROUND, _INK = (250, 250, 250), (40, 40, 40)


def colorize(prediction: Pixels, label_set: LabelSet) -> Pixels:
    """TrainIds `(H, W)` in the label set's colours, RGB uint8 `(H, W, 3)`; ignored pixels are black."""
    colors = np.zeros((256, 3), np.uint8)
    colors[: label_set.num_classes] = label_set.palette
    return colors[prediction]


def overlay(image: Pixels, color: Pixels, opacity: float) -> Pixels:
    """A colour mask laid over its image, all RGB uint8 `(H, W, 3)`; opacity 0 is the image, 1 the mask."""
    return np.asarray(Image.blend(Image.fromarray(image), Image.fromarray(color), opacity))


def class_shares(prediction: Pixels, label_set: LabelSet) -> dict[int, float]:
    """Share of the counted pixels that each occurring trainId has, the largest first."""
    counts = np.bincount(prediction[prediction != IGNORE_INDEX].ravel(), minlength=label_set.num_classes)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda train_id: -counts[train_id])
    return {train_id: float(counts[train_id] / counts.sum()) for train_id in order}


def with_legend(picture: Pixels, prediction: Pixels, label_set: LabelSet) -> Pixels:
    """A picture of the prediction, unchanged, with the classes that occur and their shares below it.

    Classes that would be shown with 0.0 % are left out.

    Args:
        picture: RGB uint8 `(H, W, 3)`.
        prediction: trainIds uint8 `(H, W)`.
        label_set: Names and colours.

    Returns:
        RGB uint8, higher than the picture, and wider if the picture is narrower than one entry.
    """
    font = ImageFont.load_default(_FONT_PIXELS)
    entries = [
        (label_set.evaluated[train_id].color, f"{label_set.names[train_id]} {100 * share:.1f} %")
        for train_id, share in class_shares(prediction, label_set).items()
        if share >= _LEAST_SHARE
    ]
    cell = max((int(font.getlength(text)) for _, text in entries), default=0) + _SWATCH_PIXELS + 22
    width = max(picture.shape[1], cell)
    columns = max(1, width // cell)
    rows = -(-len(entries) // columns)
    canvas = Image.new("RGB", (width, picture.shape[0] + rows * _ROW_PIXELS + 8), _BACKGROUND)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for place, (color, text) in enumerate(entries):
        x, y = 8 + place % columns * cell, picture.shape[0] + 4 + place // columns * _ROW_PIXELS
        draw.rectangle((x, y + 4, x + _SWATCH_PIXELS, y + 4 + _SWATCH_PIXELS), fill=color, outline=_INK)
        draw.text((x + _SWATCH_PIXELS + 6, y + 2), text, fill=_INK, font=font)
    return np.asarray(canvas)


def save_picture(path: Path, picture: Pixels) -> None:
    """Write RGB `(H, W, 3)` or single-channel `(H, W)` uint8 as PNG.

    Raises:
        OutputError: It cannot be written.
    """
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    write_whole(path, content.getvalue())
