"""Predictions as pictures: colour mask, overlay, legend."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import IGNORE_INDEX, LabelSet
from deeplabv3.files import write_whole

FONT_PIXELS = 13
_ROW_PIXELS = 20
_SWATCH_PIXELS = 12
_LEAST_SHARE = 0.0005  # what would be written as 0.0 %
BACKGROUND, INK = (250, 250, 250), (40, 40, 40)

Color = tuple[int, int, int]


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
    entries = [
        (label_set.evaluated[train_id].color, f"{label_set.names[train_id]} {100 * share:.1f} %")
        for train_id, share in class_shares(prediction, label_set).items()
        if share >= _LEAST_SHARE
    ]
    return with_entries(picture, entries)


def with_entries(picture: Pixels, entries: Sequence[tuple[Color, str]], font_pixels: int = FONT_PIXELS) -> Pixels:
    """A picture, unchanged, with colours and what they stand for below it.

    Args:
        picture: RGB uint8 `(H, W, 3)`.
        entries: A colour, RGB of 0..255, and its text.
        font_pixels: Height of the text's font.

    Returns:
        RGB uint8, higher than the picture, and wider if the picture is narrower than one entry.
    """
    font = font_for("".join(text for _, text in entries), font_pixels)
    side, row, gap = (pixels * font_pixels // FONT_PIXELS for pixels in (_SWATCH_PIXELS, _ROW_PIXELS, 4))
    cell = max((int(font.getlength(text)) for _, text in entries), default=0) + side + 5 * gap + 2
    width = max(picture.shape[1], cell)
    columns = max(1, width // cell)
    rows = -(-len(entries) // columns)
    canvas = Image.new("RGB", (width, picture.shape[0] + rows * row + 2 * gap), BACKGROUND)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for place, (color, text) in enumerate(entries):
        x, y = 2 * gap + place % columns * cell, picture.shape[0] + gap + place // columns * row
        draw.rectangle((x, y + gap, x + side, y + gap + side), fill=color, outline=INK)
        draw.text((x + side + gap + gap // 2, y + gap // 2), text, fill=INK, font=font)
    return np.asarray(canvas)


def font_for(text: str, pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of a height in pixels that has the letters of a text, as far as one is there."""
    if not text.isascii():  # Pillow's own has no more
        found = find_spec("matplotlib")
        for folder in (found and found.submodule_search_locations) or ():
            with suppress(OSError):
                return ImageFont.truetype(Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", pixels)
    return ImageFont.load_default(pixels)


def save_picture(path: Path, picture: Pixels) -> None:
    """Write RGB `(H, W, 3)` or single-channel `(H, W)` uint8 as PNG.

    Raises:
        OutputError: It cannot be written.
    """
    write_whole(path, png_of(picture))


def png_of(picture: Pixels) -> bytes:
    """RGB `(H, W, 3)` or single-channel `(H, W)` uint8 as the bytes of a PNG, which holds nothing but the pixels."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()
